//! How is the issuer asked, and what does it say?

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tollgate_plugin_bearer::Claims;
use tollgate_plugin_sdk::http_client::Outgoing;

use crate::settings::{Client, Method, Settings};

/// What the issuer says of a token (RFC 7662, section 2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It is valid, and says this.
    Active(Claims),
    Inactive,
}

impl Answer {
    /// Takes a response. The error is for the log.
    pub(crate) fn read(status: u16, body: &[u8]) -> Result<Self, String> {
        if status != 200 {
            let hint = if status == 401 || status == 403 { ": look at `client`" } else { "" };
            return Err(format!("the answer is {status}{hint}"));
        }
        let answer: Value = serde_json::from_slice(body).map_err(|_| "the answer is no JSON".to_owned())?;
        let Value::Object(claims) = answer else { return Err("the answer is no object".to_owned()) };
        match claims.get("active") {
            Some(Value::Bool(true)) => Ok(Self::Active(claims)),
            Some(Value::Bool(false)) => Ok(Self::Inactive),
            _ => Err("the answer does not say whether the token is `active`".to_owned()),
        }
    }

    pub(crate) fn from_cache(text: &[u8]) -> Option<Self> {
        Self::read(200, text).ok()
    }

    pub(crate) fn for_cache(&self) -> Vec<u8> {
        match self {
            Self::Active(claims) => Value::Object(claims.clone()).to_string().into_bytes(),
            Self::Inactive => br#"{"active":false}"#.to_vec(),
        }
    }
}

/// Whether all of these are among the words of `scope`.
pub(crate) fn has_scopes(claims: &Claims, wanted: &[String]) -> bool {
    let scope = claims.get("scope").and_then(Value::as_str).unwrap_or_default();
    wanted.iter().all(|wanted| scope.split(' ').any(|word| word == wanted))
}

impl Settings {
    /// RFC 7662, section 2.1.
    pub(crate) fn request(&self, token: &str) -> Outgoing {
        let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut headers = vec![
            header("content-type", "application/x-www-form-urlencoded"),
            header("accept", "application/json"),
        ];
        let mut body = format!("token={}&token_type_hint=access_token", form(token));
        match &self.client {
            // RFC 6749, section 2.3.1.
            Some(Client { id, secret, method: Method::Basic }) => {
                let credentials = STANDARD.encode(format!("{}:{}", form(id), form(secret)));
                headers.push(header("authorization", &format!("Basic {credentials}")));
            }
            Some(Client { id, secret, method: Method::Post }) => {
                body.push_str(&format!("&client_id={}&client_secret={}", form(id), form(secret)));
            }
            None => {}
        }
        Outgoing {
            method: "POST".to_owned(),
            url: self.endpoint.as_str().to_owned(),
            headers,
            body: body.into_bytes(),
            timeout_ms: 0,
        }
    }

    /// For how many seconds an answer is kept. None if not at all.
    pub(crate) fn keep(&self, answer: &Answer, now: u64) -> Option<u32> {
        let claims = match answer {
            Answer::Inactive => return Some(self.cache_refused.get()),
            Answer::Active(claims) => claims,
        };
        let most = f64::from(self.cache.get());
        let left = claims.get("exp").and_then(Value::as_f64).map_or(most, |expiry| expiry - now as f64);
        // Below a second it is not worth it; the cast is of a number from 1 to what a `u32` holds.
        (left >= 1.0).then(|| left.min(most) as u32)
    }
}

/// As forms are written (application/x-www-form-urlencoded of the URL standard).
fn form(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                encoded.push(char::from(byte));
            }
            b' ' => encoded.push('+'),
            other => encoded.push_str(&format!("%{other:02X}")),
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(more: &str) -> Settings {
        Settings::read(&format!(r#"{{"endpoint":"https://auth.example.com/introspect"{more}}}"#)).expect(more)
    }

    #[test]
    fn only_a_clear_answer_is_one() {
        for (status, body, expected) in [
            (200, r#"{"active":false}"#, Ok(Answer::Inactive)),
            (200, r#"{"active":false,"sub":"ann"}"#, Ok(Answer::Inactive)),
            (200, r#"{"active":"true"}"#, Err("does not say whether")),
            (200, "{}", Err("does not say whether")),
            (200, "[]", Err("no object")),
            (200, "<html>", Err("no JSON")),
            (200, "", Err("no JSON")),
            (401, r#"{"active":true}"#, Err("the answer is 401: look at `client`")),
            (500, r#"{"active":true}"#, Err("the answer is 500")),
            (302, "", Err("the answer is 302")),
        ] {
            match (Answer::read(status, body.as_bytes()), expected) {
                (Ok(answer), Ok(expected)) => assert_eq!(answer, expected, "{body}"),
                (Err(reason), Err(words)) => assert!(reason.contains(words), "{body}: {reason}"),
                (answer, _) => panic!("{status} {body}: {answer:?}"),
            }
        }
        let active = Answer::read(200, br#"{"active":true,"scope":"a b"}"#).expect("it is clear");
        assert_eq!(Answer::from_cache(&active.for_cache()), Some(active));
        assert_eq!(Answer::from_cache(&Answer::Inactive.for_cache()), Some(Answer::Inactive));
    }

    #[test]
    fn an_answer_is_kept_no_longer_than_the_token_is_valid() {
        let settings = settings(r#","cache":"1m","cache-refused":"5s""#);
        for (claims, seconds) in [
            (json!({}), Some(60)),
            (json!({ "exp": 1_030 }), Some(30)),
            (json!({ "exp": 9_000 }), Some(60)),
            (json!({ "exp": 1e300 }), Some(60)),
            (json!({ "exp": 1_000.5 }), None),
            (json!({ "exp": 900 }), None),
            (json!({ "exp": -1e300 }), None),
        ] {
            let answer = Answer::Active(claims.as_object().expect("is an object").clone());
            assert_eq!(settings.keep(&answer, 1_000), seconds, "{claims}");
        }
        assert_eq!(settings.keep(&Answer::Inactive, 1_000), Some(5));
    }

    #[test]
    fn all_scopes_must_be_there() {
        for (scope, wanted, has) in [
            (json!("read write"), &["write", "read"][..], true),
            (json!("read write"), &["writ"], false),
            (json!("read"), &["read", "write"], false),
            (json!(["read"]), &["read"], false),
            (json!(null), &["read"], false),
            (json!(null), &[], true),
        ] {
            let claims = json!({ "scope": scope });
            let wanted: Vec<String> = wanted.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(
                has_scopes(claims.as_object().expect("is an object"), &wanted),
                has,
                "{scope} {wanted:?}"
            );
        }
    }

    #[test]
    fn the_client_says_who_it_is_as_it_is_to() {
        let request = settings(r#","client":{"id":"a b","secret":"c:d&"}"#).request("t+/=");
        assert_eq!(request.body, b"token=t%2B%2F%3D&token_type_hint=access_token");
        let value =
            request.headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.as_str());
        assert_eq!(value, Some(format!("Basic {}", STANDARD.encode("a+b:c%3Ad%26")).as_str()));
        let request = settings(r#","client":{"id":"a","secret":"c&d","method":"post"}"#).request("t");
        assert_eq!(request.body, b"token=t&token_type_hint=access_token&client_id=a&client_secret=c%26d");
        assert!(request.headers.iter().all(|(name, _)| name != "authorization"));
    }
}
