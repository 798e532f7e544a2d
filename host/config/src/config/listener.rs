//! The tables `[[listeners]]`.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZero,
};

use http::StatusCode;
use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use crate::clock::Rate;

use super::{
    ByteSize, Duration, ListenerTls,
    shape::{optional_spanned_table, table, written, written_or},
};
use crate::address::{Address, Caller};

/// One address to accept connections on.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Listener {
    /// IP address and port; port 0 lets the system choose. Or `unix:` and the path of a socket.
    #[serde(deserialize_with = "any_address")]
    pub address: Address,
    /// Who may connect to a socket of Unix, as for chmod(1); as the umask has it if absent.
    pub mode: Option<Spanned<FileMode>>,
    /// Peers whose `X-Forwarded-*`, `Forwarded` and `X-Request-Id` are believed.
    #[serde(default)]
    pub trusted_proxies: TrustedProxies,
    /// Whether connections begin with a header of the PROXY protocol, which says whose they are. Only `trusted-proxies`
    /// may connect then.
    pub proxy_protocol: Option<Spanned<bool>>,
    /// What becomes of fields whose names hold more than letters, digits and hyphens: servers behind CGI, WSGI, Rack or PHP take
    /// `X_User` for `X-User`.
    #[serde(default)]
    pub underscores_in_headers: UnusualNames,
    /// Whether HTTP/2 is spoken with clients that ask for it.
    #[serde(default = "yes")]
    pub http2: bool,
    /// TLS is spoken here if it is there.
    #[serde(default, deserialize_with = "optional_spanned_table")]
    pub tls: Option<Spanned<ListenerTls>>,
    /// Requests in clear are sent to where TLS is spoken.
    pub redirect_to_https: Option<Spanned<Redirect>>,
    /// Tells browsers to come by TLS only.
    #[serde(default, deserialize_with = "optional_spanned_table")]
    pub hsts: Option<Spanned<Hsts>>,
    #[serde(default, deserialize_with = "table")]
    pub limits: ListenerLimits,
    #[serde(default, deserialize_with = "table")]
    pub timeouts: ListenerTimeouts,
    #[serde(default, deserialize_with = "table")]
    pub min_rates: ListenerRates,
}

impl Listener {
    /// Whether whoever connects has to say first on whose behalf.
    pub fn expects_introduction(&self) -> bool {
        self.proxy_protocol.as_ref().is_some_and(|is_on| *is_on.get_ref())
    }
}

/// What becomes of a field of a request whose name could be another's to some server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UnusualNames {
    /// It is removed.
    #[default]
    Drop,
    /// The request is answered 400.
    Refuse,
    /// It goes on, unless it could be taken for a field that only proxies send, or that a plugin sets or removes.
    Forward,
}

/// Permissions of a file, in octal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl<'de> Deserialize<'de> for FileMode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written(deserializer, "three octal digits, such as \"660\"", |text| {
            let is_octal = text.len() == 3 && text.bytes().all(|digit| (b'0'..=b'7').contains(&digit));
            is_octal.then(|| u32::from_str_radix(text, 8).ok()).flatten().map(Self)
        })
    }
}

/// Whose word on their own clients counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TrustedProxies {
    pub networks: Vec<IpNet>,
    /// Whoever may connect to a socket of Unix.
    pub unix: bool,
}

impl TrustedProxies {
    pub fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    pub fn holds(&self, client: Caller<IpAddr>) -> bool {
        match client {
            Caller::Ip(address) => self.networks.iter().any(|network| network.contains(&address)),
            Caller::Unix => self.unix,
        }
    }
}

/// Where requests in clear are sent. Written as `true`, or as a table where it has more to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// The port where TLS is spoken.
    pub port: NonZero<u16>,
    pub status: StatusCode,
}

/// HTTP Strict Transport Security, RFC 6797.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Hsts {
    /// How long a browser remembers it.
    pub max_age: Duration,
    /// Whether it holds for the hosts below, too.
    pub include_subdomains: bool,
    /// Whether browsers may ship it. The lists ask for a year and the hosts below.
    pub preload: bool,
}

impl Default for Hsts {
    fn default() -> Self {
        Self { max_age: Duration::from_secs(365 * 24 * 60 * 60), include_subdomains: false, preload: false }
    }
}

/// Caps on what a client may send.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ListenerLimits {
    /// Connections at once; beyond it 503 and the connection is closed.
    pub connections: usize,
    /// Connections of one client at once, beyond which it gets 429 and its connection is closed; as many as it
    /// likes if absent. `trusted-proxies` are not counted.
    pub connections_per_address: Option<NonZero<u32>>,
    /// How many bits of an IPv6 address tell a client from others.
    #[serde(deserialize_with = "ipv6_prefix")]
    pub ipv6_prefix: u8,
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
            connections_per_address: None,
            ipv6_prefix: 64,
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
    /// From the connection to the end of its PROXY header, where there is one, and from there to the end of the TLS
    /// handshake; beyond it the connection is closed.
    pub handshake: Duration,
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
            handshake: Duration::from_secs(10),
            header: Duration::from_secs(10),
            body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            idle: Duration::from_secs(75),
        }
    }
}

