//! How does a plugin go through a test?
//!
//! The component runs as it would in the proxy: the same engine, the same limits, the same checks of what it
//! makes. Only what is around it is made up: the messages, the endpoints, the time.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header, request, response};

use super::{
    file::{Ended, Endpoint, Fault, Picks, Request, Response, Step, StepInstance, Verdict},
    values::Moment,
    world::{Props, World},
};
use crate::{
    address::Caller,
    config,
    members::{Condition, Member, Members},
    plugin::{
        CallContext, CallError, Chance, Code, Completed, Exchange, ExchangeSlot, Hook, Journal, Logged,
        Plugin, Reply, RequestVerdict, ResponseHead, ResponseVerdict, Slot, StartError, Store, Surroundings,
        Time, at_once,
    },
    telemetry::Writer,
};

/// The id of every request in a test.
pub const REQUEST_ID: HeaderValue = HeaderValue::from_static("00000000000000000000000000000000");

/// An instance of a plugin, and the world it takes for real.
#[derive(Debug)]
pub struct TestRun {
    slot: Slot,
    /// The one that ticks, which has no requests.
    task_slot: Slot,
    journal: Arc<Journal>,
    time: Arc<Time>,
    endpoints: Arc<Endpoints>,
    world: World,
}

/// What came of one step.
#[derive(Debug)]
pub struct StepOutcome {
    /// Of the last hook that decides on a request or a response; none if no such hook ran, or it failed.
    pub verdict: Option<Verdict>,
    /// The upstream of [`Verdict::Forward`].
    pub upstream: Option<String>,
    /// The answer of [`Verdict::Reply`].
    pub reply: Option<Reply>,
    /// The request before.
    pub before: request::Parts,
    /// The request afterwards.
    pub request: request::Parts,
    /// The headers of the response before.
    pub response_before: HeaderMap,
    /// The response afterwards, if there was one.
    pub response: Option<response::Parts>,
    /// What each call of `pick` gave.
    pub picks: Vec<Option<usize>>,
    /// The addresses that picks are places of.
    pub endpoints: Vec<String>,
    pub notes: Vec<(String, String)>,
    /// The request's body afterwards.
    pub body: Bytes,
    /// The response's body afterwards.
    pub response_body: Bytes,
    /// Requests of its own, and those of them that no answer was written to.
    pub sent: Vec<String>,
    pub unanswered: Vec<String>,
    /// What it keeps, and the time by which that expires.
    pub store: Option<(Store, Duration)>,
    pub logs: Vec<Logged>,
    /// By name, since the stage was set.
    pub metrics: BTreeMap<String, f64>,
    pub error: Option<CallError>,
    /// The hooks that ran, in order, with the time of each call.
    pub calls: Vec<(Hook, Duration)>,
}

/// Why there is no instance, and what the plugin has logged before that was known.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct NotSet {
    pub error: StartError,
    pub logs: Vec<Logged>,
}

/// In which way a call has failed.
pub fn fault(error: &CallError) -> Fault {
    match error {
        CallError::Deadline(_) => Fault::Deadline,
        CallError::Memory(_) | CallError::MemoryInAll(_) => Fault::Memory,
        CallError::Trap(_) => Fault::Trap,
        CallError::InvalidReply(_)
        | CallError::UnknownUpstream(_)
        | CallError::UpstreamNotGranted(_)
        | CallError::Unsent(_) => Fault::InvalidReply,
        CallError::Start(_) | CallError::Busy(_) | CallError::Broken => Fault::Start,
    }
}

impl TestRun {
    /// Starts an instance. An error is the plugin's refusal of its configuration, or its failure at the start.
    pub fn set(
        code: &Arc<Code>,
        name: &str,
        settings: &config::Plugin,
        props: &Props,
        time: Moment,
    ) -> Result<Self, NotSet> {
        let journal = Arc::<Journal>::default();
        let time = Arc::new(Time::new(time.since_epoch()));
        let capabilities = props.capabilities(time.now());
        let surroundings = Surroundings {
            capabilities,
            journal: Some(journal.clone()),
            time: Some(time.clone()),
            chance: props.seed.map(|seed| Arc::new(Chance::new(seed))),
        };
        let plugin = Plugin::within(surroundings, name.into(), code.clone(), settings, None, 1, None)
            .map_err(|error| NotSet { error, logs: journal.take() })?;
        for (sequence, next) in &props.sequences {
            plugin.set_sequence(sequence, *next);
        }
        let endpoints = Endpoints::new("app", Vec::new(), 0);
        let world = World::new(props.http.clone());
        let plugin = Arc::new(plugin);
        let (slot, task_slot) = (Slot::new(plugin.clone(), Writer::ALONE), Slot::new(plugin, Writer::ALONE));
        Ok(Self { slot, task_slot, journal, time, endpoints, world })
    }

