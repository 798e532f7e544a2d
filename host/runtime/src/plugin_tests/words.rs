//! How is a single value in the tests of a plugin written?

use std::{collections::BTreeMap, fmt, net::IpAddr};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version,
    uri::{Authority, PathAndQuery},
};
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use crate::{
    address::Caller,
    config::shape::{table, tables, word, written},
    path,
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

pub(super) fn tables_or_none<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    tables_if(deserializer).map(Option::unwrap_or_default)
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
