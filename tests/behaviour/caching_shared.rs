//! Who gets what was answered to somebody else, and what can one client do to what others get?

use tollgate_tests::{
    Answer, BareOrigin, Config, Endpoints, Origin, Proxy, Received, guest,
    http2::{self, Http2Client},
    soon,
};

/// A configuration with one route that caches so.
fn cached(origin: &impl Endpoints, cache: &str) -> Config {
    Config::to(origin).route(&format!("cache = {cache}"))
}

fn ok(lines: &str, body: &str) -> Answer {
    Answer::raw(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{lines}\r\n{body}", body.len()))
}

/// The page of whoever a plugin says is asking.
fn pages(lines: &'static str) -> impl Fn(&Received) -> Answer + Send + Sync {
    move |received| {
        let name = ["x-consumer", "x-copy"].into_iter().find_map(|name| received.header(name));
        ok(lines, &format!("page of {}", name.unwrap_or("nobody")))
    }
}

const API_KEY: &str = "[plugins.api-key]\nconfig = { keys = { alice = \"alices-key-0123456\", bob = \"bobs-key-01234567\" } }\n";
const FORWARDING: &str = "[plugins.api-key]\nconfig = { forward = true, keys = { alice = \"alices-key-0123456\", bob = \"bobs-key-01234567\" } }\n";

#[tokio::test]
async fn what_was_answered_to_one_consumer_is_not_served_to_another() {
    let (alice, bob) = ("X-API-Key: alices-key-0123456", "X-API-Key: bobs-key-01234567");
    for (table, lines, is_shared) in [
        (API_KEY, "Cache-Control: max-age=60\r\n", false),
        (FORWARDING, "Cache-Control: max-age=60\r\n", false),
        (API_KEY, "Expires: Wed, 01 Jan 2070 00:00:00 GMT\r\n", false),
        (API_KEY, "Cache-Control: max-age=60\r\nVary: X-Consumer\r\n", false),
        (API_KEY, "Cache-Control: public, max-age=60\r\n", true),
        (API_KEY, "Cache-Control: s-maxage=60\r\n", true),
    ] {
        let origin = Origin::answering(pages(lines)).await;
        let config = format!("{}plugins = [\"api-key\"]\n{table}", cached(&origin, "true"));
        let proxy = Proxy::start(&config).await;
        assert_eq!(proxy.get("/", &[alice]).await.text(), "page of alice", "{lines}");
        let second = proxy.get("/", &[bob]).await;
        let (page, served) = if is_shared { ("page of alice", "HIT") } else { ("page of bob", "MISS") };
        assert_eq!((second.text(), second.header("x-cache")), (page, Some(served)), "{table} {lines}");
    }
}

#[tokio::test]
async fn what_a_plugin_makes_of_a_field_that_no_key_holds_is_for_one_client() {
    for (cache, lines, request, again, is_stored) in [
        // "copy" writes what it reads in one field into another.
        ("true", "Cache-Control: max-age=60\r\n", "copy", "X-Bytes: bob", false),
        ("true", "Cache-Control: max-age=60\r\nVary: X-Copy\r\n", "copy", "X-Bytes: bob", false),
        ("true", "Cache-Control: max-age=60\r\nVary: X-Copy\r\n", "copy", "X-Bytes: alice", true),
        ("{ key-headers = [\"x-copy\"] }", "Cache-Control: max-age=60\r\n", "copy", "X-Bytes: bob", false),
        ("{ key-headers = [\"x-copy\"] }", "Cache-Control: max-age=60\r\n", "copy", "X-Bytes: alice", true),
        ("true", "Cache-Control: public, max-age=60\r\n", "copy", "X-Bytes: bob", true),
        // "header" writes the same for everybody.
        ("true", "Cache-Control: max-age=60\r\n", "header", "X-Bytes: bob", true),
        ("true", "Cache-Control: max-age=60\r\n", "next", "X-Bytes: bob", true),
    ] {
        let origin = Origin::answering(pages(lines)).await;
        let table = format!("[plugins.guest]\nconfig = {{ request = \"{request}\", says = \"same\" }}\n");
        let config = format!("{}plugins = [\"guest\"]\n{table}", cached(&origin, cache));
        let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
        proxy.get("/", &["X-Bytes: alice"]).await;
        let second = proxy.get("/", &[again]).await;
        let served = if is_stored { "HIT" } else { "MISS" };
        assert_eq!(second.header("x-cache"), Some(served), "{cache} {lines} {request} {again}");
        if !is_stored && request == "copy" {
            assert_eq!(second.text(), "page of bob");
        }
    }
}

#[tokio::test]
async fn what_is_promised_to_one_client_is_not_stored() {
    let origin = Origin::answering(|_| ok("Cache-Control: public, max-age=60\r\n", "page")).await;
    for hooks in ["always", "once"] {
        let cache = format!("{{ response-hooks = \"{hooks}\" }}");
        let table = "[plugins.guest]\nconfig = { request = \"promise\", says = \"x-nobody=1\" }\n";
        let config = format!("{}plugins = [\"guest\"]\n{table}", cached(&origin, &cache));
        let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
        let alice = proxy.get("/", &["X-Says: set-cookie=session=alice;x-user=alice"]).await;
        assert_eq!(alice.header("set-cookie"), Some("session=alice"), "{hooks}");
        let bob = proxy.get("/", &["X-Says: x-user=bob"]).await;
        assert_eq!((bob.header("x-cache"), bob.header("x-user")), (Some("HIT"), Some("bob")), "{hooks}");
        assert_eq!(bob.header("set-cookie"), None, "{hooks}");
    }
}

#[tokio::test]
async fn what_response_hooks_make_of_the_client_is_not_stored() {
    for (lines, is_stored) in
        [("Cache-Control: max-age=60\r\n", false), ("Cache-Control: max-age=60\r\nVary: X-Says\r\n", true)]
    {
        let origin = Origin::answering(move |_| ok(lines, "page")).await;
        let table = "[plugins.guest]\nconfig = { response = \"mark\", says = \"nobody\" }\n";
        let config =
            format!("{}plugins = [\"guest\"]\n{table}", cached(&origin, "{ response-hooks = \"once\" }"));
        let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
        assert_eq!(proxy.get("/", &["X-Says: alice"]).await.header("x-mark"), Some("alice"));
        let bob = proxy.get("/", &["X-Says: bob"]).await;
        assert_eq!((bob.header("x-mark"), bob.header("x-cache")), (Some("bob"), Some("MISS")), "{lines}");
        let again = proxy.get("/", &["X-Says: bob"]).await;
        let served = if is_stored { "HIT" } else { "MISS" };
        assert_eq!((again.header("x-mark"), again.header("x-cache")), (Some("bob"), Some(served)), "{lines}");
    }
}

/// An origin that is asked again for what it has answered, and says another thing to whoever sends this field.
async fn swayed(field: &'static str, lines: &'static str) -> Origin {
    Origin::answering(move |received| {
        let evil = if received.header(field).is_some() { "X-Evil: 1\r\n" } else { "" };
        let is_same = received.header("if-none-match").is_some();
        match (&*received.method, is_same) {
            ("HEAD", _) => Answer::raw(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nETag: \"a\"\r\n{lines}{evil}\r\n"
            )),
            (_, true) => {
                Answer::raw(format!("HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n{lines}{evil}\r\n"))
            }
            (_, false) => ok(&format!("ETag: \"a\"\r\n{lines}{evil}"), "page"),
        }
    })
    .await
}

