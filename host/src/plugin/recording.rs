//! What did a plugin see of a request, and what did it decide?
//!
//! While somebody records a plugin, some calls of its hooks are kept, whole and in memory, up to a number and a size.
//! Whoever writes them down sees to it that nothing secret is. A plugin that nobody records pays for one look at a
//! flag.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, Version};
use tokio::sync::Notify;

use super::{CallError, Exchange, Hook, Plugin, Reply, RequestVerdict, ResponseVerdict, Shared};
use crate::address::Caller;

/// What is kept of the calls of a plugin, and how much.
#[derive(Debug)]
pub struct Recorder {
    settings: Recorded,
    kept: Mutex<Kept>,
    /// Calls that there were, kept or not.
    calls: AtomicU64,
    is_full: Notify,
}

/// How much is recorded.
#[derive(Debug, Clone, Copy)]
pub struct Recorded {
    /// The part of the calls, from 0 to 1.
    pub sample: f64,
    /// Calls.
    pub most: usize,
    /// Bodies too, where the plugin has read them.
    pub bodies: bool,
}

#[derive(Debug, Default)]
struct Kept {
    calls: Vec<Call>,
    bytes: usize,
}

/// One call of a hook.
#[derive(Debug)]
pub struct Call {
    pub at: SystemTime,
    pub hook: Hook,
    pub before: SeenExchange,
    pub after: SeenExchange,
    pub decided: Decided,
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

/// A call that is being recorded.
#[derive(Debug)]
pub struct Begun {
    recorder: Arc<Recorder>,
    hook: Hook,
    at: SystemTime,
    before: SeenExchange,
}

impl Recorder {
    /// Bytes of headers and bodies that are kept at most.
    const LARGEST: usize = 16 << 20;

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plugin {
    /// Records it from now on; none if somebody does already.
    pub fn record(&self, settings: Recorded) -> Option<Recording> {
        let recorder = Arc::new(Recorder {
            settings,
            kept: Mutex::default(),
            calls: AtomicU64::new(0),
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
    pub fn begin_recording(&self, hook: Hook, exchange: &Exchange) -> Option<Box<Begun>> {
        if self.shared.is_recorded.load(Ordering::Relaxed) { self.begin(hook, exchange) } else { None }
    }

    #[cold]
    fn begin(&self, hook: Hook, exchange: &Exchange) -> Option<Box<Begun>> {
        // A response is recorded with the request that it answers; where that is for the plugin to decide, too, the
        // request is what is recorded. What is explained is no traffic.
        let is_the_requests = hook == Hook::OnResponse && self.code.exports(Hook::OnRequest);
        if is_the_requests || exchange.journal.is_some() {
            return None;
        }
        let recorder = self.shared.recorder().clone()?;
        recorder.calls.fetch_add(1, Ordering::Relaxed);
        if fastrand::f64() >= recorder.settings.sample {
            return None;
        }
        let before = SeenExchange::of(exchange);
        Some(Box::new(Begun { recorder, hook, at: SystemTime::now(), before }))
    }
}

impl Begun {
    /// The call has ended with this; one that has failed is not kept.
    pub fn end(
        self: Box<Self>,
        exchange: Option<&Exchange>,
        verdict: Result<impl Into<Decided>, &CallError>,
    ) {
        let Self { recorder, hook, at, mut before } = *self;
        let (Some(exchange), Ok(verdict)) = (exchange, verdict) else { return };
        let after = SeenExchange::of(exchange);
        let mut decided = verdict.into();
        if recorder.settings.bodies {
            // Read while it ran, if at all.
            before.body = exchange.request_as_it_came().cloned();
            if let Some(response) = &mut before.response {
                response.body = exchange.response_as_it_came().cloned();
            }
        } else if let Decided::Reply { body, .. } = &mut decided {
            *body = None;
        }
        let call = Call { at, hook, before, after, decided };
        let bytes = call.bytes();
        let mut kept = recorder.kept();
        if kept.calls.len() < recorder.settings.most && kept.bytes + bytes <= Recorder::LARGEST {
            kept.bytes += bytes;
            kept.calls.push(call);
        }
        if kept.calls.len() >= recorder.settings.most || kept.bytes + bytes > Recorder::LARGEST {
            recorder.is_full.notify_one();
        }
    }
}

impl Recording {
    /// Waits until there is no room for more.
    pub async fn full(&self) {
        self.recorder.is_full.notified().await;
    }

    /// What was kept, and how many calls there were.
    pub fn finish(self) -> (Vec<Call>, u64) {
        let calls = std::mem::take(&mut self.recorder.kept().calls);
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
    /// What it takes in memory, roughly.
    fn bytes(&self) -> usize {
        let fields = |headers: &HeaderMap| -> usize {
            headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 64).sum()
        };
        let seen = |seen: &SeenExchange| {
            let body = seen.body.as_ref().map_or(0, Bytes::len);
            let response = seen.response.as_ref().map_or(0, |response| {
                fields(&response.headers) + response.body.as_ref().map_or(0, Bytes::len)
            });
            fields(&seen.headers) + body + response
        };
        let replied = match &self.decided {
            Decided::Reply { headers, body, .. } => fields(headers) + body.as_ref().map_or(0, Bytes::len),
            Decided::Next | Decided::Forward(_) => 0,
        };
        seen(&self.before) + seen(&self.after) + replied
    }
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
                body: None,
            }),
        }
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
