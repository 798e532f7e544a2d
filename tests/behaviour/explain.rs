//! What would become of a request, as it is told and as it is.

use serde_json::{Value, json};
use tollgate_tests::{
    Answer, Authority, Client, Config, Executable, Origin, Proxy, Response, Secure, endpoints, guest, until,
};

use crate::TOLLGATE;

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

/// Asks with this body, and with more header lines.
async fn post(proxy: &Proxy, body: &str, lines: &str) -> Response {
    let mut client = Client::connect(proxy.admin_address()).await;
    let length = body.len();
    client
        .send(format!(
            "POST /api/explain HTTP/1.1\r\nHost: localhost\r\n{lines}Content-Length: {length}\r\n\r\n{body}"
        ))
        .await;
    client.response().await
}

async fn explained(proxy: &Proxy, method: &str, url: &str, headers: &[(&str, &str)]) -> Value {
    let question = json!({ "method": method, "url": url, "headers": headers });
    let answer = post(proxy, &question.to_string(), "").await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

#[tokio::test]
async fn what_is_told_is_what_happens() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    let config = format!(
        "{ADMIN}[upstreams.app]\nendpoints = {}\n[upstreams.other]\nendpoints = {}\n
        [[routes]]\nname = \"guarded\"\nmatch = {{ path = \"/guarded\" }}\nupstream = \"app\"\nplugins = [\"api-key\"]
        [[routes]]\nname = \"puts\"\nmatch = {{ path = \"/guarded\", methods = [\"PUT\"] }}\nupstream = \"other\"
        [[routes]]\nname = \"beta\"\nmatch = {{ path = \"/x\", headers = {{ x-beta = \"1\" }} }}\nupstream = \"other\"
        [[routes]]\nname = \"host\"\nmatch = {{ host = \"*.example.com\" }}\nupstream = \"other\"
        [[routes]]\nname = \"x\"\nmatch = {{ path = \"/x\" }}\nupstream = \"app\"
        [[routes]]\nname = \"moved\"\nmatch = {{ path = \"/moved\" }}\nupstream = \"app\"\nplugins = [\"forwards\"]
        [plugins.api-key]\nconfig = {{ keys = {{ demo = \"k1\" }} }}
        [plugins.forwards]\nfile = \"guest.wasm\"\ngrants = {{ upstreams = [\"other\"] }}\nconfig = {{ request = \"forward\", says = \"other\" }}\n",
        endpoints(&[&origin]),
        endpoints(&[&other])
    );
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    let mut sent = 0;
    let long = format!("/{}", "x".repeat(9000));
    for (method, path, headers, verdict, status) in [
        ("GET", "/guarded/a", &[][..], "replied", 401),
        ("GET", "/guarded/a", &[("x-api-key", "k1")], "sent", 200),
        ("PUT", "/guarded/a", &[], "sent", 200),
        ("GET", "/x/../guarded", &[], "replied", 401),
        ("GET", "/x", &[], "sent", 200),
        ("GET", "/x", &[("x-beta", "1")], "sent", 200),
        ("GET", "/", &[("host", "a.example.com:80")], "sent", 200),
        ("GET", "/nothing", &[], "refused", 404),
        ("GET", "/x%2F..", &[], "refused", 400),
        ("GET", "/x/../../y", &[], "refused", 400),
        ("GET", "/x", &[("host", "a b")], "refused", 400),
        ("GET", "/x", &[("expect", "more")], "refused", 417),
        ("GET", &long, &[], "refused", 414),
        ("OPTIONS", "/x", &[("max-forwards", "0")], "answered", 200),
        ("GET", "/moved", &[], "sent", 200),
    ] {
        let told = explained(&proxy, method, &format!("http://test{path}"), headers).await;
        let outcome = &told["outcome"];
        assert_eq!(outcome["verdict"], verdict, "{method} {path}: {told:#}");
        assert_eq!(origin.received().len() + other.received().len(), sent, "{method} {path} was sent");
        let has_host = headers.iter().any(|(name, _)| *name == "host");
        let host = if has_host { "" } else { "Host: test\r\n" };
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let answer = proxy.request(&format!("{method} {path} HTTP/1.1\r\n{host}{lines}\r\n")).await;
        assert_eq!(answer.status, status, "{method} {path}");
        if verdict == "sent" {
            let sent_to = answer.header("x-backend-server").expect("it says who answered");
            assert_eq!(outcome["endpoint"], sent_to, "{told:#}");
            assert_eq!(outcome["upstream"] == "other", sent_to.ends_with(&other.port()), "{told:#}");
            sent += 1;
        } else {
            assert_eq!(outcome["status"], status, "{told:#}");
        }
    }
}

#[tokio::test]
async fn each_stage_says_what_it_did_and_why_others_were_not_taken() {
    let origin = Origin::start().await;
    let config = format!(
        "{ADMIN}[upstreams.app]\nendpoints = [\"{}\", \"http://127.0.0.1:9\"]\nbalance = \"chooser\"
        health = {{ path = \"/\", interval = \"20ms\", unhealthy-after = 1 }}
        [[routes]]\nname = \"mine\"\nupstream = \"app\"\nplugins = [\"noter\", \"failing\", \"promiser\", \"header\"]\ncompress = true
        [[routes]]\nname = \"beta\"\nmatch = {{ headers = {{ x-beta = \"1\" }} }}\nupstream = \"app\"
        [plugins.noter]\nfile = \"guest.wasm\"\nconfig = {{ request = \"note\", says = \"well\" }}
        [plugins.failing]\nfile = \"guest.wasm\"\nfail = \"open\"\nconfig = {{ request = \"trap\" }}
        [plugins.promiser]\nfile = \"guest.wasm\"\nconfig = {{ request = \"promise\", says = \"x-later=1\" }}
        [plugins.header]\nfile = \"guest.wasm\"\nconfig = {{ request = \"header\", says = \"hello\" }}
        [plugins.chooser]\nfile = \"guest.wasm\"\nconfig = {{ pick = \"first\" }}\n",
        origin.url()
    );
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    let mut upstreams = proxy.told("/api/upstreams").await;
    while upstreams["upstreams"][0]["endpoints"][1]["state"] != "unreachable" {
        upstreams = proxy.told("/api/upstreams").await;
    }
    let headers =
        [("connection", "x-hop"), ("x-hop", "1"), ("accept-encoding", "br"), ("cookie", "a=secret")];
    let told = explained(&proxy, "GET", "http://test/a/./b?c", &headers).await;
    assert_eq!((&told["prepared"]["path"], &told["prepared"]["query"]), (&json!("/a/b"), &json!("c")));
    assert_eq!(told["prepared"]["removed"], json!(["connection", "x-hop"]));
    assert_eq!(told["prepared"]["set"]["x-forwarded-for"], "127.0.0.1");
    assert_eq!(told["route"]["name"], "mine");
    assert_eq!(told["route"]["near"], json!([{ "name": "beta", "objection": "it wants another `x-beta`" }]));
    let [noter, failing, promiser, header] = &told["plugins"].as_array().expect("it is a list")[..] else {
        panic!("{told:#}")
    };
    assert_eq!((&noter["verdict"], &noter["notes"]), (&json!("next"), &json!({ "note": "well" })));
    assert_eq!((&failing["verdict"], &failing["is-passed-over"]), (&json!("failed"), &json!(true)));
    let error = failing["error"].as_str().unwrap_or_default();
    assert!(error.contains("the guest panics on purpose"), "{failing}");
    assert_eq!(promiser["response"], json!({ "x-later": "1" }));
    assert_eq!((&header["set"], &header["response"]), (&json!({ "x-guest": "hello" }), &Value::Null));
    assert!(header["micros"].as_f64().is_some_and(|micros| micros > 0.0), "{header}");
    assert_eq!(told["compression"], json!({ "decision": "possible", "encoding": "br" }));
    let pick = &told["pick"];
    assert_eq!((&pick["by"], &pick["endpoint"]), (&json!("chooser"), &pick["endpoints"][0]["address"]));
    assert_eq!(pick["endpoints"][1]["objection"], "it is unreachable");
    assert_eq!(told["outcome"]["headers"]["cookie"], "[hidden]");
    assert!(!told.to_string().contains("secret"), "{told:#}");
}

#[tokio::test]
async fn a_body_that_the_client_has_not_sent_yet_is_no_key() {
    let origin = Origin::start().await;
    let cache = "cache = { methods = [\"GET\", \"POST\"], key-body = \"1KiB\" }";
    let proxy = Proxy::start(&Config::to(&origin).admin().route(cache)).await;
    for (headers, decision, is_sent_on) in
        [(json!([]), "miss", false), (json!([["expect", "100-continue"]]), "bypass", true)]
    {
        let question = json!({ "method": "POST", "url": "http://test/q", "headers": headers, "body": "one" });
        let told = post(&proxy, &question.to_string(), "").await.json();
        assert_eq!(told["cache"]["decision"], decision, "{told:#}");
        assert_eq!(told.to_string().contains("100-continue"), is_sent_on, "{told:#}");
    }
}

#[tokio::test]
async fn the_cache_tells_what_it_has_and_is_not_filled() {
    let origin = Origin::answering(|_| {
        Answer::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 2\r\n\r\nhi")
    })
    .await;
    let config = Config::to(&origin).admin().route("name = \"cached\"\ncache = true");
    let proxy = Proxy::start(&config).await;
    for _ in 0..2 {
        let told = explained(&proxy, "GET", "http://test/a", &[]).await;
        assert_eq!(told["cache"]["decision"], "miss", "{told:#}");
        assert_eq!(told["cache"]["forward"], "uri-miss");
        assert_eq!(told["outcome"]["verdict"], "sent");
    }
    assert!(origin.received().is_empty());
    assert_eq!(proxy.get("/a", &[]).await.header("x-cache"), Some("MISS"));
    let mut told = explained(&proxy, "GET", "http://test/a", &[]).await;
    while told["cache"]["decision"] == "miss" {
        // It is stored when its last byte has come.
        told = explained(&proxy, "GET", "http://test/a", &[]).await;
    }
    assert_eq!(
        (&told["cache"]["decision"], &told["outcome"]["verdict"]),
        (&json!("hit"), &json!("from-cache"))
    );
    assert!(
        told["cache"]["left-seconds"].as_f64().is_some_and(|left| left > 0.0 && left <= 60.0),
        "{told:#}"
    );
    let told = explained(&proxy, "GET", "http://test/a", &[("cache-control", "no-store")]).await;
    assert_eq!((&told["cache"]["decision"], &told["cache"]["forward"]), (&json!("bypass"), &json!("bypass")));
    assert_eq!(told["cache"]["not-stored"], "the request keeps the cache out");
    let told = explained(&proxy, "GET", "http://test/b", &[("cache-control", "only-if-cached")]).await;
    assert_eq!(told["outcome"]["status"], 504, "{told:#}");

    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("tollgate_requests_total", &[]), 1.0, "what was explained is no traffic");
    assert_eq!(metrics.sum("tollgate_cache_requests_total", &[]), 1.0, "and was not looked up");
    assert_eq!(origin.received().len(), 1);
}

#[tokio::test]
async fn what_a_plugin_logs_is_told_and_not_logged() {
    let origin = Origin::start().await;
    let talker = "file = \"guest.wasm\"\nconfig = { request = \"log\", says = \"explained-talker\" }";
    let config = Config::to(&origin).admin().plugin("talker", talker);
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    let told = explained(&proxy, "GET", "http://test/", &[]).await;
    let line = json!([{ "level": "warn", "text": "explained-talker was here" }]);
    assert_eq!(told["plugins"][0]["logs"], line, "{told:#}");
    assert!(tollgate_tests::logged(&["explained-talker was here"]).is_empty());
    proxy.get("/", &[]).await;
    until("the line", || !tollgate_tests::logged(&["explained-talker was here"]).is_empty()).await;
}

#[tokio::test]
async fn a_question_is_bounded_and_not_for_everybody() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&(ADMIN.to_owned() + &tollgate_tests::route_to(&[&origin.url()]))).await;
    let question = r#"{"method":"GET","url":"http://test/"}"#;
    assert_eq!(post(&proxy, question, "").await.status, 200);
    assert_eq!(post(&proxy, question, "Origin: http://evil.example\r\n").await.status, 403);
    let body = "x".repeat(1 << 20);
    let large = format!(r#"{{"method":"GET","url":"http://test/","body":"{body}"}}"#);
    assert_eq!(post(&proxy, &large, "").await.status, 413);
    for (question, says) in [
        ("", "this is no question"),
        (r#"{"method":"GET"}"#, "missing field `url`"),
        (r#"{"method":"GET","url":"http://test/","more":1}"#, "unknown field `more`"),
        (r#"{"method":"GET","url":"/path"}"#, "the URL"),
        (
            r#"{"method":"GET","url":"https://test/"}"#,
            "no listener takes https: there are 127.0.0.1:0 (http)",
        ),
        (r#"{"method":"G T","url":"http://test/"}"#, "invalid method"),
        (r#"{"method":"GET","url":"http://test/","headers":[["a b","c"]]}"#, "invalid header `a b`"),
        (
            r#"{"method":"GET","url":"http://test/","listener":"127.0.0.1:1"}"#,
            "no listener is configured with this address: there are 127.0.0.1:0 (http)",
        ),
    ] {
        let answer = post(&proxy, question, "").await;
        assert_eq!(answer.status, 400, "{question}");
        assert!(answer.text().contains(says), "{}", answer.text());
    }
    assert_eq!(proxy.admin("GET", "/api/explain", &[]).await.status, 405);
}

#[tokio::test]
async fn by_tls_the_name_that_is_asked_for_says_which_hosts_are_served() {
    let origin = Origin::start().await;
    let config = format!(
        "{ADMIN}[[listeners]]\naddress = \"127.0.0.1:0\"\nredirect-to-https = true\n
        [[listeners]]\naddress = \"127.0.0.1:0\"\ntls = {{ self-signed = [\"a.example\"] }}\n{}",
        tollgate_tests::route_to(&[&origin.url()])
    );
    let proxy = Proxy::start(&config).await;
    let told = explained(&proxy, "GET", "https://a.example/", &[]).await;
    assert_eq!((&told["outcome"]["verdict"], &told["prepared"]["scheme"]), (&json!("sent"), &json!("https")));
    let told = explained(&proxy, "GET", "https://a.example/", &[("host", "b.example")]).await;
    assert_eq!(told["outcome"]["status"], 421, "{told:#}");
    let told = explained(&proxy, "GET", "http://a.example/x", &[]).await;
    assert_eq!(told["outcome"]["headers"]["location"], "https://a.example/x", "{told:#}");
}

#[tokio::test]
async fn a_client_certificate_is_looked_at_as_in_a_handshake() {
    let (authority, clients, origin) = (Authority::new(), Authority::new(), Origin::start().await);
    let (known, stranger) = (clients.vouch(&["client"]), Authority::new().vouch(&["client"]));
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    authority.vouch(&["site.test"]).write(folder.path(), "site");
    known.write(folder.path(), "known");
    std::fs::write(folder.path().join("clients.pem"), &clients.certificate).expect("a file can be written");
    let own = "certificates = [{ certificate = \"site.pem\", key = \"site.key\" }]";
    let config = format!(
        "{ADMIN}[[listeners]]\naddress = \"127.0.0.1:0\"
        tls = {{ {own}, client-ca = \"clients.pem\", client-auth = \"optional\" }}
        [[listeners]]\naddress = \"127.0.0.2:0\"\ntls = {{ {own}, client-ca = \"clients.pem\" }}
        [[listeners]]\naddress = \"127.0.0.3:0\"\ntls = {{ {own} }}
        [upstreams.app]\nendpoints = {}
        [[routes]]\nupstream = \"app\"
        [[routes]]\nmatch = {{ path = \"/seen\" }}\nupstream = \"app\"\nplugins = [\"guest\"]
        [plugins.guest]\nconfig = {{ request = \"see\" }}\n",
        endpoints(&[&origin])
    );
    let proxy = Proxy::try_start_in(folder, &config, &[("guest", guest())]).await;
    let proxy = proxy.unwrap_or_else(|error| panic!("the proxy does not start: {error}"));
    let ask = async |listener: &str, path: &str, certificate: Option<&str>| {
        let question = json!({
            "method": "GET", "url": format!("https://site.test{path}"), "listener": format!("{listener}:0"),
            "client-certificate": certificate,
        });
        post(&proxy, &question.to_string(), "").await
    };
    let outcome = async |listener: &str, path: &str, certificate: Option<&str>| {
        let answer = ask(listener, path, certificate).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["outcome"].clone()
    };
    // The plugin and the upstream see it, as they do when it is real.
    let without = outcome("127.0.0.1", "/seen", None).await;
    let with = outcome("127.0.0.1", "/seen", Some(&known.certificate)).await;
    let stream = Secure::with_identity(&authority, &known).try_connect(proxy.address(), "site.test").await;
    let mut client = Client::over(stream.expect("it is let in"));
    client.send("GET /seen HTTP/1.1\r\nHost: site.test\r\n\r\n").await;
    let seen = client.response().await;
    assert!(seen.json()["certificate"].is_array(), "{seen:?}");
    assert_eq!(with["body-bytes"], seen.body.len(), "{with:#}");
    assert!(without["body-bytes"].as_u64() < with["body-bytes"].as_u64(), "{without:#}");
    let sent = outcome("127.0.0.1", "/", Some(&known.certificate)).await;
    assert!(sent["headers"]["client-cert"].is_string(), "{sent:#}");

    // Whom the listener would not let in.
    for (listener, certificate) in [
        ("127.0.0.1", Some(stranger.certificate.as_str())),
        ("127.0.0.2", Some(stranger.certificate.as_str())),
        ("127.0.0.2", None),
    ] {
        let outcome = outcome(listener, "/", certificate).await;
        assert_eq!((&outcome["verdict"], &outcome["status"]), (&json!("refused"), &Value::Null));
        let reason = outcome["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with("the handshake fails: "), "{outcome:#}");
    }
    assert_eq!(outcome("127.0.0.2", "/", Some(&known.certificate)).await["verdict"], "sent");
    for (listener, certificate, words) in [
        ("127.0.0.3", known.certificate.as_str(), "asks no client for a certificate"),
        ("127.0.0.1", "nothing", "the client certificate is not PEM"),
    ] {
        let refused = ask(listener, "/", Some(certificate)).await;
        assert_eq!(refused.status, 400);
        assert!(refused.text().contains(words), "{}", refused.text());
    }

    let admin = format!("http://{}", proxy.admin_address());
    let both = format!("{}{}", known.key, known.certificate);
    std::fs::write(proxy.folder().join("both.pem"), both).expect("a file can be written");
    let run = async |more: &[&str]| {
        let asked = ["explain", "GET", "https://site.test/", "--admin", &admin, "--listener", "127.0.0.2:0"];
        let folder = proxy.folder().to_owned();
        Executable::start(TOLLGATE, &folder, &[&asked[..], more].concat()).end().await
    };
    let both = proxy.folder().join("both.pem");
    let (status, page, errors) = run(&["--client-cert", both.to_str().expect("it is text")]).await;
    assert!(status.success() && page.contains("it would go to"), "{page}{errors}");
    let (status, page, _) = run(&[]).await;
    assert!(status.success() && page.contains("refused: the handshake fails"), "{page}");
    let key = proxy.folder().join("known.key");
    let (status, _, errors) = run(&["--client-cert", key.to_str().expect("it is text")]).await;
    assert!(!status.success() && errors.contains("has no certificate in PEM"), "{errors}");
}

#[tokio::test]
async fn it_is_told_in_the_terminal() {
    let origin = Origin::start().await;
    let config = Config::to(&origin).admin().top("admin.token = \"t0p\"").route("name = \"all\"");
    let proxy = Proxy::start(&config.plugin("api-key", "config.keys.demo = \"k1\"").toml()).await;
    let admin = format!("http://{}", proxy.admin_address());
    let asked = ["explain", "get", "http://test/a", "-H", "x-api-key: k1", "--admin", &admin];
    let mut page = Executable::start(TOLLGATE, proxy.folder(), &[&asked[..], &["--token", "t0p"]].concat());
    let (status, page, _) = page.end().await;
    assert!(status.success());
    for words in
        ["GET http://test/a", "all, to app", "api-key: next", "set x-consumer: demo", "by the proxy itself"]
    {
        assert!(page.contains(words), "{words}: {page}");
    }
    assert!(page.contains(&format!("it would go to 127.0.0.1:{} as /a", origin.port())), "{page}");

    let more = ["explain", "GET", "http://test/a", "--json", "--admin", &admin];
    let environment = [("TOLLGATE_ADMIN_TOKEN", "t0p")];
    let mut program = Executable::start_with(TOLLGATE, proxy.folder(), &more, &environment);
    let (status, told, _) = program.end().await;
    let told: Value = serde_json::from_str(&told).expect("it is JSON");
    assert!(status.success());
    assert_eq!((&told["outcome"]["verdict"], &told["outcome"]["status"]), (&json!("replied"), &json!(401)));

    let mut denied = Executable::start(TOLLGATE, proxy.folder(), &asked);
    let (status, _, errors) = denied.end().await;
    assert_eq!(status.code(), Some(1));
    assert!(errors.contains("it wants a token"), "{errors}");
    assert!(origin.received().is_empty());
}
