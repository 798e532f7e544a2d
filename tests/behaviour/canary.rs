//! A new version of a plugin, with a share of the requests.

use tollgate_tests::{Executable, Origin, Proxy, endpoints, guest, guest_version, logged, soon};

use crate::TOLLGATE;

/// What the guest does in all its versions.
const MARKS: &str = "request = \"mark-version\", response = \"mark-version\"";

/// A route through a plugin of this name.
fn through(origin: &Origin, plugin: &str, canary: &str, config: &str) -> String {
    tollgate_tests::through(origin, plugin, &format!("canary = {canary}\nconfig = {{ {config} }}"))
}

/// With version 0 in force and version 1 beside it.
async fn trying(config: &str, plugin: &str) -> Proxy {
    let proxy = Proxy::start_with(config, &[(plugin, guest())]).await;
    try_version(&proxy, plugin, 1).await;
    proxy
}

async fn try_version(proxy: &Proxy, plugin: &str, number: u32) {
    proxy.drop_plugin(plugin, &guest_version(number));
    proxy.reload_files().await.expect("the configuration is fine");
}

/// What the admin API says of a plugin.
async fn told(proxy: &Proxy, plugin: &str) -> serde_json::Value {
    let plugins = proxy.told("/api/plugins").await["plugins"].clone();
    let plugins = plugins.as_array().expect("it is a list").clone();
    plugins.into_iter().find(|told| told["name"] == plugin).expect("it is loaded")
}

fn version(number: u32) -> String {
    format!("guest-version-{number:04}")
}

/// Sends requests until what is told of the plugin is as wanted. The statuses and bodies of their answers.
async fn ask_until(
    proxy: &Proxy,
    plugin: &str,
    what: &str,
    wanted: impl Fn(&serde_json::Value) -> bool,
) -> Vec<tollgate_tests::Response> {
    let mut answers = Vec::new();
    soon(what, async {
        while !wanted(&told(proxy, plugin).await) {
            for _ in 0..10 {
                answers.push(proxy.get("/", &[]).await);
            }
        }
    })
    .await;
    answers
}

#[tokio::test]
async fn a_new_version_decides_its_share_and_takes_over_when_its_time_has_passed() {
    let origin = Origin::start().await;
    let rule = "{ weight = 0.5, for = \"1s\", requests = 20 }";
    let proxy = trying(&through(&origin, "shared", rule, MARKS), "shared").await;
    let plugin = told(&proxy, "shared").await;
    let (before, after) = (plugin["digest"].clone(), plugin["canary"]["digest"].clone());
    assert_ne!(before, after);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("tollgate_plugin_canary_weight", &[("plugin", "shared")]), 0.5);

    let mut seen = [0, 0];
    soon("the new version to take over", async {
        while told(&proxy, "shared").await["digest"] == before {
            for _ in 0..10 {
                let answer = proxy.get("/", &[]).await;
                let decided = answer.header("x-version").expect("it is marked").to_owned();
                // Both hooks of a request are of one version.
                assert_eq!(origin.last().values("x-version"), [decided.as_str()]);
                seen[usize::from(decided == version(1))] += 1;
            }
        }
    })
    .await;
    assert!(seen[0] > 0 && seen[1] >= 20, "{seen:?}");
    let plugin = told(&proxy, "shared").await;
    assert_eq!((&plugin["digest"], plugin["canary"].is_null()), (&after, true));
    assert_eq!(plugin["last-load"]["outcome"], "in-force");
    for _ in 0..20 {
        assert_eq!(proxy.get("/", &[]).await.header("x-version"), Some(version(1).as_str()));
    }
    // What was in force can still be gone back to.
    let answer = proxy.admin("POST", "/api/plugins/shared/rollback", &[]).await;
    assert_eq!((answer.status, &answer.json()["to"]), (200, &before));
}

