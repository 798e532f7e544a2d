//! What changes on disk takes effect while requests flow, or is refused and changes nothing.

use std::sync::Arc;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tollgate_tests::{
    Client, Config, Executable, Load, Origin, Proxy, endpoints, guest, guest_version, logged, shipped, soon,
    until,
};

use crate::TOLLGATE;

/// A route through a plugin of this name, which is the guest by that file.
fn through(origin: &Origin, plugin: &str, settings: &str) -> String {
    Config::to(origin).plugin(plugin, settings).toml()
}

const VERSION: &str = "config = { request = \"version\" }";

/// A proxy that looks after its files, whose plugin tells its version.
async fn watched(origin: &Origin, plugin: &str, settings: &str) -> Proxy {
    let proxy = Proxy::start_with(&through(origin, plugin, settings), &[(plugin, guest())]).await;
    proxy.watch();
    proxy
}

/// Waits until the proxy answers with this.
async fn answers(proxy: &Proxy, path: &str, wanted: &str) {
    soon(wanted, async { while proxy.get(path, &[]).await.text() != wanted {} }).await;
}

async fn is_logged(words: &[&str]) {
    until(&format!("a line in the log with {words:?}"), || !logged(words).is_empty()).await;
}

// ---------------------------------------------------------------------------------------------
// Plugins
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_dropped_plugin_takes_effect_while_requests_flow() {
    let origin = Origin::start().await;
    let proxy = watched(&origin, "dropped", VERSION).await;
    let load = Load::start(proxy.address(), "/", 3);
    answers(&proxy, "/", "guest-version-0000").await;
    for version in [1, 2] {
        proxy.drop_plugin("dropped", &guest_version(version));
        answers(&proxy, "/", &format!("guest-version-{version:04}")).await;
    }
    load.has_answered(10).await;
    load.stop().await;
}

#[tokio::test]
async fn what_changes_while_the_proxy_starts_is_not_missed() {
    let origin = Origin::start().await;
    let proxy = Proxy::start_with(&through(&origin, "early", VERSION), &[("early", guest())]).await;
    // It has been loaded, and nobody looks yet.
    proxy.drop_plugin("early", &guest_version(1));
    proxy.watch();
    answers(&proxy, "/", "guest-version-0001").await;
}

#[tokio::test]
async fn sequences_go_on_over_a_reload() {
    let origin = Origin::start().await;
    let proxy = watched(&origin, "counting", "config = { request = \"obey\" }").await;
    let count = async || proxy.get("/", &["x-do: count"]).await.json()["sequence"].as_u64();
    for expected in 0..5 {
        assert_eq!(count().await, Some(expected));
    }
    let before = proxy.server().snapshot().number;
    proxy.drop_plugin("counting", &guest_version(1));
    until("another generation", || proxy.server().snapshot().number > before).await;
    until("the new version on all workers", || logged(&["plugin loaded", "counting"]).len() > 1).await;
    assert_eq!(count().await, Some(5));
    assert_eq!(proxy.get("/", &["x-do: version"]).await.text(), "guest-version-0001");
}

#[tokio::test]
async fn a_plugin_is_added_to_a_route_that_is_in_use() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&Config::to(&origin)).await;
    proxy.watch();
    let load = Load::start(proxy.address(), "/", 2);
    answers(&proxy, "/", &origin.port()).await;
    proxy.drop_plugin("added", &guest());
    proxy.write_config(&through(&origin, "added", VERSION));
    answers(&proxy, "/", "guest-version-0000").await;
    load.stop().await;
}

/// Writes over a file as a careless copy does, and stops half-way.
fn write_half(proxy: &Proxy, plugin: &str) {
    let component = guest_version(1);
    std::fs::write(proxy.plugin_path(plugin), &component[..component.len() / 2])
        .expect("a file can be written");
}

