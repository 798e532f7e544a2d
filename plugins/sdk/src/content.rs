//! What does a request say of its content, if everybody who reads it is to read the same?

use std::fmt;

use serde::{Deserialize, Deserializer, de};

use crate::config::is_header_name;

/// The value of `content-type` (RFC 9110, section 8.3.1), read to its last byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentType {
    /// `type/subtype`, in lower case.
    essence: String,
    /// In lower case.
    charset: Option<String>,
}

impl ContentType {
    /// None of what is not exactly one media type, or has a parameter twice: of `application/json;text/html` one server
    /// reads the first and another the second.
    pub fn parse(value: &str) -> Option<Self> {
        let (essence, mut rest) = match value.find([';', ' ', '\t']) {
            Some(end) => value.split_at(end),
            None => (value, ""),
        };
        let (kind, subtype) = essence.split_once('/')?;
        if !is_header_name(kind) || !is_header_name(subtype) {
            return None;
        }
        let mut charset = None;
        let mut names: Vec<String> = Vec::new();
        // RFC 9110, section 5.6.6.
        loop {
            rest = rest.trim_start_matches([' ', '\t']);
            if rest.is_empty() {
                break;
            }
            rest = rest.strip_prefix(';')?.trim_start_matches([' ', '\t']);
            if rest.is_empty() || rest.starts_with(';') {
                continue;
            }
            let (name, after) = rest.split_once('=')?;
            let (value, after) = parameter_value(after)?;
            let name = name.to_ascii_lowercase();
            if !is_header_name(&name) || names.contains(&name) {
                return None;
            }
            if name == "charset" {
                charset = Some(value.to_ascii_lowercase());
            }
            names.push(name);
            rest = after;
        }
        Some(Self { essence: essence.to_ascii_lowercase(), charset })
    }

    /// `utf-8`, for one; in lower case.
    pub fn charset(&self) -> Option<&str> {
        self.charset.as_deref()
    }
}

/// A token or a quoted string, and what comes after it.
fn parameter_value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([';', ' ', '\t']).unwrap_or(text.len());
        let (token, after) = text.split_at(end);
        return is_header_name(token).then(|| (token.to_owned(), after));
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return Some((value, &quoted[place + 1..])),
            '\\' => value.push(characters.next()?.1),
            other => value.push(other),
        }
    }
    None
}

/// A media type as an operator writes it: `application/json`, all of a kind as `text/*`, or all of a syntax as
/// `application/*+json` (RFC 6839).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaRange(String);

impl MediaRange {
    /// Whether this type is of it, whatever its parameters.
    pub fn includes(&self, content: &ContentType) -> bool {
        match self.0.split_once('*') {
            Some((before, after)) => {
                content.essence.len() > before.len() + after.len()
                    && content.essence.starts_with(before)
                    && content.essence.ends_with(after)
            }
            None => content.essence == self.0,
        }
    }

    /// All of JSON.
    pub fn json() -> Vec<Self> {
        ["application/json", "application/*+json"].map(|range| Self(range.to_owned())).to_vec()
    }
}

impl fmt::Display for MediaRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?.to_ascii_lowercase();
        let is_range = text.split_once('/').is_some_and(|(kind, subtype)| {
            let is_suffix = |rest: &str| rest.is_empty() || (rest.starts_with('+') && !rest.contains('*'));
            is_header_name(kind)
                && !kind.contains('*')
                && is_header_name(subtype)
                && (!subtype.contains('*') || subtype.strip_prefix('*').is_some_and(is_suffix))
        });
        match is_range {
            true => Ok(Self(text)),
            false => Err(de::Error::custom(
                "is not a media type: write \"application/json\", \"text/*\" or \"application/*+json\"",
            )),
        }
    }
}

/// A method as an operator writes it. Methods are case-sensitive (RFC 9110, section 9.1), and all that are registered are
/// in capitals: `get` would be none that a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Method(String);

impl Method {
    /// One that is known to be a method.
    pub fn known(name: &'static str) -> Self {
        Self(name.to_owned())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if !is_header_name(&text) {
            return Err(de::Error::custom(format!("`{}` is not a method", text.escape_debug())));
        }
        if text.bytes().any(|byte| byte.is_ascii_lowercase()) {
            let capitals = text.to_ascii_uppercase();
            return Err(de::Error::custom(format!(
                "`{text}` is a method that no client sends, since case counts: write \"{capitals}\""
            )));
        }
        Ok(Self(text))
    }
}

/// Headers by which frameworks let a request have another method than it says: who looks at the method alone lets a `GET`
/// through that is served as a `DELETE`.
pub const METHOD_OVERRIDES: [&str; 3] = ["x-http-method-override", "x-http-method", "x-method-override"];

/// The query parameter that does the same (Rack, Symfony, Laravel, method-override of Express).
pub const METHOD_PARAMETER: &str = "_method";

