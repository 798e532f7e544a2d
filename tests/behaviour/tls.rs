//! TLS with clients, and with upstreams.

use std::{
    fs,
    process::{Command, Stdio},
};

use rustls::HandshakeKind;
use tempfile::TempDir;
use tollgate_tests::{
    Answer, Authority, Client, Config, Executable, Identity, Load, Origin, Proxy, Response, Secure,
    endpoints, guest, http2::Http2Client, listener, logged, route_to, soon, until,
};

use crate::TOLLGATE;

const GET: &str = "GET / HTTP/1.1\r\nHost: site.test\r\n\r\n";

/// A folder with these certificates in it, each under its name.
fn folder(identities: &[(&str, &Identity)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    for (name, identity) in identities {
        identity.write(folder.path(), name);
    }
    folder
}

/// A listener with these certificates and other settings of its `tls`.
fn tls(names: &[&str], more: &str) -> String {
    let files: Vec<_> = names
        .iter()
        .map(|name| format!("{{ certificate = \"{name}.pem\", key = \"{name}.key\" }}"))
        .collect();
    listener(&format!("tls = {{ certificates = [{}]{more} }}", files.join(", ")))
}

async fn start(folder: TempDir, config: &str) -> Proxy {
    match Proxy::try_start_in(folder, config, &[]).await {
        Ok(proxy) => proxy,
        Err(error) => panic!("the proxy does not start: {error}"),
    }
}

/// A proxy for `site.test` in front of an origin.
async fn site(authority: &Authority, origin: &Origin, more: &str) -> Proxy {
    let folder = folder(&[("site", &authority.vouch(&["site.test", "*.site.test"]))]);
    start(folder, &(route_to(&[&origin.url()]) + &tls(&["site"], more))).await
}

async fn ask(client: &mut Client, request: &str) -> Response {
    client.send(request).await;
    client.response().await
}

async fn get(client: &mut Client, host: &str) -> Response {
    ask(client, &format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await
}

/// The problems that a configuration has which does not start, as they are shown.
async fn refused(folder: TempDir, config: &str) -> String {
    match Proxy::try_start_in(folder, config, &[]).await {
        Ok(_) => panic!("the configuration is not refused"),
        Err(error) => error.to_string(),
    }
}

/// Whether a program is there to test with.
fn is_there(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if found.is_err() {
        eprintln!("skipped: there is no {program} on this machine");
    }
    found.is_ok()
}

/// What a program prints that is given nothing to read.
async fn printed(program: &str, arguments: &[&str]) -> String {
    let command = tokio::process::Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output = soon(program, command).await.expect("the program is there");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
}

// ---------------------------------------------------------------------------------------------
// Clients
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn requests_come_by_every_version_of_tls_and_by_no_other() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    for version in ["1.2", "1.3"] {
        let mut client = Secure::of_version(&authority, version).connect(proxy.address(), "site.test").await;
        for _ in 0..2 {
            assert_eq!(get(&mut client, "site.test").await.text(), origin.port());
        }
        let received = origin.last();
        assert_eq!(received.header("x-forwarded-proto"), Some("https"));
        let id = received.header("x-request-id").expect("a request has an id").to_owned();
        until("the access log tells the version", || {
            !logged(&[&id, &format!("\"tls\":\"{version}\"")]).is_empty()
        })
        .await;
    }

    let only_new = site(&authority, &origin, ", min-version = \"1.3\"").await;
    assert!(Secure::of_version(&authority, "1.3").try_connect(only_new.address(), "site.test").await.is_ok());
    assert!(
        Secure::of_version(&authority, "1.2").try_connect(only_new.address(), "site.test").await.is_err()
    );
}

#[tokio::test]
async fn handshakes_are_counted() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let admin = "[admin]\naddress = \"127.0.0.1:0\"\n";
    let folder = folder(&[("site", &authority.vouch(&["site.test"]))]);
    let settings = tls(&["site"], "") + "timeouts.handshake = \"200ms\"\n";
    let proxy = start(folder, &(route_to(&[&origin.url()]) + admin + &settings)).await;
    for version in ["1.2", "1.3"] {
        let secure = Secure::of_version(&authority, version);
        for _ in 0..3 {
            let mut client = secure.connect(proxy.address(), "site.test").await;
            assert_eq!(get(&mut client, "site.test").await.status, 200);
        }
    }
    let stranger = Secure::believing(&Authority::new());
    assert!(stranger.try_connect(proxy.address(), "site.test").await.is_err());
    assert_eq!(proxy.request("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await.status, 400);
    drop(proxy.connect().await);
    assert!(proxy.connect().await.is_closed().await);
    let failed = |metrics: &tollgate_tests::Metrics, reason| {
        metrics.sum("tollgate_tls_handshakes_failed_total", &[("reason", reason)])
    };
    let metrics = soon("all are counted", async {
        loop {
            let metrics = proxy.metrics().await;
            if ["silent", "clear", "late", "broken"].map(|reason| failed(&metrics, reason)) == [1.0; 4] {
                break metrics;
            }
        }
    })
    .await;
    for version in ["1.2", "1.3"] {
        let of = |kind| metrics.sum("tollgate_tls_handshakes_total", &[("version", version), ("kind", kind)]);
        assert_eq!((of("full"), of("resumed")), (1.0, 2.0), "{version}");
    }
    let late = [("limit", "listeners.timeouts.handshake")];
    assert_eq!(metrics.sum("tollgate_limits_reached_total", &late), 1.0);
}

#[tokio::test]
async fn bodies_pass_by_tls_in_both_directions() {
    let authority = Authority::new();
    let origin = Origin::answering(|request| {
        let body = &request.body;
        Answer::raw(
            [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes(), body].concat(),
        )
    })
    .await;
    let proxy = site(&authority, &origin, "").await;
    let mut client = Secure::believing(&authority).connect(proxy.address(), "site.test").await;
    for size in [0, 1, 16 << 10, 3_000_000] {
        let body: Vec<u8> = (0..size).map(|place| (place * 7 % 251) as u8).collect();
        let head = format!("POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: {size}\r\n\r\n");
        // The origin answers at the end of the body, so nobody waits for anybody.
        client.send(head).await;
        client.send(&body).await;
        let response = client.response().await;
        assert!(response.is_complete && response.body == body, "{size}");
    }
}

#[tokio::test]
async fn the_framing_of_requests_is_looked_at_behind_tls_as_well() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    let mut client = Secure::believing(&authority).connect(proxy.address(), "site.test").await;
    client
        .send("POST / HTTP/1.1\r\nHost: site.test\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        .await;
    assert_eq!(client.response().await.status, 400);
    assert!(client.is_closed().await);
    assert_eq!(origin.bytes(), 0);
}

#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses_the_certificate() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let identities = [
        ("default", authority.vouch(&["default.test", "127.0.0.1"])),
        ("wild", authority.vouch(&["*.wild.test"])),
        ("exact", authority.vouch(&["exact.wild.test"])),
    ];
    let folder = folder(&identities.each_ref().map(|(name, identity)| (*name, identity)));
    let config = route_to(&[&origin.url()]) + &tls(&["default", "wild", "exact"], "");
    let proxy = start(folder, &config).await;
    let secure = Secure::believing(&authority);
    for (name, place) in [
        ("default.test", 0),
        ("127.0.0.1", 0),
        ("x.wild.test", 1),
        ("X.Wild.Test", 1),
        ("exact.wild.test", 2),
    ] {
        let stream = secure.try_connect(proxy.address(), name).await.expect(name);
        let shown = stream.get_ref().1.peer_certificates().expect("the server has shown one");
        assert_eq!(shown[0], identities[place].1.der(), "{name}");
    }
    // Those get the default, which is not for them.
    for name in ["unknown.test", "x.y.wild.test", "wild.test"] {
        let error = secure.try_connect(proxy.address(), name).await.expect_err(name);
        assert!(error.to_string().contains("not valid for name"), "{error}");
    }
}

