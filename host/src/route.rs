//! Which route is this request for?
//!
//! Compiled from the configuration when a generation is built: a hash map of hosts, and below each a trie
//! of path segments. A request pays for the segments of its own path, not for the number of routes.

use http::{HeaderMap, HeaderName, Method};
use rustc_hash::FxHashMap;

use crate::path;

/// What a route asks of a request. Empty lists ask nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Match {
    pub host: Host,
    /// Whole segments of a prefix of the path; `/v1` and `/v1/` are the same.
    pub path: String,
    pub methods: Vec<Method>,
    /// Each header must have this value in one of its fields.
    pub headers: Vec<(HeaderName, String)>,
}

/// Which hosts a route serves. Names are in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Host {
    #[default]
    Any,
    Exact(String),
    /// Every name below this one.
    Below(String),
}

/// All routes, ready to be asked. Routes are known by their place in the configuration.
///
/// Among the routes that match, an exact host goes before a wildcard, a longer wildcard before a shorter
/// one and any of them before a route for all hosts; then the longer path; then more headers; then a route
/// that names methods; then the one written first.
#[derive(Debug, Default)]
pub struct Table {
    exact: FxHashMap<Box<str>, Node>,
    below: FxHashMap<Box<str>, Node>,
    any: Node,
}

/// A place in the trie of path segments.
#[derive(Debug, Default)]
struct Node {
    children: FxHashMap<Box<str>, Node>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    methods: Vec<Method>,
    headers: Vec<(HeaderName, String)>,
    route: usize,
}

impl Table {
    /// Adds a route. Fails with the route that asks the very same, after which this one could never match.
    pub fn insert(&mut self, rule: Match, route: usize) -> Result<(), usize> {
        let mut node = match rule.host {
            Host::Any => &mut self.any,
            Host::Exact(host) => self.exact.entry(host.into()).or_default(),
            Host::Below(host) => self.below.entry(host.into()).or_default(),
        };
        for segment in rule.path.split('/').filter(|segment| !segment.is_empty()) {
            node = node.children.entry(path::comparable(segment).into()).or_default();
        }
        let entry = Entry { methods: rule.methods, headers: rule.headers, route };
        if let Some(same) = node.entries.iter().find(|other| other.asks_the_same(&entry)) {
            return Err(same.route);
        }
        let index = node.entries.partition_point(|other| other.rank() >= entry.rank());
        node.entries.insert(index, entry);
        Ok(())
    }

    /// The route for a request to `host` (lower case, no port; empty if there is none) and the canonical `path`.
    pub fn find(&self, host: &str, path: &str, method: &Method, headers: &HeaderMap) -> Option<usize> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let find = |node: &Node| node.find(path, method, headers);
        if !self.exact.is_empty()
            && let Some(route) = self.exact.get(host).and_then(find)
        {
            return Some(route);
        }
        if !self.below.is_empty() {
            let mut name = host;
            while let Some((_, parent)) = name.split_once('.') {
                if let Some(route) = self.below.get(parent).and_then(find) {
                    return Some(route);
                }
                name = parent;
            }
        }
        find(&self.any)
    }

    /// The routes that were near, the nearest first, each with what it did not like; up to so many. One that has no
    /// objection stands where [`Table::find`] would have come to it, so the first of those is the one that it finds.
    pub fn near(
        &self,
        host: &str,
        path: &str,
        method: &Method,
        headers: &HeaderMap,
        most: usize,
    ) -> Vec<(usize, Option<Objection>)> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let of_host = std::iter::successors(host.split_once('.').map(|(_, parent)| parent), |name| {
            name.split_once('.').map(|(_, parent)| parent)
        })
        .filter_map(|parent| self.below.get(parent));
        let of_host = self.exact.get(host).into_iter().chain(of_host).chain([&self.any]);
        let asked: Vec<&Node> = of_host.collect();
        let on_path = asked.iter().flat_map(|node| node.along(path));
        let weighed = |entry: &Entry| (entry.route, entry.objection(method, headers));
        let mut near: Vec<_> = on_path.map(weighed).take(most).collect();
        let others = self.exact.values().chain(self.below.values());
        let others = others.filter(|node| !asked.iter().any(|asked| std::ptr::eq(*asked, *node)));
        let mut elsewhere: Vec<_> = others
            .flat_map(|node| node.along(path))
            .map(|entry| (entry.route, Some(Objection::Host)))
            .chain(
                asked
                    .iter()
                    .flat_map(|node| node.below())
                    .filter(|entry| !near.iter().any(|(route, _)| *route == entry.route))
                    .map(|entry| (entry.route, Some(Objection::Path))),
            )
            .collect();
        elsewhere.sort_by_key(|(route, _)| *route);
        near.extend(elsewhere.into_iter().take(most.saturating_sub(near.len())));
        near
    }
}

