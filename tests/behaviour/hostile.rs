//! What a bad plugin costs: its own request, and nothing else.

use tokio::time::{Duration, sleep};
use tollgate_tests::{
    Client, Config, Executable, Handmade, Load, Origin, Proxy, guest, logged, until, waiting_guest,
};

use crate::TOLLGATE;

/// A route `/bad` through a plugin of this name that does as the request says, and any other without one. The
/// plugin also picks the endpoint of both.
fn config(origins: &[&Origin], plugin: &str, settings: &str) -> String {
    let table = format!(
        "file = \"guest\"
        config = {{ request = \"obey\", response = \"obey\", pick = \"obey\", endpoints = \"obey\" }}
        {settings}"
    );
    let config = Config::to(origins).upstream(&format!("balance = {plugin:?}"));
    config.route("match.path = \"/bad\"").plugin(plugin, &table).another_route("").toml()
}

async fn start(origins: &[&Origin], plugin: &str, settings: &str) -> Proxy {
    Proxy::start_with(&config(origins, plugin, settings), &[("guest", guest())]).await
}

/// What any hook can do, and what the log says of it.
const MISDEEDS: [(&str, &str); 14] = [
    ("loop", "ran longer than 10 ms"),
    ("loop-calling", "ran longer than 10 ms"),
    ("grow", "wanted more than 32"),
    ("trap", "trapped: wasm trap: wasm `unreachable` instruction executed"),
    ("trap", ": the guest panics on purpose"),
    ("unreachable", "trapped: wasm trap: wasm `unreachable` instruction executed"),
    ("exit", "trapped: Exited with i32 exit status 1"),
    ("recurse", "trapped: wasm trap: out of bounds memory access"),
    ("recurse-without-memory", "trapped: wasm trap: call stack exhausted"),
    ("sleep", "ran longer than 10 ms"),
    ("nap-endless", "ran longer than 10 ms"),
    ("socket", "trapped: `wasi:sockets/"),
    ("print-endless", "ran longer than 10 ms"),
    ("invalid-text", "trapped: "),
];

/// Answers that a request hook can give and nobody can send.
const BAD_ANSWERS: [(&str, &str); 4] = [
    ("reply-bad-header", "the header `x-a` has an invalid value"),
    ("reply-bad-name", "the header `x a` is not a header name"),
    ("reply-framing", "the header `content-length` is not for plugins to change"),
    ("reply-bad-status", "the status 42 is not one from 200 to 599"),
];

/// The same of a response hook.
const BAD_REPLACEMENTS: [(&str, &str); 3] = [
    ("reply-bad-header", "the header `x-a` has an invalid value"),
    ("reply-framing", "the header `transfer-encoding` is not for plugins to change"),
    ("reply-bad-status", "the status 101 is not one from 200 to 599"),
];

/// Looks for a line in the log; lines are told apart by the name of the plugin.
fn is_logged(plugin: &str, words: &[&str]) {
    let words: Vec<&str> = words.iter().copied().chain([plugin]).collect();
    // It is written before the response.
    assert!(
        !logged(&words).is_empty(),
        "{words:?} are not in the last line, {:?}",
        logged(&[plugin, "WARN"]).last()
    );
}

#[tokio::test]
async fn a_request_hook_that_misbehaves_costs_its_own_request_alone() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "bad-request-hook", "").await;
    let load = Load::start(proxy.address(), "/good", 3);
    let mut client = proxy.connect().await;
    for (misdeed, reason) in MISDEEDS.iter().chain(&BAD_ANSWERS) {
        // The worker of this connection meets both.
        client.send(format!("GET /bad HTTP/1.1\r\nHost: test\r\nx-do: {misdeed}\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status, 503, "{misdeed}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{misdeed}");
        assert!(
            !response.text().contains("plugin"),
            "the client is told nothing of the inside: {response:?}"
        );
        is_logged("bad-request-hook", &["the plugin", reason]);
        client.send("GET /bad HTTP/1.1\r\nHost: test\r\nx-do: reply\r\n\r\n").await;
        assert_eq!(client.response().await.status, 418, "the plugin works again after {misdeed}");
    }
    load.has_answered(10).await;
    load.stop().await;
}

#[tokio::test]
async fn a_response_hook_that_misbehaves_costs_its_own_request_alone() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "bad-response-hook", "").await;
    let load = Load::start(proxy.address(), "/good", 3);
    let mut client = proxy.connect().await;
    for (misdeed, reason) in MISDEEDS.iter().chain(&BAD_REPLACEMENTS) {
        client.send(format!("GET /bad HTTP/1.1\r\nHost: test\r\nx-do-response: {misdeed}\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!((response.status, response.header("x-backend-server")), (503, None), "{misdeed}");
        is_logged("bad-response-hook", &["the plugin", reason]);
        client.send("GET /bad HTTP/1.1\r\nHost: test\r\nx-do-response: mark\r\n\r\n").await;
        let response = client.response().await;
        assert_eq!((response.status, response.text()), (200, origin.port().as_str()), "after {misdeed}");
        assert!(response.header("x-mark").is_some(), "the plugin works again after {misdeed}");
    }
    load.has_answered(10).await;
    load.stop().await;
}

#[tokio::test]
async fn a_balancer_that_misbehaves_costs_no_request_at_all() {
    let origins = [Origin::start().await, Origin::start().await];
    let proxy = start(&origins.each_ref(), "bad-balancer", "").await;
    let load = Load::start(proxy.address(), "/good", 3);
    let mut client = proxy.connect().await;
    for (misdeed, reason) in MISDEEDS {
        // After a failure the instance is a new one, which is told of the endpoints first.
        for hook in ["x-do-pick", "x-do-endpoints"] {
            client.send(format!("GET /good HTTP/1.1\r\nHost: test\r\n{hook}: {misdeed}\r\n\r\n")).await;
            assert_eq!(client.response().await.status, 200, "{hook}: {misdeed}");
        }
        is_logged("bad-balancer", &["pick failed, another chooses", reason]);
        client.send("GET /good HTTP/1.1\r\nHost: test\r\nx-do-pick: last\r\n\r\n").await;
        assert_eq!(
            client.response().await.text(),
            origins[1].port(),
            "the plugin works again after {misdeed}"
        );
    }
    load.has_answered(10).await;
    load.stop().await;
}

#[tokio::test]
async fn where_a_plugin_fails_open_requests_go_on_without_it() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "fails-open", "fail = \"open\"").await;
    for (misdeed, reason) in MISDEEDS.iter().chain(&BAD_ANSWERS) {
        let response = proxy.get("/bad", &[&format!("x-do: {misdeed}")]).await;
        assert_eq!((response.status, response.text()), (200, origin.port().as_str()), "{misdeed}");
        is_logged("fails-open", &["the request goes on without it", reason]);
    }
    for (misdeed, _) in MISDEEDS.iter().chain(&BAD_REPLACEMENTS) {
        let response = proxy.get("/bad", &[&format!("x-do-response: {misdeed}")]).await;
        assert_eq!((response.status, response.text()), (200, origin.port().as_str()), "{misdeed}");
    }
}