#[tokio::test]
async fn a_file_that_is_not_a_plugin_leaves_the_one_before_in_force() {
    /// A component that exports nothing, and a module that is none.
    const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
    const EMPTY_MODULE: &[u8] = b"\0asm\x01\0\0\0";
    let mut other_contract = guest();
    let places: Vec<usize> = (0..other_contract.len() - 6)
        .filter(|place| other_contract[*place..].starts_with(b"@0.1.0"))
        .collect();
    assert!(places.len() > 8, "the names are in the component");
    places.iter().for_each(|place| other_contract[place + 3] = b'2');

    let origin = Origin::start().await;
    let proxy = watched(&origin, "replaced", VERSION).await;
    let load = Load::start(proxy.address(), "/", 2);
    let refused = "new version not used, the loaded one stays in force";
    for (file, reason) in [
        (&b"garbage"[..], "not a WebAssembly component"),
        (b"", "not a WebAssembly component"),
        (EMPTY_MODULE, "a core WebAssembly module, not a component: build it for wasm32-wasip2"),
        (EMPTY_COMPONENT, "exports no `tollgate:policy/lifecycle`"),
        (&other_contract, "built against version 0.2.0 of the contract, and this Tollgate speaks 0.1.0"),
    ] {
        let before = logged(&["replaced", refused, reason]).len();
        proxy.drop_plugin("replaced", file);
        until(reason, || logged(&["replaced", refused, reason]).len() > before).await;
        assert_eq!(proxy.get("/", &[]).await.text(), "guest-version-0000", "{reason}");
    }
    write_half(&proxy, "replaced");
    is_logged(&["replaced", refused, "out of bounds"]).await;
    assert_eq!(proxy.get("/", &[]).await.text(), "guest-version-0000");

    std::fs::write(proxy.plugin_path("replaced"), guest_version(1)).expect("a file can be written");
    answers(&proxy, "/", "guest-version-0001").await;
    load.stop().await;
}

#[tokio::test]
async fn a_version_that_refuses_its_configuration_leaves_the_one_before_in_force() {
    let origin = Origin::start().await;
    let proxy = watched(&origin, "refusing", VERSION).await;
    // It takes no such configuration.
    proxy.drop_plugin("refusing", &shipped("api-key"));
    is_logged(&[
        "refusing",
        "stays in force",
        "refuses its configuration: `request` in `config`: unknown key `request`",
    ])
    .await;
    assert_eq!(proxy.get("/", &[]).await.text(), "guest-version-0000");
}

#[tokio::test]
async fn a_configuration_that_a_plugin_refuses_changes_nothing() {
    let origin = Origin::start().await;
    let proxy = watched(&origin, "unwilling", VERSION).await;
    proxy.write_config(&through(
        &origin,
        "unwilling",
        "config = { request = \"version\", configure = \"refuse\", says = \"not like this\" }",
    ));
    is_logged(&["configuration not used", "refuses its configuration: not like this", "unwilling"]).await;
    assert_eq!(proxy.get("/", &[]).await.text(), "guest-version-0000");
    proxy.write_config(&through(&origin, "unwilling", "config = { configure = \"loop\" }"));
    is_logged(&["configuration not used", "fails while it is configured: ran longer than", "unwilling"])
        .await;
    assert_eq!(proxy.get("/", &[]).await.text(), "guest-version-0000");
}

#[tokio::test]
async fn a_plugin_whose_file_has_gone_stays_loaded() {
    let origin = Origin::start().await;
    let proxy = watched(&origin, "deleted", VERSION).await;
    std::fs::remove_file(proxy.plugin_path("deleted")).expect("the file was there");
    is_logged(&["deleted", "stays in force", "there is no file"]).await;
    assert_eq!(proxy.get("/", &[]).await.text(), "guest-version-0000");
    proxy.drop_plugin("deleted", &guest_version(1));
    answers(&proxy, "/", "guest-version-0001").await;
}

#[tokio::test]
async fn a_plugin_and_a_configuration_that_are_links_take_effect_when_what_they_lead_to_is_replaced() {
    let origin = Origin::start().await;
    let proxy = Proxy::start_with(&through(&origin, "linked", VERSION), &[("linked", guest())]).await;
    let elsewhere = tempfile::tempdir().expect("a temporary folder can be made");
    // As a build or a deployment does it: another file in the place of the one that the link leads to.
    let put = |name: &str, content: &[u8]| {
        let unfinished = elsewhere.path().join("unfinished");
        std::fs::write(&unfinished, content).expect("a file can be written");
        std::fs::rename(unfinished, elsewhere.path().join(name)).expect("a file can be renamed");
    };
    let link = |name: &str, place: &std::path::Path| {
        std::fs::remove_file(place).expect("the file was there");
        std::os::unix::fs::symlink(elsewhere.path().join(name), place).expect("a link can be made");
    };
    put("built.wasm", &guest_version(1));
    put("written.toml", &std::fs::read(proxy.config_path()).expect("the configuration is there"));
    link("built.wasm", &proxy.plugin_path("linked"));
    link("written.toml", &proxy.config_path());
    proxy.watch();
    proxy.reload_files().await.expect("the configuration is fine");
    answers(&proxy, "/", "guest-version-0001").await;
    for number in [2, 3] {
        put("built.wasm", &guest_version(number));
        answers(&proxy, "/", &format!("guest-version-{number:04}")).await;
    }
    let config = std::fs::read_to_string(proxy.config_path()).expect("the configuration is there");
    put("written.toml", config.replace("\"version\"", "\"reply\"").as_bytes());
    answers(&proxy, "/", "short and stout").await;
}