    /// The place of the instance, for calls beside those of steps.
    pub fn slot(&self) -> &Slot {
        &self.slot
    }

    /// Bytes of memory of the instance; none if it has been dropped.
    pub fn memory(&self) -> Option<usize> {
        self.slot.memory()
    }

    pub fn set_time(&self, now: Moment) {
        self.time.set(now.since_epoch());
    }

    pub fn advance(&self, by: Duration) {
        self.time.advance(by);
    }

    /// The endpoints of the upstream `app` from now on.
    pub fn give_endpoints(&mut self, list: Vec<Endpoint>) {
        self.endpoints = Endpoints::new(&Request::default().upstream, list, self.endpoints.version + 1);
    }

    /// Calls one hook for a message of its own, and says how long the call took. What it decides is checked and
    /// dropped.
    pub fn call(
        &mut self,
        hook: Hook,
        request: &Request,
        response: &Response,
        tried: &[u32],
    ) -> Result<Duration, CallError> {
        let mut exchange = exchange(request);
        if hook == Hook::OnResponse {
            exchange.response = Some(response_head(response, None));
        }
        self.world.request_body = request.body.clone().into();
        self.world.response_body = response.body.clone().into();
        let started = Instant::now();
        let result = match hook {
            Hook::OnRequest => {
                at_once(self.slot.on_request(&mut exchange, CallContext::new(&mut self.world))).map(drop)
            }
            Hook::Pick => self.slot.pick(&mut exchange, &self.endpoints, tried).map(drop),
            Hook::OnResponse => {
                at_once(self.slot.on_response(&mut exchange, CallContext::new(&mut self.world))).map(drop)
            }
            Hook::OnComplete => {
                let completed = Completed {
                    method: request.method.to_string(),
                    authority: request.authority.clone(),
                    target: request.path.clone(),
                    client_address: request.client_address.to_string(),
                    route: request.route.clone(),
                    upstream: request.upstream.clone(),
                    status: response.status.as_u16(),
                    endpoint: response.endpoint.clone(),
                    ..Completed::default()
                };
                at_once(self.task_slot.on_complete(&[completed.into()], &mut self.world))
            }
            Hook::OnTick => at_once(self.task_slot.on_tick(&mut self.world)),
        };
        let time = started.elapsed();
        self.world.sent.clear();
        self.world.unanswered.clear();
        self.journal.take();
        result.map(|()| time)
    }

    /// Tells the plugin of these requests, and says how long that took.
    pub fn tell(&mut self, ended: &[Ended]) -> Result<Duration, CallError> {
        let outcomes: Vec<_> = ended.iter().map(|ended| Arc::new(ended.completed())).collect();
        let started = Instant::now();
        let result = at_once(self.task_slot.on_complete(&outcomes, &mut self.world));
        let time = started.elapsed();
        self.world.sent.clear();
        self.world.unanswered.clear();
        self.journal.take();
        result.map(|()| time)
    }

