//! Does a rule hold for this request?

use std::collections::BTreeMap;

use serde::Deserialize;
use tollgate_plugin_sdk::{Pattern, config, content::Method, hash, request};

/// What a request must be to go to an upstream. What is absent holds for all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Rule {
    pub(crate) upstream: String,
    #[serde(default)]
    header: BTreeMap<String, Pattern>,
    #[serde(default)]
    cookie: BTreeMap<String, Pattern>,
    #[serde(default)]
    query: BTreeMap<String, Pattern>,
    #[serde(default)]
    path: Option<Pattern>,
    #[serde(default)]
    methods: Vec<Method>,
    /// A part of 1.
    #[serde(default)]
    share: Option<f64>,
    /// By what requests belong together of which a share is taken.
    #[serde(default)]
    by: Option<By>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum By {
    Client,
    Header(String),
    Cookie(String),
    /// They do not: each is decided on its own.
    Request,
}

/// A request to be looked at.
pub(crate) trait Request {
    fn method(&self) -> String;
    fn path(&self) -> String;
    fn query(&self) -> Option<String>;
    fn header(&self, name: &str) -> Option<String>;
    fn client(&self) -> String;
    fn id(&self) -> String;
}

/// The request that the running hook is about.
pub(crate) struct InHand;

impl Request for InHand {
    fn method(&self) -> String {
        request::method()
    }

    fn path(&self) -> String {
        request::path()
    }

    fn query(&self) -> Option<String> {
        request::query()
    }

    fn header(&self, name: &str) -> Option<String> {
        request::header(name)
    }

    fn client(&self) -> String {
        request::client_address()
    }

    fn id(&self) -> String {
        request::id()
    }
}

impl Rule {
    /// Whether it says something, and all of it makes sense.
    pub(crate) fn check(&self) -> Result<(), String> {
        let Self { upstream, header, cookie, query, path, methods, share, by } = self;
        if upstream.is_empty() {
            return Err("`upstream` is empty".to_owned());
        }
        let names = [("header", header), ("cookie", cookie)];
        let by_name = by.iter().filter_map(|by| match by {
            By::Header(name) => Some(("header", name)),
            By::Cookie(name) => Some(("cookie", name)),
            By::Client | By::Request => None,
        });
        let names = names.into_iter().flat_map(|(kind, of)| of.keys().map(move |name| (kind, name)));
        if let Some((kind, name)) = names.chain(by_name).find(|(_, name)| !config::is_header_name(name)) {
            return Err(format!("`{}` is not the name of a {kind}", name.escape_debug()));
        }
        match (share, by) {
            (Some(share), _) if !(0.0..=1.0).contains(share) => {
                return Err("`share` is a part of 1: write 0.05 for five percent".to_owned());
            }
            (None, Some(_)) => return Err("`by` is of no use without `share`".to_owned()),
            _ => {}
        }
        let is_empty = header.is_empty() && cookie.is_empty() && query.is_empty() && methods.is_empty();
        if is_empty && path.is_none() && share.is_none() {
            return Err("has no condition: write `upstream` of the route instead".to_owned());
        }
        Ok(())
    }

    pub(crate) fn holds(&self, request: &impl Request) -> bool {
        let has = |value: Option<&str>, pattern: &Pattern| value.is_some_and(|value| pattern.is_match(value));
        let cookies = (!self.cookie.is_empty()).then(|| request.header("cookie")).flatten();
        let query = (!self.query.is_empty()).then(|| request.query()).flatten();
        (self.methods.is_empty() || {
            let method = request.method();
            self.methods.iter().any(|known| known.as_str() == method)
        }) && self.path.as_ref().is_none_or(|path| path.is_match(&request.path()))
            && self.header.iter().all(|(name, pattern)| has(request.header(name).as_deref(), pattern))
            && self.cookie.iter().all(|(name, pattern)| {
                has(cookies.as_deref().and_then(|cookies| pair(cookies, ';', name)), pattern)
            })
            && self.query.iter().all(|(name, pattern)| {
                has(query.as_deref().and_then(|query| pair(query, '&', name)), pattern)
            })
            && self.share.is_none_or(|share| self.is_of_share(share, request))
    }

