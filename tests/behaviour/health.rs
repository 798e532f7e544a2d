//! Endpoints that are not well get no requests, and get them again when they are.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::process::Signal;
use tollgate::upstream::State;
use tollgate_tests::{Answer, Executable, Load, Origin, Proxy, Then, endpoints, logged, until};

use crate::TOLLGATE;

/// One route to an upstream with these settings.
fn upstream(name: &str, endpoints: &str, settings: &str) -> String {
    format!(
        "log.access = false\n[[routes]]\nupstream = {name:?}\n[upstreams.{name}]\nendpoints = {endpoints}\n{settings}\n"
    )
}

/// The states of the endpoints of the only upstream.
fn states(proxy: &Proxy) -> Vec<State> {
    let snapshot = proxy.server().snapshot();
    let upstream = &snapshot.upstreams[0].upstream;
    let roster = upstream.roster();
    roster.all().iter().map(|entry| entry.endpoint.health().state(&upstream.settings)).collect()
}

async fn are(proxy: &Proxy, expected: &[State]) {
    until(&format!("states {expected:?}, not {:?}", states(proxy)), || states(proxy) == expected).await;
}

/// An origin whose `/healthz` says what it is told to, and whose other paths answer with its port.
async fn with_health(is_well: &Arc<AtomicBool>) -> Origin {
    let is_well = is_well.clone();
    Origin::answering(move |received| match (received.target.as_str(), is_well.load(Ordering::SeqCst)) {
        ("/healthz", true) => Answer::ok("fine, thanks"),
        ("/healthz", false) => Answer::raw("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"),
        _ => Answer::ok("served"),
    })
    .await
}

fn served(origin: &Origin) -> usize {
    origin.received().iter().filter(|received| received.target == "/").count()
}

const QUICK: &str = "interval = '20ms', timeout = '2s'";

#[tokio::test]
async fn an_endpoint_gets_requests_while_its_checks_pass() {
    let is_well = Arc::new(AtomicBool::new(true));
    let (one, other) = (with_health(&is_well).await, with_health(&Arc::new(AtomicBool::new(true))).await);
    let health = format!("health = {{ path = '/healthz', {QUICK} }}");
    let proxy = Proxy::start(&upstream("app", &endpoints(&[&one, &other]), &health)).await;
    are(&proxy, &[State::Healthy, State::Healthy]).await;

    is_well.store(false, Ordering::SeqCst);
    are(&proxy, &[State::Unreachable, State::Healthy]).await;
    let before = served(&one);
    for _ in 0..20 {
        assert_eq!(proxy.get("/", &[]).await.text(), "served");
    }
    assert_eq!((served(&one), served(&other) >= 20), (before, true));

    is_well.store(true, Ordering::SeqCst);
    are(&proxy, &[State::Healthy, State::Healthy]).await;
    until("a request to the endpoint that is well again", || {
        served(&one) > before || {
            let address = proxy.address();
            tokio::spawn(async move {
                let mut client = tollgate_tests::Client::connect(address).await;
                client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
                client.response().await;
            });
            false
        }
    })
    .await;
    assert_eq!(
        (one.connections() <= 22, other.connections() > 0),
        (true, true),
        "checks keep their connection"
    );
}

