//! What the log says of each request, also of those that were refused, cut, or left alone, and when there are too many.

use serde_json::Value;
use tollgate_tests::{
    Answer, Client, Executable, Origin, Proxy, guest,
    http2::{FrameClient, RawFrame},
    listener, logged, route_to, until,
};

use crate::TOLLGATE;

/// Waits for the line of the access log with all these words.
async fn line(words: &[&str]) -> Value {
    let words: Vec<&str> = words.iter().copied().chain(["\"target\":\"access\""]).collect();
    until(&format!("a line with {words:?}"), || !logged(&words).is_empty()).await;
    let lines = logged(&words);
    assert_eq!(lines.len(), 1, "{lines:?}");
    serde_json::from_str(&lines[0]).expect("lines are JSON")
}

#[tokio::test]
async fn a_request_that_is_refused_on_the_wire_leaves_a_line_with_the_reason() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let long = "x".repeat(9000);
    let large = "x".repeat(40_000);
    for (name, request, status, reason) in [
        ("smuggling", "POST /NAME HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400, ""),
        ("two-hosts", "GET /NAME HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n".to_owned(), 400, "more than one `Host`"),
        ("bare-lf", "GET /NAME HTTP/1.1\nHost: a\n\n".to_owned(), 400, "a line does not end in CR LF"),
        ("version", "GET /NAME HTTP/3.0\r\nHost: a\r\n\r\n".to_owned(), 505, "the version of HTTP is not spoken here"),
        ("long", format!("GET /NAME{long} HTTP/1.1\r\nHost: a\r\n\r\n"), 414, "the request line is too long"),
        ("large", format!("GET /NAME HTTP/1.1\r\nHost: a\r\nA: {large}\r\n\r\n"), 431, "the head is too long"),
        // Those that the proxy itself refuses have always had one.
        ("host", "GET /NAME HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), 400, ""),
        ("path", "GET /NAME%2fb HTTP/1.1\r\nHost: a\r\n\r\n".to_owned(), 400, ""),
        ("connect", "CONNECT NAME:1 HTTP/1.1\r\nHost: NAME:1\r\n\r\n".to_owned(), 501, ""),
    ] {
        let name = format!("refused-on-the-wire-{name}");
        let response = proxy.request(&request.replace("NAME", &name)).await;
        assert_eq!(response.status, status, "{name}");
        let line = line(&[&name]).await;
        assert_eq!((&line["status"], &line["client"]), (&status.into(), &"127.0.0.1".into()), "{line}");
        assert_eq!(line["method"], request.split(' ').next().unwrap_or_default(), "{line}");
        if !reason.is_empty() {
            assert_eq!(line["reason"], reason, "{line}");
        }
    }
    // hyper does not give back the head of what it has refused.
    assert_eq!(proxy.request("GET /?\" HTTP/1.1\r\nHost: a\r\n\r\n").await.status, 400);
    let words = ["\"target\":\"access\"", "\"status\":400", "invalid URI"];
    until("a line", || !logged(&words).is_empty()).await;
    assert_eq!(origin.received().len(), 0);
}

#[tokio::test]
async fn a_head_of_http2_that_is_too_large_leaves_a_line() {
    let origin = Origin::start().await;
    let small = listener("limits = { headers = \"8KiB\", request-line = \"2KiB\" }");
    let proxy = Proxy::start(&(route_to(&[&origin.url()]) + &small)).await;
    let mut client = FrameClient::connect(proxy.address()).await;
    let large = "x".repeat(10_000);
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":path", "/"),
        (":authority", "a-head-of-http2-that-is-too-large"),
        ("a", &large),
    ];
    client.send(&RawFrame::headers(5, 1, &fields)).await;
    assert_eq!(client.outcome(1).await, Ok(431));
    let line =
        line(&["\"status\":431", "\"version\":\"2\"", "the head is longer than the listener allows"]).await;
    assert_eq!(line["client"], "127.0.0.1");
}

#[tokio::test]
async fn a_stream_of_http2_that_is_reset_for_what_it_asks_leaves_a_line() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    let mut client = FrameClient::connect(proxy.address()).await;
    client.send(&RawFrame::headers(5, 1, &[(":method", "GET"), (":path", "/"), (":authority", "a")])).await;
    assert_eq!(client.outcome(1).await, Err(1));
    let words = ["\"target\":\"access\"", "\"version\":\"2\"", "\"reason\":\"the request is malformed\""];
    until("a line", || !logged(&words).is_empty()).await;
}

