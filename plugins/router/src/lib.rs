//! Which upstream is this request for?

mod rule;

use rule::{InHand, Rule};
use serde::Deserialize;
use tollgate_plugin_sdk::{OnRequest, Plugin, Verdict, config};

/// Rules, of which the first counts whose conditions all hold. Without one the route's upstream serves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Router {
    rules: Vec<Rule>,
}

impl Plugin for Router {
    fn configure(text: &str) -> Result<Self, String> {
        let router: Self = config::read(text)?;
        for (place, rule) in router.rules.iter().enumerate() {
            rule.check().map_err(|reason| format!("`rules[{place}]` in `config`: {reason}"))?;
        }
        if router.rules.is_empty() {
            return Err("`rules` in `config` is empty: write one, such as { header = { x-beta = \"1\" }, upstream = \"beta\" }"
                .to_owned());
        }
        Ok(router)
    }
}

impl OnRequest for Router {
    fn on_request(&self) -> Verdict {
        match self.rules.iter().find(|rule| rule.holds(&InHand)) {
            Some(rule) => Verdict::Forward(rule.upstream.clone()),
            None => Verdict::Next,
        }
    }
}

tollgate_plugin_sdk::export!(Router: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "the key `rules` is missing"),
            (r#"{"rules":[]}"#, "`rules` in `config` is empty"),
            (r#"{"rules":[{"header":{"a":"1"}}]}"#, "`rules[0]` in `config`: the key `upstream` is missing"),
            (r#"{"rules":[{"upstream":"a"}]}"#, "`rules[0]` in `config`: has no condition"),
            (
                r#"{"rules":[{"upstream":"a","methods":["get"]}]}"#,
                "`rules[0].methods[0]` in `config`: `get` is a method that no client sends",
            ),
            (r#"{"rules":[{"upstream":"a","share":1.5}]}"#, "`share` is a part of 1"),
            (r#"{"rules":[{"upstream":"a","share":0.5,"by":"weather"}]}"#, "expected"),
            (r#"{"rules":[{"upstream":"a","by":"client"}]}"#, "`by` is of no use without `share`"),
            (r#"{"rules":[{"upstream":"a","headr":{"a":"1"}}]}"#, "unknown key `headr`"),
            (r#"{"rules":[{"upstream":"a","header":{"a b":"1"}}]}"#, "`a b` is not the name of a header"),
        ] {
            let refusal = Router::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
