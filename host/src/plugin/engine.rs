//! How does a file become code that can run?

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    path::PathBuf,
    sync::{
        Arc, Mutex, Once, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use wasmtime::{
    Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig,
    component::{Component, Linker},
};

use super::{
    anatomy::foreign,
    artifact::{Artifacts, Digest},
    bindings, code,
    code::Code,
    host::Ambient,
    instance::State,
    wasi,
};

/// The resolution of CPU deadlines. A call may run two of these longer than its limit.
pub(super) const EPOCH: Duration = Duration::from_millis(5);

/// Epochs of any engine that have ended.
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Another number in another epoch.
pub(super) fn epoch() -> u64 {
    ENDED.load(Ordering::Relaxed)
}

/// An epoch ends.
pub(super) fn pass() {
    ENDED.fetch_add(1, Ordering::Relaxed);
}

/// What an [`Engine`] needs to know.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Threads that will hold instances of every plugin.
    pub workers: usize,
    /// Where compiled components are kept; nowhere if absent.
    pub artifacts: Option<PathBuf>,
}

/// Compiles and links components. One for a process; dropping it ends everything it has loaded.
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<State>,
    artifacts: Option<Artifacts>,
    /// What is loaded, so that two tables on one file share it.
    loaded: Mutex<HashMap<Digest, Weak<Code>>>,
    /// What is still being compiled, and nobody waits for it any more.
    late: Mutex<HashMap<Digest, Late>>,
    /// Time passes once there is something to be timed.
    ticking: Once,
}

/// Where the outcome of a compilation comes.
type Late = mpsc::Receiver<Result<Arc<Code>, LoadError>>;

/// Why a file is not a plugin.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("not a WebAssembly component: {0}")]
    Invalid(String),
    #[error(
        "a core WebAssembly module, not a component: build it for wasm32-wasip2, \
         or wrap it with `wasm-tools component new`"
    )]
    CoreModule,
    #[error(
        "built against version {theirs} of the contract, and this Tollgate speaks {ours}: \
         rebuild it against the wit/ folder of this version"
    )]
    Contract { theirs: String, ours: &'static str },
    #[error("exports no `tollgate:policy/lifecycle`, so it is not a plugin for Tollgate")]
    NoLifecycle,
    #[error("imports `{0}`, which Tollgate does not offer")]
    UnknownImport(String),
    #[error("does not fit the contract")]
    Misfit(#[source] wasmtime::Error),
    #[error("is not compiled after {} s; the next reload looks whether it is by then", .0.as_secs_f64())]
    Slow(Duration),
    #[error("cannot be compiled: there is no thread for it: {0}")]
    NoThread(std::io::Error),
}

impl Engine {
    /// Instances that a worker may hold of all plugins together, of two generations.
    const INSTANCES_PER_WORKER: usize = 256;

    /// What a call that may wait has for a stack: wasmtime's half a MiB for the plugin, and as much for the host.
    const STACK: usize = 1 << 20;

    pub fn new(settings: &EngineSettings) -> wasmtime::Result<Self> {
        let engine = wasmtime::Engine::new(&configuration(settings.workers))?;
        let mut linker = Linker::new(&engine);
        bindings::Host_::add_to_linker::<_, Ambient>(&mut linker, |state| state)?;
        wasi::add_to_linker(&mut linker)?;
        let hash =
            BuildHasherDefault::<DefaultHasher>::default().hash_one(engine.precompile_compatibility_hash());
        let artifacts = settings.artifacts.as_ref().and_then(|folder| {
            Artifacts::open(folder, hash)
                .inspect_err(|error| {
                    tracing::warn!(folder = %folder.display(), %error, "compiled plugins are not kept");
                })
                .ok()
        });
        Ok(Self {
            engine,
            linker,
            artifacts,
            loaded: Mutex::default(),
            late: Mutex::default(),
            ticking: Once::new(),
        })
    }

    /// Compiles a component, or takes it from where it was kept, and links it. Takes from milliseconds to
    /// half a minute: not for a worker.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Code>, LoadError> {
        self.ticking.call_once(|| tick(&self.engine));
        let digest = Digest::of(bytes);
        if let Some(code) = self.loaded(digest) {
            return Ok(code);
        }
        let component = self.component(digest, bytes)?;
        let linker = code::linker_for(&self.linker, &component)?;
        let instance = linker.instantiate_pre(&component).map_err(LoadError::Misfit)?;
        let code = Arc::new(Code::new(digest, bytes.len(), instance)?);
        self.loaded.lock().expect("no holder of this lock panics").insert(digest, Arc::downgrade(&code));
        Ok(code)
    }

    /// The same, and gives up after a while. Compiling cannot be broken off: it goes on on a thread of its own, and whoever
    /// asks for the same component next waits for that.
    pub fn load_within(self: &Arc<Self>, bytes: &[u8], limit: Duration) -> Result<Arc<Code>, LoadError> {
        let digest = Digest::of(bytes);
        if let Some(code) = self.loaded(digest) {
            return Ok(code);
        }
        let late = self.late.lock().expect("no holder of this lock panics").remove(&digest);
        let outcome = match late {
            Some(outcome) => outcome,
            None => {
                let (done, outcome) = mpsc::channel();
                let (engine, bytes) = (self.clone(), bytes.to_vec());
                let compile = thread::Builder::new().name("tollgate-compile".into());
                // Whoever asked may be gone.
                let compile = compile.spawn(move || drop(done.send(engine.load(&bytes))));
                compile.map_err(LoadError::NoThread)?;
                outcome
            }
        };
        match outcome.recv_timeout(limit) {
            Ok(code) => code,
            Err(_) => {
                self.late.lock().expect("no holder of this lock panics").insert(digest, outcome);
                Err(LoadError::Slow(limit))
            }
        }
    }

    /// The code of these bytes, if somebody uses it.
    fn loaded(&self, digest: Digest) -> Option<Arc<Code>> {
        let mut loaded = self.loaded.lock().expect("no holder of this lock panics");
        loaded.retain(|_, code| code.strong_count() > 0);
        loaded.get(&digest).and_then(Weak::upgrade)
    }

    fn component(&self, digest: Digest, bytes: &[u8]) -> Result<Component, LoadError> {
        if let Some(artifact) = self.artifacts.as_ref().and_then(|artifacts| artifacts.get(digest)) {
            // SAFETY: `Artifacts` hands out only what this user has written, whole; wasmtime checks that it
            // was made by an engine like this one.
            match unsafe { Component::deserialize(&self.engine, &artifact) } {
                Ok(component) => return Ok(component),
                Err(error) => tracing::warn!(%digest, %error, "compiled plugin not used, compiling again"),
            }
        }
        if wasmtime::Engine::detect_precompiled(bytes).is_some() {
            return Err(LoadError::Invalid("it holds machine code".into()));
        }
        if bytes.starts_with(b"\0asm\x01\0\0\0") {
            return Err(LoadError::CoreModule);
        }
        if let Some(what) = foreign(bytes) {
            return Err(LoadError::Invalid(what.into()));
        }
        let component = Component::from_binary(&self.engine, bytes)
            .map_err(|error| LoadError::Invalid(reason(&error)))?;
        if let Some(artifacts) = &self.artifacts {
            match component.serialize() {
                Ok(artifact) => artifacts.put(digest, &artifact),
                Err(error) => tracing::warn!(%digest, %error, "cannot keep a compiled plugin"),
            }
        }
        Ok(component)
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("artifacts", &self.artifacts).finish_non_exhaustive()
    }
}

