//! Plugins whose calls take long, and the worker that serves others meanwhile.

use tollgate_tests::{BareOrigin, Client, Config, Origin, Proxy, guest, logged, soon, until, waiting_guest};

/// One worker, with a route `/` through a plugin of this name that does as it is told, and one beside it.
fn config(origin: &Origin, plugin: &str, file: &str, settings: &str) -> Config {
    let config = Config::to(origin).top("workers = 1").admin();
    let config = config.plugin(plugin, &format!("file = {file:?}\n{settings}"));
    config.another_route("match.path = \"/beside\"")
}

const OBEYS: &str = "config = { request = \"obey\", response = \"obey\", pick = \"obey\" }";

async fn start(config: &Config) -> Proxy {
    Proxy::start_with(config, &[("guest", guest()), ("waiting", waiting_guest())]).await
}

fn request(path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")
}

async fn ask(client: &mut Client, path: &str, headers: &str) -> u16 {
    client.send(request(path, headers)).await;
    client.response().await.status
}

async fn behind(proxy: &Proxy, plugin: &str) -> f64 {
    proxy.metrics().await.sum("tollgate_plugin_offloaded_calls_total", &[("plugin", plugin)])
}

fn instances(proxy: &Proxy) -> usize {
    proxy.server().snapshot().plugins[0].plugin.instances()
}

