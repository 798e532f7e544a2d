//! Which endpoint serves it, and is it well?
//!
//! An [`Upstream`] is a named group of endpoints; what is known of an [`Endpoint`] is shared by all workers
//! and survives a reload. Who of them may be picked is a [`Roster`], which is replaced when that changes.
//! Connections are each worker's own: see [`pool`].

mod adapt;
mod budget;
mod check;
mod connect;
mod counts;
mod discover;
mod health;
mod interim;
mod keep;
mod limit;
mod members;
mod origins;
mod pool;
mod reach;
mod report;
mod roster;
mod share;
mod switched;
mod transport;

pub use connect::ConnectError;
pub use counts::{EndpointCounts, write_upstreams};
pub use health::{Event, Health, Reason, State, Transition};
pub use interim::Interim;
pub use keep::Keepers;
pub use limit::{Entering, Permit};
pub use members::{RegisterError, Registered, Source, Told};
pub use origins::Origins;
pub use pool::{Lease, Pool, Terms};
pub use roster::{Entry, Roster};
pub use switched::Switched;

use std::{
    net::{IpAddr, SocketAddr},
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use http::{HeaderMap, HeaderValue, StatusCode, uri};
use rustc_hash::{FxHashMap, FxHashSet};
use rustls::pki_types::ServerName;
use smallvec::SmallVec;
use tokio::sync::watch;

use crate::{
    config::{self, EndpointAddress, Protocol, UpstreamTimeouts},
    plugin::Condition,
    telemetry::PerWorker,
    tls::Origination,
};
use adapt::Gradient;
use budget::Budget;
use health::{Measured, may_eject, outliers};
use limit::Limiter;
use members::{Members, News};
use report::Reported;

/// A named group of endpoints.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    pub timeouts: UpstreamTimeouts,
    pub settings: config::Upstream,
    tls: Tls,
    present: Mutex<Present>,
    roster: ArcSwap<Roster>,
    shared: Arc<Shared>,
    /// Whether requests are counted for `outlier` to look at now and then.
    is_measured: bool,
    /// Whether requests are counted against a limit.
    is_limited: bool,
}

/// How whoever is reached by TLS is reached.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub endpoints: Option<Arc<Origination>>,
    /// Those who are asked for endpoints.
    pub sources: Option<Arc<Origination>>,
}

/// The endpoints of an upstream in one generation. Locked only by whoever holds the lock of [`Shared`].
#[derive(Debug, Default)]
struct Present {
    entries: Vec<Entry>,
    /// Those that have left and still have requests.
    leaving: Vec<Entry>,
}

/// What the upstreams of one name have in common, in all generations.
#[derive(Debug)]
struct Shared {
    /// Held while anything changes that a roster tells.
    common: Mutex<Common>,
    budget: Budget,
    limiter: Arc<Limiter>,
    gradient: Mutex<Gradient>,
    /// Microseconds that requests took since somebody looked, times 2^24, and their number; where the limit adapts.
    timing: AtomicU64,
    /// Told when time may have another meaning: there is something new to wait for.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Common {
    /// All upstreams of the name that are still there.
    views: Vec<Weak<Upstream>>,
    members: Members,
    /// When their rosters were renewed last.
    renewed: Option<Instant>,
}

/// One address of an upstream, and what is known of it.
#[derive(Debug)]
pub struct Endpoint {
    pub authority: EndpointAddress,
    /// The authority as a header value, made once.
    pub address: HeaderValue,
    /// What it is asked for when the proxy asks on its own behalf.
    host: HeaderValue,
    /// Tells endpoints apart over the life of the process.
    id: u64,
    /// Where the authority is an address and no name.
    fixed: Option<SocketAddr>,
    /// Whether the name may only lead to addresses that anybody can reach.
    is_guarded: bool,
    /// Whether it must be reached by TLS.
    is_https: bool,
    /// How, and the name to ask for.
    tls: Option<(Arc<Origination>, ServerName<'static>)>,
    /// What it has chosen to speak, the last time that it could, as [`Spoken`].
    spoken: AtomicU8,
    /// Requests of all workers: ever begun, times `BEGUN`, and in flight.
    requests: AtomicU64,
    /// Those ever begun that were sent again, after another attempt.
    again: AtomicU64,
    /// Moving average of the time to the head of a response.
    latency_us: AtomicU32,
    /// Requests without an answer since the last answer.
    failures: AtomicU32,
    /// What it says of its load.
    reported: Reported,
    /// Answers of 500 and above since the last other one, where they count.
    errors: AtomicU32,
    /// Answers since somebody looked, times 2^32, and those of 500 and above; where they count.
    interval: AtomicU64,
    /// Connections of all workers, where they are limited.
    connections: Arc<Limiter>,
    /// A request tries whether it is well again.
    is_tried: AtomicBool,
    health: Mutex<Health>,
    counts: PerWorker<EndpointCounts>,
}

/// What an endpoint speaks that may choose.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    Unknown,
    Http1,
    Http2,
}

