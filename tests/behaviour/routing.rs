//! Each request goes to the upstream that its route names, and to no other.

use tollgate_tests::{Origin, Proxy, Response};

/// A proxy with these routes, each to an origin that says the route's name.
struct Routed {
    proxy: Proxy,
    origins: Vec<Origin>,
}

impl Routed {
    /// Each route is a name and what it matches, in TOML.
    async fn start(routes: &[(&'static str, &str)]) -> Self {
        let mut config = String::new();
        let mut origins = Vec::new();
        for (name, matches) in routes {
            let origin = Origin::answering(|_| tollgate_tests::Answer::ok(name)).await;
            let url = origin.url();
            config += &format!("[upstreams.{name}]\nendpoints = [{url:?}]\n");
            config += &format!("[[routes]]\nupstream = \"{name}\"\nmatch = {{ {matches} }}\n");
            origins.push(origin);
        }
        Self { proxy: Proxy::start(&config).await, origins }
    }

    async fn ask(&self, method: &str, host: &str, path: &str, headers: &str) -> Response {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n");
        self.proxy.request(&request).await
    }

    /// The target that the origin of this number has got last.
    fn target(&self, origin: usize) -> String {
        self.origins[origin].last().target
    }
}

#[tokio::test]
async fn the_host_chooses_among_routes_and_the_closest_wins() {
    let routed = Routed::start(&[
        ("any", ""),
        ("exact", "host = \"example.com\""),
        ("below", "host = \"*.example.com\""),
        ("deeper", "host = \"*.eu.example.com\""),
        ("six", "host = \"[::1]\""),
    ])
    .await;
    for (host, expected) in [
        ("example.com", "exact"),
        ("EXAMPLE.com:8080", "exact"),
        ("example.com.", "exact"),
        ("a.example.com", "below"),
        ("b.a.example.com", "below"),
        ("a.eu.example.com", "deeper"),
        ("eu.example.com", "below"),
        ("notexample.com", "any"),
        ("example.com.evil", "any"),
        ("[::1]:80", "six"),
    ] {
        assert_eq!(routed.ask("GET", host, "/", "").await.text(), expected, "{host}");
    }
    let absolute = "GET http://a.example.com/ HTTP/1.1\r\nHost: a.example.com\r\n\r\n";
    assert_eq!(routed.proxy.request(absolute).await.text(), "below");
    assert_eq!(routed.proxy.request("GET / HTTP/1.0\r\n\r\n").await.text(), "any");
}

#[tokio::test]
async fn the_longest_path_of_whole_segments_wins() {
    let routed = Routed::start(&[
        ("root", "path = \"/\""),
        ("api", "path = \"/api\""),
        ("users", "path = \"/api/v1/users/\""),
    ])
    .await;
    for (path, expected) in [
        ("/", "root"),
        ("/apix", "root"),
        ("/API", "root"),
        ("/api", "api"),
        ("/api/", "api"),
        ("/api?users", "api"),
        ("/api/v1", "api"),
        ("/api/v1/users", "users"),
        ("/api/v1/users/7", "users"),
        ("/api/v1/users2", "api"),
    ] {
        assert_eq!(routed.ask("GET", "a", path, "").await.text(), expected, "{path}");
    }
}

#[tokio::test]
async fn methods_and_headers_choose_among_equal_paths() {
    let routed = Routed::start(&[
        ("rest", ""),
        ("reads", "methods = [\"GET\", \"HEAD\"]"),
        ("beta", "headers = { X-Beta = \"1\" }"),
        ("beta-writes", "headers = { x-beta = \"1\" }, methods = [\"POST\"]"),
    ])
    .await;
    for (method, headers, expected) in [
        ("GET", "", "reads"),
        ("POST", "", "rest"),
        ("BREW", "", "rest"),
        ("GET", "X-BETA: 1\r\n", "beta"),
        ("POST", "X-Beta: 1\r\n", "beta-writes"),
        ("PUT", "X-Beta: 0\r\nX-Beta: 1\r\n", "beta"),
        ("PUT", "X-Beta: 2\r\n", "rest"),
        ("GET", "Connection: x-beta\r\nX-Beta: 1\r\n", "reads"),
    ] {
        assert_eq!(routed.ask(method, "a", "/", headers).await.text(), expected, "{method} {headers:?}");
    }
}

#[tokio::test]
async fn a_path_is_routed_and_forwarded_in_the_same_form() {
    let routed = Routed::start(&[("open", "path = \"/\""), ("closed", "path = \"/b\"")]).await;
    for (path, expected, forwarded) in [
        ("/a/../b//c", "closed", "/b/c"),
        ("/b/c", "closed", "/b/c"),
        ("//b", "closed", "/b"),
        ("/./b/.", "closed", "/b/"),
        ("/%62", "closed", "/b"),
        ("/%2e/b", "closed", "/b"),
        ("/a/%2e%2e/b", "closed", "/b"),
        ("/b/%2E%2e/a", "open", "/a"),
        ("/b/..", "open", "/"),
        // Apache takes what is behind it for no part of the name of a file.
        ("/b%3f", "closed", "/b%3F"),
        ("/b%25", "open", "/b%25"),
        ("/b%2562", "open", "/b%2562"),
        ("/a?/../b//c", "open", "/a?/../b//c"),
        ("http://a/x/../b?q", "closed", "/b?q"),
    ] {
        let response = routed.ask("GET", "a", path, "").await;
        assert_eq!(response.text(), expected, "{path}");
        assert_eq!(routed.target(usize::from(expected == "closed")), forwarded, "{path}");
    }
}

#[tokio::test]
async fn a_request_that_no_route_wants_is_told_so_and_nothing_else() {
    let routed = Routed::start(&[("secret", "host = \"secret.example\", path = \"/a\"")]).await;
    let mut client = routed.proxy.connect().await;
    for (host, path) in [("other.example", "/a"), ("secret.example", "/b")] {
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(response.status, 404);
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        assert_eq!(response.header("cache-control"), Some("no-store"));
        let problem = response.json();
        assert_eq!((&problem["status"], &problem["title"]), (&404.into(), &"Not Found".into()));
        assert_eq!(problem["request-id"].as_str().map(str::len), Some(32));
        let mut names: Vec<_> = response.headers.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["cache-control", "content-length", "content-type", "date"]);
        assert_eq!(
            problem.as_object().map(serde_json::Map::len),
            Some(4),
            "type, title, status, id: {problem}"
        );
        assert!(!response.text().contains("secret") && !response.text().contains("127.0.0.1"), "{problem}");
    }
    assert_eq!(routed.origins[0].connections(), 0);
}
