//! What is started, and what is waited for at the end?
//!
//! Workers are threads with a runtime each, and serve requests. Everything else runs on the runtime of whoever
//! calls [`Server::start`]: building generations, compiling plugins, watching files.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    runtime::LocalRuntime,
    sync::{mpsc, oneshot, watch},
};
use tokio_util::sync::CancellationToken;

use crate::{
    address::Address,
    config::{self, Config, Problems, Source},
    descriptors,
    drain::Drain,
    listen::{Acceptors, BindError, Bound, Sockets, bind},
    live::{Gauge, Worker},
    plugin::{
        self, Compiler, Digest, Ended, Engine, EngineError, EngineSettings, Judgement, TakeBackError,
        Versions,
    },
    proxy::{self, Explanation, Question, Unexplained},
    snapshot::{Builder, Candidate, Loaded, Loads, Snapshot, Unneeded, files_named_beside},
    tasks::TaskThread,
    telemetry::{Counter, Writer, traffic::ListenerTraffic, with_sources},
    tls::Termination,
    upstream::Maintenance,
};

/// A proxy that runs.
#[derive(Debug)]
pub struct Server {
    builder: Builder,
    workers: Vec<WorkerThread>,
    drain: Drain,
    /// Told when the proxy leaves: `/readyz` says so, and listeners close after `drain-delay`.
    leaving: CancellationToken,
    connections: Gauge,
    upstream_maintenance: Maintenance,
    plugin_maintenance: plugin::Maintenance,
    /// Not there before a plugin needs it.
    tasks: Mutex<Option<TaskThread>>,
    /// Held while a generation is replaced: one at a time.
    replacing: tokio::sync::Mutex<()>,
    current: Mutex<Current>,
    /// The number of the generation in force.
    in_force: watch::Sender<u64>,
    started: SystemTime,
    reloads: Reloads,
    /// The files that the configuration names which was read last, in force or not.
    files: Mutex<Vec<PathBuf>>,
}

/// What became of attempts to put another configuration in force.
#[derive(Debug, Default)]
pub struct Reloads {
    pub done: Counter,
    pub refused: Counter,
    last: Mutex<Option<Reload>>,
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct Reload {
    pub at: SystemTime,
    /// The generation that it made, or why it was refused.
    pub outcome: Result<u64, String>,
}

impl Reloads {
    /// The last attempt, if there was one.
    pub fn last(&self) -> Option<Reload> {
        self.last.lock().expect("no holder of this lock panics").clone()
    }

