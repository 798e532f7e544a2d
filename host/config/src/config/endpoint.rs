//! The endpoints of an upstream.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt,
    net::SocketAddr,
    ops::{Deref, Range},
    path::Path,
    sync::Arc,
};

use http::uri::Authority;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use crate::address;

/// One address of an upstream.
///
/// Written as a URL, or as a table where it has more to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Endpoint {
    pub authority: EndpointAddress,
    /// Whether it is reached by TLS.
    pub is_https: bool,
    /// Which addresses its name may lead to.
    pub reach: Reach,
    /// Its share of requests, for balancers that know weights.
    pub weight: u32,
    /// What balancers may choose by.
    pub tags: BTreeMap<String, String>,
}

/// Which addresses the name of an endpoint may lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// The operator has named it.
    Anywhere,
    /// It is somebody else's word: those that anybody can reach, and those of these networks.
    Guarded {
        networks: Arc<[IpNet]>,
        /// The admin API, which is not to be reached by way of the proxy.
        admin: Option<SocketAddr>,
    },
}

impl Reach {
    /// What anybody can reach and nothing else.
    pub fn public() -> Self {
        Self::Guarded { networks: Arc::default(), admin: None }
    }
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EndpointAddress {
    /// `host:port`.
    Host(Authority),
    /// A socket in the file system, with `unix:` before its path.
    Unix(String),
}

impl EndpointAddress {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Host(authority) => authority.as_str(),
            Self::Unix(written) => written,
        }
    }

    /// The name to reach it by, and to ask it for.
    pub fn host(&self) -> &str {
        match self {
            Self::Host(authority) => authority.host(),
            Self::Unix(_) => LOCAL,
        }
    }

    pub fn port_u16(&self) -> Option<u16> {
        match self {
            Self::Host(authority) => authority.port_u16(),
            Self::Unix(_) => None,
        }
    }

    /// The path, if it is a socket in the file system.
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Host(_) => None,
            Self::Unix(written) => written.strip_prefix("unix:").map(Path::new),
        }
    }

    /// What it is called in a request of the proxy's own.
    pub fn to_authority(&self) -> Authority {
        match self {
            Self::Host(authority) => authority.clone(),
            Self::Unix(_) => Authority::from_static(LOCAL),
        }
    }
}

/// What is asked for over a socket that has no host.
const LOCAL: &str = "localhost";

impl fmt::Display for EndpointAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl PartialEq<&str> for EndpointAddress {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl Endpoint {
    /// Reads a URL as the configuration has it, or `host:port` alone, which is reached by TLS if `is_https`. Files of this
    /// machine are for the configuration to name.
    pub fn parse(text: &str, is_https: bool) -> Result<Self, &'static str> {
        let Address { authority, is_https } = match text.contains("://") {
            true => address(text)?,
            false => {
                let url = format!("{}://{text}", if is_https { "https" } else { "http" });
                let understood = address(&url)?;
                // The port of a scheme that nobody has written is a guess.
                if url.parse().is_ok_and(|uri: http::Uri| uri.port_u16().is_none()) {
                    return Err("an endpoint is a host and a port, such as \"10.0.0.1:8001\"");
                }
                understood
            }
        };
        if authority.socket().is_some() {
            return Err("an endpoint is a host and a port");
        }
        Ok(Self { authority, is_https, reach: Reach::Anywhere, weight: 1, tags: BTreeMap::new() })
    }

    /// The endpoint at an address.
    pub fn at(address: SocketAddr, is_https: bool) -> Self {
        let authority = address.to_string().parse().expect("an address and a port are an authority");
        let authority = EndpointAddress::Host(authority);
        Self { authority, is_https, reach: Reach::Anywhere, weight: 1, tags: BTreeMap::new() }
    }
}

/// The endpoints of an upstream, and where each is written. Two lists are equal wherever they are written.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    list: Vec<Endpoint>,
    /// As many, or none where they are not from a text.
    spans: Vec<Range<usize>>,
}

