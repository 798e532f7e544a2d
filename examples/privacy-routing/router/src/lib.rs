//! To whom may this request be shown?
//!
//! A client says in a header which privacy policy it needs. Each policy has an upstream of its own, so a request never
//! comes to a server that has not promised to keep to it.

use std::collections::BTreeMap;

use serde::Deserialize;
use tollgate_plugin_sdk::{OnRequest, Plugin, Problem, Verdict, config, request};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PrivacyRouter {
    /// Where the policy stands.
    #[serde(default = "default_header")]
    header: String,
    /// The upstream of each policy.
    policies: BTreeMap<String, String>,
}

fn default_header() -> String {
    "x-privacy-policy".to_owned()
}

impl Plugin for PrivacyRouter {
    fn configure(text: &str) -> Result<Self, String> {
        let router: Self = config::read(text)?;
        if !config::is_header_name(&router.header) {
            return Err("`header` in `config` is not the name of a header".to_owned());
        }
        if router.policies.is_empty() {
            return Err(
                "`policies` in `config` is empty: write one, such as { 111 = \"policy-111\" }".to_owned()
            );
        }
        Ok(router)
    }
}

impl OnRequest for PrivacyRouter {
    fn on_request(&self) -> Verdict {
        match self.decide(&request::header_values(&self.header)) {
            Ok(upstream) => Verdict::Forward(upstream.to_owned()),
            Err(problem) => Verdict::Reply(problem.reply()),
        }
    }
}

impl PrivacyRouter {
    /// The upstream for a request with these values of the header. Without exactly one of a known policy it goes
    /// nowhere: there is no policy that everybody would agree to.
    fn decide(&self, values: &[String]) -> Result<&str, Problem> {
        let [policy] = values else {
            let detail =
                format!("say which privacy policy this request needs, once, in the header {}", self.header);
            return Err(Problem::new(400, "Bad Request", detail));
        };
        let upstream = self.policies.get(policy.trim());
        upstream
            .map(String::as_str)
            .ok_or_else(|| Problem::new(403, "Forbidden", "no server here keeps to this privacy policy"))
    }
}

tollgate_plugin_sdk::export!(PrivacyRouter: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"policies":{"111":"policy-111","222":"policy-222"}}"#;

    #[test]
    fn one_known_policy_has_an_upstream_and_nothing_else_has() {
        let router = PrivacyRouter::configure(CONFIG).unwrap();
        for (values, expected) in [
            (&["111"][..], Ok("policy-111")),
            (&[" 222 "], Ok("policy-222")),
            (&["333"], Err(403)),
            (&[""], Err(403)),
            (&["111, 222"], Err(403)),
            (&["111", "222"], Err(400)),
            (&[], Err(400)),
        ] {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            assert_eq!(router.decide(&values).map_err(|problem| problem.status), expected, "{values:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (config, reason) in [
            ("{}", "the key `policies` is missing"),
            (r#"{"policies":{}}"#, "`policies` in `config` is empty"),
            (r#"{"policies":{"1":"a"},"header":"a b"}"#, "`header` in `config`"),
            (r#"{"policies":{"1":"a"},"x":1}"#, "unknown key `x`"),
        ] {
            let refusal = PrivacyRouter::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
