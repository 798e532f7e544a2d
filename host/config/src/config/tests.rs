#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use http::Method;
use proptest::prelude::*;

use super::{
    Compress, Config, Duration, Encoding, Failure, HostPattern, Levels, Problem, ProblemKind, Problems,
    Query, RouteCache, SecretSource, Source, StoreGrant, Ttl, read, read_text,
};

/// Every key once, and variables in most places.
const GOOD: &str = r#"
plugin-dir = "${FOLDER}/plugins"
artifact-dir = "/var/cache/tollgate"
plugin-keys = ["11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="]
workers = 4
drain-timeout = "1m 30s"
drain-delay = "5s"

[log]
access = false

[admin]
address = "127.0.0.1:9901"
token = "${SECRET}"

[limits]
connections = 1_000
plugin-size = "1MiB"
plugin-compile = "10s"
plugin-compile-memory = "1GiB"
plugin-start = "5s"

[[listeners]]
address = "127.0.0.1:${PORT:-8080}"
trusted-proxies = ["10.0.0.0/8", "192.168.0.1", "::1"]
proxy-protocol = true
underscores-in-headers = "forward"
tls = { certificates = [{ certificate = "${FOLDER}/a.pem", key = "a.key", ocsp = "a.ocsp" }], self-signed = ["LOCALHOST", "::1"], client-ca = "clients.pem", client-auth = "optional", forward-client-certificate = "chain", min-version = "1.3" }
redirect-to-https = { port = 8443, status = 301 }
hsts = { max-age = "365d", include-subdomains = true, preload = true }
limits = { connections = 10, connections-per-address = 5, ipv6-prefix = 56, request-line = "4KiB", headers = "16KiB", header-count = 50, body = "1MiB" }
timeouts = { handshake = "2s", header = "5s", body = "250ms", write = "10s", idle = "1m" }
min-rates = { body = "1KiB", write = "0B", window = "5s" }

[upstreams.app]
discover = { dns = { name = "_http._tcp.app", port = 80, servers = ["10.0.0.2", "[::1]:5353"], ttl-min = "5s", ttl-max = "1m" }, etcd = { servers = ["https://etcd:2379"], prefix = "/app/", user = "u", password = "${ZONE:-p}" }, consul = { servers = ["http://consul:8500"], service = "app", datacenter = "d", tag = "t", token = "${ZONE:-t}" }, tls = { ca = "internal.pem" }, file = "endpoints.toml", https = true, may-be-empty = true }
register = true
proxy-protocol = true
endpoints = ["http://10.0.0.1:8001", { url = "http://${HOST}", weight = 3, tags = { zone = "${ZONE:-ä}" } }]
balance = "round-robin"
panic-threshold = 0.5
required-for-ready = false
slow-start = "30s"
health = { protocol = "http", path = "/healthz?full", method = "HEAD", host = "app.internal", headers = { X-Token = "${ZONE:-t}" }, statuses = [204, "300-399"], service = "a.B", body = "ok", interval = "2s", timeout = "1s", unhealthy-after = 2, healthy-after = 3 }
load = { path = "/load", pointer = "/cpu", interval = "2s", timeout = "1s" }
retry = { attempts = 3, on = [502, 503], backoff = "10ms", backoff-max = "100ms", budget = 0.1, body = "1KiB", timeout = "3s" }
limits = { requests = 1024, endpoint-requests = 10, adaptive = true, queue = 0, queue-timeout = "2s", connections = 256, headers = "64KiB", header-count = 200 }
outlier = { consecutive-failures = 3, consecutive-errors = 5, failure-rate = 0.2, error-rate = 0.5, latency-factor = 3, interval = "5s", min-requests = 10, eject = "5s", eject-max = "1m", share-max = 1 }
tls = { ca = "internal.pem", roots = "mozilla", server-name = "app.internal", verify = "ca", certificate = "proxy.pem", key = "proxy.key" }
timeouts = { connect = "1s", response = "30s", body = "30s", tunnel = "1h", idle = "60s" }

[[routes]]
name = "öffentlich"
match = { host = "*.Example.com", path = "/v1/", methods = ["GET"], headers = { X-Beta = "1" } }
upstream = "app"
plugins = ["api-key"]
shadow = "api-key@next.wasm"
repeatable = true
upgrades = ["websocket", "Echo/1"]
compress = { encodings = ["gzip"], minimum = "2KiB", types = ["text/*"], levels = { gzip = 1, deflate = 9, br = 0, zstd = 19 }, decode = { ratio = 1, size = "1MiB" } }
cache = { ttl = { default = "5m", 404 = "10s" }, force-ttl = "1m", stale-while-revalidate = "30s", stale-if-error = "1h", query = { only = ["page"] }, key-headers = ["X-A"], key-cookies = ["lang"], response-hooks = "once", request-directives = "ignore", store-cookies = true, methods = ["POST"], key-body = "1KiB" }

[cache]
disk = { path = "stored", size = "10GiB" }
entries = 100
memory = "1MiB"
max-object = "64KiB"
wait = "1s"
waiters = 10

[plugins.api-key]
file = "api-key.wasm"
config = { header = "x-api-key", keys = [{ name = "demo", key = "${KEY}" }], since = 2024-05-01 }
fail = "open"
isolation = "request"
yields = true
limits = { time = "5ms", memory = "64MiB", recycle-after = 1000, wait = "2s", instances = 4, memory-in-all = "1GiB", unsent = "1MiB", log-rate = "1KiB" }
breaker = { failures = 3, pause = "1s", pause-max = "5s" }
grants.store = { memory = "1MiB", entries = 10 }
grants.secrets = { token = { env = "TOKEN" }, key = { file = "key.pem" } }
grants.upstreams = ["app"]
routes = "all"
canary = { weight = 0.25, for = "1h", requests = 1000, tolerance = 0.01 }
sha256 = "0000000000000000000000000000000000000000000000000000000000000000"
public-key = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="
signature = "5VZDAMNgrHKQhuLMgG6CioSHfx645dl02HPgZSJJAVVfuIIVkKM7rMYeOXAc+bRr0lv18FlbviRlUUFDjnoQCw=="
"#;

