//! What did a plugin see of a request, and what did it decide?
//!
//! While somebody records a plugin, what some requests are to it is kept, whole and in memory, up to a number and a
//! size: what each of its hooks saw and decided. What is under way travels with the exchange. Whoever writes it down
//! sees to it that nothing secret is. A plugin that nobody records pays for one look at a flag.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    CallError, Capability, Condition, Digest, Exchange, Hook, Members, Outgoing, Pick, Plugin, Received,
    Reply, RequestVerdict, ResponseVerdict, SendError, Shared,
};
use crate::address::Caller;

/// What is kept of the calls of a plugin, and how much.
#[derive(Debug)]
pub struct Recorder {
    settings: Recorded,
    /// Which version of the plugin, and with which configuration: no other is recorded.
    digest: Digest,
    config: String,
    /// Draws the sample: of a request all hooks are recorded, or none.
    seed: u64,
    kept: Mutex<Vec<Call>>,
    /// Requests that there were, kept or not.
    calls: AtomicU64,
    /// Of those, how many are kept or under way.
    there: AtomicUsize,
    /// And their bytes.
    bytes: AtomicUsize,
    is_full: Notify,
}

/// How much is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recorded {
    /// The part of the requests, from 0 to 1.
    pub sample: f64,
    /// Requests.
    pub most: usize,
    /// Bodies too, where the plugin has read them.
    pub bodies: bool,
}

/// What one request was to a plugin, by the hooks that were called for it.
#[derive(Debug)]
pub struct Call {
    pub at: SystemTime,
    pub request: Option<Sides>,
    pub pick: Option<SeenPick>,
    pub response: Option<Sides>,
    /// Requests of its own, in order; none if it cannot send any.
    pub errands: Option<Vec<Errand>>,
    /// Sequences that somebody has drawn from meanwhile, with the number that was next before.
    pub sequences: BTreeMap<String, u32>,
}

/// A request of the plugin's own, and what came of it.
#[derive(Debug)]
pub struct Errand {
    pub request: Outgoing,
    pub answer: Result<Received, SendError>,
    /// Whether both have their bodies.
    pub has_bodies: bool,
}

/// What a hook was given, what it made of it, and what it decided.
#[derive(Debug)]
pub struct Sides {
    pub before: SeenExchange,
    pub after: SeenExchange,
    pub decided: Decided,
}

/// A call of `pick`.
#[derive(Debug)]
pub struct SeenPick {
    pub before: SeenExchange,
    pub choice: Choice,
    pub picked: Pick,
}

/// What `pick` is given to choose from.
#[derive(Debug)]
pub struct Choice {
    pub members: Arc<dyn Members>,
    /// How each of them did when the call began.
    pub conditions: Vec<Option<Condition>>,
    pub tried: Vec<u32>,
}

/// A request, and its response if there is one, at one moment.
#[derive(Debug, Clone)]
pub struct SeenExchange {
    pub method: Method,
    pub target: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub scheme: &'static str,
    pub client: Caller<IpAddr>,
    pub route: Arc<str>,
    pub upstream: Arc<str>,
    pub notes: Vec<(String, String)>,
    pub body: Option<Bytes>,
    pub response: Option<SeenResponse>,
}

#[derive(Debug, Clone)]
pub struct SeenResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub endpoint: Option<HeaderValue>,
    pub from_cache: bool,
    pub body: Option<Bytes>,
}

/// What a hook has decided.
#[derive(Debug)]
pub enum Decided {
    Next,
    Reply { status: StatusCode, headers: HeaderMap, body: Option<Bytes> },
    Forward(String),
}

/// Records a plugin until it is dropped.
#[derive(Debug)]
pub struct Recording {
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
}

/// A request that is being recorded, with the hook that is called now. If it is dropped, nothing is kept.
#[derive(Debug)]
pub struct Begun {
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
    call: Call,
    now: Option<Now>,
    /// The next numbers of sequences when it began.
    sequences: BTreeMap<String, u32>,
    bytes: usize,
    /// What has happened is nothing that a case can hold.
    is_lost: bool,
    /// No other hook adds to it.
    is_last: bool,
    is_kept: bool,
}

/// A hook that is called.
#[derive(Debug)]
struct Now {
    hook: Hook,
    before: SeenExchange,
    choice: Option<Choice>,
}

/// What is recorded of an exchange between two hooks, by each recorder. It is kept when the exchange goes.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Vec<Begun>);

