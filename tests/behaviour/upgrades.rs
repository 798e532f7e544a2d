//! What passes that is no HTTP: WebSocket and other upgrades, from HTTP/1.1 and HTTP/2.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::Poll,
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream, ext::Protocol};
use http::{Request, Response, Version};
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsAcceptor;
use tollgate_tests::{
    Answer, Authority, BareOrigin, Client, Identity, Origin, Proxy, Secure, guest,
    http2::{Http2Client, Http2Origin, Http2Response},
    listener, logged, route_to, soon, until,
};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A handshake of WebSocket, without the empty line at its end.
const HANDSHAKE: &str = "GET /chat?room=1 HTTP/1.1\r\nHost: site.test\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

fn accept_of(key: &str) -> String {
    let salted = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, salted.as_bytes()))
}

/// How clients come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Http1,
    Http1ByTls,
    Http2,
    Http2ByTls,
}

const DOORS: [Door; 4] = [Door::Http1, Door::Http1ByTls, Door::Http2, Door::Http2ByTls];

/// What the proxy speaks with the upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Back {
    Http1,
    Http1ByTls,
    Http2,
}

/// The client's end of a tunnel.
enum End {
    Whole(Client),
    Stream { send: SendStream<Bytes>, receive: RecvStream, _client: Http2Client },
}

impl End {
    async fn send(&mut self, bytes: &[u8]) {
        match self {
            Self::Whole(client) => assert!(client.send(bytes).await),
            Self::Stream { send, .. } => send.send_data(Bytes::copy_from_slice(bytes), false).unwrap(),
        }
    }

    async fn finish(&mut self) {
        match self {
            Self::Whole(client) => client.finish().await,
            Self::Stream { send, .. } => send.send_data(Bytes::new(), true).unwrap(),
        }
    }

    /// Everything that comes, as far as `wanted` or to the end.
    async fn read(&mut self, wanted: Option<&str>) -> String {
        match (self, wanted) {
            (Self::Whole(client), Some(wanted)) => client.read_until(wanted).await,
            (Self::Whole(client), None) => String::from_utf8(client.read_to_end().await).unwrap(),
            (Self::Stream { receive, .. }, wanted) => {
                let mut all = String::new();
                while wanted.is_none_or(|wanted| !all.ends_with(wanted)) {
                    let Some(data) = soon("data", receive.data()).await else { break };
                    let data = data.unwrap();
                    receive.flow_control().release_capacity(data.len()).unwrap();
                    all.push_str(std::str::from_utf8(&data).unwrap());
                }
                all
            }
        }
    }

    async fn read_until(&mut self, wanted: &str) -> String {
        self.read(Some(wanted)).await
    }
}

/// A proxy for `site.test` with a listener for each door, and what believes it.
async fn proxy_to(config: &str) -> (Proxy, Secure) {
    let authority = Authority::new();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    authority.vouch(&["site.test"]).write(folder.path(), "site");
    let tls = "tls = { certificates = [{ certificate = \"site.pem\", key = \"site.key\" }] }";
    let config = format!("{config}{}{}", listener(""), listener(tls));
    let proxy = Proxy::try_start_in(folder, &config, &[]).await.expect("the proxy starts");
    (proxy, Secure::believing(&authority))
}

fn with_alpn(secure: &Secure) -> Secure {
    secure.clone().but(|config| config.alpn_protocols = vec![b"h2".to_vec()])
}

/// An extended CONNECT to `site.test`.
fn connect(scheme: &str, protocol: &'static str) -> Request<()> {
    let request = Request::builder().method("CONNECT").uri(format!("{scheme}://site.test/chat?room=1"));
    let mut request = request.header("sec-websocket-version", "13").body(()).unwrap();
    *request.version_mut() = Version::HTTP_2;
    request.extensions_mut().insert(Protocol::from_static(protocol));
    request
}

/// A client that comes through a door of HTTP/2.
async fn http2_client(proxy: &Proxy, secure: &Secure, door: Door) -> Http2Client {
    let addresses = proxy.server().addresses();
    let settings = h2::client::Builder::new();
    let client = match door {
        Door::Http2ByTls => {
            let stream = with_alpn(secure).try_connect(addresses[1], "site.test").await.unwrap();
            Http2Client::over(stream, &settings).await
        }
        _ => Http2Client::connect_with(addresses[0], &settings).await,
    };
    let sender = client.sender.clone();
    until("the proxy offers extended CONNECT", || sender.is_extended_connect_protocol_enabled()).await;
    client
}

