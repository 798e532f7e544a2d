//! One instance of a plugin: its memory, its limits, and a call into it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use wasmtime::{
    Store,
    component::{self, TypedFunc},
};

use super::{
    alarm::Alarms,
    bindings::exports::tollgate::policy::{balance_hook, complete_hook, request_hook, response_hook},
    clocks::cpu_time,
    code::Code,
    cost::{Cost, Meter},
    error::{CallError, StartError},
    exchange::Exchange,
    host_io::{HostIo, NoHostIo, PendingIo, drive, drive_offloaded},
    limits::Limits,
    log_lines::LogLines,
    offload::OffloadThread,
    outcome::Completed,
    room::{Place, Reservation},
    shared::Shared,
    state::State,
    surroundings::Surroundings,
    unsent::UnsentLimit,
    wasi,
};
use crate::{
    config::PluginLimits,
    members::{Member, Members},
    telemetry::escaped,
};

/// What an instance is made from: a plugin, as far as it has to be known here.
#[derive(Clone, Copy)]
pub(super) struct Blueprint<'a> {
    pub name: &'a Arc<str>,
    pub code: &'a Code,
    /// The configuration as JSON.
    pub config: &'a str,
    pub limits: &'a PluginLimits,
    pub shared: &'a Arc<Shared>,
    pub surroundings: &'a Surroundings,
    /// Where there is room for it.
    pub room: &'a Arc<Reservation>,
    /// Whether its calls may take several turns.
    pub waits: bool,
}

/// A component with its memory. Calls come one at a time.
pub struct Instance {
    store: Store<State>,
    request: Option<request_hook::Guest>,
    response: Option<response_hook::Guest>,
    balance: Option<balance_hook::Guest>,
    /// Where calls may take several turns. Then those above are not used.
    asynchronous: Option<Asynchronous>,
    complete: Option<TypedFunc<(Vec<complete_hook::Outcome>,), ()>>,
    tick: Option<TypedFunc<(), ()>>,
    calls: u32,
    _counted: Counted,
    /// After what it is for: the store goes first.
    _place: Place,
}

/// What an instance has whose calls may take several turns.
struct Asynchronous {
    pending_io: Arc<PendingIo>,
    /// How long a call may wait.
    wait: Duration,
    exports: AsyncExports,
}

/// A function that returns a verdict, if the plugin exports it.
pub type Export<V> = Option<TypedFunc<(), (V,)>>;

/// Its hooks about messages.
pub struct AsyncExports {
    pub on_request: Export<request_hook::Verdict>,
    pub on_response: Export<response_hook::Verdict>,
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
    pub(super) async fn start(plugin: Blueprint<'_>) -> Result<Self, StartError> {
        let code = plugin.code;
        let place = plugin.room.take()?;
        let pending_io = plugin.waits.then(Arc::<PendingIo>::default);
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
            wasi: wasi::context(plugin.name, &log_lines, plugin.surroundings),
            log_lines,
            most_unsent: plugin.limits.unsent.as_usize(),
            has_made_too_much: false,
            given_up: None,
            pending_io: pending_io.clone(),
            table: wasi::resources(),
            alarms: Alarms::new(plugin.surroundings),
        };
        let mut store = Store::new(code.instance.engine(), state);
        store.limiter(|state| &mut state.limits);
        store.epoch_deadline_callback(|mut store| Ok(store.data_mut().at_epoch()));
        store.set_epoch_deadline(1);
        // What it hands over at once is in its memory. Lists that lead to the same bytes again and again could be more.
        store.set_hostcall_fuel(plugin.limits.memory.as_usize().min(Self::HANDED_OVER));
        if let Some(pending_io) = pending_io {
            let starting = Self::start_waiting(plugin, store, pending_io.clone(), place);
            return drive(starting, &pending_io, &mut NoHostIo, cpu_time).await;
        }

