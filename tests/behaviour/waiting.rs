//! Plugins that wait: for others, and for bodies.

use tollgate_tests::{
    Answer, Authority, BareOrigin, Client, Config, Origin, Proxy, Then, logged, soon, until, waiting_guest,
};

/// Every request goes through a plugin of this name that waits as the request says.
fn config(origin: &Origin, plugin: &str, settings: &str) -> Config {
    Config::to(origin).plugin(plugin, &format!("file = \"waiting\"\n{settings}"))
}

fn grants(origins: &str) -> String {
    format!("grants = {{ http = [{origins}], body = true }}")
}

async fn start(origin: &Origin, plugin: &str, settings: &str) -> Proxy {
    Proxy::start_with(&config(origin, plugin, settings), &[("waiting", waiting_guest())]).await
}

/// What came of these commands, each.
async fn outcomes(proxy: &Proxy, commands: &str) -> Vec<String> {
    let response = proxy.get("/", &[&format!("x-do: {commands}"), "x-verdict: reply"]).await;
    assert_eq!(response.status, 200, "{commands}");
    response.text().split("; ").map(str::to_owned).collect()
}

fn request(more: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: test\r\n{more}\r\n")
}

#[tokio::test]
async fn a_plugin_sends_requests_to_granted_origins_and_to_no_others() {
    let (origin, other, stranger) = (Origin::start().await, Origin::start().await, Origin::start().await);
    let proxy = start(&origin, "sends", &grants(&format!("{:?}", other.url()))).await;
    let (url, port) = (other.url(), other.port());
    let commands = format!("send GET {url}/a/../b?c=d; post {url} hello; send GET {}", stranger.url());
    let expected = [format!("200  {port}"), format!("200  {port}"), "denied".to_owned()];
    assert_eq!(outcomes(&proxy, &commands).await, expected);
    let received = other.received();
    assert_eq!((received[0].method.as_str(), received[0].target.as_str()), ("GET", "/a/../b?c=d"));
    assert_eq!(received[0].header("host"), Some(other.address.to_string().as_str()));
    assert_eq!(received[0].header("x-from"), Some("guest"));
    assert_eq!((received[1].method.as_str(), received[1].body.as_slice()), ("POST", &b"hello"[..]));
    assert_eq!(other.connections(), 1, "connections are used again");
    assert!(stranger.received().is_empty() && origin.received().is_empty());

    let commands = format!(
        "send GET ftp://{0}/; send GET {0}; send CONNECT {1}; header host evil {1}; header x-a b {1}; \
         header transfer-encoding chunked {1}",
        other.address, url
    );
    let expected = [
        "invalid-url",
        "invalid-url",
        "invalid-request",
        "invalid-request",
        &format!("200  {port}"),
        "invalid-request",
    ];
    assert_eq!(outcomes(&proxy, &commands).await, expected);
}

