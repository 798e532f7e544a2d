//! Is an endpoint well?
//!
//! What is known of one endpoint, and how it changes: what happened and when go in, the state comes out. Nothing
//! here waits, looks at a clock, or knows of other endpoints but by their number.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::config;

/// Whether an endpoint gets requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// No check has told yet. Gets requests while nobody is healthy.
    NotInitiated,
    Healthy,
    /// Checks fail, or there is no connection.
    Unreachable,
    /// Taken out for what requests have met, for some time.
    Ejected,
    /// Taken out by an operator, or by itself. Finishes what it has.
    Draining,
}

impl State {
    pub const ALL: [Self; 5] =
        [Self::NotInitiated, Self::Healthy, Self::Unreachable, Self::Ejected, Self::Draining];

    /// As the configuration, logs and the admin API call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotInitiated => "not-initiated",
            Self::Healthy => "healthy",
            Self::Unreachable => "unreachable",
            Self::Ejected => "ejected",
            Self::Draining => "draining",
        }
    }
}

/// What happened to an endpoint.
#[derive(Debug, Clone)]
pub enum Event {
    CheckPassed,
    /// With what went wrong.
    CheckFailed(Arc<str>),
    /// Requests have met what takes an endpoint out, and what the last of them has met, where that says more.
    Failing(Reason, Option<Arc<str>>),
    /// A request that tried out whether an ejected endpoint is well again.
    ProbePassed,
    ProbeFailed,
    /// It is to get no more requests.
    TakenOut,
    /// It is to get requests again.
    PutBack,
}

/// Why requests say that an endpoint is unhealthy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NoConnection,
    NoAnswer,
    FailureRate,
    Errors,
    ErrorRate,
    Slow,
}

impl Reason {
    pub fn text(self) -> &'static str {
        match self {
            Self::NoConnection => "no connection, again and again",
            Self::NoAnswer => "no answer, again and again",
            Self::FailureRate => "no answer to too many requests",
            Self::Errors => "answers of 500 and above, again and again",
            Self::ErrorRate => "too many answers of 500 and above",
            Self::Slow => "much slower than the others",
        }
    }

    /// Whether it is found by comparing what endpoints have done in an interval.
    fn is_of_an_interval(self) -> bool {
        match self {
            Self::NoConnection | Self::NoAnswer | Self::Errors => false,
            Self::FailureRate | Self::ErrorRate | Self::Slow => true,
        }
    }
}

/// What is known of the health of one endpoint.
#[derive(Debug, Clone)]
pub struct Health {
    /// What checks say.
    checked: Checked,
    /// Checks in a row that say otherwise.
    contrary: u32,
    ejection: Option<Ejection>,
    /// The last ejection that is over, and when it ended.
    served: Option<(Ejection, Instant)>,
    is_taken_out: bool,
    /// When it began to be healthy, unless that was from the start.
    healthy_since: Option<Instant>,
    pub failed_checks: u64,
    pub passed_checks: u64,
    /// When a check or a request last found it well.
    pub last_healthy: Option<Instant>,
    pub last_error: Option<Arc<str>>,
    pub last_transition: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Checked {
    NotYet,
    Well,
    Unwell,
}

#[derive(Debug, Clone, Copy)]
struct Ejection {
    until: Instant,
    lasts: Duration,
}

/// From one state to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Transition {
    pub from: State,
    pub to: State,
}

impl Health {
    /// Of an endpoint that is new. One that joins others, at a time, begins slowly where that is configured.
    pub fn new(joined: Option<Instant>) -> Self {
        Self {
            checked: Checked::NotYet,
            contrary: 0,
            ejection: None,
            served: None,
            is_taken_out: false,
            healthy_since: joined,
            failed_checks: 0,
            passed_checks: 0,
            last_healthy: None,
            last_error: None,
            last_transition: None,
        }
    }

    /// Without checks an endpoint is well until requests say otherwise.
    pub fn state(&self, settings: &config::Upstream) -> State {
        if self.is_taken_out {
            return State::Draining;
        }
        match self.checked {
            Checked::Unwell if settings.health.is_some() => State::Unreachable,
            _ if self.ejection.is_some() => State::Ejected,
            Checked::NotYet if settings.health.is_some() => State::NotInitiated,
            _ => State::Healthy,
        }
    }

