//! What is a plugin, ready to run?

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Instant,
};

use super::{
    capability::Capabilities,
    code::Code,
    counts::{Metric, PluginCounts},
    error::StartError,
    host_io::at_once,
    instance::{Blueprint, Instance},
    outcome::Outcomes,
    room::Reservation,
    shared::Shared,
    surroundings::Surroundings,
};
use crate::{
    config::{self, Failure, Isolation, PluginBreaker, PluginLimits},
    telemetry::PerWorker,
};

/// One table `[plugins.<name>]`, ready to run. Immutable but for what its instances share.
pub struct Plugin {
    pub name: Arc<str>,
    pub code: Arc<Code>,
    /// The `config` table as JSON.
    pub config: String,
    pub failure: Failure,
    pub isolation: Isolation,
    /// Whether its calls make way for others while they compute.
    yields: bool,
    pub limits: PluginLimits,
    pub breaker: PluginBreaker,
    /// What survives a reload.
    pub(super) shared: Arc<Shared>,
    surroundings: Surroundings,
    /// Room for its instances.
    room: Arc<Reservation>,
    /// Instances that no worker has taken yet.
    ready: Mutex<Vec<Instance>>,
}

impl Plugin {
    /// Makes a plugin with `warm` instances, each configured, whose room is reserved for it. An error is the plugin's refusal.
    /// With none, it only shows that an instance can be made: for one that nobody calls.
    ///
    /// `capabilities` are what it may reach; that it imports no others is for the caller to see to. `previous`
    /// is the plugin of the same name in the generation before this one.
    pub fn new(
        name: Arc<str>,
        code: Arc<Code>,
        settings: &config::Plugin,
        capabilities: Capabilities,
        previous: Option<&Plugin>,
        warm: usize,
    ) -> Result<Self, StartError> {
        let surroundings = Surroundings { capabilities, ..Surroundings::default() };
        Self::within(surroundings, name, code, settings, previous, warm, None)
    }

    /// The same in surroundings that are not the system's own, as for a plugin under test; and no instance begins to start after
    /// this moment, but for the first.
    pub fn within(
        surroundings: Surroundings,
        name: Arc<str>,
        code: Arc<Code>,
        settings: &config::Plugin,
        previous: Option<&Plugin>,
        warm: usize,
        until: Option<Instant>,
    ) -> Result<Self, StartError> {
        let shared: Arc<Shared> = previous.map_or_else(Default::default, |plugin| plugin.shared.clone());
        let room = code.room.reserve(code.takes().places(), warm, shared.beyond.clone())?;
        let plugin = Self {
            name,
            code,
            config: json(&settings.config),
            failure: settings.fail,
            isolation: settings.isolation,
            yields: settings.yields,
            limits: settings.limits.clone(),
            breaker: settings.breaker.clone(),
            shared,
            surroundings,
            room,
            ready: Mutex::default(),
        };
        let is_late = || until.is_some_and(|until| Instant::now() > until);
        let start = |number| match number > 0 && is_late() {
            false => at_once(Instance::start(plugin.blueprint())),
            true => Err(StartError::NoTime),
        };
        let mut instances = (0..warm.max(1)).map(start).collect::<Result<Vec<_>, _>>()?;
        instances.truncate(warm);
        *plugin.ready.lock().expect("no holder of this lock panics") = instances;
        Ok(plugin)
    }

    /// Whether this very plugin would be made again.
    pub fn is_same(&self, code: &Code, settings: &config::Plugin, capabilities: &Capabilities) -> bool {
        self.code.digest() == code.digest()
            && self.config == json(&settings.config)
            && self.failure == settings.fail
            && self.isolation == settings.isolation
            && self.yields == settings.yields
            && self.limits == settings.limits
            && self.breaker == settings.breaker
            && self.capabilities().is_same(capabilities)
    }

    /// Instances whose room is reserved for it.
    pub fn reserved(&self) -> usize {
        self.room.instances()
    }

