//! What did the operator configure?

use serde::Deserialize;
use tollgate_plugin_bearer::{Bearer, Verification};
use tollgate_plugin_sdk::{Seconds, Url, config::Unchecked};

/// All that a token is checked by.
pub(crate) struct Settings {
    /// Where the issuer is asked.
    pub(crate) endpoint: Url,
    pub(crate) client: Option<Client>,
    pub(crate) bearer: Bearer,
    /// All of which a token must have.
    pub(crate) scopes: Vec<String>,
    /// For how long an answer is kept, at most.
    pub(crate) cache: Seconds,
    /// The same for one that says no.
    pub(crate) cache_refused: Seconds,
    /// Requests while the issuer does not answer.
    pub(crate) unavailable: Unchecked,
}

/// Who asks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct Client {
    pub(crate) id: String,
    pub(crate) secret: String,
    #[serde(default)]
    pub(crate) method: Method,
}

/// How it says who it is: in a header, or in the body.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Method {
    #[default]
    Basic,
    Post,
}

/// The keys of its own, beside those of every plugin for bearer tokens.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    endpoint: Url,
    #[serde(default)]
    client: Option<Client>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default = "default_cache")]
    cache: Seconds,
    #[serde(default = "default_cache_refused")]
    cache_refused: Seconds,
    #[serde(default)]
    unavailable: Unchecked,
}

fn default_cache() -> Seconds {
    const { Seconds::new(60).expect("a minute is some time") }
}

fn default_cache_refused() -> Seconds {
    const { Seconds::new(10).expect("ten seconds are some time") }
}

impl Settings {
    /// Takes the plugin's `config` table as JSON.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let (config, bearer) = tollgate_plugin_bearer::read::<Config>(text, Verification::Introspection)?;
        let is_scope =
            |scope: &String| !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic());
        if let Some(scope) = config.scopes.iter().find(|scope| !is_scope(scope)) {
            return Err(format!("`scopes` in `config`: `{}` is not one word", scope.escape_debug()));
        }
        if config.client.as_ref().is_some_and(|client| client.id.is_empty() || client.secret.is_empty()) {
            return Err("`client` in `config`: `id` or `secret` is empty".to_owned());
        }
        Ok(Self {
            endpoint: config.endpoint,
            client: config.client,
            bearer,
            scopes: config.scopes,
            cache: config.cache,
            cache_refused: config.cache_refused,
            unavailable: config.unavailable,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place_and_shows_no_secret() {
        for (config, reason) in [
            ("{}", "the key `endpoint` is missing"),
            (r#"{"endpoint":"introspect"}"#, "`endpoint` in `config`: is no URL"),
            (r#"{"endpoint":"https://a/b","scopes":["a b"]}"#, "`a b` is not one word"),
            (r#"{"endpoint":"https://a/b","client":{"id":"a","secret":""}}"#, "`secret` is empty"),
            (r#"{"endpoint":"https://a/b","client":{"id":"","secret":"hunter2"}}"#, "`id` or"),
            (r#"{"endpoint":"https://a/b","client":{"secret":"hunter2"}}"#, "the key `id` is missing"),
            (r#"{"endpoint":"https://a/b","unavailable":"hunter2"}"#, "expected `refuse` or `pass`"),
            (r#"{"endpoint":"https://a/b","cache":"hunter2"}"#, "`cache` in `config`: is no time"),
        ] {
            let refusal = Settings::read(config).err().expect(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }
}
