//! Connections that begin with whose they are: the PROXY protocol, on either side.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::{net::SocketAddr, path::Path, process::Stdio, sync::Arc};

use tokio::{
    io::AsyncReadExt,
    net::{TcpListener, TcpStream, UnixStream},
    process::{Child, Command},
};
use tokio_rustls::TlsAcceptor;
use tollgate::proxy_protocol::ProxyHeader;
use tollgate_tests::{
    Answer, Authority, BareOrigin, Client, Origin, Proxy, Secure, guest,
    http2::{self, Http2Client},
    listener, logged, route_to, soon, until,
};

const LINE: &str = "PROXY TCP4 203.0.113.7 198.51.100.2 56324 443\r\n";
const GET: &str = "GET / HTTP/1.1\r\nHost: site.test\r\nX-Forwarded-For: 192.0.2.99\r\n\r\n";
const TRUSTED: &str = "proxy-protocol = true\ntrusted-proxies = [\"127.0.0.1\"]\n";

/// The same as `LINE`, in version 2 and with something more, as it is on the wire.
fn binary() -> Vec<u8> {
    let addresses = [203, 0, 113, 7, 198, 51, 100, 2, 0xdc, 0x04, 0x01, 0xbb];
    let name = [&[2, 0, 9][..], b"site.test"].concat();
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x18"[..], &addresses, &name].concat()
}

fn local() -> Vec<u8> {
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()
}

async fn proxy_with(settings: &str, origin: &Origin) -> Proxy {
    Proxy::start(&(route_to(&[&origin.url()]) + &listener(&format!("{TRUSTED}{settings}")))).await
}

/// Says whose connection it is, and goes on.
async fn introduced(proxy: &Proxy, header: impl AsRef<[u8]>) -> Client {
    let mut client = proxy.connect().await;
    client.send(header).await;
    client
}

async fn status(client: &mut Client) -> u16 {
    client.send(GET).await;
    client.response().await.status
}

#[tokio::test]
async fn who_is_trusted_says_whose_connection_it_is() {
    let origin = Origin::start().await;
    let proxy = proxy_with("", &origin).await;
    for header in [LINE.as_bytes().to_vec(), binary()] {
        let mut client = introduced(&proxy, &header).await;
        for _ in 0..2 {
            assert_eq!(status(&mut client).await, 200);
            // It is the client's word that does not count.
            assert_eq!(origin.last().header("x-forwarded-for"), Some("203.0.113.7"));
        }
        // It does not matter how it is cut, nor what comes with it.
        let mut client = introduced(&proxy, [&header, GET.as_bytes()].concat()).await;
        assert_eq!(client.response().await.status, 200);
        let mut client = proxy.connect().await;
        for byte in &header {
            client.send([*byte]).await;
        }
        assert_eq!(status(&mut client).await, 200);
        assert_eq!(origin.last().header("x-forwarded-for"), Some("203.0.113.7"));

        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut stream, &header).await.unwrap();
        let mut http2 = Http2Client::over(stream, &h2::client::Builder::new()).await;
        assert_eq!(http2.get("/").await.status, 200);
        assert_eq!(origin.last().header("x-forwarded-for"), Some("203.0.113.7"));
    }
    let line = "PROXY TCP6 2001:db8::7 ::1 1 2\r\n";
    assert_eq!(status(&mut introduced(&proxy, line).await).await, 200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("2001:db8::7"));
}

#[tokio::test]
async fn its_client_is_the_client_everywhere() {
    let origin = Origin::start().await;
    let config = route_to(&[&origin.url()])
        + "plugins = [\"guest\"]\n[plugins.guest]\nconfig = { request = \"see\" }\n";
    let config = config + &listener(&format!("{TRUSTED}limits.connections-per-address = 1"));
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    let seen = async |client: &mut Client| {
        client.send("GET / HTTP/1.1\r\nHost: introduced.test\r\n\r\n").await;
        client.response().await
    };
    let mut first = introduced(&proxy, LINE).await;
    assert_eq!(seen(&mut first).await.json()["client"], "203.0.113.7");
    until("the access log", || !logged(&["introduced.test", "\"client\":\"203.0.113.7\""]).is_empty()).await;
    let mut second = introduced(&proxy, LINE).await;
    assert_eq!(seen(&mut second).await.status, 429, "it has as many connections as it may");
    let mut other = introduced(&proxy, LINE.replace("113.7", "113.8")).await;
    assert_eq!(seen(&mut other).await.json()["client"], "203.0.113.8");

    // A proxy behind that proxy is believed if it is trusted itself.
    let mut behind = introduced(&proxy, LINE.replace("203.0.113.7", "127.0.0.1")).await;
    behind.send(GET).await;
    assert_eq!(behind.response().await.json()["client"], "192.0.2.99");
}

