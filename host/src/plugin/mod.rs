//! What do the plugins say about it?
//!
//! A plugin is a component and its configuration. [`Engine::load`] turns bytes into [`Code`], once for each
//! file; [`Plugin`] is code with one table's settings; a [`Slot`] holds a worker's instance of it and makes
//! the calls. The request in hand travels as an [`Exchange`], which is the store's data while a hook runs.

mod alarm;
mod anatomy;
mod artifact;
mod background;
mod bindings;
mod breaker;
mod canary;
mod capability;
mod client;
mod code;
mod compile;
mod cost;
mod crowd;
mod counts;
mod engine;
mod errand;
mod exchange;
mod granted;
mod host;
mod instance;
mod keep;
mod log_rate;
mod made;
mod message_hook;
mod outcome;
mod pace;
mod shadow;
mod recording;
mod room;
pub mod shipped;
mod slot;
mod surroundings;
mod taint;
mod trust;
mod versions;
mod wasi;

pub use anatomy::{Anatomy, AnatomyError, Range};
pub use artifact::Digest;
pub use background::{Background, make_way};
pub use canary::{Comparison, Ended, Judgement, Seen, Side, write_canaries};
pub use capability::{
    Capabilities, Capability, Granted, Quota, SecretError, Secrets, Store, StoreError, Usage,
};
pub use client::{Outgoing, Received, SendError, Target};
pub use code::{Code, Hooks, Takes};
pub use compile::{CompileError, CompileLimits, Compiler, compile_for_parent};
pub use counts::{
    FailureKind, Hook, Metric, MetricKind, PluginCounts, RouteCalls, write_on_routes, write_plugins,
};
pub use engine::{Engine, EngineSettings, LoadError};
pub use errand::{BodyError, Errands, NoErrands, at_once};
pub use exchange::{Edit, Exchange, InHand, Reply, ResponseHead, brief};
pub use instance::{CallError, StartError};
pub use keep::Keepers;
pub use message_hook::{MessageHook, RequestHook, ResponseHook};
pub use outcome::{Batch, Completed, Outcomes};
pub use recording::{
    Begun, Call, Choice, Decided, Errand, Recorded, Recording, SeenExchange, SeenPick, SeenResponse, Sides,
};
pub use room::NoRoom;
pub use shadow::{Compare, Difference, DifferenceKind, ReadBodies, Shadow, write_shadows};
pub use slot::{CallContext, Condition, Member, Members, Pick, RequestVerdict, ResponseVerdict, Slot};
pub use surroundings::{Chance, Journal, Logged, Surroundings, Time};
pub use taint::Taint;
pub use trust::{Demand, TrustError, signature_file};
pub use versions::{History, TakeBackError, Version, Versions};

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use crate::{
    config::{Failure, Isolation, PluginBreaker, PluginLimits},
    telemetry::PerWorker,
};
use instance::Instance;
use log_rate::LogRate;
use made::Made;
use recording::Recorder;
use room::Reservation;

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
    shared: Arc<Shared>,
    surroundings: Surroundings,
    /// Room for its instances.
    room: Arc<Reservation>,
    /// Instances that no worker has taken yet.
    ready: Mutex<Vec<Instance>>,
}

/// The state that all instances of a plugin share, whatever its file and configuration become.
#[derive(Debug, Default)]
pub struct Shared {
    sequences: Mutex<HashMap<String, Arc<AtomicU32>>>,
    metrics: counts::Custom,
    /// Instances there are.
    instances: AtomicUsize,
    /// Bytes of their memory together.
    memory: AtomicUsize,
    /// Room that they have taken beyond what was reserved.
    beyond: Arc<AtomicUsize>,
    /// What they have made that is not sent yet.
    made: Made,
    log_rate: LogRate,
    /// Workers that do not ask it, because it keeps failing or takes the time of others.
    open_breakers: AtomicUsize,
    /// How often one has come to that.
    breaker_opened: AtomicU64,
    outcomes: Arc<Outcomes>,
    /// Who records it, if anybody does; looked for only if `is_recorded`.
    recorder: Mutex<Option<Arc<Recorder>>>,
    is_recorded: AtomicBool,
    counts: PerWorker<PluginCounts>,
}

impl Shared {
    /// Sequences that one plugin may open.
    const SEQUENCES: usize = 64;

    fn sequence(&self, name: &str) -> Option<Arc<AtomicU32>> {
        let mut sequences = self.sequences.lock().expect("no holder of this lock panics");
        if let Some(sequence) = sequences.get(name) {
            return Some(sequence.clone());
        }
        if sequences.len() >= Self::SEQUENCES {
            return None;
        }
        let sequence = Arc::<AtomicU32>::default();
        sequences.insert(name.to_owned(), sequence.clone());
        Some(sequence)
    }

    /// What is drawn next from each sequence.
    fn next_numbers(&self) -> BTreeMap<String, u32> {
        let sequences = self.sequences.lock().expect("no holder of this lock panics");
        sequences.iter().map(|(name, next)| (name.clone(), next.load(Ordering::Relaxed))).collect()
    }
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
        settings: &crate::config::Plugin,
        capabilities: Capabilities,
        previous: Option<&Plugin>,
        warm: usize,
    ) -> Result<Self, StartError> {
        let surroundings = Surroundings { capabilities, ..Surroundings::default() };
        Self::within(surroundings, name, code, settings, previous, warm, None)
    }

    /// The same in surroundings that are not the system's own, as for a plugin on trial; and no instance begins to start after
    /// this moment, but for the first.
    pub fn within(
        surroundings: Surroundings,
        name: Arc<str>,
        code: Arc<Code>,
        settings: &crate::config::Plugin,
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
            false => at_once(Instance::start(&plugin)),
            true => Err(StartError::NoTime),
        };
        let mut instances = (0..warm.max(1)).map(start).collect::<Result<Vec<_>, _>>()?;
        instances.truncate(warm);
        *plugin.ready.lock().expect("no holder of this lock panics") = instances;
        Ok(plugin)
    }

    /// Whether this very plugin would be made again.
    pub fn is_same(
        &self,
        code: &Code,
        settings: &crate::config::Plugin,
        capabilities: &Capabilities,
    ) -> bool {
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
        self.shared.made.bytes()
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
        if let Some(sequence) = self.shared.sequence(name) {
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
    fn recycle_after(&self) -> u32 {
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

    /// An instance: one that is ready, or a fresh one.
    async fn instance(&self) -> Result<Instance, StartError> {
        let ready = self.ready.lock().expect("no holder of this lock panics").pop();
        match ready {
            Some(instance) => Ok(instance),
            None => Instance::start(self).await,
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

/// A number all instances draw from.
fn draw(sequence: &AtomicU32) -> u32 {
    sequence.fetch_add(1, Ordering::Relaxed)
}
