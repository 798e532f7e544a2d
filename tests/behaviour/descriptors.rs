//! What becomes of requests when the process may not open as many files as it would need.

use tollgate_tests::{Client, Config, Executable, Origin, until};

use crate::TOLLGATE;

/// A proxy that may have so many files open.
fn start(folder: &std::path::Path, files: u32, config: &str) -> Executable {
    std::fs::write(folder.join("config.toml"), config).expect("a file can be written");
    let command = format!("ulimit -n {files}; exec {TOLLGATE} run --config config.toml");
    Executable::start("/bin/sh", folder, &["-c", &command])
}

fn config(origins: &[&Origin], more: &str) -> String {
    let config = Config::to(origins).top("workers = 2\ndrain-timeout = '1s'").admin().listener(more);
    config.upstream("retry.attempts = 0\ntimeouts.connect = '1m'").toml()
}

#[tokio::test]
async fn requests_wait_where_files_run_out_and_no_endpoint_is_blamed_for_it() {
    let origins = [Origin::start().await, Origin::start().await];
    let folder = tempfile::tempdir().expect("a folder can be made");
    let proxy = start(folder.path(), 128, &config(&[&origins[0], &origins[1]], ""));
    let address = proxy.address().await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..300 {
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            for _ in 0..3 {
                client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
                assert_eq!(client.response().await.status, 200);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("every request is answered");
    }
    assert!(!proxy.lines(&["cannot accept connections"]).is_empty(), "files did run out");
    assert!(proxy.lines(&["endpoint is unhealthy"]).is_empty());
}

#[tokio::test]
async fn a_reload_is_possible_while_clients_hold_all_the_files_they_may() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().expect("a folder can be made");
    let proxy = start(folder.path(), 128, &config(&[&origin], ""));
    let address = proxy.address().await;
    let mut held = Vec::new();
    for _ in 0..200 {
        let mut client = Client::connect(address).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        held.push(client);
    }
    proxy.line(&["cannot accept connections"]).await;
    let more = "[[listeners]]\naddress = '127.0.0.1:0'\n";
    std::fs::write(folder.path().join("config.toml"), config(&[&origin], more))
        .expect("a file can be written");
    proxy.line(&["configuration in force"]).await;
    assert!(proxy.lines(&["configuration not used"]).is_empty());
    drop(held);
    proxy.line(&["connections are accepted again"]).await;
    until("nobody is blamed", || proxy.lines(&["endpoint is unhealthy"]).is_empty()).await;
}
