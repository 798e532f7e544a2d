//! Who looks after an upstream while it is in force?
//!
//! On the control side: a task for each upstream lets time have its effect, and has one more for the checks of
//! each endpoint and for each source of endpoints. Nothing here is on the way of a request.

use std::{
    future::pending,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustc_hash::FxHashMap;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};

use super::{Endpoint, Entry, Roster, Source, State, Upstream, check, discover, members::sources};
use crate::drain::Drain;

/// The tasks that look after upstreams.
#[derive(Debug, Default)]
pub struct Maintenance {
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

impl Maintenance {
    /// These upstreams are in force, and no others. Those that stay are not disturbed.
    ///
    /// `folder` is what relative paths in their settings are relative to.
    pub fn update<'a>(
        &self,
        upstreams: impl Iterator<Item = &'a Arc<Upstream>>,
        folder: &Arc<Path>,
        drain: &Drain,
    ) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *running);
        for upstream in upstreams {
            let known = before.iter().position(|(known, _)| Arc::ptr_eq(known, upstream));
            running.push(match known {
                Some(index) => before.swap_remove(index),
                None => {
                    let maintaining = maintain(upstream.clone(), folder.clone(), drain.clone());
                    (upstream.clone(), Task(drain.spawn(maintaining)))
                }
            });
        }
    }
}

/// How often a limit follows the latency, where it does.
const ADAPT: Duration = Duration::from_millis(200);

/// How often it is seen whether endpoints that leave have finished.
const SEE_OFF: Duration = Duration::from_millis(100);

async fn maintain(upstream: Arc<Upstream>, folder: Arc<Path>, drain: Drain) {
    let mut changed = upstream.changes();
    upstream.takes_over();
    let ask = |source: Source| Task(drain.spawn(discover::run(upstream.clone(), source, folder.clone())));
    let _asking: Vec<Task> = sources(&upstream.settings).into_iter().map(ask).collect();
    let (mut checks, mut loads) = (FxHashMap::default(), FxHashMap::default());
    let every = upstream.settings.outlier.interval.get();
    let mut judging = Instant::now() + every;
    let mut adapting = upstream.settings.limits.adaptive.then(|| Instant::now() + ADAPT);
    loop {
        let roster = Arc::clone(&upstream.roster());
        if let Some(health) = &upstream.settings.health {
            for_each(&roster, &mut checks, |endpoint| {
                Task(drain.spawn(check::run(upstream.clone(), endpoint.clone(), health.clone())))
            });
        }
        if let Some(load) = &upstream.settings.load {
            for_each(&roster, &mut loads, |endpoint| {
                Task(drain.spawn(check::ask_load(upstream.clone(), endpoint.clone(), load.clone())))
            });
        }
        drop(roster);
        let now = Instant::now();
        if judging <= now {
            upstream.judge();
            judging = now + every;
        }
        if let Some(due) = &mut adapting
            && *due <= now
        {
            upstream.adapt();
            *due = now + ADAPT;
        }
        let expiry = upstream.expire(now.into_std()).map(Instant::from_std);
        let leaving = upstream.see_off(now.into_std()).then(|| now + SEE_OFF);
        let next = upstream.pass_time(now.into_std()).map(Instant::from_std);
        tokio::select! {
            () = at([next, Some(judging), adapting, expiry, leaving].into_iter().flatten().min()) => {}
            _ = changed.changed() => {}
            () = drain.started() => return,
        }
        // Of many endpoints many may change at once.
        let pause = upstream.pause();
        if !pause.is_zero() {
            tokio::select! {
                () = sleep(pause) => {}
                () = drain.started() => return,
            }
        }
    }
}

/// A task for each endpoint that is there. Those of endpoints that have left end.
fn for_each(roster: &Roster, tasks: &mut FxHashMap<u64, Task>, spawn: impl Fn(&Arc<Endpoint>) -> Task) {
    let mut before = std::mem::take(tasks);
    for Entry { endpoint, .. } in roster.all().iter().filter(|entry| entry.state != State::Draining) {
        let task = before.remove(&endpoint.id).unwrap_or_else(|| spawn(endpoint));
        tasks.insert(endpoint.id, task);
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => pending().await,
    }
}
