//! What must a header or a parameter be?

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