    /// Lets the request of a step go its way through the plugin: `on-request`, `pick`, `on-response`, as far as the
    /// step asks for them and the plugin has them; then the plugin is told of what has ended.
    pub fn act(&mut self, step: &Step) -> StepOutcome {
        if let Some(by) = step.advance {
            self.time.advance(by.get());
        }
        if step.instance == StepInstance::Fresh {
            self.slot = Slot::new(self.slot.plugin().clone(), Writer::ALONE);
        }
        let written = step.request.clone().unwrap_or_default();
        if let Some(endpoints) = &step.endpoints {
            self.endpoints = Endpoints::new(&written.upstream, endpoints.clone(), self.endpoints.version + 1);
        } else {
            self.endpoints = self.endpoints.of(&written.upstream);
        }
        let mut exchange = exchange(&written);
        let mut outcome = StepOutcome {
            verdict: None,
            upstream: None,
            reply: None,
            before: exchange.request.clone(),
            request: exchange.request.clone(),
            response_before: HeaderMap::new(),
            response: None,
            picks: Vec::new(),
            endpoints: self.endpoints.list.iter().map(|endpoint| endpoint.address.clone()).collect(),
            notes: Vec::new(),
            body: Bytes::new(),
            response_body: Bytes::new(),
            sent: Vec::new(),
            unanswered: Vec::new(),
            store: self.slot.plugin().capabilities().store.clone().map(|store| (store, self.time.now())),
            logs: Vec::new(),
            metrics: BTreeMap::new(),
            error: None,
            calls: Vec::new(),
        };
        self.world.request_body = written.body.clone().into();
        self.world.response_body =
            step.response.as_ref().map(|response| response.body.clone().into()).unwrap_or_default();
        if let Err(error) = self.run(step, &mut exchange, &mut outcome) {
            outcome.verdict = None;
            outcome.error = Some(error);
        }
        outcome.request = exchange.request.clone();
        outcome.response = exchange.response.take().map(|response| response.parts);
        outcome.body = self.world.request_body.clone();
        outcome.response_body = self.world.response_body.clone();
        outcome.sent = std::mem::take(&mut self.world.sent);
        outcome.unanswered = std::mem::take(&mut self.world.unanswered);
        outcome.notes = exchange.notes().to_vec();
        outcome.logs = self.journal.take();
        let metrics = self.slot.plugin().metrics();
        outcome.metrics = metrics.into_iter().map(|(name, metric)| (name, metric.value())).collect();
        outcome
    }

    fn run(
        &mut self,
        step: &Step,
        exchange: &mut ExchangeSlot,
        outcome: &mut StepOutcome,
    ) -> Result<(), CallError> {
        let Self { slot, task_slot, world, endpoints, .. } = self;
        let has = |hook| slot.plugin().code.exports(hook);
        if step.tick && has(Hook::OnTick) {
            timed(outcome, Hook::OnTick, || at_once(task_slot.on_tick(world)))?;
        }
        if step.request.is_some() && has(Hook::OnRequest) {
            let call = || at_once(slot.on_request(exchange, CallContext::new(world)));
            match timed(outcome, Hook::OnRequest, call)? {
                RequestVerdict::Next => outcome.verdict = Some(Verdict::Next),
                RequestVerdict::Reply(mut reply) => {
                    exchange.apply_response_headers(&mut reply.headers);
                    outcome.verdict = Some(Verdict::Reply);
                    outcome.reply = Some(reply);
                }
                RequestVerdict::Forward(upstream) => {
                    exchange.upstream = upstream.as_str().into();
                    *endpoints = endpoints.of(&upstream);
                    outcome.verdict = Some(Verdict::Forward);
                    outcome.upstream = Some(upstream);
                }
            }
        }
        if let Some(Picks { calls, tried }) = &step.pick
            && has(Hook::Pick)
            && outcome.reply.is_none()
        {
            for _ in 0..*calls {
                let pick = timed(outcome, Hook::Pick, || slot.pick(exchange, endpoints, tried))?;
                outcome.picks.push(pick);
            }
        }
        if let Some(response) = &step.response
            && (has(Hook::OnResponse) || !exchange.response_headers().is_empty())
        {
            let mut head = response_head(response, outcome.reply.as_ref());
            outcome.response_before = head.parts.headers.clone();
            exchange.apply_response_headers(&mut head.parts.headers);
            exchange.response = Some(head);
            note(exchange, &response.notes);
            if let Some(reply) = &outcome.reply {
                world.response_body = reply.body.clone();
            }
        }
        if exchange.response.is_some() && has(Hook::OnResponse) {
            let call = || at_once(slot.on_response(exchange, CallContext::new(world)));
            match timed(outcome, Hook::OnResponse, call)? {
                ResponseVerdict::Next => outcome.verdict = Some(Verdict::Next),
                ResponseVerdict::Reply(reply) => {
                    outcome.verdict = Some(Verdict::Reply);
                    outcome.reply = Some(reply);
                }
            }
        }
        if let Some(ended) = &step.complete
            && has(Hook::OnComplete)
        {
            let outcomes: Vec<_> = ended.iter().map(|ended| Arc::new(ended.completed())).collect();
            timed(outcome, Hook::OnComplete, || at_once(task_slot.on_complete(&outcomes, world)))?;
        }
        Ok(())
    }
}

