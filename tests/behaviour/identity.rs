//! Who a client is and how it came is one thing: to listeners, plugins, the log and upstreams, by whatever name a server
//! knows a field.

#![allow(clippy::unwrap_used, reason = "what a test makes by itself is valid")]

use tollgate_tests::{Origin, Proxy, guest, http2, listener, logged, route_to, shipped, until};

/// What a program behind CGI finds in its environment: fields whose names differ in `-` and `_` alone are one.
fn environment(received: &tollgate_tests::Received, name: &str) -> Vec<String> {
    let folded = |name: &str| name.to_ascii_lowercase().replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    let behind = String::from_utf8_lossy(&received.raw_body);
    let lines = received.raw.lines().chain(behind.lines()).filter_map(|line| line.split_once(':'));
    lines
        .filter(|(field, _)| folded(field) == folded(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

const KEYS: &str = "plugins = [\"api-key\"]
    [plugins.api-key]
    file = \"guard\"
    config = { keys = { alice = \"test-api-key-123\" } }\n";

#[tokio::test]
async fn no_spelling_of_a_field_says_who_a_consumer_is() {
    for (underscores, kept) in [("drop", 0), ("forward", 1)] {
        let origin = Origin::start().await;
        let settings =
            format!("underscores-in-headers = \"{underscores}\"\ntrusted-proxies = [\"127.0.0.1\"]");
        let config = route_to(&[&origin.url()]) + KEYS + &listener(&settings);
        let proxy = Proxy::start_with(&config, &[("guard", shipped("api-key"))]).await;
        let request = "POST / HTTP/1.1\r\nHost: test\r\nX-Api-Key: test-api-key-123\r\nX-Consumer: root\r\nX_Consumer: root\r\n\
             X.Consumer: root\r\nX_Other: 1\r\nX_Real_Ip: 6.6.6.6\r\nTransfer-Encoding: chunked\r\n\
             Trailer: x-consumer, x_consumer, x-sum\r\n\r\n1\r\nx\r\n0\r\nX-Consumer: root\r\nX_Consumer: root\r\nX-Sum: 2\r\n\r\n";
        assert_eq!(proxy.request(request).await.status, 200);
        let received = origin.last();
        assert_eq!(environment(&received, "x-consumer"), ["alice"], "{}", received.raw);
        assert_eq!(environment(&received, "x-real-ip"), [""; 0], "{}", received.raw);
        assert_eq!(environment(&received, "x-other").len(), kept, "{}", received.raw);
        assert_eq!(environment(&received, "x-sum"), ["2"], "{}", received.raw);
    }
}

#[tokio::test]
async fn a_listener_can_refuse_names_that_hold_an_underscore() {
    let origin = Origin::start().await;
    let config = route_to(&[&origin.url()]) + &listener("underscores-in-headers = \"refuse\"");
    let proxy = Proxy::start(&config).await;
    for (field, status) in [("X_A: 1", 400), ("X.A: 1", 400), ("X-A: 1", 200)] {
        assert_eq!(proxy.get("/", &[field]).await.status, status, "{field}");
    }
}

#[tokio::test]
async fn no_spelling_of_a_path_gets_past_a_guard() {
    let origin = Origin::start().await;
    let config = format!(
        "{}[[routes]]\nmatch = {{ path = \"/@admin\" }}\nupstream = \"app\"\n{KEYS}",
        route_to(&[&origin.url()])
    );
    let proxy = Proxy::start_with(&config, &[("guard", shipped("api-key"))]).await;
    for path in [
        "/@admin/secret",
        "/%40admin/secret",
        "/;/@admin/secret",
        "/;x/@admin",
        "/;a=b/@admin",
        "/%3b/@admin",
        "/@admin;x/secret",
        "/@admin%3bx/secret",
        "/@admin%3Fx",
        "/@admin./secret",
        "/@admin%20/secret",
        "/@admin::$INDEX_ALLOCATION/secret",
        "/(S(x))/@admin/secret",
        "/x/..;/@admin",
        "/x/..%3b/@admin",
        "/%c0%ae/@admin",
    ] {
        let status = proxy.get(path, &[]).await.status;
        assert!([400, 401].contains(&status), "{path}: {status}");
    }
    assert_eq!(origin.received().len(), 0);
    assert_eq!(proxy.get("/open;x/..;jsessionid", &[]).await.status, 400);
    assert_eq!(proxy.get("/open;x/y", &[]).await.status, 200);
}

#[tokio::test]
async fn how_a_client_came_to_a_trusted_proxy_is_one_thing_to_all() {
    let origin = Origin::start().await;
    let settings = "trusted-proxies = [\"127.0.0.1\"]\nredirect-to-https = true\nhsts = { max-age = \"1d\" }";
    let config = route_to(&[&origin.url()])
        + "plugins = [\"guest\"]\n[plugins.guest]\nconfig = { response = \"see\" }\n"
        + &listener(settings);
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    for (number, fields) in [
        &["X-Forwarded-Proto: https", "X-Forwarded-Host: Came.test", "X-Forwarded-For: 203.0.113.7"][..],
        &[
            "X-Forwarded-Proto: https, https",
            "X-Forwarded-Host: Came.test, b",
            "X-Forwarded-For: 203.0.113.7",
        ],
        &["Forwarded: for=203.0.113.7;proto=https;host=Came.test"],
        &["Forwarded: for=6.6.6.6;proto=http, For=\"203.0.113.7:80\";Proto=HTTPS;Host=\"Came.test\""],
    ]
    .into_iter()
    .enumerate()
    {
        let response = proxy.get(&format!("/came-{number}"), fields).await;
        assert_eq!(response.status, 200, "no redirection for {fields:?}");
        assert_eq!(response.header("strict-transport-security"), Some("max-age=86400"), "{fields:?}");
        let seen = &response.json()["request"];
        for (key, value) in [("scheme", "https"), ("authority", "came.test"), ("client", "203.0.113.7")] {
            assert_eq!(seen[key], value, "{fields:?}");
        }
        let received = origin.last();
        assert_eq!(received.header("x-forwarded-proto"), Some("https"));
        assert_eq!(received.header("x-forwarded-host"), Some("Came.test"));
        assert!(
            received.header("x-forwarded-for").unwrap().ends_with("203.0.113.7, 127.0.0.1"),
            "{fields:?}"
        );
        assert_eq!(received.header("host"), Some("test"), "where it goes is another matter");
        let path = format!("/came-{number}");
        until("the line of the access log", || {
            let lines = logged(&[&path, "203.0.113.7"]);
            lines.iter().any(|line| line.contains("Came.test") && line.contains("https"))
        })
        .await;
    }
    let clear = proxy.get("/", &["X-Forwarded-Proto: http", "X-Forwarded-Host: came.test"]).await;
    assert_eq!((clear.status, clear.header("location")), (308, Some("https://came.test/")));
    assert_eq!(clear.header("strict-transport-security"), None, "RFC 6797, section 7.2");
}

#[tokio::test]
async fn the_scheme_of_a_target_is_the_word_of_a_trusted_proxy() {
    let origin = Origin::start().await;
    for (settings, expected) in [("trusted-proxies = [\"127.0.0.1\"]", 200), ("", 400)] {
        let proxy = Proxy::start(&(route_to(&[&origin.url()]) + &listener(settings))).await;
        let mut client = http2::Http2Client::connect(proxy.address()).await;
        let mut request = http2::request("GET", "/", &[]);
        *request.uri_mut() = "https://test:443/".parse().unwrap();
        request.headers_mut().insert("host", "test".parse().unwrap());
        assert_eq!(client.send(request, b"").await.unwrap().status, expected);
        let absolute = "GET https://test/ HTTP/1.1\r\nHost: test:443\r\n\r\n";
        assert_eq!(proxy.request(absolute).await.status, expected);
    }
    assert_eq!(origin.received().len(), 2);
    assert!(origin.received().iter().all(|received| received.header("x-forwarded-proto") == Some("https")));
}
