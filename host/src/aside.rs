//! What do plugins do when no request waits for them?
//!
//! On a thread of its own, with instances and connections of its own, so that nothing that a plugin does there holds up
//! a request: `on-tick`, at the interval of the plugin's table.

use std::{collections::HashMap, io, rc::Rc, sync::Arc, thread, time::Duration};

use bytes::Bytes;
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{MissedTickBehavior, interval},
};

use crate::{
    clock::Clock,
    drain::Drain,
    plugin::{BodyError, Errands, Hook, Outgoing, Plugin, Received, SendError, Slot},
    snapshot::{Loaded, Snapshot},
    telemetry::Writer,
    upstream::{Origins, Pool},
};

/// The thread. It ends with the drain, or when this is dropped.
#[derive(Debug)]
pub struct Aside {
    in_force: watch::Sender<Arc<Snapshot>>,
    thread: thread::JoinHandle<()>,
}

impl Aside {
    /// Whether a snapshot has anything for it to do.
    pub fn is_needed(snapshot: &Snapshot) -> bool {
        snapshot.plugins.iter().any(|loaded| pause(loaded).is_some())
    }

    /// Starts the thread with what this snapshot has for it.
    pub fn start(snapshot: Arc<Snapshot>, writer: Writer, drain: Drain) -> io::Result<Self> {
        let (in_force, follows) = watch::channel(snapshot);
        let thread = thread::Builder::new().name("tollgate-aside".into()).spawn(move || {
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

/// What the plugins on this thread have in common.
#[derive(Clone)]
struct Means {
    writer: Writer,
    drain: Drain,
    clock: Clock,
    pool: Rc<Pool>,
}

/// The life of the thread.
async fn run(writer: Writer, drain: Drain, follows: watch::Receiver<Arc<Snapshot>>) {
    /// How often connections are looked at that have been idle for too long.
    const SWEEP: Duration = Duration::from_secs(1);
    let clock = Clock::default();
    let pool = Pool::new(clock.clone(), drain.clone());
    let means = Means { writer, drain: drain.clone(), clock: clock.clone(), pool: pool.clone() };
    let sweep = async {
        loop {
            tokio::time::sleep(SWEEP).await;
            pool.sweep();
        }
    };
    let work = async {
        follow(&means, follows).await;
        pool.retain(std::iter::empty());
        // Connections end, and with them their tasks.
        drain.wait().await;
    };
    tokio::select! {
        () = work => {}
        () = clock.run() => {}
        () = sweep => {}
    }
}

/// A task that ends with this.
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Has the plugins of each snapshot tick that comes into force, until the drain starts. Those that stay as they are
/// are not disturbed.
async fn follow(means: &Means, mut follows: watch::Receiver<Arc<Snapshot>>) {
    let mut ticking = HashMap::new();
    loop {
        let snapshot = follows.borrow_and_update().clone();
        let mut before = std::mem::take(&mut ticking);
        for loaded in &snapshot.plugins {
            let Some(pause) = pause(loaded) else { continue };
            let key = (Arc::as_ptr(&loaded.plugin), Arc::as_ptr(&loaded.origins), pause);
            let task = before.remove(&key).unwrap_or_else(|| {
                let (plugin, origins) = (loaded.plugin.clone(), loaded.origins.clone());
                Task(means.drain.spawn_local(tick(means.clone(), plugin, origins, pause)))
            });
            ticking.insert(key, task);
        }
        let origins = snapshot.plugins.iter().flat_map(|loaded| loaded.origins.endpoints());
        means.pool.retain(origins);
        // What no longer ticks ends here, whatever it is waiting for.
        drop((before, snapshot));
        tokio::select! {
            () = means.drain.started() => return,
            changed = follows.changed() => if changed.is_err() { return },
        }
    }
}

async fn tick(means: Means, plugin: Arc<Plugin>, origins: Arc<Origins>, pause: Duration) {
    let slot = Slot::new(plugin, means.writer);
    let mut errands = Sending { pool: means.pool, clock: means.clock, origins };
    let ticks = async {
        let mut ticks = interval(pause);
        // One that took long is not made up for.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Err(error) = slot.on_tick(&mut errands).await {
                slot.counts().failed(&error);
                tracing::warn!(plugin = %slot.plugin().name, %error, "on-tick failed");
            }
        }
    };
    tokio::select! {
        () = means.drain.started() => {}
        () = ticks => {}
    }
}

/// Sends requests; there is no message whose body could be read.
struct Sending {
    pool: Rc<Pool>,
    clock: Clock,
    origins: Arc<Origins>,
}

impl Errands for Sending {
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
