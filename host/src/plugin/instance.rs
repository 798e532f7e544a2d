//! One instance of a plugin: its memory, its limits, and a call into it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    mem::discriminant,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use wasmtime::{
    ResourceLimiter, Store, UpdateDeadline,
    component::{self, ResourceTable, TypedFunc},
};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::{
    Completed, Metric, Plugin, Shared,
    alarm::{Alarms, Clock},
    background::Background,
    bindings::exports::tollgate::policy::{balance_hook, complete_hook, request_hook, response_hook},
    capability::Capabilities,
    code::Code,
    cost::{Cost, Meter},
    errand::{Desk, Errands, NoErrands, drive, drive_behind},
    exchange::{Exchange, InvalidReply},
    host::{LogLines, escaped},
    made::Made,
    room::{NoRoom, Place},
    slot::Members,
    surroundings::Surroundings,
    wasi,
};

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
    most_unsent: usize,
    /// This call has made more.
    has_made_too_much: bool,
    /// Whether nobody waits any more for a call in the background.
    given_up: Option<Arc<AtomicBool>>,
    /// Where it leaves what it waits for, if it may wait at all.
    pub desk: Option<Arc<Desk>>,
    limits: Limits,
    wasi: WasiCtx,
    table: ResourceTable,
    alarms: Alarms,
}

/// What an instance may use, and what it has used.
pub(super) struct Limits {
    /// CPU time of a call.
    time: Duration,
    /// What this call has used of it.
    meter: Meter,
    /// What this call has slept, which counts as if it had computed.
    slept: Duration,
    memory: usize,
    memory_used: usize,
    /// Of all instances of the plugin.
    memory_in_all: Option<usize>,
    shared: Arc<Shared>,
    exceeded: Option<Exceeded>,
}

/// How a call is found to do when it is looked at.
enum Seen {
    Running,
    /// An epoch has passed, and the call has waited meanwhile.
    Back,
    OutOfTime,
}

#[derive(Debug, Clone, Copy)]
enum Exceeded {
    Time,
    Memory,
    MemoryInAll(usize),
}

/// Why an instance could not be made ready.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("refuses its configuration: {0}")]
    Refused(String),
    #[error("fails while it is configured: {0}")]
    Configure(CallError),
    #[error("fails while it starts: {0}")]
    Begin(CallError),
    #[error("cannot be instantiated")]
    Instantiate(#[source] wasmtime::Error),
    #[error("cannot have an instance: {0}")]
    NoRoom(#[from] NoRoom),
    #[error("did not have all of its instances in time")]
    NoTime,
}

impl StartError {
    /// Whether it is the machine that has no place for an instance, and not the plugin's fault.
    pub fn is_environments(&self) -> bool {
        match self {
            Self::Refused(_) | Self::Configure(_) | Self::Begin(_) => false,
            Self::NoRoom(_) | Self::NoTime => true,
            Self::Instantiate(error) => {
                error.is::<wasmtime::PoolConcurrencyLimitError>()
                    || error.is::<std::io::Error>()
                    || error.is::<rustix::io::Errno>()
            }
        }
    }
}

/// Why a call did not bring a verdict.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("ran longer than {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("wanted more than {} of memory", crate::config::ByteSize::bytes(*.0))]
    Memory(usize),
    #[error("wanted more memory, and all its instances together may have {}", crate::config::ByteSize::bytes(*.0))]
    MemoryInAll(usize),
    #[error(
        "has made more than {} of replies and bodies that are not sent yet, which is all that `limits.unsent` lets it",
        crate::config::ByteSize::bytes(*.0)
    )]
    Unsent(usize),
    #[error("trapped: {0}")]
    Trap(String),
    #[error("made an answer that cannot be sent: {0}")]
    InvalidReply(#[from] InvalidReply),
    #[error("sends requests to the upstream `{0}`, which is not configured")]
    UnknownUpstream(String),
    #[error(
        "sends requests to the upstream `{0}`, which it has not been granted: write grants = {{ upstreams = [\"{0}\"] }} in its \
         table"
    )]
    UpstreamNotGranted(String),
    #[error("could not be started again: {0}")]
    Start(#[from] Box<StartError>),
    #[error("has as many requests in hand as it has instances ({0})")]
    Busy(u32),
    #[error("is not asked for a while, since it keeps failing or takes more than its share of the time")]
    Broken,
}

