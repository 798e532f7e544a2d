//! Where is a client to go instead?

use serde::Deserialize;
use tollgate_plugin_sdk::{
    OnRequest, Pattern, Plugin, Problem, Reply, Template, Verdict, config, log, request,
    template::{Beginning, Variable},
};

/// Rules, of which the first that matches counts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Redirect {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Rule {
    /// Of the path.
    #[serde(default = "Pattern::any")]
    from: Pattern,
    /// Of the host that the client asked for, with its port if it named one; every host if absent.
    #[serde(default)]
    host: Option<Pattern>,
    /// `http` or `https`: how the client came; both if absent.
    #[serde(default)]
    scheme: Option<Scheme>,
    /// A URL, or a path on the same host.
    to: Template,
    #[serde(default)]
    status: Status,
    /// Whether the query of the request goes along, where `to` has none.
    #[serde(default = "yes")]
    keep_query: bool,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scheme {
    Http,
    Https,
}

/// RFC 9110, sections 15.4.2 to 15.4.9, without those that say something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "u16")]
struct Status(u16);

impl Default for Status {
    fn default() -> Self {
        Self(308)
    }
}

impl TryFrom<u16> for Status {
    type Error = &'static str;

    fn try_from(status: u16) -> Result<Self, Self::Error> {
        matches!(status, 301 | 302 | 303 | 307 | 308)
            .then_some(Self(status))
            .ok_or("is no redirection: write 301, 302, 303, 307 or 308")
    }
}

impl Plugin for Redirect {
    fn configure(text: &str) -> Result<Self, String> {
        let redirect: Self = config::read(text)?;
        if redirect.rules.is_empty() {
            return Err("`rules` in `config` is empty: write one, such as { from = \"/old/(.*)\", to = \"/new/{1}\" }"
                .to_owned());
        }
        for (place, rule) in redirect.rules.iter().enumerate() {
            if let Some(variable) = rule.from.lacks(&rule.to) {
                return Err(format!("`rules[{place}].to` in `config`: there is no {variable} here"));
            }
            check(&rule.to).map_err(|reason| format!("`rules[{place}].to` in `config`: {reason}"))?;
        }
        Ok(redirect)
    }
}

/// What of a request decides.
struct Asked<'a> {
    scheme: &'a str,
    host: &'a str,
    path: &'a str,
    query: Option<&'a str>,
}

impl OnRequest for Redirect {
    fn on_request(&self) -> Verdict {
        let (scheme, host, path, query) =
            (request::scheme(), request::authority(), request::path(), request::query());
        let asked = Asked { scheme: &scheme, host: &host, path: &path, query: query.as_deref() };
        let Some((status, location)) = self.location(&asked, Variable::value) else { return Verdict::Next };
        if !is_location(&location) {
            // Let through, it would be served where the rule says that it is not.
            log::write(log::Level::Warn, "no URL can be made of this request");
            let problem = match location.len() > LONGEST {
                true => Problem::new(414, "URI Too Long", "this target is too long to be redirected"),
                false => Problem::new(400, "Bad Request", "this target cannot be redirected"),
            };
            return Verdict::Reply(problem.reply());
        }
        Verdict::Reply(Reply { status, headers: vec![("location".to_owned(), location)], body: Vec::new() })
    }
}

impl Redirect {
    fn location(
        &self,
        asked: &Asked<'_>,
        value: impl Fn(&Variable) -> Option<String>,
    ) -> Option<(u16, String)> {
        self.rules.iter().find_map(|rule| {
            let is_meant = rule.host.as_ref().is_none_or(|host| host.is_match(asked.host))
                && rule.scheme.is_none_or(|scheme| (scheme == Scheme::Https) == (asked.scheme == "https"));
            let location = rule.from.replace(asked.path, &rule.to, &value).filter(|_| is_meant)?;
            let location = match asked.query {
                Some(query) if rule.keep_query && !location.contains('?') => with_query(&location, query),
                _ => location,
            };
            Some((rule.status.0, location))
        })
    }
}

/// The URL with this query, in front of its fragment if it has one (RFC 3986, section 3).
fn with_query(url: &str, query: &str) -> String {
    let (url, fragment) = url.split_at(url.find('#').unwrap_or(url.len()));
    format!("{url}?{query}{fragment}")
}

