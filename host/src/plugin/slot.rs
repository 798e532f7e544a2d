//! One worker's instance of one plugin, and the calls it makes.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use super::{
    Completed, Hook, Plugin, PluginCounts, RouteCalls,
    bindings::exports::tollgate::policy::{balance_hook, request_hook, response_hook},
    breaker::{Breaker, Entry},
    errand::{Errands, at_once},
    exchange::{InHand, Reply},
    instance::{CallError, Instance, now},
};
use crate::telemetry::Writer;

/// The place of a plugin's instance on a worker. Empty before the first call and after a failure.
///
/// A plugin that may wait or yields has several: the request in hand is ambient, so an instance that waits is not there for
/// another.
#[derive(Debug)]
pub struct Slot {
    plugin: Arc<Plugin>,
    writer: Writer,
    instance: RefCell<Option<Instance>>,
    /// Of a plugin that may wait, those that have nothing to do.
    idle: RefCell<Vec<Instance>>,
    /// How many there are of those, with those that are called.
    there: Cell<u32>,
    breaker: Breaker,
}

/// What a request hook decided.
#[derive(Debug)]
pub enum RequestVerdict {
    Next,
    Reply(Reply),
    /// Go on, to the upstream of this name.
    Forward(String),
}

/// What a response hook decided.
#[derive(Debug)]
pub enum ResponseVerdict {
    Next,
    Reply(Reply),
}

/// The place of the endpoint that a balancer chose; none if it has no opinion.
pub type Pick = Option<usize>;

/// The endpoints of an upstream, as a balancer may know them.
pub trait Members: Send + Sync + std::fmt::Debug {
    /// The name of the upstream.
    fn upstream(&self) -> &str;
    /// Another number for another list: who has seen this one need not be told again.
    fn version(&self) -> u64;
    /// What a balancer is told.
    fn describe(&self) -> Vec<Member>;
    /// How many there are.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How one of them does at this moment.
    fn inspect(&self, index: usize) -> Option<Condition>;
}

/// An endpoint, described to a balancer.
#[derive(Debug, Clone)]
pub struct Member {
    /// `host:port`.
    pub address: String,
    pub weight: u32,
    pub tags: Vec<(String, String)>,
}

/// How an endpoint does.
#[derive(Debug, Clone, Copy)]
pub struct Condition {
    /// Requests in flight.
    pub active: u32,
    /// Moving average of the time to the head of a response, in microseconds.
    pub latency_us: u32,
    /// Failures in a row.
    pub failures: u32,
    /// What it has reported of its load of late, if it has.
    pub load: Option<f32>,
}

impl From<Member> for balance_hook::Endpoint {
    fn from(member: Member) -> Self {
        Self { address: member.address, weight: member.weight, tags: member.tags }
    }
}