impl CallError {
    /// What tells failures apart of which the log says the same: the kind, and of a trap its cause without what the plugin
    /// has printed of it, which may be another each time.
    pub fn kind(&self) -> u64 {
        let trap = match self {
            Self::Trap(text) => text.split(" (").next(),
            _ => None,
        };
        let mut hasher = DefaultHasher::new();
        (discriminant(self), trap).hash(&mut hasher);
        hasher.finish()
    }
}

/// A component with its memory. Calls come one at a time.
pub(super) struct Instance {
    store: Store<State>,
    request: Option<request_hook::Guest>,
    response: Option<response_hook::Guest>,
    balance: Option<balance_hook::Guest>,
    /// Where calls may take several turns. Then those above are not used.
    waiting: Option<Waiting>,
    complete: Option<TypedFunc<(Vec<complete_hook::Outcome>,), ()>>,
    tick: Option<TypedFunc<(), ()>>,
    calls: u32,
    _counted: Counted,
    /// After what it is for: the store goes first.
    _place: Place,
}

/// The hooks of an instance whose calls may take several turns.
struct Waiting {
    desk: Arc<Desk>,
    /// How long a call may wait.
    wait: Duration,
    request: Option<TypedFunc<(), (request_hook::Verdict,)>>,
    response: Option<TypedFunc<(), (response_hook::Verdict,)>>,
}

/// One of the instances of a plugin, for as long as it lives.
struct Counted(Arc<Shared>);

