//! What an operator sees and does, and who is none.

use std::time::Duration;

use tollgate_tests::{Answer, Client, Executable, Origin, Proxy, endpoints, guest, route_to, soon, until};

use crate::TOLLGATE;

/// An admin API on a free port.
const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"\n";

fn with_admin(origin: &Origin) -> String {
    ADMIN.to_owned() + &route_to(&[&origin.url()])
}

#[tokio::test]
async fn nothing_listens_without_the_table() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    assert!(proxy.server().admin().is_none());
    for path in ["/metrics", "/healthz", "/api/status"] {
        assert_eq!(proxy.get(path, &[]).await.text(), origin.port(), "it is for the origin");
    }
}

#[tokio::test]
async fn counts_are_exactly_what_was_sent() {
    let origin =
        Origin::answering(|received| Answer::ok(if received.target == "/x" { "four" } else { "" })).await;
    let config = format!(
        "{ADMIN}[upstreams.app]\nendpoints = {}\n[[routes]]\nname = \"x\"\nmatch = {{ path = \"/x\" }}\nupstream = \"app\"\n",
        endpoints(&[&origin])
    );
    let proxy = Proxy::start(&config).await;
    let mut client = proxy.connect().await;
    for _ in 0..25 {
        client.send("GET /x HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
    }
    for _ in 0..3 {
        client.send("POST /x HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\n12345").await;
        assert_eq!(client.response().await.status, 200);
    }
    assert_eq!(proxy.get("/nobody", &[]).await.status, 404);
    let mut bad = proxy.connect().await;
    bad.send("GET /x HTTP/1.1\r\nHost: test\r\nHost: test\r\n\r\n").await;
    assert_eq!(bad.response().await.status, 400);

    // A client may have the last byte before the worker has counted it.
    let mut metrics = proxy.metrics().await;
    while metrics.sum("tollgate_requests_total", &[]) < 29.0 {
        metrics = proxy.metrics().await;
    }
    assert_eq!(metrics.sum("tollgate_requests_total", &[("route", "x"), ("status", "2xx")]), 28.0);
    assert_eq!(metrics.sum("tollgate_requests_total", &[("route", ""), ("status", "4xx")]), 1.0);
    assert_eq!(metrics.sum("tollgate_requests_total", &[]), 29.0);
    assert_eq!(metrics.sum("tollgate_listener_requests_total", &[]), 29.0);
    assert_eq!(metrics.sum("tollgate_request_duration_seconds_count", &[("route", "x")]), 28.0);
    assert!(metrics.sum("tollgate_request_duration_seconds_sum", &[("route", "x")]) > 0.0);
    assert_eq!(metrics.sum("tollgate_request_body_bytes_total", &[("route", "x")]), 15.0);
    assert_eq!(metrics.sum("tollgate_response_body_bytes_total", &[("route", "x")]), 112.0);
    assert_eq!(metrics.sum("tollgate_responses_cut_total", &[]), 0.0);
    assert_eq!(metrics.sum("tollgate_refusals_total", &[("status", "404")]), 1.0);
    assert_eq!(metrics.sum("tollgate_refusals_total", &[("status", "400")]), 1.0);
    assert_eq!(metrics.sum("tollgate_refusals_total", &[]), 2.0);
    assert_eq!(metrics.sum("tollgate_connections_accepted_total", &[]), 3.0);
    let endpoint = origin.address.to_string();
    let labels = [("upstream", "app"), ("endpoint", &*endpoint)];
    assert_eq!(metrics.sum("tollgate_upstream_requests_total", &labels), 28.0);
    assert_eq!(metrics.sum("tollgate_upstream_duration_seconds_count", &labels), 28.0);
    assert_eq!(metrics.sum("tollgate_upstream_failures_total", &labels), 0.0);
}

#[tokio::test]
async fn connections_are_counted_while_they_are_open_and_when_they_are_too_many() {
    let origin = Origin::start().await;
    let listener = "[[listeners]]\naddress = \"127.0.0.1:0\"\nlimits = { connections = 2 }\n";
    let proxy = Proxy::start(&(with_admin(&origin) + listener)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
        held.push(client);
    }
    assert_eq!(proxy.get("/", &[]).await.status, 503);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("tollgate_connections_open", &[]), 2.0);
    assert_eq!(metrics.sum("tollgate_connections_accepted_total", &[]), 2.0);
    assert_eq!(metrics.sum("tollgate_connections_refused_total", &[]), 1.0);
    assert_eq!(metrics.sum("tollgate_refusals_total", &[("status", "503")]), 1.0);
    drop(held);
    let traffic = || proxy.server().traffic()[0].open;
    until("the connections have ended", || traffic() == 0).await;
    assert_eq!(proxy.metrics().await.sum("tollgate_connections_open", &[]), 0.0);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_counted() {
    let origin = Origin::start().await;
    let gone = { std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string() };
    let url = format!("http://{gone}");
    let once = route_to(&[&url]).replace("endpoints", "retry.attempts = 0\nendpoints");
    let proxy = Proxy::start(&(ADMIN.to_owned() + &once)).await;
    assert_eq!(proxy.get("/", &[]).await.status, 502);
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("tollgate_upstream_failures_total", &[("endpoint", &gone)]), 1.0);
    assert_eq!(metrics.sum("tollgate_refusals_total", &[("status", "502")]), 1.0);
    drop(origin);
}