    /// Whether the request is one of the share. Who is of a smaller share is of every greater one, so that a share can
    /// grow and nobody goes back and forth.
    fn is_of_share(&self, share: f64, request: &impl Request) -> bool {
        let key = match self.by.as_ref().unwrap_or(&By::Client) {
            By::Client => Some(request.client()),
            By::Header(name) => request.header(name),
            By::Cookie(name) => {
                let cookies = request.header("cookie");
                cookies.as_deref().and_then(|cookies| pair(cookies, ';', name)).map(str::to_owned)
            }
            By::Request => Some(request.id()),
        };
        // Who has no key is of no share, lest all of them were.
        key.is_some_and(|key| (hash(key.as_bytes()) as f64 / 2_f64.powi(64)) < share)
    }
}

/// The value of the first pair of this name in a list.
fn pair<'a>(list: &'a str, separator: char, name: &str) -> Option<&'a str> {
    list.split(separator)
        .find_map(|pair| pair.trim_matches([' ', '\t']).strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default)]
    struct Fake {
        method: &'static str,
        path: &'static str,
        query: Option<&'static str>,
        headers: Vec<(&'static str, &'static str)>,
        client: String,
    }

    impl Request for Fake {
        fn method(&self) -> String {
            self.method.to_owned()
        }

        fn path(&self) -> String {
            self.path.to_owned()
        }

        fn query(&self) -> Option<String> {
            self.query.map(str::to_owned)
        }

        fn header(&self, name: &str) -> Option<String> {
            self.headers.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        }

        fn client(&self) -> String {
            self.client.clone()
        }

        fn id(&self) -> String {
            self.client.clone()
        }
    }

    fn rule(conditions: &str) -> Rule {
        let json = conditions.replacen('{', "{\"upstream\":\"app\",", 1);
        let rule: Rule = config::read(&json).expect(conditions);
        rule.check().expect(conditions);
        rule
    }

    #[test]
    fn a_rule_holds_if_all_of_it_does() {
        let request = Fake {
            method: "GET",
            path: "/v1/users",
            query: Some("a=1&b=2"),
            headers: vec![("x-beta", "yes"), ("cookie", "sid=7; plan=gold")],
            client: "192.0.2.1".to_owned(),
        };
        for (json, holds) in [
            (r#"{"header":{"x-beta":"yes|1"}}"#, true),
            (r#"{"header":{"x-beta":"y"}}"#, false),
            (r#"{"header":{"x-beta":".*","x-none":".*"}}"#, false),
            (r#"{"cookie":{"plan":"gold"}}"#, true),
            (r#"{"cookie":{"lan":"gold"}}"#, false),
            (r#"{"query":{"b":"[0-9]+"}}"#, true),
            (r#"{"query":{"c":".*"}}"#, false),
            (r#"{"path":"/v1/.*","methods":["POST","GET"]}"#, true),
            (r#"{"path":"/v1","methods":["GET"]}"#, false),
            (r#"{"methods":["POST"]}"#, false),
            (r#"{"share":1.0}"#, true),
            (r#"{"share":0.0}"#, false),
            (r#"{"share":1.0,"by":{"header":"x-none"}}"#, false),
            (r#"{"share":1.0,"by":{"cookie":"sid"}}"#, true),
        ] {
            assert_eq!(rule(json).holds(&request), holds, "{json}");
        }
    }

    #[test]
    fn a_share_is_as_large_as_it_says_and_grows_by_others_only() {
        let (small, large) = (rule(r#"{"share":0.1}"#), rule(r#"{"share":0.3}"#));
        let mut counts = (0, 0);
        for number in 0..100_000_u32 {
            let request = Fake { client: format!("10.{}.{}", number / 256, number % 256), ..Fake::default() };
            let (of_small, of_large) = (small.holds(&request), large.holds(&request));
            assert!(of_large || !of_small);
            counts = (counts.0 + u32::from(of_small), counts.1 + u32::from(of_large));
        }
        assert!(counts.0.abs_diff(10_000) < 500 && counts.1.abs_diff(30_000) < 750, "{counts:?}");
    }
}