#[tokio::test]
async fn a_check_asks_what_it_is_told_to_ask_over_one_connection() {
    let origin =
        Origin::answering(|_| Answer::raw("HTTP/1.1 418 Teapot\r\nContent-Length: 5\r\n\r\nshort")).await;
    let health = format!(
        "health = {{ {QUICK}, path = '/live?deep=1', method = 'POST', host = 'app.internal', headers = {{ x-token = 'abc' }}, \
         statuses = [204, '410-420'], body = 'hor' }}"
    );
    let proxy = Proxy::start(&upstream("app", &endpoints(&[&origin]), &health)).await;
    origin.has_received(5).await;
    are(&proxy, &[State::Healthy]).await;
    let last = origin.last();
    assert_eq!((last.method.as_str(), last.target.as_str()), ("POST", "/live?deep=1"));
    assert_eq!((last.header("host"), last.header("x-token")), (Some("app.internal"), Some("abc")));
    assert!(last.header("user-agent").unwrap().contains("health check"), "{last:?}");
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_check_fails_for_what_it_finds() {
    let hanging = Origin::answering(|_| Answer { pieces: Vec::new(), then: Then::Hang }).await;
    let closing = Origin::answering(|_| Answer { pieces: Vec::new(), then: Then::Close }).await;
    let half =
        Origin::answering(|_| Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nhalf").close()).await;
    let other = Origin::answering(|_| Answer::ok("something else")).await;
    let garbage = Origin::answering(|_| Answer::raw("220 smtp.example.com ESMTP\r\n")).await;
    let fine = Origin::answering(|_| Answer::ok("all is well")).await;
    let nobody = Origin::start().await.url();
    let all = endpoints(&[&hanging, &closing, &half, &other, &garbage, &fine]);
    let all = all.replace(']', &format!(", {nobody:?}]"));
    let health = "health = { body = 'well', interval = '20ms', timeout = '300ms' }";
    let proxy = Proxy::start(&upstream("sick", &all, health)).await;
    let unreachable = State::Unreachable;
    let mut expected = vec![unreachable; 7];
    expected[5] = State::Healthy;
    are(&proxy, &expected).await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/", &[]).await.text(), "all is well");
    }
    let snapshot = proxy.server().snapshot();
    let roster = snapshot.upstreams[0].upstream.roster();
    let error = |place: usize| {
        let health = roster.all()[place].endpoint.health();
        health.last_error.as_deref().unwrap_or_default().to_owned()
    };
    for (place, words) in [
        (0, "longer than 300 ms"),
        (1, "no answer"),
        (2, "no answer"),
        (3, "does not hold"),
        (4, "no answer"),
        (6, "cannot connect"),
    ] {
        assert!(error(place).contains(words), "{place}: {}", error(place));
    }
    let told = logged(&["endpoint is unhealthy", "sick", &hanging.address.to_string(), "not-initiated"]);
    assert_eq!(told.len(), 1, "it is said once: {told:?}");
}

#[tokio::test]
async fn a_connection_is_enough_where_that_is_asked_for() {
    let silent = Origin::answering(|_| Answer { pieces: Vec::new(), then: Then::Hang }).await;
    let nobody = Origin::start().await.url();
    let list = endpoints(&[&silent]).replace(']', &format!(", {nobody:?}]"));
    let proxy =
        Proxy::start(&upstream("app", &list, &format!("health = {{ protocol = 'tcp', {QUICK} }}"))).await;
    are(&proxy, &[State::Healthy, State::Unreachable]).await;
    assert_eq!(silent.bytes(), 0);
}

#[tokio::test]
async fn checks_go_on_over_a_reload_and_end_with_their_endpoint() {
    let is_well = Arc::new(AtomicBool::new(true));
    let (one, other) = (with_health(&is_well).await, with_health(&is_well).await);
    let health = format!("health = {{ path = '/healthz', {QUICK} }}");
    let both = upstream("app", &endpoints(&[&one, &other]), &health);
    let proxy = Proxy::start(&both).await;
    are(&proxy, &[State::Healthy, State::Healthy]).await;
    assert_eq!(one.connections(), 1);
    proxy.reload(&format!("{both}# the same\n")).await.unwrap();
    let count = one.received().len();
    one.has_received(count + 3).await;
    assert_eq!(one.connections(), 1, "an equal upstream is not disturbed");

    proxy.reload(&upstream("app", &endpoints(&[&one]), &health)).await.unwrap();
    assert_eq!(states(&proxy), [State::Healthy], "it is not asked anew who is well");
    other.has_open(0).await;
    let (count, rest) = (one.received().len(), other.received().len());
    one.has_received(count + 3).await;
    assert_eq!(other.received().len(), rest);

    proxy.reload(&upstream("app", &endpoints(&[&one]), "")).await.unwrap();
    one.has_open(0).await;
    assert_eq!(states(&proxy), [State::Healthy]);
}

#[tokio::test]
async fn checks_end_when_the_proxy_drains() {
    let origin = Origin::start().await;
    let proxy =
        Proxy::start(&upstream("app", &endpoints(&[&origin]), &format!("health = {{ {QUICK} }}"))).await;
    are(&proxy, &[State::Healthy]).await;
    proxy.stop().await;
    origin.has_open(0).await;
}

/// A sample backend in a process of its own.
async fn backend(port: u16) -> (Executable, SocketAddr) {
    let backend = Executable::start(TOLLGATE, Path::new("."), &["backend", "--port", &port.to_string()]);
    let line = backend.line(&["listens on http://"]).await;
    let (_, address) = line.split_once("http://").expect("the words are there");
    (backend, address.trim().parse().expect("it is an address"))
}

#[tokio::test]
async fn a_backend_that_is_killed_under_load_costs_no_request_and_comes_back() {
    for health in [format!("health = {{ {QUICK} }}"), "outlier.eject = '50ms'".to_owned()] {
        let (mut first, address) = backend(0).await;
        let (second, third) = (backend(0).await, backend(0).await);
        let all: Vec<_> =
            [address, second.1, third.1].iter().map(|address| format!("http://{address}")).collect();
        let proxy = Proxy::start(&upstream("app", &format!("{all:?}"), &health)).await;
        are(&proxy, &[State::Healthy; 3]).await;
        let load = Load::start(proxy.address(), "/", 8);
        load.has_answered(200).await;

        first.signal(Signal::KILL);
        first.end().await;
        until("it is found out", || states(&proxy)[0] != State::Healthy).await;
        load.has_answered(200).await;
        assert!(matches!(states(&proxy)[0], State::Unreachable | State::Ejected), "{:?}", states(&proxy));

        let (_first, _) = backend(address.port()).await;
        are(&proxy, &[State::Healthy; 3]).await;
        let snapshot = proxy.server().snapshot();
        let endpoint = snapshot.upstreams[0].upstream.roster().all()[0].endpoint.clone();
        let before = endpoint.requests();
        until("requests to the one that is back", || endpoint.requests() > before + 10).await;
        load.stop().await;
    }
}

#[tokio::test]
async fn all_are_used_when_too_few_are_well_and_it_is_said() {
    let is_well = Arc::new(AtomicBool::new(false));
    let (one, other) = (with_health(&is_well).await, with_health(&is_well).await);
    let health = format!("health = {{ path = '/healthz', {QUICK} }}");
    let proxy = Proxy::start(&upstream("panicking", &endpoints(&[&one, &other]), &health)).await;
    are(&proxy, &[State::Unreachable, State::Unreachable]).await;
    assert_eq!(proxy.get("/", &[]).await.text(), "served");
    assert!(!logged(&["too few endpoints healthy", "panicking"]).is_empty());
    is_well.store(true, Ordering::SeqCst);
    are(&proxy, &[State::Healthy, State::Healthy]).await;
    assert!(!logged(&["enough endpoints healthy", "panicking"]).is_empty());
}

#[tokio::test]
async fn a_backend_that_answers_errors_is_left_out_where_that_counts() {
    let failing = Origin::answering(|_| Answer::raw("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")).await;
    let fine = Origin::start().await;
    let list = endpoints(&[&failing, &fine]);
    let settings = "outlier = { consecutive-errors = 3, eject = '1h' }\nbalance = 'round-robin'";
    let proxy = Proxy::start(&upstream("app", &list, settings)).await;
    let mut client = proxy.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        statuses.push(client.response().await.status);
    }
    assert_eq!(states(&proxy), [State::Ejected, State::Healthy]);
    assert_eq!(statuses.iter().filter(|status| **status == 500).count(), 3, "{statuses:?}");
    assert_eq!(failing.received().len(), 3, "the balancer was told of a list without it");
    let address = failing.address.to_string();
    assert_eq!(logged(&["endpoint is unhealthy", &address, "the last was 500"]).len(), 1);
}

