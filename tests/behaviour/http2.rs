//! HTTP/2 does what HTTP/1 does, and cannot be used against the proxy or those behind it.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

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

/// A route to an upstream of HTTP/2, with these settings of `[upstreams.app]`.
fn route_to_http2(endpoint: &str, settings: &str) -> String {
    format!(
        "[upstreams.app]\nendpoints = [{endpoint:?}]\nprotocol = \"h2\"\n{settings}\n[[routes]]\nupstream = \"app\"\n"
    )
}

/// The head of a response with this status.
fn head(status: u16) -> http::Response<()> {
    let mut head = http::Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(status).unwrap();
    head
}

#[tokio::test]
async fn a_request_of_http_1_reaches_an_upstream_of_http_2() {
    let origin = Http2Origin::start().await;
    let proxy = Proxy::start(&route_to_http2(&origin.url(), "")).await;
    let mut client = proxy.connect().await;
    for body in
        ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    {
        client.send(format!("POST /a?b HTTP/1.1\r\nHost: a.example\r\nTE: trailers\r\nConnection: te, x-hop\r\nX-Hop: 1\r\nCookie: a=b\r\n{body}")).await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, "hello"));
        assert_eq!(response.header("x-backend-server"), Some(&*origin.address.to_string()));
        let received = origin.received().pop().unwrap();
        assert_eq!(received.uri, "http://a.example/a?b");
        assert_eq!(received.headers["te"], "trailers");
        for gone in ["host", "connection", "transfer-encoding", "x-hop"] {
            assert!(!received.headers.contains_key(gone), "{received:?}");
        }
    }
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200, "no host is named, so the endpoint's is");
    assert_eq!(origin.received().pop().unwrap().uri.to_string(), format!("{}/", origin.url()));
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_body_that_waits_to_be_asked_for_reaches_an_upstream_of_http_2() {
    let origin = Http2Origin::start().await;
    let proxy = Proxy::start(&route_to_http2(&origin.url(), "")).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.any_response(false).await.unwrap().status, 100);
    client.send("hello").await;
    assert_eq!(client.response().await.text(), "hello");
    assert!(!origin.received()[0].headers.contains_key("expect"));
}

#[tokio::test]
async fn http_2_is_spoken_from_end_to_end_with_trailers() {
    let origin = Http2Origin::start().await;
    let proxy = Proxy::start(&route_to_http2(&origin.url(), "")).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, mut stream) = client.open(http2::request("POST", "/", &[]), false).await;
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    stream.send_trailers([("x-sum".parse().unwrap(), "7".parse().unwrap())].into_iter().collect()).unwrap();
    let response = Http2Response::read(soon("a response", response).await.unwrap()).await;
    assert_eq!((response.text(), response.trailer("x-sum")), ("hello", Some("7")));
}

