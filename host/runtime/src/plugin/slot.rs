//! One worker's instance of one plugin, and the calls it makes.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

use super::{
    breaker::{Breaker, Entry},
    clocks::now,
    configured::Plugin,
    cost::Cost,
    counts::{Hook, PluginCounts, RouteCalls},
    crowd::{Crowd, Crowded},
    error::CallError,
    exchange::ExchangeSlot,
    host_io::{HostIo, at_once},
    instance::{Ended, Instance, Terms},
    message_hook::{MessageHook, RequestHook, ResponseHook},
    offload::OffloadThread,
    outcome::Completed,
    slow_calls::SlowCalls,
    unsent::UnsentLimit,
    verdict::{RequestVerdict, ResponseVerdict},
};
use crate::{
    members::{Members, Pick},
    telemetry::Writer,
};

/// The place of a plugin's instance on a worker. Empty before the first call and after a failure.
///
/// A plugin that may wait or yields has several: the request in hand is ambient, so an instance that waits is not there for
/// another.
#[derive(Debug)]
pub struct Slot {
    plugin: Arc<Plugin>,
    writer: Writer,
    /// Instances that are not lent.
    idle: RefCell<Vec<Instance>>,
    /// How many there are, with those that are lent.
    there: Cell<u32>,
    breaker: Breaker,
    slow_calls: SlowCalls,
    /// Where calls go that take long; they stay if absent.
    offload: Option<Rc<OffloadThread>>,
    /// For the one instance of a plugin that does not wait, while its calls are offloaded.
    turn: Semaphore,
    /// Requests that have one, or wait for it.
    in_hand: Cell<u32>,
    crowd: Crowd,
}

/// What a hook may use while it is called, beside the message in hand.
#[derive(Debug)]
pub struct CallContext<'a, I> {
    /// Does what the call waits for, if it may wait.
    pub io: &'a mut I,
    /// Where the time of the call is counted, too.
    pub route: Option<&'a RouteCalls>,
}

impl<'a, I> CallContext<'a, I> {
    /// Of a call that belongs to no route.
    pub fn new(io: &'a mut I) -> Self {
        Self { io, route: None }
    }
}

impl Slot {
    /// Requests that may be offloaded at once, of a plugin that has one instance.
    const IN_HAND: u32 = 256;

    pub fn new(plugin: Arc<Plugin>, writer: Writer) -> Self {
        let breaker = Breaker::new(plugin.name.clone(), plugin.breaker.clone(), plugin.shared.clone());
        Self {
            plugin,
            writer,
            idle: RefCell::default(),
            there: Cell::new(0),
            breaker,
            slow_calls: SlowCalls::default(),
            offload: None,
            turn: Semaphore::new(1),
            in_hand: Cell::new(0),
            crowd: Crowd::default(),
        }
    }

    /// The same with a place for calls that take long.
    pub fn with_offload(self, offload: Rc<OffloadThread>) -> Self {
        Self { offload: Some(offload), ..self }
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The memory of the instance in bytes, if there is one that is not being called.
    pub fn memory(&self) -> Option<usize> {
        self.idle.borrow().last().map(Instance::memory_used)
    }

    /// What this worker counts of the plugin.
    pub fn counts(&self) -> &PluginCounts {
        self.plugin.counts().of(self.writer)
    }

    /// Whether calls take so long that they are offloaded.
    fn is_slow(&self) -> bool {
        self.offload.is_some() && (self.slow_calls.is_slow() || self.in_hand.get() > 0)
    }

    /// Keeps what the plugin makes.
    fn unsent(&self) -> UnsentLimit<'_> {
        UnsentLimit { unsent: &self.plugin.shared.unsent, most: self.plugin.limits.unsent.as_usize() }
    }

