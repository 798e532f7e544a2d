//! Where endpoints come from that join and leave while the proxy runs: `discover`.

use std::{net::SocketAddr, num::NonZero, path::PathBuf};

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{
    Duration, Endpoint, Token, UpstreamTls,
    shape::{optional_spanned_table, optional_table, written},
};

/// Sources of endpoints, besides those that the configuration names.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Discover {
    /// A name whose records are endpoints.
    #[serde(deserialize_with = "optional_table")]
    pub dns: Option<DnsName>,
    /// A file that is watched, TOML or JSON by its ending.
    pub file: Option<PathBuf>,
    /// Keys in etcd whose values are endpoints.
    #[serde(deserialize_with = "optional_table")]
    pub etcd: Option<Etcd>,
    /// A service that Consul knows.
    #[serde(deserialize_with = "optional_table")]
    pub consul: Option<Consul>,
    /// The children of a node in ZooKeeper. Only where the proxy is built with it.
    #[serde(deserialize_with = "zookeeper")]
    pub zookeeper: Option<ZooKeeper>,
    /// How servers of etcd and Consul are reached that begin with `https://`.
    #[serde(deserialize_with = "optional_spanned_table")]
    pub tls: Option<Spanned<UpstreamTls>>,
    /// Whether endpoints are reached by TLS of which the source does not say.
    pub https: bool,
    /// Whether a source that names no endpoint is believed; otherwise those that it named last stay.
    pub may_be_empty: bool,
}

/// A name in the DNS.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DnsName {
    #[serde(deserialize_with = "name")]
    pub name: String,
    /// With it the name is asked for addresses, without it for services, which say it.
    pub port: Option<NonZero<u16>>,
    /// Who is asked; whom the system asks if empty.
    #[serde(default, deserialize_with = "servers")]
    pub servers: Vec<SocketAddr>,
    /// Records hold as long as they say, and not shorter or longer than this.
    #[serde(default = "ttl_min")]
    pub ttl_min: Duration,
    #[serde(default = "ttl_max")]
    pub ttl_max: Duration,
}

/// Keys in etcd.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Etcd {
    /// The next is asked if one fails.
    #[serde(deserialize_with = "gateways")]
    pub servers: Vec<Endpoint>,
    pub prefix: String,
    /// Who is asking, where that is asked for.
    pub user: Option<String>,
    pub password: Option<Token>,
}

/// A service in Consul.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Consul {
    /// The next is asked if one fails.
    #[serde(deserialize_with = "gateways")]
    pub servers: Vec<Endpoint>,
    pub service: String,
    /// That of the server if absent.
    pub datacenter: Option<String>,
    /// Instances without it do not count.
    pub tag: Option<String>,
    pub token: Option<Token>,
}

/// A node in ZooKeeper.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ZooKeeper {
    /// `host:port` each.
    pub servers: Vec<String>,
    #[serde(deserialize_with = "node")]
    pub path: String,
}

fn node<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    written(deserializer, "the path of a node, such as \"/services/app\"", |text| {
        (text.len() > 1 && text.starts_with('/') && !text.ends_with('/')).then(|| text.to_owned())
    })
}

fn zookeeper<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<ZooKeeper>, D::Error> {
    let settings: Option<ZooKeeper> = optional_table(deserializer)?;
    match settings {
        Some(_) if !cfg!(feature = "zookeeper") => Err(de::Error::custom(
            "this executable was built without ZooKeeper: build it with `--features zookeeper`",
        )),
        Some(ZooKeeper { servers, .. }) if servers.is_empty() => {
            Err(de::Error::custom("somebody has to be asked: name a server"))
        }
        settings => Ok(settings),
    }
}

impl Discover {
    /// Whether a server that is asked is reached by TLS.
    pub fn needs_tls(&self) -> bool {
        let etcd = self.etcd.iter().flat_map(|etcd| &etcd.servers);
        let consul = self.consul.iter().flat_map(|consul| &consul.servers);
        etcd.chain(consul).any(|server| server.is_https)
    }
}

fn gateways<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Endpoint>, D::Error> {
    struct Gateway(Endpoint);

    impl<'de> Deserialize<'de> for Gateway {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            written(deserializer, "a URL such as \"http://10.0.0.1:2379\"", |text| {
                text.contains("://").then(|| Endpoint::parse(text, false).ok()).flatten().map(Self)
            })
        }
    }

    let gateways = Vec::<Gateway>::deserialize(deserializer)?;
    if gateways.is_empty() {
        return Err(de::Error::custom("somebody has to be asked: name a server"));
    }
    Ok(gateways.into_iter().map(|gateway| gateway.0).collect())
}

fn ttl_min() -> Duration {
    Duration::from_secs(1)
}

fn ttl_max() -> Duration {
    Duration::from_secs(300)
}

fn name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    written(deserializer, "a name such as \"app.internal\" or \"_http._tcp.app.internal\"", |text| {
        let is_label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let is_name = text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(is_label);
        is_name.then(|| text.to_owned())
    })
}

fn servers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    /// Without a port it is that of the DNS.
    struct Server(SocketAddr);

    impl<'de> Deserialize<'de> for Server {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let expected =
                "an IP address, with a port unless that is 53, such as \"10.0.0.2\" or \"10.0.0.2:5353\"";
            written(deserializer, expected, |text| {
                let with_port = || Some(SocketAddr::new(text.parse().ok()?, 53));
                text.parse().ok().or_else(with_port).map(Self)
            })
        }
    }

    let servers = Vec::<Server>::deserialize(deserializer)?;
    Ok(servers.into_iter().map(|server| server.0).collect())
}

/// What a file of endpoints holds.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct EndpointFile {
    pub endpoints: Vec<Endpoint>,
}