#[tokio::test]
async fn a_warning_of_an_endpoint_says_what_its_requests_have_met() {
    let gone = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let proxy =
        Proxy::start(&upstream("gone-away", &format!("[\"http://{gone}\"]"), "retry.attempts = 0")).await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/", &[]).await.status, 502);
    }
    let told = logged(&["endpoint is unhealthy", "gone-away"]);
    let why = ["no connection, again and again: no connection to", "Connection refused"];
    assert!(told.len() == 1 && why.iter().all(|words| told[0].contains(words)), "{told:?}");
}

#[tokio::test]
async fn endpoints_tell_their_load_at_an_address_of_their_own() {
    let loads = [0.9, 0.1].map(|load| {
        move |received: &tollgate_tests::Received| match received.target.as_str() {
            "/load" => Answer::ok(&format!("{{\"cpu\": {{\"used\": {load}}}}}")),
            _ => Answer::ok(&load.to_string()),
        }
    });
    let [busy, idle] = loads;
    let (busy, idle) = (Origin::answering(busy).await, Origin::answering(idle).await);
    let settings = "balance = 'resource'\nload = { path = '/load', pointer = '/cpu/used', interval = '20ms', timeout = '2s' }";
    let proxy = Proxy::start(&upstream("app", &endpoints(&[&busy, &idle]), settings)).await;
    let told = || {
        let snapshot = proxy.server().snapshot();
        let roster = snapshot.upstreams[0].upstream.roster().clone();
        roster.all().iter().map(|entry| entry.endpoint.condition().load).collect::<Vec<_>>()
    };
    until("both have told", || told() == [Some(0.9), Some(0.1)]).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/", &[]).await.text(), "0.1");
    }
    assert_eq!((busy.connections(), idle.connections() <= 21), (1, true), "the connection is kept");
}
