//! Where does a request begin, and where does it end?
//!
//! hyper's parser is lenient where RFC 9112 lets it be, and drops what shows that two readers could disagree:
//! a bare line feed, a second length. Requests are smuggled through such gaps, so every byte passes here first
//! and no request goes on unless its framing can be read in one way only. What a name or a value may hold is
//! left to hyper, which is strict in that.

use http::StatusCode;

use crate::{config::ListenerLimits, telemetry::traffic::Limit};

/// Follows a connection's bytes from one request to the next.
#[derive(Debug)]
pub struct Framing {
    expects: Expects,
    /// Bytes of an unfinished line or head that have been looked at.
    seen: usize,
    limits: Limits,
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    request_line: usize,
    head: usize,
    headers: usize,
}

/// What comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    /// A request's head. One empty line may stand before it (RFC 9112, section 2.2).
    Head {
        may_be_empty: bool,
    },
    /// So many bytes of a body.
    Body(u64),
    /// The line with the size of a chunk.
    ChunkSize,
    /// So many bytes of a chunk, and the end of its line.
    Chunk(u64),
    ChunkEnd,
    /// A trailer or the empty line after them; so many bytes of them have come.
    Trailer(usize),
}

/// Why a connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("a line does not end in CR LF")]
    LineEnd,
    #[error("the request line is malformed")]
    RequestLine,
    #[error("the version of HTTP is not spoken here")]
    Version,
    #[error("a header is malformed")]
    Header,
    #[error("the length of the body is malformed or stated twice")]
    Length,
    #[error("a transfer coding other than `chunked`, or one in HTTP/1.0")]
    TransferCoding,
    #[error("more than one `Host`")]
    Host,
    #[error("a chunk is malformed")]
    Chunk,
    #[error("the request line is too long")]
    LongRequestLine,
    #[error("the head is too long")]
    LongHead,
    #[error("too many headers")]
    ManyHeaders,
    #[error("too long trailers")]
    LongTrailers,
}

impl Fault {
    pub fn status(self) -> StatusCode {
        match self {
            Self::LineEnd
            | Self::RequestLine
            | Self::Header
            | Self::Length
            | Self::TransferCoding
            | Self::Host
            | Self::Chunk => StatusCode::BAD_REQUEST,
            Self::Version => StatusCode::HTTP_VERSION_NOT_SUPPORTED,
            Self::LongRequestLine => StatusCode::URI_TOO_LONG,
            Self::LongHead | Self::ManyHeaders | Self::LongTrailers => {
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE
            }
        }
    }

    /// What of it there was too much, if that is what is wrong.
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::LineEnd
            | Self::RequestLine
            | Self::Version
            | Self::Header
            | Self::Length
            | Self::TransferCoding
            | Self::Host
            | Self::Chunk => None,
            Self::LongRequestLine => Some(Limit::RequestLine),
            Self::LongHead | Self::LongTrailers => Some(Limit::Headers),
            Self::ManyHeaders => Some(Limit::HeaderCount),
        }
    }
}

/// The line with a chunk's size, extensions included.
const CHUNK_LINE: usize = 1024;

impl Framing {
    pub fn new(limits: &ListenerLimits) -> Self {
        let limits = Limits {
            request_line: limits.request_line.as_usize(),
            head: limits.headers.as_usize(),
            headers: limits.header_count,
        };
        Self { expects: Expects::Head { may_be_empty: true }, seen: 0, limits }
    }

    /// Whether a request's head is what comes next.
    pub fn expects_head(&self) -> bool {
        matches!(self.expects, Expects::Head { .. })
    }

