//! Which path and query does the upstream get?

use serde::Deserialize;
use tollgate_plugin_sdk::{
    OnRequest, Pattern, Plugin, Problem, Template, Verdict, config, log, request, template::Variable,
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
        }
        Ok(rewrite)
    }
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
                {"from":"/old/.*","to":"/never"}
            ]}"#,
        )
        .expect("the configuration is valid");
        for (path, query, target) in [
            ("/old/a/b", None, Some("/new/a/b")),
            ("/old/a", Some("x=1"), Some("/new/a?x=1")),
            ("/find/cats", Some("x=1"), Some("/search?q=cats&in={authority}")),
            ("/other", None, None),
        ] {
            let made = rewrite.target(path, query, |variable| Some(variable.to_string()));
            assert_eq!(made.as_deref(), target, "{path}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "missing field `rules`"),
            (r#"{"rules":[]}"#, "`rules` in `config` is empty"),
            (r#"{"rules":[{"from":"(","to":"/"}]}"#, "`rules[0].from` in `config`: is no regular expression"),
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