    /// Takes note of what happened.
    pub fn note(&mut self, event: Event, now: Instant, settings: &config::Upstream) -> Option<Transition> {
        let from = self.state(settings);
        match event {
            Event::CheckPassed => {
                self.passed_checks += 1;
                self.last_healthy = Some(now);
                self.contrary = if self.checked == Checked::Well { 0 } else { self.contrary + 1 };
                let enough = settings.health.as_ref().map_or(1, |health| health.healthy_after.get());
                // The first word there is decides at once.
                if self.checked == Checked::NotYet || self.contrary >= enough {
                    self.checked = Checked::Well;
                    self.contrary = 0;
                }
                // A check is the probe, once the time is over.
                if self.ejection.is_some_and(|ejection| ejection.until <= now) {
                    self.readmit(now);
                }
            }
            Event::CheckFailed(error) => {
                self.failed_checks += 1;
                self.last_error = Some(error);
                self.contrary = if self.checked == Checked::Unwell { 0 } else { self.contrary + 1 };
                let enough = settings.health.as_ref().map_or(1, |health| health.unhealthy_after.get());
                if self.checked == Checked::NotYet || self.contrary >= enough {
                    self.checked = Checked::Unwell;
                    self.contrary = 0;
                }
            }
            Event::Failing(reason, last) => {
                // What stands out again while it is left out is no news.
                if self.ejection.is_none() || !reason.is_of_an_interval() {
                    self.last_error = Some(match last {
                        Some(last) => format!("{}: {last}", reason.text()).into(),
                        None => reason.text().into(),
                    });
                }
                if reason == Reason::NoConnection && settings.health.is_some() {
                    // What a check would find as well, and is to find over.
                    self.checked = Checked::Unwell;
                    self.contrary = 0;
                } else if self.ejection.is_none() {
                    self.eject(now, &settings.outlier);
                }
            }
            Event::ProbePassed => {
                self.last_healthy = Some(now);
                self.readmit(now);
            }
            Event::ProbeFailed => {
                if self.ejection.is_some() {
                    self.readmit(now);
                    self.eject(now, &settings.outlier);
                }
            }
            Event::TakenOut => self.is_taken_out = true,
            Event::PutBack => self.is_taken_out = false,
        }
        let to = self.state(settings);
        (from != to).then(|| {
            self.last_transition = Some(now);
            if to == State::Healthy {
                self.healthy_since = Some(now);
            }
            Transition { from, to }
        })
    }

    /// For longer than the last time if that has not helped for as long as it took.
    fn eject(&mut self, now: Instant, outlier: &config::Outlier) {
        let first = outlier.eject.get();
        let lasts = match self.served.take() {
            Some((last, ended)) if now.saturating_duration_since(ended) < last.lasts => {
                (last.lasts * 2).min(outlier.eject_max.get()).max(first)
            }
            _ => first,
        };
        self.ejection = Some(Ejection { until: now + lasts, lasts });
    }

    fn readmit(&mut self, now: Instant) {
        if let Some(ejection) = self.ejection.take() {
            self.served = Some((ejection, now));
        }
    }

    /// From when on a request may try out whether an ejected endpoint is well again. Not where checks do that.
    pub fn probe_from(&self, settings: &config::Upstream) -> Option<Instant> {
        self.ejection.filter(|_| settings.health.is_none()).map(|ejection| ejection.until)
    }

    /// How much of its weight counts: it grows from a tenth to the whole over `slow-start`, in tenths.
    pub fn tenths(&self, now: Instant, settings: &config::Upstream) -> u32 {
        let (Some(over), Some(since)) = (settings.slow_start, self.healthy_since) else { return 10 };
        let passed = now.saturating_duration_since(since).as_secs_f64() / over.get().as_secs_f64();
        // At most ten, at least one.
        (passed * 10.0).min(9.0) as u32 + 1
    }

    /// When time alone will change something, after `now`.
    pub fn next_change(&self, now: Instant, settings: &config::Upstream) -> Option<Instant> {
        let ramp = || {
            let (over, since) = (settings.slow_start?.get(), self.healthy_since?);
            let tenths = self.tenths(now, settings);
            (tenths < 10).then(|| since + over * tenths / 10)
        };
        let probe = self.probe_from(settings).filter(|from| *from > now);
        [probe, ramp()].into_iter().flatten().min()
    }
}

/// Whether one more endpoint may be taken out for what requests met, of `count` of which `out` are out.
pub fn may_eject(out: usize, count: usize, settings: &config::Outlier) -> bool {
    (out + 1) as f64 <= count as f64 * settings.share_max.get()
}

