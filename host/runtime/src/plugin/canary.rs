//! Is a new version of a plugin as good as the one in force?
//!
//! For a time both serve, each a part of the requests, and what they come to is compared. Requests are dealt by their ids,
//! so all that a plugin does for one is done by one version. What is compared, when, and what a difference has to be that
//! counts is a matter of numbers and time alone ([`judge`]); the rest is counting.

use std::{
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{CallError, Digest, FailureKind};
use crate::{
    config::Canary,
    telemetry::{Page, PerWorker, Tally, Writer},
};

/// Two versions of a plugin that serve beside each other, and what has come of it.
#[derive(Debug)]
pub struct Comparison {
    /// When it began.
    pub since: SystemTime,
    began: Instant,
    /// So that no two comparisons deal requests alike.
    seed: u64,
    counts: PerWorker<Counts>,
    /// How often what has failed was compared.
    looks: Mutex<u32>,
    ended: OnceLock<Ended>,
}

/// One of the versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    InForce,
    Candidate,
}

impl Side {
    pub const ALL: [Self; 2] = [Self::InForce, Self::Candidate];

    pub fn name(self) -> &'static str {
        match self {
            Self::InForce => "in-force",
            Self::Candidate => "candidate",
        }
    }
}

/// How a comparison has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// The candidate takes over.
    Passed,
    /// It does not, and why.
    Failed(String),
    /// It does not, since somebody says so.
    TakenBack,
}

#[derive(Debug, Default)]
struct Counts([OfSide; Side::ALL.len()]);

#[derive(Debug, Default)]
struct OfSide {
    calls: Tally,
    crashes: Tally,
    requests: Tally,
    failed: Tally,
}

/// What was seen of a version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Calls of `on-request`, `on-response` and `pick`.
    pub calls: u64,
    /// Those that trapped, took too long, wanted too much memory, or found no instance.
    pub crashes: u64,
    /// Requests that it had a call for, and that have ended.
    pub requests: u64,
    /// Those of which a call failed or that were answered with 5xx.
    pub failed: u64,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing yet.
    GoesOn,
    /// The candidate takes over.
    Passes,
    /// It is taken back, for this reason.
    Fails(String),
}

impl Comparison {
    /// Of a candidate with this digest, from now on.
    pub fn new(candidate: Digest) -> Self {
        let seed = candidate.bytes()[..8].iter().fold(0, |seed, byte| (seed << 8) | u64::from(*byte));
        Self {
            since: SystemTime::now(),
            began: Instant::now(),
            seed,
            counts: PerWorker::default(),
            looks: Mutex::default(),
            ended: OnceLock::new(),
        }
    }

    /// Which version decides the request with this id. The one in force, once the candidate is not to take over.
    pub fn side(&self, request: Option<&HeaderValue>, share: f64) -> Side {
        match self.ended.get() {
            None | Some(Ended::Passed) => {}
            Some(Ended::Failed(_) | Ended::TakenBack) => return Side::InForce,
        }
        let id = request.map(HeaderValue::as_bytes).unwrap_or_default();
        // The upper 53 bits, as many as such a number holds.
        let place = (xxh3_64_with_seed(id, self.seed) >> 11) as f64 / (1_u64 << 53) as f64;
        if place < share { Side::Candidate } else { Side::InForce }
    }

    /// Counts a call.
    pub fn called(&self, writer: Writer, side: Side, error: Option<&CallError>) {
        let counts = &self.counts.of(writer).0[side as usize];
        counts.calls.add(1);
        counts.crashes.add(error.is_some_and(|error| FailureKind::from(error).is_crash()).into());
    }

    /// Counts a request that has ended.
    pub fn decided(&self, writer: Writer, side: Side, has_failed: bool) {
        let counts = &self.counts.of(writer).0[side as usize];
        counts.requests.add(1);
        counts.failed.add(has_failed.into());
    }

    /// What was seen of a version.
    pub fn seen(&self, side: Side) -> Seen {
        let sum = |count: fn(&OfSide) -> &Tally| self.counts.sum(|counts| count(&counts.0[side as usize]));
        Seen {
            calls: sum(|counts| &counts.calls),
            crashes: sum(|counts| &counts.crashes),
            requests: sum(|counts| &counts.requests),
            failed: sum(|counts| &counts.failed),
        }
    }

