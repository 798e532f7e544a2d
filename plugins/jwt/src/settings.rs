//! What did the operator configure?

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use tollgate_plugin_bearer::{Bearer, Keys, OneOrMore, Source, Validity};
use tollgate_plugin_sdk::config;

/// All that a token is checked by.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) keys: Keys,
    pub(crate) bearer: Bearer,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    #[serde(default)]
    jwks: Option<Jwks>,
    #[serde(default)]
    secret: Option<String>,
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

/// RFC 7517, section 5; other members are left alone, as it says.
#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
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
        let jwks = config.jwks.map(|jwks| jwks.keys).unwrap_or_default();
        let keys = Keys::new(&jwks, config.secret.as_deref())?;
        let validity = Validity {
            issuer: config.issuer,
            audience: config.audience,
            leeway: config.leeway.into(),
            must_expire: true,
        };
        let bearer = Bearer::new(config.from, validity, &config.claims, config.require, config.forward)?;
        Ok(Self { keys, bearer })
    }
}

#[cfg(test)]
mod tests {
    use super::Settings;

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place_and_shows_no_secret() {
        for (config, reason) in [
            ("{}", "`config` has no key"),
            (r#"{"secret":"hunter2"}"#, "`secret` in `config`: is shorter than 32 bytes"),
            (r#"{"secret":7}"#, "`secret` in `config`: expected a string"),
            (r#"{"jwks":{"keys":[]}}"#, "`config` has no key"),
            (r#"{"jwks":{"keys":[{"kty":"RSA","n":"AQAB"}]}}"#, "`jwks.keys[0]` in `config`: is no key"),
            (
                r#"{"jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","x":"AA","d":"hunter2"}]}}"#,
                "`jwks.keys[0]` in `config`: is a private key",
            ),
            (
                r#"{"jwks":{"keys":[{"kty":"OKP","crv":"Ed25519","use":"enc","x":"AA"}]}}"#,
                "`jwks.keys[0]` in `config`: is not for signatures",
            ),
            (
                r#"{"jwks":{"keys":[{"kty":"oct","k":"AA"}]}}"#,
                "`jwks.keys[0]` in `config`: is shorter than 32 bytes",
            ),
            (
                r#"{"jwks":{"keys":[{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}]}}"#,
                "`jwks.keys[0]` in `config`: is no key",
            ),
            (
                r#"{"secret":"0123456789abcdef0123456789abcdef","claims":{"sub":"a b"}}"#,
                "`a b` is not a name",
            ),
            (
                r#"{"secret":"0123456789abcdef0123456789abcdef","claims":{"sub":"x-user","name":"X_User"}}"#,
                "two claims go to the same header",
            ),
            (
                r#"{"secret":"0123456789abcdef0123456789abcdef","claims":{"sub":"Authorization"}}"#,
                "a claim goes to `Authorization`, which carries the token",
            ),
            (
                r#"{"secret":"0123456789abcdef0123456789abcdef","claims":{"sub":"x-request-id"}}"#,
                "`claims` in `config`: the proxy itself writes `x-request-id`",
            ),
            (
                r#"{"secret":"0123456789abcdef0123456789abcdef","from":{"header":"host"}}"#,
                "`from` in `config`: a plugin may set `host`, but not remove it",
            ),
            (
                r#"{"secret":"0123456789abcdef0123456789abcdef","from":{"header":"x-token"},"claims":{"sub":"x_token"}}"#,
                "a claim goes to `x_token`, which carries the token",
            ),
            (
                r#"{"jwks":{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}}"#,
                "`jwks.keys[0]` in `config`: is an RSA key of 17 bits",
            ),
            (r#"{"secret":"0123456789abcdef0123456789abcdef","issuer":7}"#, "`issuer` in `config`"),
        ] {
            let refusal = Settings::read(config).expect_err(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }
}
