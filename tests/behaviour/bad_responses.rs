//! An upstream that breaks the rules of RFC 9110 and RFC 9112 harms nobody: what has no end never looks finished, what
//! can be read in two ways goes no further, and nobody gets what was meant for another.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use tollgate_tests::{
    Answer, Origin, Proxy, Then,
    http2::{self, *},
};

/// What an upstream answers, and what comes of it.
struct Row {
    /// The section, of RFC 9112 unless another is named, and what is wrong.
    name: &'static str,
    answer: &'static str,
    /// What the upstream does then.
    then: Then,
    client: Gets,
    /// Whether the connection to the upstream is used again.
    is_reused: bool,
}

/// What the client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gets {
    /// This status and this body, to its end.
    Whole(u16, &'static str),
    /// 200, and a body that has no end.
    Cut,
    /// 502.
    Refusal,
}

use Gets::{Cut, Refusal, Whole};
use Then::{Close, KeepOpen};

const fn row(name: &'static str, answer: &'static str, then: Then, client: Gets, is_reused: bool) -> Row {
    Row { name, answer, then, client, is_reused }
}

/// Of no use to anybody.
const fn refused(name: &'static str, answer: &'static str) -> Row {
    row(name, answer, KeepOpen, Refusal, false)
}

/// A body that breaks off, since it is malformed.
const fn cut(name: &'static str, answer: &'static str) -> Row {
    row(name, answer, KeepOpen, Cut, false)
}

/// A body that breaks off, since the upstream closes the connection.
const fn ended(name: &'static str, answer: &'static str) -> Row {
    row(name, answer, Close, Cut, false)
}

const HELLO: Gets = Whole(200, "hello");