#[tokio::test]
async fn it_comes_before_tls() {
    let origin = Origin::start().await;
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    authority.vouch(&["site.test"]).write(folder.path(), "site");
    let tls = "tls = { certificates = [{ certificate = \"site.pem\", key = \"site.key\" }] }";
    let config = route_to(&[&origin.url()]) + &listener(&format!("{TRUSTED}{tls}"));
    let proxy = Proxy::try_start_in(folder, &config, &[]).await.expect("the proxy starts");
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stream, &binary()).await.unwrap();
    let mut client = Secure::believing(&authority).over(stream, "site.test").await;
    assert_eq!(status(&mut client).await, 200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("203.0.113.7"));
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("https"));
    let mut mistaken = introduced(&proxy, LINE).await;
    assert_eq!(status(&mut mistaken).await, 400, "it speaks TLS");
}

#[tokio::test]
async fn who_speaks_for_nobody_keeps_its_own_address() {
    let origin = Origin::start().await;
    let proxy = proxy_with("", &origin).await;
    // A proxy that speaks for itself is believed as any other that is trusted.
    assert_eq!(status(&mut introduced(&proxy, local()).await).await, 200);
    assert_eq!(origin.last().header("x-forwarded-for"), Some("192.0.2.99, 127.0.0.1"));
    // One that brings somebody of whom it knows nothing is not.
    let unspecified = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0";
    for header in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN 1 2 3 4\r\n", unspecified] {
        assert_eq!(status(&mut introduced(&proxy, header).await).await, 200);
        assert_eq!(origin.last().header("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[tokio::test]
async fn a_connection_without_a_header_that_counts_is_closed() {
    let origin = Origin::start().await;
    let admin = "[admin]\naddress = \"127.0.0.1:0\"\n";
    let config = |trusted| {
        let listener = listener(&format!(
            "proxy-protocol = true\ntrusted-proxies = [{trusted:?}]\ntimeouts.handshake = \"200ms\""
        ));
        format!("{}{admin}{listener}", route_to(&[&origin.url()]))
    };
    let proxy = Proxy::start(&config("127.0.0.1")).await;
    let mut counted = 0.0;
    for (begun, reason) in [
        (GET, "absent"),
        ("\x16\x03\x01", "absent"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "absent"),
        ("PROXY TCP4 203.0.113.7 198.51.100.2 56324\r\nGET / HTTP/1.1\r\n", "malformed"),
        ("\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0cxxxxxxxxxxxx", "malformed"),
        ("\r\n\r\n\0\r\nQUIT\n\x21\x11\x7f\x7f", "too-long"),
        ("PROXY TCP4 203.0.113.7 ", "late"),
        ("", "late"),
    ] {
        let mut client = introduced(&proxy, begun).await;
        assert!(client.is_closed().await, "{begun}");
        counted += 1.0;
        let refused = proxy.metrics().await;
        let name = "tollgate_proxy_headers_refused_total";
        assert!(refused.sum(name, &[("reason", reason)]) > 0.0, "{begun} {reason}");
        assert_eq!(refused.sum(name, &[]), counted, "{begun}");
    }
    let late = proxy.metrics().await;
    assert_eq!(late.sum("tollgate_limits_reached_total", &[("limit", "listeners.timeouts.handshake")]), 2.0);
    for begun in ["", "PROXY TCP4"] {
        let mut client = introduced(&proxy, begun).await;
        client.finish().await;
        assert!(client.is_closed().await);
    }
    until("it is counted", || {
        let reasons =
            tollgate_tests::logged(&["connection without a PROXY header that counts", "\"absent\""]);
        !reasons.is_empty()
    })
    .await;
    assert_eq!(
        proxy.metrics().await.sum("tollgate_proxy_headers_refused_total", &[("reason", "silent")]),
        1.0
    );

    // Nobody else is heard, whatever it says.
    proxy.reload(&config("10.0.0.0/8")).await.unwrap();
    for begun in [LINE, GET, ""] {
        let mut client = introduced(&proxy, begun).await;
        assert!(client.is_closed().await);
    }
    let untrusted = proxy.metrics().await;
    assert_eq!(untrusted.sum("tollgate_proxy_headers_refused_total", &[("reason", "untrusted")]), 3.0);
    assert_eq!(untrusted.sum("tollgate_connections_open", &[]), 0.0);
    assert_eq!(origin.connections(), 0);
    // Where there is to be none, it is no request.
    proxy.reload(&(route_to(&[&origin.url()]) + admin + &listener(""))).await.unwrap();
    let mut client = introduced(&proxy, [LINE, GET].concat()).await;
    assert_eq!(client.response().await.status, 400);
}

#[tokio::test]
async fn somebody_has_to_be_trusted() {
    let config = format!("{}{}", route_to(&["http://127.0.0.1:1"]), listener("proxy-protocol = true"));
    let Err(error) = Proxy::try_start_with(&config, &[]).await else { panic!("nobody could connect") };
    assert!(error.to_string().contains("nobody is trusted to say whose connections they are"), "{error}");
}

/// What the proxy says first on its next connection, and the rest of it.
async fn introduction(origin: &BareOrigin) -> (ProxyHeader, Client) {
    let mut stream = origin.accept().await.into_stream();
    let mut header = Vec::new();
    loop {
        header.push(soon("a header", stream.read_u8()).await.unwrap());
        if let Some((introduction, _)) = ProxyHeader::read(&header).expect("it is a header") {
            assert!(header.starts_with(b"\r\n\r\n\0\r\nQUIT\n"), "it is of version 2");
            return (introduction, Client::over(stream));
        }
    }
}

/// A client of the proxy, and its address.
async fn client_of(proxy: &Proxy) -> (Client, SocketAddr) {
    let stream = TcpStream::connect(proxy.address()).await.unwrap();
    let address = stream.local_addr().unwrap();
    (stream.into(), address)
}

fn telling(endpoint: &str, more: &str) -> String {
    format!(
        "[upstreams.app]\nendpoints = [{endpoint:?}]\nproxy-protocol = true\n{more}\n[[routes]]\nupstream = \"app\"\n"
    )
}

async fn answer(upstream: &mut Client, body: &str) -> String {
    let head = upstream.read_until("\r\n\r\n").await;
    upstream.send(&Answer::ok(body).pieces[0]).await;
    head
}

#[tokio::test]
async fn an_upstream_is_told_whose_connection_it_is() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&telling(&origin.url(), "")).await;
    let destination = proxy.address();
    let (mut one, source) = client_of(&proxy).await;
    one.send(GET).await;
    let (introduction_of_one, mut upstream_of_one) = introduction(&origin).await;
    assert_eq!(introduction_of_one, ProxyHeader::Client { source, destination });
    answer(&mut upstream_of_one, "one").await;
    assert_eq!(one.response().await.text(), "one");
    // Nobody else's requests go over it, and the client's own do.
    let mut others = Vec::new();
    for _ in 0..4 {
        let (mut other, source) = client_of(&proxy).await;
        other.send(GET).await;
        let (introduction, mut upstream) = introduction(&origin).await;
        assert_eq!(introduction, ProxyHeader::Client { source, destination });
        answer(&mut upstream, "other").await;
        assert_eq!(other.response().await.text(), "other");
        others.push((other, upstream));
    }
    one.send(GET).await;
    answer(&mut upstream_of_one, "one again").await;
    assert_eq!(one.response().await.text(), "one again");

    // A reload that takes it back makes connections anew.
    proxy.reload(&route_to(&[&origin.url()])).await.unwrap();
    one.send(GET).await;
    let mut plain = origin.accept().await;
    assert!(answer(&mut plain, "plain").await.starts_with("GET / HTTP/1.1\r\n"));
    assert_eq!(one.response().await.text(), "plain");
}

/// Where connections are limited, a new one is made in the place of the oldest that nobody uses. The others stay.
#[tokio::test]
async fn one_connection_makes_room_for_one() {
    let origin = BareOrigin::start().await;
    let limits = "limits = { connections = 3, queue-timeout = \"1m\" }";
    let config = format!("workers = 1\n{}", telling(&origin.url(), limits));
    let proxy = Proxy::start(&config).await;
    let mut clients = Vec::new();
    for _ in 0..4 {
        let (mut client, _) = client_of(&proxy).await;
        client.send(GET).await;
        let (_, mut upstream) = introduction(&origin).await;
        answer(&mut upstream, "once").await;
        assert_eq!(client.response().await.text(), "once");
        clients.push((client, upstream));
    }
    let (_, oldest) = &mut clients[0];
    assert!(oldest.is_closed().await);
    for (client, upstream) in &mut clients[1..] {
        client.send(GET).await;
        answer(upstream, "again").await;
        assert_eq!(client.response().await.text(), "again");
    }
}

#[tokio::test]
async fn what_the_proxy_was_told_it_tells() {
    let origin = BareOrigin::start().await;
    let config = telling(&origin.url(), "") + &listener(TRUSTED);
    let proxy = Proxy::start(&config).await;
    let expected = ProxyHeader::Client {
        source: "203.0.113.7:56324".parse().unwrap(),
        destination: "198.51.100.2:443".parse().unwrap(),
    };
    let mut client = introduced(&proxy, LINE).await;
    client.send(GET).await;
    assert_eq!(introduction(&origin).await.0, expected);
    // Of whom a header of HTTP names, there is no port.
    let mut client = introduced(&proxy, LINE.replace("203.0.113.7", "127.0.0.1")).await;
    client.send(GET).await;
    let told = introduction(&origin).await.0;
    let source = "192.0.2.99:0".parse().unwrap();
    assert_eq!(told, ProxyHeader::Client { source, destination: "198.51.100.2:443".parse().unwrap() });
}

#[tokio::test]
async fn of_who_comes_by_a_socket_of_unix_nothing_is_told() {
    let origin = BareOrigin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    let listener = format!("[[listeners]]\naddress = \"unix:{}\"\n", path.display());
    let _proxy = Proxy::start(&(telling(&origin.url(), "") + &listener)).await;
    let mut client = Client::over(UnixStream::connect(&path).await.unwrap());
    client.send(GET).await;
    assert_eq!(introduction(&origin).await.0, ProxyHeader::Unknown);
}

#[tokio::test]
async fn an_upstream_is_told_before_hands_are_shaken() {
    let origin = BareOrigin::start().await;
    let authority = Authority::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), &authority.certificate).unwrap();
    let config = telling(&origin.url().replace("http:", "https:"), "tls.ca = \"ca.pem\"\nprotocol = \"h1\"");
    let proxy = Proxy::try_start_in(folder, &config, &[]).await.expect("the proxy starts");
    let (mut client, source) = client_of(&proxy).await;
    client.send(GET).await;
    let (introduction, upstream) = introduction(&origin).await;
    assert_eq!(introduction, ProxyHeader::Client { source, destination: proxy.address() });
    let acceptor = TlsAcceptor::from(Arc::new(authority.vouch(&["127.0.0.1"]).server(None)));
    let stream = soon("a handshake", acceptor.accept(upstream.into_stream())).await.unwrap();
    answer(&mut Client::over(stream), "secret").await;
    assert_eq!(client.response().await.text(), "secret");
}

