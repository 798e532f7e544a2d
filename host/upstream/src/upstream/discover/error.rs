//! Why does a source not say which endpoints there are?

use std::{io, path::PathBuf};

use super::gateway::GatewayError;
use crate::config::Problems;

/// Why a directory has no list.
#[derive(Debug, thiserror::Error)]
pub(super) enum DirectoryError {
    #[error("the name cannot be resolved")]
    Dns(#[source] hickory_resolver::net::NetError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[cfg(feature = "zookeeper")]
    #[error("ZooKeeper does not tell")]
    ZooKeeper(#[source] zookeeper_client::Error),
    #[error(transparent)]
    File(#[from] FileError),
}

/// Why a file names no endpoints.
#[derive(Debug, thiserror::Error)]
pub(in crate::upstream) enum FileError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} does not list endpoints: {problems}", path.display())]
    Toml { path: PathBuf, problems: Problems },
    #[error("{} does not list endpoints", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
}
