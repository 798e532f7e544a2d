//! What must a header, a parameter or a type be?

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};
use tollgate_plugin_sdk::Pattern;

/// Where something is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Place {
    Header,
    Query,
}

/// What is wrong.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) place: Place,
    pub(crate) name: String,
    pub(crate) reason: &'static str,
}

/// What the values of one name must be.
#[derive(Debug)]
pub(crate) struct Rule {
    pub(crate) place: Place,
    pub(crate) name: String,
    terms: Terms,
}

/// As it is written: a pattern, or a table.
#[derive(Debug, Clone)]
pub(crate) struct Terms {
    pattern: Option<Pattern>,
    required: bool,
    many: bool,
}

/// A type, such as `application/json`, or all of a kind, such as `text/*`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MediaType(String);

impl Place {
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Query => "query parameter",
        }
    }
}

impl Wrong {
    /// A parameter that no rule is for. Names are the client's: they are told as far as they are short.
    pub(crate) fn unknown(name: &str) -> Self {
        Self { place: Place::Query, name: name.chars().take(100).collect(), reason: "is not known here" }
    }
}

impl Rule {
    pub(crate) fn new(place: Place, name: &str, terms: Terms) -> Self {
        Self { place, name: name.to_owned(), terms }
    }

    /// What is wrong with the values, if anything is.
    pub(crate) fn wrong(&self, values: &[String]) -> Option<Wrong> {
        let Terms { pattern, required, many } = &self.terms;
        let fits = |value: &String| pattern.as_ref().is_none_or(|pattern| pattern.is_match(value));
        let reason = match values {
            [] if *required => "is missing",
            [_, _, ..] if !many => "is there more than once",
            values if !values.iter().all(fits) => "is not as it must be",
            _ => return None,
        };
        Some(Wrong { place: self.place, name: self.name.clone(), reason })
    }
}

impl MediaType {
    /// Whether the value of `content-type` is of it, whatever its parameters.
    pub(crate) fn is_type_of(&self, value: &str) -> bool {
        let value = value.split(';').next().unwrap_or_default().trim_ascii();
        match self.0.strip_suffix('*') {
            Some(kind) => {
                value.get(..kind.len()).is_some_and(|start| start.eq_ignore_ascii_case(kind))
                    && value.len() > kind.len()
            }
            None => value.eq_ignore_ascii_case(&self.0),
        }
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for MediaType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let is_token = |part: &str| tollgate_plugin_sdk::config::is_header_name(part);
        let is_type = text.split_once('/').is_some_and(|(kind, subtype)| {
            is_token(kind)
                && !kind.contains('*')
                && is_token(subtype)
                && (subtype == "*" || !subtype.contains('*'))
        });
        match is_type {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(de::Error::custom("is no media type: write \"application/json\" or \"text/*\"")),
        }
    }
}

impl<'de> Deserialize<'de> for Terms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Table {
            #[serde(default)]
            pattern: Option<Pattern>,
            #[serde(default = "yes")]
            required: bool,
            #[serde(default)]
            many: bool,
        }

        fn yes() -> bool {
            true
        }

        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Terms;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a pattern, or a table with `pattern`, `required` and `many`")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Terms, E> {
                let pattern = Pattern::deserialize(de::value::StrDeserializer::new(text))?;
                Ok(Terms { pattern: Some(pattern), required: true, many: false })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Terms, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                Ok(Terms { pattern: table.pattern, required: table.required, many: table.many })
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_told_whatever_its_parameters() {
        for (known, value, is) in [
            ("application/json", "application/json", true),
            ("application/json", "Application/JSON ; charset=utf-8", true),
            ("application/json", "application/json-patch+json", false),
            ("application/json", "text/json", false),
            ("application/json", "", false),
            ("text/*", "text/plain;x", true),
            ("text/*", "text/", false),
            ("text/*", "textual/plain", false),
            ("text/*", "te\u{e9}", false),
        ] {
            let known: MediaType = serde_json::from_value(known.into()).expect(known);
            assert_eq!(known.is_type_of(value), is, "{known}: {value}");
        }
        for text in ["json", "*/*", "a/b/c", "a/", "/b", "a/*b", "a b/c"] {
            assert!(serde_json::from_value::<MediaType>(text.into()).is_err(), "{text}");
        }
    }
}