// ---------------------------------------------------------------------------------------------
// The configuration
// ---------------------------------------------------------------------------------------------

fn listening(listeners: usize, routes: &str, origin: &Origin) -> String {
    let listeners = "[[listeners]]\naddress = \"127.0.0.1:0\"\n".repeat(listeners);
    format!("{listeners}[upstreams.app]\nendpoints = {}\n{routes}", endpoints(&[origin]))
}

const EVERYTHING: &str = "[[routes]]\nupstream = \"app\"\n";

#[tokio::test]
async fn a_route_is_added_and_removed() {
    let origin = Origin::start().await;
    let narrow = "[[routes]]\nmatch = { path = \"/a\" }\nupstream = \"app\"\n";
    let proxy = Proxy::start(&listening(1, narrow, &origin)).await;
    proxy.watch();
    let mut client = proxy.connect().await;
    let mut status = async |path: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        client.response().await.status
    };
    assert_eq!((status("/a").await, status("/b").await), (200, 404));
    proxy.write_config(&listening(1, EVERYTHING, &origin));
    soon("the new route", async { while status("/b").await != 200 {} }).await;
    proxy.write_config(&listening(1, narrow, &origin));
    soon("the old route", async { while status("/b").await != 404 {} }).await;
    assert_eq!(status("/a").await, 200);
}

#[tokio::test]
async fn listeners_come_and_go_and_those_that_stay_keep_their_connections() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&listening(1, EVERYTHING, &origin)).await;
    proxy.watch();
    let first = proxy.address();
    let load = Load::start(first, "/", 2);
    load.has_answered(2).await;

    proxy.write_config(&listening(2, EVERYTHING, &origin));
    until("a second listener", || proxy.server().addresses().len() == 2).await;
    let second = proxy.server().addresses()[1];
    assert_eq!(proxy.address(), first);
    let mut client = Client::connect(second).await;
    let request = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    client.send(request).await;
    assert_eq!(client.response().await.status, 200);

    proxy.write_config(&listening(1, EVERYTHING, &origin));
    soon("the port to be closed", async { while TcpStream::connect(second).await.is_ok() {} }).await;
    assert_eq!(proxy.server().addresses(), [first]);
    client.send(request).await;
    assert_eq!(client.response().await.status, 200, "what was accepted is served on");
    // Each connection of the load has been open all the while.
    load.has_answered(10).await;
    load.stop().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_run_changes_nothing() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&listening(1, EVERYTHING, &origin)).await;
    proxy.watch();
    let before = proxy.server().snapshot();
    let other = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let taken = other.local_addr().expect("a bound socket has an address");
    for (config, reason) in [
        ("[[routes".to_owned(), "configuration not used"),
        (listening(1, "[[routes]]\nupstream = \"ap\"\n", &origin), "did you mean `app`?"),
        (listening(1, "[[routes]]\nupstrem = \"app\"\n", &origin), "unknown key `upstrem`"),
        (
            listening(1, EVERYTHING, &origin) + &format!("[[listeners]]\naddress = \"{taken}\"\n"),
            "Address already in use",
        ),
    ] {
        let words = ["configuration not used, the one in force stays", reason];
        let seen = logged(&words).len();
        proxy.write_config(&config);
        until(reason, || logged(&words).len() > seen).await;
        assert!(Arc::ptr_eq(&before, &proxy.server().snapshot()), "{reason}");
        assert_eq!(proxy.get("/", &[]).await.status, 200, "{reason}");
    }
}

