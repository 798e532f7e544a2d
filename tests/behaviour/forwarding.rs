//! A request reaches an upstream, and its response the client.

use tollgate_tests::{Answer, BareOrigin, Client, Origin, Proxy, Received, listener, route_to};

/// A request without a body.
fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")
}

/// Answers with what was asked for.
fn echo_target(received: &Received) -> Answer {
    Answer::ok(&received.target)
}

/// Bytes that show where any of them is missing.
fn many_bytes(count: usize) -> Vec<u8> {
    (0..count).map(|place| (place * 7 + place / 251) as u8).collect()
}

fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in body.chunks(size) {
        bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
        bytes.extend(chunk);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    bytes
}

#[tokio::test]
async fn a_request_is_forwarded_and_its_response_returned() {
    let origin = Origin::answering(|_| {
        Answer::raw("HTTP/1.1 201 Created\r\nContent-Length: 5\r\nX-Origin: yes\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\nhello")
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let response = proxy.get("/a/b?c=d", &["X-Client: yes", "Connection: x-private", "X-Private: 1"]).await;

    assert_eq!((response.status, response.text()), (201, "hello"));
    assert_eq!(response.header("x-origin"), Some("yes"));
    assert_eq!(response.header("x-hop"), None);
    assert_eq!(response.header("x-backend-server"), Some(origin.address.to_string().as_str()));
    let received = origin.last();
    assert_eq!((received.method.as_str(), received.target.as_str()), ("GET", "/a/b?c=d"));
    assert_eq!(received.header("x-client"), Some("yes"));
    assert_eq!(received.header("x-private"), None);
    assert_eq!(received.header("host"), Some("test"));
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
    assert_eq!(received.header("x-forwarded-host"), Some("test"));
    assert_eq!(received.header("via"), Some("1.1 tollgate"));
    assert_eq!(received.header("x-request-id").map(str::len), Some(32));
}

#[tokio::test]
async fn requests_that_follow_each_other_share_one_connection_on_either_side() {
    let origin = Origin::answering(echo_target).await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for path in ["/1", "/2", "/3", "/4", "/5"] {
        client.send(get(path)).await;
        assert_eq!(client.response().await.text(), path);
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn clients_of_one_worker_share_its_upstream_connections() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&format!("workers = 1\n{}", route_to(&[&origin.url()]))).await;
    for _ in 0..5 {
        assert_eq!(proxy.get("/", &[]).await.status, 200);
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn the_upstream_connection_used_last_is_the_first_to_be_used_again() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&format!("workers = 1\n{}", route_to(&[&origin.url()]))).await;
    let (mut first, mut second) = (proxy.connect().await, proxy.connect().await);
    first.send(get("/first")).await;
    let mut older = origin.accept().await;
    older.read_until("\r\n\r\n").await;
    second.send(get("/second")).await;
    let mut younger = origin.accept().await;
    younger.read_until("\r\n\r\n").await;

    // The older connection comes back first, the younger last; and then the other way round.
    for _ in 0..2 {
        older.send(&Answer::ok("").pieces[0]).await;
        first.response().await;
        younger.send(&Answer::ok("").pieces[0]).await;
        second.response().await;
        first.send(get("/third")).await;
        assert!(younger.read_until("\r\n\r\n").await.starts_with("GET /third"));
        second.send(get("/fourth")).await;
        assert!(older.read_until("\r\n\r\n").await.starts_with("GET /fourth"));
        std::mem::swap(&mut older, &mut younger);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::answering(echo_target).await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    let with_body = "POST /with-body HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
    client.send(get("/1") + &get("/2") + with_body + &get("/3")).await;
    for path in ["/1", "/2", "/with-body", "/3"] {
        assert_eq!(client.response().await.text(), path);
    }
}

#[tokio::test]
async fn every_method_reaches_the_upstream_but_connect() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "BREW"] {
        client.send(format!("{method} /x HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        assert_eq!(client.response().await.status, 200, "{method}");
        let received = origin.last();
        assert_eq!((received.method.as_str(), received.target.as_str()), (method, "/x"));
        assert_eq!(received.body, b"", "{method}");
    }
}

#[tokio::test]
async fn options_may_ask_about_the_server_as_a_whole() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let response = proxy.request("OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(response.status, 200);
    assert!(origin.last().raw.starts_with("OPTIONS * HTTP/1.1\r\n"), "{:?}", origin.last().raw);
}

#[tokio::test]
async fn the_answer_to_head_says_how_long_the_body_would_be() {
    let origin = Origin::answering(|received| match received.method.as_str() {
        "HEAD" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nX-Of: head\r\n\r\n"),
        _ => Answer::ok("body"),
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let response = client.any_response(true).await.unwrap();
    assert_eq!((response.status, response.header("content-length")), (200, Some("1000")));
    client.send(get("/")).await;
    assert_eq!(client.response().await.text(), "body", "nothing stood between the two");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn the_answer_to_head_of_a_resource_without_a_length_has_none() {
    let origin = Origin::answering(|received| match received.method.as_str() {
        "HEAD" => Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        _ => Answer::ok("body"),
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let response = client.any_response(true).await.unwrap();
    assert_eq!((response.status, response.header("content-length")), (200, None));
    client.send(get("/")).await;
    assert_eq!(client.response().await.text(), "body");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn responses_that_have_no_body_leave_the_connection_usable() {
    let origin = Origin::answering(|received| {
        Answer::raw(match received.target.as_str() {
            "/204" => "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n",
            "/304" => "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n",
            _ => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        })
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send(get("/204")).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("x-a")), (204, Some("1")));
    assert_eq!(response.header("content-length").or(response.header("transfer-encoding")), None);
    client.send(get("/304")).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("etag")), (304, Some("\"x\"")));
    client.send(get("/200")).await;
    assert_eq!(client.response().await.header("content-length"), Some("0"));
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_body_is_forwarded_whatever_the_method_and_framed_as_it_came() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "QUERY"] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello")).await;
        assert_eq!(client.response().await.status, 200);
        let received = origin.last();
        assert_eq!((received.method.as_str(), &*received.body), (method, &b"hello"[..]));
        assert_eq!(received.header("content-length"), Some("5"));
        let head = format!("{method} / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n");
        client.send([head.as_bytes(), &chunked(b"hello", 2)].concat()).await;
        assert_eq!(client.response().await.status, 200);
        let received = origin.last();
        assert_eq!((received.method.as_str(), &*received.body), (method, &b"hello"[..]));
        assert_eq!(received.header("transfer-encoding"), Some("chunked"));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn an_empty_body_stays_one() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(origin.last().header("content-length"), Some("0"));
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(origin.last().body, b"");
    client.send(get("/")).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(origin.last().header("content-length"), None);
    assert_eq!(origin.last().header("transfer-encoding"), None);
}

#[tokio::test]
async fn an_upload_reaches_the_upstream_piece_by_piece() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("5\r\nfirst\r\n").await;
    let mut upstream = origin.accept().await;
    let head = upstream.read_until("\r\n\r\n").await;
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    assert_eq!(upstream.read_until("first\r\n").await, "5\r\nfirst\r\n");
    client.send("6\r\nsecond\r\n").await;
    assert_eq!(upstream.read_until("second\r\n").await, "6\r\nsecond\r\n");
    client.send("0\r\n\r\n").await;
    assert_eq!(upstream.read_until("\r\n\r\n").await, "0\r\n\r\n");
    upstream.send(&Answer::ok("done").pieces[0]).await;
    assert_eq!(client.response().await.text(), "done");
}

#[tokio::test]
async fn a_response_reaches_the_client_piece_by_piece() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.read_until("\r\n\r\n").await;
    upstream.send("5\r\nfirst\r\n").await;
    assert_eq!(client.read_until("first\r\n").await, "5\r\nfirst\r\n");
    upstream.send("6\r\nsecond\r\n").await;
    assert_eq!(client.read_until("second\r\n").await, "6\r\nsecond\r\n");
    upstream.send("0\r\n\r\n").await;
    assert_eq!(client.read_until("\r\n\r\n").await, "0\r\n\r\n");
}

#[tokio::test]
async fn large_bodies_pass_whole_both_ways() {
    let body = many_bytes(4 << 20);
    let origin = Origin::answering(|received| {
        let (head, body) = match received.header("content-length") {
            Some(length) => (format!("Content-Length: {length}"), received.body.clone()),
            None => ("Transfer-Encoding: chunked".to_owned(), chunked(&received.body, 70_000)),
        };
        Answer::raw([format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n").as_bytes(), &body].concat())
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for (length, framed) in [
        (format!("Content-Length: {}", body.len()), body.clone()),
        ("Transfer-Encoding: chunked".to_owned(), chunked(&body, 100_000)),
    ] {
        client.send(format!("PUT / HTTP/1.1\r\nHost: test\r\n{length}\r\n\r\n")).await;
        client.send(&framed).await;
        let response = client.response().await;
        assert_eq!(response.status, 200);
        assert!(response.is_complete && response.body == body, "{} bytes came back", response.body.len());
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_response_without_a_length_is_given_one_that_the_client_understands() {
    let origin =
        Origin::answering(|_| Answer::raw("HTTP/1.1 200 OK\r\nX-A: 1\r\n\r\nuntil the end").close()).await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send(get("/")).await;
        let response = client.response().await;
        assert_eq!((response.text(), response.is_complete), ("until the end", true));
        assert_eq!(response.header("transfer-encoding"), Some("chunked"), "so the client sees the end");
    }
    let mut old = proxy.connect().await;
    old.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let response = old.response().await;
    assert_eq!(response.text(), "until the end");
    assert_eq!(response.header("transfer-encoding").or(response.header("content-length")), None);
}

#[tokio::test]
async fn a_chunked_response_is_unpacked_for_a_client_of_http_1_0() {
    let origin = Origin::answering(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let response = proxy.request("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!((response.text(), response.header("transfer-encoding")), ("hello", None));
}

#[tokio::test]
async fn trailers_of_a_request_reach_the_upstream() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let response = proxy
        .request(
            "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n",
        )
        .await;
    assert_eq!(response.status, 200);
    let received = origin.last();
    assert_eq!(received.header("trailer"), Some("X-Sum"));
    let raw = String::from_utf8_lossy(&received.raw_body).to_lowercase();
    assert_eq!(raw, "5\r\nhello\r\n0\r\nx-sum: 42\r\n\r\n");
}

#[tokio::test]
async fn trailers_of_a_response_reach_a_client_that_asks_for_them() {
    let origin = Origin::answering(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             5\r\nhello\r\n0\r\nX-Sum: 42\r\n\r\n",
        )
    })
    .await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let response = proxy.get("/", &["TE: trailers", "Connection: te"]).await;
    assert_eq!(response.text(), "hello");
    assert_eq!(response.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    assert_eq!(origin.last().header("te"), Some("trailers"));
    let response = proxy.get("/", &[]).await;
    assert_eq!((response.text(), &*response.trailers), ("hello", &[][..]));
    assert_eq!(origin.last().header("te"), None);
}

#[tokio::test]
async fn interim_responses_reach_a_client_that_knows_of_them() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let hints =
        "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nLink: </b.css>; rel=preload\r\n\r\n";

    let mut client = proxy.connect().await;
    client.send(get("/")).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send(hints).await;
    let interim = client.any_response(false).await.unwrap();
    assert_eq!(interim.status, 103, "before the response itself");
    assert_eq!(interim.values("link"), ["</a.css>; rel=preload", "</b.css>; rel=preload"]);
    upstream.send(&Answer::ok("done").pieces[0]).await;
    let response = client.any_response(false).await.unwrap();
    assert_eq!((response.status, response.text()), (200, "done"));

    let mut old = proxy.connect().await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    // Whichever worker it is that serves this client, with a connection of its own or the one above.
    let again = [hints.as_bytes(), &Answer::ok("done").pieces[0]].concat();
    tokio::select! {
        mut upstream = origin.accept() => {
            upstream.read_until("\r\n\r\n").await;
            upstream.send(&again).await
        }
        _ = upstream.read_until("\r\n\r\n") => upstream.send(&again).await,
    };
    let response = old.any_response(false).await.unwrap();
    assert_eq!((response.status, response.text()), (200, "done"), "HTTP/1.0 has no interim responses");
}

/// The head of an upload that waits to be asked for, up to where the upstream has it.
async fn expect_continue(origin: &BareOrigin, proxy: &Proxy) -> (Client, Client) {
    let mut client = proxy.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    let head = upstream.read_until("\r\n\r\n").await;
    assert!(head.contains("expect: 100-continue\r\n"), "{head}");
    (client, upstream)
}

#[tokio::test]
async fn a_client_is_asked_for_its_body_when_the_upstream_asks() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let (mut client, mut upstream) = expect_continue(&origin, &proxy).await;
    upstream.send("HTTP/1.1 100 Continue\r\n\r\n").await;
    assert_eq!(client.any_response(false).await.unwrap().status, 100);
    client.send("hello").await;
    assert_eq!(upstream.read_until("hello").await, "hello");
    upstream.send(&Answer::ok("done").pieces[0]).await;
    let response = client.any_response(false).await.unwrap();
    assert_eq!((response.status, response.text()), (200, "done"), "there was one 100 and no other");
    client.send(get("/")).await;
    assert!(upstream.read_until("\r\n\r\n").await.starts_with("GET / "), "both connections go on");
}

#[tokio::test]
async fn a_body_that_the_upstream_does_not_want_is_never_asked_for() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for status in ["417 Expectation Failed", "401 Unauthorized"] {
        let (mut client, mut upstream) = expect_continue(&origin, &proxy).await;
        upstream.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\nno")).await;
        let response = client.any_response(false).await.unwrap();
        assert_eq!((response.status, response.text()), (status[..3].parse().unwrap(), "no"));
        assert_eq!(response.header("connection"), Some("close"));
        assert!(upstream.is_closed().await, "what was announced on this connection never came");
        assert!(client.is_closed().await, "and so on this one");
    }
}

#[tokio::test]
async fn an_upstream_that_never_asks_for_the_body_gets_it_after_a_while() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let started = std::time::Instant::now();
    let (mut client, mut upstream) = expect_continue(&origin, &proxy).await;
    assert_eq!(client.any_response(false).await.unwrap().status, 100);
    let waited = started.elapsed().as_millis();
    assert!((900..5000).contains(&waited), "{waited} ms");
    client.send("hello").await;
    assert_eq!(upstream.read_until("hello").await, "hello");
    upstream.send(&Answer::ok("done").pieces[0]).await;
    assert_eq!(client.response().await.text(), "done");
}

#[tokio::test]
async fn no_expectation_but_that_of_a_continue_can_be_met() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    assert_eq!(proxy.get("/", &["Expect: 200-ok"]).await.status, 417);
    assert_eq!(origin.connections(), 0);
    let mut old = proxy.connect().await;
    old.send("PUT / HTTP/1.0\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello").await;
    assert_eq!(old.any_response(false).await.unwrap().status, 200, "in HTTP/1.0 it means nothing");
    assert_eq!((origin.last().header("expect"), &*origin.last().body), (None, &b"hello"[..]));
}

#[tokio::test]
async fn a_client_of_http_1_0_keeps_its_connection_if_it_asks_to() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, origin.port().as_str()));
        assert_eq!(response.header("connection").map(str::to_lowercase).as_deref(), Some("keep-alive"));
    }
    client.send("GET / HTTP/1.0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert!(client.is_closed().await);
    assert_eq!(origin.connections(), 1, "which is no concern of the upstream");
    assert!(origin.last().raw.starts_with("GET / HTTP/1.1\r\n"), "the proxy speaks for itself");
}

#[tokio::test]
async fn a_connection_is_closed_when_the_client_asks_for_it() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(client.is_closed().await);
}

