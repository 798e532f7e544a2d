//! What did the operator configure that every plugin for bearer tokens has?

use std::collections::BTreeMap;

use serde::{Deserialize, de::DeserializeOwned};
use tollgate_plugin_sdk::{
    Change,
    config::{self, OneOrMore},
    is_same_field, may_change, twice,
};

use crate::{
    Bearer,
    claims::{Path, Validity},
    source::Source,
};

/// The keys of the `config` table that every plugin for bearer tokens takes.
#[derive(Debug, Deserialize)]
#[serde(default)]
struct Settings {
    /// Accepted values of `iss` (RFC 7519, section 4.1.1); any if absent.
    issuer: Option<OneOrMore>,
    /// Accepted values of `aud` (section 4.1.3); any if absent.
    audience: Option<OneOrMore>,
    /// Clock skew in seconds; if absent, that of the [`Verification`].
    leeway: Option<u32>,
    /// Where the token is.
    from: Source,
    /// The names of headers, by the claims that go to them.
    claims: BTreeMap<String, String>,
    /// Accepted values, by the claims that must have one of them.
    require: BTreeMap<String, OneOrMore>,
    /// Whether the upstream gets the token.
    forward: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: None,
            leeway: None,
            from: Source::default(),
            claims: BTreeMap::new(),
            require: BTreeMap::new(),
            forward: true,
        }
    }
}

/// How the claims of a token are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// By the token's signature (RFC 7519): `exp` is required, and clocks may differ by a minute unless configured.
    Signature,
    /// By the issuer (RFC 7662), which has compared the times with its own clock: `exp` is optional, and no clock skew is
    /// allowed unless configured.
    Introspection,
}

/// Reads the `config` table of a plugin, which comes as JSON: the plugin's own settings, and those of all plugins for
/// bearer tokens. `Own` is a struct without `deny_unknown_fields`: a key that belongs to neither is refused here.
pub fn read<Own: DeserializeOwned>(
    config: &str,
    verification: Verification,
) -> Result<(Own, Bearer), String> {
    let (own, settings) = config::read_both::<Own, Settings>(config)?;
    Ok((own, settings.check(verification)?))
}