/// Opens a tunnel. The origin agrees meanwhile.
async fn open(proxy: &Proxy, secure: &Secure, door: Door) -> End {
    let addresses = proxy.server().addresses();
    let mut client = match door {
        Door::Http1 => Client::connect(addresses[0]).await,
        Door::Http1ByTls => secure.connect(addresses[1], "site.test").await,
        Door::Http2 | Door::Http2ByTls => {
            let scheme = if door == Door::Http2 { "http" } else { "https" };
            let mut client = http2_client(proxy, secure, door).await;
            let (response, send) = client.open(connect(scheme, "websocket"), false).await;
            let response = soon("an answer", response).await.expect("there is an answer");
            assert_eq!(response.status(), 200);
            for name in ["connection", "upgrade", "sec-websocket-accept"] {
                assert!(!response.headers().contains_key(name), "{name}");
            }
            assert_eq!(response.headers()["sec-websocket-protocol"], "chat");
            return End::Stream { send, receive: response.into_body(), _client: client };
        }
    };
    client.send(format!("{HANDSHAKE}\r\n")).await;
    let response = client.any_response(false).await.expect("there is an answer");
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert_eq!(response.header("connection"), Some("upgrade"));
    assert_eq!(response.header("sec-websocket-accept"), Some(&*accept_of(KEY)));
    assert_eq!(response.header("sec-websocket-protocol"), Some("chat"));
    End::Whole(client)
}

/// Reads a handshake at the origin: its lines.
async fn handshake(origin: &mut Client) -> Vec<String> {
    lines_of(&origin.read_until("\r\n\r\n").await)
}

fn lines_of(head: &str) -> Vec<String> {
    head.split("\r\n").map(str::to_lowercase).filter(|line| !line.is_empty()).collect()
}

fn key_of(head: &str) -> String {
    let (_, key) = head.split_once("sec-websocket-key: ").expect("there is a key");
    key.split("\r\n").next().unwrap().to_owned()
}

/// Agrees at the origin; with some first words of the other protocol.
async fn agree(origin: &mut Client, key: &str, first: &str) {
    let accept = accept_of(key);
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: WebSocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: chat\r\n\r\n{first}"
    );
    assert!(origin.send(head).await);
}

/// Waits for a handshake at the origin, and agrees.
async fn agreeing(origin: &BareOrigin, tls: Option<&TlsAcceptor>) -> Client {
    let mut connection = origin.accept().await;
    if let Some(tls) = tls {
        connection = Client::over(tls.accept(connection.into_stream()).await.expect("hands are shaken"));
    }
    let head = connection.read_until("\r\n\r\n").await;
    agree(&mut connection, &key_of(&head), "").await;
    connection
}

/// Speaks HTTP/2, and says everything again that comes in a tunnel.
async fn echoing_http2(offers: bool) -> Http2Origin {
    let mut settings = h2::server::Builder::new();
    if offers {
        settings.enable_connect_protocol();
    }
    Http2Origin::serving_with(settings, |request, mut respond| async move {
        let response = Response::builder().header("sec-websocket-protocol", "chat").body(()).unwrap();
        let Ok(mut send) = respond.send_response(response, false) else { return };
        let mut body = request.into_body();
        while let Some(Ok(data)) = body.data().await {
            let _ = body.flow_control().release_capacity(data.len());
            let _ = send.send_data(data, false);
        }
        let _ = send.send_data(Bytes::from_static(b"bye"), true);
    })
    .await
}

