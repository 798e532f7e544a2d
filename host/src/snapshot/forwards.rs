//! To which upstreams may a plugin send requests, besides the route's own?
//!
//! A request that a plugin sends to another upstream does not pass the plugins of that upstream's own routes. So an upstream
//! has to be granted by name.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use toml::{Spanned, Table, Value};

use super::{diagnosis::nearest, loaded::Loaded};
use crate::{
    config::{Config, Problem},
    plugin::{Digest, shipped},
};

/// For each plugin, the places of the upstreams that it was granted.
pub(super) fn granted(
    config: &Config,
    plugins: &[Loaded],
    upstreams: &HashMap<Arc<str>, usize>,
    problems: &mut Vec<Problem>,
) -> Vec<Vec<usize>> {
    plugins
        .iter()
        .map(|loaded| {
            is_granted_what_it_names(config, loaded, upstreams, problems);
            let granted = loaded.table().grants.upstreams.iter();
            granted.filter_map(|name| find(loaded, name, upstreams, problems)).collect()
        })
        .collect()
}

fn find(
    loaded: &Loaded,
    name: &Spanned<String>,
    upstreams: &HashMap<Arc<str>, usize>,
    problems: &mut Vec<Problem>,
) -> Option<usize> {
    let place = upstreams.get(name.get_ref().as_str()).copied();
    if place.is_none() {
        let help = nearest(name, upstreams.keys().map(|name| &**name), "upstreams");
        let problem = match loaded.is_beside() {
            false => Problem::at(name.span(), "there is no such upstream"),
            true => Problem::general(format!(
                "the plugin `{}` is granted the upstream `{}`, which is not configured ({})",
                loaded.plugin.name,
                name.get_ref(),
                loaded.place()
            )),
        };
        problems.push(problem.help(help));
    }
    place
}

/// Looks for upstreams that a plugin's `config` names and that it was not granted, so that this is known before a request
/// fails. What the shipped `router` names is where it sends requests; of another plugin it is only likely.
fn is_granted_what_it_names(
    config: &Config,
    loaded: &Loaded,
    upstreams: &HashMap<Arc<str>, usize>,
    problems: &mut Vec<Problem>,
) {
    if !loaded.hooks().request {
        return;
    }
    let name = &loaded.plugin.name;
    let mut named = BTreeSet::new();
    named_upstreams(&loaded.table().config, &mut named);
    let is_granted =
        |upstream: &str| loaded.table().grants.upstreams.iter().any(|granted| granted.get_ref() == upstream);
    // Of the routes that it is on, none has another upstream.
    let is_own = |upstream: &str| {
        let mut routes = config.routes.iter().map(toml::Spanned::get_ref).filter(|route| {
            loaded.is_on_all_routes() || route.plugins.iter().any(|plugin| plugin.get_ref() == &**name)
        });
        routes.all(|route| route.upstream.get_ref() == upstream)
    };
    let missing: Vec<&str> =
        named.into_iter().filter(|upstream| !is_granted(upstream) && !is_own(upstream)).collect();
    let is_router =
        shipped::find("router").is_some_and(|router| Digest::of(router) == loaded.plugin.code.digest());
    if is_router && !missing.is_empty() {
        let is_unknown = |upstream: &&&str| !upstreams.contains_key(**upstream);
        let unknown: String = missing
            .iter()
            .filter(is_unknown)
            .map(|upstream| format!("; there is no upstream `{upstream}`"))
            .collect();
        // To be granted what is not there would help nobody.
        let misspelt = missing.iter().find(is_unknown).map(|upstream| {
            let written = toml::Spanned::new(0..0, (*upstream).to_owned());
            nearest(&written, upstreams.keys().map(|name| &**name), "upstreams")
        });
        let all = missing.iter().map(|upstream| format!("{upstream:?}")).collect::<Vec<_>>().join(", ");
        let message = format!(
            "the plugin `{name}` sends requests to upstreams that it has not been granted: {all}{unknown}"
        );
        let span = config.plugins.keys().find(|table| table.get_ref() == &**name).map(Spanned::span);
        let problem = span
            .filter(|_| !loaded.is_beside())
            .map_or_else(|| Problem::general(message.clone()), |span| Problem::at(span, message.clone()));
        let place = loaded.place();
        let grants = || format!("write grants = {{ upstreams = [{all}] }} {place}");
        problems.push(problem.help(misspelt.unwrap_or_else(grants)));
        return;
    }
    for upstream in missing.into_iter().filter(|upstream| upstreams.contains_key(*upstream)) {
        let place = loaded.place();
        tracing::warn!(
            plugin = %name,
            upstream,
            "`config` names an upstream that the plugin may not send requests to; if it is to, write \
             grants = {{ upstreams = [{upstream:?}] }} {place}"
        );
    }
}

/// What stands under the key `upstream`, wherever that is.
fn named_upstreams<'a>(table: &'a Table, named: &mut BTreeSet<&'a str>) {
    fn look<'a>(value: &'a Value, named: &mut BTreeSet<&'a str>) {
        match value {
            Value::Table(table) => named_upstreams(table, named),
            Value::Array(items) => items.iter().for_each(|item| look(item, named)),
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => {}
        }
    }
    for (key, value) in table {
        match value {
            Value::String(upstream) if key == "upstream" => drop(named.insert(upstream)),
            value => look(value, named),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstreams_are_found_wherever_a_configuration_names_them() {
        let table: Table = toml::from_str(
            "rules = [{ share = 0.1, upstream = 'a' }, { path = '/', upstream = 'b' }]\nother = { upstream = 'c' }\n\
             upstreams = ['d']\nto = 'e'",
        )
        .unwrap();
        let mut named = BTreeSet::new();
        named_upstreams(&table, &mut named);
        assert_eq!(named.into_iter().collect::<Vec<_>>(), ["a", "b", "c"]);
    }
}
