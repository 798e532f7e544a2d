//! Whose token is this, and may its bearer pass?
//!
//! A token (RFC 7519) is looked for in the request, its signature and claims are checked, and what it says is handed
//! to the upstream in headers. What is thought of a token is remembered, since checking a signature costs far more than
//! all else; whether it has expired is asked each time.

mod settings;

use std::{cell::RefCell, rc::Rc};

use settings::Settings;
use tollgate_plugin_bearer::{Judgement, Refusal, Remembered};
use tollgate_plugin_sdk::{OnRequest, Plugin, Verdict};

struct Jwt {
    settings: Settings,
    remembered: RefCell<Remembered>,
}

impl Plugin for Jwt {
    fn configure(config: &str) -> Result<Self, String> {
        Ok(Self { settings: Settings::read(config)?, remembered: RefCell::default() })
    }
}

impl OnRequest for Jwt {
    fn on_request(&self) -> Verdict {
        let bearer = &self.settings.bearer;
        bearer.conclude(bearer.token().and_then(|token| self.judge(token)))
    }
}

impl Jwt {
    /// What is thought of a token, if one of the keys has signed it.
    fn judge(&self, token: String) -> Result<Rc<Judgement>, Refusal> {
        let Settings { keys, bearer } = &self.settings;
        let mut remembered = self.remembered.borrow_mut();
        if let Some(judgement) = remembered.get(&token) {
            return Ok(judgement);
        }
        let claims = keys.verify(&token).map_err(|unverified| Refusal::Invalid(unverified.reason()))?;
        Ok(remembered.put(token, bearer.judge(&claims)))
    }
}

tollgate_plugin_sdk::export!(Jwt: OnRequest);

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::{Value, json};

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn token(claims: &Value) -> String {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        encode(&Header::new(Algorithm::HS256), claims, &key).expect("it can be signed")
    }

    fn plugin(more: &str) -> Jwt {
        Jwt::configure(&format!(r#"{{"secret":"{SECRET}"{more}}}"#)).expect("the configuration is valid")
    }

    /// Whether a token is good enough at a time.
    fn check(plugin: &Jwt, token: String, now: u64) -> Result<(), Refusal> {
        plugin.judge(token)?.at(now).map(drop)
    }

    #[test]
    fn a_token_is_valid_in_its_time_and_for_its_audience() {
        let plugin = plugin(r#","issuer":"us","audience":["api","web"],"leeway":10"#);
        let check = |claims: Value, now| check(&plugin, token(&claims), now);
        let claims = |key: &str, value: Value| {
            let mut claims = json!({ "iss": "us", "aud": "api", "exp": 1_000 });
            claims[key] = value;
            claims
        };
        for (claims, now, result) in [
            (claims("sub", json!("ann")), 999, Ok(())),
            (claims("sub", json!("ann")), 1_009, Ok(())),
            (claims("sub", json!("ann")), 1_010, Err("the token has expired")),
            (claims("exp", Value::Null), 1, Err("the token does not say when it expires")),
            (claims("exp", json!("soon")), 1, Err("the token does not say when it expires")),
            (claims("nbf", json!(500)), 489, Err("the token is not valid yet")),
            (claims("nbf", json!(500)), 490, Ok(())),
            (claims("nbf", json!("x")), 490, Err("the token is not valid yet")),
            (claims("iss", json!("them")), 1, Err("the token has another issuer")),
            (claims("iss", Value::Null), 1, Err("the token has another issuer")),
            (claims("aud", json!(["x", "web"])), 1, Ok(())),
            (claims("aud", json!(["x"])), 1, Err("the token is for another audience")),
            (claims("aud", json!([])), 1, Err("the token is for another audience")),
        ] {
            let shown = claims.to_string();
            assert_eq!(check(claims, now), result.map_err(Refusal::Invalid), "{shown} at {now}");
        }
    }

    #[test]
    fn what_is_remembered_expires_all_the_same() {
        let plugin = plugin("");
        let token = token(&json!({ "exp": 1_000 }));
        assert!(check(&plugin, token.clone(), 1).is_ok());
        assert!(plugin.remembered.borrow_mut().get(&token).is_some());
        assert_eq!(check(&plugin, token, 2_000), Err(Refusal::Invalid("the token has expired")));
    }

    #[test]
    fn what_is_required_must_be_there() {
        let plugin = plugin(r#","require":{"scope":["read","write"],"realm.roles":"admin"}"#);
        for (claims, result) in [
            (json!({ "exp": 9, "scope": "x write", "realm": { "roles": ["user", "admin"] } }), Ok(())),
            (
                json!({ "exp": 9, "scope": "writer", "realm": { "roles": ["admin"] } }),
                Err(Refusal::Insufficient),
            ),
            (json!({ "exp": 9, "scope": "read" }), Err(Refusal::Insufficient)),
        ] {
            assert_eq!(check(&plugin, token(&claims), 1), result, "{claims}");
        }
    }

    #[test]
    fn a_token_that_is_forged_or_no_token_is_refused() {
        let plugin = plugin("");
        let good = token(&json!({ "exp": 9 }));
        let (message, _) = good.rsplit_once('.').expect("a token has three parts");
        let other = EncodingKey::from_secret(b"another secret, which is as long as it is");
        let forged =
            encode(&Header::new(Algorithm::HS256), &json!({ "exp": 9 }), &other).expect("it can be signed");
        let unsigned = "eyJhbGciOiJub25lIn0.eyJleHAiOjl9.";
        let weaker = encode(
            &Header::new(Algorithm::HS512),
            &json!({ "exp": 9 }),
            &EncodingKey::from_secret(SECRET.as_bytes()),
        );
        for token in [
            message,
            &format!("{message}."),
            &forged,
            unsigned,
            "",
            "a.b.c",
            "....",
            &"a".repeat(70_000),
            &weaker.expect("signed"),
        ] {
            assert!(matches!(check(&plugin, token.to_owned(), 1), Err(Refusal::Invalid(_))), "{token}");
        }
    }
}
