//! What do plugins do when no request waits for them?
//!
//! On a thread of its own, of low priority, with instances and connections of its own, so that nothing that a plugin does there holds up
//! a request: `on-tick`, at the interval of the plugin's table, and `on-complete`, when requests have ended. Both are calls
//! of one instance, one at a time, so that a plugin can collect by the one what it sends away by the other.

use std::{cell::RefCell, collections::HashMap, io, rc::Rc, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock::Clock,
    drain::Drain,
    outgoing::{Outgoing, Received, SendError},
    plugin::{Batch, BodyError, CallError, Hook, HostIo, Plugin, Slot, make_way},
    snapshot::{Loaded, Snapshot},
    telemetry::Writer,
    telemetry::sampled,
    upstream::{Origins, Pool},
};

/// The thread. It ends with the drain, or when this is dropped.
#[derive(Debug)]
pub struct TaskThread {
    in_force: watch::Sender<Arc<Snapshot>>,
    thread: thread::JoinHandle<()>,
}

impl TaskThread {
    /// Whether a snapshot has anything for it to do.
    pub fn is_needed(snapshot: &Snapshot) -> bool {
        snapshot.plugins.iter().any(is_attended)
    }

    /// Starts the thread with what this snapshot has for it.
    pub fn start(snapshot: Arc<Snapshot>, writer: Writer, drain: Drain) -> io::Result<Self> {
        let (in_force, follows) = watch::channel(snapshot);
        let thread = thread::Builder::new().name("tollgate-tasks".into()).spawn(move || {
            make_way();
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
            match runtime {
                Ok(runtime) => runtime.block_on(run(writer, drain, follows)),
                Err(error) => tracing::error!(%error, "cannot start a runtime, no plugin ticks"),
            }
        })?;
        Ok(Self { in_force, thread })
    }

    /// This snapshot is in force, and no other.
    pub fn replace(&self, snapshot: Arc<Snapshot>) {
        self.in_force.send_replace(snapshot);
    }

    /// Waits for the end of the thread, once the drain has started. False if it has panicked.
    pub fn join(self) -> bool {
        drop(self.in_force);
        self.thread.join().is_ok()
    }
}

/// Between two ticks of a plugin, if it ticks.
fn pause(loaded: &Loaded) -> Option<Duration> {
    loaded.tick().filter(|_| loaded.plugin.code.exports(Hook::OnTick))
}

/// Whether there is anything for it to do here.
fn is_attended(loaded: &Loaded) -> bool {
    pause(loaded).is_some() || loaded.plugin.code.exports(Hook::OnComplete)
}

/// What the plugins on this thread have in common.
#[derive(Clone)]
struct Means {
    writer: Writer,
    drain: Drain,
    clock: Clock,
    pool: Rc<Pool>,
    /// Those that are still to be told of requests once the drain has started.
    left: Rc<RefCell<Vec<Attended>>>,
}

/// The life of the thread.
async fn run(writer: Writer, drain: Drain, follows: watch::Receiver<Arc<Snapshot>>) {
    /// How long plugins may take to be told of the last requests.
    const PATIENCE: Duration = Duration::from_secs(2);
    let clock = Clock::default();
    let pool = Pool::new(clock.clone(), drain.clone());
    let means =
        Means { writer, drain: drain.clone(), clock: clock.clone(), pool: pool.clone(), left: Rc::default() };
    let sweep = pool.run();
    let work = async {
        follow(&means, follows).await;
        // Connections end, and with them their tasks.
        pool.retain(std::iter::empty());
        let late = async {
            drain.wait().await;
            tokio::time::sleep(PATIENCE).await;
        };
        tokio::select! {
            () = tell_to_the_end(&means) => {}
            () = late => tracing::warn!("plugins are not told of all requests that have ended"),
        }
    };
    tokio::select! {
        () = work => {}
        () = clock.run() => {}
        () = sweep => {}
    }
}

/// A task that ends with this.
struct Task(Option<JoinHandle<()>>);

