//! A response has the content that its status and the method of its request allow, whoever has made it what it is.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use tollgate_tests::{
    Answer, Origin, Proxy, guest,
    http2::{Http2Client, request},
    through,
};

/// A proxy before an origin that says `hello`, with a plugin that does as the request says.
async fn start() -> (Origin, Proxy) {
    let origin = Origin::answering(|_| Answer::ok("hello")).await;
    let config = through(&origin, "guest", "config = { response = \"obey\" }");
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    (origin, proxy)
}

#[tokio::test]
async fn a_status_without_content_has_none_whatever_it_was_before() {
    let (_origin, proxy) = start().await;
    let mut client = proxy.connect().await;
    let mut http2 = Http2Client::connect(proxy.address()).await;
    for (status, length) in [(204, None), (205, Some("0")), (304, None)] {
        let todo = format!("status-{status}");
        client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nx-do-response: {todo}\r\n\r\n")).await;
        // Another request behind it finds out what a client takes for the content of the first.
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (status, ""));
        assert_eq!(response.header("content-length"), length, "{status}");
        assert_eq!(response.header("transfer-encoding"), None, "{status}");
        assert_eq!(client.response().await.text(), "hello", "behind {status}");

        let response = http2.send(request("GET", "/", &[("x-do-response", &todo)]), b"").await.unwrap();
        assert!(response.error.is_none(), "{status}: {:?}", response.error);
        assert_eq!((response.status, response.text()), (status, ""));
        assert!(response.header("content-length").is_none_or(|length| length == "0"), "{status}");
    }
}

#[tokio::test]
async fn a_response_to_head_has_the_length_and_no_content() {
    let (_origin, proxy) = start().await;
    let mut http2 = Http2Client::connect(proxy.address()).await;
    let mut client = proxy.connect().await;
    // Of the upstream, of a plugin, and of the proxy.
    for (path, headers, status, length) in [
        ("/", &[][..], 200, Some("5")),
        ("/", &[("x-do-response", "reply")], 418, Some("7")),
        ("/%2f", &[], 400, None),
    ] {
        let response = http2.send(request("HEAD", path, headers), b"").await.unwrap();
        assert!(response.error.is_none(), "{path}: {:?}", response.error);
        assert_eq!((response.status, response.text()), (status, ""), "{path}");
        assert!(length.is_none() || response.header("content-length") == length, "{path} {response:?}");
        if status == 400 {
            continue;
        }
        let fields: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        client.send(format!("HEAD {path} HTTP/1.1\r\nHost: test\r\n{fields}\r\n")).await;
        let response = client.any_response(true).await.unwrap();
        assert_eq!((response.status, response.header("content-length")), (status, length), "{path}");
    }
}
