//! Nobody takes more than a share: sizes, numbers and times have an end, and each has its status.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::time::Duration;

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tollgate_tests::{
    Answer, BareOrigin, Client, Executable, Metrics, Origin, Proxy,
    http2::{self, *},
    listener, route_to, until,
};

use crate::TOLLGATE;

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
    let settings = listener("timeouts.write = \"200ms\"");
    let proxy = Proxy::start(&format!("{}{ADMIN}{settings}", route_to(&[&origin.url()]))).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    origin.has_received(1).await;
    origin.has_open(0).await;
    assert!(client.read_to_end().await.len() < 32 << 20);
    assert_eq!(reached(&proxy.metrics().await, "listeners.timeouts.write"), 1.0);
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
    for (config, limit) in [(of_listener, "listeners.limits.connections"), (in_all, "limits.connections")] {
        let proxy = Proxy::start(&format!("{ADMIN}{config}")).await;
        let mut clients = served(&proxy, 5).await;
        assert_eq!(clients.len(), 2, "{config}");
        clients.pop();
        tollgate_tests::until("a connection ends", || proxy.server().connections() == 1).await;
        assert_eq!(served(&proxy, 3).await.len(), 1, "{config}");
        assert_eq!(reached(&proxy.metrics().await, limit), 5.0);
        clients[0].send(GET).await;
        assert_eq!(clients[0].response().await.status, 200, "those that are in stay in");
    }
}

/// A connection from an address of its own, all of which are this machine.
async fn connect_from(address: [u8; 4], proxy: &Proxy) -> Client {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(proxy.address()).await.unwrap().into()
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_takes_none_from_others() {
    let origin = Origin::start().await;
    let settings = "limits.connections-per-address = 2\ntrusted-proxies = [\"127.0.0.9\"]";
    let config = format!("{}{ADMIN}{}", route_to(&[&origin.url()]), listener(settings));
    let proxy = Proxy::start(&config).await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let mut client = connect_from([127, 0, 0, 1], &proxy).await;
        client.send(GET).await;
        assert_eq!(client.response().await.status, 200);
        clients.push(client);
    }
    for _ in 0..2 {
        let mut refused = connect_from([127, 0, 0, 1], &proxy).await;
        refused.send(GET).await;
        is_refused(&mut refused, 429).await;
    }
    for address in [[127, 0, 0, 2], [127, 0, 0, 9], [127, 0, 0, 9], [127, 0, 0, 9]] {
        let mut other = connect_from(address, &proxy).await;
        other.send(GET).await;
        assert_eq!(other.response().await.status, 200, "{address:?}");
        clients.push(other);
    }
    drop(clients.remove(0));
    until("the connection has ended", || proxy.server().connections() == 5).await;
    let mut again = connect_from([127, 0, 0, 1], &proxy).await;
    again.send(GET).await;
    assert_eq!(again.response().await.status, 200);

    let metrics = proxy.metrics().await;
    assert_eq!(reached(&metrics, "listeners.limits.connections-per-address"), 2.0);
    assert_eq!(metrics.sum("tollgate_refusals_total", &[("status", "429")]), 2.0);
    assert_eq!(metrics.sum("tollgate_connections_refused_total", &[]), 2.0);
}

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

fn reached(metrics: &Metrics, limit: &str) -> f64 {
    metrics.sum("tollgate_limits_reached_total", &[("limit", limit)])
}

