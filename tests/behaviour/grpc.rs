//! Calls of gRPC pass as they are, and the proxy speaks to their clients in their own words.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU8, Ordering},
};

use bytes::Bytes;
use tollgate::upstream::State;
use tollgate_tests::{
    BareOrigin, Config, Proxy,
    http2::{self, *},
    soon, until,
};

/// A route to an upstream of HTTP/2 on `/service/`, with these settings of `[upstreams.app]`.
fn route_with(endpoint: &str, settings: &str) -> String {
    let config = Config::to(endpoint).upstream("protocol = \"h2\"").upstream(settings);
    config.route("match.path = \"/service\"").toml()
}

const GRPC: (&str, &str) = ("content-type", "application/grpc");

/// Opens a call of `/service/Method`.
async fn open(
    client: &mut Http2Client,
    headers: &[(&str, &str)],
) -> (h2::client::ResponseFuture, h2::SendStream<Bytes>) {
    let headers = [&[GRPC, ("te", "trailers")], headers].concat();
    client.open(http2::request("POST", "/service/Method", &headers), false).await
}

/// A message as it is framed.
fn message(text: &str) -> Bytes {
    let mut framed = vec![0];
    framed.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
    framed.extend(text.as_bytes());
    framed.into()
}

fn trailers(status: &str) -> http::HeaderMap {
    [("grpc-status".parse().unwrap(), status.parse().unwrap())].into_iter().collect()
}

fn head() -> http::Response<()> {
    http::Response::builder().header(GRPC.0, GRPC.1).body(()).unwrap()
}

/// The status that a call ends with, in trailers or in a head that is all there is.
fn status(response: &Http2Response) -> &str {
    assert_eq!(
        (response.status, response.header("content-type")),
        (200, Some("application/grpc")),
        "{response:?}"
    );
    response.trailer("grpc-status").or(response.header("grpc-status")).expect("a call ends with a status")
}

#[tokio::test]
async fn messages_go_to_and_fro_on_one_call() {
    // Answers each message as it comes, and ends the call with the last.
    let origin = Http2Origin::serving(|request, mut respond| async move {
        assert_eq!(request.headers()["te"], "trailers");
        let mut body = request.into_body();
        let mut stream = respond.send_response(head(), false).unwrap();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            let _ = stream.send_data(data, false);
        }
        let _ = stream.send_trailers(trailers("0"));
    })
    .await;
    let proxy = Proxy::start(&route_with(&origin.url(), "")).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let (response, mut stream) = open(&mut client, &[]).await;
    let mut response = soon("the head, before any message", response).await.unwrap();
    for text in ["one", "two", "three"] {
        stream.send_data(message(text), false).unwrap();
        let data = soon("the message", response.body_mut().data()).await.unwrap().unwrap();
        assert_eq!(data, message(text));
    }
    stream.send_data(Bytes::new(), true).unwrap();
    assert_eq!(status(&Http2Response::read(response).await), "0");
}

#[tokio::test]
async fn a_call_may_end_before_its_request_does() {
    let origin = Http2Origin::serving(|_, mut respond| async move {
        let mut stream = respond.send_response(head(), false).unwrap();
        let _ = stream.send_data(message("enough"), false);
        let _ = stream.send_trailers(trailers("9"));
    })
    .await;
    let proxy = Proxy::start(&route_with(&origin.url(), "")).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    for _ in 0..3 {
        let (response, mut stream) = open(&mut client, &[]).await;
        stream.send_data(message("one"), false).unwrap();
        let response = Http2Response::read(soon("a response", response).await.unwrap()).await;
        assert_eq!((status(&response), &response.body[..]), ("9", &message("enough")[..]));
    }
}

#[tokio::test]
async fn errors_of_the_proxy_are_told_in_grpc() {
    let nobody = { BareOrigin::start().await.url() };
    let silent = BareOrigin::start().await;
    for (endpoint, path, settings, expected) in [
        (&nobody, "/service/Method", "", "14"),
        (&nobody, "/elsewhere", "", "12"),
        (&silent.url(), "/service/Method", "timeouts.connect = \"100ms\"", "14"),
    ] {
        let proxy = Proxy::start(&route_with(endpoint, settings)).await;
        let mut client = Http2Client::connect(proxy.address()).await;
        let sent = http2::request("POST", path, &[GRPC, ("te", "trailers")]);
        let response = client.send(sent, &message("one")).await.unwrap();
        assert_eq!(status(&response), expected, "{endpoint} {path}: {response:?}");
        assert!(response.body.is_empty() && response.header("grpc-message").is_some(), "{response:?}");
        let other =
            client.send(http2::request("POST", path, &[("content-type", "application/json")]), b"{}").await;
        assert_ne!(other.unwrap().status, 200, "others are told in HTTP");
    }
}