impl Counted {
    fn new(shared: Arc<Shared>) -> Self {
        shared.instances.fetch_add(1, Ordering::Relaxed);
        Self(shared)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.instances.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Instance {
    /// Time for `configure` and the start of the component, which may have more to do than a hook.
    const START: Duration = Duration::from_secs(1);

    /// Bytes that a call of the host may hand over, at most; as wasmtime has it.
    const HANDED_OVER: usize = 128 << 20;

    /// Instantiates and configures. Only a plugin that may wait or yields takes more than one turn.
    pub async fn start(plugin: &Plugin) -> Result<Self, StartError> {
        let code = &plugin.code;
        let place = plugin.room.take()?;
        let desk = plugin.waits().then(Arc::<Desk>::default);
        let log_lines = LogLines::new(
            plugin.surroundings.journal.clone(),
            plugin.shared.clone(),
            plugin.limits.log_rate.get(),
        );
        let state = State {
            plugin: plugin.name.clone(),
            shared: plugin.shared.clone(),
            surroundings: plugin.surroundings.clone(),
            exchange: None,
            sequences: Vec::new(),
            metrics: Vec::new(),
            upstreams: Vec::new(),
            limits: Limits {
                time: Self::START.max(plugin.limits.time.get()),
                meter: Meter::default(),
                slept: Duration::ZERO,
                memory: plugin.limits.memory.as_usize(),
                memory_used: 0,
                memory_in_all: plugin.limits.memory_in_all.map(crate::config::ByteSize::as_usize),
                shared: plugin.shared.clone(),
                exceeded: None,
            },
            wasi: wasi::context(&plugin.name, &log_lines, &plugin.surroundings),
            log_lines,
            most_unsent: plugin.limits.unsent.as_usize(),
            has_made_too_much: false,
            given_up: None,
            desk: desk.clone(),
            table: wasi::resources(),
            alarms: Alarms::new(&plugin.surroundings),
        };
        let mut store = Store::new(code.instance.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().at_epoch()));
        store.set_epoch_deadline(1);
        // What it hands over at once is in its memory. Lists that lead to the same bytes again and again could be more.
        store.set_hostcall_fuel(plugin.limits.memory.as_usize().min(Self::HANDED_OVER));
        if let Some(desk) = desk {
            let starting = Self::start_waiting(plugin, store, desk.clone(), place);
            return drive(starting, &desk, &mut NoErrands, cpu_time).await;
        }

        let start = |store: &mut Store<State>| -> wasmtime::Result<_> {
            let instance = code.instance.instantiate(&mut *store)?;
            let lifecycle = code.lifecycle.load(&mut *store, &instance)?;
            Ok((instance, lifecycle))
        };
        let (instance, lifecycle) = start(&mut store).map_err(|error| store.data().stopped(error))?;
        match lifecycle.call_configure(&mut store, &plugin.config) {
            Ok(Ok(())) => {}
            Ok(Err(reason)) => return Err(StartError::Refused(refusal(&reason))),
            Err(error) => return Err(StartError::Configure(store.data().blame(&error))),
        }
        let load = |store: &mut Store<State>| -> wasmtime::Result<_> {
            let request = code.request.as_ref().map(|hook| hook.load(&mut *store, &instance)).transpose()?;
            let response =
                code.response.as_ref().map(|hook| hook.load(&mut *store, &instance)).transpose()?;
            let balance = code.balance.as_ref().map(|hook| hook.load(&mut *store, &instance)).transpose()?;
            let complete = code.on_complete.as_ref().map(|place| instance.get_typed_func(&mut *store, place));
            let tick = code.on_tick.as_ref().map(|place| instance.get_typed_func(&mut *store, place));
            Ok((request, response, balance, complete.transpose()?, tick.transpose()?))
        };
        let (request, response, balance, complete, tick) =
            load(&mut store).map_err(StartError::Instantiate)?;
        store.data_mut().limits.time = plugin.limits.time.get();
        Ok(Self {
            store,
            request,
            response,
            balance,
            waiting: None,
            complete,
            tick,
            calls: 0,
            _counted: Counted::new(plugin.shared.clone()),
            _place: place,
        })
    }

    /// The same for one whose calls may take several turns, though not now.
    async fn start_waiting(
        plugin: &Plugin,
        mut store: Store<State>,
        desk: Arc<Desk>,
        place: Place,
    ) -> Result<Self, StartError> {
        let code: &Code = &plugin.code;
        let instance = code.instance.instantiate_async(&mut store).await;
        let instance = instance.map_err(|error| store.data().stopped(error))?;
        let functions = &code.functions;
        let configure = instance
            .get_typed_func::<(&str,), (Result<(), String>,)>(&mut store, &functions.configure)
            .map_err(StartError::Instantiate)?;
        match configure.call_async(&mut store, (&plugin.config,)).await {
            Ok((Ok(()),)) => {}
            Ok((Err(reason),)) => return Err(StartError::Refused(refusal(&reason))),
            Err(error) => return Err(StartError::Configure(store.data().blame(&error))),
        }
        let (on_request, on_response) = (functions.on_request.as_ref(), functions.on_response.as_ref());
        let request = on_request.map(|place| instance.get_typed_func(&mut store, place)).transpose();
        let response = on_response.map(|place| instance.get_typed_func(&mut store, place)).transpose();
        let on_complete = code.on_complete.as_ref();
        let complete = on_complete.map(|place| instance.get_typed_func(&mut store, place)).transpose();
        let on_tick = code.on_tick.as_ref();
        let tick = on_tick.map(|place| instance.get_typed_func(&mut store, place)).transpose();
        let waiting = Waiting {
            desk,
            wait: plugin.limits.wait.get(),
            request: request.map_err(StartError::Instantiate)?,
            response: response.map_err(StartError::Instantiate)?,
        };
        store.data_mut().limits.time = plugin.limits.time.get();
        Ok(Self {
            store,
            request: None,
            response: None,
            balance: None,
            waiting: Some(waiting),
            complete: complete.map_err(StartError::Instantiate)?,
            tick: tick.map_err(StartError::Instantiate)?,
            calls: 0,
            _counted: Counted::new(plugin.shared.clone()),
            _place: place,
        })
    }

    /// Whether it is time for a fresh one: after so many calls, or when its memory comes near the limit.
    pub fn is_worn(&self, recycle_after: u32) -> bool {
        let limits = &self.store.data().limits;
        self.calls >= recycle_after || limits.memory_used > limits.memory / 4 * 3
    }

    /// Bytes of linear memory, which never become fewer.
    pub fn memory_used(&self) -> usize {
        self.store.data().limits.memory_used
    }

    /// What the call that has ended has taken, but for turns. Of most calls that is nothing.
    pub fn cost(&self) -> Cost {
        let Limits { mut meter, slept, .. } = self.store.data().limits;
        meter.pause(cpu_time);
        Cost { computed: meter.sampled(), slept, seen_for: meter.used(), ..Cost::default() }
    }

    /// What the call that has ended has taken, with its turns.
    pub fn cost_in_all(&self) -> Cost {
        let mut cost = self.cost();
        if let Some(waiting) = &self.waiting {
            waiting.desk.add_to(&mut cost);
        }
        cost
    }

    pub fn on_request(&mut self) -> Option<wasmtime::Result<request_hook::Verdict>> {
        let Self { store, request, .. } = self;
        request.as_ref().map(|hook| hook.call_on_request(store))
    }

    pub fn on_response(&mut self) -> Option<wasmtime::Result<response_hook::Verdict>> {
        let Self { store, response, .. } = self;
        response.as_ref().map(|hook| hook.call_on_response(store))
    }

    /// Endpoints for which a call to prepare them gets its time once more.
    const PREPARED: usize = 1000;

    /// Tells the instance of the upstream's endpoints first, if it does not know them as they are.
    pub fn pick(
        &mut self,
        members: &Arc<impl Members + 'static>,
        tried: &[u32],
    ) -> Option<wasmtime::Result<Option<u32>>> {
        let Self { store, balance, .. } = self;
        let hook = balance.as_ref()?;
        if !store.data_mut().knows(&**members) {
            let endpoints: Vec<_> =
                members.describe().into_iter().map(balance_hook::Endpoint::from).collect();
            // Preparing takes the longer the more there are. It is timed apart from the pick that comes after it.
            let time = store.data().limits.time;
            let more = u32::try_from(endpoints.len() / Self::PREPARED).unwrap_or(u32::MAX);
            store.data_mut().limits.time = time.saturating_mul(more.saturating_add(1));
            if let Err(error) = hook.call_endpoints_changed(&mut *store, members.upstream(), &endpoints) {
                return Some(Err(error));
            }
            let limits = &mut store.data_mut().limits;
            limits.time = time;
            limits.begin();
            store.set_epoch_deadline(1);
            store.data_mut().learn(members.clone());
        }
        Some(hook.call_pick(store, members.upstream(), tried))
    }

    /// Runs a hook with an exchange in hand, within the limits, and gives the exchange back.
    ///
    /// None if the component does not export the hook. After an error the instance must not be used again.
    pub fn call<T>(
        &mut self,
        exchange: Box<Exchange>,
        hook: impl FnOnce(&mut Self) -> Option<wasmtime::Result<T>>,
    ) -> (Box<Exchange>, Result<Option<T>, CallError>) {
        self.begin(exchange);
        let result = hook(self).transpose();
        let state = self.store.data_mut();
        let exchange = state.exchange.take().expect("nothing but this function takes it");
        (exchange, state.ended(result))
    }

    /// The same, broken off when this becomes true.
    pub fn call_until<T>(
        &mut self,
        given_up: Arc<AtomicBool>,
        exchange: Box<Exchange>,
        hook: impl FnOnce(&mut Self) -> Option<wasmtime::Result<T>>,
    ) -> (Box<Exchange>, Result<Option<T>, CallError>) {
        self.store.data_mut().given_up = Some(given_up);
        let called = self.call(exchange, hook);
        self.store.data_mut().given_up = None;
        called
    }
}

/// Makes something of a verdict. What the plugin has made there is kept by the second.
pub(super) type Checked<V, T> = fn(Option<V>, Keeper<'_>) -> Result<T, CallError>;

/// Keeps what a plugin has made, up to what it may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keeper<'a> {
    pub made: &'a Made,
    pub most: usize,
}

impl Keeper<'_> {
    pub fn keep(self, content: Vec<u8>) -> Result<Bytes, CallError> {
        self.made.keep(content, self.most)
    }
}