#[tokio::test]
async fn sessions_are_resumed_on_every_worker_and_across_a_new_certificate() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    for version in ["1.2", "1.3"] {
        let secure = Secure::of_version(&authority, version);
        let connect = async || {
            let stream = secure.try_connect(proxy.address(), "site.test").await.expect("a handshake");
            let kind = stream.get_ref().1.handshake_kind();
            // Tickets come after the handshake: whoever has read a response has got them.
            get(&mut Client::over(stream), "site.test").await;
            kind
        };
        assert_ne!(connect().await, Some(HandshakeKind::Resumed), "{version}");
        // The kernel deals connections out among two workers.
        for _ in 0..8 {
            assert_eq!(connect().await, Some(HandshakeKind::Resumed), "{version}");
        }
        authority.vouch(&["site.test"]).write(proxy.folder(), "site");
        proxy.reload_files().await.expect("the certificate is good");
        assert_eq!(connect().await, Some(HandshakeKind::Resumed), "{version} after the change");
    }
}

#[tokio::test]
async fn a_protocol_that_is_not_spoken_is_refused_in_the_handshake() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    let secure = Secure::believing(&authority);
    let offering = |names: &[&str]| {
        let names = names.iter().map(|name| name.as_bytes().to_vec()).collect();
        secure.clone().but(|config| config.alpn_protocols = names)
    };
    let stream =
        offering(&["http/1.1", "h2"]).try_connect(proxy.address(), "site.test").await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let stream =
        offering(&["x", "http/1.1"]).try_connect(proxy.address(), "site.test").await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(offering(&["x"]).try_connect(proxy.address(), "site.test").await.is_err());
}

#[tokio::test]
async fn an_answer_of_the_responder_is_shown_with_the_certificate() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let folder = folder(&[("site", &authority.vouch(&["site.test"]))]);
    let answer = b"\x30\x07\x0a\x01\x00\xa0\x02\x30\x00";
    fs::write(folder.path().join("site.ocsp"), answer).expect("a file can be written");
    let config = route_to(&[&origin.url()])
        + &listener(
            "tls = { certificates = [{ certificate = \"site.pem\", key = \"site.key\", ocsp = \"site.ocsp\" }] }",
        );
    let proxy = start(folder, &config).await;
    if is_there("openssl") {
        let (address, host) = (proxy.address().to_string(), "site.test");
        let said =
            printed("openssl", &["s_client", "-connect", &address, "-servername", host, "-status"]).await;
        assert!(!said.contains("OCSP response: no response sent"), "{said}");
        assert!(said.contains("OCSP response"), "{said}");
    }
}

#[tokio::test]
async fn http_in_clear_is_told_that_tls_is_spoken() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    let mut client = proxy.connect().await;
    let response = ask(&mut client, GET).await;
    assert_eq!((response.status, response.header("connection")), (400, Some("close")));
    assert!(response.text().contains("this port speaks TLS: use https"), "{response:?}");
    assert!(client.is_closed().await);
    // What is neither is not answered in words.
    let mut client = proxy.connect().await;
    client.send("\x01garbage that is neither TLS nor HTTP").await;
    let answer = client.read_to_end().await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    assert_eq!(origin.bytes(), 0);
}

#[tokio::test]
async fn whoever_does_not_finish_the_handshake_is_let_go() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let folder = folder(&[("site", &authority.vouch(&["site.test"]))]);
    let config = route_to(&[&origin.url()])
        + &tls(&["site"], "")
        + "limits.connections = 1\ntimeouts.handshake = \"200ms\"";
    let proxy = start(folder, &config).await;
    for beginning in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = proxy.connect().await;
        client.send(beginning).await;
        assert_eq!(client.read_to_end().await, b"", "{beginning:?}");
        until("the connection is not counted any more", || proxy.server().connections() == 0).await;
    }
    // It counts while it lasts.
    let _silent = proxy.connect().await;
    until("a connection", || proxy.server().connections() == 1).await;
    assert!(proxy.connect().await.is_closed().await, "the second is one too many");
}

#[tokio::test]
async fn the_end_of_a_connection_is_said_in_tls() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    let mut stream =
        Secure::believing(&authority).try_connect(proxy.address(), "site.test").await.expect("TLS");
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let request = "GET / HTTP/1.1\r\nHost: site.test\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.expect("it is sent");
    let mut answer = Vec::new();
    // An end without `close_notify` would be an error here.
    soon("the end", stream.read_to_end(&mut answer)).await.expect("the end is said");
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