#[tokio::test]
async fn calls_of_plugins_and_their_failures_are_counted_and_what_they_count() {
    let origin = Origin::start().await;
    let config = with_admin(&origin)
        + "plugins = [\"counted\"]\n[plugins.counted]\nfile = \"guest\"\nconfig = { request = \"obey\" }\nlimits = { time = \"10s\" }\n";
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    for _ in 0..5 {
        assert_eq!(proxy.get("/", &[]).await.status, 200);
    }
    assert_eq!(proxy.get("/", &["x-do: socket"]).await.status, 503);
    assert_eq!(proxy.get("/", &["x-do: metrics"]).await.status, 200);
    let metrics = proxy.metrics().await;
    let plugin = ("plugin", "counted");
    assert_eq!(metrics.sum("tollgate_plugin_calls_total", &[plugin, ("hook", "on-request")]), 7.0);
    assert_eq!(metrics.sum("tollgate_plugin_failures_total", &[plugin, ("kind", "trap")]), 1.0);
    assert_eq!(metrics.sum("tollgate_plugin_failures_total", &[plugin]), 1.0);
    assert_eq!(metrics.sum("tollgate_plugin_calls_total", &[plugin]), 13.0, "and six responses");
    assert_eq!(metrics.sum("tollgate_plugin_call_duration_seconds_count", &[plugin]), 13.0);
    let instances = metrics.sum("tollgate_plugin_instances", &[plugin]);
    assert!((1.0..=2.0).contains(&instances), "one for each worker at most, not {instances}");
    assert_eq!(metrics.sum("tollgate_plugin_custom_total", &[plugin, ("metric", "m0")]), 1.0);
}

#[tokio::test]
async fn what_was_counted_survives_a_reload() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&with_admin(&origin)).await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    let admin = proxy.admin_address();
    proxy
        .reload(&(with_admin(&origin) + "[upstreams.other]\nendpoints = [\"http://127.0.0.1:1\"]\n"))
        .await
        .unwrap();
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    assert_eq!(proxy.admin_address(), admin, "the address is taken over");
    let metrics = proxy.metrics().await;
    assert_eq!(metrics.sum("tollgate_requests_total", &[("route", "routes[0]")]), 2.0);
    assert_eq!(metrics.sum("tollgate_upstream_requests_total", &[("upstream", "app")]), 2.0);
    assert_eq!(metrics.sum("tollgate_connections_accepted_total", &[]), 2.0);
    assert_eq!(metrics.sum("tollgate_reloads_total", &[("outcome", "in-force")]), 1.0);
    assert_eq!(metrics.sum("tollgate_generation", &[]), 2.0);
}