#[tokio::test]
async fn what_has_not_changed_is_not_made_again() {
    let origin = Origin::start().await;
    let config = |says: &str| {
        format!(
            "[upstreams.first]
            endpoints = {origins}
            [upstreams.second]
            endpoints = {origins}
            balance = \"round-robin\"
            [[routes]]
            upstream = \"first\"
            plugins = [\"same\", \"other\"]
            [plugins.same]
            file = \"guest\"
            [plugins.other]
            file = \"guest\"
            config = {{ says = \"{says}\" }}",
            origins = endpoints(&[&origin])
        )
    };
    let proxy = Proxy::start_with(&config("before"), &[("guest", guest())]).await;
    let before = proxy.server().snapshot();
    let after = proxy.reload(&config("after")).await.expect("the configuration is fine");
    let both = |name: &str| [&before, &after].map(|snapshot| snapshot.plugin(name).expect("it is loaded"));
    for name in ["same", "round-robin"] {
        let [before, after] = both(name);
        assert!(Arc::ptr_eq(&before.plugin, &after.plugin), "{name}");
    }
    let [before_other, after_other] = both("other");
    assert!(!Arc::ptr_eq(&before_other.plugin, &after_other.plugin));
    assert!(Arc::ptr_eq(&before_other.plugin.code, &after_other.plugin.code), "code is made once for a file");
    for (before, after) in before.upstreams.iter().zip(&after.upstreams) {
        assert!(Arc::ptr_eq(&before.upstream, &after.upstream), "{}", before.upstream.name);
    }
}

// ---------------------------------------------------------------------------------------------
// Requests and generations
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_request_ends_on_the_generation_it_began_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let config = Config::to(&url).plugin("guest", "config.response = \"mark-version\"");
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    let get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut old = proxy.connect().await;
    old.send(get).await;
    let mut held = accept(&listener).await;

    proxy.drop_plugin("guest", &guest_version(7));
    proxy.reload_files().await.expect("the plugin is fine");
    let mut new = proxy.connect().await;
    new.send(get).await;
    answer(&mut accept(&listener).await).await;
    assert_eq!(new.response().await.header("x-version"), Some("guest-version-0007"));

    answer(&mut held).await;
    assert_eq!(old.response().await.header("x-version"), Some("guest-version-0000"));
    old.send(get).await;
    answer(&mut accept(&listener).await).await;
    assert_eq!(old.response().await.header("x-version"), Some("guest-version-0007"), "the next is a new one");
}

/// Takes a connection from the proxy, and the head of the request on it.
async fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = soon("a connection", listener.accept()).await.expect("the listener accepts");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("a request", stream.read_u8()).await.expect("there is more of the head"));
    }
    stream
}

async fn answer(stream: &mut TcpStream) {
    let response = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    stream.write_all(response).await.expect("the proxy waits");
}

#[tokio::test]
async fn hundreds_of_reloads_cost_no_request_and_no_memory() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let plugins = folder.path().join("plugins");
    std::fs::create_dir(&plugins).expect("a folder can be made");
    let versions = [guest(), guest_version(1)];
    let plugin = plugins.join("guest.wasm");
    std::fs::write(&plugin, &versions[0]).expect("a file can be written");
    let config =
        through(&origin, "guest", "config = { request = \"mark-version\", response = \"mark-version\" }")
            + "[[listeners]]\naddress = \"127.0.0.1:0\"\n[log]\naccess = false\n";
    std::fs::write(folder.path().join("config.toml"), config).expect("a file can be written");
    let proxy = Executable::start(TOLLGATE, folder.path(), &["run", "--log-format", "json"]);
    let load = Load::start(proxy.address().await, "/", 6);

    let mut after_100 = 0;
    for number in 1..=300 {
        // Made elsewhere and moved there, as a file that is written in place may be seen half-way.
        let unfinished = folder.path().join("unfinished");
        std::fs::write(&unfinished, &versions[number % 2]).expect("a file can be written");
        std::fs::rename(&unfinished, &plugin).expect("a file can be renamed");
        proxy.signal(rustix::process::Signal::HUP);
        let loaded = number + 1;
        until("the plugin to be loaded", || proxy.lines(&["plugin loaded"]).len() == loaded).await;
        if number == 100 {
            after_100 = proxy.resident();
        }
    }
    let after_300 = proxy.resident();
    assert!(after_300 < after_100 + after_100 / 10 * 3, "{after_100} bytes became {after_300}");
    // First what the proxy says of it, since a request that failed does not know why.
    assert_eq!(proxy.lines(&["\"WARN\""]), Vec::<String>::new());
    assert_eq!(proxy.lines(&["\"ERROR\""]), Vec::<String>::new());
    assert!(load.stop().await > 300);
}
