//! What is known of one address of an upstream?
//!
//! All workers count here what they send and what comes of it; whoever has one in hand reads it without a lock, but for its
//! health.

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderMap, HeaderValue, uri};
use rustls::pki_types::ServerName;

use super::{
    connections::Connections,
    counts::EndpointCounts,
    health::{Health, Measured},
    number,
    report::{self, Reported},
};
use crate::{
    config::{self, EndpointAddress, Protocol},
    members::Condition,
    telemetry::{Distribution, PerWorker, Timed, Writer},
    tls::Origination,
};

/// One address of an upstream, and what is known of it.
#[derive(Debug)]
pub struct Endpoint {
    pub authority: EndpointAddress,
    /// The authority as a header value, made once.
    pub address: HeaderValue,
    /// What it is asked for when the proxy asks on its own behalf.
    pub(super) host: HeaderValue,
    /// Tells endpoints apart over the life of the process.
    pub(super) id: u64,
    /// Where the authority is an address and no name.
    pub(super) fixed: Option<SocketAddr>,
    /// Which addresses its name may lead to.
    pub(super) reach: config::Reach,
    /// Whether it must be reached by TLS.
    pub(super) is_https: bool,
    /// How, and the name to ask for.
    pub(super) tls: Option<(Arc<Origination>, ServerName<'static>)>,
    /// What it has chosen to speak, the last time that it could, as [`Spoken`].
    pub(super) spoken: AtomicU8,
    /// Requests of all workers: ever begun, times `BEGUN`, and in flight.
    pub(super) requests: AtomicU64,
    /// Those ever begun that were sent again, after another attempt.
    pub(super) again: AtomicU64,
    /// Moving average of the time to the head of a response.
    pub(super) latency_us: AtomicU32,
    /// Requests without an answer since the last answer.
    pub(super) failures: AtomicU32,
    /// What it says of its load.
    pub(super) reported: Reported,
    /// Answers of 500 and above since the last other one, where they count.
    pub(super) errors: AtomicU32,
    /// Answers since somebody looked, times 2^32, and those of 500 and above; where they count.
    pub(super) interval: AtomicU64,
    /// Of all requests to it that have ended, and of those without an answer: how many there were when somebody looked.
    pub(super) looked_at: Mutex<(u64, u64)>,
    /// How often it has become healthy. What a request meets that began before says nothing of it now.
    pub(super) recoveries: AtomicU32,
    /// Requests without an answer that began before it last became healthy.
    pub(super) outdated_failures: AtomicU64,
    /// What the last request without an answer has met.
    pub(super) last_failure: Mutex<Option<Arc<str>>>,
    /// Connections of all workers, where they are limited.
    pub(super) connections: Arc<Connections>,
    /// A request tries whether it is well again.
    pub(super) is_tried: AtomicBool,
    /// The last request that it got although checks say that it is not well was answered.
    pub(super) has_proved_itself: AtomicBool,
    pub(super) health: Mutex<Health>,
    pub(super) counts: PerWorker<EndpointCounts>,
}

/// What an endpoint speaks that may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spoken {
    Unknown,
    Http1,
    Http2,
}

/// One request in [`Endpoint::requests`]; below it, those in flight.
const BEGUN: u64 = 1 << 24;