#[tokio::test]
async fn openmetrics_is_for_who_asks_for_it() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&with_admin(&origin)).await;
    let plain = proxy.admin("GET", "/metrics", &[]).await;
    assert_eq!(plain.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2";
    let open = proxy.admin("GET", "/metrics", &[accept]).await;
    assert_eq!(
        open.header("content-type"),
        Some("application/openmetrics-text; version=1.0.0; charset=utf-8")
    );
    assert!(open.text().ends_with("\n# EOF\n"), "{}", open.text());
    assert!(open.text().contains("# TYPE tollgate_requests counter\n"), "{}", open.text());
    assert!(open.text().contains("\ntollgate_requests_total{"), "{}", open.text());
}

#[tokio::test]
async fn a_proxy_is_alive_and_ready_until_it_drains() {
    let origin = Origin::answering(|_| Answer::raw("").hang()).await;
    let proxy = Proxy::start(&with_admin(&origin)).await;
    assert_eq!(proxy.told("/healthz").await["status"], "alive");
    assert_eq!(proxy.told("/readyz").await["status"], "ready");
    let mut client = proxy.connect().await;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    origin.has_received(1).await;

    let server = proxy.server().clone();
    let stopping = tokio::spawn(async move { server.stop().await });
    until("the drain has started", || proxy.server().drain().has_started()).await;
    let response = proxy.admin("GET", "/readyz", &[]).await;
    assert_eq!((response.status, response.json()["detail"].as_str()), (503, Some("draining")));
    assert_eq!(proxy.admin("GET", "/healthz", &[]).await.status, 200);
    assert_eq!(proxy.metrics().await.sum("tollgate_draining", &[]), 1.0);
    drop((client, origin));
    stopping.await.expect("the proxy stops");
}

#[tokio::test]
async fn with_a_token_nobody_else_is_told_anything() {
    let origin = Origin::start().await;
    let config = format!("{ADMIN}token = \"s3cret\"\n{}", route_to(&[&origin.url()]));
    let proxy = Proxy::start(&config).await;
    for credentials in [&[] as &[&str], &["Authorization: Bearer wrong"], &["Authorization: Basic s3cret"]] {
        let response = proxy.admin("GET", "/metrics", credentials).await;
        assert_eq!(response.status, 401, "{credentials:?}");
        assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"tollgate\""));
        assert!(!response.text().contains("tollgate_requests"), "{response:?}");
    }
    assert_eq!(proxy.admin("GET", "/metrics", &["Authorization: Bearer s3cret"]).await.status, 200);
    assert_eq!(proxy.admin("GET", "/healthz", &[]).await.status, 200, "a probe has no token");

    proxy.reload(&config.replace("s3cret", "another")).await.unwrap();
    assert_eq!(proxy.admin("GET", "/metrics", &["Authorization: Bearer s3cret"]).await.status, 401);
    assert_eq!(proxy.admin("GET", "/metrics", &["Authorization: Bearer another"]).await.status, 200);
}

#[tokio::test]
async fn a_name_that_was_rebound_is_not_answered() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&with_admin(&origin)).await;
    let mut client = Client::connect(proxy.admin_address()).await;
    client.send("GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n").await;
    let response = client.response().await;
    assert_eq!(response.status, 421);
    assert_eq!(response.header("content-type"), Some("application/problem+json"));
}

#[tokio::test]
async fn an_address_that_others_reach_needs_a_token() {
    let origin = Origin::start().await;
    let config = format!("[admin]\naddress = \"0.0.0.0:0\"\n{}", route_to(&[&origin.url()]));
    let error = Proxy::try_start_with(&config, &[]).await.err().expect("it does not start").to_string();
    assert!(error.contains("the admin API can be reached from other machines"), "{error}");
    assert!(error.contains("help: add token = "), "{error}");
    let proxy = Proxy::start(&config.replace(":0\"\n", ":0\"\ntoken = \"t\"\n")).await;
    assert_eq!(proxy.admin_address().ip().to_string(), "0.0.0.0");
}

