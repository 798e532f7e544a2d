//! Whose token is this, and may its bearer pass?
//!
//! A token (RFC 7519) is looked for in the request, its signature and claims are checked, and what it says is handed
//! to the upstream in headers. What has been checked once is remembered until it expires, since checking a signature
//! costs far more than all else.

mod claims;
mod keys;
mod remembered;
mod settings;

use std::{
    cell::RefCell,
    time::{SystemTime, UNIX_EPOCH},
};

use remembered::Remembered;
use serde_json::{Map, Value};
use settings::{Settings, Source};
use tollgate_plugin_sdk::{OnRequest, Plugin, Problem, Verdict, log, request};

struct Jwt {
    settings: Settings,
    remembered: RefCell<Remembered>,
}

/// The claims of a token.
type Claims = Map<String, Value>;

/// Why somebody may not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// There is no token.
    Missing,
    /// There is one, and it is not valid: why is for the client to know.
    Invalid(&'static str),
    /// It is valid, and does not say what is required.
    Insufficient,
}

impl Plugin for Jwt {
    fn configure(config: &str) -> Result<Self, String> {
        Ok(Self { settings: Settings::read(config)?, remembered: RefCell::default() })
    }
}

impl OnRequest for Jwt {
    fn on_request(&self) -> Verdict {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
        let found = self.settings.source.find(request::header);
        let claims = found.and_then(|token| self.check(token, now));
        // What a client says of itself counts for nothing, whatever becomes of the token.
        for (_, name) in &self.settings.headers {
            let _ = request::remove_header(name);
        }
        match claims {
            Ok(claims) => {
                for (path, name) in &self.settings.headers {
                    let Some(value) = path.text(&claims) else { continue };
                    if let Err(error) = request::set_header(name, &value) {
                        log::write(
                            log::Level::Warn,
                            &format!("a claim cannot be `{name}`: {}", error.name()),
                        );
                        return Verdict::Reply(Refusal::Invalid("a claim holds what no header can").reply());
                    }
                }
                if !self.settings.forward {
                    self.settings.source.remove();
                }
                Verdict::Next
            }
            Err(refusal) => Verdict::Reply(refusal.reply()),
        }
    }
}

impl Jwt {
    /// The claims of a token, if it is valid at a time (in seconds since 1970) and says what is required.
    fn check(&self, token: String, now: u64) -> Result<Claims, Refusal> {
        let settings = &self.settings;
        let mut remembered = self.remembered.borrow_mut();
        let claims = match remembered.get(&token) {
            Some(claims) => claims.clone(),
            None => {
                let claims = settings.keys.verify(&token).map_err(Refusal::Invalid)?;
                remembered.put(token, claims.clone());
                claims
            }
        };
        settings.validity.check(&claims, now).map_err(Refusal::Invalid)?;
        let is_enough = settings.require.iter().all(|(path, wanted)| path.has_any(&claims, wanted));
        if is_enough { Ok(claims) } else { Err(Refusal::Insufficient) }
    }
}

impl Refusal {
    /// RFC 6750, section 3.
    fn reply(self) -> tollgate_plugin_sdk::Reply {
        let (status, title, detail, challenge) = match self {
            Self::Missing => (401, "Unauthorized", "a token is needed", String::new()),
            Self::Invalid(reason) => {
                let challenge = format!(", error=\"invalid_token\", error_description=\"{reason}\"");
                (401, "Unauthorized", reason, challenge)
            }
            Self::Insufficient => {
                let reason = "the token does not allow this";
                (403, "Forbidden", reason, ", error=\"insufficient_scope\"".to_owned())
            }
        };
        Problem::new(status, title, detail)
            .with_header("www-authenticate", format!("Bearer realm=\"tollgate\"{challenge}"))
            .reply()
    }
}

impl Source {
    /// The token of a request whose headers are looked up.
    fn find(&self, header: impl Fn(&str) -> Option<String>) -> Result<String, Refusal> {
        let token = match self {
            Self::Bearer => {
                let value = header("authorization").ok_or(Refusal::Missing)?;
                let (scheme, token) = value.split_once(' ').ok_or(Refusal::Missing)?;
                scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_ascii().to_owned())
            }
            Self::Header(name) => header(name),
            Self::Cookie(name) => header("cookie").and_then(|cookies| {
                let value =
                    |pair: &str| pair.trim_ascii().strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
                cookies.split(';').find_map(value)
            }),
        };
        token.filter(|token| !token.is_empty()).ok_or(Refusal::Missing)
    }

    /// Takes the token away, so that the upstream does not see it; a cookie stays, among the others.
    fn remove(&self) {
        match self {
            Self::Bearer => drop(request::remove_header("authorization")),
            Self::Header(name) => drop(request::remove_header(name)),
            Self::Cookie(_) => {}
        }
    }
}

tollgate_plugin_sdk::export!(Jwt: OnRequest);

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
    use serde_json::json;

    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";

    fn token(claims: &Value) -> String {
        let key = EncodingKey::from_secret(SECRET.as_bytes());
        encode(&Header::new(Algorithm::HS256), claims, &key).expect("it can be signed")
    }

    fn plugin(more: &str) -> Jwt {
        Jwt::configure(&format!(r#"{{"secret":"{SECRET}"{more}}}"#)).expect("the configuration is valid")
    }

    #[test]
    fn a_token_is_valid_in_its_time_and_for_its_audience() {
        let plugin = plugin(r#","issuer":"us","audience":["api","web"],"leeway":10"#);
        let check = |claims: Value, now| plugin.check(token(&claims), now).map(drop);
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
        assert!(plugin.check(token.clone(), 1).is_ok());
        assert!(plugin.remembered.borrow().get(&token).is_some());
        assert_eq!(plugin.check(token, 2_000), Err(Refusal::Invalid("the token has expired")));
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
            assert_eq!(plugin.check(token(&claims), 1).map(drop), result, "{claims}");
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
            assert!(matches!(plugin.check(token.to_owned(), 1), Err(Refusal::Invalid(_))), "{token}");
        }
    }

    #[test]
    fn a_token_is_found_where_it_is_to_be() {
        let header = |name: &str| match name {
            "authorization" => Some("bEARER  abc".to_owned()),
            "x-token" => Some("def".to_owned()),
            "cookie" => Some("a=1; session=ghi; session=jkl".to_owned()),
            _ => None,
        };
        for (source, token) in [
            (Source::Bearer, Ok("abc")),
            (Source::Header("x-token".to_owned()), Ok("def")),
            (Source::Header("x-none".to_owned()), Err(Refusal::Missing)),
            (Source::Cookie("session".to_owned()), Ok("ghi")),
            (Source::Cookie("b".to_owned()), Err(Refusal::Missing)),
        ] {
            assert_eq!(source.find(header), token.map(str::to_owned), "{source:?}");
        }
        assert_eq!(Source::Bearer.find(|_| Some("Basic abc".to_owned())), Err(Refusal::Missing));
    }
}
