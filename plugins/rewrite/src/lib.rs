//! Which path and query does the upstream get?

use serde::Deserialize;
use tollgate_plugin_sdk::{
    OnRequest, Pattern, Plugin, Problem, Template, Verdict, config, log, request,
    template::{Beginning, Variable},
};

/// Rules, of which the first that matches counts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rewrite {
    rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Of the path.
    from: Pattern,
    /// A path, or a path and a query. A path alone keeps the query of the request.
    to: Template,
}

impl Plugin for Rewrite {
    fn configure(text: &str) -> Result<Self, String> {
        let rewrite: Self = config::read(text)?;
        if rewrite.rules.is_empty() {
            return Err("`rules` in `config` is empty: write one, such as { from = \"/old/(.*)\", to = \"/new/{1}\" }"
                .to_owned());
        }
        for (place, rule) in rewrite.rules.iter().enumerate() {
            if let Some(variable) = rule.from.lacks(&rule.to) {
                return Err(format!("`rules[{place}].to` in `config`: there is no {variable} here"));
            }
            check(&rule.to).map_err(|reason| format!("`rules[{place}].to` in `config`: {reason}"))?;
        }
        Ok(rewrite)
    }
}

/// Why nothing that the template becomes could be a path.
fn check(to: &Template) -> Result<(), &'static str> {
    match to.beginning() {
        Some(Beginning::Text(text)) if text.starts_with('/') => {}
        Some(Beginning::Variable(variable)) if variable.begins_with().is_none_or(|start| start == "/") => {}
        Some(_) | None => return Err("is not a path, which begins with `/`"),
    }
    if to.texts().any(|text| text.bytes().any(|byte| !byte.is_ascii_graphic())) {
        return Err("has a character that a path cannot hold: percent-encode it");
    }
    if to.texts().any(|text| text.contains('#')) {
        return Err("has a `#`, and a fragment is not sent to a server");
    }
    let path = to.texts().scan(true, |is_path, text| {
        is_path.then(|| {
            let path = text.split('?').next().unwrap_or_default();
            *is_path = path.len() == text.len();
            path.to_ascii_lowercase()
        })
    });
    // As in every path that a client may send.
    if path.into_iter().any(|text| ["%2f", "%5c", "%00", "\\"].iter().any(|hidden| text.contains(hidden))) {
        return Err("has a separator that is encoded or a backslash, which no path that is forwarded has");
    }
    Ok(())
}

impl OnRequest for Rewrite {
    fn on_request(&self) -> Verdict {
        let Some(target) = self.target(&request::path(), request::query().as_deref(), Variable::value) else {
            return Verdict::Next;
        };
        match request::set_target(&target) {
            Ok(()) => Verdict::Next,
            Err(error) => {
                // Where it would have gone is not where the operator wants it to go.
                log::write(
                    log::Level::Warn,
                    &format!("no target can be made of this request: {}", error.name()),
                );
                Verdict::Reply(Problem::new(400, "Bad Request", "this path cannot be served").reply())
            }
        }
    }
}

impl Rewrite {
    fn target(
        &self,
        path: &str,
        query: Option<&str>,
        value: impl Fn(&Variable) -> Option<String>,
    ) -> Option<String> {
        let target = self.rules.iter().find_map(|rule| rule.from.replace(path, &rule.to, &value))?;
        Some(match query {
            Some(query) if !target.contains('?') => format!("{target}?{query}"),
            _ => target,
        })
    }
}

tollgate_plugin_sdk::export!(Rewrite: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_rule_that_matches_makes_the_target() {
        let rewrite = Rewrite::configure(
            r#"{"rules":[
                {"from":"/old/(.*)","to":"/new/{1}"},
                {"from":"/find/([^/]+)","to":"/search?q={1}&in={authority}"},
                {"from":"/old/.*","to":"/never"},
                {"from":"/item/(?<id>[0-9]+)","to":"/items?id={id}"},
                {"from":"/(?<path>[^/]+)/x","to":"{path}?next=%2F{path}"},
                {"from":"(/y)","to":"{1}/z"}
            ]}"#,
        )
        .expect("the configuration is valid");
        for (path, query, target) in [
            ("/old/a/b", None, Some("/new/a/b")),
            ("/old/a", Some("x=1"), Some("/new/a?x=1")),
            ("/find/cats", Some("x=1"), Some("/search?q=cats&in={authority}")),
            ("/other", None, None),
            ("/item/7", None, Some("/items?id=7")),
            ("/a/x", None, Some("a?next=%2Fa")),
            ("/y", None, Some("/y/z")),
        ] {
            let made = rewrite.target(path, query, |variable| Some(variable.to_string()));
            assert_eq!(made.as_deref(), target, "{path}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "the key `rules` is missing"),
            (r#"{"rules":[]}"#, "`rules` in `config` is empty"),
            (r#"{"rules":[{"from":"(","to":"/"}]}"#, "`rules[0].from` in `config`: is no regular expression"),
            (r#"{"rules":[{"from":"/a","to":"b"}]}"#, "`rules[0].to` in `config`: is not a path"),
            (r#"{"rules":[{"from":"/a","to":""}]}"#, "`rules[0].to` in `config`: is not a path"),
            (r#"{"rules":[{"from":"/a","to":"?q={path}"}]}"#, "`rules[0].to` in `config`: is not a path"),
            (r#"{"rules":[{"from":"/a","to":"http://b/"}]}"#, "`rules[0].to` in `config`: is not a path"),
            (
                r#"{"rules":[{"from":"/a","to":"{authority}{path}"}]}"#,
                "`rules[0].to` in `config`: is not a path",
            ),
            (r#"{"rules":[{"from":"/a","to":"/b c"}]}"#, "has a character that a path cannot hold"),
            (r#"{"rules":[{"from":"/a","to":"/b#c"}]}"#, "has a `#`"),
            (r#"{"rules":[{"from":"/a","to":"/b%2Fc"}]}"#, "has a separator that is encoded"),
            (r#"{"rules":[{"from":"/","to":"/{1}"}]}"#, "`rules[0].to` in `config`: there is no {1} here"),
            (
                r#"{"rules":[{"from":"/","to":"/{status}"}]}"#,
                "`rules[0].to` in `config`: there is no {status} here",
            ),
        ] {
            let refusal = Rewrite::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
