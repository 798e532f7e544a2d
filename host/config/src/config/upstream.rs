//! The tables `[upstreams.<name>]`.

use std::{fmt, num::NonZero, sync::Arc};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{
    ByteSize, Discover, Duration, Endpoint, Endpoints, Health, LoadAddress, Outlier, Retry, Share,
    UpstreamTls,
    listener::network,
    shape::{names, optional_spanned_table, optional_table, table, written_or},
};

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
