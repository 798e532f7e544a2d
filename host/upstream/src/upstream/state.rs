//! What do all workers know of an upstream, and how does that change?
//!
//! Endpoints join and leave, requests and checks tell how they do, and limits follow. Whatever changes what may be picked
//! puts another [`Roster`] in place. The upstreams of one name share what is known, in all generations.

use std::{
    net::SocketAddr,
    num::NonZero,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::{ArcSwap, Guard};
use http::StatusCode;
use rustc_hash::{FxHashMap, FxHashSet};
use smallvec::SmallVec;
use tokio::sync::watch;

use super::{
    adapt::Gradient,
    budget::Budget,
    endpoint::{Endpoint, InFlight, Probe, is_same_tls},
    health::{Event, Measured, Reason, State, Transition, may_eject, outliers},
    limit::{Admission, Limiter, Load},
    members::{Members, News, RegisterError, Registered, Source, SourceReport, sources},
    number, reach,
    roster::{Entry, Roster},
};
use crate::{
    config::{self, Protocol, UpstreamTimeouts},
    telemetry::sampled,
    tls::Origination,
};

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
    /// SourceReport when time may have another meaning: there is something new to wait for.
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
        let empty = Roster::new(name.clone(), Vec::new(), now, settings, number::next(), None);
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
            number::next(),
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
    pub(super) fn see_off(&self, now: Instant) -> bool {
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
    pub(super) fn report(&self, source: Source, endpoints: Vec<config::Endpoint>) {
        let now = Instant::now();
        let (upstream, source_name, count) = (&self.name, source.name(), endpoints.len());
        let may_be_empty = self.settings.discover.as_ref().is_some_and(|discover| discover.may_be_empty);
        let mut common = self.shared.common();
        let before = common.members.report(source).error;
        let news = common.members.tell(source, endpoints, may_be_empty, now);
        match &news {
            News::Changed { joined, left } => {
                tracing::info!(%upstream, source = source_name, endpoints = count, joined, left, "endpoints discovered");
            }
            News::Empty => {
                let error = common.members.report(source).error;
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
    pub(super) fn not_told(&self, source: Source, error: &str) {
        let (upstream, source_name) = (&self.name, source.name());
        if self.shared.common().members.fail(source, error) {
            tracing::warn!(%upstream, source = source_name, error, "discovery fails, what was there stays");
        } else {
            tracing::debug!(%upstream, source = source_name, error, "discovery fails");
        }
    }

    /// The sources that it has, each with what it has said.
    pub fn sources(&self) -> Vec<(Source, SourceReport)> {
        let common = self.shared.common();
        sources(&self.settings).into_iter().map(|source| (source, common.members.report(source))).collect()
    }

    /// Takes a server among the endpoints that registers, or that renews its registration, for some time.
    pub fn register(
        &self,
        mut endpoint: config::Endpoint,
        lifetime: Duration,
        admin: Option<SocketAddr>,
    ) -> Result<Registered, RegisterError> {
        let Some(register) = &self.settings.register else { return Err(RegisterError::NotTaken) };
        let reach = config::Reach::Guarded { networks: register.networks.clone(), admin };
        // A name is looked at whenever a connection is made: it may lead elsewhere by then.
        let host = endpoint.authority.host().trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = host.parse()
            && !reach::allows(&reach, SocketAddr::new(ip, endpoint.authority.port_u16().unwrap_or(80)))
        {
            return Err(RegisterError::NotAllowed(ip));
        }
        endpoint.reach = reach;
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

    /// Whether the configuration names an endpoint of this address.
    pub fn configures(&self, address: &str) -> bool {
        self.settings.endpoints.iter().any(|configured| configured.authority.as_str() == address)
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
    pub(super) fn expire(&self, now: Instant) -> Option<Instant> {
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
    pub(super) fn takes_over(&self) {
        let mut common = self.shared.common();
        common.members.keep_only(&sources(&self.settings), self.settings.register.is_some());
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

    /// Whether requests are answered, as far as is known: by an endpoint that is well or not found out about, one that is to
    /// be tried again, or, where too few are well and all are used, one that has answered the last request.
    pub fn is_usable(&self) -> bool {
        let now = Instant::now();
        let is_to_be_tried = |entry: &Entry| {
            entry.endpoint.health().probe_from(&self.settings).is_some_and(|from| from <= now)
        };
        let may_serve = |entry: &Entry| match entry.state {
            State::NotInitiated | State::Healthy => true,
            State::Unreachable => entry.endpoint.has_proved_itself(),
            State::Ejected => is_to_be_tried(entry),
            State::Draining => false,
        };
        self.roster().usable().iter().any(may_serve)
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

    /// Tells when there may be something new to wait for.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changed.subscribe()
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
        let most = self.settings.limits.connections.map_or(u32::MAX, NonZero::get);
        roster.all().iter().for_each(|entry| entry.endpoint.connections.set_limit(most));
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
    pub(super) fn adapt(&self) {
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
        match (request.probe, is_error) {
            (Probe::No, _) => {}
            (Probe::InPassing | Probe::Claimed, false) => self.note(endpoint, Event::ProbePassed),
            (Probe::Claimed, true) => self.note(endpoint, Event::ProbeFailed),
            (Probe::InPassing, true) => {}
            (Probe::Unwell, is_error) => endpoint.has_proved_itself.store(!is_error, Ordering::Relaxed),
        }
        let most = self.settings.outlier.consecutive_errors;
        if !is_error {
            if endpoint.errors.load(Ordering::Relaxed) != 0 {
                endpoint.errors.store(0, Ordering::Relaxed);
            }
        } else if most > 0 && (endpoint.errors.fetch_add(1, Ordering::Relaxed) + 1).is_multiple_of(most) {
            let last = format!("the last was {status}");
            self.note(endpoint, Event::Failing(Reason::Errors, Some(last.into())));
        }
    }

    /// A request has got no answer from an endpoint; `error` says what it has met.
    pub fn failed(&self, request: &InFlight, reason: Reason, error: impl FnOnce() -> String) {
        let endpoint = request.endpoint();
        if request.is_outdated() {
            endpoint.outdated_failures.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let error: Arc<str> = error().into();
        endpoint.note_failure(error.clone());
        let failures = endpoint.failures.fetch_add(1, Ordering::Relaxed) + 1;
        if self.is_measured {
            // Who gets no answer is not better off than who gets an error.
            endpoint.interval.fetch_add((1 << 32) + 1, Ordering::Relaxed);
        }
        let most = self.settings.outlier.consecutive_failures;
        if request.probe == Probe::Unwell {
            endpoint.has_proved_itself.store(false, Ordering::Relaxed);
        }
        if request.probe == Probe::Claimed {
            self.note(endpoint, Event::ProbeFailed);
        } else if most > 0 && failures.is_multiple_of(most) {
            self.note(endpoint, Event::Failing(reason, Some(error)));
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
        if let Event::Failing(reason, _) = &event
            && *reason != Reason::NoConnection
            && !self.may_eject()
        {
            return;
        }
        // Its time begins anew, though the state is the same.
        let is_renewed = matches!(event, Event::ProbeFailed);
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
    pub(super) fn pause(&self) -> Duration {
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
        if transition.is_some() {
            endpoint.has_proved_itself.store(false, Ordering::Relaxed);
        }
        if let Some(Transition { to: State::Healthy, .. }) = transition {
            endpoint.recovered();
        }
        if let Some(Transition { from, to }) = transition {
            let (upstream, endpoint) = (&self.name, endpoint.authority.as_str());
            let (from, to_name) = (from.name(), to.name());
            match to {
                State::Unreachable | State::Ejected => {
                    let error = error.as_deref();
                    sampled!(warn, of: (upstream, endpoint), %upstream, endpoint, from, to = to_name, error, "endpoint is unhealthy");
                }
                State::Healthy | State::NotInitiated | State::Draining => {
                    sampled!(info, of: (upstream, endpoint), %upstream, endpoint, from, to = to_name, "endpoint has changed");
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
    pub(super) fn pass_time(&self, now: Instant) -> Option<Instant> {
        let common = self.shared.common();
        if let Some(due) = self.put_off(&common, now) {
            return Some(due);
        }
        refresh(common, now);
        let next = |entry: &Entry| entry.endpoint.health().next_change(now, &self.settings);
        self.roster().all().iter().filter_map(next).min()
    }

    /// Judges what requests have met since the last time.
    pub(super) fn judge(&self) {
        let roster = self.roster.load_full();
        let measured: Vec<Measured> = roster.all().iter().map(|entry| entry.endpoint.measured()).collect();
        for (index, reason) in outliers(&measured, &self.settings.outlier) {
            let endpoint = &roster.all()[index].endpoint;
            let cause = if reason == Reason::FailureRate { endpoint.last_failure() } else { None };
            self.note(endpoint, Event::Failing(reason, cause));
        }
    }

    /// The roster as it is to be now.
    fn renew(&self, now: Instant) {
        let before = self.roster.load_full();
        let all = {
            let present = self.present();
            present.entries.iter().chain(&present.leaving).cloned().collect()
        };
        let after = Roster::new(self.name.clone(), all, now, &self.settings, number::next(), Some(&before));
        if after.is_panicking() != before.is_panicking() {
            let upstream = &self.name;
            match after.is_panicking() {
                true => {
                    sampled!(warn, of: upstream, %upstream, "too few endpoints healthy, using all of them");
                }
                false => {
                    sampled!(info, of: upstream, %upstream, "enough endpoints healthy, using only those");
                }
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
