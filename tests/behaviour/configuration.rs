//! The executable: what it says of a configuration, and how it starts and ends.

use std::{net::SocketAddr, path::Path};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tollgate_tests::{Answer, Client, Executable, Origin, Response, endpoints, guest, soon};

use crate::TOLLGATE;

/// A folder with this configuration, and the guest among its plugins.
fn folder(config: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::create_dir(folder.path().join("plugins")).expect("a folder can be made");
    std::fs::write(folder.path().join("plugins/guest.wasm"), guest()).expect("a file can be written");
    write(folder.path(), config);
    folder
}

fn write(folder: &Path, config: &str) {
    std::fs::write(folder.join("config.toml"), config).expect("a file can be written");
}

const LISTENER: &str = "[[listeners]]\naddress = \"127.0.0.1:0\"\n";

/// Everything to this origin.
fn to(origin: &Origin) -> String {
    let endpoints = endpoints(&[origin]);
    format!("{LISTENER}[upstreams.app]\nendpoints = {endpoints}\n[[routes]]\nupstream = \"app\"\n")
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> Response {
    let mut client = Client::connect(address).await;
    client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await;
    client.response().await
}

// ---------------------------------------------------------------------------------------------
// tollgate check
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_configuration_that_is_fine_is_said_to_be_with_its_plugins() {
    let config = "
        [[listeners]]
        address = \"127.0.0.1:8080\"
        [upstreams.app]
        endpoints = [\"http://127.0.0.1:1\"]
        balance = \"round-robin\"
        [[routes]]
        upstream = \"app\"
        plugins = [\"guest\"]
    ";
    let folder = folder(config);
    let (status, output, errors) = Executable::start(TOLLGATE, folder.path(), &["check"]).end().await;
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(
        output.contains("config.toml is fine: listeners 1, upstreams 1, routes 1, plugins 2"),
        "{output}"
    );
    assert!(output.contains("plugin round-robin from the executable"), "{output}");
    assert!(output.contains("plugin guest from ") && output.contains("guest.wasm"), "{output}");
}

/// What `check` says of a configuration that it refuses.
async fn complaints(config: &str, environment: &[(&str, &str)]) -> String {
    let folder = folder(config);
    let mut check = Executable::start_with(TOLLGATE, folder.path(), &["check"], environment);
    let (status, output, errors) = check.end().await;
    assert_eq!((status.code(), output.as_str()), (Some(2), ""), "{errors}");
    errors
}

#[tokio::test]
async fn every_problem_of_shape_is_shown_with_its_place_and_a_remedy() {
    let shown = complaints(
        "[[listeners]]
address = \"127.0.0.1\"
[upstreams.app]
endpoint = [\"http://127.0.0.1:1\"]
[[routes]]
upstream = \"app\"
plugin = [\"guest\"]
",
        &[],
    )
    .await;
    for (place, line, caret, remedy) in [
        ("config.toml:2:11", "2 | address = \"127.0.0.1\"", "^^^^^^^^^^^", "127.0.0.1:8080"),
        ("config.toml:4:1", "4 | endpoint = ", "^^^^^^^^", "did you mean `endpoints`?"),
        ("config.toml:7:1", "7 | plugin = ", "^^^^^^", "did you mean `plugins`?"),
    ] {
        for part in [place, line, caret, remedy] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
}

#[tokio::test]
async fn every_problem_of_meaning_is_shown_with_its_place_and_a_remedy() {
    let shown = complaints(
        "[[listeners]]
address = \"127.0.0.1:8080\"
[upstreams.app]
endpoints = [\"http://127.0.0.1:1\"]
balance = \"api-key\"
[[routes]]
upstream = \"ap\"
[[routes]]
match = { path = \"/a\" }
upstream = \"app\"
plugins = [\"gest\"]
[[routes]]
match = { path = \"/./a\" }
upstream = \"app\"
plugins = [\"round-robin\"]
[plugins.api-key]
config = { keys = { shop = \"secret\" } }
[plugins.guest]
config = { configure = \"refuse\", says = \"this is not for me\" }
",
        &[],
    )
    .await;
    for (place, caret, message) in [
        ("config.toml:5:11", "^^^^^^^^^", "this plugin has no `pick`, so it cannot balance"),
        ("config.toml:7:12", "^^^^", "there is no such upstream"),
        ("config.toml:7:12", "^^^^", "did you mean `app`?"),
        (
            "config.toml:11:12",
            "^^^^^^",
            "there is no file plugins/gest.wasm and no plugin of this name is shipped",
        ),
        ("config.toml:12:1", "^", "routes[1] matches the same requests and comes first"),
        ("config.toml:15:12", "^^^^^^^^^^^^^", "this plugin has no hook for requests or responses"),
        ("config.toml:18:10", "^^^^^", "the plugin refuses its configuration: this is not for me"),
    ] {
        for part in [place, caret, message] {
            assert!(shown.contains(part), "{part} is not in\n{shown}");
        }
    }
}

#[tokio::test]
async fn variables_come_from_the_environment_or_have_a_default() {
    let config = |variable: &str| {
        format!(
            "[[listeners]]\naddress = \"127.0.0.1:${{{variable}}}\"\n[upstreams.app]\nendpoints = [\"http://127.0.0.1:1\"]\n[[routes]]\nupstream = \"app\"\n"
        )
    };
    for (variable, environment) in [
        ("TEST_PORT", &[("TEST_PORT", "8080")][..]),
        ("TEST_PORT:-8080", &[]),
        ("TEST_PORT:-x", &[("TEST_PORT", "8080")]),
    ] {
        let folder = folder(&config(variable));
        let mut check = Executable::start_with(TOLLGATE, folder.path(), &["check"], environment);
        let (status, _, errors) = check.end().await;
        assert_eq!(status.code(), Some(0), "{variable}: {errors}");
    }
    let shown = complaints(&config("TEST_PORT"), &[]).await;
    assert!(shown.contains("config.toml:2:11"), "{shown}");
    assert!(shown.contains("the environment variable `TEST_PORT` is not set"), "{shown}");
    let shown = complaints(&config("TEST_PORT"), &[("TEST_PORT", "of-a-secret")]).await;
    assert!(!shown.contains("of-a-secret"), "{shown}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_a_problem_of_the_user() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for command in ["check", "run"] {
        let arguments = [command, "--config", "absent.toml"];
        let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &arguments).end().await;
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains("cannot read the file") && errors.contains("absent.toml"), "{errors}");
    }
}

#[tokio::test]
async fn the_configuration_may_stand_before_the_command() {
    let folder = folder("[[listeners]]\naddress = \"127.0.0.1:0\"\n");
    std::fs::rename(folder.path().join("config.toml"), folder.path().join("other.toml"))
        .expect("it can be renamed");
    for (arguments, code) in [
        (&["--config", "other.toml", "check"][..], Some(0)),
        (&["-c", "other.toml", "check", "-c", "other.toml"], Some(0)),
        (&["check", "--config", "other.toml"], Some(0)),
        (&["check", "other.toml"], Some(0)),
        (&["--config", "other.toml", "check", "config.toml"], Some(2)),
        (&["--config", "other.toml", "check", "--config", "config.toml"], Some(2)),
        (&["--config", "other.toml", "schema"], Some(2)),
    ] {
        let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), arguments).end().await;
        // Whether a configuration without routes is one, is asked elsewhere.
        let is_refused_as_usage = errors.contains("`--config`");
        assert_eq!(is_refused_as_usage, code == Some(2), "{arguments:?}: {status} {errors}");
    }
}

// ---------------------------------------------------------------------------------------------
// tollgate run
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_port_in_use_is_said_in_one_sentence_with_its_line_and_what_to_do() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = taken.local_addr().expect("a bound socket has an address");
    let rest = "[upstreams.app]\nendpoints = [\"http://127.0.0.1:1\"]\n[[routes]]\nupstream = \"app\"\n";
    for (config, line) in [
        (format!("workers = 1\n[[listeners]]\naddress = \"{address}\"\n{rest}"), 2),
        (format!("workers = 1\n{LISTENER}[admin]\naddress = \"{address}\"\n{rest}"), 4),
    ] {
        let folder = folder(&config);
        let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &["run"]).end().await;
        assert_eq!(status.code(), Some(1), "{errors}");
        let sentence = format!(
            "error: cannot listen on {address} (config.toml:{line}): Address already in use (os error 98); stop the \
             process that listens there (`ss -ltnp 'sport = :{}'` names it), or change `address`",
            address.port()
        );
        assert_eq!(errors.lines().filter(|line| *line == sentence).count(), 1, "{errors}");
    }
}

#[tokio::test]
async fn one_port_serves_ipv4_and_ipv6_on_addresses_of_their_own() {
    let free = std::net::TcpListener::bind("0.0.0.0:0").unwrap().local_addr().unwrap().port();
    let origin = Origin::start().await;
    for order in [["0.0.0.0", "[::]"], ["[::]", "0.0.0.0"]] {
        let listeners: String =
            order.iter().map(|ip| format!("[[listeners]]\naddress = \"{ip}:{free}\"\n")).collect();
        let folder = folder(&to(&origin).replace(LISTENER, &listeners));
        let mut proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
        proxy.line(&["listening", "[::]"]).await;
        for address in [format!("127.0.0.1:{free}"), format!("[::1]:{free}")] {
            let address: SocketAddr = address.parse().unwrap();
            soon("it to be open", async { while TcpStream::connect(address).await.is_err() {} }).await;
            assert_eq!(get(address, "/", "").await.status, 200, "{order:?} {address}");
        }
        proxy.signal(Signal::INT);
        assert_eq!(proxy.end().await.0.code(), Some(0));
    }
    // Alone, it serves both, as it always has.
    let folder = folder(&to(&origin).replace("127.0.0.1:0", &format!("[::]:{free}")));
    let proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    proxy.line(&["listening", "[::]"]).await;
    assert_eq!(get(SocketAddr::from(([127, 0, 0, 1], free)), "/", "").await.status, 200);
}

#[tokio::test]
async fn a_check_that_takes_longer_than_the_time_between_two_is_warned_of() {
    for (table, config) in
        [("health", "health = { timeout = \"2s\" }"), ("load", "load = { path = \"/\", timeout = \"2s\" }")]
    {
        let config = format!(
            "{LISTENER}[upstreams.app]\nendpoints = [\"http://127.0.0.1:1\"]\n{config}\n[[routes]]\nupstream = \"app\"\n"
        );
        let folder = folder(&config);
        let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &["check"]).end().await;
        assert_eq!(status.code(), Some(0), "{errors}");
        let words = format!("`{table}.timeout` is longer than `{table}.interval`");
        let is_it =
            |line: &str| line.contains("WARN") && line.contains(&words) && line.contains("config.toml:3");
        assert!(errors.lines().any(is_it), "{errors}");
    }
}

#[tokio::test]
async fn what_nothing_uses_is_warned_of_with_its_line_and_once() {
    let config = format!(
        "plugin-dir = \"plguins\"\n{LISTENER}[upstreams.app]\nendpoints = [\"http://127.0.0.1:1\"]\n\
         [upstreams.spare]\nendpoints = [\"http://127.0.0.1:2\"]\n\
         [upstreams.granted]\nendpoints = [\"http://127.0.0.1:3\"]\n\
         [[routes]]\nupstream = \"app\"\nplugins = [\"router\"]\n\
         [plugins.router]\ngrants.upstreams = [\"granted\"]\n\
         config.rules = [{{ upstream = \"granted\", header = {{ x-a = \"1\" }} }}]\n\
         [plugins.api-key]\nconfig.keys = {{ a = \"k\" }}\n\
         [plugins.round-robin]\n"
    );
    let folder = folder(&config);
    let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &["check"]).end().await;
    assert_eq!(status.code(), Some(0), "{errors}");
    let warnings: Vec<&str> = errors.lines().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 4, "{errors}");
    for words in [
        &["upstream `spare`: no route sends requests to it", "config.toml:6"][..],
        &["plugin `api-key`: no route names it", "config.toml:16"],
        &["plugin `round-robin`: no upstream names it", "config.toml:18"],
        &["plugin-dir `plguins`: there is no such folder"],
    ] {
        let is_it = |line: &&str| words.iter().all(|word| line.contains(word));
        assert!(warnings.iter().any(is_it), "{words:?} is not in\n{errors}");
    }

    let proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    proxy.line(&["listening"]).await;
    write(folder.path(), &format!("{config}# more\n"));
    proxy.line(&["configuration in force", "generation=2"]).await;
    assert_eq!(proxy.lines(&["no route sends requests to it"]).len(), 1);
}

#[tokio::test]
async fn what_run_would_refuse_in_any_case_check_refuses_too() {
    let rest = "[upstreams.app]\nendpoints = [\"http://127.0.0.1:1\"]\n[[routes]]\nupstream = \"app\"\n";
    let two = |one: &str, other: &str| {
        format!("[[listeners]]\naddress = \"{one}\"\n[[listeners]]\naddress = \"{other}\"\n{rest}")
    };
    let with = |more: &str| format!("{LISTENER}{rest}{more}");
    for (config, words) in [
        (
            two("127.0.0.1:1", "127.0.0.1:1"),
            &["config.toml:3:1", "listeners[0] listens on 127.0.0.1:1 already (config.toml:1)"][..],
        ),
        (
            two("0.0.0.0:1", "127.0.0.1:1"),
            &["config.toml:3:1", "different ports", "0.0.0.0:1 is every address of this machine, also 127.0.0.1:1"],
        ),
        (
            two("127.0.0.1:1", "0.0.0.0:1"),
            &[
                "config.toml:3:1",
                "this and listeners[0] (config.toml:1) overlap",
                "0.0.0.0:1 is every address of this machine, also 127.0.0.1:1",
            ],
        ),
        (two("unix:/tmp/a", "unix:/tmp/a"), &["config.toml:3:1", "listeners[0]"]),
        (
            format!("[admin]\naddress = \"127.0.0.1:1\"\n{}", two("127.0.0.1:1", "127.0.0.1:2")),
            &["config.toml:1:1", "listeners[0] listens on 127.0.0.1:1 already (config.toml:3)"],
        ),
        (
            with("").replace(
                "endpoints = [\"http://127.0.0.1:1\"]",
                "endpoints = [\"http://A.test\", \"http://b.test:1\", { url = \"http://a.test:80/\", weight = 2 }]",
            ),
            &["config.toml:4:50", "the upstream has the endpoint a.test:80 already (config.toml:4)", "weight = 2"],
        ),
        (format!("workers = 100000\n{}", with("")), &["config.toml:1:11", "from 1 to 1024"]),
        (format!("workers = 0\n{}", with("")), &["config.toml:1:11", "from 1 to 1024"]),
        (
            // A file that is being written, up to here.
            format!("{LISTENER}[upstreams.app]\nendpoints = [\"http://127.0.0.1:1\"]\n"),
            &["there is no route, so every request would be answered 404", "add one: [[routes]]"],
        ),
        (
            with("name = \"a\"\n[[routes]]\nname = \"a\"\nupstream = \"app\"\nmatch.path = \"/b\"\n"),
            &["config.toml:8:1", "routes[0] has the same name"],
        ),
    ] {
        for command in ["check", "run"] {
            let folder = folder(&config);
            let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &[command]).end().await;
            assert_eq!(status.code(), Some(2), "{config}\n{errors}");
            for word in words {
                assert!(errors.contains(word), "{word:?} is not in\n{errors}");
            }
        }
    }
}

#[tokio::test]
async fn a_second_signal_ends_the_proxy_at_once() {
    // It never answers.
    let origin = Origin::answering(|_| Answer { pieces: Vec::new(), ..Answer::ok("").hang() }).await;
    let folder = folder(&to(&origin));
    let mut proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    let address = proxy.address().await;
    let mut client = Client::connect(address).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    origin.has_received(1).await;
    proxy.signal(Signal::TERM);
    proxy.line(&["draining"]).await;
    soon("the port to be closed", async { while TcpStream::connect(address).await.is_ok() {} }).await;
    proxy.signal(Signal::TERM);
    let (status, _, errors) = proxy.end().await;
    assert_eq!(status.code(), Some(0), "{errors}");
    assert!(client.is_closed().await, "what was still under way is given up");
    for words in ["listeners closed", "ended requests_cut=1"] {
        assert!(errors.contains(words), "{words:?} is not in\n{errors}");
    }
}

#[tokio::test]
async fn a_drain_ends_when_the_last_request_has() {
    let backend = tempfile::tempdir().expect("a temporary folder can be made");
    let mut backend = Executable::start(TOLLGATE, backend.path(), &["backend", "--port", "0"]);
    let url = backend_url(&backend).await;
    let folder = folder(&format!(
        "{LISTENER}[upstreams.app]\nendpoints = [\"{url}\"]\n[[routes]]\nupstream = \"app\"\n"
    ));
    let mut proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    let mut client = Client::connect(proxy.address().await).await;
    // Ten lines in a second: the signal comes between the first and the last.
    client.send("GET /stream HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut begun = client.read_some().await;
    proxy.signal(Signal::TERM);
    proxy.line(&["draining"]).await;
    begun.extend(client.read_to_end().await);
    let text = String::from_utf8(begun).expect("it is text");
    assert!(text.contains("line 10\n") && text.ends_with("0\r\n\r\n"), "{text}");
    let id = proxy.id();
    let (status, _, errors) = proxy.end().await;
    assert_eq!(status.code(), Some(0), "{errors}");
    let started = errors.lines().find(|line| line.contains("started version=")).unwrap_or_default();
    for words in ["config.toml", &format!("pid={id}"), "generation=1", "listeners=\"127.0.0.1:"] {
        assert!(started.contains(words), "{words:?} is not in\n{errors}");
    }
    assert!(errors.contains("ended requests_cut=0"), "{errors}");
    backend.signal(Signal::INT);
    assert_eq!(backend.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_a_drain() {
    let origin = Origin::start().await;
    let folder = folder(&to(&origin));
    let mut proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    let mut client = Client::connect(proxy.address().await).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.status, 200);
    proxy.signal(Signal::INT);
    assert!(client.is_closed().await);
    assert_eq!(proxy.end().await.0.code(), Some(0));
}

#[tokio::test]
async fn a_hang_up_reads_the_configuration_again() {
    let origin = Origin::start().await;
    let folder = folder(&to(&origin));
    let proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    proxy.address().await;
    // Nothing has changed, so nothing but the signal asks for it.
    proxy.signal(Signal::HUP);
    proxy.line(&["configuration in force", "generation=2"]).await;
    write(folder.path(), "[[routes");
    proxy.line(&["configuration not used, the one in force stays"]).await;
    assert_eq!(get(proxy.address().await, "/", "").await.status, 200);
}

#[tokio::test]
async fn a_link_in_the_middle_of_a_chain_that_is_pointed_elsewhere_is_a_change() {
    let (one, two) =
        (Origin::answering(|_| Answer::ok("one")).await, Origin::answering(|_| Answer::ok("two")).await);
    let root = tempfile::tempdir().expect("a temporary folder can be made");
    let place = |name: &str| root.path().join(name);
    for folder in ["etc", "middle", "releases/1", "releases/2"] {
        std::fs::create_dir_all(place(folder)).expect("a folder can be made");
    }
    write(&place("releases/1"), &to(&one));
    write(&place("releases/2"), &to(&two));
    let link = |to: &str, at: &str| {
        let unfinished = place(at).with_extension("new");
        std::os::unix::fs::symlink(place(to), &unfinished).expect("a link can be made");
        std::fs::rename(unfinished, place(at)).expect("a link can be renamed");
    };
    // etc/config.toml -> middle/current.toml -> releases/1/config.toml
    link("releases/1/config.toml", "middle/current.toml");
    link("middle/current.toml", "etc/config.toml");
    let proxy = Executable::start(TOLLGATE, &place("etc"), &["run"]);
    let address = proxy.address().await;
    assert_eq!(get(address, "/", "").await.text(), "one");
    link("releases/2/config.toml", "middle/current.toml");
    proxy.line(&["configuration in force", "generation=2"]).await;
    assert_eq!(get(proxy.address().await, "/", "").await.text(), "two");
}

#[tokio::test]
async fn a_log_in_json_has_a_line_for_every_request() {
    let origin = Origin::start().await;
    let folder = folder(&to(&origin));
    let mut proxy = Executable::start(TOLLGATE, folder.path(), &["run", "--log-format", "json"]);
    let address = proxy.address().await;
    assert_eq!(get(address, "/a/path?query", "").await.status, 200);
    get(address, "/another", "").await;
    proxy.line(&["/a/path?query"]).await;
    proxy.line(&["/another"]).await;
    proxy.signal(Signal::TERM);
    let (_, _, errors) = proxy.end().await;
    let lines: Vec<Value> =
        errors.lines().map(|line| serde_json::from_str(line).expect("every line is JSON")).collect();
    let is_access = |line: &&Value| line["method"] == "GET";
    let access: Vec<&Value> = lines.iter().filter(is_access).collect();
    assert_eq!(access.len(), 2, "{errors}");
    let id = origin.received()[0].header("x-request-id").expect("requests have an id").to_owned();
    for (key, value) in [
        ("client", json!("127.0.0.1")),
        ("host", json!("test")),
        ("status", json!(200)),
        ("route", json!("routes[0]")),
        ("upstream", json!("app")),
        ("endpoint", json!(origin.address.to_string())),
        ("attempts", json!(1)),
        ("bytes_out", json!(origin.port().len())),
        ("complete", json!(true)),
        ("request", json!(id)),
    ] {
        assert_eq!(access[0][key], value, "{key} of {}", access[0]);
    }
}

#[tokio::test]
async fn the_lines_of_requests_can_be_left_out() {
    let origin = Origin::start().await;
    let folder = folder(&(to(&origin) + "[log]\naccess = false\n"));
    let mut proxy = Executable::start(TOLLGATE, folder.path(), &["run", "--log-format", "json"]);
    assert_eq!(get(proxy.address().await, "/quiet", "").await.status, 200);
    proxy.signal(Signal::TERM);
    let (_, _, errors) = proxy.end().await;
    assert!(errors.contains("draining") && !errors.contains("/quiet"), "{errors}");
}

#[tokio::test]
async fn a_level_of_the_log_that_does_not_exist_is_refused() {
    let folder = folder(LISTENER);
    let arguments = ["run", "--log-level", "info,,x=loud"];
    let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &arguments).end().await;
    assert_eq!(status.code(), Some(2), "{errors}");
    assert!(errors.contains("`info,,x=loud` is not a log level"), "{errors}");
}

// ---------------------------------------------------------------------------------------------
// tollgate backend, tollgate demo
// ---------------------------------------------------------------------------------------------

async fn backend_url(backend: &Executable) -> String {
    let line = backend.line(&["listens on http://"]).await;
    line.split_whitespace().last().expect("a line has words").to_owned()
}

#[tokio::test]
async fn the_sample_backend_tells_what_it_received() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let arguments = ["backend", "--port", "0", "--name", "sample"];
    let backend = Executable::start(TOLLGATE, folder.path(), &arguments);
    let url = backend_url(&backend).await;
    let address: SocketAddr = url.trim_start_matches("http://").parse().expect("it is an address");
    let mut client = Client::connect(address).await;
    client.send("POST /a?b HTTP/1.1\r\nHost: test\r\nX-A: 1\r\nX-A: 2\r\nContent-Length: 3\r\n\r\nabc").await;
    let received = client.response().await.json();
    for (key, value) in [
        ("backend", json!("sample")),
        ("port", json!(address.port())),
        ("method", json!("POST")),
        ("path", json!("/a")),
        ("query", json!("b")),
        (
            "body",
            json!({
                "length": 3,
                "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
            }),
        ),
    ] {
        assert_eq!(received[key], value, "{key}");
    }
    assert_eq!(received["headers"]["x-a"], json!(["1", "2"]));
    assert_eq!(get(address, "/status/418", "").await.status, 418);
    assert_eq!(get(address, "/status/100", "").await.status, 200, "an interim status is no answer");
    let bytes = get(address, "/bytes/100000", "").await;
    assert_eq!((bytes.header("content-length"), &bytes.body), (Some("100000"), &vec![0; 100_000]));
    let stream = get(address, "/stream", "").await;
    assert_eq!((stream.text().lines().count(), stream.is_complete), (10, true));
}

#[tokio::test]
async fn the_demo_moves_its_admin_port_where_it_is_told_or_where_there_is_room() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let taken = taken.local_addr().expect("a bound socket has an address").to_string();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let start = |admin: &str| {
        let arguments = ["demo", "--listen", "127.0.0.1:0", "--listen-tls", "127.0.0.1:0", "--admin", admin];
        Executable::start(TOLLGATE, folder.path(), &arguments)
    };
    let told = start("127.0.0.1:0");
    told.line(&["Ctrl-C ends it."]).await;
    let moved = start(&taken);
    moved.line(&[&format!("{taken} is taken"), "--admin ADDRESS"]).await;
    moved.line(&["Ctrl-C ends it."]).await;
    for demo in [told, moved] {
        let line = demo.line(&["in a browser: http://"]).await;
        let (_, url) = line.split_once("http://").expect("it is there");
        let address: SocketAddr = url.trim_end_matches('/').parse().expect("it is an address");
        let mut client = Client::connect(address).await;
        client.send("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200, "{line}");
    }
}

#[tokio::test]
async fn the_demo_speaks_of_its_arguments_and_of_no_file() {
    let taken = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let taken = taken.local_addr().expect("a bound socket has an address").to_string();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (arguments, code, words) in [
        (
            &["--listen", &taken][..],
            1,
            &["cannot listen on", "choose another address with `--listen ADDRESS`"][..],
        ),
        (&["--admin", "0.0.0.0:9901"], 2, &["`--admin 0.0.0.0:9901`", "choose a loopback address"]),
        (
            &["--listen", "127.0.0.1:8443"],
            2,
            &["`--listen` and `--listen-tls` have the same port 8443: give each its own"],
        ),
    ] {
        let arguments = [&["demo"], arguments].concat();
        let (status, printed, errors) = Executable::start(TOLLGATE, folder.path(), &arguments).end().await;
        assert_eq!((status.code(), &*printed), (Some(code), ""), "{errors}");
        assert!(words.iter().all(|words| errors.contains(words)), "{errors}");
        assert!(!errors.contains("demo.toml") && !errors.contains("change `address`"), "{errors}");
    }
}

#[tokio::test]
async fn what_the_demo_says_to_try_works() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let mut demo = Executable::start(TOLLGATE, folder.path(), &["demo", "--listen", "127.0.0.1:0"]);
    demo.line(&["Ctrl-C ends it."]).await;
    assert_eq!(demo.lines(&["WARN"]), Vec::<String>::new());
    // Those to be tried in clear, on the proxy.
    let mut commands: Vec<String> = demo.lines(&["  curl "]);
    commands.retain(|command| command.starts_with("  curl") && !command.contains("https://"));
    assert_eq!(commands.len(), 4, "{commands:?}");
    let mut backends = std::collections::BTreeSet::new();
    for command in &commands {
        let (_, url) = command.split_once("http://").expect("a command has a URL");
        let url = url.split_whitespace().next().expect("it is a word");
        let (address, path) = url.split_at(url.find('/').expect("it has a path"));
        let address: SocketAddr = address.parse().expect("it is an address");
        let header = command.split('\'').nth(1).map(|header| format!("{header}\r\n")).unwrap_or_default();
        let status = match path {
            "/status/418" => 418,
            _ if header.is_empty() => 401,
            _ => 200,
        };
        let response = get(address, path, &header).await;
        assert_eq!(response.status, status, "{command}");
        if path == "/" && status == 200 {
            for _ in 0..3 {
                let name = get(address, path, &header).await.json()["backend"].to_string();
                backends.insert(name);
            }
        }
    }
    assert_eq!(backends.len(), 3, "the backends take turns");
    demo.signal(Signal::INT);
    assert_eq!(demo.end().await.0.code(), Some(0));
}
