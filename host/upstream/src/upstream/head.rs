//! Where does a response of HTTP/1 begin, and what does its head say?
//!
//! hyper's parser of responses is lenient where RFC 9112 lets it be, and a second reader beside it would sooner or
//! later see another beginning. So every byte from an endpoint passes here first, and nothing else decides which
//! bytes are a head: interim responses (RFC 9110, section 15.2) end here, and hyper gets the final head alone, in
//! the one form that two readers cannot see differently. What a name or a value may hold is left to hyper, which is
//! strict in that.

use std::task::{Context, Waker};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use hyper::client::conn::http1;

use super::interim::Interim;
use crate::config;

/// How large the head of one response may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes, as the head stands in HTTP/1.1.
    pub size: usize,
    pub fields: usize,
}

/// What is wrong with the head of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadHead {
    #[error("the response does not begin with a status line of HTTP/1.0 or HTTP/1.1")]
    StatusLine,
    #[error("a line of the head is no header field")]
    Field,
    #[error("the head is larger than {0} bytes; raise `limits.headers` of the upstream if that is right")]
    TooLarge(usize),
    #[error(
        "the head has more than {0} fields; raise `limits.header-count` of the upstream if that is right"
    )]
    TooManyFields(usize),
    #[error("a value begins or ends with white space, which HTTP/2 forbids")]
    WhiteSpace,
}

impl BadHead {
    /// Whether it lies in what the response says and in the limits of the configuration: it says nothing of how well the
    /// endpoint is, and another would answer the same.
    pub fn is_of_content(self) -> bool {
        match self {
            Self::TooLarge(_) | Self::TooManyFields(_) | Self::WhiteSpace => true,
            Self::StatusLine | Self::Field => false,
        }
    }
}

impl HeadLimits {
    pub(super) fn of(limits: &config::UpstreamLimits) -> Self {
        Self { size: limits.headers.as_usize(), fields: limits.header_count }
    }

    /// Checks a head that came over HTTP/2, which has no lines to count: as if it had come over HTTP/1.1.
    pub fn check(self, headers: &HeaderMap) -> Result<(), BadHead> {
        const STATUS_LINE: usize = "HTTP/1.1 200\r\n\r\n".len();
        if headers.len() > self.fields {
            return Err(BadHead::TooManyFields(self.fields));
        }
        let mut size = STATUS_LINE;
        for (name, value) in headers {
            size += name.as_str().len() + value.len() + ": \r\n".len();
            // RFC 9113, section 8.2.1.
            if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value.as_bytes() {
                return Err(BadHead::WhiteSpace);
            }
        }
        (size <= self.size).then_some(()).ok_or(BadHead::TooLarge(self.size))
    }
}

/// Reads the heads of the responses on one connection.
#[derive(Debug)]
pub struct HeadReader {
    limits: HeadLimits,
    /// Whether a head is what comes next. If not, bytes go on as they are: a body, or what nobody has asked for.
    is_at_head: bool,
    has_heard: bool,
    /// What has come and not gone on.
    kept: Vec<u8>,
    /// Bytes of `kept` that may go on.
    passed: usize,
    /// Bytes of the head in `kept` whose lines have been looked at.
    seen: usize,
    /// Bytes of empty lines before the heads of this response.
    skipped: usize,
    fault: Option<BadHead>,
    /// Fields of the final head beyond those that hyper takes.
    further: HeaderMap,
    interim: Vec<Interim>,
    waker: Option<Waker>,
}

/// Interim responses that wait at most. Those of an endpoint that sends more without end are left out.
const WAITING: usize = 16;

/// Fields that hyper reads without asking for memory, and the most that it takes by default.
const FIELDS: usize = 100;

/// A head that hyper has room for in any case: it keeps no more than some 400 KiB.
const SIZE: usize = 128 << 10;

impl Default for HeadReader {
    fn default() -> Self {
        Self {
            limits: HeadLimits { size: 0, fields: 0 },
            is_at_head: false,
            has_heard: false,
            kept: Vec::new(),
            passed: 0,
            seen: 0,
            skipped: 0,
            fault: None,
            further: HeaderMap::new(),
            interim: Vec::new(),
            waker: None,
        }
    }
}

/// What [`HeadReader::take`] has made of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Came {
    /// They go on as they are.
    Plain,
    /// They were kept; what of them may go on, [`HeadReader::give`] has.
    Kept,
}

