//! A candidate that is shown what a plugin is shown, without effect.

use serde_json::Value;
use tollgate_tests::{
    Config, Origin, Proxy, granted_guest, guest, guest_version, logged, shipped, soon, until, waiting_guest,
};

/// A route through the plugin `live`, with a candidate in its shadow.
fn through(origin: &Origin, settings: &str) -> String {
    let config =
        Config::to(origin).admin().table("upstreams.other", &format!("endpoints = [{:?}]", origin.url()));
    config.route("shadow = \"live@candidate.wasm\"").plugin("live", settings).toml()
}

/// With version 0 of the guest in force, and version 1 in its shadow.
async fn shadowed(origin: &Origin, config: &str) -> Proxy {
    let settings = format!("config = {{ {config} }}");
    let files = [("live", guest()), ("candidate", guest_version(1))];
    Proxy::start_with(&through(origin, &settings), &files).await
}

/// What is told of the candidate.
async fn told(proxy: &Proxy) -> Value {
    let plugins = proxy.told("/api/plugins").await["plugins"].clone();
    let plugins = plugins.as_array().expect("it is a list");
    assert_eq!(plugins.len(), 1, "the candidate is no plugin of its own");
    plugins[0]["shadows"]["candidate.wasm"].clone()
}

#[tokio::test]
async fn what_a_candidate_decides_otherwise_is_counted_and_has_no_effect() {
    let origin = Origin::start().await;
    let config =
        "request = \"header\", request-0001 = \"reply-error\", response = \"mark-version\", says = \"here\"";
    let proxy = shadowed(&origin, config).await;
    for _ in 0..5 {
        let answer = proxy.get("/", &[]).await;
        assert_eq!((answer.status, answer.header("x-version")), (200, Some("guest-version-0000")));
        assert_eq!(origin.last().values("x-guest"), ["here"]);
    }
    let candidate = told(&proxy).await;
    assert_eq!((&candidate["calls"], &candidate["different"]), (&10.into(), &10.into()), "{candidate}");
    let differences = &candidate["differences"];
    assert_eq!(differences["on-request"]["verdict"], 5, "{candidate}");
    assert_eq!(differences["on-response"]["headers"], 5, "{candidate}");
    let labels = [("plugin", "live"), ("candidate", "candidate.wasm")];
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("tollgate_shadow_calls_total", &labels), 10.0);
    assert_eq!(metrics.sum("tollgate_shadow_differences_total", &labels), 10.0);
    // Its calls are not the plugin's.
    assert_eq!(metrics.sum("tollgate_plugin_calls_total", &[("plugin", "live")]), 10.0);
    let words = "the candidate decides otherwise: verdict: next, and the candidate reply 503";
    assert!(!logged(&[words]).is_empty());
    assert!(!logged(&["the candidate decides otherwise: headers: x-version"]).is_empty());
}

#[tokio::test]
async fn a_candidate_sees_what_the_plugin_saw() {
    let origin = Origin::start().await;
    let config = "request = \"mark\", response = \"mark\", says = \"seen\"";
    let proxy = shadowed(&origin, config).await;
    for _ in 0..5 {
        let answer = proxy.get("/", &[]).await;
        assert_eq!((origin.last().values("x-mark"), answer.values("x-mark")), (vec!["seen"], vec!["seen"]));
    }
    let candidate = told(&proxy).await;
    assert_eq!((&candidate["calls"], &candidate["different"]), (&10.into(), &0.into()), "{candidate}");
}

#[tokio::test]
async fn every_kind_of_difference_is_told_apart() {
    let origin = Origin::start().await;
    for (config, hook, kind) in [
        ("request-0001 = \"target\", says = \"/elsewhere\"", "on-request", "target"),
        ("request-0001 = \"note\", says = \"a\"", "on-request", "notes"),
        ("request-0001 = \"header\", says = \"a\"", "on-request", "headers"),
        ("request-0001 = \"forward\", says = \"other\"", "on-request", "verdict"),
        ("request = \"version\"", "on-request", "body"),
        ("request = \"reply\", request-0001 = \"reply-error\"", "on-request", "status"),
        ("response-0001 = \"status\"", "on-response", "status"),
        ("response-0001 = \"reply\"", "on-response", "verdict"),
    ] {
        let proxy = shadowed(&origin, config).await;
        let answer = proxy.get("/here", &[]).await;
        assert!([200, 418].contains(&answer.status), "{config}: {answer:?}");
        let candidate = told(&proxy).await;
        assert_eq!(candidate["differences"][hook][kind], 1, "{config}: {candidate}");
    }
    assert!(origin.received().iter().all(|request| request.target == "/here"));
}

#[tokio::test]
async fn a_candidate_may_fail_as_it_will() {
    let origin = Origin::start().await;
    for (behaviour, kind) in [("trap", "trap"), ("loop", "deadline"), ("grow", "memory")] {
        let config = format!("request-0001 = \"{behaviour}\", response-0001 = \"{behaviour}\"");
        let proxy = shadowed(&origin, &config).await;
        for _ in 0..40 {
            assert_eq!(proxy.get("/", &[]).await.status, 200, "{behaviour}");
        }
        let candidate = told(&proxy).await;
        let (failed, left_alone) = (&candidate["failures"][kind], &candidate["failures"]["breaker"]);
        assert!(failed.as_u64() > Some(0) && left_alone.as_u64() > Some(0), "{behaviour}: {candidate}");
        let plugin = proxy.told("/api/plugins").await["plugins"][0].clone();
        assert_eq!((&plugin["failures"][kind], &plugin["breaker"]["opened"]), (&0.into(), &0.into()));
    }
}

