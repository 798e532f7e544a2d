//! What are plugins told of requests that have ended?
//!
//! A worker leaves what came of a request in the queue of each plugin that is told of it, and goes on; the thread beside the
//! workers takes batches out of it. The queue has an end: what finds no place is counted and forgotten, since a plugin that
//! is slow to write its log must not hold up a request, nor fill the memory.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

use super::bindings::exports::tollgate::policy::complete_hook;
use crate::telemetry::Counter;

/// A request that has ended.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Completed {
    pub request_id: String,
    /// When its head had come, in milliseconds since 1970.
    pub time_ms: f64,
    pub method: String,
    pub authority: String,
    /// Path and query as the client sent them, made canonical.
    pub target: String,
    pub client_address: String,
    pub route: String,
    pub upstream: String,
    pub status: u16,
    /// Who answered, `host:port`; or who was asked last, if nobody did.
    pub endpoint: Option<String>,
    /// How often it was brought to an endpoint.
    pub attempts: u32,
    pub from_cache: bool,
    /// Of the bodies.
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// From its head to the last byte of the response.
    pub duration: Duration,
    /// Until the head of the upstream's answer, all attempts together.
    pub upstream_duration: Duration,
    pub notes: Vec<(String, String)>,
}

impl From<&Completed> for complete_hook::Outcome {
    fn from(outcome: &Completed) -> Self {
        let microseconds = |duration: Duration| u32::try_from(duration.as_micros()).unwrap_or(u32::MAX);
        Self {
            request_id: outcome.request_id.clone(),
            time_ms: outcome.time_ms,
            method: outcome.method.clone(),
            authority: outcome.authority.clone(),
            target: outcome.target.clone(),
            client_address: outcome.client_address.clone(),
            route: outcome.route.clone(),
            upstream: outcome.upstream.clone(),
            status: outcome.status,
            endpoint: outcome.endpoint.clone(),
            attempts: outcome.attempts,
            from_cache: outcome.from_cache,
            bytes_in: outcome.bytes_in as f64,
            bytes_out: outcome.bytes_out as f64,
            duration_us: microseconds(outcome.duration),
            upstream_us: microseconds(outcome.upstream_duration),
            notes: outcome.notes.clone(),
        }
    }
}

/// What a plugin is still to be told. Goes on when the plugin is replaced by another of its name.
#[derive(Debug, Default)]
pub struct Outcomes {
    waiting: Mutex<Waiting>,
    /// There is something, or enough for a whole batch.
    there: Notify,
    delivered: Counter,
    dropped: Counter,
}

#[derive(Debug, Default)]
struct Waiting {
    list: VecDeque<Arc<Completed>>,
    /// When the first of them has been there for long enough.
    due: Option<Instant>,
}

/// What is told in one call. Counts as dropped unless it is said to have been told.
#[derive(Debug)]
pub struct Batch<'a> {
    outcomes: &'a Outcomes,
    pub list: Vec<Arc<Completed>>,
}

impl Outcomes {
    /// What waits at most.
    pub const MOST: usize = 8192;
    /// What is told at once.
    pub const BATCH: usize = 256;
    /// How long the first waits for others.
    const PATIENCE: Duration = Duration::from_millis(50);

    /// Leaves an outcome, if there is room.
    pub fn leave(&self, outcome: Arc<Completed>) {
        let mut waiting = self.waiting();
        if waiting.list.len() >= Self::MOST {
            self.dropped.add(1);
            return;
        }
        waiting.list.push_back(outcome);
        let count = waiting.list.len();
        if count == 1 {
            waiting.due = Some(Instant::now() + Self::PATIENCE);
        }
        let is_time = count == 1 || count == Self::BATCH;
        drop(waiting);
        if is_time {
            self.there.notify_one();
        }
    }

    /// Waits for some. If this is dropped before, nothing is lost.
    pub async fn batch(&self) -> Batch<'_> {
        loop {
            let (count, due) = {
                let waiting = self.waiting();
                (waiting.list.len(), waiting.due)
            };
            match due {
                _ if count >= Self::BATCH => return self.take(),
                None => self.there.notified().await,
                Some(due) => {
                    if tokio::time::timeout_at(due, self.there.notified()).await.is_err() {
                        return self.take();
                    }
                }
            }
        }
    }

    /// What there is, up to a batch.
    pub fn take(&self) -> Batch<'_> {
        let mut waiting = self.waiting();
        let count = waiting.list.len().min(Self::BATCH);
        let list = waiting.list.drain(..count).collect();
        // What is left has been there for long enough, too.
        waiting.due = waiting.due.filter(|_| !waiting.list.is_empty());
        Batch { outcomes: self, list }
    }

    /// How many the plugin has been told.
    pub fn delivered(&self) -> u64 {
        self.delivered.get()
    }

    /// How many it will never be told: there was no room, or the call failed.
    pub fn dropped(&self) -> u64 {
        self.dropped.get()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Batch<'_> {
    /// The plugin has been told.
    pub fn was_told(mut self) {
        self.outcomes.delivered.add(self.list.len() as u64);
        self.list.clear();
    }
}

impl Drop for Batch<'_> {
    fn drop(&mut self) {
        self.outcomes.dropped.add(self.list.len() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_finds_no_place_or_is_not_told_is_counted() {
        let outcomes = Outcomes::default();
        for _ in 0..Outcomes::MOST + 3 {
            outcomes.leave(Arc::default());
        }
        assert_eq!(outcomes.dropped(), 3);
        let batch = outcomes.batch().await;
        assert_eq!(batch.list.len(), Outcomes::BATCH);
        batch.was_told();
        drop(outcomes.batch().await);
        assert_eq!((outcomes.delivered(), outcomes.dropped()), (256, 3 + 256));
        while !outcomes.take().list.is_empty() {}
        assert_eq!(outcomes.dropped(), 3 + Outcomes::MOST as u64 - 256);
    }

    #[tokio::test(start_paused = true)]
    async fn few_wait_for_a_moment_and_many_do_not() {
        let outcomes = Outcomes::default();
        let began = tokio::time::Instant::now();
        outcomes.leave(Arc::default());
        outcomes.leave(Arc::default());
        // Whoever waits may have something else to do now and then.
        let short = Duration::from_millis(20);
        assert!(tokio::time::timeout(short, outcomes.batch()).await.is_err());
        assert!(tokio::time::timeout(short, outcomes.batch()).await.is_err());
        assert_eq!(outcomes.batch().await.list.len(), 2);
        assert_eq!(began.elapsed(), Outcomes::PATIENCE);
        (0..Outcomes::BATCH).for_each(|_| outcomes.leave(Arc::default()));
        assert_eq!(outcomes.batch().await.list.len(), Outcomes::BATCH);
        assert_eq!(began.elapsed(), Outcomes::PATIENCE);
    }
}