/// Has the plugin take long, so that it is known to.
async fn take_long(client: &mut Client, plugin: &str) {
    // On a busy machine a call that takes as long may have computed for less.
    soon("the plugin to be found slow", async {
        while logged(&[plugin, "are offloaded"]).is_empty() {
            assert_eq!(ask(client, "/", "x-do: spin\r\nx-says: 40\r\n").await, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_worker_serves_others_while_a_plugin_computes() {
    let origin = Origin::start().await;
    let proxy =
        start(&config(&origin, "tardy", "guest", &format!("{OBEYS}\nlimits = {{ time = \"1m\" }}"))).await;
    let mut client = proxy.connect().await;
    assert_eq!(ask(&mut client, "/", "").await, 200);
    assert_eq!(behind(&proxy, "tardy").await, 0.0, "it is quick");
    take_long(&mut client, "tardy").await;
    for (hook, says) in [("x-do", "tardy request"), ("x-do-response", "tardy response")] {
        let mut long = proxy.connect_and_reset().await;
        long.send(request("/", &format!("{hook}: wait-for-another\r\nx-says: {says}\r\n"))).await;
        until("the call has begun", || logged(&[&format!("{says} waits for another")]).len() == 1).await;
        for _ in 0..20 {
            assert_eq!(ask(&mut client, "/beside", "").await, 200, "{says}");
        }
        // There is one instance: this one has to wait for it.
        client.send(request("/", "")).await;
        assert_eq!(ask(&mut proxy.connect().await, "/beside", "").await, 200, "{says}");
        assert_eq!(instances(&proxy), 1);
        drop(long);
        assert_eq!(client.response().await.status, 200, "{says}");
    }
    assert!(behind(&proxy, "tardy").await >= 2.0);
}

#[tokio::test]
async fn requests_of_a_slow_plugin_come_one_after_the_other_and_do_not_wait_without_end() {
    const PATIENT: usize = 256;
    let origin = Origin::start().await;
    let proxy =
        start(&config(&origin, "queue", "guest", &format!("{OBEYS}\nlimits = {{ time = \"1m\" }}"))).await;
    let mut client = proxy.connect().await;
    take_long(&mut client, "queue").await;
    let mut long = proxy.connect_and_reset().await;
    long.send(request("/", "x-do: wait-for-another\r\nx-says: queue\r\n")).await;
    until("the call has begun", || logged(&["queue waits for another"]).len() == 1).await;
    let mut waiting = Vec::new();
    for _ in 1..PATIENT {
        let mut client = proxy.connect().await;
        client.send(request("/", "")).await;
        waiting.push(client);
    }
    // Those before have been read when this one is answered, on the same worker.
    assert_eq!(ask(&mut client, "/beside", "").await, 200);
    client.send(request("/", "")).await;
    let refused = client.response().await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    drop(long);
    for mut client in waiting {
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(ask(&mut client, "/", "").await, 200);
    assert_eq!(instances(&proxy), 1);
}

#[tokio::test]
async fn what_a_client_has_given_up_ends_on_the_offload_thread() {
    let origin = Origin::start().await;
    let settings =
        format!("{OBEYS}\nlimits = {{ time = \"1m\" }}\nbreaker = {{ failures = 2, pause = \"1h\" }}");
    let proxy = start(&config(&origin, "given-up", "guest", &settings)).await;
    let mut client = proxy.connect().await;
    take_long(&mut client, "given-up").await;
    let mut gone = proxy.connect_and_reset().await;
    gone.send(request("/", "x-do: wait-for-another\r\nx-says: given-up\r\n")).await;
    until("the call has begun", || logged(&["given-up waits for another"]).len() == 1).await;
    drop(gone);
    assert_eq!(ask(&mut client, "/", "").await, 200, "on a fresh instance");
    assert_eq!(instances(&proxy), 1);
    assert_eq!(proxy.metrics().await.sum("tollgate_plugin_failures_total", &[("plugin", "given-up")]), 0.0);
    // What fails there is held against it as anywhere.
    for _ in 0..2 {
        assert_eq!(ask(&mut client, "/", "x-do: trap\r\n").await, 503);
    }
    let before = behind(&proxy, "given-up").await;
    assert_eq!(ask(&mut client, "/", "").await, 503, "it is left alone");
    assert_eq!(behind(&proxy, "given-up").await, before);
}

#[tokio::test]
async fn calls_that_wait_are_offloaded_once_they_compute_long() {
    let origin = Origin::start().await;
    let url = origin.url();
    for (plugin, yields) in [("errands", false), ("yielding", true)] {
        let settings = format!(
            "grants = {{ http = [{{ url = \"{url}\", private = true }}], body = true }}\nyields = {yields}\nlimits = {{ time = \"5s\" }}"
        );
        let proxy = start(&config(&origin, plugin, "waiting", &settings)).await;
        let mut client = proxy.connect().await;
        let mut before = 0.0;
        for number in 0..3 {
            let mut long = proxy.connect().await;
            let words =
                format!("x-do: work 100; send GET {url}/; body\r\nx-verdict: reply\r\nContent-Length: 4\r\n");
            long.send(request("/", &words) + "data").await;
            assert_eq!(ask(&mut client, "/beside", "").await, 200);
            let response = long.response().await;
            let told = String::from_utf8_lossy(&response.body).into_owned();
            assert!(
                told.starts_with("worked; 200 ") && told.ends_with("; data"),
                "{plugin} {number}: {told}"
            );
            let calls = behind(&proxy, plugin).await;
            assert!(calls > before, "{plugin} {number}: if not from their beginning");
            before = calls;
        }
        assert_eq!(instances(&proxy), 1, "{plugin}");
    }
}

#[tokio::test]
async fn a_plugin_that_waits_long_is_not_one_that_computes_long() {
    let (origin, asked) = (Origin::start().await, BareOrigin::start().await);
    let url = asked.url();
    let settings = format!(
        "grants = {{ http = [{{ url = \"{url}\", private = true }}], body = true }}\nbreaker = {{ cpu-share = 0.001, pause = \"1h\" }}"
    );
    let proxy = start(&config(&origin, "patient", "waiting", &settings)).await;
    let (mut client, mut beside) = (proxy.connect().await, proxy.connect().await);
    for number in 0..10 {
        client.send(request("/", &format!("x-do: send GET {url}/\r\nx-verdict: reply\r\n"))).await;
        let mut asked = asked.accept().await;
        asked.read_until("\r\n\r\n").await;
        // That takes longer than an epoch.
        for _ in 0..20 {
            assert_eq!(ask(&mut beside, "/beside", "").await, 200);
        }
        asked.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        let response = client.response().await;
        let told = String::from_utf8_lossy(&response.body).into_owned();
        assert!(told.starts_with("204 "), "{number}: {} {told}", response.status);
    }
    assert_eq!(behind(&proxy, "patient").await, 0.0);
}