#[tokio::test]
async fn many_requests_share_a_connection_up_to_what_the_upstream_allows() {
    for (allowed, connections) in [(100, 1), (10, 3)] {
        let (release, released) = tokio::sync::watch::channel(false);
        let mut settings = h2::server::Builder::new();
        settings.max_concurrent_streams(allowed);
        let origin = Http2Origin::serving_with(settings, move |_, mut respond| {
            let mut released = released.clone();
            async move {
                let _ = released.wait_for(|released| *released).await;
                let _ = respond.send_response(head(200), true);
            }
        })
        .await;
        let proxy = Proxy::start(&format!("workers = 1\n{}", route_to_http2(&origin.url(), ""))).await;
        let mut client = Http2Client::connect(proxy.address()).await;
        let mut responses = Vec::new();
        for _ in 0..30 {
            responses.push(client.open(http2::request("GET", "/", &[]), true).await.0);
        }
        origin.has_received(30).await;
        assert_eq!(origin.connections(), connections);
        release.send_replace(true);
        for response in responses {
            assert_eq!(soon("a response", response).await.unwrap().status(), 200);
        }
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_once() {
    for (method, refusals, expected) in [("GET", 1, 200), ("POST", 1, 200), ("GET", 2, 502), ("POST", 2, 502)]
    {
        let seen = std::sync::atomic::AtomicUsize::new(0);
        let origin = Http2Origin::serving(move |_, mut respond| {
            let is_refused = seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < refusals;
            async move {
                match is_refused {
                    true => respond.send_reset(h2::Reason::REFUSED_STREAM),
                    false => drop(respond.send_response(head(200), true)),
                }
            }
        })
        .await;
        let proxy = Proxy::start(&route_to_http2(&origin.url(), "retry = { attempts = 1 }\n")).await;
        let response =
            proxy.request(&format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")).await;
        assert_eq!(response.status, expected, "{method} refused {refusals} times");
    }
}

#[tokio::test]
async fn a_refused_stream_is_sent_again_with_its_body_while_that_is_there() {
    // What the endpoint does first: read so much of the body, and refuse the stream.
    for (method, framing, settings, read, expected) in [
        ("POST", "Content-Length: 10\r\n\r\nhelloworld", "", 0, 200),
        ("POST", "Content-Length: 10\r\n\r\nhelloworld", "", 10, 200),
        ("PUT", "Content-Length: 10\r\n\r\nhelloworld", "", 10, 200),
        ("POST", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", "", 5, 200),
        ("POST", "Content-Length: 10\r\n\r\nhelloworld", "body = \"5B\"", 10, 502),
        ("PUT", "Content-Length: 10\r\n\r\nhelloworld", "body = \"5B\"", 10, 502),
        ("POST", "Content-Length: 10\r\n\r\nhelloworld", "attempts = 0", 10, 502),
    ] {
        let seen = std::sync::atomic::AtomicUsize::new(0);
        let origin = Http2Origin::serving(move |request, mut respond| {
            let is_refused = seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
            async move {
                let mut body = request.into_body();
                let mut all = Vec::new();
                while (!is_refused || all.len() < read)
                    && let Some(Ok(data)) = body.data().await
                {
                    let _ = body.flow_control().release_capacity(data.len());
                    all.extend_from_slice(&data);
                }
                if is_refused {
                    return respond.send_reset(h2::Reason::REFUSED_STREAM);
                }
                let _ = respond.send_response(head(200), false).unwrap().send_data(all.into(), true);
            }
        })
        .await;
        let config = route_to_http2(&origin.url(), &format!("retry = {{ {settings} }}\n"));
        let proxy = Proxy::start(&config).await;
        let response = proxy.request(&format!("{method} / HTTP/1.1\r\nHost: a\r\n{framing}")).await;
        assert_eq!(response.status, expected, "{method} {framing} {settings} {read}");
        assert_eq!(origin.received().len(), if expected == 200 { 2 } else { 1 });
        if expected == 200 {
            assert_eq!(response.text(), "helloworld", "{method} {framing}");
        }
    }
}

#[tokio::test]
async fn a_reset_of_the_client_reaches_upstreams_of_both_versions() {
    let (told, mut was_reset) = tokio::sync::mpsc::unbounded_channel();
    let origin = Http2Origin::serving(move |_, mut respond| {
        let told = told.clone();
        async move {
            let reason = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            let _ = told.send(reason.ok());
        }
    })
    .await;
    let proxy = Proxy::start(&route_to_http2(&origin.url(), "")).await;
    for has_body in [false, true] {
        let mut client = Http2Client::connect(proxy.address()).await;
        let (response, mut stream) = client.open(http2::request("POST", "/", &[]), !has_body).await;
        origin.has_received(1 + usize::from(has_body)).await;
        stream.send_reset(h2::Reason::CANCEL);
        assert_eq!(soon("a reset", was_reset.recv()).await, Some(Some(h2::Reason::CANCEL)), "{has_body}");
        drop(response);
    }

    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    for answer in ["", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello"] {
        let (response, mut stream) = client.open(http2::request("GET", "/", &[]), true).await;
        let mut upstream = origin.accept().await;
        upstream.read_until("\r\n\r\n").await;
        upstream.send(answer).await;
        stream.send_reset(h2::Reason::CANCEL);
        assert!(upstream.is_closed().await, "after {answer:?}");
        drop(response);
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_reset() {
    for (reason, expected) in [
        (h2::Reason::CANCEL, h2::Reason::CANCEL),
        (h2::Reason::REFUSED_STREAM, h2::Reason::INTERNAL_ERROR),
        (h2::Reason::ENHANCE_YOUR_CALM, h2::Reason::INTERNAL_ERROR),
    ] {
        let has_come = std::sync::Arc::new(tokio::sync::Notify::new());
        let until_then = has_come.clone();
        let origin = Http2Origin::serving(move |_, mut respond| {
            let has_come = until_then.clone();
            async move {
                let mut stream = respond.send_response(head(200), false).unwrap();
                stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
                has_come.notified().await;
                stream.send_reset(reason);
            }
        })
        .await;
        let proxy = Proxy::start(&route_to_http2(&origin.url(), "")).await;
        let mut client = Http2Client::connect(proxy.address()).await;
        let (response, _) = client.open(http2::request("GET", "/", &[]), true).await;
        let mut response = soon("a response", response).await.unwrap();
        soon("its beginning", response.body_mut().data()).await.unwrap().unwrap();
        has_come.notify_one();
        let error = Http2Response::read(response).await.error;
        assert_eq!(error.and_then(|error| error.reason()), Some(expected));
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        client.read_until("hello").await;
        has_come.notify_one();
        assert_eq!(client.read_to_end().await, b"\r\n", "no chunk says that this is all");
    }
    let origin =
        Origin::answering(|_| Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello").close())
            .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let response = Http2Client::connect(proxy.address()).await.get("/").await;
    assert_eq!(response.error.and_then(|error| error.reason()), Some(h2::Reason::INTERNAL_ERROR));
}

#[tokio::test]
async fn a_connection_that_the_upstream_ends_takes_no_more_requests() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&format!("workers = 1\n{}", route_to_http2(&origin.url(), ""))).await;
    // Played with h2 itself, since a bare origin would have to speak it.
    let accept = async {
        let stream = origin.accept().await.into_stream();
        h2::server::handshake(stream).await.unwrap()
    };
    let mut client = Http2Client::connect(proxy.address()).await;
    let (first, _) = client.open(http2::request("GET", "/1", &[]), true).await;
    let mut upstream = soon("a connection", accept).await;
    let (_, mut respond) = soon("a request", upstream.accept()).await.unwrap().unwrap();
    upstream.graceful_shutdown();
    let driving = tokio::spawn(async move { while upstream.accept().await.is_some() {} });
    respond.send_response(head(201), true).unwrap();
    assert_eq!(soon("a response", first).await.unwrap().status(), 201);
    soon("the end of the connection", driving).await.unwrap();
    let (second, _) = client.open(http2::request("GET", "/2", &[]), true).await;
    let mut upstream = soon("another connection", async {
        h2::server::handshake(origin.accept().await.into_stream()).await.unwrap()
    })
    .await;
    let (_, mut respond) = soon("a request", upstream.accept()).await.unwrap().unwrap();
    respond.send_response(head(202), true).unwrap();
    tokio::spawn(async move { while upstream.accept().await.is_some() {} });
    assert_eq!(soon("a response", second).await.unwrap().status(), 202);
}

#[tokio::test]
async fn a_request_that_the_upstream_has_left_out_when_it_ended_is_sent_again() {
    for (method, body) in [("GET", ""), ("POST", ""), ("POST", "hello")] {
        let origin = BareOrigin::start().await;
        let proxy = Proxy::start(&format!("workers = 1\n{}", route_to_http2(&origin.url(), ""))).await;
        let mut client = Http2Client::connect(proxy.address()).await;
        let (response, mut sending) = client.open(http2::request(method, "/", &[]), body.is_empty()).await;
        if !body.is_empty() {
            sending.send_data(body.into(), true).unwrap();
        }
        let mut upstream = origin.accept().await;
        upstream.read_until("SM\r\n\r\n").await;
        upstream.send(RawFrame::new(SETTINGS, 0, 0, []).bytes()).await;
        // What comes are frames: a length, and then the kind.
        let mut came = Vec::new();
        let has_head = |mut bytes: &[u8]| {
            while bytes.len() >= 9 {
                let length = usize::from(bytes[0]) << 16 | usize::from(bytes[1]) << 8 | usize::from(bytes[2]);
                if bytes[3] == HEADERS {
                    return true;
                }
                bytes = bytes.get(9 + length..).unwrap_or_default();
            }
            false
        };
        while !has_head(&came) {
            came.extend(upstream.read_some().await);
        }
        // No stream was looked at, and there is no error.
        upstream.send(RawFrame::new(GOAWAY, 0, 0, [0; 8]).bytes()).await;
        let mut other = soon("another connection", async {
            h2::server::handshake(origin.accept().await.into_stream()).await.unwrap()
        })
        .await;
        let (request, mut respond) = soon("the request", other.accept()).await.unwrap().unwrap();
        tokio::spawn(async move { while other.accept().await.is_some() {} });
        let mut came = request.into_body();
        let mut all = Vec::new();
        while let Some(data) = soon("the body", came.data()).await {
            all.extend_from_slice(&data.unwrap());
        }
        assert_eq!(all, body.as_bytes());
        respond.send_response(head(203), true).unwrap();
        assert_eq!(soon("a response", response).await.unwrap().status(), 203, "{method} {body}");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_speak_http_2_is_an_error() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to_http2(&origin.url(), "timeouts.connect = \"300ms\"")).await;
    let status = proxy.get("/", &[]).await.status;
    assert!([502, 504].contains(&status), "{status}");
}

#[tokio::test]
async fn a_reader_that_does_not_read_stops_the_upstream_from_sending() {
    const BODY: usize = 64 << 20;
    let sent = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = sent.clone();
    let origin = Http2Origin::serving(move |_, mut respond| {
        let counted = counted.clone();
        async move {
            let mut stream = respond.send_response(head(200), false).unwrap();
            while counted.load(std::sync::atomic::Ordering::SeqCst) < BODY {
                stream.reserve_capacity(16 << 10);
                let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                let Some(Ok(capacity)) = capacity else { return };
                counted.fetch_add(capacity, std::sync::atomic::Ordering::SeqCst);
                let _ = stream.send_data(vec![0; capacity].into(), false);
            }
            let _ = stream.send_data(Bytes::new(), true);
        }
    })
    .await;
    let proxy = Proxy::start(&route_to_http2(&origin.url(), "")).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, _) = client.open(http2::request("GET", "/", &[]), true).await;
    let response = soon("a response", response).await.unwrap();
    // Others on the same connections are served meanwhile; once they are, the first has come to a standstill.
    let mut before = usize::MAX;
    until("the origin is held up", || {
        let now = sent.load(std::sync::atomic::Ordering::SeqCst);
        std::mem::replace(&mut before, now) == now && now > 0
    })
    .await;
    assert!(before < 4 << 20, "{before} bytes have left the origin, and none was read");
    assert_eq!(Http2Response::read(response).await.body.len(), BODY);
}

#[tokio::test]
async fn an_upstream_that_does_not_read_stops_the_client_from_sending() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, mut stream) = client.open(http2::request("POST", "/", &[]), false).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    let mut sent = 0;
    // As much as sockets and windows hold, and no more.
    loop {
        stream.reserve_capacity(16 << 10);
        let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx));
        match tokio::time::timeout(std::time::Duration::from_secs(1), capacity).await {
            Ok(Some(Ok(capacity))) => {
                sent += capacity;
                stream.send_data(vec![0; capacity].into(), false).unwrap();
            }
            Ok(other) => panic!("{other:?}"),
            Err(_) => break,
        }
        assert!(sent < 64 << 20, "the client is never held up");
    }
    drop((response, stream));
}