/// How a call is made that leaves its worker to others meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Where it computes once it has used up a turn; makes way now and then if absent.
    pub background: Option<&'a Background>,
    /// It computes there from its beginning.
    pub is_slow: bool,
    /// Calls after which the instance makes room for a fresh one.
    pub recycle_after: u32,
}

/// Such a call, ended.
pub(super) struct Ended<T> {
    /// If it is fit for another call.
    pub instance: Option<Instance>,
    /// It has done its service.
    pub is_worn: bool,
    pub exchange: Box<Exchange>,
    /// What was made of its verdict; or why there is none.
    pub result: Result<Result<T, CallError>, CallError>,
    pub cost: Cost,
}

impl<T> Ended<T> {
    /// `checked` makes something of the verdict.
    pub fn new<V>(
        instance: Instance,
        recycle_after: u32,
        (exchange, verdict): (Box<Exchange>, Result<Option<V>, CallError>),
        checked: Checked<V, T>,
    ) -> Self {
        let is_worn = verdict.is_ok() && instance.is_worn(recycle_after);
        let is_fit = verdict.is_ok() && !is_worn;
        let cost = instance.cost();
        let state = instance.store.data();
        let keeper = Keeper { made: &state.shared.made, most: state.most_unsent };
        let result = verdict.map(|verdict| checked(verdict, keeper));
        // One that is not fit goes here, which may take its time.
        let instance = is_fit.then_some(instance);
        Self { instance, is_worn, exchange, result, cost }
    }
}