fn timed<T>(outcome: &mut StepOutcome, hook: Hook, call: impl FnOnce() -> T) -> T {
    let started = Instant::now();
    let result = call();
    outcome.calls.push((hook, started.elapsed()));
    result
}

/// The request in hand, with what the proxy itself says of it.
pub fn exchange(written: &Request) -> ExchangeSlot {
    let mut request = http::Request::new(());
    *request.method_mut() = written.method.clone();
    *request.version_mut() = written.http_version;
    // Read as a target already.
    *request.uri_mut() = written.path.parse().unwrap_or_default();
    let headers = request.headers_mut();
    // A client of a Unix socket has no address that could be handed on.
    let address = match written.client_address {
        Caller::Ip(address) => HeaderValue::try_from(address.to_string()).ok(),
        Caller::Unix => None,
    };
    let authority = HeaderValue::try_from(written.authority.as_str()).ok().filter(|value| !value.is_empty());
    let given = [
        (header::HOST, authority.clone()),
        (HeaderName::from_static("x-forwarded-for"), address),
        (HeaderName::from_static("x-forwarded-host"), authority),
        (
            HeaderName::from_static("x-forwarded-proto"),
            Some(HeaderValue::from_static(written.scheme.as_str())),
        ),
        (HeaderName::from_static("x-request-id"), Some(REQUEST_ID)),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    }
    for name in written.headers.keys() {
        headers.remove(name);
    }
    headers.extend(written.headers.clone());
    let (parts, ()) = request.into_parts();
    let mut exchange = ExchangeSlot::new(Exchange::new(
        parts,
        written.client_address,
        written.scheme.as_str(),
        written.route.as_str().into(),
        written.upstream.as_str().into(),
    ));
    // As a trusted proxy would have said it.
    exchange.asked_host = exchange.request.headers.get("x-forwarded-host").cloned();
    note(&mut exchange, &written.notes);
    exchange
}

/// The head of an upstream's response, or of what the plugin itself has answered, which response hooks see too.
fn response_head(written: &Response, reply: Option<&Reply>) -> ResponseHead {
    let (status, headers) = match reply {
        Some(reply) => (reply.status, &reply.headers),
        None => (written.status, &written.headers),
    };
    let (mut parts, ()) = http::Response::new(()).into_parts();
    parts.status = status;
    parts.headers = headers.clone();
    let endpoint = written.endpoint.as_ref().filter(|_| reply.is_none());
    ResponseHead {
        parts,
        endpoint: endpoint.and_then(|text| HeaderValue::try_from(text).ok()),
        from_cache: written.from_cache,
    }
}

fn note(exchange: &mut ExchangeSlot, notes: &BTreeMap<String, String>) {
    for (name, value) in notes {
        exchange.set_note(name.clone(), value.clone());
    }
}

/// Endpoints that are nowhere.
#[derive(Debug)]
pub struct Endpoints {
    upstream: String,
    version: u64,
    list: Vec<Endpoint>,
}

impl Endpoints {
    /// `version` is another number for another list.
    pub fn new(upstream: &str, list: Vec<Endpoint>, version: u64) -> Arc<Self> {
        Arc::new(Self { upstream: upstream.to_owned(), version, list })
    }

    /// The same in an upstream of this name.
    fn of(self: &Arc<Self>, upstream: &str) -> Arc<Self> {
        match self.upstream == upstream {
            true => self.clone(),
            false => Self::new(upstream, self.list.clone(), self.version + 1),
        }
    }
}

impl Members for Endpoints {
    fn upstream(&self) -> &str {
        &self.upstream
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn describe(&self) -> Vec<Member> {
        let describe = |endpoint: &Endpoint| Member {
            address: endpoint.address.clone(),
            weight: endpoint.weight,
            tags: endpoint.tags.clone().into_iter().collect(),
        };
        self.list.iter().map(describe).collect()
    }

    fn len(&self) -> usize {
        self.list.len()
    }

    fn inspect(&self, index: usize) -> Option<Condition> {
        let endpoint = self.list.get(index)?;
        let latency = endpoint.latency.map(|latency| latency.get().as_micros()).unwrap_or_default();
        Some(Condition {
            active: endpoint.active,
            latency_us: u32::try_from(latency).unwrap_or(u32::MAX),
            failures: endpoint.failures,
            load: endpoint.load,
        })
    }
}