/// How fast a client has to be while the proxy waits for it: bytes each second, over a window.
///
/// Only the time counts in which it is the client that is waited for. A rate of nothing is no limit.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ListenerRates {
    /// Of a request's body that come; below it 408.
    pub body: ByteSize,
    /// Of a response that the client takes; below it the connection is closed.
    pub write: ByteSize,
    /// How much time of waiting is looked at.
    pub window: Duration,
}

impl Default for ListenerRates {
    fn default() -> Self {
        Self { body: ByteSize::bytes(128), write: ByteSize::bytes(128), window: Duration::from_secs(30) }
    }
}

impl ListenerRates {
    pub fn body(&self) -> Rate {
        Rate { bytes: self.body.get(), window: self.window.get() }
    }

    pub fn write(&self) -> Rate {
        Rate { bytes: self.write.get(), window: self.window.get() }
    }
}

fn yes() -> bool {
    true
}

impl<'de> Deserialize<'de> for Redirect {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
        struct Table {
            port: u16,
            status: u16,
        }

        impl Default for Table {
            fn default() -> Self {
                Self { port: 443, status: 308 }
            }
        }

        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Redirect;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("`true`, or a table with `port` and `status`")
            }

            fn visit_bool<E: de::Error>(self, is_on: bool) -> Result<Redirect, E> {
                if !is_on {
                    return Err(E::custom("leave the key out where nothing is to be redirected"));
                }
                redirect(Table::default()).map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Redirect, A::Error> {
                let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                redirect(table).map_err(de::Error::custom)
            }
        }

        fn redirect(Table { port, status }: Table) -> Result<Redirect, &'static str> {
            let port = NonZero::new(port).ok_or("a port is a number from 1 to 65535")?;
            let status = StatusCode::from_u16(status).ok().filter(|status| {
                matches!(
                    *status,
                    StatusCode::MOVED_PERMANENTLY
                        | StatusCode::FOUND
                        | StatusCode::TEMPORARY_REDIRECT
                        | StatusCode::PERMANENT_REDIRECT
                )
            });
            let status =
                status.ok_or("a redirection is 308 or 301, or 307 or 302 where it is not for good")?;
            Ok(Redirect { port, status })
        }

        deserializer.deserialize_any(Visitor)
    }
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    written(deserializer, "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\"", |text| {
        text.parse().ok()
    })
}

fn ipv6_prefix<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = u8;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a whole number from 1 to 128")
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<u8, E> {
            let bits = u8::try_from(number).ok().filter(|bits| (1..=128).contains(bits));
            bits.ok_or_else(|| E::invalid_value(de::Unexpected::Other("number"), &self))
        }
    }

    deserializer.deserialize_any(Visitor)
}

/// A network, or a single address as a network of one.
pub(super) fn network(text: &str) -> Result<IpNet, Option<&'static str>> {
    let network: IpNet = match text.parse::<IpAddr>() {
        Ok(address) => return Ok(address.into()),
        Err(_) => text.parse().map_err(|_| None)?,
    };
    // Whoever writes 10.0.0.1/8 may mean one address or sixteen million.
    let is_whole = network.addr() == network.network();
    is_whole.then_some(network).ok_or(Some(
        "the address has bits beyond the length of the prefix: write the first address of the network, such as \
         \"10.0.0.0/8\", or a single address, such as \"10.0.0.1\"",
    ))
}

fn any_address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
    let expected = "an IP address and a port, such as \"127.0.0.1:8080\" or \"[::]:8080\", or `unix:` and an absolute path";
    written(deserializer, expected, |text| text.parse().ok())
}

impl<'de> Deserialize<'de> for TrustedProxies {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// A single address is a network of one.
        enum Entry {
            Network(IpNet),
            Unix,
        }

        impl<'de> Deserialize<'de> for Entry {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let expected =
                    "a network or an IP address, such as \"10.0.0.0/8\" or \"10.0.0.1\", or \"unix:\"";
                written_or(deserializer, expected, |text| match text {
                    "unix:" => Ok(Self::Unix),
                    text => network(text).map(Self::Network),
                })
            }
        }

        let mut trusted = Self::default();
        for entry in Vec::<Entry>::deserialize(deserializer)? {
            match entry {
                Entry::Network(network) => trusted.networks.push(network),
                Entry::Unix => trusted.unix = true,
            }
        }
        Ok(trusted)
    }
}