#[tokio::test]
async fn the_api_moves_with_the_configuration() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&route_to(&[&origin.url()])).await;
    proxy.reload(&with_admin(&origin)).await.unwrap();
    assert_eq!(proxy.told("/api/status").await["generation"], 2);
    let address = proxy.admin_address();
    proxy.reload(&route_to(&[&origin.url()])).await.unwrap();
    until("nothing listens any more", || std::net::TcpStream::connect(address).is_err()).await;
}

#[tokio::test]
async fn status_tells_what_runs_and_what_came_of_the_last_reload() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&with_admin(&origin)).await;
    let status = proxy.told("/api/status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!((&status["generation"], &status["workers"]), (&1.into(), &2.into()));
    assert!(status["last-reload"].is_null(), "{status}");
    assert_eq!(status["listeners"][0]["address"], proxy.address().to_string());
    proxy.reload("nonsense").await.unwrap_err();
    let reload = &proxy.told("/api/status").await["last-reload"];
    assert_eq!(reload["outcome"], "refused");
    assert!(reload["reason"].as_str().is_some_and(|reason| reason.contains("config.toml:")), "{reload}");
    proxy.reload(&with_admin(&origin)).await.unwrap();
    let reload = &proxy.told("/api/status").await["last-reload"];
    assert_eq!((&reload["outcome"], &reload["generation"]), (&"in-force".into(), &2.into()));
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_document() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&with_admin(&origin)).await;
    for (method, path, status) in
        [("GET", "/nothing", 404), ("POST", "/metrics", 405), ("DELETE", "/api/status", 405)]
    {
        let response = proxy.admin(method, path, &[]).await;
        assert_eq!(response.status, status, "{method} {path}");
        assert_eq!(response.header("content-type"), Some("application/problem+json"), "{method} {path}");
        assert_eq!(response.json()["status"], status);
    }
}

#[tokio::test]
async fn upstreams_tell_what_is_known_of_each_endpoint() {
    let origins = [Origin::start().await, Origin::start().await];
    let url = origins[0].url();
    let config = format!(
        "{ADMIN}[upstreams.app]\nendpoints = [{{ url = \"{url}\", weight = 3, tags = {{ zone = \"a\" }} }}]\n\
         [[routes]]\nupstream = \"app\"\n[upstreams.idle]\nendpoints = [\"{}\"]\nbalance = \"round-robin\"\n",
        origins[1].url()
    );
    let proxy = Proxy::start(&config).await;
    for _ in 0..10 {
        assert_eq!(proxy.get("/", &[]).await.status, 200);
    }
    let told = proxy.told("/api/upstreams").await;
    let app = &told["upstreams"][0];
    assert_eq!((&app["name"], &app["is-usable"]), (&"app".into(), &true.into()));
    let endpoint = &app["endpoints"][0];
    assert_eq!(endpoint["address"], origins[0].address.to_string());
    assert_eq!((&endpoint["weight"], &endpoint["tags"]["zone"]), (&3.into(), &"a".into()));
    assert_eq!((&endpoint["state"], &endpoint["requests"]), (&"healthy".into(), &10.into()));
    assert_eq!((&endpoint["failures"], &endpoint["share"]), (&0.into(), &1.0.into()));
    let [p50, p99] = ["p50-ms", "p99-ms"].map(|key| endpoint[key].as_f64().expect("it is known"));
    assert!(0.0 < p50 && p50 <= p99, "{p50} {p99}");
    let idle = &told["upstreams"][1];
    assert_eq!(idle["balance"][0], "round-robin");
    assert!(idle["endpoints"][0]["p50-ms"].is_null(), "{idle}");
}