#[tokio::test]
async fn a_response_to_a_plugin_is_whole_and_has_an_end() {
    let origin = Origin::start().await;
    let other = Origin::answering(|received| match received.target.as_str() {
        "/moved" => Answer::raw("HTTP/1.1 302 Found\r\nLocation: /here\r\nContent-Length: 0\r\n\r\n"),
        "/long" => Answer::ok(&"x".repeat(2000)),
        "/chunks" => Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nx-origin: o\r\n\r\n3e8\r\n{0}\r\n3e8\r\n{0}\r\n0\r\n\r\n",
            "x".repeat(1000)
        )),
        "/short" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx").close(),
        "/hangs" => Answer { pieces: Vec::new(), then: Then::Hang },
        _ => Answer::ok("here"),
    })
    .await;
    let url = other.url();
    let settings = grants(&format!("{{ url = {url:?}, response = \"1500B\" }}"));
    let proxy = start(&origin, "receives", &settings).await;
    let commands = format!(
        "send GET {url}/moved; send GET {url}/long; send GET {url}/chunks; send GET {url}/short; \
         send GET {url}/hangs 50; send GET {url}/"
    );
    let expected = ["302  ", "too-large", "too-large", "unreachable", "timed-out", "200  here"];
    assert_eq!(outcomes(&proxy, &commands).await, expected);
    let settings = format!("{settings}\nlimits = {{ wait = \"50ms\" }}\n[admin]\naddress = \"127.0.0.1:0\"");
    proxy.reload(&config(&origin, "receives", &settings)).await.expect("the configuration is fine");
    let commands = format!("send GET {url}/hangs; send GET {url}/");
    assert_eq!(outcomes(&proxy, &commands).await, ["timed-out", "timed-out"], "the time of a call is one");
    // Twice it has waited for as long as it might, and computed in no part of that.
    let (metrics, told) = (proxy.metrics().await, proxy.told("/api/plugins").await["plugins"][0].clone());
    for of in ["plugin", "plugin_route"] {
        let sum = |name: &str| metrics.sum(&format!("tollgate_{of}_{name}"), &[("plugin", "receives")]);
        let (took, computed) = (sum("call_duration_seconds_sum"), sum("cpu_seconds_total"));
        assert!(computed > 0.0 && took - computed >= 0.1, "{of}: {computed} of {took}");
    }
    let told = [&told["cpu-seconds"], &told["routes"]["routes[0]"]["cpu-seconds"]];
    let took = metrics.sum("tollgate_plugin_call_duration_seconds_sum", &[("plugin", "receives")]);
    assert!(
        told.iter().all(|told| told.as_f64().is_some_and(|told| took - told >= 0.1)),
        "{told:?} of {took}"
    );
    let commands = format!("send GET {url}/");
    assert_eq!(outcomes(&proxy, &commands).await, ["200  here"]);
}

#[tokio::test]
async fn a_name_does_not_lead_a_plugin_to_what_is_near() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    let url = format!("http://localhost:{}", other.port());
    let proxy = start(&origin, "near", &grants(&format!("{url:?}"))).await;
    let commands = format!("send GET {url}/");
    assert_eq!(outcomes(&proxy, &commands).await, ["denied"]);
    let commands = format!("send GET http://127.0.0.1:{}/", other.port());
    assert_eq!(outcomes(&proxy, &commands).await, ["denied"], "an address is not the name");
    assert_eq!(other.connections(), 0);
    assert_eq!(logged(&["a plugin's request was not sent", "which not anybody can reach", "near"]).len(), 1);

    // However often it tries, each worker writes five lines at most.
    let commands = vec![format!("send GET {url}/"); 19].join("; ");
    assert_eq!(outcomes(&proxy, &commands).await, ["denied"; 19]);
    let told = logged(&["a plugin's request was not sent", "which not anybody can reach", "near"]).len();
    assert!((5..=10).contains(&told), "{told}");

    let private = grants(&format!("{{ url = {url:?}, private = true }}"));
    proxy.reload(&config(&origin, "near", &private)).await.expect("the configuration is fine");
    let commands = format!("send GET {url}/");
    assert_eq!(outcomes(&proxy, &commands).await, [format!("200  {}", other.port())]);
}

#[tokio::test]
async fn a_plugin_is_told_nothing_by_whom_nobody_vouches_for() {
    let (origin, authority) = (Origin::start().await, Authority::new());
    let other = Origin::secure(authority.vouch(&["127.0.0.1"]).server(None)).await;
    let url = other.url();
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    std::fs::write(folder.path().join("ca.pem"), &authority.certificate).expect("a file can be written");
    let trusting = grants(&format!("{{ url = {url:?}, tls = {{ ca = \"ca.pem\" }} }}"));
    let files = &[("waiting", waiting_guest())];
    let proxy = Proxy::try_start_in(folder, &config(&origin, "secure", &trusting), files).await;
    let proxy = proxy.expect("the configuration is fine");
    let commands = format!("send GET {url}/");
    assert_eq!(outcomes(&proxy, &commands).await, [format!("200  {}", other.port())]);
    let strict = grants(&format!("{url:?}"));
    proxy.reload(&config(&origin, "secure", &strict)).await.expect("the configuration is fine");
    assert_eq!(outcomes(&proxy, &commands).await, ["unreachable"]);
    let gone = grants(&format!("{{ url = {url:?}, tls = {{ ca = \"gone.pem\" }} }}"));
    let error = proxy.reload(&config(&origin, "secure", &gone)).await.expect_err("there is no such file");
    assert!(error.to_string().contains("gone.pem"), "{error}");
}

