//! How often is a plugin called, how long does that take, and how often does it fail?

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::error::CallError;
use crate::telemetry::{Counter, Distribution, Histogram, PerWorker, Tally, Timed};

/// What a worker counts of a plugin's calls. Goes on when the plugin is replaced by another of its name.
#[derive(Debug, Default)]
pub struct PluginCounts {
    pub(super) calls: [Tally; Hook::ALL.len()],
    pub(super) failures: [Tally; FailureKind::ALL.len()],
    /// Instances that have done their service.
    pub(super) recycled: Tally,
    /// Calls on the offload thread.
    pub(super) offloaded: Tally,
    pub(super) durations: Histogram,
    /// Nanoseconds of these in which calls waited, and their worker did something else.
    pub(super) waited: Tally,
}

/// What a worker counts of a plugin's calls for the requests of one route.
#[derive(Debug, Default)]
pub struct RouteCalls {
    pub calls: Tally,
    failures: [Tally; FailureKind::ALL.len()],
    pub durations: Histogram,
    waited: Tally,
}

impl RouteCalls {
    /// The time in which the plugin computed, of all workers.
    pub fn computed(of: &PerWorker<Self>) -> Duration {
        let durations = Distribution::of(of.parts().map(|part| &part.durations));
        durations.sum().saturating_sub(Duration::from_nanos(of.sum(|part| &part.waited)))
    }

    /// Counts a call that brought no verdict.
    pub fn failed(&self, error: &CallError) {
        self.failures[FailureKind::from(error) as usize].add(1);
    }

    /// Calls that failed in this way.
    pub fn failures(&self, kind: FailureKind) -> &Tally {
        &self.failures[kind as usize]
    }
}

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    OnRequest,
    OnResponse,
    Pick,
    OnComplete,
    OnTick,
}

impl Hook {
    pub const ALL: [Self; 5] =
        [Self::OnRequest, Self::OnResponse, Self::Pick, Self::OnComplete, Self::OnTick];

    pub fn name(self) -> &'static str {
        match self {
            Self::OnRequest => "on-request",
            Self::OnResponse => "on-response",
            Self::Pick => "pick",
            Self::OnComplete => "on-complete",
            Self::OnTick => "on-tick",
        }
    }
}

/// Why a call failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    Deadline,
    Memory,
    Trap,
    InvalidReply,
    UnknownUpstream,
    UpstreamNotGranted,
    Unsent,
    Start,
    Busy,
    Breaker,
}

impl FailureKind {
    pub const ALL: [Self; 10] = [
        Self::Deadline,
        Self::Memory,
        Self::Trap,
        Self::InvalidReply,
        Self::UnknownUpstream,
        Self::UpstreamNotGranted,
        Self::Unsent,
        Self::Start,
        Self::Busy,
        Self::Breaker,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Trap => "trap",
            Self::InvalidReply => "invalid-reply",
            Self::UnknownUpstream => "unknown-upstream",
            Self::UpstreamNotGranted => "upstream-not-granted",
            Self::Unsent => "unsent",
            Self::Start => "start",
            Self::Busy => "busy",
            Self::Breaker => "breaker",
        }
    }

    /// Whether the plugin was not able to decide; what a request or a moment brings about says nothing of the next.
    pub(super) fn is_crash(self) -> bool {
        match self {
            Self::Deadline | Self::Memory | Self::Trap | Self::Start => true,
            Self::InvalidReply
            | Self::UnknownUpstream
            | Self::UpstreamNotGranted
            | Self::Unsent
            | Self::Busy
            | Self::Breaker => false,
        }
    }
}

impl From<&CallError> for FailureKind {
    fn from(error: &CallError) -> Self {
        match error {
            CallError::Deadline(_) => Self::Deadline,
            CallError::Memory(_) | CallError::MemoryInAll(_) => Self::Memory,
            CallError::Unsent(_) => Self::Unsent,
            CallError::Trap(_) => Self::Trap,
            CallError::InvalidReply(_) => Self::InvalidReply,
            CallError::UnknownUpstream(_) => Self::UnknownUpstream,
            CallError::UpstreamNotGranted(_) => Self::UpstreamNotGranted,
            // The machine, and what others take, say nothing of the plugin.
            CallError::Start(error) if error.is_environments() => Self::Busy,
            CallError::Start(_) => Self::Start,
            CallError::Busy(_) => Self::Busy,
            CallError::Broken => Self::Breaker,
        }
    }
}

impl PluginCounts {
    /// Counts a call that begins.
    pub(super) fn begin(&self, hook: Hook) -> Option<Timed> {
        let calls = &self.calls[hook as usize];
        calls.add(1);
        Timed::start(calls.get())
    }

    /// Counts its time, of which it has waited for so long.
    pub(super) fn end(&self, timed: Option<Timed>, route: Option<&RouteCalls>, waited: Duration) {
        let Some(timed) = timed else { return };
        self.durations.end(&timed);
        if let Some(route) = route {
            route.durations.end(&timed);
        }
        // Most plugins never do.
        if !waited.is_zero() {
            self.waited.add(timed.part(waited));
            if let Some(route) = route {
                route.waited.add(timed.part(waited));
            }
        }
    }

