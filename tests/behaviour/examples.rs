//! The examples do what their READMEs say.

use std::path::Path;

use rustix::process::Signal;
use tollgate::plugin_tests::{PluginUnderTest, TestFile};
use tollgate_tests::{Executable, Proxy, Response, block_agents, privacy_body_router, privacy_router, until};

use crate::{
    TOLLGATE,
    plugin_tests::{differences, load, repository},
};

/// A backend that registers with the proxy.
async fn backend(proxy: &Proxy, name: &str, policy: &str, lifetime: &str) -> Executable {
    let admin = format!("http://{}", proxy.admin_address());
    let arguments = ["backend", "--port", "0", "--name", name, "--register", &admin, "--policy", policy];
    let arguments = [&arguments[..], &["--lifetime", lifetime]].concat();
    let backend = Executable::start(TOLLGATE, Path::new("/"), &arguments);
    backend.line(&["registered with", policy]).await;
    backend
}

async fn ask(proxy: &Proxy, headers: &str) -> Response {
    ask_with(proxy, headers, "{\"question\": 1}").await
}

async fn ask_with(proxy: &Proxy, headers: &str, body: &str) -> Response {
    let length = body.len();
    let head = format!("POST /ask HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n{headers}\r\n");
    proxy.request(&(head + body)).await
}

/// Who answers to so many requests with this policy, in order.
async fn answering(proxy: &Proxy, policy: &str, count: usize) -> Vec<String> {
    let mut names = Vec::new();
    for _ in 0..count {
        let answer = ask(proxy, &format!("x-privacy-policy: {policy}\r\n")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        names.push(answer.json()["backend"].as_str().expect("a name").to_owned());
    }
    names
}

fn count(proxy: &Proxy, upstream: &str) -> usize {
    let snapshot = proxy.server().snapshot();
    let place = snapshot.upstream(upstream).expect("the upstream is there");
    snapshot.upstreams[place].upstream.roster().all().len()
}

#[tokio::test]
async fn servers_register_with_a_policy_and_get_the_requests_that_need_it() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/privacy-routing/config.toml");
    let config = std::fs::read_to_string(example).expect("the example is there");
    let config = config.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:9901", "127.0.0.1:0");
    let proxy = Proxy::start_with(&config, &[("privacy-router", privacy_router())]).await;
    assert_eq!(ask(&proxy, "x-privacy-policy: 111\r\n").await.status, 503, "nobody is there yet");

    let anna = backend(&proxy, "anna", "111", "1h").await;
    let mut bert = backend(&proxy, "bert", "111", "1h").await;
    let carl = backend(&proxy, "carl", "222", "3s").await;
    let mut names = answering(&proxy, "111", 4).await;
    names.sort();
    assert_eq!(names, ["anna", "anna", "bert", "bert"], "they take turns");
    assert_eq!(answering(&proxy, "222", 3).await, ["carl", "carl", "carl"]);
    for (headers, status) in [
        ("", 400),
        ("x-privacy-policy: 111\r\nx-privacy-policy: 222\r\n", 400),
        ("x-privacy-policy: 333\r\n", 403),
    ] {
        assert_eq!(ask(&proxy, headers).await.status, status, "{headers}");
    }
    let told = proxy.told("/api/upstreams").await["upstreams"].to_string();
    assert!(told.contains(r#""tags":{"id":"carl","policy":"222"}"#), "{told}");

    // One that ends takes itself out.
    bert.signal(Signal::TERM);
    let (status, printed, _) = bert.end().await;
    assert!(status.success() && printed.contains("taken out of the upstream policy-111"), "{printed}");
    assert_eq!(answering(&proxy, "111", 3).await, ["anna", "anna", "anna"]);

    // One that is killed goes after its lifetime, and nobody takes its place.
    carl.signal(Signal::KILL);
    until("carl is gone", || count(&proxy, "policy-222") == 0).await;
    assert_eq!(ask(&proxy, "x-privacy-policy: 222\r\n").await.status, 503);
    assert_eq!(answering(&proxy, "111", 1).await, ["anna"]);
    drop(anna);
}

#[tokio::test]
async fn a_body_says_which_policy_it_needs_and_personal_data_stays_in_its_region() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/privacy-routing/by-body.toml");
    let config = std::fs::read_to_string(example).expect("the example is there");
    let config = config.replace("127.0.0.1:8080", "127.0.0.1:0").replace("127.0.0.1:9901", "127.0.0.1:0");
    let proxy = Proxy::start_with(&config, &[("privacy-body-router", privacy_body_router())]).await;
    let anna = backend(&proxy, "anna", "111", "1h").await;
    let carl = backend(&proxy, "carl", "222", "1h").await;
    for (body, name) in [
        (r#"{"policy":"111","question":1}"#, "anna"),
        (r#"{"policy":"222","question":1}"#, "carl"),
        (r#"{"customer":{"email":"ann@example.com"}}"#, "anna"),
    ] {
        let answer = ask_with(&proxy, "", body).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
        assert_eq!(answer.json()["backend"], name, "{body}");
        assert_eq!(answer.json()["body"]["length"], body.len(), "it goes on as it came");
    }
    for (body, status) in [
        (r#"{"policy":"222","customer":{"email":"ann@example.com"}}"#, 403),
        (r#"{"policy":"333"}"#, 403),
        (r#"{"question":1}"#, 400),
        ("policy=111", 400),
    ] {
        assert_eq!(ask_with(&proxy, "", body).await.status, status, "{body}");
    }
    drop((anna, carl));
}

#[test]
fn the_plugin_of_the_tutorial_passes_its_tests() {
    let path = repository().join("examples/block-agents/block-agents.test.toml");
    let (mut file, _) = TestFile::read(&path).unwrap_or_else(|problems| panic!("{problems}"));
    // Without optimisation the host takes ten times as long for what it does in a call.
    file.limits.time = file.limits.time.max(tollgate::config::Duration::from_millis(100));
    let trial = PluginUnderTest { name: "block-agents".to_owned(), code: load(&block_agents()) };
    assert_eq!(differences(&trial.run(&file)), []);
}
