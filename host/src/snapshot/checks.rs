//! What can be seen to be wrong with a configuration by itself, before anything is loaded or bound?
//!
//! What `run` would refuse in any case is refused here, so that `check` refuses it as well.

use std::{collections::HashMap, net::SocketAddr};

use toml::Spanned;

use crate::{
    address::Address,
    config::{self, Config, Problem},
};

pub(super) fn check(config: &Config, problems: &mut Vec<Problem>) {
    if config.listeners.is_empty() {
        problems.push(
            Problem::general("there is no listener")
                .help("add one: [[listeners]] with address = \"127.0.0.1:8080\""),
        );
    }
    let redirects = |listener: &Spanned<config::Listener>| listener.get_ref().redirect_to_https.is_some();
    if config.routes.is_empty() && !config.listeners.iter().all(redirects) {
        problems.push(
            Problem::general("there is no route, so every request would be answered 404")
                .help("add one: [[routes]] with upstream = \"app\""),
        );
    }
    problems.extend(config.admin.as_ref().and_then(unguarded));
    addresses(config, problems);
    names(config, problems);
    for (name, upstream) in &config.upstreams {
        let checks = upstream.health.as_ref().map(|health| ("health", health.interval, health.timeout));
        let reports = upstream.load.as_ref().map(|load| ("load", load.interval, load.timeout));
        for (table, interval, timeout) in checks.into_iter().chain(reports) {
            if timeout > interval {
                // No problem, as the next question waits for the end of this one; but hardly what is meant.
                let upstream = name.get_ref();
                tracing::warn!(
                    upstream,
                    "`{table}.timeout` is longer than `{table}.interval`, so an endpoint that does not answer is asked \
                     less often: lower `timeout`, or raise `interval`"
                );
            }
        }
    }
}

/// The problem of an admin API that anybody in the network could use.
fn unguarded(admin: &Spanned<config::Admin>) -> Option<Problem> {
    let config::Admin { address, token } = admin.get_ref();
    (token.is_none() && !address.ip().to_canonical().is_loopback()).then(|| {
        Problem::at(admin.span(), "the admin API can be reached from other machines, and there is no token")
            .help("add token = \"${TOLLGATE_ADMIN_TOKEN}\", or write address = \"127.0.0.1:9901\"")
    })
}

/// Addresses that cannot be listened on at the same time.
fn addresses(config: &Config, problems: &mut Vec<Problem>) {
    let mut before: Vec<(&Address, String)> = Vec::new();
    let listeners = config.listeners.iter().enumerate().map(|(place, listener)| {
        (listener.get_ref().address.clone(), listener.span(), format!("listeners[{place}]"))
    });
    let admin = config
        .admin
        .iter()
        .map(|admin| (Address::Ip(admin.get_ref().address), admin.span(), "the admin API".to_owned()));
    let all: Vec<_> = listeners.chain(admin).collect();
    for (address, span, name) in &all {
        if let Some((_, other)) = before.iter().find(|(known, _)| collide(known, address)) {
            let message = format!("{other} accepts the connections of {address} already");
            problems.push(
                Problem::at(span.clone(), message)
                    .help("give them different ports, or different addresses of this machine"),
            );
        }
        before.push((address, name.clone()));
    }
}

/// Whether a socket on one of them takes connections of the other. IPv4 is left to IPv4 (`Config::leaves_ipv4`).
fn collide(one: &Address, other: &Address) -> bool {
    match (one, other) {
        (Address::Ip(one), Address::Ip(other)) => {
            let is_everywhere = |address: &SocketAddr| address.ip().is_unspecified();
            let is_same_family = one.is_ipv4() == other.is_ipv4();
            let is_same =
                one.ip() == other.ip() || is_same_family && (is_everywhere(one) || is_everywhere(other));
            one.port() == other.port() && one.port() != 0 && is_same
        }
        (Address::Unix(one), Address::Unix(other)) => one == other,
        (Address::Ip(_), Address::Unix(_)) | (Address::Unix(_), Address::Ip(_)) => false,
    }
}

/// Routes are counted, logged and shown by their names.
fn names(config: &Config, problems: &mut Vec<Problem>) {
    let mut known: HashMap<String, usize> = HashMap::new();
    for (place, written) in config.routes.iter().enumerate() {
        let route = written.get_ref();
        let name = route.name.clone().unwrap_or_else(|| format!("routes[{place}]"));
        if let Some(other) = known.insert(name, place) {
            let message = format!("routes[{other}] has the same name");
            problems.push(
                Problem::at(written.span(), message)
                    .help("give each route a name of its own: logs and metrics tell them apart by it"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_collide_where_one_takes_the_connections_of_the_other() {
        for (one, other, is_one) in [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "0.0.0.0:80", true),
            ("[::]:80", "0.0.0.0:80", false),
            ("[::]:80", "127.0.0.1:80", false),
            ("[::]:80", "[::1]:80", true),
            ("unix:/run/a", "unix:/run/a", true),
            ("unix:/run/a", "unix:/run/b", false),
            ("unix:/run/a", "127.0.0.1:80", false),
        ] {
            let address = |text: &str| text.parse::<Address>().unwrap();
            assert_eq!(collide(&address(one), &address(other)), is_one, "{one} {other}");
        }
    }
}
