//! Nobody takes more than a share: sizes, numbers and times have an end, and each has its status.

use std::time::Duration;

use tollgate_tests::{Answer, BareOrigin, Client, Origin, Proxy, listener, route_to};

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

/// A proxy before this origin, with a listener of these settings.
async fn proxy_with(settings: &str, endpoint: &str) -> Proxy {
    Proxy::start(&(route_to(&[endpoint]) + &listener(settings))).await
}

/// A response with this status, and the end of the connection.
async fn is_refused(client: &mut Client, status: u16) {
    let response = client.response().await;
    assert_eq!((response.status, response.header("connection")), (status, Some("close")), "{response:?}");
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_head_that_does_not_come_to_its_end_is_timed_out() {
    let origin = Origin::start().await;
    let proxy = proxy_with("timeouts.header = \"200ms\"", &origin.url()).await;
    for begun in
        ["G", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: test\r\n", "GET / HTTP/1.1\r\nHost: test\r\n\r"]
    {
        let mut client = proxy.connect().await;
        client.send(begun).await;
        is_refused(&mut client, 408).await;
    }
    let mut client = proxy.connect().await;
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200);
    client.send("GET /second").await;
    is_refused(&mut client, 408).await;
    assert_eq!(origin.received().len(), 1);
}

#[tokio::test]
async fn a_head_that_comes_in_drops_does_not_take_longer_for_it() {
    let origin = Origin::start().await;
    let proxy = proxy_with("timeouts.header = \"200ms\"", &origin.url()).await;
    let mut client = proxy.connect().await;
    client.send_slowly(GET.as_bytes(), Duration::from_millis(20)).await;
    is_refused(&mut client, 408).await;
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_request_that_waits_for_the_one_before_it_is_not_timed_out() {
    let origin = BareOrigin::start().await;
    let proxy = proxy_with("timeouts.header = \"100ms\"\ntimeouts.idle = \"100ms\"", &origin.url()).await;
    let mut client = proxy.connect().await;
    client.send([GET, "GET /second HTT"].concat()).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send_slowly(&Answer::ok("slow").pieces[0], Duration::from_millis(10)).await;
    assert_eq!(client.response().await.text(), "slow");
    is_refused(&mut client, 408).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_to_its_end_is_timed_out() {
    let origin = Origin::start().await;
    let proxy = proxy_with("timeouts.body = \"200ms\"", &origin.url()).await;
    for begun in ["Content-Length: 10\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut client = proxy.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: test\r\n{begun}")).await;
        is_refused(&mut client, 408).await;
        origin.has_open(0).await;
    }
    assert_eq!(origin.received().len(), 0, "it never looks finished");
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n").await;
    client.send_slowly(b"helloworld", Duration::from_millis(50)).await;
    assert_eq!(client.response().await.status, 200, "it is the silence that counts");
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused() {
    let origin = Origin::start().await;
    let proxy = proxy_with("limits.body = \"10B\"", &origin.url()).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\n\r\n").await;
    is_refused(&mut client, 413).await;
    assert_eq!(origin.connections(), 0, "its head says so");

    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    client.send("6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n").await;
    is_refused(&mut client, 413).await;
    origin.has_open(0).await;
    assert_eq!(origin.received().len(), 0, "it never looks finished");

    for body in [
        "Content-Length: 10\r\n\r\nhelloworld",
        "Transfer-Encoding: chunked\r\n\r\na\r\nhelloworld\r\n0\r\n\r\n",
    ] {
        let response = proxy.request(&format!("POST / HTTP/1.1\r\nHost: test\r\n{body}")).await;
        assert_eq!(response.status, 200);
        assert_eq!(origin.last().body, b"helloworld", "not a byte less is let through");
    }
}

#[tokio::test]
async fn a_client_that_expects_to_be_asked_is_told_at_once_that_its_body_is_too_large() {
    let origin = Origin::start().await;
    let proxy = proxy_with("limits.body = \"10B\"", &origin.url()).await;
    let mut client = proxy.connect().await;
    client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n").await;
    assert_eq!(client.any_response(false).await.unwrap().status, 413);
    assert!(client.is_closed().await);
}

#[tokio::test]
async fn a_client_that_sends_too_much_is_told_before_it_is_cut_off() {
    let origin = Origin::start().await;
    let proxy = proxy_with("limits.body = \"10B\"", &origin.url()).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 200000\r\n\r\n").await;
    is_refused(&mut client, 413).await;
    for _ in 0..20 {
        assert!(client.send([b'x'; 10_000]).await, "a reset may destroy the answer on its way");
    }
}

#[tokio::test]
async fn a_head_that_is_too_large_is_refused() {
    let origin = Origin::start().await;
    let settings = "limits.request-line = \"200B\"\nlimits.headers = \"2KiB\"\nlimits.header-count = 10";
    let proxy = proxy_with(settings, &origin.url()).await;
    let get = |target: &str, headers: &str| format!("GET {target} HTTP/1.1\r\nHost: test\r\n{headers}\r\n");
    let many = |count: usize| "X: y\r\n".repeat(count);
    for (status, request) in [
        (200, get(&format!("/{}", "a".repeat(180)), "")),
        (414, get(&format!("/{}", "a".repeat(200)), "")),
        (414, format!("GET /{}", "a".repeat(300))),
        (200, get("/", &format!("X: {}\r\n", "a".repeat(1500)))),
        (431, get("/", &format!("X: {}\r\n", "a".repeat(2100)))),
        (431, format!("GET / HTTP/1.1\r\nHost: test\r\nX: {}", "a".repeat(3000))),
        (200, get("/", &many(9))),
        (431, get("/", &many(10))),
        (431, get("/", &many(200))),
    ] {
        for piece in [request.len(), 1] {
            let mut client = proxy.connect().await;
            for piece in request.as_bytes().chunks(piece) {
                client.send(piece).await;
            }
            let response = client.response().await;
            assert_eq!(response.status, status, "{request:?} in pieces of {piece}");
            assert_eq!(response.header("connection").is_some(), status != 200, "{request:?}");
        }
    }
    assert_eq!(origin.received().len(), 6);
}

#[tokio::test]
async fn trailers_that_are_too_large_are_refused() {
    let origin = Origin::start().await;
    let proxy = proxy_with("limits.headers = \"1KiB\"", &origin.url()).await;
    let trailers = format!("X: {}\r\n", "y".repeat(100)).repeat(20);
    let head = "POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut client = proxy.connect().await;
    client.send(format!("{head}5\r\nhello\r\n0\r\n{trailers}\r\n")).await;
    is_refused(&mut client, 431).await;
    origin.has_open(0).await;
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_without_a_word() {
    let origin = Origin::start().await;
    let proxy = proxy_with("timeouts.idle = \"200ms\"", &origin.url()).await;
    let mut fresh = proxy.connect().await;
    let mut used = proxy.connect().await;
    used.send(GET).await;
    assert_eq!(used.response().await.status, 200);
    assert_eq!(fresh.read_to_end().await, b"");
    assert_eq!(used.read_to_end().await, b"");
}

#[tokio::test]
async fn a_client_that_waits_for_its_response_is_not_idle() {
    let origin = BareOrigin::start().await;
    let proxy = proxy_with("timeouts.idle = \"100ms\"\ntimeouts.header = \"100ms\"", &origin.url()).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send_slowly(&Answer::ok("slow").pieces[0], Duration::from_millis(10)).await;
    assert_eq!(client.response().await.text(), "slow");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_given_up() {
    let origin = Origin::answering(|_| Answer::ok(&"x".repeat(32 << 20))).await;
    let proxy = proxy_with("timeouts.write = \"200ms\"", &origin.url()).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    origin.has_received(1).await;
    origin.has_open(0).await;
    assert!(client.read_to_end().await.len() < 32 << 20);
}

/// How many connections of `count` are served; the others must be told why they are not.
async fn served(proxy: &Proxy, count: usize) -> Vec<Client> {
    let mut served = Vec::new();
    for _ in 0..count {
        let mut client = proxy.connect().await;
        client.send(GET).await;
        let response = client.response().await;
        if response.status == 200 {
            served.push(client);
        } else {
            assert_eq!((response.status, response.header("connection")), (503, Some("close")));
            assert!(client.is_closed().await);
        }
    }
    served
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused_until_another_ends() {
    let origin = Origin::start().await;
    let route = route_to(&[&origin.url()]);
    let of_listener = format!("{route}{}", listener("limits.connections = 2"));
    let in_all = format!("{route}[limits]\nconnections = 2\n");
    for config in [of_listener, in_all] {
        let proxy = Proxy::start(&config).await;
        let mut clients = served(&proxy, 5).await;
        assert_eq!(clients.len(), 2, "{config}");
        clients.pop();
        tollgate_tests::until("a connection ends", || proxy.server().connections() == 1).await;
        assert_eq!(served(&proxy, 3).await.len(), 1, "{config}");
        clients[0].send(GET).await;
        assert_eq!(clients[0].response().await.status, 200, "those that are in stay in");
    }
}

#[tokio::test]
async fn a_proxy_that_stops_finishes_what_it_has_begun_and_begins_nothing() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let address = proxy.address();
    let mut idle = proxy.connect().await;
    let mut running = proxy.connect().await;
    running.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe").await;
    running.read_until("he").await;

    let finishing = async {
        assert!(idle.is_closed().await, "a connection without a request is closed at once");
        tollgate_tests::soon("the listener is closed", async {
            while tokio::net::TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
        upstream.send("llo").await;
        assert_eq!(running.read_until("llo").await, "llo");
        assert!(running.is_closed().await, "there will be no other request on it");
        assert!(upstream.is_closed().await);
    };
    tokio::join!(proxy.stop(), finishing);
}

#[tokio::test]
async fn a_response_that_begins_while_the_proxy_stops_says_that_it_is_the_last() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut idle = proxy.connect().await;
    let mut running = proxy.connect().await;
    running.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    let finishing = async {
        assert!(idle.is_closed().await);
        upstream.send(&Answer::ok("last").pieces[0]).await;
        let response = running.response().await;
        assert_eq!((response.text(), response.header("connection")), ("last", Some("close")));
        assert!(running.is_closed().await);
    };
    tokio::join!(proxy.stop(), finishing);
}

#[tokio::test]
async fn a_proxy_that_stops_gives_up_what_takes_too_long() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&format!("drain-timeout = \"300ms\"\n{}", route_to(&[&origin.url()]))).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    let started = std::time::Instant::now();
    tollgate_tests::soon("the proxy has stopped", proxy.stop()).await;
    let took = started.elapsed().as_millis();
    assert!((300..5000).contains(&took), "{took} ms");
    assert!(client.is_closed().await);
    assert!(upstream.is_closed().await);
}