    /// Looks at what has come, and says how many bytes of it can go on. The rest is to be given again, with
    /// what comes after it. A head goes on in one piece. What comes before a fault goes on; the fault is reported
    /// when it is what comes first.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let mut passed = 0;
        while passed < bytes.len() {
            match self.step(&bytes[passed..]) {
                Ok(0) => break,
                Ok(took) => passed += took,
                Err(fault) if passed == 0 => return Err(fault),
                Err(_) => break,
            }
        }
        Ok(passed)
    }

    /// Takes one part of a message, if all of it is there. A fault changes nothing.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        Ok(match self.expects {
            Expects::Head { may_be_empty } => self.head(bytes, may_be_empty)?,
            Expects::Body(left) => self.take(bytes, left, |left| match left {
                0 => Expects::Head { may_be_empty: true },
                left => Expects::Body(left),
            }),
            Expects::ChunkSize => self.chunk_size(bytes)?,
            Expects::Chunk(left) => self.take(bytes, left, |left| match left {
                0 => Expects::ChunkEnd,
                left => Expects::Chunk(left),
            }),
            Expects::ChunkEnd => self.chunk_end(bytes)?,
            Expects::Trailer(before) => self.trailer(bytes, before)?,
        })
    }

    fn take(&mut self, bytes: &[u8], left: u64, then: impl FnOnce(u64) -> Expects) -> usize {
        let took = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.expects = then(left - took as u64);
        took
    }

    /// A whole line with its end, if it is there.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        match memchr::memchr(b'\n', &bytes[self.seen..]) {
            None => {
                self.seen = bytes.len();
                Ok(None)
            }
            Some(index) => {
                let line = &bytes[..=self.seen + index];
                self.seen = 0;
                line.ends_with(b"\r\n").then_some(Some(line)).ok_or(Fault::LineEnd)
            }
        }
    }

    fn head(&mut self, bytes: &[u8], may_be_empty: bool) -> Result<usize, Fault> {
        if may_be_empty && bytes.starts_with(b"\r\n") {
            self.expects = Expects::Head { may_be_empty: false };
            return Ok(2);
        }
        if may_be_empty && bytes == b"\r" {
            return Ok(0);
        }
        let Some(end) = self.end_of_head(bytes)? else { return Ok(0) };
        self.seen = 0;
        self.expects = match read_head(&bytes[..end], self.limits)? {
            Length::None => Expects::Head { may_be_empty: true },
            Length::Known(length) => Expects::Body(length),
            Length::Chunked => Expects::ChunkSize,
        };
        Ok(end)
    }

    /// The length of the head, if all of it is there. Every line of it is seen to end well.
    fn end_of_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Fault> {
        // What is too long is so however it comes: nothing behind a limit is looked at.
        let line = self.limits.request_line + 2;
        if bytes.len() > line && memchr::memchr(b'\n', &bytes[..line]).is_none() {
            return Err(Fault::LongRequestLine);
        }
        let most = bytes.len().min(self.limits.head);
        for index in memchr::memchr_iter(b'\n', &bytes[self.seen.min(most)..most]) {
            let index = self.seen + index;
            if index == 0 || bytes[index - 1] != b'\r' {
                return Err(Fault::LineEnd);
            }
            if index < 2 {
                return Err(Fault::RequestLine);
            }
            if bytes[..index - 1].ends_with(b"\r\n") {
                return Ok(Some(index + 1));
            }
        }
        // The last byte may be the CR of a line end, which is looked at with its LF.
        self.seen = bytes.len();
        if bytes.len() >= self.limits.head {
            return Err(Fault::LongHead);
        }
        Ok(None)
    }

    /// RFC 9112, section 7.1: `1*HEXDIG`, and extensions that mean nothing here but must be written as such.
    fn chunk_size(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        let Some(line) = self.line(&bytes[..bytes.len().min(CHUNK_LINE)])? else {
            return if bytes.len() > CHUNK_LINE { Err(Fault::Chunk) } else { Ok(0) };
        };
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let extension = &line[digits..line.len() - 2];
        if !(1..=16).contains(&digits) || !are_extensions(extension) {
            return Err(Fault::Chunk);
        }
        let size = line[..digits].iter().try_fold(0_u64, |size, &digit| {
            let digit = u64::from(char::from(digit).to_digit(16)?);
            size.checked_mul(16)?.checked_add(digit)
        });
        self.expects = match size.ok_or(Fault::Chunk)? {
            0 => Expects::Trailer(0),
            size => Expects::Chunk(size),
        };
        Ok(line.len())
    }

    fn chunk_end(&mut self, bytes: &[u8]) -> Result<usize, Fault> {
        match bytes {
            b"\r" => Ok(0),
            [b'\r', b'\n', ..] => {
                self.expects = Expects::ChunkSize;
                Ok(2)
            }
            _ => Err(Fault::Chunk),
        }
    }

    fn trailer(&mut self, bytes: &[u8], before: usize) -> Result<usize, Fault> {
        let room = self.limits.head.saturating_sub(before);
        let Some(line) = self.line(&bytes[..bytes.len().min(room)])? else {
            return if bytes.len() > room { Err(Fault::LongTrailers) } else { Ok(0) };
        };
        let length = before + line.len();
        self.expects = match line {
            b"\r\n" => Expects::Head { may_be_empty: true },
            [b' ' | b'\t', ..] => return Err(Fault::Header),
            _ => Expects::Trailer(length),
        };
        Ok(line.len())
    }
}

