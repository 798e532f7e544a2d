//! The tables `[plugins.<name>]`.

use serde::Deserialize;

use super::{
    ByteSize, Duration,
    read::{table, word},
};

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
    #[serde(deserialize_with = "table")]
    pub limits: PluginLimits,
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

/// What one instance of a plugin may use.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PluginLimits {
    /// CPU time of one call.
    pub time: Duration,
    /// Linear memory.
    pub memory: ByteSize,
    /// Calls after which an instance makes room for a fresh one.
    pub recycle_after: u32,
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self { time: Duration::from_millis(10), memory: ByteSize::mib(32), recycle_after: 100_000 }
    }
}