/// Why a route does not want a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Objection {
    Host,
    Path,
    Method,
    Header(HeaderName),
}

impl Node {
    /// The deepest entry along `path` that agrees with method and headers.
    ///
    /// Goes no deeper than the trie, whatever the length of the path.
    fn find(&self, path: &str, method: &Method, headers: &HeaderMap) -> Option<usize> {
        if let Some((child, rest)) = self.child(path)
            && let Some(route) = child.find(rest, method, headers)
        {
            return Some(route);
        }
        self.entries.iter().find(|entry| entry.objection(method, headers).is_none()).map(|entry| entry.route)
    }

    /// What is one segment further along `path`, and the rest of it.
    fn child<'a>(&self, path: &'a str) -> Option<(&Node, &'a str)> {
        if self.children.is_empty() {
            return None;
        }
        let (segment, rest) = path.split_once('/').unwrap_or((path, ""));
        let segment = path::comparable(segment);
        // `/admin;x=1` is `/admin` to some servers: it must not get past what guards `/admin`.
        let short = || self.children.get(path::shortened(&segment)?);
        self.children.get(&*segment).or_else(short).map(|child| (child, rest))
    }

    /// All entries along `path`, the deepest first.
    fn along(&self, path: &str) -> Vec<&Entry> {
        let (mut nodes, mut rest) = (vec![self], path);
        while let Some((child, after)) = nodes[nodes.len() - 1].child(rest) {
            nodes.push(child);
            rest = after;
        }
        nodes.iter().rev().flat_map(|node| &node.entries).collect()
    }

    /// All entries from here on.
    fn below(&self) -> Vec<&Entry> {
        let mut found: Vec<_> = self.entries.iter().collect();
        found.extend(self.children.values().flat_map(Node::below));
        found
    }
}

impl Entry {
    /// What it does not like about a request, if anything.
    fn objection(&self, method: &Method, headers: &HeaderMap) -> Option<Objection> {
        if !self.methods.is_empty() && !self.methods.contains(method) {
            return Some(Objection::Method);
        }
        let is_there = |(name, value): &&(HeaderName, String)| {
            headers.get_all(name).iter().any(|field| field.as_bytes() == value.as_bytes())
        };
        let missing = self.headers.iter().find(|header| !is_there(header));
        missing.map(|(name, _)| Objection::Header(name.clone()))
    }

    fn rank(&self) -> (usize, bool) {
        (self.headers.len(), !self.methods.is_empty())
    }