/// How long the body after a head is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    None,
    Known(u64),
    Chunked,
}

/// Reads what bears on the framing. Each line of `head` ends in CR LF, the last is empty.
fn read_head(head: &[u8], limits: Limits) -> Result<Length, Fault> {
    let mut lines = memchr::memchr_iter(b'\n', head);
    let request_line_end = lines.next().expect("a head has a first line");
    let is_http_10 = read_request_line(&head[..request_line_end - 1], limits)?;
    let mut length = None;
    let mut is_chunked = false;
    let mut has_host = false;
    let mut count = 0;
    let mut start = request_line_end + 1;
    for end in lines {
        let line = &head[start..end - 1];
        start = end + 1;
        // Only names with these letters bear on the framing; the rest is for hyper.
        match line.first() {
            None => break,
            // Line folding, RFC 9112, section 5.2; or no name at all.
            Some(b' ' | b'\t' | b':') => return Err(Fault::Header),
            Some(b'c' | b'C') => {
                if let Some(value) = value_of(line, b"content-length")?
                    && length.replace(read_length(value)?).is_some()
                {
                    return Err(Fault::Length);
                }
            }
            Some(b't' | b'T') => {
                if let Some(value) = value_of(line, b"transfer-encoding")? {
                    if is_chunked || is_http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                        return Err(Fault::TransferCoding);
                    }
                    is_chunked = true;
                }
            }
            Some(b'h' | b'H') => {
                if value_of(line, b"host")?.is_some() && std::mem::replace(&mut has_host, true) {
                    return Err(Fault::Host);
                }
            }
            Some(_) => {}
        }
        count += 1;
    }
    if count > limits.headers {
        return Err(Fault::ManyHeaders);
    }
    match (length, is_chunked) {
        (Some(_), true) => Err(Fault::Length),
        (Some(0) | None, false) => Ok(Length::None),
        (Some(length), false) => Ok(Length::Known(length)),
        (None, true) => Ok(Length::Chunked),
    }
}