impl HeadReader {
    /// A request has been sent: the head of its response comes next.
    pub fn begin(&mut self, limits: HeadLimits) {
        self.limits = limits;
        self.is_at_head = true;
        self.has_heard = false;
        self.seen = 0;
        self.skipped = 0;
        self.fault = None;
        self.interim.clear();
    }

    /// Whether what comes has to be given to [`HeadReader::take`].
    pub fn is_at_head(&self) -> bool {
        self.is_at_head
    }

    /// Whether anything has come since the request was sent.
    pub fn has_heard(&self) -> bool {
        self.has_heard
    }

    /// Why the head was refused, if it was.
    pub fn fault(&self) -> Option<BadHead> {
        self.fault
    }

    /// The fields of the final head that did not go on to hyper.
    pub fn take_further(&mut self) -> Option<HeaderMap> {
        (!self.further.is_empty()).then(|| std::mem::take(&mut self.further))
    }

    /// Interim responses since the last time; the task is woken by the next.
    pub fn take_interim(&mut self, cx: &Context<'_>) -> Vec<Interim> {
        match &self.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => self.waker = Some(cx.waker().clone()),
        }
        std::mem::take(&mut self.interim)
    }

    /// Up to `room` bytes that may go on; none if there are none.
    pub fn give(&mut self, room: usize, take: impl FnOnce(&[u8])) -> bool {
        let count = self.passed.min(room);
        if count == 0 {
            return false;
        }
        take(&self.kept[..count]);
        self.kept.drain(..count);
        self.passed -= count;
        if self.kept.is_empty() {
            self.kept = Vec::new();
        }
        true
    }

    /// What has come and nobody has read, when no more HTTP is spoken.
    pub fn take_rest(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }

    /// Looks at what has come while a head is awaited.
    pub fn take(&mut self, came: &[u8]) -> Result<Came, BadHead> {
        self.has_heard = true;
        let taken = self.read(came);
        self.fault = taken.err();
        taken
    }

    fn read(&mut self, came: &[u8]) -> Result<Came, BadHead> {
        // The usual case: a whole head that hyper can read as it came.
        if self.kept.is_empty()
            && let Some(head) = Head::find(came, &mut 0, self.limits)?
            && head.goes_on_as_it_is()
        {
            self.is_at_head = false;
            return Ok(Came::Plain);
        }
        self.kept.extend_from_slice(came);
        loop {
            self.skip_empty_lines()?;
            let Some(head) = Head::find(&self.kept, &mut self.seen, self.limits)? else { break };
            // Now that it is whole, from its beginning: what has come in pieces is mostly as plain as any other.
            let head = Head::find(&self.kept, &mut 0, self.limits)?.unwrap_or(head);
            if head.goes_on_as_it_is() {
                self.is_at_head = false;
                self.passed = self.kept.len();
                break;
            }
            let written = Written::read(&self.kept[..head.length])?;
            if written.fields.len() > self.limits.fields {
                return Err(BadHead::TooManyFields(self.limits.fields));
            }
            self.seen = 0;
            if is_interim(head.status) {
                let interim = Interim::new(head.status, &written.headers()?);
                self.kept.drain(..head.length);
                if self.interim.len() < WAITING {
                    self.interim.push(interim);
                    if let Some(waker) = self.waker.take() {
                        waker.wake();
                    }
                }
                continue;
            }
            let (mut clean, further) = written.rewrite()?;
            clean.extend_from_slice(&self.kept[head.length..]);
            self.further = further;
            self.kept = clean;
            self.passed = self.kept.len();
            self.is_at_head = false;
            break;
        }
        Ok(Came::Kept)
    }

    /// Empty lines before a status line are not part of the response (RFC 9112, section 2.2, says so of requests).
    fn skip_empty_lines(&mut self) -> Result<(), BadHead> {
        let mut skipped = 0;
        loop {
            match &self.kept[skipped..] {
                [b'\n', ..] => skipped += 1,
                [b'\r', b'\n', ..] => skipped += 2,
                _ => break,
            }
        }
        self.skipped += skipped;
        if self.skipped > self.limits.size {
            return Err(BadHead::TooLarge(self.limits.size));
        }
        if skipped > 0 {
            self.kept.drain(..skipped);
            self.seen = 0;
        }
        Ok(())
    }
}

/// For requests of the proxy's own, whose responses go to nobody: as lenient as [`HeadReader`], so that no endpoint is
/// taken for one that is not well by what it may well answer a client.
pub(super) fn own_client() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .max_headers(1000)
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true);
    builder
}

