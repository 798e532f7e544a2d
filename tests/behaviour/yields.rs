//! Plugins that compute long, and make way for others meanwhile.

use tollgate_tests::{Client, Config, Origin, Proxy, guest, logged, until};

/// One worker, with a route `/` through a plugin of this name that does as it is told, and one beside it.
fn config(origin: &Origin, plugin: &str, settings: &str) -> Config {
    let table =
        format!("file = \"guest\"\nconfig = {{ request = \"obey\", response = \"obey\" }}\n{settings}");
    let config = Config::to(origin).top("workers = 1").admin().plugin(plugin, &table);
    config.another_route("match.path = \"/beside\"")
}

async fn start(config: &Config) -> Proxy {
    Proxy::start_with(config, &[("guest", guest())]).await
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")
}

async fn ask(client: &mut Client, path: &str, headers: &str) -> u16 {
    client.send(request(path, headers)).await;
    client.response().await.status
}

/// Has a call begin that ends when another request has come, and waits until it has begun.
async fn begin(proxy: &Proxy, hook: &str, says: &str) -> Client {
    let mut client = proxy.connect_and_reset().await;
    client.send(request("/", &format!("{hook}: wait-for-another\r\nx-says: {says}\r\n"))).await;
    until("the call has begun", || logged(&[&format!("{says} waits for another")]).len() == 1).await;
    client
}

#[tokio::test]
async fn others_are_answered_by_the_same_worker_while_a_call_computes() {
    let origin = Origin::start().await;
    // Processor time: so much is only used if the others do not come to their turn.
    let settings = "yields = true\nlimits = { time = \"5s\", instances = 2 }";
    let proxy = start(&config(&origin, "patient", settings)).await;
    for (hook, says) in [("x-do", "patient request"), ("x-do-response", "patient response")] {
        let mut long = begin(&proxy, hook, says).await;
        let mut client = proxy.connect().await;
        // Each needs the sockets to be looked at several times.
        for _ in 0..20 {
            assert_eq!(ask(&mut client, "/beside", "").await, 200, "{says}");
        }
        assert_eq!(ask(&mut client, "/", "x-do: be-another\r\n").await, 200, "{says}");
        assert_eq!(long.response().await.status, 200, "{says}");
    }
    assert_eq!(logged(&["patient", "ran longer"]).len(), 0);
    assert_eq!(proxy.server().snapshot().plugins[0].plugin.instances(), 2);
}

#[tokio::test]
async fn what_yields_is_held_to_its_time_and_to_so_many_instances() {
    let origin = Origin::start().await;
    let settings = "yields = true\nlimits = { time = \"30s\", instances = 1 }\nbreaker = { failures = 2, pause = \"1h\" }";
    let before = config(&origin, "bounded", settings);
    let proxy = start(&before).await;
    let failures = async |kind: &str| {
        let labels = [("plugin", "bounded"), ("kind", kind)];
        proxy.metrics().await.sum("tollgate_plugin_failures_total", &labels)
    };
    let long = begin(&proxy, "x-do", "bounded").await;
    let mut client = proxy.connect().await;
    for _ in 0..3 {
        client.send(request("/", "")).await;
        let refused = client.response().await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    }
    assert_eq!(failures("busy").await, 3.0);
    // Its client goes, and what it computed goes with it.
    drop(long);
    until("the instance is gone", || proxy.server().snapshot().plugins[0].plugin.instances() == 0).await;
    assert_eq!(ask(&mut client, "/", "").await, 200);

    let after = before.toml().replace("time = \"30s\"", "time = \"20ms\"");
    proxy.reload(&after).await.expect("the configuration is fine");
    assert_eq!(ask(&mut client, "/", "x-do: loop\r\n").await, 503);
    assert_eq!(logged(&["request failed", "`bounded` ran longer than 20 ms"]).len(), 1);
    assert_eq!(ask(&mut client, "/", "x-do: next\r\n").await, 200, "there is a fresh one");
    for what in ["loop", "trap"] {
        assert_eq!(ask(&mut client, "/", &format!("x-do: {what}\r\n")).await, 503);
    }
    assert_eq!(ask(&mut client, "/", "").await, 503, "it is left alone");
    assert_eq!(
        (failures("deadline").await, failures("trap").await, failures("breaker").await),
        (2.0, 1.0, 1.0)
    );
    assert_eq!(ask(&mut client, "/beside", "").await, 200);
}

#[tokio::test]
async fn what_is_not_called_in_turns_cannot_yield() {
    let origin = Origin::start().await;
    let config = config(&origin, "turns", "yields = true");
    let proxy = start(&config).await;
    let balances = config.clone().upstream("balance = \"turns\"");
    let error = proxy.reload(&balances).await.expect_err("a balancer makes way for nobody").to_string();
    assert!(error.contains("take `yields = true` out of [plugins.turns]"), "{error}");
    let shown = config.toml().replacen("plugins = [", "shadow = \"turns@guest.wasm\"\nplugins = [", 1);
    let error = proxy.reload(&shown).await.expect_err("a candidate makes way for nobody").to_string();
    assert!(error.contains("`[plugins.turns]` says `yields = true`: take that out"), "{error}");
}