    fn asks_the_same(&self, other: &Self) -> bool {
        let is_within = |a: &[Method], b: &[Method]| a.iter().all(|method| b.contains(method));
        self.headers == other.headers
            && is_within(&self.methods, &other.methods)
            && is_within(&other.methods, &self.methods)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn rule(host: &str, path: &str) -> Match {
        let host = match host.strip_prefix("*.") {
            Some(parent) => Host::Below(parent.into()),
            None if host.is_empty() => Host::Any,
            None => Host::Exact(host.into()),
        };
        Match { host, path: path.into(), ..Match::default() }
    }

    fn table(rules: impl IntoIterator<Item = Match>) -> Table {
        let mut table = Table::default();
        for (route, rule) in rules.into_iter().enumerate() {
            table.insert(rule, route).expect("no two rules are the same");
        }
        table
    }

    #[test]
    fn the_closest_host_wins_and_then_the_longest_path() {
        let table = table([
            rule("", "/"),
            rule("", "/api"),
            rule("example.com", "/"),
            rule("*.example.com", "/"),
            rule("*.eu.example.com", "/"),
            rule("example.com", "/api/v1/"),
        ]);
        for (host, path, expected) in [
            ("other.org", "/", 0),
            ("other.org", "/api", 1),
            ("other.org", "/api/x", 1),
            ("other.org", "/apix", 0),
            ("", "/api/", 1),
            ("example.com", "/api", 2),
            ("example.com", "/api/v1", 5),
            ("example.com", "/api/v1/users", 5),
            ("example.com", "/api/v10", 2),
            ("example.com", "/api;x=1/v1;y", 5),
            ("example.com", "/api%3Bx/v1%3Fy", 5),
            ("example.com", "/api./v1%20/x", 5),
            ("example.com", "/api::$INDEX_ALLOCATION/v1", 5),
            ("a.example.com", "/", 3),
            ("b.a.example.com", "/", 3),
            ("b.eu.example.com", "/", 4),
            ("eu.example.com", "/", 3),
            ("notexample.com", "/", 0),
        ] {
            let found = table.find(host, path, &Method::GET, &HeaderMap::new());
            assert_eq!(found, Some(expected), "{host}{path}");
        }
    }

    #[test]
    fn methods_and_headers_choose_among_equals_and_fall_back_to_shorter_paths() {
        let beta = vec![(HeaderName::from_static("x-beta"), "1".to_owned())];
        let table = table([
            Match { methods: vec![Method::GET], ..rule("", "/a") },
            Match { headers: beta.clone(), ..rule("", "/a") },
            Match { headers: beta, methods: vec![Method::PUT], ..rule("", "/a") },
            rule("", "/"),
        ]);
        let mut with_beta = HeaderMap::new();
        with_beta.append("x-beta", HeaderValue::from_static("0"));
        with_beta.append("x-beta", HeaderValue::from_static("1"));
        for (method, headers, expected) in [
            (Method::GET, &HeaderMap::new(), 0),
            (Method::POST, &HeaderMap::new(), 3),
            (Method::GET, &with_beta, 1),
            (Method::PUT, &with_beta, 2),
        ] {
            assert_eq!(table.find("", "/a/b", &method, headers), Some(expected), "{method}");
        }
    }

    #[test]
    fn what_was_near_is_told_with_its_objection_and_agrees_with_what_is_found() {
        let beta = vec![(HeaderName::from_static("x-beta"), "1".to_owned())];
        let table = table([
            rule("", "/"),
            rule("example.com", "/"),
            rule("*.example.com", "/api"),
            Match { methods: vec![Method::PUT], ..rule("example.com", "/api") },
            Match { headers: beta, ..rule("example.com", "/api") },
            rule("other.org", "/api/v1"),
        ]);
        let near = |host, path| table.near(host, path, &Method::GET, &HeaderMap::new(), 8);
        let missing = Some(Objection::Header(HeaderName::from_static("x-beta")));
        assert_eq!(
            near("example.com", "/api/v1"),
            [
                (4, missing),
                (3, Some(Objection::Method)),
                (1, None),
                (0, None),
                (2, Some(Objection::Host)),
                (5, Some(Objection::Host)),
            ]
        );
        assert_eq!(table.near("example.com", "/api/v1", &Method::GET, &HeaderMap::new(), 2).len(), 2);
        for host in ["", "example.com", "a.example.com", "b.a.example.com", "other.org", "nobody"] {
            for path in ["/", "/api", "/api;x", "/api/v1/x", "/elsewhere"] {
                for method in [Method::GET, Method::PUT] {
                    let found = table.find(host, path, &method, &HeaderMap::new());
                    let near = table.near(host, path, &method, &HeaderMap::new(), usize::MAX);
                    let first = near.iter().find(|(_, objection)| objection.is_none());
                    assert_eq!(first.map(|(route, _)| *route), found, "{method} {host}{path}");
                }
            }
        }
    }

    #[test]
    fn it_does_not_matter_whether_a_character_is_encoded() {
        let table = table([rule("", "/@admin/a%2Bb"), rule("", "/")]);
        for (path, expected) in [
            ("/@admin/a+b", 0),
            ("/%40admin/a+b/c", 0),
            ("/%40admin/a%2Bb", 0),
            ("/%40admin", 1),
            ("/%2540admin/a+b", 1),
        ] {
            assert_eq!(table.find("", path, &Method::GET, &HeaderMap::new()), Some(expected), "{path}");
        }
    }

    #[test]
    fn a_request_that_no_route_wants_has_none() {
        let table = table([rule("example.com", "/a")]);
        assert_eq!(table.find("example.com", "/b", &Method::GET, &HeaderMap::new()), None);
        assert_eq!(table.find("", "/a", &Method::GET, &HeaderMap::new()), None);
    }

    #[test]
    fn a_route_that_could_never_match_is_refused() {
        let mut table = table([rule("", "/a/")]);
        assert_eq!(table.insert(rule("", "/a"), 1), Err(0));
    }
}
