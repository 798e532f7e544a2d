//! What did the operator configure?

use std::collections::BTreeMap;

use serde::Deserialize;
use tollgate_plugin_bearer::{Bearer, OneOrMore, Source, Validity};
use tollgate_plugin_sdk::{Seconds, config};

use crate::remote::Remote;

/// All that a token is checked by.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) remote: Remote,
    pub(crate) bearer: Bearer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    jwks_url: String,
    #[serde(default = "default_refetch")]
    refetch: Seconds,
    #[serde(default)]
    issuer: Option<OneOrMore>,
    #[serde(default)]
    audience: Option<OneOrMore>,
    /// In seconds.
    #[serde(default = "default_leeway")]
    leeway: u32,
    #[serde(default)]
    from: Source,
    #[serde(default)]
    claims: BTreeMap<String, String>,
    #[serde(default)]
    require: BTreeMap<String, OneOrMore>,
    #[serde(default = "yes")]
    forward: bool,
}

fn default_refetch() -> Seconds {
    const { Seconds::new(30).expect("half a minute is some time") }
}

fn default_leeway() -> u32 {
    60
}

fn yes() -> bool {
    true
}

impl Settings {
    /// Takes the plugin's `config` table as JSON.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let config: Config = config::read(text)?;
        if !config::is_url(&config.jwks_url) {
            return Err("`jwks-url` in `config`: is no URL of `https` or `http`".to_owned());
        }
        let validity = Validity {
            issuer: config.issuer,
            audience: config.audience,
            leeway: config.leeway.into(),
            must_expire: true,
        };
        let bearer = Bearer::new(config.from, validity, &config.claims, config.require, config.forward)?;
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
