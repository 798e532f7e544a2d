//! What is kept of responses, who gets it, and who does not.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tollgate_tests::{
    Answer, BareOrigin, Client, Config, Endpoints, Origin, Proxy, Received,
    http2::{self, Http2Client},
    soon, until,
};

/// A configuration with one route that caches so.
fn cached(origin: &impl Endpoints, cache: &str) -> Config {
    Config::to(origin).route(&format!("cache = {cache}"))
}

/// 200 with these header lines; the body says which request it answers.
fn fresh(lines: &'static str) -> impl Fn(&Received) -> Answer + Send + Sync {
    move |received| {
        let body = format!("answer {}", received.number);
        Answer::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{lines}\r\n{body}", body.len()))
    }
}

fn text(body: &[u8]) -> &str {
    std::str::from_utf8(body).expect("the body is text")
}

#[tokio::test]
async fn what_is_fresh_is_answered_without_the_upstream() {
    let origin = Origin::answering(fresh("Cache-Control: max-age=60\r\n")).await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    let first = proxy.get("/a", &[]).await;
    assert_eq!((first.status, first.header("x-cache")), (200, Some("MISS")));
    assert_eq!(first.header("age"), None);
    let second = proxy.get("/a", &[]).await;
    assert_eq!((text(&second.body), second.header("x-cache")), ("answer 0", Some("HIT")));
    assert_eq!(second.header("age"), Some("0"));
    assert!(second.header("cache-status").is_some_and(|status| status.starts_with("tollgate; hit; ttl=")));
    assert!(second.header("date").is_some());
    let other = proxy.get("/a?b", &[]).await;
    assert_eq!(text(&other.body), "answer 1");
    assert_eq!(origin.received().len(), 2);
}

#[tokio::test]
async fn a_route_that_does_not_cache_asks_each_time() {
    let origin = Origin::answering(fresh("Cache-Control: max-age=60\r\n")).await;
    let proxy = Proxy::start(&cached(&origin, "false")).await;
    for number in 0..2 {
        let response = proxy.get("/", &[]).await;
        assert_eq!(text(&response.body), format!("answer {number}"));
        assert_eq!((response.header("x-cache"), response.header("cache-status")), (None, None));
    }
}

#[tokio::test]
async fn a_thousand_clients_of_one_cold_key_cause_one_request() {
    const CLIENTS: usize = 1000;
    let waits = Arc::new(tokio::sync::Semaphore::new(0));
    let asked = Arc::new(AtomicUsize::new(0));
    let body = "x".repeat(100_000);
    let origin = Origin::answering({
        let (body, asked) = (body.clone(), asked.clone());
        move |_| {
            asked.fetch_add(1, Ordering::SeqCst);
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ))
        }
    })
    .await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (address, waits) = (proxy.address(), waits.clone());
        clients.spawn(async move {
            let mut client = Client::connect(address).await;
            let _go = waits.acquire().await;
            client.send("GET /cold HTTP/1.1\r\nHost: test\r\n\r\n").await;
            client.response().await
        });
    }
    until("all clients are connected", || proxy.server().connections() >= CLIENTS).await;
    waits.add_permits(CLIENTS);
    while let Some(response) = soon("an answer", clients.join_next()).await {
        let response = response.expect("the client does not panic");
        assert_eq!((response.status, response.body.len(), response.is_complete), (200, body.len(), true));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_stale_response_is_validated() {
    let origin = Origin::answering(|received| match received.header("if-none-match") {
        Some("\"v1\"") => Answer::raw(
            "HTTP/1.1 304 Not Modified\r\nETag: \"v1\"\r\nX-New: 1\r\nCache-Control: no-cache\r\n\r\n",
        ),
        _ => Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: \"v1\"\r\nCache-Control: no-cache\r\n\r\nhello",
        ),
    })
    .await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    assert_eq!(proxy.get("/", &[]).await.header("x-cache"), Some("MISS"));
    let validated = proxy.get("/", &[]).await;
    assert_eq!((validated.status, text(&validated.body)), (200, "hello"));
    assert_eq!((validated.header("x-cache"), validated.header("x-new")), (Some("REVALIDATED"), Some("1")));
    let unchanged = proxy.get("/", &["If-None-Match: \"v1\""]).await;
    assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
}

