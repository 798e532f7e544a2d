//! The configurations of the migration chapter do what those of the other proxies do: they are started as they are printed.

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tollgate_tests::{Answer, Authority, Client, Origin, Proxy, Response, Secure, block_agents, until};

const HOST: &str = "shop.example.com";

const KEY: &str = "x-api-key: test-api-key-123";

/// Three servers behind a proxy, and a client that trusts its certificate.
struct Site {
    proxy: Proxy,
    origins: [Origin; 3],
    client: Secure,
    /// Whether the health checks of the first server pass.
    is_healthy: Arc<AtomicBool>,
}

/// The configuration that a page prints.
fn printed(page: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let config = blocks.next().expect("the page prints a configuration");
    assert!(blocks.next().is_none(), "{page} prints one configuration");
    config.to_owned()
}

async fn origin(is_healthy: Arc<AtomicBool>, name: &'static str) -> Origin {
    Origin::answering(move |received| {
        if received.target == "/health" && !is_healthy.load(Ordering::SeqCst) {
            return Answer::raw("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n");
        }
        let length = name.len();
        let is_public = received.target.starts_with("/catalog");
        let caching = if is_public { "Cache-Control: public\r\n" } else { "" };
        Answer::raw(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nServer: app\r\nX-Powered-By: app\r\n{caching}\
             Last-Modified: Mon, 02 Nov 2026 08:00:00 GMT\r\n\r\n{name}"
        ))
    })
    .await
}

impl Site {
    async fn start(page: &str) -> Self {
        let is_healthy = Arc::new(AtomicBool::new(true));
        let origins = [
            origin(is_healthy.clone(), "one").await,
            origin(Arc::new(AtomicBool::new(true)), "two").await,
            origin(Arc::new(AtomicBool::new(true)), "three").await,
        ];
        let mut config = printed(page);
        for (written, origin) in ["10.0.0.1:8001", "10.0.0.2:8001", "10.0.0.3:8001"].iter().zip(&origins) {
            assert!(config.contains(written), "{page} names {written}");
            config = config.replace(written, &origin.address.to_string());
        }
        let config =
            config.replace("0.0.0.0:80\"", "127.0.0.1:0\"").replace("0.0.0.0:443\"", "127.0.0.1:0\"");
        assert!(!config.contains("\"0.0.0.0"), "{config}");
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let authority = Authority::new();
        fs::create_dir(folder.path().join("tls")).expect("a folder can be made");
        authority.vouch(&[HOST]).write(&folder.path().join("tls"), "site");
        let plugins = [("block-agents", block_agents())];
        let plugins = if config.contains("block-agents") { &plugins[..] } else { &[] };
        let proxy = match Proxy::try_start_in(folder, &config, plugins).await {
            Ok(proxy) => proxy,
            Err(error) => panic!("{page}: the proxy does not start: {error}"),
        };
        let client = Secure::believing(&authority);
        let site = Self { proxy, origins, client, is_healthy };
        // Checks have an opinion of both before anything is asked.
        until("both endpoints are checked", || {
            site.origins[..2].iter().all(|origin| !origin.received().is_empty())
        })
        .await;
        site
    }

