//! What if a plugin waits for a moment to come?
//!
//! A hook runs on the thread that serves requests, and holds it whether it computes or sleeps. So it may sleep, and pays
//! with the time that it may compute. The runtimes of some languages do: Go's sleeps for some hundred microseconds now
//! and then while it collects garbage.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use wasmtime::{
    Result,
    component::{HasData, Resource, ResourceTable},
};
use wasmtime_wasi::{
    HostMonotonicClock,
    p2::{DynPollable, Pollable, bindings::clocks::monotonic_clock, subscribe},
};

use super::{
    clocks::now,
    surroundings::{Surroundings, Time, nanoseconds},
};

/// The monotonic clock of an instance, and what the instance waits for by it. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Alarms {
    /// In place of the system's clock.
    time: Option<Arc<Time>>,
    /// What is added to it, in nanoseconds.
    ahead: u64,
    /// The earliest moment that was waited for in vain since it was asked for last; the largest number if none was.
    next: Arc<AtomicU64>,
}

impl Alarms {
    pub fn new(Surroundings { time, chance, .. }: &Surroundings) -> Self {
        let ahead = chance.as_ref().map_or(0, |chance| chance.ahead());
        Self { time: time.clone(), ahead, next: Arc::new(AtomicU64::new(u64::MAX)) }
    }

    /// How long it is until the earliest moment that was waited for in vain; none if none was.
    pub fn take_next(&self) -> Option<Duration> {
        let next = self.next.swap(u64::MAX, Ordering::Relaxed);
        (next < u64::MAX).then(|| Duration::from_nanos(next.saturating_sub(self.now())))
    }

    /// Has so much time pass.
    pub fn pass(&self, duration: Duration) {
        match &self.time {
            Some(time) => time.advance(duration),
            None => std::thread::sleep(duration),
        }
    }
}

impl HostMonotonicClock for Alarms {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        nanoseconds(self.time.as_ref().map_or_else(now, |time| time.now())).saturating_add(self.ahead)
    }
}

/// A moment that can be waited for, in nanoseconds by the clock of the instance.
struct Alarm {
    at: u64,
    alarms: Alarms,
}

#[wasmtime_wasi::async_trait]
impl Pollable for Alarm {
    /// Is never woken: whoever finds it pending sees to it that the time passes, and asks again.
    async fn ready(&mut self) {
        poll_fn(|_| {
            if self.alarms.now() >= self.at {
                return Poll::Ready(());
            }
            self.alarms.next.fetch_min(self.at, Ordering::Relaxed);
            Poll::Pending
        })
        .await;
    }
}

/// `wasi:clocks/monotonic-clock` by the clock of the instance.
pub(super) struct Clock<'a> {
    pub table: &'a mut ResourceTable,
    pub alarms: &'a Alarms,
}

pub(super) struct ByAlarms;

impl HasData for ByAlarms {
    type Data<'a> = Clock<'a>;
}

impl monotonic_clock::Host for Clock<'_> {
    fn now(&mut self) -> Result<u64> {
        Ok(self.alarms.now())
    }

    fn resolution(&mut self) -> Result<u64> {
        Ok(self.alarms.resolution())
    }

    fn subscribe_instant(&mut self, at: u64) -> Result<Resource<DynPollable>> {
        let alarm = self.table.push(Alarm { at, alarms: self.alarms.clone() })?;
        subscribe(self.table, alarm)
    }

    fn subscribe_duration(&mut self, duration: u64) -> Result<Resource<DynPollable>> {
        self.subscribe_instant(self.alarms.now().saturating_add(duration))
    }
}