#[tokio::test]
async fn a_plugin_waits_and_the_worker_does_not() {
    let (origin, other) = (Origin::start().await, BareOrigin::start().await);
    let settings = grants(&format!("{:?}", other.url()));
    let config = config(&origin, "waits", &settings).top("workers = 1");
    let proxy = Proxy::start_with(&config, &[("waiting", waiting_guest())]).await;
    let mut waiting = proxy.connect().await;
    waiting.send(request(&format!("x-do: send GET {}/; calls\r\n", other.url()))).await;
    let mut asked = other.accept().await;
    asked.read_until("\r\n\r\n").await;
    // Through the same plugin, on the same worker.
    for _ in 0..3 {
        assert_eq!(proxy.get("/", &["x-do: calls"]).await.status, 200);
    }
    asked.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
    assert_eq!(waiting.response().await.status, 200);
    let outcome: Vec<_> =
        origin.received().iter().map(|received| received.header("x-outcome").map(str::to_owned)).collect();
    let outcome: Vec<_> = outcome.into_iter().flatten().collect();
    assert_eq!(outcome, ["1", "2", "3", "200  ok; 1"], "one instance waited, and another did the rest");
}

#[tokio::test]
async fn no_more_requests_wait_than_there_are_instances() {
    let (origin, other) = (Origin::start().await, BareOrigin::start().await);
    let settings = format!(
        "{}\nlimits = {{ instances = 2 }}\n[admin]\naddress = \"127.0.0.1:0\"",
        grants(&format!("{:?}", other.url()))
    );
    let config = config(&origin, "crowded", &settings).top("workers = 1");
    let proxy = Proxy::start_with(&config, &[("waiting", waiting_guest())]).await;
    let asks = request(&format!("x-do: send GET {}/\r\n", other.url()));
    let (mut one, mut two) = (proxy.connect().await, proxy.connect().await);
    one.send(&asks).await;
    let mut first = other.accept().await;
    two.send(&asks).await;
    let mut second = other.accept().await;
    let refused = proxy.get("/", &[]).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    let busy = [("plugin", "crowded"), ("kind", "busy")];
    assert_eq!(proxy.metrics().await.sum("tollgate_plugin_failures_total", &busy), 1.0);
    for asked in [&mut first, &mut second] {
        asked.read_until("\r\n\r\n").await;
        asked.send("HTTP/1.1 204 No Content\r\n\r\n").await;
    }
    assert_eq!((one.response().await.status, two.response().await.status), (200, 200));
    assert_eq!(proxy.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn an_instance_whose_client_has_gone_is_not_used_again() {
    let (origin, other) = (Origin::start().await, BareOrigin::start().await);
    let settings = format!("{}\nlimits = {{ instances = 1 }}", grants(&format!("{:?}", other.url())));
    let config = config(&origin, "left", &settings).top("workers = 1");
    let proxy = Proxy::start_with(&config, &[("waiting", waiting_guest())]).await;
    let mut client = proxy.connect_and_reset().await;
    client.send(request(&format!("x-do: send GET {}/\r\n", other.url()))).await;
    let mut asked = other.accept().await;
    asked.read_until("\r\n\r\n").await;
    assert_eq!(proxy.get("/", &[]).await.status, 503, "the one there is waits");
    drop(client);
    assert!(asked.is_closed().await, "what it asked for is given up");
    let calls = soon("another instance", async {
        loop {
            let response = proxy.get("/", &["x-do: calls", "x-verdict: reply"]).await;
            if response.status == 200 {
                return response.text().to_owned();
            }
        }
    });
    assert_eq!(calls.await, "1");
    until("the instance is gone", || proxy.server().snapshot().plugins[0].plugin.instances() <= 1).await;
}

#[tokio::test]
async fn a_plugin_that_may_wait_and_computes_is_held_to_its_time() {
    let origin = Origin::start().await;
    let settings = format!("{}\nlimits = {{ time = \"60ms\" }}", grants("\"http://127.0.0.1:1\""));
    let config = config(&origin, "computes", &settings).top("workers = 1");
    let proxy = Proxy::start_with(&config, &[("waiting", waiting_guest())]).await;
    let mut looping = proxy.connect().await;
    looping.send(request("x-do: loop\r\n")).await;
    // Others go on meanwhile.
    assert_eq!(proxy.get("/", &["x-do: calls"]).await.status, 200);
    assert_eq!(looping.response().await.status, 503);
    assert_eq!(logged(&["request failed", "`computes` ran longer than 60 ms"]).len(), 1);
    assert_eq!(proxy.get("/", &["x-do: nonsense"]).await.status, 503);
    assert_eq!(logged(&["request failed", "`computes` trapped"]).len(), 1);
    assert_eq!(outcomes(&proxy, "send GET http://127.0.0.1:1/; calls").await, ["unreachable", "1"]);
}

#[tokio::test]
async fn a_plugin_that_never_stops_sending_is_stopped_while_others_are_answered() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    let settings = format!("{}\nlimits = {{ wait = \"100ms\" }}", grants(&format!("{:?}", other.url())));
    let before = config(&origin, "insists", &settings).top("workers = 1");
    let proxy = Proxy::start_with(&before, &[("waiting", waiting_guest())]).await;
    let mut sending = proxy.connect().await;
    sending.send(request(&format!("x-do: send-forever GET {}/\r\n", other.url()))).await;
    until("it sends", || other.received().len() > 2).await;
    assert_eq!(proxy.get("/", &["x-do: calls"]).await.status, 200);
    assert_eq!(sending.response().await.status, 503);
    assert_eq!(logged(&["request failed", "`insists` ran longer than 10 ms"]).len(), 1);

    // Time for all of it, so that it is not that which stops it.
    let settings = settings.replace("wait = \"100ms\"", "time = \"30s\"");
    let after = config(&origin, "insists", &settings).top("workers = 1");
    proxy.reload(&after).await.expect("the configuration is fine");
    let sent = other.received().len();
    let commands = format!("many 100000 {0}/; send GET {0}/", other.url());
    let expected = ["invalid-request".to_owned(), format!("200  {}", other.port())];
    assert_eq!(outcomes(&proxy, &commands).await, expected);
    assert_eq!(other.received().len(), sent + 1);
}

#[tokio::test]
async fn there_is_no_body_where_there_is_no_request() {
    let origin = Origin::start().await;
    let settings = format!(
        "{}\ntick = \"20ms\"\nconfig = {{ tick = \"body; set unseen; request-body\" }}",
        grants("\"http://127.0.0.1:1\"")
    );
    let proxy = start(&origin, "bodiless", &settings).await;
    until("a tick", || !logged(&["ticks: unavailable; set; unavailable", "bodiless"]).is_empty()).await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    assert!(origin.last().body.is_empty());
}

#[tokio::test]
async fn a_plugin_that_waits_and_was_not_granted_it_is_refused() {
    let origin = Origin::start().await;
    for (plugin, grants, refusal) in [
        (
            "asks-http",
            "grants = { body = true }",
            "write `grants = { http = [\"https://<host>\"] }` under [plugins.asks-http]",
        ),
        (
            "asks-body",
            "grants = { http = [\"http://127.0.0.1:1\"], body = false }",
            "write `grants = { body = true }` under [plugins.asks-body]",
        ),
        ("asks-path", "grants = { http = [\"http://127.0.0.1:1/path\"], body = true }", "without a path"),
    ] {
        let files = &[("waiting", waiting_guest())];
        let error = Proxy::try_start_with(&config(&origin, plugin, grants), files).await.err();
        let error = error.expect("the plugin is refused").to_string();
        assert!(error.contains(refusal) && error.contains("config.toml:"), "{error}");
    }
    let settings =
        format!("{}\nconfig = {{ configure = \"send at once\" }}", grants("\"http://127.0.0.1:1\""));
    let files = &[("waiting", waiting_guest())];
    let error = Proxy::try_start_with(&config(&origin, "asks-early", &settings), files).await.err();
    let error = error.expect("nothing can be sent yet").to_string();
    assert!(error.contains("refuses its configuration: denied"), "{error}");
    let balances =
        config(&origin, "balances", &grants("\"http://127.0.0.1:1\"")).upstream("balance = \"balances\"");
    let error = Proxy::try_start_with(&balances, files).await.err().expect("it may not wait").to_string();
    assert!(error.contains("this plugin may wait, and a balancer must not"), "{error}");
}

fn upload(framing: &str, more: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: test\r\n{framing}\r\n{more}\r\n{body}")
}

/// What the origin got of the last request: its body, its length, and what the plugin said of it.
fn got(origin: &Origin) -> (String, Option<String>, String) {
    let last = origin.last();
    let length = last.header("content-length").map(str::to_owned);
    let outcome = last.header("x-outcome").unwrap_or_default().to_owned();
    (String::from_utf8(last.body).expect("the body is text"), length, outcome)
}

#[tokio::test]
async fn a_plugin_reads_the_body_of_a_request_which_goes_on_as_it_came() {
    let origin = Origin::start().await;
    let settings = "grants = { http = [\"http://127.0.0.1:1\"], body = { request = \"10B\" } }";
    let proxy = start(&origin, "reads", settings).await;
    // All on one connection: what follows a body that was read is the next request.
    let mut client = proxy.connect().await;
    let chunks = "4\r\nmore\r\n5\r\n and \r\n0\r\n\r\n";
    let long = "12345678901";
    for (sent, body, length, outcome) in [
        (upload("Content-Length: 5", "x-do: body; body\r\n", "hello"), "hello", Some("5"), "hello; hello"),
        (upload("Transfer-Encoding: chunked", "x-do: body\r\n", chunks), "more and ", None, "more and"),
        (
            upload("Content-Length: 11", "x-do: body; body\r\n", long),
            long,
            Some("11"),
            "too-large; too-large",
        ),
        (
            upload("Transfer-Encoding: chunked", "x-do: body\r\n", "b\r\n12345678901\r\n0\r\n\r\n"),
            long,
            None,
            "too-large",
        ),
        (request("x-do: body\r\n"), "", None, ""),
        (upload("Content-Length: 0", "x-do: body\r\n", ""), "", Some("0"), ""),
    ] {
        client.send(&sent).await;
        assert_eq!(client.response().await.status, 200, "{sent}");
        let (got_body, got_length, got_outcome) = got(&origin);
        assert_eq!((&*got_body, got_length.as_deref(), &*got_outcome), (body, length, outcome), "{sent}");
    }
    // One that waits to be asked for it.
    client.send(upload("Content-Length: 5\r\nExpect: 100-continue", "x-do: body\r\n", "")).await;
    let interim = client.any_response(false).await.expect("the body is asked for");
    assert_eq!(interim.status, 100);
    client.send("hello").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(got(&origin), ("hello".to_owned(), Some("5".to_owned()), "hello".to_owned()));
    assert_eq!(origin.last().header("expect"), None, "it has come");
}

#[tokio::test]
async fn a_plugin_puts_another_body_in_the_place_of_the_clients() {
    let origin = Origin::start().await;
    let proxy = start(&origin, "writes", &grants("\"http://127.0.0.1:1\"")).await;
    let mut client = proxy.connect().await;
    let chunks = "4\r\nmore\r\n0\r\n\r\n";
    for (sent, body, length) in [
        (
            upload("Content-Length: 5", "x-do: body; set other words; body\r\n", "hello"),
            "other words",
            Some("11"),
        ),
        (upload("Transfer-Encoding: chunked", "x-do: body; set x\r\n", chunks), "x", Some("1")),
        (upload("Content-Length: 5", "x-do: set unseen\r\n", "hello"), "unseen", Some("6")),
        (upload("Content-Length: 5", "x-do: set\r\n", "hello"), "", Some("0")),
        (request("x-do: set something\r\n"), "something", Some("9")),
        (request("x-do: set\r\n"), "", None),
    ] {
        client.send(&sent).await;
        assert_eq!(client.response().await.status, 200, "{sent}");
        let (got_body, got_length, _) = got(&origin);
        assert_eq!((&*got_body, got_length.as_deref()), (body, length), "{sent}");
    }
    // A client that is never asked for its body may send it all the same: nobody can tell what follows.
    client.send(upload("Content-Length: 5\r\nExpect: 100-continue", "x-do: set unseen\r\n", "")).await;
    let response = client.response().await;
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    assert_eq!(got(&origin).0, "unseen");
}

#[tokio::test]
async fn a_body_that_does_not_come_ends_the_wait_of_a_plugin() {
    let origin = Origin::start().await;
    let settings = format!("{}\nlimits = {{ wait = \"50ms\" }}", grants("\"http://127.0.0.1:1\""));
    let proxy = start(&origin, "hopes", &settings).await;
    let mut client = proxy.connect().await;
    client.send(upload("Content-Length: 5", "x-do: body\r\nx-verdict: reply\r\n", "he")).await;
    let response = client.response().await;
    assert_eq!((response.status, response.text()), (200, "timed-out"));
    let mut client = proxy.connect().await;
    client.send(upload("Content-Length: 5", "x-do: body\r\n", "he")).await;
    until("it goes on", || origin.bytes() > 0).await;
    client.send("llo").await;
    assert_eq!(client.response().await.status, 200);
    assert_eq!(got(&origin), ("hello".to_owned(), Some("5".to_owned()), "timed-out".to_owned()));
}

#[tokio::test]
async fn a_plugin_reads_and_replaces_the_body_of_a_response() {
    let origin = Origin::answering(|received| match received.target.as_str() {
        "/chunks" => Answer::raw("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"),
        "/trailers" => Answer::raw(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-t\r\n\r\n3\r\nabc\r\n0\r\nx-t: 1\r\n\r\n",
        ),
        "/long" => Answer::ok(&"x".repeat(2000)),
        "/none" => Answer::raw("HTTP/1.1 204 No Content\r\n\r\n"),
        "/" if received.method == "HEAD" => Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        _ => Answer::ok("hello"),
    })
    .await;
    let settings = "grants = { http = [\"http://127.0.0.1:1\"], body = { response = \"1000B\" } }";
    let config = config(&origin, "answers", settings).top("workers = 1");
    let proxy = Proxy::start_with(&config, &[("waiting", waiting_guest())]).await;
    let mut client = proxy.connect().await;
    for (target, commands, outcome, body) in [
        ("/", "body; body", "hello; hello", "hello".to_owned()),
        ("/chunks", "body", "abcde", "abcde".to_owned()),
        ("/trailers", "body", "abc", "abc".to_owned()),
        ("/long", "body", "too-large", "x".repeat(2000)),
        ("/", "body; set other words; body", "hello; set; other words", "other words".to_owned()),
        ("/chunks", "set", "set", String::new()),
        ("/none", "body; set more", "; set", String::new()),
        ("/", "request-body; set-request-late", "unavailable; set", "hello".to_owned()),
    ] {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: test\r\nTE: trailers\r\nx-do-response: {commands}\r\n\r\n"
        );
        client.send(&head).await;
        let response = client.response().await;
        assert_eq!(response.header("x-outcome-response"), Some(outcome), "{target} {commands}");
        assert_eq!((response.text(), response.is_complete), (&*body, true), "{target} {commands}");
        assert_eq!(response.trailers.len(), usize::from(target == "/trailers"), "{target} {commands}");
    }
    assert_eq!(logged(&["plugin set a body where there is none to be set", "answers"]).len(), 1);
    // One connection for all but what was put in the place of a response that nobody read.
    assert_eq!(origin.connections(), 2);
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\nx-do-response: set other words\r\n\r\n").await;
    let response = client.any_response(true).await.expect("there is a response");
    assert_eq!(response.header("content-length"), Some("11"));
    // What a plugin itself has answered is a response, too.
    let asks = "x-do: calls\r\nx-verdict: reply\r\nx-do-response: body; set ok\r\n";
    let mut client = Client::connect(proxy.address()).await;
    client.send(request(asks)).await;
    assert_eq!(client.response().await.text(), "ok");
}