impl Recorder {
    /// Bytes of headers, bodies and endpoints that are kept at most.
    const LARGEST: usize = 16 << 20;

    fn kept(&self) -> MutexGuard<'_, Vec<Call>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_of(&self, plugin: &Plugin) -> bool {
        self.digest == plugin.code.digest() && self.config == plugin.config
    }

    /// Whether a request is of the sample.
    fn wants(&self, exchange: &Exchange) -> bool {
        let id = exchange.id().map_or(&[][..], HeaderValue::as_bytes);
        let drawn = xxh3_64_with_seed(id, self.seed) as f64 / u64::MAX as f64;
        drawn < self.settings.sample || self.settings.sample >= 1.0
    }

    fn has_room(&self) -> bool {
        let has_room = self.bytes.load(Ordering::Relaxed) <= Self::LARGEST;
        if !has_room {
            self.is_full.notify_one();
        }
        has_room
    }
}

impl Plugin {
    /// Records it from now on; none if somebody does already.
    pub fn record(&self, settings: Recorded) -> Option<Recording> {
        let recorder = Arc::new(Recorder {
            settings,
            digest: self.code.digest(),
            config: self.config.clone(),
            seed: fastrand::u64(..),
            kept: Mutex::default(),
            calls: AtomicU64::new(0),
            there: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            is_full: Notify::new(),
        });
        let mut place = self.shared.recorder();
        if place.is_some() {
            return None;
        }
        *place = Some(recorder.clone());
        self.shared.is_recorded.store(true, Ordering::Relaxed);
        Some(Recording { shared: self.shared.clone(), recorder })
    }

    /// A call begins. None unless it is to be recorded.
    #[inline]
    pub fn begin_recording(&self, hook: Hook, exchange: &mut Exchange) -> Option<Box<Begun>> {
        if self.shared.is_recorded.load(Ordering::Relaxed) { self.begin(hook, exchange) } else { None }
    }

    #[cold]
    fn begin(&self, hook: Hook, exchange: &mut Exchange) -> Option<Box<Begun>> {
        // What is explained is no traffic.
        if !exchange.is_traffic() {
            return None;
        }
        let recorder = self.shared.recorder().clone().filter(|recorder| recorder.is_of(self))?;
        let has = |hook| self.code.exports(hook);
        let mut begun = match exchange.recorded.take(&recorder, hook) {
            Some(begun) => begun,
            // It is not known what came before: the request was under way when the recording began.
            None if hook != Hook::OnRequest && has(Hook::OnRequest) => return None,
            None => {
                // A request whose endpoint it has picked was counted then.
                let is_known = hook == Hook::OnResponse && has(Hook::Pick);
                recorder.calls.fetch_add(u64::from(!is_known), Ordering::Relaxed);
                if !recorder.wants(exchange) {
                    return None;
                }
                recorder.calls.fetch_add(u64::from(is_known), Ordering::Relaxed);
                let mut begun = Begun::new(self.shared.clone(), recorder)?;
                begun.call.errands = self.code.imports().contains(&Capability::HttpClient).then(Vec::new);
                begun
            }
        };
        begun.is_last = match hook {
            Hook::OnRequest => !has(Hook::Pick) && !has(Hook::OnResponse),
            // Another attempt is a case of its own.
            Hook::Pick => !has(Hook::OnResponse) || exchange.recorded.holds(&begun.recorder),
            Hook::OnResponse | Hook::OnComplete | Hook::OnTick => true,
        };
        let before = SeenExchange::of(exchange);
        begun.grow(before.bytes());
        begun.now = Some(Now { hook, before, choice: None });
        begun.recorder.has_room().then_some(begun)
    }
}

impl Begun {
    /// None if there is no room for another.
    fn new(shared: Arc<Shared>, recorder: Arc<Recorder>) -> Option<Box<Self>> {
        let is_one_too_many = recorder.there.fetch_add(1, Ordering::Relaxed) >= recorder.settings.most;
        let sequences = shared.next_numbers();
        let begun = Self {
            shared,
            recorder,
            call: Call::new(),
            now: None,
            sequences,
            bytes: 0,
            is_lost: false,
            is_last: false,
            is_kept: false,
        };
        (!is_one_too_many).then(|| begun.into())
    }

