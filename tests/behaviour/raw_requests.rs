//! Rules of RFC 9110 and RFC 9112 that a proxy must keep, by section: what a client sends, what it gets, and
//! what the upstream sees of it. More requests whose framing is in doubt are in `safety`.

use std::{collections::BTreeSet, time::Duration};

use tollgate_tests::{Origin, Proxy, Received, Response, route_to};

/// What a client sends, and what comes of it.
struct Row {
    /// The section, of RFC 9112 unless another is named, and what is shown.
    name: &'static str,
    sent: &'static str,
    /// The statuses of all responses, in order.
    statuses: &'static [u16],
    /// Whether the proxy closes the connection.
    closes: bool,
    /// What each request that reaches the upstream has: whole lines of its head; with a `!` before it the name of
    /// a field that is not there; with a `=` its body; and with a `~` the bytes of that, framing included.
    seen: &'static [&'static [&'static str]],
}

/// Refused with this status, and the end of the connection; nothing reaches the upstream.
const fn refused(name: &'static str, status: &'static [u16], sent: &'static str) -> Row {
    row(name, sent, status, CLOSES, NOTHING)
}

/// One request that goes on to the upstream, on a connection that stays.
const fn passed(name: &'static str, sent: &'static str, seen: &'static [&'static [&'static str]]) -> Row {
    row(name, sent, &[200], STAYS, seen)
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
    refused("3.2 absolute form without a host field", &[400], "GET http://a/ HTTP/1.1\r\n\r\n"),
    passed(
        "9110 4.2.3 absolute form with the default port",
        "GET http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["host: a:80"]],
    ),
    row(
        "3.2 a client of HTTP/1.0 that names no host",
        "GET / HTTP/1.0\r\n\r\n",
        &[200],
        CLOSES,
        &[&["host: ", "!x-forwarded-host"]],
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
    // 2.2, lines and what ends them
    refused("2.2 LF alone ends no request line", &[400], "GET / HTTP/1.1\nHost: a\r\n\r\n"),
    refused("2.2 LF alone ends no field", &[400], "GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    refused("2.2 LF alone ends no head", &[400], "GET / HTTP/1.1\r\nHost: a\r\n\n"),
    refused("2.2 CR alone ends no line", &[400], "GET / HTTP/1.1\rHost: a\r\n\r\n"),
    refused("2.2 CR alone in a value", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX: a\rY: b\r\n\r\n"),
    refused("2.2 CR before CR LF", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\r\n\r\n"),
    refused("2.2 CR alone in a name", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX\rY: b\r\n\r\n"),
    passed(
        "2.2 an empty line before a request",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET / HTTP/1.1"]],
    ),
    refused("2.2 not several", &[400], "\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("2.2 not one of LF alone", &[400], "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    row(
        "2.2 an empty line after a body",
        "POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200, 200],
        STAYS,
        &[&["POST /1 HTTP/1.1", "=x"], &["GET /2 HTTP/1.1"]],
    ),
    refused("2.2 space before the first field", &[400], "GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    refused("2.2 a tab before the first field", &[400], "GET / HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n"),
    refused("2.2 NUL in a target", &[400], "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("2.2 NUL in a name", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n"),
    refused("2.2 NUL in a value", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX: y\0\r\n\r\n"),
    refused("2.2 what is not HTTP", &[400], "\x16\x03\x01\x02\0\x01\0\x01\x7c\x03\x03\r\n\r\n"),
    // 2.3 and 3, request line and version
    refused("3 two spaces", &[400], "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3 two spaces before the version", &[400], "GET /  HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3 a tab for a space", &[400], "GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3 a vertical tab for a space", &[400], "GET\x0b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3 space at the end", &[400], "GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    refused("3 space at the beginning", &[400], " GET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3 a space in the target", &[400], "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3 no version", &[400], "GET /\r\nHost: a\r\n\r\n"),
    refused("3 no target", &[400], "GET HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3 no method", &[400], " / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3 a word more", &[400], "GET / HTTP/1.1 x\r\nHost: a\r\n\r\n"),
    refused("2.3 a version in lower case", &[400], "GET / http/1.1\r\nHost: a\r\n\r\n"),
    refused("2.3 a version: two digits", &[400], "GET / HTTP/1.10\r\nHost: a\r\n\r\n"),
    refused("2.3 a version: a leading zero", &[400], "GET / HTTP/01.1\r\nHost: a\r\n\r\n"),
    refused("2.3 a version: no minor version", &[400], "GET / HTTP/1\r\nHost: a\r\n\r\n"),
    refused("2.3 a version: a space in it", &[400], "GET / HTTP /1.1\r\nHost: a\r\n\r\n"),
    refused("2.3 a version: another name", &[400], "GET / HTTPS/1.1\r\nHost: a\r\n\r\n"),
    refused("2.3 a version: a letter", &[400], "GET / HTTP/1.x\r\nHost: a\r\n\r\n"),
    refused("2.3 version 0.9", &[505], "GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    refused("2.3 version 1.2", &[505], "GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    refused("2.3 version 2.0", &[505], "GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    refused("2.3 version 3.0", &[505], "GET / HTTP/3.0\r\nHost: a\r\n\r\n"),
    refused("2.3 HTTP/0.9 itself", &[400], "GET /\r\n\r\n"),
    refused("9110 9.1 a method: a parenthesis", &[400], "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 9.1 a method: a colon", &[400], "GET: / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 9.1 a method: a slash", &[400], "GET/ / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 9.1 a method: a quote", &[400], "\"GET\" / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 9.1 a method: a comma", &[400], "GET,PUT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 9.1 a method: beyond ASCII", &[400], "GÉT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 9.1 a method: in lower case", &[400], "get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    passed(
        "9110 9.1 a method of every sign there is",
        "A!#$%&'*+-.^_`|~9 / HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["A!#$%&'*+-.^_`|~9 / HTTP/1.1"]],
    ),
    // 3.2, the host and the forms of the target
    refused("3.2 no host", &[400], "GET / HTTP/1.1\r\n\r\n"),
    refused("3.2 the same host twice", &[400], "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"),
    refused("3.2 two hosts", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nhost: b\r\n\r\n"),
    refused("3.2 two hosts in HTTP/1.0", &[400], "GET / HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    refused("3.2 a host: a list", &[400], "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n"),
    refused("3.2 a host: a space", &[400], "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"),
    refused("3.2 a host: a user", &[400], "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    refused("3.2 a host: a path", &[400], "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    refused("3.2 a host: a query", &[400], "GET / HTTP/1.1\r\nHost: a?b\r\n\r\n"),
    refused("3.2 a host: a fragment", &[400], "GET / HTTP/1.1\r\nHost: a#b\r\n\r\n"),
    refused("3.2 a host: two ports", &[400], "GET / HTTP/1.1\r\nHost: a:80:80\r\n\r\n"),
    refused("3.2 a host: a port that is none", &[400], "GET / HTTP/1.1\r\nHost: a:x\r\n\r\n"),
    refused("3.2 a host: a port alone", &[400], "GET / HTTP/1.1\r\nHost: :80\r\n\r\n"),
    refused("3.2 a host: a bracket that does not end", &[400], "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    refused(
        "3.2 a host: what is in brackets and no address",
        &[400],
        "GET / HTTP/1.1\r\nHost: [a.b]\r\n\r\n",
    ),
    refused("3.2 a host: a percent sign", &[400], "GET / HTTP/1.1\r\nHost: a%2eb\r\n\r\n"),
    refused("3.2 a host: a backslash", &[400], "GET / HTTP/1.1\r\nHost: a\\b\r\n\r\n"),
    refused("3.2 a host: beyond ASCII", &[400], "GET / HTTP/1.1\r\nHost: é\r\n\r\n"),
    passed("3.2 a host that is empty", "GET / HTTP/1.1\r\nHost:\r\n\r\n", &[&["host: "]]),
    passed(
        "3.2 an address of IPv6",
        "GET / HTTP/1.1\r\nHost: [2001:db8::1]:81\r\n\r\n",
        &[&["host: [2001:db8::1]:81", "x-forwarded-host: [2001:db8::1]:81"]],
    ),
    passed("3.2 white space around a host", "GET / HTTP/1.1\r\nHost: \t a \t\r\n\r\n", &[&["host: a"]]),
    passed("3.2 a port that is empty", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", &[&["host: a:"]]),
    passed(
        "3.2 every kind of letter in a host",
        "GET / HTTP/1.1\r\nHost: A.b_c-d~\r\n\r\n",
        &[&["host: A.b_c-d~"]],
    ),
    refused("3.2.1 no slash", &[400], "GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3.2.1 a fragment", &[400], "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3.2.1 a backslash for a slash", &[400], "GET \\a HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3.2.2 a user in the target", &[400], "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3.2.2 no host in the target", &[400], "GET http:///a HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused(
        "3.2.2 another port than the host field says",
        &[400],
        "GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ),
    refused("3.2.2 TLS on a connection in clear", &[400], "GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3.2.2 a fragment", &[400], "GET http://a/#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3.2.2 above the root", &[400], "GET http://a/../b HTTP/1.1\r\nHost: a\r\n\r\n"),
    passed(
        "3.2.2 a scheme in upper case",
        "GET HTTP://a/b HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /b HTTP/1.1", "host: a"]],
    ),
    passed(
        "3.2.2 a host in another case",
        "GET http://A/b HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /b HTTP/1.1"]],
    ),
    passed(
        "3.2.2 absolute form, on a connection that goes on",
        "GET http://a/b HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n",
        &[&["GET /b HTTP/1.1", "host: a"]],
    ),
    passed(
        "3.2.4 OPTIONS for its root in absolute form",
        "OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["OPTIONS / HTTP/1.1", "host: a"]],
    ),
    refused("3.2.4 an asterisk with a query", &[400], "OPTIONS *?a HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3.2.3 CONNECT with a path", &[501], "CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n"),
    // RFC 9110, 4.2.3, and RFC 3986, 6.2.2: one path
    passed("9110 4.2.3 a dot segment", "GET /a/./b HTTP/1.1\r\nHost: a\r\n\r\n", &[&["GET /a/b HTTP/1.1"]]),
    passed("9110 4.2.3 two dots", "GET /a/../b HTTP/1.1\r\nHost: a\r\n\r\n", &[&["GET /b HTTP/1.1"]]),
    passed("9110 4.2.3 dots at the end", "GET /a/b/.. HTTP/1.1\r\nHost: a\r\n\r\n", &[&["GET /a/ HTTP/1.1"]]),
    passed("9110 4.2.3 encoded dots", "GET /a/%2e%2E/b HTTP/1.1\r\nHost: a\r\n\r\n", &[&["GET /b HTTP/1.1"]]),
    passed(
        "9110 4.2.3 three dots are a name",
        "GET /.../a HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /.../a HTTP/1.1"]],
    ),
    passed(
        "9110 4.2.3 slashes without end",
        "GET //a///b HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /a/b HTTP/1.1"]],
    ),
    passed(
        "9110 4.2.3 an encoding that need not be",
        "GET /%41%7e%2D HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /A~- HTTP/1.1"]],
    ),
    passed(
        "9110 4.2.3 an encoding in lower case",
        "GET /%c3%a9 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /%C3%A9 HTTP/1.1"]],
    ),
    passed(
        "9110 4.2.3 an encoding of an encoding",
        "GET /%252e%252e/a HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /%252e%252e/a HTTP/1.1"]],
    ),
    passed("9110 4.2.3 beyond ASCII", "GET /é HTTP/1.1\r\nHost: a\r\n\r\n", &[&["GET /%C3%A9 HTTP/1.1"]]),
    passed(
        "9110 4.2.3 a query stays as it is",
        "GET /?a=%2f..//%zz& HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /?a=%2f..//%zz& HTTP/1.1"]],
    ),
    passed(
        "9110 4.2.3 a query that is empty",
        "GET /a? HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /a? HTTP/1.1"]],
    ),
    passed(
        "9110 4.2.3 parameters",
        "GET /a;b=c/d HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /a;b=c/d HTTP/1.1"]],
    ),
    refused("9110 4.2.3 an encoded slash", &[400], "GET /a%2fb HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 an encoded backslash", &[400], "GET /a%5Cb HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 a backslash", &[400], "GET /a\\b HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 an encoded NUL", &[400], "GET /a%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 an encoded line end", &[400], "GET /a%0d%0aX:y HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 an encoding that does not end", &[400], "GET /a%2 HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 an encoding that is none", &[400], "GET /a%gg HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 above the root", &[400], "GET /../a HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 above the root by encoded dots", &[400], "GET /%2e%2e/a HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 dots with parameters", &[400], "GET /a/..;x/b HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("9110 4.2.3 a DEL", &[400], "GET /a\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    // 5, fields
    refused("5.1 space before a colon", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n"),
    refused("5.1 a tab before a colon", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX\t: y\r\n\r\n"),
    refused(
        "5.1 space before the colon of a length",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 1\r\n\r\nx",
    ),
    refused("5.1 space before the colon of a host", &[400], "GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    refused("5 no colon", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    refused("5 no name", &[400], "GET / HTTP/1.1\r\nHost: a\r\n: y\r\n\r\n"),
    refused("9110 5.1 a name: a parenthesis", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX(Y: z\r\n\r\n"),
    refused("9110 5.1 a name: an at sign", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX@Y: z\r\n\r\n"),
    refused("9110 5.1 a name: a slash", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX/Y: z\r\n\r\n"),
    refused("9110 5.1 a name: a comma", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX,Y: z\r\n\r\n"),
    refused("9110 5.1 a name: a semicolon", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX;Y: z\r\n\r\n"),
    refused("9110 5.1 a name: a quote", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX\"Y: z\r\n\r\n"),
    refused("9110 5.1 a name: a bracket", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX[Y: z\r\n\r\n"),
    refused("9110 5.1 a name: a brace", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX{Y: z\r\n\r\n"),
    refused("9110 5.1 a name: an equals sign", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX=Y: z\r\n\r\n"),
    refused("9110 5.1 a name: a space", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX Y: z\r\n\r\n"),
    refused("9110 5.1 a name: beyond ASCII", &[400], "GET / HTTP/1.1\r\nHost: a\r\nXéY: z\r\n\r\n"),
    refused("5.2 a folded line", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
    refused("5.2 a folded line by a tab", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n"),
    refused(
        "5.2 a folded line that is a length",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Content-Length: 1\r\n\r\nx",
    ),
    refused("5.2 a folded line that is empty", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n \r\n\r\n"),
    refused("9110 5.5 a DEL in a value", &[400], "GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"),
    refused(
        "9110 5.5 a control character in a value",
        &[400],
        "GET / HTTP/1.1\r\nHost: a\r\nX: \x07\r\n\r\n",
    ),
    passed(
        "9110 5.5 white space around a value goes, a tab within stays",
        "GET / HTTP/1.1\r\nHost: a\r\nX-A: \t y\tz \t\r\n\r\n",
        &[&["x-a: y\tz"]],
    ),
    passed("9110 5.5 a value that is empty", "GET / HTTP/1.1\r\nHost: a\r\nX-A:\r\n\r\n", &[&["x-a: "]]),
    passed(
        "9110 5.1 every sign of a name",
        "GET / HTTP/1.1\r\nHost: a\r\n!#$%&'*+-.^`|~9: y\r\n\r\n",
        &[&["!#$%&'*+-.^`|~9: y"]],
    ),
    // 6.1, 6.2 and 6.3, the length of a body
    refused(
        "6.2 a length: two lengths",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx",
    ),
    refused(
        "6.2 a length: the same length twice",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
    ),
    refused(
        "6.2 a length: a list of lengths",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\nx",
    ),
    refused("6.2 a length: a sign", &[400], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\nx"),
    refused("6.2 a length: below zero", &[400], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\nx"),
    refused(
        "6.2 a length: hexadecimal",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\nx",
    ),
    refused("6.2 a length: a fraction", &[400], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1.0\r\n\r\nx"),
    refused("6.2 a length: no number", &[400], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\nx"),
    refused("6.2 a length: empty", &[400], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nx"),
    refused(
        "6.2 a length: a space within",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 1\r\n\r\nx",
    ),
    refused(
        "6.2 a length: too large for any computer",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999999\r\n\r\nx",
    ),
    refused("6.2 a length: quoted", &[400], "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \"1\"\r\n\r\nx"),
    refused(
        "6.3 both: length, then coding",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.3 both: coding, then length",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.3 both: coding between other fields",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nX: y\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.3 both: a length of zero",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.3 both: a length that is none",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.3 both: an unknown coding",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: gzip",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: identity",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: gzip and chunked",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: chunked and then something",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: chunked twice",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: an empty member",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: , chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: parameters",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: quoted",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: misspelt",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunke\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: a vertical tab",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding: empty",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 chunked in two fields",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 chunked and identity in two fields",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 a coding in HTTP/1.0",
        &[400],
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    ),
    passed(
        "6.1 chunked in any case",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: CHUNKED\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        &[&["transfer-encoding: chunked", "=x"]],
    ),
    passed(
        "6.2 a length",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        &[&["content-length: 5", "=hello"]],
    ),
    passed(
        "6.2 a length with zeros before it",
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0005\r\n\r\nhello",
        &[&["=hello"]],
    ),
    passed(
        "6.2 a length of zero",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
        &[&["content-length: 0", "="]],
    ),
    passed(
        "6.3 GET with a body",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        &[&["content-length: 5", "=hello"]],
    ),
    passed(
        "6.3 GET with chunks",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[&["transfer-encoding: chunked", "=hello"]],
    ),
    passed(
        "6.3 DELETE with a body",
        "DELETE / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        &[&["content-length: 2", "=hi"]],
    ),
    passed(
        "6.3 OPTIONS with a body",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        &[&["content-length: 2", "=hi"]],
    ),
    passed("6.3 HEAD", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", &[&["HEAD / HTTP/1.1"]]),
    passed(
        "6.3 a body that looks like a request",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 28\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["=GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"]],
    ),
    // 7.1, chunks
    refused(
        "7.1 a chunk: LF alone after the size",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: CR alone after the size",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\rx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: LF alone after the data",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: nothing after the data",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: more data than its size",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nxy\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: space before the size",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n 1\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: space after the size",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 \r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: 0x",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: a sign",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+1\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: below zero",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: no size",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: no digit",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\ng\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: a size beyond 64 bits",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000001\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: a size of many zeros",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00000000000000001\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: an extension with LF",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: an extension with CR",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\rb\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: an extension with NUL",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a\0\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: something else than an extension",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1 a\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1 a chunk: the end without a line end",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\n",
    ),
    passed(
        "7.1 sizes in either case, with zeros before them",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n00a\r\n0123456789\r\nA\r\n0123456789\r\n000\r\n\r\n",
        &[&["=01234567890123456789"]],
    ),
    passed(
        "7.1.1 extensions with quoted strings",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;a=\"b;c\";d\r\nx\r\n0;e=f\r\n\r\n",
        &[&["=x", "~1\r\nx\r\n0\r\n\r\n"]],
    ),
    refused(
        "7.1.2 trailers: space before a colon",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX : y\r\n\r\n",
    ),
    refused(
        "7.1.2 trailers: folded",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n z\r\n\r\n",
    ),
    refused(
        "7.1.2 trailers: no colon",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX\r\n\r\n",
    ),
    refused(
        "7.1.2 trailers: CR alone",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: a\rb\r\n\r\n",
    ),
    refused(
        "7.1.2 trailers: LF alone",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
    ),
    refused(
        "7.1.2 trailers: NUL",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: \0\r\n\r\n",
    ),
    passed(
        "7.1.2 trailers that were announced",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-a\r\n\r\n1\r\nx\r\n0\r\nX-A: y\r\n\r\n",
        &[&["=x", "~1\r\nx\r\n0\r\nx-a: y\r\n\r\n"]],
    ),
    passed(
        "9110 6.5.1 a trailer that is none: content-length",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: content-length\r\n\r\n1\r\nx\r\n0\r\ncontent-length: 5\r\n\r\n",
        &[&["host: a", "=x", "~1\r\nx\r\n0\r\n\r\n"]],
    ),
    passed(
        "9110 6.5.1 a trailer that is none: transfer-encoding",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: transfer-encoding\r\n\r\n1\r\nx\r\n0\r\ntransfer-encoding: chunked\r\n\r\n",
        &[&["host: a", "=x", "~1\r\nx\r\n0\r\n\r\n"]],
    ),
    passed(
        "9110 6.5.1 a trailer that is none: host",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: host\r\n\r\n1\r\nx\r\n0\r\nhost: b\r\n\r\n",
        &[&["host: a", "=x", "~1\r\nx\r\n0\r\n\r\n"]],
    ),
    passed(
        "9110 6.5.1 a trailer that is none: authorization",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: authorization\r\n\r\n1\r\nx\r\n0\r\nauthorization: x\r\n\r\n",
        &[&["host: a", "=x", "~1\r\nx\r\n0\r\n\r\n"]],
    ),
    passed(
        "9110 6.5.1 a trailer that is none: cookie",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: cookie\r\n\r\n1\r\nx\r\n0\r\ncookie: a=b\r\n\r\n",
        &[&["host: a", "=x", "~1\r\nx\r\n0\r\n\r\n"]],
    ),
    passed(
        "9110 6.5.1 a trailer that is none: x-forwarded-for",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: x-forwarded-for\r\n\r\n1\r\nx\r\n0\r\nx-forwarded-for: 1.2.3.4\r\n\r\n",
        &[&["host: a", "=x", "~1\r\nx\r\n0\r\n\r\n"]],
    ),
    passed(
        "9110 6.5.1 a trailer that is none: connection",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: connection\r\n\r\n1\r\nx\r\n0\r\nconnection: close\r\n\r\n",
        &[&["host: a", "=x", "~1\r\nx\r\n0\r\n\r\n"]],
    ),
    // 9, connections
    row(
        "9.3 keep-alive and close",
        "GET /1 HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, close\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200],
        CLOSES,
        &[&["GET /1 HTTP/1.1", "!connection"]],
    ),
    row(
        "9.3 HTTP/1.0 with a body, and on",
        "POST /1 HTTP/1.0\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nxGET /2 HTTP/1.0\r\n\r\n",
        &[200, 200],
        CLOSES,
        &[&["POST /1 HTTP/1.1", "=x", "!connection"], &["GET /2 HTTP/1.1"]],
    ),
    row(
        "9.3 HTTP/1.0 with keep-alive and close",
        "GET /1 HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        &[200],
        CLOSES,
        &[&["GET /1 HTTP/1.1"]],
    ),
    row(
        "9.3.2 nothing behind a version that nobody speaks",
        "GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/9.9\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[200, 505],
        CLOSES,
        &[&["GET /1 HTTP/1.1"]],
    ),
    passed(
        "9110 7.6.1 not the length",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: content-length\r\nContent-Length: 1\r\n\r\nx",
        &[&["content-length: 1", "=x"]],
    ),
    passed(
        "9110 7.6.1 not the coding",
        "POST / HTTP/1.1\r\nHost: a\r\nConnection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
        &[&["transfer-encoding: chunked", "=x"]],
    ),
    passed(
        "9110 7.6.1 not the way that it has come",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: via, forwarded\r\nVia: 1.1 b\r\n\r\n",
        &[&["via: 1.1 b", "via: 1.1 tollgate"]],
    ),
    passed(
        "9110 7.6.1 an option that is empty",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection:\r\n\r\n",
        &[&["!connection"]],
    ),
    passed(
        "9110 7.6.1 Keep-Alive named and there",
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\nKeep-Alive: max=5\r\n\r\n",
        &[&["!keep-alive", "!connection"]],
    ),
    passed(
        "9110 11.7.1 Proxy-Authenticate",
        "GET / HTTP/1.1\r\nHost: a\r\nProxy-Authenticate: Basic\r\n\r\n",
        &[&["!proxy-authenticate"]],
    ),
    // RFC 9110, 7.6.2, 7.6.3 and 10.1.1
    passed(
        "9110 7.6.2 more than anybody can count",
        "TRACE / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 99999999999999999999\r\n\r\n",
        &[&["max-forwards: 4294967295"]],
    ),
    passed(
        "9110 7.6.2 what is no number",
        "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n",
        &[&["max-forwards: x"]],
    ),
    row(
        "9110 7.6.3 the version that was received",
        "GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        &[200],
        CLOSES,
        &[&["via: 1.0 tollgate"]],
    ),
    passed(
        "9110 7.6.3 Via in several fields",
        "GET / HTTP/1.1\r\nHost: a\r\nVia: 1.0 b\r\nVia: 1.1 c\r\n\r\n",
        &[&["via: 1.0 b", "via: 1.1 c", "via: 1.1 tollgate"]],
    ),
    row(
        "9110 10.1.1 the upstream asks for the body",
        "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 5\r\n\r\nhello",
        &[100, 200],
        STAYS,
        &[&["expect: 100-Continue", "=hello"]],
    ),
    refused(
        "9110 10.1.1 two expectations in two fields",
        &[417],
        "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nExpect: x\r\nContent-Length: 5\r\n\r\nhello",
    ),
    // Who the client is, which is not for strangers to say
    passed(
        "X-Forwarded-For of a stranger",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 10.0.0.1\r\n\r\n",
        &[&["x-forwarded-for: 127.0.0.1"]],
    ),
    passed(
        "X-Forwarded-Proto of a stranger",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Proto: https\r\n\r\n",
        &[&["x-forwarded-proto: http"]],
    ),
    passed(
        "X-Forwarded-Host of a stranger",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: b\r\n\r\n",
        &[&["x-forwarded-host: a"]],
    ),
    passed(
        "7239 Forwarded of a stranger",
        "GET / HTTP/1.1\r\nHost: a\r\nForwarded: for=10.0.0.1\r\n\r\n",
        &[&["!forwarded"]],
    ),
    passed(
        "9440 Client-Cert of a stranger",
        "GET / HTTP/1.1\r\nHost: a\r\nClient-Cert: :AA==:\r\nClient-Cert-Chain: :AA==:\r\n\r\n",
        &[&["!client-cert", "!client-cert-chain"]],
    ),
    passed(
        "9110 17.10 names that some servers take for others",
        "GET / HTTP/1.1\r\nHost: a\r\nX_Forwarded_For: 10.0.0.1\r\nX-Forwarded_Proto: https\r\nContent_Length: 5\r\nTransfer_Encoding: chunked\r\nClient_Cert: x\r\nX_A: y\r\n\r\n",
        &[&[
            "x-forwarded-for: 127.0.0.1",
            "!x_forwarded_for",
            "!x-forwarded_proto",
            "!content_length",
            "!transfer_encoding",
            "!client_cert",
            "!x_a",
        ]],
    ),
    passed(
        "What only proxies say, of a stranger",
        "GET / HTTP/1.1\r\nHost: a\r\nX-Real-IP: 6\r\nX-Forwarded-Port: 6\r\nX-Forwarded-User: root\r\nFront-End-Https: on\r\nX-Original-URL: /b\r\nX-Url-Scheme: https\r\nX-Forwarded-Protocol: https\r\nProxy: http://b\r\nX.Forwarded.For: 6\r\nTrue-Client-IP: 6\r\nX-Kept: 1\r\n\r\n",
        &[&[
            "!x-real-ip",
            "!x-forwarded-port",
            "!x-forwarded-user",
            "!front-end-https",
            "!x-original-url",
            "!x-url-scheme",
            "!x-forwarded-protocol",
            "!proxy",
            "!x.forwarded.for",
            "!true-client-ip",
            "x-kept: 1",
        ]],
    ),
    // Paths that some servers shorten
    refused("3986 3.3 nothing but a parameter", &[400], "GET /;/admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3986 3.3 nothing but a named parameter", &[400], "GET /;x=y/admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3986 3.3 the same, encoded", &[400], "GET /%3bx/admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("a session of ASP.NET", &[400], "GET /(S(x))/admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("dots and a space", &[400], "GET /a/..%20/admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    refused("3629 10 a dot in two bytes", &[400], "GET /%c0%ae%c0%ae/admin HTTP/1.1\r\nHost: a\r\n\r\n"),
    passed(
        "3986 3.3 a parameter of a folder",
        "GET /a/;jsessionid=1 HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /a/;jsessionid=1 HTTP/1.1"]],
    ),
    passed(
        "9110 4.2.3 a query beyond ASCII",
        "GET /?q=é HTTP/1.1\r\nHost: a\r\n\r\n",
        &[&["GET /?q=%C3%A9 HTTP/1.1"]],
    ),
    refused(
        "7.1.1 an extension without a name",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;\r\nx\r\n0\r\n\r\n",
    ),
    refused(
        "7.1.1 an extension whose name is none",
        &[400],
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;bad[=x\r\nx\r\n0\r\n\r\n",
    ),
    passed(
        "9110 6.5.1 a trailer that the head had",
        "POST / HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\nTrailer: x-a, x_a, x-b\r\n\r\n1\r\nx\r\n0\r\nX-A: 2\r\nX_A: 3\r\nX-B: 4\r\n\r\n",
        &[&["x-a: 1", "~1\r\nx\r\n0\r\nx-b: 4\r\n\r\n"]],
    ),
];

/// What the proxy adds to a request.
const ADDED: [&str; 6] =
    ["via", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-request-id", "transfer-encoding"];

/// Fields that end at the proxy, whatever they say.
const HOP: [&str; 7] = [
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authorization",
    "upgrade",
    "forwarded",
    "client-cert",
];

/// All responses, up to as many as there are to be, and whether the end of the connection comes with them.
async fn run(proxy: &Proxy, row: &Row, piece: usize) -> (Vec<Response>, bool) {
    let mut client = proxy.connect().await;
    for piece in row.sent.as_bytes().chunks(piece) {
        if !client.send(piece).await {
            break;
        }
    }
    let mut responses = Vec::new();
    while responses.len() < row.statuses.len()
        && let Some(response) = client.any_response(row.sent.starts_with("HEAD")).await
    {
        responses.push(response);
    }
    let is_open = match row.closes {
        true => !client.is_closed().await,
        false => {
            client.send("GET /last HTTP/1.1\r\nHost: a\r\n\r\n").await;
            client.any_response(false).await.is_some_and(|response| response.status == 200)
        }
    };
    (responses, !is_open)
}

/// What is wrong with what the client got.
fn complaints_of_client(row: &Row, responses: &[Response], closed: bool, port: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let statuses: Vec<_> = responses.iter().map(|response| response.status).collect();
    if (&statuses[..], closed) != (row.statuses, row.closes) {
        complaints.push(format!("answered {statuses:?}, closed: {closed}"));
    }
    for (place, response) in responses.iter().enumerate() {
        let is_last = place + 1 == row.statuses.len();
        let says_close =
            response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if says_close && !(is_last && row.closes) {
            complaints.push(format!("the end is said too early: {response:?}"));
        }
        if response.status >= 400 && !says_close {
            complaints.push(format!("a refusal that does not say that it is the last: {response:?}"));
        }
        let is_of_origin = response.header("x-backend-server").is_some();
        if is_of_origin != (response.status == 200 && !row.seen.is_empty()) {
            complaints.push(format!("of the origin: {is_of_origin}: {response:?}"));
        }
        if is_of_origin && !row.sent.starts_with("HEAD") && response.text() != port {
            complaints.push(format!("not the origin's body: {response:?}"));
        }
        if response.status >= 400 && !response.body.is_empty() && response.json()["status"] != response.status
        {
            complaints.push(format!("another document than that of the status: {response:?}"));
        }
    }
    complaints
}

/// What is wrong with what the upstream got.
fn complaints_of_origin(row: &Row, seen: &[Received]) -> Vec<String> {
    let mut complaints = Vec::new();
    if seen.len() != row.seen.len() {
        complaints.push(format!("{} requests reached the upstream: {seen:?}", seen.len()));
    }
    let sent = row.sent.to_ascii_lowercase();
    for (received, wanted) in seen.iter().zip(row.seen) {
        // The origin reads as strictly as the rules are; what it sees is a request of HTTP/1.1.
        let mut lines = received.raw.split("\r\n");
        if !lines.next().is_some_and(|line| line.ends_with(" HTTP/1.1")) {
            complaints.push(format!("another version: {received:?}"));
        }
        let lines: BTreeSet<_> = received.raw.split("\r\n").collect();
        let mut names: Vec<_> = received.headers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
        names.retain(|name| !ADDED.contains(&name.as_str()));
        for name in names {
            let is_named = name == "host" && (sent.contains("://") || sent.contains(" http/1.0"));
            if !is_named && !sent.contains(&format!("{name}:")) {
                complaints.push(format!("nobody has sent {name}: {received:?}"));
            }
            if HOP.contains(&name.as_str()) {
                complaints.push(format!("{name} ends at the proxy: {received:?}"));
            }
        }
        for name in ["host", "content-length", "transfer-encoding", "x-forwarded-for", "x-request-id"] {
            if received.values(name).len() > 1 {
                complaints.push(format!("{name} stands twice: {received:?}"));
            }
        }
        for wanted in *wanted {
            let is_there = match wanted.split_at_checked(1) {
                Some(("!", name)) => received.values(name).is_empty(),
                Some(("=", body)) => received.body == body.as_bytes(),
                Some(("~", bytes)) => received.raw_body == bytes.as_bytes(),
                _ => lines.contains(wanted),
            };
            if !is_there {
                complaints.push(format!("not {wanted:?}: {received:?}"));
            }
        }
    }
    complaints
}

#[tokio::test]
async fn every_rule_that_a_proxy_must_keep_is_kept() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut complaints = Vec::new();
    for row in ROWS {
        for piece in [row.sent.len(), 1] {
            let before = origin.received().len();
            let Ok((responses, closed)) =
                tokio::time::timeout(Duration::from_secs(10), run(&proxy, row, piece)).await
            else {
                complaints.push(format!("{} in pieces of {piece}: nothing happens", row.name));
                continue;
            };
            let mut seen = origin.received().split_off(before);
            seen.retain(|received| received.target != "/last");
            let mut found = complaints_of_client(row, &responses, closed, &origin.port());
            found.extend(complaints_of_origin(row, &seen));
            complaints.extend(
                found.into_iter().map(|complaint| format!("{} in pieces of {piece}: {complaint}", row.name)),
            );
        }
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn there_is_a_row_for_each_rule_and_none_stands_twice() {
    let names: BTreeSet<_> = ROWS.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), ROWS.len());
    assert!(ROWS.len() >= 150, "{}", ROWS.len());
}
