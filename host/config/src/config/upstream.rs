//! The tables `[upstreams.<name>]`.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    fmt,
    net::SocketAddr,
    num::NonZero,
    ops::{Deref, Range},
    path::Path,
    sync::Arc,
};

use http::uri::Authority;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{
    ByteSize, Discover, Duration, Health, LoadAddress, Outlier, Retry, Share, UpstreamTls,
    listener::network,
    read::{names, optional_spanned_table, optional_table, table, written_or},
};
use crate::address;

/// A named group of endpoints.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Upstream {
    /// Those that are always there.
    #[serde(default)]
    pub endpoints: Endpoints,
    /// Where others come from, if they do.
    #[serde(default, deserialize_with = "optional_table")]
    pub discover: Option<Discover>,
    /// Whether endpoints may be registered by the admin API, and which.
    #[serde(default, deserialize_with = "register")]
    pub register: Option<Register>,
    /// The version of HTTP that is spoken with them.
    #[serde(default)]
    pub protocol: Protocol,
    /// Whether connections begin with a header of the PROXY protocol, which names the client.
    #[serde(default)]
    pub proxy_protocol: bool,
    /// The plugins whose `pick` decides, the first that has an opinion; the least loaded of two if none has.
    #[serde(default, deserialize_with = "names")]
    pub balance: Vec<Spanned<String>>,
    /// No checks if absent.
    #[serde(default, deserialize_with = "optional_table")]
    pub health: Option<Health>,
    /// Nobody is asked for its load if absent.
    #[serde(default, deserialize_with = "optional_table")]
    pub load: Option<LoadAddress>,
    #[serde(default, deserialize_with = "table")]
    pub outlier: Outlier,
    #[serde(default, deserialize_with = "table")]
    pub retry: Retry,
    #[serde(default, deserialize_with = "table")]
    pub limits: UpstreamLimits,
    /// If a smaller share of the endpoints is healthy, all are used.
    #[serde(default = "default_panic_threshold")]
    pub panic_threshold: Share,
    /// Over this time an endpoint that joins or recovers comes to its full weight; at once if absent.
    pub slow_start: Option<Duration>,
    /// How endpoints are reached that begin with `https://`.
    #[serde(default, deserialize_with = "optional_spanned_table")]
    pub tls: Option<Spanned<UpstreamTls>>,
    /// Whether the proxy is not ready (`/readyz`) while this upstream has no endpoint that can serve.
    #[serde(default = "yes")]
    pub required_for_ready: bool,
    #[serde(default, deserialize_with = "table")]
    pub timeouts: UpstreamTimeouts,
}

/// A version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// What the endpoint chooses in the handshake of TLS, of both; HTTP/1.1 in clear.
    #[default]
    Auto,
    H1,
    /// HTTP/2, with prior knowledge in clear.
    H2,
}

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

/// Who may register as an endpoint. Written as `true`, or as a table where it has more to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Register {
    /// Whose addresses may be registered besides those that anybody can reach.
    pub networks: Arc<[IpNet]>,
}

fn register<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Register>, D::Error> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Table {
        networks: Vec<Network>,
    }

    struct Network(IpNet);

    impl<'de> Deserialize<'de> for Network {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let expected = "a network or an IP address, such as \"10.0.0.0/8\" or \"10.0.0.1\"";
            written_or(deserializer, expected, network).map(Self)
        }
    }

    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Option<Register>;

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("true, false, or a table such as { networks = [\"10.0.0.0/8\"] }")
        }

        fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<Self::Value, E> {
            Ok(is_on.then(|| Register { networks: Arc::default() }))
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
            Ok(Some(Register { networks: table.networks.into_iter().map(|network| network.0).collect() }))
        }
    }

    deserializer.deserialize_any(Visitor)
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