/// A listener that believes this network.
fn trusting(network: &str) -> String {
    listener(&format!("trusted-proxies = [{network:?}]"))
}

const HEARSAY: [&str; 6] = [
    "X-Request-Id: theirs",
    "X-Forwarded-For: 203.0.113.7",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: shop.example",
    "Forwarded: for=203.0.113.7",
    "Via: 1.1 edge",
];

#[tokio::test]
async fn a_trusted_proxy_says_who_its_client_is() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&(route_to(&[&origin.url()]) + &trusting("127.0.0.0/8"))).await;
    proxy.get("/", &HEARSAY).await;
    let received = origin.last();
    assert_eq!(received.header("x-request-id"), Some("theirs"));
    assert_eq!(received.header("x-forwarded-for"), Some("203.0.113.7, 127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("https"));
    assert_eq!(received.header("x-forwarded-host"), Some("shop.example"));
    assert_eq!(received.values("forwarded"), ["for=203.0.113.7", "for=127.0.0.1;proto=http"]);
    assert_eq!(received.values("via"), ["1.1 edge", "1.1 tollgate"]);
}

#[tokio::test]
async fn nobody_else_does() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&(route_to(&[&origin.url()]) + &trusting("10.0.0.0/8"))).await;
    proxy.get("/", &HEARSAY).await;
    let received = origin.last();
    assert_eq!(received.header("x-request-id").map(str::len), Some(32));
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(received.header("x-forwarded-proto"), Some("http"));
    assert_eq!(received.header("x-forwarded-host"), Some("test"));
    assert_eq!(received.header("forwarded"), None);
    assert_eq!(received.values("via"), ["1.1 edge", "1.1 tollgate"]);
}

