//! What becomes of the requests of a plugin that keeps failing, and what it uses in all.

use tollgate_tests::{Client, Config, Load, Origin, Proxy, guest, logged, soon, waiting_guest};

/// A route `/` through a plugin of this name that does as it is told, and one beside it. One worker, so that calls in a
/// row are in a row.
fn config(origin: &Origin, plugin: &str, settings: &str) -> Config {
    let config = Config::to(origin).top("workers = 1").admin().route("name = \"through\"");
    let config = config.plugin(plugin, &format!("file = \"guest\"\n{settings}"));
    config.another_route("match.path = \"/beside\"")
}

const OBEYS: &str = "config = { request = \"obey\", pick = \"obey\" }\n";

async fn start(config: &Config) -> Proxy {
    Proxy::start_with(config, &[("guest", guest())]).await
}

async fn ask(client: &mut Client, what: &str) -> tollgate_tests::Response {
    client.send(format!("GET / HTTP/1.1\r\nHost: test\r\nx-do: {what}\r\n\r\n")).await;
    client.response().await
}

async fn counted(proxy: &Proxy, plugin: &str, kind: &str) -> f64 {
    proxy.metrics().await.sum("tollgate_plugin_failures_total", &[("plugin", plugin), ("kind", kind)])
}

#[tokio::test]
async fn what_a_request_hook_brings_does_not_excuse_the_response_hook() {
    let origin = Origin::start().await;
    let settings =
        "config = { request = \"obey\", response = \"obey\" }\nbreaker = { failures = 3, pause = \"1h\" }";
    let proxy = start(&config(&origin, "late", settings)).await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\nx-do-response: trap\r\n\r\n").await;
        assert_eq!(client.response().await.status, 503);
    }
    assert_eq!(ask(&mut client, "next").await.status, 503, "it is not asked");
    assert_eq!(counted(&proxy, "late", "breaker").await, 1.0);
}