#[tokio::test]
async fn conditions_and_ranges_are_answered_from_what_is_stored() {
    let origin = Origin::answering(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\nETag: \"a\"\r\nCache-Control: max-age=60\r\n\r\n0123456789",
        )
    })
    .await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    proxy.get("/", &[]).await;
    let part = proxy.get("/", &["Range: bytes=2-4"]).await;
    assert_eq!((part.status, text(&part.body)), (206, "234"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/10"));
    let beyond = proxy.get("/", &["Range: bytes=10-"]).await;
    assert_eq!((beyond.status, beyond.header("content-range")), (416, Some("bytes */10")));
    let same = proxy.get("/", &["If-None-Match: W/\"a\""]).await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    let mut client = proxy.connect().await;
    client.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let head = client.read_until("\r\n\r\n").await.to_ascii_lowercase();
    assert!(head.contains("content-length: 10") && head.contains("x-cache: hit"), "{head}");
    assert_eq!(origin.received().len(), 1);
}

#[tokio::test]
async fn what_is_changed_is_forgotten() {
    let origin = Origin::answering(fresh("Cache-Control: max-age=60\r\nLocation: /b\r\n")).await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    for path in ["/a", "/b", "/c"] {
        proxy.get(path, &[]).await;
    }
    proxy.request("POST /a HTTP/1.1\r\nHost: test\r\nContent-Length: 1\r\n\r\nx").await;
    for (path, expected) in [("/a", "MISS"), ("/b", "MISS"), ("/c", "HIT")] {
        assert_eq!(proxy.get(path, &[]).await.header("x-cache"), Some(expected), "{path}");
    }
}

#[tokio::test]
async fn interim_responses_pass_and_are_not_stored() {
    let origin = BareOrigin::start().await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    for (head, status) in [("102 Processing", 102), ("103 Early Hints\r\nX-Early: 1", 103)] {
        upstream.send(&format!("HTTP/1.1 {head}\r\n\r\n")).await;
        assert_eq!(client.any_response(false).await.map(|interim| interim.status), Some(status));
    }
    upstream.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 1\r\n\r\nx").await;
    for expected in ["MISS", "HIT"] {
        let response = client.any_response(false).await.expect("a response");
        assert_eq!((response.status, response.header("x-cache")), (200, Some(expected)));
        assert_eq!(response.header("x-early"), None);
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    }
}

#[tokio::test]
async fn a_response_that_broke_off_is_not_stored() {
    let origin = Origin::answering(|received| match received.number {
        0 => Answer::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhalf")
            .close(),
        _ => Answer::raw("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 5\r\n\r\nwhole"),
    })
    .await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    assert!(!proxy.get("/", &[]).await.is_complete);
    let second = proxy.get("/", &[]).await;
    assert_eq!((text(&second.body), second.header("x-cache")), ("whole", Some("MISS")));
}

#[tokio::test]
async fn what_is_too_large_is_served_and_not_stored() {
    let body = "y".repeat(300_000);
    let origin = Origin::answering({
        let body = body.clone();
        move |_| {
            let chunk = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}"
            ))
        }
    })
    .await;
    let config = format!("{}[cache]\nmax-object = \"64KiB\"\n", cached(&origin, "true"));
    let proxy = Proxy::start(&config).await;
    for _ in 0..2 {
        let response = proxy.get("/", &[]).await;
        assert_eq!((response.body.len(), response.header("x-cache")), (body.len(), Some("MISS")));
    }
}

#[tokio::test]
async fn plugins_decide_before_a_hit_is_served() {
    let origin = Origin::answering(fresh("Cache-Control: public, max-age=60\r\n")).await;
    let config = format!(
        "{}plugins = [\"api-key\"]\n[plugins.api-key]\nconfig = {{ keys = {{ demo = \"test-api-key-123\" }} }}\n",
        cached(&origin, "true")
    );
    let proxy = Proxy::start(&config).await;
    let key = "X-API-Key: test-api-key-123";
    assert_eq!(proxy.get("/", &[key]).await.status, 200);
    assert_eq!(proxy.get("/", &[key]).await.header("x-cache"), Some("HIT"));
    assert_eq!(proxy.get("/", &[]).await.status, 401);
}

#[tokio::test]
async fn what_is_stale_covers_up_for_an_upstream_that_is_gone() {
    let origin = Origin::answering(|received| match received.number {
        0 => Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=5\r\nAge: 10\r\nETag: \"a\"\r\n\r\nkept",
        ),
        _ => Answer::raw("").close(),
    })
    .await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    proxy.get("/", &[]).await;
    let stale = proxy.get("/", &[]).await;
    assert_eq!((stale.status, text(&stale.body), stale.header("x-cache")), (200, "kept", Some("STALE")));
}