#[tokio::test]
async fn what_was_answered_to_a_request_that_is_not_like_others_changes_nothing_stored() {
    const FRESH: &str = "Cache-Control: max-age=60\r\n";
    for (field, value) in [
        ("x-http-method-override", "POST"),
        ("x_http_method_override", "POST"),
        ("x-original-url", "/admin"),
        ("x-forwarded-port", "81"),
        ("authorization", "Basic YTpi"),
    ] {
        let origin = swayed(field, FRESH).await;
        // A trusted proxy may pass on what it was sent.
        let config = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\ntrusted-proxies = [\"127.0.0.1\"]\n{}",
            cached(&origin, "true")
        );
        let proxy = Proxy::start(&config).await;
        proxy.get("/", &[]).await;
        let line = format!("{field}: {value}");
        let validated = proxy.get("/", &[&line, "Cache-Control: no-cache"]).await;
        assert_eq!((validated.status, validated.text()), (200, "page"), "{line}");
        let mut client = proxy.connect().await;
        client
            .send(format!("HEAD / HTTP/1.1\r\nHost: test\r\n{line}\r\nCache-Control: no-cache\r\n\r\n"))
            .await;
        assert_eq!(client.any_response(true).await.map(|head| head.status), Some(200), "{line}");
        let victim = proxy.get("/", &[]).await;
        assert_eq!((victim.header("x-evil"), victim.header("x-cache")), (None, Some("HIT")), "{line}");
    }
}