/// Numbers that are never used twice.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// One request in [`Endpoint::requests`]; below it, those in flight.
const BEGUN: u64 = 1 << 24;

impl Upstream {
    /// Makes an upstream; what `previous` knows of endpoints with the same address, reached in the same way, is
    /// taken over.
    pub fn new(
        name: Arc<str>,
        settings: &config::Upstream,
        tls: Tls,
        previous: Option<&Upstream>,
    ) -> Arc<Self> {
        let now = Instant::now();
        let shared = previous.map_or_else(
            || {
                let changed = watch::Sender::new(());
                Arc::new(Shared {
                    common: Mutex::default(),
                    budget: Budget::default(),
                    limiter: Limiter::new(u32::MAX),
                    gradient: Mutex::default(),
                    timing: AtomicU64::new(0),
                    changed,
                })
            },
            |previous| previous.shared.clone(),
        );
        let empty = Roster::new(name.clone(), Vec::new(), now, settings, next(), None);
        let (outlier, limits) = (&settings.outlier, &settings.limits);
        let is_limited = limits.adaptive || limits.requests.is_some() || limits.endpoint_requests.is_some();
        let upstream = Arc::new(Self {
            name,
            timeouts: settings.timeouts.clone(),
            present: Mutex::default(),
            roster: ArcSwap::from_pointee(empty),
            shared,
            is_limited,
            is_measured: outlier.error_rate.is_some() || outlier.latency_factor.is_some(),
            settings: settings.clone(),
            tls,
        });
        let mut common = upstream.shared.common();
        let views = common.views();
        upstream.assemble(&common.members, &known(&views), previous.map(|_| now));
        let roster = Roster::new(
            upstream.name.clone(),
            upstream.present().entries.clone(),
            now,
            settings,
            next(),
            None,
        );
        upstream.roster.store(Arc::new(roster));
        common.views.push(Arc::downgrade(&upstream));
        drop(common);
        // If any was the last of its kind, it is dropped without the lock.
        drop(views);
        if previous.is_none() {
            upstream.set_limits(&upstream.roster());
        }
        upstream
    }

    /// Makes the list of endpoints anew of what there is to be. Whoever has left and still has requests stays
    /// until they have ended.
    fn assemble(&self, members: &Members, known: &Known, joined: Option<Instant>) {
        let mut present = self.present();
        let entry = |(source, wanted): (Source, &config::Endpoint)| {
            let of_address = known.get(wanted.authority.as_str()).into_iter().flatten();
            let same =
                of_address.into_iter().find(|endpoint| endpoint.is_same(wanted, self.tls.endpoints.as_ref()));
            let new = || Arc::new(Endpoint::new(wanted, self.tls.endpoints.as_ref(), joined));
            Entry {
                endpoint: same.cloned().unwrap_or_else(new),
                weight: wanted.weight,
                tags: wanted.tags.clone().into_iter().collect(),
                state: State::Healthy,
                source,
            }
        };
        let entries: Vec<Entry> = members.of(&self.settings).map(entry).collect();
        let stays: FxHashSet<u64> = entries.iter().map(|entry| entry.endpoint.id).collect();
        let before = std::mem::replace(&mut present.entries, entries);
        present.leaving.extend(before);
        present.leaving.retain(|entry| !stays.contains(&entry.endpoint.id) && entry.endpoint.active() > 0);
    }