/// Whether another head follows. 101 is the last of HTTP on its connection.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// A head that has come whole.
#[derive(Debug)]
struct Head {
    length: usize,
    status: StatusCode,
    /// Lines between the status line and the empty one.
    fields: usize,
    /// Whether each line ends in CR LF, none is folded, and no name has white space behind it.
    is_plain: bool,
}

impl Head {
    /// Whether hyper can read it as it came, and is to.
    fn goes_on_as_it_is(&self) -> bool {
        self.is_plain && self.fields <= FIELDS && self.length <= SIZE && !is_interim(self.status)
    }

    /// Looks for the end of the head with which these bytes begin. None if it has not come.
    ///
    /// Of what has not ended, the first `seen` bytes need not be looked at again.
    fn find(bytes: &[u8], seen: &mut usize, limits: HeadLimits) -> Result<Option<Self>, BadHead> {
        let Some(status) = status_of(bytes)? else { return Ok(None) };
        let mut line = *seen;
        let (mut lines, mut is_plain) = (0, *seen == 0);
        for index in memchr::memchr2_iter(b'\n', b':', &bytes[*seen..]) {
            let index = *seen + index;
            let before = index.checked_sub(1).map_or(b'\n', |before| bytes[before]);
            if bytes[index] == b':' {
                is_plain &= !matches!(before, b' ' | b'\t');
                continue;
            }
            is_plain &= before == b'\r';
            if matches!(&bytes[line..index], [] | [b'\r']) {
                let length = index + 1;
                if length > limits.size {
                    return Err(BadHead::TooLarge(limits.size));
                }
                // Without the status line and the empty one.
                let fields = usize::saturating_sub(lines, 1);
                if fields > limits.fields {
                    return Err(BadHead::TooManyFields(limits.fields));
                }
                return Ok(Some(Self { length, status, fields, is_plain }));
            }
            line = index + 1;
            lines += 1;
            is_plain &= !matches!(bytes.get(line), Some(b' ' | b'\t'));
        }
        *seen = line;
        if bytes.len() > limits.size {
            return Err(BadHead::TooLarge(limits.size));
        }
        Ok(None)
    }
}

/// The status in the first line; none if it has not come. An error as soon as it can be none.
fn status_of(bytes: &[u8]) -> Result<Option<StatusCode>, BadHead> {
    const VERSION: &[u8] = b"HTTP/1.";
    let there = bytes.len().min(VERSION.len());
    if bytes[..there] != VERSION[..there] {
        // An empty line may stand before it.
        return if matches!(bytes, [b'\n', ..] | [b'\r'] | [b'\r', b'\n', ..]) {
            Ok(None)
        } else {
            Err(BadHead::StatusLine)
        };
    }
    match bytes.get(VERSION.len()..) {
        Some([b'0' | b'1', b' ', digits @ ..]) => match digits {
            [a, b, c, b' ' | b'\r' | b'\n', ..] => {
                StatusCode::from_bytes(&[*a, *b, *c]).map(Some).map_err(|_| BadHead::StatusLine)
            }
            [_, _, _, _, ..] => Err(BadHead::StatusLine),
            few if few.iter().all(u8::is_ascii_digit) => Ok(None),
            _ => Err(BadHead::StatusLine),
        },
        Some([b'0' | b'1', _, ..]) => Err(BadHead::StatusLine),
        Some([b'0' | b'1'] | []) | None => Ok(None),
        Some(_) => Err(BadHead::StatusLine),
    }
}

/// The lines of a head.
struct Written<'a> {
    status_line: &'a [u8],
    fields: Vec<(&'a [u8], Vec<u8>)>,
}

