//! HTTP/2 does what HTTP/1 does, and cannot be used against the proxy or those behind it.

use bytes::Bytes;
use tollgate_tests::{
    Answer, BareOrigin, Origin, Proxy,
    http2::{self, *},
    listener, logged, route_to, soon, until,
};

/// A proxy before this origin, with a listener of these settings.
async fn proxy_with(settings: &str, endpoint: &str) -> Proxy {
    Proxy::start(&(route_to(&[endpoint]) + &listener(settings))).await
}

#[tokio::test]
async fn a_request_reaches_an_upstream_of_http_1_and_its_response_the_client() {
    let origin = Origin::answering(|received| {
        Answer::raw(format!(
            "HTTP/1.1 201 Created\r\nX-A: 1\r\nX-A: 2\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nContent-Length: {}\r\n\r\n{}",
            received.body.len(),
            String::from_utf8_lossy(&received.body)
        ))
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let sent =
        http2::request("POST", "/a//b?c=d", &[("x-b", "3"), ("content-length", "5"), ("te", "trailers")]);
    let response = client.send(sent, b"hello").await.unwrap();
    assert_eq!((response.status, response.text()), (201, "hello"));
    assert_eq!(response.headers.get_all("x-a").iter().count(), 2);
    assert!(response.header("x-hop").is_none() && response.header("connection").is_none(), "{response:?}");
    assert_eq!(response.header("content-length"), Some("5"));

    let received = origin.last();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("POST", "/a/b?c=d"));
    assert_eq!(received.header("host"), Some("test"));
    assert_eq!(received.header("x-b"), Some("3"));
    assert_eq!(received.header("content-length"), Some("5"));
    assert_eq!(received.header("te"), Some("trailers"));
    assert_eq!(received.header("via"), Some("2 tollgate"));
    assert_eq!(received.header("x-forwarded-host"), Some("test"));
    assert_eq!(received.body, b"hello");
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_at_once_and_in_any_order() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (first, _) = client.open(http2::request("GET", "/first", &[]), true).await;
    let mut slow = origin.accept().await;
    assert!(slow.read_until("\r\n\r\n").await.starts_with("GET /first "));
    let (second, _) = client.open(http2::request("GET", "/second", &[]), true).await;
    let mut quick = origin.accept().await;
    assert!(quick.read_until("\r\n\r\n").await.starts_with("GET /second "));
    quick.send(&Answer::ok("quick").pieces[0]).await;
    assert_eq!(Http2Response::read(soon("a response", second).await.unwrap()).await.text(), "quick");
    slow.send(&Answer::ok("slow").pieces[0]).await;
    assert_eq!(Http2Response::read(soon("a response", first).await.unwrap()).await.text(), "slow");
}

#[tokio::test]
async fn trailers_pass_in_both_directions() {
    let origin = Origin::answering(|received| {
        assert!(String::from_utf8_lossy(&received.raw_body).ends_with("0\r\nx-sum: 7\r\n\r\n"), "{received:?}");
        Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n2\r\nok\r\n0\r\nX-End: 9\r\n\r\n")
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, mut stream) =
        client.open(http2::request("POST", "/", &[("trailer", "x-sum")]), false).await;
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    stream.send_trailers([("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect()).unwrap();
    let response = Http2Response::read(soon("a response", response).await.unwrap()).await;
    assert_eq!((response.text(), response.trailer("x-end")), ("ok", Some("9")));
}

#[tokio::test]
async fn an_error_of_the_proxy_is_a_response_like_any_other() {
    let origin = Origin::start().await;
    let config = format!(
        "[upstreams.app]\nendpoints = [{:?}]\n[[routes]]\nupstream = \"app\"\nmatch.path = \"/here\"\n",
        origin.url()
    );
    let proxy = Proxy::start(&config).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let response = client.get("/elsewhere").await;
    assert_eq!(response.status, 404);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
    assert_eq!(client.get("/here").await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn a_listener_may_speak_http_1_only() {
    let origin = Origin::start().await;
    let proxy = proxy_with("http2 = false", &origin.url()).await;
    let mut client = proxy.connect().await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(client.response().await.status, 505);
}

#[tokio::test]
async fn it_does_not_matter_how_the_preface_is_cut() {
    let origin = Origin::start().await;
    let proxy = proxy_with("timeouts.header = \"300ms\"", &origin.url()).await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for cut in 1..preface.len() {
        let mut client = FrameClient::bare(proxy.address()).await;
        client.send_bytes(&preface[..cut]).await;
        tokio::task::yield_now().await;
        client.send_bytes(&preface[cut..]).await;
        client.send(&RawFrame::new(SETTINGS, 0, 0, [])).await;
        client.send(&RawFrame::headers(END_STREAM, 1, &GET)).await;
        assert_eq!(client.outcome(1).await, Ok(200), "cut at {cut}");
    }
    for (begun, status) in [
        ("PRI * HTTP/2.0\r\n\r\nSM", 408),
        ("PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", 505),
        ("PUT / HTTP/1.1\r\nHost: a\r\n\r\n", 200),
    ] {
        let mut client = proxy.connect().await;
        client.send(begun).await;
        assert_eq!(client.response().await.status, status, "{begun:?}");
    }
}

#[tokio::test]
async fn the_access_log_and_plugins_know_the_version() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    client.get("/version-of-http-2?q").await;
    let words = ["\"uri\":\"/version-of-http-2?q\"", "\"version\":\"2\"", "\"host\":\"test\""];
    until("the line is there", || !logged(&words).is_empty()).await;
}
