//! What can be seen to be wrong with a configuration by itself, before anything is loaded or bound?
//!
//! What `run` would refuse in any case is refused here, so that `check` refuses it as well.

use std::{collections::HashMap, net::SocketAddr, ops::Range, path::Path};

use toml::Spanned;

use super::loaded::Loaded;
use crate::{
    address::Address,
    config::{self, Config, Problem, Source},
};

pub(super) fn check(config: &Config, source: &Source, problems: &mut Vec<Problem>) {
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
    addresses(config, source, problems);
    names(config, problems);
    for upstream in config.upstreams.values() {
        for (endpoint, span, first) in upstream.endpoints.repeated() {
            let first = source.line_of(&first).unwrap_or_default();
            let message =
                format!("the upstream has the endpoint {} already ({first})", endpoint.authority.as_str());
            problems.push(Problem::at(span, message).help(
                "remove one of them; for one that is to get more requests, write { url = \"...\", weight = 2 }",
            ));
        }
    }
}

/// Something that runs as it is written, and is hardly what is meant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Warning {
    /// What it is about.
    subject: String,
    span: Option<Range<usize>>,
    message: String,
}

impl Warning {
    pub fn log(&self, source: &Source) {
        let Self { subject, span, message } = self;
        let at = span.as_ref().and_then(|span| source.line_of(span));
        tracing::warn!(at, "{subject}: {message}");
    }

    /// Whether the same was said of another configuration, wherever it stands there.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.subject, &self.message) == (&other.subject, &other.message)
    }
}

/// What to warn of. `forwards` says of each plugin to which upstreams it may send requests besides the route's own, by
/// their places in the order of their names.
pub(super) fn warnings(
    config: &Config,
    plugins: &[Loaded],
    forwards: &[Vec<usize>],
    plugin_dir: &Path,
) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let mut warn = |subject: String, span: Option<Range<usize>>, message: String| {
        warnings.push(Warning { subject, span, message });
    };
    for (place, (name, upstream)) in config.upstreams.iter().enumerate() {
        let checks = upstream.health.as_ref().map(|health| ("health", health.interval, health.timeout));
        let reports = upstream.load.as_ref().map(|load| ("load", load.interval, load.timeout));
        let subject = || format!("upstream `{}`", name.get_ref());
        for (table, interval, timeout) in checks.into_iter().chain(reports) {
            if timeout > interval {
                // No problem, as the next question waits for the end of this one.
                let message = format!(
                    "`{table}.timeout` is longer than `{table}.interval`, so an endpoint that does not answer is checked \
                     less often: lower `timeout`, or raise `interval`"
                );
                warn(subject(), Some(name.span()), message);
            }
        }
        let is_routed =
            config.routes.iter().any(|route| route.get_ref().upstream.get_ref() == name.get_ref());
        if !is_routed && !forwards.iter().flatten().any(|granted| *granted == place) {
            let message =
                "no route sends requests to it, and no plugin may: name it in a route, or remove it";
            warn(subject(), Some(name.span()), message.to_owned());
        }
    }
    for (name, table) in &config.plugins {
        let is_named =
            |names: &[Spanned<String>]| names.iter().any(|other| other.get_ref() == name.get_ref());
        let is_used = table.routes.is_some()
            || table.tick.is_some()
            || config.routes.iter().any(|route| is_named(&route.get_ref().plugins))
            || config.upstreams.values().any(|upstream| is_named(&upstream.balance));
        if !is_used {
            let balances = plugins.iter().any(|loaded| {
                *loaded.plugin.name == **name.get_ref()
                    && !loaded.hooks().are_for_routes()
                    && loaded.hooks().balance
            });
            let message = match balances {
                true => {
                    "no upstream names it, so it is never called: write balance = \"...\" in an upstream, or remove the table"
                }
                false => {
                    "no route names it, so it is never called: add it to `plugins` of a route, or remove the table"
                }
            };
            warn(format!("plugin `{}`", name.get_ref()), Some(name.span()), message.to_owned());
        }
    }
    // The default folder need not be there, where nobody expects anything from it.
    if !plugin_dir.is_dir() && config.plugin_dir != Path::new(config::DEFAULT_PLUGIN_DIR) {
        let message =
            "there is no such folder, so no plugins come from it: create it, or write where they are";
        warn(format!("plugin-dir `{}`", plugin_dir.display()), None, message.to_owned());
    }
    warnings
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
fn addresses(config: &Config, source: &Source, problems: &mut Vec<Problem>) {
    let mut before: Vec<(&Address, String, Range<usize>)> = Vec::new();
    let listeners = config.listeners.iter().enumerate().map(|(place, listener)| {
        (listener.get_ref().address.clone(), listener.span(), format!("listeners[{place}]"))
    });
    let admin = config
        .admin
        .iter()
        .map(|admin| (Address::Ip(admin.get_ref().address), admin.span(), "the admin API".to_owned()));
    let all: Vec<_> = listeners.chain(admin).collect();
    for (address, span, name) in &all {
        if let Some((known, other, span_of_other)) = before.iter().find(|(known, ..)| collide(known, address))
        {
            let line = source.line_of(span_of_other).unwrap_or_default();
            let message = match *known == address {
                true => format!("{other} listens on {address} already ({line})"),
                false => {
                    let (wide, narrow) =
                        if is_everywhere(known) { (*known, address) } else { (address, *known) };
                    format!(
                        "this and {other} ({line}) overlap: {wide} is every address of this machine, also {narrow}"
                    )
                }
            };
            problems.push(
                Problem::at(span.clone(), message)
                    .help("give them different ports, or different addresses of this machine"),
            );
        }
        before.push((address, name.clone(), span.clone()));
    }
}

fn is_everywhere(address: &Address) -> bool {
    matches!(address, Address::Ip(address) if address.ip().is_unspecified())
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
