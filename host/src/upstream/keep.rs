//! Who looks after an upstream while it is in force?
//!
//! On the control side: a task for each upstream lets time have its effect, and has one more for the checks of
//! each endpoint. Nothing here is on the way of a request.

use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustc_hash::FxHashMap;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{Upstream, check};
use crate::drain::Drain;

/// The tasks that look after upstreams.
#[derive(Debug, Default)]
pub struct Keepers {
    running: Mutex<Vec<(Arc<Upstream>, Task)>>,
}

/// A task that ends with this.
#[derive(Debug)]
struct Task(JoinHandle<()>);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Keepers {
    /// These upstreams are in force, and no others. Those that stay are not disturbed.
    pub fn update<'a>(&self, upstreams: impl Iterator<Item = &'a Arc<Upstream>>, drain: &Drain) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *running);
        for upstream in upstreams {
            let known = before.iter().position(|(known, _)| Arc::ptr_eq(known, upstream));
            running.push(match known {
                Some(place) => before.swap_remove(place),
                None => (upstream.clone(), Task(drain.spawn(keep(upstream.clone(), drain.clone())))),
            });
        }
    }
}

/// How often a limit follows the latency, where it does.
const ADAPT: Duration = Duration::from_millis(200);

async fn keep(upstream: Arc<Upstream>, drain: Drain) {
    let mut changed = upstream.shared.changed.subscribe();
    let mut checks: FxHashMap<u64, Task> = FxHashMap::default();
    let every = upstream.is_measured.then(|| upstream.settings.outlier.interval.get());
    let mut judging = every.map(|every| Instant::now() + every);
    let mut adapting = upstream.settings.limits.adaptive.then(|| Instant::now() + ADAPT);
    loop {
        if let Some(health) = &upstream.settings.health {
            let roster = upstream.roster.load_full();
            let mut before = std::mem::take(&mut checks);
            for entry in roster.all() {
                let endpoint = &entry.endpoint;
                let task = before.remove(&endpoint.id).unwrap_or_else(|| {
                    Task(drain.spawn(check::run(upstream.clone(), endpoint.clone(), health.clone())))
                });
                checks.insert(endpoint.id, task);
            }
        }
        let now = Instant::now();
        if let (Some(due), Some(every)) = (judging, every)
            && due <= now
        {
            upstream.judge();
            judging = Some(now + every);
        }
        if let Some(due) = &mut adapting
            && *due <= now
        {
            upstream.adapt();
            *due = now + ADAPT;
        }
        let next = upstream.pass_time(now.into_std()).map(Instant::from_std);
        tokio::select! {
            () = at([next, judging, adapting].into_iter().flatten().min()) => {}
            _ = changed.changed() => {}
            () = drain.started() => return,
        }
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