#[tokio::test]
async fn a_body_that_is_reset_does_not_look_finished() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for reason in [h2::Reason::CANCEL, h2::Reason::NO_ERROR] {
        let mut client = Http2Client::connect(proxy.address()).await;
        let (response, mut stream) = client.open(http2::request("POST", "/", &[]), false).await;
        stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
        let before = origin.bytes();
        until("the beginning has come", || origin.bytes() > before).await;
        stream.send_reset(reason);
        origin.has_open(0).await;
        drop(response);
    }
    assert_eq!(origin.received().len(), 0);
}

/// No error.
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const FLOW_CONTROL_ERROR: u32 = 3;
const ENHANCE_YOUR_CALM: u32 = 11;

#[tokio::test]
async fn what_means_something_else_in_http_1_does_not_get_there() {
    let origin = Origin::start().await;
    let proxy = proxy_with(
        "limits.header-count = 20\nlimits.request-line = \"300B\"\nlimits.headers = \"4KiB\"",
        &origin.url(),
    )
    .await;
    // GET, the rest of the pseudo-fields, and these.
    let with = |fields: &[(&'static str, &'static str)]| [&GET[..], fields].concat();
    // GET with one of the pseudo-fields in another way, or without it.
    let instead = |name: &'static str, value: Option<&'static str>| -> Vec<(&'static str, &'static str)> {
        let field = |(key, old)| if key == name { value.map(|value| (key, value)) } else { Some((key, old)) };
        GET.into_iter().filter_map(field).collect()
    };
    let long: &'static str = "a".repeat(5000).leak();
    let long_path: &'static str = format!("/{}", "a".repeat(300)).leak();
    let many: Vec<(&str, &str)> = with(&[("x", "y"); 21]);
    // The fields of a request, and the status or else the error of its stream.
    type Case<'a> = (Vec<(&'a str, &'a str)>, Result<u16, u32>);
    let cases: Vec<Case<'_>> = vec![
        (with(&[]), Ok(200)),
        (with(&[("host", "test")]), Ok(200)),
        (with(&[("host", "TEST")]), Ok(200)),
        (with(&[("host", "other")]), Ok(400)),
        (with(&[("host", "test"), ("host", "test")]), Ok(400)),
        (instead(":authority", None), Ok(400)),
        ([instead(":authority", None), vec![("host", "test")]].concat(), Ok(200)),
        (instead(":authority", Some("user@test")), Ok(400)),
        (instead(":authority", Some("te st")), Err(PROTOCOL_ERROR)),
        (instead(":scheme", Some("https")), Ok(400)),
        (instead(":scheme", Some("ftp")), Ok(400)),
        (instead(":scheme", None), Err(PROTOCOL_ERROR)),
        (instead(":method", None), Err(PROTOCOL_ERROR)),
        (instead(":method", Some("GE T")), Err(PROTOCOL_ERROR)),
        (instead(":method", Some("get")), Ok(400)),
        (instead(":method", Some("GET / HTTP/1.1\r\nX: y")), Err(PROTOCOL_ERROR)),
        (instead(":path", None), Err(PROTOCOL_ERROR)),
        (instead(":path", Some("")), Err(PROTOCOL_ERROR)),
        (instead(":path", Some("x")), Err(PROTOCOL_ERROR)),
        (instead(":path", Some("*")), Ok(400)),
        (instead(":path", Some("http://other/")), Err(PROTOCOL_ERROR)),
        (instead(":path", Some("/a b")), Err(PROTOCOL_ERROR)),
        (instead(":path", Some("/a HTTP/1.1\r\nX: y\r\n\r\n")), Err(PROTOCOL_ERROR)),
        (instead(":path", Some("/../a")), Ok(400)),
        (instead(":path", Some("/a%2Fb")), Ok(400)),
        (instead(":path", Some(long_path)), Ok(414)),
        (with(&[(":path", "/b")]), Err(PROTOCOL_ERROR)),
        (with(&[(":authority", "other")]), Err(PROTOCOL_ERROR)),
        (with(&[(":unknown", "x")]), Err(PROTOCOL_ERROR)),
        (with(&[(":status", "200")]), Err(PROTOCOL_ERROR)),
        (with(&[(":protocol", "websocket")]), Err(PROTOCOL_ERROR)),
        ([vec![("x", "y")], GET.to_vec()].concat(), Err(PROTOCOL_ERROR)),
        (with(&[("connection", "close")]), Err(PROTOCOL_ERROR)),
        (with(&[("keep-alive", "1")]), Err(PROTOCOL_ERROR)),
        (with(&[("proxy-connection", "close")]), Err(PROTOCOL_ERROR)),
        (with(&[("transfer-encoding", "chunked")]), Err(PROTOCOL_ERROR)),
        (with(&[("upgrade", "h2c")]), Err(PROTOCOL_ERROR)),
        (with(&[("te", "gzip")]), Err(PROTOCOL_ERROR)),
        (with(&[("te", "trailers")]), Ok(200)),
        (with(&[("X-Upper", "1")]), Err(PROTOCOL_ERROR)),
        (with(&[("x y", "1")]), Err(PROTOCOL_ERROR)),
        (with(&[("x:", "1")]), Err(PROTOCOL_ERROR)),
        (with(&[("", "1")]), Err(PROTOCOL_ERROR)),
        (with(&[("x\r\nevil", "1")]), Err(PROTOCOL_ERROR)),
        (with(&[("x", "a\r\nevil: 1")]), Err(PROTOCOL_ERROR)),
        (with(&[("x", "a\nb")]), Err(PROTOCOL_ERROR)),
        (with(&[("x", "a\rb")]), Err(PROTOCOL_ERROR)),
        (with(&[("x", "a\0b")]), Err(PROTOCOL_ERROR)),
        (with(&[("x", "a\x7fb")]), Err(PROTOCOL_ERROR)),
        (with(&[("x\0", "a")]), Err(PROTOCOL_ERROR)),
        (with(&[("host", "test"), ("host", "other")]), Ok(400)),
        (with(&[("host", "")]), Ok(400)),
        ([instead(":authority", None), vec![("host", "te st")]].concat(), Ok(400)),
        (instead(":path", Some("/a\0b")), Err(PROTOCOL_ERROR)),
        (instead(":path", Some("/a%00b")), Ok(400)),
        (with(&[("x_forwarded_for", "10.0.0.1"), ("y", "z")]), Ok(200)),
        (with(&[("x", " a")]), Ok(400)),
        (with(&[("x", "a\t")]), Ok(400)),
        (with(&[("x", "a\u{ff}b")]), Ok(200)),
        (with(&[("x", "")]), Ok(200)),
        (with(&[("content-length", "0")]), Ok(200)),
        (with(&[("content-length", "5")]), Err(PROTOCOL_ERROR)),
        (with(&[("content-length", "-1")]), Err(PROTOCOL_ERROR)),
        (with(&[("content-length", "0x5")]), Err(PROTOCOL_ERROR)),
        (with(&[("content-length", "0"), ("content-length", "0")]), Ok(400)),
        (with(&[("expect", "200-ok")]), Ok(417)),
        (many, Ok(431)),
        (with(&[("x", long)]), Ok(431)),
        (instead(":method", Some("CONNECT")), Err(PROTOCOL_ERROR)),
        (vec![(":method", "CONNECT"), (":authority", "test:80")], Ok(501)),
    ];
    let mut reached = 0;
    for (fields, expected) in cases {
        let mut client = FrameClient::connect(proxy.address()).await;
        client.send(&RawFrame::headers(END_STREAM, 1, &fields)).await;
        let outcome = match client.next_after_control().await {
            frame if frame.kind == HEADERS => Ok(frame.status()),
            frame => Err(frame.code()),
        };
        assert_eq!(outcome, expected, "{fields:?}");
        reached += usize::from(expected == Ok(200));
        assert_eq!(origin.received().len(), reached, "{fields:?}");
    }
    assert!(origin.received().iter().all(|received| !received.raw.contains("evil")));
    assert!(origin.received().iter().all(|received| received.header("x_forwarded_for").is_none()));
}