fn environment(name: &str) -> Option<String> {
    let value = match name {
        "FOLDER" => "/srv",
        "HOST" => "app.internal:81",
        "KEY" => "\"]\n[[x]] ${PORT} $$",
        "EMPTY" => "",
        "SECRET" => "hunter2",
        _ => return None,
    };
    Some(value.to_owned())
}

fn text(text: &str) -> Result<(Config, Source), Problems> {
    read_text(Path::new("config.toml"), text.to_owned(), &environment)
}

fn config(written: &str) -> Config {
    text(written).unwrap_or_else(|problems| panic!("{problems}")).0
}

/// What is underlined, the message and the help of each problem.
fn problems(written: &str) -> Vec<(String, String, String)> {
    let problems = text(written).expect_err("the text has problems");
    let tell = |problem: &Problem| {
        let place = problem.span.clone().map_or_else(String::new, |span| written[span].to_owned());
        (place, problem.message.clone(), problem.help.clone().unwrap_or_default())
    };
    problems.iter().map(tell).collect()
}

fn messages(written: &str) -> Vec<String> {
    problems(written).into_iter().map(|(_, message, _)| message).collect()
}

#[track_caller]
fn has_one_problem(written: &str, place: &str, message: &str, help: &str) {
    assert_eq!(problems(written), [(place.to_owned(), message.to_owned(), help.to_owned())], "{written}");
}

