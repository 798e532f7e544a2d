//! Which version of HTTP an endpoint is spoken to in, where it may choose.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::sync::Arc;

use http::Response;
use rustls::ServerConfig;
use tokio::sync::Barrier;
use tokio_rustls::TlsAcceptor;
use tollgate_tests::{
    Answer, Authority, BareOrigin, Client, Config, Origin, Proxy,
    http2::{Http2Client, Http2Origin, request},
    soon,
};

/// A server for these protocols.
fn server(authority: &Authority, protocols: &[&str]) -> ServerConfig {
    let mut config = authority.vouch(&["127.0.0.1"]).server(None);
    config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// A proxy of one worker, before this endpoint.
async fn before(authority: &Authority, endpoint: &str, settings: &str) -> Proxy {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), &authority.certificate).unwrap();
    let config = Config::to(endpoint).top("workers = 1").upstream("tls.ca = \"ca.pem\"").upstream(settings);
    Proxy::try_start_in(folder, &config, &[]).await.expect("the proxy starts")
}

/// Sends so many requests at once, each by a client of its own.
async fn at_once(proxy: &Proxy, count: usize) {
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: site.test\r\n\r\n").await;
        clients.push(client);
    }
    for mut client in clients {
        assert_eq!(client.response().await.status, 200);
    }
}

