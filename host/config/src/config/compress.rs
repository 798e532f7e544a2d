//! `compress` of a route: `true`, or a table.

use std::{fmt, num::NonZero};

use serde::{Deserialize, Deserializer, de};

use super::{
    ByteSize,
    shape::{table, written},
};

/// Which responses are encoded on their way to the client, and how.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Compress {
    /// What is offered. The first goes where a client likes several equally well.
    pub encodings: Vec<Encoding>,
    /// Contents that are known to be shorter are left as they are.
    pub minimum: ByteSize,
    /// Content types.
    pub types: Vec<TypePattern>,
    #[serde(deserialize_with = "table")]
    pub levels: Levels,
    #[serde(deserialize_with = "table")]
    pub decode: Decode,
}

/// A content coding (RFC 9110, section 8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    Gzip,
    /// The zlib format (RFC 1950).
    Deflate,
    #[serde(rename = "br")]
    Brotli,
    Zstd,
}

impl Encoding {
    pub const ALL: [Self; 4] = [Self::Zstd, Self::Brotli, Self::Gzip, Self::Deflate];

    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
            Self::Zstd => "zstd",
        }
    }
}

/// How hard to try; each encoding has a scale of its own.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Levels {
    #[serde(deserialize_with = "level::<_, 1, 9>")]
    pub gzip: u8,
    #[serde(deserialize_with = "level::<_, 1, 9>")]
    pub deflate: u8,
    #[serde(deserialize_with = "level::<_, 0, 11>")]
    pub br: u8,
    #[serde(deserialize_with = "level::<_, 1, 19>")]
    pub zstd: u8,
}

/// What a response may become that is decoded for a client that cannot; beyond it, it is cut off.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Decode {
    /// Bytes that come of one, after the first MiB.
    pub ratio: NonZero<u32>,
    /// The whole.
    pub size: ByteSize,
}

/// `text/html`, `text/*`, `*/*`, or `*+json` for whatever has that suffix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypePattern {
    Any,
    Exact(String),
    /// What comes before `*`, such as `text/`.
    Within(String),
    /// What comes after `*`, such as `+json`.
    Suffix(String),
}

impl Default for Compress {
    fn default() -> Self {
        Self {
            encodings: Encoding::ALL.to_vec(),
            minimum: ByteSize::kib(1),
            types: TYPES.iter().filter_map(|text| TypePattern::read(text)).collect(),
            levels: Levels::default(),
            decode: Decode::default(),
        }
    }
}

/// What gets notably shorter.
const TYPES: [&str; 14] = [
    "text/*",
    "*+json",
    "*+xml",
    "application/javascript",
    "application/json",
    "application/wasm",
    "application/x-javascript",
    "application/x-ndjson",
    "application/xml",
    "application/yaml",
    "font/otf",
    "font/ttf",
    "image/bmp",
    "image/vnd.microsoft.icon",
];

impl Default for Levels {
    fn default() -> Self {
        Self { gzip: 5, deflate: 5, br: 4, zstd: 3 }
    }
}

impl Default for Decode {
    fn default() -> Self {
        Self { ratio: NonZero::new(200).expect("200 is not zero"), size: ByteSize::gib(1) }
    }
}

impl TypePattern {
    fn read(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        if text == "*/*" {
            return Some(Self::Any);
        }
        if let Some(suffix) = text.strip_prefix('*') {
            return suffix.strip_prefix('+').is_some_and(is_token).then(|| Self::Suffix(suffix.to_owned()));
        }
        let (kind, name) = text.split_once('/')?;
        match name {
            "*" if is_token(kind) => Some(Self::Within(format!("{kind}/"))),
            name if is_token(kind) && is_token(name) => Some(Self::Exact(text)),
            _ => None,
        }
    }

