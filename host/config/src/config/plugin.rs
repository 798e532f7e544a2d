//! The tables `[plugins.<name>]`.

use std::{
    collections::BTreeMap,
    num::NonZero,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::{
    ByteSize, Duration, Endpoint, PublicKey, Sha256, Share, Signature, UpstreamTls,
    shape::{optional_table, optional_word, table, word},
};
use crate::outgoing::Target;

/// A component and its settings. Several tables may name one file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Plugin {
    /// The file in `plugin-dir`, with or without `.wasm`; the table's own name if absent. A file that is
    /// not there is looked for among the plugins shipped with Tollgate.
    pub file: Option<String>,
    /// Handed to the plugin as JSON.
    pub config: toml::Table,
    /// What becomes of a request when the plugin cannot decide.
    #[serde(deserialize_with = "word")]
    pub fail: Failure,
    /// What its instances are for.
    #[serde(deserialize_with = "word")]
    pub isolation: Isolation,
    /// Whether its calls make way for others while they compute, on several instances.
    pub yields: bool,
    #[serde(deserialize_with = "table")]
    pub limits: PluginLimits,
    /// When it is not asked any more, because it keeps failing or takes the time of others.
    #[serde(deserialize_with = "table")]
    pub breaker: PluginBreaker,
    /// What it may reach beyond the message in hand.
    #[serde(deserialize_with = "grants")]
    pub grants: Grants,
    /// Between two calls of `on-tick`, on one instance of the process; it is not called if absent.
    pub tick: Option<Spanned<Duration>>,
    /// The routes that it is on beside those that name it; before the plugins that they name.
    #[serde(deserialize_with = "optional_word")]
    pub routes: Option<Spanned<AllRoutes>>,
    /// How a new version is tried beside the one in force; it takes over at once if absent.
    #[serde(deserialize_with = "canary")]
    pub canary: Option<Canary>,
    /// What the file must be, to the bit.
    pub sha256: Option<Sha256>,
    /// Who must have signed the file.
    pub public_key: Option<PublicKey>,
    /// The signature; that in `<file>.wasm.sig`, beside the file, if absent.
    pub signature: Option<Signature>,
}

/// A plugin that is on routes which do not name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AllRoutes {
    All,
}

/// What becomes of a request when a plugin traps, overruns its limits, or cannot be started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Failure {
    /// 503.
    #[default]
    Closed,
    /// It goes on as if the plugin were not there.
    Open,
}

/// What an instance of a plugin is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// One call after the other.
    #[default]
    Shared,
    /// One call of a hook for one request. Nothing in its memory is from another.
    Request,
}

/// What one instance of a plugin may use.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PluginLimits {
    /// CPU time of one call.
    pub time: Duration,
    /// Linear memory.
    pub memory: ByteSize,
    /// That of all its instances together; what they are allowed each if absent.
    pub memory_in_all: Option<ByteSize>,
    /// Replies and bodies that it has made and that are not sent yet.
    pub unsent: ByteSize,
    /// What all its instances may log in a second.
    pub log_rate: ByteSize,
    /// Calls after which an instance makes room for a fresh one.
    pub recycle_after: u32,
    /// What a call may wait, in all, for what it was granted.
    pub wait: Duration,
    /// Instances on each worker of a plugin that may wait or yields, and so requests that it has in hand there.
    pub instances: NonZero<u32>,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self {
            time: Duration::from_millis(10),
            memory: ByteSize::mib(32),
            memory_in_all: None,
            unsent: ByteSize::mib(64),
            log_rate: ByteSize::kib(256),
            recycle_after: 100_000,
            wait: Duration::from_secs(10),
            instances: NonZero::new(16).expect("16 is not 0"),
        }
    }
}

/// When a plugin that keeps failing, or takes the time of others, is left alone. Each worker decides for itself.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PluginBreaker {
    /// Calls in a row that trap, take too long, want too much memory, or find no instance.
    pub failures: NonZero<u32>,
    /// How long it is left alone. Twice as long each time when it still fails then,
    pub pause: Duration,
    /// and no longer than this.
    pub pause_max: Duration,
    /// The part of a worker's time that its calls may take, on an average of ten seconds; all of it if absent.
    #[serde(deserialize_with = "some_share")]
    pub cpu_share: Option<Share>,
}

impl Default for PluginBreaker {
    fn default() -> Self {
        Self {
            failures: NonZero::new(16).expect("16 is not 0"),
            pause: Duration::from_millis(500),
            pause_max: Duration::from_secs(30),
            cpu_share: None,
        }
    }
}

