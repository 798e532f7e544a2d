//! What plugins do when no request waits for them.

use tollgate_tests::{BareOrigin, Config, Origin, Proxy, logged, soon, until, waiting_guest};

/// The plugin does as `says` at each tick, which comes soon.
fn config(origin: &Origin, other: &str, plugin: &str, says: &str, more: &str) -> String {
    let table = format!(
        "file = \"waiting\"
        tick = \"20ms\"
        config = {{ tick = {says:?} }}
        grants = {{ http = [{other:?}], body = true }}
        {more}"
    );
    Config::to(origin).admin().table(&format!("plugins.{plugin}"), &table).toml()
}

async fn start(config: &str) -> Proxy {
    Proxy::start_with(config, &[("waiting", waiting_guest())]).await
}

fn targets(origin: &Origin) -> Vec<String> {
    origin.received().into_iter().map(|received| received.target).collect()
}

#[tokio::test]
async fn a_plugin_ticks_on_one_instance_of_the_process_and_may_wait() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    let says = format!("calls; send GET {}/tick; body", other.url());
    let proxy = start(&config(&origin, &other.url(), "clockwork", &says, "")).await;
    other.has_received(3).await;
    until("three ticks have ended", || logged(&["clockwork", "ticks: 3; "]).len() == 1).await;
    for number in 1..=3 {
        let line = format!("ticks: {number}; 200  {}; unavailable", other.port());
        assert_eq!(logged(&["clockwork", &line]).len(), 1, "one instance for both workers");
    }
    assert_eq!(other.connections(), 1);
    let labels = [("plugin", "clockwork"), ("hook", "on-tick")];
    assert!(proxy.metrics().await.sum("tollgate_plugin_calls_total", &labels) >= 3.0);
    let plugin = &proxy.told("/api/plugins").await["plugins"][0];
    assert!(plugin["hooks"].to_string().contains("on-tick"), "{plugin}");
}

#[tokio::test]
async fn the_old_instance_ends_with_a_reload_and_the_new_one_begins() {
    let (origin, other, hanging) = (Origin::start().await, Origin::start().await, BareOrigin::start().await);
    let waits = format!("send GET {}/", hanging.url());
    let proxy = start(&config(&origin, &hanging.url(), "replaced", &waits, "")).await;
    let mut asked = hanging.accept().await;
    asked.read_until("\r\n\r\n").await;
    let says = |path: &str| format!("send GET {}/{path}", other.url());
    let with = |path: &str| config(&origin, &other.url(), "replaced", &says(path), "");
    proxy.reload(&with("one")).await.expect("the configuration is fine");
    assert!(asked.is_closed().await, "what the old one waited for is given up");
    other.has_received(2).await;
    proxy.reload(&with("two")).await.expect("the configuration is fine");
    let has_come = || targets(&other).iter().filter(|target| *target == "/two").count() >= 2;
    until("the new one ticks", has_come).await;
    let targets = targets(&other);
    let first = targets.iter().position(|target| target == "/two").expect("it has come");
    assert!(targets[first + 1..].iter().all(|target| target == "/two"), "{targets:?}");
    let silent = with("two").replace("tick = \"20ms\"", "");
    proxy.reload(&silent).await.expect("the configuration is fine");
    until("the last instance has gone", || proxy.server().snapshot().plugins[0].plugin.instances() <= 2)
        .await;
}

#[tokio::test]
async fn a_tick_that_fails_harms_nobody() {
    let origin = Origin::start().await;
    let settings = "limits = { time = \"20ms\" }";
    let proxy = start(&config(&origin, "http://127.0.0.1:1", "stumbles", "loop", settings)).await;
    let deadline = [("plugin", "stumbles"), ("kind", "deadline")];
    soon("two failures", async {
        while proxy.metrics().await.sum("tollgate_plugin_failures_total", &deadline) < 2.0 {}
    })
    .await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    // What is counted is logged next.
    let lines = || logged(&["on-tick failed", "stumbles", "ran longer than 20 ms"]).len();
    until("two lines", || lines() >= 2).await;
}

#[tokio::test]
async fn a_tick_holds_up_no_drain() {
    let (origin, hanging) = (Origin::start().await, BareOrigin::start().await);
    let says = format!("send GET {}/", hanging.url());
    let proxy = start(&config(&origin, &hanging.url(), "hangs", &says, "limits = { wait = \"1h\" }")).await;
    let mut asked = hanging.accept().await;
    asked.read_until("\r\n\r\n").await;
    soon("the end", proxy.stop()).await;
    assert!(asked.is_closed().await);
}

#[tokio::test]
async fn what_is_to_tick_and_does_not_is_told() {
    let origin = Origin::start().await;
    let without =
        config(&origin, "http://127.0.0.1:1", "tickless", "", "").replace("\"waiting\"", "\"guest\"");
    let without = without.replace("grants = ", "# ");
    let proxy = Proxy::start_with(&without, &[("guest", tollgate_tests::guest())]).await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    assert_eq!(logged(&["is to tick, and has no `on-tick`", "tickless"]).len(), 1);
    let silent = config(&origin, "http://127.0.0.1:1", "silent", "", "").replace("tick = \"20ms\"", "");
    start(&silent).await;
    assert_eq!(logged(&["has `on-tick`, which is not called", "silent"]).len(), 1);
}
