//! Rules of RFC 9110 and RFC 9112 that a proxy must keep, by section: what a client sends, what it gets, and
//! what the upstream sees of it. Requests whose framing is in doubt are in `safety`.

use tollgate_tests::{Origin, Proxy, route_to};

/// What a client sends, and what comes of it.
struct Row {
    /// The section, of RFC 9112 unless another is named, and what is shown.
    name: &'static str,
    sent: &'static str,
    /// The statuses of all responses, in order.
    statuses: &'static [u16],
    /// Whether the proxy closes the connection.
    closes: bool,
    /// What each request that reaches the upstream has in its head: whole lines, and with a `!` before it the
    /// name of a field that is not there.
    seen: &'static [&'static [&'static str]],
}

const fn row(
    name: &'static str,
    sent: &'static str,
    statuses: &'static [u16],
    closes: bool,
    seen: &'static [&'static [&'static str]],
) -> Row {
    Row { name, sent, statuses, closes, seen }
}

const STAYS: bool = false;
const CLOSES: bool = true;
const NOTHING: &[&[&str]] = &[];

const ROWS: &[Row] = &[
    // 3.2.1 to 3.2.4, forms of the target
    row(
        "3.2.1 origin form",
        "GET /a?b HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        STAYS,
        &[&["GET /a?b HTTP/1.1", "host: a"]],
    ),
    row("3.2.1 a path that is empty", "GET ?q HTTP/1.1\r\nHost: a\r\n\r\n", &[400], CLOSES, NOTHING),
    row(
        "3.2.2 absolute form",
        "GET http://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        STAYS,
        &[&["GET /b HTTP/1.1", "host: a"]],
    ),
    row(
        "3.2.2 absolute form without a path",
        "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        STAYS,
        &[&["GET / HTTP/1.1"]],
    ),
    row(
        "3.2.2 absolute form with a query alone",
        "GET http://a?q HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        STAYS,
        &[&["GET /?q HTTP/1.1"]],
    ),
    row(
        "3.2.2 absolute form with a port",
        "GET http://a:81/ HTTP/1.1\r\nHost: a:81\r\n\r\n",
        &[200],
        STAYS,
        &[&["host: a:81"]],
    ),
    row(
        "3.2.2 absolute form without a host field",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        &[200],
        STAYS,
        &[&["host: a"]],
    ),
    row(
        "3.2.2 absolute form, another host",
        "GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n",
        &[400],
        CLOSES,
        NOTHING,
    ),
    row("3.2.2 another scheme", "GET gopher://a/ HTTP/1.1\r\nHost: a\r\n\r\n", &[400], CLOSES, NOTHING),
    row("3.2.3 authority form", "CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", &[501], CLOSES, NOTHING),
    row(
        "3.2.3 authority form is for CONNECT",
        "GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n",
        &[400],
        CLOSES,
        NOTHING,
    ),
    row(
        "3.2.4 asterisk form",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        STAYS,
        &[&["OPTIONS * HTTP/1.1"]],
    ),
    row(
        "3.2.4 asterisk form is for OPTIONS",
        "PUT * HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        &[400],
        CLOSES,
        NOTHING,
    ),
    // RFC 9110, 7.6.1: what ends at this hop
    row(
        "9110 7.6.1 what Connection names goes",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a, X-B\r\nX-A: 1\r\nX-B: 2\r\nX-C: 3\r\n\r\n",
        &[200],
        STAYS,
        &[&["!x-a", "!x-b", "x-c: 3", "!connection"]],
    ),
    row(
        "9110 7.6.1 in several fields",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-a\r\nConnection: x-b\r\nX-A: 1\r\nX-B: 2\r\n\r\n",
        &[200],
        STAYS,
        &[&["!x-a", "!x-b", "!connection"]],
    ),
    row(
        "9110 7.6.1 empty members",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: , x-a ,,\r\nX-A: 1\r\n\r\n",
        &[200],
        STAYS,
        &[&["!x-a", "!connection"]],
    ),
    row(
        "9110 7.6.1 not the host",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n",
        &[200],
        STAYS,
        &[&["host: a"]],
    ),
    row(
        "9110 7.6.1 not who may pass",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: authorization, cookie\r\nAuthorization: x\r\nCookie: y\r\n\r\n",
        &[200],
        STAYS,
        &[&["authorization: x", "cookie: y"]],
    ),
    row(
        "9110 7.6.1 not who the client is",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: x-forwarded-for\r\n\r\n",
        &[200],
        STAYS,
        &[&["x-forwarded-for: 127.0.0.1"]],
    ),
    row(
        "9110 7.6.1 Keep-Alive",
        "GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\n\r\n",
        &[200],
        STAYS,
        &[&["!keep-alive"]],
    ),
    row(
        "9110 7.6.1 Proxy-Connection",
        "GET / HTTP/1.1\r\nHost: a\r\nProxy-Connection: close\r\n\r\n",
        &[200],
        STAYS,
        &[&["!proxy-connection"]],
    ),
    row(
        "9110 11.7.2 Proxy-Authorization",
        "GET / HTTP/1.1\r\nHost: a\r\nProxy-Authorization: Basic eA==\r\n\r\n",
        &[200],
        STAYS,
        &[&["!proxy-authorization"]],
    ),
    row(
        "9110 7.8 Upgrade that nobody has asked for",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        &[200],
        STAYS,
        &[&["!upgrade", "!connection"]],
    ),
    row(
        "9110 10.1.4 TE",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: gzip\r\n\r\n",
        &[200],
        STAYS,
        &[&["!te"]],
    ),
    row(
        "9110 10.1.4 TE: trailers",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: te\r\nTE: gzip;q=0.5, trailers\r\n\r\n",
        &[200],
        STAYS,
        &[&["te: trailers", "connection: te"]],
    ),
    // RFC 9110, 7.6.2 and 9.3
    row(
        "9110 7.6.2 OPTIONS that has come as far as it may",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        &[200],
        STAYS,
        NOTHING,
    ),
    row(
        "9110 7.6.2 OPTIONS that may go on",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n\r\n",
        &[200],
        STAYS,
        &[&["max-forwards: 0"]],
    ),
    row(
        "9110 7.6.2 TRACE that has come as far as it may",
        "TRACE / HTTP/1.1\r\nHost: a\r\nCookie: x\r\nMax-Forwards: 0\r\n\r\n",
        &[501],
        CLOSES,
        NOTHING,
    ),
    row(
        "9110 7.6.2 TRACE that may go on",
        "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 9\r\n\r\n",
        &[200],
        STAYS,
        &[&["TRACE / HTTP/1.1", "max-forwards: 8"]],
    ),
    row(
        "9110 7.6.2 concerns no other method",
        "GET / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
        &[200],
        STAYS,
        &[&["max-forwards: 0"]],
    ),
    row(
        "9110 9.1 a method that nobody knows",
        "BREW / HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        STAYS,
        &[&["BREW / HTTP/1.1"]],
    ),
    row("9110 9.1 methods are case-sensitive", "gET / HTTP/1.1\r\nHost: a\r\n\r\n", &[400], CLOSES, NOTHING),
    // RFC 9110, 7.6.3
    row(
        "9110 7.6.3 Via",
        "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 fred\r\n\r\n",
        &[200],
        STAYS,
        &[&["via: 1.0 fred", "via: 1.1 tollgate"]],
    ),
    row(
        "9110 7.6.3 Via of HTTP/1.0",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        &[200],
        CLOSES,
        &[&["GET / HTTP/1.1"]],
    ),
    // RFC 9110, 10.1.1
    row(
        "9110 10.1.1 an expectation that cannot be met",
        "PUT / HTTP/1.1\r\nHost: a\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello",
        &[417],
        CLOSES,
        NOTHING,
    ),
    row(
        "9110 10.1.1 several",
        "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue, x\r\nContent-Length: 5\r\n\r\nhello",
        &[417],
        CLOSES,
        NOTHING,
    ),
    row(
        "9110 10.1.1 without a body",
        "GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n\r\n",
        &[200],
        STAYS,
        &[&["!expect"]],
    ),
    row(
        "9110 10.1.1 of HTTP/1.0",
        "PUT / HTTP/1.0\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx",
        &[200],
        CLOSES,
        &[&["!expect", "content-length: 1"]],
    ),
    // RFC 9112, 9: connections
    row(
        "9.3 a connection goes on",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200, 200],
        STAYS,
        &[&["GET /1 HTTP/1.1"], &["GET /2 HTTP/1.1"]],
    ),
    row(
        "9.6 unless the client has said close",
        "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        CLOSES,
        &[&["GET /1 HTTP/1.1", "!connection"]],
    ),
    row(
        "9.6 in whatever case, among others",
        "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: x, CLOSE\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        CLOSES,
        &[&["GET /1 HTTP/1.1"]],
    ),
    row(
        "9.3 HTTP/1.0 ends with its response",
        "GET /1 HTTP/1.0\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
        &[200],
        CLOSES,
        &[&["GET /1 HTTP/1.1"]],
    ),
    row(
        "9.3 unless it asks to go on",
        "GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /2 HTTP/1.0\r\n\r\n",
        &[200, 200],
        CLOSES,
        &[&["GET /1 HTTP/1.1"], &["GET /2 HTTP/1.1"]],
    ),
    row(
        "9.3.2 answers come in order",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiPUT /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\nGET /4 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200, 200, 200, 200],
        STAYS,
        &[&["GET /1 HTTP/1.1"], &["POST /2 HTTP/1.1"], &["PUT /3 HTTP/1.1"], &["GET /4 HTTP/1.1"]],
    ),
    row(
        "9.3.2 nothing follows what is refused",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200, 400],
        CLOSES,
        &[&["GET /1 HTTP/1.1"]],
    ),
    row(
        "9.3.2 not what cannot be offered",
        "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[501],
        CLOSES,
        NOTHING,
    ),
    row(
        "9.3.2 not what is expected in vain",
        "GET /1 HTTP/1.1\r\nHost: a\r\nExpect: x\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[417],
        CLOSES,
        NOTHING,
    ),
    row(
        "9.3.2 not a path with two meanings",
        "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[400],
        CLOSES,
        NOTHING,
    ),
    row(
        "9.3.2 not another version",
        "GET / HTTP/3.0\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[505],
        CLOSES,
        NOTHING,
    ),
    // 6.3 and 7.1
    row(
        "6.3 no length is no body",
        "POST / HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        STAYS,
        &[&["POST / HTTP/1.1", "!transfer-encoding"]],
    ),
    row(
        "7.1.1 extensions of chunks end here",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b;c=\"d\"\r\nx\r\n0;e\r\n\r\n",
        &[200],
        STAYS,
        &[&["transfer-encoding: chunked"]],
    ),
    row(
        "7.1.2 trailers",
        "POST / HTTP/1.1\r\nHost: a\r\nTrailer: x-a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\n\r\n",
        &[200],
        STAYS,
        &[&["trailer: x-a"]],
    ),
    // RFC 9110, 5.5
    row(
        "9110 5.5 bytes beyond ASCII",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: \u{e9}\r\n\r\n",
        &[200],
        STAYS,
        &[&["x-a: \u{e9}"]],
    ),
    row(
        "9110 5.3 order of equal names",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: 2\r\nX-B: 0\r\nX-A: 1\r\n\r\n",
        &[200],
        STAYS,
        &[&["x-a: 2", "x-a: 1", "x-b: 0"]],
    ),
    row(
        "9110 5.1 names in any case",
        "GET / HTTP/1.1\r\nhOST: a\r\nCoNNeCtion: cLoSe\r\n\r\n",
        &[200],
        CLOSES,
        &[&["host: a", "!connection"]],
    ),
];