        let start = |store: &mut Store<State>| -> wasmtime::Result<_> {
            let instance = code.instance.instantiate(&mut *store)?;
            let lifecycle = code.lifecycle.load(&mut *store, &instance)?;
            Ok((instance, lifecycle))
        };
        let (instance, lifecycle) = start(&mut store).map_err(|error| store.data().stopped(error))?;
        match lifecycle.call_configure(&mut store, plugin.config) {
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
            asynchronous: None,
            complete,
            tick,
            calls: 0,
            _counted: Counted::new(plugin.shared.clone()),
            _place: place,
        })
    }

    /// The same for one whose calls may take several turns, though not now.
    async fn start_waiting(
        plugin: Blueprint<'_>,
        mut store: Store<State>,
        pending_io: Arc<PendingIo>,
        place: Place,
    ) -> Result<Self, StartError> {
        let code = plugin.code;
        let instance = code.instance.instantiate_async(&mut store).await;
        let instance = instance.map_err(|error| store.data().stopped(error))?;
        let functions = &code.functions;
        let configure = instance
            .get_typed_func::<(&str,), (Result<(), String>,)>(&mut store, &functions.configure)
            .map_err(StartError::Instantiate)?;
        match configure.call_async(&mut store, (plugin.config,)).await {
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
        let exports = AsyncExports {
            on_request: request.map_err(StartError::Instantiate)?,
            on_response: response.map_err(StartError::Instantiate)?,
        };
        let asynchronous = Asynchronous { pending_io, wait: plugin.limits.wait.get(), exports };
        store.data_mut().limits.time = plugin.limits.time.get();
        Ok(Self {
            store,
            request: None,
            response: None,
            balance: None,
            asynchronous: Some(asynchronous),
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
    pub(super) fn cost(&self) -> Cost {
        let Limits { mut meter, slept, .. } = self.store.data().limits;
        meter.pause(cpu_time);
        Cost { computed: meter.sampled(), slept, seen_for: meter.used(), ..Cost::default() }
    }

    /// What the call that has ended has taken, with its turns.
    pub(super) fn cost_in_all(&self) -> Cost {
        let mut cost = self.cost();
        if let Some(asynchronous) = &self.asynchronous {
            asynchronous.pending_io.add_to(&mut cost);
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
pub(super) type Checked<V, T> = fn(Option<V>, UnsentLimit<'_>) -> Result<T, CallError>;

/// How a call is made that leaves its worker to others meanwhile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// Where it computes once it has used up a turn; makes way now and then if absent.
    pub offload: Option<&'a OffloadThread>,
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
        let unsent = UnsentLimit { unsent: &state.shared.unsent, most: state.most_unsent };
        let result = verdict.map(|verdict| checked(verdict, unsent));
        // One that is not fit goes here, which may take its time.
        let instance = is_fit.then_some(instance);
        Self { instance, is_worn, exchange, result, cost }
    }
}

impl Instance {
    /// Calls `on-complete`. Takes its time if it may wait.
    pub async fn on_complete(
        &mut self,
        outcomes: &[Arc<Completed>],
        io: &mut impl HostIo,
    ) -> Result<(), CallError> {
        let outcomes = outcomes.iter().map(|outcome| complete_hook::Outcome::from(&**outcome)).collect();
        self.call_aside(self.complete, (outcomes,), io).await
    }

    /// Calls `on-tick`. Takes its time if it may wait.
    pub async fn on_tick(&mut self, io: &mut impl HostIo) -> Result<(), CallError> {
        self.call_aside(self.tick, (), io).await
    }

    /// Calls a hook that is about no request in hand.
    async fn call_aside<P>(
        &mut self,
        hook: Option<TypedFunc<P, ()>>,
        parameters: P,
        io: &mut impl HostIo,
    ) -> Result<(), CallError>
    where
        P: component::ComponentNamedList + component::Lower + Send + Sync + 'static,
    {
        self.calls += 1;
        self.store.set_epoch_deadline(1);
        let state = self.store.data_mut();
        state.log_lines.renew();
        state.limits.begin();
        let result = match (&self.asynchronous, hook) {
            (Some(Asynchronous { pending_io, wait, .. }), Some(hook)) => {
                pending_io.begin(Some(*wait));
                drive(hook.call_async(&mut self.store, parameters), pending_io, io, cpu_time).await
            }
            (None, Some(hook)) => hook.call(&mut self.store, parameters),
            (_, None) => Ok(()),
        };
        result.map_err(|error| self.store.data().blame(&error))
    }

    /// What [`Instance::call`] does, for a hook whose call may suspend. If this is dropped before its end, the exchange and
    /// the instance are lost.
    pub(super) async fn call_async<V, T: Send + 'static>(
        mut self,
        exchange: Box<Exchange>,
        hook: fn(&AsyncExports) -> Export<V>,
        io: &mut impl HostIo,
        terms: Terms<'_>,
        checked: Checked<V, T>,
    ) -> Ended<T>
    where
        V: component::ComponentType + component::Lift + Send + Sync + 'static,
    {
        let recycle_after = terms.recycle_after;
        let asynchronous = self.asynchronous.as_ref();
        let exported = asynchronous.and_then(|found| Some((found, hook(&found.exports)?)));
        let Some((Asynchronous { pending_io, wait, .. }, hook)) = exported else {
            return Ended::new(self, recycle_after, (exchange, Ok(None)), checked);
        };
        let pending_io = pending_io.clone();
        pending_io.begin(Some(*wait));
        self.begin(exchange);
        let call = async move {
            let result = hook.call_async(&mut self.store, ()).await;
            let state = self.store.data_mut();
            let exchange = state.exchange.take().expect("nothing but this function takes it");
            let verdict = state.ended(result.map(|(verdict,)| Some(verdict)));
            Ended::new(self, recycle_after, (exchange, verdict), checked)
        };
        let mut ended = match terms.offload {
            Some(offload) => {
                drive_offloaded(Box::pin(call), &pending_io, io, offload, terms.is_slow, cpu_time).await
            }
            None => drive(call, &pending_io, io, cpu_time).await,
        };
        // The last turn is over only now.
        pending_io.add_to(&mut ended.cost);
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

/// What a plugin says of its configuration: it may take some lines, and no more than anybody reads.
fn refusal(reason: &str) -> String {
    const LONGEST: usize = 4 << 10;
    let reason = &reason[..reason.floor_char_boundary(LONGEST)];
    // Indented, so that no line of it looks as if the proxy had said it.
    escaped(reason, |character| matches!(character, '\n' | '\t')).replace('\n', "\n    ")
}

impl From<Member> for balance_hook::Endpoint {
    fn from(member: Member) -> Self {
        Self { address: member.address, weight: member.weight, tags: member.tags }
    }
}