/// Which of the endpoints may be picked.
#[derive(Debug, PartialEq, Eq)]
pub enum Usable {
    /// Those that are healthy.
    Healthy,
    /// Nobody is healthy yet: those that have not been checked.
    NotInitiated,
    /// Too few are healthy: all, but for those that drain.
    All,
}

/// Decides which endpoints may be picked.
pub fn usable(states: impl Iterator<Item = State>, panic_threshold: config::Share) -> Usable {
    let (mut healthy, mut unwell, mut unknown) = (0_u32, 0_u32, 0_u32);
    for state in states {
        match state {
            State::Healthy => healthy += 1,
            State::Unreachable | State::Ejected => unwell += 1,
            State::NotInitiated => unknown += 1,
            State::Draining => {}
        }
    }
    match (healthy, unknown) {
        (0, 1..) => Usable::NotInitiated,
        (0, 0) => Usable::All,
        _ if f64::from(healthy) < f64::from(healthy + unwell) * panic_threshold.get() => Usable::All,
        _ => Usable::Healthy,
    }
}

impl Usable {
    /// Whether an endpoint in this state is one of them.
    pub fn includes(&self, state: State) -> bool {
        match self {
            Self::Healthy => state == State::Healthy,
            Self::NotInitiated => state == State::NotInitiated,
            Self::All => state != State::Draining,
        }
    }
}

/// The endpoints whose requests of the last interval put them apart from the others, and why.
pub fn outliers(measured: &[Measured], settings: &config::Outlier) -> Vec<(usize, Reason)> {
    let judged = |measured: &&Measured| measured.requests >= settings.min_requests.max(1);
    let mut latencies: Vec<u32> =
        measured.iter().filter(judged).map(|one| one.latency_us).filter(|latency| *latency > 0).collect();
    latencies.sort_unstable();
    // Two cannot tell which of them is the odd one out.
    let middle = (latencies.len() >= 3).then(|| latencies[(latencies.len() - 1) / 2]);
    let sum = |of: fn(&Measured) -> u32| measured.iter().map(|one| u64::from(of(one))).sum::<u64>() as f64;
    let (lost, ended) = (sum(|one| one.lost), sum(|one| one.ended));
    // What all endpoints fail at is the fault of none.
    let stands_out = |one: &Measured| {
        let rate = f64::from(one.lost) / f64::from(one.ended);
        let of_others = (lost - f64::from(one.lost)) / (ended - f64::from(one.ended)).max(1.0);
        one.ended >= settings.min_requests.max(1)
            && rate > settings.failure_rate.get()
            && rate > 2.0 * of_others
    };
    let reason = |one: &Measured| {
        if stands_out(one) {
            return Some(Reason::FailureRate);
        }
        if !judged(&one) {
            return None;
        }
        let rate = f64::from(one.errors) / f64::from(one.requests);
        if settings.error_rate.is_some_and(|most| rate > most.get()) {
            return Some(Reason::ErrorRate);
        }
        let most = f64::from(middle?) * settings.latency_factor?;
        (f64::from(one.latency_us) > most).then_some(Reason::Slow)
    };
    let judge = |(index, one)| Some((index, reason(one)?));
    measured.iter().enumerate().filter_map(judge).collect()
}