/// What of a request asks for another method than it says: a header by its name, or the query parameter.
pub fn method_override(header: impl Fn(&str) -> Option<String>, query: Option<&str>) -> Option<&'static str> {
    let by_header = METHOD_OVERRIDES.into_iter().find(|name| header(name).is_some());
    by_header.or_else(|| {
        // Some servers take a semicolon for an ampersand, as HTML 4.01 asked for (appendix B.2.2).
        let has_it = |query: &str| {
            parameters(&query.replace(';', "&"))
                .iter()
                .any(|(name, _)| as_php_reads(name) == METHOD_PARAMETER)
        };
        // Most queries do not have the word, nor anything written by `%`, and need no list.
        let may_have_it = |query: &&str| query.contains('%') || query.contains("method");
        query.filter(may_have_it).is_some_and(has_it).then_some(METHOD_PARAMETER)
    })
}

/// The name that a parameter has in PHP: a space, a dot or a bracket in it is an underscore there, and spaces in front are
/// left out.
fn as_php_reads(name: &str) -> String {
    name.trim_start_matches(' ').replace([' ', '.', '['], "_")
}

/// Names and values of a query, in order, decoded as browsers encode forms (application/x-www-form-urlencoded of the URL
/// standard). What is no UTF-8 becomes U+FFFD.
pub fn parameters(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (decode(name), decode(value))
        })
        .collect()
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        rest = behind;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => match octet(behind) {
                Some(byte) => {
                    rest = &behind[2..];
                    byte
                }
                None => b'%',
            },
            other => *other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn octet(text: &[u8]) -> Option<u8> {
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    Some(digit(text.first()?)? << 4 | digit(text.get(1)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_type_is_one_media_type_or_none() {
        for (value, essence, charset) in [
            ("application/json", Some("application/json"), None),
            ("Application/JSON ; charset=UTF-8", Some("application/json"), Some("utf-8")),
            ("application/json;charset=\"utf-\\16\"", Some("application/json"), Some("utf-16")),
            ("application/json;", Some("application/json"), None),
            ("application/json; profile=\"a;b\"; x=y", Some("application/json"), None),
            ("application/json;text/html", None, None),
            ("application/json, text/html", None, None),
            ("application/json text/html", None, None),
            ("application/json; charset=utf-8, text/html", None, None),
            ("application/json; charset=utf-8; Charset=utf-7", None, None),
            ("application/json; charset", None, None),
            ("application/json; charset=", None, None),
            ("application/json; charset=\"utf-8", None, None),
            ("application/json; charset = utf-8", None, None),
            ("application", None, None),
            ("/json", None, None),
            ("a/b/c", None, None),
            ("", None, None),
            (" application/json", None, None),
        ] {
            let read = ContentType::parse(value);
            assert_eq!(read.as_ref().map(|read| read.essence.as_str()), essence, "{value}");
            assert_eq!(read.as_ref().and_then(ContentType::charset), charset, "{value}");
        }
    }

    #[test]
    fn a_range_includes_types_whatever_their_parameters() {
        let range = |text: &str| serde_json::from_value::<MediaRange>(text.into());
        for (known, value, is) in [
            ("application/json", "Application/JSON; charset=utf-8", true),
            ("application/json", "application/json-patch+json", false),
            ("application/json", "text/json", false),
            ("application/*+json", "application/problem+json", true),
            ("application/*+json", "application/+json", false),
            ("application/*+json", "application/json", false),
            ("application/*+json", "application/xml", false),
            ("text/*", "text/plain;x=y", true),
            ("text/*", "textual/plain", false),
        ] {
            let content = ContentType::parse(value).expect(value);
            assert_eq!(range(known).expect(known).includes(&content), is, "{known}: {value}");
        }
        for text in ["json", "*/*", "a/b/c", "a/", "/b", "a/*b", "a b/c", "a/*+*", "a/b*"] {
            assert!(range(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_method_is_one_that_clients_send() {
        let method =
            |text: &str| serde_json::from_value::<Method>(text.into()).map_err(|error| error.to_string());
        assert_eq!(method("M-SEARCH"), Ok(Method("M-SEARCH".to_owned())));
        assert!(method("get").is_err_and(|refusal| refusal.contains("write \"GET\"")));
        assert!(method("A B").is_err_and(|refusal| refusal.contains("`A B` is not a method")));
    }

    #[test]
    fn another_method_than_the_request_says_is_found_wherever_it_stands() {
        let none = |_: &str| None;
        assert_eq!(
            method_override(|name| (name == "x-http-method").then(String::new), None),
            Some("x-http-method")
        );
        for (query, found) in [
            ("_method=DELETE", true),
            ("a=1&%5Fmethod=DELETE", true),
            ("_method", true),
            ("a=1;_method=PUT", true),
            (".method=PUT", true),
            ("+[method=PUT", true),
            ("_methods=1&method=2", false),
            ("", false),
        ] {
            assert_eq!(method_override(none, Some(query)).is_some(), found, "{query}");
        }
        assert_eq!(method_override(none, None), None);
    }

    #[test]
    fn a_query_is_read_as_forms_are_written() {
        for (query, expected) in [
            ("", &[][..]),
            ("&&", &[]),
            ("a", &[("a", "")]),
            ("a=1&b=2=3&a=", &[("a", "1"), ("b", "2=3"), ("a", "")]),
            ("a%3Db=c+d%20e%C3%a9", &[("a=b", "c d e\u{e9}")]),
            ("%=%4&%zz=%ff", &[("%", "%4"), ("%zz", "\u{fffd}")]),
        ] {
            let found = parameters(query);
            let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!(found, expected, "{query}");
        }
    }
}
