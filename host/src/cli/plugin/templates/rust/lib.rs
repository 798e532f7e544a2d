//! Lets through requests that carry a key, and tells the upstream whose it is.

wit_bindgen::generate!({
    path: "wit",
    world: "plugin-{{name}}",
    generate_all,
});

use std::{collections::HashMap, sync::OnceLock};

use exports::tollgate::policy::{lifecycle, request_hook, response_hook};
use serde_json::Value;
use tollgate::policy::{request, response, types::Reply};

struct Plugin;

/// The consumer of each key: what `configure` has read, for the calls that follow.
static CONSUMERS: OnceLock<HashMap<String, String>> = OnceLock::new();

impl lifecycle::Guest for Plugin {
    /// Takes the table `config` as JSON. An error refuses the plugin, with these words.
    fn configure(config: String) -> Result<(), String> {
        let config: Value = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        let keys = config["keys"].as_object().ok_or("write `config = { keys = { consumer = \"key\" } }`")?;
        let consumer = |(consumer, key): (&String, &Value)| match key.as_str() {
            Some(key) => Ok((key.to_owned(), consumer.clone())),
            None => Err(format!("the key of `{consumer}` is not a string")),
        };
        let consumers = keys.iter().map(consumer).collect::<Result<_, _>>()?;
        CONSUMERS.set(consumers).map_err(|_| "configured twice".to_owned())
    }
}

impl request_hook::Guest for Plugin {
    fn on_request() -> request_hook::Verdict {
        let key = request::header("x-api-key").unwrap_or_default();
        let Some(consumer) = CONSUMERS.get().and_then(|consumers| consumers.get(&key)) else {
            return request_hook::Verdict::Reply(Reply {
                status: 401,
                headers: vec![("www-authenticate".into(), "ApiKey".into())],
                body: b"a key is needed\n".to_vec(),
            });
        };
        match request::set_header("x-consumer", consumer) {
            Ok(()) => request_hook::Verdict::Next,
            // Without the header, the one of the client would pass for ours.
            Err(_) => request_hook::Verdict::Reply(Reply { status: 500, headers: vec![], body: vec![] }),
        }
    }
}

impl response_hook::Guest for Plugin {
    fn on_response() -> response_hook::Verdict {
        // A response without it is still a response.
        let _ = response::set_header("x-policy", "{{name}}");
        response_hook::Verdict::Next
    }
}

export!(Plugin);