    /// Counts a call that brought no verdict.
    pub fn failed(&self, error: &CallError) {
        self.failures[FailureKind::from(error) as usize].add(1);
    }

    /// Calls of all hooks.
    pub(super) fn calls(&self) -> u64 {
        self.calls.iter().map(Tally::get).sum()
    }
}

/// The metrics that a plugin has opened, by name.
#[derive(Debug, Default)]
pub(super) struct Custom(Mutex<BTreeMap<String, Arc<Metric>>>);

/// Numbers that a plugin observes, on whatever worker.
#[derive(Debug)]
pub struct Metric {
    pub kind: MetricKind,
    /// The bits of a float: of a counter and a histogram the sum of all observations, of a gauge the last.
    value: AtomicU64,
    count: Counter,
    /// Of a histogram: by the power of two that an observation stays below.
    buckets: Box<[Counter]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    Counter,
    Gauge,
    Histogram,
}

impl Custom {
    /// Metrics that one plugin may open.
    const MOST: usize = 64;

    /// The metric of this name; made if there is room.
    pub fn open(&self, name: &str, kind: MetricKind) -> Option<Arc<Metric>> {
        let mut metrics = self.0.lock().expect("no holder of this lock panics");
        if let Some(metric) = metrics.get(name) {
            return Some(metric.clone());
        }
        (metrics.len() < Self::MOST)
            .then(|| metrics.entry(name.to_owned()).or_insert_with(|| Metric::new(kind).into()).clone())
    }

    pub fn all(&self) -> BTreeMap<String, Arc<Metric>> {
        self.0.lock().expect("no holder of this lock panics").clone()
    }
}

impl Metric {
    /// Bounds of a histogram are powers of two, from 2^-20, about a millionth, to 2^40, a million millions.
    const SMALLEST: i32 = -20;
    const BUCKETS: usize = 61;

    fn new(kind: MetricKind) -> Self {
        let buckets = if kind == MetricKind::Histogram { Self::BUCKETS } else { 0 };
        Self {
            kind,
            value: AtomicU64::new(0),
            count: Counter::default(),
            buckets: (0..buckets).map(|_| Counter::default()).collect(),
        }
    }

    /// Takes a number; one that is none, or has no end, is not counted, nor one that would turn a counter back.
    pub fn observe(&self, value: f64) {
        if !value.is_finite() || (self.kind == MetricKind::Counter && value < 0.0) {
            return;
        }
        match self.kind {
            MetricKind::Gauge => self.value.store(value.to_bits(), Ordering::Relaxed),
            MetricKind::Counter | MetricKind::Histogram => {
                let add = |bits| Some((f64::from_bits(bits) + value).to_bits());
                let _ = self.value.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
            }
        }
        self.count.add(1);
        let power = if value > 0.0 { value.log2().ceil() as i32 } else { Self::SMALLEST };
        let index = usize::try_from(power.saturating_sub(Self::SMALLEST)).unwrap_or_default();
        if let Some(bucket) = self.buckets.get(index) {
            bucket.add(1);
        }
    }

    /// Of a counter and a histogram the sum of all observations, of a gauge the last.
    pub fn value(&self) -> f64 {
        f64::from_bits(self.value.load(Ordering::Relaxed))
    }

    /// Observations.
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    fn bound(index: i32) -> f64 {
        2_f64.powi(Self::SMALLEST + index)
    }

    /// Every other bound is told, each with the observations up to it.
    pub(super) fn bounds(&self) -> impl Iterator<Item = (f64, u64)> {
        let mut below = 0;
        let counted = (0..).zip(&self.buckets).map(move |(index, bucket)| {
            below += bucket.get();
            (Self::bound(index), below)
        });
        counted.step_by(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_takes_numbers_as_its_kind_does() {
        let [counter, gauge, histogram] =
            [MetricKind::Counter, MetricKind::Gauge, MetricKind::Histogram].map(Metric::new);
        for value in [1.5, 2.0, f64::NAN, f64::INFINITY, -1.0] {
            [&counter, &gauge, &histogram].into_iter().for_each(|metric| metric.observe(value));
        }
        assert_eq!((counter.value(), counter.count()), (3.5, 2));
        assert_eq!((gauge.value(), gauge.count()), (-1.0, 3));
        assert_eq!((histogram.value(), histogram.count()), (2.5, 3));
        let below = |bound| histogram.bounds().find(|(at, _)| *at == bound).expect("it is a bound").1;
        assert_eq!([0.25, 1.0, 4.0].map(below), [1, 1, 3]);
    }

    #[test]
    fn a_plugin_opens_so_many_metrics_and_no_more() {
        let custom = Custom::default();
        for number in 0..Custom::MOST {
            assert!(custom.open(&number.to_string(), MetricKind::Gauge).is_some());
        }
        assert!(custom.open("more", MetricKind::Gauge).is_none());
        assert!(custom.open("0", MetricKind::Counter).is_some_and(|metric| metric.kind == MetricKind::Gauge));
        assert_eq!(custom.all().len(), Custom::MOST);
    }
}
