//! What does the host know of an instance while it calls it?

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use wasmtime::{UpdateDeadline, component::ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::{
    alarm::{Alarms, Clock},
    capability::Capabilities,
    clocks::now,
    counts::Metric,
    error::{CallError, StartError},
    exchange::Exchange,
    host_io::PendingIo,
    limits::{Limits, Seen},
    log_lines::LogLines,
    shared::Shared,
    surroundings::Surroundings,
    wasi,
};
use crate::members::Members;

/// The data of a store: what the host knows of one instance, and the exchange while a hook runs.
pub(super) struct State {
    pub plugin: Arc<str>,
    pub shared: Arc<Shared>,
    pub surroundings: Surroundings,
    pub exchange: Option<Box<Exchange>>,
    pub sequences: Vec<(String, Arc<AtomicU32>)>,
    /// The metrics it has opened, in order.
    pub metrics: Vec<(String, Arc<Metric>)>,
    /// What the instance was told of upstreams, by name.
    pub upstreams: Vec<Arc<dyn Members>>,
    /// What this call may still log.
    pub log_lines: LogLines,
    /// Bytes that the plugin may have made and not sent.
    pub most_unsent: usize,
    /// This call has made more.
    pub has_made_too_much: bool,
    /// Whether nobody waits any more for an offloaded call.
    pub given_up: Option<Arc<AtomicBool>>,
    /// Where it leaves what it waits for, if it may wait at all.
    pub pending_io: Option<Arc<PendingIo>>,
    pub limits: Limits,
    pub wasi: WasiCtx,
    pub table: ResourceTable,
    pub alarms: Alarms,
}

impl State {
    /// What came of a call.
    pub fn ended<T>(&mut self, result: wasmtime::Result<T>) -> Result<T, CallError> {
        if std::mem::take(&mut self.has_made_too_much) {
            return Err(CallError::Unsent(self.most_unsent));
        }
        result.map_err(|error| self.blame(&error))
    }

    /// Why there is no instance: for what its own code did, or for what the machine has not.
    pub fn stopped(&self, error: wasmtime::Error) -> StartError {
        match self.limits.is_exceeded() || error.is::<wasmtime::Trap>() {
            true => StartError::Begin(self.blame(&error)),
            false => StartError::Instantiate(error),
        }
    }

    /// What went wrong, in words for the log; of a trap with what the plugin has printed of it.
    pub fn blame(&self, error: &wasmtime::Error) -> CallError {
        match self.limits.blame(error) {
            CallError::Trap(trap) => CallError::Trap(trap.with_printed(self.log_lines.last_words())),
            error => error,
        }
    }

    /// Keeps a body that the plugin has made. None if it has made too much; then the call fails.
    pub fn keep_body(&mut self, content: Vec<u8>) -> Option<Bytes> {
        let kept = self.shared.unsent.keep(content, self.most_unsent);
        self.has_made_too_much |= kept.is_err();
        kept.ok()
    }

    /// The clock that it can wait by.
    pub fn clock(&mut self) -> Clock<'_> {
        Clock { table: &mut self.table, alarms: &self.alarms }
    }

    /// What it needs to wait.
    pub fn waiting(&mut self) -> wasi::Waiting<'_> {
        wasi::Waiting { table: &mut self.table, alarms: &self.alarms, limits: &mut self.limits }
    }

    /// Called once an epoch while the guest runs, so that a call that is quick never asks for the time. One that may
    /// wait makes way for others each time.
    pub fn at_epoch(&mut self) -> UpdateDeadline {
        let is_given_up = self.given_up.as_ref().is_some_and(|given_up| given_up.load(Ordering::Relaxed));
        if is_given_up {
            return UpdateDeadline::Interrupt;
        }
        match self.limits.look(self.pending_io.as_deref()) {
            Seen::OutOfTime => UpdateDeadline::Interrupt,
            Seen::Running if self.pending_io.is_some() => UpdateDeadline::Yield(1),
            Seen::Running | Seen::Back => UpdateDeadline::Continue(1),
        }
    }

    /// What it was granted, for a function of the host that may take long: the guest does not run meanwhile, so nobody
    /// looks at its time. That is what the second is for, to be called every millisecond or two; its error ends the call.
    pub fn at_length(&mut self) -> (&Capabilities, impl FnMut() -> wasmtime::Result<()> + '_) {
        let Self { surroundings, limits, pending_io, .. } = self;
        let go_on = || match limits.look(pending_io.as_deref()) {
            Seen::OutOfTime => Err(wasmtime::Error::msg("the plugin has the host work too long")),
            Seen::Running | Seen::Back => Ok(()),
        };
        (&surroundings.capabilities, go_on)
    }

    /// The time, for what the plugin keeps.
    pub fn now(&self) -> Duration {
        let given = self.surroundings.time.as_ref();
        given.map_or_else(now, |time| time.now())
    }

    pub fn members(&self, upstream: &str) -> Option<&Arc<dyn Members>> {
        self.upstreams.iter().find(|members| members.upstream() == upstream)
    }

    pub fn knows(&self, members: &dyn Members) -> bool {
        self.members(members.upstream()).is_some_and(|known| known.version() == members.version())
    }

    pub fn learn(&mut self, members: Arc<dyn Members>) {
        self.upstreams.retain(|known| known.upstream() != members.upstream());
        self.upstreams.push(members);
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