const ROWS: &[Row] = &[
    // What is in order, so that the others mean something
    row("a response", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", KeepOpen, HELLO, true),
    row(
        "chunks",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\n\r\n",
        KeepOpen,
        HELLO,
        true,
    ),
    row("up to the end of the connection", "HTTP/1.1 200 OK\r\n\r\nhello", Close, HELLO, false),
    row(
        "the last of its connection",
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        false,
    ),
    row("HTTP/1.0", "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", KeepOpen, HELLO, false),
    // 4, the status line
    refused("4 garbage", "garbage\r\n\r\n"),
    refused("4 a document", "<html>hello</html>\r\n\r\n"),
    refused("4 TLS", "\x15\x03\x01\x00\x02\x02\x46\r\n\r\n"),
    refused("4 another protocol", "ICY 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 HTTP/2", "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 HTTP/0.9", "HTTP/0.9 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 HTTP/1.2", "HTTP/1.2 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 two digits", "HTTP/1.10 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 lower case", "http/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 no status", "HTTP/1.1 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 a status of two digits", "HTTP/1.1 20 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 a status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 a status below all", "HTTP/1.1 099 OK\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 NUL in the reason", "HTTP/1.1 200 O\0K\r\nContent-Length: 5\r\n\r\nhello"),
    refused("4 CR in the reason", "HTTP/1.1 200 O\rK\r\nContent-Length: 5\r\n\r\nhello"),
    row("4 no reason", "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", KeepOpen, HELLO, true),
    row("4 an empty reason", "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello", KeepOpen, HELLO, true),
    // 5, fields
    refused("5.1 space before a colon", "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 5\r\n\r\nhello"),
    refused("5.1 space before that of the length", "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello"),
    refused("5.1 no name", "HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 5\r\n\r\nhello"),
    refused("5 no colon", "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 5\r\n\r\nhello"),
    refused("5 a name with a space", "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 5\r\n\r\nhello"),
    refused("5.2 a folded line", "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 5\r\n\r\nhello"),
    refused("5.2 a folded length", "HTTP/1.1 200 OK\r\nContent-Length:\r\n 5\r\n\r\nhello"),
    refused("9110 5.5 NUL", "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 5\r\n\r\nhello"),
    refused("9110 5.5 CR", "HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: b\r\nContent-Length: 5\r\n\r\nhello"),
    refused("9110 5.5 DEL", "HTTP/1.1 200 OK\r\nX: a\x7fb\r\nContent-Length: 5\r\n\r\nhello"),
    // 6.3, two lengths
    row(
        "6.3 length, then coding",
        "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        KeepOpen,
        HELLO,
        false,
    ),
    row(
        "6.3 coding, then length",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 20\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        KeepOpen,
        HELLO,
        false,
    ),
    refused("6.3 two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"),
    refused("6.3 the same twice", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello"),
    refused("6.3 a list", "HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello"),
    refused("6.2 a sign", "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello"),
    refused("6.2 below zero", "HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello"),
    refused("6.2 hexadecimal", "HTTP/1.1 200 OK\r\nContent-Length: 0x5\r\n\r\nhello"),
    refused("6.2 a word", "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello"),
    refused("6.2 empty", "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nhello"),
    refused("6.2 beyond 64 bits", "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551621\r\n\r\nhello"),
    // 6.1, codings
    refused("6.1 gzip", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello"),
    refused(
        "6.1 identity",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello",
    ),
    refused(
        "6.1 gzip and chunked",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 chunked twice",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    refused(
        "6.1 chunked in two fields",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    refused("6.1 misspelt", "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    refused(
        "6.1 a coding in HTTP/1.0",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ),
    // 7.1, chunks
    cut("7.1 no size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n"),
    cut("7.1 no digit", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\nhello\r\n0\r\n\r\n"),
    cut("7.1 a sign", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"),
    cut("7.1 below zero", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n"),
    cut("7.1 0x", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"),
    cut(
        "7.1 beyond 64 bits",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10000000000000005\r\nhello\r\n0\r\n\r\n",
    ),
    cut(
        "7.1 more than its size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhello\r\n0\r\n\r\n",
    ),
    cut(
        "7.1 less than its size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nhello\r\n0\r\n\r\n",
    ),
    cut(
        "7.1 no line end behind it",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello0\r\n\r\n",
    ),
    cut(
        "7.1 CR alone behind the size",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n",
    ),
    cut(
        "7.1 LF in an extension",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n",
    ),
    cut(
        "7.1.2 trailers that are none",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX y\r\n\r\n",
    ),
    // 8, what breaks off
    ended("8 within a length", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"),
    ended("8 before the first byte", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
    ended("8 within a chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
    ended("8 before the first chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
    ended("8 within a size", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1"),
    ended("8 between chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    ended(
        "8 after the last chunk",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ),
    ended(
        "8 within the trailers",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n",
    ),
    row("8 within the status line", "HTTP/1.1 20", Close, Refusal, false),
    row("8 within the head", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n", Close, Refusal, false),
    row("8 after an interim response", "HTTP/1.1 103 Early Hints\r\n\r\n", Close, Refusal, false),
    // 9110 15.2, interim responses
    row(
        "9110 15.2 100 that nobody has asked for",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        true,
    ),
    row(
        "9110 15.2 several",
        "HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\nHTTP/1.1 199 X\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        true,
    ),
    row(
        "9110 15.2 with a length",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        true,
    ),
    refused(
        "9110 15.2 with a body",
        "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ),
    refused(
        "9110 15.2.2 101 that nobody has asked for",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    ),
    // 6.3 and 9110 6.4.1: statuses without a body
    row("9110 15.3.5 204", "HTTP/1.1 204 No Content\r\n\r\n", KeepOpen, Whole(204, ""), true),
    row(
        "9110 15.3.5 204 with a body",
        "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        Whole(204, ""),
        false,
    ),
    row(
        "9110 15.3.5 204 with chunks",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        KeepOpen,
        Whole(204, ""),
        false,
    ),
    row(
        "9110 15.4.5 304 with the length of what it is about",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        KeepOpen,
        Whole(304, ""),
        true,
    ),
    row(
        "9110 15.4.5 304 with a body",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        Whole(304, ""),
        false,
    ),
    // 9.2: bytes that belong to no response
    row(
        "9.2 bytes behind a body",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello!",
        KeepOpen,
        HELLO,
        false,
    ),
    row(
        "9.2 bytes behind the last chunk",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n!",
        KeepOpen,
        HELLO,
        false,
    ),
    row(
        "9.2 a response to nothing",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhelloHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
        KeepOpen,
        HELLO,
        false,
    ),
];

const FINE: &str = "fine";

/// A proxy before an origin that answers a request for `/<number>` with the row of this number.
async fn start() -> (Origin, Proxy) {
    let origin = Origin::answering(|received| {
        match received.target.strip_prefix("/row/").and_then(|number| number.parse::<usize>().ok()) {
            Some(number) => Answer { pieces: vec![ROWS[number].answer.into()], then: ROWS[number].then },
            None => Answer::ok(FINE),
        }
    })
    .await;
    let config = format!(
        "workers = 1\n[upstreams.app]\nendpoints = [{:?}]\nretry = {{ attempts = 0 }}\n\
         timeouts = {{ body = \"300ms\" }}\n[[routes]]\nupstream = \"app\"\n",
        origin.url()
    );
    let proxy = Proxy::start(&config).await;
    (origin, proxy)
}

/// What a client of HTTP/1 gets, and whether its connection has a good end.
async fn ask(proxy: &Proxy, path: &str) -> Gets {
    let mut client = proxy.connect().await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    loop {
        let Some(response) = client.any_response(false).await else { return Cut };
        match response.status {
            100..200 => {}
            502 => {
                assert_eq!(response.header("content-type"), Some("application/problem+json"));
                return Refusal;
            }
            status if response.is_complete => {
                let lengths = response.values("content-length").len();
                let has_coding = response.header("transfer-encoding").is_some();
                let may_have = status != 204 || (lengths == 0 && !has_coding);
                assert!(may_have, "a length of what is not there: {response:?}");
                return known(status, response.text());
            }
            _ => {
                assert!(client.is_closed().await, "a connection goes on after a body without an end");
                return Cut;
            }
        }
    }
}

/// The same of HTTP/2.
async fn ask_by_http2(proxy: &Proxy, path: &str) -> Gets {
    let mut client = Http2Client::connect(proxy.address()).await;
    match client.send(http2::request("GET", path, &[]), b"").await {
        Err(_) => Cut,
        Ok(response) if response.error.is_some() => Cut,
        Ok(response) if response.status == 502 => Refusal,
        Ok(response) => known(response.status, response.text()),
    }
}

fn known(status: u16, body: &str) -> Gets {
    match body {
        "" => Whole(status, ""),
        "hello" => Whole(status, "hello"),
        FINE => Whole(status, FINE),
        other => panic!("{status} {other:?}"),
    }
}

#[tokio::test]
async fn a_bad_response_harms_nobody() {
    let (origin, proxy) = start().await;
    let mut complaints = Vec::new();
    for (number, row) in ROWS.iter().enumerate() {
        for is_http2 in [false, true] {
            // So that the row is met on a connection that was in order so far.
            assert_eq!(ask(&proxy, "/before").await, Whole(200, FINE));
            let before = origin.received().len();
            let path = format!("/row/{number}");
            let got = if is_http2 { ask_by_http2(&proxy, &path).await } else { ask(&proxy, &path).await };
            let after = ask(&proxy, "/after").await;
            let received = origin.received().split_off(before);
            let asked = received.iter().filter(|received| received.target == path).count();
            let is_reused = received[0].connection == received[received.len() - 1].connection;
            if (got, asked, is_reused, after) != (row.client, 1, row.is_reused, Whole(200, FINE)) {
                complaints.push(format!(
                    "{}, HTTP/2: {is_http2}: {got:?}, asked {asked} times, reused: {is_reused}, then {after:?}",
                    row.name
                ));
            }
        }
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
}

#[tokio::test]
async fn a_status_has_a_reason() {
    for (line, expected) in
        [("200 OK", "200 OK"), ("200 Fine", "200 Fine"), ("200 ", "200 OK"), ("200", "200 OK")]
    {
        let answer = format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n");
        let origin = Origin::answering(move |_| Answer::raw(answer.clone())).await;
        let proxy = Proxy::start(&tollgate_tests::route_to(&[&origin.url()])).await;
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.read_until("\r\n").await, format!("HTTP/1.1 {expected}\r\n"), "{line:?}");
    }
}

#[tokio::test]
async fn a_head_without_an_end_is_refused() {
    for (answer, expected) in [
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 5\r\n\r\nhello", "a".repeat(100 << 10)), 200),
        (format!("HTTP/1.1 200 OK\r\nX: {}\r\nContent-Length: 5\r\n\r\nhello", "a".repeat(2 << 20)), 502),
        (format!("HTTP/1.1 200 OK\r\nX: {}", "a".repeat(2 << 20)), 502),
        (format!("HTTP/1.1 200 {}", "a".repeat(2 << 20)), 502),
        (format!("HTTP/1.1 200 OK\r\n{}Content-Length: 5\r\n\r\nhello", "X: y\r\n".repeat(10_000)), 502),
        ("HTTP/1.1 103 X\r\n\r\n".repeat(1000) + "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200),
    ] {
        let begun = answer[..60].to_owned();
        let origin = Origin::answering(move |_| Answer::raw(answer.clone()).close()).await;
        let proxy = Proxy::start(&tollgate_tests::route_to(&[&origin.url()])).await;
        let mut client = proxy.connect().await;
        // So that interim responses are nobody's.
        client.send("GET / HTTP/1.0\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.status, expected, "{begun}");
    }
}