#[tokio::test]
async fn a_new_version_that_crashes_is_taken_back_by_itself_and_not_tried_again() {
    let origin = Origin::start().await;
    let config = through(&origin, "crashes", "0.5", "request-0001 = \"trap\"");
    let proxy = trying(&config, "crashes").await;
    let is_refused = |plugin: &serde_json::Value| plugin["last-load"]["stage"] == "canary";
    let answers = ask_until(&proxy, "crashes", "it to be taken back", is_refused).await;
    assert!(answers.iter().any(|answer| answer.status == 503));
    let plugin = told(&proxy, "crashes").await;
    let reason = plugin["last-load"]["reason"].as_str().expect("it has a reason");
    assert!(reason.contains("calls trapped or ran out of their limits, and 0 of "), "{reason}");
    assert!(plugin["canary"].is_null(), "{plugin}");
    assert!(!logged(&["crashes", "was tried and rolled back"]).is_empty());
    let loads = [("plugin", "crashes"), ("outcome", "canary")];
    assert_eq!(proxy.metrics().await.sum("tollgate_plugin_loads_total", &loads), 1.0);

    // Neither a reload nor the same bytes once more bring it back.
    try_version(&proxy, "crashes", 1).await;
    assert!(is_refused(&told(&proxy, "crashes").await));
    for _ in 0..20 {
        assert_eq!(proxy.get("/", &[]).await.status, 200);
    }
    // Others are tried.
    try_version(&proxy, "crashes", 2).await;
    assert_eq!(told(&proxy, "crashes").await["canary"]["weight"], 0.5);
}