impl Instance {
    /// Calls `on-request` where it may wait.
    pub async fn on_request_waiting<T: Send + 'static>(
        self,
        exchange: Box<Exchange>,
        errands: &mut impl Errands,
        terms: Terms<'_>,
        checked: Checked<request_hook::Verdict, T>,
    ) -> Ended<T> {
        let hook = self.waiting.as_ref().and_then(|waiting| waiting.request);
        self.call_waiting(exchange, hook, errands, terms, checked).await
    }

    /// Calls `on-response` where it may wait.
    pub async fn on_response_waiting<T: Send + 'static>(
        self,
        exchange: Box<Exchange>,
        errands: &mut impl Errands,
        terms: Terms<'_>,
        checked: Checked<response_hook::Verdict, T>,
    ) -> Ended<T> {
        let hook = self.waiting.as_ref().and_then(|waiting| waiting.response);
        self.call_waiting(exchange, hook, errands, terms, checked).await
    }

    /// Calls `on-complete`. Takes its time if it may wait.
    pub async fn on_complete(
        &mut self,
        outcomes: &[Arc<Completed>],
        errands: &mut impl Errands,
    ) -> Result<(), CallError> {
        let outcomes = outcomes.iter().map(|outcome| complete_hook::Outcome::from(&**outcome)).collect();
        self.call_aside(self.complete, (outcomes,), errands).await
    }

    /// Calls `on-tick`. Takes its time if it may wait.
    pub async fn on_tick(&mut self, errands: &mut impl Errands) -> Result<(), CallError> {
        self.call_aside(self.tick, (), errands).await
    }

    /// Calls a hook that is about no request in hand.
    async fn call_aside<P>(
        &mut self,
        hook: Option<TypedFunc<P, ()>>,
        parameters: P,
        errands: &mut impl Errands,
    ) -> Result<(), CallError>
    where
        P: component::ComponentNamedList + component::Lower + Send + Sync + 'static,
    {
        self.calls += 1;
        self.store.set_epoch_deadline(1);
        let state = self.store.data_mut();
        state.log_lines.renew();
        state.limits.begin();
        let result = match (&self.waiting, hook) {
            (Some(Waiting { desk, wait, .. }), Some(hook)) => {
                desk.begin(Some(*wait));
                drive(hook.call_async(&mut self.store, parameters), desk, errands, cpu_time).await
            }
            (None, Some(hook)) => hook.call(&mut self.store, parameters),
            (_, None) => Ok(()),
        };
        result.map_err(|error| self.store.data().blame(&error))
    }

    /// What [`Instance::call`] does, for a hook that may wait. If this is dropped before its end, the exchange and
    /// the instance are lost.
    async fn call_waiting<V: Send, T: Send + 'static>(
        mut self,
        exchange: Box<Exchange>,
        hook: Option<TypedFunc<(), (V,)>>,
        errands: &mut impl Errands,
        terms: Terms<'_>,
        checked: Checked<V, T>,
    ) -> Ended<T>
    where
        (V,): component::ComponentNamedList + component::Lift + Send + Sync + 'static,
    {
        let recycle_after = terms.recycle_after;
        let (Some(Waiting { desk, wait, .. }), Some(hook)) = (&self.waiting, hook) else {
            return Ended::new(self, recycle_after, (exchange, Ok(None)), checked);
        };
        let desk = desk.clone();
        desk.begin(Some(*wait));
        self.begin(exchange);
        let call = async move {
            let result = hook.call_async(&mut self.store, ()).await;
            let state = self.store.data_mut();
            let exchange = state.exchange.take().expect("nothing but this function takes it");
            let verdict = state.ended(result.map(|(verdict,)| Some(verdict)));
            Ended::new(self, recycle_after, (exchange, verdict), checked)
        };
        let mut ended = match terms.background {
            Some(background) => {
                drive_behind(Box::pin(call), &desk, errands, background, terms.is_slow, cpu_time).await
            }
            None => drive(call, &desk, errands, cpu_time).await,
        };
        // The last turn is over only now.
        desk.add_to(&mut ended.cost);
        ended
    }

    /// A call begins.
    fn begin(&mut self, exchange: Box<Exchange>) {
        self.calls += 1;
        self.store.set_epoch_deadline(1);
        let state = self.store.data_mut();
        state.exchange = Some(exchange);
        state.log_lines.renew();
        state.limits.begin();
    }
}