// ---------------------------------------------------------------------------------------------
// The right door
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_request_for_another_host_than_the_certificate_is_for_is_misdirected() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let (one, two) =
        (authority.vouch(&["one.test", "also.test", "*.one.test"]), authority.vouch(&["two.test"]));
    let config = route_to(&[&origin.url()]) + &tls(&["one", "two"], "");
    let proxy = start(folder(&[("one", &one), ("two", &two)]), &config).await;
    let secure = Secure::believing(&authority);
    let mut client = secure.connect(proxy.address(), "one.test").await;
    for (host, status) in [
        ("one.test", 200),
        ("ONE.test:8443", 200),
        ("one.test.", 200),
        ("also.test", 200),
        ("x.one.test", 200),
        ("two.test", 421),
        ("x.y.one.test", 421),
        ("unknown.test", 421),
        ("127.0.0.1", 200),
    ] {
        assert_eq!(get(&mut client, host).await.status, status, "{host}");
    }
    let mut without_name = secure.clone().but(|config| config.enable_sni = false);
    without_name = without_name.but(|config| config.enable_early_data = false);
    let mut client = without_name.connect(proxy.address(), "one.test").await;
    assert_eq!(get(&mut client, "two.test").await.status, 200);

    let trusting = start(
        folder(&[("one", &one)]),
        &(route_to(&[&origin.url()]) + &tls(&["one"], "") + "trusted-proxies = [\"127.0.0.1\"]"),
    )
    .await;
    let mut client = secure.connect(trusting.address(), "one.test").await;
    assert_eq!(get(&mut client, "two.test").await.status, 200);
}

#[tokio::test]
async fn requests_in_clear_are_sent_to_tls() {
    let origin = Origin::start().await;
    let config = |settings: &str| route_to(&[&origin.url()]) + &listener(settings);
    let proxy = Proxy::start(&config("redirect-to-https = true")).await;
    let response = proxy.request("GET /a/../b?c=d HTTP/1.1\r\nHost: Site.test:8080\r\n\r\n").await;
    assert_eq!((response.status, response.header("location")), (308, Some("https://site.test/b?c=d")));
    assert_eq!(origin.bytes(), 0);

    let proxy = Proxy::start(&config("redirect-to-https = { port = 8443, status = 301 }")).await;
    let response = proxy.request("POST / HTTP/1.1\r\nHost: [::1]\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!((response.status, response.header("location")), (301, Some("https://[::1]:8443/")));
    let mut client = Http2Client::connect(proxy.address()).await;
    let response = client.get("/a//b?c").await;
    assert_eq!((response.status, response.header("location")), (301, Some("https://test:8443/a/b?c")));

    // A proxy that is believed says how its own clients came.
    let proxy = Proxy::start(&config("redirect-to-https = true\ntrusted-proxies = [\"127.0.0.1\"]")).await;
    assert_eq!(proxy.get("/", &["X-Forwarded-Proto: https"]).await.status, 200);
    assert_eq!(proxy.get("/", &["X-Forwarded-Proto: http"]).await.status, 308);
    assert_eq!(proxy.get("/", &[]).await.status, 308);
}

#[tokio::test]
async fn a_redirection_leads_to_the_host_that_was_asked_for_and_nowhere_else() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&(route_to(&[&origin.url()]) + &listener("redirect-to-https = true"))).await;
    for (request, status, location) in [
        ("GET //evil.test/ HTTP/1.1\r\nHost: site.test", 308, Some("https://site.test/evil.test/")),
        ("GET /%2e%2e//evil.test/ HTTP/1.1\r\nHost: site.test", 400, None),
        ("GET / HTTP/1.1\r\nHost: site.test\r\nX-Forwarded-Host: evil.test", 308, Some("https://site.test/")),
        ("GET http://site.test/a HTTP/1.1\r\nHost: site.test", 308, Some("https://site.test/a")),
        ("GET http://evil.test/ HTTP/1.1\r\nHost: site.test", 400, None),
        ("GET / HTTP/1.1\r\nHost: site.test@evil.test", 400, None),
        ("GET / HTTP/1.1\r\nHost: site.test\\@evil.test", 400, None),
        ("GET / HTTP/1.1\r\nHost: site.test/.evil.test", 400, None),
        ("GET / HTTP/1.1\r\nHost: site.test:80:80", 400, None),
        ("GET / HTTP/1.1\r\nHost: site.test#evil.test", 400, None),
        // Without a host, the path would be taken for one.
        ("GET /evil.test/ HTTP/1.1\r\nHost: ", 400, None),
        ("GET /evil.test/ HTTP/1.0\r\nHost: ", 400, None),
        ("GET /evil.test/ HTTP/1.0", 400, None),
        ("OPTIONS * HTTP/1.1\r\nHost: site.test", 308, Some("https://site.test/")),
    ] {
        let response = proxy.request(&format!("{request}\r\n\r\n")).await;
        assert_eq!((response.status, response.header("location")), (status, location), "{request}");
    }
    assert_eq!(origin.bytes(), 0, "nothing is served in clear");
}

#[tokio::test]
async fn browsers_are_told_to_come_by_tls_only() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let folder = folder(&[("site", &authority.vouch(&["site.test"]))]);
    let config = route_to(&[&origin.url()])
        + &tls(&["site"], "")
        + "hsts = { max-age = \"365d\", include-subdomains = true, preload = true }";
    let proxy = start(folder, &config).await;
    let mut client = Secure::believing(&authority).connect(proxy.address(), "site.test").await;
    for host in ["site.test", "other.test"] {
        let response = get(&mut client, host).await;
        let value = response.header("strict-transport-security");
        assert_eq!(value, Some("max-age=31536000; includeSubDomains; preload"), "{host}");
    }
    let secure = Secure::believing(&authority).but(|config| config.alpn_protocols = vec![b"h2".to_vec()]);
    let stream = secure.try_connect(proxy.address(), "site.test").await.expect("a handshake");
    let mut client = Http2Client::over(stream, &h2::client::Builder::new()).await;
    let value = client.get("/").await.header("strict-transport-security").map(str::to_owned);
    assert_eq!(value.as_deref(), Some("max-age=31536000; includeSubDomains; preload"));
}

