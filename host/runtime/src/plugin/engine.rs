//! How does a file become code that can run?

use std::{
    collections::HashMap,
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    path::PathBuf,
    sync::{Arc, Mutex, Once, Weak, mpsc},
    thread,
    time::{Duration, Instant},
};

use wasmtime::component::{Component, Linker};

use super::{
    anatomy::foreign,
    artifact::{Artifacts, Digest},
    code,
    code::Code,
    compile::{self, CompileError, CompileLimits, Compiler},
    epoch::{EPOCH, pass},
    linker::linker,
    load_error::LoadError,
    room::Room,
    settings::{Layout, configuration, reason},
    state::State,
};

/// What an [`Engine`] needs to know.
#[derive(Debug, Clone)]
pub struct EngineSettings {
    /// Threads that will hold instances of every plugin.
    pub workers: usize,
    /// Where compiled components are kept; nowhere if absent.
    pub artifacts: Option<PathBuf>,
    pub compiler: Compiler,
}

/// Compiles and links components. One for a process; dropping it ends everything it has loaded.
pub struct Engine {
    engine: wasmtime::Engine,
    linker: Linker<State>,
    artifacts: Option<Artifacts>,
    compiler: Compiler,
    layout: Layout,
    /// For instances of all that it has loaded.
    room: Arc<Room>,
    /// What took too much, with the limits at that time.
    costly: Mutex<HashMap<Digest, (CompileLimits, Instant)>>,
    /// What is loaded, so that two tables on one file share it.
    loaded: Mutex<HashMap<Digest, Weak<Code>>>,
    /// What is still being compiled in this process, and nobody waits for it any more.
    late: Mutex<HashMap<Digest, Late>>,
    /// Time passes once there is something to be timed.
    ticking: Once,
}

/// Where the outcome of a compilation comes.
type Late = mpsc::Receiver<Result<Arc<Code>, LoadError>>;

/// The plugin engine cannot start.
#[derive(Debug, thiserror::Error)]
#[error("cannot start the plugin engine: {0}")]
pub struct EngineError(wasmtime::Error);

impl From<wasmtime::Error> for EngineError {
    fn from(error: wasmtime::Error) -> Self {
        Self(error)
    }
}

impl Engine {
    /// Instances that a worker may hold of all plugins together, of two generations.
    const INSTANCES_PER_WORKER: usize = 256;

