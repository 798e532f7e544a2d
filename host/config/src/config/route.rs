//! The tables `[[routes]]`.

use std::{collections::BTreeMap, net::Ipv6Addr};

use http::{HeaderName, Method};
use serde::{Deserialize, Deserializer};
use toml::Spanned;

use super::{
    Compress, RouteCache,
    compress::compress,
    shape::{table, written},
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
    /// A candidate that is shown what one of them is shown, without effect.
    #[serde(default)]
    pub shadow: Option<Spanned<ShadowOf>>,
    /// Whether a request of any method may be sent to an upstream twice.
    #[serde(default)]
    pub repeatable: bool,
    /// Protocols that a connection may go on in, where a client asks for it and the upstream agrees.
    #[serde(default = "websocket")]
    pub upgrades: Vec<UpgradeProtocol>,
    /// None for a route whose responses go out as they come.
    #[serde(default, deserialize_with = "compress")]
    pub compress: Option<Compress>,
    /// Whether and how responses are cached; not at all if absent.
    #[serde(default, deserialize_with = "super::cache::route")]
    pub cache: Option<RouteCache>,
}

/// A candidate in the shadow of a plugin: `limiter@candidate.wasm`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShadowOf {
    pub plugin: String,
    /// The file in `plugin-dir`.
    pub file: String,
}

impl<'de> Deserialize<'de> for ShadowOf {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let expected = "a plugin of the route and a file in `plugin-dir`, such as \"limiter@candidate.wasm\"";
        written(deserializer, expected, |text| {
            let (plugin, file) = text.split_once('@')?;
            let is_file =
                file.strip_suffix(".wasm").is_some_and(|stem| !stem.is_empty()) && !file.contains('/');
            (!plugin.is_empty() && is_file).then(|| Self { plugin: plugin.to_owned(), file: file.to_owned() })
        })
    }
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

/// The name of a protocol as it stands in `Upgrade` (RFC 9110, section 7.8), in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpgradeProtocol(String);

impl UpgradeProtocol {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for UpgradeProtocol {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // A tunnel of HTTP would carry requests past routes and plugins.
        let expected = "the name of a protocol other than HTTP, such as \"websocket\"";
        written(deserializer, expected, |text| {
            let name = text.to_ascii_lowercase();
            let is_token = |part: &str| part.parse::<HeaderName>().is_ok();
            let is_valid = match name.split_once('/') {
                Some((name, version)) => is_token(name) && is_token(version),
                None => is_token(&name),
            };
            let is_http = ["http", "h2", "h2c", "h3"].contains(&name.split('/').next().unwrap_or_default());
            (is_valid && !is_http).then_some(Self(name))
        })
    }
}

fn websocket() -> Vec<UpgradeProtocol> {
    vec![UpgradeProtocol("websocket".to_owned())]
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
