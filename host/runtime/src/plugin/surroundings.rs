//! What does a plugin see of the world, where it is not the world itself?
//!
//! A plugin that serves has the system's clocks and the proxy's log. One under test has what its tests say, and
//! leaves no trace.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tracing::Level;
use wasmtime_wasi::{Deterministic, HostWallClock};

use super::capability::Capabilities;

/// Given to a plugin when it is made; what is absent is the system's own.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// What it was granted.
    pub capabilities: Capabilities,
    /// Keeps what is logged, in place of the proxy's log.
    pub journal: Option<Arc<Journal>>,
    /// Tells the time, in place of the system.
    pub time: Option<Arc<Time>>,
    /// Decides what comes by chance, in place of the system.
    pub chance: Option<Arc<Chance>>,
}

/// Lines that a plugin has logged, in order; or nothing, if nobody is going to read them.
#[derive(Debug)]
pub struct Journal(Option<Mutex<Vec<Logged>>>);

impl Default for Journal {
    fn default() -> Self {
        Self(Some(Mutex::default()))
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Logged {
    pub level: Level,
    pub text: String,
}

impl Journal {
    /// Takes lines, and keeps none.
    pub const fn closed() -> Self {
        Self(None)
    }

    pub(super) fn keep(&self, level: Level, text: &str) {
        let Some(lines) = &self.0 else { return };
        let line = Logged { level, text: text.to_owned() };
        lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// The lines since this was asked last.
    pub fn take(&self) -> Vec<Logged> {
        let Some(lines) = &self.0 else { return Vec::new() };
        std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Time that stands still until it is moved on. In nanoseconds since 1970.
#[derive(Debug)]
pub struct Time(AtomicU64);

impl Time {
    /// `now` is since 1970; the five centuries after that can be told.
    pub fn new(now: Duration) -> Self {
        Self(AtomicU64::new(nanoseconds(now)))
    }

    pub fn now(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::Relaxed))
    }

    pub fn set(&self, now: Duration) {
        self.0.store(nanoseconds(now), Ordering::Relaxed);
    }

    pub fn advance(&self, by: Duration) {
        let next = self.0.load(Ordering::Relaxed).saturating_add(nanoseconds(by));
        self.0.store(next, Ordering::Relaxed);
    }
}

/// What comes by chance, and is the same each time: each instance gets other random numbers, by its turn.
#[derive(Debug)]
pub struct Chance {
    seed: u64,
    instances: AtomicU64,
}

impl Chance {
    /// Random bytes that an instance gets before they begin again.
    const BYTES: usize = 64 << 10;

    pub fn new(seed: u64) -> Self {
        Self { seed, instances: AtomicU64::new(0) }
    }

    /// How far the monotonic clock is ahead, which may begin anywhere: some make a seed of it. In nanoseconds.
    pub(super) fn ahead(&self) -> u64 {
        self.seed
    }

    /// A source of random numbers that nobody has had yet.
    pub(super) fn next(&self) -> fastrand::Rng {
        let instance = self.instances.fetch_add(1, Ordering::Relaxed);
        // What is near in a seed is far apart in what it gives, so the next may be the next number.
        fastrand::Rng::with_seed((self.seed << 32).wrapping_add(instance))
    }

    pub(super) fn bytes(random: &mut fastrand::Rng) -> Deterministic {
        let mut bytes = vec![0; Self::BYTES];
        random.fill(&mut bytes);
        Deterministic::new(bytes)
    }
}

pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A clock of WASI that shows this time.
pub(super) struct WallClock(pub Arc<Time>);

impl HostWallClock for WallClock {
    fn resolution(&self) -> Duration {
        Duration::from_nanos(1)
    }

    fn now(&self) -> Duration {
        self.0.now()
    }
}