#[test]
fn what_is_written_is_what_is_read() {
    let config = config(GOOD);
    assert_eq!(config.plugin_dir, Path::new("/srv/plugins"));
    assert_eq!(config.workers.map(usize::from), Some(4));
    assert_eq!(config.drain_timeout.get().as_secs(), 90);
    assert_eq!(config.drain_delay.map(|delay| delay.get().as_secs()), Some(5));
    assert!(!config.log.access);

    let admin = config.admin.as_ref().unwrap().get_ref();
    assert_eq!(admin.address, "127.0.0.1:9901".parse().unwrap());
    assert_eq!(admin.token.as_ref().unwrap().as_bytes(), b"hunter2");
    assert!(!format!("{admin:?}").contains("hunter2"));

    let listener = config.listeners[0].get_ref();
    assert_eq!(listener.address, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(listener.limits.request_line.get(), 4096);
    assert_eq!(listener.timeouts.body.get().as_millis(), 250);
    assert_eq!(listener.limits.connections_per_address.map(u32::from), Some(5));
    assert_eq!((listener.limits.ipv6_prefix, listener.min_rates.body.get()), (56, 1024));
    let tls = listener.tls.as_ref().unwrap().get_ref();
    let files: Vec<_> = tls.files().map(|path| path.to_str().unwrap()).collect();
    assert_eq!(files, ["/srv/a.pem", "a.key", "a.ocsp", "clients.pem"]);
    let names: Vec<_> = tls.self_signed.iter().map(|name| name.get_ref().to_string()).collect();
    assert_eq!(names, ["localhost", "::1"]);
    let hsts = listener.hsts.as_ref().unwrap().get_ref();
    assert_eq!(hsts.max_age.get().as_secs(), 365 * 24 * 60 * 60);
    let redirect = listener.redirect_to_https.as_ref().unwrap().get_ref();
    assert_eq!((redirect.port.get(), redirect.status.as_u16()), (8443, 301));
    let networks: Vec<String> = listener.trusted_proxies.networks.iter().map(ToString::to_string).collect();
    assert_eq!(networks, ["10.0.0.0/8", "192.168.0.1/32", "::1/128"]);

    let endpoints = &config.upstreams["app"].endpoints;
    assert_eq!((endpoints[0].authority.as_str(), endpoints[0].weight), ("10.0.0.1:8001", 1));
    assert_eq!((endpoints[1].authority.as_str(), endpoints[1].weight), ("app.internal:81", 3));
    assert_eq!(endpoints[1].tags["zone"], "ä");

    let upstream = &config.upstreams["app"];
    let health = upstream.health.as_ref().unwrap();
    assert_eq!((health.path.as_str(), health.method.as_str()), ("/healthz?full", "HEAD"));
    assert_eq!(
        health.headers.iter().map(|(name, value)| (name.get(), value.to_str().unwrap())).next(),
        Some((http::HeaderName::from_static("x-token"), "t"))
    );
    let passes = |status: u16| {
        health.statuses.iter().any(|one| one.contains(http::StatusCode::from_u16(status).unwrap()))
    };
    assert_eq!([200, 204, 299, 300, 399, 400].map(passes), [false, true, false, true, true, false]);
    assert_eq!(upstream.retry.on, [http::StatusCode::BAD_GATEWAY, http::StatusCode::SERVICE_UNAVAILABLE]);
    assert_eq!((upstream.outlier.latency_factor, upstream.outlier.share_max.get()), (Some(3.0), 1.0));

    let route = config.routes[0].get_ref();
    assert_eq!(route.matches.host, Some(HostPattern::Below("example.com".to_owned())));
    assert_eq!(route.matches.methods, [Method::GET]);
    assert_eq!(route.matches.headers["x-beta"], "1");
    let compress = route.compress.as_ref().unwrap();
    assert_eq!((&compress.encodings[..], compress.minimum.get()), (&[Encoding::Gzip][..], 2048));
    assert_eq!(compress.levels, Levels { gzip: 1, deflate: 9, br: 0, zstd: 19 });
    assert_eq!((compress.decode.ratio.get(), compress.decode.size.get()), (1, 1 << 20));

    let plugin = &config.plugins["api-key"];
    assert_eq!(plugin.fail, Failure::Open);
    assert_eq!(plugin.config["since"].as_str(), Some("2024-05-01"));
}

#[test]
fn what_is_read_is_what_toml_reads() {
    let mut written =
        GOOD.replace("${HOST}", "app.internal:81").replace("since = 2024-05-01", "since = '2024-05-01'");
    for (variable, value) in
        [("${FOLDER}", "/srv"), ("${PORT:-8080}", "8080"), ("${KEY}", "key"), ("${SECRET}", "s")]
    {
        written = written.replace(variable, value);
    }
    let written = written.replace("${ZONE:-", "").replace("p}", "p").replace("t}", "t").replace("ä}", "ä");
    assert!(!written.contains("${"), "{written}");
    assert_eq!(config(&written), toml::from_str(&written).unwrap());
}

#[test]
fn a_number_beyond_those_of_its_type_is_refused_whatever_the_type() {
    let up_to = "expected a whole number up to 9223372036854775807";
    for (written, place, message) in [
        ("plugins.a.config.a = 0xffffffffffffffff", "0xffffffffffffffff", up_to),
        ("plugins.a.config.a = -9999999999999999999", "-9999999999999999999", up_to),
        ("plugins.a.config.a = 1e999", "1e999", "this number is too large"),
    ] {
        has_one_problem(written, place, message, "");
    }
    let numbers =
        config("plugins.a.config = { a = -9223372036854775808, b = 9223372036854775807, c = inf, d = 0x1f }");
    let numbers = &numbers.plugins["a"].config;
    assert_eq!((numbers["a"].as_integer(), numbers["b"].as_integer()), (Some(i64::MIN), Some(i64::MAX)));
    assert_eq!((numbers["c"].as_float(), numbers["d"].as_integer()), (Some(f64::INFINITY), Some(31)));
}

#[test]
fn a_problem_says_which_key_is_unknown() {
    let problems = text("[plugins.a]\nfial = 'open'\nfile = 1\n").unwrap_err();
    let kinds: Vec<_> = problems.iter().map(|problem| problem.kind.clone()).collect();
    assert_eq!(kinds, [ProblemKind::UnknownKey("fial".to_owned()), ProblemKind::Other]);
}

#[test]
fn an_empty_file_is_a_configuration() {
    let config = config("");
    assert_eq!(config.plugin_dir, Path::new("plugins"));
    assert!(config.log.access && config.listeners.is_empty() && config.routes.is_empty());
}

#[test]
fn compression_is_asked_for_in_one_word_or_in_many() {
    let compress = |written: &str| {
        let config = config(&format!("[[routes]]\nupstream = \"app\"\n{written}"));
        config.routes[0].get_ref().compress.clone()
    };
    assert_eq!(compress(""), None);
    assert_eq!(compress("compress = false"), None);
    assert_eq!(compress("compress = true"), Some(Compress::default()));
    assert_eq!(compress("compress = {}"), Some(Compress::default()));
    assert_eq!(compress("compress.encodings = []").unwrap().encodings, []);

    let route = |written: &str| format!("[[routes]]\nupstream = \"app\"\ncompress = {written}");
    for (written, place, message) in [
        ("1", "1", "expected true, false or a table, found a whole number"),
        ("\"on\"", "\"on\"", "expected true, false or a table, found a string"),
        ("{ levels = { gzip = 10 } }", "10", "expected a whole number from 1 to 9"),
        ("{ levels = { br = -1 } }", "-1", "expected a whole number from 0 to 11"),
        ("{ levels = { zstd = \"a\" } }", "\"a\"", "expected a whole number from 1 to 19, found a string"),
        ("{ levels = [1] }", "[1]", "expected a table, found an array"),
        (
            "{ types = [\"html\"] }",
            "\"html\"",
            "expected a content type, such as \"text/html\", \"text/*\" or \"*+json\"",
        ),
        ("{ encodings = [\"lzma\"] }", "\"lzma\"", "expected `gzip` or `deflate` or `br` or `zstd`"),
        ("{ decode = { ratio = 0 } }", "0", "expected a whole number from 1 to 4294967295"),
    ] {
        let written = route(written);
        let found = problems(&written);
        assert_eq!(found.len(), 1, "{written}: {found:?}");
        assert_eq!((found[0].0.as_str(), found[0].1.as_str()), (place, message), "{written}");
    }
    has_one_problem(&route("{ level = 1 }"), "level", "unknown key `level`", "did you mean `levels`?");
}

#[test]
fn a_grant_is_written_short_or_with_its_measure() {
    let store =
        |written: &str| config(&format!("[plugins.a.grants]\n{written}")).plugins["a"].grants.store.clone();
    assert_eq!(store(""), None);
    assert_eq!(store("store = false"), None);
    assert_eq!(store("store = true"), Some(StoreGrant::default()));
    let measured = StoreGrant { memory: super::ByteSize::mib(1), ..StoreGrant::default() };
    assert_eq!(store("store = { memory = '1MiB' }"), Some(measured));
    let secrets = &config(GOOD).plugins["api-key"].grants.secrets;
    assert_eq!(secrets["token"].get_ref(), &SecretSource::Env("TOKEN".to_owned()));
    assert_eq!(secrets["key"].get_ref(), &SecretSource::File("key.pem".into()));
    for (written, place, message) in [
        ("store = 1", "1", "expected true, or a table such as { memory = \"16MiB\" }, found a whole number"),
        ("store = { memorry = '1MiB' }", "memorry", "unknown key `memorry`"),
        ("htpp = []", "htpp", "unknown key `htpp`"),
        ("body = 1", "1", "expected true, or a table such as { request = \"1MiB\" }, found a whole number"),
        (
            "http = ['https://a/b']",
            "'https://a/b'",
            "an endpoint is a scheme, a host and a port, without a path",
        ),
        (
            "http = ['a']",
            "'a'",
            "an endpoint is reached by HTTP: write \"http://host:port\" or \"https://host:port\"",
        ),
        ("http = [{ url = 'http://a', privat = true }]", "privat", "unknown key `privat`"),
        ("secrets = { a = { envv = 'A' } }", "envv", "unknown key `envv`"),
        (
            "secrets = { a = 'A' }",
            "'A'",
            "expected { env = \"VARIABLE\" } or { file = \"path\" }, found a string",
        ),
        ("secrets = { a = {} }", "{}", "a secret is either { env = \"VARIABLE\" } or { file = \"path\" }"),
    ] {
        let written = format!("[plugins.a.grants]\n{written}");
        let found = problems(&written);
        assert!(
            found.iter().any(|(at, said, _)| (at.as_str(), said.as_str()) == (place, message)),
            "{found:?}"
        );
    }
}

#[test]
fn a_canary_is_a_weight_or_a_table() {
    let canary = |written: &str| config(&format!("[plugins.a]\n{written}")).plugins["a"].canary.clone();
    assert_eq!(canary(""), None);
    let short = canary("canary = 0.1").unwrap();
    assert_eq!((short.weight.get(), short.time.get().as_secs(), short.tolerance.get()), (0.1, 300, 0.005));
    assert_eq!(canary("canary = { weight = 0.1 }"), Some(short));
    let whole = config(GOOD).plugins["api-key"].canary.clone().unwrap();
    assert_eq!((whole.weight.get(), whole.time.get().as_secs(), whole.requests.get()), (0.25, 3600, 1000));
    for (written, place, message) in [
        ("true", "true", "expected a weight such as 0.1, or a table with `weight`, found true or false"),
        ("0", "0", "the new version is compared with the one in force: a weight between 0 and 1"),
        ("1.0", "1.0", "the new version is compared with the one in force: a weight between 0 and 1"),
        ("{ for = '5m' }", "{ for = '5m' }", "the key `weight` is missing"),
        ("{ weight = 0.1, form = '5m' }", "form", "unknown key `form`"),
        ("{ weight = 0.1, requests = 0 }", "0", "expected a whole number from 1 to 4294967295"),
    ] {
        let found = problems(&format!("[plugins.a]\ncanary = {written}"));
        let is_it =
            |(at, said, _): &(String, String, String)| (at.as_str(), said.as_str()) == (place, message);
        assert!(found.iter().any(is_it), "{written}: {found:?}");
    }
}

#[test]
fn names_keep_their_place_in_the_source() {
    let (config, source) = text(GOOD).unwrap();
    let at = |span: std::ops::Range<usize>| &source.text[span];
    assert_eq!(at(config.listeners[0].span()), "[[listeners]]");
    assert_eq!(at(config.upstreams.keys().next().unwrap().span()), "app");
    assert_eq!(at(config.plugins.keys().next().unwrap().span()), "api-key");
    assert_eq!(at(config.routes[0].span()), "[[routes]]");
    let route = config.routes[0].get_ref();
    assert_eq!(at(route.upstream.span()), "\"app\"");
    assert_eq!(at(route.plugins[0].span()), "\"api-key\"");
    assert_eq!(at(route.matches.path.as_ref().unwrap().span()), "\"/v1/\"");
    assert_eq!(at(config.upstreams["app"].balance[0].span()), "\"round-robin\"");
}

#[test]
fn every_problem_is_reported_not_the_first() {
    let problems = text(
        r#"worker = 2

[[listenrs]]
address = "127.0.0.1:8080"

[[listeners]]
address = "localhost:80"
timeouts = { header = 5 }

[upstreams.app]
balance = "${BALANCE}"

[plugins.api-key]
fail = "close"
"#,
    )
    .unwrap_err();
    let expected = r#"error: unknown key `worker`
 --> config.toml:1:1
  |
1 | worker = 2
  | ^^^^^^
  |
help: did you mean `workers`?

error: unknown key `listenrs`
 --> config.toml:3:3
  |
3 | [[listenrs]]
  |   ^^^^^^^^
  |
help: did you mean `listeners`?

error: expected an IP address and a port, such as "127.0.0.1:8080" or "[::]:8080", or `unix:` and an absolute path
 --> config.toml:7:11
  |
7 | address = "localhost:80"
  |           ^^^^^^^^^^^^^^

error: expected a duration above zero with its unit, such as "250ms", "10s" or "5m", found a whole number
 --> config.toml:8:23
  |
8 | timeouts = { header = 5 }
  |                       ^

error: the environment variable `BALANCE` is not set
  --> config.toml:11:11
   |
11 | balance = "${BALANCE}"
   |           ^^^^^^^^^^^^
   |
help: set it, or give a default with `${BALANCE:-...}`

error: expected `closed` or `open`
  --> config.toml:14:8
   |
14 | fail = "close"
   |        ^^^^^^^
   |
help: did you mean `closed`?"#;
    assert_eq!(problems.to_string(), expected);
    assert_eq!(problems.iter().count(), 6);
    assert!(problems.render(true).contains("\u{1b}["));
}

#[test]
fn every_mistake_of_syntax_is_reported() {
    let problems =
        text("workers = 1\nworkers = 2\nplugin-dir = \"plugins\n[[routes]\nunknown = 1\n").unwrap_err();
    let expected = r#"error: the key `workers` is there already, on line 1
 --> config.toml:2:1
  |
2 | workers = 2
  | ^^^^^^^
  |
help: remove one of them

error: invalid basic string, expected `"`
 --> config.toml:3:22
  |
3 | plugin-dir = "plugins
  |                      ^

error: unclosed array table, expected `]`
 --> config.toml:4:10
  |
4 | [[routes]
  |          ^"#;
    assert_eq!(problems.to_string(), expected);
}

#[test]
fn a_size_is_written_in_powers_of_1024_or_of_1000() {
    let size = |written: &str| {
        let config = config(&format!("plugins.a.limits.memory = '{written}'"));
        config.plugins["a"].limits.memory.get()
    };
    for (written, bytes) in [
        ("0B", 0),
        ("1500B", 1500),
        ("64KiB", 64 << 10),
        ("50MiB", 50 << 20),
        ("1.5GiB", 3 << 29),
        ("64kB", 64_000),
        ("64KB", 64_000),
        ("50MB", 50_000_000),
        ("1 GB", 1_000_000_000),
    ] {
        assert_eq!(size(written), bytes, "{written}");
    }
}

#[test]
fn what_stands_twice_is_told_with_the_line_of_the_first() {
    for (written, message, help) in [
        (
            "[listeners.limits]\nbody = '1MiB'\n[[listeners]]\naddress = '[::]:80'\n",
            "`[listeners.limits]` on line 1 stands before the `[[listeners]]` that it belongs to",
            "put `[listeners.limits]` below `[[listeners]]`: it is about the one above it",
        ),
        (
            "[upstreams.a]\nendpoints = []\n\n[log]\n[upstreams.a]\nregister = true\n",
            "the table `[upstreams.a]` is there already, on line 1",
            "put the keys of both into one table",
        ),
        (
            "[routes]\nupstream = 'a'\n[[routes]]\nupstream = 'b'\n",
            "`[routes]` on line 1 stands once, and `[[routes]]` repeats it",
            "write `[[routes]]` on line 1, too",
        ),
        (
            "[[routes]]\nupstream = 'a'\n[routes]\nupstream = 'b'\n",
            "the table `[routes]` is there already, on line 1",
            "write `[[routes]]` for another one",
        ),
        (
            "[log]\naccess = true\n[upstreams.a]\nregister = true\nregister = false\n",
            "the key `register` is there already, on line 4",
            "remove one of them",
        ),
    ] {
        let found = problems(written);
        assert_eq!(found.len(), 1, "{written}: {found:?}");
        assert_eq!((found[0].1.as_str(), found[0].2.as_str()), (message, help), "{written}");
    }
}

#[test]
fn a_slip_or_a_word_from_elsewhere_is_told_with_what_to_write() {
    let rest = "[upstreams.app]\nendpoints = [\"http://a\"]\n[[routes]]\nupstream = \"app\"\n";
    for (written, line, help) in [
        (
            "[[listeners]]\naddress = 127.0.0.1:80\n",
            "address = 127.0.0.1:80",
            "write `address = \"127.0.0.1:80\"`",
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:80\";\n",
            "address = \"127.0.0.1:80\";",
            "write `address = \"127.0.0.1:80\"`",
        ),
        ("[log]\naccess = False\n", "access = False", "write `access = false`"),
        ("[log]\naccess = on\n", "access = on", "write `access = true`"),
        (
            "[upstreams.b]\nendpoints = []\nretry.attempts: 3\n",
            "retry.attempts: 3",
            "write `retry.attempts = 3`",
        ),
        (
            "[upstreams.b]\nendpoints = [http://a, http://b:1]\n",
            "endpoints = [http://a, http://b:1]",
            "write `endpoints = [\"http://a\", \"http://b:1\"]`",
        ),
        ("[upstreams.b]\nendpoints = [\n  http://a:1,\n]\n", "http://a:1,", "write `\"http://a:1\"`"),
        (
            "[[routes]]\nproxy_pass http://app;\n",
            "proxy_pass http://app;",
            "write `upstream = \"http://app\"`",
        ),
        ("[[listeners]]\nlisten = \"127.0.0.1:80\"\n", "listen", "here it is called `address`"),
        ("[upstreams.b]\nservers = [\"http://a\"]\n", "servers", "here it is called `endpoints`"),
        ("[[routes]]\nproxy_pass = \"app\"\n", "proxy_pass", "here it is called `upstream`"),
        (
            "[[routes]]\nupstream = \"app\"\nlocation = \"/a\"\n",
            "location",
            "what requests a route takes stands in `match`: match = { path = \"/api\" }",
        ),
        (
            "[[routes]]\nupstream = \"app\"\nhost = \"a.test\"\n",
            "host",
            "what requests a route takes stands in `match`: match = { host = \"a.example\" }",
        ),
        (
            "[[listeners]]\naddress = \"127.0.0.1:80\"\ntimeout = \"5s\"\n",
            "timeout",
            "here it is called `timeouts`",
        ),
        (
            "[log]\naccess = true\nworkers = 2\n",
            "workers",
            "a key behind a `[table]` belongs to that table: write `workers` at the top of the file, above the first one",
        ),
        ("[[frontend]]\naddress = \"127.0.0.1:80\"\n", "frontend", "here it is called `listeners`"),
    ] {
        let written = format!("{rest}{written}");
        let found = text(&written).expect_err(&written);
        let said: Vec<_> =
            found.iter().map(|problem| (problem.message.clone(), problem.help.clone())).collect();
        let is_it = |problem: &&Problem| problem.span.clone().is_some_and(|span| &written[span] == line);
        let problem = found.iter().find(is_it).unwrap_or_else(|| panic!("{line} is not in {said:?}"));
        assert_eq!(problem.help.as_deref(), Some(help), "{written}: {said:?}");
        let others = found.iter().filter(|problem| !is_it(problem)).count();
        assert!(others <= usize::from(help.starts_with("here")), "{written}: {said:?}");
    }
}

#[test]
fn the_configuration_of_something_else_is_recognised() {
    for (written, what, help) in [
        ("# mine\nlisteners:\n  - address: 127.0.0.1:80\n", "this looks like YAML", "`[[listeners]]`"),
        ("---\nworkers: 2\n", "this looks like YAML", "`[[listeners]]`"),
        ("server {\n  listen 80;\n}\n", "this looks like the configuration of nginx", "for `location`"),
        ("worker_processes 4;\n", "this looks like the configuration of nginx", "for `listen`"),
        ("{\n  \"workers\": 2\n}\n", "this looks like JSON", "`[[listeners]]`"),
        ("workers = 2\nserver {\n", "this looks like the configuration of nginx", "for `listen`"),
    ] {
        let found = problems(written);
        assert_eq!(found.len(), 1, "{written}: {found:?}");
        assert!(found[0].1.starts_with(what) && found[0].2.contains(help), "{found:?}");
    }
    // What is TOML with a mistake is told as such.
    for written in ["workers = \n", "[[routes]\n", "workers 2\n", "\"a: b\n"] {
        assert!(!messages(written)[0].contains("looks like"), "{written}");
    }
}

#[test]
fn a_key_that_is_not_known_comes_with_the_nearest_or_with_all() {
    let all = "the keys of this table are `name`, `match`, `upstream`, `plugins`, `shadow`, `repeatable`, `upgrades`, `compress`, `cache`";
    for (key, help) in [
        ("upsteam", "did you mean `upstream`?"),
        ("plugin", "did you mean `plugins`?"),
        ("Match", "did you mean `match`?"),
        ("timeout", all),
        ("\"a, expected `name`\"", all),
    ] {
        let message = format!("unknown key `{}`", key.trim_matches('"'));
        has_one_problem(&format!("[[routes]]\nupstream = 'a'\n{key} = 1"), key, &message, help);
    }
    has_one_problem(
        "upstreams.a = { endpoints = [{ url = 'http://a', wieght = 2 }] }",
        "wieght",
        "unknown key `wieght`",
        "did you mean `weight`?",
    );
    has_one_problem(
        "[plugins.a.limit]\ntime = '1s'",
        "limit",
        "unknown key `limit`",
        "did you mean `limits`?",
    );
}

#[test]
fn a_key_cannot_write_lines_that_look_like_ours() {
    let problems = text("\"a\\nerror: \\u001b[31m\" = 1").unwrap_err().to_string();
    assert!(
        problems.starts_with("error: unknown key `a␊error: ␛[31m`\n --> config.toml:1:1\n"),
        "{problems}"
    );
}

#[test]
fn a_value_of_the_wrong_kind_is_told_in_the_words_of_toml() {
    let once = "a table that stands once is `[name]`, one of several is `[[name]]`";
    for (written, place, message, help) in [
        ("workers = 'x'", "'x'", "expected a whole number from 1 to 1024, found a string", ""),
        (
            "workers = 1.5",
            "1.5",
            "expected a whole number from 1 to 1024, found a number with a fraction",
            "",
        ),
        ("workers = 0", "0", "expected a whole number from 1 to 1024", ""),
        (
            "workers = 99999999999999999999",
            "99999999999999999999",
            "expected a whole number from 1 to 1024",
            "",
        ),
        (
            "listeners = [{ address = '[::]:80', limits.ipv6-prefix = 9223372036854775808 }]",
            "9223372036854775808",
            "expected a whole number from 1 to 128",
            "",
        ),
        (
            "plugins.a.limits.recycle-after = 99999999999999999999",
            "99999999999999999999",
            "expected a whole number from 0 to 4294967295",
            "",
        ),
        (
            "limits.connections = 99999999999999999999",
            "99999999999999999999",
            "expected a whole number up to 9223372036854775807",
            "",
        ),
        ("limits.connections = -1", "-1", "expected a whole number, 0 or more", ""),
        (
            "plugins.a.limits.recycle-after = 4294967296",
            "4294967296",
            "expected a whole number from 0 to 4294967295",
            "",
        ),
        (
            "plugins.a.config.a = 99999999999999999999",
            "99999999999999999999",
            "expected a whole number up to 9223372036854775807",
            "",
        ),
        (
            "plugins.a.config.a = 9999999999999999999",
            "9999999999999999999",
            "expected a whole number up to 9223372036854775807",
            "",
        ),
        ("plugin-dir = []", "[]", "expected a string, found an array", ""),
        ("log.access = 1", "1", "expected true or false, found a whole number", ""),
        (
            "plugins.a.breaker = 5",
            "5",
            "expected a table, found a whole number",
            "the keys of this table are `failures`, `pause`, `pause-max`, `cpu-share`",
        ),
        (
            "plugins.a.breaker.cpu-share = 0",
            "0",
            "without any time it cannot be asked: write a share above 0, such as 0.1",
            "",
        ),
        ("[[log]]\naccess = true", "[[log]]", "expected a table, found an array", once),
        ("[[upstreams.a]]\nendpoints = []", "[[upstreams.a]]", "expected a table, found an array", once),
        ("[listeners]\naddress = '[::]:80'", "[listeners]", "expected an array, found a table", once),
        ("listeners = [['[::]:80']]", "['[::]:80']", "expected a table, found an array", once),
        ("plugins.a.fail = { open = {} }", "{ open = {} }", "expected a string, found a table", ""),
        ("plugins.a.fail = 'x'", "'x'", "expected `closed` or `open`", ""),
        (
            "routes = [{ upstream = 'a', plugins = 'b' }]",
            "'b'",
            "expected an array, found a string",
            "write it in brackets: `[...]`",
        ),
        ("upstreams = 2024-01-01", "2024-01-01", "expected a table, found a string", ""),
    ] {
        has_one_problem(written, place, message, help);
    }
}

#[test]
fn a_value_that_says_nothing_is_told_with_an_example() {
    let address = "expected an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\", or `unix:` and an absolute path";
    let network = "expected a network or an IP address, such as \"10.0.0.0/8\" or \"10.0.0.1\", or \"unix:\"";
    let duration = "expected a duration above zero with its unit, such as \"250ms\", \"10s\" or \"5m\"";
    let bits = "the address has bits beyond the length of the prefix: write the first address of the network, such as \
                \"10.0.0.0/8\", or a single address, such as \"10.0.0.1\"";
    let either = "a unit such as `m` is not clear: write MiB for 1,048,576 bytes or MB for 1,000,000 (and KiB or kB, \
                  GiB or GB)";
    let size = "expected a size with its unit, such as \"64KiB\" or \"1MiB\"";
    let host = "expected a host without a port, such as \"api.example.com\" or \"*.example.com\"";
    let http = "an endpoint is reached by HTTP: write \"http://host:port\" or \"https://host:port\"";
    let port = "the port of an endpoint is a number from 1 to 65535";
    for (written, message) in [
        (
            "listeners = [{ address = '?' }]",
            [("localhost:80", address), ("127.0.0.1", address), (":80", address)].as_slice(),
        ),
        (
            "listeners = [{ address = '[::]:80', trusted-proxies = ['::1', '?'] }]",
            &[
                ("10.0.0.0/33", network),
                ("10.0.0", network),
                ("", network),
                ("10.0.0.1/8", bits),
                ("fd00::1/8", bits),
            ],
        ),
        (
            "drain-timeout = '?'",
            &[("0s", duration), ("-1s", duration), ("10", duration), ("9223372036854775807s", duration)],
        ),
        (
            "plugins.a.limits.memory = '?'",
            &[
                ("12", size),
                ("", size),
                ("many", size),
                ("-1B", size),
                ("50m", either),
                ("50k", either),
                ("1 G", either),
                ("50mb", size),
                ("50Mib", size),
                ("99999999TiB", size),
            ],
        ),
        (
            "routes = [{ upstream = 'a', match.host = '?' }]",
            &[
                ("a:80", host),
                ("*", host),
                ("*.", host),
                ("a..b", host),
                ("[::", host),
                ("*.[::1]", host),
                ("http://a", host),
            ],
        ),
        (
            "routes = [{ upstream = 'a', match.methods = ['GET', '?'] }]",
            &[
                ("G ET", "expected a method, such as \"GET\""),
                ("get", "expected a method, such as \"GET\""),
                ("", "expected a method, such as \"GET\""),
            ],
        ),
        (
            "routes = [{ upstream = 'a', match.headers = { '?' = '1' } }]",
            &[("a b", "expected the name of a header")],
        ),
        (
            "upstreams.a.endpoints = ['http://a', '?', { url = 'http://[::1]:1' }]",
            &[
                ("ftp://a", http),
                ("a:80", http),
                ("a", http),
                ("", "this is not a URL such as \"http://10.0.0.1:8001\""),
                ("http://a/b", "an endpoint is a scheme, a host and a port, without a path"),
                ("http://a/?b", "an endpoint is a scheme, a host and a port, without a path"),
                ("http://b@a", "an endpoint is a scheme, a host and a port, without a user"),
                ("http://a:0", port),
                ("http://a:99999", port),
                ("http://a:", port),
            ],
        ),
        ("upstreams.a.endpoints = [{ url = '?' }]", &[("ftp://a", http)]),
    ] {
        for (value, message) in message {
            has_one_problem(&written.replace('?', value), &format!("'{value}'"), message, "");
        }
    }
}

#[test]
fn a_missing_key_is_shown_at_its_table() {
    for (written, place, key) in [
        ("[[listeners]]\naddress = '[::]:80'\n[[listeners]]", "[[listeners]]", "address"),
        ("upstreams.a.endpoints = ['http://a', { weight = 2 }]", "{ weight = 2 }", "url"),
        ("[[routes]]\n[[routes]]\nupstream = 'a'", "[[routes]]", "upstream"),
    ] {
        has_one_problem(written, place, &format!("the key `{key}` is missing"), "");
    }
}

#[test]
fn a_missing_key_is_not_reported_where_it_was_written_wrong() {
    for written in [
        "[[listeners]]\nadress = '[::]:80'",
        "[[listeners]]\naddress = 80",
        "[[listeners]]\naddress = '${NONE}'",
        "[upstreams.a]\nendpoints = 'http://a'",
        "upstreams.a.endpoints = [{ url = 5 }, 'http://a']",
    ] {
        assert_eq!(problems(written).len(), 1, "{written}");
    }
    let written = "[[listeners]]\nlimits = 5\n[[listeners]]\naddress = 5\n[[listeners]]\naddress = '[::]:80'";
    assert_eq!(
        messages(written),
        [
            "the key `address` is missing",
            "expected a table, found a whole number",
            "expected an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\", or `unix:` and an absolute path, found a whole number",
        ]
    );
}

#[test]
fn a_file_of_nonsense_has_an_end() {
    let keys: String = (0..1000).map(|key| format!("key-{key} = '${{NONE}}'\n")).collect();
    let unset = problems(&keys);
    assert_eq!(unset.len(), 100);
    assert_eq!(problems(&keys.replace('$', "")).len(), 100);
    assert_eq!(problems(&keys.replace(" = ", " ")).len(), 100);
}

#[test]
fn a_variable_from_the_environment_is_filled_in() {
    for (written, value) in [
        ("${HOST}", "app.internal:81"),
        ("http://${HOST}/${FOLDER}", "http://app.internal:81//srv"),
        ("${NONE:-default}", "default"),
        ("${NONE:-}", ""),
        ("${NONE:-a:-b $c}", "a:-b $c"),
        ("${HOST:-default}", "app.internal:81"),
        ("${EMPTY}", ""),
        ("${EMPTY:-default}", "default"),
        ("$${HOST}", "${HOST}"),
        ("$$$${HOST} $$${HOST}", "$${HOST} $app.internal:81"),
        ("$ $HOST $1 {HOST} }$", "$ $HOST $1 {HOST} }$"),
        ("ä${EMPTY}ö", "äö"),
    ] {
        let plugin = format!("[plugins.a]\nfile = '{written}'\nconfig = {{ a = [{{ b = '{written}' }}] }}");
        let plugin = &config(&plugin).plugins["a"];
        assert_eq!(plugin.file.as_deref(), Some(value), "{written}");
        assert_eq!(plugin.config["a"][0]["b"].as_str(), Some(value), "{written}");
    }
}

#[test]
fn what_a_variable_holds_is_not_read_as_toml_or_as_variables() {
    let config = config(GOOD);
    let key = &config.plugins["api-key"].config["keys"][0]["key"];
    assert_eq!(key.as_str(), Some("\"]\n[[x]] ${PORT} $$"));
}

#[test]
fn a_missing_variable_is_named() {
    let help = |name| format!("set it, or give a default with `${{{name}:-...}}`");
    let written = "plugin-dir = '${NONE}/${HOST}/${ALSO_NONE}'";
    let place = "'${NONE}/${HOST}/${ALSO_NONE}'".to_owned();
    let message = |name| format!("the environment variable `{name}` is not set");
    assert_eq!(
        problems(written),
        [(place.clone(), message("ALSO_NONE"), help("ALSO_NONE")), (place, message("NONE"), help("NONE")),]
    );
}

#[test]
fn a_variable_that_is_written_wrong_is_a_problem() {
    for (written, message) in [
        ("${HOST", "`${` has no `}` to end it"),
        ("a ${", "`${` has no `}` to end it"),
        ("${}", "`${}` does not name a variable"),
        ("${A-B}", "`${A-B}` does not name a variable"),
        ("${1A}", "`${1A}` does not name a variable"),
        ("${ä:-b}", "`${ä:-b}` does not name a variable"),
        ("${A and ${B}", "`${A and ${B}` does not name a variable"),
        ("${NONE:-${HOST}}", "the default of `NONE` holds a variable"),
    ] {
        assert_eq!(messages(&format!("plugins.a.config.b = ['{written}']")), [message]);
    }
}

#[test]
fn no_message_holds_what_a_variable_held() {
    let mut strings = 0;
    for (start, _) in GOOD.match_indices('"').step_by(2) {
        let end = start + 1 + GOOD[start + 1..].find('"').unwrap() + 1;
        for secret in ["\"${SECRET}\"", "\"http://${SECRET}:x\"", "\"${SECRET} \\\"\"", "[\"${SECRET}\"]"] {
            let written = [&GOOD[..start], secret, &GOOD[end..]].concat();
            if let Err(problems) = text(&written) {
                assert!(!problems.to_string().contains("hunter2"), "{problems}");
                assert!(problems.iter().all(|problem| !problem.message.contains("SECRET")), "{problems}");
                strings += 1;
            }
        }
    }
    assert!(strings > 50, "{strings}");
}

#[test]
fn a_file_that_cannot_be_read_is_a_problem_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    let problems = read(&path).unwrap_err().to_string();
    let expected = format!(
        "error: cannot read the file: No such file or directory (os error 2)\n--> {}\n |\n\
         help: write it, or name another with `--config`",
        path.display()
    );
    assert_eq!(problems, expected);
    assert!(
        read(folder.path()).unwrap_err().to_string().contains("name a file in this folder with `--config`")
    );

    fs::write(&path, "workers = 1\n").unwrap();
    assert_eq!(read(&path).unwrap().1, Source { path, text: "workers = 1\n".to_owned() });
}

#[test]
fn a_file_that_is_not_utf8_is_a_problem() {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(&file, b"# \xc3\xa4\nplugin-dir = \"caf\xe9\"\n").unwrap();
    let problems = read(file.path()).unwrap_err();
    let problem = problems.iter().next().unwrap();
    assert_eq!(problem.message, "this is not UTF-8");
    assert!(problems.to_string().contains(":2:18\n"), "{problems}");
}

#[test]
fn a_place_is_always_one_in_the_text() {
    let source = Source { path: "config.toml".into(), text: "ä = 1".to_owned() };
    for (start, end, place) in [(1, 1, 0..2), (0, 1, 0..2), (3, 99, 3..6), (98, 99, 6..6), (4, 2, 4..4)] {
        let problems = Problems::new(source.clone(), vec![Problem::at(start..end, "wrong")]);
        assert_eq!(problems.iter().next().and_then(|problem| problem.span.clone()), Some(place));
        assert!(problems.to_string().starts_with("error: wrong\n --> config.toml:1:"));
    }
}

/// Problems render, and every place is one in the text.
fn is_read_or_refused(written: &str) {
    let Err(problems) = text(written) else { return };
    assert!(problems.iter().count() > 0);
    for problem in problems.iter() {
        assert!(problem.span.clone().is_none_or(|span| written.get(span).is_some()), "{problem:?}");
        assert!(!problem.message.contains("serde") && !problem.message.contains("struct"), "{problem:?}");
    }
    assert!(!problems.render(true).is_empty());
}

#[test]
fn every_beginning_of_a_file_is_read_or_refused() {
    for end in (0..GOOD.len()).filter(|&end| GOOD.is_char_boundary(end)) {
        is_read_or_refused(&GOOD[..end]);
        is_read_or_refused(&GOOD[end..]);
        is_read_or_refused(&format!("\u{feff}{}\r\n", &GOOD[..end]));
    }
}

proptest! {
    #[test]
    fn a_damaged_file_is_read_or_refused(damage in prop::collection::vec((0..GOOD.len(), damage()), 1..6)) {
        let mut written = GOOD.to_owned();
        for (at, new) in damage {
            let start = written.floor_char_boundary(at);
            let end = written.ceil_char_boundary(at + 1);
            written.replace_range(start..end, &new);
        }
        is_read_or_refused(&written);
    }
}

fn damage() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<char>().prop_map(String::from),
        prop::sample::select(vec![
            "", "\"", "[", "]", "[[", "{", "}", "=", "\n", "\r", "$", "${", ".", "#", "'''", "5", "\t"
        ])
        .prop_map(String::from),
    ]
}