/// What is wrong with a file, in one line: of text the parser shows every byte.
fn reason(error: &wasmtime::Error) -> String {
    error.root_cause().to_string().lines().next().unwrap_or_default().to_owned()
}

fn configuration(workers: usize) -> Config {
    // Each reserves some 4 GiB of address space, of which there are 128 TiB.
    let instances = (workers * Engine::INSTANCES_PER_WORKER).min(8192) as u32;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_core_instances(instances.saturating_mul(8))
        .total_memories(instances)
        .total_tables(instances.saturating_mul(4))
        // A call that may wait has one of its own; no instance has more than one call.
        .total_stacks(instances)
        .max_core_instances_per_component(64)
        .max_memories_per_component(8)
        .max_tables_per_component(32)
        .table_elements(65_536)
        // Enough that a recycled instance of a small guest does not fault its pages in again.
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10)
        // Where the kernel can say which pages were written to, only those are cleared: Linux 6.7 or newer.
        .pagemap_scan(Enabled::Auto);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .async_stack_size(Engine::STACK)
        .memory_init_cow(true)
        // With the machinery for concurrent tasks a call costs three times as much, and no hook needs it.
        .concurrency_support(false);
    config
}

/// Moves the epoch on, which is what CPU deadlines are measured by, for as long as the engine lives.
///
/// A thread of its own, since nothing that a runtime does may hold deadlines up.
fn tick(engine: &wasmtime::Engine) {
    let engine = engine.weak();
    let ticking = thread::Builder::new().name("tollgate-epoch".into()).spawn(move || {
        while let Some(engine) = engine.upgrade() {
            pass();
            engine.increment_epoch();
            drop(engine);
            thread::sleep(EPOCH);
        }
    });
    ticking.expect("a process that cannot have one more thread cannot run plugins within limits");
}