#[tokio::test]
async fn a_limit_that_was_reached_is_counted() {
    let origin = Origin::start().await;
    let settings = "limits = { request-line = \"200B\", headers = \"2KiB\", header-count = 10, body = \"5B\", streams = 1 }\n\
                    timeouts = { header = \"100ms\", body = \"100ms\" }";
    let proxy = Proxy::start(&format!("{}{ADMIN}{}", route_to(&[&origin.url()]), listener(settings))).await;
    let (long, path) = ("a".repeat(3000), format!("/{}", "a".repeat(300)));
    for (limit, status, request) in [
        ("listeners.limits.request-line", 414, format!("GET {path} HTTP/1.1\r\n\r\n")),
        ("listeners.limits.headers", 431, format!("GET / HTTP/1.1\r\nHost: a\r\nX: {long}\r\n\r\n")),
        ("listeners.limits.header-count", 431, format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(11))),
        ("listeners.limits.body", 413, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n".to_owned()),
        ("listeners.timeouts.header", 408, "GET / HTTP/1.1\r\n".to_owned()),
        ("listeners.timeouts.body", 408, "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n".to_owned()),
    ] {
        let mut client = proxy.connect().await;
        client.send(&request).await;
        is_refused(&mut client, status).await;
        assert_eq!(reached(&proxy.metrics().await, limit), 1.0, "{limit}");
    }

    let plain = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")];
    let with = |more: &[(&'static str, &str)]| {
        let fields: Vec<_> = plain.iter().chain(more).copied().collect();
        RawFrame::headers(END_STREAM, 1, &fields)
    };
    let mut target = plain;
    target[2].1 = &path;
    for (limit, outcome, request) in [
        ("listeners.limits.request-line", Ok(414), RawFrame::headers(END_STREAM, 1, &target)),
        ("listeners.limits.headers", Ok(431), with(&[("x", &long)])),
        ("listeners.limits.header-count", Ok(431), with(&[("x", "y"); 11])),
    ] {
        let mut client = FrameClient::connect(proxy.address()).await;
        client.send(&request).await;
        assert_eq!(client.outcome(1).await, outcome, "{limit}");
        drop(client);
        // The frame that shows it may go after the one that was waited for.
        tollgate_tests::soon(limit, async { while reached(&proxy.metrics().await, limit) < 2.0 {} }).await;
    }
    let mut client = FrameClient::connect(proxy.address()).await;
    let begun = with(&[("content-length", "5")]);
    for stream in [1, 3] {
        client.send(&RawFrame { stream, flags: begun.flags & !END_STREAM, ..begun.clone() }).await;
    }
    client.outcome(3).await.unwrap_err();
    assert_eq!(client.outcome(1).await, Ok(408));
    let metrics = proxy.metrics().await;
    assert_eq!(reached(&metrics, "listeners.limits.streams"), 1.0);
    assert_eq!(reached(&metrics, "listeners.timeouts.body"), 2.0);
    assert_eq!(metrics.sum("tollgate_refusals_total", &[("status", "431")]), 4.0);
}

#[tokio::test]
async fn a_body_that_comes_in_drops_is_refused() {
    let origin = Origin::start().await;
    let settings = "min-rates = { body = \"1KiB\", window = \"200ms\" }";
    let proxy = Proxy::start(&format!("{}{ADMIN}{}", route_to(&[&origin.url()]), listener(settings))).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n").await;
    client.send_slowly(&[b'x'; 30], Duration::from_millis(20)).await;
    is_refused(&mut client, 408).await;

    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, mut stream) = client.open(http2::request("POST", "/", &[]), false).await;
    let dripping = async {
        while stream.send_data("x".into(), false).is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        response = response => assert_eq!(response.unwrap().status(), 408),
        () = dripping => panic!("the stream was reset before it was answered"),
    }
    assert_eq!(reached(&proxy.metrics().await, "listeners.min-rates.body"), 2.0);
    assert_eq!(origin.received().len(), 0, "it never looks finished");

    // Calls speak when they have something to say.
    let call = http2::request("POST", "/", &[("content-type", "application/grpc")]);
    let (response, mut stream) = client.open(call, false).await;
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.send_data("x".into(), false).unwrap();
    }
    stream.send_data("".into(), true).unwrap();
    assert_eq!(response.await.unwrap().status(), 200);
    assert_eq!(origin.last().body, [b'x'; 30]);
}