    /// Forgets those that have left and have no requests any more. Whether there are others.
    fn see_off(&self, now: Instant) -> bool {
        let common = self.shared.common();
        let (gone, left) = {
            let leaving = &mut self.present().leaving;
            let before = leaving.len();
            leaving.retain(|entry| entry.endpoint.active() > 0);
            (before - leaving.len(), leaving.len())
        };
        if gone > 0 {
            refresh(common, now);
        }
        left > 0
    }

    /// Whether its connections may be ones of HTTP/2, which several requests share.
    pub fn may_share_connections(&self) -> bool {
        match self.settings.protocol {
            Protocol::H1 => false,
            Protocol::H2 => true,
            Protocol::Auto => self.tls.endpoints.is_some(),
        }
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A source has said which endpoints there are.
    fn told(&self, source: Source, endpoints: Vec<config::Endpoint>) {
        let now = Instant::now();
        let (upstream, source_name, count) = (&self.name, source.name(), endpoints.len());
        let may_be_empty = self.settings.discover.as_ref().is_some_and(|discover| discover.may_be_empty);
        let mut common = self.shared.common();
        let before = common.members.told(source).error;
        let news = common.members.tell(source, endpoints, may_be_empty, now);
        match &news {
            News::Changed { joined, left } => {
                tracing::info!(%upstream, source = source_name, endpoints = count, joined, left, "endpoints discovered");
            }
            News::Empty => {
                let error = common.members.told(source).error;
                if error != before {
                    let error = error.as_deref();
                    tracing::warn!(%upstream, source = source_name, error, "discovery keeps what was there");
                }
            }
            News::Same if before.is_some() => {
                tracing::info!(%upstream, source = source_name, endpoints = count, "discovery works again");
            }
            News::Same => {}
        }
        if matches!(news, News::Changed { .. }) {
            self.rearrange(common, now);
        }
    }

    /// A source has not answered. What it said last stays.
    fn not_told(&self, source: Source, error: &str) {
        let (upstream, source_name) = (&self.name, source.name());
        if self.shared.common().members.fail(source, error) {
            tracing::warn!(%upstream, source = source_name, error, "discovery fails, what was there stays");
        } else {
            tracing::debug!(%upstream, source = source_name, error, "discovery fails");
        }
    }

    /// The sources that it has, each with what it has said.
    pub fn sources(&self) -> Vec<(Source, Told)> {
        let common = self.shared.common();
        discover::sources(&self.settings)
            .into_iter()
            .map(|source| (source, common.members.told(source)))
            .collect()
    }

    /// Takes a server among the endpoints that registers, or that renews its registration, for some time.
    pub fn register(
        &self,
        endpoint: config::Endpoint,
        lifetime: Duration,
    ) -> Result<Registered, RegisterError> {
        if !self.settings.register {
            return Err(RegisterError::NotTaken);
        }
        if endpoint.is_https && self.tls.endpoints.is_none() {
            return Err(RegisterError::NoTls);
        }
        if self.settings.endpoints.iter().any(|configured| configured.authority == endpoint.authority) {
            return Err(RegisterError::Configured);
        }
        let now = Instant::now();
        let address = endpoint.authority.clone();
        let mut common = self.shared.common();
        let registered = common.members.register(endpoint, now + lifetime)?;
        match registered {
            Registered::New | Registered::Changed => {
                let upstream = &self.name;
                tracing::info!(%upstream, endpoint = %address, "endpoint registered");
                self.rearrange(common, now);
            }
            // It may be that its time is shorter than before.
            Registered::Renewed => {
                drop(common);
                self.shared.changed.send_replace(());
            }
        }
        Ok(registered)
    }

    /// Takes a registered server out: it finishes what it has. False if there is no such one.
    pub fn take_out(&self, address: &str) -> bool {
        let mut common = self.shared.common();
        let was_there = common.members.take_out(address);
        if was_there {
            tracing::info!(upstream = %self.name, endpoint = address, "registered endpoint taken out");
            self.rearrange(common, Instant::now());
        }
        was_there
    }

    /// How long a registered server stays if it does not renew.
    pub fn lifetime(&self, address: &str) -> Option<Duration> {
        self.shared.common().members.lifetime(address, Instant::now())
    }

    /// Takes out the registered servers whose time is over, and says when the next one goes.
    fn expire(&self, now: Instant) -> Option<Instant> {
        let mut common = self.shared.common();
        let gone = common.members.expire(now);
        let next = common.members.next_expiry();
        for endpoint in &gone {
            let (upstream, endpoint) = (&self.name, endpoint.authority.as_str());
            tracing::warn!(%upstream, endpoint, "registered endpoint has not renewed in time");
        }
        if !gone.is_empty() {
            self.rearrange(common, now);
        }
        next
    }

    /// Only what these settings ask for counts from now on.
    fn takes_over(&self) {
        let mut common = self.shared.common();
        common.members.keep_only(&discover::sources(&self.settings), self.settings.register);
        // Even if nothing is forgotten: who was leaving may stand in the configuration now.
        self.rearrange(common, Instant::now());
    }

    /// Brings all upstreams of the name up to what sources say now.
    fn rearrange(&self, mut common: MutexGuard<'_, Common>, now: Instant) {
        let views = common.views();
        let known = known(&views);
        views.iter().for_each(|view| view.assemble(&common.members, &known, Some(now)));
        let is_present: FxHashSet<u64> = views
            .iter()
            .flat_map(|view| view.present().entries.iter().map(|entry| entry.endpoint.id).collect::<Vec<_>>())
            .collect();
        for endpoint in known.values().flatten() {
            let event = if is_present.contains(&endpoint.id) { Event::PutBack } else { Event::TakenOut };
            self.change(endpoint, event, now);
        }
        refresh(common, now);
        drop((known, views));
        self.shared.changed.send_replace(());
    }

    /// Whether there is an endpoint that a request can be brought to.
    pub fn is_usable(&self) -> bool {
        // One that is ejected is tried again by a request.
        let may_serve = |entry: &Entry| match entry.state {
            State::NotInitiated | State::Healthy | State::Ejected => true,
            State::Unreachable | State::Draining => false,
        };
        self.roster().all().iter().any(may_serve)
    }

    /// Whether this would make this very upstream again.
    pub fn is_same(&self, settings: &config::Upstream, tls: &Tls) -> bool {
        self.settings == *settings
            && is_same_tls(self.tls.endpoints.as_ref(), tls.endpoints.as_ref())
            && is_same_tls(self.tls.sources.as_ref(), tls.sources.as_ref())
    }

    /// How whoever is reached by TLS is reached.
    pub fn tls(&self) -> &Tls {
        &self.tls
    }

    /// Who may be picked now. Not to be held for long.
    pub fn roster(&self) -> Guard<Arc<Roster>> {
        self.roster.load()
    }

    /// Lets a request in, or has it wait for others to end.
    pub fn admit(&self) -> Admission {
        if !self.is_limited {
            return Admission::In(None);
        }
        let limiter = &self.shared.limiter;
        match limiter.try_enter() {
            Some(permit) => Admission::In(Some(permit)),
            None => limiter.enter(self.settings.limits.queue).map_or(Admission::Full, Admission::Wait),
        }
    }

    /// Requests at once that the upstream gets now.
    fn limit(&self, roster: &Roster) -> u32 {
        let limits = &self.settings.limits;
        let most = limits.requests.map_or(u32::MAX, NonZero::get);
        let of_endpoints = limits.endpoint_requests.map_or(u32::MAX, |each| {
            each.get().saturating_mul(u32::try_from(roster.usable().len().max(1)).unwrap_or(u32::MAX))
        });
        let adapted = if limits.adaptive { self.gradient().limit().max(1) } else { u32::MAX };
        most.min(of_endpoints).min(adapted)
    }

    fn set_limits(&self, roster: &Roster) {
        self.shared.limiter.set_limit(self.limit(roster));
        if let Some(most) = self.settings.limits.connections {
            roster.all().iter().for_each(|entry| entry.endpoint.connections.set_limit(most.get()));
        }
    }

    /// How many requests it gets and may get, where that is limited.
    pub fn load(&self) -> Option<Load> {
        let limiter = self.is_limited.then_some(&self.shared.limiter)?;
        Some(Load { requests: limiter.inside(), waiting: limiter.waiting(), limit: limiter.limit() })
    }

    fn gradient(&self) -> MutexGuard<'_, Gradient> {
        self.shared.gradient.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the limit follow the latency since the last time.
    fn adapt(&self) {
        let timing = self.shared.timing.swap(0, Ordering::Relaxed);
        let Some(latency) = (timing >> 24).checked_div(timing % (1 << 24)) else { return };
        let limits = &self.settings.limits;
        let most = limits.requests.map_or(Self::ADAPTED, NonZero::get);
        let latency = u32::try_from(latency).unwrap_or(u32::MAX);
        self.gradient().next(latency, self.shared.limiter.inside(), most);
        self.shared.limiter.set_limit(self.limit(&self.roster()));
    }

    /// A limit that adapts grows up to this, unless `requests` says otherwise.
    const ADAPTED: u32 = 1000;

    /// An endpoint has answered a request, after a time, if it was taken.
    pub fn answered(&self, request: &InFlight, status: StatusCode, after: Option<Duration>) {
        let endpoint = request.endpoint();
        endpoint.took(after);
        if let Some(after) = after.filter(|_| self.settings.limits.adaptive) {
            let micros = u64::try_from(after.as_micros()).unwrap_or(u64::MAX).min(1 << 32);
            self.shared.timing.fetch_add((micros << 24) + 1, Ordering::Relaxed);
        }
        if endpoint.failures.load(Ordering::Relaxed) != 0 {
            endpoint.failures.store(0, Ordering::Relaxed);
        }
        let is_error = status.is_server_error();
        if self.is_measured {
            endpoint.interval.fetch_add((1 << 32) + u64::from(is_error), Ordering::Relaxed);
        }
        match (request.trial, is_error) {
            (Trial::No, _) => {}
            (Trial::InPassing | Trial::Claimed, false) => self.note(endpoint, Event::TrialPassed),
            (Trial::Claimed, true) => self.note(endpoint, Event::TrialFailed),
            (Trial::InPassing, true) => {}
        }
        let most = self.settings.outlier.consecutive_errors;
        if !is_error {
            if endpoint.errors.load(Ordering::Relaxed) != 0 {
                endpoint.errors.store(0, Ordering::Relaxed);
            }
        } else if most > 0 && (endpoint.errors.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(most) {
            self.note(endpoint, Event::Failing(Reason::Errors));
        }
    }

    /// A request has got no answer from an endpoint.
    pub fn failed(&self, request: &InFlight, reason: Reason) {
        let endpoint = request.endpoint();
        let failures = endpoint.failures.fetch_add(1, Ordering::Relaxed) + 1;
        let most = self.settings.outlier.consecutive_failures;
        if request.trial == Trial::Claimed {
            self.note(endpoint, Event::TrialFailed);
        } else if most > 0 && failures.is_multiple_of(most) {
            self.note(endpoint, Event::Failing(reason));
        }
    }

    /// Whether one more request may be sent again; if so, it counts as sent again.
    pub fn may_send_again(&self) -> bool {
        let first = |entry: &Entry| entry.endpoint.first_requests();
        let requests = self.roster().all().iter().map(first).sum();
        self.shared.budget.take(requests, self.settings.retry.budget)
    }

    /// Takes note of what happened to an endpoint.
    pub fn note(&self, endpoint: &Endpoint, event: Event) {
        let now = Instant::now();
        let common = self.shared.common();
        if let Event::Failing(reason) = event
            && reason != Reason::NoConnection
            && !self.may_eject()
        {
            return;
        }
        // Its time begins anew, though the state is the same.
        let is_renewed = matches!(event, Event::TrialFailed);
        if self.change(endpoint, event, now) || is_renewed {
            // What is put off is done by whoever keeps the upstream.
            if self.put_off(&common, now).is_none() {
                refresh(common, now);
            }
            self.shared.changed.send_replace(());
        }
    }

    /// Until when rosters are not renewed. Of many endpoints many may change at once, and a roster for each of them
    /// would cost whoever picks, and the balancers that are told of it, more than being told a moment later.
    fn put_off(&self, common: &Common, now: Instant) -> Option<Instant> {
        common.renewed.map(|renewed| renewed + self.pause()).filter(|due| *due > now)
    }

    /// Between two rosters.
    fn pause(&self) -> Duration {
        const FEW: usize = 256;
        const EACH: Duration = Duration::from_micros(10);
        match self.roster().all().len() {
            ..=FEW => Duration::ZERO,
            many => EACH * u32::try_from(many).unwrap_or(u32::MAX),
        }
    }

    /// Changes what is known of an endpoint's health. Whether that changes its state.
    fn change(&self, endpoint: &Endpoint, event: Event, now: Instant) -> bool {
        let (transition, error) = {
            let mut health = endpoint.health();
            let transition = health.note(event, now, &self.settings);
            (transition, transition.and_then(|_| health.last_error.clone()))
        };
        if let Some(Transition { from, to }) = transition {
            let (upstream, endpoint) = (&self.name, endpoint.authority.as_str());
            let (from, to_name) = (from.name(), to.name());
            match to {
                State::Unreachable | State::Ejected => {
                    let error = error.as_deref();
                    tracing::warn!(%upstream, endpoint, from, to = to_name, error, "endpoint is not well");
                }
                State::Healthy | State::NotInitiated | State::Draining => {
                    tracing::info!(%upstream, endpoint, from, to = to_name, "endpoint has changed");
                }
            }
        }
        transition.is_some()
    }

    fn may_eject(&self) -> bool {
        let roster = self.roster();
        let is_out = |entry: &&Entry| entry.endpoint.health().state(&self.settings) == State::Ejected;
        let out = roster.all().iter().filter(is_out).count();
        may_eject(out, roster.all().len(), &self.settings.outlier)
    }

    /// Lets time have its effect, and says when it will have the next.
    fn pass_time(&self, now: Instant) -> Option<Instant> {
        let common = self.shared.common();
        if let Some(due) = self.put_off(&common, now) {
            return Some(due);
        }
        refresh(common, now);
        let next = |entry: &Entry| entry.endpoint.health().next_change(now, &self.settings);
        self.roster().all().iter().filter_map(next).min()
    }

    /// Judges what requests have met since the last time, where that is configured.
    fn judge(&self) {
        let roster = self.roster.load_full();
        let measured: Vec<Measured> = roster.all().iter().map(|entry| entry.endpoint.measured()).collect();
        for (place, reason) in outliers(&measured, &self.settings.outlier) {
            self.note(&roster.all()[place].endpoint, Event::Failing(reason));
        }
    }

    /// The roster as it is to be now.
    fn renew(&self, now: Instant) {
        let before = self.roster.load_full();
        let all = {
            let present = self.present();
            present.entries.iter().chain(&present.leaving).cloned().collect()
        };
        let after = Roster::new(self.name.clone(), all, now, &self.settings, next(), Some(&before));
        if after.is_panicking() != before.is_panicking() {
            let upstream = &self.name;
            match after.is_panicking() {
                true => tracing::warn!(%upstream, "too few endpoints are well, all of them are used"),
                false => tracing::info!(%upstream, "enough endpoints are well, only those are used"),
            }
        }
        self.set_limits(&after);
        self.roster.store(Arc::new(after));
    }
}

impl Shared {
    fn common(&self) -> MutexGuard<'_, Common> {
        self.common.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Common {
    /// All upstreams of the name. To be dropped without the lock, since one may be the last of its kind.
    fn views(&mut self) -> Vec<Arc<Upstream>> {
        self.views.retain(|view| view.strong_count() > 0);
        self.views.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Endpoints by address; of one address there are several if they are reached in different ways.
type Known = FxHashMap<String, SmallVec<[Arc<Endpoint>; 1]>>;

/// All endpoints of these upstreams, those that are leaving included.
fn known(views: &[Arc<Upstream>]) -> Known {
    let mut known = Known::default();
    for view in views {
        let present = view.present();
        for Entry { endpoint, .. } in present.entries.iter().chain(&present.leaving) {
            let same: &mut SmallVec<_> = known.entry(endpoint.authority.to_string()).or_default();
            if !same.iter().any(|known| Arc::ptr_eq(known, endpoint)) {
                same.push(endpoint.clone());
            }
        }
    }
    known
}

/// Renews the rosters of all upstreams of one name.
fn refresh(mut common: MutexGuard<'_, Common>, now: Instant) {
    let views = common.views();
    views.iter().for_each(|view| view.renew(now));
    common.renewed = Some(now);
    drop(common);
    drop(views);
}

fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Endpoint {
    /// How requests to it are spoken of.
    fn scheme(&self) -> uri::Scheme {
        if self.is_https { uri::Scheme::HTTPS } else { uri::Scheme::HTTP }
    }

    fn new(settings: &config::Endpoint, tls: Option<&Arc<Origination>>, joined: Option<Instant>) -> Self {
        let authority = settings.authority.clone();
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = host.parse::<IpAddr>().ok().zip(authority.port_u16()).map(SocketAddr::from);
        Self {
            address: HeaderValue::from_str(authority.as_str()).expect("an authority is visible ASCII"),
            host: HeaderValue::from_str(authority.to_authority().as_str())
                .expect("an authority is visible ASCII"),
            id: next(),
            fixed: address,
            is_guarded: settings.is_guarded,
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
            connections: Limiter::new(u32::MAX),
            is_tried: AtomicBool::new(false),
            health: Mutex::new(Health::new(joined)),
            counts: PerWorker::default(),
        }
    }

    /// Connections are kept for what an endpoint is, so one that is reached otherwise is another.
    fn is_same(&self, settings: &config::Endpoint, tls: Option<&Arc<Origination>>) -> bool {
        let own = self.tls.as_ref().map(|(tls, _)| tls);
        self.authority == settings.authority
            && self.is_https == settings.is_https
            && self.is_guarded == settings.is_guarded
            && is_same_tls(own, tls.filter(|_| settings.is_https))
    }

    /// What it speaks, as far as is known, where this is said of its upstream.
    fn spoken(&self, protocol: Protocol) -> Spoken {
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
    fn note_spoken(&self, has_http2: bool) {
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

    /// Requests that were sent to it before any other endpoint.
    fn first_requests(&self) -> u64 {
        let again = self.again.load(Ordering::Relaxed);
        self.requests().saturating_sub(again)
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

    fn took(&self, after: Option<Duration>) {
        if let Some(after) = after {
            let sample = u32::try_from(after.as_micros()).unwrap_or(u32::MAX).max(1);
            let average = self.latency_us.load(Ordering::Relaxed);
            // Two workers may do this at once and one sample be lost: it is an average.
            let next = if average == 0 { sample } else { average - average / 8 + sample / 8 };
            self.latency_us.store(next.max(1), Ordering::Relaxed);
        }
    }

    /// What requests have met since the last call.
    fn measured(&self) -> Measured {
        let counted = self.interval.swap(0, Ordering::Relaxed);
        Measured {
            requests: (counted >> 32) as u32,
            errors: counted as u32,
            latency_us: self.latency_us.load(Ordering::Relaxed),
        }
    }
}

fn is_same_tls(one: Option<&Arc<Origination>>, other: Option<&Arc<Origination>>) -> bool {
    one.map(Arc::as_ptr) == other.map(Arc::as_ptr)
}

/// How many requests an upstream gets, and may get at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub requests: u32,
    /// For others to end.
    pub waiting: u32,
    pub limit: u32,
}

/// Whether a request may go to an upstream.
#[derive(Debug)]
pub enum Admission {
    In(Option<Permit>),
    Wait(Entering),
    /// As many as may wait do.
    Full,
}

/// One request in flight to an endpoint, for as long as it lives.
#[derive(Debug)]
pub struct InFlight {
    endpoint: Arc<Endpoint>,
    trial: Trial,
}

/// Whether a request tells that an ejected endpoint is well again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    No,
    /// It was sent for that, and is the only one.
    Claimed,
    /// It was sent there for want of others. Its success counts, and not its failure.
    InPassing,
}

impl InFlight {
    fn new(endpoint: Arc<Endpoint>, trial: Trial) -> Self {
        endpoint.requests.fetch_add(BEGUN + 1, Ordering::Relaxed);
        Self { endpoint, trial }
    }

    /// None if as many as `most` are in flight.
    fn within(endpoint: &Arc<Endpoint>, trial: Trial, most: Option<NonZero<u32>>) -> Option<Self> {
        let Some(most) = most else { return Some(Self::new(endpoint.clone(), trial)) };
        let before = endpoint.requests.fetch_add(BEGUN + 1, Ordering::Relaxed);
        if before % BEGUN >= u64::from(most.get()) {
            endpoint.requests.fetch_sub(BEGUN + 1, Ordering::Relaxed);
            return None;
        }
        Some(Self { endpoint: endpoint.clone(), trial })
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.endpoint.requests.fetch_sub(1, Ordering::Relaxed);
        if self.trial == Trial::Claimed {
            self.endpoint.is_tried.store(false, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