#[test]
fn a_route_is_cached_or_not() {
    let route = |cache: &str| {
        let written = format!("[[routes]]\nupstream = \"a\"\ncache = {cache}\n");
        config(&written).routes[0].get_ref().cache.clone()
    };
    assert_eq!(route("true"), Some(RouteCache::default()));
    assert_eq!(route("{}"), Some(RouteCache::default()));
    assert_eq!(route("false"), None);
    let ttl = |written: &str| route(&format!("{{ ttl = {written} }}")).unwrap().ttl;
    let minutes = |count: u64| Duration::from_secs(count * 60);
    assert_eq!(ttl("\"5m\""), Ttl { general: Some(minutes(5)), ..Ttl::default() });
    assert_eq!(
        ttl("{ default = \"5m\", 404 = \"1m\", 302 = \"2m\" }"),
        Ttl { general: Some(minutes(5)), by_status: [(302, minutes(2)), (404, minutes(1))].into() }
    );
    for key in ["600", "99", "2xx", "ok"] {
        has_one_problem(
            &format!("[[routes]]\nupstream = \"a\"\ncache = {{ ttl = {{ {key} = \"5m\" }} }}\n"),
            &format!("{{ {key} = \"5m\" }}"),
            "the keys of this table are status codes such as 404, and `default`",
            "",
        );
    }
    let query = |written: &str| route(&format!("{{ query = {written} }}")).unwrap().query;
    assert_eq!(query("\"sorted\""), Query::Sorted);
    assert_eq!(query("{ except = [\"a\"] }"), Query::Except(vec!["a".to_owned()]));
    has_one_problem(
        "[[routes]]\nupstream = \"a\"\ncache = { query = \"some\" }\n",
        "\"some\"",
        "expected \"all\", \"sorted\", \"none\", { only = [\"page\"] } or { except = [\"utm_source\"] }",
        "",
    );
}