#[tokio::test]
async fn a_plugin_adds_no_more_headers_than_there_is_room_for() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "adds-headers", "limits = { time = \"30s\" }").await;
    for flood in ["many-headers", "long-header"] {
        assert_eq!(proxy.get("/bad", &[&format!("x-do: {flood}")]).await.status, 200, "{flood}");
        let received = origin.last();
        let added: usize = received.values("x-many").iter().map(|value| value.len() + 6).sum();
        assert!(added <= 64 << 10, "{flood}: {added}");
        assert_eq!(received.header("x-long"), None);
    }
    assert_eq!(proxy.get("/bad", &["x-do: reply-many-headers"]).await.status, 503);
    is_logged("adds-headers", &["made an answer that cannot be sent", "is more than plugins may add"]);

    let mut client = proxy.connect().await;
    for flood in ["many-headers", "long-header"] {
        client.send(format!("GET /bad HTTP/1.1\r\nHost: test\r\nx-do-response: {flood}\r\n\r\n")).await;
        let mut bytes = Vec::new();
        while !bytes.ends_with(origin.port().as_bytes()) {
            bytes.extend(client.read_some().await);
        }
        assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n") && bytes.len() < 256 << 10, "{flood}");
    }
}

#[tokio::test]
async fn a_plugin_that_grows_slowly_is_replaced_before_it_fails() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "grows-slowly", "").await;
    let mut client = proxy.connect().await;
    for number in 0..300 {
        client.send("GET /bad HTTP/1.1\r\nHost: test\r\nx-do: grow-slowly\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200, "request {number}");
    }
    assert_eq!(logged(&["grows-slowly", "wanted more than"]), Vec::<String>::new());
}