#[tokio::test]
async fn a_tunnel_goes_through_every_door_to_every_upstream() {
    let authority = Authority::new();
    let identity: Identity = authority.vouch(&["127.0.0.1"]);
    let acceptor = TlsAcceptor::from(Arc::new(identity.server(None)));
    for back in [Back::Http1, Back::Http1ByTls, Back::Http2] {
        let origin = BareOrigin::start().await;
        let http2 = echoing_http2(true).await;
        let config = match back {
            Back::Http1 => route_to(&[&origin.url()]),
            Back::Http1ByTls => {
                let url = origin.url().replace("http:", "https:");
                format!("{}[upstreams.app.tls]\nverify = \"none\"\n", route_to(&[&url]))
            }
            Back::Http2 => route_to(&[&http2.url()]).replacen("\n", "\nprotocol = \"h2\"\n", 1),
        };
        let (proxy, secure) = proxy_to(&config).await;
        for door in DOORS {
            if back == Back::Http2 {
                let mut client = open(&proxy, &secure, door).await;
                client.send(b"ping").await;
                assert_eq!(client.read_until("ping").await, "ping", "{door:?} {back:?}");
                client.finish().await;
                assert_eq!(client.read(None).await, "bye", "{door:?} {back:?}");
                continue;
            }
            let tls = Some(&acceptor).filter(|_| back == Back::Http1ByTls);
            let (mut client, mut upstream) =
                tokio::join!(open(&proxy, &secure, door), agreeing(&origin, tls));
            client.send(b"ping").await;
            assert_eq!(upstream.read_until("ping").await, "ping", "{door:?} {back:?}");
            upstream.send("pong").await;
            assert_eq!(client.read_until("pong").await, "pong", "{door:?} {back:?}");
            // Each side may end before the other.
            client.finish().await;
            assert_eq!(upstream.read_to_end().await, b"", "{door:?} {back:?}");
            upstream.send("the last word").await;
            upstream.finish().await;
            assert_eq!(client.read(None).await, "the last word", "{door:?} {back:?}");
        }
        if back == Back::Http2 {
            let received = http2.received();
            assert_eq!(received.len(), DOORS.len());
            for request in received {
                assert_eq!(request.method, "CONNECT");
                assert_eq!(request.extensions.get::<Protocol>(), Some(&Protocol::from_static("websocket")));
                assert_eq!(request.uri.path_and_query().unwrap(), "/chat?room=1");
                assert!(!request.headers.contains_key("sec-websocket-key"));
                assert_eq!(request.headers["sec-websocket-version"], "13");
            }
        }
    }
}

#[tokio::test]
async fn the_upstream_ends_first_as_well() {
    let origin = BareOrigin::start().await;
    let (proxy, secure) = proxy_to(&route_to(&[&origin.url()])).await;
    for door in DOORS {
        let (mut client, mut upstream) = tokio::join!(open(&proxy, &secure, door), agreeing(&origin, None));
        upstream.send("over").await;
        upstream.finish().await;
        assert_eq!(client.read(None).await, "over", "{door:?}");
        client.send(b"and out").await;
        client.finish().await;
        assert_eq!(upstream.read_to_end().await, b"and out", "{door:?}");
    }
}

#[tokio::test]
async fn the_handshake_is_forwarded_as_one() {
    let origin = BareOrigin::start().await;
    let (proxy, secure) = proxy_to(&route_to(&[&origin.url()])).await;
    for door in DOORS {
        let (_client, lines) = tokio::join!(open(&proxy, &secure, door), async {
            let mut upstream = origin.accept().await;
            let head = upstream.read_until("\r\n\r\n").await;
            agree(&mut upstream, &key_of(&head), "").await;
            lines_of(&head)
        });
        assert_eq!(lines[0], "get /chat?room=1 http/1.1", "{door:?}");
        for line in
            ["host: site.test", "connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13"]
        {
            assert_eq!(lines.iter().filter(|other| *other == line).count(), 1, "{door:?} {lines:?}");
        }
        for name in ["connection:", "upgrade:", "sec-websocket-key:"] {
            assert_eq!(lines.iter().filter(|line| line.starts_with(name)).count(), 1, "{door:?} {lines:?}");
        }
        assert!(lines.contains(&"x-forwarded-for: 127.0.0.1".to_owned()), "{door:?} {lines:?}");
    }
}

#[tokio::test]
async fn nothing_goes_upstream_before_it_has_agreed_and_nothing_is_lost() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    for early in ["early", "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n", "\x01\x02\n\n\r\n\r\n", "GET / HT"] {
        let mut client = proxy.connect().await;
        client.send(format!("{HANDSHAKE}\r\n{early}")).await;
        let mut upstream = origin.accept().await;
        handshake(&mut upstream).await;
        client.send("more").await;
        // This goes to the client and back, so that what was sent before has had its time.
        upstream.send("HTTP/1.1 103 Early Hints\r\nX-A: 1\r\n\r\n").await;
        assert_eq!(client.any_response(false).await.unwrap().status, 103);
        assert!(upstream.is_silent().await, "{early:?}");
        agree(&mut upstream, KEY, "first").await;
        assert_eq!(client.any_response(false).await.unwrap().status, 101);
        assert_eq!(client.read_until("first").await, "first");
        let all = format!("{early}more");
        assert_eq!(upstream.read_until(&all).await, all);
    }
}

