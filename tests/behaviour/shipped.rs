//! The plugins that are part of the executable: each does what its tests say, and withstands the battery.
//!
//! A test for each, since 100,000 calls without optimisation take a while and there is more than one core.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use tollgate::{
    config::Duration,
    plugin::shipped::SHIPPED,
    plugin_tests::{PluginUnderTest, TestFile},
};
use tollgate_tests::shipped;

use crate::{
    TOLLGATE,
    plugin_tests::{differences, load, repository},
};

/// A test for each of these plugins, and one that there is no other.
macro_rules! promises {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                keeps_its_promises($name);
            }
        )*

        #[test]
        fn each_has_its_test() {
            let shipped: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            assert_eq!(shipped, [$($name),*]);
        }
    };
}

promises! {
    api_key: "api-key",
    basic_auth: "basic-auth",
    client_hash: "client-hash",
    consistent_hash: "consistent-hash",
    cors: "cors",
    headers: "headers",
    ip_filter: "ip-filter",
    jwt: "jwt",
    jwt_remote: "jwt-remote",
    latency: "latency",
    least_requests: "least-requests",
    oauth_introspection: "oauth-introspection",
    random: "random",
    rate_limit: "rate-limit",
    redirect: "redirect",
    request_schema: "request-schema",
    request_validation: "request-validation",
    resource: "resource",
    rewrite: "rewrite",
    round_robin: "round-robin",
    router: "router",
    security_headers: "security-headers",
    sticky: "sticky",
}

fn keeps_its_promises(name: &str) {
    let tests = repository().join("plugins").join(name).join(format!("{name}.test.toml"));
    let (mut file, _) = TestFile::read(&tests).unwrap_or_else(|problems| panic!("{problems}"));
    assert!(!file.cases.is_empty(), "{name} promises nothing");
    if cfg!(debug_assertions) {
        // Without optimisation the host takes ten times as long for what it does in a call.
        file.limits.time = file.limits.time.max(Duration::from_millis(100));
    }
    let trial = PluginUnderTest { name: name.to_owned(), code: load(&shipped(name)) };
    assert_eq!(differences(&trial.run(&file)), [], "{name}");
    let conformance = trial.conformance(Some(&file));
    assert!(conformance.has_passed(), "{name}: {:#?}", conformance.findings);
    assert!(conformance.soak.is_some(), "{name}");
}

/// The code blocks of a README in this language, joined.
fn blocks(readme: &str, language: &str) -> String {
    let mut joined = String::new();
    let mut is_in = false;
    for line in readme.lines() {
        match line.strip_prefix("```") {
            Some(rest) => is_in = !is_in && rest == language,
            None if is_in => joined.extend([line, "\n"]),
            None => {}
        }
    }
    joined
}

/// Every upstream that a configuration names somewhere.
fn upstreams(value: &toml::Value, found: &mut BTreeSet<String>) {
    match value {
        toml::Value::Table(table) => {
            for (key, value) in table {
                match value {
                    toml::Value::String(name) if key == "upstream" => {
                        found.insert(name.clone());
                    }
                    value => upstreams(value, found),
                }
            }
        }
        toml::Value::Array(items) => items.iter().for_each(|item| upstreams(item, found)),
        _ => {}
    }
}

/// What `tollgate check` says of a configuration, with the variables that these commands of a shell set.
fn check(config: &str, exports: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    fs::write(folder.path().join("config.toml"), config).expect("a file can be written");
    let tollgate = Path::new(TOLLGATE).display();
    let checked = Command::new("sh")
        .args(["-ec", &format!("{exports}\nexec {tollgate} check")])
        .current_dir(folder.path())
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("XDG_CACHE_HOME", concat!(env!("OUT_DIR"), "/cache"))
        .output()
        .expect("a shell can be run");
    (checked.status.success(), String::from_utf8_lossy(&checked.stderr).into_owned())
}

/// The listener and the upstreams are what a README may leave out. All else must stand there: other plugins that the route
/// names, with their settings, and how the variables are set.
#[test]
fn the_configuration_in_each_readme_is_accepted_as_it_stands() {
    for (name, _) in SHIPPED {
        let path = repository().join("plugins").join(name).join("README.md");
        let readme = fs::read_to_string(&path).expect("each plugin has a README");
        let config = blocks(&readme, "toml");
        let table: toml::Table = config.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(config.contains(name), "{name} is not configured in its README");
        let mut named = BTreeSet::new();
        upstreams(&table.clone().into(), &mut named);
        let known = table.get("upstreams").and_then(toml::Value::as_table);
        named.retain(|upstream| known.is_none_or(|known| !known.contains_key(upstream)));
        let mut whole = format!("{config}\n[[listeners]]\naddress = \"127.0.0.1:0\"\n");
        for upstream in named {
            whole.push_str(&format!("[upstreams.{upstream}]\nendpoints = [\"http://127.0.0.1:1\"]\n"));
        }
        if !table.contains_key("routes") {
            whole.push_str("[[routes]]\nupstream = \"app\"\n");
        }
        let exports: String = blocks(&readme, "sh")
            .lines()
            .filter(|line| line.starts_with("export "))
            .map(|line| format!("{line}\n"))
            .collect();
        let (is_accepted, errors) = check(&whole, &exports);
        assert!(is_accepted, "{name}: {errors}\n{whole}");
    }
}

/// A configuration with which every request would fail is none.
#[test]
fn what_could_never_work_is_refused_by_check() {
    for (plugin, settings, words) in [
        (
            "jwt-remote",
            "grants = { store = true, http = [\"https://auth.example.com\"] }\ntick = \"10m\"\n\
             config = { jwks-url = \"https://keys.example.com/jwks\" }",
            "`jwks-url` in `config`: nothing may be sent there",
        ),
        (
            "oauth-introspection",
            "grants = { store = true, http = [\"https://auth.example.com\"] }\n\
             config = { endpoint = \"https://auth.example.com:8443/introspect\" }",
            "`endpoint` in `config`: nothing may be sent there",
        ),
        (
            "sticky",
            "grants = { secrets = { stick = { env = \"PATH\" } } }",
            "there is no secret `sticky` to sign cookies with",
        ),
        (
            "rewrite",
            "config = { rules = [{ from = \"/a\", to = \"b\" }] }",
            "`rules[0].to` in `config`: is not a path",
        ),
        (
            "redirect",
            "config = { rules = [{ to = \"ftp://example.com/\" }] }",
            "`rules[0].to` in `config`: is neither a URL",
        ),
        (
            "request-validation",
            "config = { methods = [\"get\"] }",
            "`methods[0]` in `config`: `get` is a method that no client sends",
        ),
        (
            "rate-limit",
            "grants = { store = true }\nconfig = { policies = [{ requests = -1, per = \"1s\" }] }",
            "`policies[0].requests` in `config`: expected a whole number from 0 to 4294967295",
        ),
        (
            "rate-limit",
            "grants = { store = true }\nconfig = { policies = [{ requests = 1, per = \"1s\", by = \"header\" }] }",
            "in `config`: expected a table with the value, such as { header = \"...\" }",
        ),
    ] {
        let config = format!(
            "[[listeners]]\naddress = \"127.0.0.1:0\"\n[upstreams.app]\nendpoints = [\"http://127.0.0.1:1\"]\n\
             [[routes]]\nupstream = \"app\"\nplugins = [\"{plugin}\"]\n[plugins.{plugin}]\n{settings}\n"
        );
        let (is_accepted, errors) = check(&config, "");
        assert!(!is_accepted && errors.contains(words), "{plugin} {settings}: {errors}");
    }
}
