//! What plugins can do, and what is out of their reach.

use serde_json::{Value, json};
use tokio::{net::TcpSocket, task::JoinSet};
use tollgate_tests::{
    Answer, Client, Config, Origin, Proxy, Response, endpoints, guest, logged, until, waiting_guest,
};

/// The upstream `app`, and a route to it through these plugins.
fn app(origins: &[&Origin], plugins: &[&str]) -> String {
    Config::to(origins).route(&format!("plugins = {plugins:?}")).toml()
}

/// A proxy in front of this origin, whose plugin `guest` has this table.
async fn with_guest(origin: &Origin, table: &str) -> Proxy {
    Proxy::start_with(&Config::to(origin).plugin("guest", table), &[("guest", guest())]).await
}

/// The same with a plugin that does as the request says.
async fn obedient(origin: &Origin) -> Proxy {
    with_guest(origin, r#"config = { request = "obey", response = "obey", pick = "obey" }"#).await
}

// ---------------------------------------------------------------------------------------------
// api-key
// ---------------------------------------------------------------------------------------------

/// A proxy that wants a key.
async fn keyed(origin: &Origin, more: &str) -> Proxy {
    let table = format!("config = {{ keys = {{ shop = \"secret\", batch = [\"old\", \"new\"] }}{more} }}");
    Proxy::start(&Config::to(origin).plugin("api-key", &table)).await
}

#[tokio::test]
async fn without_the_right_key_a_request_is_answered_401() {
    let origin = Origin::start().await;
    let proxy = keyed(&origin, "").await;
    for headers in [
        &[][..],
        &["x-api-key: wrong"],
        &["x-api-key:"],
        &["x-api-key: secret", "x-api-key: secret"],
        &["x-api-key: Secret"],
        &["x-consumer: shop"],
    ] {
        let response = proxy.get("/", headers).await;
        assert_eq!(response.status, 401, "{headers:?}");
        let challenge = r#"ApiKey realm="tollgate", header="x-api-key""#;
        assert_eq!(response.header("www-authenticate"), Some(challenge), "{headers:?}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{headers:?}");
        let problem = response.json();
        assert_eq!(problem["status"], 401, "{headers:?}");
        assert_eq!(problem["request-id"].as_str().map(str::len), Some(32), "{headers:?}");
    }
    assert_eq!(origin.connections(), 0, "no such request reaches an upstream");
}

#[tokio::test]
async fn with_a_key_a_request_goes_on_in_the_name_of_its_consumer() {
    let origin = Origin::start().await;
    let proxy = keyed(&origin, "").await;
    for (key, consumer) in [("secret", "shop"), ("old", "batch"), ("new", "batch")] {
        let headers = [format!("x-api-key: {key}"), "x-consumer: root".into(), "X-Consumer: admin".into()];
        let response = proxy.get("/", &headers.each_ref().map(String::as_str)).await;
        assert_eq!(response.status, 200, "{key}");
        let received = origin.last();
        assert_eq!(received.values("x-consumer"), [consumer], "{key}");
        assert_eq!(received.header("x-api-key"), None, "{key}");
    }
}

#[tokio::test]
async fn a_key_reaches_the_upstream_only_where_that_is_configured() {
    let origin = Origin::start().await;
    let proxy = keyed(&origin, ", forward = true, header = \"x-shop-key\"").await;
    assert_eq!(proxy.get("/", &["x-api-key: secret"]).await.status, 401);
    assert_eq!(proxy.get("/", &["x-shop-key: secret"]).await.status, 200);
    assert_eq!(origin.last().header("x-shop-key"), Some("secret"));
}

// ---------------------------------------------------------------------------------------------
// round-robin
// ---------------------------------------------------------------------------------------------

fn rotating(endpoints: &str) -> String {
    Config::to_list(endpoints).upstream("balance = \"round-robin\"").toml()
}

#[tokio::test]
async fn a_rotation_is_strict_over_all_workers() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    let proxy = Proxy::start(&rotating(&endpoints(&origins.each_ref()))).await;
    let mut clients = JoinSet::new();
    for _ in 0..40 {
        let mut client = proxy.connect().await;
        clients.spawn(async move {
            for _ in 0..10 {
                client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
                assert_eq!(client.response().await.status, 200);
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("every request is answered");
    }
    let mut counts = origins.each_ref().map(|origin| origin.received().len());
    counts.sort_unstable();
    assert_eq!(counts, [133, 133, 134]);
}

#[tokio::test]
async fn a_rotation_passes_over_an_endpoint_that_refuses_connections() {
    let origins = [Origin::start().await, Origin::start().await];
    // A port that is taken, and where nobody listens.
    let silent = TcpSocket::new_v4().expect("there are sockets");
    silent.bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
    let refusing = silent.local_addr().expect("a bound socket has an address");
    let endpoints = format!("[\"{}\", \"http://{refusing}\", \"{}\"]", origins[0].url(), origins[1].url());
    let proxy = Proxy::start(&rotating(&endpoints)).await;
    for _ in 0..30 {
        assert_eq!(proxy.get("/", &[]).await.status, 200);
    }
    let counts = origins.each_ref().map(|origin| origin.received().len());
    assert_eq!(counts.iter().sum::<usize>(), 30);
    assert!(counts.iter().all(|count| *count >= 10), "{counts:?}");
}

// ---------------------------------------------------------------------------------------------
// Which plugins, in which order
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_plugin_serves_every_route_that_names_it_and_no_other() {
    let origin = Origin::start().await;
    let config = Config::to(&origin)
        .plugin("guest", "config = { request = \"mark\", says = \"seen\" }")
        .route("match.path = \"/one\"")
        .another_route("match.path = \"/two\"\nplugins = [\"guest\"]")
        .another_route("");
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    for (path, marks) in [("/one", &["seen"][..]), ("/two", &["seen"]), ("/three", &[])] {
        proxy.get(path, &[]).await;
        assert_eq!(origin.last().values("x-mark"), marks, "{path}");
    }
}

#[tokio::test]
async fn tables_on_one_file_are_plugins_of_their_own_and_run_in_order_then_in_reverse() {
    let origin = Origin::start().await;
    let table = |name: &str| {
        format!(
            "[plugins.{name}]
            file = \"guest\"
            config = {{ request = \"mark\", response = \"mark\", says = \"{name}\" }}\n"
        )
    };
    let config = app(&[&origin], &["first", "second"]) + &table("second") + &table("first");
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    let response = proxy.get("/", &[]).await;
    assert_eq!(origin.last().values("x-mark"), ["first", "second"]);
    assert_eq!(response.values("x-mark"), ["second", "first"]);
}

#[tokio::test]
async fn plugins_talk_through_notes() {
    let origin = Origin::start().await;
    let config = app(&[&origin], &["writer", "reader"])
        + "[plugins.writer]
        file = \"guest\"
        config = { request = \"note\", says = \"for the next\" }
        [plugins.reader]
        file = \"guest\"
        config = { response = \"see\" }\n";
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    let seen = proxy.get("/", &[]).await.json();
    assert_eq!(
        seen["request"]["note"], "for the next",
        "the response hook reads what the request hook wrote"
    );
    let seen = proxy.get("/", &["x-says: another"]).await.json();
    assert_eq!(seen["request"]["note"], "another", "a note is of one request");
}

// ---------------------------------------------------------------------------------------------
// What a plugin sees
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_plugin_sees_what_the_client_sent() {
    let origin = Origin::start().await;
    let config = Config::to(&origin).route("name = \"main\"").plugin("guest", "config.request = \"see\"");
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    let request = "PATCH /a/./b/../%63//d?q=%41&r=/../ HTTP/1.1\r\nHost: Example.COM:81\r\nAccept: a\r\n\
         Cookie: c=1\r\nX-Other: Upper\r\nAccept: b\r\nCookie: d=2\r\nX-Forwarded-For: 1.2.3.4\r\n\
         X-Request-Id: mine\r\nContent-Length: 0\r\n\r\n";
    let seen = proxy.request(request).await.json();

    assert_eq!(seen["id"].as_str().map(str::len), Some(32), "nobody is trusted to name the request: {seen}");
    for (key, value) in [
        ("method", json!("PATCH")),
        ("scheme", json!("http")),
        ("authority", json!("example.com:81")),
        ("path", json!("/a/c/d")),
        ("query", json!("q=%41&r=/../")),
        ("version", json!("1.1")),
        ("client", json!("127.0.0.1")),
        ("certificate", json!(null)),
        ("route", json!("main")),
        ("upstream", json!("app")),
        ("cookie", json!("c=1; d=2")),
        ("accept", json!("a, b")),
        ("accept-values", json!(["a", "b"])),
        ("note", json!(null)),
        ("status", json!(0)),
    ] {
        assert_eq!(seen[key], value, "{key}");
    }
    let headers = seen["headers"].as_array().expect("headers are a list");
    assert!(headers.contains(&json!(["x-other", "Upper"])), "{headers:?}");
    assert!(headers.contains(&json!(["x-forwarded-for", "127.0.0.1"])), "{headers:?}");

    let seen = proxy.request("GET / HTTP/1.0\r\n\r\n").await.json();
    assert_eq!(
        [&seen["authority"], &seen["query"], &seen["version"]],
        [&json!(""), &json!(null), &json!("1.0")]
    );
}

#[tokio::test]
async fn a_response_hook_sees_the_request_as_it_was_forwarded_and_cannot_change_it_any_more() {
    let origin = Origin::answering(|_| {
        Answer::raw("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX-A: 1\r\nX-A: 2\r\n\r\nno")
    })
    .await;
    let proxy = with_guest(&origin, r#"config = { request = "mark", says = "m", response = "see" }"#).await;
    let seen = proxy.get("/path?query", &[]).await.json();
    assert_eq!(seen["status"], 404);
    assert_eq!(seen["endpoint"], origin.address.to_string());
    assert_eq!(seen["from-cache"], false);
    assert_eq!((&seen["late"], &seen["late-promise"]), (&json!("forbidden"), &json!("forbidden")));
    assert_eq!(seen["request"]["path"], "/path");
    let headers = seen["headers"].as_array().expect("headers are a list");
    assert!(headers.contains(&json!(["x-a", "1"])) && headers.contains(&json!(["x-a", "2"])), "{headers:?}");
    let headers = seen["request"]["headers"].as_array().expect("headers are a list");
    assert!(headers.contains(&json!(["x-mark", "m"])), "{headers:?}");
}

#[tokio::test]
async fn bytes_that_are_not_text_survive_the_way_in_and_out_of_a_plugin() {
    let bytes: Vec<u8> = (0x80..=0xff).collect();
    let answer =
        [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Bytes: ".as_slice(), &bytes, b"\r\n\r\n"].concat();
    let origin = Origin::answering(move |_| Answer::raw(answer.clone())).await;
    let proxy = with_guest(&origin, r#"config = { request = "copy", response = "copy" }"#).await;
    let mut client = proxy.connect().await;
    client
        .send([b"GET / HTTP/1.1\r\nHost: test\r\nX-Bytes: ".as_slice(), &bytes, b"\r\n\r\n"].concat())
        .await;
    let response = client.response().await;
    let expected: String = bytes.iter().copied().map(char::from).collect();
    assert_eq!(origin.last().header("x-copy"), Some(expected.as_str()));
    assert_eq!(response.header("x-copy"), Some(expected.as_str()));
}

// ---------------------------------------------------------------------------------------------
// What a plugin may change
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn framing_hop_by_hop_fields_and_the_clients_identity_are_out_of_a_plugins_reach() {
    const IDENTITY: [&str; 9] = [
        "client-cert",
        "client-cert-chain",
        "expect",
        "forwarded",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-request-id",
    ];
    const FREE: [&str; 2] = ["host", "x-free"];
    let outcome = |name: &str, is_request: bool| match name {
        "not a name" => "invalid-name",
        _ if FREE.contains(&name) || (!is_request && IDENTITY.contains(&name)) => "ok",
        _ => "forbidden",
    };
    let origin = Origin::answering(|_| Answer::ok("hello")).await;
    let proxy = with_guest(&origin, r#"config = { request = "touch", response = "touch" }"#).await;
    let response = proxy.request("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 4\r\n\r\nbody").await;
    let received = origin.last();
    for (touched, is_request) in [(received.header("x-touched"), true), (response.header("x-touched"), false)]
    {
        let touched: Value =
            serde_json::from_str(touched.expect("the plugin was there")).expect("it is JSON");
        let touched = touched.as_object().expect("it is an object");
        assert!(touched.len() > 15, "{touched:?}");
        for (name, result) in touched {
            assert_eq!(result, outcome(name, is_request), "{name}, request: {is_request}");
        }
    }
    assert_eq!((received.header("content-length"), received.body.as_slice()), (Some("4"), &b"body"[..]));
    assert_eq!((received.header("host"), received.header("x-free")), (Some("1"), Some("1")));
    assert_eq!(received.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!((response.header("content-length"), response.text()), (Some("5"), "hello"));
    assert_eq!(response.header("x-free"), Some("1"));
}

#[tokio::test]
async fn a_plugin_sends_a_request_to_another_target_or_is_refused() {
    let origin = Origin::start().await;
    let proxy = with_guest(&origin, r#"config = { request = "target" }"#).await;
    for (wanted, target) in
        [("/x/../y//z?q=1?2", "/y/z?q=1?2"), ("/%7Ea", "/~a"), ("/only", "/only"), ("/?", "/?")]
    {
        proxy.get("/before?query", &[&format!("x-says: {wanted}")]).await;
        let received = origin.last();
        assert_eq!(
            (received.target.as_str(), received.header("x-outcome")),
            (target, Some("ok")),
            "{wanted}"
        );
    }
    for refused in ["y", "*", "http://other/", "//other/..%2f", "/a%2fb", "/a?b#c", "/a b", "/%00"] {
        proxy.get("/before?query", &[&format!("x-says: {refused}")]).await;
        let received = origin.last();
        assert_eq!(
            (received.target.as_str(), received.header("x-outcome")),
            ("/before?query", Some("invalid-value")),
            "{refused}"
        );
    }
}

#[tokio::test]
async fn a_plugin_chooses_the_upstream() {
    let (app_origin, other) = (Origin::start().await, Origin::start().await);
    let config = format!(
        "{}[upstreams.other]\nendpoints = {}\n[plugins.guest]\ngrants = {{ upstreams = [\"other\"] }}\nconfig = {{ request = \"forward\" }}\n",
        app(&[&app_origin], &["guest"]),
        endpoints(&[&other])
    );
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    assert_eq!(proxy.get("/", &["x-says: other"]).await.text(), other.port());
    assert_eq!(proxy.get("/", &["x-says: app"]).await.text(), app_origin.port());

    assert_eq!(proxy.get("/", &["x-says: nowhere-at-all"]).await.status, 503);
    let words = ["sends requests to the upstream `nowhere-at-all`, which is not configured"];
    until("a line in the log", || !logged(&words).is_empty()).await;
    assert_eq!(app_origin.received().len(), 1);

    let open = config.replace("[plugins.guest]\n", "[plugins.guest]\nfail = \"open\"\n");
    proxy.reload(&open).await.expect("the configuration is fine");
    assert_eq!(proxy.get("/", &["x-says: nowhere-at-all"]).await.text(), app_origin.port());
}

// ---------------------------------------------------------------------------------------------
// Answers of a plugin's own
// ---------------------------------------------------------------------------------------------

async fn ask(client: &mut Client, method: &str, headers: &str) -> Response {
    client.send(format!("{method} / HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await;
    client.any_response(method == "HEAD").await.expect("there is a response")
}

#[tokio::test]
async fn a_plugin_answers_in_place_of_the_upstream() {
    let origin = Origin::start().await;
    let proxy = obedient(&origin).await;
    // One connection for all: none of these answers may leave anything behind on it.
    let mut client = proxy.connect().await;
    let response = ask(&mut client, "GET", "x-do: reply\r\n").await;
    assert_eq!((response.status, response.text()), (418, "short and stout"));
    assert_eq!(response.values("x-a"), ["1", "2"]);
    assert_eq!(response.header("content-length"), Some("15"));

    let response = ask(&mut client, "GET", "x-do: reply-empty\r\n").await;
    assert_eq!(response.status, 204);
    assert_eq!((response.header("content-length"), response.header("transfer-encoding")), (None, None));

    let response = ask(&mut client, "HEAD", "x-do: reply\r\n").await;
    assert_eq!((response.status, response.header("content-length")), (418, Some("15")));

    let response = ask(&mut client, "GET", "x-do: reply\r\nx-do-response: see\r\n").await.json();
    assert_eq!((&response["status"], &response["endpoint"]), (&json!(418), &json!(null)));

    assert_eq!(origin.connections(), 0, "nothing reaches an upstream");
    assert_eq!(ask(&mut client, "GET", "").await.text(), origin.port());
}

#[tokio::test]
async fn a_response_hook_changes_the_response() {
    let origin = Origin::start().await;
    let proxy = obedient(&origin).await;
    let response = proxy.get("/", &["x-do-response: mark", "x-says: marked"]).await;
    assert_eq!((response.status, response.header("x-mark")), (200, Some("marked")));
    assert_eq!(response.text(), origin.port());
    let response = proxy.get("/", &["x-do-response: status"]).await;
    assert_eq!((response.status, response.text()), (203, origin.port().as_str()));
    let response = proxy.get("/", &["x-do-response: nothing"]).await;
    assert_eq!(response.header("x-backend-server"), Some(origin.address.to_string().as_str()));
    let response = proxy.get("/", &["x-do-response: remove"]).await;
    assert_eq!(response.header("x-backend-server"), None);
}

#[tokio::test]
async fn a_request_hook_says_what_stands_on_the_response_whoever_makes_it() {
    let origin = Origin::answering(|_| {
        Answer::raw(
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: public, max-age=60\r\nX-A: 1\r\nX-A: 2\r\n\r\nok",
        )
    })
    .await;
    for hooks in ["always", "once"] {
        let cached = format!("cache = {{ response-hooks = \"{hooks}\" }}\nplugins = ");
        let config = app(&[&origin], &["guest"]).replace("plugins = ", &cached);
        let table = "[plugins.guest]\nconfig = { request = \"obey\", response = \"promised\" }\n";
        let proxy = Proxy::start_with(&(config + table), &[("guest", guest())]).await;
        for (number, source) in ["the upstream", "the cache", "the cache"].into_iter().enumerate() {
            let says = format!("x-says: X-A=replaced;x-number={}", number / 2);
            let response = proxy.get("/", &["x-do: promise", &says]).await;
            assert_eq!(response.text(), "ok");
            assert_eq!(response.header("age").is_some(), number > 0, "{source}");
            assert_eq!(response.values("x-a"), ["replaced"], "{source}, {hooks}");
            assert_eq!(
                response.header("x-number"),
                Some((number / 2).to_string().as_str()),
                "{source}, {hooks}"
            );
            // What response hooks make is stored for everybody with "once", and this is for one.
            let seen = if hooks == "always" { "replaced" } else { "1, 2" };
            assert_eq!(response.header("x-seen"), Some(seen), "{source}, {hooks}");
        }
        let response = proxy.get("/", &[]).await;
        assert_eq!(response.values("x-a"), ["1", "2"], "{hooks}");
        assert_eq!(proxy.get("/", &["x-do: promise-and-reply"]).await.values("x-a"), ["3"]);
    }
    assert_eq!(origin.received().len(), 2);
    let proxy = obedient(&origin).await;
    proxy.get("/none", &["x-do: promise", "x-says: content-length=1;x a=1;x-a=2"]).await;
    assert_eq!(origin.last().values("x-outcome"), ["forbidden", "invalid-name", "ok"]);
}

#[tokio::test]
async fn a_response_that_a_plugin_replaces_is_never_taken_for_another() {
    let origin = Origin::answering(|received| Answer::ok(&received.target)).await;
    let proxy = obedient(&origin).await;
    let mut client = proxy.connect().await;
    let mut get = async |path: &str, headers: &str| {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n")).await;
        client.response().await
    };
    assert_eq!(get("/1", "").await.text(), "/1");
    for number in 2..6 {
        let response = get("/private", "x-do-response: reply\r\n").await;
        assert_eq!((response.status, response.text()), (418, "instead"));
        let path = format!("/{number}");
        assert_eq!(get(&path, "").await.text(), path);
    }
    // Of a body that was not read nothing is left, nor is the connection.
    origin.has_open(1).await;
    get("/private", "x-do-response: reply\r\n").await;
    origin.has_open(0).await;
}

// ---------------------------------------------------------------------------------------------
// Balancers
// ---------------------------------------------------------------------------------------------

/// A proxy that asks the guest which of these endpoints it is to be.
async fn balanced(endpoints: &str) -> Proxy {
    let config = Config::to_list(endpoints).upstream("balance = \"guest\"");
    let config = config.table("plugins.guest", "config.pick = \"obey\"").toml();
    Proxy::start_with(&config, &[("guest", guest())]).await
}

#[tokio::test]
async fn a_balancer_picks_the_endpoint() {
    let origins = [Origin::start().await, Origin::start().await, Origin::start().await];
    let proxy = balanced(&endpoints(&origins.each_ref())).await;
    for (wanted, place) in [
        ("first", 0),
        ("last", 2),
        ("by-header\r\nx-endpoint: 1", 1),
        ("by-header\r\nx-endpoint: 2", 2),
        ("least", 0),
    ] {
        let response = proxy.get("/", &[&format!("x-do-pick: {wanted}")]).await;
        assert_eq!(response.text(), origins[place].port(), "{wanted}");
    }
}

#[tokio::test]
async fn a_balancer_knows_how_many_requests_each_endpoint_has() {
    let hanging = || Origin::answering(|_| Answer { pieces: Vec::new(), ..Answer::ok("").hang() });
    let origins = [hanging().await, hanging().await, Origin::start().await];
    let proxy = balanced(&endpoints(&origins.each_ref())).await;
    let request = "GET / HTTP/1.1\r\nHost: test\r\nx-do-pick: least\r\n\r\n";
    let mut waiting = [proxy.connect().await, proxy.connect().await];
    for (client, origin) in waiting.iter_mut().zip(&origins) {
        client.send(request).await;
        origin.has_received(1).await;
    }
    for _ in 0..5 {
        assert_eq!(proxy.request(request).await.text(), origins[2].port());
    }
}

#[tokio::test]
async fn where_a_balancer_makes_no_sense_the_host_chooses() {
    let origin = Origin::start().await;
    let silent = TcpSocket::new_v4().expect("there are sockets");
    silent.bind(([127, 0, 0, 1], 0).into()).expect("a port is free");
    let refusing = silent.local_addr().expect("a bound socket has an address");
    let proxy = balanced(&format!("[\"http://{refusing}\", \"{}\"]", origin.url())).await;
    for pick in ["none", "beyond", "tried", "first", "by-header\r\nx-endpoint: 4294967295"] {
        for _ in 0..5 {
            let response = proxy.get("/", &[&format!("x-do-pick: {pick}")]).await;
            assert_eq!((response.status, response.text()), (200, origin.port().as_str()), "{pick}");
        }
    }
}

#[tokio::test]
async fn of_several_balancers_the_first_that_has_an_opinion_decides() {
    let (one, two) = (Origin::start().await, Origin::start().await);
    let config = app(&[&one, &two], &[])
        .replace("endpoints", "balance = [\"guest\", \"round-robin\"]\nendpoints")
        + "[plugins.guest]\nconfig = { pick = \"obey\" }\n";
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    for (pick, served) in
        [("first", ["one", "one", "one"]), ("none", ["one", "two", "one"]), ("trap", ["two", "one", "two"])]
    {
        for by in served {
            let origin = if by == "one" { &one } else { &two };
            let response = proxy.get("/", &[&format!("x-do-pick: {pick}")]).await;
            assert_eq!((response.status, response.text()), (200, origin.port().as_str()), "{pick}");
        }
    }
}

#[tokio::test]
async fn an_endpoint_that_reports_more_load_gets_the_requests_no_longer() {
    let reporting = |load: f32| {
        Origin::answering(move |_| {
            Answer::raw(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nEndpoint-Load-Metrics: TEXT cpu_utilization={load}\r\n\r\nx"
            ))
        })
    };
    let (busy, idle) = (reporting(0.9).await, reporting(0.1).await);
    let config = app(&[&busy, &idle], &[]).replace("endpoints", "balance = \"resource\"\nendpoints");
    let proxy = Proxy::start(&config).await;
    // Until both have reported, they are equals.
    while busy.received().is_empty() || idle.received().is_empty() {
        let response = proxy.get("/", &[]).await;
        assert_eq!((response.status, response.header("endpoint-load-metrics")), (200, None));
    }
    let before = busy.received().len();
    for _ in 0..20 {
        assert_eq!(proxy.get("/", &[]).await.status, 200);
    }
    assert_eq!(busy.received().len(), before);
}

// ---------------------------------------------------------------------------------------------
// Log, numbers and the system
// ---------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_line_of_a_plugin_names_the_plugin_and_the_request() {
    let origin = Origin::start().await;
    let config = app(&[&origin], &["talker"])
        + "[plugins.talker]\nfile = \"guest\"\nconfig = { request = \"obey\", says = \"a talker\" }\n";
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    proxy.get("/", &["x-do: log"]).await;
    let id = origin.last().header("x-request-id").expect("requests have an id").to_owned();
    let line = logged(&["a talker was here"]).pop().expect("the line is there");
    let line: Value = serde_json::from_str(&line).expect("lines are JSON");
    assert_eq!((&line["plugin"], &line["request"]), (&json!("talker"), &json!(id)));
    assert_eq!((&line["level"], &line["message"]), (&json!("WARN"), &json!("a talker was here")));

    proxy.get("/", &["x-do: print"]).await;
    assert_eq!(logged(&["\"a talker printed\"", "\"plugin\":\"talker\""]).len(), 1);
    assert_eq!(logged(&["\"a talker complained\"", "\"plugin\":\"talker\""]).len(), 1);

    // What it says stays within its line, so that nothing looks as if the proxy had said it.
    proxy
        .reload(&config.replace("a talker", "forger\\r\\nERROR\\tforged \\u001b[2J"))
        .await
        .expect("it is fine");
    proxy.get("/", &["x-do: log"]).await;
    let line = logged(&["forger"]).pop().expect("the line is there");
    let line: Value = serde_json::from_str(&line).expect("lines are JSON");
    assert_eq!(line["message"], "forger\\r\\nERROR\tforged \\u{1b}[2J was here");
}

#[tokio::test]
async fn a_plugin_cannot_fill_the_log() {
    let origin = Origin::start().await;
    // Under a name of its own, since other tests have plugins that log too much.
    let settings = "file = \"guest\"\nlimits = { time = \"10s\" }\nconfig = { request = \"obey\" }";
    let config = format!("workers = 1\n{}[plugins.floods]\n{settings}\n", app(&[&origin], &["floods"]));
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    for (number, flood) in (1..).zip(["log-flood", "print-flood"]) {
        let says = format!("of {flood}");
        let response = proxy.get("/", &[&format!("x-do: {flood}"), &format!("x-says: {says}")]).await;
        assert_eq!(response.status, 200, "{flood}");
        assert_eq!(logged(&["flood ", &says]).len(), 64, "{flood}");
        assert_eq!(logged(&["floods", "the plugin logs too much"]).len(), number, "{flood}");
    }
    // What the proxy has to say of a plugin counts as well.
    assert_eq!(proxy.get("/", &["x-do: status-flood"]).await.status, 200);
    assert_eq!(logged(&["plugin set a status that does not exist: 64007"]).len(), 64);
}

#[tokio::test]
async fn more_metrics_and_sequences_than_there_is_room_for_do_no_harm() {
    let origin = Origin::start().await;
    let proxy = with_guest(&origin, "limits = { time = \"10s\" }\nconfig = { request = \"obey\" }").await;
    for flood in ["metrics", "sequences", "metrics", "sequences"] {
        assert_eq!(proxy.get("/", &[&format!("x-do: {flood}")]).await.status, 200, "{flood}");
    }
    let snapshot = proxy.server().snapshot();
    let metrics = snapshot.plugin("guest").expect("the plugin is loaded").plugin.metrics();
    assert_eq!(metrics.len(), 64);
    let metric = &metrics["m0"];
    assert_eq!((metric.value(), metric.count()), (2.0, 2), "what is no number does not count");
}

#[tokio::test]
async fn clocks_and_chance_work_and_of_files_and_environment_there_is_nothing() {
    let origin = Origin::start().await;
    let proxy = obedient(&origin).await;
    for what in ["random", "files"] {
        assert_eq!(proxy.get("/", &[&format!("x-do: {what}")]).await.status, 200, "{what}");
    }
}

#[tokio::test]
async fn a_plugin_that_reaches_for_a_socket_fails() {
    let origin = Origin::start().await;
    let config = app(&[&origin], &["caller"])
        + "[plugins.caller]\nfile = \"guest\"\nconfig = { request = \"obey\" }\n";
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    assert_eq!(proxy.get("/", &["x-do: socket"]).await.status, 503);
    assert_eq!(
        logged(&["request failed", "the plugin `caller` trapped", "wasi:sockets/", "is not for plugins"])
            .len(),
        1
    );
    assert_eq!(proxy.get("/", &[]).await.status, 200);
}

#[tokio::test]
async fn nothing_of_one_request_is_there_for_the_next_where_each_has_an_instance() {
    let origin = Origin::start().await;
    let with = |isolation: &str| {
        let table = format!(
            "file = \"guest\"
            config = {{ request = \"obey\", response = \"obey\" }}
            isolation = \"{isolation}\"
            limits = {{ memory = \"4MiB\" }}"
        );
        Config::to(&origin).top("workers = 1").admin().plugin("isolated", &table).toml()
    };
    let proxy = Proxy::start_with(&with("request"), &[("guest", guest())]).await;
    let count = async || {
        let counted = proxy.get("/", &["x-do: count"]).await.json();
        (counted["calls"].as_u64().expect("a number"), counted["sequence"].as_u64().expect("a number"))
    };
    // `configure`, and this call: the response hook of the request before has an instance of its own.
    for number in 0..5 {
        assert_eq!(count().await, (2, number), "what is the host's is shared all the same");
    }
    // Memory that a call has kept is gone after it.
    for _ in 0..40 {
        assert_eq!(proxy.get("/", &["x-do: grow-slowly", "x-do-response: grow-slowly"]).await.status, 200);
    }
    assert_eq!(proxy.get("/", &["x-do: trap"]).await.status, 503);
    assert_eq!(count().await, (2, 5));
    assert!(proxy.told("/api/plugins").await["plugins"][0]["instances"].as_u64().expect("a number") <= 1);

    proxy.reload(&with("shared")).await.expect("the configuration is fine");
    assert_eq!((count().await, count().await), ((2, 6), (4, 7)), "otherwise it goes on");
}

#[tokio::test]
async fn an_instance_that_waits_is_one_requests_own_as_well() {
    let origin = Origin::start().await;
    let table = "file = \"waiting\"
        isolation = \"request\"
        grants = { http = [\"http://127.0.0.1:1\"], body = true }";
    let config = Config::to(&origin).top("workers = 1").plugin("waits-alone", table);
    let proxy = Proxy::start_with(&config, &[("waiting", waiting_guest())]).await;
    for _ in 0..3 {
        assert_eq!(proxy.get("/", &["x-do: calls", "x-verdict: reply"]).await.text(), "1");
    }
}