/// What requests to one endpoint met in an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Requests that have ended, and those of them without an answer.
    pub ended: u32,
    pub lost: u32,
    /// Requests that ended, where answers are looked at.
    pub requests: u32,
    /// Answers of 500 and above.
    pub errors: u32,
    /// To the head of the response, on average; 0 if not known.
    pub latency_us: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> config::Upstream {
        toml::from_str(&format!("endpoints = []\n{text}")).unwrap()
    }

    fn failed() -> Event {
        Event::CheckFailed("refused".into())
    }

    const CHECKED: &str = "health = { unhealthy-after = 3, healthy-after = 2 }";

    /// The states after each event, at seconds.
    #[track_caller]
    fn goes(settings_text: &str, story: &[(u64, Event, State)]) {
        let settings = settings(settings_text);
        let start = Instant::now();
        let mut health = Health::new(None);
        for (index, (second, event, expected)) in story.iter().enumerate() {
            let before = health.state(&settings);
            let now = start + Duration::from_secs(*second);
            let transition = health.note(event.clone(), now, &settings);
            assert_eq!(health.state(&settings), *expected, "after {index}: {event:?}");
            let transition_of = transition.map(|transition| (transition.from, transition.to));
            assert_eq!(
                transition_of,
                (before != *expected).then_some((before, *expected)),
                "at {index}: {event:?}"
            );
        }
    }

    #[test]
    fn checks_decide_at_first_and_then_in_a_row() {
        use Event::CheckPassed;
        use State::{Healthy, Unreachable};
        goes(
            CHECKED,
            &[
                (0, CheckPassed, Healthy),
                (1, failed(), Healthy),
                (2, failed(), Healthy),
                (3, CheckPassed, Healthy),
                (4, failed(), Healthy),
                (5, failed(), Healthy),
                (6, failed(), Unreachable),
                (7, CheckPassed, Unreachable),
                (8, failed(), Unreachable),
                (9, CheckPassed, Unreachable),
                (10, CheckPassed, Healthy),
            ],
        );
        goes(CHECKED, &[(0, failed(), Unreachable)]);
        assert_eq!(Health::new(None).state(&settings(CHECKED)), State::NotInitiated);
        assert_eq!(Health::new(None).state(&settings("")), Healthy, "without checks");
    }

    #[test]
    fn requests_without_a_connection_say_what_a_check_would() {
        let gone = Event::Failing(Reason::NoConnection, None);
        goes(
            "health = {}",
            &[
                (0, Event::CheckPassed, State::Healthy),
                (1, gone.clone(), State::Unreachable),
                (1, failed(), State::Unreachable),
                (2, Event::CheckPassed, State::Healthy),
            ],
        );
        goes("", &[(0, gone, State::Ejected), (1, Event::ProbePassed, State::Healthy)]);
    }

    #[test]
    fn an_ejection_ends_by_a_check_or_a_probe_after_its_time() {
        use State::{Ejected, Healthy};
        let errors = Event::Failing(Reason::Errors, None);
        goes(
            "outlier.eject = '10s'\nhealth = {}",
            &[
                (0, Event::CheckPassed, Healthy),
                (1, errors.clone(), Ejected),
                (2, Event::CheckPassed, Ejected),
                (11, Event::CheckPassed, Healthy),
            ],
        );
        goes(
            "outlier.eject = '10s'",
            &[(0, errors, Ejected), (11, Event::ProbeFailed, Ejected), (40, Event::ProbePassed, Healthy)],
        );
    }

    #[test]
    fn ejections_grow_while_they_do_not_last() {
        let settings = settings("outlier = { eject = '10s', eject-max = '30s' }");
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut health = Health::new(None);
        let mut ejected = |from: u64, event: Event| {
            health.note(event, at(from), &settings);
            let until = health.probe_from(&settings);
            until.map(|until| until.duration_since(start).as_secs() - from)
        };
        let failing = || Event::Failing(Reason::NoAnswer, None);
        assert_eq!(ejected(0, failing()), Some(10));
        assert_eq!(ejected(5, failing()), Some(5), "what was under way adds nothing");
        assert_eq!(ejected(10, Event::ProbeFailed), Some(20));
        assert_eq!(ejected(30, Event::ProbeFailed), Some(30), "no longer than allowed");
        assert_eq!(ejected(60, Event::ProbePassed), None);
        assert_eq!(ejected(80, failing()), Some(30), "well for less time than it was out");
        assert_eq!(ejected(110, Event::ProbePassed), None);
        assert_eq!(ejected(141, failing()), Some(10), "well for longer");
    }

    #[test]
    fn a_probe_without_an_ejection_changes_nothing() {
        goes("", &[(0, Event::ProbeFailed, State::Healthy), (0, Event::ProbePassed, State::Healthy)]);
    }

    #[test]
    fn what_is_taken_out_drains_whatever_is_found() {
        use State::{Draining, Healthy, Unreachable};
        goes(
            "health = {}",
            &[
                (0, Event::CheckPassed, Healthy),
                (1, Event::TakenOut, Draining),
                (2, failed(), Draining),
                (3, failed(), Draining),
                (4, failed(), Draining),
                (5, Event::PutBack, Unreachable),
            ],
        );
    }

    #[test]
    fn weight_grows_after_joining_and_recovering() {
        let settings = settings("slow-start = '10s'");
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut health = Health::new(Some(start));
        for (millis, tenths, next) in [
            (0, 1, Some(1000)),
            (999, 1, Some(1000)),
            (1000, 2, Some(2000)),
            (5500, 6, Some(6000)),
            (9000, 10, None),
            (60_000, 10, None),
        ] {
            assert_eq!(health.tenths(at(millis), &settings), tenths, "{millis}");
            assert_eq!(health.next_change(at(millis), &settings), next.map(at), "{millis}");
        }
        health.note(Event::Failing(Reason::NoAnswer, None), at(70_000), &settings);
        assert_eq!(health.next_change(at(70_000), &settings), Some(at(80_000)), "a probe");
        health.note(Event::ProbePassed, at(80_000), &settings);
        assert_eq!(health.tenths(at(80_000), &settings), 1);
        assert_eq!(Health::new(None).tenths(start, &settings), 10, "there from the start");
        assert_eq!(Health::new(Some(start)).tenths(start, &self::settings("")), 10, "not configured");
    }

    #[test]
    fn who_may_be_picked() {
        use State::{Draining as D, Ejected as E, Healthy as H, NotInitiated as N, Unreachable as U};
        for (states, threshold, expected) in [
            (&[H, H, U][..], 0.5, Usable::Healthy),
            (&[H, U, U], 0.5, Usable::All),
            (&[H, E, E], 0.5, Usable::All),
            (&[H, U, U], 0.0, Usable::Healthy),
            (&[U, E], 0.0, Usable::All),
            (&[N, N, U], 0.5, Usable::NotInitiated),
            (&[H, N, N, N], 0.5, Usable::Healthy),
            (&[H, D, D, D], 0.5, Usable::Healthy),
            (&[D], 0.5, Usable::All),
            (&[], 0.5, Usable::All),
        ] {
            let found = usable(states.iter().copied(), config::Share::new(threshold));
            assert_eq!(found, expected, "{states:?} {threshold}");
        }
        assert!(!Usable::All.includes(D));
        assert!(Usable::All.includes(U) && !Usable::Healthy.includes(N) && !Usable::NotInitiated.includes(U));
    }

    #[test]
    fn at_most_a_share_is_taken_out() {
        let outlier = settings("outlier.share-max = 0.5").outlier;
        for (out, count, may) in [(0, 1, false), (0, 2, true), (1, 3, false), (1, 4, true), (2, 4, false)] {
            assert_eq!(may_eject(out, count, &outlier), may, "{out} of {count}");
        }
    }

    #[test]
    fn the_odd_ones_out_are_found() {
        let one =
            |requests, errors, latency_us| Measured { requests, errors, latency_us, ..Measured::default() };
        let outlier =
            settings("outlier = { error-rate = 0.5, latency-factor = 3, min-requests = 10 }").outlier;
        for (measured, expected) in [
            (&[one(100, 51, 10), one(100, 50, 10)][..], &[(0, Reason::ErrorRate)][..]),
            (&[one(9, 9, 10), one(0, 0, 0)], &[]),
            (&[one(10, 0, 100), one(10, 0, 100), one(10, 0, 301)], &[(2, Reason::Slow)]),
            (&[one(10, 0, 100), one(10, 0, 100), one(9, 0, 301)], &[]),
            (&[one(10, 0, 100), one(10, 0, 1000)], &[]),
            (&[one(10, 0, 100), one(10, 0, 0), one(10, 0, 1000)], &[]),
            (&[one(10, 0, 100), one(10, 0, 500), one(10, 0, 500), one(10, 0, 501)], &[]),
        ] {
            assert_eq!(outliers(measured, &outlier), expected, "{measured:?}");
        }
        let nothing = settings("outlier.failure-rate = 1").outlier;
        assert_eq!(outliers(&[one(100, 100, 1), one(100, 0, 1), one(100, 0, 999)], &nothing), []);
    }

    #[test]
    fn an_endpoint_that_fails_more_often_than_the_others_is_an_outlier() {
        let one = |ended, lost| Measured { ended, lost, ..Measured::default() };
        for (measured, expected) in [
            (&[one(100, 50), one(100, 0), one(100, 0)][..], &[(0, Reason::FailureRate)][..]),
            (&[one(100, 30), one(100, 0)], &[]),
            (&[one(100, 31), one(100, 0)], &[(0, Reason::FailureRate)]),
            (&[one(19, 19), one(100, 0)], &[]),
            (&[one(100, 100), one(100, 60), one(100, 40)], &[]),
            (&[one(100, 50), one(100, 50)], &[]),
            (&[one(100, 100)], &[(0, Reason::FailureRate)]),
            (&[one(0, 0), one(0, 0)], &[]),
        ] {
            assert_eq!(outliers(measured, &settings("").outlier), expected, "{measured:?}");
        }
    }
}