    /// Instances that there may be at most, on so many workers.
    pub fn most_instances(&self, workers: usize) -> usize {
        let wanted = match self.waits() {
            true => workers.saturating_mul(self.limits.instances.get() as usize),
            false => workers,
        };
        wanted.max(self.room.instances()).min(self.room.most())
    }

    /// Bytes of what it has made that is not sent yet.
    pub fn unsent(&self) -> usize {
        self.shared.unsent.bytes()
    }

    /// Lines that were left out of the log, since it logs too much.
    pub fn lines_left_out(&self) -> u64 {
        self.shared.log_rate.dropped()
    }

    /// What it may reach.
    pub fn capabilities(&self) -> &Capabilities {
        &self.surroundings.capabilities
    }

    /// The metrics that the plugin has opened, by name.
    pub fn metrics(&self) -> BTreeMap<String, Arc<Metric>> {
        self.shared.metrics.all()
    }

    /// Has a sequence go on with this number.
    pub fn set_sequence(&self, name: &str, next: u32) {
        if let Some(sequence) = self.shared.sequences.open(name) {
            sequence.store(next, Ordering::Relaxed);
        }
    }

    /// What is counted of its calls.
    pub fn counts(&self) -> &PerWorker<PluginCounts> {
        &self.shared.counts
    }

    /// Instances there are.
    pub fn instances(&self) -> usize {
        self.shared.instances.load(Ordering::Relaxed)
    }

    /// Whether a call of it may take several turns, and so several instances: because it may have to wait, or because it
    /// is to make way for others.
    pub fn waits(&self) -> bool {
        self.yields || self.code.waits()
    }

    /// Whether its table says that its calls make way for others.
    pub fn yields(&self) -> bool {
        self.yields
    }

    /// Calls after which an instance makes room for a fresh one.
    pub(super) fn recycle_after(&self) -> u32 {
        match self.isolation {
            Isolation::Shared => self.limits.recycle_after,
            Isolation::Request => 1,
        }
    }

    /// Bytes of the memory of all instances together.
    pub fn memory(&self) -> usize {
        self.shared.memory.load(Ordering::Relaxed)
    }

    /// Workers that do not ask it, because it keeps failing or takes the time of others.
    pub fn open_breakers(&self) -> usize {
        self.shared.open_breakers.load(Ordering::Relaxed)
    }

    /// How often a worker has come to that.
    pub fn breaker_opened(&self) -> u64 {
        self.shared.breaker_opened.load(Ordering::Relaxed)
    }

    /// What it is to be told of requests that have ended.
    pub fn outcomes(&self) -> &Arc<Outcomes> {
        &self.shared.outcomes
    }

    /// What an instance of it is made from.
    fn blueprint(&self) -> Blueprint<'_> {
        Blueprint {
            name: &self.name,
            code: &self.code,
            config: &self.config,
            limits: &self.limits,
            shared: &self.shared,
            surroundings: &self.surroundings,
            room: &self.room,
            waits: self.waits(),
        }
    }

    /// An instance: one that is ready, or a fresh one.
    pub(super) async fn instance(&self) -> Result<Instance, StartError> {
        let ready = self.ready.lock().expect("no holder of this lock panics").pop();
        match ready {
            Some(instance) => Ok(instance),
            None => Instance::start(self.blueprint()).await,
        }
    }
}

impl std::fmt::Debug for Plugin {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Plugin").field("name", &self.name).finish_non_exhaustive()
    }
}

/// JSON of a TOML table; dates become strings.
fn json(table: &toml::Table) -> String {
    fn value(item: &toml::Value) -> serde_json::Value {
        match item {
            toml::Value::String(text) => text.as_str().into(),
            toml::Value::Integer(number) => (*number).into(),
            toml::Value::Float(number) => (*number).into(),
            toml::Value::Boolean(truth) => (*truth).into(),
            toml::Value::Datetime(date) => date.to_string().into(),
            toml::Value::Array(items) => items.iter().map(value).collect(),
            toml::Value::Table(table) => object(table),
        }
    }

    fn object(table: &toml::Table) -> serde_json::Value {
        table.iter().map(|(key, item)| (key.clone(), value(item))).collect()
    }

    object(table).to_string()
}