impl<'a> Written<'a> {
    fn read(head: &'a [u8]) -> Result<Self, BadHead> {
        let mut lines =
            head.split(|&byte| byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let status_line = lines.next().unwrap_or_default();
        // RFC 9112, section 4. hyper, which does not see interim responses, refuses the same.
        if !status_line.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)) {
            return Err(BadHead::StatusLine);
        }
        let mut fields: Vec<(&[u8], Vec<u8>)> = Vec::new();
        for line in lines {
            match line {
                [] => {}
                // RFC 9112, section 5.2: a folded line is part of the value before it. Nobody folds a length for
                // any good.
                [b' ' | b'\t', ..] => match fields.last_mut() {
                    Some((name, value)) if !is_framing(name) => {
                        value.truncate(trim_end(value).len());
                        value.push(b' ');
                        value.extend_from_slice(trim_start(line));
                    }
                    _ => return Err(BadHead::Field),
                },
                line => {
                    let colon = memchr::memchr(b':', line).ok_or(BadHead::Field)?;
                    // Section 5.1: white space before the colon is taken away.
                    let name = trim_end(&line[..colon]);
                    if name.is_empty() {
                        return Err(BadHead::Field);
                    }
                    fields.push((name, line[colon + 1..].to_vec()));
                }
            }
        }
        Ok(Self { status_line, fields })
    }

    fn headers(&self) -> Result<HeaderMap, BadHead> {
        collect(self.fields.iter().map(|(name, value)| (*name, &value[..])))
    }

    /// In the form that hyper can read. Where there is more of it than that takes, it gets those that bear on the
    /// framing, and the others are returned.
    fn rewrite(&self) -> Result<(Vec<u8>, HeaderMap), BadHead> {
        let size: usize = self.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        let is_whole = self.fields.len() <= FIELDS && size <= SIZE;
        let (given, further): (Vec<_>, Vec<_>) = self
            .fields
            .iter()
            .map(|(name, value)| (*name, &value[..]))
            .partition(|(name, _)| is_whole || is_framing(name));
        if given.len() > FIELDS {
            return Err(BadHead::Field);
        }
        let mut written = [self.status_line, b"\r\n"].concat();
        for (name, value) in given {
            for part in [name, b":", value, b"\r\n"] {
                written.extend_from_slice(part);
            }
        }
        written.extend_from_slice(b"\r\n");
        Ok((written, collect(further.into_iter())?))
    }
}

/// Whether hyper has to see the field to find the end of the body, or of the connection.
fn is_framing(name: &[u8]) -> bool {
    [&b"content-length"[..], b"transfer-encoding", b"connection"]
        .iter()
        .any(|framing| framing.eq_ignore_ascii_case(name))
}

fn collect<'a>(fields: impl ExactSizeIterator<Item = (&'a [u8], &'a [u8])>) -> Result<HeaderMap, BadHead> {
    let mut headers = HeaderMap::with_capacity(fields.len());
    for (name, value) in fields {
        let name = HeaderName::from_bytes(name).map_err(|_| BadHead::Field)?;
        let value = Bytes::copy_from_slice(trim_start(trim_end(value)));
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| BadHead::Field)?;
        headers.try_append(name, value).map_err(|_| BadHead::Field)?;
    }
    Ok(headers)
}

