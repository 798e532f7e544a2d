//! Which values in the tests of a plugin are types of their own, and how are they written?

use std::{fmt, time};

use http::uri::PathAndQuery;
use serde::{Deserialize, Deserializer, de};

use crate::{config::shape::written, outgoing::Target};

/// What is to be under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// `"*"` or true: anything.
    Present,
    /// false.
    Absent,
    /// Text: this; repeated headers are joined.
    Is(String),
    /// An array: exactly these, in this order.
    Are(Vec<String>),
}

/// What a call of `pick` is to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectPick {
    /// No opinion.
    Nothing,
    Place(u32),
    /// Any that is there and has not been tried.
    Untried,
}

impl ExpectPick {
    /// Whether this is it, with these places tried already.
    pub fn allows(self, picked: Option<usize>, tried: &[u32]) -> bool {
        match (self, picked.map(|place| place as u32)) {
            (Self::Nothing, picked) => picked.is_none(),
            (Self::Place(place), picked) => picked == Some(place),
            (Self::Untried, picked) => picked.is_some_and(|place| !tried.contains(&place)),
        }
    }
}

/// A point in time, in RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment(pub(super) time::Duration);

impl Moment {
    /// Since 1970.
    pub fn since_epoch(self) -> time::Duration {
        self.0
    }
}

impl Default for Moment {
    /// 2026-01-01T00:00:00Z.
    fn default() -> Self {
        Self(time::Duration::from_secs(1_767_225_600))
    }
}

/// A URL that a plugin may ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) target: Target,
    pub(super) path: PathAndQuery,
}

impl<'de> Deserialize<'de> for Expected {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Expected;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("text, \"*\" for anything, false for nothing, or an array of all values")
            }

            fn visit_bool<E: de::Error>(self, is_present: bool) -> Result<Expected, E> {
                Ok(if is_present { Expected::Present } else { Expected::Absent })
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Expected, E> {
                Ok(Expected::Is(number.to_string()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Expected, E> {
                Ok(if text == "*" { Expected::Present } else { Expected::Is(text.to_owned()) })
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Expected, A::Error> {
                let mut values = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    values.push(text);
                }
                Ok(Expected::Are(values))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for ExpectPick {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = ExpectPick;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let expected = "the place of an endpoint, from 0, \"*\" for any that has not been tried, or false for none";
                formatter.write_str(expected)
            }

            fn visit_bool<E: de::Error>(self, has_one: bool) -> Result<ExpectPick, E> {
                if has_one {
                    return Err(E::invalid_value(de::Unexpected::Bool(true), &self));
                }
                Ok(ExpectPick::Nothing)
            }

            fn visit_i64<E: de::Error>(self, place: i64) -> Result<ExpectPick, E> {
                u32::try_from(place)
                    .map(ExpectPick::Place)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(place), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<ExpectPick, E> {
                match text {
                    "*" => Ok(ExpectPick::Untried),
                    _ => Err(E::invalid_value(de::Unexpected::Other("text"), &self)),
                }
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written(deserializer, "a time such as 2026-01-31T12:00:00Z, not before 1970", |text| {
            let since = text.parse::<jiff::Timestamp>().ok()?.duration_since(jiff::Timestamp::UNIX_EPOCH);
            // Until the year 2500 nanoseconds fit in a number.
            time::Duration::try_from(since).ok().filter(|since| since.as_secs() < 16_725_225_600).map(Self)
        })
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written(
            deserializer,
            "a URL that a plugin may ask, such as \"https://auth.example.com/check\"",
            |text| {
                let uri: http::Uri = text.parse().ok()?;
                let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
                Some(Url { target: Target::of(&uri)?, path })
            },
        )
    }
}