#[tokio::test]
async fn a_client_that_leaves_before_there_is_an_answer_leaves_a_line_and_is_counted() {
    let origin = Origin::answering(|_| Answer::raw("").hang()).await;
    let config = format!("[admin]\naddress = \"127.0.0.1:0\"\n{}", route_to(&[&origin.url()]));
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.connect_and_reset().await;
    client.send("GET /leaves-before-the-answer HTTP/1.1\r\nHost: test\r\n\r\n").await;
    origin.has_received(1).await;
    drop(client);
    let line = line(&["/leaves-before-the-answer"]).await;
    assert_eq!((&line["status"], &line["reason"]), (&499.into(), &"client-left".into()), "{line}");
    assert_eq!((&line["complete"], &line["route"]), (&false.into(), &"routes[0]".into()), "{line}");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("tollgate_requests_total", &[("route", "routes[0]"), ("status", "4xx")]), 1.0);
}

#[tokio::test]
async fn a_response_that_is_cut_says_why() {
    let silent = "timeouts = { body = \"200ms\" }\n";
    for (name, pieces, hangs, settings, leaves, reason) in [
        (
            "cut-by-upstream",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234",
            false,
            "",
            false,
            "upstream-broke-off",
        ),
        (
            "cut-by-silence",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234",
            true,
            silent,
            false,
            "upstreams.timeouts.body",
        ),
        ("cut-by-client", "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234", true, "", true, "client-left"),
    ] {
        let origin = Origin::answering(move |_| {
            let answer = Answer::raw(pieces);
            if hangs { answer.hang() } else { answer.close() }
        })
        .await;
        let config = route_to(&[&origin.url()]).replace("[[routes]]", &format!("{settings}[[routes]]"));
        let proxy = Proxy::start(&config).await;
        let mut client = proxy.connect_and_reset().await;
        client.send(format!("GET /{name} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        if leaves {
            client.read_some().await;
            drop(client);
        } else {
            assert!(!client.response().await.is_complete, "{name}");
        }
        let line = line(&[&format!("/{name}\"")]).await;
        assert_eq!((&line["reason"], &line["complete"]), (&reason.into(), &false.into()), "{line}");
        assert_eq!(line["status"], 200, "{line}");
    }
}

#[tokio::test]
async fn what_is_cut_at_the_end_of_a_drain_leaves_a_line() {
    let origin = Origin::answering(|received| match received.target.as_str() {
        "/cut-at-drain-in-the-body" => {
            Answer::raw("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n1234").hang()
        }
        _ => Answer::raw("").hang(),
    })
    .await;
    let proxy = Proxy::start(&format!("drain-timeout = \"200ms\"\n{}", route_to(&[&origin.url()]))).await;
    let mut clients = Vec::new();
    for target in ["/cut-at-drain-in-the-body", "/cut-at-drain-before-the-head"] {
        let mut client = proxy.connect().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        clients.push(client);
    }
    clients[0].read_some().await;
    origin.has_received(2).await;
    proxy.stop().await;
    for (target, status) in [("/cut-at-drain-in-the-body", 200), ("/cut-at-drain-before-the-head", 503)] {
        let line = line(&[target]).await;
        assert_eq!((&line["status"], &line["reason"]), (&status.into(), &"drain-timeout".into()), "{line}");
    }
}

#[tokio::test]
async fn with_all_endpoints_down_warnings_are_few_and_each_line_of_the_access_log_says_why() {
    let gone = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap() };
    let config = format!(
        "workers = 1\n[upstreams.all-down]\nendpoints = [\"http://{gone}\"]\nretry.attempts = 0\n\
         outlier.consecutive-failures = 0\n[[routes]]\nname = \"to-all-down\"\nupstream = \"all-down\"\n"
    );
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.connect().await;
    for number in 0..50 {
        client.send(format!("GET /all-down/{number} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        assert_eq!(client.response().await.status, 502);
    }
    let access = || logged(&["/all-down/", "\"target\":\"access\""]);
    until("all lines", || access().len() == 50).await;
    assert!(access().iter().all(|line| line.contains("no connection to")), "{:?}", access());
    let warnings = logged(&["request failed", "/all-down/"]);
    assert!((1..=5).contains(&warnings.len()), "{warnings:?}");
    let first: Value = serde_json::from_str(&warnings[0]).expect("lines are JSON");
    for (key, value) in
        [("method", "GET"), ("uri", "/all-down/0"), ("route", "to-all-down"), ("upstream", "all-down")]
    {
        assert_eq!(first[key], value, "{first}");
    }
    assert!(first["error"].as_str().is_some_and(|error| error.contains(&gone.to_string())), "{first}");

    // The same without the access log.
    let proxy =
        Proxy::start(&(config.replace("all-down", "down-unlogged") + "[log]\naccess = false\n")).await;
    assert_eq!(proxy.get("/down-unlogged", &[]).await.status, 502);
    until("a warning", || !logged(&["request failed", "/down-unlogged"]).is_empty()).await;
    let warning = &logged(&["request failed", "/down-unlogged"])[0];
    assert!(warning.contains("\"route\":\"to-down-unlogged\""), "{warning}");
}

#[tokio::test]
async fn a_warning_names_what_the_client_asked_for_and_the_upstream_that_failed() {
    let config = "log.access = false\n[upstreams.first]\nendpoints = [\"http://127.0.0.1:1\"]\n\
        [upstreams.second]\nendpoints = [\"http://127.0.0.1:1\"]\n\
        [[routes]]\nupstream = \"first\"\nplugins = [\"moves\", \"forwards\"]\n\
        [plugins.moves]\nfile = \"guest\"\nconfig = { request = \"target\", says = \"/internal\" }\n\
        [plugins.forwards]\nfile = \"guest\"\ngrants = { upstreams = [\"second\"] }\n\
        config = { request = \"forward\", says = \"second\" }\n";
    let proxy = Proxy::start_with(config, &[("guest", guest())]).await;
    assert_eq!(proxy.get("/asked-of-the-second", &[]).await.status, 502);
    let warning = ["request failed", "\"uri\":\"/asked-of-the-second\"", "\"upstream\":\"second\""];
    until("the warning", || logged(&warning).len() == 1).await;
}

#[tokio::test]
async fn what_every_request_fails_at_is_logged_for_the_first_of_them() {
    let origin = Origin::start().await;
    let config = format!(
        "workers = 1\n[upstreams.often]\nendpoints = [\"{}\"]\nbalance = \"fails-often\"\n[[routes]]\n\
         upstream = \"often\"\nplugins = [\"fails-often\"]\n[plugins.fails-often]\nfail = \"open\"\n\
         breaker.failures = 1000000\nconfig = {{ request = \"obey\", pick = \"obey\" }}\n",
        origin.url()
    );
    let proxy = Proxy::start_with(&config, &[("fails-often", guest())]).await;
    let mut client = proxy.connect().await;
    for _ in 0..40 {
        client
            .send("GET / HTTP/1.1\r\nHost: test\r\nx-do: reply-bad-header\r\nx-do-pick: trap\r\n\r\n")
            .await;
        assert_eq!(client.response().await.status, 200);
    }
    for words in ["the request goes on without it", "pick failed, another chooses"] {
        let lines = logged(&["fails-often", words]);
        assert!((1..=5).contains(&lines.len()), "{words}: {lines:?}");
        // How many were left out is for those that follow.
        assert!(lines.iter().all(|line| !line.contains("left_out")), "{lines:?}");
    }
}

#[tokio::test]
async fn stale_responses_that_cover_up_for_an_upstream_are_logged_for_the_first_of_them() {
    let origin = Origin::answering(|received| match received.number {
        0 => Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=5\r\nAge: 10\r\nETag: \"a\"\r\n\r\nkept",
        ),
        _ => Answer::raw("").close(),
    })
    .await;
    let config = format!(
        "workers = 1\n[upstreams.often-stale]\nendpoints = [\"{}\"]\nretry.attempts = 0\noutlier.consecutive-failures = 0\n[[routes]]\n\
         name = \"often-stale\"\nupstream = \"often-stale\"\ncache = {{}}\n",
        origin.url()
    );
    let proxy = Proxy::start(&config).await;
    assert_eq!(proxy.get("/", &[]).await.text(), "kept");
    let mut client = proxy.connect().await;
    for _ in 0..40 {
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.header("x-cache"), Some("STALE"));
    }
    let lines = logged(&["stale response served", "\"route\":\"often-stale\""]);
    assert!((1..=5).contains(&lines.len()), "{lines:?}");
}

#[tokio::test]
async fn plain_http_on_a_listener_of_tls_leaves_a_line() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = { self-signed = [\"localhost\"] }\n\
                  [upstreams.app]\nendpoints = [\"http://127.0.0.1:1\"]\n[[routes]]\nupstream = \"app\"\n";
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let proxy = Executable::start(TOLLGATE, folder.path(), &["run", "--log-format", "json"]);
    let mut client = Client::connect(proxy.address().await).await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert_eq!(client.response().await.status, 400);
    proxy.line(&["plain HTTP where TLS is spoken", "\"status\":400"]).await;
}