/// What a plugin has counted: calls of the hooks of its instance, and the numbers it has drawn.
async fn count(client: &mut Client) -> (u64, u64) {
    client.send("GET /bad HTTP/1.1\r\nHost: test\r\nx-do: count\r\n\r\n").await;
    let counted = client.response().await.json();
    let number = |key: &str| counted[key].as_u64().expect("it is a number");
    (number("calls"), number("sequence"))
}

#[tokio::test]
async fn an_instance_makes_room_for_a_fresh_one_and_what_it_has_drawn_stays_drawn() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "short-lived", "limits = { recycle-after = 4 }").await;
    let mut client = proxy.connect().await;
    for number in 0..9 {
        // Each request is two calls, as there is a hook for responses, too. One call was for `configure`.
        let calls = 2 + number % 2 * 2;
        assert_eq!(count(&mut client).await, (calls, number));
    }
}

#[tokio::test]
async fn the_time_of_a_call_is_as_configured() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "takes-its-time", "limits = { time = \"20s\" }").await;
    let response = proxy.get("/bad", &["x-do: spin", "x-says: 200"]).await;
    assert_eq!(response.status, 200);
    let config = config(&[&origin], "takes-its-time", "limits = { time = \"50ms\" }");
    proxy.reload(&config).await.expect("the configuration is fine");
    assert_eq!(proxy.get("/bad", &["x-do: loop"]).await.status, 503);
    is_logged("takes-its-time", &["ran longer than 50 ms"]);
}

#[tokio::test]
async fn a_call_may_sleep_for_as_long_as_it_may_compute() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "takes-a-nap", "limits = { time = \"20s\" }").await;
    for hook in ["x-do", "x-do-response"] {
        let response = proxy.get("/bad", &[&format!("{hook}: nap"), "x-says: 1500"]).await;
        assert_eq!((response.status, response.text()), (200, origin.port().as_str()), "{hook}");
    }
    assert_eq!(proxy.get("/bad", &["x-do: sleep"]).await.status, 503);
    is_logged("takes-a-nap", &["ran longer than 20000 ms"]);
}

#[tokio::test]
async fn the_time_of_a_call_is_that_of_the_processor_and_not_of_the_clock() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::create_dir(folder.path().join("plugins")).expect("a folder can be made");
    std::fs::write(folder.path().join("plugins/guest.wasm"), guest()).expect("a file can be written");
    let config = config(&[&origin], "works", "limits = { time = \"2s\" }")
        + "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("config.toml"), config).expect("a file can be written");
    let proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    let mut client = Client::connect(proxy.address().await).await;
    client.send("GET /bad HTTP/1.1\r\nHost: test\r\nx-do: work\r\nx-says: a busy one\r\n\r\n").await;
    proxy.line(&["a busy one works"]).await;
    proxy.signal(rustix::process::Signal::STOP);
    // The one thing here that only time can show: the clock goes on, the process does not.
    sleep(Duration::from_millis(2500)).await;
    proxy.signal(rustix::process::Signal::CONT);
    assert_eq!(client.response().await.status, 200);
}

