//! Whatever an upstream answers, it does not matter how it is cut, another reader sees the same response in it, and what
//! goes on to the client cannot be read in two ways.

#![no_main]

use std::{
    future::Future,
    io,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body::Body as _;
use hyper::{
    body::Incoming,
    client::conn::http1,
    rt::{Read, ReadBufCursor, Write},
};
use libfuzzer_sys::fuzz_target;
use tollgate::{
    fuzzing::{ResponseHead, accept},
    upstream::{BadHead, HeadLimits, Interim},
};

/// Small, so that they are reached; but for the fields, of which there may be more than hyper takes.
const LIMITS: HeadLimits = HeadLimits { size: 2 << 10, fields: 150 };

/// Interim responses that are kept until somebody takes them.
const WAITING: usize = 16;

// The first byte says how the others are cut, and what was asked.
fuzz_target!(|input: &[u8]| {
    let Some((first, bytes)) = input.split_first() else { return };
    let sizes = [usize::from(first & 15) + 1, usize::from(first >> 4) * 8 + 1];
    let method = if first & 1 == 0 { Method::GET } else { Method::HEAD };

    let whole = read(bytes, [usize::MAX; 2]);
    assert_eq!(whole, read(bytes, sizes), "cut by {sizes:?}: {}", bytes.escape_ascii());
    assert_eq!(whole, read(bytes, [1, 1]), "byte by byte: {}", bytes.escape_ascii());
    let Ok(heard) = whole else { return };
    heard.interim.iter().for_each(check_interim);
    if heard.is_awaited {
        assert!(heard.passed.is_empty(), "a part of a head goes on: {}", bytes.escape_ascii());
        return;
    }

    // What hyper does not take is answered with 502.
    let Some((response, body)) = ask(bytes, sizes, &method) else { return };
    let (mut head, ()) = response.into_parts();
    append(&mut head.headers, heard.further);
    let (other, start) = other_reader(bytes, heard.interim.len());
    assert_eq!(head.status, other.status(), "{}", bytes.escape_ascii());
    assert_eq!(sorted(&head.headers), sorted(other.headers()), "{}", bytes.escape_ascii());
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let named = named_by_connection(&head.headers);
    let endpoint = HeaderValue::from_static("endpoint:80");
    if accept(&mut head, &endpoint).is_err() {
        return;
    }
    let has_body = method != Method::HEAD && !matches!(head.status.as_u16(), 204 | 304);
    if let Some(body) = &body {
        let expected = if has_body { content(&bytes[start..], other.headers()) } else { Some(Vec::new()) };
        assert_eq!(Some(body), expected.as_ref(), "{}", bytes.escape_ascii());
    }
    let headers = &head.headers;
    for name in ["keep-alive", "proxy-connection", "te", "transfer-encoding", "proxy-authenticate"] {
        assert!(!headers.contains_key(name), "{name}: {headers:?}");
    }
    if head.status == StatusCode::UPGRADE_REQUIRED {
        assert!(headers.get_all(header::CONNECTION).iter().all(|value| value == "upgrade"), "{headers:?}");
    } else {
        assert!(!headers.contains_key(header::CONNECTION), "{headers:?}");
        assert!(!headers.contains_key(header::UPGRADE), "{headers:?}");
    }
    assert!(headers.get_all("x-backend-server").iter().eq([&endpoint]), "{headers:?}");
    // What is a matter of the connection goes no further, but for what no connection can take away.
    for name in named.iter().filter(|name| name.as_str().starts_with("x-") && *name != "x-backend-server") {
        assert!(!headers.contains_key(name), "{name}: {headers:?}");
    }
    let lengths: Vec<_> = headers.get_all(header::CONTENT_LENGTH).iter().collect();
    assert!(lengths.len() <= 1, "{headers:?}");
    if let [length] = lengths[..] {
        assert!(!length.is_empty() && length.as_bytes().iter().all(u8::is_ascii_digit), "{headers:?}");
        if let Some(body) = body.filter(|_| has_body) {
            let length: usize = length.to_str().expect("digits").parse().expect("a length that has come");
            assert_eq!(length, body.len(), "{headers:?}");
        }
    }
});

/// What is made of bytes from an upstream.
#[derive(Debug, PartialEq)]
struct Heard {
    /// What hyper gets.
    passed: Vec<u8>,
    /// Fields that it does not get.
    further: HeaderMap,
    interim: Vec<Interim>,
    /// The final head has not ended.
    is_awaited: bool,
}

/// Reads bytes that come in pieces of these sizes in turn.
fn read(bytes: &[u8], sizes: [usize; 2]) -> Result<Heard, BadHead> {
    let mut head = ResponseHead::new(LIMITS);
    let (mut passed, mut come) = (Vec::new(), 0_usize);
    for size in sizes.into_iter().cycle() {
        let piece = &bytes[come..come.saturating_add(size).min(bytes.len())];
        if piece.is_empty() {
            break;
        }
        come += piece.len();
        passed.extend(head.came(piece)?);
    }
    let interim = head.take_interim(&Context::from_waker(Waker::noop()));
    Ok(Heard { passed, further: head.take_further(), interim, is_awaited: head.is_awaited() })
}

/// An interim response is one head, of a status that is one, and says nothing of the connection or for later.
fn check_interim(interim: &Interim) {
    const LEFT_OUT: [&str; 11] = [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "set-cookie",
        "strict-transport-security",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    let Interim::Other(wire) = interim else { return };
    let shown = wire.escape_ascii();
    let mut fields = [httparse::EMPTY_HEADER; 160];
    let mut parsed = httparse::Response::new(&mut fields);
    assert_eq!(parsed.parse(wire), Ok(httparse::Status::Complete(wire.len())), "{shown}");
    assert!(parsed.code.is_some_and(|code| (102..200).contains(&code)), "{shown}");
    for field in parsed.headers.iter() {
        assert!(!LEFT_OUT.contains(&field.name.to_ascii_lowercase().as_str()), "{shown}");
    }
}

/// What a lenient parser reads, and where the body begins.
fn other_reader(bytes: &[u8], interim: usize) -> (Response<()>, usize) {
    let mut config = httparse::ParserConfig::default();
    config
        .allow_spaces_after_header_name_in_responses(true)
        .allow_obsolete_multiline_headers_in_responses(true);
    let (mut start, mut before) = (0, 0);
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 1024];
        let mut parsed = httparse::Response::new(&mut fields);
        let length = match config.parse_response(&mut parsed, &bytes[start..]) {
            Ok(httparse::Status::Complete(length)) => length,
            other => panic!("{other:?} of {} from {start}", bytes.escape_ascii()),
        };
        start += length;
        let status = StatusCode::from_u16(parsed.code.expect("it is whole")).expect("three digits");
        if status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS {
            before += 1;
            continue;
        }
        assert_eq!(interim, before.min(WAITING), "{}", bytes.escape_ascii());
        let mut response = Response::new(());
        *response.status_mut() = status;
        for field in parsed.headers.iter() {
            let name = HeaderName::from_bytes(field.name.as_bytes()).expect("a name");
            let value = HeaderValue::from_bytes(&unfolded(field.value)).expect("a value");
            response.headers_mut().append(name, value);
        }
        return (response, start);
    }
}