/// RFC 9112, section 3. Whether the version is 1.0.
fn read_request_line(line: &[u8], limits: Limits) -> Result<bool, Fault> {
    if line.len() > limits.request_line {
        return Err(Fault::LongRequestLine);
    }
    let mut parts = line.split(|&byte| byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(Fault::RequestLine);
    };
    // A fragment is not part of a target; hyper would drop it in silence.
    let target_is_plain = target.iter().all(|byte| *byte > b' ' && *byte != 0x7f && *byte != b'#');
    // Methods are case-sensitive (RFC 9110, section 9.1), and servers that do not mind would take `get` for what
    // no route had been asked about.
    let method_is_plain = !method.is_empty() && !method.iter().any(u8::is_ascii_lowercase);
    if !method_is_plain || target.is_empty() || !target_is_plain {
        return Err(Fault::RequestLine);
    }
    match version {
        b"HTTP/1.1" => Ok(false),
        b"HTTP/1.0" => Ok(true),
        [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
            if major.is_ascii_digit() && minor.is_ascii_digit() =>
        {
            Err(Fault::Version)
        }
        _ => Err(Fault::RequestLine),
    }
}

/// The value of a header line, if its name is this one.
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Result<Option<&'a [u8]>, Fault> {
    let Some((start, rest)) = line.split_at_checked(name.len()) else { return Ok(None) };
    if !start.eq_ignore_ascii_case(name) {
        return Ok(None);
    }
    match rest {
        [b':', value @ ..] => Ok(Some(trim(value))),
        // White space before the colon: RFC 9112, section 5.1.
        [b' ' | b'\t', ..] | [] => Err(Fault::Header),
        _ => Ok(None),
    }
}

/// RFC 9112, section 7.1.1: each a name, and a value that is a token or a string in quotes. The next hop does not see
/// them, but a reader that found the end of such a line elsewhere would find that of the chunk elsewhere, too.
fn are_extensions(mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let Some(rest) = trim_start(bytes).strip_prefix(b";") else { return false };
        let Some(rest) = after_token(trim_start(rest)) else { return false };
        bytes = match trim_start(rest).strip_prefix(b"=").map(trim_start) {
            None => rest,
            Some(value) => match after_token(value).or_else(|| after_quoted(value)) {
                Some(rest) => rest,
                None => return false,
            },
        };
    }
    true
}

/// What comes behind a token (RFC 9110, section 5.6.2).
fn after_token(bytes: &[u8]) -> Option<&[u8]> {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let length = bytes.iter().take_while(is_part).count();
    (length > 0).then(|| &bytes[length..])
}

/// What comes behind a string in quotes (RFC 9110, section 5.6.4).
fn after_quoted(bytes: &[u8]) -> Option<&[u8]> {
    let is_text = |byte: u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    let mut rest = bytes.strip_prefix(b"\"")?;
    loop {
        match rest {
            [b'"', after @ ..] => return Some(after),
            [b'\\', byte, after @ ..] if is_text(*byte) => rest = after,
            [byte, after @ ..] if is_text(*byte) && *byte != b'\\' => rest = after,
            _ => return None,
        }
    }
}

/// Without the white space of RFC 9110, section 5.6.3, before it.
fn trim_start(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    value
}