#[tokio::test]
async fn what_is_huge_costs_the_one_who_makes_it() {
    let origin = Origin::start().await;
    // Time for all of it, so that it is not that which stops it.
    let limits = "limits = { time = \"30s\", memory = \"64MiB\" }";
    let proxy = start(&[&origin], "makes-huge-things", limits).await;
    let load = Load::start(proxy.address(), "/good", 3);
    let mut client = proxy.connect().await;
    for (misdeed, status) in
        [("huge-strings", 200), ("forward-huge", 503), ("reply-million-headers", 503), ("reply-huge", 200)]
    {
        client.send(format!("GET /bad HTTP/1.1\r\nHost: test\r\nx-do: {misdeed}\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status, status, "{misdeed}");
        client.send("GET /bad HTTP/1.1\r\nHost: test\r\nx-do: reply\r\n\r\n").await;
        assert_eq!(client.response().await.status, 418, "the plugin works again after {misdeed}");
    }
    let received: usize =
        origin.received().iter().flat_map(|received| &received.headers).map(|(_, value)| value.len()).sum();
    assert!(received < 1 << 20, "{received} bytes of headers have come through");
    assert!(logged(&["makes-huge-things"]).iter().all(|line| line.len() < 64 << 10));
    load.has_answered(10).await;
    load.stop().await;
}

#[tokio::test]
async fn a_name_that_a_plugin_gives_is_short_or_none() {
    let origin = Origin::start().await;
    let limits = "limits = { time = \"30s\" }\n[admin]\naddress = \"127.0.0.1:0\"";
    let proxy = start(&[&origin], "names-at-length", limits).await;
    assert_eq!(proxy.get("/bad", &["x-do: long-names"]).await.status, 200);
    let metrics = proxy.admin("GET", "/metrics", &[]).await;
    assert!(metrics.text().len() < 1 << 20, "{}", metrics.text().len());
    is_logged("names-at-length", &["is longer than 1 KiB"]);
}

#[tokio::test]
async fn a_plugin_that_misbehaves_while_it_is_configured_is_refused() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "bad-from-the-start", "").await;
    let load = Load::start(proxy.address(), "/good", 3);
    for (misdeed, reason) in MISDEEDS {
        // It has more time then.
        let reason = if reason.contains("10 ms") { "ran longer than 1000 ms" } else { reason };
        let config = config(&[&origin], "bad-from-the-start", "");
        let config = config.replace("request = \"obey\"", &format!("configure = \"{misdeed}\""));
        let error = proxy.reload(&config).await.expect_err(misdeed).to_string();
        assert!(
            error.contains("fails while it is configured: ") && error.contains(reason),
            "{misdeed}: {error}"
        );
        assert_eq!(proxy.get("/bad", &["x-do: reply"]).await.status, 418, "the one before serves");
    }
    load.has_answered(10).await;
    load.stop().await;
}

#[tokio::test]
async fn what_is_of_a_message_does_nothing_where_there_is_none() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "meddles", "").await;
    let meddles = config(&[&origin], "meddles", "").replace("pick = ", "configure = \"meddle\", pick = ");
    proxy.reload(&meddles).await.expect("it does no harm");
    assert_eq!(proxy.get("/bad", &["x-do: reply"]).await.status, 418);
    // In a hook that has a request and no response, and in one that has both, too late for the request.
    assert_eq!(proxy.get("/bad", &["x-do: meddle"]).await.status, 200);
    assert_eq!(origin.last().target, "/elsewhere");
    assert_eq!(proxy.get("/bad", &["x-do-response: meddle"]).await.status, 500);
    assert_eq!(proxy.get("/good", &["x-do-pick: meddle"]).await.status, 200);
}

/// A route `/bad` through this plugin, and any other without one.
fn by_hand(origin: &Origin, plugin: Handmade, settings: &str) -> String {
    let config = Config::to(origin).route("match.path = \"/bad\"").plugin(plugin.name(), settings);
    config.another_route("").toml()
}

#[tokio::test]
async fn a_module_that_no_compiler_makes_costs_its_own_requests_alone() {
    let origin = Origin::start().await;
    // Asked each time, however often it has failed.
    let settings = "breaker = { failures = 1_000 }";
    for (plugin, status, reason) in [
        (Handmade::Harmless, 200, ""),
        (Handmade::HasManyMemories, 200, ""),
        (Handmade::GrowsTable, 200, ""),
        (Handmade::GrowsTableForever, 503, "ran longer than 10 ms"),
        (Handmade::AnswersNowhere, 503, "trapped: "),
        (Handmade::AnswersNonsense, 503, "trapped: "),
        (Handmade::AnswersWithoutEnd, 503, "trapped: "),
        (Handmade::AnswersNoText, 503, "trapped: "),
    ] {
        let file = &[(plugin.name(), plugin.component())];
        let proxy = Proxy::start_with(&by_hand(&origin, plugin, settings), file).await;
        let load = Load::start(proxy.address(), "/good", 3);
        for number in 0..5 {
            let response = proxy.get("/bad", &[]).await;
            assert_eq!(response.status, status, "{plugin:?}, request {number}");
        }
        if status != 200 {
            is_logged(plugin.name(), &["the plugin", reason]);
        }
        load.has_answered(10).await;
        load.stop().await;
    }
}