#[tokio::test]
async fn an_answer_of_a_plugin_is_told_in_grpc() {
    let origin = Http2Origin::start().await;
    let config = route_with(&origin.url(), "")
        + "plugins = [\"api-key\"]\n[plugins.api-key]\nconfig = { keys = { demo = \"k1\" } }\n";
    let proxy = Proxy::start(&config).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let sent = http2::request("POST", "/service/Method", &[GRPC]);
    assert_eq!(status(&client.send(sent, &message("one")).await.unwrap()), "16");
    assert!(origin.received().is_empty());
}

#[tokio::test]
async fn a_deadline_ends_a_call_before_and_after_its_head() {
    let origin = Http2Origin::serving(|request, mut respond| async move {
        let mut stream = None;
        if request.headers().contains_key("x-head") {
            let mut sending = respond.send_response(head(), false).unwrap();
            sending.send_data(message("one"), false).unwrap();
            stream = Some(sending);
        }
        match &mut stream {
            Some(stream) => drop(std::future::poll_fn(|cx| stream.poll_reset(cx)).await),
            None => drop(std::future::poll_fn(|cx| respond.poll_reset(cx)).await),
        }
    })
    .await;
    let proxy = Proxy::start(&route_with(&origin.url(), "")).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    for (headers, body) in [
        (&[("grpc-timeout", "100m")][..], Bytes::new()),
        (&[("grpc-timeout", "100m"), ("x-head", "1")], message("one")),
    ] {
        let (response, mut stream) = open(&mut client, headers).await;
        stream.send_data(message("one"), false).unwrap();
        let response = Http2Response::read(soon("a response", response).await.unwrap()).await;
        assert_eq!(status(&response), "4", "{response:?}");
        assert_eq!(response.body, body);
    }
}

#[tokio::test]
async fn a_time_out_of_the_proxy_is_a_deadline_too() {
    let origin = Http2Origin::serving(|_, mut respond| async move {
        drop(std::future::poll_fn(|cx| respond.poll_reset(cx)).await);
    })
    .await;
    let proxy = Proxy::start(&route_with(&origin.url(), "timeouts.response = \"100ms\"")).await;
    let mut client = Http2Client::connect(proxy.address()).await;
    let sent = http2::request("POST", "/service/Method", &[GRPC, ("grpc-timeout", "1H")]);
    assert_eq!(status(&client.send(sent, &message("one")).await.unwrap()), "4");
}

#[tokio::test]
async fn a_check_by_grpc_believes_what_the_server_says_of_itself() {
    let (serving, asked) = (Arc::new(AtomicU8::new(1)), Arc::<Mutex<Vec<u8>>>::default());
    let (says, hears) = (serving.clone(), asked.clone());
    let origin = Http2Origin::serving(move |request, mut respond| {
        let (says, hears) = (says.clone(), hears.clone());
        async move {
            assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
            assert_eq!(
                (request.method().as_str(), &request.headers()["te"]),
                ("POST", &"trailers".parse().unwrap())
            );
            let mut body = request.into_body();
            let mut bytes = Vec::new();
            while let Some(Ok(data)) = body.data().await {
                bytes.extend_from_slice(&data);
            }
            *hears.lock().unwrap() = bytes;
            let says = says.load(Ordering::SeqCst);
            let mut stream = respond.send_response(head(), false).unwrap();
            if says < 3 {
                let _ = stream.send_data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, says]), false);
                let _ = stream.send_trailers(trailers("0"));
            } else {
                let _ = stream.send_trailers(trailers("12"));
            }
        }
    })
    .await;
    let settings =
        "health = { protocol = \"grpc\", service = \"a.B\", interval = \"20ms\", timeout = \"2s\" }";
    let proxy = Proxy::start(&route_with(&origin.url(), settings)).await;
    let is = async |state: State, error: Option<&str>| {
        let snapshot = proxy.server().snapshot();
        let roster = || snapshot.upstreams[0].upstream.roster().all()[0].clone();
        until(state.name(), || roster().state == state).await;
        if let Some(error) = error {
            until(error, || roster().endpoint.health().last_error.as_deref() == Some(error)).await;
        }
    };
    is(State::Healthy, None).await;
    assert_eq!(*asked.lock().unwrap(), b"\0\0\0\0\x05\x0a\x03a.B");
    serving.store(2, Ordering::SeqCst);
    is(State::Unreachable, Some("is not serving")).await;
    serving.store(1, Ordering::SeqCst);
    is(State::Healthy, None).await;
    serving.store(3, Ordering::SeqCst);
    is(State::Unreachable, Some("the call failed with grpc-status 12")).await;
}
