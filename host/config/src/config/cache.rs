//! The table `[cache]`, and what a route says of it.

use std::{collections::BTreeMap, num::NonZero, path::PathBuf};

use http::{HeaderName, StatusCode};
use serde::{Deserialize, Deserializer, de};

use super::{
    ByteSize, Duration,
    shape::{optional_table, written},
};

/// The table `[cache]`: what routes that cache have in common.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Cache {
    /// Stored responses, at most.
    pub entries: NonZero<usize>,
    /// What they may take of memory.
    pub memory: ByteSize,
    /// The body of a response that is stored, at most.
    pub max_object: ByteSize,
    /// How long a request waits for the answer to another that asks for the same.
    pub wait: Duration,
    /// Requests that wait so for one answer, at most.
    pub waiters: usize,
    /// A second tier, which survives the process.
    #[serde(deserialize_with = "optional_table")]
    pub disk: Option<CacheDisk>,
}

/// Where stored responses are on disk.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct CacheDisk {
    /// The folder, which nobody else uses.
    pub path: PathBuf,
    /// What its files may take.
    pub size: ByteSize,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            entries: NonZero::new(10_000).expect("it is not zero"),
            memory: ByteSize::mib(256),
            max_object: ByteSize::mib(8),
            wait: Duration::from_secs(5),
            waiters: 4096,
            disk: None,
        }
    }
}

/// What is cached of a route, and how. `cache = true` is all of it as it is by default.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct RouteCache {
    /// How long a response is fresh that does not say so itself.
    pub ttl: Ttl,
    /// How long responses are fresh that may be stored, whatever they say of that.
    pub force_ttl: Ttl,
    /// How long a stale response may be used while it is renewed, if it does not say so itself.
    pub stale_while_revalidate: Option<Duration>,
    /// How long a stale response may be used when the upstream fails, if it does not say so itself.
    pub stale_if_error: Option<Duration>,
    /// What of the query tells one response from another.
    pub query: Query,
    /// Headers of a request that tell one response from another.
    #[serde(deserialize_with = "names")]
    pub key_headers: Vec<HeaderName>,
    /// The same for cookies.
    pub key_cookies: Vec<String>,
    /// What response hooks are for.
    pub response_hooks: ResponseHooks,
    /// Whether `Cache-Control` of a request is obeyed.
    pub request_directives: RequestDirectives,
    /// Whether responses that set cookies are stored like any other.
    pub store_cookies: bool,
    /// Which requests are answered from the cache.
    pub methods: Vec<CacheMethod>,
    /// The longest body of a POST that may tell one response from another.
    pub key_body: ByteSize,
}

impl Default for RouteCache {
    fn default() -> Self {
        Self {
            ttl: Ttl::default(),
            force_ttl: Ttl::default(),
            stale_while_revalidate: None,
            stale_if_error: None,
            query: Query::default(),
            key_headers: Vec::new(),
            key_cookies: Vec::new(),
            response_hooks: ResponseHooks::default(),
            request_directives: RequestDirectives::default(),
            store_cookies: false,
            methods: vec![CacheMethod::Get],
            key_body: ByteSize::kib(64),
        }
    }
}

/// How long responses are fresh: all whose status is heuristically cacheable, those of some statuses, or both.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ttl {
    /// For the statuses that are heuristically cacheable (RFC 9110, section 15.1).
    pub general: Option<Duration>,
    /// For these statuses, heuristically cacheable or not.
    pub by_status: BTreeMap<u16, Duration>,
}

impl<'de> Deserialize<'de> for Ttl {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Ttl;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(
                    "a duration with its unit, such as \"5m\", or one for each status: { default = \"5m\", 404 = \"10s\" }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ttl, E> {
                let duration = Duration::read(text);
                let duration =
                    duration.ok_or_else(|| E::invalid_value(de::Unexpected::Other("text"), &self))?;
                Ok(Ttl { general: Some(duration), by_status: BTreeMap::new() })
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Ttl, A::Error> {
                let mut ttl = Ttl::default();
                while let Some((key, duration)) = map.next_entry::<String, Duration>()? {
                    if key == "default" {
                        ttl.general = Some(duration);
                        continue;
                    }
                    let status =
                        key.parse::<StatusCode>().ok().filter(|status| (200..600).contains(&status.as_u16()));
                    let status = status.ok_or_else(|| {
                        de::Error::custom(
                            "the keys of this table are status codes such as 404, and `default`",
                        )
                    })?;
                    ttl.by_status.insert(status.as_u16(), duration);
                }
                Ok(ttl)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// A method whose answers may be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum CacheMethod {
    /// And HEAD.
    Get,
    /// Where it asks and changes nothing; its body is part of the key.
    Post,
}

/// What of a query tells one response from another.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Query {
    #[default]
    All,
    /// All, in whichever order.
    Sorted,
    None,
    /// The parameters of these names.
    Only(Vec<String>),
    /// All but those.
    Except(Vec<String>),
}

/// When response hooks run on a stored response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResponseHooks {
    /// On each answer: what the upstream said is stored.
    #[default]
    Always,
    /// When it comes from the upstream: what they made of it is stored.
    Once,
}

/// What `Cache-Control` of a request is to the cache.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RequestDirectives {
    #[default]
    Obey,
    Ignore,
}

/// Reads `true`, `false` or a table.
pub(super) fn route<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<RouteCache>, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Option<RouteCache>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("true, false, or a table such as { ttl = \"5m\" }")
        }

        fn visit_bool<E: de::Error>(self, is_cached: bool) -> Result<Self::Value, E> {
            Ok(is_cached.then(RouteCache::default))
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            RouteCache::deserialize(de::value::MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Visitor)
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        enum Table {
            Only(Vec<String>),
            Except(Vec<String>),
        }

        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Query;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str(
                    "\"all\", \"sorted\", \"none\", { only = [\"page\"] } or { except = [\"utm_source\"] }",
                )
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Query, E> {
                match text {
                    "all" => Ok(Query::All),
                    "sorted" => Ok(Query::Sorted),
                    "none" => Ok(Query::None),
                    _ => Err(E::invalid_value(de::Unexpected::Other("text"), &self)),
                }
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Query, A::Error> {
                Ok(match Table::deserialize(de::value::MapAccessDeserializer::new(map))? {
                    Table::Only(names) => Query::Only(names),
                    Table::Except(names) => Query::Except(names),
                })
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<HeaderName>, D::Error> {
    struct Name(HeaderName);

    impl<'de> Deserialize<'de> for Name {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            written(deserializer, "the name of a header", |text| Some(Self(text.parse().ok()?)))
        }
    }

    Ok(Vec::<Name>::deserialize(deserializer)?.into_iter().map(|name| name.0).collect())
}