    /// How it has ended, if it has.
    pub fn ended(&self) -> Option<&Ended> {
        self.ended.get()
    }

    /// It ends. False if it had before.
    pub fn end(&self, ended: Ended) -> bool {
        self.ended.set(ended).is_ok()
    }

    /// What is to be done now.
    pub fn judge(&self, rule: &Canary) -> Judgement {
        let mut looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        let [in_force, candidate] = Side::ALL.map(|side| self.seen(side));
        judge(in_force, candidate, rule, self.began.elapsed(), &mut looks)
    }
}

/// How likely it may be that a candidate as good as the one in force is taken back, over the whole of its time.
const MISTAKES: f64 = 0.01;

/// From one look to the next, the candidate has decided so many times as many requests.
const NEXT_LOOK: f64 = 1.25;

/// What is to be done after this time. `looks` counts how often shares were compared.
///
/// Shares are compared by Fisher's exact test, of one side: how likely is it that of all that failed so many fell to the
/// candidate, if it were as good as the other? Whoever looks often enough finds any difference by chance. So there is a look
/// only each time that the candidate has decided a quarter more, the k-th may err once in k(k+1)/[`MISTAKES`] times, and all
/// of them together no more often than the first alone could.
fn judge(in_force: Seen, candidate: Seen, rule: &Canary, elapsed: Duration, looks: &mut u32) -> Judgement {
    // A version that has never done so for as many calls does not begin to by chance.
    if candidate.crashes > 0 && in_force.crashes == 0 && in_force.calls >= candidate.calls {
        return Judgement::Fails(in_words(
            "calls trapped or ran out of their limits",
            in_force,
            candidate,
            |seen| (seen.crashes, seen.calls),
        ));
    }
    let least = f64::from(rule.requests.get());
    let requests = candidate.requests as f64;
    if requests < least {
        return Judgement::GoesOn;
    }
    let is_over = elapsed >= rule.time.get();
    if is_over || requests >= least * NEXT_LOOK.powi(i32::try_from(*looks).unwrap_or(i32::MAX)) {
        *looks = (*looks + 1).max(((requests / least).ln() / NEXT_LOOK.ln()) as u32 + 1);
        // For each of two shares.
        let significant = MISTAKES / 2.0 / (f64::from(*looks) * (f64::from(*looks) + 1.0));
        let failed = |seen: Seen| (seen.failed, seen.requests);
        let crashed = |seen: Seen| (seen.crashes, seen.calls);
        let share = |(failed, all): (u64, u64)| failed as f64 / all.max(1) as f64;
        let excess = share(failed(candidate)) - share(failed(in_force));
        if excess > rule.tolerance.get() && by_chance(failed(in_force), failed(candidate)) < significant {
            return Judgement::Fails(in_words("requests failed", in_force, candidate, failed));
        }
        if by_chance(crashed(in_force), crashed(candidate)) < significant {
            let what = "calls trapped or ran out of their limits";
            return Judgement::Fails(in_words(what, in_force, candidate, crashed));
        }
    }
    if is_over { Judgement::Passes } else { Judgement::GoesOn }
}

fn in_words(what: &str, in_force: Seen, candidate: Seen, of: impl Fn(Seen) -> (u64, u64)) -> String {
    let ((bad, all), (other_bad, other_all)) = (of(candidate), of(in_force));
    format!("{bad} of its {all} {what}, and {other_bad} of {other_all} of the version in force")
}

/// How likely it is that at least so many of all that failed fell to the second by chance: the upper tail of the
/// hypergeometric distribution. Each is how many failed, of how many.
fn by_chance((bad, all): (u64, u64), (other_bad, other_all): (u64, u64)) -> f64 {
    // Counts are read one after the other, while they grow.
    let (all, other_all) = (all.max(bad) as f64, other_all.max(other_bad) as f64);
    let (bad, other_bad) = (bad as f64, other_bad as f64);
    if other_bad * all <= bad * other_all {
        return 1.0;
    }
    let (failed, whole) = (bad + other_bad, all + other_all);
    let ways =
        |of: f64, choose: f64| ln_gamma(of + 1.0) - ln_gamma(choose + 1.0) - ln_gamma(of - choose + 1.0);
    let mut chance = (ways(other_all, other_bad) + ways(all, bad) - ways(whole, failed)).exp();
    let (mut sum, mut count) = (chance, other_bad);
    // Beyond the mean, each is less likely than the one before.
    while count < failed.min(other_all) && chance > sum * 1e-12 {
        chance *= (failed - count) * (other_all - count) / ((count + 1.0) * (all - failed + count + 1.0));
        sum += chance;
        count += 1.0;
    }
    sum
}