#[tokio::test]
async fn keys_are_exchanged_so_that_no_later_machine_can_read_what_was_said() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    let agreed = async |secure: Secure| {
        let stream = secure.try_connect(proxy.address(), "site.test").await.expect("a handshake");
        stream.get_ref().1.negotiated_key_exchange_group().expect("there is one").name()
    };
    assert_eq!(agreed(Secure::believing(&authority)).await, rustls::NamedGroup::X25519MLKEM768);
    // For clients that cannot do it there is another.
    let old = Secure::of_version(&authority, "1.2");
    assert_eq!(agreed(old).await, rustls::NamedGroup::X25519);
}

// ---------------------------------------------------------------------------------------------
// Certificates of clients
// ---------------------------------------------------------------------------------------------

/// A proxy for `site.test` that looks at certificates of clients.
async fn mutual(authority: &Authority, clients: &Authority, origin: &Origin, more: &str) -> Proxy {
    let folder = folder(&[("site", &authority.vouch(&["site.test"]))]);
    fs::write(folder.path().join("clients.pem"), &clients.certificate).expect("a file can be written");
    let config = Config::to(origin).plugin("guest", "config.request = \"obey\"").toml();
    let config = config + &tls(&["site"], &format!(", client-ca = \"clients.pem\"{more}"));
    match Proxy::try_start_in(folder, &config, &[("guest", guest())]).await {
        Ok(proxy) => proxy,
        Err(error) => panic!("the proxy does not start: {error}"),
    }
}

/// Whether a client is let in. In TLS 1.3 a refusal comes after what the client takes for the handshake.
async fn is_let_in(client: &Secure, proxy: &Proxy) -> bool {
    let Ok(stream) = client.try_connect(proxy.address(), "site.test").await else { return false };
    let mut client = Client::over(stream);
    client.send(GET).await;
    client.any_response(false).await.is_some_and(|response| response.status == 200)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.encode(bytes)
}

#[tokio::test]
async fn what_was_answered_to_one_certificate_is_not_served_to_another() {
    let (authority, clients) = (Authority::new(), Authority::new());
    for (lines, expected) in
        [("Cache-Control: max-age=60", "MISS"), ("Cache-Control: public, max-age=60", "HIT")]
    {
        let origin = Origin::answering(move |_| {
            Answer::raw(format!("HTTP/1.1 200 OK\r\n{lines}\r\nContent-Length: 4\r\n\r\npage"))
        })
        .await;
        let folder = folder(&[("site", &authority.vouch(&["site.test"]))]);
        fs::write(folder.path().join("clients.pem"), &clients.certificate).expect("a file can be written");
        let route = route_to(&[&origin.url()]) + "cache = true\n";
        let proxy = start(folder, &(route + &tls(&["site"], ", client-ca = \"clients.pem\""))).await;
        let mut served = Vec::new();
        for name in ["alice", "bob"] {
            let secure = Secure::with_identity(&authority, &clients.vouch(&[name]));
            let mut client = secure.connect(proxy.address(), "site.test").await;
            client.send(GET).await;
            served.push(client.response().await.header("x-cache").map(str::to_owned));
        }
        assert_eq!(served, [Some("MISS".to_owned()), Some(expected.to_owned())], "{lines}");
    }
}

#[tokio::test]
async fn clients_must_show_a_certificate_where_that_is_required() {
    let (authority, clients, origin) = (Authority::new(), Authority::new(), Origin::start().await);
    let (known, stranger) = (clients.vouch(&["client"]), Authority::new().vouch(&["client"]));
    let past = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let expired = clients.vouch_for(&["client"], past);
    for (auth, without) in
        [("", false), (", client-auth = \"required\"", false), (", client-auth = \"optional\"", true)]
    {
        let proxy = mutual(&authority, &clients, &origin, auth).await;
        let with = |identity| Secure::with_identity(&authority, identity);
        assert!(is_let_in(&with(&known), &proxy).await, "{auth}");
        assert!(!is_let_in(&with(&stranger), &proxy).await, "a stranger {auth}");
        assert!(!is_let_in(&with(&expired), &proxy).await, "an old one {auth}");
        assert_eq!(is_let_in(&Secure::believing(&authority), &proxy).await, without, "nobody {auth}");
    }
}

#[tokio::test]
async fn upstreams_and_plugins_see_the_certificate_of_a_client_and_never_what_a_client_says_of_it() {
    let (authority, clients, origin) = (Authority::new(), Authority::new(), Origin::start().await);
    let identity = clients.vouch(&["client"]);
    let proxy = mutual(&authority, &clients, &origin, ", client-auth = \"optional\"").await;
    let lies = "GET / HTTP/1.1\r\nHost: site.test\r\nClient-Cert: :bGll:\r\nClient-Cert-Chain: :bGll:\r\n\
                x-do: see\r\n\r\n";
    let known = Secure::with_identity(&authority, &identity);
    // Twice, since a session that goes on knows its certificate as well.
    for _ in 0..2 {
        let mut client = known.connect(proxy.address(), "site.test").await;
        let seen = ask(&mut client, lies).await.json();
        let certificate: Vec<_> = identity.der().iter().copied().map(serde_json::Value::from).collect();
        assert_eq!(seen["certificate"].as_array(), Some(&certificate));
        assert_eq!(seen["scheme"], "https");
        let mut client = known.connect(proxy.address(), "site.test").await;
        ask(&mut client, &lies.replace("x-do: see\r\n", "")).await;
        let received = origin.last();
        let expected = format!(":{}:", base64(&identity.der()));
        assert_eq!(received.header("client-cert"), Some(expected.as_str()));
        assert_eq!(received.header("client-cert-chain"), None);
    }
    let mut client = Secure::believing(&authority).connect(proxy.address(), "site.test").await;
    assert!(ask(&mut client, lies).await.json()["certificate"].is_null());
    ask(&mut client, &lies.replace("x-do: see\r\n", "")).await;
    assert_eq!(
        (origin.last().header("client-cert"), origin.last().header("client-cert-chain")),
        (None, None)
    );

    let silent = mutual(&authority, &clients, &origin, ", forward-client-certificate = \"nothing\"").await;
    let mut client = known.connect(silent.address(), "site.test").await;
    assert_eq!(get(&mut client, "site.test").await.status, 200);
    assert_eq!(origin.last().header("client-cert"), None);
}

