//! Endpoints join and leave while the proxy runs, and whoever tells of them may go away.

use std::{fs, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tollgate::{
    address::Caller,
    plugin::{Capabilities, Compiler, Engine, EngineSettings, Exchange, ExchangeSlot, Plugin, Slot},
    telemetry::Writer,
    upstream::{Tls, Upstream},
};
use tollgate_tests::{
    BareOrigin, Client, NameServer, Origin, Proxy, Resource, Response, endpoints, logged, shipped, soon,
    until,
};

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

/// One route to the upstream of this name with these settings.
fn upstream(name: &str, settings: &str) -> String {
    format!("log.access = false\n{ADMIN}[[routes]]\nupstream = {name:?}\n[upstreams.{name}]\n{settings}\n")
}

/// Asks the admin API to do something with an endpoint.
async fn endpoint(proxy: &Proxy, method: &str, name: &str, address: &str, body: &str) -> Response {
    let mut client = Client::connect(proxy.admin_address()).await;
    let path = format!("/api/upstreams/{name}/endpoints/{address}");
    let length = body.len();
    client
        .send(format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    client.response().await
}

async fn register(proxy: &Proxy, name: &str, origin: &Origin, body: &str) -> Value {
    let response = endpoint(proxy, "PUT", name, &origin.address.to_string(), body).await;
    assert_eq!(response.status, 200, "{response:?}");
    response.json()["outcome"].clone()
}

/// What the admin API says of the only upstream.
async fn status(proxy: &Proxy) -> Value {
    proxy.told("/api/upstreams").await["upstreams"][0].clone()
}

/// The addresses of the endpoints that there are, those that are leaving included.
fn present(proxy: &Proxy) -> Vec<String> {
    let snapshot = proxy.server().snapshot();
    let roster = snapshot.upstreams[0].upstream.roster().clone();
    roster.all().iter().map(|entry| entry.endpoint.authority.to_string()).collect()
}

async fn are(proxy: &Proxy, expected: &[&Origin]) {
    let mut expected: Vec<_> = expected.iter().map(|origin| origin.address.to_string()).collect();
    expected.sort();
    let sorted = || {
        let mut present = present(proxy);
        present.sort();
        present
    };
    until(&format!("{expected:?} are there"), || sorted() == expected).await;
}

/// The number of failures that a source has had, once it has had some more.
async fn has_failed(proxy: &Proxy, before: u64) -> Value {
    soon("a failure of the source", async {
        loop {
            let told = status(proxy).await["discovery"][0].clone();
            if told["failures"].as_u64().expect("a number") > before {
                return told;
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_server_registers_gets_requests_and_takes_itself_out() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::start(&upstream("joining", "register = { networks = ['127.0.0.0/8'] }")).await;
    assert_eq!(proxy.get("/", &[]).await.status, 503, "nobody is there");

    let about = r#"{"lifetime": "1h", "weight": 3, "tags": {"policy": "111"}}"#;
    assert_eq!(register(&proxy, "joining", &one, about).await, "registered");
    assert_eq!(proxy.get("/", &[]).await.text(), one.port());
    assert_eq!(register(&proxy, "joining", &one, about).await, "renewed");
    assert_eq!(register(&proxy, "joining", &other, "").await, "registered");
    assert_eq!(register(&proxy, "joining", &other, r#"{"weight": 2}"#).await, "changed");

    let status = status(&proxy).await;
    let address = one.address.to_string();
    let endpoints = status["endpoints"].as_array().unwrap();
    let told = endpoints.iter().find(|endpoint| endpoint["address"] == address.as_str()).unwrap();
    assert_eq!((&told["source"], &told["weight"]), (&json!("registered"), &json!(3)));
    assert_eq!(told["tags"], json!({ "policy": "111" }));
    let left = told["expires-in-seconds"].as_f64().unwrap();
    assert!((3000.0..=3600.0).contains(&left), "{left}");

    assert_eq!(endpoint(&proxy, "DELETE", "joining", &address, "").await.json()["outcome"], "taken-out");
    assert_eq!(endpoint(&proxy, "DELETE", "joining", &address, "").await.status, 404);
    for _ in 0..10 {
        assert_eq!(proxy.get("/", &[]).await.text(), other.port());
    }
}

#[tokio::test]
async fn a_server_that_is_taken_out_finishes_what_it_has() {
    let (slow, other) = (BareOrigin::start().await, Origin::start().await);
    let proxy = Proxy::start(&upstream("leaving", "register = { networks = ['127.0.0.0/8'] }")).await;
    let address = slow.address.to_string();
    assert_eq!(endpoint(&proxy, "PUT", "leaving", &address, "").await.status, 200);
    let mut client = proxy.connect().await;
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut serving = slow.accept().await;
    register(&proxy, "leaving", &other, "").await;
    assert_eq!(endpoint(&proxy, "DELETE", "leaving", &address, "").await.status, 200);

    let told = status(&proxy).await["endpoints"].clone();
    let state_of = |told: &Value| {
        let mut all = told.as_array().unwrap().iter();
        all.find(|endpoint| endpoint["address"] == address.as_str()).map(|endpoint| endpoint["state"].clone())
    };
    assert_eq!(state_of(&told), Some(json!("draining")));
    for _ in 0..10 {
        assert_eq!(proxy.get("/", &[]).await.text(), other.port());
    }
    serving.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
    assert_eq!(client.response().await.text(), "late");
    are(&proxy, &[&other]).await;

    assert_eq!(endpoint(&proxy, "PUT", "leaving", &address, "").await.status, 200);
    let told = status(&proxy).await["endpoints"].clone();
    assert_eq!(state_of(&told), Some(json!("healthy")), "and may come back");
}

#[tokio::test]
async fn a_server_that_comes_back_while_it_drains_is_the_one_that_left() {
    let slow = BareOrigin::start().await;
    let proxy = Proxy::start(&upstream("returning", "register = { networks = ['127.0.0.0/8'] }")).await;
    let address = slow.address.to_string();
    endpoint(&proxy, "PUT", "returning", &address, "").await;
    let mut client = proxy.connect().await;
    client.send("GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut serving = slow.accept().await;
    endpoint(&proxy, "DELETE", "returning", &address, "").await;
    assert_eq!(proxy.get("/", &[]).await.status, 503);
    endpoint(&proxy, "PUT", "returning", &address, "").await;
    let told = status(&proxy).await["endpoints"][0].clone();
    assert_eq!(
        (&told["state"], &told["active"], &told["requests"]),
        (&json!("healthy"), &json!(1), &json!(1))
    );
    serving.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
    assert_eq!(client.response().await.text(), "late");
}

#[tokio::test]
async fn a_server_that_does_not_renew_goes_after_its_lifetime() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::start(&upstream("mortal", "register = { networks = ['127.0.0.0/8'] }")).await;
    register(&proxy, "mortal", &other, r#"{"lifetime": "1h"}"#).await;
    register(&proxy, "mortal", &one, r#"{"lifetime": "1h"}"#).await;
    are(&proxy, &[&one, &other]).await;
    assert_eq!(register(&proxy, "mortal", &one, r#"{"lifetime": "50ms"}"#).await, "renewed");
    are(&proxy, &[&other]).await;
    assert_eq!(logged(&["mortal", "has not renewed", &one.address.to_string()]).len(), 1);
    assert_eq!(proxy.get("/", &[]).await.text(), other.port());
}

#[tokio::test]
async fn who_is_registered_survives_a_reload_with_what_is_known_of_it() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&upstream("kept", "register = { networks = ['127.0.0.0/8'] }")).await;
    register(&proxy, "kept", &origin, "").await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    proxy
        .reload(&upstream("kept", "register = { networks = ['127.0.0.0/8'] }\ntimeouts.idle = '5s'"))
        .await
        .unwrap();
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    assert_eq!(status(&proxy).await["endpoints"][0]["requests"], 2);
    let fixed = upstream("kept", &format!("endpoints = {}", endpoints(&[&origin])));
    proxy.reload(&fixed).await.unwrap();
    assert_eq!(status(&proxy).await["endpoints"][0]["source"], "configured");
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    assert_eq!(endpoint(&proxy, "PUT", "kept", "127.0.0.1:1", "").await.status, 409, "not any more");
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused_with_the_reason() {
    let origin = Origin::start().await;
    let config = upstream(
        "strict",
        &format!("register = {{ networks = ['127.0.0.0/8', '::1'] }}\nendpoints = {}", endpoints(&[&origin])),
    ) + "[upstreams.unwilling]\nendpoints = ['http://127.0.0.1:1']\n";
    let proxy = Proxy::start(&config).await;
    let own = origin.address.to_string();
    for (name, address, body, status, reason) in [
        ("nobody", "127.0.0.1:1", "", 404, "no such upstream"),
        ("unwilling", "127.0.0.1:2", "", 409, "register = true"),
        ("strict", &own, "", 409, "stands in the configuration"),
        ("strict", "127.0.0.1:2", r#"{"scheme": "https"}"#, 409, "tls"),
        ("strict", "127.0.0.1:0", "", 400, "port"),
        ("strict", "nonsense", "", 400, "a host and a port"),
        ("strict", "a%40b", "", 400, "user"),
        ("strict", "http:%2F%2F127.0.0.1:2", "", 400, "without a scheme"),
        ("strict", "127.0.0.1:2", r#"{"lifetime": 5}"#, 400, "duration"),
        ("strict", "127.0.0.1:2", r#"{"wieght": 5}"#, 400, "wieght"),
        ("strict", "127.0.0.1:2", "[", 400, "the body"),
    ] {
        let response = endpoint(&proxy, "PUT", name, address, body).await;
        assert_eq!(response.status, status, "{address} {body}: {response:?}");
        assert!(response.text().contains(reason), "{response:?}");
    }
    assert_eq!(present(&proxy), [own], "nothing has changed");
    assert_eq!(endpoint(&proxy, "PUT", "strict", "[::1]:2", "").await.status, 200);
}

fn write(path: &Path, text: &str) {
    let unfinished = path.with_extension("unfinished");
    fs::write(&unfinished, text).expect("a file can be written");
    fs::rename(unfinished, path).expect("a file can be renamed");
}

#[tokio::test]
async fn endpoints_follow_a_file() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let proxy = Proxy::start(&upstream("filed", "discover.file = 'list.toml'\nendpoints = []")).await;
    let file = proxy.folder().join("list.toml");
    assert_eq!(proxy.get("/", &[]).await.status, 503);
    let told = has_failed(&proxy, 0).await;
    assert!(told["error"].as_str().unwrap().contains("cannot read"), "{told}");

    write(&file, &format!("endpoints = {}", endpoints(&[&one])));
    are(&proxy, &[&one]).await;
    assert_eq!(proxy.get("/", &[]).await.text(), one.port());
    write(&file, &format!("endpoints = {}", endpoints(&[&one, &other])));
    are(&proxy, &[&one, &other]).await;
    let told = status(&proxy).await;
    let requests = |told: &Value| told["endpoints"][0]["requests"].clone();
    assert_eq!(requests(&told), 1, "who stays keeps what is known of it");
    assert_eq!(
        (&told["discovery"][0]["error"], &told["discovery"][0]["source"]),
        (&json!(null), &json!("file"))
    );

    // What is broken, gone or empty changes nothing, and is told.
    let failures = told["discovery"][0]["failures"].as_u64().unwrap();
    write(&file, "endpoints = [");
    let told = has_failed(&proxy, failures).await;
    assert!(told["error"].as_str().unwrap().contains("list.toml:1"), "{told}");
    are(&proxy, &[&one, &other]).await;
    fs::remove_file(&file).unwrap();
    has_failed(&proxy, told["failures"].as_u64().unwrap()).await;
    are(&proxy, &[&one, &other]).await;
    assert_eq!(proxy.metrics().await.sum("tollgate_discovery_up", &[("source", "file")]), 0.0);
    write(&file, "endpoints = []");
    until("the empty list is told", || !logged(&["filed", "discovery keeps what was there"]).is_empty())
        .await;
    are(&proxy, &[&one, &other]).await;

    write(&file, &format!("endpoints = {}", endpoints(&[&other])));
    are(&proxy, &[&other]).await;
    assert_eq!(proxy.get("/", &[]).await.text(), other.port());
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("tollgate_discovery_up", &[("source", "file")]), 1.0);
    assert_eq!(metrics.sum("tollgate_discovery_endpoints", &[("upstream", "filed")]), 1.0);
}

#[tokio::test]
async fn a_file_empties_an_upstream_only_where_that_is_allowed() {
    let origin = Origin::start().await;
    let settings = "discover = { file = 'list.json', may-be-empty = true }";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("list.json");
    write(&file, &endpoints(&[&origin]));
    let proxy = Proxy::try_start_in(folder, &upstream("emptied", settings), &[]).await.unwrap();
    are(&proxy, &[&origin]).await;
    write(&file, "[]");
    are(&proxy, &[]).await;
    assert_eq!(proxy.get("/", &[]).await.status, 503);
}

#[tokio::test]
async fn what_another_source_said_last_stays_until_the_new_one_has_answered() {
    let (one, other) = (Origin::start().await, Origin::start().await);
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("a.toml"), &format!("endpoints = {}", endpoints(&[&one])));
    let config = |file: &str| upstream("moved", &format!("discover.file = '{file}'"));
    let proxy = Proxy::try_start_in(folder, &config("a.toml"), &[]).await.unwrap();
    are(&proxy, &[&one]).await;
    proxy.reload(&config("b.toml")).await.unwrap();
    has_failed(&proxy, 0).await;
    assert_eq!(proxy.get("/", &[]).await.text(), one.port());
    write(&proxy.folder().join("b.toml"), &format!("endpoints = {}", endpoints(&[&other])));
    are(&proxy, &[&other]).await;
    let fixed = upstream("moved", &format!("endpoints = {}", endpoints(&[&one])));
    proxy.reload(&fixed).await.unwrap();
    are(&proxy, &[&one]).await;
}

#[tokio::test]
async fn endpoints_that_join_are_checked() {
    let origin = Origin::start().await;
    let health = "register = { networks = ['127.0.0.0/8'] }\nhealth = { interval = '20ms', timeout = '2s' }";
    let proxy = Proxy::start(&upstream("checked", health)).await;
    register(&proxy, "checked", &origin, "").await;
    let nobody = { BareOrigin::start().await.address.to_string() };
    endpoint(&proxy, "PUT", "checked", &nobody, "").await;
    let settled = async {
        loop {
            let told = status(&proxy).await["endpoints"].clone();
            let state_of = |address: &str| {
                told.as_array().unwrap().iter().find(|told| told["address"] == address).unwrap()["state"]
                    .clone()
            };
            if state_of(&origin.address.to_string()) == "healthy" && state_of(&nobody) == "unreachable" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    soon("the checks have found both", settled).await;
}

fn addresses(addresses: &[&str]) -> Vec<Resource> {
    addresses.iter().map(|address| Resource::Address(address.parse().expect("an address"))).collect()
}

async fn hosts_are(proxy: &Proxy, expected: &[&str]) {
    until(&format!("{expected:?} are there"), || present(proxy) == expected).await;
}

#[tokio::test]
async fn endpoints_follow_the_addresses_of_a_name() {
    let origin = Origin::start().await;
    let port = origin.address.port();
    let server = NameServer::start().await;
    server.set("app.test", 1, &addresses(&["127.0.0.1"]));
    let settings = format!(
        "discover.dns = {{ name = 'app.test', port = {port}, servers = ['{}'], ttl-min = '50ms' }}",
        server.address
    );
    let proxy = Proxy::start(&upstream("addressed", &settings)).await;
    are(&proxy, &[&origin]).await;
    assert_eq!(proxy.get("/", &[]).await.text(), origin.port());

    server.set("app.test", 0, &addresses(&["127.0.0.1", "::1", "127.0.0.9"]));
    let all = [format!("127.0.0.1:{port}"), format!("127.0.0.9:{port}"), format!("[::1]:{port}")];
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    hosts_are(&proxy, &all).await;
    assert_eq!(status(&proxy).await["endpoints"][0]["requests"], 1);

    // An answer that does not fit is asked for again by TCP.
    server.be_short(true);
    server.set("app.test", 0, &addresses(&["127.0.0.1", "127.0.0.9"]));
    hosts_are(&proxy, &all[..2]).await;
    assert!(server.over_tcp() > 0);
    server.be_short(false);

    // No answer, and the answer that there is no such name, take nobody out.
    server.fail(Some(2));
    let told = has_failed(&proxy, 0).await;
    assert!(told["error"].as_str().unwrap().contains("cannot be resolved"), "{told}");
    assert_eq!(present(&proxy), all[..2]);
    server.remove("app.test");
    server.fail(None);
    until("it is told that nobody is named", || !logged(&["addressed", "keeps what was there"]).is_empty())
        .await;
    assert_eq!(present(&proxy), all[..2]);
    let told = status(&proxy).await["discovery"][0].clone();
    assert!(told["error"].as_str().unwrap().contains("names no endpoint"), "{told}");

    server.set("app.test", 0, &addresses(&["127.0.0.9"]));
    hosts_are(&proxy, &all[1..2]).await;
    assert_eq!(status(&proxy).await["discovery"][0]["error"], Value::Null);
}

#[tokio::test]
async fn records_hold_as_long_as_they_say() {
    let server = NameServer::start().await;
    server.set("lasting.test", 3600, &addresses(&["127.0.0.1"]));
    server.set("fleeting.test", 0, &addresses(&["127.0.0.1"]));
    let settings = |name: &str| {
        format!(
            "discover.dns = {{ name = '{name}', port = 80, servers = ['{}'], ttl-min = '20ms', ttl-max = '2h' }}",
            server.address
        )
    };
    let proxy = Proxy::start(&upstream("lasting", &settings("lasting.test"))).await;
    hosts_are(&proxy, &["127.0.0.1:80"]).await;
    let asked = server.questions();
    let fleeting = Proxy::start(&upstream("fleeting", &settings("fleeting.test"))).await;
    hosts_are(&fleeting, &["127.0.0.1:80"]).await;
    until("the other one is asked for", || server.questions() >= asked + 20).await;
    assert_eq!(proxy.told("/api/upstreams").await["upstreams"][0]["discovery"][0]["answers"], 1);
}

#[tokio::test]
async fn endpoints_follow_the_services_of_a_name() {
    let server = NameServer::start().await;
    server.set("a.test", 0, &addresses(&["127.0.0.2", "127.0.0.3"]));
    server.set("b.test", 0, &addresses(&["127.0.0.4"]));
    let services = [
        Resource::Service(1, 10, 8001, "a.test"),
        Resource::Service(1, 0, 8002, "b.test"),
        Resource::Service(2, 10, 8003, "b.test"),
        Resource::Service(1, 10, 8004, "nobody.test"),
    ];
    server.set("_http._tcp.app.test", 0, &services);
    let settings = format!(
        "discover.dns = {{ name = '_http._tcp.app.test', servers = ['{}'], ttl-min = '50ms' }}",
        server.address
    );
    let proxy = Proxy::start(&upstream("services", &settings)).await;
    hosts_are(&proxy, &["127.0.0.2:8001", "127.0.0.3:8001", "127.0.0.4:8002"]).await;
    let told = status(&proxy).await["endpoints"].clone();
    assert_eq!((&told[0]["weight"], &told[2]["weight"]), (&json!(10), &json!(1)));
    assert_eq!(told[2]["tags"], json!({ "host": "b.test" }));
    server.set("_http._tcp.app.test", 0, &services[2..3]);
    hosts_are(&proxy, &["127.0.0.4:8003"]).await;
}

/// The next question to a server of endpoints: whoever asks, the head, and the JSON up to its first end.
async fn question(gateway: &BareOrigin) -> (Client, String) {
    let mut client = gateway.accept().await;
    let head = client.read_until("\r\n\r\n").await;
    let body = if head.starts_with("POST") { client.read_until("}").await } else { String::new() };
    (client, head + &body)
}

async fn answer(client: &mut Client, headers: &str, body: &Value) {
    let body = body.to_string();
    let length = body.len();
    client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{headers}\r\n{body}")).await;
}

fn encoded(text: &str) -> String {
    BASE64_STANDARD.encode(text)
}

/// What etcd says of these keys under `/s/`.
fn range(revision: u64, values: &[&str]) -> Value {
    let pair = |value: &&str| json!({ "key": encoded(&format!("/s/{value}")), "value": encoded(value) });
    let pairs: Vec<_> = values.iter().map(pair).collect();
    let header = json!({ "revision": revision.to_string() });
    match pairs.is_empty() {
        true => json!({ "header": header }),
        false => json!({ "header": header, "kvs": pairs }),
    }
}

#[tokio::test]
async fn endpoints_follow_the_keys_in_etcd() {
    let etcd = BareOrigin::start().await;
    let settings = format!("discover.etcd = {{ servers = ['{}'], prefix = '/s/' }}", etcd.url());
    let proxy = Proxy::start(&upstream("keyed", &settings)).await;

    let (mut asking, text) = question(&etcd).await;
    assert!(text.starts_with("POST /v3/kv/range HTTP/1.1\r\n"), "{text}");
    assert!(text.contains(&encoded("/s/")) && text.contains(&encoded("/s0")), "{text}");
    answer(&mut asking, "", &range(17, &["127.0.0.2:80", "not an endpoint"])).await;
    hosts_are(&proxy, &["127.0.0.2:80"]).await;
    assert_eq!(logged(&["not an endpoint, left out", "/s/not an endpoint"]).len(), 1);

    let (mut watching, text) = question(&etcd).await;
    assert!(text.starts_with("POST /v3/watch HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("\"start_revision\":\"18\""), "{text}");
    let message = |text: &str| format!("{:x}\r\n{text}\n\r\n", text.len() + 1);
    watching.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    watching.send(message(r#"{"result":{"header":{"revision":"17"},"created":true}}"#)).await;
    watching.send(message(r#"{"result":{"events":[{"kv":{"key":"YQ=="}}]}}"#)).await;
    let (mut asking, _) = question(&etcd).await;
    answer(&mut asking, "", &range(20, &["127.0.0.2:80", r#"{"url": "http://127.0.0.3:81", "weight": 5}"#]))
        .await;
    hosts_are(&proxy, &["127.0.0.2:80", "127.0.0.3:81"]).await;
    assert_eq!(status(&proxy).await["endpoints"][1]["weight"], 5);

    // It goes away in the middle of a watch, and what it said last stays until it is there again.
    let (watching, text) = question(&etcd).await;
    assert!(text.contains("\"start_revision\":\"21\""), "{text}");
    drop(watching);
    let told = has_failed(&proxy, 0).await;
    assert!(told["error"].as_str().unwrap().contains(&etcd.url()), "{told}");
    hosts_are(&proxy, &["127.0.0.2:80", "127.0.0.3:81"]).await;
    let (mut asking, text) = question(&etcd).await;
    assert!(text.starts_with("POST /v3/kv/range"), "{text}");
    answer(&mut asking, "", &range(2, &["127.0.0.3:81"])).await;
    hosts_are(&proxy, &["127.0.0.3:81"]).await;

    // All leases are over at once, as after a cut: nobody is taken out.
    let (mut watching, _) = question(&etcd).await;
    watching.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n").await;
    watching.send(message(r#"{"result":{"canceled":true,"compact_revision":"30"}}"#)).await;
    let (mut asking, _) = question(&etcd).await;
    answer(&mut asking, "", &range(31, &[])).await;
    until("it is told that nobody is named", || !logged(&["keyed", "keeps what was there"]).is_empty()).await;
    hosts_are(&proxy, &["127.0.0.3:81"]).await;
}

#[tokio::test]
async fn whoever_asks_etcd_says_who_it_is() {
    let etcd = BareOrigin::start().await;
    let settings = format!(
        "discover.etcd = {{ servers = ['{}'], prefix = '/s/', user = 'me', password = 'p4ss' }}",
        etcd.url()
    );
    let proxy = Proxy::start(&upstream("known", &settings)).await;
    let (mut asking, text) = question(&etcd).await;
    assert!(text.starts_with("POST /v3/auth/authenticate") && text.contains("\"p4ss\""), "{text}");
    answer(&mut asking, "", &json!({ "token": "t0ken" })).await;
    let (mut asking, text) = question(&etcd).await;
    assert!(text.starts_with("POST /v3/kv/range") && text.contains("authorization: t0ken"), "{text}");
    answer(&mut asking, "", &range(1, &["127.0.0.2:80"])).await;
    hosts_are(&proxy, &["127.0.0.2:80"]).await;
    assert!(!proxy.told("/api/config").await.to_string().contains("p4ss"));
}

#[tokio::test]
async fn endpoints_follow_a_service_in_consul() {
    let consul = BareOrigin::start().await;
    let nobody = { BareOrigin::start().await.url() };
    let settings = format!(
        "discover.consul = {{ servers = ['{nobody}', '{}'], service = 'web', tag = 'v1', token = 's3cret' }}",
        consul.url()
    );
    let proxy = Proxy::start(&upstream("serviced", &settings)).await;
    let instance = |address: &str| json!({ "Node": { "Address": address }, "Service": { "ID": "web", "Port": 80, "Tags": ["v1", "zone=a"] } });
    let (mut asking, text) = question(&consul).await;
    assert!(text.starts_with("GET /v1/health/service/web?passing=true&tag=v1 HTTP/1.1\r\n"), "{text}");
    assert!(text.contains("x-consul-token: s3cret"), "{text}");
    answer(&mut asking, "X-Consul-Index: 7\r\n", &json!([instance("127.0.0.2")])).await;
    hosts_are(&proxy, &["127.0.0.2:80"]).await;
    assert_eq!(status(&proxy).await["endpoints"][0]["tags"], json!({ "v1": "", "zone": "a" }));

    let (mut asking, text) = question(&consul).await;
    assert!(text.contains("&index=7&wait="), "{text}");
    answer(&mut asking, "X-Consul-Index: 8\r\n", &json!([instance("127.0.0.2"), instance("127.0.0.3")]))
        .await;
    hosts_are(&proxy, &["127.0.0.2:80", "127.0.0.3:80"]).await;

    // The one that failed at the start is asked next, and then this one from the beginning.
    let failures = status(&proxy).await["discovery"][0]["failures"].as_u64().unwrap();
    let (mut asking, _) = question(&consul).await;
    asking.send("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n").await;
    has_failed(&proxy, failures).await;
    hosts_are(&proxy, &["127.0.0.2:80", "127.0.0.3:80"]).await;
    let (mut asking, text) = question(&consul).await;
    assert!(!text.contains("index="), "{text}");
    answer(&mut asking, "X-Consul-Index: 3\r\n", &json!([instance("127.0.0.3")])).await;
    hosts_are(&proxy, &["127.0.0.3:80"]).await;
}

/// Asks the gateway of etcd.
async fn ask_etcd(address: SocketAddr, path: &str, body: &Value) -> Value {
    let body = body.to_string();
    let mut client = Client::connect(address).await;
    let length = body.len();
    client
        .send(format!("POST {path} HTTP/1.1\r\nHost: etcd\r\nContent-Length: {length}\r\n\r\n{body}"))
        .await;
    let response = client.response().await;
    assert_eq!(response.status, 200, "{response:?}");
    response.json()
}

/// The real one, where it is installed.
async fn start_etcd(folder: &Path, port: u16) -> Option<tokio::process::Child> {
    let url = format!("http://127.0.0.1:{port}");
    let own = "http://127.0.0.1:0";
    let child = tokio::process::Command::new("etcd")
        .args(["--data-dir", &folder.display().to_string(), "--listen-client-urls", &url])
        .args(["--advertise-client-urls", &url, "--listen-peer-urls", own, "--log-level", "error"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn();
    if child.is_err() {
        eprintln!("skipped: there is no program `etcd` (Debian: etcd-server)");
        return None;
    }
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    soon("etcd answers", async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    child.ok()
}

#[tokio::test]
async fn endpoints_follow_the_leases_of_a_real_etcd() {
    let folder = tempfile::tempdir().unwrap();
    let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let Some(mut etcd) = start_etcd(folder.path(), port).await else { return };
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let put = async |name: &str, value: &str, lease: &Value| {
        let pair = json!({ "key": encoded(&format!("/s/{name}")), "value": encoded(value), "lease": lease });
        ask_etcd(address, "/v3/kv/put", &pair).await
    };
    put("a", "127.0.0.2:80", &json!(0)).await;
    let settings = format!("discover.etcd = {{ servers = ['http://{address}'], prefix = '/s/' }}");
    let proxy = Proxy::start(&upstream("leased", &settings)).await;
    hosts_are(&proxy, &["127.0.0.2:80"]).await;
    let granted = ask_etcd(address, "/v3/lease/grant", &json!({ "TTL": "2" })).await;
    put("b", "127.0.0.3:80", &granted["ID"]).await;
    hosts_are(&proxy, &["127.0.0.2:80", "127.0.0.3:80"]).await;
    // Nobody keeps the lease alive.
    hosts_are(&proxy, &["127.0.0.2:80"]).await;

    etcd.kill().await.unwrap();
    has_failed(&proxy, 0).await;
    hosts_are(&proxy, &["127.0.0.2:80"]).await;
    let Some(mut again) = start_etcd(folder.path(), port).await else { return };
    put("c", "127.0.0.4:80", &json!(0)).await;
    hosts_are(&proxy, &["127.0.0.2:80", "127.0.0.4:80"]).await;

    // It comes back without its data, so that its revisions begin anew: that is seen when the watch is, and not when it has
    // been silent for a minute.
    again.kill().await.unwrap();
    let empty = tempfile::tempdir().unwrap();
    let Some(_anew) = start_etcd(empty.path(), port).await else { return };
    put("d", "127.0.0.5:80", &json!(0)).await;
    let seen = tokio::time::timeout(Duration::from_secs(30), hosts_are(&proxy, &["127.0.0.5:80"]));
    seen.await.expect("the keys are read anew");
}

#[tokio::test]
async fn ten_thousand_endpoints_are_prepared_within_the_limits_of_every_balancer() {
    let endpoint = |number: u32| format!("'http://10.0.{}.{}:80'", number / 256, number % 256);
    let endpoints: Vec<String> = (0..10_000).map(endpoint).collect();
    let balancers = [
        ("round-robin", ""),
        ("random", ""),
        ("least-requests", ""),
        ("latency", ""),
        ("resource", ""),
        ("client-hash", ""),
        ("consistent-hash", "config = { by = 'path' }"),
    ];
    let engine = Engine::new(&EngineSettings { workers: 1, artifacts: None, compiler: Compiler::InProcess })
        .expect("the engine starts");
    let settings = toml::from_str(&format!("endpoints = [{}]", endpoints.join(", "))).expect("it is valid");
    let upstream = Upstream::new("many".into(), &settings, Tls::default(), None);
    let roster = upstream.roster().clone();
    for (name, settings) in balancers {
        // Ten times the usual time: neither the host nor what it hands over is optimised here.
        let settings = format!("{settings}\nlimits.time = '100ms'");
        let settings = toml::from_str(&settings).expect("the settings are valid");
        let code = engine.load(&shipped(name)).expect("the component is a plugin");
        let plugin = Plugin::new(name.into(), code, &settings, Capabilities::default(), None, 1);
        let slot = Slot::new(Arc::new(plugin.expect("the plugin starts")), Writer::ALONE);
        let (request, ()) = http::Request::get("/a").body(()).expect("it is valid").into_parts();
        let exchange =
            Exchange::new(request, Caller::Ip([127, 0, 0, 1].into()), "http", "route".into(), "many".into());
        let pick = slot.pick(&mut ExchangeSlot::new(exchange), &roster, &[]);
        assert!(matches!(pick, Ok(Some(_))), "{name}: {pick:?}");
    }
}

/// The real one, where it is installed.
#[cfg(feature = "zookeeper")]
async fn start_zookeeper(folder: &Path, port: u16) -> Option<tokio::process::Child> {
    const LIBRARY: &str = "/usr/share/java";
    if !Path::new(LIBRARY).join("zookeeper.jar").exists() {
        eprintln!("skipped: there is no ZooKeeper (Debian: zookeeper)");
        return None;
    }
    let data = folder.display();
    let settings = format!(
        "tickTime=500\ndataDir={data}\nclientPort={port}\nclientPortAddress=127.0.0.1\nadmin.enableServer=false\n"
    );
    let file = folder.join("zoo.cfg");
    fs::write(&file, settings).expect("a file can be written");
    let child = tokio::process::Command::new("java")
        .args(["-cp", &format!("{LIBRARY}/*"), "org.apache.zookeeper.server.quorum.QuorumPeerMain"])
        .arg(file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("java is there, as ZooKeeper is");
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    soon("ZooKeeper answers", async {
        while tokio::net::TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    Some(child)
}

#[cfg(feature = "zookeeper")]
#[tokio::test]
async fn endpoints_follow_the_ephemeral_nodes_of_a_real_zookeeper() {
    use zookeeper_client::{Acls, Client, CreateMode};

    let folder = tempfile::tempdir().unwrap();
    let port = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port() };
    let Some(mut zookeeper) = start_zookeeper(folder.path(), port).await else { return };
    let server = format!("127.0.0.1:{port}");
    let settings = format!("discover.zookeeper = {{ servers = ['{server}'], path = '/services' }}");
    let proxy = Proxy::start(&upstream("ephemeral", &settings)).await;
    let client = soon("a session", Client::connect(&server)).await.unwrap();
    let persistent = CreateMode::Persistent.with_acls(Acls::anyone_all());
    let ephemeral = CreateMode::Ephemeral.with_acls(Acls::anyone_all());
    client.create("/services", &[], &persistent).await.unwrap();
    client.create("/services/a", b"127.0.0.2:80", &persistent).await.unwrap();
    hosts_are(&proxy, &["127.0.0.2:80"]).await;
    let other = soon("a session", Client::connect(&server)).await.unwrap();
    other.create("/services/b", br#"{"url": "http://127.0.0.3:81", "weight": 4}"#, &ephemeral).await.unwrap();
    hosts_are(&proxy, &["127.0.0.2:80", "127.0.0.3:81"]).await;
    client.set_data("/services/a", b"127.0.0.4:80", None).await.unwrap();
    hosts_are(&proxy, &["127.0.0.4:80", "127.0.0.3:81"]).await;
    // Its session ends, and its node with it.
    drop(other);
    hosts_are(&proxy, &["127.0.0.4:80"]).await;

    zookeeper.kill().await.unwrap();
    has_failed(&proxy, 0).await;
    hosts_are(&proxy, &["127.0.0.4:80"]).await;
    let Some(_again) = start_zookeeper(folder.path(), port).await else { return };
    let client = soon("a session", Client::connect(&server)).await.unwrap();
    client.create("/services/c", b"127.0.0.5:80", &persistent).await.unwrap();
    hosts_are(&proxy, &["127.0.0.4:80", "127.0.0.5:80"]).await;
}