#[tokio::test]
async fn what_is_stale_is_renewed_behind_the_back_of_its_client() {
    let origin = Origin::answering(|received| {
        let age = if received.number == 0 { "Age: 10\r\n" } else { "" };
        let body = format!("answer {}", received.number);
        Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{age}Cache-Control: max-age=5, stale-while-revalidate=60\r\n\r\n{body}",
            body.len()
        ))
    })
    .await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    proxy.get("/", &[]).await;
    let stale = proxy.get("/", &[]).await;
    assert_eq!((text(&stale.body), stale.header("x-cache")), ("answer 0", Some("STALE")));
    origin.has_received(2).await;
    soon("the renewed response", async {
        while text(&proxy.get("/", &[]).await.body) != "answer 1" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(origin.received().len(), 2);
}

#[tokio::test]
async fn only_what_is_for_everybody_is_stored() {
    for (lines, request, is_stored) in [
        ("Cache-Control: private, max-age=60\r\n", "X-A: 1", false),
        ("Cache-Control: no-store\r\n", "X-A: 1", false),
        ("Cache-Control: max-age=60\r\nSet-Cookie: a=b\r\n", "X-A: 1", false),
        ("Cache-Control: public, max-age=60\r\nSet-Cookie: a=b\r\n", "X-A: 1", true),
        ("Cache-Control: max-age=60\r\n", "Authorization: Basic x", false),
        ("Cache-Control: public, max-age=60\r\n", "Authorization: Basic x", true),
        ("Cache-Control: max-age=60\r\n", "X-HTTP-Method-Override: DELETE", false),
        ("CDN-Cache-Control: max-age=60\r\nCache-Control: no-store\r\n", "X-A: 1", true),
    ] {
        let origin = Origin::answering(fresh(lines)).await;
        let proxy = Proxy::start(&cached(&origin, "true")).await;
        proxy.get("/", &[request]).await;
        let expected = if is_stored { "HIT" } else { "MISS" };
        assert_eq!(proxy.get("/", &[]).await.header("x-cache"), Some(expected), "{lines} {request}");
    }
}

#[tokio::test]
async fn what_was_asked_with_a_body_is_not_stored_for_those_who_ask_without() {
    let origin = Origin::answering(fresh("Cache-Control: max-age=60\r\n")).await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    proxy.request("GET / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nevil").await;
    let response = proxy.get("/", &[]).await;
    assert_eq!((text(&response.body), response.header("x-cache")), ("answer 1", Some("MISS")));
}

#[tokio::test]
async fn an_operator_sees_how_it_does() {
    let origin = Origin::answering(fresh("Cache-Control: max-age=60\r\n")).await;
    let proxy =
        Proxy::start(&format!("[admin]\naddress = \"127.0.0.1:0\"\n{}", cached(&origin, "true"))).await;
    assert_eq!(proxy.told("/api/status").await["cache"]["hit-ratio"], serde_json::Value::Null);
    for _ in 0..4 {
        proxy.get("/", &[]).await;
    }
    let cache = &proxy.told("/api/status").await["cache"];
    assert_eq!((&cache["entries"], &cache["hits"], &cache["requests"]), (&1.into(), &3.into(), &4.into()));
    assert_eq!(cache["hit-ratio"], 0.75);
    assert!(cache["bytes"].as_u64().is_some_and(|bytes| bytes > 8));
}

#[tokio::test]
async fn what_is_stored_survives_a_reload() {
    let origin = Origin::answering(fresh("Cache-Control: max-age=60\r\n")).await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    proxy.get("/", &[]).await;
    let resized = format!("{}[cache]\nentries = 100\n", cached(&origin, "{ query = \"sorted\" }"));
    proxy.reload(&resized).await.expect("the configuration is good");
    assert_eq!(proxy.get("/", &[]).await.header("x-cache"), Some("HIT"));
}

#[tokio::test]
async fn a_request_that_wants_nothing_else_gets_what_is_stored_or_504() {
    let origin = Origin::answering(fresh("Cache-Control: max-age=60\r\n")).await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    assert_eq!(proxy.get("/", &["Cache-Control: only-if-cached"]).await.status, 504);
    proxy.get("/", &[]).await;
    assert_eq!(proxy.get("/", &["Cache-Control: only-if-cached"]).await.status, 200);
}

#[tokio::test]
async fn an_operator_purges_what_is_stored() {
    let origin = Origin::answering(fresh("Cache-Control: max-age=60\r\nCache-Tag: news\r\n")).await;
    let config = format!("[admin]\naddress = \"127.0.0.1:0\"\n{}", cached(&origin, "true"));
    let proxy = Proxy::start(&config).await;
    for (meant, expected) in
        [("prefix=http://test/", "MISS"), ("tag=news&soft=true", "MISS"), ("tag=sport", "HIT")]
    {
        proxy.get("/a", &[]).await;
        assert_eq!(proxy.get("/a", &[]).await.header("x-cache"), Some("HIT"));
        let purged = proxy.admin("DELETE", &format!("/api/cache?{meant}"), &[]).await;
        let count = if expected == "MISS" { 1 } else { 0 };
        assert_eq!(
            (purged.status, text(&purged.body)),
            (200, &*format!("{{\"purged\":{count}}}")),
            "{meant}"
        );
        assert_eq!(proxy.get("/a", &[]).await.header("x-cache"), Some(expected), "{meant}");
    }
    assert_eq!(proxy.admin("DELETE", "/api/cache", &[]).await.status, 400);
    assert_eq!(proxy.admin("DELETE", "/api/cache?some=1", &[]).await.status, 400);
    assert_eq!(proxy.admin("DELETE", "/api/cache?all", &[]).await.status, 200);
}

#[tokio::test]
async fn a_client_that_was_not_asked_for_its_body_is_told_that_the_connection_ends() {
    let origin = BareOrigin::start().await;
    let cache = "{ methods = [\"GET\", \"POST\"], key-body = \"1KiB\" }";
    let proxy = Proxy::start(&cached(&origin, cache)).await;
    let mut client = proxy.connect().await;
    client.send("POST /q HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream
        .send(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nCache-Control: max-age=60\r\nContent-Location: /q\r\n\r\nall",
        )
        .await;
    // What it sends next could be this body, or another request.
    let response = client.response().await;
    assert_eq!((response.text(), response.header("connection")), ("all", Some("close")), "{response:?}");
}

#[tokio::test]
async fn a_post_is_answered_by_its_body_where_a_route_says_so() {
    let origin = Origin::answering(fresh("Cache-Control: max-age=60\r\n")).await;
    let post = |body: &str, line: &str| {
        format!("POST /q HTTP/1.1\r\nHost: test\r\n{line}Content-Length: {}\r\n\r\n{body}", body.len())
    };
    let proxy =
        Proxy::start(&cached(&origin, "{ methods = [\"GET\", \"POST\"], key-body = \"1KiB\" }")).await;
    let long = "z".repeat(2000);
    for (body, line, expected) in [
        ("one", "", "MISS"),
        ("one", "", "HIT"),
        ("two", "", "MISS"),
        ("one", "Content-Type: text/plain\r\n", "MISS"),
        ("", "", "MISS"),
        ("", "", "HIT"),
        (&*long, "", "BYPASS"),
        ("one", "Expect: 100-continue\r\n", "BYPASS"),
    ] {
        let asked = origin.received().len();
        let mut client = proxy.connect().await;
        client.send(post(body, line)).await;
        let mut response = client.any_response(false).await.expect("a response");
        if response.status == 100 {
            response = client.any_response(false).await.expect("a response");
        }
        assert_eq!((response.status, response.header("x-cache")), (200, Some(expected)), "{body:.5} {line}");
        assert_eq!(origin.received().len() - asked, usize::from(expected != "HIT"));
        if expected != "HIT" {
            assert_eq!(text(&origin.last().body), body, "the upstream gets all of it");
        }
    }
    let chunked = "POST /q HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n";
    assert_eq!(proxy.request(chunked).await.header("x-cache"), Some("BYPASS"));
    assert_eq!(proxy.get("/q", &[]).await.header("x-cache"), Some("MISS"), "it is another question");
    let other = Proxy::start(&cached(&origin, "true")).await;
    for _ in 0..2 {
        assert_eq!(other.request(&post("one", "")).await.header("x-cache"), Some("BYPASS"));
    }
}

#[tokio::test]
async fn a_deadline_holds_for_who_waits_for_anothers_fetch() {
    let origin = Origin::answering(|_| Answer::raw("").hang()).await;
    let cache = "{ methods = [\"POST\"] }\n[cache]\nwait = \"1h\"";
    let proxy = Proxy::start(&cached(&origin, cache)).await;
    let call = |more: &[(&str, &str)]| {
        let fields = [&[("content-type", "application/grpc"), ("content-length", "5")], more].concat();
        http2::request("POST", "/service/Method", &fields)
    };
    let mut first = Http2Client::connect(proxy.address()).await;
    let (_answer, mut body) = first.open(call(&[]), false).await;
    body.send_data("hello".into(), true).expect("the stream is open");
    origin.has_received(1).await;
    let mut second = Http2Client::connect(proxy.address()).await;
    let late = second.send(call(&[("grpc-timeout", "100m")]), b"hello").await.expect("an answer");
    assert_eq!(late.header("grpc-status"), Some("4"));
    assert_eq!(origin.received().len(), 1, "it was still waiting for the first");
}
