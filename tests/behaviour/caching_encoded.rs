//! What is stored is encoded once for all who want it.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::io::Read;

use tollgate_tests::{Answer, Client, Config, Origin, Proxy, Response, soon};

const ACCEPT: &str = "Accept-Encoding: gzip";

fn page() -> String {
    (0..20_000).map(|line| format!("<li>{} is line {line}</li>\n", line * 7919 % 1000)).collect()
}

fn gunzip(response: &Response) -> String {
    assert_eq!(response.header("content-encoding"), Some("gzip"), "{:?}", response.headers);
    let mut text = String::new();
    flate2::read::GzDecoder::new(&response.body[..])
        .read_to_string(&mut text)
        .expect("this is gzip, and whole");
    text
}

async fn stored(cache_control: &'static str) -> (Origin, Proxy) {
    let origin = Origin::answering(move |received| match received.header("if-none-match") {
        Some(_) => Answer::raw(format!("HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nX-New: 1\r\n{cache_control}\r\n")),
        None => Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\nETag: \"v1\"\r\n{cache_control}\r\n{}",
            page().len(),
            page()
        )),
    })
    .await;
    let config = Config::to(&origin).admin().route("cache = true\ncompress = true").toml();
    let proxy = Proxy::start(&config).await;
    assert_eq!(proxy.get("/", &[]).await.header("x-cache"), Some("MISS"));
    (origin, proxy)
}

/// Waits until what has been made is kept: only then its length is known before.
async fn made(proxy: &Proxy, accept: &str) -> Response {
    soon("the encoded form is kept", async {
        loop {
            let response = proxy.get("/", &[accept]).await;
            if response.header("content-length").is_some() {
                return response;
            }
        }
    })
    .await
}

#[tokio::test]
async fn what_is_stored_is_encoded_once_and_weighed() {
    let (origin, proxy) = stored("Cache-Control: max-age=60\r\n").await;
    let before = proxy.metrics().await.sum("tollgate_cache_bytes", &[]);
    let first = proxy.get("/", &[ACCEPT]).await;
    assert_eq!((gunzip(&first) == page(), first.header("x-cache")), (true, Some("HIT")));
    assert_eq!((first.header("etag"), first.header("vary")), (Some("W/\"v1\""), Some("accept-encoding")));
    let kept = made(&proxy, ACCEPT).await;
    assert_eq!(kept.body, first.body);
    assert_eq!((kept.header("etag"), kept.header("vary")), (Some("W/\"v1\""), Some("accept-encoding")));
    let after = proxy.metrics().await.sum("tollgate_cache_bytes", &[]);
    assert!(after >= before + kept.body.len() as f64, "{before} {after} {}", kept.body.len());
    // Another encoding is another form; whoever takes none gets what was stored.
    let brotli = made(&proxy, "Accept-Encoding: br").await;
    assert_eq!(brotli.header("content-encoding"), Some("br"));
    assert_eq!(proxy.get("/", &[]).await.text(), page());
    assert_eq!(origin.received().len(), 1);
    proxy.admin("DELETE", "/api/cache?all", &[]).await;
    assert_eq!(
        proxy.metrics().await.sum("tollgate_cache_bytes", &[]),
        0.0,
        "it goes with what it was made of"
    );
}

#[tokio::test]
async fn conditions_and_ranges_hold_for_it() {
    let (_origin, proxy) = stored("Cache-Control: max-age=60\r\n").await;
    made(&proxy, ACCEPT).await;
    let same = proxy.get("/", &[ACCEPT, "If-None-Match: W/\"v1\""]).await;
    assert_eq!((same.status, same.header("etag"), same.body.len()), (304, Some("W/\"v1\""), 0));
    let part = proxy.get("/", &[ACCEPT, "Range: bytes=4-8"]).await;
    assert_eq!((part.status, part.text()), (206, &page()[4..9]));
    assert_eq!((part.header("content-encoding"), part.header("etag")), (None, Some("\"v1\"")));
    // RFC 9110, sections 15.3.7 and 15.4.5: what the 200 would say of this, they say too.
    assert_eq!(
        (same.header("vary"), part.header("vary")),
        (Some("accept-encoding"), Some("accept-encoding"))
    );
    let known = proxy.get("/", &["If-None-Match: \"v1\""]).await;
    assert_eq!((known.status, known.header("vary")), (304, Some("accept-encoding")));
    // Who holds the beginning of the encoded form does not get the end of another.
    let whole = proxy.get("/", &[ACCEPT, "Range: bytes=4-8", "If-Range: W/\"v1\""]).await;
    assert_eq!((whole.status, gunzip(&whole) == page()), (200, true));
    let mut client = proxy.connect().await;
    client.send(format!("HEAD / HTTP/1.1\r\nHost: test\r\n{ACCEPT}\r\n\r\n")).await;
    let head = client.any_response(true).await.unwrap();
    assert_eq!((head.header("content-encoding"), head.header("etag")), (Some("gzip"), Some("W/\"v1\"")));
}

#[tokio::test]
async fn what_is_still_good_need_not_be_encoded_again() {
    let (origin, proxy) = stored("Cache-Control: no-cache\r\n").await;
    made(&proxy, ACCEPT).await;
    let asked = origin.received().len();
    let again = proxy.get("/", &[ACCEPT]).await;
    assert_eq!((again.header("x-cache"), again.header("x-new")), (Some("REVALIDATED"), Some("1")));
    assert!(again.header("content-length").is_some() && gunzip(&again) == page());
    assert_eq!(origin.received().len(), asked + 1);
}

#[tokio::test]
async fn many_who_ask_at_once_all_get_the_same() {
    let (_origin, proxy) = stored("Cache-Control: max-age=60\r\n").await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let address = proxy.address();
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{ACCEPT}\r\n\r\n")).await;
            client.response().await
        });
    }
    let mut bodies = Vec::new();
    while let Some(response) = soon("an answer", clients.join_next()).await {
        let response = response.unwrap();
        assert!(response.is_complete);
        bodies.push(response.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1);
}