impl Slot {
    pub fn new(plugin: Arc<Plugin>, writer: Writer) -> Self {
        let breaker = Breaker::new(plugin.name.clone(), plugin.breaker.clone(), plugin.shared.clone());
        Self {
            plugin,
            writer,
            instance: RefCell::default(),
            idle: RefCell::default(),
            there: Cell::new(0),
            breaker,
        }
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The memory of the instance in bytes, if there is one that is not being called.
    pub fn memory(&self) -> Option<usize> {
        let alone = self.instance.borrow().as_ref().map(Instance::memory_used);
        alone.or_else(|| self.idle.borrow().last().map(Instance::memory_used))
    }

    /// What this worker counts of the plugin.
    pub fn counts(&self) -> &PluginCounts {
        self.plugin.counts().of(self.writer)
    }

    /// Whether hooks are to be called by [`Slot::on_request_waiting`] and [`Slot::on_response_waiting`].
    pub fn waits(&self) -> bool {
        self.plugin.waits()
    }

    /// Calls `on-request`. `route` is where its time is counted, too.
    pub fn on_request(
        &self,
        exchange: &mut InHand,
        route: Option<&RouteCalls>,
    ) -> Result<RequestVerdict, CallError> {
        RequestVerdict::of(self.call(Hook::OnRequest, exchange, route, Instance::on_request)?)
    }

    /// Calls `on-response`.
    pub fn on_response(
        &self,
        exchange: &mut InHand,
        route: Option<&RouteCalls>,
    ) -> Result<ResponseVerdict, CallError> {
        ResponseVerdict::of(self.call(Hook::OnResponse, exchange, route, Instance::on_response)?)
    }

    /// Calls `on-request` of a plugin that may wait.
    pub async fn on_request_waiting(
        &self,
        exchange: &mut InHand,
        errands: &mut impl Errands,
        route: Option<&RouteCalls>,
    ) -> Result<RequestVerdict, CallError> {
        let mut lent = self.lend(Hook::OnRequest, self.plugin.recycle_after()).await?;
        let timed = self.counts().begin(Hook::OnRequest);
        let (returned, verdict) = lent.instance().on_request_waiting(exchange.take(), errands).await;
        exchange.put_back(returned);
        self.counts().end(timed, route, lent.instance().waited());
        RequestVerdict::of(lent.give_back(verdict)?)
    }

    /// Calls `on-response` of a plugin that may wait.
    pub async fn on_response_waiting(
        &self,
        exchange: &mut InHand,
        errands: &mut impl Errands,
        route: Option<&RouteCalls>,
    ) -> Result<ResponseVerdict, CallError> {
        let mut lent = self.lend(Hook::OnResponse, self.plugin.recycle_after()).await?;
        let timed = self.counts().begin(Hook::OnResponse);
        let (returned, verdict) = lent.instance().on_response_waiting(exchange.take(), errands).await;
        exchange.put_back(returned);
        self.counts().end(timed, route, lent.instance().waited());
        ResponseVerdict::of(lent.give_back(verdict)?)
    }

    /// Calls `on-tick`.
    pub async fn on_tick(&self, errands: &mut impl Errands) -> Result<(), CallError> {
        let mut lent = self.lend(Hook::OnTick, self.plugin.limits.recycle_after).await?;
        let timed = self.counts().begin(Hook::OnTick);
        let result = lent.instance().on_tick(errands).await;
        self.counts().end(timed, None, lent.instance().waited());
        lent.give_back(result)
    }

    /// Calls `on-complete`.
    pub async fn on_complete(
        &self,
        outcomes: &[Arc<Completed>],
        errands: &mut impl Errands,
    ) -> Result<(), CallError> {
        let mut lent = self.lend(Hook::OnComplete, self.plugin.limits.recycle_after).await?;
        let timed = self.counts().begin(Hook::OnComplete);
        let result = lent.instance().on_complete(outcomes, errands).await;
        self.counts().end(timed, None, lent.instance().waited());
        lent.give_back(result)
    }

    /// An instance that nobody else calls, if there may be one more. It makes room for a fresh one after so many calls.
    async fn lend(&self, hook: Hook, recycle_after: u32) -> Result<Lent<'_>, CallError> {
        let entry = self.breaker.enter(hook, now)?;
        if let Some(instance) = self.idle.borrow_mut().pop() {
            return Ok(Lent {
                slot: self,
                hook,
                instance: Some(instance),
                is_given_back: false,
                entry,
                recycle_after,
            });
        }
        let most = self.plugin.limits.instances.get();
        if self.there.get() >= most {
            self.breaker.give_up(entry);
            return Err(CallError::Busy(most));
        }
        self.there.set(self.there.get() + 1);
        let mut lent = Lent { slot: self, hook, instance: None, is_given_back: false, entry, recycle_after };
        match self.plugin.instance().await {
            Ok(instance) => lent.instance = Some(instance),
            Err(error) => {
                let error = CallError::from(Box::new(error));
                self.breaker.leave(hook, Some(&error), now);
                return Err(error);
            }
        }
        Ok(lent)
    }