    /// Calls `on-request`.
    pub fn on_request<'a, I: HostIo>(
        &'a self,
        exchange: &'a mut ExchangeSlot,
        context: CallContext<'a, I>,
    ) -> impl Future<Output = Result<RequestVerdict, CallError>> {
        self.call::<RequestHook, I>(exchange, context)
    }

    /// Calls `on-response`.
    pub fn on_response<'a, I: HostIo>(
        &'a self,
        exchange: &'a mut ExchangeSlot,
        context: CallContext<'a, I>,
    ) -> impl Future<Output = Result<ResponseVerdict, CallError>> {
        self.call::<ResponseHook, I>(exchange, context)
    }

    /// Calls a hook about a message: on this worker to its end, on this worker in several turns, or on the offload thread, as
    /// the plugin and its pace ask for it.
    ///
    /// Most calls are made to their end here, and the future of such a call never suspends. The other ways have large
    /// futures, so each goes into a box of its own, and this one stays as small as what it is given.
    #[expect(
        clippy::manual_async_fn,
        reason = "an async fn holds its parameters twice, and so does each request"
    )]
    pub fn call<'a, H: MessageHook, I: HostIo>(
        &'a self,
        exchange: &'a mut ExchangeSlot,
        context: CallContext<'a, I>,
    ) -> impl Future<Output = Result<H::Verdict, CallError>> {
        async move {
            if self.plugin.waits() {
                Box::pin(self.call_async::<H, I>(exchange, context)).await
            } else if self.is_slow() {
                Box::pin(self.call_offloaded::<H>(exchange, context.route)).await
            } else {
                self.call_inline::<H>(exchange, context.route)
            }
        }
    }

    /// Calls a hook on this worker, to its end.
    fn call_inline<H: MessageHook>(
        &self,
        exchange: &mut ExchangeSlot,
        route: Option<&RouteCalls>,
    ) -> Result<H::Verdict, CallError> {
        H::read(self.call_now(H::HOOK, exchange, route, H::call)?, self.unsent())
    }

    /// Calls a hook of a plugin whose calls may suspend.
    async fn call_async<H: MessageHook, I: HostIo>(
        &self,
        exchange: &mut ExchangeSlot,
        CallContext { io, route }: CallContext<'_, I>,
    ) -> Result<H::Verdict, CallError> {
        let terms = self.terms();
        let mut lent = self.lend(H::HOOK, terms.recycle_after, exchange.is_traffic()).await?;
        let timed = self.counts().begin(H::HOOK);
        let (instance, taken) = (lent.take(), exchange.take());
        let ended = instance.call_async(taken, H::export, io, terms, H::read).await;
        self.counts().end(timed, route, ended.cost.waited);
        let verdict = lent.give_back(ended, exchange);
        io.replace_body(exchange);
        verdict
    }

    /// Calls a hook on the offload thread, which takes several turns of this worker and one of the thread there.
    async fn call_offloaded<H: MessageHook>(
        &self,
        exchange: &mut ExchangeSlot,
        route: Option<&RouteCalls>,
    ) -> Result<H::Verdict, CallError> {
        let Some(offload) = &self.offload else { return self.call_inline::<H>(exchange, route) };
        if self.in_hand.get() >= Self::IN_HAND {
            return Err(CallError::Busy(Self::IN_HAND));
        }
        let _in_hand = InHandOffloaded::new(&self.in_hand);
        let _turn = self.turn.acquire().await.expect("nobody closes it");
        let recycle_after = self.plugin.recycle_after();
        let mut lent = self.lend(H::HOOK, recycle_after, exchange.is_traffic()).await?;
        let counts = self.counts();
        let (timed, since) = (counts.begin(H::HOOK), Instant::now());
        let (mut instance, taken) = (lent.take(), exchange.take());
        let given_up = GivenUp::default();
        let flag = given_up.0.clone();
        let work = move || {
            let called = instance.call_until(flag, taken, H::call);
            Ended::new(instance, recycle_after, called, H::read)
        };
        let (mut ended, took) = offload.run(work).await;
        (ended.cost.computed, ended.cost.is_offloaded) = (took, true);
        counts.end(timed, route, since.elapsed().saturating_sub(took));
        lent.give_back(ended, exchange)
    }

    /// Calls `on-tick`.
    pub async fn on_tick(&self, io: &mut impl HostIo) -> Result<(), CallError> {
        let mut lent = self.lend(Hook::OnTick, self.plugin.limits.recycle_after, true).await?;
        let timed = self.counts().begin(Hook::OnTick);
        let result = lent.instance().on_tick(io).await;
        self.counts().end(timed, None, lent.instance().cost_in_all().waited);
        lent.keep(result)
    }

    /// Calls `on-complete`.
    pub async fn on_complete(
        &self,
        outcomes: &[Arc<Completed>],
        io: &mut impl HostIo,
    ) -> Result<(), CallError> {
        let mut lent = self.lend(Hook::OnComplete, self.plugin.limits.recycle_after, true).await?;
        let timed = self.counts().begin(Hook::OnComplete);
        let result = lent.instance().on_complete(outcomes, io).await;
        self.counts().end(timed, None, lent.instance().cost_in_all().waited);
        lent.keep(result)
    }

    /// An instance that nobody else calls, if there may be one more. It makes room for a fresh one after so many calls.
    async fn lend(&self, hook: Hook, recycle_after: u32, is_traffic: bool) -> Result<Lent<'_>, CallError> {
        let entry = self.enter(hook, is_traffic)?;
        let instance = self.idle.borrow_mut().pop();
        let since = now();
        self.crowd.arrive(since);
        let mut lent = Lent {
            slot: self,
            hook,
            instance,
            is_there: true,
            entry,
            recycle_after,
            since,
            was_refused: false,
        };
        if lent.instance.is_some() {
            return Ok(lent);
        }
        let most = self.plugin.limits.instances.get();
        if self.there.get() >= most {
            (lent.is_there, lent.was_refused) = (false, true);
            self.tell_crowd(most, since);
            return Err(CallError::Busy(most));
        }
        self.there.set(self.there.get() + 1);
        let started = match &self.offload {
            Some(offload) if self.slow_calls.is_slow() => {
                let plugin = self.plugin.clone();
                offload.run(move || at_once(plugin.instance())).await.0
            }
            Some(_) | None => self.plugin.instance().await,
        };
        match started {
            Ok(instance) => lent.instance = Some(instance),
            Err(error) => {
                let error = CallError::from(Box::new(error));
                self.leave(entry, hook, Some(&error));
                return Err(error);
            }
        }
        Ok(lent)
    }

    /// Says, now and then, that there are too few instances.
    fn tell_crowd(&self, most: u32, now: Duration) {
        let wait = self.plugin.limits.wait.get();
        if let Some(Crowded { refused, held, enough }) = self.crowd.refuse(most, wait, now) {
            let help = format!("raise limits.instances to {enough}, or lower limits.wait");
            tracing::warn!(
                plugin = %self.plugin.name, instances = most, refused, ?held, help,
                "all instances of the plugin on this worker are taken by calls that wait, and further requests are refused"
            );
        }
    }

    /// Whether a hook may be called, for traffic or for what is only explained.
    fn enter(&self, hook: Hook, is_traffic: bool) -> Result<Entry, CallError> {
        if is_traffic { self.breaker.enter(hook, now) } else { self.breaker.explain(now) }
    }

    /// A call has ended.
    fn leave(&self, entry: Entry, hook: Hook, error: Option<&CallError>) {
        match entry {
            Entry::Usual | Entry::Probe => self.breaker.leave(hook, error, now),
            Entry::Explained => {}
        }
    }

    /// How a call is to be made that may take several turns.
    fn terms(&self) -> Terms<'_> {
        Terms {
            offload: self.offload.as_deref(),
            is_slow: self.offload.is_some() && self.slow_calls.is_slow(),
            recycle_after: self.plugin.recycle_after(),
        }
    }

    /// What a call tells of those to come.
    fn learn(&self, cost: Cost) {
        if cost.taken().is_zero() && !cost.is_offloaded {
            return;
        }
        self.breaker.spend(cost.taken(), now);
        if self.offload.is_none() {
            return;
        }
        let (counts, plugin) = (self.counts(), &self.plugin.name);
        counts.offloaded.add(u64::from(cost.is_offloaded));
        if cost.is_offloaded && self.slow_calls.is_slow() {
            if self.slow_calls.timed(&cost, counts.calls(), now) {
                tracing::info!(%plugin, "the plugin's calls are quick again and made on this worker");
            }
        } else if self.slow_calls.seen(&cost, counts.calls(), now) {
            tracing::info!(%plugin, "the plugin's calls take long and are offloaded on this worker");
        }
    }

    /// Calls `pick`. `tried` holds the places of those that the request has failed on.
    pub fn pick(
        &self,
        exchange: &mut ExchangeSlot,
        members: &Arc<impl Members + 'static>,
        tried: &[u32],
    ) -> Result<Pick, CallError> {
        let index =
            self.call_now(Hook::Pick, exchange, None, |instance| instance.pick(members, tried))?.flatten();
        Ok(index.map(|index| index as usize).filter(|index| *index < members.len()))
    }

    /// Calls a hook to its end, if the breaker lets it.
    fn call_now<T>(
        &self,
        hook: Hook,
        exchange: &mut ExchangeSlot,
        route: Option<&RouteCalls>,
        call: impl FnOnce(&mut Instance) -> Option<wasmtime::Result<T>>,
    ) -> Result<Option<T>, CallError> {
        let entry = self.enter(hook, exchange.is_traffic())?;
        let result = self.call_instance(hook, exchange, route, call);
        self.leave(entry, hook, result.as_ref().err());
        result
    }

    fn call_instance<T>(
        &self,
        hook: Hook,
        exchange: &mut ExchangeSlot,
        route: Option<&RouteCalls>,
        call: impl FnOnce(&mut Instance) -> Option<wasmtime::Result<T>>,
    ) -> Result<Option<T>, CallError> {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            idle.push(at_once(self.plugin.instance()).map_err(Box::new)?);
            self.there.set(self.there.get() + 1);
        }
        let instance = idle.last_mut().expect("there is one");
        let counts = self.counts();
        let timed = counts.begin(hook);
        let result = exchange.lend(|exchange| instance.call(exchange, call));
        counts.end(timed, route, Duration::ZERO);
        if exchange.is_traffic() {
            self.learn(instance.cost());
        }
        // A trapped instance refuses entry; one that is worn has done its service, and one of a plugin that is left alone
        // holds memory for nothing.
        let is_worn = result.is_ok() && instance.is_worn(self.plugin.recycle_after());
        if result.is_err() || is_worn || self.breaker.is_open() {
            counts.recycled.add(u64::from(is_worn));
            idle.pop();
            self.there.set(self.there.get() - 1);
        }
        result
    }
}