    /// What `pick` is given to choose from.
    pub fn choosing(mut self: Box<Self>, members: Arc<dyn Members>, tried: &[u32]) -> Box<Self> {
        let conditions = (0..members.len()).map(|place| members.inspect(place)).collect();
        // As much as is going to be said of an endpoint where it is written down.
        self.grow(members.len() * 128);
        if let Some(now) = &mut self.now {
            now.choice = Some(Choice { members, conditions, tried: tried.to_vec() });
        }
        self
    }

    /// The plugin has sent this, and got that.
    pub fn sent(&mut self, mut request: Outgoing, answer: &Result<Received, SendError>) {
        let mut answer = answer.clone();
        let has_bodies = self.recorder.settings.bodies;
        let mut size = bytes(&request.headers) + request.path.as_str().len();
        if !has_bodies {
            request.body = Bytes::new();
        }
        size += request.body.len();
        if let Ok(received) = &mut answer {
            if !has_bodies {
                received.body = Bytes::new();
            }
            size += bytes(&received.headers) + received.body.len();
        }
        // What could not be sent at all, no answer in a case stands for.
        let was_sent = !matches!(answer, Err(SendError::InvalidUrl | SendError::InvalidRequest));
        let errands = self.call.errands.get_or_insert_default();
        if was_sent && errands.len() < Self::ERRANDS && size <= Self::ERRAND {
            errands.push(Errand { request, answer, has_bodies });
            self.grow(size);
        } else {
            self.is_lost = true;
        }
    }

    /// The plugin could not read a body, or not to its end.
    pub fn missed_body(&mut self) {
        self.is_lost = true;
    }

    /// Requests of its own that are kept of one request.
    const ERRANDS: usize = 64;
    /// Bytes of each, with its answer.
    const ERRAND: usize = 256 << 10;

    /// The call has ended with this; one that has failed is not kept.
    pub fn end(
        mut self: Box<Self>,
        exchange: &mut Exchange,
        verdict: Result<impl Into<Decided>, &CallError>,
    ) {
        let Some(Now { hook, mut before, .. }) = self.now.take() else { return };
        if let Ok(verdict) = verdict {
            let mut after = SeenExchange::of(exchange);
            let mut decided = verdict.into();
            if self.recorder.settings.bodies {
                // Read while it ran, if at all.
                before.body = exchange.request_as_it_came().cloned();
                after.body = exchange.request_body().cloned();
                if let Some(response) = &mut before.response {
                    response.body = exchange.response_as_it_came().cloned();
                }
                if let Some(response) = &mut after.response {
                    response.body = exchange.response_body().cloned();
                }
            } else if let Decided::Reply { body, .. } = &mut decided {
                *body = None;
            }
            self.grow(after.bytes() + before.bytes_of_bodies() + decided.bytes());
            let sides = Some(Sides { before, after, decided });
            match hook {
                Hook::OnRequest => self.call.request = sides,
                Hook::OnResponse => self.call.response = sides,
                Hook::Pick | Hook::OnComplete | Hook::OnTick => {}
            }
        }
        self.put(exchange);
    }

    /// The same of `pick`.
    pub fn end_pick(mut self: Box<Self>, exchange: &mut Exchange, picked: Result<&Pick, &CallError>) {
        let Some(Now { before, choice: Some(choice), .. }) = self.now.take() else { return };
        if let Ok(picked) = picked {
            self.call.pick = Some(SeenPick { before, choice, picked: *picked });
        }
        self.put(exchange);
    }

    fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.recorder.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// The hook is over: it waits for the next, or is kept.
    fn put(mut self: Box<Self>, exchange: &mut Exchange) {
        let now = self.shared.next_numbers();
        let drawn = self.sequences.iter().filter(|(name, next)| now.get(*name) != Some(*next));
        self.call.sequences = drawn.map(|(name, next)| (name.clone(), *next)).collect();
        if self.is_last { (*self).keep() } else { exchange.recorded.0.push(*self) }
    }