impl Endpoint {
    /// How requests to it are spoken of.
    pub(super) fn scheme(&self) -> uri::Scheme {
        if self.is_https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP }
    }

    pub(super) fn new(
        settings: &config::Endpoint,
        tls: Option<&Arc<Origination>>,
        joined: Option<Instant>,
    ) -> Self {
        let authority = settings.authority.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<IpAddr>().ok().zip(authority.port_u16()).map(SocketAddr::from);
        Self {
            address: HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII"),
            host: HeaderValue::from_str(authority.to_authority().as_str())
                .expect("an authority is visible ASCII"),
            id: number::next(),
            fixed: address,
            reach: settings.reach.clone(),
            is_https: settings.is_https,
            tls: tls.filter(|_| settings.is_https).and_then(|tls| {
                let name = tls.server_name(authority.host())?;
                Some((tls.clone(), name))
            }),
            authority,
            spoken: AtomicU8::new(Spoken::Unknown as u8),
            requests: AtomicU64::new(0),
            again: AtomicU64::new(0),
            latency_us: AtomicU32::new(0),
            failures: AtomicU32::new(0),
            reported: Reported::default(),
            errors: AtomicU32::new(0),
            interval: AtomicU64::new(0),
            looked_at: Mutex::default(),
            recoveries: AtomicU32::new(0),
            outdated_failures: AtomicU64::new(0),
            last_failure: Mutex::default(),
            connections: Connections::new(),
            is_tried: AtomicBool::new(false),
            has_proved_itself: AtomicBool::new(false),
            health: Mutex::new(Health::new(joined)),
            counts: PerWorker::default(),
        }
    }

    /// Connections are kept for what an endpoint is, so one that is reached otherwise is another.
    pub(super) fn is_same(&self, settings: &config::Endpoint, tls: Option<&Arc<Origination>>) -> bool {
        let own = self.tls.as_ref().map(|(tls, _)| tls);
        self.authority == settings.authority
            && self.is_https == settings.is_https
            && self.reach == settings.reach
            && is_same_tls(own, tls.filter(|_| settings.is_https))
    }

    /// What it speaks, as far as is known, where this is said of its upstream.
    pub(super) fn spoken(&self, protocol: Protocol) -> Spoken {
        match protocol {
            Protocol::H1 => Spoken::Http1,
            Protocol::H2 => Spoken::Http2,
            Protocol::Auto if !self.is_https => Spoken::Http1,
            Protocol::Auto => match self.spoken.load(Ordering::Relaxed) {
                known if known == Spoken::Http1 as u8 => Spoken::Http1,
                known if known == Spoken::Http2 as u8 => Spoken::Http2,
                _ => Spoken::Unknown,
            },
        }
    }

    /// It has chosen.
    pub(super) fn note_spoken(&self, has_http2: bool) {
        let spoken = if has_http2 { Spoken::Http2 } else { Spoken::Http1 };
        self.spoken.store(spoken as u8, Ordering::Relaxed);
    }

    /// Tells endpoints apart over the life of the process.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What is known of its health. Not to be held for long.
    pub fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Requests in flight.
    pub fn active(&self) -> u32 {
        (self.requests.load(Ordering::Relaxed) % BEGUN) as u32
    }

    /// Requests ever sent to it, tries included.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed) / BEGUN
    }

    /// Begins to time a request that is brought to it, if it is one of those that are.
    pub fn begins(&self) -> Option<Timed> {
        Timed::start(self.requests())
    }

    /// Counts the time to the head of a response, if it was taken.
    pub fn ends(&self, writer: Writer, timed: Option<Timed>) -> Option<Duration> {
        timed.map(|timed| self.counts.of(writer).durations.end(&timed))
    }

    /// Counts a request that has got no response.
    pub fn lost(&self, writer: Writer) {
        self.counts.of(writer).failures.add(1);
    }

    /// Requests that have got no response since the process started.
    pub fn lost_in_all(&self) -> u64 {
        self.counts.sum(|part| &part.failures)
    }

    /// Times to the head of a response. Of many, some stand for others.
    pub fn durations(&self) -> Distribution {
        Distribution::of(self.counts.parts().map(|part| &part.durations))
    }

    /// Requests that were sent to it before any other endpoint.
    pub(super) fn first_requests(&self) -> u64 {
        let again = self.again.load(Ordering::Relaxed);
        self.requests().saturating_sub(again)
    }

    /// Whether it has answered the last request that it got although checks say that it is not well.
    pub(super) fn has_proved_itself(&self) -> bool {
        self.has_proved_itself.load(Ordering::Relaxed)
    }

    /// How it does at this moment.
    pub fn condition(&self) -> Condition {
        Condition {
            active: self.active(),
            latency_us: self.latency_us.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            load: self.reported.of_late(),
        }
    }

    /// Takes the report of its load out of a response, if there is one.
    pub fn take_report(&self, headers: &mut HeaderMap) {
        if let Some(report) = headers.remove(&report::HEADER) {
            self.reported.note(&report);
        }
    }

    pub(super) fn took(&self, after: Option<Duration>) {
        if let Some(after) = after {
            let sample = u32::try_from(after.as_micros()).unwrap_or(u32::MAX).max(1);
            let average = self.latency_us.load(Ordering::Relaxed);
            // Two workers may do this at once and one sample be lost: it is an average.
            let next = if average == 0 { sample } else { average - average / 8 + sample / 8 };
            self.latency_us.store(next.max(1), Ordering::Relaxed);
        }
    }

    pub(super) fn note_failure(&self, error: Arc<str>) {
        *self.last_failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    /// What the last request without an answer has met.
    pub(super) fn last_failure(&self) -> Option<Arc<str>> {
        self.last_failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It is healthy again: what it did before is over.
    pub(super) fn recovered(&self) {
        self.recoveries.fetch_add(1, Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
        self.errors.store(0, Ordering::Relaxed);
        self.measured();
    }

    /// What requests have met since the last call.
    pub(super) fn measured(&self) -> Measured {
        let counted = self.interval.swap(0, Ordering::Relaxed);
        let requests = self.requests.load(Ordering::Relaxed);
        let ended = (requests / BEGUN).saturating_sub(requests % BEGUN);
        let lost = self.lost_in_all().saturating_sub(self.outdated_failures.load(Ordering::Relaxed));
        let now = (ended, lost);
        let before = std::mem::replace(
            &mut *self.looked_at.lock().unwrap_or_else(std::sync::PoisonError::into_inner),
            now,
        );
        let since = |now: u64, before: u64| u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX);
        Measured {
            ended: since(now.0, before.0),
            lost: since(now.1, before.1),
            requests: (counted >> 32) as u32,
            errors: counted as u32,
            latency_us: self.latency_us.load(Ordering::Relaxed),
        }
    }
}

pub(super) fn is_same_tls(one: Option<&Arc<Origination>>, other: Option<&Arc<Origination>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

/// One request in flight to an endpoint, for as long as it lives.
#[derive(Debug)]
pub struct InFlight {
    pub(super) endpoint: Arc<Endpoint>,
    pub(super) probe: Probe,
    /// How often the endpoint had become healthy when the request began.
    recoveries: u32,
}

/// Whether a request tells that an ejected endpoint is well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Probe {
    No,
    /// It was sent for that, and is the only one.
    Claimed,
    /// It was sent there for want of others. Its success counts, and not its failure.
    InPassing,
    /// Checks say that the endpoint is unhealthy, and it gets requests for want of others.
    Unwell,
}

impl InFlight {
    pub(super) fn new(endpoint: Arc<Endpoint>, probe: Probe) -> Self {
        endpoint.requests.fetch_add(BEGUN + 1, Ordering::Relaxed);
        Self::begun(endpoint, probe)
    }

    /// None if as many as `most` are in flight.
    pub(super) fn within(endpoint: &Arc<Endpoint>, probe: Probe, most: Option<NonZero<u32>>) -> Option<Self> {
        let Some(most) = most else { return Some(Self::new(endpoint.clone(), probe)) };
        let before = endpoint.requests.fetch_add(BEGUN + 1, Ordering::Relaxed);
        if before % BEGUN >= u64::from(most.get()) {
            endpoint.requests.fetch_sub(BEGUN + 1, Ordering::Relaxed);
            return None;
        }
        Some(Self::begun(endpoint.clone(), probe))
    }

    fn begun(endpoint: Arc<Endpoint>, probe: Probe) -> Self {
        let recoveries = endpoint.recoveries.load(Ordering::Relaxed);
        Self { endpoint, probe, recoveries }
    }

    /// Whether the endpoint has become healthy since the request began.
    pub(super) fn is_outdated(&self) -> bool {
        self.recoveries != self.endpoint.recoveries.load(Ordering::Relaxed)
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.requests.fetch_sub(1, Ordering::Relaxed);
        if self.probe == Probe::Claimed {
            self.endpoint.is_tried.store(false, Ordering::Relaxed);
        }
    }
}