/// Says that a call was given up, once it is dropped.
#[derive(Debug, Default)]
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One of the requests that are offloaded, for as long as it lives.
struct InHandOffloaded<'a>(&'a Cell<u32>);

impl<'a> InHandOffloaded<'a> {
    fn new(count: &'a Cell<u32>) -> Self {
        count.set(count.get() + 1);
        Self(count)
    }
}

impl Drop for InHandOffloaded<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// An instance that is called. It goes with this unless it is given back: a call may be given up while it waits.
struct Lent<'a> {
    slot: &'a Slot,
    /// What is called.
    hook: Hook,
    instance: Option<Instance>,
    /// Whether there is an instance, here or where it is called, that goes with this.
    is_there: bool,
    entry: Entry,
    recycle_after: u32,
    since: Duration,
    /// There was none.
    was_refused: bool,
}

impl Lent<'_> {
    fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("it is there until it is given back")
    }

    /// For a call that brings it back.
    fn take(&mut self) -> Instance {
        self.instance.take().expect("it is taken once")
    }

    /// The call has ended that took the instance.
    fn give_back<T>(self, ended: Ended<T>, exchange: &mut ExchangeSlot) -> Result<T, CallError> {
        let Ended { instance, is_worn, exchange: returned, result, cost } = ended;
        exchange.put_back(returned);
        self.end(instance, is_worn, result.as_ref().err(), cost);
        result?
    }

    /// The call has ended that was made here. The instance is kept if it is fit for another.
    fn keep<T>(mut self, result: Result<T, CallError>) -> Result<T, CallError> {
        let (instance, recycle_after) = (self.take(), self.recycle_after);
        let is_worn = result.is_ok() && instance.is_worn(recycle_after);
        let cost = instance.cost_in_all();
        let kept = Some(instance).filter(|_| result.is_ok() && !is_worn);
        self.end(kept, is_worn, result.as_ref().err(), cost);
        result
    }

    fn end(mut self, instance: Option<Instance>, is_worn: bool, error: Option<&CallError>, cost: Cost) {
        let slot = self.slot;
        slot.leave(self.entry, self.hook, error);
        if self.entry != Entry::Explained {
            slot.learn(cost);
        }
        slot.counts().recycled.add(u64::from(is_worn));
        if slot.breaker.is_open() {
            // What is idle holds memory for nothing until it is asked again.
            let idle = slot.idle.take();
            slot.there.set(slot.there.get() - idle.len() as u32);
        } else if let Some(instance) = instance {
            slot.idle.borrow_mut().push(instance);
            self.is_there = false;
        }
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Nothing, if the call has ended.
        self.slot.breaker.give_up(self.entry);
        if !self.was_refused {
            self.slot.crowd.leave(now().saturating_sub(self.since));
        }
        if self.is_there {
            self.slot.there.set(self.slot.there.get() - 1);
        }
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Instance").finish_non_exhaustive()
    }
}