#[tokio::test]
async fn a_plugin_that_takes_more_than_its_share_of_the_time_is_not_asked() {
    let origin = Origin::start().await;
    let settings = "limits = { time = \"5s\" }\nbreaker = { cpu-share = 0.01, pause-max = \"1h\" }";
    let proxy = start(&config(&origin, "greedy", &format!("{OBEYS}{settings}"))).await;
    let mut client = proxy.connect().await;
    // 2001 calls of the host each, and none that fails.
    let mut asked = 0;
    while ask(&mut client, "metrics").await.status != 503 {
        asked += 1;
        assert!(asked < 1000, "it is asked again and again");
    }
    assert!(asked > 0);
    assert_eq!(ask(&mut client, "next").await.status, 503);
    client.send("GET /beside HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(logged(&["greedy", "its share of the time and is not asked"]).len(), 1);
    assert_eq!(counted(&proxy, "greedy", "breaker").await, 2.0);
    assert_eq!(proxy.server().snapshot().plugins[0].plugin.instances(), 0, "it holds no memory meanwhile");
    let labels = [("plugin", "greedy")];
    assert_eq!(proxy.metrics().await.sum("tollgate_plugin_breakers_open", &labels), 1.0);
}

#[tokio::test]
async fn a_plugin_that_keeps_failing_is_not_asked_and_then_probed() {
    let origin = Origin::start().await;
    let breaker = "breaker = { failures = 3, pause = \"1h\" }";
    let proxy = start(&config(&origin, "stumbling", &format!("{OBEYS}{breaker}"))).await;
    let load = Load::start(proxy.address(), "/beside", 2);
    let mut client = proxy.connect().await;
    // What answers in between begins anew, and an answer that cannot be sent is no failure of this kind.
    for what in ["trap", "trap", "reply-bad-header", "next", "trap", "loop", "reply-bad-name"] {
        ask(&mut client, what).await;
    }
    assert_eq!(ask(&mut client, "reply").await.status, 418);
    for what in ["trap", "loop", "grow"] {
        assert_eq!(ask(&mut client, what).await.status, 503, "{what}");
    }
    let refused = ask(&mut client, "reply").await;
    assert_eq!(refused.status, 503, "it is not asked");
    assert!(refused.header("retry-after").is_some(), "{refused:?}");
    assert_eq!(counted(&proxy, "stumbling", "breaker").await, 1.0);
    assert_eq!(counted(&proxy, "stumbling", "trap").await, 4.0);
    assert_eq!(logged(&["stumbling", "keeps failing and is not asked for a while"]).len(), 1);

    let plugin = proxy.told("/api/plugins").await["plugins"][0].clone();
    assert_eq!(
        (&plugin["breaker"]["state"], &plugin["breaker"]["opened"]),
        (&"open".into(), &1.into()),
        "{plugin}"
    );
    let labels = [("plugin", "stumbling")];
    assert_eq!(proxy.metrics().await.sum("tollgate_plugin_breakers_open", &labels), 1.0);
    assert_eq!(proxy.metrics().await.sum("tollgate_plugin_breaker_opened_total", &labels), 1.0);

    // Another version or configuration is another plugin. This one is probed soon.
    let soon_again = format!("{OBEYS}breaker = {{ failures = 3, pause = \"20ms\", pause-max = \"40ms\" }}");
    proxy.reload(&config(&origin, "stumbling", &soon_again)).await.expect("the configuration is fine");
    // The old one goes with the last request that saw it.
    soon("the end of the old one", async {
        while proxy.metrics().await.sum("tollgate_plugin_breakers_open", &labels) != 0.0 {}
    })
    .await;
    for _ in 0..3 {
        ask(&mut client, "trap").await;
    }
    let traps = counted(&proxy, "stumbling", "trap").await;
    soon("probes that fail", async {
        while counted(&proxy, "stumbling", "trap").await < traps + 3.0 {
            assert_eq!(ask(&mut client, "trap").await.status, 503);
        }
    })
    .await;
    soon("a probe that does not", async { while ask(&mut client, "reply").await.status != 418 {} }).await;
    assert_eq!(ask(&mut client, "reply").await.status, 418);
    assert_eq!(proxy.metrics().await.sum("tollgate_plugin_breakers_open", &labels), 0.0);
    assert_eq!(logged(&["stumbling", "plugin healthy again on this worker"]).len(), 1);
    load.has_answered(10).await;
    load.stop().await;
}

#[tokio::test]
async fn where_it_fails_open_requests_go_on_and_a_balancer_has_others_choose() {
    let origin = Origin::start().await;
    let settings = format!("{OBEYS}fail = \"open\"\nbreaker = {{ failures = 2, pause = \"1h\" }}");
    let proxy = start(&config(&origin, "tired", &settings).upstream("balance = \"tired\"")).await;
    let mut client = proxy.connect().await;
    for _ in 0..20 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\nx-do: trap\r\nx-do-pick: trap\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(counted(&proxy, "tired", "trap").await, 2.0);
    assert_eq!(counted(&proxy, "tired", "breaker").await, 58.0, "of three hooks each");
    assert!(logged(&["tired", "WARN"]).len() < 10, "the log is not filled");
}

#[tokio::test]
async fn a_plugin_that_waits_is_left_alone_and_probed_too() {
    let origin = Origin::start().await;
    let settings = "config = { request = \"obey\" }\nbreaker = { failures = 2, pause = \"20ms\" }
        grants = { http = [\"http://127.0.0.1:1\"], body = true }";
    let config = config(&origin, "waits", settings).toml().replace("\"guest\"", "\"waiting\"");
    let proxy = Proxy::start_with(&config, &[("waiting", waiting_guest())]).await;
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        assert_eq!(ask(&mut client, "loop").await.status, 503);
    }
    assert_eq!(proxy.told("/api/plugins").await["plugins"][0]["breaker"]["opened"], 1);
    soon("a probe", async { while ask(&mut client, "").await.status != 200 {} }).await;
    assert_eq!(proxy.told("/api/plugins").await["plugins"][0]["breaker"]["state"], "closed");
}

#[tokio::test]
async fn the_memory_of_all_instances_is_counted_and_has_an_end() {
    let origin = Origin::start().await;
    let proxy = start(&config(&origin, "hungry", OBEYS)).await;
    let memory = async || {
        let told =
            proxy.told("/api/plugins").await["plugins"][0]["memory-bytes"].as_u64().expect("it is a number");
        let labels = [("plugin", "hungry")];
        assert_eq!(proxy.metrics().await.sum("tollgate_plugin_memory_bytes", &labels) as u64, told);
        told
    };
    let before = memory().await;
    assert!(before >= 64 << 10, "{before}");
    let mut client = proxy.connect().await;
    for _ in 0..8 {
        assert_eq!(ask(&mut client, "grow-slowly").await.status, 200);
    }
    let after = memory().await;
    assert!(after >= before + (1 << 20), "{before} became {after}");

    // There must be room for what serves and what is to serve.
    let capped = format!("{OBEYS}limits = {{ memory-in-all = \"{}KiB\" }}", ((after + before) >> 10) + 1024);
    proxy.reload(&config(&origin, "hungry", &capped)).await.expect("there is room");
    soon("the old instances to go", async { while memory().await > before {} }).await;
    let mut answers = Vec::new();
    for _ in 0..40 {
        answers.push(ask(&mut client, "grow-slowly").await.status);
    }
    assert!(answers.contains(&503) && answers.contains(&200), "{answers:?}");
    assert!(memory().await <= after + before + (1 << 20));
    assert!(!logged(&["hungry", "all its instances together may have"]).is_empty());
}

#[tokio::test]
async fn calls_are_counted_by_the_route_that_they_are_for() {
    let origin = Origin::start().await;
    let other = "name = \"other\"\nmatch.path = \"/other\"\nplugins = [\"counted\"]";
    let config = config(&origin, "counted", OBEYS).another_route(other);
    let proxy = start(&config).await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        ask(&mut client, "next").await;
    }
    ask(&mut client, "trap").await;
    assert_eq!(proxy.get("/other", &[]).await.status, 200);
    // The route goes on to count after a reload.
    proxy.reload(&config.toml().replace("/other", "/another")).await.expect("the configuration is fine");
    assert_eq!(proxy.get("/another", &[]).await.status, 200);
    let routes = proxy.told("/api/plugins").await["plugins"][0]["routes"].clone();
    // Both hooks are there: a trap in the first is the end.
    assert_eq!(
        (&routes["through"]["calls"], &routes["through"]["failures"]),
        (&7.into(), &1.into()),
        "{routes}"
    );
    assert_eq!((&routes["other"]["calls"], &routes["other"]["failures"]), (&4.into(), &0.into()), "{routes}");
    assert!(routes["through"]["p99-ms"].as_f64().is_some(), "{routes}");
    let labels = [("plugin", "counted"), ("route", "through")];
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("tollgate_plugin_route_calls_total", &labels), 7.0);
    assert_eq!(metrics.sum("tollgate_plugin_route_failures_total", &labels), 1.0);
    assert!(metrics.sum("tollgate_plugin_route_call_duration_seconds_count", &labels) > 0.0);
}

#[tokio::test]
async fn what_is_only_explained_opens_no_breaker() {
    let origin = Origin::start().await;
    let settings = format!("{OBEYS}breaker = {{ failures = 2, pause = \"1h\" }}");
    let proxy = start(&config(&origin, "explained", &settings)).await;
    let question = "{ \"method\": \"GET\", \"url\": \"http://test/\", \"headers\": [[\"x-do\", \"trap\"]] }";
    for _ in 0..4 {
        let mut client = Client::connect(proxy.admin_address()).await;
        let length = question.len();
        client
            .send(format!(
                "POST /api/explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{question}"
            ))
            .await;
        let told = client.response().await.json();
        assert_eq!(told["plugins"][0]["verdict"], "failed", "{told:#}");
    }
    let mut client = proxy.connect().await;
    assert_eq!(ask(&mut client, "next").await.status, 200, "traffic is served");
    assert_eq!(
        proxy.metrics().await.sum("tollgate_plugin_breaker_opened_total", &[("plugin", "explained")]),
        0.0
    );
}
