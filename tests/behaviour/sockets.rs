//! Sockets in the file system.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::{
    fs,
    os::unix::{
        fs::{FileTypeExt, PermissionsExt},
        net,
    },
    path::Path,
};

use tokio::net::UnixStream;
use tollgate_tests::{
    Authority, Client, Origin, Proxy, Secure, guest, http2::Http2Client, route_to, soon, until,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: site.test\r\nX-Forwarded-For: 203.0.113.7\r\n\r\n";

async fn connect(path: &Path) -> Client {
    Client::over(soon("a connection", UnixStream::connect(path)).await.expect("somebody listens"))
}

fn listener(path: &Path, more: &str) -> String {
    format!("[[listeners]]\naddress = \"unix:{}\"\n{more}\n", path.display())
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("the file is there").permissions().mode() & 0o777
}

#[tokio::test]
async fn a_socket_of_unix_is_a_listener_like_any_other() {
    let origin = Origin::start().await;
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.vouch(&["site.test"]).write(folder.path(), "site");
    let (clear, secure) = (folder.path().join("clear.sock"), folder.path().join("secure.sock"));
    let tls = "tls = { certificates = [{ certificate = \"site.pem\", key = \"site.key\" }] }";
    let config = route_to(&[&origin.url()]) + &listener(&clear, "mode = \"600\"") + &listener(&secure, tls);
    let proxy = Proxy::try_start_in(folder, &config, &[]).await.expect("the proxy starts");
    assert!(is_socket(&clear) && is_socket(&secure));
    assert_eq!(mode(&clear), 0o600);
    assert_eq!(fs::read_dir(proxy.folder()).unwrap().count(), 6, "nothing is left beside them");

    // Whichever worker accepts.
    for _ in 0..20 {
        let mut client = connect(&clear).await;
        for _ in 0..2 {
            client.send(GET).await;
            assert_eq!(client.response().await.status, 200);
            let received = origin.last();
            assert_eq!(received.header("x-forwarded-for"), None, "nobody knows, and nobody is believed");
            assert_eq!(received.header("x-forwarded-proto"), Some("http"));
        }
    }
    let stream = UnixStream::connect(&clear).await.unwrap();
    let mut http2 = Http2Client::over(stream, &h2::client::Builder::new()).await;
    assert_eq!(http2.get("/").await.status, 200);

    let mut client =
        Secure::believing(&authority).over(UnixStream::connect(&secure).await.unwrap(), "site.test").await;
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
    let mut mistaken = connect(&secure).await;
    mistaken.send(GET).await;
    assert_eq!(mistaken.response().await.status, 400, "it speaks TLS");

    proxy.stop().await;
    assert!(!clear.exists() && !secure.exists());
}

#[tokio::test]
async fn who_comes_by_it_has_no_address() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let plugins = "plugins = [\"guest\"]\n[plugins.guest]\nconfig = { request = \"see\" }\n";
    let seen = async || {
        let mut client = connect(&path).await;
        client.send(GET).await;
        client.response().await.json()["client"].clone()
    };
    let config = route_to(&[&origin.url()]) + plugins + &listener(&path, "");
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    assert_eq!(seen().await, "unix:");
    // Unless one is trusted to say so.
    let config = route_to(&[&origin.url()]) + plugins + &listener(&path, "trusted-proxies = [\"unix:\"]");
    proxy.reload(&config).await.unwrap();
    assert_eq!(seen().await, "203.0.113.7");
}

#[tokio::test]
async fn a_file_that_nobody_listens_on_is_taken_over() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    drop(net::UnixListener::bind(&path).unwrap());
    assert!(is_socket(&path), "what a process leaves behind that was killed");
    let config = route_to(&[&origin.url()]) + &listener(&path, "");
    let proxy = Proxy::start(&config).await;
    let mut client = connect(&path).await;
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200);

    let Err(error) = Proxy::try_start_with(&config, &[]).await else { panic!("two proxies share it") };
    assert!(error.to_string().contains("cannot listen on unix:"), "{error}");
    let mut client = connect(&path).await;
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200, "the first is not disturbed");
    drop(proxy);
}