#[tokio::test]
async fn plugins_tell_what_is_in_force_and_why_what_is_newer_is_not() {
    let origin = Origin::start().await;
    let config = with_admin(&origin) + "plugins = [\"seen\"]\n[plugins.seen]\nfile = \"guest\"\n";
    let proxy = Proxy::start_with(&config, &[("guest", guest())]).await;
    assert_eq!(proxy.get("/", &[]).await.status, 200);
    proxy.drop_plugin("guest", b"not a component");
    proxy.drop_plugin("stray", b"nor this");
    proxy.reload_files().await.expect("the rest is well");
    let told = proxy.told("/api/plugins").await;
    let plugin = &told["plugins"][0];
    assert_eq!((&plugin["name"], &plugin["fail"]), (&"seen".into(), &"closed".into()));
    assert_eq!(plugin["digest"].as_str().map(str::len), Some(64));
    assert!(plugin["origin"].as_str().is_some_and(|origin| origin.ends_with("guest.wasm")), "{plugin}");
    assert_eq!(plugin["last-load"]["outcome"], "refused");
    assert!(
        plugin["last-load"]["reason"].as_str().is_some_and(|reason| reason.contains("not a WebAssembly"))
    );
    assert_eq!(plugin["calls"]["on-request"], 1);
    // Nothing needs it, so that it is looked at when the rest is in force.
    soon("the stray file to be looked at", async {
        while proxy.told("/api/plugins").await["not-loaded"][0]["name"] != "stray" {}
    })
    .await;

    proxy.drop_plugin("guest", &guest());
    proxy.reload_files().await.expect("all is well");
    assert_eq!(proxy.told("/api/plugins").await["plugins"][0]["last-load"]["outcome"], "in-force");
}

#[tokio::test]
async fn the_configuration_is_shown_without_its_secrets() {
    let origin = Origin::start().await;
    let config = with_admin(&origin).replace("[upstreams", "token = \"hunter2\"\n[upstreams")
        + "plugins = [\"api-key\"]\n[plugins.api-key]\nconfig = { keys = { demo = \"hunter2\" } }\n";
    let proxy = Proxy::start(&config).await;
    let response = proxy.admin("GET", "/api/config", &["Authorization: Bearer hunter2"]).await;
    assert!(!response.text().contains("hunter2"), "{}", response.text());
    let shown = response.json();
    assert_eq!(shown["config"]["admin"]["address"], "127.0.0.1:0");
    assert_eq!(shown["config"]["routes"][0]["plugins"][0], "api-key");
    assert_eq!(shown["generation"], 1);
}

#[tokio::test]
async fn a_reload_answers_with_what_came_of_it() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&with_admin(&origin)).await;
    let response = proxy.admin("POST", "/api/reload", &[]).await;
    assert_eq!((response.status, &response.json()["generation"]), (200, &2.into()));

    proxy.write_config(&(with_admin(&origin) + "colour = \"red\"\nplugins = [1]\n"));
    let response = proxy.admin("POST", "/api/reload", &[]).await;
    assert_eq!(response.status, 422, "{response:?}");
    let problems = response.json()["problems"].as_array().cloned().expect("there are some");
    let text = std::fs::read_to_string(proxy.config_path()).unwrap();
    let line = text.lines().position(|line| line.starts_with("colour")).expect("it is there") + 1;
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert_eq!(
        (&problems[0]["message"], &problems[0]["line"]),
        (&"unknown key `colour`".into(), &line.into())
    );
    assert_eq!((&problems[0]["column"], &problems[1]["column"]), (&1.into(), &12.into()));
    assert_eq!(proxy.told("/api/status").await["generation"], 2);
    assert_eq!(proxy.metrics().await.sum("tollgate_reloads_total", &[("outcome", "refused")]), 1.0);

    for line in ["Origin: https://evil.example", "Sec-Fetch-Site: cross-site"] {
        assert_eq!(proxy.admin("POST", "/api/reload", &[line]).await.status, 403, "{line}");
    }
    assert_eq!(proxy.admin("GET", "/api/reload", &[]).await.status, 405);
}