#[tokio::test]
async fn a_body_that_waits_for_its_upstream_is_not_slow() {
    let origin = BareOrigin::start().await;
    let settings = "min-rates = { body = \"1MiB\", window = \"100ms\" }";
    let proxy = proxy_with(settings, &origin.url()).await;
    let body = vec![b'x'; 32 << 20];
    let mut client = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: {}\r\n\r\n", body.len())).await;
    let taking = async {
        let mut upstream = origin.accept().await;
        upstream.read_until("\r\n\r\n").await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let mut left = body.len();
        while left > 0 {
            left -= upstream.read_some().await.len();
        }
        upstream.send(&Answer::ok("all").pieces[0]).await;
        upstream
    };
    let (_, _upstream) = tokio::join!(client.send(&body), taking);
    assert_eq!(client.response().await.text(), "all");
}

#[tokio::test]
async fn a_response_that_is_taken_in_sips_is_given_up() {
    let origin = Origin::answering(|_| Answer::ok(&"x".repeat(32 << 20))).await;
    let settings = "min-rates = { write = \"1GiB\", window = \"100ms\" }";
    let proxy = Proxy::start(&format!("{}{ADMIN}{}", route_to(&[&origin.url()]), listener(settings))).await;
    let mut client = proxy.connect().await;
    client.send(GET).await;
    client.read_until("\r\n\r\n").await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(client.read_to_end().await.len() < 32 << 20);

    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, _) = client.open(http2::request("GET", "/", &[]), true).await;
    let mut body = response.await.unwrap().into_body();
    let error = loop {
        let data = tollgate_tests::soon("data, or the end", body.data()).await.expect("it has no good end");
        match data {
            Err(error) => break error,
            Ok(data) => {
                tokio::time::sleep(Duration::from_millis(50)).await;
                body.flow_control().release_capacity(data.len()).unwrap();
            }
        }
    };
    assert_eq!(error.reason(), Some(h2::Reason::CANCEL));
    assert_eq!(reached(&proxy.metrics().await, "listeners.min-rates.write"), 2.0);
}

#[tokio::test]
async fn a_client_that_reads_slowly_and_steadily_gets_all_of_a_response() {
    let size = 600 << 10;
    let origin = Origin::answering(move |_| Answer::ok(&"x".repeat(size))).await;
    let settings = "timeouts.write = \"1s\"";
    let proxy = Proxy::start(&format!("{}{ADMIN}{}", route_to(&[&origin.url()]), listener(settings))).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, _) = client.open(http2::request("GET", "/", &[]), true).await;
    let mut body = response.await.unwrap().into_body();
    let mut came = 0;
    while let Some(data) = body.data().await {
        let Ok(data) = data else { panic!("after {came} bytes: {:?}", proxy.metrics().await) };
        came += data.len();
        tokio::time::sleep(Duration::from_millis(60)).await;
        body.flow_control().release_capacity(data.len()).unwrap();
    }
    assert_eq!(came, size);
}

#[tokio::test]
async fn a_proxy_without_file_descriptors_goes_on_when_there_are_some() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    let config = format!("workers = 1\n{ADMIN}{}{listener}", route_to(&[&origin.url()]));
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let proxy = Executable::start(TOLLGATE, folder.path(), &["run", "--log-format", "json"]);
    let line = proxy.line(&["\"listening\""]).await;
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = line["address"].as_str().unwrap().parse().unwrap();
    let line: serde_json::Value = serde_json::from_str(&proxy.line(&["admin API listening"]).await).unwrap();
    let admin: std::net::SocketAddr = line["address"].as_str().unwrap().parse().unwrap();
    let mut asking = Client::connect(admin).await;
    let mut metrics = async || {
        asking.send("GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        Metrics::parse(asking.response().await.text())
    };
    metrics().await;

    let pid = Pid::from_raw(proxy.id().cast_signed());
    let open = std::fs::read_dir(format!("/proc/{}/fd", proxy.id())).unwrap().count() as u64;
    let lowered = Rlimit { current: Some(open + 4), maximum: Some(10_000) };
    prlimit(pid, Resource::Nofile, lowered).unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        clients.push(Client::connect(address).await);
    }
    proxy.line(&["cannot accept connections"]).await;
    tollgate_tests::soon("several attempts", async {
        while reached(&metrics().await, "file-descriptors") < 3.0 {}
    })
    .await;
    assert_eq!(proxy.lines(&["cannot accept connections"]).len(), 1, "it is said once");

    clients.clear();
    proxy.line(&["connections are accepted again"]).await;
    let mut client = Client::connect(address).await;
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200);
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

