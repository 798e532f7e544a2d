//! An upstream that breaks the rules of RFC 9110 and RFC 9112 harms nobody: what has no end never looks finished, what
//! can be read in two ways goes no further, and nobody gets what was meant for another.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use tollgate_tests::{
    Answer, Config, Origin, Proxy, Then,
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
    row(
        "5.1 space before a colon",
        "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        true,
    ),
    row(
        "5.1 space before that of the length",
        "HTTP/1.1 200 OK\r\nContent-Length\t: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        true,
    ),
    refused(
        "5.1 space before the colon of a second length",
        "HTTP/1.1 200 OK\r\nContent-Length : 4\r\nContent-Length: 5\r\n\r\nhello",
    ),
    refused("5.1 no name", "HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 5\r\n\r\nhello"),
    refused("5 no colon", "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 5\r\n\r\nhello"),
    refused("5 a name with a space", "HTTP/1.1 200 OK\r\nX Y: z\r\nContent-Length: 5\r\n\r\nhello"),
    row(
        "5.2 a folded line",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        true,
    ),
    refused("5.2 a folded status line", "HTTP/1.1 200 OK\r\n X: y\r\nContent-Length: 5\r\n\r\nhello"),
    // 2.2: where a response begins
    row("2.2 an empty line", "\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", KeepOpen, HELLO, true),
    row(
        "2.2 an empty line before 204",
        "\r\nHTTP/1.1 204 No Content\r\n\r\n",
        KeepOpen,
        Whole(204, ""),
        true,
    ),
    row(
        "2.2 an empty line before 304",
        "\r\nHTTP/1.1 304 Not Modified\r\n\r\n",
        KeepOpen,
        Whole(304, ""),
        true,
    ),
    row(
        "2.2 an empty line behind 100",
        "HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        true,
    ),
    row(
        "2.2 an empty line behind 103",
        "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        true,
    ),
    row("2.2 bare line feeds", "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello", KeepOpen, HELLO, true),
    row(
        "2.2 bare line feeds in an interim response",
        "HTTP/1.1 103 X\nLink: a\n\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        KeepOpen,
        HELLO,
        true,
    ),
    refused(
        "9110 15.2 a field that is none, in an interim response",
        "HTTP/1.1 103 X\r\nA: b\rSet-Cookie: c\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    ),
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
    let config = Config::to(&origin).top("workers = 1");
    let config = config.upstream("retry.attempts = 0\ntimeouts.body = \"300ms\"");
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
                let got = known(status, response.text());
                // What comes behind it on the connection of the client is the answer to the next request.
                if response.header("connection") != Some("close") {
                    client.send("GET /again HTTP/1.1\r\nHost: test\r\n\r\n").await;
                    let next = client.any_response(false).await.expect("the connection goes on");
                    assert_eq!((next.status, next.text()), (200, FINE), "behind {response:?}");
                }
                return got;
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

/// An upstream of one endpoint with these limits.
fn limited(url: &str, settings: &str) -> String {
    let config = Config::to(url).top("workers = 1").upstream("retry.attempts = 0");
    config.upstream("outlier.consecutive-failures = 2").upstream(settings).toml()
}

/// A head of so many fields of so many bytes, as fields of `Set-Cookie`.
fn cookies(count: usize, size: usize) -> Vec<String> {
    (0..count).map(|number| format!("c{number}={}", "x".repeat(size))).collect()
}

/// A path that asks for such a head.
fn numbers(path: &str) -> (usize, usize) {
    let (count, size) = path[1..].split_once('-').unwrap();
    (count.parse().unwrap(), size.parse().unwrap())
}

#[tokio::test]
async fn the_head_of_a_response_is_limited_as_the_upstream_says_and_that_is_nobodys_fault() {
    let http1 = Origin::answering(|received| {
        let (count, size) = numbers(&received.target);
        let fields: String = cookies(count, size).iter().map(|c| format!("Set-Cookie: {c}\r\n")).collect();
        Answer::raw(format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 5\r\n\r\nhello"))
    })
    .await;
    let http2 = Http2Origin::serving(|request, mut respond| async move {
        let (count, size) = numbers(request.uri().path());
        let mut response = http::Response::builder().header("content-length", "5");
        for cookie in cookies(count, size) {
            response = response.header("set-cookie", cookie);
        }
        let mut stream = respond.send_response(response.body(()).unwrap(), false).unwrap();
        let _ = stream.send_data("hello".into(), true);
    })
    .await;
    for (url, protocol) in [(http1.url(), ""), (http2.url(), "protocol = \"h2\"\n")] {
        for (settings, rows) in [
            (
                "",
                &[
                    (90, 5, 200),
                    (101, 5, 200),
                    (300, 5, 200),
                    (60, 1000, 200),
                    (8, 8000, 200),
                    (1100, 5, 502),
                    (9, 40_000, 502),
                ][..],
            ),
            ("limits = { header-count = 20 }", &[(18, 5, 200), (30, 5, 502), (2, 9000, 200)]),
            (
                "limits = { headers = \"8KiB\" }",
                &[(150, 5, 200), (2, 5000, 502), (1, 7000, 200), (1, 90_000, 502)],
            ),
            ("limits = { headers = \"1MiB\", header-count = 5000 }", &[(4000, 5, 200), (10, 100_000, 200)]),
        ] {
            let proxy = Proxy::start(&limited(&url, &format!("{protocol}{settings}"))).await;
            for (count, size, expected) in rows {
                // Often enough to put the endpoint out if it were to blame.
                for _ in 0..3 {
                    let response = proxy.get(&format!("/{count}-{size}"), &[]).await;
                    assert_eq!(
                        response.status, *expected,
                        "{protocol}{settings} {count} fields of {size} bytes"
                    );
                    if *expected == 200 {
                        let got = response.values("set-cookie");
                        assert_eq!(got, cookies(*count, *size), "in order");
                        assert_eq!(response.text(), "hello");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_cuts_no_other_response_on_its_connection() {
    let origin = Http2Origin::serving(|request, mut respond| async move {
        if request.uri().path() == "/slow" {
            let mut stream = respond.send_response(http::Response::new(()), false).unwrap();
            let _ = stream.send_data("begun ".into(), false);
            let mut body = request.into_body();
            while let Some(Ok(data)) = body.data().await {
                let _ = body.flow_control().release_capacity(data.len());
            }
            let _ = stream.send_data("ended".into(), true);
            return;
        }
        let (count, size) = numbers(request.uri().path());
        let mut response = http::Response::builder();
        for cookie in cookies(count, size) {
            response = response.header("set-cookie", cookie);
        }
        let _ = respond.send_response(response.body(()).unwrap(), true);
    })
    .await;
    let proxy =
        Proxy::start(&limited(&origin.url(), "protocol = \"h2\"\ntimeouts = { body = \"2m\" }")).await;
    let mut slow = proxy.connect().await;
    slow.send("POST /slow HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    slow.read_until("begun ").await;
    for path in ["/8-40000", "/300-1000", "/1100-5", "/1-400000"] {
        assert_eq!(proxy.get(path, &[]).await.status, 502, "{path}");
    }
    slow.send("0\r\n\r\n").await;
    slow.read_until("ended").await;
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn an_interim_response_sets_nothing_and_says_nothing_of_the_connection() {
    let origin = Origin::answering(|_| {
        Answer::raw(
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nSet-Cookie: a=b\r\nConnection: X-Hop\r\nX-Hop: 1\r\n\
             Keep-Alive: 1\r\nUpgrade: h2c\r\nStrict-Transport-Security: max-age=1\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        )
    })
    .await;
    let proxy = Proxy::start(&tollgate_tests::route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let head = client.read_until("\r\n\r\n").await;
    assert_eq!(head, "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n");
    assert_eq!(client.response().await.text(), "hello");
}

#[tokio::test]
async fn a_426_says_what_to_go_on_in() {
    let origin = Origin::answering(|_| {
        Answer::raw(
            "HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.3, HTTP/1.1\r\nConnection: Upgrade\r\n\
             Content-Length: 2\r\n\r\nno",
        )
    })
    .await;
    let proxy = Proxy::start(&tollgate_tests::route_to(&[&origin.url()])).await;
    let response = proxy.get("/", &[]).await;
    assert_eq!((response.status, response.header("upgrade")), (426, Some("TLS/1.3, HTTP/1.1")));
    assert_eq!(response.header("connection"), Some("upgrade"));
    // In HTTP/2 nobody goes on in another protocol that way (RFC 9113, section 8.6).
    let mut client = Http2Client::connect(proxy.address()).await;
    let response = client.get("/").await;
    assert_eq!((response.status, response.text(), response.header("upgrade")), (426, "no", None));
}

#[tokio::test]
async fn a_malformed_head_of_http_2_is_refused_alone() {
    let origin = Http2Origin::serving(|request, mut respond| async move {
        let value = match request.uri().path() {
            "/before" => " a",
            "/behind" => "a\t",
            _ => "a b",
        };
        let value = http::HeaderValue::from_bytes(value.as_bytes()).unwrap();
        let _ = respond.send_response(http::Response::builder().header("x", value).body(()).unwrap(), true);
    })
    .await;
    let proxy = Proxy::start(&limited(&origin.url(), "protocol = \"h2\"")).await;
    for (path, expected) in [("/", 200), ("/before", 502), ("/", 200), ("/behind", 502), ("/", 200)] {
        assert_eq!(proxy.get(path, &[]).await.status, expected, "{path}");
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn an_endpoint_that_offers_push_is_not_spoken_to() {
    let origin = tollgate_tests::BareOrigin::start().await;
    let proxy = Proxy::start(&limited(&origin.url(), "protocol = \"h2\"")).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let stream = origin.accept().await.into_stream();
    let mut server = FrameClient::serve(stream, &[0, 3, 0, 0, 0, 9, 0, 2, 0, 0, 0, 1]).await;
    assert_eq!(client.response().await.status, 502);
    while server.next().await.is_some() {}
}
