//! What did a plugin see of a request, and what did it decide?
//!
//! While somebody records a plugin, what some requests are to it is kept, whole and in memory, up to a number and a
//! size: what each of its hooks saw and decided. What is under way travels with the exchange. Whoever writes it down
//! sees to it that nothing secret is. A plugin that nobody records pays for one look at a flag.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use http::HeaderValue;
use tokio::sync::Notify;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{
    capability::Capability,
    configured::Plugin,
    counts::Hook,
    error::CallError,
    exchange::{Exchange, Reply},
    record::{Begun, Call, Decided, Now, Recorded, Recorder, SeenExchange, SeenPick, SeenResponse, Sides},
    shared::Shared,
    verdict::{RequestVerdict, ResponseVerdict},
};
use crate::members::Pick;

/// Records a plugin until it is dropped.
#[derive(Debug)]
pub struct Recording {
    shared: Arc<Shared>,
    recorder: Arc<Recorder>,
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
                let mut begun = Begun::new(self.shared.sequences.clone(), recorder)?;
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

impl Recorder {
    fn is_of(&self, plugin: &Plugin) -> bool {
        self.digest == plugin.code.digest() && self.config == plugin.config
    }

    /// Whether a request is of the sample.
    fn wants(&self, exchange: &Exchange) -> bool {
        let id = exchange.id().map_or(&[][..], HeaderValue::as_bytes);
        let drawn = xxh3_64_with_seed(id, self.seed) as f64 / u64::MAX as f64;
        drawn < self.settings.sample || self.settings.sample >= 1.0
    }
}

impl Begun {
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

    /// The hook is over: it waits for the next, or is kept.
    fn put(mut self: Box<Self>, exchange: &mut Exchange) {
        let now = self.sequences.next_numbers();
        let drawn = self.next_numbers.iter().filter(|(name, next)| now.get(*name) != Some(*next));
        self.call.sequences = drawn.map(|(name, next)| (name.clone(), *next)).collect();
        if self.is_last { (*self).keep() } else { exchange.recorded.0.push(*self) }
    }
}

impl SeenExchange {
    /// As an exchange is now, without its bodies.
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