    pub fn new(settings: &EngineSettings) -> Result<Self, EngineError> {
        // Each reserves some 4 GiB of address space, of which there are 128 TiB.
        let places = (settings.workers * Self::INSTANCES_PER_WORKER).min(8192);
        let pooled = wasmtime::Engine::new(&configuration(Layout::Large, Some(places)));
        let (engine, layout) = match pooled {
            Ok(engine) => (engine, Layout::Large),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "cannot reserve address space for instances of plugins, so each call of a plugin takes longer: allow the \
                     process more of it (`ulimit -v unlimited`, `LimitAS=infinity` in systemd, vm.overcommit_memory = 0 or 1)"
                );
                (wasmtime::Engine::new(&configuration(Layout::Small, None))?, Layout::Small)
            }
        };
        let linker = linker(&engine)?;
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
            compiler: settings.compiler.clone(),
            layout,
            room: Room::new(places),
            costly: Mutex::default(),
            loaded: Mutex::default(),
            late: Mutex::default(),
            ticking: Once::new(),
        })
    }

    /// Compiles a component, or takes it from where it was kept, and links it. Takes from milliseconds to
    /// half a minute: not for a worker.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<Code>, LoadError> {
        self.load_now(bytes, CompileLimits::default())
    }

    fn load_now(&self, bytes: &[u8], limits: CompileLimits) -> Result<Arc<Code>, LoadError> {
        self.ticking.call_once(|| tick(&self.engine));
        let digest = Digest::of(bytes);
        if let Some(code) = self.loaded(digest) {
            return Ok(code);
        }
        let component = self.component(digest, bytes, limits)?;
        let linker = code::linker_for(&self.linker, &component)?;
        let instance = linker.instantiate_pre(&component).map_err(LoadError::Misfit)?;
        let code = Arc::new(Code::new(digest, bytes.len(), instance, self.room.clone())?);
        self.loaded.lock().expect("no holder of this lock panics").insert(digest, Arc::downgrade(&code));
        Ok(code)
    }

    /// Whether it is loaded or kept, so that loading it compiles nothing.
    pub fn is_compiled(&self, digest: Digest) -> bool {
        let is_kept = || self.artifacts.as_ref().is_some_and(|artifacts| artifacts.has(digest));
        self.loaded(digest).is_some() || is_kept()
    }

    /// The same for a component that nobody has asked for by name. One that took too much is left alone for a while, so that it
    /// does not hold up every reload.
    pub fn load_unasked(
        self: &Arc<Self>,
        bytes: &[u8],
        limits: CompileLimits,
    ) -> Result<Arc<Code>, LoadError> {
        /// Until it is tried again: the machine may have been busy.
        const AGAIN: Duration = Duration::from_secs(15 * 60);
        /// Files of which that is remembered.
        const MOST: usize = 1024;
        let digest = Digest::of(bytes);
        let lock = || self.costly.lock().expect("no holder of this lock panics");
        let known = lock().get(&digest).copied();
        if let Some((allowed, since)) = known {
            let left = AGAIN.saturating_sub(since.elapsed());
            // What is left of the time for a reload is another each time, and says nothing of the file.
            let is_no_more = limits.memory <= allowed.memory;
            if is_no_more && !left.is_zero() {
                return Err(LoadError::Costly(left));
            }
        }
        let loaded = self.load_within(bytes, limits);
        let mut costly = lock();
        match &loaded {
            Err(LoadError::Compile(
                CompileError::Slow(_)
                | CompileError::Memory(_)
                | CompileError::Large(_)
                | CompileError::Ended(_),
            )) => {
                costly.retain(|_, (_, since)| since.elapsed() < AGAIN);
                if costly.len() < MOST {
                    costly.insert(digest, (limits, Instant::now()));
                }
            }
            Ok(_) | Err(_) => drop(costly.remove(&digest)),
        }
        loaded
    }

    /// The same, within limits. Where this process compiles, that cannot be broken off: it goes on on a thread of its own, and
    /// whoever asks for the same component next waits for that.
    pub fn load_within(
        self: &Arc<Self>,
        bytes: &[u8],
        limits: CompileLimits,
    ) -> Result<Arc<Code>, LoadError> {
        let digest = Digest::of(bytes);
        if let Some(code) = self.loaded(digest) {
            return Ok(code);
        }
        match self.compiler {
            Compiler::Child(_) => return self.load_now(bytes, limits),
            Compiler::InProcess => {}
        }
        let limit = limits.time;
        let late = self.late.lock().expect("no holder of this lock panics").remove(&digest);
        let outcome = match late {
            Some(outcome) => outcome,
            None => {
                let (done, outcome) = mpsc::channel();
                let (engine, bytes) = (self.clone(), bytes.to_vec());
                let compile = thread::Builder::new().name("tollgate-compile".into());
                // Whoever asked may be gone.
                let compile = compile.spawn(move || drop(done.send(engine.load_now(&bytes, limits))));
                compile.map_err(LoadError::NoThread)?;
                outcome
            }
        };
        match outcome.recv_timeout(limit) {
            Ok(code) => code,
            Err(_) => {
                self.late.lock().expect("no holder of this lock panics").insert(digest, outcome);
                Err(LoadError::Compile(CompileError::Slow(limit)))
            }
        }
    }

    /// The code of these bytes, if somebody uses it.
    fn loaded(&self, digest: Digest) -> Option<Arc<Code>> {
        let mut loaded = self.loaded.lock().expect("no holder of this lock panics");
        loaded.retain(|_, code| code.strong_count() > 0);
        loaded.get(&digest).and_then(Weak::upgrade)
    }

    fn component(&self, digest: Digest, bytes: &[u8], limits: CompileLimits) -> Result<Component, LoadError> {
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
        let invalid = |error: wasmtime::Error| LoadError::Invalid(reason(&error));
        match &self.compiler {
            Compiler::Child(program) => {
                let artifact =
                    compile::in_child(program, bytes, self.layout, limits).map_err(|error| match error {
                        CompileError::Invalid(reason) => LoadError::Invalid(reason),
                        error => LoadError::Compile(error),
                    })?;
                // SAFETY: our own executable has made it, in a process that nobody but this one has spoken with; wasmtime
                // checks that it was made by an engine like this one.
                let component = unsafe { Component::deserialize(&self.engine, &artifact) };
                let component = component.map_err(invalid)?;
                if let Some(artifacts) = &self.artifacts {
                    artifacts.put(digest, &artifact);
                }
                Ok(component)
            }
            Compiler::InProcess => {
                let component = Component::from_binary(&self.engine, bytes).map_err(invalid)?;
                if let Some(artifacts) = &self.artifacts {
                    match component.serialize() {
                        Ok(artifact) => artifacts.put(digest, &artifact),
                        Err(error) => tracing::warn!(%digest, %error, "cannot keep a compiled plugin"),
                    }
                }
                Ok(component)
            }
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Engine").field("artifacts", &self.artifacts).finish_non_exhaustive()
    }
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