#[tokio::test]
async fn a_new_version_whose_requests_fail_is_taken_back() {
    let origin = Origin::start().await;
    let rule = "{ weight = 0.5, for = \"1h\", requests = 20 }";
    let config = through(&origin, "errors", rule, "request-0001 = \"reply-error\"");
    let proxy = trying(&config, "errors").await;
    let is_refused = |plugin: &serde_json::Value| plugin["last-load"]["stage"] == "canary";
    ask_until(&proxy, "errors", "it to be taken back", is_refused).await;
    let reason = told(&proxy, "errors").await["last-load"]["reason"].to_string();
    assert!(reason.contains("requests failed, and 0 of "), "{reason}");
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    // An operator who knows better has it tried once more.
    let answer = proxy.admin("DELETE", "/api/plugins/errors/rollback", &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(told(&proxy, "errors").await["canary"]["digest"].is_string());
}

#[tokio::test]
async fn errors_that_befall_both_versions_are_not_held_against_the_new_one() {
    let origin = Origin::start().await;
    let rule = "{ weight = 0.5, for = \"1s\", requests = 20 }";
    let proxy = trying(&through(&origin, "alike", rule, "request = \"reply-error\""), "alike").await;
    let has_taken_over = |plugin: &serde_json::Value| plugin["canary"].is_null();
    let answers = ask_until(&proxy, "alike", "it to take over", has_taken_over).await;
    assert!(answers.iter().all(|answer| answer.status == 503));
    assert_eq!(told(&proxy, "alike").await["last-load"]["outcome"], "in-force");
}

#[tokio::test]
async fn an_operator_ends_it_at_once() {
    let origin = Origin::start().await;
    let proxy = trying(&through(&origin, "by-hand", "0.9", MARKS), "by-hand").await;
    let plugin = told(&proxy, "by-hand").await;
    let answer = proxy.admin("POST", "/api/plugins/by-hand/rollback", &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let (from, to) = (&answer.json()["from"], &answer.json()["to"]);
    assert_eq!((from, to), (&plugin["canary"]["digest"], &plugin["digest"]));
    for _ in 0..20 {
        assert_eq!(proxy.get("/", &[]).await.header("x-version"), Some(version(0).as_str()));
    }
    let plugin = told(&proxy, "by-hand").await;
    assert_eq!((&plugin["last-load"]["stage"], plugin["canary"].is_null()), (&"taken-back".into(), true));
}

#[tokio::test]
async fn what_else_changes_leaves_it_as_it_is() {
    let origin = Origin::start().await;
    let rule = "{ weight = 0.5, for = \"1h\" }";
    let config = through(&origin, "unmoved", rule, MARKS);
    let proxy = trying(&config, "unmoved").await;
    let decided = |plugin: &serde_json::Value| {
        let canary = &plugin["canary"];
        canary["in-force"]["requests"].as_u64() >= Some(5)
            && canary["candidate"]["requests"].as_u64() >= Some(5)
    };
    ask_until(&proxy, "unmoved", "both to have decided", decided).await;
    let before = told(&proxy, "unmoved").await;

    proxy.drop_plugin("another", &guest());
    let elsewhere = format!("{config}[[routes]]\nmatch = {{ path = \"/other\" }}\nupstream = \"app\"\n");
    proxy.reload(&elsewhere).await.expect("the configuration is fine");
    // Its own settings hold for both versions.
    let own = elsewhere.replace(MARKS, &format!("{MARKS}, says = \"more\""));
    proxy.reload(&own.replace("0.5", "0.9")).await.expect("the configuration is fine");
    let after = told(&proxy, "unmoved").await;
    for key in ["digest", "since"] {
        assert_eq!(after["canary"][key], before["canary"][key], "{key}");
    }
    assert_eq!((after["digest"] == before["digest"], &after["canary"]["weight"]), (true, &0.9.into()));
    assert!(decided(&after), "{after}");

    // A newer file does take its place, and one that is no plugin ends it.
    try_version(&proxy, "unmoved", 2).await;
    let newer = told(&proxy, "unmoved").await;
    assert_ne!(newer["canary"]["digest"], before["canary"]["digest"]);
    assert_eq!(newer["canary"]["candidate"]["requests"], 0);
    proxy.drop_plugin("unmoved", b"nothing");
    proxy.reload_files().await.expect("what is in force stays");
    let ended = told(&proxy, "unmoved").await;
    assert_eq!((&ended["digest"], ended["canary"].is_null()), (&before["digest"], true));
    assert_eq!(ended["last-load"]["stage"], "component");

    // Without the key, a new version takes over at once.
    try_version(&proxy, "unmoved", 3).await;
    assert!(told(&proxy, "unmoved").await["canary"].is_object());
    proxy.reload(&own.replace("canary =", "# canary =")).await.expect("the configuration is fine");
    assert_eq!(proxy.get("/", &[]).await.header("x-version"), Some(version(3).as_str()));
}

#[tokio::test]
async fn an_end_that_cannot_be_put_in_force_holds_up_no_other() {
    let origin = Origin::start().await;
    let rule = "canary = { weight = 0.5, for = \"1h\" }\nconfig = { request-0001 = \"trap\" }";
    let route = |plugin: &str| {
        format!(
            "[[routes]]\nmatch = {{ path = \"/{plugin}\" }}\nupstream = \"app\"\nplugins = [\"{plugin}\"]\n"
        )
    };
    // This is the order in which they are judged.
    let config = format!(
        "[admin]\naddress = \"127.0.0.1:0\"\n[upstreams.app]\nendpoints = {}\n{}{}[plugins.b-next]\n{rule}\n",
        endpoints(&[&origin]),
        route("a-stuck"),
        route("b-next")
    );
    let proxy = Proxy::start_with(&config, &[("a-stuck", guest()), ("b-next", guest())]).await;
    // Settings beside the plugin: while they are damaged, what is in force and what is tried stay as they are.
    let beside = proxy.plugin_path("a-stuck").with_extension("toml");
    std::fs::write(&beside, rule).expect("a file can be written");
    proxy.reload_files().await.expect("the settings are fine");
    try_version(&proxy, "a-stuck", 1).await;
    try_version(&proxy, "b-next", 1).await;
    for plugin in ["a-stuck", "b-next"] {
        assert!(told(&proxy, plugin).await["canary"].is_object(), "{plugin}");
    }
    std::fs::write(&beside, "canary = ").expect("a file can be written");

    let generation = || proxy.server().snapshot().number;
    let before = generation();
    let until = async |path: &str, has_ended: &dyn Fn() -> bool| {
        soon("its end", async {
            while !has_ended() {
                proxy.get(path, &[]).await;
            }
        })
        .await;
    };
    until("/a-stuck", &|| !logged(&["a-stuck", "new version not used"]).is_empty()).await;
    assert!(told(&proxy, "a-stuck").await["canary"].is_object(), "its end is not in force");
    assert_eq!(generation(), before, "nothing has changed");
    until("/b-next", &|| generation() > before).await;
    assert!(told(&proxy, "b-next").await["canary"].is_null(), "the other was tried again first");
    // And it is tried again, with the settings mended.
    std::fs::write(&beside, rule).expect("a file can be written");
    soon("its end, once more", async { while told(&proxy, "a-stuck").await["canary"].is_object() {} }).await;
}

#[tokio::test]
async fn a_balancer_is_tried_as_well() {
    let (first, last) = (Origin::start().await, Origin::start().await);
    let config = |pick: &str| {
        format!(
            "[admin]
            address = \"127.0.0.1:0\"
            [upstreams.app]
            endpoints = {}
            balance = [\"picks\"]
            [[routes]]
            upstream = \"app\"
            [plugins.picks]
            canary = {{ weight = 0.5, for = \"1h\" }}
            config = {{ pick = \"first\", pick-0001 = \"last\", pick-0002 = \"{pick}\" }}
            ",
            endpoints(&[&first, &last])
        )
    };
    let proxy = trying(&config("trap"), "picks").await;
    let mut seen = std::collections::BTreeSet::new();
    soon("both to have picked", async {
        while seen.len() < 2 {
            seen.insert(proxy.get("/", &[]).await.text().to_owned());
        }
    })
    .await;
    try_version(&proxy, "picks", 2).await;
    let is_refused = |plugin: &serde_json::Value| plugin["last-load"]["stage"] == "canary";
    let answers = ask_until(&proxy, "picks", "it to be taken back", is_refused).await;
    // Another has picked in its place.
    assert!(answers.iter().all(|answer| answer.status == 200));
}

#[tokio::test]
async fn a_restart_begins_it_anew() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder can be made");
    let put = |number: u32| {
        let unfinished = folder.path().join("unfinished");
        std::fs::write(&unfinished, guest_version(number)).expect("a file can be written");
        std::fs::rename(unfinished, plugins.join("again.wasm")).expect("it can be moved");
    };
    put(0);
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let admin = port.expect("a port is free");
    let config = through(&origin, "again", "0.5", MARKS).replace("127.0.0.1:0", &admin.to_string());
    let config = format!("artifact-dir = \"kept\"\n{config}[[listeners]]\naddress = \"127.0.0.1:0\"\n");
    std::fs::write(folder.path().join("config.toml"), config).expect("a file can be written");
    let canary = async || {
        let mut client = tollgate_tests::Client::connect(admin).await;
        client.send("GET /api/plugins HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        client.response().await.json()["plugins"][0].clone()
    };
    let mut first = Executable::start(TOLLGATE, folder.path(), &["run"]);
    first.address().await;
    put(1);
    soon("it to be tried", async { while canary().await["canary"].is_null() {} }).await;
    let before = canary().await;
    first.signal(rustix::process::Signal::TERM);
    first.end().await;
    let second = Executable::start(TOLLGATE, folder.path(), &["run"]);
    second.address().await;
    let after = canary().await;
    assert_eq!(
        (&after["digest"], &after["canary"]["digest"]),
        (&before["digest"], &before["canary"]["digest"])
    );
}
