//! Compiling a component harms nobody, whatever it is.

use std::{fs, path::Path};

use tempfile::TempDir;
use tollgate_tests::{Client, Executable, Handmade, Origin, guest, listener, soon, through};

use crate::TOLLGATE;

/// A folder with a configuration whose only route goes through the plugin `guest`, and nothing compiled yet.
fn folder(origin: &Origin, limits: &str) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::create_dir(folder.path().join("plugins")).expect("a folder can be made");
    put(folder.path(), "guest", &guest());
    let config = through(origin, "guest", "config = { request = \"reply\" }");
    let config = format!(
        "artifact-dir = \"compiled\"\nworkers = 1\nlimits = {{ {limits} }}\n{config}{}",
        listener("")
    );
    fs::write(folder.path().join("config.toml"), config).expect("a file can be written");
    folder
}

fn put(folder: &Path, name: &str, component: &[u8]) {
    let unfinished = folder.join("unfinished");
    fs::write(&unfinished, component).expect("a file can be written");
    fs::rename(unfinished, folder.join(format!("plugins/{name}.wasm"))).expect("a file can be renamed");
}

async fn is_asked(proxy: &Executable) {
    let mut client = Client::connect(proxy.address().await).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.status, 418);
}

#[tokio::test]
async fn a_component_is_compiled_by_a_child_process_within_limits() {
    let origin = Origin::start().await;
    for (limits, reason) in [
        ("plugin-compile-memory = \"4MiB\"", "took more than 4.0 MiB of memory and was stopped"),
        ("plugin-compile = \"1ms\"", "took longer than 0.001 s and was stopped"),
    ] {
        let folder = folder(&origin, limits);
        let (status, _, errors) = Executable::start(TOLLGATE, folder.path(), &["check"]).end().await;
        assert_eq!(status.code(), Some(2), "{errors}");
        assert!(errors.contains(reason) && errors.contains("guest.wasm"), "{errors}");
    }
    let folder = folder(&origin, "");
    let proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    is_asked(&proxy).await;
}

#[tokio::test]
async fn a_file_that_nothing_names_does_not_hurt_by_what_it_takes_to_compile() {
    let origin = Origin::start().await;
    let folder = folder(&origin, "plugin-compile-memory = \"256MiB\", plugin-compile = \"60s\"");
    let proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    is_asked(&proxy).await;
    put(folder.path(), "costly", &Handmade::CostsToCompile.component());
    proxy.line(&["plugin cannot be loaded; no route uses it", "costly", "and was stopped"]).await;
    assert!(proxy.resident() < 512 << 20, "{}", proxy.resident());
    is_asked(&proxy).await;
    // The next reload does not try again.
    put(folder.path(), "another", &guest());
    proxy
        .line(&["plugin cannot be loaded; no route uses it", "costly", "it took too much the last time"])
        .await;
}

#[tokio::test]
async fn a_configuration_does_not_wait_for_what_nothing_names() {
    let origin = Origin::start().await;
    let folder = folder(&origin, "plugin-compile-memory = \"16GiB\", plugin-compile = \"10m\"");
    put(folder.path(), "costly", &Handmade::CostsToCompile.component());
    let proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    is_asked(&proxy).await;
    let path = folder.path().join("config.toml");
    let config = fs::read_to_string(&path).expect("it was written");
    fs::write(&path, config.replace("\"reply\"", "\"pass\"")).expect("a file can be written");
    proxy.line(&["configuration in force", "generation=2"]).await;
}

#[tokio::test]
async fn a_signal_to_end_does_not_wait_for_what_is_being_compiled() {
    let origin = Origin::start().await;
    let folder = folder(&origin, "plugin-compile-memory = \"16GiB\", plugin-compile = \"10m\"");
    let mut proxy = Executable::start(TOLLGATE, folder.path(), &["run"]);
    is_asked(&proxy).await;
    put(folder.path(), "costly", &Handmade::CostsToCompile.component());
    let children = || {
        let path = format!("/proc/{0}/task/{0}/children", proxy.id());
        // Of all threads: whoever waits for the child has started it.
        let tasks = fs::read_dir(format!("/proc/{}/task", proxy.id())).into_iter().flatten().flatten();
        let paths = tasks.map(|task| task.path().join("children")).chain([path.into()]);
        paths.filter_map(|path| fs::read_to_string(path).ok()).any(|children| !children.trim().is_empty())
    };
    tollgate_tests::until("a child that compiles", children).await;
    proxy.signal(rustix::process::Signal::TERM);
    let (status, ..) = soon("the end", proxy.end()).await;
    assert!(status.success());
}

#[tokio::test]
async fn without_address_space_for_the_pool_a_proxy_starts_and_says_what_to_change() {
    let origin = Origin::start().await;
    let folder = folder(&origin, "");
    let command = format!("ulimit -v 12000000; exec {TOLLGATE} run");
    let proxy = Executable::start("/bin/sh", folder.path(), &["-c", &command]);
    proxy.line(&["cannot reserve address space", "ulimit -v unlimited"]).await;
    is_asked(&proxy).await;
}