/// Answers when so many requests are there at once.
async fn http2_origin(tls: ServerConfig, together: usize) -> Http2Origin {
    let all = Arc::new(Barrier::new(together));
    Http2Origin::secure(tls, move |_, mut respond| {
        let all = all.clone();
        async move {
            all.wait().await;
            let _ = respond.send_response(Response::new(()), true);
        }
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_chooses_http_2_gets_it_over_one_connection() {
    let authority = Authority::new();
    for protocol in ["", "protocol = \"auto\"", "protocol = \"h2\""] {
        let origin = http2_origin(server(&authority, &[]), 5).await;
        let proxy = before(&authority, &origin.url(), protocol).await;
        for _ in 0..3 {
            at_once(&proxy, 5).await;
        }
        assert_eq!(origin.connections(), 1, "{protocol}");
        let received = origin.received();
        assert!(received.iter().all(|head| head.version == http::Version::HTTP_2), "{protocol}");
        assert_eq!(received[0].uri.to_string(), "https://site.test/");
    }
}

#[tokio::test]
async fn an_endpoint_that_chooses_http_1_gets_a_connection_for_each_request() {
    let authority = Authority::new();
    for (protocols, protocol) in [
        (&["http/1.1"][..], "protocol = \"auto\""),
        (&[], "protocol = \"auto\""),
        (&[], ""),
        (&["h2", "http/1.1"], "protocol = \"h1\""),
    ] {
        let origin = Origin::secure(server(&authority, protocols)).await;
        let proxy = before(&authority, &origin.url(), protocol).await;
        at_once(&proxy, 1).await;
        for _ in 0..3 {
            at_once(&proxy, 1).await;
        }
        assert_eq!(
            origin.connections(),
            1,
            "{protocols:?} {protocol}: the first connection is used and kept"
        );
        assert!(origin.last().raw.starts_with("GET / HTTP/1.1\r\n"));

        // Nobody waits for another's answer.
        let bare = BareOrigin::start().await;
        let proxy = before(&authority, &bare.url().replace("http:", "https:"), protocol).await;
        let tls = TlsAcceptor::from(Arc::new(server(&authority, protocols)));
        let (mut clients, mut upstreams) = (Vec::new(), Vec::new());
        for _ in 0..3 {
            let mut client = proxy.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: site.test\r\n\r\n").await;
            clients.push(client);
            let stream = soon("a handshake", tls.accept(bare.accept().await.into_stream())).await.unwrap();
            let mut upstream = Client::over(stream);
            upstream.read_until("\r\n\r\n").await;
            upstreams.push(upstream);
        }
        for (upstream, client) in upstreams.iter_mut().zip(&mut clients) {
            upstream.send(&Answer::ok("there").pieces[0]).await;
            assert_eq!(client.response().await.text(), "there");
        }
    }
}

#[tokio::test]
async fn many_first_requests_at_once_find_out_what_is_spoken() {
    let authority = Authority::new();
    let origin = Origin::secure(server(&authority, &["http/1.1"])).await;
    let proxy = before(&authority, &origin.url(), "").await;
    at_once(&proxy, 20).await;
    assert_eq!(origin.received().len(), 20);
}

#[tokio::test]
async fn an_endpoint_may_choose_otherwise_on_another_connection() {
    let authority = Authority::new();
    let origin = BareOrigin::start().await;
    let proxy = before(&authority, &origin.url().replace("http:", "https:"), "").await;
    let one = TlsAcceptor::from(Arc::new(server(&authority, &["http/1.1"])));
    let two = TlsAcceptor::from(Arc::new(server(&authority, &["h2", "http/1.1"])));
    let accept = async |acceptor: &TlsAcceptor| {
        soon("a handshake", acceptor.accept(origin.accept().await.into_stream())).await.unwrap()
    };
    let mut client = proxy.connect().await;
    let get = "GET / HTTP/1.1\r\nHost: site.test\r\n\r\n";
    for _ in 0..2 {
        client.send(get).await;
        let mut upstream = Client::over(accept(&one).await);
        upstream.read_until("\r\n\r\n").await;
        upstream.send(&Answer::ok("first").pieces[0]).await;
        assert_eq!(client.response().await.text(), "first");
        upstream.finish().await;
        assert!(upstream.is_closed().await);

        client.send(get).await;
        // One on which it turns out, and one that is shared.
        drop(accept(&two).await);
        let mut upstream = h2::server::handshake(accept(&two).await).await.unwrap();
        let (head, mut respond) = soon("a request", upstream.accept()).await.unwrap().unwrap();
        assert_eq!(head.version(), http::Version::HTTP_2);
        respond.send_response(Response::builder().status(202).body(()).unwrap(), true).unwrap();
        let driving = tokio::spawn(async move {
            upstream.graceful_shutdown();
            while let Some(Ok(_)) = upstream.accept().await {}
        });
        assert_eq!(client.response().await.status, 202);
        soon("the end of the connection", driving).await.unwrap();
    }
}

#[tokio::test]
async fn what_is_to_go_on_in_another_protocol_begins_in_http_1() {
    let authority = Authority::new();
    let origin = Origin::secure_answering(server(&authority, &["h2", "http/1.1"]), |_| {
        Answer::raw("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\nthere")
            .hang()
    })
    .await;
    let proxy = before(&authority, &origin.url(), "").await;
    let config = std::fs::read_to_string(proxy.config_path()).unwrap();
    let route = "[[routes]]\nupgrades = [\"echo\"]";
    proxy.reload(&config.replace("[[routes]]", route)).await.unwrap();
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: site.test\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n").await;
    assert_eq!(client.any_response(false).await.unwrap().status, 101);
    client.read_until("there").await;
}

#[tokio::test]
async fn bodies_and_trailers_pass_in_what_was_chosen() {
    let authority = Authority::new();
    let origin = Http2Origin::secure(server(&authority, &[]), |request, mut respond| async move {
        let mut body = request.into_body();
        let mut all = Vec::new();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            all.extend_from_slice(&data);
        }
        let trailers = body.trailers().await.unwrap().unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(all.into(), false).unwrap();
        stream.send_trailers(trailers).unwrap();
    })
    .await;
    let proxy = before(&authority, &origin.url(), "").await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, mut stream) = client.open(request("POST", "/", &[("te", "trailers")]), false).await;
    stream.send_data("hello".into(), false).unwrap();
    stream
        .send_trailers(http::HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())]))
        .unwrap();
    let response =
        tollgate_tests::http2::Http2Response::read(soon("a response", response).await.unwrap()).await;
    assert_eq!((response.status, response.text(), response.trailer("x-sum")), (200, "hello", Some("1")));
}

#[tokio::test]
async fn checks_are_made_in_what_was_chosen() {
    let authority = Authority::new();
    let health = "health = { path = \"/healthz\", interval = \"50ms\", timeout = \"5s\" }";
    let origin = http2_origin(server(&authority, &[]), 1).await;
    let _proxy = before(&authority, &origin.url(), health).await;
    origin.has_received(3).await;
    let checks = origin.received();
    assert!(
        checks.iter().all(|check| check.version == http::Version::HTTP_2 && check.uri.path() == "/healthz")
    );

    let origin = Origin::secure(server(&authority, &["http/1.1"])).await;
    let _proxy = before(&authority, &origin.url(), health).await;
    origin.has_received(3).await;
    assert!(origin.received().iter().all(|check| check.raw.starts_with("GET /healthz HTTP/1.1\r\n")));
    assert_eq!(origin.connections(), 1, "it is kept");
}