#[tokio::test]
async fn a_file_that_is_no_socket_is_left_alone() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("precious");
    fs::write(&path, "data").unwrap();
    let config = route_to(&[&origin.url()]) + &listener(&path, "");
    assert!(Proxy::try_start_with(&config, &[]).await.is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    for (settings, problem) in [
        ("address = \"unix:relative.sock\"", "`unix:` and an absolute path"),
        ("address = \"127.0.0.1:0\"\nmode = \"660\"", "only a Unix socket has a mode"),
        ("address = \"unix:/tmp/a.sock\"\nmode = \"999\"", "three octal digits"),
    ] {
        let config = format!("{}[[listeners]]\n{settings}\n", route_to(&[&origin.url()]));
        let Err(error) = Proxy::try_start_with(&config, &[]).await else { panic!("{settings} was accepted") };
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[tokio::test]
async fn a_reload_keeps_it_and_what_is_gone_is_removed() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (kept, gone) = (folder.path().join("kept.sock"), folder.path().join("gone.sock"));
    let base = route_to(&[&origin.url()]);
    let both = base.clone() + &listener(&kept, "mode = \"600\"") + &listener(&gone, "");
    let proxy = Proxy::start(&both).await;
    let mut open = connect(&gone).await;
    open.send(GET).await;
    assert_eq!(open.response().await.status, 200);
    let before = fs::metadata(&kept).unwrap();
    proxy.reload(&(base + &listener(&kept, "mode = \"606\""))).await.unwrap();
    let after = fs::metadata(&kept).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::ino(&before), std::os::unix::fs::MetadataExt::ino(&after));
    assert_eq!(mode(&kept), 0o606);
    until("the file is gone", || !gone.exists()).await;
    let mut client = connect(&kept).await;
    client.send(GET).await;
    assert_eq!(client.response().await.status, 200);
    open.send(GET).await;
    assert_eq!(open.response().await.status, 200, "connections are not asked");
}

/// An origin on a socket, with its file.
fn origin_at(path: &Path) -> tokio::net::UnixListener {
    tokio::net::UnixListener::bind(path).unwrap()
}

#[tokio::test]
async fn an_endpoint_may_be_a_socket_of_unix() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("app.sock");
    let listening = origin_at(&path);
    let url = format!("unix:{}", path.display());
    let admin = "[admin]\naddress = \"127.0.0.1:0\"\n";
    let health = "[upstreams.app.health]\ninterval = \"50ms\"\npath = \"/healthz\"\n";
    let proxy = Proxy::start(&format!("{admin}{}{health}", route_to(&[&url]))).await;
    let origin = tokio::spawn(async move {
        let (mut checks, mut requests) = (0, Vec::new());
        while checks == 0 || requests.is_empty() {
            let (stream, _) = listening.accept().await.unwrap();
            let mut connection = Client::over(stream);
            let head = connection.read_until("\r\n\r\n").await;
            connection.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok").await;
            if head.starts_with("GET /healthz ") {
                assert!(head.contains("\r\nhost: localhost\r\n"), "{head}");
                checks += 1;
            } else {
                requests.push(head);
            }
        }
        requests.remove(0)
    });
    let response = proxy.get("/", &[]).await;
    assert_eq!((response.status, response.text()), (200, "ok"));
    assert_eq!(response.header("x-backend-server"), Some(&*url));
    let head = soon("a check and a request", origin).await.unwrap();
    assert!(head.contains("\r\nhost: test\r\n"), "{head}");
    assert_eq!(proxy.told("/api/upstreams").await["upstreams"][0]["endpoints"][0]["address"], url.as_str());
    let counted = proxy.metrics().await;
    assert_eq!(counted.sum("tollgate_upstream_requests_total", &[("endpoint", &url)]), 1.0);
}

#[tokio::test]
async fn an_endpoint_that_is_no_socket_is_no_endpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("missing.sock");
    let proxy = Proxy::start(&route_to(&[&format!("unix:{}", path.display())])).await;
    assert_eq!(proxy.get("/", &[]).await.status, 502);
    for url in ["unix:app.sock", "unix:", "https+unix:/app.sock"] {
        let Err(error) = Proxy::try_start_with(&route_to(&[url]), &[]).await else { panic!("{url}") };
        assert!(error.to_string().contains("unix:"), "{error}");
    }
}
