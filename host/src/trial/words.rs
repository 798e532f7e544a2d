//! How is a single value in the tests of a plugin written?

use std::{collections::BTreeMap, fmt, net::IpAddr, time};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    uri::{Authority, PathAndQuery},
};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::file::{Answered, ExpectPick, Expected, Moment, Url};
use crate::{
    address::Caller,
    config::read::{table, tables, word, written},
    path,
    plugin::Target,
};

/// Bytes of a header value: its code points (isomorphic encoding, as in the contract).
pub fn header_value(text: &str) -> Option<HeaderValue> {
    let bytes: Vec<u8> = text.chars().map(u8::try_from).collect::<Result<_, _>>().ok()?;
    HeaderValue::from_bytes(&bytes).ok()
}

pub(super) fn word_if<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    word(deserializer).map(Some)
}

pub(super) fn table_if<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    table(deserializer).map(Some)
}

pub(super) fn tables_if<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Vec<T>>, D::Error> {
    let tables = tables(deserializer)?;
    Ok(Some(tables.into_iter().map(Spanned::into_inner).collect()))
}

pub(super) fn answers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Answered>, D::Error> {
    tables_if(deserializer).map(Option::unwrap_or_default)
}

pub(super) fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    written(deserializer, "a URL that a plugin may ask, such as \"https://auth.example.com/check\"", |text| {
        let uri: http::Uri = text.parse().ok()?;
        let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
        Some(Url { target: Target::of(&uri)?, path })
    })
}

pub(super) fn method_if<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Method>, D::Error> {
    method(deserializer).map(Some)
}

pub(super) fn method<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Method, D::Error> {
    written(deserializer, "a method, such as \"GET\"", |text| Method::from_bytes(text.as_bytes()).ok())
}

pub(super) fn target<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    written(deserializer, "a path that the proxy would forward, such as \"/a?b=c\"", |text| {
        let (path, query) = text.split_once('?').map_or((text, None), |(path, query)| (path, Some(query)));
        let path = path::canonical(path).ok()?;
        let target = query.map_or_else(|| path.to_string(), |query| format!("{path}?{query}"));
        (PathAndQuery::try_from(target.as_str()).ok()?.query() == query).then_some(target)
    })
}

pub(super) fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
    written(deserializer, "\"1.0\", \"1.1\" or \"2\"", |text| match text {
        "1.0" => Some(Version::HTTP_10),
        "1.1" => Some(Version::HTTP_11),
        "2" => Some(Version::HTTP_2),
        _ => None,
    })
}

pub(super) fn authority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    written(deserializer, "host and port, such as \"example.com:8080\"", |text| {
        (text.is_empty() || Authority::try_from(text).is_ok()).then(|| text.to_owned())
    })
}

pub(super) fn client_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Caller<IpAddr>, D::Error> {
    written(
        deserializer,
        "an address such as \"192.0.2.1\", or \"unix:\" for a client of a Unix socket",
        |text| match text {
            "unix:" => Some(Caller::Unix),
            address => address.parse().ok().map(Caller::Ip),
        },
    )
}

pub(super) fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<StatusCode, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = StatusCode;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a status, a number from 100 to 999")
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<StatusCode, E> {
            u16::try_from(number)
                .ok()
                .and_then(|number| StatusCode::from_u16(number).ok())
                .ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
        }
    }

    deserializer.deserialize_i64(Visitor)
}

pub(super) fn status_if<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<StatusCode>, D::Error> {
    status(deserializer).map(Some)
}

pub(super) fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<HeaderMap, D::Error> {
    let written = BTreeMap::<String, Values>::deserialize(deserializer)?;
    let mut headers = HeaderMap::new();
    for (name, values) in written {
        let field = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| de::Error::custom(format!("`{name}` is not the name of a header")))?;
        for value in values.0 {
            headers.append(field.clone(), value);
        }
    }
    Ok(headers)
}

/// The values of a header: one, or an array of several.
struct Values(Vec<HeaderValue>);

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Values;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the value of a header or an array of values, each a line of bytes")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Values, E> {
                let value = header_value(text);
                value
                    .map(|value| Values(vec![value]))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Other("text"), &self))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Values, A::Error> {
                let mut values = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    let value = header_value(&text);
                    values.push(value.ok_or_else(|| {
                        de::Error::invalid_value(de::Unexpected::Other("text"), &"the value of a header")
                    })?);
                }
                Ok(Values(values))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
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