#[tokio::test]
async fn a_session_does_not_outlive_the_authority_that_let_it_in() {
    let (authority, clients, origin) = (Authority::new(), Authority::new(), Origin::start().await);
    let proxy = mutual(&authority, &clients, &origin, "").await;
    let known = Secure::with_identity(&authority, &clients.vouch(&["client"]));
    assert!(is_let_in(&known, &proxy).await);
    fs::write(proxy.folder().join("clients.pem"), Authority::new().certificate)
        .expect("a file can be written");
    proxy.reload_files().await.expect("the authority is one");
    assert!(!is_let_in(&known, &proxy).await);
}

// ---------------------------------------------------------------------------------------------
// Files that change, and files that are wrong
// ---------------------------------------------------------------------------------------------

/// The certificate that a new connection is shown.
async fn shown(secure: &Secure, proxy: &Proxy) -> Vec<u8> {
    let stream = secure.try_connect(proxy.address(), "site.test").await.expect("the handshake succeeds");
    stream.get_ref().1.peer_certificates().expect("the server has shown one")[0].to_vec()
}

fn unresumed(authority: &Authority) -> Secure {
    Secure::believing(authority).but(|config| config.resumption = rustls::client::Resumption::disabled())
}

#[tokio::test]
async fn a_new_certificate_comes_into_force_and_no_request_is_lost() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    proxy.watch();
    let secure = unresumed(&authority);
    let load = Load::secure(&secure, proxy.address(), "test.site.test", 3);
    load.has_answered(10).await;
    let mut held = secure.connect(proxy.address(), "site.test").await;
    for _ in 0..3 {
        let next = authority.vouch(&["site.test", "*.site.test"]);
        next.write(proxy.folder(), "site");
        soon("the new certificate", async { while shown(&secure, &proxy).await != *next.der() {} }).await;
        load.has_answered(10).await;
    }
    assert_eq!(get(&mut held, "site.test").await.status, 200, "a connection of before goes on");
    load.stop().await;
}

#[tokio::test]
async fn a_certificate_that_cannot_be_used_leaves_the_one_before_in_force() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let mine = authority.vouch(&["site.test"]);
    let folder = folder(&[("broken-later", &mine)]);
    let config = route_to(&[&origin.url()]) + &tls(&["broken-later"], "");
    let proxy = start(folder, &config).await;
    proxy.watch();
    let secure = unresumed(&authority);
    let certificate = proxy.folder().join("broken-later.pem");
    let key = proxy.folder().join("broken-later.key");
    let other = authority.vouch(&["site.test"]);
    let refused = "new certificates not used, the loaded ones stay in force";
    for (file, content, reason) in [
        (&certificate, Some("garbage"), "there is no certificate in PEM in"),
        (&certificate, Some(other.certificate.as_str()), "is not that of the certificate"),
        (&certificate, None, "cannot read"),
        (&key, Some("-----BEGIN ENCRYPTED PRIVATE KEY-----\n"), "is encrypted"),
    ] {
        mine.write(proxy.folder(), "broken-later");
        let before = logged(&[refused, reason, "broken-later"]).len();
        match content {
            Some(content) => fs::write(file, content).expect("a file can be written"),
            None => fs::remove_file(file).expect("a file can be removed"),
        }
        until(reason, || logged(&[refused, reason, "broken-later"]).len() > before).await;
        assert_eq!(shown(&secure, &proxy).await, *mine.der(), "{reason}");
    }
    // And whoever mends it is heard.
    other.write(proxy.folder(), "broken-later");
    soon("the new certificate", async { while shown(&secure, &proxy).await != *other.der() {} }).await;
}

#[tokio::test]
async fn a_file_that_comes_after_the_configuration_is_found() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    proxy.watch();
    let route = route_to(&[&origin.url()]);
    let address = format!("address = \"{}\"", proxy.address());
    let listener = tls(&["later"], "").replace("address = \"127.0.0.1:0\"", &address);
    proxy.write_config(&(route + &listener));
    until("the configuration is refused", || !logged(&["later.pem", "configuration not used"]).is_empty())
        .await;
    let later = authority.vouch(&["site.test"]);
    later.write(proxy.folder(), "later");
    let secure = unresumed(&authority);
    until("the configuration is used", || proxy.server().snapshot().number > 1).await;
    soon("the certificate", async { while shown(&secure, &proxy).await != *later.der() {} }).await;
}