    /// Calls `pick`. `tried` holds the places of those that the request has failed on.
    pub fn pick(
        &self,
        exchange: &mut InHand,
        members: &Arc<impl Members + 'static>,
        tried: &[u32],
    ) -> Result<Pick, CallError> {
        let index =
            self.call(Hook::Pick, exchange, None, |instance| instance.pick(members, tried))?.flatten();
        Ok(index.map(|index| index as usize).filter(|index| *index < members.len()))
    }

    fn call<T>(
        &self,
        hook: Hook,
        exchange: &mut InHand,
        route: Option<&RouteCalls>,
        call: impl FnOnce(&mut Instance) -> Option<wasmtime::Result<T>>,
    ) -> Result<Option<T>, CallError> {
        self.breaker.enter(hook, now)?;
        let result = self.call_now(hook, exchange, route, call);
        self.breaker.leave(hook, result.as_ref().err(), now);
        result
    }

    fn call_now<T>(
        &self,
        hook: Hook,
        exchange: &mut InHand,
        route: Option<&RouteCalls>,
        call: impl FnOnce(&mut Instance) -> Option<wasmtime::Result<T>>,
    ) -> Result<Option<T>, CallError> {
        let mut place = self.instance.borrow_mut();
        let instance = match &mut *place {
            Some(instance) => instance,
            empty => empty.insert(at_once(self.plugin.instance()).map_err(Box::new)?),
        };
        let counts = self.counts();
        let timed = counts.begin(hook);
        let result = exchange.lend(|exchange| instance.call(exchange, call));
        counts.end(timed, route, Duration::ZERO);
        self.breaker.spend(instance.sampled(), now);
        // A trapped instance refuses entry; one that is worn has done its service.
        let is_worn = result.is_ok() && instance.is_worn(self.plugin.recycle_after());
        if result.is_err() || is_worn {
            counts.recycled.add(u64::from(is_worn));
            *place = None;
        }
        result
    }
}

/// An instance that is called. It goes with this unless it is given back: a call may be given up while it waits.
struct Lent<'a> {
    slot: &'a Slot,
    /// What is called.
    hook: Hook,
    instance: Option<Instance>,
    is_given_back: bool,
    entry: Entry,
    recycle_after: u32,
}

impl Lent<'_> {
    fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("it is there until it is given back")
    }

    /// The call has ended with this result. The instance is kept if it is fit for another.
    fn give_back<T>(mut self, result: Result<T, CallError>) -> Result<T, CallError> {
        let slot = self.slot;
        slot.breaker.leave(self.hook, result.as_ref().err(), now);
        slot.breaker.spend(self.instance().sampled(), now);
        let recycle_after = self.recycle_after;
        let is_worn = result.is_ok() && self.instance().is_worn(recycle_after);
        slot.counts().recycled.add(u64::from(is_worn));
        if result.is_ok() && !is_worn {
            slot.idle.borrow_mut().extend(self.instance.take());
            self.is_given_back = true;
        }
        result
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        if !self.is_given_back {
            // Nothing, if the call has ended.
            self.slot.breaker.give_up(self.entry);
            self.slot.there.set(self.slot.there.get() - 1);
        }
    }
}

impl RequestVerdict {
    fn of(verdict: Option<request_hook::Verdict>) -> Result<Self, CallError> {
        Ok(match verdict {
            None | Some(request_hook::Verdict::Next) => Self::Next,
            Some(request_hook::Verdict::Forward(upstream)) => Self::Forward(upstream),
            Some(request_hook::Verdict::Reply(reply)) => {
                Self::Reply(Reply::new(reply.status, reply.headers, reply.body)?)
            }
        })
    }
}

impl ResponseVerdict {
    fn of(verdict: Option<response_hook::Verdict>) -> Result<Self, CallError> {
        Ok(match verdict {
            None | Some(response_hook::Verdict::Next) => Self::Next,
            Some(response_hook::Verdict::Reply(reply)) => {
                Self::Reply(Reply::new(reply.status, reply.headers, reply.body)?)
            }
        })
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Instance").finish_non_exhaustive()
    }
}