#[tokio::test]
async fn half_sent_requests_do_not_keep_a_probe_out() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&with_admin(&origin)).await;
    let mut held = Vec::new();
    for half in [
        "GET /healthz HTTP/1.1\r\nHost: loc",
        "",
        "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
        "POST /api/explain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{",
    ] {
        for _ in 0..150 {
            let mut client = Client::connect(proxy.admin_address()).await;
            client.send(half).await;
            held.push(client);
        }
        for path in ["/healthz", "/readyz"] {
            let asked = tokio::time::timeout(Duration::from_secs(5), proxy.admin("GET", path, &[])).await;
            assert_eq!(asked.expect("a probe is answered").status, 200, "{half:?}");
        }
    }
    drop(held);
    soon("the API has room again", async {
        while proxy.admin("GET", "/api/status", &[]).await.status != 200 {}
    })
    .await;
}

#[tokio::test]
async fn an_endpoint_that_registers_is_where_the_configuration_allows_it() {
    let origin = Origin::start().await;
    let config = |register: &str| {
        format!(
            "{ADMIN}[upstreams.app]\nendpoints = [\"{}\"]\nregister = {register}\n[[routes]]\nupstream = \"app\"\n",
            origin.url()
        )
    };
    let proxy = Proxy::start(&config("true")).await;
    let path = |address: &str| format!("/api/upstreams/app/endpoints/{address}");
    let register = async |address: &str| proxy.admin("PUT", &path(address), &[]).await;
    let admin = proxy.admin_address().to_string();
    for address in
        ["169.254.169.254:80", "127.0.0.1:8001", "10.0.0.1:80", "[::1]:80", "[fd00:ec2::254]:80", &admin]
    {
        let response = register(address).await;
        assert_eq!(response.status, 403, "{address}");
        let detail = response.json()["detail"].to_string();
        assert!(detail.contains("register = { networks = "), "{detail}");
    }
    assert_eq!(register("203.0.114.1:80").await.status, 200, "anybody can reach it");

    proxy.reload(&config("{ networks = [\"127.0.0.0/8\"] }")).await.unwrap();
    assert_eq!(register("127.0.0.1:8001").await.status, 200);
    assert_eq!(register("169.254.169.254:80").await.status, 403);
    let response = register(&admin).await;
    assert_eq!(response.status, 403, "the admin API is never reached by way of the proxy");
    // By a name, which is looked at when a connection is made.
    assert_eq!(register(&format!("localhost:{}", proxy.admin_address().port())).await.status, 200);

    // One that the configuration names is not there to be taken out.
    let response = proxy.admin("DELETE", &path(&origin.address.to_string()), &[]).await;
    assert_eq!(response.status, 409);
    assert!(response.json()["detail"].to_string().contains("stands in the configuration"));
    assert_eq!(proxy.admin("DELETE", &path("127.0.0.1:8002"), &[]).await.status, 404);
}

#[tokio::test]
async fn a_registered_name_does_not_lead_to_the_admin_api() {
    let config = format!(
        "{ADMIN}[upstreams.app]\nregister = {{ networks = [\"127.0.0.0/8\", \"::1\"] }}\nretry.attempts = 0\n\
         [[routes]]\nupstream = \"app\"\n"
    );
    let proxy = Proxy::start(&config).await;
    let address = format!("localhost:{}", proxy.admin_address().port());
    let registered = proxy.admin("PUT", &format!("/api/upstreams/app/endpoints/{address}"), &[]).await;
    assert_eq!(registered.status, 200);
    assert_eq!(proxy.get("/healthz", &[]).await.status, 502);
}

