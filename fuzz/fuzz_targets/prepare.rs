//! Whatever a client writes into the head of a request, what goes on of it is one request, to one host and one path, and
//! says of the client what the proxy knows.

#![no_main]

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Version, request};
use libfuzzer_sys::fuzz_target;
use tollgate::{
    address::Caller,
    config::{ListenerLimits, TrustedProxies, UnusualNames},
    field,
    listen::framing::Framing,
    path,
    proxy::{
        Peer,
        headers::{from_http2, prepare},
    },
};

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    method: u8,
    version: u8,
    target: (u8, &'a str),
    fields: Vec<(u8, u8, &'a [u8])>,
    is_http2: bool,
    /// Whether the body of a request of HTTP/2 is empty, or of a length that is only known at its end.
    has_body: bool,
    comes_by_unix: bool,
    is_trusted: bool,
}

// What means something, so that it need not be found by chance. The last of each is followed by what is.
const METHODS: [&str; 6] = ["GET", "POST", "OPTIONS", "TRACE", "CONNECT", "get"];
const VERSIONS: [&str; 3] = ["HTTP/1.1", "HTTP/1.0", "HTTP/2.0"];
const TARGETS: [&str; 12] = [
    "/",
    "*",
    "/a/../b?c",
    "//evil.test/",
    "/%2e%2e/a",
    "/%2F",
    "http://test",
    "http://test/a?b",
    "http://evil.test/",
    "https://test/",
    "test:80",
    "/a/",
];
const NAMES: [&str; 26] = [
    "Host",
    "Connection",
    "Keep-Alive",
    "Proxy-Connection",
    "TE",
    "Transfer-Encoding",
    "Content-Length",
    "Upgrade",
    "Expect",
    "Via",
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Host",
    "X-Forwarded-Proto",
    "X-Request-Id",
    "X_Forwarded_For",
    "X-Forwarded_Host",
    "X_Request_Id",
    "Content_Length",
    "Client-Cert",
    "Client_Cert_Chain",
    "Max-Forwards",
    "Cookie",
    "Proxy-Authorization",
    "Trailer",
    "X-",
];
const VALUES: [&str; 20] = [
    "test",
    "TEST",
    "evil.test",
    "test:80",
    "[::1]",
    "close",
    "te, trailers",
    "trailers",
    "chunked",
    "0",
    "5",
    "upgrade",
    "websocket",
    "100-continue",
    "host, x-forwarded-for, via",
    "1.2.3.4",
    "https",
    "transfer-encoding",
    "",
    " ",
];

impl Input<'_> {
    /// The head as it would stand on the wire of HTTP/1.
    fn head(&self) -> Vec<u8> {
        let of = |words: &[&'static str], place: u8| words[usize::from(place) % words.len()];
        let is_last = |words: &[&str], place: u8| usize::from(place) % words.len() == words.len() - 1;
        let (place, rest) = self.target;
        let rest = if is_last(&TARGETS, place) { rest } else { "" };
        let (method, version) = (of(&METHODS, self.method), of(&VERSIONS, self.version));
        let mut head = format!("{method} {}{rest} {version}\r\n", of(&TARGETS, place)).into_bytes();
        for (name, value, rest) in &self.fields {
            head.extend_from_slice(of(&NAMES, *name).as_bytes());
            let mut rest = *rest;
            if is_last(&NAMES, *name) {
                let (more, other) = rest.split_at(rest.len() / 2);
                head.extend_from_slice(more);
                rest = other;
            }
            head.extend_from_slice(b": ");
            head.extend_from_slice(of(&VALUES, *value).as_bytes());
            if is_last(&VALUES, *value) {
                head.extend_from_slice(rest);
            }
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(b"\r\n");
        head
    }
}

fuzz_target!(|input: Input<'_>| {
    let Some((mut head, length)) = request(&input) else { return };
    let trusted = TrustedProxies::default();
    let address = if input.comes_by_unix { Caller::Unix } else { Caller::Ip(([192, 0, 2, 1], 5).into()) };
    let peer = Peer::new(address, "http", input.is_trusted);
    let limits = ListenerLimits::default();
    if input.is_http2 && from_http2(&mut head, &limits).is_err() {
        return;
    }
    if prepare(&mut head, &peer, &trusted, UnusualNames::Forward, length).is_err() {
        return;
    }
    let all = |name: &str| head.headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>();

    // One host and one path.
    assert!(head.uri.authority().is_none() && head.uri.scheme().is_none(), "{head:?}");
    let hosts = all("host");
    assert_eq!(hosts.len(), 1, "{head:?}");
    let target = head.uri.path();
    assert!(target == "*" || path::canonical(target).is_ok_and(|canonical| canonical == target), "{head:?}");

    // Nothing of the connection, and one length.
    for name in ["keep-alive", "proxy-connection", "upgrade", "client-cert", "client-cert-chain"] {
        assert!(all(name).is_empty(), "{name}: {head:?}");
    }
    assert!(all("connection").iter().all(|value| *value == b"te"), "{head:?}");
    assert!(all("te").iter().all(|value| *value == b"trailers"), "{head:?}");
    assert_eq!(all("transfer-encoding").len(), usize::from(length.is_none()), "{head:?}");

    // The proxy's own word.
    assert_eq!(all("x-request-id").len(), 1, "{head:?}");
    assert!(!all("via").is_empty(), "{head:?}");
    if !input.is_trusted {
        let known: &[&[u8]] = if input.comes_by_unix { &[] } else { &[b"192.0.2.1"] };
        assert_eq!(all("x-forwarded-for"), known, "{head:?}");
        assert_eq!(all("x-forwarded-proto"), [b"http"], "{head:?}");
        assert!(all("forwarded").is_empty(), "{head:?}");
        assert!(all("x-forwarded-host").iter().eq(hosts.iter().filter(|host| !host.is_empty())), "{head:?}");
    }
    for name in head.headers.keys().filter(|name| !field::is_plain(name.as_str())) {
        let is_the_proxys = field::is_one_of(&field::OF_THE_PROXY, name.as_str());
        assert!(!is_the_proxys && !field::is_only_for_proxies(name.as_str()), "{head:?}");
    }

    // Written down, it is the head of one request to another reader, too.
    let written = write(&head);
    let mut framing = Framing::new(&ListenerLimits {
        headers: tollgate::config::ByteSize::mib(1),
        header_count: 10_000,
        request_line: tollgate::config::ByteSize::mib(1),
        ..limits
    });
    assert_eq!(framing.advance(&written), Ok(written.len()), "{:?}", String::from_utf8_lossy(&written));
    assert_eq!(framing.expects_head(), length == Some(0), "{:?}", String::from_utf8_lossy(&written));
});

/// The request that the proxy is given, and the length of its body.
fn request(input: &Input<'_>) -> Option<(request::Parts, Option<u64>)> {
    let bytes = input.head();
    let mut framing = Framing::new(&ListenerLimits::default());
    // In HTTP/2 there is no such head to look at.
    let passed = if input.is_http2 { bytes.len() } else { framing.advance(&bytes).ok()? };
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut parsed = httparse::Request::new(&mut fields);
    if !parsed.parse(&bytes[..passed]).ok()?.is_complete() {
        return None;
    }
    let mut headers = HeaderMap::new();
    for field in parsed.headers.iter() {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        headers.append(name, HeaderValue::from_bytes(field.value).ok()?);
    }
    let version = match (input.is_http2, parsed.version?) {
        (true, _) => Version::HTTP_2,
        (false, 0) => Version::HTTP_10,
        (false, _) => Version::HTTP_11,
    };
    if input.is_http2 && headers.contains_key("transfer-encoding") {
        // h2 refuses it.
        return None;
    }
    let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
    let length = match (&lengths[..], headers.contains_key("transfer-encoding")) {
        ([length, ..], _) => Some(length.to_str().ok()?.parse().ok()?),
        ([], true) => None,
        ([], false) => {
            if input.is_http2 && input.has_body {
                None
            } else {
                Some(0)
            }
        }
    };
    let mut request =
        Request::builder().method(parsed.method?).uri(parsed.path?).version(version).body(()).ok()?;
    *request.headers_mut() = headers;
    Some((request.into_parts().0, length))
}

fn write(head: &request::Parts) -> Vec<u8> {
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let mut written = format!("{} {target} HTTP/1.1\r\n", head.method).into_bytes();
    for (name, value) in &head.headers {
        written.extend_from_slice(name.as_str().as_bytes());
        written.extend_from_slice(b": ");
        written.extend_from_slice(value.as_bytes());
        written.extend_from_slice(b"\r\n");
    }
    written.extend_from_slice(b"\r\n");
    written
}