#[tokio::test]
async fn what_is_wrong_with_certificates_is_said_with_its_place() {
    let authority = Authority::new();
    let (site, other) = (authority.vouch(&["site.test"]), authority.vouch(&["site.test"]));
    let route = route_to(&["http://127.0.0.1:1"]);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let old =
        "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nMIIB\n-----END RSA PRIVATE KEY-----\n";
    for (settings, words) in [
        ("tls = {}", &["tls = {}", "there is no certificate", "self-signed = [\"localhost\"]"][..]),
        (
            "tls = { certificates = [{ certificate = \"none.pem\", key = \"site.key\" }] }",
            &["none.pem", "cannot read"],
        ),
        (
            "tls = { certificates = [{ certificate = \"site.pem\", key = \"none.key\" }] }",
            &["none.key", "cannot read"],
        ),
        (
            "tls = { certificates = [{ certificate = \"site.key\", key = \"site.key\" }] }",
            &["there is no certificate in PEM"],
        ),
        (
            "tls = { certificates = [{ certificate = \"site.pem\", key = \"site.pem\" }] }",
            &["there is no private key in PEM"],
        ),
        (
            "tls = { certificates = [{ certificate = \"site.pem\", key = \"other.key\" }] }",
            &["is not that of the certificate"],
        ),
        (
            "tls = { certificates = [{ certificate = \"site.pem\", key = \"encrypted.key\" }] }",
            &["is encrypted", "openssl pkey"],
        ),
        ("tls = { certificates = [{ certificate = \"site.pem\", key = \"old.key\" }] }", &["is encrypted"]),
        (
            "tls = { certificates = [{ certificate = \"site.pem\", key = \"site.key\", ocsp = \"site.pem\" }] }",
            &["OCSP"],
        ),
        (
            "tls = { self-signed = [\"localhost\"], client-auth = \"required\" }",
            &["\"required\"", "client-ca"],
        ),
        (
            "tls = { self-signed = [\"localhost\"], client-ca = \"site.key\" }",
            &["there is no certificate in PEM"],
        ),
        ("tls = { self-signed = [\"not a host\"] }", &["expected a host or an address"]),
        ("tls = { self-signed = [\"localhost\"], min-version = \"1.1\" }", &["expected `1.2` or `1.3`"]),
        ("tls = { self-signed = [\"localhost\"] }\nredirect-to-https = true", &["comes by TLS already"]),
        ("hsts = { max-age = \"1d\" }", &["only where TLS is spoken"]),
        ("redirect-to-https = { status = 200 }", &["a redirection is 308 or 301"]),
    ] {
        let folder = folder(&[("site", &site), ("other", &other)]);
        fs::write(folder.path().join("encrypted.key"), encrypted).expect("a file can be written");
        fs::write(folder.path().join("old.key"), old).expect("a file can be written");
        let problems = refused(folder, &(route.clone() + &listener(settings))).await;
        for word in words {
            assert!(problems.contains(word), "{word:?} is not in\n{problems}");
        }
        assert!(problems.contains("config.toml:"), "there is no place in\n{problems}");
        assert!(!problems.contains("BEGIN PRIVATE KEY-----\nM"), "a key is shown");
    }
}

#[tokio::test]
async fn an_expired_certificate_is_used_and_warned_of() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let past = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let folder = folder(&[("expired-here", &authority.vouch_for(&["site.test"], past))]);
    let proxy = start(folder, &(route_to(&[&origin.url()]) + &tls(&["expired-here"], ""))).await;
    assert!(!logged(&["expired-here.pem", "the certificate has expired"]).is_empty());
    let error = Secure::believing(&authority).try_connect(proxy.address(), "site.test").await;
    assert!(error.expect_err("clients refuse it").to_string().contains("expired"));
}

#[tokio::test]
async fn a_self_signed_certificate_is_kept_and_can_be_trusted() {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let config = "artifact-dir = \"kept\"\nworkers = 1\n[[listeners]]\naddress = \"127.0.0.1:0\"\n\
                  tls = { self-signed = [\"localhost\", \"127.0.0.1\"] }\n\
                  [upstreams.app]\nendpoints = [\"http://127.0.0.1:1\"]\n[[routes]]\nupstream = \"app\"\n";
    fs::write(folder.path().join("config.toml"), config).expect("a file can be written");
    let mut shown = Vec::new();
    for _ in 0..2 {
        let proxy = Executable::start(TOLLGATE, folder.path(), &["--log-format", "json", "run"]);
        let line = proxy.line(&["self-signed certificate", "sha256"]).await;
        let line: serde_json::Value = serde_json::from_str(&line).expect("it is JSON");
        let path = folder.path().join(line["path"].as_str().expect("it is kept"));
        let pem = fs::read_to_string(&path).expect("it is there");
        shown.push(line["sha256"].as_str().expect("it is shown").to_owned());
        let address = proxy.address().await;
        let trusting = Authority::known(&pem);
        for name in ["localhost", "127.0.0.1"] {
            let mut client = Secure::believing(&trusting).connect(address, name).await;
            assert_eq!(get(&mut client, "localhost").await.status, 502);
        }
        if is_there("openssl") {
            let path = path.to_str().expect("it is text");
            let said = printed("openssl", &["x509", "-noout", "-fingerprint", "-sha256", "-in", path]).await;
            assert!(said.contains(&shown[0]), "{said}");
        }
        if is_there("curl") {
            let (url, path) =
                (format!("https://localhost:{}/", address.port()), path.to_str().expect("text"));
            let status = ["-s", "-o", "/dev/null", "-w", "%{http_code}", "--cacert", path, &url];
            assert_eq!(printed("curl", &status).await, "502");
        }
    }
    assert_eq!(shown[0], shown[1]);
}