/// Without the white space of RFC 9110, section 5.6.3, around it. Not more: a vertical tab is none.
fn trim(value: &[u8]) -> &[u8] {
    let mut value = trim_start(value);
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// RFC 9110, section 8.6: `1*DIGIT`, once.
fn read_length(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || value.len() > 19 || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Length);
    }
    Ok(value.iter().fold(0, |length, digit| length * 10 + u64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framing() -> Framing {
        Framing::new(&ListenerLimits::default())
    }

    /// How the bytes come out if they come in all at once.
    fn whole(bytes: &[u8]) -> Result<usize, Fault> {
        all_of(&mut framing(), bytes)
    }

    fn all_of(framing: &mut Framing, bytes: &[u8]) -> Result<usize, Fault> {
        let passed = framing.advance(bytes)?;
        framing.advance(&bytes[passed..]).map(|more| passed + more)
    }

    /// The same if they come one by one.
    fn piecemeal(bytes: &[u8]) -> Result<usize, Fault> {
        let mut framing = framing();
        let mut passed = 0;
        for end in 1..=bytes.len() {
            passed += all_of(&mut framing, &bytes[passed..end])?;
        }
        Ok(passed)
    }

    #[test]
    fn a_request_passes_as_a_whole() {
        for request in [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
            "POST / HTTP/1.1\r\ncontent-length:\t3 \r\n\r\na\nc",
            "POST / HTTP/1.1\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3 ; a = b;c;d=\"e\\\"; [\"\r\nabc\r\n0\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\nA\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
            "GET / HTTP/1.1\r\nContent-Length-X: x\r\nTransfer-Encodings: x\r\nHosts: a\r\nHost: b\r\n\r\n",
            "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        ] {
            assert_eq!(whole(request.as_bytes()), Ok(request.len()), "{request:?}");
            assert_eq!(piecemeal(request.as_bytes()), Ok(request.len()), "{request:?}");
        }
    }

    #[test]
    fn what_two_readers_could_see_differently_does_not_pass() {
        for (request, expected) in [
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Fault::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\n\r\n", Fault::LineEnd),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", Fault::LineEnd),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::LineEnd),
            ("\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Fault::RequestLine),
            ("GET  / HTTP/1.1\r\n\r\n", Fault::RequestLine),
            ("GET / x HTTP/1.1\r\n\r\n", Fault::RequestLine),
            ("GET /\tHTTP/1.1\r\n\r\n", Fault::RequestLine),
            ("GET /#f HTTP/1.1\r\n\r\n", Fault::RequestLine),
            ("GET / HTTP/1.1 \r\n\r\n", Fault::RequestLine),
            (" GET / HTTP/1.1\r\n\r\n", Fault::RequestLine),
            ("get / HTTP/1.1\r\n\r\n", Fault::RequestLine),
            ("GET /\r\n\r\n", Fault::RequestLine),
            ("GET / http/1.1\r\n\r\n", Fault::RequestLine),
            ("GET / HTTP/1.10\r\n\r\n", Fault::RequestLine),
            ("GET / HTTP/1.2\r\n\r\n", Fault::Version),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Fault::Version),
            ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Fault::Header),
            ("GET / HTTP/1.1\r\nX: a\r\n\tb\r\n\r\n", Fault::Header),
            ("GET / HTTP/1.1\r\n: a\r\n\r\n", Fault::Header),
            ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Fault::Header),
            ("GET / HTTP/1.1\r\nContent-Length : 1\r\n\r\n", Fault::Header),
            ("GET / HTTP/1.1\r\nTransfer-Encoding\t: chunked\r\n\r\n", Fault::Header),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Fault::Host),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nContent-Length: 0x1\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nContent-Length:\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nContent-Length: 1\x0b\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n", Fault::Length),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", Fault::TransferCoding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: identity\r\n\r\n", Fault::TransferCoding),
            ("GET / HTTP/1.1\r\nTransfer-Encoding: \x0bchunked\r\n\r\n", Fault::TransferCoding),
            (
                "GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
                Fault::TransferCoding,
            ),
            ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Fault::TransferCoding),
        ] {
            assert_eq!(whole(request.as_bytes()), Err(expected), "{request:?}");
            assert_eq!(piecemeal(request.as_bytes()), Err(expected), "{request:?}");
        }
    }

    #[test]
    fn what_comes_before_a_fault_goes_on() {
        const GOOD: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let bytes = [GOOD, b"GET / HTTP/1.1\nHost: a\n\n"].concat();
        let mut framing = framing();
        assert_eq!(framing.advance(&bytes), Ok(GOOD.len()));
        for _ in 0..2 {
            assert_eq!(framing.advance(&bytes[GOOD.len()..]), Err(Fault::LineEnd));
        }
    }

    #[test]
    fn a_chunk_is_written_in_one_way_only() {
        const HEAD: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for (body, expected) in [
            ("3\nabc\r\n0\r\n\r\n", Fault::LineEnd),
            ("3\r\nabc\n0\r\n\r\n", Fault::Chunk),
            ("3\r\nabcd\r\n0\r\n\r\n", Fault::Chunk),
            (" 3\r\nabc\r\n", Fault::Chunk),
            ("3 \r\nabc\r\n", Fault::Chunk),
            ("+3\r\nabc\r\n", Fault::Chunk),
            ("0x3\r\nabc\r\n", Fault::Chunk),
            ("\r\n", Fault::Chunk),
            (";x\r\n", Fault::Chunk),
            ("3 x\r\n", Fault::Chunk),
            ("3;a\rb\r\n", Fault::Chunk),
            ("3;\r\nabc\r\n", Fault::Chunk),
            ("3; \r\nabc\r\n", Fault::Chunk),
            ("3;;a\r\nabc\r\n", Fault::Chunk),
            ("3;a;\r\nabc\r\n", Fault::Chunk),
            ("3;bad[=x\r\nabc\r\n", Fault::Chunk),
            ("3;a=\r\nabc\r\n", Fault::Chunk),
            ("3;a=b c\r\nabc\r\n", Fault::Chunk),
            ("3;a=\"b\r\nabc\r\n", Fault::Chunk),
            ("3;a=\"b\\\"\r\nabc\r\n", Fault::Chunk),
            ("3;a=\"b\"c\r\nabc\r\n", Fault::Chunk),
            ("3;a \r\nabc\r\n", Fault::Chunk),
            ("10000000000000000\r\n", Fault::Chunk),
            ("0\r\nX: y\n\r\n", Fault::LineEnd),
            ("0\r\n X: y\r\n\r\n", Fault::Header),
        ] {
            let request = format!("{HEAD}{body}");
            assert_eq!(whole(request.as_bytes()), Err(expected), "{body:?}");
            assert_eq!(piecemeal(request.as_bytes()), Err(expected), "{body:?}");
        }
        let endless = format!("{HEAD}1;{}", "x".repeat(2000));
        assert_eq!(whole(endless.as_bytes()), Err(Fault::Chunk));
    }

    #[test]
    fn a_head_has_an_end() {
        let long_line = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(8 << 10));
        assert_eq!(whole(long_line.as_bytes()), Err(Fault::LongRequestLine));
        assert_eq!(whole(&long_line.as_bytes()[..8200]), Err(Fault::LongRequestLine), "before it is over");
        let long_head = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "a".repeat(32 << 10));
        assert_eq!(whole(long_head.as_bytes()), Err(Fault::LongHead));
        assert_eq!(whole(&long_head.as_bytes()[..32 << 10]), Err(Fault::LongHead), "before it is over");
        let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: a\r\n".repeat(101));
        assert_eq!(whole(many.as_bytes()), Err(Fault::ManyHeaders));
        let trailers = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n{}\r\n",
            "X: a\r\n".repeat(10_000)
        );
        assert_eq!(whole(trailers.as_bytes()), Err(Fault::LongTrailers));
    }

    #[test]
    fn what_is_too_long_is_so_however_it_comes_and_whatever_stands_behind_it() {
        const CHUNKED: &str = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        let long = "x".repeat(40_000);
        for (request, expected) in [
            (format!("GET /{long}\n"), Fault::LongRequestLine),
            (format!("GET / HTTP/1.1\r\nX: {long}\n"), Fault::LongHead),
            (format!("{CHUNKED}1;{long}\n"), Fault::Chunk),
            (format!("{CHUNKED}0\r\nX: {long}\n"), Fault::LongTrailers),
        ] {
            assert_eq!(whole(request.as_bytes()), Err(expected), "{request:.80}");
            assert_eq!(piecemeal(request.as_bytes()), Err(expected), "{request:.80}");
        }
    }

    proptest::proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(
            bytes in proptest::collection::vec(proptest::sample::select(b"GET / HTTP/1.1\r\n0:chunked".to_vec()), 0..200),
            cut in 0_usize..200,
        ) {
            let cut = cut.min(bytes.len());
            let mut framing = framing();
            let in_two = all_of(&mut framing, &bytes[..cut]).and_then(|passed| {
                all_of(&mut framing, &bytes[passed..]).map(|more| passed + more)
            });
            proptest::prop_assert_eq!(in_two.is_ok(), whole(&bytes).is_ok());
            if let Ok(passed) = in_two {
                proptest::prop_assert_eq!(Ok(passed), whole(&bytes));
            }
        }
    }
}