    /// Whether a content type is meant. It comes without parameters.
    ///
    /// Event streams only by their name: each would hold the memory of its encoder for as long as it is open. So are
    /// calls whose content is a sequence of messages, each with an encoding of its own.
    pub fn matches(&self, content_type: &str) -> bool {
        const EVENT_STREAM: &str = "text/event-stream";
        let ends = |text: &str, end: &str| {
            let start = text.len().checked_sub(end.len());
            start.and_then(|start| text.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(end))
        };
        match self {
            Self::Exact(name) => content_type.eq_ignore_ascii_case(name),
            _ if content_type.eq_ignore_ascii_case(EVENT_STREAM) || is_framed(content_type) => false,
            Self::Any => true,
            Self::Within(start) => {
                content_type.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
            }
            Self::Suffix(suffix) => ends(content_type, suffix),
        }
    }
}

/// Whether this is gRPC, gRPC-Web or a stream of Connect, whatever its messages are written in.
fn is_framed(content_type: &str) -> bool {
    let starts =
        |start: &str| content_type.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start));
    let ends_at = |place: usize| matches!(content_type.as_bytes().get(place), None | Some(b'+' | b'-'));
    starts("application/connect+") || starts("application/grpc") && ends_at("application/grpc".len())
}

fn is_token(text: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&byte);
    !text.is_empty() && text.bytes().all(is_allowed)
}

impl<'de> Deserialize<'de> for TypePattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a content type, such as \"text/html\", \"text/*\" or \"*+json\"";
        written(deserializer, expected, Self::read)
    }
}

fn level<'de, D: Deserializer<'de>, const LEAST: u8, const MOST: u8>(
    deserializer: D,
) -> Result<u8, D::Error> {
    struct Visitor<const LEAST: u8, const MOST: u8>;

    impl<const LEAST: u8, const MOST: u8> de::Visitor<'_> for Visitor<LEAST, MOST> {
        type Value = u8;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(formatter, "a whole number from {LEAST} to {MOST}")
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u8, E> {
            let level = u8::try_from(number).ok().filter(|level| (LEAST..=MOST).contains(level));
            level.ok_or_else(|| E::invalid_value(de::Unexpected::Signed(number), &self))
        }
    }

    deserializer.deserialize_u8(Visitor::<LEAST, MOST>)
}

/// Reads `true` and `false` for the defaults and for nothing.
pub(super) fn compress<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Compress>, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Option<Compress>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("true, false or a table")
        }

        fn visit_bool<E: de::Error>(self, is_wanted: bool) -> Result<Self::Value, E> {
            Ok(is_wanted.then(Compress::default))
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            Compress::deserialize(de::value::MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Visitor)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_pattern_means_the_types_it_names() {
        let cases: [(&str, &[&str], &[&str]); 8] = [
            ("text/*", &["text/html", "TEXT/Plain"], &["text", "textual/html", "text/event-stream"]),
            ("text/event-stream", &["text/event-stream"], &["text/event-streams"]),
            ("*+json", &["application/problem+json", "a/b+JSON"], &["application/json", "+jso", "é+jsonx"]),
            ("*+json", &["application/grpcx+json"], &["application/grpc+json", "application/connect+json"]),
            ("application/*", &["application/xml"], &["Application/gRPC", "application/grpc-web+proto"]),
            ("application/grpc", &["application/grpc"], &["application/grpc+json"]),
            (
                "*/*",
                &["image/png", ""],
                &["text/event-stream", "application/grpc", "application/grpc-web-text"],
            ),
            ("Application/JSON", &["application/json"], &["application/jsonp", "application/"]),
        ];
        for (pattern, meant, not_meant) in cases {
            let read = TypePattern::read(pattern).unwrap();
            for name in meant {
                assert!(read.matches(name), "{pattern} {name}");
            }
            for name in not_meant {
                assert!(!read.matches(name), "{pattern} {name}");
            }
        }
        for nonsense in ["", "*", "text", "text/", "/html", "*json", "*/html", "t*/html", "text/html; q=1"] {
            assert_eq!(TypePattern::read(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn every_default_type_is_read() {
        assert_eq!(Compress::default().types.len(), TYPES.len());
    }
}
