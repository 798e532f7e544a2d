//! Who is calling, by their API key?

wit_bindgen::generate!({
    path: "wit",
    world: "policy",
    generate_all,
});

use std::{collections::HashMap, sync::OnceLock};

use exports::tollgate::policy::{lifecycle, request_hook, response_hook};
use serde_json::Value;
use tollgate::policy::{request, response, types::Reply};

struct Policy;

/// The consumer of each key: what `configure` has read, for the calls that follow.
static CONSUMERS: OnceLock<HashMap<String, String>> = OnceLock::new();

impl lifecycle::Guest for Policy {
    fn configure(config: String) -> Result<(), String> {
        let consumers = consumers(&config)?;
        CONSUMERS
            .set(consumers)
            .map_err(|_| "an instance is configured once".to_owned())
    }
}

impl request_hook::Guest for Policy {
    fn on_request() -> request_hook::Verdict {
        let Some(key) = request::header("x-api-key") else {
            return problem(401, "Unauthorized", "an API key is needed in x-api-key");
        };
        let Some(consumer) = CONSUMERS.get().and_then(|consumers| consumers.get(&key)) else {
            return problem(
                401,
                "Unauthorized",
                "the API key in x-api-key is not accepted",
            );
        };
        let passed_on = request::set_header("x-consumer", consumer)
            .and_then(|()| request::remove_header("x-api-key"));
        match passed_on {
            Ok(()) => request_hook::Verdict::Next,
            // Otherwise what the client says of itself would count.
            Err(_) => problem(500, "Internal Server Error", "the consumer cannot be named"),
        }
    }
}

impl response_hook::Guest for Policy {
    fn on_response() -> response_hook::Verdict {
        // A response without it is still a response.
        let _ = response::set_header("x-policy", "api-key");
        response_hook::Verdict::Next
    }
}

/// Reads `{"keys": {"consumer": "key"}}`.
fn consumers(config: &str) -> Result<HashMap<String, String>, String> {
    let config: Value = serde_json::from_str(config).map_err(|_| "`config` is not valid JSON")?;
    let config = config.as_object().ok_or("`config` is not a table")?;
    if let Some(unknown) = config.keys().find(|name| *name != "keys") {
        return Err(format!("there is no key `{unknown}` in `config`"));
    }
    let keys = config
        .get("keys")
        .and_then(Value::as_object)
        .filter(|keys| !keys.is_empty());
    let keys = keys.ok_or("`keys` is not a table of consumers with their keys")?;
    let consumer = |(consumer, key): (&String, &Value)| match key.as_str() {
        Some(key) if !key.is_empty() => Ok((key.to_owned(), consumer.clone())),
        _ => Err(format!("`keys.{consumer}` is not a key")),
    };
    keys.iter().map(consumer).collect()
}

/// A problem document (RFC 9457) as an answer.
fn problem(status: u16, title: &str, detail: &str) -> request_hook::Verdict {
    let body = format!(
        r#"{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}"}}"#
    );
    request_hook::Verdict::Reply(Reply {
        status,
        headers: vec![
            (
                "content-type".to_owned(),
                "application/problem+json".to_owned(),
            ),
            ("cache-control".to_owned(), "no-store".to_owned()),
            ("www-authenticate".to_owned(), "ApiKey".to_owned()),
        ],
        body: body.into_bytes(),
    })
}

// Only a component exports the hooks: to a linker of this machine, which links what `cargo test` runs, their names are none.
#[cfg(target_family = "wasm")]
export!(Policy);

#[cfg(test)]
mod tests {
    use super::consumers;

    #[test]
    fn a_key_has_a_consumer() {
        let consumers = consumers(r#"{"keys":{"demo":"k1"}}"#).expect("the configuration is valid");
        assert_eq!(consumers.get("k1").map(String::as_str), Some("demo"));
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        for config in [
            "",
            "[]",
            "{}",
            r#"{"keys":{}}"#,
            r#"{"keys":{"demo":7}}"#,
            r#"{"key":{}}"#,
        ] {
            assert!(consumers(config).is_err(), "{config}");
        }
    }
}
