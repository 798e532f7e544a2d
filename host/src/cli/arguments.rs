//! Which arguments do several commands take?

use std::{path::PathBuf, time::Duration};

use clap::Args;

/// The configuration, if nothing else is said.
const CONFIG: &str = "config.toml";

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    /// The configuration; config.toml if absent
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The same, without `--config`
    #[arg(value_name = "FILE", conflicts_with = "config")]
    pub file: Option<PathBuf>,
}

impl RunArguments {
    /// The configuration that is meant.
    pub fn config(self) -> PathBuf {
        self.config.or(self.file).unwrap_or_else(|| CONFIG.into())
    }
}

/// A duration such as 20ms, as an argument.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let duration: jiff::SignedDuration = text.parse().map_err(|_| "write a duration such as 20ms or 1s")?;
    duration.try_into().map_err(|_| "a delay cannot be negative".into())
}

/// Arguments that make no sense together, or to this command.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub String);