#[tokio::test]
async fn a_refusal_leaves_the_connection_to_http() {
    let origin = BareOrigin::start().await;
    let config = route_to(&[&origin.url()]) + "match = { path = \"/chat\" }\n";
    let proxy = Proxy::start(&config).await;
    for answer in [
        "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno",
        "HTTP/1.1 200 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nno",
    ] {
        let mut client = proxy.connect().await;
        // The second one is for nobody, whatever the first one was taken for.
        client.send(format!("{HANDSHAKE}\r\nGET /private HTTP/1.1\r\nHost: site.test\r\n\r\n")).await;
        let mut upstream = origin.accept().await;
        handshake(&mut upstream).await;
        upstream.send(answer).await;
        let response = client.response().await;
        assert_eq!(response.text(), "no");
        assert_eq!(response.header("upgrade"), None);
        assert_eq!(client.response().await.status, 404);
        assert!(upstream.is_silent().await, "nothing but the handshake has come");
        client.send("GET /chat HTTP/1.1\r\nHost: site.test\r\n\r\n").await;
        assert!(handshake(&mut upstream).await[0].starts_with("get /chat "), "the connection is used again");
        upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmore").await;
        assert_eq!(client.response().await.text(), "more");
    }
}

#[tokio::test]
async fn switching_to_what_was_not_asked_for_is_a_bad_gateway() {
    let accept = format!("Sec-WebSocket-Accept: {}\r\n", accept_of(KEY));
    for fields in [
        format!("Connection: Upgrade\r\nUpgrade: h2c\r\n{accept}"),
        format!("Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n{accept}"),
        format!("Connection: Upgrade\r\n{accept}"),
        format!("Upgrade: websocket\r\n{accept}"),
        "Connection: Upgrade\r\nUpgrade: websocket\r\n".to_owned(),
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {KEY}\r\n"),
    ] {
        let answer = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nsecret");
        let origin = Origin::answering(move |_| Answer::raw(answer.clone()).hang()).await;
        let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
        let mut client = proxy.connect().await;
        client.send(format!("{HANDSHAKE}\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status, 502, "{fields}");
        assert_eq!(response.header("upgrade"), None, "{fields}");
        assert!(!String::from_utf8_lossy(&response.body).contains("secret"), "{fields}");
        // Nothing else can be on such a connection.
        origin.has_open(0).await;
        client.send("GET /x HTTP/1.1\r\nHost: a b\r\n\r\n").await;
        assert_eq!(client.response().await.status, 400, "HTTP goes on");
    }
    let origin = BareOrigin::start().await;
    let (proxy, secure) = proxy_to(&route_to(&[&origin.url()])).await;
    // To a client of HTTP/2, any success would be a tunnel.
    let mut client = http2_client(&proxy, &secure, Door::Http2).await;
    for (answer, status) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502),
        ("HTTP/1.1 204 No Content\r\n\r\n", 502),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403),
        ("HTTP/1.1 302 Found\r\nLocation: /\r\nContent-Length: 0\r\n\r\n", 302),
    ] {
        let (response, _send) = client.open(connect("http", "websocket"), false).await;
        let mut upstream = origin.accept().await;
        handshake(&mut upstream).await;
        upstream.send(answer).await;
        let response = Http2Response::read(soon("an answer", response).await.unwrap()).await;
        assert_eq!(response.status, status, "{answer}");
        assert_eq!(response.text() == "no", status == 403, "{answer}");
        drop(upstream);
    }
}