#[tokio::test]
async fn a_connection_of_http2_is_one_clients_too() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&telling(&origin.url(), "protocol = \"h2\"")).await;
    let mut kept = Vec::new();
    for _ in 0..2 {
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        let source = stream.local_addr().unwrap();
        let mut client = Http2Client::over(stream, &h2::client::Builder::new()).await;
        let (first, _) = client.open(http2::request("GET", "/first", &[]), true).await;
        let (second, _) = client.open(http2::request("GET", "/second", &[]), true).await;
        let (introduction, upstream) = introduction(&origin).await;
        assert_eq!(introduction, ProxyHeader::Client { source, destination: proxy.address() });
        let mut upstream = h2::server::handshake(upstream.into_stream()).await.unwrap();
        for _ in 0..2 {
            let (_, mut respond) = soon("a request", upstream.accept()).await.unwrap().unwrap();
            respond.send_response(http::Response::new(()), true).unwrap();
        }
        let driving = tokio::spawn(async move { while upstream.accept().await.is_some() {} });
        for answer in [first, second] {
            assert_eq!(soon("an answer", answer).await.unwrap().status(), 200);
        }
        kept.push((client, driving));
    }
}

#[tokio::test]
async fn checks_speak_for_nobody() {
    for check in ["protocol = \"http\"", "protocol = \"tcp\""] {
        let origin = BareOrigin::start().await;
        let health = format!("health = {{ interval = \"50ms\", {check} }}");
        let _proxy = Proxy::start(&telling(&origin.url(), &health)).await;
        let (introduction, mut upstream) = introduction(&origin).await;
        assert_eq!(introduction, ProxyHeader::Own);
        if check.contains("http") {
            assert!(upstream.read_until("\r\n\r\n").await.starts_with("GET / HTTP/1.1\r\n"));
        } else {
            assert!(upstream.is_closed().await);
        }
    }
}