#[tokio::test]
async fn crumbs_of_a_cookie_become_one_cookie() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let sent =
        http2::request("GET", "/", &[("cookie", "a=b"), ("x", "y"), ("cookie", "c=d"), ("cookie", "e=f")]);
    client.send(sent, b"").await.unwrap();
    assert_eq!(origin.last().header("cookie"), Some("a=b; c=d; e=f"));
}

#[tokio::test]
async fn a_body_that_is_not_as_long_as_it_says_does_not_look_finished() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for body in ["hell", "hello!"] {
        let mut client = FrameClient::connect(proxy.address()).await;
        let fields = [&[(":method", "POST")], &GET[1..], &[("content-length", "5")]].concat();
        client.send(&RawFrame::headers(0, 1, &fields)).await;
        client.send(&RawFrame::new(DATA, END_STREAM, 1, body)).await;
        assert_eq!(client.outcome(1).await, Err(PROTOCOL_ERROR), "{body}");
        origin.has_open(0).await;
    }
    assert_eq!(origin.received().len(), 0);
}

/// Sends these frames until the connection ends; the error that it ends with. They are not without end.
async fn flood(proxy: &Proxy, mut frames: impl FnMut(u32) -> Vec<u8>) -> Option<u32> {
    let mut client = FrameClient::connect(proxy.address()).await;
    for round in 0..200 {
        let batch: Vec<u8> = (0..100).flat_map(|place| frames(round * 100 + place)).collect();
        if !client.send_bytes(&batch).await {
            break;
        }
    }
    client.last_word().await
}