#[tokio::test]
async fn what_the_host_keeps_for_an_instance_has_an_end() {
    let origin = Origin::start().await;
    // Time for all of it, so that it is not that which stops it.
    let settings = "limits = { time = \"30s\" }";
    for (plugin, reason) in [
        (Handmade::HoardsMoments, "trapped: resource table has no free keys"),
        (Handmade::WaitsForTooMuch, "trapped: the plugin waits for too much at once"),
    ] {
        let file = &[(plugin.name(), plugin.component())];
        let proxy = Proxy::start_with(&by_hand(&origin, plugin, settings), file).await;
        for _ in 0..2 {
            assert_eq!(proxy.get("/bad", &[]).await.status, 503, "{plugin:?}");
        }
        is_logged(plugin.name(), &["the plugin", reason]);
    }
}

#[tokio::test]
async fn a_module_that_wants_what_it_may_not_have_is_refused() {
    let origin = Origin::start().await;
    let harmless = by_hand(&origin, Handmade::Harmless, "");
    let file = &[(Handmade::Harmless.name(), Handmade::Harmless.component())];
    let proxy = Proxy::start_with(&harmless, file).await;
    let load = Load::start(proxy.address(), "/good", 3);
    for (plugin, reason) in [
        (Handmade::HasHugeTable, "table"),
        (Handmade::HasManyTables, "tables"),
        (Handmade::HasHugeMemory, "fails while it starts: wanted more than 32"),
        (Handmade::LoopsAtStart, "fails while it starts: ran longer than 1000 ms"),
        (Handmade::AllocatesNowhere, "fails while it is configured: trapped: "),
        (Handmade::AllocatesForever, "fails while it is configured: ran longer than 1000 ms"),
        (Handmade::CallsWhileItAllocates, "fails while it is configured: trapped: "),
    ] {
        proxy.drop_plugin(plugin.name(), &plugin.component());
        let error = proxy.reload(&by_hand(&origin, plugin, "")).await.expect_err(plugin.name()).to_string();
        assert!(error.contains(plugin.name()) && error.contains(reason), "{plugin:?}: {error}");
        assert_eq!(proxy.get("/bad", &[]).await.status, 200, "the one before serves");
    }
    load.has_answered(10).await;
    load.stop().await;
}

#[tokio::test]
async fn a_guard_has_room_for_its_instance_whatever_others_take() {
    let origin = Origin::start().await;
    let guard = "file = \"guest\"\nisolation = \"request\"\nfail = \"open\"\nconfig.request = \"reply\"";
    let mut config = Config::to(&origin).top("workers = 1").plugin("guard", guard);
    // Each waits for bodies with more instances than there is room for.
    let greedy = ["greedy-a", "greedy-b", "greedy-c"];
    for plugin in greedy {
        let table = "file = \"waiting\"\ngrants = { body = true, http = [] }\nlimits.instances = 200";
        config = config.another_route(&format!("match.path = \"/{plugin}\"")).plugin(plugin, table);
    }
    let config = config.toml();
    let config = config.replace("http = []", &format!("http = [{:?}]", origin.url()));
    let files = [("waiting", waiting_guest()), ("guest", guest())];
    let proxy = Proxy::start_with(&config, &files).await;
    let mut uploads = Vec::new();
    let head = |plugin: &str| {
        format!("POST /{plugin} HTTP/1.1\r\nHost: test\r\nx-do: body\r\nContent-Length: 10\r\n\r\n")
    };
    for plugin in greedy {
        for _ in 0..110 {
            let mut client = proxy.connect().await;
            client.send(head(plugin)).await;
            uploads.push(client);
        }
    }
    let refused = || logged(&["greedy-", "cannot have an instance"]).len();
    until("one that gets no instance any more", || refused() > 0).await;
    for _ in 0..20 {
        assert_eq!(proxy.get("/", &[]).await.status, 418, "the guard was not asked");
    }
    assert!(!logged(&["greedy-", "all the room that one plugin may have"]).is_empty());
}

#[tokio::test]
async fn what_a_component_may_take_is_told_when_it_is_loaded() {
    let origin = Origin::start().await;
    let file = &[(Handmade::HasManyMemories.name(), Handmade::HasManyMemories.component())];
    Proxy::start_with(&by_hand(&origin, Handmade::HasManyMemories, ""), file).await;
    let lines = logged(&["plugin loaded", "has-many-memories"]);
    let line = lines.last().expect("it was loaded");
    for words in
        ["\"memories\":8", "\"tables\":0", "\"reserved\":2", "\"instances\":2", "\"memory_bytes\":67108864"]
    {
        assert!(line.contains(words), "{words}: {line}");
    }
}