/// Why nothing that the template becomes could be told to a client.
fn check(to: &Template) -> Result<(), &'static str> {
    let is_place = match to.beginning() {
        Some(Beginning::Text(text)) => {
            let host = ["http://", "https://"].iter().find_map(|scheme| text.strip_prefix(scheme));
            let is_path = text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/\\");
            is_path || host.is_some_and(|host| !host.starts_with(['/', '?', '#', '\\']))
        }
        Some(Beginning::Variable(variable)) => variable.begins_with().is_none_or(|start| !start.is_empty()),
        None => false,
    };
    if !is_place {
        return Err("is neither a URL of `http` or `https` nor a path that begins with one `/`");
    }
    if to.texts().any(|text| text.bytes().any(|byte| !byte.is_ascii_graphic())) {
        return Err("has a character that a URL cannot hold: percent-encode it");
    }
    Ok(())
}

/// Bytes of a URL; RFC 9110, section 4.1, asks for 8,000 at least.
const LONGEST: usize = 8 << 10;

/// Whether a client can be told this: text that a URL can hold, and none that sends it to another host by surprise, as
/// `//evil.example` would that was made of a path.
fn is_location(location: &str) -> bool {
    let is_text = location.len() <= LONGEST && location.bytes().all(|byte| byte.is_ascii_graphic());
    let is_path = location.starts_with('/') && !location.starts_with("//") && !location.starts_with("/\\");
    let is_url = ["http://", "https://"].iter().any(|scheme| location.starts_with(scheme));
    is_text && (is_path || is_url)
}

tollgate_plugin_sdk::export!(Redirect: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_says_where_to_go() {
        let redirect = Redirect::configure(
            r#"{"rules":[
                {"scheme":"http","host":"secure\\..*","to":"https://{authority}{path}"},
                {"from":"/old/(.*)","to":"/new/{1}","status":301},
                {"from":"/find","to":"/search?all","status":302},
                {"from":"/docs","to":"/manual#top"},
                {"host":"example\\.org","to":"https://example.com{path}","keep-query":false}
            ]}"#,
        )
        .expect("the configuration is valid");
        for (scheme, host, path, query, answer) in [
            ("http", "secure.example", "/a", Some("b"), Some((308, "https://{authority}{path}?b"))),
            ("https", "secure.example", "/a", None, None),
            ("http", "a.example", "/old/b", Some("c=d"), Some((301, "/new/b?c=d"))),
            ("http", "a.example", "/docs", Some("c=d"), Some((308, "/manual?c=d#top"))),
            ("http", "a.example", "/docs", None, Some((308, "/manual#top"))),
            ("http", "a.example", "/find", Some("c=d"), Some((302, "/search?all"))),
            ("http", "example.org", "/x", Some("c=d"), Some((308, "https://example.com{path}"))),
            ("http", "a.example", "/x", None, None),
        ] {
            let asked = Asked { scheme, host, path, query };
            let location = redirect.location(&asked, |variable| Some(variable.to_string()));
            assert_eq!(location, answer.map(|(status, to)| (status, to.to_owned())), "{host}{path}");
        }
    }

    #[test]
    fn nobody_is_sent_to_another_host_by_surprise() {
        for (location, is) in [
            ("/a?b", true),
            ("https://a/b", true),
            ("//evil.example", false),
            ("/\\evil.example", false),
            ("javascript:alert(1)", false),
            ("", false),
            ("/a b", false),
            ("/a\r\nx: y", false),
            ("/\u{e9}", false),
        ] {
            assert_eq!(is_location(location), is, "{location:?}");
        }
        assert!(!is_location(&format!("/{}", "a".repeat(LONGEST))));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            (r#"{"rules":[]}"#, "`rules` in `config` is empty"),
            (r#"{"rules":[{"to":"ftp://a/"}]}"#, "`rules[0].to` in `config`: is neither a URL"),
            (r#"{"rules":[{"to":"//evil.example"}]}"#, "`rules[0].to` in `config`: is neither a URL"),
            (r#"{"rules":[{"to":"b"}]}"#, "`rules[0].to` in `config`: is neither a URL"),
            (r#"{"rules":[{"to":""}]}"#, "`rules[0].to` in `config`: is neither a URL"),
            (r#"{"rules":[{"to":"https:///a"}]}"#, "`rules[0].to` in `config`: is neither a URL"),
            (r#"{"rules":[{"to":"{authority}/a"}]}"#, "`rules[0].to` in `config`: is neither a URL"),
            (r#"{"rules":[{"to":"/b c"}]}"#, "has a character that a URL cannot hold"),
            (r#"{"rules":[{"to":"/","status":200}]}"#, "`rules[0].status` in `config`: is no redirection"),
            (r#"{"rules":[{"to":"/","scheme":"ftp"}]}"#, "`rules[0].scheme` in `config`: expected"),
            (r#"{"rules":[{"to":"/{1}"}]}"#, "`rules[0].to` in `config`: there is no {1} here"),
        ] {
            let refusal = Redirect::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
