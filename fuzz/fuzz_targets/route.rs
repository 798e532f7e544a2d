//! The trie finds what a look at every route finds.

#![no_main]

use arbitrary::Arbitrary;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use libfuzzer_sys::fuzz_target;
use tollgate::route::{Host, Match, Table};

/// Few words, so that they meet.
#[derive(Debug, Clone, Copy, Arbitrary)]
enum Word {
    A,
    B,
    Ab,
}

#[derive(Debug, Arbitrary)]
struct Rule {
    host: Option<(bool, Vec<Word>)>,
    path: Vec<Word>,
    has_method: Option<bool>,
    headers: Vec<(bool, bool)>,
}

#[derive(Debug, Arbitrary)]
struct Input {
    rules: Vec<Rule>,
    host: Vec<Word>,
    path: Vec<Word>,
    is_get: bool,
    headers: Vec<(bool, bool)>,
}

fn joined(words: &[Word], separator: &str) -> String {
    let text = |word: &Word| match word {
        Word::A => "a",
        Word::B => "b",
        Word::Ab => "ab",
    };
    words.iter().map(text).collect::<Vec<_>>().join(separator)
}

fn method(is_get: bool) -> Method {
    if is_get { Method::GET } else { Method::PUT }
}

fn header((name, value): (bool, bool)) -> (HeaderName, &'static str) {
    let name = HeaderName::from_static(if name { "x" } else { "y" });
    (name, if value { "1" } else { "2" })
}

fuzz_target!(|input: Input| {
    let mut table = Table::default();
    let mut rules = Vec::new();
    for (place, rule) in input.rules.iter().enumerate() {
        let mut headers: Vec<_> = rule
            .headers
            .iter()
            .map(|one| header(*one))
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        headers.sort_by(|a, b| (a.0.as_str(), &a.1).cmp(&(b.0.as_str(), &b.1)));
        headers.dedup();
        let rule = Match {
            host: match &rule.host {
                Some((_, words)) if words.is_empty() => Host::Any,
                None => Host::Any,
                Some((true, words)) => Host::Exact(joined(words, ".")),
                Some((false, words)) => Host::Below(joined(words, ".")),
            },
            path: format!("/{}", joined(&rule.path, "/")),
            methods: rule.has_method.map(method).into_iter().collect(),
            headers,
        };
        if table.insert(rule.clone(), place).is_ok() {
            rules.push((place, rule));
        }
    }
    let (host, path) = (joined(&input.host, "."), format!("/{}", joined(&input.path, "/")));
    let method = method(input.is_get);
    let mut headers = HeaderMap::new();
    for one in input.headers {
        let (name, value) = header(one);
        headers.append(name, HeaderValue::from_static(value));
    }
    let matches = |rule: &Match| {
        let host_fits = match &rule.host {
            Host::Any => true,
            Host::Exact(name) => *name == host,
            Host::Below(name) => host.ends_with(&format!(".{name}")),
        };
        let prefix = rule.path.trim_end_matches('/');
        let path_fits =
            path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let method_fits = rule.methods.is_empty() || rule.methods.contains(&method);
        let fits =
            |(name, value): &(HeaderName, String)| headers.get_all(name).iter().any(|found| found == value);
        host_fits && path_fits && method_fits && rule.headers.iter().all(fits)
    };
    let rank = |(place, rule): &&(usize, Match)| {
        let host = match &rule.host {
            Host::Any => (0, 0),
            Host::Below(name) => (1, name.len()),
            Host::Exact(_) => (2, 0),
        };
        let segments = rule.path.split('/').filter(|segment| !segment.is_empty()).count();
        (host, segments, rule.headers.len(), !rule.methods.is_empty(), usize::MAX - place)
    };
    let expected = rules.iter().filter(|(_, rule)| matches(rule)).max_by_key(rank).map(|(place, _)| *place);
    assert_eq!(table.find(&host, &path, &method, &headers), expected, "{host:?} {path:?} {rules:?}");
});