fn trim_start(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

fn trim_end(mut bytes: &[u8]) -> &[u8] {
    while let [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { size: 4 << 10, fields: 200 };

    /// What goes on to hyper, what is left beside it, and the interim responses, of bytes that come in these pieces.
    fn read(pieces: &[&[u8]]) -> Result<(String, HeaderMap, Vec<Interim>), BadHead> {
        let mut reader = HeadReader::default();
        reader.begin(LIMITS);
        let mut passed = Vec::new();
        for piece in pieces {
            if !reader.is_at_head() {
                passed.extend_from_slice(piece);
                continue;
            }
            match reader.take(piece)? {
                Came::Plain => passed.extend_from_slice(piece),
                Came::Kept => while reader.give(7, |bytes| passed.extend_from_slice(bytes)) {},
            }
        }
        let interim = reader.take_interim(&Context::from_waker(Waker::noop()));
        let further = reader.take_further().unwrap_or_default();
        Ok((String::from_utf8_lossy(&passed).into_owned(), further, interim))
    }

    /// The same whether it comes at once or byte by byte.
    fn passed(bytes: &str) -> Result<(String, Vec<Interim>), BadHead> {
        let whole = read(&[bytes.as_bytes()]);
        let single: Vec<&[u8]> = bytes.as_bytes().chunks(1).collect();
        let single = read(&single);
        assert_eq!(
            format!("{:?}", single.as_ref().map(|read| &read.2)),
            format!("{:?}", whole.as_ref().map(|read| &read.2)),
            "{bytes:?}"
        );
        assert_eq!(single.as_ref().map(|read| &read.0).err(), whole.as_ref().map(|read| &read.0).err());
        let (single, whole) = (single?, whole?);
        assert_eq!(single.0, whole.0, "byte by byte {bytes:?}");
        Ok((whole.0, whole.2))
    }

    #[test]
    fn a_head_goes_on_in_one_form() {
        let plain =
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX: a : b\r\n\r\nok\r\n\r\nHTTP/1.1 103 x\r\n\r\n";
        let simple = "HTTP/1.0 204 \r\nA: b\r\n\r\n";
        for (bytes, expected) in [
            (simple.to_owned(), simple.to_owned()),
            (format!("\r\n{simple}"), simple.to_owned()),
            (format!("\n\r\n\n{simple}"), simple.to_owned()),
            ("HTTP/1.1 200\n\n".into(), "HTTP/1.1 200\r\n\r\n".into()),
            ("HTTP/1.1 200 OK\nA: b\r\n\nbody\n".into(), "HTTP/1.1 200 OK\r\nA: b\r\n\r\nbody\n".into()),
            ("HTTP/1.1 200 OK\r\nX-Odd \t: 1\r\n\r\n".into(), "HTTP/1.1 200 OK\r\nX-Odd: 1\r\n\r\n".into()),
            (
                "HTTP/1.1 200 OK\r\nX: 1 \r\n\t 2\r\n 3\r\n\r\n".into(),
                "HTTP/1.1 200 OK\r\nX: 1 2 3\r\n\r\n".into(),
            ),
            // Which hyper refuses.
            (
                "HTTP/1.1 200 OK\r\nX: 1\x0c\r\n 2\r\r\n 3\r\n\r\n".into(),
                "HTTP/1.1 200 OK\r\nX: 1\x0c 2\r 3\r\n\r\n".into(),
            ),
            (
                "HTTP/1.1 101 X\r\nUpgrade: y\r\n\r\n\0\n".into(),
                "HTTP/1.1 101 X\r\nUpgrade: y\r\n\r\n\0\n".into(),
            ),
        ] {
            assert_eq!(passed(&bytes).map(|passed| passed.0), Ok(expected), "{bytes:?}");
        }
        let (whole, _, interim) = read(&[plain.as_bytes()]).unwrap();
        assert_eq!((whole.as_str(), interim.len()), (plain, 0), "what comes behind a final head is its body");
    }

    #[test]
    fn empty_lines_before_a_head_count_however_they_come() {
        let head = "HTTP/1.1 103 X\r\n\r\n\nHTTP/1.1 204 X\r\n\r\n";
        let behind = |size: usize| format!("{}{head}", "\r\n".repeat(size / 2));
        let most = LIMITS.size - 1;
        assert_eq!(passed(&behind(most)).map(|passed| passed.1.len()), Ok(1));
        assert_eq!(passed(&behind(most + 2)).err(), Some(BadHead::TooLarge(LIMITS.size)));
    }

    #[test]
    fn interim_responses_end_here() {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
        for bytes in [
            format!("{hints}{last}ok"),
            format!("\r\n{hints}\r\n{last}ok"),
            format!("{}{last}ok", hints.replace("\r\n", "\n")),
            format!("HTTP/1.1 100 Continue\r\n\r\n{hints}{last}ok"),
        ] {
            let (on, interim) = passed(&bytes).unwrap();
            assert_eq!(on, format!("{last}ok"), "{bytes:?}");
            let last = interim.last().map(|interim| match interim {
                Interim::Continue => "100".into(),
                Interim::Other(wire) => String::from_utf8_lossy(wire).into_owned(),
            });
            assert_eq!(last.as_deref(), Some("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"), "{bytes:?}");
        }
        // A bare line feed ends a head here as it does for hyper: what follows is the next head, and no body.
        let hidden = format!("HTTP/1.1 103 X\nA: b\n\n{last}HTTP/1.1 103 Y\r\nLink: evil\r\n\r\n");
        assert_eq!(passed(&hidden).unwrap().1.len(), 1);
        let (_, _, interim) = read(&[hints.repeat(100).as_bytes()]).unwrap();
        assert_eq!(interim.len(), WAITING, "an endpoint that only hints is not heard for ever");
    }

    #[test]
    fn what_is_no_head_is_refused() {
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(201));
        let many_hints = many.replace("200 OK", "103 X");
        let long = format!("HTTP/1.1 200 OK\r\nA: {}", "b".repeat(5000));
        for (bytes, expected) in [
            ("garbage", BadHead::StatusLine),
            ("\x15\x03\x01", BadHead::StatusLine),
            ("HTTP/2", BadHead::StatusLine),
            ("HTTP/1.2 200 OK\r\n", BadHead::StatusLine),
            ("HTTP/1.10 200 OK\r\n", BadHead::StatusLine),
            ("HTTP/1.1  200 OK\r\n", BadHead::StatusLine),
            ("HTTP/1.1 20 OK\r\n", BadHead::StatusLine),
            ("HTTP/1.1 2000 OK\r\n", BadHead::StatusLine),
            ("HTTP/1.1 099 OK\r\n", BadHead::StatusLine),
            (" HTTP/1.1 200 OK\r\n", BadHead::StatusLine),
            ("HTTP/1.1 200 OK\r\n A: b\r\n\r\n", BadHead::Field),
            ("HTTP/1.1 200 OK\n\tA: b\r\n\r\n", BadHead::Field),
            ("HTTP/1.1 200 OK\nA\r\n\r\n", BadHead::Field),
            ("HTTP/1.1 200 OK\n : b\r\n\r\n", BadHead::Field),
            ("HTTP/1.1 200 OK\nA: b\n: b\r\n\r\n", BadHead::Field),
            ("HTTP/1.1 200 OK\r\nContent-Length:\r\n 5\r\n\r\n", BadHead::Field),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\t, x\r\n\r\n", BadHead::Field),
            ("HTTP/1.1 103 X\x1d\r\n\r\n", BadHead::StatusLine),
            ("HTTP/1.1 103 X\rA: b\r\n\r\n", BadHead::StatusLine),
            ("HTTP/1.1 103 X\r\nA B: c\r\n\r\n", BadHead::Field),
            ("HTTP/1.1 103 X\r\nA: c\rSet-Cookie: d\r\n\r\n", BadHead::Field),
            (&many, BadHead::TooManyFields(200)),
            (&many_hints, BadHead::TooManyFields(200)),
            (&long, BadHead::TooLarge(4 << 10)),
        ] {
            assert_eq!(passed(bytes).err(), Some(expected), "{bytes:?}");
        }
    }

    #[test]
    fn fields_beyond_those_that_hyper_takes_come_beside_it() {
        let fields: String = (0..150).map(|number| format!("Set-Cookie: c{number} \r\n")).collect();
        let head = format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 2\r\n\r\nok");
        let (on, further, _) = read(&[head.as_bytes()]).unwrap();
        assert_eq!(on, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let cookies: Vec<_> = further.get_all("set-cookie").iter().collect();
        assert_eq!(
            (cookies.len(), cookies[0], cookies[149]),
            (150, &"c0".parse().unwrap(), &"c149".parse().unwrap())
        );
    }

    #[test]
    fn a_head_of_http_2_is_held_to_the_same_limits() {
        let headers = |count: usize, value: &str| {
            let mut headers = HeaderMap::new();
            for _ in 0..count {
                headers.append("a", value.parse().unwrap());
            }
            headers
        };
        assert_eq!(LIMITS.check(&headers(200, "b")), Ok(()));
        assert_eq!(LIMITS.check(&headers(201, "b")), Err(BadHead::TooManyFields(200)));
        assert_eq!(LIMITS.check(&headers(1, &"b".repeat(4080))), Err(BadHead::TooLarge(4 << 10)));
        let mut spaced = HeaderMap::new();
        spaced.append("a", HeaderValue::from_bytes(b"b\t").unwrap());
        assert_eq!(LIMITS.check(&spaced), Err(BadHead::WhiteSpace));
    }

    proptest::proptest! {
        /// The last line of this is where two readers have to agree, so hyper's parser reads what goes on.
        #[test]
        fn what_goes_on_is_one_head_to_hyper_as_well(
            lines in proptest::collection::vec(
                proptest::sample::select(vec!["A: b", "A : b", " c", "\tc : d", "X:", ":", "A\r", "\r", "", "HTTP/1.1 103 X", "HTTP/1.1 200 OK"]),
                1..12,
            ),
            ends in proptest::collection::vec(proptest::sample::select(vec!["\r\n", "\n"]), 12),
        ) {
            let mut bytes = String::from("HTTP/1.1 200 OK\r\n");
            for (line, end) in lines.iter().zip(&ends) {
                bytes.push_str(line);
                bytes.push_str(end);
            }
            let mut reader = HeadReader::default();
            reader.begin(LIMITS);
            if reader.take(bytes.as_bytes()).is_ok() && !reader.is_at_head() {
                let (on, _, _) = read(&[bytes.as_bytes()]).unwrap();
                let body = on.find("\r\n\r\n").unwrap() + 4;
                let mut fields = [httparse::EMPTY_HEADER; 32];
                if let Ok(httparse::Status::Complete(length)) = httparse::Response::new(&mut fields).parse(on.as_bytes()) {
                    proptest::prop_assert_eq!(length, body);
                }
            }
        }
    }
}