/// RFC 9112, section 5.2: the end of a line and white space around it are one space.
fn unfolded(value: &[u8]) -> Vec<u8> {
    let lines = value.split(|&byte| byte == b'\n').map(|mut line| {
        while let [b' ' | b'\t' | b'\r', rest @ ..] | [rest @ .., b' ' | b'\t' | b'\r'] = line {
            line = rest;
        }
        line
    });
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(&b' ')
}

/// The fields by name, those of one name in their order.
fn sorted(headers: &HeaderMap) -> Vec<(String, Vec<Vec<u8>>)> {
    let mut all: Vec<_> = headers
        .keys()
        .map(|name| {
            let values = headers.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect();
            (name.as_str().to_owned(), values)
        })
        .collect();
    all.sort();
    all
}

fn append(headers: &mut HeaderMap, further: HeaderMap) {
    let mut last = None;
    for (name, value) in further {
        last = name.or(last);
        headers.append(last.clone().expect("the first has a name"), value);
    }
}

fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let lines = headers.get_all(header::CONNECTION).iter();
    lines
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect()
}

/// The body that RFC 9112, section 6.3, finds behind a head, if it is there to its end.
fn content(rest: &[u8], headers: &HeaderMap) -> Option<Vec<u8>> {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return chunks(rest);
    }
    match headers.get(header::CONTENT_LENGTH) {
        Some(length) => {
            let length: usize = length.to_str().ok()?.parse().ok()?;
            rest.get(..length).map(<[u8]>::to_vec)
        }
        None => Some(rest.to_vec()),
    }
}

