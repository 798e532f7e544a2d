//! Every time that a request may have reached an endpoint is an attempt: it is counted, limited, and said of the endpoint.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::Value;
use tollgate_tests::{Answer, BareOrigin, Client, Config, Origin, Proxy, Then, endpoints, soon, until};

fn config(list: &str, settings: &str) -> String {
    Config::to_list(list)
        .top("workers = 1")
        .admin()
        .upstream("balance = 'round-robin'")
        .upstream(settings)
        .toml()
}

/// Answers one request on each connection, reads the next, and closes without a word.
async fn closes_after_one() -> Origin {
    let seen = Mutex::new(HashSet::new());
    Origin::answering(move |received| match seen.lock().unwrap().insert(received.connection) {
        true => Answer::ok("fine"),
        false => Answer { pieces: Vec::new(), then: Then::Close },
    })
    .await
}

async fn ask(client: &mut Client, path: &str) -> u16 {
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
    client.response().await.status
}

/// What the API says of the endpoints.
async fn told(proxy: &Proxy) -> Vec<Value> {
    proxy.told("/api/upstreams").await["upstreams"][0]["endpoints"].as_array().unwrap().clone()
}

#[tokio::test]
async fn a_request_that_was_read_and_not_answered_is_an_attempt_and_counted() {
    let origin = closes_after_one().await;
    let settings = "retry.attempts = 0\noutlier.consecutive-failures = 0";
    let proxy = Proxy::start(&config(&endpoints(&[&origin]), settings)).await;
    let mut client = proxy.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(ask(&mut client, "/").await);
    }
    assert_eq!(statuses, [200, 502, 200, 502, 200, 502]);
    assert_eq!(origin.received().len(), 6, "none is sent again");
    let endpoint = &told(&proxy).await[0];
    assert_eq!((endpoint["requests"].as_u64(), endpoint["failures"].as_u64()), (Some(6), Some(3)));
}

#[tokio::test]
async fn no_endpoint_gets_a_request_twice_however_its_connections_end() {
    let origins = [closes_after_one().await, closes_after_one().await, closes_after_one().await];
    let list = endpoints(&[&origins[0], &origins[1], &origins[2]]);
    let settings = "retry = { attempts = 2, budget = 1, backoff = '1ms' }\noutlier.consecutive-failures = 0";
    let proxy = Proxy::start(&config(&list, settings)).await;
    let mut client = proxy.connect().await;
    for number in 0..30 {
        ask(&mut client, &format!("/{number}")).await;
    }
    for origin in &origins {
        let mut times = HashMap::<_, usize>::new();
        origin.received().iter().for_each(|received| *times.entry(received.target.clone()).or_default() += 1);
        assert!(times.values().all(|times| *times == 1), "{times:?}");
    }
    let received: usize = origins.iter().map(|origin| origin.received().len()).sum();
    let counted: u64 = told(&proxy).await.iter().map(|endpoint| endpoint["requests"].as_u64().unwrap()).sum();
    assert_eq!(counted, received as u64, "the API shows what arrived");
}

#[tokio::test]
async fn connections_that_break_spend_the_budget() {
    const REQUESTS: usize = 200;
    let origin = closes_after_one().await;
    let settings = "retry = { attempts = 5, budget = 0.2, backoff = '1ms', backoff-max = '1ms' }\n\
                    outlier.consecutive-failures = 0";
    let proxy = Proxy::start(&config(&endpoints(&[&origin]), settings)).await;
    let mut client = proxy.connect().await;
    for _ in 0..REQUESTS {
        ask(&mut client, "/").await;
    }
    let received = origin.received().len();
    assert!(received <= REQUESTS * 12 / 10 + 10, "{received} of {REQUESTS}");
}

#[tokio::test]
async fn an_endpoint_that_closes_every_second_request_is_an_outlier() {
    let (bad, good, other) = (closes_after_one().await, Origin::start().await, Origin::start().await);
    let settings = "outlier = { interval = '100ms', min-requests = 4, eject = '1h', share-max = 1 }\n\
         retry.budget = 1";
    let proxy = Proxy::start(&config(&endpoints(&[&bad, &good, &other]), settings)).await;
    let mut client = proxy.connect().await;
    soon("the outlier to be ejected", async {
        while told(&proxy).await[0]["state"] != "ejected" {
            for _ in 0..20 {
                assert_eq!(ask(&mut client, "/").await, 200, "another answers");
            }
        }
    })
    .await;
    assert_eq!(told(&proxy).await[1]["state"], "healthy");
}

/// Connections of HTTP/2 on which so many requests are read, and that end then.
async fn reads_and_closes(origin: BareOrigin, together: usize, read: Arc<AtomicUsize>) {
    loop {
        let stream = origin.accept().await.into_stream();
        let read = read.clone();
        tokio::spawn(async move {
            let Ok(mut connection) = h2::server::handshake(stream).await else { return };
            let mut held = Vec::new();
            while held.len() < together
                && let Some(Ok(request)) = connection.accept().await
            {
                read.fetch_add(1, Ordering::SeqCst);
                held.push(request);
            }
        });
    }
}

#[tokio::test]
async fn requests_on_a_new_connection_of_http_2_that_ends_are_attempts_all_of_them() {
    const TOGETHER: usize = 5;
    let origin = BareOrigin::start().await;
    let settings = "protocol = 'h2'\nretry.attempts = 0\noutlier.consecutive-failures = 0";
    let proxy = Proxy::start(&config(&format!("[{:?}]", origin.url()), settings)).await;
    let read = Arc::<AtomicUsize>::default();
    let serving = tokio::spawn(reads_and_closes(origin, TOGETHER, read.clone()));
    let mut clients = Vec::new();
    for _ in 0..TOGETHER {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        clients.push(client);
    }
    for client in &mut clients {
        assert_eq!(client.response().await.status, 502);
    }
    assert_eq!(read.load(Ordering::SeqCst), TOGETHER);
    assert_eq!(told(&proxy).await[0]["requests"], TOGETHER);
    serving.abort();
}

#[tokio::test]
async fn an_endpoint_that_ends_every_connection_of_http_2_at_once_is_not_asked_without_end() {
    const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
    const GOAWAY: &[u8] = &[0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    for says in [[SETTINGS, GOAWAY].concat(), SETTINGS.to_vec(), Vec::new()] {
        let origin = BareOrigin::start().await;
        let settings = "protocol = 'h2'\nretry = { attempts = 2, budget = 1, backoff = '1ms' }\n\
                        outlier = { consecutive-failures = 3, eject = '1h' }";
        let proxy = Proxy::start(&config(&format!("[{:?}]", origin.url()), settings)).await;
        let connections = Arc::<AtomicUsize>::default();
        let (count, said) = (connections.clone(), says.clone());
        let serving = tokio::spawn(async move {
            loop {
                let mut connection = origin.accept().await;
                count.fetch_add(1, Ordering::SeqCst);
                connection.send(&said).await;
                connection.finish().await;
            }
        });
        let response = proxy.get("/", &[]).await;
        assert!([502, 503].contains(&response.status), "{says:?}: {response:?}");
        let connections = connections.load(Ordering::SeqCst);
        // One for each attempt, and one more where the end of the first was not seen in time.
        assert!((1..=6).contains(&connections), "{says:?}: {connections}");
        until("it is blamed", || {
            let snapshot = proxy.server().snapshot();
            snapshot.upstreams[0].upstream.roster().all()[0].endpoint.condition().failures >= 3
        })
        .await;
        assert_eq!(told(&proxy).await[0]["state"], "ejected", "{says:?}");
        serving.abort();
    }
}
