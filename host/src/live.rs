//! Which generation is in force, and how is it replaced?
//!
//! The control side builds a [`Snapshot`] and sends it to every worker; each worker makes a [`Generation`]
//! of it, with its own instances of the plugins, and puts it in the place of the one before. A request takes
//! the generation it finds and keeps it to its end, so the old one goes with its last request.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{
    address::Address,
    clock::Clock,
    drain::Drain,
    plugin::{OffloadThread, Plugin, Slot},
    snapshot::Snapshot,
    telemetry::Writer,
    upstream::Pool,
};

/// A snapshot on one worker.
#[derive(Debug)]
pub struct Generation {
    pub snapshot: Arc<Snapshot>,
    /// The worker, as it counts.
    pub writer: Writer,
    /// By place, as in the snapshot's list of plugins.
    plugins: Vec<PluginSlots>,
    /// The same of candidates in the shadow of plugins.
    shadows: Vec<Rc<Slot>>,
}

/// The instances of a plugin on this worker.
#[derive(Debug)]
struct PluginSlots {
    in_force: Rc<Slot>,
    /// Of the version that is tried beside it.
    candidate: Option<Rc<Slot>>,
}

impl Generation {
    /// Plugins that are the same as before keep their instances.
    fn new(
        snapshot: Arc<Snapshot>,
        writer: Writer,
        offload: &Rc<OffloadThread>,
        previous: Option<&Generation>,
    ) -> Self {
        let slots = |slots: Vec<&Rc<Slot>>| -> HashMap<_, _> {
            slots.into_iter().map(|slot| (Arc::as_ptr(slot.plugin()), slot.clone())).collect()
        };
        let plugins = previous.iter().flat_map(|previous| &previous.plugins);
        let plugins =
            plugins.flat_map(|instances| [Some(&instances.in_force), instances.candidate.as_ref()]).flatten();
        let (seated, shadowing) = (
            slots(plugins.collect()),
            slots(previous.iter().flat_map(|previous| &previous.shadows).collect()),
        );
        let slot = |plugin: &Arc<Plugin>| match seated.get(&Arc::as_ptr(plugin)) {
            Some(slot) => Rc::clone(slot),
            None => Rc::new(Slot::new(plugin.clone(), writer).with_offload(offload.clone())),
        };
        // What these decide is waited for at once.
        let shadow = |plugin: &Arc<Plugin>| match shadowing.get(&Arc::as_ptr(plugin)) {
            Some(slot) => Rc::clone(slot),
            None => Rc::new(Slot::new(plugin.clone(), writer)),
        };
        let plugins = snapshot.plugins.iter().map(|loaded| PluginSlots {
            in_force: slot(&loaded.plugin),
            candidate: loaded.candidate.as_ref().map(|candidate| slot(&candidate.plugin)),
        });
        let plugins = plugins.collect();
        let shadows = snapshot.shadows.iter().map(|candidate| shadow(&candidate.plugin)).collect();
        Self { snapshot, writer, plugins, shadows }
    }

    /// The instance of the plugin at a place of the snapshot's list.
    pub fn slot(&self, index: usize) -> &Slot {
        &self.plugins[index].in_force
    }

    /// The same of the candidate at a place of the snapshot's list of shadows.
    pub fn shadow(&self, index: usize) -> &Slot {
        &self.shadows[index]
    }

    /// The same of the version that is tried beside it, if there is one.
    pub fn candidate(&self, index: usize) -> Option<&Slot> {
        self.plugins[index].candidate.as_deref()
    }
}

/// What one worker has: everything a request needs and no other thread touches.
#[derive(Debug)]
pub struct Worker {
    pub writer: Writer,
    pub clock: Clock,
    pub drain: Drain,
    pub pool: Rc<Pool>,
    /// Where calls of plugins go that take long.
    offload: Rc<OffloadThread>,
    /// Connections to clients, of all workers.
    pub connections: Gauge,
    current: RefCell<Rc<Generation>>,
    phase: Cell<Phase>,
}

impl Worker {
    pub fn new(writer: Writer, snapshot: Arc<Snapshot>, drain: Drain, connections: Gauge) -> Rc<Self> {
        let (clock, offload) = (Clock::default(), Rc::default());
        let generation = Generation::new(snapshot, writer, &offload, None);
        Rc::new(Self {
            pool: Pool::new(clock.clone(), drain.clone()),
            writer,
            clock,
            drain,
            connections,
            current: RefCell::new(Rc::new(generation)),
            offload,
            phase: Cell::new(Phase::Serving),
        })
    }

    /// The generation in force.
    pub fn generation(&self) -> Rc<Generation> {
        self.current.borrow().clone()
    }

    /// Puts a new generation in force, for requests that come from now on.
    pub fn replace(&self, snapshot: Arc<Snapshot>) {
        let next = Rc::new(Generation::new(snapshot, self.writer, &self.offload, Some(&self.generation())));
        let upstreams = &next.snapshot.upstreams;
        let rosters: Vec<_> = upstreams.iter().map(|target| target.upstream.roster()).collect();
        let endpoints = rosters.iter().flat_map(|roster| roster.all()).map(|entry| &entry.endpoint);
        let origins = next.snapshot.plugins.iter().flat_map(|loaded| loaded.origins.endpoints());
        self.pool.retain(endpoints.chain(origins));
        let previous = self.current.replace(next);
        // So that connections whose listener is gone notice it.
        self.clock.wake_all();
        // Instances are dropped here, unless a request still holds them, and not under the borrow.
        drop(previous);
    }

    /// Whether the generation in force has a listener on this address, as it is configured.
    pub fn listens_on(&self, address: &Address) -> bool {
        let generation = self.current.borrow();
        generation.snapshot.config.listeners.iter().any(|listener| listener.get_ref().address == *address)
    }

    /// Has every response end its connection from now on, so that clients connect elsewhere.
    pub fn start_to_leave(&self) {
        self.phase.set(self.phase.get().max(Phase::Leaving));
    }

    /// Lets connections finish what they have begun and take no more.
    pub fn start_drain(&self) {
        self.phase.set(Phase::Draining);
        self.clock.wake_all();
    }

    pub fn is_draining(&self) -> bool {
        self.phase.get() == Phase::Draining
    }

    /// Whether a response of HTTP/1 ends its connection.
    pub fn is_leaving(&self) -> bool {
        self.phase.get() >= Phase::Leaving
    }
}

/// How far a worker is on its way to the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Serving,
    /// Out of rotation, and listening.
    Leaving,
    /// Listeners are closed.
    Draining,
}

/// Counts what there is of something, over all threads.
#[derive(Debug, Clone, Default)]
pub struct Gauge(Arc<AtomicUsize>);

/// One of what a [`Gauge`] counts, for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

impl Gauge {
    /// Counts one more, unless there are `limit` already.
    pub fn enter(&self, limit: usize) -> Option<Counted> {
        let counted = Counted(self.clone());
        // The one that is too many is uncounted when it is dropped.
        (self.0.fetch_add(1, Ordering::Relaxed) < limit).then_some(counted)
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
