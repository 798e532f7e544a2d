//! What did the operator write?
//!
//! Plain data in the shape of `config.toml`, a file a table. Reading ([`read`]) reports every problem
//! with its place; what the names mean, and whether they mean anything, is for `snapshot` to say.

mod admin;
mod cache;
mod compress;
mod discover;
mod endpoint;
mod foreign;
mod health;
mod listener;
mod mistake;
mod plugin;
mod problem;
mod read;
mod renamed;
mod repeated;
mod retry;
mod route;
mod redacted;
mod schema;
pub mod shape;
mod slip;
#[cfg(test)]
mod tests;
mod tls;
mod trust;
mod unit;
mod upstream;
mod value;

pub use admin::{Admin, Token};
pub use cache::{Cache, CacheDisk, CacheMethod, Query, RequestDirectives, ResponseHooks, RouteCache, Ttl};
pub use compress::{Compress, Decode, Encoding, Levels, TypePattern};
pub use discover::{Consul, Discover, DnsName, EndpointFile, Etcd, ZooKeeper};
pub use endpoint::{Endpoint, EndpointAddress, Endpoints, Reach};
pub use health::{CheckProtocol, Health, LoadAddress, Outlier, Statuses};
pub use listener::{
    FileMode, Hsts, Listener, ListenerLimits, ListenerRates, ListenerTimeouts, Redirect, TrustedProxies,
    UnusualNames,
};
pub use plugin::{
    AllRoutes, BodyGrant, Canary, Failure, Grants, HttpGrant, Isolation, Plugin, PluginBreaker, PluginLimits,
    SecretSource, StoreGrant,
};
pub use problem::{Kind as ProblemKind, Problem, Problems, Source};
pub use read::{read, read_document, read_text};
pub use redacted::{is_secret, redacted};
pub use retry::Retry;
pub use route::{HostPattern, Match, Route, ShadowOf, UpgradeProtocol};
pub use schema::schema;
pub use tls::{
    CertificateFiles, CertificateName, ClientAuth, ForwardedCertificate, ListenerTls, Roots, TlsVersion,
    UpstreamTls, Verify,
};
pub use trust::{PublicKey, Sha256, Signature};
pub use unit::{ByteSize, Duration, Share};
pub use upstream::{Protocol, Register, Upstream, UpstreamLimits, UpstreamTimeouts};

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::NonZero,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

/// The whole of `config.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Config {
    /// The drop folder for `.wasm` files, watched. Relative to the folder of the configuration.
    #[serde(default = "default_plugin_dir")]
    pub plugin_dir: PathBuf,
    /// Who may sign plugins. If there is anybody, a file in the drop folder counts only if one of them has.
    #[serde(default)]
    pub plugin_keys: Vec<PublicKey>,
    /// Where compiled plugins are kept between starts. The user's cache folder if absent.
    pub artifact_dir: Option<PathBuf>,
    /// Threads that serve requests; one for each core if absent. Read at start only.
    #[serde(default, deserialize_with = "workers")]
    pub workers: Option<NonZero<usize>>,
    /// How long requests may go on after a signal to stop.
    #[serde(default = "default_drain_timeout")]
    pub drain_timeout: Duration,
    /// How long the proxy goes on accepting after a signal to stop, while `/readyz` says that it is not ready. Not at all if
    /// absent.
    pub drain_delay: Option<Duration>,
    #[serde(default, deserialize_with = "shape::table")]
    pub log: Log,
    #[serde(default, deserialize_with = "shape::table")]
    pub limits: Limits,
    /// Where an operator looks in; nowhere if absent.
    #[serde(default, deserialize_with = "shape::optional_spanned_table")]
    pub admin: Option<Spanned<Admin>>,
    #[serde(default, deserialize_with = "shape::tables")]
    pub listeners: Vec<Spanned<Listener>>,
    #[serde(default, deserialize_with = "shape::named_tables")]
    pub upstreams: BTreeMap<Spanned<String>, Upstream>,
    #[serde(default, deserialize_with = "shape::tables")]
    pub routes: Vec<Spanned<Route>>,
    #[serde(default, deserialize_with = "shape::table")]
    pub cache: Cache,
    #[serde(default, deserialize_with = "shape::named_tables")]
    pub plugins: BTreeMap<Spanned<String>, Plugin>,
}

/// The table `[log]`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Log {
    /// One line a request.
    pub access: bool,
}

impl Default for Log {
    fn default() -> Self {
        Self { access: true }
    }
}

/// The table `[limits]`: what the process as a whole allows.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Limits {
    /// Client connections, over all listeners.
    pub connections: usize,
    /// The file of a plugin.
    pub plugin_size: ByteSize,
    /// The time in which a plugin must be compiled; of files that nothing names, all those of a reload together.
    pub plugin_compile: Duration,
    /// The memory that compiling a plugin may take.
    pub plugin_compile_memory: ByteSize,
    /// The time in which all plugins of a reload must have started and gone through their tests.
    pub plugin_start: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 20_000,
            plugin_size: ByteSize::mib(64),
            plugin_compile: Duration::from_secs(120),
            plugin_compile_memory: ByteSize::gib(2),
            plugin_start: Duration::from_secs(30),
        }
    }
}

impl Config {
    /// Whether a socket on this address takes IPv6 alone: it is `[::]`, or another of IPv6, and there is one of IPv4 with
    /// the same port, which it would take the connections of.
    pub fn leaves_ipv4(&self, address: SocketAddr) -> bool {
        let listeners = self.listeners.iter().filter_map(|listener| listener.get_ref().address.ip());
        let admin = self.admin.iter().map(|admin| admin.get_ref().address);
        let mut others = listeners.chain(admin);
        let port = address.port();
        address.is_ipv6() && port != 0 && others.any(|other| other.is_ipv4() && other.port() == port)
    }

    /// The files that it names, besides plugins; relative to its folder.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let listeners = self.listeners.iter().filter_map(|listener| listener.get_ref().tls.as_ref());
        let of_sources =
            self.upstreams.values().filter_map(|upstream| upstream.discover.as_ref()?.tls.as_ref());
        let upstreams =
            self.upstreams.values().filter_map(|upstream| upstream.tls.as_ref()).chain(of_sources);
        let plugins = self.plugins.values().flat_map(|plugin| plugin.grants.files());
        let files = listeners.flat_map(|tls| tls.get_ref().files());
        files.chain(upstreams.flat_map(|tls| tls.get_ref().files())).chain(plugins)
    }
}

/// Each is a thread with sockets, connections and instances of its own, so nobody means many more than there are cores.
const MOST_WORKERS: usize = 1024;

fn workers<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<NonZero<usize>>, D::Error> {
    struct Visitor;

    impl de::Visitor<'_> for Visitor {
        type Value = NonZero<usize>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "a whole number from 1 to {MOST_WORKERS}")
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<NonZero<usize>, E> {
            let number = usize::try_from(number).ok().filter(|number| *number <= MOST_WORKERS);
            let workers = number.and_then(NonZero::new);
            workers.ok_or_else(|| E::invalid_value(de::Unexpected::Other("number"), &self))
        }
    }

    deserializer.deserialize_any(Visitor).map(Some)
}

/// Where plugins are, if nothing else is written.
pub const DEFAULT_PLUGIN_DIR: &str = "plugins";

fn default_plugin_dir() -> PathBuf {
    PathBuf::from(DEFAULT_PLUGIN_DIR)
}

fn default_drain_timeout() -> Duration {
    Duration::from_secs(30)
}