/// The statuses of everything that comes, and whether the end of the connection has come with it.
async fn run(proxy: &Proxy, row: &Row, piece: usize) -> (Vec<u16>, bool) {
    let mut client = proxy.connect().await;
    for piece in row.sent.as_bytes().chunks(piece) {
        if !client.send(piece).await {
            break;
        }
    }
    let mut statuses = Vec::new();
    while statuses.len() < row.statuses.len()
        && let Some(response) = client.any_response(false).await
    {
        let says_close =
            response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        let is_last = statuses.len() + 1 == row.statuses.len();
        assert!(!says_close || is_last && row.closes, "{}: the end is said too early", row.name);
        statuses.push(response.status);
    }
    let is_open = match row.closes {
        true => !client.is_closed().await,
        false => {
            client.send("GET /last HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.any_response(false).await.is_some_and(|response| response.status == 200)
        }
    };
    (statuses, !is_open)
}

#[tokio::test]
async fn every_rule_that_a_proxy_must_keep_is_kept() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for row in ROWS {
        for piece in [row.sent.len(), 1] {
            let before = origin.received().len();
            let (statuses, closed) = run(&proxy, row, piece).await;
            assert_eq!(
                (&statuses[..], closed),
                (row.statuses, row.closes),
                "{} in pieces of {piece}",
                row.name
            );
            let mut seen = origin.received().split_off(before);
            seen.retain(|received| received.target != "/last");
            assert_eq!(seen.len(), row.seen.len(), "{} in pieces of {piece}: {seen:?}", row.name);
            for (received, wanted) in seen.iter().zip(row.seen) {
                let lines: Vec<_> = received.raw.split("\r\n").collect();
                for wanted in *wanted {
                    match wanted.strip_prefix('!') {
                        Some(name) => {
                            assert!(received.values(name).is_empty(), "{}: {name} is there", row.name);
                        }
                        None => assert!(lines.contains(wanted), "{}: no {wanted:?} in {lines:?}", row.name),
                    }
                }
            }
        }
    }
}
