//! What has to be true of a plugin before it serves, and how one comes back that did before.

use aws_lc_rs::{
    digest::{SHA256, digest},
    signature::{Ed25519KeyPair, KeyPair},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use tollgate_tests::{
    Config, Executable, Origin, Proxy, endpoints, granted_guest, guest, guest_version, logged, soon, until,
};

use crate::TOLLGATE;

/// A route through a plugin of this name, which tells its version.
fn through(origin: &Origin, plugin: &str, settings: &str) -> String {
    tollgate_tests::through(origin, plugin, &format!("config = {{ request = \"version\" }}\n{settings}"))
}

async fn watched(origin: &Origin, plugin: &str, settings: &str) -> Proxy {
    let proxy = Proxy::start_with(&through(origin, plugin, settings), &[(plugin, guest())]).await;
    proxy.watch();
    proxy
}

fn version(number: u32) -> String {
    format!("guest-version-{number:04}")
}

/// Waits until the proxy answers with this version.
async fn answers(proxy: &Proxy, number: u32) {
    let wanted = version(number);
    soon(&wanted, async { while proxy.get("/", &[]).await.text() != wanted {} }).await;
}

/// Writes a file beside the plugins.
fn write(proxy: &Proxy, name: &str, content: impl AsRef<[u8]>) {
    let unfinished = proxy.folder().join("unfinished");
    std::fs::write(&unfinished, content).expect("a file can be written");
    std::fs::rename(unfinished, proxy.folder().join("plugins").join(name)).expect("a file can be renamed");
}

/// What the admin API says of the only plugin.
async fn told(proxy: &Proxy) -> serde_json::Value {
    proxy.told("/api/plugins").await["plugins"][0].clone()
}

async fn loads(proxy: &Proxy, plugin: &str, outcome: &str) -> f64 {
    let labels = [("plugin", plugin), ("outcome", outcome)];
    proxy.metrics().await.sum("tollgate_plugin_loads_total", &labels)
}

/// Waits until what lies there has been refused, and says why.
async fn refused(proxy: &Proxy, stage: &str) -> String {
    let mut reason = String::new();
    soon(stage, async {
        loop {
            let load = told(proxy).await["last-load"].clone();
            if load["outcome"] == "refused" && load["stage"] == stage {
                reason = load["reason"].as_str().expect("it has a reason").to_owned();
                break;
            }
        }
    })
    .await;
    reason
}

/// Tests that expect this version to answer.
fn tests(number: u32) -> String {
    let expected = version(number);
    format!(
        "config = {{ request = \"version\" }}
        [[case]]
        name = \"it tells its version\"
        request = {{ path = \"/\" }}
        expect = {{ verdict = \"reply\", reply = {{ body = \"{expected}\" }} }}
        "
    )
}

#[tokio::test]
async fn a_version_that_fails_the_tests_beside_it_does_not_serve() {
    let origin = Origin::start().await;
    let proxy = watched(&origin, "tested", "").await;
    write(&proxy, "tested.test.toml", tests(0));
    soon("the tests to have passed", async { while told(&proxy).await["tests-passed"] != 1 {} }).await;

    proxy.drop_plugin("tested", &guest_version(1));
    let reason = refused(&proxy, "tests").await;
    assert_eq!(
        reason,
        "it fails its tests: it tells its version: reply.body is \"guest-version-0001\", \
         and was to be \"guest-version-0000\""
    );
    assert_eq!(proxy.get("/", &[]).await.text(), version(0));
    assert!(!logged(&["new version not used", "tested", "it fails its tests"]).is_empty());
    assert!(loads(&proxy, "tested", "tests").await >= 1.0);

    write(&proxy, "tested.test.toml", tests(1));
    answers(&proxy, 1).await;
    assert_eq!(told(&proxy).await["last-load"]["outcome"], "in-force");
    // Counted once every worker has it.
    soon("it to be counted", async { while loads(&proxy, "tested", "in-force").await != 2.0 {} }).await;

    // Tests count from when they are written, also for what serves.
    write(&proxy, "tested.test.toml", tests(2));
    refused(&proxy, "tests").await;
    write(&proxy, "tested.test.toml", "[[case]]\nnam = 1\n");
    until("tests that cannot be read", || !logged(&["tested", "its tests cannot be read"]).is_empty()).await;
    answers(&proxy, 1).await;
}

#[tokio::test]
async fn a_proxy_does_not_start_with_a_plugin_that_fails_its_tests() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder can be made");
    std::fs::write(plugins.join("failing.wasm"), guest()).expect("a file can be written");
    std::fs::write(plugins.join("failing.test.toml"), tests(7)).expect("a file can be written");
    let config = through(&origin, "failing", "") + "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("config.toml"), config).expect("a file can be written");
    let mut check = Executable::start(TOLLGATE, folder.path(), &["check"]);
    let (status, _, errors) = check.end().await;
    assert_eq!(status.code(), Some(2));
    assert!(errors.contains("it fails its tests: it tells its version"), "{errors}");
}

#[tokio::test]
async fn a_file_that_is_too_large_or_takes_too_long_is_not_loaded() {
    let origin = Origin::start().await;
    let config = through(&origin, "costly", "");
    let proxy = watched(&origin, "costly", "").await;
    proxy.write_config(&format!("limits = {{ plugin-size = \"1KiB\" }}\n{config}"));
    let reason = refused(&proxy, "file").await;
    assert!(reason.contains("costly.wasm is larger than 1.0 KiB"), "{reason}");
    // A version that nobody has compiled before.
    let unknown = 1000 + unlikely_before(8000);
    proxy.write_config(&format!("limits = {{ plugin-compile = \"1ms\" }}\n{config}"));
    proxy.drop_plugin("costly", &guest_version(unknown));
    let reason = refused(&proxy, "component").await;
    assert!(reason.contains("took longer than 0.001 s"), "{reason}");
    assert_eq!(proxy.get("/", &[]).await.text(), version(0));
    // What has been compiled meanwhile is found by a reload that waits.
    proxy.reload(&config).await.expect("the configuration is fine");
    assert_eq!(proxy.get("/", &[]).await.text(), version(unknown));
}

/// A number that another run is not likely to have had.
fn unlikely_before(most: u32) -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("it is after 1970");
    now.subsec_micros() % most
}

#[tokio::test]
async fn two_dropped_files_put_a_policy_on_all_routes() {
    let origin = Origin::start().await;
    let config = Config::to(&origin).admin().toml();
    let proxy = Proxy::start(&config).await;
    proxy.watch();
    assert_eq!(proxy.get("/", &[]).await.text(), origin.port());
    let settings = "routes = \"all\"\nconfig = { request = \"version\" }\n";
    write(&proxy, "everywhere.toml", settings);
    proxy.drop_plugin("everywhere", &guest());
    answers(&proxy, 0).await;
    proxy.drop_plugin("everywhere", &guest_version(1));
    answers(&proxy, 1).await;

    // What is wrong with either file leaves what serves.
    write(&proxy, "everywhere.toml", "routes = \"some\"\n");
    let reason = refused(&proxy, "settings").await;
    assert!(reason.contains("everywhere.toml:1: expected `all`"), "{reason}");
    write(&proxy, "everywhere.toml", settings.replace("version\"", "version\", configure = \"refuse\""));
    refused(&proxy, "configure").await;
    assert_eq!(proxy.get("/", &[]).await.text(), version(1));
    write(&proxy, "everywhere.toml", settings);
    soon("peace", async { while told(&proxy).await["last-load"]["outcome"] != "in-force" {} }).await;
    std::fs::remove_file(proxy.plugin_path("everywhere")).expect("the file was there");
    let reason = refused(&proxy, "file").await;
    assert!(reason.contains("there is no file"), "{reason}");
    assert_eq!(proxy.get("/", &[]).await.text(), version(1));

    // It has a table in the configuration as well: which one is meant?
    proxy.write_config(&format!("{config}[plugins.everywhere]\n"));
    until("two tables", || !logged(&["[plugins.everywhere], and", "remove one of them"]).is_empty()).await;
    assert_eq!(proxy.get("/", &[]).await.text(), version(1));
    proxy.write_config(&config);

    std::fs::remove_file(proxy.folder().join("plugins/everywhere.toml")).expect("the file was there");
    soon("no policy", async { while proxy.get("/", &[]).await.text() != origin.port() {} }).await;
}

#[tokio::test]
async fn a_file_that_settings_beside_a_plugin_name_is_watched() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&Config::to(&origin)).await;
    proxy.watch();
    std::fs::write(proxy.folder().join("token"), "one").expect("a file can be written");
    let grants = "grants = { store = true, secrets = { token = { file = \"token\" } } }";
    write(&proxy, "secretive.toml", format!("routes = \"all\"\n{grants}\n"));
    proxy.drop_plugin("secretive", &granted_guest());
    let is = async |token: &str| {
        let command = format!("X-Do: verify token {token}");
        soon(token, async { while proxy.get("/", &[&command]).await.text() != "true" {} }).await;
    };
    is("one").await;
    std::fs::write(proxy.folder().join("token"), "two").expect("a file can be written");
    is("two").await;
}

#[tokio::test]
async fn a_table_can_put_a_plugin_on_all_routes_too_before_those_that_a_route_names() {
    let origin = Origin::start().await;
    let config = format!(
        "[upstreams.app]
        endpoints = {}
        [[routes]]
        upstream = \"app\"
        [[routes]]
        match = {{ path = \"/named\" }}
        upstream = \"app\"
        plugins = [\"second\", \"first\"]
        [plugins.first]
        file = \"guest\"
        routes = \"all\"
        config = {{ request = \"mark\", says = \"first\" }}
        [plugins.second]
        file = \"guest\"
        config = {{ request = \"mark\", says = \"second\" }}
        [plugins.third]
        file = \"guest\"
        routes = \"all\"
        config = {{ request = \"mark\", says = \"third\" }}
        ",
        endpoints(&[&origin])
    );
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    for (path, marks) in [("/", ["first", "third"].as_slice()), ("/named", &["third", "second", "first"])] {
        proxy.get(path, &[]).await;
        assert_eq!(origin.last().values("x-mark"), marks, "{path}");
    }
    let useless = config.replace("\"guest\"", "\"random\"").replace("config = ", "# ");
    let error = proxy.reload(&useless).await.expect_err("a balancer is on no route").to_string();
    assert!(error.contains("has no hook for requests or responses"), "{error}");
}

#[tokio::test]
async fn only_what_was_asked_for_is_loaded() {
    let origin = Origin::start().await;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let digest_of = |component: &[u8]| hex(digest(&SHA256, component).as_ref());
    let pinned = format!("sha256 = \"{}\"", digest_of(&guest()));
    let proxy = watched(&origin, "asked-for", &pinned).await;
    proxy.drop_plugin("asked-for", &guest_version(1));
    let reason = refused(&proxy, "trust").await;
    assert!(reason.contains(&format!("its SHA-256 is {}", digest_of(&guest_version(1)))), "{reason}");
    proxy.write_config(&through(
        &origin,
        "asked-for",
        &format!("sha256 = \"{}\"", digest_of(&guest_version(1))),
    ));
    answers(&proxy, 1).await;

    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("any seed is a key");
    let key = STANDARD.encode(pair.public_key());
    let signature = |component: &[u8]| STANDARD.encode(pair.sign(component));
    // By a key of its own table, with the signature there or beside it.
    let signed = format!("public-key = \"{key}\"\nsignature = \"{}\"", signature(&guest_version(1)));
    proxy.reload(&through(&origin, "asked-for", &signed)).await.expect("it is signed");
    let beside = through(&origin, "asked-for", &format!("public-key = \"{key}\""));
    let error = proxy.reload(&beside).await.expect_err("there is no signature").to_string();
    assert!(error.contains("a signature is asked for, and there is none"), "{error}");
    write(&proxy, "asked-for.wasm.sig", signature(&guest_version(1)) + "\n");
    proxy.reload(&beside).await.expect("it is signed");

    // By keys for all that lies there, settings beside a plugin too.
    let all = format!("plugin-keys = [\"{key}\"]\n{}", through(&origin, "asked-for", ""));
    proxy.reload(&all).await.expect("it is signed");
    proxy.drop_plugin("asked-for", &guest_version(2));
    let reason = refused(&proxy, "trust").await;
    assert!(reason.contains("it was not signed by whoever is to sign it"), "{reason}");
    assert_eq!(proxy.get("/", &[]).await.text(), version(1));
    write(&proxy, "asked-for.wasm.sig", signature(&guest_version(2)));
    answers(&proxy, 2).await;
    let settings = "routes = \"all\"\nconfig = { request = \"mark\" }\n";
    write(&proxy, "stranger.wasm.sig", signature(&guest()));
    proxy.drop_plugin("stranger", &guest());
    write(&proxy, "stranger.toml", settings);
    until("settings of nobody", || {
        !logged(&["stranger.toml is not trusted", "a signature is asked for"]).is_empty()
    })
    .await;
    write(&proxy, "stranger.toml.sig", signature(settings.as_bytes()));
    let is_in_force = async || {
        let plugins = proxy.told("/api/plugins").await["plugins"].clone();
        plugins.as_array().is_some_and(|plugins| plugins.iter().any(|plugin| plugin["name"] == "stranger"))
    };
    soon("it to be in force", async { while !is_in_force().await {} }).await;
}

/// The digest of a version in force or not, as the admin API tells it.
fn digests(plugin: &serde_json::Value) -> Vec<(String, bool)> {
    let versions = plugin["versions"].as_array().expect("it has versions");
    let tell = |version: &serde_json::Value| {
        (version["digest"].as_str().expect("it has a digest").to_owned(), version["is-taken-back"] == true)
    };
    versions.iter().map(tell).collect()
}

#[tokio::test]
async fn a_version_is_taken_back_and_the_one_before_serves_again() {
    let origin = Origin::start().await;
    let proxy = watched(&origin, "back", "").await;
    let roll_back = "/api/plugins/back/rollback";
    assert_eq!(proxy.admin("POST", "/api/plugins/nobody/rollback", &[]).await.status, 404);
    let nothing = proxy.admin("POST", roll_back, &[]).await;
    assert_eq!(nothing.status, 409, "{nothing:?}");
    assert!(nothing.text().contains("there is none to go back to"), "{nothing:?}");

    for number in [1, 2] {
        proxy.drop_plugin("back", &guest_version(number));
        answers(&proxy, number).await;
    }
    // A version is kept once it serves.
    soon("three versions", async { while digests(&told(&proxy).await).len() < 3 {} }).await;
    for number in [1, 0] {
        let answer = proxy.admin("POST", roll_back, &[]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        // It is so for whoever asks after the answer.
        assert_eq!(proxy.get("/", &[]).await.text(), version(number));
        let plugin = told(&proxy).await;
        assert_eq!(plugin["digest"], answer.json()["to"]);
        assert_eq!(plugin["last-load"]["stage"], "taken-back", "{plugin}");
        assert!(digests(&plugin).contains(&(answer.json()["from"].as_str().expect("one").to_owned(), true)));
    }
    assert_eq!(proxy.admin("POST", roll_back, &[]).await.status, 409);
    // A reload does not bring it back, nor the file anew.
    proxy.reload_files().await.expect("the configuration is fine");
    proxy.drop_plugin("back", &guest_version(1));
    proxy.reload_files().await.expect("the configuration is fine");
    assert_eq!(proxy.get("/", &[]).await.text(), version(0));
    // Another does.
    proxy.drop_plugin("back", &guest_version(3));
    answers(&proxy, 3).await;

    proxy.drop_plugin("back", &guest_version(2));
    refused(&proxy, "taken-back").await;
    assert_eq!(proxy.get("/", &[]).await.text(), version(3));
    let answer = proxy.admin("DELETE", roll_back, &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(proxy.get("/", &[]).await.text(), version(2));
    assert_eq!(proxy.admin("DELETE", roll_back, &[]).await.status, 409);
}

#[tokio::test]
async fn a_version_that_cannot_serve_again_leaves_the_one_in_force() {
    let origin = Origin::start().await;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let proxy = watched(&origin, "no-way-back", "").await;
    proxy.drop_plugin("no-way-back", &guest_version(1));
    answers(&proxy, 1).await;
    let pinned = format!("sha256 = \"{}\"", hex(digest(&SHA256, &guest_version(1)).as_ref()));
    proxy.reload(&through(&origin, "no-way-back", &pinned)).await.expect("it is what is asked for");
    let answer = proxy.admin("POST", "/api/plugins/no-way-back/rollback", &[]).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    assert!(answer.text().contains("cannot serve again"), "{answer:?}");
    assert_eq!(proxy.get("/", &[]).await.text(), version(1));
    assert_eq!(told(&proxy).await["last-load"]["outcome"], "in-force");
    assert_eq!(logged(&["no-way-back", "rollback refused"]).len(), 1);
    assert_eq!(logged(&["no-way-back", "serves in its place"]), [""; 0], "nothing of that is so");
    proxy.reload_files().await.expect("the configuration is fine");
    assert_eq!(told(&proxy).await["last-load"]["outcome"], "in-force");
}

#[tokio::test]
async fn what_was_taken_back_stays_so_after_a_restart() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder can be made");
    let put = |number: u32| {
        std::fs::write(folder.path().join("unfinished"), guest_version(number))
            .expect("a file can be written");
        std::fs::rename(folder.path().join("unfinished"), plugins.join("lasting.wasm"))
            .expect("it can be moved");
    };
    put(0);
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
    let admin = port.expect("a port is free").to_string();
    let config = through(&origin, "lasting", "").replace("127.0.0.1:0", &admin);
    let config = format!("artifact-dir = \"kept\"\n{config}[[listeners]]\naddress = \"127.0.0.1:0\"\n");
    std::fs::write(folder.path().join("config.toml"), config).expect("a file can be written");

    let run = || Executable::start(TOLLGATE, folder.path(), &["run"]);
    let answers = async |proxy: &Executable, number: u32| {
        let (address, wanted) = (proxy.address().await, version(number));
        let ask = async || {
            let mut client = tollgate_tests::Client::connect(address).await;
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
            client.response().await.text().to_owned()
        };
        soon(&wanted, async { while ask().await != wanted {} }).await;
    };
    let mut first = run();
    answers(&first, 0).await;
    put(1);
    answers(&first, 1).await;
    let url = format!("http://{admin}");
    let tell = async |arguments: &[&str]| {
        let arguments = [&["plugin", "rollback", "lasting", "--admin", &url], arguments].concat();
        Executable::start(TOLLGATE, folder.path(), &arguments).end().await
    };
    let (status, output, errors) = tell(&[]).await;
    assert!(status.success() && output.starts_with("lasting: version "), "{output}{errors}");
    answers(&first, 0).await;
    first.signal(rustix::process::Signal::TERM);
    first.end().await;

    let second = run();
    answers(&second, 0).await;
    assert!(!second.lines(&["was rolled back", "lasting"]).is_empty());
    let (status, _, errors) = tell(&[]).await;
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("there is none to go back to"), "{errors}");
    let (status, _, errors) = tell(&["--undo"]).await;
    assert!(status.success(), "{errors}");
    answers(&second, 1).await;
}

/// A key for `plugin-keys`, and what signs with it. Each test has a key of its own, since signatures are kept on disk by
/// the digest of a component that tests share.
fn signer(seed: u8) -> (String, impl Fn(&[u8]) -> String) {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).expect("any seed is a key");
    (STANDARD.encode(pair.public_key()), move |content: &[u8]| STANDARD.encode(pair.sign(content)))
}

#[tokio::test]
async fn a_version_that_comes_back_must_be_signed_as_any_other() {
    let origin = Origin::start().await;
    let (key, sign) = signer(21);
    let config = through(&origin, "signed-back", "");
    let proxy = Proxy::start_with(&config, &[("signed-back", guest())]).await;
    // From now on only what is signed is to serve, which the version in force is not.
    let keyed = format!("plugin-keys = [\"{key}\"]\n{config}");
    let error = proxy.reload(&keyed).await.expect_err("what serves is not signed").to_string();
    assert!(error.contains("signed-back.wasm is not trusted: a signature is asked for"), "{error}");
    let put = |number: u32| {
        write(&proxy, "signed-back.wasm.sig", sign(&guest_version(number)));
        proxy.drop_plugin("signed-back", &guest_version(number));
    };
    put(1);
    proxy.reload(&keyed).await.expect("it is signed");
    assert_eq!(proxy.get("/", &[]).await.text(), version(1));

    let roll_back = "/api/plugins/signed-back/rollback";
    let answer = proxy.admin("POST", roll_back, &[]).await;
    assert_eq!(answer.status, 422, "{answer:?}");
    // Versions are kept by their digest, so an earlier test may have left a signature that is for another component.
    let reasons = ["a signature is asked for", "it was not signed by whoever is to sign it"];
    let is_refused = |reason: &&str| answer.text().contains(&format!("is not trusted: {reason}"));
    assert!(reasons.iter().any(is_refused), "{answer:?}");
    assert_eq!(proxy.get("/", &[]).await.text(), version(1));

    // The signature of a version is kept with it, since the file of that beside it is now another's.
    put(2);
    proxy.reload_files().await.expect("it is signed");
    assert_eq!(proxy.get("/", &[]).await.text(), version(2));
    let answer = proxy.admin("POST", roll_back, &[]).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(proxy.get("/", &[]).await.text(), version(1));
}

#[tokio::test]
async fn tests_beside_a_plugin_must_be_signed_where_plugins_must() {
    let origin = Origin::start().await;
    let (key, sign) = signer(22);
    let config = format!("plugin-keys = [\"{key}\"]\n{}", through(&origin, "tested-signed", ""));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let error = Proxy::try_start_in(folder, &config, &[("tested-signed", guest())]).await.err();
    assert!(error.expect("it is not signed").to_string().contains("a signature is asked for"));
    let unsigned = through(&origin, "tested-signed", "");
    let proxy = Proxy::start_with(&unsigned, &[("tested-signed", guest())]).await;
    write(&proxy, "tested-signed.wasm.sig", sign(&guest()));
    proxy.reload(&config).await.expect("it is signed");
    // Whoever cannot sign has no say in which version serves.
    write(&proxy, "tested-signed.test.toml", tests(0));
    proxy.reload_files().await.expect("what serves goes on");
    let load = told(&proxy).await["last-load"].clone();
    assert_eq!((&load["outcome"], &load["stage"]), (&"refused".into(), &"trust".into()), "{load}");
    let reason = load["reason"].as_str().expect("it has a reason");
    assert!(reason.contains("tested-signed.test.toml is not trusted: a signature is asked for"), "{reason}");
    write(&proxy, "tested-signed.test.toml.sig", sign(tests(0).as_bytes()));
    proxy.reload_files().await.expect("it is signed");
    assert_eq!(told(&proxy).await["tests-passed"], 1);
}

#[tokio::test]
async fn a_plugin_is_said_to_be_loaded_once_it_serves_and_a_reload_that_changes_nothing_says_so() {
    let origin = Origin::start().await;
    let right = through(&origin, "announced", "");
    let proxy = Proxy::start_with(&right, &[("announced", guest())]).await;
    assert_eq!(loads(&proxy, "announced", "in-force").await, 1.0);
    proxy.drop_plugin("announced", &guest_version(1));
    let wrong = format!("{right}[[routes]]\nmatch = {{ path = \"/x\" }}\nupstream = \"missing\"\n");
    proxy.reload(&wrong).await.expect_err("there is no such upstream");
    assert_eq!(loads(&proxy, "announced", "in-force").await, 1.0, "it does not serve");
    assert_eq!(logged(&["plugin loaded", "announced"]).len(), 1);
    let snapshot = proxy.reload(&right).await.expect("it is right");
    assert_eq!((snapshot.number, loads(&proxy, "announced", "in-force").await), (2, 2.0));
    assert_eq!(logged(&["plugin loaded", "announced"]).len(), 2);

    // What lies there is not used, so nothing changes.
    proxy.drop_plugin("announced", b"no component");
    assert_eq!(proxy.reload(&right).await.expect("the loaded one stays").number, 2);
    assert_eq!(told(&proxy).await["last-load"]["outcome"], "refused");
    assert_eq!(proxy.get("/", &[]).await.text(), version(1));
}

#[tokio::test]
async fn each_version_that_was_taken_back_is_told_of_when_it_lies_in_the_file() {
    let origin = Origin::start().await;
    let proxy = watched(&origin, "twice-back", "").await;
    for number in [1, 2] {
        proxy.drop_plugin("twice-back", &guest_version(number));
        answers(&proxy, number).await;
    }
    for _ in 0..2 {
        let response = proxy.admin("POST", "/api/plugins/twice-back/rollback", &[]).await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
    answers(&proxy, 0).await;
    let digests = |number| {
        let digest = digest(&SHA256, &guest_version(number));
        digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    for number in [1, 2, 1] {
        proxy.drop_plugin("twice-back", &guest_version(number));
        soon("what is told of it", async {
            loop {
                let load = told(&proxy).await["last-load"].clone();
                let reason = load["reason"].as_str().unwrap_or_default();
                let serving = digest(&SHA256, &guest());
                let serving: String = serving.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                if reason.contains(&digests(number)) && reason.contains(&serving) {
                    break;
                }
            }
        })
        .await;
    }
    assert_eq!(proxy.get("/", &[]).await.text(), version(0));
}