#[tokio::test]
async fn programs_of_the_system_come_by_tls() {
    let (authority, origin) = (Authority::new(), Origin::start().await);
    let proxy = site(&authority, &origin, "").await;
    let root = proxy.folder().join("root.pem");
    fs::write(&root, &authority.certificate).expect("a file can be written");
    let root = root.to_str().expect("it is text");
    let (address, port) = (proxy.address().to_string(), proxy.address().port());
    if is_there("curl") {
        let (resolve, url) = (format!("site.test:{port}:127.0.0.1"), format!("https://site.test:{port}/"));
        for version in ["1.2", "1.3"] {
            let at_most = ["--tls-max", version, "--cacert", root, "--resolve", &resolve, "-sS", &url];
            assert_eq!(printed("curl", &at_most).await, origin.port(), "{version}");
        }
        let old = ["--tls-max", "1.1", "--cacert", root, "--resolve", &resolve, "-sS", &url];
        assert!(printed("curl", &old).await.contains("curl: ("), "TLS 1.1 is not spoken");
    }
    if is_there("openssl") {
        let connect = ["s_client", "-connect", &address, "-servername", "site.test", "-CAfile", root];
        for (more, words) in [
            (&["-tls1_3"][..], &["Verify return code: 0", "TLSv1.3"][..]),
            (&["-tls1_2"], &["Verify return code: 0", "TLSv1.2"]),
            (&["-tls1_3", "-groups", "P-384"], &["Verify return code: 0"]),
            (&["-tls1_2", "-cipher", "ECDHE-ECDSA-CHACHA20-POLY1305"], &["Verify return code: 0"]),
            (&["-tls1_1"], &["SSL alert number"]),
            (&["-tls1_2", "-cipher", "ECDHE-ECDSA-AES128-SHA"], &["handshake failure"]),
        ] {
            let said = printed("openssl", &[&connect[..], more].concat()).await;
            for word in words {
                assert!(said.contains(word), "{more:?}: {said}");
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Upstreams
// ---------------------------------------------------------------------------------------------

/// A proxy in front of these endpoints, with these settings of the upstream's `tls`.
async fn before(folder: TempDir, endpoints: &str, settings: &str) -> Proxy {
    start(folder, &Config::to_list(endpoints).upstream(&format!("tls = {{ {settings} }}")).toml()).await
}

/// A folder with the certificate of an authority, `ca.pem`.
fn trusting(authority: &Authority) -> TempDir {
    let folder = folder(&[]);
    fs::write(folder.path().join("ca.pem"), &authority.certificate).expect("a file can be written");
    folder
}

#[tokio::test]
async fn an_upstream_is_reached_by_tls_and_its_connections_are_kept() {
    let authority = Authority::new();
    let origin = Origin::secure(authority.vouch(&["127.0.0.1"]).server(None)).await;
    let proxy = before(trusting(&authority), &endpoints(&[&origin]), "ca = \"ca.pem\"").await;
    let mut client = proxy.connect().await;
    for _ in 0..5 {
        assert_eq!(get(&mut client, "test").await.text(), origin.port());
    }
    assert_eq!(origin.connections(), 1);
    assert_eq!(origin.last().header("x-forwarded-proto"), Some("http"));
}

#[tokio::test]
async fn sessions_with_an_upstream_are_resumed() {
    let authority = Authority::new();
    let server = authority.vouch(&["127.0.0.1"]).server(None);
    let origin = Origin::secure_answering(server, |_| Answer::ok("hello").close()).await;
    let proxy = before(trusting(&authority), &endpoints(&[&origin]), "ca = \"ca.pem\"").await;
    for _ in 0..4 {
        assert_eq!(proxy.get("/", &[]).await.text(), "hello");
    }
    until("handshakes that go on with a session", || origin.resumed() >= 2).await;
}

#[tokio::test]
async fn an_upstream_that_nobody_vouches_for_gets_no_request() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let past = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let good = authority.vouch(&["127.0.0.1", "app.internal"]);
    let expired = authority.vouch_for(&["127.0.0.1"], past);
    let elsewhere = authority.vouch(&["elsewhere.test"]);
    let unknown = stranger.vouch(&["127.0.0.1"]);
    for (identity, settings, reason) in [
        (&good, "ca = \"ca.pem\"", None),
        (&good, "ca = \"ca.pem\", roots = \"mozilla\"", None),
        (&good, "ca = \"ca.pem\", server-name = \"app.internal\"", None),
        (&good, "ca = \"ca.pem\", server-name = \"other.internal\"", Some("not valid for the name")),
        (&good, "roots = \"mozilla\"", Some("it is not signed by a trusted CA")),
        (&good, "roots = \"platform\"", Some("it is not signed by a trusted CA")),
        (&good, "verify = \"none\"", None),
        (&expired, "ca = \"ca.pem\"", Some("expired")),
        (&expired, "ca = \"ca.pem\", verify = \"ca\"", Some("expired")),
        (&expired, "verify = \"none\"", None),
        (&elsewhere, "ca = \"ca.pem\"", Some("not valid for the name")),
        (&elsewhere, "ca = \"ca.pem\", verify = \"ca\"", None),
        (&unknown, "ca = \"ca.pem\"", Some("invalid peer certificate")),
        (&unknown, "ca = \"ca.pem\", verify = \"ca\"", Some("invalid peer certificate")),
        (&unknown, "verify = \"none\"", None),
    ] {
        let origin = Origin::secure(identity.server(None)).await;
        let proxy = before(trusting(&authority), &endpoints(&[&origin]), settings).await;
        let response = proxy.get("/", &[]).await;
        match reason {
            None => assert_eq!(response.text(), origin.port(), "{settings}"),
            Some(reason) => {
                assert_eq!(response.status, 502, "{settings}");
                assert_eq!(origin.bytes(), 0, "{settings}");
                let port = format!(":{}", origin.port());
                until(&format!("{settings}: a line with {reason}"), || {
                    !logged(&["no TLS connection", &port, reason]).is_empty()
                })
                .await;
            }
        }
    }
}

#[tokio::test]
async fn a_self_signed_certificate_is_accepted_where_it_is_named_itself() {
    // As `openssl req -x509` makes them: marked as an authority's.
    let self_signed = |names: &[&str], days_are_over: bool| {
        let key = rcgen::KeyPair::generate().expect("a key can be made");
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("the names are names");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        if days_are_over {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let certificate = params.self_signed(&key).expect("a certificate can be made").pem();
        tollgate_tests::Identity { certificate, key: key.serialize_pem() }
    };
    let own = self_signed(&["127.0.0.1"], false);
    let another = self_signed(&["127.0.0.1"], false);
    let elsewhere = self_signed(&["elsewhere.test"], false);
    let expired = self_signed(&["127.0.0.1"], true);
    for (shown, named, settings, reason) in [
        (&own, &own, "ca = \"ca.pem\"", None),
        (&own, &own, "ca = \"ca.pem\", roots = \"mozilla\"", None),
        (&another, &own, "ca = \"ca.pem\"", Some("name this very certificate with `ca`")),
        (&elsewhere, &elsewhere, "ca = \"ca.pem\"", Some("not valid for the name")),
        (&elsewhere, &elsewhere, "ca = \"ca.pem\", verify = \"ca\"", None),
        (&expired, &expired, "ca = \"ca.pem\", verify = \"ca\"", Some("it has expired")),
    ] {
        let origin = Origin::secure(shown.server(None)).await;
        let folder = folder(&[]);
        fs::write(folder.path().join("ca.pem"), &named.certificate).expect("a file can be written");
        let proxy = before(folder, &endpoints(&[&origin]), settings).await;
        let response = proxy.get("/", &[]).await;
        match reason {
            None => assert_eq!(response.text(), origin.port(), "{settings}"),
            Some(reason) => {
                assert_eq!((response.status, origin.bytes()), (502, 0), "{settings}");
                let port = format!(":{}", origin.port());
                until(&format!("{settings}: a line with {reason}"), || {
                    !logged(&["no TLS connection", &port, reason]).is_empty()
                })
                .await;
            }
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_not_verified_is_warned_of() {
    let config = "[upstreams.believed-blindly]\nendpoints = [\"https://127.0.0.1:1\"]\n\
                  tls = { verify = \"none\" }\n\
                  [upstreams.clear]\nendpoints = [\"http://127.0.0.1:1\"]\n\
                  [upstreams.verified]\nendpoints = [\"https://127.0.0.1:1\"]\n\
                  [admin]\naddress = \"127.0.0.1:0\"\n[[routes]]\nupstream = \"clear\"\n";
    let proxy = start(folder(&[]), config).await;
    assert!(!logged(&["believed-blindly", "is not verified"]).is_empty());
    let told = proxy.told("/api/upstreams").await;
    let verify: Vec<_> = (0..3).map(|place| told["upstreams"][place]["verify"].as_str()).collect();
    assert_eq!(verify, [Some("none"), None, Some("full")]);
}

#[tokio::test]
async fn an_upstream_that_asks_for_a_certificate_gets_the_proxys_own() {
    let authority = Authority::new();
    let origin = Origin::secure(authority.vouch(&["127.0.0.1"]).server(Some(&authority))).await;
    let without = before(trusting(&authority), &endpoints(&[&origin]), "ca = \"ca.pem\"").await;
    assert_eq!(without.get("/", &[]).await.status, 502);
    let folder = trusting(&authority);
    authority.vouch(&["proxy"]).write(folder.path(), "proxy");
    let own = "ca = \"ca.pem\", certificate = \"proxy.pem\", key = \"proxy.key\"";
    let with = before(folder, &endpoints(&[&origin]), own).await;
    assert_eq!(with.get("/", &[]).await.text(), origin.port());
}

#[tokio::test]
async fn an_upstream_may_have_endpoints_of_both_kinds() {
    let authority = Authority::new();
    let clear = Origin::start().await;
    let secure = Origin::secure(authority.vouch(&["127.0.0.1"]).server(None)).await;
    let proxy = before(trusting(&authority), &endpoints(&[&clear, &secure]), "ca = \"ca.pem\"").await;
    soon("both are asked", async {
        while clear.received().is_empty() || secure.received().is_empty() {
            assert_eq!(proxy.get("/", &[]).await.status, 200);
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_without_a_length_is_whole_only_if_the_upstream_says_its_end() {
    let authority = Authority::new();
    let identity = authority.vouch(&["127.0.0.1"]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let url = format!("[\"https://{}\"]", listener.local_addr().expect("it is bound"));
    let proxy = before(trusting(&authority), &url, "ca = \"ca.pem\"").await;
    let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(identity.server(None)));
    for says_end in [true, false] {
        let serving = async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let (stream, _) = listener.accept().await.expect("the proxy connects");
            let mut stream = acceptor.accept(stream).await.expect("the handshake succeeds");
            let mut request = [0; 4096];
            assert!(stream.read(&mut request).await.expect("a request comes") > 0);
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nhello").await.expect("it is written");
            stream.flush().await.expect("it is written");
            if says_end {
                stream.shutdown().await.expect("it is said");
            } else {
                stream.get_mut().0.shutdown().await.expect("the connection ends");
            }
        };
        let (response, ()) = tokio::join!(proxy.get("/", &[]), soon("an answer", serving));
        assert_eq!((response.text(), response.is_complete), ("hello", says_end));
    }
}

#[tokio::test]
async fn connections_to_an_upstream_are_for_the_files_they_were_made_with() {
    let (authority, other) = (Authority::new(), Authority::new());
    let origin = Origin::secure(authority.vouch(&["127.0.0.1"]).server(None)).await;
    let folder = trusting(&authority);
    let config = Config::to(&origin).top("workers = 1").upstream("tls.ca = \"ca.pem\"");
    let proxy = start(folder, &config.toml()).await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    proxy.reload_files().await.expect("nothing has changed");
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    assert_eq!(origin.connections(), 1, "what stays the same keeps its connections");
    fs::write(proxy.folder().join("ca.pem"), &other.certificate).expect("a file can be written");
    proxy.reload_files().await.expect("the authority is one");
    assert_eq!(proxy.get("/", &[]).await.status, 502, "a connection of before is not used");
    fs::write(proxy.folder().join("ca.pem"), "garbage").expect("a file can be written");
    proxy.reload_files().await.expect("what was loaded stays");
    assert_eq!(proxy.get("/", &[]).await.status, 502);
    fs::write(proxy.folder().join("ca.pem"), &authority.certificate).expect("a file can be written");
    proxy.reload_files().await.expect("the authority is one");
    assert_eq!(proxy.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn what_is_wrong_with_the_tls_of_an_upstream_is_said_with_its_place() {
    let authority = Authority::new();
    for (settings, words) in [
        ("ca = \"none.pem\"", &["none.pem", "cannot read"][..]),
        ("verify = \"ca\"", &["anybody can have a certificate"]),
        ("verify = \"ca\", ca = \"ca.pem\", roots = \"mozilla\"", &["anybody can have a certificate"]),
        ("verify = \"none\", ca = \"ca.pem\"", &["no CA is needed"]),
        ("verify = \"none\", roots = \"mozilla\"", &["no CA is needed"]),
        ("certificate = \"ca.pem\"", &["has no key"]),
        ("key = \"ca.pem\"", &["has no certificate"]),
        ("certificate = \"ca.pem\", key = \"ca.pem\"", &["there is no private key in PEM"]),
        ("server-name = \"not a host\"", &["neither a host nor an address"]),
        ("verify = \"some\"", &["expected `full` or `ca` or `none`"]),
    ] {
        let config =
            format!("[upstreams.app]\nendpoints = [\"https://127.0.0.1:1\"]\ntls = {{ {settings} }}\n");
        let problems = refused(trusting(&authority), &config).await;
        for word in words {
            assert!(problems.contains(word), "{word:?} is not in\n{problems}");
        }
        assert!(problems.contains("config.toml:"), "there is no place in\n{problems}");
    }
}
