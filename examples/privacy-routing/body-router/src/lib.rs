//! To whom may this request be shown, by what is in it?
//!
//! As the plugin in `router/`, for clients that say in their JSON and not in a header which privacy policy they need. Where
//! the JSON holds personal data, it stays in the region, whatever the client says.

mod pointer;

use std::collections::BTreeMap;

use pointer::Pointer;
use serde::Deserialize;
use serde_json::Value;
use tollgate_plugin_sdk::{Document, OnRequest, Plugin, Problem, Verdict, body, config, request};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BodyRouter {
    /// Where the policy stands.
    policy: Pointer,
    /// The upstream of each policy.
    policies: BTreeMap<String, String>,
    /// Where personal data may stand.
    #[serde(default)]
    personal: Vec<Pointer>,
    /// The upstream that it goes to.
    #[serde(default)]
    region: Option<String>,
}

impl Plugin for BodyRouter {
    fn configure(text: &str) -> Result<Self, String> {
        let router: Self = config::read(text)?;
        if router.policies.is_empty() {
            let example = "{ 111 = \"policy-111\" }";
            return Err(format!("`policies` in `config` is empty: write one, such as {example}"));
        }
        if router.personal.is_empty() != router.region.is_none() {
            return Err("`personal` and `region` in `config` go together: \
                which data is personal, and the upstream that it goes to"
                .to_owned());
        }
        Ok(router)
    }
}

impl OnRequest for BodyRouter {
    fn on_request(&self) -> Verdict {
        let decided = match (request::header("content-encoding"), body::request_body()) {
            (Some(_), _) => {
                Err(Problem::new(415, "Unsupported Media Type", "the body must not be compressed"))
            }
            (None, Ok(content)) => self.decide(&content).map(str::to_owned),
            (None, Err(body::Error::TooLarge)) => {
                Err(Problem::new(413, "Content Too Large", "the body is too long to be looked at"))
            }
            (None, Err(_)) => Err(Problem::new(400, "Bad Request", "the body has not come")),
        };
        match decided {
            Ok(upstream) => Verdict::Forward(upstream),
            Err(problem) => Verdict::Reply(problem.reply()),
        }
    }
}

impl BodyRouter {
    /// The upstream for a request with this body. Without a policy, only personal data has somewhere to go.
    fn decide(&self, content: &[u8]) -> Result<&str, Problem> {
        let bad = |detail: String| Problem::new(400, "Bad Request", detail);
        let document = serde_json::from_slice::<Document>(content)
            .map_err(|error| bad(format!("the body is not as it must be: {error}")))?;
        let named = match self.policy.find(&document).as_slice() {
            [] | [Value::Null] => None,
            [Value::String(policy)] => Some(policy.clone()),
            [Value::Number(policy)] => Some(policy.to_string()),
            _ => return Err(bad("the privacy policy is a text or a number, and there is one".to_owned())),
        };
        let known = |policy: String| {
            let upstream = self.policies.get(&policy).map(String::as_str);
            upstream
                .ok_or_else(|| Problem::new(403, "Forbidden", "no server here keeps to this privacy policy"))
        };
        let named = named.map(known).transpose()?;
        let is_personal =
            self.personal.iter().any(|pointer| pointer.find(&document).iter().any(|data| !data.is_null()));
        let region = self.region.as_deref().filter(|_| is_personal);
        match (named, region) {
            (Some(named), Some(region)) if named != region => Err(Problem::new(
                403,
                "Forbidden",
                "personal data may not go to servers of this privacy policy",
            )),
            (_, Some(upstream)) | (Some(upstream), None) => Ok(upstream),
            (None, None) => Err(bad("say in the body which privacy policy this request needs".to_owned())),
        }
    }
}

tollgate_plugin_sdk::export!(BodyRouter: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"policy":"/privacy/policy","policies":{"111":"policy-111","222":"policy-222"},
        "personal":["/customer/email","/people/*/born"],"region":"policy-111"}"#;

    #[test]
    fn a_body_goes_where_its_policy_and_what_is_in_it_let_it() {
        let router = BodyRouter::configure(CONFIG).unwrap_or_else(|refusal| panic!("{refusal}"));
        for (content, expected) in [
            (r#"{"privacy":{"policy":"111"}}"#, Ok("policy-111")),
            (r#"{"privacy":{"policy":222}}"#, Ok("policy-222")),
            (r#"{"privacy":{"policy":"333"}}"#, Err(403)),
            (r#"{"privacy":{"policy":["111"]}}"#, Err(400)),
            (r#"{"customer":{"email":"ann@example.com"}}"#, Ok("policy-111")),
            (r#"{"people":[{},{"born":1980}]}"#, Ok("policy-111")),
            (r#"{"people":[{},{"born":null}]}"#, Err(400)),
            (r#"{"customer":{"email":"ann@example.com"},"privacy":{"policy":"111"}}"#, Ok("policy-111")),
            (r#"{"customer":{"email":"ann@example.com"},"privacy":{"policy":"222"}}"#, Err(403)),
            (
                r#"{"customer":{"email":"ann@example.com"},"customer":{},"privacy":{"policy":"222"}}"#,
                Err(400),
            ),
            ("{}", Err(400)),
            ("", Err(400)),
            ("privacy", Err(400)),
        ] {
            let decided = router.decide(content.as_bytes()).map_err(|problem| problem.status);
            assert_eq!(decided, expected, "{content}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (config, reason) in [
            ("{}", "the key `policy` is missing"),
            (r#"{"policy":"policy","policies":{"1":"a"}}"#, "`policy` in `config`: is no JSON pointer"),
            (r#"{"policy":"/p","policies":{}}"#, "`policies` in `config` is empty"),
            (r#"{"policy":"/p","policies":{"1":"a"},"region":"a"}"#, "`personal` and `region`"),
            (r#"{"policy":"/p","policies":{"1":"a"},"personal":["/a"]}"#, "`personal` and `region`"),
        ] {
            let refusal = BodyRouter::configure(config).expect_err(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
