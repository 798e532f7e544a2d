//! What do all instances of a plugin share?

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicU64, AtomicUsize},
};

use super::{
    counts::{Custom, PluginCounts},
    log_rate::LogRate,
    outcome::Outcomes,
    record::Recorder,
    sequences::Sequences,
    unsent::Unsent,
};
use crate::telemetry::PerWorker;

/// The state that all instances of a plugin share, whatever its file and configuration become.
#[derive(Debug, Default)]
pub struct Shared {
    pub(super) sequences: Arc<Sequences>,
    pub(super) metrics: Custom,
    /// Instances there are.
    pub(super) instances: AtomicUsize,
    /// Bytes of their memory together.
    pub(super) memory: AtomicUsize,
    /// Room that they have taken beyond what was reserved.
    pub(super) beyond: Arc<AtomicUsize>,
    /// What they have made that is not sent yet.
    pub(super) unsent: Unsent,
    pub(super) log_rate: LogRate,
    /// Workers that do not ask it, because it keeps failing or takes the time of others.
    pub(super) open_breakers: AtomicUsize,
    /// How often one has come to that.
    pub(super) breaker_opened: AtomicU64,
    pub(super) outcomes: Arc<Outcomes>,
    /// Who records it, if anybody does; looked for only if `is_recorded`.
    pub(super) recorder: Mutex<Option<Arc<Recorder>>>,
    pub(super) is_recorded: AtomicBool,
    pub(super) counts: PerWorker<PluginCounts>,
}