/// The logarithm of the gamma function, for arguments from 1, by Stirling's series (DLMF 5.11.1).
fn ln_gamma(argument: f64) -> f64 {
    let (mut x, mut shift) = (argument, 0.0);
    while x < 10.0 {
        shift += x.ln();
        x += 1.0;
    }
    let series = 1.0 / (12.0 * x) - 1.0 / (360.0 * x.powi(3)) + 1.0 / (1260.0 * x.powi(5));
    (x - 0.5) * x.ln() - x + 0.5 * std::f64::consts::TAU.ln() + series - shift
}

/// Writes the families of comparisons, each with the plugin's name and the candidate's share.
pub fn write_canaries<'a>(
    page: &mut Page,
    all: impl Iterator<Item = (&'a str, f64, &'a Comparison)> + Clone,
) {
    type Count = fn(Seen) -> u64;
    let help = "The share of requests that a new version decides, of plugins that try one.";
    page.gauge("tollgate_plugin_canary_weight", help, |family| {
        for (plugin, share, _) in all.clone() {
            family.row(&[("plugin", plugin)], share);
        }
    });
    let families: [(&'static str, &str, Count); 4] = [
        (
            "tollgate_plugin_canary_requests_total",
            "Requests that either version has decided since the new one is tried.",
            |seen| seen.requests,
        ),
        (
            "tollgate_plugin_canary_failed_total",
            "Those of which a call failed or that were answered with 5xx.",
            |seen| seen.failed,
        ),
        ("tollgate_plugin_canary_calls_total", "Calls of either version since then.", |seen| seen.calls),
        (
            "tollgate_plugin_canary_crashes_total",
            "Those that trapped, ran out of their limits, or found no instance.",
            |seen| seen.crashes,
        ),
    ];
    for (name, help, count) in families {
        page.counter(name, help, |family| {
            for (plugin, _, comparison) in all.clone() {
                for side in Side::ALL {
                    let labels = [("plugin", plugin), ("version", side.name())];
                    family.row(&labels, count(comparison.seen(side)));
                }
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule() -> Canary {
        toml::from_str::<crate::config::Plugin>("canary = 0.1").unwrap().canary.unwrap()
    }

    fn seen(failed: u64, requests: u64) -> Seen {
        Seen { calls: requests, crashes: 0, requests, failed }
    }

    fn after(minutes: u64, in_force: Seen, candidate: Seen) -> Judgement {
        judge(in_force, candidate, &rule(), Duration::from_secs(60 * minutes), &mut 0)
    }

    #[test]
    fn chance_is_told_from_a_difference() {
        // The sums of binomial coefficients, in whole numbers.
        for (first, second, expected) in [
            ((1, 10), (8, 10), 0.002_738_747_3),
            ((0, 900), (1, 100), 0.1),
            ((0, 900), (3, 100), 0.000_973_117_4),
            ((5, 100), (5, 100), 1.0),
            ((0, 0), (5, 100), 1.0),
        ] {
            let chance = by_chance(first, second);
            assert!((chance / expected - 1.0).abs() < 1e-6, "{first:?} {second:?}: {chance}");
        }
        assert!(by_chance((100_000, 1_000_000_000), (200_000, 1_000_000_000)) < 1e-100);
        // It is read while it grows.
        assert!(by_chance((0, 10), (20, 10)) <= 1.0);
    }

    #[test]
    fn a_candidate_is_judged_by_what_both_have_done() {
        let fails = |judgement: &Judgement| matches!(judgement, Judgement::Fails(_));
        for (what, minutes, in_force, candidate, expected) in [
            ("time has passed well", 5, seen(0, 900), seen(0, 100), Judgement::Passes),
            ("it has not passed", 4, seen(0, 900), seen(0, 100), Judgement::GoesOn),
            ("too few to tell", 60, seen(0, 900), seen(0, 99), Judgement::GoesOn),
            ("both fail alike", 5, seen(90, 900), seen(12, 100), Judgement::Passes),
            (
                "a little more, which is tolerated",
                5,
                seen(9_000, 9_000_000),
                seen(3_000, 1_000_000),
                Judgement::Passes,
            ),
            ("one may be chance", 5, seen(0, 900), seen(1, 100), Judgement::Passes),
        ] {
            assert_eq!(after(minutes, in_force, candidate), expected, "{what}");
        }
        assert!(fails(&after(1, seen(0, 900), seen(10, 100))));
        assert!(fails(&after(1, seen(90, 900), seen(40, 100))));
        assert!(
            fails(&after(1, seen(9_000, 9_000_000), seen(9_000, 1_000_000))),
            "no chance, and more than that"
        );
        let reason = "10 of its 100 requests failed, and 0 of 900 of the version in force";
        assert_eq!(after(1, seen(0, 900), seen(10, 100)), Judgement::Fails(reason.to_owned()));
    }

    #[test]
    fn a_crash_counts_at_once_if_the_other_has_none() {
        let calls = |crashes, calls| Seen { calls, crashes, requests: calls, failed: 0 };
        assert!(matches!(after(0, calls(0, 1), calls(1, 1)), Judgement::Fails(_)));
        assert_eq!(after(0, calls(0, 1), calls(1, 2)), Judgement::GoesOn, "the other has not had as many");
        assert_eq!(after(0, calls(1, 9), calls(1, 2)), Judgement::GoesOn);
        assert!(matches!(after(0, calls(1, 900), calls(20, 100)), Judgement::Fails(_)));
        assert!(
            matches!(after(0, calls(0, 90), calls(20, 100)), Judgement::Fails(_)),
            "most requests are its own"
        );
    }

    #[test]
    fn whoever_looks_often_finds_no_more_than_whoever_looks_once() {
        let mut looks = 0;
        let mut look = |requests| {
            let judgement =
                judge(seen(0, 9 * requests), seen(0, requests), &rule(), Duration::ZERO, &mut looks);
            assert_eq!(judgement, Judgement::GoesOn);
            looks
        };
        assert_eq!([99, 100, 124, 125, 126, 1000, 1001].map(&mut look), [0, 1, 1, 2, 2, 11, 11]);
        // Versions that are alike, and a look at each request.
        fastrand::seed(7);
        let mut taken_back = 0;
        for _ in 0..50 {
            let (mut in_force, mut candidate, mut looks) = (seen(0, 0), seen(0, 0), 0);
            for _ in 0..2_000 {
                let one = if fastrand::f64() < 0.3 { &mut candidate } else { &mut in_force };
                one.requests += 1;
                one.failed += u64::from(fastrand::f64() < 0.2);
                if let Judgement::Fails(_) = judge(in_force, candidate, &rule(), Duration::ZERO, &mut looks) {
                    taken_back += 1;
                    break;
                }
            }
        }
        assert!(taken_back <= 2, "{taken_back} of 50");
    }

    #[test]
    fn requests_are_dealt_by_their_ids() {
        let comparison = Comparison::new(Digest::of(b"candidate"));
        let ids: Vec<_> = (0..10_000_u32).map(HeaderValue::from).collect();
        let side = |id: &HeaderValue| comparison.side(Some(id), 0.1);
        let dealt = ids.iter().filter(|id| side(id) == Side::Candidate).count();
        assert!((900..1100).contains(&dealt), "{dealt}");
        assert!(ids.iter().all(|id| side(id) == side(id)));
        let other = Comparison::new(Digest::of(b"other"));
        let alike =
            ids.iter().filter(|id| other.side(Some(id), 0.5) == comparison.side(Some(id), 0.5)).count();
        assert!((4_700..5_300).contains(&alike), "{alike}");
        assert!(comparison.end(Ended::Failed(String::new())) && !comparison.end(Ended::Passed));
        assert!(ids.iter().all(|id| side(id) == Side::InForce));
    }
}
