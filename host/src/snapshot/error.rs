//! Why is a plugin not loaded?

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use crate::{
    config::{ByteSize, Problem, ProblemKind},
    plugin::{Digest, LoadError, SecretError, StartError, TrustError},
    telemetry::with_sources,
};

/// Why a plugin could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum PluginError {
    #[error("there is no file {} and no plugin of this name is shipped", .0.display())]
    Missing(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is larger than {most}, which `limits.plugin-size` says", path.display())]
    TooLarge { path: PathBuf, most: ByteSize },
    #[error("{path} is not trusted: {source}")]
    Untrusted { path: String, source: TrustError },
    #[error("its settings cannot be used: {message}")]
    Settings { message: String, kind: ProblemKind },
    #[error("a plugin has the name of its file without `.wasm`: write `{0}`")]
    NamedAsFile(String),
    #[error("there is the table [plugins.{name}], and {} beside the plugin: remove one of them", path.display())]
    TwoTables { name: String, path: PathBuf },
    #[error("`routes` puts it on all routes, and it has no hook for requests or responses")]
    NothingOnRoutes,
    #[error("version {0} was rolled back, and no other version that has served is kept")]
    TakenBack(Digest),
    #[error("version {digest} is to serve again, and cannot be read: {source}")]
    Kept { digest: Digest, source: io::Error },
    #[error("{} is not usable: {}", path, with_sources(&**source))]
    Load { path: String, source: Arc<LoadError> },
    #[error(
        "the plugin imports {interfaces}, which it has not been granted: write `grants = {{ {grants} }}` {place}"
    )]
    NotGranted { interfaces: String, grants: String, place: String },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{}", .0.message)]
    Origin(Problem),
    #[error("the plugin {}", with_sources(.0))]
    Start(#[from] StartError),
    #[error(
        "it was not started: the plugins of this reload have taken {} s to start and to go through their tests, which is all they \
         have; raise `limits.plugin-start` if they need more", .0.as_secs_f64()
    )]
    NoTime(Duration),
    #[error("its tests cannot be read: {0}")]
    Tests(String),
    #[error("it fails its tests: {0}")]
    Fails(String),
    #[error("it was tried beside the version in force, and is not to take over")]
    NotAsGood,
    #[error(
        "it imports `tollgate:policy/{0}`, and what it asks others would be asked once more for a candidate"
    )]
    Asks(&'static str),
    #[error(
        "a candidate is not called in turns with others, and `[plugins.{0}]` says `yields = true`: take that out, or try the \
         candidate with `canary`"
    )]
    Yields(String),
    #[error("it has neither `on-request` nor `on-response`, so there is nothing to show it")]
    NothingToShow,
    #[error("it lacks a hook that the version in force has and that is called: {0}")]
    LacksHook(&'static str),
    /// Nobody is told: it is loaded soon.
    #[error("nothing needs it, and it is compiled once the configuration is in force")]
    Later,
}