    /// Keeps what there is, if there is anything, and room for it.
    fn keep(mut self) {
        if self.is_lost || self.call.is_empty() || !self.recorder.has_room() {
            return;
        }
        self.is_kept = true;
        let call = std::mem::replace(&mut self.call, Call::new());
        let mut kept = self.recorder.kept();
        kept.push(call);
        if kept.len() >= self.recorder.settings.most {
            self.recorder.is_full.notify_one();
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.is_kept {
            self.recorder.there.fetch_sub(1, Ordering::Relaxed);
            self.recorder.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl UnderWay {
    /// What has been recorded by this recorder, and not of this hook yet.
    fn take(&mut self, recorder: &Arc<Recorder>, hook: Hook) -> Option<Box<Begun>> {
        let is_it = |begun: &Begun| Arc::ptr_eq(&begun.recorder, recorder) && !begun.call.has(hook);
        let place = self.0.iter().position(is_it)?;
        Some(self.0.swap_remove(place).into())
    }

    fn holds(&self, recorder: &Arc<Recorder>) -> bool {
        self.0.iter().any(|begun| Arc::ptr_eq(&begun.recorder, recorder))
    }
}

impl Clone for UnderWay {
    /// A copy of an exchange is not what is recorded.
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.drain(..).for_each(Begun::keep);
    }
}

impl Recording {
    /// Waits until there is no room for more.
    pub async fn full(&self) {
        self.recorder.is_full.notified().await;
    }

    /// What was kept, and how many requests there were.
    pub fn finish(self) -> (Vec<Call>, u64) {
        let calls = std::mem::take(&mut *self.recorder.kept());
        (calls, self.recorder.calls.load(Ordering::Relaxed))
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.shared.is_recorded.store(false, Ordering::Relaxed);
        *self.shared.recorder() = None;
    }
}

impl Shared {
    fn recorder(&self) -> MutexGuard<'_, Option<Arc<Recorder>>> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Call {
    fn new() -> Self {
        Self {
            at: SystemTime::now(),
            request: None,
            pick: None,
            response: None,
            errands: None,
            sequences: BTreeMap::new(),
        }
    }

    fn has(&self, hook: Hook) -> bool {
        match hook {
            Hook::OnRequest => self.request.is_some(),
            Hook::Pick => self.pick.is_some(),
            Hook::OnResponse => self.response.is_some(),
            Hook::OnComplete | Hook::OnTick => false,
        }
    }

    fn is_empty(&self) -> bool {
        Hook::ALL.iter().all(|hook| !self.has(*hook))
    }
}

impl Decided {
    fn bytes(&self) -> usize {
        match self {
            Self::Reply { headers, body, .. } => bytes(headers) + body.as_ref().map_or(0, Bytes::len),
            Self::Next | Self::Forward(_) => 0,
        }
    }
}

/// What headers take in memory, roughly.
fn bytes(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum()
}

impl SeenExchange {
    fn of(exchange: &Exchange) -> Self {
        let request = &exchange.request;
        Self {
            method: request.method.clone(),
            target: request.uri.clone(),
            version: request.version,
            headers: request.headers.clone(),
            scheme: exchange.scheme,
            client: exchange.client,
            route: exchange.route.clone(),
            upstream: exchange.upstream.clone(),
            notes: exchange.notes().to_vec(),
            body: None,
            response: exchange.response.as_ref().map(|response| SeenResponse {
                status: response.parts.status,
                headers: response.parts.headers.clone(),
                endpoint: response.endpoint.clone(),
                from_cache: response.from_cache,
                body: None,
            }),
        }
    }

    fn bytes(&self) -> usize {
        let notes: usize = self.notes.iter().map(|(name, value)| name.len() + value.len()).sum();
        let response = self.response.as_ref().map_or(0, |response| bytes(&response.headers));
        bytes(&self.headers) + notes + response + self.bytes_of_bodies()
    }

    fn bytes_of_bodies(&self) -> usize {
        let response = self.response.as_ref().and_then(|response| response.body.as_ref());
        self.body.as_ref().map_or(0, Bytes::len) + response.map_or(0, Bytes::len)
    }
}

impl From<&Reply> for Decided {
    fn from(reply: &Reply) -> Self {
        Self::Reply { status: reply.status, headers: reply.headers.clone(), body: Some(reply.body.clone()) }
    }
}

impl From<&RequestVerdict> for Decided {
    fn from(verdict: &RequestVerdict) -> Self {
        match verdict {
            RequestVerdict::Next => Self::Next,
            RequestVerdict::Reply(reply) => reply.into(),
            RequestVerdict::Forward(upstream) => Self::Forward(upstream.clone()),
        }
    }
}

impl From<&ResponseVerdict> for Decided {
    fn from(verdict: &ResponseVerdict) -> Self {
        match verdict {
            ResponseVerdict::Next => Self::Next,
            ResponseVerdict::Reply(reply) => reply.into(),
        }
    }
}