impl Endpoints {
    /// Those that are there before, each with its place and the place of the first.
    pub fn repeated(&self) -> impl Iterator<Item = (&Endpoint, Range<usize>, Range<usize>)> {
        let mut known = HashMap::new();
        self.list.iter().zip(&self.spans).filter_map(move |(endpoint, span)| {
            let address = match &endpoint.authority {
                EndpointAddress::Host(authority) => authority.as_str().to_ascii_lowercase(),
                EndpointAddress::Unix(path) => path.clone(),
            };
            match known.entry(address) {
                Entry::Vacant(entry) => {
                    entry.insert(span.clone());
                    None
                }
                Entry::Occupied(first) => Some((endpoint, span.clone(), first.get().clone())),
            }
        })
    }
}

impl PartialEq for Endpoints {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Deref for Endpoints {
    type Target = [Endpoint];

    fn deref(&self) -> &[Endpoint] {
        &self.list
    }
}

impl From<Vec<Endpoint>> for Endpoints {
    fn from(list: Vec<Endpoint>) -> Self {
        Self { list, spans: Vec::new() }
    }
}

impl<'de> Deserialize<'de> for Endpoints {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let written = Vec::<Spanned<Endpoint>>::deserialize(deserializer)?;
        let spans = written.iter().map(Spanned::span).collect();
        Ok(Self { list: written.into_iter().map(Spanned::into_inner).collect(), spans })
    }
}

impl<'de> Deserialize<'de> for Endpoint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Table {
            #[serde(deserialize_with = "url")]
            url: Address,
            #[serde(default = "one")]
            weight: u32,
            #[serde(default)]
            tags: BTreeMap<String, String>,
        }

        fn one() -> u32 {
            1
        }

        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Endpoint;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("a URL such as \"http://10.0.0.1:8001\", or a table with `url`")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<Endpoint, E> {
                Endpoint::from_url(url).map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Endpoint, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let Address { authority, is_https } = table.url;
                Ok(Endpoint {
                    authority,
                    is_https,
                    reach: Reach::Anywhere,
                    weight: table.weight,
                    tags: table.tags,
                })
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

impl Endpoint {
    /// Takes `http://host:port` apart, or the same with `https`.
    pub(super) fn from_url(url: &str) -> Result<Self, &'static str> {
        let Address { authority, is_https } = address(url)?;
        Ok(Self { authority, is_https, reach: Reach::Anywhere, weight: 1, tags: BTreeMap::new() })
    }
}

/// What an endpoint's URL says.
struct Address {
    authority: EndpointAddress,
    is_https: bool,
}

fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// Takes `http://host:port` apart, or the same with `https`; the port may be left out for 80 and 443. Or `unix:/path`.
fn address(url: &str) -> Result<Address, &'static str> {
    if url.starts_with("unix:") {
        let is_path = url.parse::<address::Address>().is_ok();
        let authority = is_path.then(|| EndpointAddress::Unix(url.to_owned()));
        let authority = authority.ok_or("a Unix socket is `unix:` and an absolute path")?;
        return Ok(Address { authority, is_https: false });
    }
    let uri: http::Uri = url.parse().map_err(|_| "this is not a URL such as \"http://10.0.0.1:8001\"")?;
    let is_https = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        _ => {
            return Err(
                "an endpoint is reached by HTTP: write \"http://host:port\" or \"https://host:port\"",
            );
        }
    };
    if uri.path_and_query().is_some_and(|path| path != "/") {
        return Err("an endpoint is a scheme, a host and a port, without a path");
    }
    let authority = uri.authority().expect("a URI with a scheme has an authority");
    if authority.as_str().contains('@') {
        return Err("an endpoint is a scheme, a host and a port, without a user");
    }
    let authority = match authority.port_u16() {
        Some(1..) => authority.clone(),
        None if authority.as_str() == authority.host() => {
            let port = if is_https { 443 } else { 80 };
            format!("{authority}:{port}").parse().map_err(|_| "this is not a host")?
        }
        Some(0) | None => return Err("the port of an endpoint is a number from 1 to 65535"),
    };
    Ok(Address { authority: EndpointAddress::Host(authority), is_https })
}