#[tokio::test]
async fn replies_that_nobody_reads_count_until_they_are_gone() {
    let origin = Origin::start().await;
    let limits = "limits = { time = \"30s\", memory = \"64MiB\", unsent = \"50MiB\" }\n[admin]\naddress = \"127.0.0.1:0\"";
    let proxy = start(&[&origin], "makes-replies", limits).await;
    let unsent = async || {
        let metrics = proxy.metrics().await;
        metrics.sum("tollgate_plugin_unsent_bytes", &[("plugin", "makes-replies")]) as usize
    };
    let mut clients = Vec::new();
    for number in 0..2 {
        let mut client = proxy.connect().await;
        client.send("GET /bad HTTP/1.1\r\nHost: test\r\nx-do: reply-huge\r\n\r\n").await;
        // The head has come, and the rest waits for the client.
        client.read_some().await;
        assert!(unsent().await >= (20 << 20) * (number + 1));
        clients.push(client);
    }
    assert_eq!(proxy.get("/bad", &["x-do: reply-huge"]).await.status, 503);
    is_logged("makes-replies", &["the plugin", "has made more than 50", "limits.unsent"]);
    assert_eq!(proxy.get("/bad", &["x-do: reply"]).await.status, 418, "what is small passes");
    drop(clients);
    tollgate_tests::soon("nothing unsent", async { while unsent().await > 0 {} }).await;
    assert_eq!(proxy.get("/bad", &["x-do: reply-huge"]).await.status, 200);
}

#[tokio::test]
async fn a_plugin_logs_no_more_than_it_may_in_a_second_over_all_its_calls() {
    let origin = Origin::start().await;
    let limits = "limits = { time = \"30s\", log-rate = \"512B\" }\n[admin]\naddress = \"127.0.0.1:0\"";
    let proxy = start(&[&origin], "logs-at-length", limits).await;
    let says = format!("x-says: {} floods", "z".repeat(1000));
    for _ in 0..10 {
        assert_eq!(proxy.get("/bad", &["x-do: log-flood", &says]).await.status, 200);
    }
    // Four seconds' worth at once, and what time has given since: of 640, two of which take five seconds.
    let lines = logged(&["logs-at-length", "zzz floods"]).len();
    assert!((1..200).contains(&lines), "{lines}");
    assert!(!logged(&["logs-at-length", "logs more than 512 B a second", "limits.log-rate"]).is_empty());
    let dropped =
        proxy.metrics().await.sum("tollgate_plugin_log_lines_dropped_total", &[("plugin", "logs-at-length")]);
    assert!(dropped > 400.0, "{dropped}");
}

#[tokio::test]
async fn what_a_plugin_logs_cannot_read_otherwise_than_it_is() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "deceives", "").await;
    // A line separator and a right-to-left override; headers come as the string whose code points are their bytes.
    let config = config(&[&origin], "deceives", "")
        .replace("request = \"obey\"", "request = \"log\", says = \"a\\u2028b\\u202Ec\\u2066d\"");
    proxy.reload(&config).await.expect("the configuration is fine");
    proxy.get("/bad", &[]).await;
    let lines = logged(&["deceives", "was here"]);
    assert!(lines.iter().any(|line| line.contains(r"a\\u{2028}b\\u{202e}c\\u{2066}d was here")), "{lines:?}");
}

#[tokio::test]
async fn plugins_that_spin_while_they_are_configured_hold_a_reload_up_only_together() {
    let origin = Origin::start().await;
    let proxy = start(&[&origin], "spins-at-start", "").await;
    let mut config =
        format!("limits = {{ plugin-start = \"2s\" }}\n{}", config(&[&origin], "spins-at-start", ""));
    for number in 0..10 {
        config.push_str(&format!(
            "\n[plugins.spin-{number}]\nfile = \"guest\"\nconfig = {{ configure = \"loop\" }}\n"
        ));
    }
    let error = proxy.reload(&config).await.expect_err("they are refused").to_string();
    let spun = error.matches("ran longer than 1000 ms").count();
    let not_started = error.matches("it was not started: the plugins of this reload have taken 2 s").count();
    assert!(spun <= 4 && spun + not_started == 10, "{spun} and {not_started}: {error}");
    assert!(error.contains("limits.plugin-start"), "{error}");
    assert_eq!(proxy.get("/bad", &["x-do: reply"]).await.status, 418, "the ones before serve");
}