#[tokio::test]
async fn the_page_lets_nothing_run_but_its_own_script() {
    let origin = Origin::start().await;
    let proxy = Proxy::start(&with_admin(&origin)).await;
    let page = proxy.admin("GET", "/", &[]).await;
    assert_eq!(page.status, 200);
    let policy = page.header("content-security-policy").expect("there is a policy");
    assert!(policy.starts_with("default-src 'none'; script-src 'nonce-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).expect("a nonce");
    assert_eq!(page.text().matches(&format!("nonce=\"{nonce}\"")).count(), 2, "the script and the style");
    assert!(!page.text().contains("http://") && !page.text().contains("https://"), "nothing from elsewhere");
    let again = proxy.admin("GET", "/", &[]).await;
    assert_ne!(again.header("content-security-policy"), Some(policy), "a nonce is used once");
}

#[tokio::test]
async fn the_executable_drains_when_the_api_is_asked_to_and_top_shows_it_before() {
    let origin = Origin::start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = with_admin(&origin) + "[[listeners]]\naddress = \"127.0.0.1:0\"\n";
    std::fs::write(folder.path().join("config.toml"), config).unwrap();
    let mut proxy = Executable::start(TOLLGATE, folder.path(), &["run", "--log-format", "json"]);
    let address = proxy.address().await;
    let line: serde_json::Value = serde_json::from_str(&proxy.line(&["admin API listening"]).await).unwrap();
    let admin = line["address"].as_str().expect("it says where").to_owned();
    for _ in 0..4 {
        let mut client = Client::connect(address).await;
        client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
        assert_eq!(client.response().await.status, 200);
    }

    let url = format!("http://{admin}");
    let mut top = Executable::start(TOLLGATE, folder.path(), &["top", "--once", "--admin", &url]);
    let (status, printed, errors) = top.end().await;
    assert!(status.success(), "{errors}");
    let of =
        |word: &str| printed.lines().find(|line| line.contains(word)).map(str::to_owned).unwrap_or_default();
    let words = |line: String| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(words(of(&address.to_string()))[4], "4", "{printed}");
    let endpoint = words(of(&origin.address.to_string()));
    assert_eq!((&*endpoint[0], &*endpoint[2]), ("app", "healthy"), "{printed}");

    // A port on which something else answers is told from an empty proxy.
    let other = Origin::answering(|_| Answer::ok("{}")).await;
    for wrong in [other.url(), format!("http://{address}")] {
        for command in [&["top", "--once"][..], &["explain", "GET", "http://test/"]] {
            let arguments = [command, &["--admin", &wrong]].concat();
            let (status, printed, errors) =
                Executable::start(TOLLGATE, folder.path(), &arguments).end().await;
            assert_eq!((status.code(), &*printed), (Some(1), ""), "{arguments:?}: {errors}");
            assert!(errors.contains("`--admin` says where the admin API is"), "{arguments:?}: {errors}");
        }
    }

    // The environment says where for all commands of a shell; what stands in the command counts more.
    let environment = &[("TOLLGATE_ADMIN", &*url)];
    let mut top = Executable::start_with(TOLLGATE, folder.path(), &["top", "--once"], environment);
    let (status, printed, errors) = top.end().await;
    assert!(status.success() && printed.contains(&address.to_string()), "{errors}");
    let elsewhere = ["plugin", "rollback", "none", "--admin", "http://127.0.0.1:1"];
    let (status, _, errors) =
        Executable::start_with(TOLLGATE, folder.path(), &elsewhere, environment).end().await;
    assert!(!status.success() && errors.contains("cannot ask the admin API on 127.0.0.1:1"), "{errors}");
    let here = ["plugin", "rollback", "none"];
    let (status, _, errors) = Executable::start_with(TOLLGATE, folder.path(), &here, environment).end().await;
    assert!(
        !status.success() && errors.contains(&format!("cannot ask the admin API on {admin}")),
        "{errors}"
    );

    let mut client = Client::connect(admin.parse().unwrap()).await;
    client.send("POST /api/drain HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(client.response().await.status, 202);
    let (status, _, errors) = proxy.end().await;
    assert!(status.success(), "{errors}");

    let mut top = Executable::start(TOLLGATE, folder.path(), &["top", "--once", "--admin", &url]);
    let (status, printed, errors) = top.end().await;
    assert_eq!(status.code(), Some(1));
    assert!(
        printed.is_empty() && errors.contains(&format!("cannot ask the admin API on {admin}")),
        "{errors}"
    );
}