#[tokio::test]
async fn what_is_stale_is_not_renewed_on_behalf_of_one_client() {
    let origin = Origin::answering(|received| match received.header("authorization") {
        Some(_) => ok("Cache-Control: max-age=5, stale-while-revalidate=60\r\n", "alice"),
        None => ok("Age: 10\r\nCache-Control: max-age=5, stale-while-revalidate=60\r\n", "anyone"),
    })
    .await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    proxy.get("/", &[]).await;
    let alice = proxy.get("/", &["Authorization: Basic YTpi"]).await;
    assert_eq!((alice.text(), alice.header("x-cache")), ("alice", Some("MISS")));
    let other = proxy.get("/", &[]).await;
    assert_eq!((other.text(), other.header("x-cache")), ("anyone", Some("STALE")));
}

#[tokio::test]
async fn a_validation_that_is_for_one_client_is_not_shared_with_those_who_wait() {
    let origin = BareOrigin::start().await;
    let config = cached(&origin, "true").top("workers = 1").table("cache", "wait = \"1h\"");
    let proxy = Proxy::start(&config).await;
    let get = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";
    let mut first = proxy.connect().await;
    first.send(get).await;
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream
        .send("HTTP/1.1 200 OK\r\nCache-Control: no-cache\r\nETag: \"a\"\r\nContent-Length: 4\r\n\r\npage")
        .await;
    assert_eq!(first.response().await.text(), "page");
    first.send(get).await;
    assert!(upstream.read_until("\r\n\r\n").await.contains("\"a\""), "it is validated");
    let mut second = proxy.connect().await;
    second.send(get).await;
    // One worker reads in turn: when this has been answered, the second has been read.
    let mut third = proxy.connect().await;
    third.send("TRACE / HTTP/1.1\r\nHost: test\r\nMax-Forwards: 0\r\n\r\n").await;
    third.response().await;
    upstream
        .send("HTTP/1.1 304 Not Modified\r\nCache-Control: private\r\nSet-Cookie: session=first\r\nETag: \"a\"\r\n\r\n")
        .await;
    assert_eq!(first.response().await.header("set-cookie"), Some("session=first"));
    upstream.read_until("\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nCache-Control: private\r\nContent-Length: 5\r\n\r\nother").await;
    let second = second.response().await;
    assert_eq!((second.header("set-cookie"), second.text()), (None, "other"));
}

#[tokio::test]
async fn how_one_client_has_asked_does_not_decide_what_others_get() {
    let origin = Origin::answering(|received| match received.header("range") {
        Some(_) => Answer::raw(
            "HTTP/1.1 416 Range Not Satisfiable\r\nCache-Control: max-age=60\r\nContent-Range: bytes */4\r\nContent-Length: 0\r\n\r\n",
        ),
        None => ok("Cache-Control: max-age=60\r\n", "page"),
    })
    .await;
    let proxy = Proxy::start(&cached(&origin, "true")).await;
    assert_eq!(proxy.get("/", &["Range: bytes=999-"]).await.status, 416);
    let victim = proxy.get("/", &[]).await;
    assert_eq!((victim.status, victim.text()), (200, "page"));
}

