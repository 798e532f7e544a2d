//! What did the operator configure?

use serde::Deserialize;
use serde_json::Value;
use tollgate_plugin_bearer::{Bearer, Keys, Verification};

/// All that a token is checked by.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) keys: Keys,
    pub(crate) bearer: Bearer,
}

/// The keys of its own, beside those of every plugin for bearer tokens.
#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    jwks: Option<Jwks>,
    #[serde(default)]
    secret: Option<String>,
}

/// RFC 7517, section 5; other members are left alone, as it says.
#[derive(Deserialize)]
struct Jwks {
    keys: Vec<Value>,
}

impl Settings {
    /// Takes the plugin's `config` table as JSON.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let (config, bearer) = tollgate_plugin_bearer::read::<Config>(text, Verification::Signature)?;
        let jwks = config.jwks.map(|jwks| jwks.keys).unwrap_or_default();
        let keys = Keys::new(&jwks, config.secret.as_deref())?;
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
                r#"{"jwks":{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}}"#,
                "`jwks.keys[0]` in `config`: is an RSA key of 17 bits",
            ),
            (r#"{"secret":"0123456789abcdef0123456789abcdef","issuer":7}"#, "`issuer` in `config`"),
            (
                r#"{"secret":"0123456789abcdef0123456789abcdef","isuer":"us"}"#,
                "unknown key `isuer`, expected one of `jwks`, `secret`, `issuer`",
            ),
        ] {
            let refusal = Settings::read(config).expect_err(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }
}