#[tokio::test]
async fn requests_have_ids_of_their_own() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    proxy.get("/", &[]).await;
    let first = origin.last();
    proxy.get("/", &[]).await;
    assert_ne!(first.header("x-request-id"), origin.last().header("x-request-id"));
}

#[tokio::test]
async fn a_whole_url_is_forwarded_as_host_and_path() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for (request, target, host) in [
        ("GET http://test/a?b HTTP/1.1\r\nHost: test\r\n\r\n", "/a?b", "test"),
        ("GET http://test:8080 HTTP/1.1\r\nHost: test:8080\r\n\r\n", "/", "test:8080"),
        ("GET HTTP://test?q HTTP/1.1\r\nHost: test\r\n\r\n", "/?q", "test"),
        ("GET http://test/ HTTP/1.0\r\n\r\n", "/", "test"),
    ] {
        assert_eq!(proxy.request(request).await.status, 200, "{request:?}");
        let received = origin.last();
        assert_eq!((received.target.as_str(), received.header("host")), (target, Some(host)), "{request:?}");
    }
}

#[tokio::test]
async fn a_request_goes_no_further_than_max_forwards_lets_it() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let with = |method: &str, forwards: u32| {
        format!("{method} / HTTP/1.1\r\nHost: test\r\nMax-Forwards: {forwards}\r\n\r\n")
    };
    for (method, status) in [("OPTIONS", 200), ("TRACE", 501)] {
        assert_eq!(proxy.request(&with(method, 0)).await.status, status);
        assert_eq!(origin.received().len(), 0, "the proxy answers by itself");
    }
    proxy.request(&with("OPTIONS", 2)).await;
    assert_eq!(origin.last().header("max-forwards"), Some("1"));
    proxy.request(&with("GET", 0)).await;
    assert_eq!(origin.last().header("max-forwards"), Some("0"), "it concerns two methods only");
}

#[tokio::test]
async fn a_response_says_the_proxys_own_version_to_a_client_of_http_1_0() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut old = proxy.connect().await;
    old.send("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    let head = old.read_until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("keep-alive"), "{head}");
    let mut old = proxy.connect().await;
    old.send("GET /%zz HTTP/1.0\r\n\r\n").await;
    let all = String::from_utf8(old.read_to_end().await).unwrap();
    assert!(all.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{all}");
}