#[tokio::test]
async fn floods_end_the_connection() {
    let origin = Origin::start().await;
    let proxy = proxy_with("limits.headers = \"8KiB\"", &origin.url()).await;
    let control = |kind: u8, stream: u32, payload: &[u8]| RawFrame::new(kind, 0, stream, payload).bytes();
    let stream = |number: u32| number * 2 + 1;
    for (name, ended) in [
        ("ping", flood(&proxy, |_| control(PING, 0, &[0; 8])).await),
        ("settings", flood(&proxy, |_| control(SETTINGS, 0, &[])).await),
        ("priority", flood(&proxy, |number| control(PRIORITY, stream(number), &[0, 0, 0, 0, 1])).await),
        ("window", flood(&proxy, |_| control(WINDOW_UPDATE, 0, &[0, 0, 0, 1])).await),
        ("unknown", flood(&proxy, |_| control(0xfa, 0, &[1])).await),
        (
            "rapid reset",
            flood(&proxy, |number| {
                let head = RawFrame::headers(END_STREAM, stream(number), &GET).bytes();
                [head, control(RST_STREAM, stream(number), &[0, 0, 0, 8])].concat()
            })
            .await,
        ),
        (
            "made to reset",
            flood(&proxy, |number| {
                let head = RawFrame::headers(0, stream(number), &GET).bytes();
                [head, control(WINDOW_UPDATE, stream(number), &[0x7f, 0xff, 0xff, 0xff])].concat()
            })
            .await,
        ),
        (
            "empty data",
            flood(&proxy, |number| match number {
                0 => RawFrame::headers(0, 1, &GET).bytes(),
                _ => control(DATA, 1, &[]),
            })
            .await,
        ),
        (
            "continuation",
            flood(&proxy, |number| match number {
                0 => RawFrame::new(HEADERS, 0, 1, literals(&GET)).bytes(),
                number => control(CONTINUATION, 1, &literals(&[(&format!("x-{number}"), "y")])),
            })
            .await,
        ),
    ] {
        assert_eq!(ended, Some(ENHANCE_YOUR_CALM), "{name}");
    }
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    let counted = metrics(&proxy);
    assert!(counted.contains(r#"code="ENHANCE_YOUR_CALM"} 9"#), "{counted}");
    // Of those, five are control frames, which have a limit of the proxy's own.
    assert!(counted.contains(r#"limit="control-frames"} "#), "{counted}");
}

#[tokio::test]
async fn the_reset_of_a_stream_is_counted_by_its_code() {
    let origin = Origin::start().await;
    let proxy = proxy_with("", &origin.url()).await;
    let mut client = FrameClient::connect(proxy.address()).await;
    client.send(&RawFrame::headers(0, 1, &GET)).await;
    client.send(&RawFrame::new(WINDOW_UPDATE, 0, 1, [0x7f, 0xff, 0xff, 0xff])).await;
    assert_eq!(client.outcome(1).await, Err(FLOW_CONTROL_ERROR));
    let row = format!(
        "tollgate_http2_resets_total{{listener=\"{}\",code=\"FLOW_CONTROL_ERROR\"}} 1",
        proxy.address()
    );
    until("the reset is counted", || metrics(&proxy).lines().any(|line| line == row)).await;
}

/// The metrics of the listeners.
fn metrics(proxy: &Proxy) -> String {
    let mut page = tollgate::telemetry::Page::new(tollgate::telemetry::Format::Prometheus);
    tollgate::telemetry::traffic::write_listeners(&mut page, &proxy.server().traffic());
    page.finish()
}

#[tokio::test]
async fn a_header_bomb_is_refused() {
    let origin = Origin::start().await;
    let proxy = proxy_with("limits.headers = \"8KiB\"", &origin.url()).await;
    let mut client = FrameClient::connect(proxy.address()).await;
    // A field of 3,000 bytes goes into the table, and is named again and again by one byte.
    let mut block = literals(&GET);
    let large = "a".repeat(3000);
    let mut field = literals(&[("x", &large)]);
    field[0] = 0x40;
    block.extend(field);
    block.extend([0xbe; 5000]);
    client.send(&RawFrame::new(HEADERS, END_STREAM | END_HEADERS, 1, block)).await;
    let ended = client.next_after_control().await;
    let refused =
        if ended.kind == HEADERS { ended.status() == 431 } else { ended.code() == ENHANCE_YOUR_CALM };
    assert!(refused, "{ended:?}");
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_bomb_of_tiny_fields_is_refused_and_holds_nothing() {
    let origin = Origin::start().await;
    let proxy = proxy_with("limits.headers = \"8KiB\"\ntimeouts.write = \"300ms\"", &origin.url()).await;
    // `accept-encoding: gzip, deflate` of the static table, by one byte each.
    let head = |count: usize| [literals(&GET), vec![0x90; count]].concat();
    let mut client = FrameClient::connect(proxy.address()).await;
    client.send(&RawFrame::new(HEADERS, END_STREAM | END_HEADERS, 1, head(10_000))).await;
    let ended = client.next_after_control().await;
    let refused =
        if ended.kind == HEADERS { ended.status() == 431 } else { ended.code() == ENHANCE_YOUR_CALM };
    assert!(refused, "more than the head may have: {ended:?}");

    // Less than that, and too many: by a client that leaves no room for the answers, so that all stay open.
    let mut client = FrameClient::bare(proxy.address()).await;
    client.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    // And none in its table, so that each status can be read.
    client.send(&RawFrame::new(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0])).await;
    let streams: Vec<u32> = (0..100).map(|number| number * 2 + 1).collect();
    for stream in &streams {
        client.send(&RawFrame::new(HEADERS, END_STREAM | END_HEADERS, *stream, head(120))).await;
    }
    let (mut refused, mut let_go) = (0, 0);
    while refused < streams.len() || let_go < streams.len() {
        let frame = client.next().await.expect("the connection goes on");
        match frame.kind {
            HEADERS => {
                assert_eq!(frame.status(), 431);
                refused += 1;
            }
            RST_STREAM => let_go += 1,
            _ => assert_ne!(frame.kind, GOAWAY, "{frame:?}"),
        }
    }
    assert_eq!(origin.connections(), 0);
    client.send(&RawFrame::headers(END_STREAM, 201, &GET)).await;
    assert_eq!(client.outcome(201).await, Ok(200), "there is room again");
}

#[tokio::test]
async fn a_client_that_still_sends_has_the_time_to_read_why_it_was_refused() {
    let origin = Origin::start().await;
    let proxy = proxy_with("limits.body = \"10B\"", &origin.url()).await;
    let mut client = FrameClient::connect(proxy.address()).await;
    // Whether the next that comes behind an answer is the echo of a ping, and no reset.
    async fn is_left_open(client: &mut FrameClient, stream: u32) -> bool {
        while !matches!(client.next_of(DATA, stream).await.flags, flags if flags & END_STREAM != 0) {}
        client.send(&RawFrame::new(PING, 0, 0, [7; 8])).await;
        loop {
            match client.next().await.expect("the connection goes on") {
                frame if frame.kind == PING && frame.flags & ACK != 0 => return true,
                frame if frame.kind == RST_STREAM => return false,
                _ => {}
            }
        }
    }
    let post = [("content-length", "100000")];
    let fields = [&[(":method", "POST")], &GET[1..], &post].concat();
    // One that sends on to its end is never reset.
    client.send(&RawFrame::headers(0, 1, &fields)).await;
    assert_eq!(client.outcome(1).await, Ok(413));
    assert!(is_left_open(&mut client, 1).await);
    for _ in 0..9 {
        client.send(&RawFrame::new(DATA, 0, 1, [b'x'; 10_000])).await;
    }
    client.send(&RawFrame::new(DATA, END_STREAM, 1, [b'x'; 10_000])).await;
    // On another connection, whose statuses are in no table yet: one that has begun to, likewise; and one that does not go on is reset in the end, without an error.
    let fields = [&[(":method", "POST")], &GET[1..]].concat();
    let mut client = FrameClient::connect(proxy.address()).await;
    client.send(&RawFrame::headers(0, 1, &fields)).await;
    client.send(&RawFrame::new(DATA, 0, 1, [b'x'; 1000])).await;
    assert_eq!(client.outcome(1).await, Ok(413));
    assert!(is_left_open(&mut client, 1).await);
    assert_eq!(client.next_of(RST_STREAM, 1).await.code(), 0);
}

#[tokio::test]
async fn streams_beyond_the_limit_are_refused() {
    let origin = BareOrigin::start().await;
    let proxy = proxy_with("limits.streams = 2", &origin.url()).await;
    let mut client = FrameClient::connect(proxy.address()).await;
    for stream in [1, 3, 5] {
        client.send(&RawFrame::headers(END_STREAM, stream, &GET)).await;
    }
    assert_eq!(client.outcome(5).await, Err(REFUSED_STREAM));
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send(&Answer::ok("fine").pieces[0]).await;
    let answered = loop {
        let frame = client.next().await.unwrap();
        if frame.kind == HEADERS {
            break frame;
        }
    };
    assert_eq!(answered.status(), 200);
    client.send(&RawFrame::headers(END_STREAM, 7, &GET)).await;
    origin.accept().await;
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_ends_the_connection() {
    let origin = Origin::start().await;
    let proxy = proxy_with("timeouts.header = \"200ms\"", &origin.url()).await;
    let whole = RawFrame::headers(END_STREAM, 1, &GET).bytes();
    let open = RawFrame::new(HEADERS, END_STREAM, 1, literals(&GET)).bytes();
    for begun in [&whole[..3], &whole[..20], &open[..]] {
        let mut client = FrameClient::connect(proxy.address()).await;
        client.send_bytes(begun).await;
        assert_eq!(
            client.last_word().await.filter(|_| begun.len() > 20),
            Some(ENHANCE_YOUR_CALM).filter(|_| begun.len() > 20)
        );
    }
    let mut client = FrameClient::bare(proxy.address()).await;
    client.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0").await;
    client.last_word().await;
}

#[tokio::test]
async fn a_body_that_does_not_go_on_is_timed_out_alone() {
    let origin = Origin::start().await;
    let proxy = proxy_with("timeouts.body = \"200ms\"", &origin.url()).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, mut stream) = client.open(http2::request("POST", "/", &[]), false).await;
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    assert_eq!(soon("a response", response).await.unwrap().status(), 408);
    origin.has_open(0).await;
    assert_eq!(origin.received().len(), 0);
    assert_eq!(client.get("/").await.status, 200, "the connection goes on");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let origin = Origin::start().await;
    let proxy = proxy_with("limits.body = \"10B\"", &origin.url()).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    for (headers, body) in [(&[("content-length", "11")][..], &b"hello world"[..]), (&[], b"hello world")] {
        let response = client.send(http2::request("POST", "/", headers), body).await.unwrap();
        assert_eq!(response.status, 413);
    }
    assert_eq!(client.send(http2::request("POST", "/", &[]), b"helloworld").await.unwrap().status, 200);
    assert_eq!(origin.received().len(), 1);
}

#[tokio::test]
async fn a_client_that_does_not_take_a_response_loses_it_alone() {
    let origin = Origin::answering(|received| match received.target.as_str() {
        "/large" => Answer::ok(&"x".repeat(4 << 20)),
        _ => Answer::ok("small"),
    })
    .await;
    let proxy = proxy_with("timeouts.write = \"300ms\"", &origin.url()).await;
    let mut client = FrameClient::connect(proxy.address()).await;
    let fields = [&GET[..2], &[(":path", "/large"), (":authority", "test")]].concat();
    client.send(&RawFrame::headers(END_STREAM, 1, &fields)).await;
    assert_eq!(client.next_of(RST_STREAM, 1).await.code(), CANCEL);
    origin.has_open(0).await;
    let room = RawFrame::new(WINDOW_UPDATE, 0, 0, 1_000_000_u32.to_be_bytes());
    client.send(&room).await;
    client.send(&RawFrame::headers(END_STREAM, 3, &GET)).await;
    assert_eq!(client.outcome(3).await, Ok(200), "the connection goes on");
}

#[tokio::test]
async fn a_connection_without_requests_is_ended_with_a_word() {
    let origin = Origin::start().await;
    let proxy = proxy_with("timeouts.idle = \"200ms\"", &origin.url()).await;
    let mut fresh = FrameClient::connect(proxy.address()).await;
    let mut used = FrameClient::connect(proxy.address()).await;
    used.send(&RawFrame::headers(END_STREAM, 1, &GET)).await;
    assert_eq!(used.outcome(1).await, Ok(200));
    assert_eq!(fresh.last_word().await, Some(NO_ERROR));
    assert_eq!(used.last_word().await, Some(NO_ERROR));
}

#[tokio::test]
async fn a_proxy_that_stops_finishes_the_streams_it_has_begun() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, _) = client.open(http2::request("GET", "/", &[]), true).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe").await;
    let response = soon("a response", response).await.unwrap();
    let idle = Http2Client::connect(proxy.address()).await;
    until("both are accepted", || proxy.server().connections() == 2).await;
    let finishing = async {
        idle.ended().await.unwrap();
        upstream.send("llo").await;
        assert_eq!(Http2Response::read(response).await.text(), "hello");
        client.ended().await.unwrap();
    };
    tokio::join!(proxy.stop(), finishing);
}

#[tokio::test]
async fn a_listener_that_a_reload_takes_away_finishes_the_streams_it_has_begun() {
    let origin = BareOrigin::start().await;
    let route = format!("workers = 1\n{}", route_to(&[&origin.url()]));
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let other = format!("[[listeners]]\naddress = \"{free}\"\n");
    let proxy = Proxy::start(&format!("{route}{other}{}", listener(""))).await;
    let mut client = Http2Client::connect(free).await;
    let (response, _) = client.open(http2::request("GET", "/", &[]), true).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    let idle = Http2Client::connect(free).await;
    let staying = Http2Client::connect(proxy.server().addresses()[1]).await;
    until("all are accepted", || proxy.server().connections() == 3).await;
    proxy.reload(&format!("{route}{}", listener(""))).await.unwrap();
    idle.ended().await.unwrap();
    upstream.send(&Answer::ok("fine").pieces[0]).await;
    assert_eq!(Http2Response::read(soon("a response", response).await.unwrap()).await.text(), "fine");
    client.ended().await.unwrap();
    let (mut staying, path) = (staying, "/staying");
    let (response, _) = staying.open(http2::request("GET", path, &[]), true).await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send(&Answer::ok("there").pieces[0]).await;
    assert_eq!(Http2Response::read(soon("a response", response).await.unwrap()).await.text(), "there");
}

#[tokio::test]
async fn an_upstream_of_http_2_is_checked_in_http_2() {
    let origin = Http2Origin::start().await;
    let health = "health = { path = \"/healthz\", interval = \"50ms\", host = \"check.example\" }";
    let proxy = Proxy::start(&route_to_http2(&origin.url(), health)).await;
    origin.has_received(2).await;
    let check = origin.received().remove(0);
    assert_eq!(
        (check.version, check.uri.to_string()),
        (http::Version::HTTP_2, "http://check.example/healthz".into())
    );
    assert_eq!(proxy.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn as_many_crumbs_as_a_cookie_may_have_are_one_field() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let crumbs: Vec<String> = (0..400).map(|number| format!("c{number}={number}")).collect();
    let fields: Vec<(&str, &str)> = crumbs.iter().map(|crumb| ("cookie", crumb.as_str())).collect();
    let mut client = Http2Client::connect(proxy.address()).await;
    let response = client.send(http2::request("GET", "/", &fields), b"").await.unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(origin.last().header("cookie"), Some(crumbs.join("; ").as_str()));
}

#[tokio::test]
async fn a_request_that_ends_behind_its_head_has_no_content() {
    let origin = Origin::answering(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nok")
    })
    .await;
    let config = route_to(&[&origin.url()]) + "cache = true\n";
    let proxy = Proxy::start(&config).await;
    let mut client = FrameClient::connect(proxy.address()).await;
    for stream in [1, 3] {
        client.send(&RawFrame::headers(0, stream, &GET)).await;
        client.send(&RawFrame::new(DATA, 0, stream, [])).await;
        client.send(&RawFrame::new(DATA, END_STREAM, stream, [])).await;
        assert_eq!(client.outcome(stream).await, Ok(200));
    }
    assert_eq!(origin.received().len(), 1, "what has no content may be stored");
    assert_eq!(origin.last().header("transfer-encoding"), None);
    // One that has some goes on as it comes.
    client.send(&RawFrame::headers(0, 5, &GET)).await;
    client.send(&RawFrame::new(DATA, END_STREAM, 5, *b"hello")).await;
    assert_eq!(client.outcome(5).await, Ok(200));
    assert_eq!(origin.last().body, b"hello");
    // And one that may talk before it has said anything is not waited for.
    let post: Vec<_> =
        GET.iter().map(|(name, value)| (*name, if *name == ":method" { "POST" } else { *value })).collect();
    client.send(&RawFrame::headers(0, 7, &post)).await;
    origin.has_received(2).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    assert_eq!(client.send(http2::request("POST", "/", &[]), b"").await.unwrap().status, 200);
    let received = origin.last();
    assert_eq!((received.header("content-length"), received.header("transfer-encoding")), (Some("0"), None));
}

#[tokio::test]
async fn an_asterisk_goes_on_as_one() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = FrameClient::connect(proxy.address()).await;
    let fields = [(":method", "OPTIONS"), (":scheme", "http"), (":path", "*"), (":authority", "test")];
    client.send(&RawFrame::headers(END_STREAM, 1, &fields)).await;
    assert_eq!(client.outcome(1).await, Ok(200));
    assert!(origin.last().raw.starts_with("OPTIONS * HTTP/1.1\r\n"), "{}", origin.last().raw);
}

#[tokio::test]
async fn a_connection_begins_with_settings_and_frames_have_their_length() {
    const FRAME_SIZE_ERROR: u32 = 6;
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut hasty = FrameClient::bare(proxy.address()).await;
    hasty.send_bytes(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    hasty.send(&RawFrame::headers(END_STREAM, 1, &GET)).await;
    assert_eq!(hasty.last_word().await, Some(PROTOCOL_ERROR));
    for (kind, flags, stream, length) in [
        (SETTINGS, 0, 0, 5),
        (SETTINGS, ACK, 0, 6),
        (PING, 0, 0, 7),
        (WINDOW_UPDATE, 0, 0, 3),
        (RST_STREAM, 0, 1, 3),
        (PRIORITY, 0, 1, 4),
        (GOAWAY, 0, 0, 7),
    ] {
        let mut client = FrameClient::connect(proxy.address()).await;
        client.send(&RawFrame::new(kind, flags, stream, vec![0; length])).await;
        assert_eq!(client.last_word().await, Some(FRAME_SIZE_ERROR), "kind {kind} of {length} bytes");
    }
    assert_eq!(origin.received().len(), 0);
}
