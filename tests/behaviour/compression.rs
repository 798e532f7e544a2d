//! A client gets what it can read, and it is what the upstream has sent.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::io::{Read, Write};

use flate2::{Compression, Decompress, FlushDecompress, read, write};
use tollgate_tests::{Answer, BareOrigin, Config, Origin, Proxy, Received, Response, logged};

use crate::load::curl;

/// A proxy with one route, that has these settings.
async fn proxy_with(origin: &str, settings: &str) -> Proxy {
    let config = Config::to(origin).top("workers = 1").route("name = \"compressed\"").route(settings);
    Proxy::start(&config).await
}

/// What a browser would be sent.
fn page(length: usize) -> String {
    (0..).map(|line| format!("<li>{} is line {line}</li>\n", line * 7919 % 1000)).take(length / 20).collect()
}

/// 200 with this head and body.
fn answer(head: &str, body: impl AsRef<[u8]>) -> Answer {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{head}\r\n", body.len());
    Answer::raw([head.as_bytes(), body].concat())
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = write::GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn gunzip(bytes: &[u8]) -> String {
    let mut text = String::new();
    read::GzDecoder::new(bytes).read_to_string(&mut text).expect("this is gzip, and whole");
    text
}

fn accepting(encodings: &str) -> Vec<String> {
    vec![format!("Accept-Encoding: {encodings}")]
}

async fn get(proxy: &Proxy, lines: &[&str]) -> Response {
    proxy.get("/", lines).await
}

#[tokio::test]
async fn curl_reads_every_encoding() {
    let page = page(300_000);
    let origin = Origin::answering({
        let page = page.clone();
        move |_| answer("Content-Type: text/html\r\n", &page)
    })
    .await;
    let proxy = proxy_with(&origin.url(), "compress = true").await;
    for encoding in ["gzip", "deflate", "br", "zstd", "x-unknown"] {
        let accept = format!("Accept-Encoding: {encoding}");
        let url = proxy.url("/");
        let report = "\n%header{content-encoding} %{size_download}";
        let arguments = [&url, "--compressed", "--header", &accept, "--write-out", report];
        let Some(output) = curl(&arguments).await else { return };
        let text = String::from_utf8(output.stdout).unwrap();
        let (body, report) = text.rsplit_once('\n').unwrap();
        assert!(body == page, "{encoding}: {} bytes", body.len());
        let (content_encoding, size) = report.split_once(' ').unwrap();
        if encoding == "x-unknown" {
            assert_eq!((content_encoding, size), ("", page.len().to_string().as_str()));
        } else {
            assert_eq!(content_encoding, encoding);
            let size: usize = size.parse().unwrap();
            assert!(size < page.len() / 3, "{encoding}: {size}");
        }
    }
    // The connection to the upstream is none the worse for it.
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_route_that_does_not_ask_for_it_changes_nothing() {
    let head = "Content-Type: text/html\r\nETag: \"1\"\r\nAccept-Ranges: bytes\r\n";
    let origin = Origin::answering(move |_| answer(head, page(50_000))).await;
    for settings in ["", "compress = false"] {
        let proxy = proxy_with(&origin.url(), settings).await;
        let response = get(&proxy, &["Accept-Encoding: gzip", "If-Match: W/\"1\""]).await;
        assert_eq!(response.text(), page(50_000));
        assert_eq!(response.header("etag"), Some("\"1\""));
        assert_eq!(response.header("accept-ranges"), Some("bytes"));
        assert_eq!(response.header("content-encoding"), None);
        assert_eq!(response.header("vary"), None);
        assert_eq!(origin.last().header("if-match"), Some("W/\"1\""));
    }
}

#[tokio::test]
async fn settings_say_what_is_encoded_and_with_what() {
    let origin = Origin::answering(|received| {
        let length = received.target.trim_start_matches('/').parse().unwrap();
        answer("Content-Type: text/csv\r\n", "x".repeat(length))
    })
    .await;
    let settings = "compress = { encodings = [\"gzip\", \"br\"], minimum = \"100B\", types = [\"text/csv\"], levels = { gzip = 9 } }";
    let proxy = proxy_with(&origin.url(), settings).await;
    for (path, accept, wanted) in [
        ("/99", "gzip", None),
        ("/100", "gzip", Some("gzip")),
        ("/100", "br, gzip", Some("gzip")),
        ("/100", "br, gzip;q=0.9", Some("br")),
        ("/100", "zstd", None),
    ] {
        let response = proxy.get(path, &[&accepting(accept)[0]]).await;
        assert_eq!(response.header("content-encoding"), wanted, "{path} {accept}");
    }
}

#[tokio::test]
async fn what_is_streamed_arrives_piece_by_piece() {
    let origin = BareOrigin::start().await;
    let proxy = proxy_with(&origin.url(), "compress = { types = [\"text/event-stream\"] }").await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: deflate\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream
        .send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        .await;
    let head = client.read_until("\r\n\r\n").await;
    assert!(head.contains("content-encoding: deflate\r\n"), "{head}");
    // The next is only sent when the one before has come.
    let mut decoder = Decompress::new(true);
    for number in 0..5 {
        let event = format!("data: {number}\n\n");
        upstream.send(format!("{:x}\r\n{event}\r\n", event.len())).await;
        let mut decoded = Vec::with_capacity(100);
        while decoded != event.as_bytes() {
            let size = client.read_until("\r\n").await;
            let size = usize::from_str_radix(size.trim_end(), 16).unwrap();
            let mut chunk = Vec::new();
            while chunk.len() < size + 2 {
                chunk.extend(client.read_some().await);
            }
            decoder.decompress_vec(&chunk[..size], &mut decoded, FlushDecompress::Sync).unwrap();
        }
    }
}

#[tokio::test]
async fn what_breaks_off_at_the_upstream_breaks_off_at_the_client() {
    let page = page(100_000);
    let coded = gzip(page.as_bytes());
    let origin = Origin::answering(move |received| {
        let (head, body) = match received.target.as_str() {
            "/plain" => ("", page.as_bytes()),
            _ => ("Content-Encoding: gzip\r\n", &coded[..]),
        };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n{head}Content-Length: ");
        let half = &body[..body.len() / 2];
        match received.target.as_str() {
            // Whole as far as HTTP can tell.
            "/cut-gzip" => Answer::raw([format!("{head}{}\r\n\r\n", half.len()).as_bytes(), half].concat()),
            _ => Answer::raw([format!("{head}{}\r\n\r\n", body.len()).as_bytes(), half].concat()).close(),
        }
    })
    .await;
    let proxy = proxy_with(&origin.url(), "compress = true").await;
    for (path, accept) in
        [("/plain", "gzip"), ("/plain", "br"), ("/plain", "zstd"), ("/gzip", "br"), ("/cut-gzip", "br")]
    {
        let response = proxy.get(path, &[&accepting(accept)[0]]).await;
        assert!(!response.is_complete, "{path} {accept}");
    }
}

#[tokio::test]
async fn what_the_client_cannot_read_is_decoded() {
    let page = page(300_000);
    let coded = gzip(page.as_bytes());
    let origin = Origin::answering(move |_| {
        answer("Content-Type: text/html\r\nContent-Encoding: gzip\r\nETag: \"1\"\r\n", &coded)
    })
    .await;
    let proxy = proxy_with(&origin.url(), "compress = true").await;
    for accept in ["br", "gzip;q=0", "identity", ""] {
        let response = proxy.get("/", &[&accepting(accept)[0]]).await;
        assert!(response.is_complete && response.text() == page, "{accept}");
        assert_eq!(response.header("content-encoding"), None);
        assert_eq!(response.header("etag"), Some("W/\"1\""));
        assert_eq!(response.header("vary"), Some("accept-encoding"));
    }
    for lines in [&["Accept-Encoding: gzip"][..], &["Accept-Encoding: *"], &[]] {
        let response = get(&proxy, lines).await;
        assert_eq!(gunzip(&response.body), page, "{lines:?}");
        assert_eq!(response.header("content-encoding"), Some("gzip"));
        assert_eq!(response.header("etag"), Some("\"1\""));
        assert_eq!(response.header("vary"), Some("accept-encoding"));
    }
}

#[tokio::test]
async fn a_bomb_does_not_go_off() {
    let bomb = gzip(&vec![0; 20 << 20]);
    assert!(bomb.len() < 30_000);
    let origin = Origin::answering(move |_| answer("Content-Encoding: gzip\r\n", &bomb)).await;
    for (name, decode, most) in
        [("by-ratio", "ratio = 100", 30_000 * 100), ("by-size", "ratio = 2000, size = \"2MiB\"", 2 << 20)]
    {
        let config = Config::to(&origin).route(&format!("name = {name:?}\ncompress.decode = {{ {decode} }}"));
        let proxy = Proxy::start(&config).await;
        let response = get(&proxy, &["Accept-Encoding: identity"]).await;
        assert!(!response.is_complete, "{name}");
        assert!(response.body.len() <= most, "{name}: {}", response.body.len());
        assert_eq!(logged(&[name, "could not be decoded", "larger than allowed"]).len(), 1);
    }
}

/// Compares as RFC 9110, section 13, has it, with one tag that is strong.
fn compare(received: &Received) -> Answer {
    let has =
        |name, tag| received.header(name).is_some_and(|tags| tags.split(", ").any(|other| other == tag));
    if received.header("if-match").is_some() && !has("if-match", "\"1\"") {
        return Answer::raw("HTTP/1.1 412 Precondition Failed\r\nContent-Length: 0\r\n\r\n");
    }
    if has("if-none-match", "\"1\"") || has("if-none-match", "W/\"1\"") {
        return Answer::raw("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n\r\n");
    }
    answer("Content-Type: text/html\r\nETag: \"1\"\r\n", page(5000))
}

#[tokio::test]
async fn a_tag_from_an_encoded_response_still_serves() {
    let origin = Origin::answering(compare).await;
    let proxy = proxy_with(&origin.url(), "compress = true").await;
    for (accept, tag) in [("gzip", "W/\"1\""), ("identity", "\"1\"")] {
        let accept = &accepting(accept)[0];
        let response = get(&proxy, &[accept]).await;
        assert_eq!((response.status, response.header("etag")), (200, Some(tag)));
        let response = get(&proxy, &[accept, &format!("If-None-Match: {tag}")]).await;
        assert_eq!((response.status, response.header("etag")), (304, Some(tag)));
        let put = format!("PUT / HTTP/1.1\r\nHost: a\r\nIf-Match: {tag}\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(proxy.request(&put).await.status, 200);
        assert_eq!(origin.last().header("if-match"), Some("\"1\""));
    }
    let put = "PUT / HTTP/1.1\r\nHost: a\r\nIf-Match: W/\"2\"\r\nContent-Length: 2\r\n\r\nhi";
    assert_eq!(proxy.request(put).await.status, 412);
}

#[tokio::test]
async fn the_response_to_head_has_the_headers_of_the_one_to_get() {
    let origin = Origin::answering(|received| match received.method.as_str() {
        "HEAD" => Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 5000\r\nETag: \"1\"\r\n\r\n",
        ),
        _ => answer("Content-Type: text/html\r\nETag: \"1\"\r\n", "x".repeat(5000)),
    })
    .await;
    let proxy = proxy_with(&origin.url(), "compress = true").await;
    for accept in ["gzip", "identity"] {
        let mut client = proxy.connect().await;
        let lines = format!("Host: a\r\nAccept-Encoding: {accept}\r\n\r\n");
        client.send(format!("HEAD / HTTP/1.1\r\n{lines}")).await;
        let head = client.any_response(true).await.unwrap();
        // There is no body that the next response could be mistaken for.
        client.send(format!("GET / HTTP/1.1\r\n{lines}")).await;
        let get = client.response().await;
        for name in ["content-type", "content-encoding", "etag", "vary", "content-length"] {
            assert_eq!(head.header(name), get.header(name), "{accept} {name}");
        }
        assert_eq!(head.header("content-encoding"), (accept == "gzip").then_some("gzip"));
    }
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_what_has_a_length() {
    let origin = Origin::answering(|_| answer("Content-Type: text/html\r\n", page(5000))).await;
    let proxy = proxy_with(&origin.url(), "compress = true").await;
    let response = proxy.request("GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n").await;
    assert_eq!(response.header("content-length"), Some(page(5000).len().to_string().as_str()));
    assert_eq!(response.text(), page(5000));
}

#[tokio::test]
async fn trailers_come_behind_what_is_encoded() {
    let origin = Origin::answering(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTrailer: x-sum, digest\r\nTransfer-Encoding: chunked\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Sum: 1\r\nDigest: md5=x\r\n\r\n",
        )
    })
    .await;
    let proxy = proxy_with(&origin.url(), "compress = true").await;
    let response = get(&proxy, &["Accept-Encoding: gzip", "TE: trailers"]).await;
    assert_eq!(gunzip(&response.body), "hello");
    assert_eq!(response.trailers, [("x-sum".to_owned(), "1".to_owned())]);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_it_at_the_upstream() {
    let origin = BareOrigin::start().await;
    let proxy = proxy_with(&origin.url(), "compress = true").await;
    let mut client = proxy.connect_and_reset().await;
    client.send("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 10000\r\n\r\nhello").await;
    client.read_until("\r\n\r\n").await;
    drop(client);
    assert!(upstream.is_closed().await);
}
