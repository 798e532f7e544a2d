//! What is kept of a request of which a plugin is recorded?
//!
//! Plain data: `recording` fills it from exchanges.

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

use super::{artifact::Digest, counts::Hook, sequences::Sequences};
use crate::{
    address::Caller,
    members::{Condition, Members, Pick},
    outgoing::{Outgoing, Received, SendError},
};

/// What is kept of the calls of a plugin, and how much.
#[derive(Debug)]
pub struct Recorder {
    pub(super) settings: Recorded,
    /// Which version of the plugin, and with which configuration: no other is recorded.
    pub(super) digest: Digest,
    pub(super) config: String,
    /// Draws the sample: of a request all hooks are recorded, or none.
    pub(super) seed: u64,
    pub(super) kept: Mutex<Vec<Call>>,
    /// Requests that there were, kept or not.
    pub(super) calls: AtomicU64,
    /// Of those, how many are kept or under way.
    pub(super) there: AtomicUsize,
    /// And their bytes.
    pub(super) bytes: AtomicUsize,
    pub(super) is_full: Notify,
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

/// A request that is being recorded, with the hook that is called now. If it is dropped, nothing is kept.
#[derive(Debug)]
pub struct Begun {
    /// Those of the plugin.
    pub(super) sequences: Arc<Sequences>,
    pub(super) recorder: Arc<Recorder>,
    pub(super) call: Call,
    pub(super) now: Option<Now>,
    /// The next numbers of sequences when it began.
    pub(super) next_numbers: BTreeMap<String, u32>,
    pub(super) bytes: usize,
    /// What has happened is nothing that a case can hold.
    pub(super) is_lost: bool,
    /// No other hook adds to it.
    pub(super) is_last: bool,
    pub(super) is_kept: bool,
}

/// A hook that is called.
#[derive(Debug)]
pub(super) struct Now {
    pub(super) hook: Hook,
    pub(super) before: SeenExchange,
    pub(super) choice: Option<Choice>,
}

/// What is recorded of an exchange between two hooks, by each recorder. It is kept when the exchange goes.
#[derive(Debug, Default)]
pub(super) struct UnderWay(pub(super) Vec<Begun>);

impl Recorder {
    /// Bytes of headers, bodies and endpoints that are kept at most.
    const LARGEST: usize = 16 << 20;

    pub(super) fn kept(&self) -> MutexGuard<'_, Vec<Call>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_room(&self) -> bool {
        let has_room = self.bytes.load(Ordering::Relaxed) <= Self::LARGEST;
        if !has_room {
            self.is_full.notify_one();
        }
        has_room
    }
}

impl Begun {
    /// None if there is no room for another.
    pub(super) fn new(sequences: Arc<Sequences>, recorder: Arc<Recorder>) -> Option<Box<Self>> {
        let is_one_too_many = recorder.there.fetch_add(1, Ordering::Relaxed) >= recorder.settings.most;
        let next_numbers = sequences.next_numbers();
        let begun = Self {
            sequences,
            recorder,
            call: Call::new(),
            now: None,
            next_numbers,
            bytes: 0,
            is_lost: false,
            is_last: false,
            is_kept: false,
        };
        (!is_one_too_many).then(|| begun.into())
    }

    /// What `pick` is given to choose from.
    pub fn choosing(mut self: Box<Self>, members: Arc<dyn Members>, tried: &[u32]) -> Box<Self> {
        let conditions = (0..members.len()).map(|index| members.inspect(index)).collect();
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

    pub(super) fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        self.recorder.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Keeps what there is, if there is anything, and room for it.
    pub(super) fn keep(mut self) {
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
    pub(super) fn take(&mut self, recorder: &Arc<Recorder>, hook: Hook) -> Option<Box<Begun>> {
        let is_it = |begun: &Begun| Arc::ptr_eq(&begun.recorder, recorder) && !begun.call.has(hook);
        let index = self.0.iter().position(is_it)?;
        Some(self.0.swap_remove(index).into())
    }

    pub(super) fn holds(&self, recorder: &Arc<Recorder>) -> bool {
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

impl Call {
    pub(super) fn new() -> Self {
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
    pub(super) fn bytes(&self) -> usize {
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
    pub(super) fn bytes(&self) -> usize {
        let notes: usize = self.notes.iter().map(|(name, value)| name.len() + value.len()).sum();
        let response = self.response.as_ref().map_or(0, |response| bytes(&response.headers));
        bytes(&self.headers) + notes + response + self.bytes_of_bodies()
    }

    pub(super) fn bytes_of_bodies(&self) -> usize {
        let response = self.response.as_ref().and_then(|response| response.body.as_ref());
        self.body.as_ref().map_or(0, Bytes::len) + response.map_or(0, Bytes::len)
    }
}