    fn note(&self, outcome: Result<u64, String>) {
        if outcome.is_ok() { &self.done } else { &self.refused }.add(1);
        let reload = Reload { at: SystemTime::now(), outcome };
        *self.last.lock().expect("no holder of this lock panics") = Some(reload);
    }
}

#[derive(Debug, Clone)]
struct Current {
    snapshot: Arc<Snapshot>,
    bound: Vec<Bound>,
    admin: Option<BoundAdmin>,
}

/// Where the admin API is to be served.
#[derive(Debug, Clone)]
pub struct BoundAdmin {
    pub config: Arc<config::Admin>,
    pub sockets: Arc<Sockets>,
}

#[derive(Debug)]
struct WorkerThread {
    orders: mpsc::UnboundedSender<Order>,
    thread: Mutex<Option<thread::JoinHandle<()>>>,
}

/// What a worker is told.
#[derive(Debug)]
enum Order {
    /// Do all that can fail of [`Order::Replace`].
    Prepare {
        bound: Vec<Bound>,
        done: oneshot::Sender<io::Result<()>>,
    },
    /// Another worker could not.
    Forget,
    Replace {
        current: Current,
        done: oneshot::Sender<()>,
    },
    Explain {
        question: Box<Question>,
        answer: oneshot::Sender<Result<Explanation, Unexplained>>,
    },
    /// Connections end with the next response.
    Leave,
    Drain,
}

/// Why a proxy does not start, or a new configuration does not come into force.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] Problems),
    #[error(transparent)]
    Bind(#[from] BindError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("cannot start a worker")]
    Worker(#[source] io::Error),
    #[error("the proxy is stopping")]
    Stopping,
}

/// A version of a plugin has made room for the one before it.
#[derive(Debug, Clone, Copy)]
pub struct RolledBack {
    pub from: Digest,
    pub to: Digest,
    /// The generation since which it is so.
    pub generation: u64,
}

/// Why a plugin was not rolled back.
#[derive(Debug, thiserror::Error)]
pub enum RollBackError {
    #[error("there is no plugin of this name in force")]
    Unknown,
    #[error(transparent)]
    TakeBack(#[from] TakeBackError),
    #[error("no version of this plugin was rolled back")]
    NothingTakenBack,
    #[error("version {version} cannot serve again: {reason}")]
    Refused { version: Digest, reason: String },
    #[error(transparent)]
    Replace(Box<Error>),
}

/// What a server needs besides its configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What relative paths in the configuration are relative to.
    pub folder: PathBuf,
    /// Where compiled plugins are kept, unless the configuration says where; nowhere if absent.
    pub artifacts: Option<PathBuf>,
    /// Who compiles plugins.
    pub compiler: Compiler,
}

impl Settings {
    /// Where compiled plugins are kept under this configuration.
    pub fn artifacts(&self, config: &Config) -> Option<PathBuf> {
        let written = config.artifact_dir.as_ref().map(|folder| self.folder.join(folder));
        written.or_else(|| self.artifacts.clone())
    }
}

impl Server {
    /// Builds the first generation, binds its listeners and starts the workers. Connections are accepted when
    /// it returns.
    pub async fn start(config: Config, source: Source, settings: Settings) -> Result<Arc<Self>, Error> {
        descriptors::raise_limit();
        let count = config.workers.map_or_else(cores, std::num::NonZero::get);
        let kept = settings.artifacts(&config);
        let files = named_files(&config, &settings.folder);
        let compiler = settings.compiler.clone();
        let engine = EngineSettings { workers: count, artifacts: kept.clone(), compiler };
        let engine = Arc::new(Engine::new(&engine)?);
        let builder = Builder::new(engine, settings.folder, kept, count);
        let (builder, snapshot) = blocking(move || {
            let snapshot = builder.build(config, &source, None, Unneeded::Later);
            (builder, snapshot)
        })
        .await;
        let snapshot = Arc::new(snapshot?);
        let (bound, admin) = bind_all(&snapshot, &[], None, count)?;
        let drain = Drain::new();
        let connections = Gauge::default();
        let workers = (0..count)
            .map(|number| {
                let writer = Writer { number, of: count + 1 };
                WorkerThread::start(writer, snapshot.clone(), drain.clone(), connections.clone())
            })
            .collect::<io::Result<_>>()
            .map_err(Error::Worker)?;
        let current = Current { snapshot, bound, admin };
        let server = Arc::new(Self {
            builder,
            workers,
            drain,
            leaving: CancellationToken::new(),
            connections,
            upstream_maintenance: Maintenance::default(),
            plugin_maintenance: plugin::Maintenance::default(),
            tasks: Mutex::default(),
            replacing: tokio::sync::Mutex::default(),
            current: Mutex::new(current.clone()),
            in_force: watch::Sender::new(current.snapshot.number),
            started: SystemTime::now(),
            reloads: Reloads::default(),
            files: Mutex::new(files),
        });
        server.prepare(&current).await?;
        server.order(&current).await?;
        server.keep(&current.snapshot);
        server.note_versions(&current.snapshot).await;
        current.snapshot.announce(None, &server.builder);
        descriptors::note_own();
        server.drain.spawn(server.clone().judge_candidates());
        server.drain.spawn(server.clone().load_unneeded());
        Ok(server)
    }

    /// The snapshot in force.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current().snapshot
    }

    /// Where the listeners accept connections, in the order of the configuration.
    pub fn listeners(&self) -> Vec<Address> {
        self.current().bound.iter().map(|bound| bound.sockets.address.clone()).collect()
    }

    /// The same of those that have an address of the network.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners().iter().filter_map(Address::ip).collect()
    }

