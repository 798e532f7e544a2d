//! The component in the runtime, from Rust: what `ip-filter.test.toml` does not say.

use tollgate_testing::{Expect, Plugin, Request, toml};

#[test]
fn who_is_denied_is_named_in_the_log_and_nobody_else_is() {
    let filter =
        Plugin::shipped("ip-filter").config(toml::toml! { deny = ["10.6.6.0/24", "2001:db8:6::/48"] });
    filter
        .case()
        .request(Request::get("/").client("10.6.6.1"), Expect::reply(403).log("info", "refused 10.6.6.1"))
        .request(
            Request::get("/").client("2001:db8:6::1"),
            Expect::reply(403).log("info", "refused 2001:db8:6::1"),
        )
        .request(Request::get("/").client("10.6.7.1"), Expect::next().no_log())
        .run();
}

#[test]
fn an_address_of_ipv4_in_the_clothes_of_ipv6_is_one() {
    let filter = Plugin::shipped("ip-filter").config(toml::toml! { allow = ["10.0.0.0/8"] });
    filter.case().request(Request::get("/").client("::ffff:10.1.2.3"), Expect::next()).run();
}
