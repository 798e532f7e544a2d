//! What did the operator configure?

use serde::Deserialize;
use tollgate_plugin_bearer::{Bearer, Verification};
use tollgate_plugin_sdk::{Seconds, Url};

use crate::remote::Remote;

/// All that a token is checked by.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) remote: Remote,
    pub(crate) bearer: Bearer,
}

/// The keys of its own, beside those of every plugin for bearer tokens.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Config {
    jwks_url: Url,
    #[serde(default = "default_refetch")]
    refetch: Seconds,
}

fn default_refetch() -> Seconds {
    const { Seconds::new(30).expect("half a minute is some time") }
}

impl Settings {
    /// Takes the plugin's `config` table as JSON.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let (config, bearer) = tollgate_plugin_bearer::read::<Config>(text, Verification::Signature)?;
        Ok(Self { remote: Remote { url: config.jwks_url, refetch: config.refetch }, bearer })
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "the key `jwks-url` is missing"),
            (r#"{"jwks-url":"keys.json"}"#, "`jwks-url` in `config`: is no URL"),
            (r#"{"jwks-url":"ftp://a/b"}"#, "`jwks-url` in `config`: is no URL"),
            (r#"{"jwks-url":"https:///b"}"#, "`jwks-url` in `config`: is no URL"),
            (r#"{"jwks-url":"https://a/b","refetch":"0s"}"#, "`refetch` in `config`: is no time"),
            (r#"{"jwks-url":"https://a/b","claims":{"sub":"a b"}}"#, "`a b` is not a name"),
            (r#"{"jwks-url":"https://a/b","jwks":{}}"#, "unknown key `jwks`"),
        ] {
            let refusal = Settings::read(config).expect_err(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
        assert!(Settings::read(r#"{"jwks-url":"https://a.example:8443/b?c"}"#).is_ok());
    }
}
