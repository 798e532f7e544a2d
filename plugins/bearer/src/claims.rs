//! What does a token say, and is that what it must?

use serde::Deserialize;
use serde_json::Value;

use crate::{Claims, judgement::Lifetime};

/// Where a claim is: its name, or names joined by dots where objects are in each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path(String);

/// A text, or several of which one is enough.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "expected a string, or an array of strings")]
pub enum OneOrMore {
    One(String),
    More(Vec<String>),
}

/// Who a token is from, whom it is for, and how exact clocks are.
#[derive(Debug)]
pub struct Validity {
    pub issuer: Option<OneOrMore>,
    pub audience: Option<OneOrMore>,
    /// In seconds.
    pub leeway: u64,
    /// Whether a token that does not say when it expires is refused.
    pub must_expire: bool,
}

impl Validity {
    /// When a token with these claims is valid; why it never is, if so (RFC 7519, section 4.1).
    pub(crate) fn lifetime(&self, claims: &Claims) -> Result<Lifetime, &'static str> {
        let leeway = self.leeway as f64;
        let end = match claims.get("exp").map(Value::as_f64) {
            Some(Some(expiry)) => expiry + leeway,
            None if !self.must_expire => f64::INFINITY,
            Some(None) | None => return Err("the token does not say when it expires"),
        };
        // By whole seconds: a token that is made and used at once is valid.
        let begin = match claims.get("nbf").map(Value::as_f64) {
            Some(Some(begin)) => begin.round() - leeway,
            Some(None) => return Err("the token is not valid yet"),
            None => f64::NEG_INFINITY,
        };
        Ok(Lifetime { begin, end })
    }

    /// Checks who a token is from and whom it is for.
    pub(crate) fn check(&self, claims: &Claims) -> Result<(), &'static str> {
        let is = |name: &str, wanted: &Option<OneOrMore>| {
            let values = claims.get(name).map(texts).unwrap_or_default();
            wanted.as_ref().is_none_or(|wanted| values.iter().any(|value| wanted.has(value)))
        };
        if !is("iss", &self.issuer) {
            return Err("the token has another issuer");
        }
        if !is("aud", &self.audience) {
            return Err("the token is for another audience");
        }
        Ok(())
    }
}

impl Path {
    pub fn new(path: &str) -> Self {
        Self(path.to_owned())
    }

    /// A claim of this very name comes before one that is inside of another: names may have dots.
    fn find<'a>(&self, claims: &'a Claims) -> Option<&'a Value> {
        if let Some(value) = claims.get(&self.0) {
            return Some(value);
        }
        let mut names = self.0.split('.');
        let first = claims.get(names.next()?)?;
        names.try_fold(first, |value, name| value.get(name))
    }

    /// The claim as the value of a header: a list is joined by commas, and an object is JSON.
    pub fn text(&self, claims: &Claims) -> Option<String> {
        match self.find(claims)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            list @ Value::Array(items) if items.iter().all(Value::is_string) => Some(texts(list).join(",")),
            other => Some(other.to_string()),
        }
    }

    /// Whether the claim is one of these, or a list with one of them; the words of a text are such a list, as in
    /// `scope` (RFC 8693, section 4.2).
    pub fn has_any(&self, claims: &Claims, wanted: &OneOrMore) -> bool {
        match self.find(claims) {
            Some(Value::String(text)) => wanted.has(text) || text.split(' ').any(|word| wanted.has(word)),
            Some(list @ Value::Array(_)) => texts(list).into_iter().any(|text| wanted.has(text)),
            Some(scalar @ (Value::Bool(_) | Value::Number(_))) => wanted.has(&scalar.to_string()),
            Some(Value::Null | Value::Object(_)) | None => false,
        }
    }
}

impl OneOrMore {
    fn has(&self, text: &str) -> bool {
        match self {
            Self::One(one) => one == text,
            Self::More(more) => more.iter().any(|one| one == text),
        }
    }
}

/// A text, or the texts of a list.
fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::String(text) => vec![text],
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn claims_are_found_and_become_the_values_of_headers() {
        let claims = json!({
            "sub": "ann",
            "n": 7,
            "roles": ["a", "b"],
            "realm": { "roles": ["c"], "deep": { "er": true } },
            "https://x.y/z": "dots",
            "none": null,
        });
        let claims = claims.as_object().expect("is an object");
        for (path, text) in [
            ("sub", Some("ann")),
            ("n", Some("7")),
            ("roles", Some("a,b")),
            ("realm.roles", Some("c")),
            ("realm.deep.er", Some("true")),
            ("realm.deep", Some(r#"{"er":true}"#)),
            ("https://x.y/z", Some("dots")),
            ("none", None),
            ("realm.none", None),
            ("sub.none", None),
            ("", None),
        ] {
            assert_eq!(Path::new(path).text(claims).as_deref(), text, "{path}");
        }
    }
}
