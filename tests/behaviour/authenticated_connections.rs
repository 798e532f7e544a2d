//! An upstream that authenticates the connection (NTLM, Negotiate) takes all that comes over it for the word of whoever
//! has logged in there: it carries the requests of one client alone.

use std::time::Duration;

use tollgate_tests::{Answer, Client, Config, Origin, Proxy, soon};

/// Says who has logged in on the connection that a request has come over, as such an upstream does; and its own name.
async fn origin(name: &'static str) -> Origin {
    let users = std::sync::Mutex::new(std::collections::HashMap::new());
    Origin::answering(move |received| {
        let mut users = users.lock().expect("no test panics meanwhile");
        if let Some(credentials) = received.header("authorization") {
            let user = credentials.split(' ').next_back().unwrap_or_default().to_owned();
            users.insert(received.connection, user);
        }
        let user = users.get(&received.connection).map_or("nobody", String::as_str);
        Answer::ok(&format!("{user} at {name}"))
    })
    .await
}

async fn ask(client: &mut Client, field: &str) -> String {
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\n{field}\r\n")).await;
    client.response().await.text().to_owned()
}

fn config(origins: &[&Origin]) -> Config {
    Config::to(origins).top("workers = 1").upstream("balance = 'round-robin'")
}

#[tokio::test]
async fn nobody_gets_a_connection_that_another_has_logged_in_on() {
    let origin = origin("one").await;
    let proxy = Proxy::start(&config(&[&origin])).await;
    let (mut alice, mut bob) = (proxy.connect().await, proxy.connect().await);
    for scheme in ["NTLM", "negotiate", "Nego2"] {
        assert_eq!(ask(&mut bob, "").await, "nobody at one", "before");
        assert_eq!(ask(&mut alice, &format!("Authorization: {scheme} alice\r\n")).await, "alice at one");
        assert_eq!(ask(&mut bob, "").await, "nobody at one", "{scheme}");
        assert_eq!(ask(&mut alice, "").await, "alice at one", "{scheme}: without being asked again");
        assert_eq!(ask(&mut bob, &format!("Authorization: {scheme} bob\r\n")).await, "bob at one");
        assert_eq!(ask(&mut alice, "").await, "alice at one");
        assert_eq!(ask(&mut bob, "").await, "bob at one");
        (alice, bob) = (proxy.connect().await, proxy.connect().await);
    }
    // What says who sends a request is not about the connection.
    assert_eq!(ask(&mut alice, "Authorization: Basic alice\r\n").await, "alice at one");
    assert_eq!(ask(&mut bob, "").await, "alice at one", "the connection is anybody's");
}

#[tokio::test]
async fn the_requests_of_who_has_logged_in_go_where_that_was() {
    let (one, two) = (origin("one").await, origin("two").await);
    let proxy = Proxy::start(&config(&[&one, &two])).await;
    let mut alice = proxy.connect().await;
    let first = ask(&mut alice, "Authorization: NTLM alice\r\n").await;
    for _ in 0..6 {
        assert_eq!(ask(&mut alice, "").await, first);
    }
    let mut bob = proxy.connect().await;
    let answers = [ask(&mut bob, "").await, ask(&mut bob, "").await];
    assert!(answers.iter().all(|answer| answer.starts_with("nobody")), "{answers:?}");
    assert_ne!(answers[0], answers[1], "others go round");
}

#[tokio::test]
async fn a_connection_that_was_logged_in_on_ends_with_its_client() {
    let origin = origin("one").await;
    let proxy = Proxy::start(&config(&[&origin])).await;
    let mut alice = proxy.connect().await;
    ask(&mut alice, "Authorization: NTLM alice\r\n").await;
    origin.has_open(1).await;
    drop(alice);
    soon("the end of the connection", tokio::time::timeout(Duration::from_secs(5), origin.has_open(0)))
        .await
        .expect("it is not kept for `idle`");
}