fn some_share<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Share>, D::Error> {
    let share = Share::deserialize(deserializer)?;
    match share.get() > 0.0 {
        true => Ok(Some(share)),
        false => {
            Err(de::Error::custom("without any time it cannot be asked: write a share above 0, such as 0.1"))
        }
    }
}

/// How a new version of a plugin proves itself. Written as the weight alone, or as a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Canary {
    /// Of the requests, those that the new version decides. More than none, and not all.
    pub weight: Share,
    /// How long, at least.
    #[serde(rename = "for", default = "default_canary_time")]
    pub time: Duration,
    /// How many requests it must have decided before its failures are compared, and before it takes over.
    #[serde(default = "default_canary_requests")]
    pub requests: NonZero<u32>,
    /// How much larger the share of its requests that fail may be.
    #[serde(default = "default_canary_tolerance")]
    pub tolerance: Share,
}

impl Canary {
    fn new(weight: Share) -> Self {
        Self {
            weight,
            time: default_canary_time(),
            requests: default_canary_requests(),
            tolerance: default_canary_tolerance(),
        }
    }

    fn check(self) -> Result<Self, &'static str> {
        let weight = self.weight.get();
        let is_part = weight > 0.0 && weight < 1.0;
        is_part
            .then_some(self)
            .ok_or("the new version is compared with the one in force: a weight between 0 and 1")
    }
}

fn default_canary_time() -> Duration {
    Duration::from_secs(5 * 60)
}

fn default_canary_requests() -> NonZero<u32> {
    NonZero::new(100).expect("100 is not 0")
}

const fn default_canary_tolerance() -> Share {
    Share::new(0.005)
}

/// Reads a weight, or a table with more to say.
fn canary<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Canary>, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Canary;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a weight such as 0.1, or a table with `weight`")
        }

        fn visit_f64<E: de::Error>(self, share: f64) -> Result<Canary, E> {
            let share = Share::deserialize(de::IntoDeserializer::<E>::into_deserializer(share))?;
            Canary::new(share).check().map_err(E::custom)
        }

        fn visit_i64<E: de::Error>(self, share: i64) -> Result<Canary, E> {
            self.visit_f64(share as f64)
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Canary, A::Error> {
            let canary = Canary::deserialize(de::value::MapAccessDeserializer::new(map))?;
            canary.check().map_err(de::Error::custom)
        }
    }

    deserializer.deserialize_any(Visitor).map(Some)
}

/// What a plugin may reach. Nothing, unless it is written here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Grants {
    /// The store: `true`, or how much of it.
    #[serde(deserialize_with = "granted")]
    pub store: Option<StoreGrant>,
    /// Secrets, by the names that the plugin calls them by.
    pub secrets: BTreeMap<String, Spanned<SecretSource>>,
    /// Origins that it may send requests to.
    pub http: Vec<Spanned<HttpGrant>>,
    /// Bodies: `true`, or how much of them.
    #[serde(deserialize_with = "granted")]
    pub body: Option<BodyGrant>,
    /// Upstreams that it may send requests to, besides that of the route.
    pub upstreams: Vec<Spanned<String>>,
}

impl Grants {
    /// The files that it names, for secrets and for TLS.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let secrets = self.secrets.values().filter_map(|secret| match secret.get_ref() {
            SecretSource::File(path) => Some(path.as_path()),
            SecretSource::Env(_) => None,
        });
        let tables = self.http.iter().filter_map(|grant| grant.get_ref().tls.as_ref());
        secrets.chain(tables.flat_map(UpstreamTls::files))
    }
}

/// Reads a table, and shows how it is written to whoever writes something else.
fn grants<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Grants, D::Error> {
    struct Visitor;

    impl<'de> de::Visitor<'de> for Visitor {
        type Value = Grants;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str(
                "a table such as { store = true, body = true, http = [\"https://auth.example.com\"], \
                 secrets = { token = { env = \"TOKEN\" } }, upstreams = [\"beta\"] }",
            )
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Grants, A::Error> {
            Grants::deserialize(de::value::MapAccessDeserializer::new(map))
        }
    }

    deserializer.deserialize_map(Visitor)
}

/// An origin that a plugin may send requests to. Written as a URL, or as a table where there is more to say.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpGrant {
    /// Scheme, host and port.
    pub origin: Endpoint,
    /// Whether its name may lead to addresses that not anybody can reach, such as those of the own network.
    pub private: bool,
    /// The body of a response, at most.
    pub response: ByteSize,
    /// How it is reached by TLS, if not as usual.
    pub tls: Option<UpstreamTls>,
}

impl HttpGrant {
    fn new(origin: Endpoint) -> Self {
        Self { origin, private: false, response: default_response(), tls: None }
    }