impl Settings {
    /// The error names what cannot be a header, and what two values would be written to.
    fn check(self, verification: Verification) -> Result<Bearer, String> {
        let Self { issuer, audience, leeway, from: source, claims, require, forward } = self;
        let (carrier, name) = match &source {
            Source::Bearer => ("authorization", None),
            Source::Header(name) => (name.as_str(), Some(name)),
            Source::Cookie(name) => ("cookie", Some(name)),
        };
        if let Some(name) = claims.values().chain(name).find(|name| !config::is_header_name(name)) {
            return Err(format!(
                "`config`: `{}` is not a name for a header or a cookie",
                name.escape_debug()
            ));
        }
        // Of two claims in one header the later would wipe the first, also where it is absent.
        if let Some((one, other)) = twice(claims.values().map(String::as_str)) {
            return Err(format!(
                "`claims` in `config`: two claims go to the same header, `{one}` and `{other}`: give each its own"
            ));
        }
        // A claim that is absent has its header removed.
        let carried = match &source {
            Source::Header(name) if !forward => Some(("from", name)),
            Source::Header(_) | Source::Bearer | Source::Cookie(_) => None,
        };
        for (key, name) in claims.values().map(|name| ("claims", name)).chain(carried) {
            may_change(false, Change::Remove, name).map_err(|why| format!("`{key}` in `config`: {why}"))?;
        }
        if let Some(name) = claims.values().find(|name| is_same_field(name, carrier)) {
            return Err(format!(
                "`claims` in `config`: a claim goes to `{name}`, which carries the token: use another header"
            ));
        }
        let (usual_leeway, must_expire) = match verification {
            Verification::Signature => (60, true),
            Verification::Introspection => (0, false),
        };
        Ok(Bearer {
            validity: Validity { issuer, audience, leeway: leeway.unwrap_or(usual_leeway), must_expire },
            headers: claims.iter().map(|(path, name)| (Path::new(path), name.to_ascii_lowercase())).collect(),
            require: require.into_iter().map(|(path, values)| (Path::new(&path), values)).collect(),
            source,
            forward,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Claims, Refusal};

    #[derive(Debug, Deserialize)]
    struct Own {
        url: Option<String>,
    }

    fn claims(claims: serde_json::Value) -> Claims {
        claims.as_object().expect("is an object").clone()
    }

    #[test]
    fn without_settings_a_token_is_in_authorization_and_the_upstream_gets_it() {
        let (own, bearer) = read::<Own>("{}", Verification::Signature).expect("nothing is required");
        assert_eq!(own.url, None);
        assert_eq!(bearer.source, Source::Bearer);
        assert!(bearer.forward && bearer.headers.is_empty() && bearer.require.is_empty());
    }

    #[test]
    fn how_claims_are_verified_decides_about_times() {
        let read = |config, verification| read::<Own>(config, verification).expect(config).1;
        let expired = Err(Refusal::Invalid("the token has expired"));
        for (config, verification, now, result) in [
            ("{}", Verification::Signature, 1_059, Ok(())),
            ("{}", Verification::Signature, 1_060, expired),
            (r#"{"leeway":0}"#, Verification::Signature, 1_000, expired),
            ("{}", Verification::Introspection, 999, Ok(())),
            ("{}", Verification::Introspection, 1_000, expired),
            (r#"{"leeway":5}"#, Verification::Introspection, 1_004, Ok(())),
        ] {
            let judgement = read(config, verification).judge(&claims(json!({ "exp": 1_000 })));
            assert_eq!(judgement.at(now).map(drop), result, "{config} {verification:?} at {now}");
        }
        let judge = |verification| read("{}", verification).judge(&Claims::new()).at(1).map(drop);
        assert_eq!(
            judge(Verification::Signature),
            Err(Refusal::Invalid("the token does not say when it expires"))
        );
        assert_eq!(judge(Verification::Introspection), Ok(()));
    }

    #[test]
    fn what_is_configured_is_required_and_goes_to_headers() {
        let config = r#"{"url":"a","issuer":["us"],"audience":"api","from":{"cookie":"session"},
            "claims":{"sub":"X-User"},"require":{"scope":["read","write"]},"forward":false}"#;
        let (own, bearer) = read::<Own>(config, Verification::Introspection).expect("it is valid");
        assert_eq!(own.url.as_deref(), Some("a"));
        assert_eq!(bearer.source, Source::Cookie("session".to_owned()));
        assert!(!bearer.forward);
        assert_eq!(bearer.headers, [(Path::new("sub"), "x-user".to_owned())]);
        for (said, result) in [
            (json!({ "iss": "us", "aud": "api", "scope": "x read", "sub": "ann" }), Ok(())),
            (json!({ "iss": "us", "aud": "api", "scope": "x" }), Err(Refusal::Insufficient)),
            (
                json!({ "iss": "us", "aud": "web" }),
                Err(Refusal::Invalid("the token is for another audience")),
            ),
            (json!({ "aud": "api" }), Err(Refusal::Invalid("the token has another issuer"))),
        ] {
            assert_eq!(bearer.judge(&claims(said.clone())).at(1).map(drop), result, "{said}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            (
                r#"{"form":"bearer"}"#,
                "`form` in `config`: unknown key `form`, expected one of `url`, `issuer`, `audience`, `leeway`, \
                 `from`, `claims`, `require`, `forward`",
            ),
            (r#"{"issuer":7}"#, "`issuer` in `config`: expected a string, or an array of strings"),
            (r#"{"leeway":-1}"#, "`leeway` in `config`: expected a whole number from 0 to"),
            (r#"{"from":"cookie"}"#, "`from.cookie` in `config`: expected a table with the value"),
            (r#"{"from":{"cookie":"a b"}}"#, "`a b` is not a name"),
            (
                r#"{"from":{"header":"host"},"forward":false}"#,
                "`from` in `config`: a plugin may set `host`, but not remove it",
            ),
            (r#"{"claims":{"sub":"a b"}}"#, "`a b` is not a name"),
            (r#"{"claims":{"sub":7}}"#, "`claims.sub` in `config`: expected a string"),
            (r#"{"claims":{"sub":"x-user","name":"X_User"}}"#, "two claims go to the same header"),
            (
                r#"{"claims":{"sub":"x-request-id"}}"#,
                "`claims` in `config`: the proxy itself writes `x-request-id`",
            ),
            (
                r#"{"claims":{"sub":"Authorization"}}"#,
                "a claim goes to `Authorization`, which carries the token",
            ),
            (
                r#"{"from":{"header":"x-token"},"claims":{"sub":"x_token"}}"#,
                "a claim goes to `x_token`, which carries the token",
            ),
            (r#"{"from":{"cookie":"a"},"claims":{"sub":"cookie"}}"#, "which carries the token"),
            (r#"{"forward":1}"#, "`forward` in `config`: expected true or false"),
        ] {
            let refusal = read::<Own>(config, Verification::Signature).expect_err(config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
