//! The tables `[[routes]]`.

use std::{collections::BTreeMap, net::Ipv6Addr};

use http::{HeaderName, Method};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{
    Compress, RouteCache,
    compress::compress,
    read::{table, written},
};

/// Which requests go where, and through which plugins.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Route {
    /// What logs and plugins call it; `routes[<place>]` if absent.
    pub name: Option<String>,
    #[serde(default, rename = "match", deserialize_with = "table")]
    pub matches: Match,
    pub upstream: Spanned<String>,
    /// Request hooks run in this order, response hooks in reverse.
    #[serde(default)]
    pub plugins: Vec<Spanned<String>>,
    /// Whether a request of any method may be sent to an upstream twice.
    #[serde(default)]
    pub repeatable: bool,
    /// None for a route whose responses go out as they come.
    #[serde(default, deserialize_with = "compress")]
    pub compress: Option<Compress>,
    /// Whether and how responses are cached; not at all if absent.
    #[serde(default, deserialize_with = "super::cache::route")]
    pub cache: Option<RouteCache>,
}

/// What a request must be for a route to take it. What is absent matches everything.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Match {
    pub host: Option<HostPattern>,
    /// A prefix of the path, in whole segments.
    pub path: Option<Spanned<String>>,
    #[serde(deserialize_with = "methods")]
    pub methods: Vec<Method>,
    #[serde(deserialize_with = "headers")]
    pub headers: BTreeMap<String, String>,
}

/// `api.example.com`, or `*.example.com` for every name below it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    Exact(String),
    /// What follows `*.`
    Below(String),
}

impl<'de> Deserialize<'de> for HostPattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a host without a port, such as \"api.example.com\" or \"*.example.com\"";
        written(deserializer, expected, |text| {
            let name = text.strip_prefix("*.").unwrap_or(text);
            let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
            if text.starts_with("*.") {
                is_name(&name).then_some(Self::Below(name))
            } else {
                (is_name(&name) || is_ipv6(&name)).then_some(Self::Exact(name))
            }
        })
    }
}

fn is_name(text: &str) -> bool {
    text.split('.').all(|label| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b))
    })
}

fn is_ipv6(text: &str) -> bool {
    let address = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    address.is_some_and(|address| address.parse::<Ipv6Addr>().is_ok())
}

fn methods<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Method>, D::Error> {
    struct Name(Method);

    impl<'de> Deserialize<'de> for Name {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            // Methods are case-sensitive, and a request with one in lower case is refused.
            written(deserializer, "a method, such as \"GET\"", |text| {
                let is_upper = !text.bytes().any(|byte| byte.is_ascii_lowercase());
                is_upper.then(|| text.parse().ok()).flatten().map(Self)
            })
        }
    }

    Ok(Vec::<Name>::deserialize(deserializer)?.into_iter().map(|name| name.0).collect())
}

fn headers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    #[derive(PartialEq, Eq, PartialOrd, Ord)]
    struct Name(String);

    impl<'de> Deserialize<'de> for Name {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            written(deserializer, "the name of a header", |text| {
                Some(Self(text.parse::<HeaderName>().ok()?.as_str().to_owned()))
            })
        }
    }

    let headers = BTreeMap::<Name, String>::deserialize(deserializer)?;
    Ok(headers.into_iter().map(|(name, value)| (name.0, value)).collect())
}