#[tokio::test]
async fn a_parameter_under_another_spelling_is_told_apart() {
    let origin = Origin::answering(|received| ok("Cache-Control: max-age=60\r\n", &received.target)).await;
    for (cache, evil, victim) in [
        ("{ query = { only = [\"page\"] } }", "/?p%61ge=666", "/"),
        ("{ query = { only = [\"page\"] } }", "/?x=1;page=666", "/"),
        ("{ query = { except = [\"utm_source\"] } }", "/?utm_source=a;page=666", "/"),
        ("{ query = \"sorted\" }", "/?%61=1&a=2", "/?a=2&%61=1"),
    ] {
        let proxy = Proxy::start(&cached(&origin, cache)).await;
        proxy.get(evil, &[]).await;
        let answer = proxy.get(victim, &[]).await;
        assert_eq!((answer.text(), answer.header("x-cache")), (victim, Some("MISS")), "{cache} {evil}");
    }
}

#[tokio::test]
async fn a_post_is_not_answered_by_the_same_bytes_in_another_encoding() {
    let origin = Origin::answering(|received| {
        ok("Cache-Control: max-age=60\r\n", received.header("content-encoding").unwrap_or("plain"))
    })
    .await;
    let proxy = Proxy::start(&cached(&origin, "{ methods = [\"POST\"] }")).await;
    for (line, expected) in [("Content-Encoding: gzip\r\n", "gzip"), ("", "plain")] {
        let request = format!("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n{line}\r\none");
        assert_eq!(proxy.request(&request).await.text(), expected);
    }
}

#[tokio::test]
async fn a_passing_error_is_not_everybodys_answer() {
    for (status, cache, is_stored) in [
        ("500 Internal Server Error", "{ ttl = \"5m\" }", false),
        ("503 Service Unavailable", "{ force-ttl = \"5m\" }", false),
        ("302 Found", "{ ttl = \"5m\" }", false),
        ("401 Unauthorized", "{ ttl = \"5m\" }", false),
        ("404 Not Found", "{ ttl = \"5m\" }", true),
        ("404 Not Found", "{ ttl = { 200 = \"5m\" } }", false),
        ("302 Found", "{ ttl = { default = \"5m\", 302 = \"1m\" } }", true),
    ] {
        let origin = Origin::answering(move |received| match received.number {
            0 => Answer::raw(format!("HTTP/1.1 {status}\r\nContent-Length: 7\r\n\r\ntrouble")),
            _ => ok("", "well again"),
        })
        .await;
        let proxy = Proxy::start(&cached(&origin, cache)).await;
        proxy.get("/", &[]).await;
        let expected = if is_stored { "trouble" } else { "well again" };
        assert_eq!(proxy.get("/", &[]).await.text(), expected, "{status} {cache}");
    }
}

#[tokio::test]
async fn nobody_waits_for_a_stream_that_does_not_end() {
    for content_type in ["text/event-stream", "text/plain"] {
        let origin = Origin::answering(move |_| {
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
            ))
            .hang()
        })
        .await;
        let config = format!("{}[cache]\nwait = \"1h\"\n", cached(&origin, "{ ttl = \"5m\" }"));
        let proxy = Proxy::start(&config).await;
        let mut clients = Vec::new();
        for _ in 0..3 {
            let mut client = proxy.connect().await;
            client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
            clients.push(client);
        }
        for client in &mut clients {
            soon("the beginning of the stream", client.read_until("hello")).await;
        }
    }
}

#[tokio::test]
async fn whoever_waits_takes_the_place_of_a_client_that_left_before_the_head() {
    let origin = BareOrigin::start().await;
    let config = cached(&origin, "true").top("workers = 1").table("cache", "wait = \"1h\"");
    let proxy = Proxy::start(&config).await;
    let mut first = Http2Client::connect(proxy.address()).await;
    let stream = first.open(http2::request("GET", "/", &[]), true).await;
    let mut given_up = origin.accept().await;
    given_up.read_until("\r\n\r\n").await;
    let mut second = proxy.connect().await;
    second.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    drop(stream);
    let mut upstream = origin.accept().await;
    upstream.read_until("\r\n\r\n").await;
    upstream.send("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 4\r\n\r\npage").await;
    assert_eq!(second.response().await.text(), "page");
    assert_eq!(proxy.get("/", &[]).await.header("x-cache"), Some("HIT"));
}
