//! Who may be picked at this moment?
//!
//! A [`Roster`] is immutable. Another takes its place when endpoints join or leave, or their weight or health
//! changes, so that a pick takes no lock and copies nothing.

use std::{
    num::NonZero,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use smallvec::SmallVec;

use super::{
    Endpoint, InFlight, Source,
    endpoint::Probe,
    health::{State, Usable, usable},
};
use crate::{
    config,
    members::{Condition, Member, Members},
};

/// The endpoints of an upstream at one moment.
#[derive(Debug)]
pub struct Roster {
    upstream: Arc<str>,
    version: u64,
    all: Vec<Entry>,
    /// Those that may be picked; what balancers know.
    usable: Vec<Entry>,
    /// The sum of the weights up to each of the usable, where weights differ.
    sums: Vec<u64>,
    /// Ejected ones that a request may try, and from when on.
    probes: Vec<(Arc<Endpoint>, Instant)>,
    is_panicking: bool,
}

/// An endpoint as a roster has it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub endpoint: Arc<Endpoint>,
    /// Its share of requests. Among the usable, what it has come to so far.
    pub weight: u32,
    pub tags: Arc<[(String, String)]>,
    pub state: State,
    /// Who says that it is there.
    pub source: Source,
}

impl Entry {
    fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.endpoint, &other.endpoint) && self.weight == other.weight && self.tags == other.tags
    }
}

impl Roster {
    /// Makes the roster of these endpoints as they are now. `version` is a number not used before; the one of
    /// `previous` stays if nothing has changed for balancers.
    pub fn new(
        upstream: Arc<str>,
        mut all: Vec<Entry>,
        now: Instant,
        settings: &config::Upstream,
        version: u64,
        previous: Option<&Roster>,
    ) -> Self {
        let mut tenths = Vec::with_capacity(all.len());
        let mut probes = Vec::new();
        for entry in &mut all {
            let health = entry.endpoint.health();
            entry.state = health.state(settings);
            tenths.push(health.tenths(now, settings));
            if entry.state == State::Ejected
                && let Some(from) = health.probe_from(settings).filter(|from| *from <= now)
            {
                probes.push((entry.endpoint.clone(), from));
            }
        }
        let kind = usable(all.iter().map(|entry| entry.state), settings.panic_threshold);
        let picked = || all.iter().zip(&tenths).filter(|(entry, _)| kind.includes(entry.state));
        // Proportions matter and not their unit.
        let is_ramping = picked().any(|(_, tenths)| *tenths < 10);
        let weight = |entry: &Entry, tenths: u32| match is_ramping {
            true => entry.weight.saturating_mul(tenths),
            false => entry.weight,
        };
        let usable: Vec<Entry> = picked()
            .map(|(entry, tenths)| Entry { weight: weight(entry, *tenths), ..entry.clone() })
            .collect();
        let known = previous.filter(|previous| {
            previous.usable.len() == usable.len()
                && previous.usable.iter().zip(&usable).all(|(before, after)| before.is_same(after))
        });
        let differ = usable.iter().any(|entry| entry.weight != usable[0].weight);
        let mut sum = 0;
        let add = |entry: &Entry| {
            sum += u64::from(entry.weight);
            sum
        };
        let sums = if differ { usable.iter().map(add).collect() } else { Vec::new() };
        let is_panicking = kind == Usable::All && !usable.is_empty();
        let version = known.map_or(version, |known| known.version);
        Self { upstream, version, all, usable, sums, probes, is_panicking }
    }

    /// All endpoints, in the order of the configuration, then in that in which they joined.
    pub fn all(&self) -> &[Entry] {
        &self.all
    }

    /// Those that may be picked; a pick is a place among them.
    pub fn usable(&self) -> &[Entry] {
        &self.usable
    }

    /// Whether so few are healthy that all are used.
    pub fn is_panicking(&self) -> bool {
        self.is_panicking
    }

    /// The places among the usable of these endpoints, by id.
    pub fn places(&self, ids: &[u64]) -> SmallVec<[u32; 4]> {
        if ids.is_empty() {
            return SmallVec::new();
        }
        let is_one = |(_, entry): &(usize, &Entry)| ids.contains(&entry.endpoint.id);
        self.usable.iter().enumerate().filter(is_one).map(|(place, _)| place as u32).collect()
    }

