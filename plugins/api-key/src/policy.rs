//! What did the operator configure?
//!
//! Every refusal is one sentence that names the place and the remedy. None of them prints a key, so
//! what has the wrong type is named but not shown.

use serde_json::{Map, Value};
use tollgate_plugin_sdk::{Change, HeaderValue, config::is_header_name, is_same_field, may_change};

use crate::{
    keys::{Keys, SharedKey},
    problem::Problem,
};

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
    /// The value of `www-authenticate`.
    pub(crate) challenge: String,
    pub(crate) missing: Problem,
    pub(crate) wrong: Problem,
}

impl Policy {
    /// Takes the plugin's `config` table as JSON.
    pub(crate) fn parse(config: &str, secret: &[u8; 16]) -> Result<Self, String> {
        let config: Value = serde_json::from_str(config).map_err(|error| {
            format!("`config` is not valid JSON at line {}, column {}", error.line(), error.column())
        })?;
        let Value::Object(config) = config else {
            return Err("`config` is not a table: write `config = { keys = { ... } }`".to_owned());
        };
        if let Some(unknown) =
            config.keys().find(|key| !matches!(key.as_str(), "header" | "keys" | "forward"))
        {
            return Err(format!(
                "unknown key `{}` in `config`: it takes `keys`, `header` and `forward`",
                unknown.escape_debug()
            ));
        }
        let header = header(&config)?;
        let unauthorized = |detail: String| Problem::new(401, "Unauthorized", &detail);
        Ok(Self {
            keys: keys(&config, secret)?,
            forward: forward(&config)?,
            // A token holds nothing that would end the quotes.
            challenge: format!(r#"ApiKey realm="tollgate", header="{header}""#),
            missing: unauthorized(format!("an API key is needed in the header `{header}`")),
            wrong: unauthorized(format!("the API key in the header `{header}` is not accepted")),
            header,
        })
    }
}

fn header(config: &Map<String, Value>) -> Result<String, String> {
    let header = match config.get("header") {
        None => return Ok("x-api-key".to_owned()),
        Some(Value::String(header)) => header.to_ascii_lowercase(),
        Some(_) => return Err("`header` is not a string: write the name of a header in quotes".to_owned()),
    };
    if !is_header_name(&header) {
        return Err("`header` is not the name of a header: use letters, digits and hyphens".to_owned());
    }
    if is_same_field(&header, CONSUMER) {
        return Err(format!("`header` cannot be `{header}`, which names the consumer: use another"));
    }
    may_change(false, Change::Remove, &header)
        .map_err(|why| format!("`header` cannot be `{header}`: {why}"))?;
    Ok(header)
}

fn forward(config: &Map<String, Value>) -> Result<bool, String> {
    match config.get("forward") {
        None => Ok(false),
        Some(Value::Bool(forward)) => Ok(*forward),
        Some(_) => Err("`forward` is neither true nor false: write one of them, without quotes".to_owned()),
    }
}

fn keys(config: &Map<String, Value>, secret: &[u8; 16]) -> Result<Keys, String> {
    let consumers = match config.get("keys") {
        Some(Value::Object(consumers)) if !consumers.is_empty() => consumers,
        Some(Value::Object(_)) => {
            return Err(
                "`keys` is empty: add a consumer and its key, or remove the plugin from the route".to_owned()
            );
        }
        Some(_) => return Err("`keys` is not a table: write `keys = { consumer = \"key\" }`".to_owned()),
        None => {
            return Err(
                "`keys` is missing: add a table of consumers, `keys = { consumer = \"key\" }`".to_owned()
            );
        }
    };
    let mut pairs = Vec::with_capacity(consumers.len());
    for (consumer, keys) in consumers {
        let name = value_of_consumer(consumer)?;
        let keys = match keys {
            Value::Array(keys) if keys.is_empty() => {
                return Err(format!("`keys.{consumer}` is empty: add a key, or remove the consumer"));
            }
            Value::Array(keys) => keys,
            key => std::slice::from_ref(key),
        };
        for key in keys {
            pairs.push((name.clone(), check_key(consumer, key)?));
        }
    }
    Keys::new(pairs.iter().map(|(consumer, key)| (consumer, *key)), secret).map_err(
        |SharedKey(one, other)| {
            format!("`keys.{one}` and `keys.{other}` hold the same key: give each consumer one of its own")
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
        "the consumer `{}` in `keys` cannot be the value of a header, since {why}: \
         use letters, digits and punctuation of ASCII",
        consumer.escape_debug()
    ))
}

fn check_key<'a>(consumer: &str, key: &'a Value) -> Result<&'a str, String> {
    let Value::String(key) = key else {
        return Err(format!("`keys.{consumer}` is not a key: write a string in quotes, or a list of them"));
    };
    if key.is_empty() {
        return Err(format!("`keys.{consumer}` holds an empty key: set it, or remove the consumer"));
    }
    if key.trim_ascii() != key || key.bytes().any(|byte| byte.is_ascii_control()) {
        return Err(format!(
            "`keys.{consumer}` holds a key that no header can carry: \
             remove control characters, and white space around it"
        ));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use tollgate_plugin_sdk::HeaderValue;

    use super::Policy;
    use crate::keys::Finding;

    fn parse(config: &Value) -> Result<Policy, String> {
        Policy::parse(&config.to_string(), &[0; 16])
    }

    #[test]
    fn only_keys_are_needed() {
        let policy = parse(&json!({ "keys": { "demo": "k1" } })).expect("is valid");
        assert_eq!(policy.header, "x-api-key");
        assert!(!policy.forward);
        assert_eq!(policy.challenge, r#"ApiKey realm="tollgate", header="x-api-key""#);
        assert_eq!(
            policy.keys.identify(Some("k1")),
            Finding::Consumer(&HeaderValue::text("demo").expect("is a value"))
        );
    }

    #[test]
    fn a_consumer_may_have_several_keys() {
        let policy = parse(&json!({ "keys": { "batch": ["old", "new"] } })).expect("is valid");
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
            parse(&json!({ "header": "Api_Key", "forward": true, "keys": { "a": "k" } })).expect("is valid");
        assert_eq!(policy.header, "api_key");
        assert!(policy.forward);
        assert!(policy.challenge.ends_with(r#"header="api_key""#));
    }

    #[test]
    fn a_refusal_tells_missing_from_wrong() {
        let policy = parse(&json!({ "keys": { "a": "k" } })).expect("is valid");
        let detail = |body: &[u8]| serde_json::from_slice::<Value>(body).expect("is JSON")["detail"].clone();
        assert_eq!(detail(&policy.missing.body("1")), "an API key is needed in the header `x-api-key`");
        assert_eq!(detail(&policy.wrong.body("1")), "the API key in the header `x-api-key` is not accepted");
    }

    #[test]
    fn what_cannot_work_is_refused_with_its_place() {
        let cases = [
            (json!([]), "`config` is not a table"),
            (json!({ "keyz": { "a": "SECRET" } }), "unknown key `keyz` in `config`"),
            (json!({}), "`keys` is missing"),
            (json!({ "keys": {} }), "`keys` is empty"),
            (json!({ "keys": "SECRET" }), "`keys` is not a table"),
            (json!({ "keys": { "a": "" } }), "`keys.a` holds an empty key"),
            (json!({ "keys": { "a": [] } }), "`keys.a` is empty"),
            (json!({ "keys": { "a": ["SECRET", ""] } }), "`keys.a` holds an empty key"),
            (json!({ "keys": { "a": 1 } }), "`keys.a` is not a key"),
            (json!({ "keys": { "a": ["SECRET", ["SECRET"]] } }), "`keys.a` is not a key"),
            (json!({ "keys": { "a": "SECRET " } }), "`keys.a` holds a key that no header can carry"),
            (json!({ "keys": { "a": "SEC\nRET" } }), "`keys.a` holds a key that no header can carry"),
            (
                json!({ "keys": { "a": "SECRET", "b": ["x", "SECRET"] } }),
                "`keys.a` and `keys.b` hold the same key",
            ),
            (json!({ "keys": { "": "SECRET" } }), "the consumer `` in `keys`"),
            (json!({ "keys": { "a\r\nb": "SECRET" } }), r"the consumer `a\r\nb` in `keys`"),
            (json!({ "keys": { "zoë": "SECRET" } }), "the consumer `zoë` in `keys`"),
            (json!({ "keys": { " a": "SECRET" } }), "the consumer ` a` in `keys`"),
            (json!({ "keys": { "a": "k" }, "header": "" }), "`header` is not the name of a header"),
            (json!({ "keys": { "a": "k" }, "header": "x key" }), "`header` is not the name of a header"),
            (json!({ "keys": { "a": "k" }, "header": "x-kéy" }), "`header` is not the name of a header"),
            (json!({ "keys": { "a": "k" }, "header": 1 }), "`header` is not a string"),
            (json!({ "keys": { "a": "k" }, "header": "X-Consumer" }), "`header` cannot be `x-consumer`"),
            (json!({ "keys": { "a": "k" }, "header": "X_Consumer" }), "`header` cannot be `x_consumer`"),
            (json!({ "keys": { "a": "k" }, "header": "Host" }), "`header` cannot be `host`"),
            (json!({ "keys": { "a": "k" }, "header": "x-request-id" }), "`header` cannot be `x-request-id`"),
            (json!({ "keys": { "a": "k" }, "forward": "yes" }), "`forward` is neither true nor false"),
        ];
        for (config, expected) in cases {
            let refusal = parse(&config).expect_err(&config.to_string());
            assert!(refusal.starts_with(expected), "{config}: {refusal}");
            assert!(!refusal.contains("SEC"), "{config}: {refusal}");
        }
    }

    #[test]
    fn malformed_json_is_refused_without_showing_it() {
        for config in
            ["", "{", r#"{"keys":{"a":"SECRET"#, r#"{"keys":{"a":SECRET}}"#, "\u{0}", &"[".repeat(100_000)]
        {
            let refusal = Policy::parse(config, &[0; 16]).expect_err("is malformed");
            assert!(refusal.starts_with("`config` is not valid JSON at line "), "{refusal}");
            assert!(!refusal.contains("SEC"), "{refusal}");
        }
    }
}