/// How much an upstream is given to do at once, by all workers, and how much it may say before a response's content.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct UpstreamLimits {
    /// Requests at once, in all; no limit if absent.
    pub requests: Option<NonZero<u32>>,
    /// Requests at once to an endpoint; no limit if absent.
    pub endpoint_requests: Option<NonZero<u32>>,
    /// Whether fewer requests are let through when latency grows.
    pub adaptive: bool,
    /// Requests that wait for others to end; beyond it 503.
    pub queue: u32,
    /// How long a request waits; beyond it 503.
    pub queue_timeout: Duration,
    /// Connections to an endpoint; no limit if absent.
    pub connections: Option<NonZero<u32>>,
    /// The whole head of a response, as it stands in HTTP/1.1; beyond it 502.
    #[serde(deserialize_with = "head_size")]
    pub headers: ByteSize,
    /// Header fields of a response; beyond it 502.
    #[serde(deserialize_with = "head_count")]
    pub header_count: usize,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self {
            requests: None,
            endpoint_requests: None,
            adaptive: false,
            queue: 256,
            queue_timeout: Duration::from_secs(1),
            connections: None,
            headers: ByteSize::kib(256),
            header_count: 1000,
        }
    }
}

/// How long an upstream may keep a request waiting.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct UpstreamTimeouts {
    /// To a connection; beyond it 504.
    pub connect: Duration,
    /// From the request sent to the head of the response; beyond it 504.
    pub response: Duration,
    /// Between two pieces of a response's body; beyond it the response is cut off.
    pub body: Duration,
    /// Silence in both directions of a tunnel; beyond it the tunnel is closed.
    pub tunnel: Duration,
    /// How long a connection without a request is kept.
    pub idle: Duration,
    /// How long a connection of HTTP/2 takes requests; without end if absent.
    pub age: Option<Duration>,
    /// After this time of silence a connection of HTTP/2 with requests is asked for a sign of life, and given up if
    /// there is none in as long again. Not asked if absent.
    pub ping: Option<Duration>,
}

impl Default for UpstreamTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(30),
            body: Duration::from_secs(30),
            tunnel: Duration::from_secs(60 * 60),
            idle: Duration::from_secs(60),
            age: None,
            ping: None,
        }
    }
}

fn yes() -> bool {
    true
}

fn head_size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ByteSize, D::Error> {
    let size = ByteSize::deserialize(deserializer)?;
    // HTTP/2 counts 32 bytes more for each field, and h2 takes no more than `upstream/share.rs` lets it.
    let fits = (1024..=1 << 20).contains(&size.get());
    fits.then_some(size)
        .ok_or_else(|| de::Error::custom("a head of a response is limited to between 1KiB and 1MiB"))
}

fn head_count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let count = usize::deserialize(deserializer)?;
    let fits = (1..=10_000).contains(&count);
    fits.then_some(count)
        .ok_or_else(|| de::Error::custom("the fields of a response are limited to between 1 and 10000"))
}

fn default_panic_threshold() -> Share {
    Share::new(0.1)
}

impl Upstream {
    /// Whether endpoints may join that are reached by TLS.
    pub fn may_need_tls(&self) -> bool {
        let by_default = self.discover.as_ref().is_some_and(|discover| discover.https);
        by_default || self.tls.is_some() && !self.has_no_others()
    }

    /// Whether it can have no endpoints but those that it names.
    pub fn has_no_others(&self) -> bool {
        self.discover.is_none() && self.register.is_none()
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

impl Upstream {
    /// One endpoint, which is spoken to in HTTP/1.1, and everything else as it is by default.
    pub fn of(endpoint: Endpoint) -> Self {
        Self {
            endpoints: vec![endpoint].into(),
            discover: None,
            register: None,
            protocol: Protocol::H1,
            proxy_protocol: false,
            balance: Vec::new(),
            health: None,
            load: None,
            outlier: Outlier::default(),
            retry: Retry::default(),
            limits: UpstreamLimits::default(),
            panic_threshold: default_panic_threshold(),
            slow_start: None,
            tls: None,
            required_for_ready: true,
            timeouts: UpstreamTimeouts::default(),
        }
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
