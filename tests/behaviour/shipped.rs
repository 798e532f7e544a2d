//! The plugins that are part of the executable: each does what its tests say, and withstands the battery.
//!
//! A test for each, since 100,000 calls without optimisation take a while and there is more than one core.

use tollgate::{
    config::Duration,
    plugin::shipped::SHIPPED,
    trial::{TestFile, Trial},
};
use tollgate_tests::shipped;

use crate::trial::{differences, load, repository};

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
    let trial = Trial { name: name.to_owned(), code: load(&shipped(name)) };
    assert_eq!(differences(&trial.run(&file)), [], "{name}");
    let conformance = trial.conformance(Some(&file));
    assert!(conformance.has_passed(), "{name}: {:#?}", conformance.findings);
    assert!(conformance.soak.is_some(), "{name}");
}