impl State {
    /// What came of a call.
    fn ended<T>(&mut self, result: wasmtime::Result<T>) -> Result<T, CallError> {
        if std::mem::take(&mut self.has_made_too_much) {
            return Err(CallError::Unsent(self.most_unsent));
        }
        result.map_err(|error| self.blame(&error))
    }

    /// Why there is no instance: for what its own code did, or for what the machine has not.
    fn stopped(&self, error: wasmtime::Error) -> StartError {
        match self.limits.exceeded.is_some() || error.is::<wasmtime::Trap>() {
            true => StartError::Begin(self.blame(&error)),
            false => StartError::Instantiate(error),
        }
    }

    /// What went wrong, in words for the log; of a trap with what the plugin has printed of it.
    fn blame(&self, error: &wasmtime::Error) -> CallError {
        match (self.limits.blame(error), self.log_lines.last_words()) {
            (CallError::Trap(trap), Some(words)) => CallError::Trap(format!("{trap} ({words})")),
            (error, _) => error,
        }
    }

    /// Keeps a body that the plugin has made. None if it has made too much; then the call fails.
    pub(super) fn keep_body(&mut self, content: Vec<u8>) -> Option<Bytes> {
        let kept = self.shared.made.keep(content, self.most_unsent);
        self.has_made_too_much |= kept.is_err();
        kept.ok()
    }

    /// The clock that it can wait by.
    pub(super) fn clock(&mut self) -> Clock<'_> {
        Clock { table: &mut self.table, alarms: &self.alarms }
    }

    /// What it needs to wait.
    pub(super) fn waiting(&mut self) -> wasi::Waiting<'_> {
        wasi::Waiting { table: &mut self.table, alarms: &self.alarms, limits: &mut self.limits }
    }

    /// Called once an epoch while the guest runs, so that a call that is quick never asks for the time. One that may
    /// wait makes way for others each time.
    fn at_epoch(&mut self) -> UpdateDeadline {
        let is_given_up = self.given_up.as_ref().is_some_and(|given_up| given_up.load(Ordering::Relaxed));
        if is_given_up {
            return UpdateDeadline::Interrupt;
        }
        match self.limits.look(self.desk.as_deref()) {
            Seen::OutOfTime => UpdateDeadline::Interrupt,
            Seen::Running if self.desk.is_some() => UpdateDeadline::Yield(1),
            Seen::Running | Seen::Back => UpdateDeadline::Continue(1),
        }
    }

    /// What it was granted, for a function of the host that may take long: the guest does not run meanwhile, so nobody
    /// looks at its time. That is what the second is for, to be called every millisecond or two; its error ends the call.
    pub fn at_length(&mut self) -> (&Capabilities, impl FnMut() -> wasmtime::Result<()> + '_) {
        let Self { surroundings, limits, desk, .. } = self;
        let go_on = || match limits.look(desk.as_deref()) {
            Seen::OutOfTime => Err(wasmtime::Error::msg("the plugin has the host work too long")),
            Seen::Running | Seen::Back => Ok(()),
        };
        (&surroundings.capabilities, go_on)
    }

    /// The time, for what the plugin keeps.
    pub fn now(&self) -> Duration {
        let told = self.surroundings.time.as_ref();
        told.map_or_else(now, |time| time.now())
    }

    pub fn members(&self, upstream: &str) -> Option<&Arc<dyn Members>> {
        self.upstreams.iter().find(|members| members.upstream() == upstream)
    }

    fn knows(&self, members: &dyn Members) -> bool {
        self.members(members.upstream()).is_some_and(|known| known.version() == members.version())
    }

    fn learn(&mut self, members: Arc<dyn Members>) {
        self.upstreams.retain(|known| known.upstream() != members.upstream());
        self.upstreams.push(members);
    }
}

