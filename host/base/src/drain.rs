//! Which tasks run, and are they to finish?
//!
//! Everything that is spawned is spawned here, so that the end of the process can wait for all of it.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::task::JoinHandle;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The tasks of one proxy. Clones are the same drain.
#[derive(Debug, Clone, Default)]
pub struct Drain {
    /// No new work is taken.
    started: CancellationToken,
    /// Work in hand is given up.
    aborted: CancellationToken,
    tasks: TaskTracker,
    /// Nobody is left to be accompanied.
    finished: CancellationToken,
    /// Requests that were given up.
    cut: Arc<AtomicU64>,
}

impl Drain {
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns on the runtime that runs the caller. The task ends early when the drain runs out of time.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let aborted = self.aborted.clone();
        self.tasks.spawn(async move {
            aborted.run_until_cancelled(task).await;
        })
    }

    /// The same for a task that stays on the caller's thread. It ends with the thread's runtime, so that it need
    /// not ask each time it is polled whether to end.
    pub fn spawn_local(&self, task: impl Future<Output = ()> + 'static) -> JoinHandle<()> {
        self.tasks.spawn_local(task)
    }

    /// Spawns a task that goes along with the others: it is not waited for, and ends when they all have.
    pub fn accompany(&self, task: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
        let finished = self.finished.clone();
        tokio::spawn(async move {
            finished.run_until_cancelled(task).await;
        })
    }

    /// Asks every task to finish.
    pub fn start(&self) {
        self.started.cancel();
        self.tasks.close();
    }

    pub fn has_started(&self) -> bool {
        self.started.is_cancelled()
    }

    /// Returns when the drain has started.
    pub async fn started(&self) {
        self.started.cancelled().await;
    }

    /// Gives up what still runs.
    pub fn abort(&self) {
        self.start();
        self.aborted.cancel();
    }

    /// A request was given up, since the time to drain is over.
    pub fn note_cut(&self) {
        self.cut.fetch_add(1, Ordering::Relaxed);
    }

    /// How many were.
    pub fn cut(&self) -> u64 {
        self.cut.load(Ordering::Relaxed)
    }

    /// Whether what still runs is given up.
    pub fn is_aborted(&self) -> bool {
        self.aborted.is_cancelled()
    }

    /// Returns once every task has ended, or is to be given up.
    pub async fn wait(&self) {
        self.aborted.run_until_cancelled(self.tasks.wait()).await;
    }

    /// The same; tasks that still run after `limit` are given up.
    pub async fn finished(&self, limit: Duration) {
        if tokio::time::timeout(limit, self.tasks.wait()).await.is_err() {
            tracing::warn!(tasks = self.tasks.len(), "time to drain is over, giving up what still runs");
            self.abort();
            self.tasks.wait().await;
        }
        self.finished.cancel();
    }
}
