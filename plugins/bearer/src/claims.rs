//! What does a token say, and is that what it must?

use std::fmt;

use serde_json::Value;
use tollgate_plugin_sdk::{HeaderValue, Lossy, config::OneOrMore};

use crate::{Claims, judgement::Lifetime};

/// Where a claim is: its name, or names joined by dots where objects are in each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Path(String);

/// Who a token is from, whom it is for, and how exact clocks are.
#[derive(Debug)]
pub(crate) struct Validity {
    pub(crate) issuer: Option<OneOrMore>,
    pub(crate) audience: Option<OneOrMore>,
    /// In seconds.
    pub(crate) leeway: u32,
    /// Whether a token that does not say when it expires is refused.
    pub(crate) must_expire: bool,
}

impl Validity {
    /// When a token with these claims is valid; why it never is, if so (RFC 7519, section 4.1).
    pub(crate) fn lifetime(&self, claims: &Claims) -> Result<Lifetime, &'static str> {
        let leeway = f64::from(self.leeway);
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
            wanted.as_ref().is_none_or(|wanted| values.iter().any(|value| is_among(value, wanted)))
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
    pub(crate) fn new(path: &str) -> Self {
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

    /// The claim as the value of a header: a list of texts is joined by commas, and an object is JSON. An error if the
    /// upstream would read something else than what the token says.
    pub(crate) fn value(&self, claims: &Claims) -> Result<Option<HeaderValue>, Lossy> {
        let Some(claim) = self.find(claims) else { return Ok(None) };
        if !has_exact_numbers(claim) {
            return Err(Lossy::Number);
        }
        let value = match claim {
            Value::Null => return Ok(None),
            Value::String(text) => HeaderValue::text(text),
            list @ Value::Array(items) if items.iter().all(Value::is_string) => {
                HeaderValue::list(texts(list))
            }
            other => HeaderValue::text(&ascii_json(other)),
        };
        value.map(Some)
    }

    /// Whether the claim is one of these, or a list with one of them; the words of a text are such a list, as in
    /// `scope` (RFC 8693, section 4.2).
    pub(crate) fn has_any(&self, claims: &Claims, wanted: &OneOrMore) -> bool {
        match self.find(claims) {
            Some(Value::String(text)) => {
                is_among(text, wanted) || text.split(' ').any(|word| is_among(word, wanted))
            }
            Some(list @ Value::Array(_)) => texts(list).into_iter().any(|text| is_among(text, wanted)),
            Some(scalar @ (Value::Bool(_) | Value::Number(_))) => is_among(&scalar.to_string(), wanted),
            Some(Value::Null | Value::Object(_)) | None => false,
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Whether a text is one of the accepted ones.
fn is_among(text: &str, wanted: &OneOrMore) -> bool {
    wanted.as_slice().iter().any(|one| one == text)
}

/// Whether all numbers in a claim are those of the token. JSON has numbers of any length, and what does not fit in 64 bits
/// has become a floating-point number, of which the last digits are others.
fn has_exact_numbers(claim: &Value) -> bool {
    /// From here on, not every whole number has a floating-point number of its own.
    const INEXACT: f64 = (1_u64 << 53) as f64;
    match claim {
        Value::Number(number) => {
            !number.is_f64() || number.as_f64().is_some_and(|number| number.abs() < INEXACT)
        }
        Value::Array(items) => items.iter().all(has_exact_numbers),
        Value::Object(members) => members.values().all(has_exact_numbers),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}

/// JSON in which characters beyond ASCII are escaped, so that a header can carry it (RFC 8259, section 7).
fn ascii_json(value: &Value) -> String {
    let mut text = String::new();
    for character in value.to_string().chars() {
        match character {
            // Not escaped by what writes JSON, and no visible character.
            '\u{7f}' => text.push_str("\\u007f"),
            ascii if ascii.is_ascii() => text.push(ascii),
            other => {
                for unit in other.encode_utf16(&mut [0; 2]) {
                    text.push_str(&format!("\\u{unit:04x}"));
                }
            }
        }
    }
    text
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
            "nobody": [],
            "mixed": ["a", 7],
            "name": { "first": "Zo\u{eb}", "mark": "\u{1f600}\u{7f}" },
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
            ("nobody", Some("")),
            ("mixed", Some(r#"["a",7]"#)),
            ("name", Some(r#"{"first":"Zo\u00eb","mark":"\ud83d\ude00\u007f"}"#)),
            ("none", None),
            ("realm.none", None),
            ("sub.none", None),
            ("", None),
        ] {
            let value = Path::new(path).value(claims);
            assert_eq!(
                value.as_ref().map(|value| value.as_ref().map(HeaderValue::as_str)),
                Ok(text),
                "{path}"
            );
        }
    }

    #[test]
    fn a_claim_that_would_arrive_as_another_is_refused() {
        for (claim, why) in [
            (json!("admin "), Lossy::Space),
            (json!("\tadmin"), Lossy::Control),
            (json!("admin\n"), Lossy::Control),
            (json!("Zo\u{eb}"), Lossy::NotAscii),
            (json!(["user,admin"]), Lossy::Item),
            (json!(["user", ""]), Lossy::Item),
            (json!(["user", "admin "]), Lossy::Space),
            (json!(["user\u{a0}"]), Lossy::NotAscii),
        ] {
            let mut claims = Claims::new();
            claims.insert("a".to_owned(), claim.clone());
            assert_eq!(Path::new("a").value(&claims), Err(why), "{claim}");
        }
        for number in ["123456789012345678901234567890", "[1e300]", "{\"id\":-9007199254740993.0}"] {
            let claims = serde_json::from_str(&format!("{{\"a\":{number}}}")).expect(number);
            assert_eq!(Path::new("a").value(&claims), Err(Lossy::Number), "{number}");
        }
        let claims = serde_json::from_str(r#"{"a":18446744073709551615,"b":1.5}"#).expect("it is JSON");
        assert_eq!(Path::new("a").value(&claims), HeaderValue::text("18446744073709551615").map(Some));
        assert_eq!(Path::new("b").value(&claims), HeaderValue::text("1.5").map(Some));
    }
}
