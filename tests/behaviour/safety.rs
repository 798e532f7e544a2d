//! Nobody smuggles anything: what two readers could understand in two ways is refused and reaches no upstream.

use tollgate_tests::{Answer, BareOrigin, Client, Origin, Proxy, route_to};

/// Requests that end with their head, each with the status for it.
const BAD_HEADS: &[(u16, &str)] = &[
    // The length of the body, RFC 9112, section 6.
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5 5\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5.0\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: five\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\x0b\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\ncontent-length: 0\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\nhello"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding\x0b: chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nX: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (400, "POST / HTTP/1.1\r\nHost: a\r\nX: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    (
        400,
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    ),
    (400, "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    // Lines and what ends them, section 2.2.
    (400, "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n\nX: y\r\n\r\n"),
    (400, "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\r\n\r\n"),
    (400, "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    // Bytes that stand nowhere.
    (400, "G\rET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "G\0ET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a\rb HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a\x7fb HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /?a\rb HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /?a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\0\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX\r: y\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\x01b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: a\x7fb\r\n\r\n"),
    // Header lines, section 5.
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n folded\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tfolded\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX(y): z\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\n\u{e9}: z\r\n\r\n"),
    // The host, section 3.2.
    (400, "GET / HTTP/1.1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    (400, "GET / HTTP/1.0\r\nHost: a\r\nhost: b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a@b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: [evil]\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: a%00b\r\n\r\n"),
    (400, "GET / HTTP/1.1\r\nHost: \u{e9}\r\n\r\n"),
    (400, "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n"),
    (400, "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    // The target, and paths that name two things.
    (400, "GET /#f HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /?q#f HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET ?q HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "OPTIONS *?q HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a%2Fb HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a%5cb HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a%00b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a%0d%0ab HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a% HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a%4 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a%zz HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /.. HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a/../../b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a/%2e%2E/../b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a/..;/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET http://a/../b HTTP/1.1\r\nHost: a\r\n\r\n"),
    // The request line, section 3.
    (400, "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    (400, " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\r\nHost: a\r\n\r\n"),
    (400, "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET /\r\n\r\n"),
    (400, "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "Get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / http/1.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/1.11\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
    (400, "GET / HTTPS/1.1\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    (505, "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    (505, "PRI * HTTP/2.0\r\nHost: a\r\n\r\n"),
    (501, "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    (501, "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\n\r\n\r\n"),
];

/// Bodies that break off at what is wrong with them, after a head with `Transfer-Encoding: chunked`.
const BAD_CHUNKS: &[&str] = &[
    "5\nhello\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5\r\nhello\n0\r\n\r\n",
    "5\r\nhello\r0\r\n\r\n",
    "5\r\nhello0\r\n\r\n",
    "5\r\nhello!\r\n0\r\n\r\n",
    "4\r\nhello\r\n0\r\n\r\n",
    "5 \r\nhello\r\n0\r\n\r\n",
    " 5\r\nhello\r\n0\r\n\r\n",
    "+5\r\nhello\r\n0\r\n\r\n",
    "-5\r\nhello\r\n0\r\n\r\n",
    "0x5\r\nhello\r\n0\r\n\r\n",
    "5_\r\nhello\r\n0\r\n\r\n",
    "\r\nhello\r\n0\r\n\r\n",
    "five\r\nhello\r\n0\r\n\r\n",
    "10000000000000005\r\nhello\r\n0\r\n\r\n",
    "5\0\r\nhello\r\n0\r\n\r\n",
    "5;a\rb\r\nhello\r\n0\r\n\r\n",
    "5;a\0b\r\nhello\r\n0\r\n\r\n",
    "5;a\nb\r\nhello\r\n0\r\n\r\n",
    "5\r\nhello\r\n0\r\n\n",
    "5\r\nhello\r\n0\r\nX: y\n\r\n",
    "5\r\nhello\r\n0\r\nX : y\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\rb\r\n\r\n",
    "5\r\nhello\r\n0\r\nX: a\0b\r\n\r\n",
    "5\r\nhello\r\n0\r\n X: y\r\n\r\n",
    "5\r\nhello\r\n0\r\nX\r\n\r\n",
];

/// A request, the line and the header lines that make of it, and its body. Those that the proxy adds are not named.
const GOOD: &[(&str, &str, &[&str], &str)] = &[
    ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1", &["host: a"], ""),
    ("\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", "GET / HTTP/1.1", &["host: a"], ""),
    ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1", &["host:"], ""),
    ("GET / HTTP/1.1\r\nhOsT:A.Example.:8080\r\n\r\n", "GET / HTTP/1.1", &["host: A.Example.:8080"], ""),
    ("GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n", "GET / HTTP/1.1", &["host: [::1]:80"], ""),
    ("GET / HTTP/1.1\r\nHost:\r\n\r\n", "GET / HTTP/1.1", &["host:"], ""),
    ("GET http://a HTTP/1.1\r\nHost: A\r\n\r\n", "GET / HTTP/1.1", &["host: a"], ""),
    ("M-SEARCH / HTTP/1.1\r\nHost: a\r\n\r\n", "M-SEARCH / HTTP/1.1", &["host: a"], ""),
    (
        "GET /a;b=c,d/@e:f!$&'()*+ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a;b=c,d/@e:f!$&'()*+ HTTP/1.1",
        &["host: a"],
        "",
    ),
    ("GET /%61%2e%7e%c3%a9%3f HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a.~%C3%A9%3F HTTP/1.1", &["host: a"], ""),
    ("GET /\u{e9} HTTP/1.1\r\nHost: a\r\n\r\n", "GET /%C3%A9 HTTP/1.1", &["host: a"], ""),
    ("GET //a/./b/../c/ HTTP/1.1\r\nHost: a\r\n\r\n", "GET /a/c/ HTTP/1.1", &["host: a"], ""),
    (
        "GET /?/../%2f%5c//%zz?=&;: HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?/../%2f%5c//%zz?=&;: HTTP/1.1",
        &["host: a"],
        "",
    ),
    ("GET /? HTTP/1.1\r\nHost: a\r\n\r\n", "GET /? HTTP/1.1", &["host: a"], ""),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nX:\t y \t\r\nX-Empty:\r\nX: z:\tw\r\n_.!#$%&'*+^`|~0: \"\r\n\r\n",
        "GET / HTTP/1.1",
        // The last one could be another's to some server.
        &["host: a", "x: y", "x-empty:", "x: z:\tw"],
        "",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nCookie: a=1\r\nCookie: b=\u{e9}\r\n\r\n",
        "GET / HTTP/1.1",
        &["host: a", "cookie: a=1", "cookie: b=\u{e9}"],
        "",
    ),
    (
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length-Not: 7\r\nTransfer-Encodings: gzip\r\nHosts: b\r\n\r\n",
        "GET / HTTP/1.1",
        &["host: a", "content-length-not: 7", "transfer-encodings: gzip", "hosts: b"],
        "",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\t7 \r\n\r\n\r\n0\r\n\r\n",
        "POST / HTTP/1.1",
        &["host: a", "content-length: 7"],
        "\r\n0\r\n\r\n",
    ),
    (
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n\
         0003;a=\"b\";c\r\nabc\r\nA \t; x\r\n0123456789\r\n000\r\n\r\n",
        "POST / HTTP/1.1",
        &["host: a", "transfer-encoding: chunked"],
        "abc0123456789",
    ),
];

async fn send(client: &mut Client, request: &[u8], piece: usize) {
    for piece in request.chunks(piece) {
        if !client.send(piece).await {
            return;
        }
    }
}

/// Everything that comes up to the end of the connection: one response with this status and no other.
async fn is_refused(client: &mut Client, status: u16, what: &str) {
    let response = client.any_response(false).await.unwrap_or_else(|| panic!("no response: {what}"));
    assert_eq!(response.status, status, "{what}");
    assert_eq!(response.header("connection"), Some("close"), "{what}");
    assert!(client.is_closed().await, "the connection stays open: {what}");
}

#[tokio::test]
async fn a_request_that_can_be_read_in_two_ways_is_refused_and_reaches_no_upstream() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for (status, request) in BAD_HEADS {
        for piece in [request.len(), 1] {
            let mut client = proxy.connect().await;
            send(&mut client, request.as_bytes(), piece).await;
            is_refused(&mut client, *status, &format!("{request:?} in pieces of {piece}")).await;
            assert_eq!(origin.connections(), 0, "{request:?} in pieces of {piece}");
        }
    }
}

#[tokio::test]
async fn such_a_request_is_refused_on_a_connection_that_was_in_order_so_far() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&format!("workers = 1\n{}", route_to(&[&origin.url()]))).await;
    for (status, request) in BAD_HEADS.iter().filter(|(_, request)| !request.starts_with("\r\n")) {
        for piece in [request.len(), 1] {
            let mut client = proxy.connect().await;
            client.send("POST /good HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
            assert_eq!(client.response().await.status, 200, "{request:?}");
            let before = origin.bytes();
            send(&mut client, request.as_bytes(), piece).await;
            is_refused(&mut client, *status, &format!("{request:?} in pieces of {piece}")).await;
            assert_eq!(origin.bytes(), before, "{request:?} in pieces of {piece}");
        }
    }
}

#[tokio::test]
async fn a_body_that_can_be_read_in_two_ways_never_looks_finished() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for body in BAD_CHUNKS {
        let request = format!("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        for piece in [request.len(), 1] {
            let mut client = proxy.connect().await;
            send(&mut client, request.as_bytes(), piece).await;
            is_refused(&mut client, 400, &format!("{body:?} in pieces of {piece}")).await;
            origin.has_open(0).await;
            assert_eq!(origin.received().len(), 0, "{body:?} in pieces of {piece}");
        }
    }
}

#[tokio::test]
async fn what_a_body_holds_is_no_request() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let hidden = "0\r\n\r\nGET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";
    for (framing, framed) in [
        (format!("Content-Length: {}", hidden.len()), hidden.to_owned()),
        ("Transfer-Encoding: chunked".to_owned(), format!("{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len())),
    ] {
        let mut client = proxy.connect().await;
        let before = origin.received().len();
        client.send(format!("POST /open HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n{framed}")).await;
        client.send("GET /after HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
        assert_eq!(client.response().await.status, 200);
        let received = origin.received().split_off(before);
        let targets: Vec<_> = received.iter().map(|received| received.target.as_str()).collect();
        assert_eq!(targets, ["/open", "/after"]);
        assert_eq!(received[0].body, hidden.as_bytes());
    }
}

#[tokio::test]
async fn what_follows_a_valid_body_is_held_to_the_same_rules() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for behind in [
        "GET /hidden HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n",
        "GET /hidden HTTP/1.1\nHost: a\n\n",
        "POST /hidden HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "hidden\r\n\r\n",
        "0\r\n\r\n",
    ] {
        for request in [
            format!("POST /open HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello{behind}"),
            format!(
                "POST /open HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n{behind}"
            ),
        ] {
            for piece in [request.len(), 1] {
                let mut client = proxy.connect().await;
                send(&mut client, request.as_bytes(), piece).await;
                assert_eq!(client.response().await.status, 200, "{request:?} in pieces of {piece}");
                is_refused(&mut client, 400, &format!("{request:?} in pieces of {piece}")).await;
                assert_eq!(origin.last().target, "/open", "{request:?} in pieces of {piece}");
            }
        }
    }
}

#[tokio::test]
async fn a_bad_request_does_not_take_away_the_answer_to_the_one_before() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("GET /good HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    client.send("GET /bad HTTP/1.1\nHost: a\n\n").await;
    upstream.send(&Answer::ok("good").pieces[0]).await;
    assert_eq!(client.response().await.text(), "good");
    is_refused(&mut client, 400, "on the same connection").await;
}

#[tokio::test]
async fn a_request_that_is_odd_but_clear_arrives_as_it_is_meant() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let added = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id", "via"];
    for (request, line, headers, body) in GOOD {
        for piece in [request.len(), 1] {
            let what = format!("{request:?} in pieces of {piece}");
            let mut client = proxy.connect().await;
            send(&mut client, request.as_bytes(), piece).await;
            assert_eq!(client.response().await.status, 200, "{what}");
            let received = origin.last();
            let mut lines = received.raw.trim_end_matches("\r\n").split("\r\n");
            assert_eq!(lines.next(), Some(*line), "{what}");
            let is_added = |line: &&str| added.iter().any(|name| line.starts_with(name));
            // Fields of one name keep their order; fields of different names may change places.
            let mut came: Vec<_> = lines.filter(|line| !is_added(line)).map(str::trim_end).collect();
            let mut expected = headers.to_vec();
            let name = |line: &&str| line.split(':').next().unwrap_or_default().to_owned();
            came.sort_by_key(name);
            expected.sort_by_key(name);
            assert_eq!(came, expected, "{what}");
            assert_eq!(received.body, body.as_bytes(), "{what}");
        }
    }
}
