//! What did the operator configure?
//!
//! Every error is one sentence that names the place and the remedy. None of them prints a key.

use std::collections::BTreeMap;

use serde::Deserialize;
use tollgate_plugin_sdk::{
    Change, HeaderValue, Problem,
    config::{self, OneOrMore},
    is_same_field, may_change,
};

use crate::keys::{Keys, SharedKey};

/// The header in which the upstream finds the consumer's name.
pub(crate) const CONSUMER: &str = "x-consumer";

/// A configuration that makes sense, with all that can be prepared for a request.
#[derive(Debug)]
pub(crate) struct Policy {
    /// The header that carries the key, in lower case.
    pub(crate) header: String,
    pub(crate) keys: Keys,
    /// Whether the upstream sees the key.
    pub(crate) forward: bool,
    /// The answers to requests without a key, and with a wrong one.
    pub(crate) missing: Problem,
    pub(crate) wrong: Problem,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Consumers, and the keys of each. Without any, the error says more than that the table is missing.
    #[serde(default)]
    keys: BTreeMap<String, OneOrMore>,
    #[serde(default = "default_header")]
    header: String,
    #[serde(default)]
    forward: bool,
}

fn default_header() -> String {
    "x-api-key".to_owned()
}

impl Policy {
    /// Takes the plugin's `config` table as JSON.
    pub(crate) fn read(text: &str, secret: &[u8; 16]) -> Result<Self, String> {
        let config: Config = config::read(text)?;
        let header = config.header.to_ascii_lowercase();
        check_header(&header, config.forward).map_err(|why| format!("`header` in `config`: {why}"))?;
        let unauthorized = |detail: String| {
            // A name of a header holds nothing that would end the quotes.
            let challenge = format!(r#"ApiKey realm="tollgate", header="{header}""#);
            Problem::new(401, "Unauthorized", detail).with_header("www-authenticate", challenge)
        };
        Ok(Self {
            keys: keys(&config.keys, secret)?,
            forward: config.forward,
            missing: unauthorized(format!("an API key is needed in the header `{header}`")),
            wrong: unauthorized(format!("the API key in the header `{header}` is not accepted")),
            header,
        })
    }
}

fn check_header(header: &str, forward: bool) -> Result<(), String> {
    if is_same_field(header, CONSUMER) {
        return Err(format!("`{header}` names the consumer to the upstream: use another header"));
    }
    match forward && config::is_header_name(header) {
        true => Ok(()),
        false => may_change(false, Change::Remove, header),
    }
}

fn keys(consumers: &BTreeMap<String, OneOrMore>, secret: &[u8; 16]) -> Result<Keys, String> {
    if consumers.is_empty() {
        return Err("`keys` in `config`: there is no consumer: write `keys = { consumer = \"key\" }`, \
            or remove the plugin from the route"
            .to_owned());
    }
    let mut pairs = Vec::with_capacity(consumers.len());
    for (consumer, keys) in consumers {
        let name = value_of_consumer(consumer)?;
        let place = |why: &str| format!("`keys.{consumer}` in `config`: {why}");
        if keys.as_slice().is_empty() {
            return Err(place("there is no key: add one, or remove the consumer"));
        }
        for key in keys.as_slice() {
            check_key(key).map_err(place)?;
            pairs.push((name.clone(), key.as_str()));
        }
    }
    Keys::new(pairs.iter().map(|(consumer, key)| (consumer, *key)), secret).map_err(
        |SharedKey(one, other)| {
            format!(
                "`keys` in `config`: `{one}` and `{other}` have the same key: give each consumer one of its own"
            )
        },
    )
}

/// What the upstream finds in the header: the name as it is, or nobody is named.
fn value_of_consumer(consumer: &str) -> Result<HeaderValue, String> {
    let why = match HeaderValue::text(consumer) {
        Ok(value) if !consumer.is_empty() => return Ok(value),
        Ok(_) => "it is empty".to_owned(),
        Err(why) => why.to_string(),
    };
    Err(format!(
        "`keys` in `config`: the consumer `{}` cannot be the value of a header, since {why}: \
         use letters, digits and punctuation of ASCII",
        consumer.escape_debug()
    ))
}

fn check_key(key: &str) -> Result<(), &'static str> {
    if key.is_empty() {
        return Err("a key is empty: set it, or remove the consumer");
    }
    if key.trim_ascii() != key || key.bytes().any(|byte| byte.is_ascii_control()) {
        return Err("a key cannot be the value of a header: \
            remove control characters, and white space around it");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use tollgate_plugin_sdk::{HeaderValue, Problem};

    use super::Policy;
    use crate::keys::Finding;

    fn read(config: &Value) -> Result<Policy, String> {
        Policy::read(&config.to_string(), &[0; 16])
    }

    fn challenge(problem: &Problem) -> String {
        let reply = problem.reply_to("1");
        let mut values = reply.headers.into_iter().filter(|(name, _)| name == "www-authenticate");
        values.next().expect("it has a challenge").1
    }

    #[test]
    fn only_keys_are_needed() {
        let policy = read(&json!({ "keys": { "demo": "k1" } })).expect("is valid");
        assert_eq!(policy.header, "x-api-key");
        assert!(!policy.forward);
        assert_eq!(challenge(&policy.missing), r#"ApiKey realm="tollgate", header="x-api-key""#);
        assert_eq!(challenge(&policy.wrong), challenge(&policy.missing));
        assert_eq!(
            policy.keys.identify(Some("k1")),
            Finding::Consumer(&HeaderValue::text("demo").expect("is a value"))
        );
    }

    #[test]
    fn a_consumer_may_have_several_keys() {
        let policy = read(&json!({ "keys": { "batch": ["old", "new"] } })).expect("is valid");
        for key in ["old", "new"] {
            assert_eq!(
                policy.keys.identify(Some(key)),
                Finding::Consumer(&HeaderValue::text("batch").expect("is a value"))
            );
        }
    }

    #[test]
    fn the_header_is_kept_in_lower_case() {
        let policy =
            read(&json!({ "header": "Api_Key", "forward": true, "keys": { "a": "k" } })).expect("is valid");
        assert_eq!(policy.header, "api_key");
        assert!(policy.forward);
        assert!(challenge(&policy.missing).ends_with(r#"header="api_key""#));
    }

    #[test]
    fn a_refusal_tells_missing_from_wrong() {
        let policy = read(&json!({ "keys": { "a": "k" } })).expect("is valid");
        assert_eq!(policy.missing.detail, "an API key is needed in the header `x-api-key`");
        assert_eq!(policy.wrong.detail, "the API key in the header `x-api-key` is not accepted");
        assert_eq!((policy.missing.status, policy.wrong.status), (401, 401));
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place() {
        let cases = [
            (json!(7), "`config`: expected a table"),
            (
                json!({ "keyz": { "a": "SECRET" } }),
                "`keyz` in `config`: unknown key `keyz`, expected one of `keys`, `header`, `forward`",
            ),
            (json!({}), "`keys` in `config`: there is no consumer: write `keys = {"),
            (json!({ "keys": {} }), "`keys` in `config`: there is no consumer"),
            (json!({ "keys": "SECRET" }), "`keys` in `config`: expected a table"),
            (json!({ "keys": { "a": "" } }), "`keys.a` in `config`: a key is empty"),
            (json!({ "keys": { "a": [] } }), "`keys.a` in `config`: there is no key"),
            (json!({ "keys": { "a": ["SECRET", ""] } }), "`keys.a` in `config`: a key is empty"),
            (
                json!({ "keys": { "a": 1 } }),
                "`keys.a` in `config`: expected a string, or an array of strings",
            ),
            (
                json!({ "keys": { "a": ["SECRET", ["SECRET"]] } }),
                "`keys.a` in `config`: expected a string, or an array of strings",
            ),
            (
                json!({ "keys": { "a": "SECRET " } }),
                "`keys.a` in `config`: a key cannot be the value of a header",
            ),
            (
                json!({ "keys": { "a": "SEC\nRET" } }),
                "`keys.a` in `config`: a key cannot be the value of a header",
            ),
            (
                json!({ "keys": { "a": "SECRET", "b": ["x", "SECRET"] } }),
                "`keys` in `config`: `a` and `b` have the same key",
            ),
            (json!({ "keys": { "": "SECRET" } }), "`keys` in `config`: the consumer `` cannot"),
            (json!({ "keys": { "a\r\nb": "SECRET" } }), r"`keys` in `config`: the consumer `a\r\nb` cannot"),
            (json!({ "keys": { "zoë": "SECRET" } }), "`keys` in `config`: the consumer `zoë` cannot"),
            (json!({ "keys": { " a": "SECRET" } }), "`keys` in `config`: the consumer ` a` cannot"),
            (
                json!({ "keys": { "a": "k" }, "header": "" }),
                "`header` in `config`: `` is not the name of a header",
            ),
            (
                json!({ "keys": { "a": "k" }, "header": "x key" }),
                "`header` in `config`: `x key` is not the name of a header",
            ),
            (
                json!({ "keys": { "a": "k" }, "header": "x-kéy" }),
                "`header` in `config`: `x-kéy` is not the name of a header",
            ),
            (json!({ "keys": { "a": "k" }, "header": 1 }), "`header` in `config`: expected a string"),
            (
                json!({ "keys": { "a": "k" }, "header": "X-Consumer" }),
                "`header` in `config`: `x-consumer` names the consumer",
            ),
            (
                json!({ "keys": { "a": "k" }, "header": "X_Consumer" }),
                "`header` in `config`: `x_consumer` names the consumer",
            ),
            (
                json!({ "keys": { "a": "k" }, "header": "Host" }),
                "`header` in `config`: a plugin may set `host`, but not remove it",
            ),
            (
                json!({ "keys": { "a": "k" }, "header": "x-request-id" }),
                "`header` in `config`: the proxy itself writes `x-request-id`",
            ),
            (
                json!({ "keys": { "a": "k" }, "forward": "yes" }),
                "`forward` in `config`: expected true or false",
            ),
        ];
        for (config, expected) in cases {
            let refusal = read(&config).expect_err(&config.to_string());
            assert!(refusal.starts_with(expected), "{config}: {refusal}");
            assert!(!refusal.contains("SEC"), "{config}: {refusal}");
        }
    }

    #[test]
    fn malformed_json_is_refused_without_showing_it() {
        for config in
            ["", "{", r#"{"keys":{"a":"SECRET"#, r#"{"keys":{"a":SECRET}}"#, "\u{0}", &"[".repeat(100_000)]
        {
            let refusal = Policy::read(config, &[0; 16]).expect_err("is malformed");
            assert!(refusal.contains("`config`"), "{refusal}");
            assert!(!refusal.contains("SEC"), "{refusal}");
        }
    }
}
