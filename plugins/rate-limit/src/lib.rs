//! Has this client had enough for now?
//!
//! The buckets are the host's, in the plugin's store: all workers draw from the same ones, and a reload keeps them.

mod policy;

use policy::Policy;
use serde::Deserialize;
use tollgate_plugin_sdk::{HeaderValue, OnRequest, Plugin, Problem, Verdict, config, log, request, store};

#[derive(Debug)]
struct RateLimit {
    policies: Vec<Policy>,
    full: Full,
    remaining: bool,
    /// What responses say of the policies.
    announcement: HeaderValue,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    policies: Vec<Policy>,
    #[serde(default)]
    full: Full,
    /// Whether responses to requests that pass say what is left.
    #[serde(default)]
    remaining: bool,
}

/// What becomes of a request that nothing can be counted for, since the store is full.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Full {
    #[default]
    Refuse,
    Pass,
}

impl Plugin for RateLimit {
    fn configure(text: &str) -> Result<Self, String> {
        let Config { policies, full, remaining } = config::read(text)?;
        if policies.is_empty() {
            return Err(
                "`policies` in `config` is empty: write one, such as { requests = 100, per = \"1m\" }"
                    .to_owned(),
            );
        }
        for (place, policy) in policies.iter().enumerate() {
            policy.check().map_err(|reason| format!("`policies[{place}]` in `config`: {reason}"))?;
            if policies[..place].iter().any(|other| other.name == policy.name) {
                return Err(format!(
                    "`policies[{place}]` in `config`: has the name of another, write `name`"
                ));
            }
        }
        let announcement = policies.iter().map(Policy::announcement).collect::<Vec<_>>().join(", ");
        let announcement =
            HeaderValue::text(&announcement).map_err(|why| format!("`policies` in `config`: {why}"))?;
        Ok(Self { policies, full, remaining, announcement })
    }
}

impl OnRequest for RateLimit {
    fn on_request(&self) -> Verdict {
        let _ = request::set_response_header("ratelimit-policy", &self.announcement);
        let mut left = Vec::new();
        for policy in &self.policies {
            let key = policy.key(&InHand);
            match store::take(&key, 1, policy.per_second(), policy.burst()) {
                Ok(None) if self.remaining => left.extend(policy.remaining(&key)),
                Ok(None) => {}
                Ok(Some(wait_ms)) => return Verdict::Reply(self.refusal(policy, wait_ms).reply()),
                Err(error) => {
                    log::write(log::Level::Warn, &format!("nothing is counted: {}", error.name()));
                    if self.full == Full::Refuse {
                        let problem = Problem::new(503, "Service Unavailable", "requests cannot be counted");
                        return Verdict::Reply(problem.with_header("retry-after", "1").reply());
                    }
                }
            }
        }
        if !left.is_empty()
            && let Ok(left) = HeaderValue::text(&left.join(", "))
        {
            let _ = request::set_response_header("ratelimit", &left);
        }
        Verdict::Next
    }
}

/// What the plugin sees of the request in hand.
struct InHand;

impl policy::Request for InHand {
    fn client(&self) -> String {
        request::client_address()
    }

    fn header(&self, name: &str) -> Option<String> {
        request::header(name)
    }

    fn note(&self, name: &str) -> Option<String> {
        request::note(name)
    }

    fn route(&self) -> String {
        request::route()
    }
}

impl RateLimit {
    /// RFC 6585, section 4, with the field of draft-ietf-httpapi-ratelimit-headers that is its own.
    fn refusal(&self, policy: &Policy, wait_ms: u32) -> Problem {
        let seconds = wait_ms.div_ceil(1000).max(1);
        Problem::new(429, "Too Many Requests", format!("wait {seconds} s before the next request"))
            .with_header("retry-after", seconds.to_string())
            .with_header("ratelimit", format!("\"{}\";r=0;t={seconds}", policy.name))
    }
}

tollgate_plugin_sdk::export!(RateLimit: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_how_long_to_wait() {
        let plugin = RateLimit::configure(
            r#"{"policies":[{"requests":10,"per":"1s","burst":20},{"name":"day","requests":1000,"per":"1d","by":"route"}]}"#,
        )
        .expect("the configuration is valid");
        let refusal = plugin.refusal(&plugin.policies[1], 1_001);
        let header = |name: &str| {
            refusal.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
        };
        assert_eq!(refusal.status, 429);
        assert_eq!(header("retry-after"), Some("2"));
        assert_eq!(header("ratelimit"), Some("\"day\";r=0;t=2"));
        assert_eq!(plugin.announcement.as_str(), "\"default\";q=20;w=2, \"day\";q=1000;w=86400");
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            (r#"{"policies":[]}"#, "`policies` in `config` is empty"),
            (r#"{"policies":[{"requests":0,"per":"1s"}]}"#, "`policies[0]` in `config`: `requests` is 0"),
            (r#"{"policies":[{"requests":1,"per":"1x"}]}"#, "`policies[0].per` in `config`: is no time"),
            (r#"{"policies":[{"requests":1,"per":"0s"}]}"#, "`policies[0].per` in `config`: is no time"),
            (
                r#"{"policies":[{"requests":1,"per":"1s","name":"a\"b"}]}"#,
                "`policies[0]` in `config`: `name`",
            ),
            (
                r#"{"policies":[{"requests":1,"per":"1s"},{"requests":1,"per":"1s"}]}"#,
                "`policies[1]` in `config`: has the name",
            ),
            (
                r#"{"policies":[{"requests":1,"per":"1s","by":{"header":"a b"}}]}"#,
                "`a b` is not the name of a header",
            ),
        ] {
            let refusal = RateLimit::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