    /// Where the admin API is to be served, if anywhere.
    pub fn admin(&self) -> Option<BoundAdmin> {
        self.current().admin
    }

    /// Tells of every generation that comes into force, by its number.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.in_force.subscribe()
    }

    /// What is counted at the listeners, in the order of the configuration.
    pub fn traffic(&self) -> Vec<ListenerTraffic> {
        self.current().bound.iter().map(|bound| bound.sockets.traffic()).collect()
    }

    /// What became of attempts to put another configuration in force.
    pub fn reloads(&self) -> &Reloads {
        &self.reloads
    }

    /// When it was started.
    pub fn started(&self) -> SystemTime {
        self.started
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Connections to clients.
    pub fn connections(&self) -> usize {
        self.connections.get()
    }

    /// The tasks of this proxy.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// The folder of dropped plugins.
    pub fn plugin_dir(&self) -> PathBuf {
        self.builder.plugin_dir(&self.snapshot().config)
    }

    /// The files that the configuration names which was read last, besides plugins. One that is missing is among
    /// them: it may come.
    pub fn files(&self) -> Vec<PathBuf> {
        self.files.lock().expect("no holder of this lock panics").clone()
    }

    /// Puts a configuration in force, and whatever the plugin files are now. If that cannot be done, everything
    /// stays as it is. When it returns, new requests see the new generation on every worker.
    pub async fn replace(self: &Arc<Self>, config: Config, source: Source) -> Result<Arc<Snapshot>, Error> {
        let _one_at_a_time = self.replacing.lock().await;
        self.replace_alone(config, source, Unneeded::Later).await
    }

    /// The same for whoever holds `replacing`.
    async fn replace_alone(
        self: &Arc<Self>,
        config: Config,
        source: Source,
        unneeded: Unneeded,
    ) -> Result<Arc<Snapshot>, Error> {
        *self.files.lock().expect("no holder of this lock panics") =
            named_files(&config, &self.builder.folder);
        if self.drain.has_started() {
            return Err(Error::Stopping);
        }
        let before = self.current();
        if config.workers != before.snapshot.config.workers {
            tracing::warn!("`workers` has changed, which takes effect at the next start");
        }
        let server = self.clone();
        let previous = before.snapshot.clone();
        let building = blocking(move || server.builder.build(config, &source, Some(&previous), unneeded));
        let snapshot = tokio::select! {
            built = building => Arc::new(built?),
            // What is being compiled ends with the process, and nobody waits for it.
            () = self.drain.started() => return Err(Error::Stopping),
        };
        let (bound, admin) = bind_all(&snapshot, &before.bound, before.admin.as_ref(), self.workers.len())?;
        let current = Current { snapshot: snapshot.clone(), bound, admin };
        self.prepare(&current).await?;
        *self.current.lock().expect("no holder of this lock panics") = current.clone();
        self.order(&current).await?;
        self.keep(&snapshot);
        self.note_versions(&snapshot).await;
        self.in_force.send_replace(snapshot.number);
        snapshot.announce(Some(&before.snapshot), &self.builder);
        match snapshot.number == before.snapshot.number {
            // Of what nothing needs it is said above what came of it.
            true if !before.snapshot.untried.is_empty() => {}
            true => tracing::info!(
                generation = snapshot.number,
                "nothing has changed, the generation stays in force"
            ),
            false => tracing::info!(generation = snapshot.number, "configuration in force"),
        }
        Ok(snapshot)
    }

    /// Has the version of a plugin that served before this one serve again, and this one no more, not from its file
    /// either. The configuration is the one in force.
    pub async fn roll_back(self: &Arc<Self>, name: &str) -> Result<RolledBack, RollBackError> {
        let _one_at_a_time = self.replacing.lock().await;
        let before = self.snapshot();
        let plugin = before.plugin(name).ok_or(RollBackError::Unknown)?;
        // What is tried is what is taken back, and gets no more requests.
        let candidate = plugin.candidate.as_ref();
        let from = candidate.map_or(plugin.plugin.code.digest(), Candidate::digest);
        if let Some(candidate) = candidate {
            candidate.comparison.end(Ended::TakenBack);
        }
        let versions = &self.builder.versions;
        let version = blocking({
            let (server, name) = (self.clone(), name.to_owned());
            move || server.builder.versions.take_back(&name, from)
        });
        let to = version.await?.digest;
        // It is asked for, whether anything needs it or not.
        let result = self.replace_alone(before.config.clone(), before.source.clone(), Unneeded::Now).await;
        let refused = match &result {
            Err(error) => with_sources(error),
            Ok(snapshot) => match snapshot.plugin(name) {
                Some(loaded) if loaded.plugin.code.digest() == to && loaded.candidate.is_none() => {
                    tracing::warn!(plugin = name, %from, %to, "plugin rolled back");
                    return Ok(RolledBack { from, to, generation: snapshot.number });
                }
                Some(loaded) => {
                    loaded.refused.as_ref().map_or_else(String::new, |refused| refused.reason.clone())
                }
                None => "it is no longer there".to_owned(),
            },
        };
        versions.allow(name, Some(from));
        // What is in force is as it was, and nothing says any more that it was refused.
        if let Err(error) =
            self.replace_alone(before.config.clone(), before.source.clone(), Unneeded::Now).await
        {
            let error = with_sources(&error);
            tracing::warn!(plugin = name, error, "the plugin was not loaded again after a refused rollback");
        }
        tracing::warn!(plugin = name, version = %to, serving = %from, error = refused, "rollback refused");
        Err(RollBackError::Refused { version: to, reason: refused })
    }

    /// Loads what lies in the drop folder and nothing needs, once what is needed is in force. Runs until the drain starts.
    async fn load_unneeded(self: Arc<Self>) {
        /// Between two attempts, where files have changed meanwhile; longer each time.
        const PAUSE: Duration = Duration::from_millis(250);
        const LONGEST_PAUSE: Duration = Duration::from_secs(60);
        let mut changes = self.changes();
        let loading = async {
            let mut pause = PAUSE;
            loop {
                let snapshot = self.snapshot();
                if !snapshot.untried.is_empty() {
                    let (server, tried) = (self.clone(), snapshot.clone());
                    blocking(move || server.builder.try_unneeded(&tried)).await;
                    let one_at_a_time = self.replacing.lock().await;
                    // Another has come into force meanwhile, which has its own to try.
                    if !Arc::ptr_eq(&self.snapshot(), &snapshot) {
                        continue;
                    }
                    let (config, source) = (snapshot.config.clone(), snapshot.source.clone());
                    match self.replace_alone(config, source, Unneeded::Later).await {
                        Ok(replaced) if replaced.untried.is_empty() => {
                            pause = PAUSE;
                            continue;
                        }
                        // Somebody is still writing.
                        Ok(_) => {
                            drop(one_at_a_time);
                            tokio::time::sleep(pause).await;
                            pause = (pause * 2).min(LONGEST_PAUSE);
                            continue;
                        }
                        Err(error) => {
                            let error = with_sources(&error);
                            tracing::warn!(error, "plugins that nothing needs were not loaded");
                        }
                    }
                }
                drop(snapshot);
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            () = self.drain.started() => {}
            () = loading => {}
        }
    }

    /// Judges versions that are tried beside those in force, whenever there are any. Runs until the drain starts.
    async fn judge_candidates(self: Arc<Self>) {
        /// Between two looks at what has been counted.
        const LOOK: Duration = Duration::from_millis(250);
        /// Until an end that could not be put in force is tried once more.
        const AGAIN: Duration = Duration::from_secs(5);
        let mut changes = self.changes();
        let judging = async {
            // Until when an end is not tried again, by the plugin's name. That of one must not hold up others.
            let mut tried: HashMap<Arc<str>, Instant> = HashMap::new();
            loop {
                let snapshot = self.snapshot();
                let named = |loaded: &Loaded| Some((loaded.plugin.name.clone(), loaded.candidate.clone()?));
                let candidates: Vec<_> = snapshot.plugins.iter().filter_map(named).collect();
                drop(snapshot);
                tried.retain(|name, _| candidates.iter().any(|(named, _)| named == name));
                if candidates.is_empty() {
                    if changes.changed().await.is_err() {
                        return;
                    }
                    continue;
                }
                for (name, candidate) in candidates {
                    let is_for_later = tried.get(&name).is_some_and(|until| Instant::now() < *until);
                    let has_ended = candidate.comparison.ended().is_some();
                    if has_ended && is_for_later || !has_ended && !is_at_its_end(&candidate) {
                        continue;
                    }
                    self.put_end_in_force(&name, &candidate).await;
                    tried.insert(name, Instant::now() + AGAIN);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = self.drain.started() => {}
            () = judging => {}
        }
    }

    /// Has a candidate whose comparison has ended take over, or takes it back.
    async fn put_end_in_force(self: &Arc<Self>, name: &str, candidate: &Candidate) {
        let digest = candidate.digest();
        let _one_at_a_time = self.replacing.lock().await;
        let now = self.snapshot();
        let is_tried = now.plugin(name).and_then(|loaded| loaded.candidate.as_ref());
        if !is_tried.is_some_and(|tried| Arc::ptr_eq(&tried.comparison, &candidate.comparison)) {
            return;
        }
        if candidate.comparison.ended() != Some(&Ended::Passed) {
            let (server, name) = (self.clone(), name.to_owned());
            let taken_back = blocking(move || server.builder.versions.take_back(&name, digest)).await;
            if let Err(error) = taken_back {
                tracing::warn!(%digest, %error, "cannot record that the version was rolled back");
            }
        }
        if let Err(error) = self.replace_alone(now.config.clone(), now.source.clone(), Unneeded::Later).await
        {
            let error = with_sources(&error);
            tracing::error!(plugin = name, error, "cannot end what was tried, which is tried again");
        }
    }

    /// Lets versions of a plugin serve again that were taken back. What lies in its file is loaded, if it can be.
    pub async fn allow_versions(self: &Arc<Self>, name: &str) -> Result<Arc<Snapshot>, RollBackError> {
        let _one_at_a_time = self.replacing.lock().await;
        let before = self.snapshot();
        before.plugin(name).ok_or(RollBackError::Unknown)?;
        if !self.builder.versions.allow(name, None) {
            return Err(RollBackError::NothingTakenBack);
        }
        let result = self.replace_alone(before.config.clone(), before.source.clone(), Unneeded::Now).await;
        result.map_err(|error| RollBackError::Replace(error.into()))
    }

    /// Has a worker tell what would become of a request.
    pub async fn explain(&self, question: Question) -> Result<Explanation, Unexplained> {
        let worker = &self.workers[fastrand::usize(..self.workers.len())];
        let (answer, explained) = oneshot::channel();
        let order = Order::Explain { question: Box::new(question), answer };
        worker.orders.send(order).map_err(|_| Unexplained::Stopping)?;
        explained.await.unwrap_or(Err(Unexplained::Stopping))
    }

    /// Which versions of plugins have served.
    pub fn versions(&self) -> &Versions {
        &self.builder.versions
    }

    /// What came of loading plugins.
    pub fn loads(&self) -> &Loads {
        &self.builder.loads
    }

    /// Writes down which versions serve now.
    async fn note_versions(self: &Arc<Self>, snapshot: &Arc<Snapshot>) {
        let (server, snapshot) = (self.clone(), snapshot.clone());
        blocking(move || {
            let plugins = snapshot.plugins.iter().map(|loaded| &loaded.plugin);
            server.builder.versions.note(plugins.map(|plugin| (&*plugin.name, plugin.code.digest())));
        })
        .await;
    }

    /// Lets requests finish, for as long as the configuration gives them, and stops the workers.
    pub async fn stop(&self) {
        self.leave().await;
        let limit = self.snapshot().config.drain_timeout.get();
        self.stop_within(limit).await;
    }

    /// Says that requests had better go elsewhere, and goes on serving them for as long as the configuration says, so that
    /// whoever sends them can find out. Responses end their connections meanwhile.
    pub async fn leave(&self) {
        self.leaving.cancel();
        for worker in &self.workers {
            // A worker that is gone has nothing to leave.
            let _ = worker.orders.send(Order::Leave);
        }
        if let Some(delay) = self.snapshot().config.drain_delay.as_ref().map(|delay| delay.get()) {
            tracing::info!(?delay, "out of rotation; listeners close after `drain-delay`");
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                () = self.drain.started() => {}
            }
        }
    }

    /// Whether requests had better go elsewhere, since the proxy stops.
    pub fn is_leaving(&self) -> bool {
        self.leaving.is_cancelled() || self.drain.has_started()
    }

    /// The same as [`Server::stop`] with another limit, and at once.
    pub async fn stop_within(&self, limit: Duration) {
        self.drain.start();
        for bound in &self.current().bound {
            bound.sockets.remove_file();
        }
        for worker in &self.workers {
            // A worker that is gone has nothing left to drain.
            let _ = worker.orders.send(Order::Drain);
        }
        tracing::info!(connections = self.connections(), ?limit, "listeners closed, requests may finish");
        self.drain.finished(limit).await;
        for worker in &self.workers {
            let thread = worker.thread.lock().expect("no holder of this lock panics").take();
            if let Some(thread) = thread
                && blocking(move || thread.join()).await.is_err()
            {
                tracing::error!("a worker panicked");
            }
        }
        let tasks = self.tasks.lock().expect("no holder of this lock panics").take();
        if let Some(tasks) = tasks
            && !blocking(move || tasks.join()).await
        {
            tracing::error!("the thread beside the workers panicked");
        }
    }

    /// Has the upstreams, the plugins and the cache of a snapshot looked after, and no others.
    fn keep(&self, snapshot: &Arc<Snapshot>) {
        let upstreams = snapshot.upstreams.iter().map(|target| &target.upstream);
        self.upstream_maintenance.update(upstreams, &self.builder.folder.as_path().into(), &self.drain);
        let plugins = snapshot.plugins.iter().map(|loaded| &loaded.plugin);
        let shadows = snapshot.shadows.iter().map(|shadow| &shadow.plugin);
        self.plugin_maintenance.update(plugins.chain(shadows), &self.drain);
        let mut tasks = self.tasks.lock().expect("no holder of this lock panics");
        match &*tasks {
            Some(tasks) => tasks.replace(snapshot.clone()),
            None if TaskThread::is_needed(snapshot) => {
                // It counts beside the workers.
                let writer = Writer { number: self.workers.len(), of: self.workers.len() + 1 };
                match TaskThread::start(snapshot.clone(), writer, self.drain.clone()) {
                    Ok(started) => *tasks = Some(started),
                    Err(error) => tracing::error!(%error, "cannot start a thread, no plugin ticks"),
                }
            }
            None => {}
        }
        snapshot.cache.keep(&self.drain);
    }

    fn current(&self) -> Current {
        self.current.lock().expect("no holder of this lock panics").clone()
    }

    /// Has every worker do what can fail of putting this in force, and nothing else. If one of them cannot, none does.
    async fn prepare(&self, current: &Current) -> Result<(), Error> {
        let prepared = self.tell(|done| Order::Prepare { bound: current.bound.clone(), done }).await;
        let prepared =
            prepared.and_then(|all| all.into_iter().collect::<io::Result<()>>().map_err(Error::Worker));
        if prepared.is_err() {
            for worker in &self.workers {
                // One that is gone has nothing left to forget.
                let _ = worker.orders.send(Order::Forget);
            }
        }
        prepared
    }

    /// Has every worker put in force what it has prepared.
    async fn order(&self, current: &Current) -> Result<(), Error> {
        self.tell(|done| Order::Replace { current: current.clone(), done }).await.map(drop)
    }

    /// Gives an order to every worker, and waits for what they answer.
    async fn tell<T>(&self, order: impl Fn(oneshot::Sender<T>) -> Order) -> Result<Vec<T>, Error> {
        let mut answers = Vec::new();
        for worker in &self.workers {
            let (done, answer) = oneshot::channel();
            worker.orders.send(order(done)).map_err(|_| Error::Stopping)?;
            answers.push(answer);
        }
        let mut all = Vec::new();
        for answer in answers {
            all.push(answer.await.map_err(|_| Error::Stopping)?);
        }
        Ok(all)
    }
}

/// Whether it is time for a candidate to take over or to be taken back; then its comparison ends.
fn is_at_its_end(candidate: &Candidate) -> bool {
    let ended = match candidate.comparison.judge(&candidate.rule) {
        Judgement::GoesOn => return false,
        Judgement::Passes => Ended::Passed,
        // From now on it gets no more requests, however long the reload takes.
        Judgement::Fails(reason) => Ended::Failed(reason),
    };
    candidate.comparison.end(ended);
    true
}

/// The folder where compiled plugins are kept by default: the user's cache.
pub fn default_artifacts() -> Option<PathBuf> {
    default_artifacts_from(|name| std::env::var_os(name).map(PathBuf::from))
}

/// None where it is not said whose cache that would be: a relative path would lead into the folder that the process
/// happens to be started in.
fn default_artifacts_from(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let absolute = |name| variable(name).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
    Some(cache.join("tollgate"))
}

/// Reads a configuration and puts it in force.
pub async fn reload(server: &Arc<Server>, path: PathBuf) -> Result<Arc<Snapshot>, Error> {
    let reload = async {
        let (config, source) = blocking(move || config::read(&path)).await?;
        server.replace(config, source).await
    };
    let result = reload.await;
    server.reloads.note(match &result {
        Ok(snapshot) => Ok(snapshot.number),
        Err(error) => Err(with_sources(error)),
    });
    result
}

/// Binds what a snapshot listens on; what was bound to the same addresses is taken over. An error names the line of the
/// address.
fn bind_all(
    snapshot: &Snapshot,
    before: &[Bound],
    admin_before: Option<&BoundAdmin>,
    workers: usize,
) -> Result<(Vec<Bound>, Option<BoundAdmin>), BindError> {
    let is_only_v6 = |address| snapshot.config.leaves_ipv4(address);
    let bound = bind(listeners(snapshot), before, workers, is_only_v6).map_err(|error| {
        let mut listeners = snapshot.config.listeners.iter();
        let written = listeners.find(|listener| listener.get_ref().address == error.address);
        let place = written.and_then(|written| snapshot.source.line_of(&written.span()));
        BindError { place, ..error }
    })?;
    let admin = bind_admin(snapshot, admin_before).map_err(|error| {
        let admin = snapshot.config.admin.as_ref();
        let place = admin.and_then(|admin| snapshot.source.line_of(&admin.span()));
        BindError { place, ..error }
    })?;
    Ok((bound, admin))
}

/// Binds the socket of the admin API; what was bound to the same address is taken over.
fn bind_admin(snapshot: &Snapshot, previous: Option<&BoundAdmin>) -> Result<Option<BoundAdmin>, BindError> {
    let Some(wanted) = &snapshot.config.admin else { return Ok(None) };
    let config = Arc::new(wanted.get_ref().clone());
    let is_only_v6 = snapshot.config.leaves_ipv4(config.address);
    let sockets = match previous {
        Some(previous)
            if previous.config.address == config.address && previous.sockets.is_only_v6 == is_only_v6 =>
        {
            previous.sockets.clone()
        }
        previous => {
            let port = config.address.port();
            let is_ours = previous
                .and_then(|previous| previous.sockets.address.ip())
                .is_some_and(|address| address.port() == port);
            Arc::new(Sockets::bind(config.address, 1, port == 0 || is_ours, is_only_v6)?)
        }
    };
    Ok(Some(BoundAdmin { config, sockets }))
}

fn listeners(snapshot: &Snapshot) -> impl Iterator<Item = (config::Listener, Option<Arc<Termination>>)> {
    let listeners = snapshot.config.listeners.iter().map(|listener| listener.get_ref().clone());
    listeners.zip(snapshot.terminations.iter().cloned())
}

/// The files that a configuration names, besides plugins, and that settings beside plugins name.
pub fn named_files(config: &Config, folder: &Path) -> Vec<PathBuf> {
    let beside = files_named_beside(&folder.join(&config.plugin_dir), config);
    config.files().map(Path::to_owned).chain(beside).map(|file| folder.join(file)).collect()
}

fn cores() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// What takes its time, beside everything else.
pub async fn blocking<T: Send + 'static>(task: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(task).await.expect("the task does not panic, and the runtime waits for it")
}

impl WorkerThread {
    fn start(writer: Writer, snapshot: Arc<Snapshot>, drain: Drain, connections: Gauge) -> io::Result<Self> {
        let (orders, received) = mpsc::unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread();
        let number = writer.number;
        let thread = thread::Builder::new().name(format!("tollgate-{number}")).spawn(move || {
            let mut runtime = runtime;
            match runtime.enable_all().build_local(Default::default()) {
                Ok(runtime) => work(&runtime, writer, snapshot, drain, connections, received),
                Err(error) => tracing::error!(%error, worker = number, "cannot start a runtime"),
            }
        })?;
        Ok(Self { orders, thread: Mutex::new(Some(thread)) })
    }
}

/// The life of a worker.
fn work(
    runtime: &LocalRuntime,
    writer: Writer,
    snapshot: Arc<Snapshot>,
    drain: Drain,
    connections: Gauge,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    runtime.block_on(async {
        let worker = Worker::new(writer, snapshot, drain.clone(), connections);
        let mut acceptors = Acceptors::new(writer.number, worker.clone());
        let ticking = worker.clone();
        // These two end with the worker, not with the drain: draining needs a clock.
        let ticking = tokio::task::spawn_local(async move { ticking.clock.run().await });
        let pooling = worker.clone();
        let pooling = tokio::task::spawn_local(async move { pooling.pool.run().await });
        while let Some(order) = orders.recv().await {
            match order {
                Order::Prepare { bound, done } => {
                    // Whoever asked may have stopped waiting.
                    let _ = done.send(acceptors.prepare(&bound));
                }
                Order::Forget => acceptors.forget(),
                Order::Replace { current, done } => {
                    acceptors.update(&current.bound);
                    worker.replace(current.snapshot);
                    // As above.
                    let _ = done.send(());
                }
                Order::Leave => worker.start_to_leave(),
                Order::Explain { question, answer } => {
                    let worker = worker.clone();
                    drain.spawn_local(async move {
                        // Whoever asked may have stopped waiting.
                        let _ = answer.send(proxy::explain(worker, *question).await);
                    });
                }
                Order::Drain => {
                    acceptors.stop();
                    worker.start_drain();
                    worker.pool.retain(std::iter::empty());
                    drain.wait().await;
                    break;
                }
            }
        }
        ticking.abort();
        pooling.abort();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_kept_in_the_working_directory() {
        let kept = |variables: &[(&str, &str)]| {
            default_artifacts_from(|name| {
                let (_, value) = variables.iter().find(|(variable, _)| *variable == name)?;
                Some(PathBuf::from(value))
            })
        };
        let cache = |path: &str| Some(PathBuf::from(path));
        assert_eq!(kept(&[("HOME", "/home/a")]), cache("/home/a/.cache/tollgate"));
        assert_eq!(kept(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "/c")]), cache("/c/tollgate"));
        assert_eq!(kept(&[("HOME", "/home/a"), ("XDG_CACHE_HOME", "c")]), cache("/home/a/.cache/tollgate"));
        assert_eq!(kept(&[]), None);
        assert_eq!(kept(&[("HOME", "")]), None);
        assert_eq!(kept(&[("HOME", "."), ("XDG_CACHE_HOME", "")]), None);
    }
}
