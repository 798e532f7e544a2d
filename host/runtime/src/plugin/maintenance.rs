//! Who looks after a plugin while it is in force?
//!
//! On the control side: a task for each plugin that keeps something. Nothing here is on the way of a request.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinHandle;

use super::{clocks::now, configured::Plugin};
use crate::drain::Drain;

/// How often what has expired is cleared away, where nothing is written that would do it.
const SWEEP: Duration = Duration::from_secs(1);

/// The tasks that look after plugins.
#[derive(Debug, Default)]
pub struct Maintenance {
    running: Mutex<Vec<(Arc<Plugin>, Task)>>,
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
    /// These plugins are in force, and no others. Those that stay are not disturbed.
    pub fn update<'a>(&self, plugins: impl Iterator<Item = &'a Arc<Plugin>>, drain: &Drain) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *running);
        for plugin in plugins.filter(|plugin| plugin.capabilities().store.is_some()) {
            let known = before.iter().position(|(known, _)| Arc::ptr_eq(known, plugin));
            running.push(match known {
                Some(index) => before.swap_remove(index),
                None => (plugin.clone(), Task(drain.spawn(maintain(plugin.clone(), drain.clone())))),
            });
        }
    }
}

async fn maintain(plugin: Arc<Plugin>, drain: Drain) {
    let mut sweep = tokio::time::interval(SWEEP);
    loop {
        tokio::select! {
            () = drain.started() => return,
            _ = sweep.tick() => {
                if let Some(store) = &plugin.capabilities().store {
                    store.sweep(now());
                }
            }
        }
    }
}