    /// GET by TLS, over a connection of its own.
    async fn get(&self, path: &str, headers: &[&str]) -> Response {
        let address = *self.proxy.server().addresses().last().expect("there is a listener");
        let mut client = self.client.connect(address, HOST).await;
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        client.send(format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n{headers}\r\n")).await;
        client.response().await
    }

    /// Plain HTTP is redirected to the same URL by TLS.
    async fn redirects_to_tls(&self) {
        let mut client = Client::connect(self.proxy.address()).await;
        client.send(format!("GET /a?b=1 HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        let response = client.response().await;
        assert_eq!(
            (response.status, response.header("location")),
            (308, Some("https://shop.example.com/a?b=1"))
        );
    }

    /// A key is needed, and the server learns whose it is.
    async fn checks_keys(&self, path: &str) {
        assert_eq!(self.get(path, &[]).await.status, 401);
        assert_eq!(self.get(path, &["x-api-key: wrong"]).await.status, 401);
        let response = self.get(path, &[KEY, "x-consumer: admin"]).await;
        assert_eq!(response.status, 200, "{response:?}");
        let served = self.served_by(&response);
        assert_eq!((served.header("x-consumer"), served.header("x-api-key")), (Some("shop"), None));
    }

    /// The last request to the server that has answered.
    fn served_by(&self, response: &Response) -> tollgate_tests::Received {
        let name = response.text();
        let place =
            ["one", "two", "three"].iter().position(|one| *one == name).expect("a server has answered");
        let mut received = self.origins[place].received();
        received.retain(|received| received.target != "/health");
        received.pop().expect("it has received a request")
    }

    /// Requests beyond the rate are refused, and the client learns when to come again.
    async fn limits_the_rate(&self, path: &str, most: usize) {
        for _ in 0..most * 2 {
            let response = self.get(path, &[KEY]).await;
            if response.status == 429 {
                assert!(response.header("retry-after").is_some(), "{response:?}");
                return;
            }
        }
        panic!("{most} and more requests pass");
    }

    /// The server whose checks fail gets no requests.
    async fn leaves_out_the_unhealthy(&self, path: &str) {
        self.is_healthy.store(false, Ordering::SeqCst);
        let is_out = || {
            let snapshot = self.proxy.server().snapshot();
            let usable = |upstream: &str| {
                let place = snapshot.upstream(upstream).expect("the upstream is there");
                snapshot.upstreams[place].upstream.roster().usable().len()
            };
            usable(if snapshot.upstream("stable").is_some() { "stable" } else { "app" }) == 1
        };
        until("the unhealthy endpoint is out", is_out).await;
        for _ in 0..4 {
            let response = self.get(path, &[KEY]).await;
            assert_eq!(response.status, 200, "{response:?}");
            assert_ne!(response.text(), "one");
        }
    }

    async fn redirects_the_old_shop(&self) {
        let response = self.get("/old-shop", &[]).await;
        assert_eq!((response.status, response.header("location")), (301, Some("/shop")));
    }
}

#[tokio::test]
async fn the_configuration_from_nginx_does_the_same() {
    let site = Site::start("migration-nginx.md").await;
    site.redirects_to_tls().await;
    site.redirects_the_old_shop().await;
    site.checks_keys("/api/items?page=2").await;

    let response = site.get("/api/items?page=2", &[KEY]).await;
    assert_eq!((response.header("x-powered-by"), response.header("server")), (None, Some("app")));
    let served = site.served_by(&response);
    assert_eq!((served.target.as_str(), served.header("x-site")), ("/items?page=2", Some("main")));

    for outcome in ["MISS", "HIT", "HIT"] {
        assert_eq!(site.get("/static/a.css", &[]).await.header("x-cache"), Some(outcome));
    }
    assert_eq!(site.get("/", &[]).await.status, 200, "the rest of the site needs no key");

    // Two of three requests go to the server of weight 2.
    let mut names = Vec::new();
    for _ in 0..3 {
        names.push(site.get("/", &[]).await.text().to_owned());
    }
    names.sort();
    assert_eq!(names, ["one", "one", "two"]);

    site.leaves_out_the_unhealthy("/").await;
    site.limits_the_rate("/api/items", 20).await;
    assert_eq!(site.get("/", &[]).await.status, 200, "other routes have no limit");
}

#[tokio::test]
async fn the_configuration_from_haproxy_does_the_same() {
    let site = Site::start("migration-haproxy.md").await;
    site.redirects_to_tls().await;
    site.checks_keys("/v1/items").await;

    let response = site.get("/v1/items", &[KEY]).await;
    assert_eq!((site.served_by(&response).target.as_str(), response.header("server")), ("/items", None));
    assert_eq!(response.header("strict-transport-security"), Some("max-age=31536000"));
    assert_eq!(site.get("/v1/items", &[KEY, "x-canary: 1"]).await.text(), "three");
    assert_eq!(site.get("/catalog/1", &[]).await.status, 401, "a cached answer needs a key as well");
    assert_eq!(site.get("/admin/users", &[KEY]).await.status, 403, "a client outside of the own network");
    for outcome in ["MISS", "HIT"] {
        assert_eq!(site.get("/catalog/2", &[KEY]).await.header("x-cache"), Some(outcome));
    }

    site.leaves_out_the_unhealthy("/v1/items").await;
    site.limits_the_rate("/v1/items", 50).await;
}

#[tokio::test]
async fn the_configuration_from_envoy_does_the_same() {
    let site = Site::start("migration-envoy.md").await;
    site.redirects_the_old_shop().await;
    assert_eq!(site.get("/api/items", &["user-agent: ExampleBot/1.0"]).await.status, 403);

    let response = site.get("/api/items", &["user-agent: Firefox/140.0"]).await;
    assert_eq!((response.status, response.header("x-powered-by")), (200, None), "{response:?}");
    let served = site.served_by(&response);
    assert_eq!((served.target.as_str(), served.header("x-site")), ("/items", Some("main")));
    assert_eq!(site.get("/elsewhere", &[]).await.status, 404, "no matching route");

    site.leaves_out_the_unhealthy("/api/items").await;
    site.limits_the_rate("/api/items", 20).await;
}

/// What share of requests goes to the canary is counted without a rate limit in the way.
#[tokio::test]
async fn the_canary_of_the_configuration_from_envoy_gets_its_share() {
    let site = Site::start("migration-envoy.md").await;
    let config = fs::read_to_string(site.proxy.config_path()).expect("it can be read");
    let config =
        config.replace("\"block-agents\", \"rate-limit\",", "").replace("share = 0.1", "share = 0.5");
    let config: String = config
        .split("\n\n")
        .filter(|table| !table.starts_with("[plugins.rate-limit]"))
        .map(|table| format!("{table}\n\n"))
        .collect();
    site.proxy.reload(&config).await.unwrap_or_else(|error| panic!("{error}"));
    let mut at_the_canary = 0;
    for _ in 0..64 {
        at_the_canary += usize::from(site.get("/api/items", &[]).await.text() == "three");
    }
    // Beyond these lies one in a hundred thousand.
    assert!((14..=50).contains(&at_the_canary), "{at_the_canary} of 64");
}