impl Task {
    /// Leaves it to end by itself.
    fn leave(mut self) {
        self.0 = None;
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

/// Attends to the plugins of each snapshot that comes into force, until the drain starts. Those that stay as they are
/// are not disturbed.
async fn follow(means: &Means, mut follows: watch::Receiver<Arc<Snapshot>>) {
    let mut attending = HashMap::new();
    loop {
        let snapshot = follows.borrow_and_update().clone();
        let mut before = std::mem::take(&mut attending);
        for loaded in snapshot.plugins.iter().filter(|loaded| is_attended(loaded)) {
            let pause = pause(loaded);
            let key = (Arc::as_ptr(&loaded.plugin), Arc::as_ptr(&loaded.origins), pause);
            let task = before.remove(&key).unwrap_or_else(|| {
                let attended = Attended::new(means, loaded.plugin.clone(), loaded.origins.clone());
                Task(Some(means.drain.spawn_local(attend(means.clone(), attended, pause))))
            });
            attending.insert(key, task);
        }
        let origins = snapshot.plugins.iter().flat_map(|loaded| loaded.origins.endpoints());
        means.pool.retain(origins);
        // What is no longer attended to ends here, whatever it is waiting for.
        drop((before, snapshot));
        tokio::select! {
            // A thread that others leave no time may find the end of both.
            biased;
            () = means.drain.started() => {
                // They end by themselves, and leave what is still to be done.
                attending.into_values().for_each(Task::leave);
                return;
            }
            changed = follows.changed() => if changed.is_err() { return },
        }
    }
}

/// A plugin that is attended to, with the instance that it has here.
struct Attended {
    slot: Slot,
    io: Sending,
}

impl Attended {
    fn new(means: &Means, plugin: Arc<Plugin>, origins: Arc<Origins>) -> Self {
        let (pool, clock) = (means.pool.clone(), means.clock.clone());
        Self { slot: Slot::new(plugin, means.writer), io: Sending { pool, clock, origins } }
    }

    async fn tick(&mut self) {
        if let Err(error) = self.slot.on_tick(&mut self.io).await {
            self.failed(&error, "on-tick failed");
        }
    }

    async fn tell(&mut self, batch: Batch<'_>) {
        if batch.list.is_empty() {
            return;
        }
        match self.slot.on_complete(&batch.list, &mut self.io).await {
            Ok(()) => batch.was_told(),
            Err(error) => self.failed(&error, "on-complete failed, requests are not told of"),
        }
    }

    fn failed(&self, error: &CallError, what: &str) {
        self.slot.counts().failed(error);
        // Of one that is left alone, the log knows.
        if !matches!(error, CallError::Broken) {
            let plugin = &self.slot.plugin().name;
            sampled!(warn, of: (plugin, what, error.kind()), %plugin, %error, "{what}");
        }
    }
}

/// Calls the hooks of a plugin when it is time, until the drain starts.
async fn attend(means: Means, mut attended: Attended, pause: Option<Duration>) {
    let mut ticks = pause.map(|pause| {
        let mut ticks = interval(pause);
        // One that took long is not made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks
    });
    let plugin = attended.slot.plugin().clone();
    let is_told = plugin.code.exports(Hook::OnComplete);
    let attending = async {
        loop {
            let tick = async {
                match &mut ticks {
                    Some(ticks) => ticks.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                _ = tick => attended.tick().await,
                batch = plugin.outcomes().batch(), if is_told => attended.tell(batch).await,
            }
        }
    };
    tokio::select! {
        () = means.drain.started() => {}
        () = attending => {}
    }
    if is_told {
        means.left.borrow_mut().push(attended);
    }
}

/// Tells of requests that end while the proxy drains, to the last of them.
async fn tell_to_the_end(means: &Means) {
    /// From one look to the next.
    const PAUSE: Duration = Duration::from_millis(50);
    let mut is_over = false;
    loop {
        tell_rest(&means.left).await;
        if is_over {
            return;
        }
        tokio::select! {
            () = means.drain.wait() => is_over = true,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Tells all that there is to be told now.
async fn tell_rest(left: &RefCell<Vec<Attended>>) {
    let mut all = std::mem::take(&mut *left.borrow_mut());
    for attended in &mut all {
        let plugin = attended.slot.plugin().clone();
        loop {
            let batch = plugin.outcomes().take();
            if batch.list.is_empty() {
                break;
            }
            attended.tell(batch).await;
        }
    }
    left.borrow_mut().extend(all);
}

/// Sends requests; there is no message whose body could be read.
struct Sending {
    pool: Rc<Pool>,
    clock: Clock,
    origins: Arc<Origins>,
}

impl HostIo for Sending {
    async fn send(&mut self, request: Outgoing) -> Result<Received, SendError> {
        self.origins.send(&self.pool, &self.clock, request).await
    }

    async fn request_body(&mut self, _: usize, _: Duration) -> Result<Bytes, BodyError> {
        Err(BodyError::Unavailable)
    }

    async fn response_body(&mut self, _: usize, _: Duration) -> Result<Bytes, BodyError> {
        Err(BodyError::Unavailable)
    }
}