#[tokio::test]
async fn other_protocols_pass_only_where_the_route_says_so() {
    let origin = BareOrigin::start().await;
    let routes = "upgrades = [\"Echo/1\"]\nmatch = { path = \"/echo\" }\n\
                  [[routes]]\nupstream = \"app\"\n[[routes]]\nupstream = \"app\"\nupgrades = []\n\
                  match = { path = \"/none\" }\n";
    let (proxy, secure) = proxy_to(&(route_to(&[&origin.url()]) + routes)).await;
    let websocket = format!("Upgrade: websocket\r\nSec-WebSocket-Key: {KEY}\r\n");
    for (path, fields, expected) in [
        ("/echo", "Connection: upgrade\r\nUpgrade: h2c, echo/1\r\n", Some("upgrade: echo/1")),
        ("/echo", "Connection: upgrade\r\nUpgrade: echo/2\r\n", None),
        ("/echo", &format!("Connection: upgrade\r\n{websocket}"), None),
        ("/", &format!("Connection: upgrade\r\n{websocket}"), Some("upgrade: websocket")),
        ("/", "Connection: upgrade\r\nUpgrade: echo/1\r\n", None),
        (
            "/",
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n",
            None,
        ),
        ("/", &websocket, None),
        ("/", &format!("Connection: upgrade\r\nContent-Length: 5\r\n{websocket}"), None),
        ("/none", &format!("Connection: upgrade\r\n{websocket}"), None),
    ] {
        let body = if fields.contains("Content-Length") { "hello" } else { "" };
        let mut client = proxy.connect_and_reset().await;
        client.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n{fields}\r\n{body}")).await;
        let mut upstream = origin.accept().await;
        let lines = handshake(&mut upstream).await;
        let of_upgrade = lines.iter().find(|line| line.starts_with("upgrade:")).map(String::as_str);
        assert_eq!(of_upgrade, expected, "{path} {fields}");
        let names_it = lines.contains(&"connection: upgrade".to_owned());
        assert_eq!(names_it, expected.is_some(), "{path} {fields}");
        assert!(!lines.iter().any(|line| line.starts_with("http2-settings")), "{path} {fields}");
    }
    for (fields, status) in [
        ("Connection: upgrade\r\nUpgrade: websocket\r\n", 400),
        ("Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: short\r\n", 400),
    ] {
        let response = proxy.request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")).await;
        assert_eq!(response.status, status, "{fields}");
    }
    let mut client = http2_client(&proxy, &secure, Door::Http2).await;
    for (protocol, path) in [("echo/1", "/"), ("websocket", "/none"), ("connect-udp", "/")] {
        let mut request = connect("http", protocol);
        *request.uri_mut() = format!("http://site.test{path}").parse().unwrap();
        let (response, _send) = client.open(request, false).await;
        assert_eq!(soon("an answer", response).await.unwrap().status(), 501, "{protocol} {path}");
    }
}

#[tokio::test]
async fn http_in_a_tunnel_is_no_setting() {
    let origin = Origin::start().await;
    for name in ["h2c", "HTTP/2.0", "h2", "a b", ""] {
        let config = route_to(&[&origin.url()]) + &format!("upgrades = [{name:?}]\n");
        let Err(error) = Proxy::try_start_with(&config, &[]).await else { panic!("{name} was accepted") };
        assert!(error.to_string().contains("the name of a protocol other than HTTP"), "{error}");
    }
}

