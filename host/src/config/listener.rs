//! The tables `[[listeners]]`.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::{
    ByteSize, Duration,
    read::{table, written},
};

/// One address to accept connections on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Listener {
    /// IP address and port; port 0 lets the system choose.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// Peers whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are believed.
    #[serde(default, deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// Whether HTTP/2 is spoken with clients that ask for it.
    #[serde(default = "yes")]
    pub http2: bool,
    #[serde(default, deserialize_with = "table")]
    pub limits: ListenerLimits,
    #[serde(default, deserialize_with = "table")]
    pub timeouts: ListenerTimeouts,
}

/// Caps on what a client may send.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ListenerLimits {
    /// Connections at once; beyond it 503 and the connection is closed.
    pub connections: usize,
    /// Method, target and version together; beyond it 414.
    pub request_line: ByteSize,
    /// The whole head of a request; beyond it 431.
    pub headers: ByteSize,
    /// Header fields of a request; beyond it 431.
    pub header_count: usize,
    /// The body of a request; beyond it 413.
    pub body: ByteSize,
    /// Requests at once on one connection of HTTP/2; beyond it they are refused, to be sent again later.
    pub streams: u32,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            request_line: ByteSize::kib(8),
            headers: ByteSize::kib(32),
            header_count: 100,
            body: ByteSize::gib(1),
            streams: 100,
        }
    }
}

/// How long a client may keep the proxy waiting.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ListenerTimeouts {
    /// From the first byte of a request's head to its last; beyond it 408.
    pub header: Duration,
    /// Between two pieces of a request's body; beyond it 408.
    pub body: Duration,
    /// Between two pieces of a response that the client takes; beyond it the connection is closed.
    pub write: Duration,
    /// From one request to the next on a connection, and to the first; beyond it the connection is closed.
    pub idle: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            idle: Duration::from_secs(75),
        }
    }
}

fn yes() -> bool {
    true
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    written(deserializer, "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"", |text| {
        text.parse().ok()
    })
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    /// A single address is a network of one.
    struct Network(IpNet);

    impl<'de> Deserialize<'de> for Network {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            written(
                deserializer,
                "a network or an IP address, such as \"10.0.0.0/8\" or \"10.0.0.1\"",
                |text| {
                    let network = text.parse().ok().or_else(|| Some(text.parse::<IpAddr>().ok()?.into()));
                    network.map(Self)
                },
            )
        }
    }

    let networks = Vec::<Network>::deserialize(deserializer)?;
    Ok(networks.into_iter().map(|network| network.0).collect())
}
