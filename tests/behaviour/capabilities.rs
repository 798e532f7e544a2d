//! What a plugin is granted, and what it makes of it.

use tollgate_tests::{Config, Origin, Proxy, endpoints, granted_guest, guest, logged};

/// Every request goes through a plugin of this name, which uses what it was granted as the request says.
fn config(origin: &Origin, plugin: &str, settings: &str) -> Config {
    Config::to(origin).plugin(plugin, &format!("file = \"granted\"\n{settings}"))
}

/// Of a store alone, the secrets are of no interest.
const STORE: &str = "grants = { store = true, secrets = { unused = { env = \"PATH\" } } }";

async fn start(origin: &Origin, plugin: &str, settings: &str) -> Proxy {
    Proxy::start_with(&config(origin, plugin, settings), &[("granted", granted_guest())]).await
}

/// The outcome of each of these commands.
async fn outcomes(proxy: &Proxy, commands: &str) -> Vec<String> {
    let response = proxy.get("/", &[&format!("x-do: {commands}")]).await;
    assert_eq!(response.status, 200, "{commands}");
    response.text().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn a_plugin_keeps_values_for_all_of_its_instances() {
    let origin = Origin::start().await;
    let proxy = start(&origin, "keeps", STORE).await;
    let commands = "get a; set a 1; get a; add a 41; swap a - 2; swap a 42 2; get a; delete a; get a";
    let expected = ["none", "ok", "1", "42", "false", "true", "2", "ok", "none"];
    assert_eq!(outcomes(&proxy, commands).await, expected);
    // Each on a connection of its own, so that both workers have their part.
    for number in 1..=20 {
        assert_eq!(outcomes(&proxy, "add n 1 60000").await, [number.to_string()]);
    }
    let commands = "take b 1 0.001 2; take b 1 0.001 2; take b 2 0.001 2; take b 3 0.001 2; get b; add b 1";
    let outcomes = outcomes(&proxy, commands).await;
    assert_eq!(outcomes[..2], ["passed", "passed"]);
    let wait = outcomes[2].strip_prefix("wait ").map(|wait| wait.parse::<u32>().expect("it is a number"));
    assert!(wait.is_some_and(|wait| (1_900_000..=2_000_000).contains(&wait)), "{outcomes:?}");
    assert_eq!(outcomes[3..], ["wait 4294967295", "wrong-kind", "wrong-kind"]);
}

#[tokio::test]
async fn what_a_plugin_keeps_outlives_its_instances_and_its_settings_and_is_its_own() {
    let origin = Origin::start().await;
    let proxy = start(&origin, "remembers", &format!("{STORE}\nlimits = {{ recycle-after = 1 }}")).await;
    assert_eq!(outcomes(&proxy, "set a 1; set b 2").await, ["ok", "ok"]);
    assert_eq!(outcomes(&proxy, "get a").await, ["1"]);
    let grants = STORE.replace("true", "{ entries = 2 }");
    proxy.reload(&config(&origin, "remembers", &grants)).await.expect("the configuration is fine");
    assert_eq!(outcomes(&proxy, "get a; set c 3; set a 4; get a").await, ["1", "full", "ok", "4"]);
    proxy.reload(&config(&origin, "another", STORE)).await.expect("the configuration is fine");
    assert_eq!(outcomes(&proxy, "get a").await, ["none"]);
}

#[tokio::test]
async fn a_plugin_keeps_no_more_than_it_was_granted() {
    let origin = Origin::start().await;
    let grants = STORE.replace("true", "{ memory = \"1MiB\", entries = 1000 }");
    let settings = format!("{grants}\nlimits = {{ time = \"10s\" }}");
    let proxy = start(&origin, "floods", &settings).await;
    assert_eq!(outcomes(&proxy, "flood 10; set a 1; get a").await, ["1000", "full", "none"]);
    assert_eq!(outcomes(&proxy, "long 300000; delete flood_").await, ["too-large", "ok"]);
    proxy.reload(&config(&origin, "floods-again", &settings)).await.expect("the configuration is fine");
    assert_eq!(outcomes(&proxy, "flood 100000; set a 1").await, ["10", "ok"]);
}

#[tokio::test]
async fn a_plugin_that_asks_for_more_than_it_was_granted_is_refused() {
    let origin = Origin::start().await;
    for (plugin, grants, refusal) in [
        (
            "asks-store",
            "",
            "imports `tollgate:policy/store` and `tollgate:policy/secret`, which it has not been granted: write \
             `grants = { store = true, secrets = { <name> = { env = \"<VARIABLE>\" } } }` under [plugins.asks-store]",
        ),
        ("asks-store-again", "grants = { store = false }", "imports `tollgate:policy/store` and "),
        (
            "asks-secret",
            "grants = { store = true }",
            "imports `tollgate:policy/secret`, which it has not been granted: \
             write `grants = { secrets = { <name> = { env = \"<VARIABLE>\" } } }` under [plugins.asks-secret]",
        ),
    ] {
        let config = config(&origin, plugin, grants);
        let error = Proxy::try_start_with(&config, &[("granted", granted_guest())]).await.err();
        let error = error.expect("the plugin is refused").to_string();
        assert!(error.contains(refusal) && error.contains("config.toml:"), "{error}");
    }
}

#[tokio::test]
async fn what_is_granted_in_vain_is_told() {
    let origin = Origin::start().await;
    let config = config(&origin, "asks-nothing", "grants = { store = true }");
    Proxy::start_with(&config, &[("granted", tollgate_tests::guest())]).await;
    assert_eq!(logged(&["granted, and the plugin does not import it", "asks-nothing", "store"]).len(), 1);
}

#[tokio::test]
async fn a_plugin_compares_and_signs_with_secrets_that_it_does_not_see() {
    let origin = Origin::start().await;
    let secrets =
        "grants = { store = true, secrets = { key = { file = \"key\" }, path = { env = \"PATH\" } } }";
    let config = config(&origin, "uses-secrets", secrets);
    let files = &[("granted", granted_guest())];
    let error = Proxy::try_start_with(&config, files).await.err().expect("there is no file yet").to_string();
    assert!(error.contains("the secret `key` is not there: cannot read "), "{error}");
    assert!(error.contains("{ file = \"key\" }"), "its place is shown: {error}");

    let proxy = start(&origin, "uses-secrets", STORE).await;
    std::fs::write(proxy.folder().join("key"), "Jefe\n").expect("a file can be written");
    proxy.reload(&config).await.expect("the configuration is fine");
    let commands = "verify key Jefe; verify key jefe; verify other Jefe; sign key what; sign other what";
    let signature = "1df7fcdee0058f5cd839a52835ec6a8a89c88935198d2725c668b0a601558445";
    assert_eq!(outcomes(&proxy, commands).await, ["true", "false", "false", signature, "none"]);

    std::fs::write(proxy.folder().join("key"), "another").expect("a file can be written");
    assert_eq!(outcomes(&proxy, "verify key Jefe").await, ["true"], "until the next reload");
    proxy.reload_files().await.expect("the configuration is fine");
    assert_eq!(outcomes(&proxy, "verify key Jefe; verify key another").await, ["false", "true"]);

    std::fs::remove_file(proxy.folder().join("key")).expect("a file can be removed");
    proxy.reload_files().await.expect("what was loaded stays in force");
    assert_eq!(outcomes(&proxy, "verify key another").await, ["true"]);
}

#[tokio::test]
async fn what_the_host_does_at_length_is_time_of_the_call() {
    let origin = Origin::start().await;
    // More than any machine digests in the time of a call.
    let settings = "config = { once = \"prepare 50331648\" }
        limits = { memory = \"64MiB\" }
        grants = { store = true, secrets = { path = { env = \"PATH\" } } }";
    let config = format!("workers = 1\n{}", config(&origin, "digests", settings));
    let proxy = Proxy::start_with(&config, &[("granted", granted_guest())]).await;
    for command in ["verify-prepared path", "sign-prepared path"] {
        let before = logged(&["request failed", "digests", "ran longer than 10 ms"]).len();
        assert_eq!(proxy.get("/", &[&format!("x-do: {command}")]).await.status, 503, "{command}");
        assert_eq!(
            logged(&["request failed", "digests", "ran longer than 10 ms"]).len(),
            before + 1,
            "{command}"
        );
        assert_eq!(outcomes(&proxy, "get a").await, ["none"], "the plugin works again");
    }
    // What is not there is not digested.
    assert_eq!(outcomes(&proxy, "verify-prepared other; sign-prepared other").await, ["false", "false"]);
}

#[tokio::test]
async fn a_plugin_sends_requests_to_its_routes_upstream_and_to_those_that_it_was_granted() {
    let (app, beta, internal) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let config = |settings: &str| {
        format!(
            "[upstreams]
            app.endpoints = {}
            beta.endpoints = {}
            internal.endpoints = {}
            [[routes]]
            upstream = \"app\"
            plugins = [\"sends-elsewhere\"]
            [[routes]]
            match = {{ path = \"/internal\" }}
            upstream = \"internal\"
            [plugins.sends-elsewhere]
            file = \"guest\"
            config = {{ request = \"forward\" }}
            {settings}
            ",
            endpoints(&[&app]),
            endpoints(&[&beta]),
            endpoints(&[&internal]),
        )
    };
    let granted = "grants = { upstreams = [\"beta\"] }";
    let proxy = Proxy::start_with(&config(granted), &[("guest", guest())]).await;
    for (upstream, status) in [("app", 200), ("beta", 200), ("internal", 503), ("nowhere", 503)] {
        assert_eq!(proxy.get("/", &[&format!("x-says: {upstream}")]).await.status, status, "{upstream}");
    }
    assert_eq!((app.received().len(), beta.received().len(), internal.received().len()), (1, 1, 0));
    let words = [
        "sends-elsewhere",
        "the upstream `internal`, which it has not been granted",
        "write grants = { upstreams = [",
    ];
    assert!(!logged(&words).is_empty(), "{:?}", logged(&["sends-elsewhere"]));

    proxy.reload(&config("fail = \"open\"")).await.expect("the configuration is fine");
    assert_eq!(proxy.get("/", &["x-says: beta"]).await.text(), app.port(), "on without the plugin");
    let error = proxy.reload(&config("grants = { upstreams = [\"betta\"] }")).await.expect_err("a slip");
    let error = error.to_string();
    assert!(error.contains("there is no such upstream") && error.contains("did you mean `beta`?"), "{error}");
}

#[tokio::test]
async fn the_shipped_router_is_granted_what_its_rules_name_or_refused() {
    let origin = Origin::start().await;
    let config = |settings: &str| {
        format!(
            "upstreams = {{ stable.endpoints = {0}, beta.endpoints = {0} }}
            [[routes]]
            upstream = \"stable\"
            plugins = [\"router\"]
            [plugins.router]
            config.rules = [{{ header = {{ x-beta = \"1\" }}, upstream = \"beta\" }}, {{ path = \"/\", upstream = \"stable\" }}]
            {settings}
            ",
            endpoints(&[&origin])
        )
    };
    let error = Proxy::try_start_with(&config(""), &[]).await.err().expect("it is refused").to_string();
    assert!(
        error.contains("the plugin `router` sends requests to upstreams that it has not been granted"),
        "{error}"
    );
    assert!(error.contains("write grants = { upstreams = [\"beta\"] } under [plugins.router]"), "{error}");
    let proxy = Proxy::start_with(&config("grants.upstreams = [\"beta\"]"), &[]).await;
    assert_eq!(proxy.get("/", &["x-beta: 1"]).await.status, 200);
}