/// Section 7.1. What is left open here, such as white space around a size, is for hyper to refuse.
fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let line = std::str::from_utf8(rest[..end].split(|&byte| byte == b';').next()?).ok()?;
        let size = usize::from_str_radix(line.trim_matches([' ', '\t']), 16).ok()?;
        rest = &rest[end + 2..];
        if size == 0 {
            return Some(content);
        }
        content.extend_from_slice(rest.get(..size)?);
        rest = rest[size..].strip_prefix(b"\r\n")?;
    }
}

/// What hyper makes of it, and the body if it has an end.
fn ask(bytes: &[u8], sizes: [usize; 2], method: &Method) -> Option<(Response<()>, Option<Vec<u8>>)> {
    let cx = &mut Context::from_waker(Waker::noop());
    let wire =
        Wire { rest: bytes, sizes, head: ResponseHead::new(LIMITS), passed: Vec::new(), is_asked: false };
    let Poll::Ready(handshake) = pin!(http1::handshake(wire)).poll(cx) else { panic!("it has to wait") };
    let (mut sender, connection) = handshake.expect("nothing has been sent");
    let mut connection = pin!(connection);
    assert!(connection.as_mut().poll(cx).is_pending(), "nobody has asked yet");
    let request = Request::builder().method(method).uri("/").body(String::new()).expect("a request");
    let mut answer = pin!(sender.send_request(request));
    let mut response = None;
    let (mut content, mut has_ended) = (Vec::new(), false);
    // Each round reads something, or is the last.
    for _ in 0..=bytes.len() * 4 + 64 {
        has_ended = has_ended || connection.as_mut().poll(cx).is_ready();
        if response.is_none() {
            match answer.as_mut().poll(cx) {
                Poll::Ready(answer) => {
                    let (head, body) = answer.ok()?.into_parts();
                    response = Some((Response::from_parts(head, ()), body));
                }
                Poll::Pending => {
                    assert!(!has_ended, "nobody answers");
                    continue;
                }
            }
        }
        let Some((_, body)) = &mut response else { continue };
        loop {
            match poll_body(body, cx) {
                Poll::Ready(Some(Ok(data))) => content.extend_from_slice(&data),
                Poll::Ready(Some(Err(()))) => return response.map(|(head, _)| (head, None)),
                Poll::Ready(None) => return response.map(|(head, _)| (head, Some(content))),
                Poll::Pending => break,
            }
        }
        assert!(!has_ended, "a body does not end with its connection: {}", bytes.escape_ascii());
    }
    panic!("it does not end: {}", bytes.escape_ascii());
}

fn poll_body(body: &mut Incoming, cx: &mut Context<'_>) -> Poll<Option<Result<Vec<u8>, ()>>> {
    Pin::new(body).poll_frame(cx).map(|frame| {
        frame.map(|frame| match frame {
            Ok(frame) => Ok(frame.into_data().map_or(Vec::new(), |data| data.to_vec())),
            Err(_) => Err(()),
        })
    })
}

/// A connection from which these bytes come once something was sent over it, in pieces of these sizes in turn.
struct Wire<'a> {
    rest: &'a [u8],
    sizes: [usize; 2],
    head: ResponseHead,
    passed: Vec<u8>,
    is_asked: bool,
}

impl Read for Wire<'_> {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { rest, sizes, head, passed, is_asked } = self.get_mut();
        if !*is_asked {
            return Poll::Pending;
        }
        while passed.is_empty() && !rest.is_empty() {
            let (piece, others) = rest.split_at(sizes[0].min(rest.len()));
            *passed = head.came(piece).map_err(io::Error::other)?;
            *rest = others;
            sizes.reverse();
        }
        let count = passed.len().min(buffer.remaining());
        buffer.put_slice(&passed[..count]);
        passed.drain(..count);
        Poll::Ready(Ok(()))
    }
}

impl Write for Wire<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().is_asked = true;
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