/// Failures that the endpoint of the upstream has to its name.
async fn failures(proxy: &Proxy) -> u64 {
    let told = proxy.told("/api/upstreams").await;
    told["upstreams"][0]["endpoints"][0]["failures"].as_u64().expect("it is a number")
}

#[tokio::test]
async fn a_client_that_does_not_send_its_body_is_no_fault_of_the_endpoint() {
    let origin = Origin::start().await;
    for (upstream, status) in [
        // The client has longer to send than the endpoint to answer.
        ("timeouts = { response = \"50ms\" }", 408),
        // All attempts together have less than the client.
        ("timeouts = { response = \"50ms\" }\nretry = { timeout = \"100ms\", on = [504] }", 504),
    ] {
        let config = format!(
            "{ADMIN}[upstreams.app]\nendpoints = [\"{}\"]\n{upstream}\n[[routes]]\nupstream = \"app\"\n{}",
            origin.url(),
            listener("timeouts = { body = \"300ms\" }")
        );
        let proxy = Proxy::start(&config).await;
        for _ in 0..3 {
            let mut client = proxy.connect().await;
            client.send("PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nab").await;
            assert_eq!(client.response().await.status, status, "{upstream}");
        }
        // Without a length it may be the client that waits for an answer.
        for (length, status) in [(&[("content-length", "5")][..], status), (&[], 504)] {
            let mut client = Http2Client::connect(proxy.address()).await;
            let (response, _body) = client.open(http2::request("PUT", "/", length), false).await;
            assert_eq!(response.await.unwrap().status(), status, "{upstream}");
        }
        assert_eq!(failures(&proxy).await, 0, "{upstream}");
    }

    // An endpoint that gives up a body that does not come has a limit as well.
    let origin = BareOrigin::start().await;
    let config = format!(
        "{ADMIN}[upstreams.app]\nendpoints = [\"{}\"]\n[[routes]]\nupstream = \"app\"\n{}",
        origin.url(),
        listener("")
    );
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nab").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("ab").await;
    drop(upstream);
    assert_eq!(client.response().await.status, 502);
    assert_eq!(failures(&proxy).await, 0);

    // One that does not ask for the body is sent it, and has its time from then on.
    let config = format!(
        "{ADMIN}[upstreams.app]\nendpoints = [\"{}\"]\ntimeouts = {{ response = \"300ms\" }}\n[[routes]]\nupstream = \"app\"\n{}",
        origin.url(),
        listener("")
    );
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    assert_eq!(client.any_response(false).await.expect("a response").status, 100);
    client.send("abcde").await;
    upstream.read_until("abcde").await;
    upstream.send(&Answer::ok("there").pieces[0]).await;
    assert_eq!(client.response().await.text(), "there");
    assert_eq!(failures(&proxy).await, 0);

    // One that has the whole request is waited for no longer than it may take.
    let origin = BareOrigin::start().await;
    let config = format!(
        "{ADMIN}[upstreams.app]\nendpoints = [\"{}\"]\ntimeouts = {{ response = \"50ms\" }}\n[[routes]]\nupstream = \"app\"\n{}",
        origin.url(),
        listener("")
    );
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.connect().await;
    client.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nabcde").await;
    assert_eq!(client.response().await.status, 504);
    assert_eq!(failures(&proxy).await, 1);
}