    /// A request to the endpoint at a place of the usable, unless it has as many as `most` in flight; `is_again`
    /// if it was sent before.
    pub fn begin(&self, place: usize, is_again: bool, most: Option<NonZero<u32>>) -> Option<InFlight> {
        let entry = &self.usable[place];
        let probe = match entry.state {
            State::Ejected => Probe::InPassing,
            State::Unreachable => Probe::Unwell,
            State::NotInitiated | State::Healthy | State::Draining => Probe::No,
        };
        let in_flight = InFlight::within(&entry.endpoint, probe, most)?;
        if is_again {
            entry.endpoint.again.fetch_add(1, Ordering::Relaxed);
        }
        Some(in_flight)
    }

    /// A request to an ejected endpoint, to see whether it is well again: one at a time, and for some time only
    /// such as can go elsewhere if it is not.
    pub fn begin_probe(&self, is_repeatable: bool, settings: &config::Outlier) -> Option<InFlight> {
        if self.probes.is_empty() {
            return None;
        }
        let now = Instant::now();
        let may = |from: Instant| is_repeatable || from + settings.eject.get() <= now;
        let claimed = |endpoint: &Endpoint| !endpoint.is_tried.swap(true, Ordering::Relaxed);
        let (endpoint, _) = self.probes.iter().find(|(endpoint, from)| may(*from) && claimed(endpoint))?;
        Some(InFlight::new(endpoint.clone(), Probe::Claimed))
    }

    /// The host's own balancing: of two endpoints taken by chance, according to their weights, the one with
    /// fewer requests in flight for its weight.
    ///
    /// Endpoints in `tried` are left out while there are others; none if there are no others. See
    /// Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing" (2001).
    pub fn least_loaded_of_two(&self, tried: &[u32]) -> Option<usize> {
        let count = self.usable.len();
        if tried.is_empty() {
            return match count {
                0 => None,
                1 => Some(0),
                _ => {
                    let first = self.by_chance();
                    // The same one twice is no choice; any other is one.
                    let second = match self.by_chance() {
                        same if same == first => (first + fastrand::usize(1..count)) % count,
                        other => other,
                    };
                    Some(self.less_loaded(first, second))
                }
            };
        }
        let untried: Vec<usize> = (0..count).filter(|index| !tried.contains(&(*index as u32))).collect();
        match untried[..] {
            [] => None,
            [only] => Some(only),
            _ => {
                let first = fastrand::usize(..untried.len());
                let second = (first + fastrand::usize(1..untried.len())) % untried.len();
                Some(self.less_loaded(untried[first], untried[second]))
            }
        }
    }

    fn by_chance(&self) -> usize {
        match self.sums.last() {
            None | Some(0) => fastrand::usize(..self.usable.len()),
            Some(all) => {
                let drawn = fastrand::u64(..*all);
                self.sums.partition_point(|sum| *sum <= drawn)
            }
        }
    }

    pub(super) fn less_loaded(&self, first: usize, second: usize) -> usize {
        let (one, other) = (&self.usable[first], &self.usable[second]);
        let (one_active, other_active) = (one.endpoint.active(), other.endpoint.active());
        if self.sums.is_empty() {
            return if other_active < one_active { second } else { first };
        }
        let scaled = |active: u32, against: &Entry| u64::from(active) * u64::from(against.weight);
        if other.weight > 0 && scaled(other_active, one) < scaled(one_active, other) { second } else { first }
    }
}

impl Members for Roster {
    fn upstream(&self) -> &str {
        &self.upstream
    }

    fn version(&self) -> u64 {
        self.version
    }

    fn describe(&self) -> Vec<Member> {
        let describe = |entry: &Entry| Member {
            address: entry.endpoint.authority.as_str().to_owned(),
            weight: entry.weight,
            tags: entry.tags.to_vec(),
        };
        self.usable.iter().map(describe).collect()
    }

    fn len(&self) -> usize {
        self.usable.len()
    }

    fn inspect(&self, index: usize) -> Option<Condition> {
        self.usable.get(index).map(|entry| entry.endpoint.condition())
    }
}