#[tokio::test]
async fn an_upstream_of_http2_without_tunnels_is_said_to_be_one() {
    let origin = echoing_http2(false).await;
    let config = route_to(&[&origin.url()]).replacen("\n", "\nprotocol = \"h2\"\n", 1);
    let (proxy, secure) = proxy_to(&config).await;
    let mut client = proxy.connect().await;
    client.send(format!("{HANDSHAKE}\r\n")).await;
    assert_eq!(client.response().await.status, 502);
    assert_eq!(
        logged(&[
            "request failed",
            "does not offer to go on in another protocol",
            &origin.address.to_string()
        ])
        .len(),
        1
    );
    let mut client = http2_client(&proxy, &secure, Door::Http2).await;
    let (response, _send) = client.open(connect("http", "websocket"), false).await;
    assert_eq!(soon("an answer", response).await.unwrap().status(), 502);
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn what_is_not_taken_is_not_read() {
    const WHOLE: usize = 64 << 20;
    let origin = BareOrigin::start().await;
    let (proxy, secure) = proxy_to(&route_to(&[&origin.url()])).await;
    for door in [Door::Http1, Door::Http2] {
        let (client, mut upstream) = tokio::join!(open(&proxy, &secure, door), agreeing(&origin, None));
        let pushed = Arc::new(AtomicUsize::new(0));
        let counter = pushed.clone();
        let pushing = tokio::spawn(async move {
            let piece = vec![b'x'; 64 << 10];
            match client {
                End::Whole(client) => {
                    let mut stream = client.into_stream();
                    while counter.load(Ordering::Relaxed) < WHOLE {
                        stream.write_all(&piece).await.unwrap();
                        counter.fetch_add(piece.len(), Ordering::Relaxed);
                    }
                    stream.shutdown().await.unwrap();
                }
                End::Stream { mut send, receive, _client } => {
                    while counter.load(Ordering::Relaxed) < WHOLE {
                        send.reserve_capacity(piece.len());
                        let room = poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                        let room = room.min(piece.len());
                        send.send_data(Bytes::copy_from_slice(&piece[..room]), false).unwrap();
                        counter.fetch_add(room, Ordering::Relaxed);
                    }
                    send.send_data(Bytes::new(), true).unwrap();
                    // Until the origin has read all of it.
                    let mut receive = receive;
                    let _ = receive.data().await;
                }
            }
        });
        // Nothing tells of a standstill.
        let (mut before, mut still) = (0, 0);
        until("the client can send no more", || {
            let now = pushed.load(Ordering::Relaxed);
            still = if now == before && now > 0 { still + 1 } else { 0 };
            before = now;
            still > 40
        })
        .await;
        assert!(pushed.load(Ordering::Relaxed) < WHOLE / 2, "{door:?}: {before} bytes are held");
        let all = upstream.read_to_end().await;
        assert!(all.len() >= WHOLE, "{door:?}");
        drop(upstream);
        pushing.await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_that_is_reset_takes_the_upstream_with_it() {
    let origin = BareOrigin::start().await;
    let (proxy, secure) = proxy_to(&route_to(&[&origin.url()])).await;
    for reason in [Reason::CANCEL, Reason::INTERNAL_ERROR] {
        let (client, mut upstream) =
            tokio::join!(open(&proxy, &secure, Door::Http2), agreeing(&origin, None));
        let End::Stream { mut send, receive, _client } = client else { panic!("it is a stream") };
        send.send_reset(reason);
        assert!(upstream.is_closed().await, "{reason:?}");
        // Not half of it, which an end would have closed.
        until("the upstream cannot send", || {
            let sending = std::pin::pin!(upstream.send("lost"));
            let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
            matches!(sending.poll(&mut cx), Poll::Ready(false))
        })
        .await;
        drop(receive);
    }
}

#[tokio::test]
async fn a_silent_tunnel_is_closed_in_time() {
    let origin = BareOrigin::start().await;
    let config = route_to(&[&origin.url()]) + "[upstreams.app.timeouts]\ntunnel = \"200ms\"\n";
    let (proxy, secure) = proxy_to(&config).await;
    for door in DOORS {
        let (mut client, mut upstream) = tokio::join!(open(&proxy, &secure, door), agreeing(&origin, None));
        assert!(upstream.is_closed().await, "{door:?}");
        assert_eq!(client.read(None).await, "", "{door:?}");
    }
}

#[tokio::test]
async fn tunnels_are_counted_and_logged() {
    let origin = BareOrigin::start().await;
    let config = format!("[admin]\naddress = \"127.0.0.1:0\"\n{}", route_to(&[&origin.url()]))
        + "name = \"counted-tunnels\"\n";
    let (proxy, secure) = proxy_to(&config).await;
    for (number, door) in DOORS.into_iter().enumerate() {
        let (mut client, mut upstream) = tokio::join!(open(&proxy, &secure, door), agreeing(&origin, None));
        client.send(b"ping").await;
        upstream.read_until("ping").await;
        upstream.send("a longer pong").await;
        client.read_until("pong").await;
        let route = [("route", "counted-tunnels")];
        let metrics = soon("bytes are counted", async {
            loop {
                let metrics = proxy.metrics().await;
                let from = |from| metrics.sum("tollgate_tunnel_bytes_total", &[route[0], ("from", from)]);
                let bytes = [4.0, 13.0].map(|bytes| bytes * (number + 1) as f64);
                if [from("client"), from("upstream")] == bytes {
                    break metrics;
                }
            }
        })
        .await;
        assert_eq!(metrics.sum("tollgate_tunnels_open", &route), 1.0);
        assert_eq!(metrics.sum("tollgate_tunnels_total", &route), (number + 1) as f64);
        assert_eq!(metrics.sum("tollgate_upstream_active", &[]), 1.0, "the endpoint is busy");
        assert_eq!(proxy.told("/api/status").await["tunnels"], 1);
        client.finish().await;
        upstream.read_to_end().await;
        drop(upstream);
        client.read(None).await;
        let lines =
            || logged(&["counted-tunnels", r#""bytes_in":4,"#, r#""bytes_out":13,"#, r#""complete":true"#]);
        until("the access log tells of it", || lines().len() == number + 1).await;
        let status = if matches!(door, Door::Http1 | Door::Http1ByTls) {
            r#""status":101"#
        } else {
            r#""status":200"#
        };
        assert!(lines()[number].contains(status), "{:?}", lines());
        assert_eq!(proxy.metrics().await.sum("tollgate_tunnels_open", &route), 0.0);
        assert_eq!(proxy.told("/api/status").await["tunnels"], 0);
    }
    assert_eq!(proxy.metrics().await.sum("tollgate_upstream_active", &[]), 0.0);
}

#[tokio::test]
async fn a_tunnel_survives_a_reload_and_ends_with_the_time_to_drain() {
    let origin = BareOrigin::start().await;
    let config = format!("drain-timeout = \"1s\"\n{}", route_to(&[&origin.url()]));
    for door in DOORS {
        let (proxy, secure) = proxy_to(&config).await;
        let (mut client, mut upstream) = tokio::join!(open(&proxy, &secure, door), agreeing(&origin, None));
        let written = std::fs::read_to_string(proxy.config_path()).unwrap();
        let other =
            written.replace("upstream = \"app\"", "upstream = \"app\"\nmatch = { path = \"/other\" }");
        let upstreams = other.replace(&origin.url(), "http://127.0.0.1:1");
        proxy.reload(&upstreams).await.unwrap();
        let server = proxy.server().clone();
        let stopping = tokio::spawn(async move { server.stop().await });
        until("the proxy drains", || proxy.server().drain().has_started()).await;
        client.send(b"still there").await;
        assert_eq!(upstream.read_until("there").await, "still there", "{door:?}");
        upstream.send("so am I").await;
        assert_eq!(client.read_until("I").await, "so am I", "{door:?}");
        assert!(upstream.is_closed().await, "{door:?}");
        stopping.await.unwrap();
    }
}

#[tokio::test]
async fn plugins_see_the_handshake_and_its_answer() {
    let origin = BareOrigin::start().await;
    let config = route_to(&[&origin.url()])
        + "plugins = [\"guest\"]\n[plugins.guest]\nconfig = { request = \"obey\", response = \"obey\" }\n";
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    let ask = async |fields: &str| {
        let mut client = proxy.connect().await;
        client.send(format!("{HANDSHAKE}{fields}\r\n")).await;
        client
    };
    let mut client = ask("x-do: mark\r\nx-do-response: mark\r\nx-says: me\r\n").await;
    let mut upstream = origin.accept().await;
    let head = upstream.read_until("\r\n\r\n").await;
    assert!(head.contains("x-mark: "), "{head}");
    agree(&mut upstream, KEY, "").await;
    let response = client.any_response(false).await.unwrap();
    assert_eq!((response.status, response.values("x-mark").len()), (101, 1), "{response:?}");
    client.send("ping").await;
    assert_eq!(upstream.read_until("ping").await, "ping");

    let mut client = ask("x-do: reply\r\n").await;
    assert_eq!(client.response().await.status, 418);

    // Another answer than that of the upstream, which had agreed.
    for (behaviour, status) in [("reply", 418), ("status", 203)] {
        let mut client = ask(&format!("x-do-response: {behaviour}\r\n")).await;
        let mut upstream = origin.accept().await;
        handshake(&mut upstream).await;
        agree(&mut upstream, KEY, "").await;
        let response = client.response().await;
        assert_eq!(response.status, status);
        assert_eq!((response.header("upgrade"), response.header("connection")), (None, None));
        assert!(upstream.is_closed().await);
    }
}

#[tokio::test]
async fn the_cache_has_no_part_in_it() {
    let origin = BareOrigin::start().await;
    // One worker, so that there is one connection to the origin.
    let config = format!("workers = 1\n{}cache = {{ ttl = \"1m\" }}\n", route_to(&[&origin.url()]));
    let proxy = Proxy::start(&config).await;
    let mut plain = proxy.connect().await;
    plain.send("GET /chat?room=1 HTTP/1.1\r\nHost: site.test\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    handshake(&mut upstream).await;
    upstream.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstored").await;
    assert_eq!(plain.response().await.text(), "stored");
    let mut client = proxy.connect().await;
    client.send(format!("{HANDSHAKE}\r\n")).await;
    handshake(&mut upstream).await;
    agree(&mut upstream, KEY, "").await;
    assert_eq!(client.any_response(false).await.unwrap().status, 101);
}
