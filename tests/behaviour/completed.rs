//! What plugins are told of requests that have ended, and what that costs the requests.

use serde_json::Value;
use tollgate_tests::{BareOrigin, Config, Endpoints, Origin, Proxy, guest, logged, soon, told_guest, until};

/// A route `/told` whose requests a plugin of this name is told of, and any other without it.
fn config(origin: &impl Endpoints, plugin: &str, settings: &str) -> Config {
    let told = "name = \"told\"\nmatch.path = \"/told\"\ncache.ttl = \"1h\"";
    let config = Config::to(origin).admin().top("log.access = false").route(told);
    let config = config.plugin("notes", "file = \"guest\"\nconfig.request = \"obey\"");
    config.plugin(plugin, &format!("file = \"told\"\n{settings}")).another_route("")
}

async fn start(config: &Config) -> Proxy {
    Proxy::start_with(config, &[("guest", guest()), ("told", told_guest())]).await
}

/// What the plugin has written down, in the order of the log.
fn told(plugin: &str) -> Vec<Value> {
    let written = |line: String| {
        let line: Value = serde_json::from_str(&line).expect("a line of the log is JSON");
        let text = line["message"].as_str().expect("a line has a message").to_owned();
        serde_json::from_str(text.strip_prefix("told: ").expect("it was looked for")).expect("it is JSON")
    };
    logged(&[&format!("\"{plugin}\""), "told: "]).into_iter().map(written).collect()
}

async fn was_told(plugin: &str, count: usize) -> Vec<Value> {
    until(&format!("{plugin} to be told of {count}"), || told(plugin).len() >= count).await;
    told(plugin)
}

async fn counted(proxy: &Proxy, plugin: &str, outcome: &str) -> f64 {
    let labels = [("plugin", plugin), ("outcome", outcome)];
    proxy.metrics().await.sum("tollgate_plugin_outcomes_total", &labels)
}

#[tokio::test]
async fn a_plugin_is_told_how_requests_have_ended() {
    let origin = Origin::start().await;
    let proxy = start(&config(&origin, "witness", "tick = \"20ms\"")).await;
    assert_eq!(proxy.get("/told/./a?b=c", &["x-do: note", "x-says: noted"]).await.status, 200);
    let first = was_told("witness", 1).await.swap_remove(0);
    let [host, text] = ["127.0.0.1", "test"];
    for (key, expected) in [
        ("method", Value::from("GET")),
        ("authority", text.into()),
        ("target", "/told/a?b=c".into()),
        ("client", host.into()),
        ("route", "told".into()),
        ("upstream", "app".into()),
        ("status", 200.into()),
        ("endpoint", format!("127.0.0.1:{}", origin.port()).into()),
        ("attempts", 1.into()),
        ("from-cache", false.into()),
        ("in", 0.0.into()),
        ("out", (origin.port().len() as f64).into()),
        ("notes", serde_json::json!([["note", "noted"]])),
    ] {
        assert_eq!(first[key], expected, "{key} of {first}");
    }
    assert_eq!(Some(first["id"].as_str().expect("an id")), origin.last().header("x-request-id"));
    let (duration, upstream) =
        (first["duration"].as_u64().expect("one"), first["upstream-duration"].as_u64().expect("one"));
    assert!(0 < upstream && upstream <= duration, "{first}");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    assert!((now.as_secs_f64() * 1e3 - first["time"].as_f64().expect("one")).abs() < 60e3, "{first}");

    assert_eq!(proxy.get("/told/a?b=c", &[]).await.status, 200);
    assert_eq!(proxy.get("/told/b", &["x-do: reply"]).await.status, 418);
    assert_eq!(proxy.get("/told/c", &["x-do: trap"]).await.status, 503);
    assert_eq!(proxy.get("/beside", &[]).await.status, 200);
    let all = was_told("witness", 4).await;
    let rest: Vec<_> =
        all[1..].iter().map(|one| (&one["status"], &one["from-cache"], &one["attempts"])).collect();
    let [no, yes, zero] = [Value::from(false), Value::from(true), Value::from(0)];
    let mut expected = vec![
        (&Value::from(200), &yes, &zero),
        (&Value::from(418), &no, &zero),
        (&Value::from(503), &no, &zero),
    ]
    .into_iter()
    .map(|(status, cache, attempts)| (status.clone(), cache.clone(), attempts.clone()))
    .collect::<Vec<_>>();
    let mut rest: Vec<_> = rest.into_iter().map(|(a, b, c)| (a.clone(), b.clone(), c.clone())).collect();
    // Two workers, two orders.
    rest.sort_by_key(|(status, ..)| status.as_u64());
    expected.sort_by_key(|(status, ..)| status.as_u64());
    assert_eq!(rest, expected);
    // A call is counted when it has ended, which is after it has logged.
    soon("the counts", async { while counted(&proxy, "witness", "told").await < 4.0 {} }).await;
    assert_eq!(counted(&proxy, "witness", "told").await, 4.0);
    // It is the instance that ticks.
    until("a tick that knows", || !logged(&["\"witness\"", "told of so far: 4;"]).is_empty()).await;
    let plugins = proxy.told("/api/plugins").await["plugins"].clone();
    assert!(plugins.to_string().contains("\"on-complete\""), "{plugins}");
}

#[tokio::test]
async fn a_plugin_that_fails_to_be_told_costs_no_request() {
    let origin = Origin::start().await;
    let settings = "limits = { time = \"20ms\" }\nbreaker = { failures = 2, pause = \"1h\" }\nconfig = { told = \"loop\" }";
    let proxy = start(&config(&origin, "deaf", settings)).await;
    soon("two failures", async {
        while counted(&proxy, "deaf", "dropped").await < 3.0 {
            assert_eq!(proxy.get("/told", &[]).await.status, 200);
        }
    })
    .await;
    assert!(!logged(&["on-complete failed", "\"deaf\"", "ran longer than 20 ms"]).is_empty());
    assert_eq!(counted(&proxy, "deaf", "told").await, 0.0);
    let once = "config = { told = \"trap once\" }";
    proxy.reload(&config(&origin, "deaf", once)).await.expect("the configuration is fine");
    proxy.get("/told/trap", &[]).await;
    until("a trap", || !logged(&["on-complete failed", "\"deaf\"", "trapped"]).is_empty()).await;
    proxy.get("/told/fine", &[]).await;
    soon("it is told again", async { while counted(&proxy, "deaf", "told").await < 1.0 {} }).await;
}

#[tokio::test]
async fn what_waits_to_be_told_survives_a_reload_and_is_told_before_the_end() {
    let origin = Origin::start().await;
    let with = |what: &str| config(&origin, "patient", what);
    let proxy = start(&with("")).await;
    for number in 0..5 {
        proxy.get(&format!("/told/{number}"), &[]).await;
        // Another configuration, and so another instance.
        proxy.reload(&with(&format!("tick = \"{}h\"", number + 1))).await.expect("the configuration is fine");
    }
    was_told("patient", 5).await;

    // A request that ends while the proxy drains.
    let slow = BareOrigin::start().await;
    let proxy = start(&config(&slow, "last", "")).await;
    let mut client = proxy.connect().await;
    client.send("GET /told HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut asked = slow.accept().await;
    asked.read_until("\r\n\r\n").await;
    let ((), response) = tokio::join!(proxy.stop(), async {
        proxy.server().drain().started().await;
        asked.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        client.response().await
    });
    assert_eq!(response.status, 200);
    assert_eq!(told("last").len(), 1);
}