/// HAProxy with this configuration, once it accepts connections at `ready`. None where there is no HAProxy.
async fn haproxy(folder: &Path, config: &str, ready: SocketAddr) -> Option<Child> {
    let path = folder.join("haproxy.cfg");
    let defaults = "defaults\n mode tcp\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n";
    std::fs::write(&path, format!("{defaults}{config}")).unwrap();
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&path).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let mut child = command.spawn().ok()?;
    soon("HAProxy", async {
        while TcpStream::connect(ready).await.is_err() {
            assert_eq!(child.try_wait().unwrap(), None, "HAProxy has given up: {config}");
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    Some(child)
}

/// A port that was free a moment ago: HAProxy cannot say which it has taken.
async fn free_port() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn haproxy_says_and_is_told_whose_connection_it_is() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let behind = folder.path().join("behind.sock");
    let admin = "[admin]\naddress = \"127.0.0.1:0\"\n";
    let config =
        telling(&format!("unix:{}", behind.display()), "health = { interval = \"50ms\", timeout = \"5s\" }")
            + admin
            + &listener(TRUSTED);
    let proxy = Proxy::start(&config).await;
    let (first, second) = (free_port().await, free_port().await);
    let (tollgate, origin_address, path) = (proxy.address(), origin.address, behind.display());
    let config = format!(
        "listen first\n bind {first}\n server tollgate {tollgate} send-proxy\n\
         listen second\n bind {second}\n server tollgate {tollgate} send-proxy-v2 proxy-v2-options crc32c,unique-id\n\
         frontend behind\n mode http\n bind unix@{path} accept-proxy\n default_backend origin\n\
         backend origin\n mode http\n http-request set-header x-told %[src]:%[src_port]-%[dst]:%[dst_port]\n\
         server origin {origin_address}\n"
    );
    let Some(_haproxy) = haproxy(folder.path(), &config, first).await else {
        eprintln!("skipped: there is no haproxy, so nobody else has read and written these headers");
        return;
    };
    for front in [first, second] {
        let stream = TcpStream::connect(front).await.unwrap();
        let source = stream.local_addr().unwrap();
        let mut client = Client::from(stream);
        client.send("GET / HTTP/1.1\r\nHost: site.test\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
        let received =
            origin.received().into_iter().rfind(|received| received.header("x-forwarded-for").is_some());
        let received = received.unwrap();
        assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
        assert_eq!(received.header("x-told"), Some(&*format!("{source}-{front}")));
    }
    // Checks come from the proxy itself: of HAProxy's own connection, which has no address.
    soon("a check", async {
        while !origin.received().iter().any(|received| received.header("x-forwarded-for").is_none()) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    })
    .await;
    let refused = proxy.metrics().await.sum("tollgate_proxy_headers_refused_total", &[]);
    let silent = proxy.metrics().await.sum("tollgate_proxy_headers_refused_total", &[("reason", "silent")]);
    assert_eq!(refused, silent, "of those who looked whether HAProxy was there");
}
