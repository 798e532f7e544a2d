//! Who sends requests here is told in time that they had better go elsewhere, and none is lost for that.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::Value;
use tokio::net::TcpStream;
use tollgate_tests::{Answer, Client, Config, Origin, Proxy, Then, route_to, soon, until};

const ADMIN: &str = "[admin]\naddress = '127.0.0.1:0'\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

async fn readiness(proxy: &Proxy) -> (u16, Value) {
    let response = proxy.admin("GET", "/readyz", &[]).await;
    (response.status, response.json())
}

#[tokio::test]
async fn an_upstream_counts_for_readiness_unless_it_is_said_that_it_does_not() {
    let (origin, gone) = (Origin::start().await, Origin::start().await.url());
    for (required, expected) in [(true, 503), (false, 200)] {
        let config = format!(
            "{ADMIN}{}[upstreams.minor]\nendpoints = [{gone:?}]\nhealth = {{ interval = '20ms' }}\n\
             required-for-ready = {required}\n[[routes]]\nmatch.path = '/minor'\nupstream = 'minor'\n",
            route_to(&[&origin.url()])
        );
        let proxy = Proxy::start(&config).await;
        soon("the check", async {
            while proxy.told("/api/upstreams").await["upstreams"][1]["endpoints"][0]["state"] != "unreachable"
            {
            }
        })
        .await;
        let (status, told) = readiness(&proxy).await;
        assert_eq!(status, expected, "{told}");
        match required {
            true => assert_eq!(told["detail"], "the upstream `minor` has no endpoint to use"),
            false => {
                let minor = &told["upstreams"][1];
                assert_eq!(
                    (&minor["name"], &minor["is-usable"], &minor["is-required"]),
                    (&"minor".into(), &false.into(), &false.into())
                );
            }
        }
    }
}

#[tokio::test]
async fn an_upstream_whose_only_endpoint_fails_every_request_is_not_ready_until_it_is_to_be_tried() {
    let closing = Origin::answering(|_| Answer { pieces: Vec::new(), then: Then::Close }).await;
    let outlier = "outlier = { eject = '300ms', share-max = 1, consecutive-failures = 2 }";
    let config = Config::to(&closing).admin().upstream(outlier).upstream("retry.attempts = 0");
    let proxy = Proxy::start(&config).await;
    assert_eq!(readiness(&proxy).await.0, 200);
    for _ in 0..2 {
        assert_eq!(proxy.request(GET).await.status, 502);
    }
    assert_eq!(readiness(&proxy).await.0, 503);
    assert_eq!(proxy.told("/api/upstreams").await["upstreams"][0]["is-usable"], false);
    // Otherwise nobody would send what finds out that it is well again.
    soon("a trial is due", async { while readiness(&proxy).await.0 != 200 {} }).await;
}

#[tokio::test]
async fn an_upstream_that_answers_although_its_checks_fail_is_usable() {
    let is_well = Arc::new(AtomicBool::new(true));
    let well = is_well.clone();
    let origin = Origin::answering(move |received| match received.target.as_str() {
        "/healthz" => Answer::raw("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        _ if well.load(Ordering::SeqCst) => Answer::ok("fine"),
        _ => Answer::raw("HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
    })
    .await;
    let config = Config::to(&origin).admin().upstream("health = { path = '/healthz', interval = '20ms' }");
    let proxy = Proxy::start(&config).await;
    let usable = async || proxy.told("/api/upstreams").await["upstreams"][0]["is-usable"] == true;
    soon("the check", async { while usable().await {} }).await;
    assert_eq!(readiness(&proxy).await.0, 503);
    assert_eq!(proxy.request(GET).await.text(), "fine");
    assert!(usable().await);
    assert_eq!(readiness(&proxy).await.0, 200);
    is_well.store(false, Ordering::SeqCst);
    assert_eq!(proxy.request(GET).await.status, 503);
    assert!(!usable().await);
}

#[tokio::test]
async fn a_proxy_that_stops_is_out_of_rotation_before_its_listeners_close() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&format!("drain-delay = '1s'\n{ADMIN}{}", route_to(&[&origin.url()]))).await;
    let mut idle = proxy.connect().await;
    idle.send(GET).await;
    assert_eq!(idle.response().await.header("connection"), None);
    let server = proxy.server().clone();
    let stopping = tokio::spawn(async move { server.stop().await });
    until("it leaves", || proxy.server().is_leaving()).await;
    let (status, told) = readiness(&proxy).await;
    assert_eq!((status, told["detail"].as_str()), (503, Some("draining")));
    assert!(!proxy.server().drain().has_started());
    let response = proxy.request(GET).await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")), "who comes is served");
    idle.send(GET).await;
    let response = idle.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    stopping.await.expect("it stops");
    assert!(TcpStream::connect(proxy.address()).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn no_client_that_keeps_asking_loses_a_request_to_the_end() {
    for delay in ["", "drain-delay = '200ms'"] {
        let origin = Origin::start().await;
        let proxy = Proxy::start(&format!("{delay}\n{}", route_to(&[&origin.url()]))).await;
        let mut clients = tokio::task::JoinSet::new();
        for _ in 0..50 {
            let mut client = Client::connect(proxy.address()).await;
            clients.spawn(async move {
                let mut answered = 0;
                loop {
                    client.send(GET).await;
                    let response = client.any_response(false).await.expect("an answer to every request");
                    assert!(response.status == 200 && response.is_complete);
                    answered += 1;
                    if response.header("connection") == Some("close") {
                        return answered;
                    }
                }
            });
        }
        until("all are busy", || origin.received().len() > 200).await;
        proxy.stop().await;
        let mut answered = 0;
        while let Some(client) = soon("the end of all", clients.join_next()).await {
            answered += client.expect("nobody loses anything");
        }
        assert_eq!(answered, origin.received().len());
    }
}

#[tokio::test]
async fn an_idle_connection_is_answered_once_more_when_the_proxy_stops() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&format!("workers = 1\n{}", route_to(&[&origin.url()]))).await;
    let (mut idle, mut silent) = (proxy.connect().await, proxy.connect().await);
    for client in [&mut idle, &mut silent] {
        client.send(GET).await;
        client.response().await;
    }
    let server = proxy.server().clone();
    let stopping = tokio::spawn(async move { server.stop().await });
    proxy.server().drain().started().await;
    idle.send(GET).await;
    let response = idle.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert!(silent.is_closed().await);
    soon("the end", stopping).await.expect("it stops");
}