/// What a plugin says of its configuration: it may take some lines, and no more than anybody reads.
fn refusal(reason: &str) -> String {
    const LONGEST: usize = 4 << 10;
    let reason = &reason[..reason.floor_char_boundary(LONGEST)];
    // Indented, so that no line of it looks as if the proxy had said it.
    escaped(reason, |character| matches!(character, '\n' | '\t')).replace('\n', "\n    ")
}

impl Limits {
    /// What a sleep costs at least: about what the system makes of a shorter one.
    const NAP: Duration = Duration::from_micros(100);

    /// A call begins.
    fn begin(&mut self) {
        (self.meter, self.slept) = (Meter::default(), Duration::ZERO);
    }

    /// Looks at the time of the call, which is counted at the desk if it may come and go.
    fn look(&mut self, desk: Option<&Desk>) -> Seen {
        let now = cpu_time();
        let (used, has_run) = match desk {
            Some(desk) => desk.look(now),
            None => (self.meter.look(now), true),
        };
        if used.saturating_add(self.slept) >= self.time {
            self.exceeded = Some(Exceeded::Time);
            return Seen::OutOfTime;
        }
        if has_run { Seen::Running } else { Seen::Back }
    }

    /// The call is to sleep for so long. An error if that is more than it has left.
    pub(super) fn sleep(&mut self, duration: Duration) -> wasmtime::Result<()> {
        self.slept = self.slept.saturating_add(duration.max(Self::NAP));
        if self.slept > self.time {
            self.exceeded = Some(Exceeded::Time);
            return Err(wasmtime::Error::msg("the plugin sleeps too long"));
        }
        Ok(())
    }

    /// What went wrong, in words for the log.
    fn blame(&self, error: &wasmtime::Error) -> CallError {
        match self.exceeded {
            Some(Exceeded::Time) => CallError::Deadline(self.time),
            Some(Exceeded::Memory) => CallError::Memory(self.memory),
            Some(Exceeded::MemoryInAll(most)) => CallError::MemoryInAll(most),
            None => CallError::Trap(error.root_cause().to_string()),
        }
    }
}

/// The time since any moment that stays the same.
pub(super) fn now() -> Duration {
    reading(ClockId::Monotonic)
}

/// The CPU time of this thread.
pub(super) fn cpu_time() -> Duration {
    reading(ClockId::ThreadCPUTime)
}

/// What a clock of the system shows.
fn reading(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let used = self.memory_used + more;
        if used > self.memory {
            self.exceeded = Some(Exceeded::Memory);
            return Err(wasmtime::Error::msg("out of memory"));
        }
        let before = self.shared.memory.fetch_add(more, Ordering::Relaxed);
        if let Some(most) = self.memory_in_all.filter(|most| before + more > *most) {
            self.shared.memory.fetch_sub(more, Ordering::Relaxed);
            self.exceeded = Some(Exceeded::MemoryInAll(most));
            return Err(wasmtime::Error::msg(
                "all instances of the plugin together have `limits.memory-in-all`",
            ));
        }
        self.memory_used = used;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // Tables hold functions; the pool's own cap is beyond what any toolchain makes.
        if desired > 65_536 {
            return Ok(false);
        }
        // Their elements are pointers of the host, and there may be many tables.
        let more = desired.saturating_sub(current) * size_of::<usize>();
        self.memory_growing(0, more, None)
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.shared.memory.fetch_sub(self.memory_used, Ordering::Relaxed);
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