    /// None if what is granted is no origin that a request can be sent to.
    pub fn target(&self) -> Option<Target> {
        let scheme = if self.origin.is_https { "https" } else { "http" };
        Target::of(&format!("{scheme}://{}", self.origin.authority).parse().ok()?)
    }
}

fn default_response() -> ByteSize {
    ByteSize::mib(1)
}

/// How much of a body a plugin may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct BodyGrant {
    /// Of a request's.
    pub request: ByteSize,
    /// Of a response's.
    pub response: ByteSize,
}

impl Default for BodyGrant {
    fn default() -> Self {
        Self { request: ByteSize::mib(1), response: ByteSize::mib(1) }
    }
}

/// What a plugin may keep in its store.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct StoreGrant {
    /// Of keys and values, and of what it takes to keep them.
    pub memory: ByteSize,
    pub entries: usize,
}

impl Default for StoreGrant {
    fn default() -> Self {
        Self { memory: ByteSize::mib(16), entries: 100_000 }
    }
}

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "SecretTable")]
pub enum SecretSource {
    /// In a variable of the environment of this name.
    Env(String),
    /// In a file. Relative to the folder of the configuration.
    File(PathBuf),
}

#[derive(Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "kebab-case",
    expecting = "{ env = \"VARIABLE\" } or { file = \"path\" }"
)]
struct SecretTable {
    env: Option<String>,
    file: Option<PathBuf>,
}

impl TryFrom<SecretTable> for SecretSource {
    type Error = &'static str;

    fn try_from(table: SecretTable) -> Result<Self, Self::Error> {
        match (table.env, table.file) {
            (Some(variable), None) => Ok(Self::Env(variable)),
            (None, Some(path)) => Ok(Self::File(path)),
            (None, None) | (Some(_), Some(_)) => {
                Err("a secret is either { env = \"VARIABLE\" } or { file = \"path\" }")
            }
        }
    }
}

impl<'de> Deserialize<'de> for HttpGrant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "kebab-case")]
        struct Table {
            url: String,
            #[serde(default)]
            private: bool,
            #[serde(default = "default_response")]
            response: ByteSize,
            #[serde(default, deserialize_with = "optional_table")]
            tls: Option<UpstreamTls>,
        }

        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = HttpGrant;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an origin such as \"https://auth.example.com\", or a table with `url`")
            }

            fn visit_str<E: de::Error>(self, url: &str) -> Result<HttpGrant, E> {
                origin(url).map(HttpGrant::new).map_err(E::custom)
            }

            fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<HttpGrant, A::Error> {
                let Table { url, private, response, tls } =
                    Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
                let origin = origin(&url).map_err(de::Error::custom)?;
                Ok(HttpGrant { private, response, tls, ..HttpGrant::new(origin) })
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

/// Somewhere in the network: what is asked for is named by URLs, and no file of this machine has one.
fn origin(url: &str) -> Result<Endpoint, &'static str> {
    match Endpoint::from_url(url)? {
        origin if origin.authority.socket().is_some() => {
            Err("an origin is reached by HTTP: write \"http://host:port\" or \"https://host:port\"")
        }
        // It would be a name that leads nowhere.
        origin if origin.authority.host().contains('*') => {
            Err("an origin is one host: write each that is meant, such as \"https://auth.example.com\"")
        }
        origin => Ok(origin),
    }
}

/// A grant that has limits.
trait Bounded: Default {
    /// Some of them, as they are written.
    const SUCH_AS: &str;
}

impl Bounded for StoreGrant {
    const SUCH_AS: &str = "{ memory = \"16MiB\" }";
}

impl Bounded for BodyGrant {
    const SUCH_AS: &str = "{ request = \"1MiB\" }";
}

/// Reads `true`, `false`, or a table with more to say.
fn granted<'de, D: Deserializer<'de>, T: Deserialize<'de> + Bounded>(
    deserializer: D,
) -> Result<Option<T>, D::Error> {
    struct Visitor<T>(std::marker::PhantomData<T>);

    impl<'de, T: Deserialize<'de> + Bounded> de::Visitor<'de> for Visitor<T> {
        type Value = Option<T>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(formatter, "true, or a table such as {}", T::SUCH_AS)
        }

        fn visit_bool<E: de::Error>(self, is_granted: bool) -> Result<Option<T>, E> {
            Ok(is_granted.then(T::default))
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Option<T>, A::Error> {
            T::deserialize(de::value::MapAccessDeserializer::new(map)).map(Some)
        }
    }

    deserializer.deserialize_any(Visitor(std::marker::PhantomData))
}