#[tokio::test]
async fn what_a_candidate_keeps_logs_and_counts_is_its_own() {
    let origin = Origin::start().await;
    let grants = "grants = { store = true, secrets = { unused = { env = \"PATH\" } } }";
    let files = [("live", granted_guest()), ("candidate", granted_guest())];
    let proxy = Proxy::start_with(&through(&origin, grants), &files).await;
    for expected in ["1", "2", "3"] {
        assert_eq!(proxy.get("/", &["X-Do: add n 1"]).await.text(), expected);
    }
    let candidate = told(&proxy).await;
    assert_eq!((&candidate["calls"], &candidate["different"]), (&3.into(), &0.into()), "{candidate}");
    // What it keeps, it keeps over a reload as the plugin does.
    proxy.reload_files().await.expect("the configuration is fine");
    assert_eq!(proxy.get("/", &["X-Do: add n 1"]).await.text(), "4");
    assert_eq!(told(&proxy).await["different"], 0);

    let says = "says = \"somebody in the shadow\"";
    let proxy = shadowed(&origin, &format!("request = \"count\", response-0001 = \"log\", {says}")).await;
    for number in 0..3 {
        assert_eq!(proxy.get("/", &[]).await.json()["sequence"], number);
    }
    assert!(logged(&["somebody in the shadow was here"]).is_empty());
    let proxy = shadowed(&origin, "request-0001 = \"metrics\"").await;
    proxy.get("/", &[]).await;
    let plugin = proxy.told("/api/plugins").await["plugins"][0].clone();
    assert_eq!(plugin["metrics"], serde_json::json!({}));
}

#[tokio::test]
async fn a_candidate_that_reads_bodies_is_shown_those_that_the_plugin_has_read() {
    let origin = Origin::start().await;
    let settings =
        "grants = { body = true }\nconfig = { schema = { type = \"object\", required = [\"id\"] } }";
    let post = |body: &str| {
        let head = "POST / HTTP/1.1\r\nHost: test\r\nContent-Type: application/json\r\n";
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let files = [("live", shipped("request-schema")), ("candidate", shipped("request-schema"))];
    let proxy = Proxy::start_with(&through(&origin, settings), &files).await;
    for (body, status) in [("{\"id\":1}", 200), ("{}", 422), ("{", 400)] {
        assert_eq!(proxy.request(&post(body)).await.status, status, "{body}");
    }
    assert_eq!(origin.last().body, b"{\"id\":1}");
    let candidate = told(&proxy).await;
    let counted = ["calls", "different", "missed"].map(|key| candidate[key].as_u64());
    assert_eq!(counted, [Some(3), Some(0), Some(0)], "{candidate}");

    // Nothing is read for a candidate alone, and what it says without is not compared.
    let files = [("live", guest()), ("candidate", shipped("request-schema"))];
    let proxy = Proxy::start_with(&through(&origin, settings), &files).await;
    assert_eq!(proxy.request(&post("{}")).await.status, 200);
    let candidate = told(&proxy).await;
    let counted = ["calls", "different", "missed"].map(|key| candidate[key].as_u64());
    // The call that counts is that for the response, where it has no hook.
    assert_eq!(counted, [Some(1), Some(0), Some(1)], "{candidate}");
    let labels = [("plugin", "live"), ("candidate", "candidate.wasm")];
    assert_eq!(proxy.metrics().await.sum("tollgate_shadow_missed_total", &labels), 1.0);
}

#[tokio::test]
async fn what_cannot_stand_in_the_shadow_is_told() {
    let origin = Origin::start().await;
    let config = through(&origin, "config = { request-0001 = \"header\" }");
    let start = async |config: &str, candidate: Vec<u8>| {
        let files = [("live", guest()), ("candidate", candidate)];
        match Proxy::try_start_with(config, &files).await {
            Ok(_) => panic!("it starts"),
            Err(error) => error.to_string(),
        }
    };
    for (written, message) in [
        ("live@nowhere.wasm", "there is no file"),
        ("other@candidate.wasm", "this route has no plugin of this name"),
        ("live", "such as \"limiter@candidate.wasm\""),
        ("live@../candidate.wasm", "such as \"limiter@candidate.wasm\""),
    ] {
        let error = start(&config.replace("live@candidate.wasm", written), guest()).await;
        assert!(error.contains(message), "{written}: {error}");
    }
    let error = start(&config, waiting_guest()).await;
    assert!(error.contains("asked once more for a candidate"), "{error}");
    let error = start(&config, granted_guest()).await;
    assert!(error.contains("which it has not been granted"), "{error}");

    // While it runs, what is there stays, and what can be shown something comes.
    let proxy = Proxy::start_with(&config, &[("live", guest()), ("candidate", guest())]).await;
    proxy.watch();
    proxy.drop_plugin("candidate", b"nothing");
    until("it to be refused", || !logged(&["new candidate not used", "candidate.wasm"]).is_empty()).await;
    proxy.get("/", &[]).await;
    assert_eq!((&told(&proxy).await["calls"], &told(&proxy).await["different"]), (&2.into(), &0.into()));
    proxy.drop_plugin("candidate", &guest_version(1));
    soon("another candidate", async {
        while told(&proxy).await["different"] == 0 {
            proxy.get("/", &[]).await;
        }
    })
    .await;
}
