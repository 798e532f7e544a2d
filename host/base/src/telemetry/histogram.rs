//! How long does it take, as a rule and at worst?
//!
//! Durations are counted in buckets whose bounds grow by half an octave: 1, 1.5, 2, 3, 4, 6 and so on, in
//! eighths of a microsecond. What is read from them is off by a fifth at most.

use std::time::{Duration, Instant};

use super::metrics::Tally;

/// The number of buckets.
const BUCKETS: usize = 64;

/// What the first bucket holds durations below of, in nanoseconds.
const UNIT: u64 = 125;

/// Durations that one thread has observed. Others may read.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Tally; BUCKETS],
    nanoseconds: Tally,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { buckets: [const { Tally::new() }; BUCKETS], nanoseconds: Tally::new() }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn observe(&self, duration: Duration) {
        self.observe_for(duration, 1);
    }

    /// Counts the time since then, and tells it.
    pub fn end(&self, timed: &Timed) -> Duration {
        let duration = timed.since.elapsed();
        self.observe_for(duration, timed.weight);
        duration
    }

    /// Counts one duration that stands for `count` of which the others were not taken.
    fn observe_for(&self, duration: Duration, count: u64) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(nanoseconds)].add(count);
        self.nanoseconds.add(nanoseconds.saturating_mul(count));
    }
}

/// Something quick that is timed, and how much of its kind it stands for.
///
/// To look at the clock twice would cost a quick call a tenth of its time. So of many, one in eight is timed.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    since: Instant,
    weight: u64,
}

impl Timed {
    /// Of the first so many each is timed.
    const EACH: u64 = 256;
    const SAMPLED: u64 = 8;

    /// Begins, if this one is to be timed. `before` is how many there were.
    pub fn start(before: u64) -> Option<Self> {
        let weight = if before < Self::EACH { 1 } else { Self::SAMPLED };
        (fastrand::u64(..weight) == 0).then(|| Self { since: Instant::now(), weight })
    }

    /// Nanoseconds of a part of this one, and of the same part of those that it stands for.
    pub fn part(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).saturating_mul(self.weight)
    }
}

/// The bucket of a duration: each octave has two.
fn bucket(nanoseconds: u64) -> usize {
    let units = nanoseconds / UNIT;
    let Some(octave) = units.checked_ilog2() else { return 0 };
    let half = if octave == 0 { 0 } else { (units >> (octave - 1)) & 1 };
    (1 + 2 * octave as usize + half as usize).min(BUCKETS - 1)
}

/// Where a bucket begins, in nanoseconds.
fn lower_bound(bucket: usize) -> u64 {
    match bucket.checked_sub(1) {
        None => 0,
        Some(step) => {
            let octave = UNIT << (step / 2);
            octave + octave / 2 * (step as u64 % 2)
        }
    }
}

/// What histograms held at one moment, or between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Distribution {
    buckets: [u64; BUCKETS],
    nanoseconds: u64,
}

impl Default for Distribution {
    fn default() -> Self {
        Self { buckets: [0; BUCKETS], nanoseconds: 0 }
    }
}

impl Distribution {
    /// What several histograms hold together.
    pub fn of<'a>(histograms: impl IntoIterator<Item = &'a Histogram>) -> Self {
        let mut all = Self::default();
        for histogram in histograms {
            all.nanoseconds = all.nanoseconds.wrapping_add(histogram.nanoseconds.get());
            for (sum, bucket) in all.buckets.iter_mut().zip(&histogram.buckets) {
                *sum += bucket.get();
            }
        }
        all
    }

    /// What has come since `earlier`.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut difference = self.clone();
        difference.nanoseconds = self.nanoseconds.wrapping_sub(earlier.nanoseconds);
        for (bucket, earlier) in difference.buckets.iter_mut().zip(&earlier.buckets) {
            *bucket = bucket.saturating_sub(*earlier);
        }
        difference
    }

    /// Durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    pub fn sum(&self) -> Duration {
        Duration::from_nanos(self.nanoseconds)
    }

    /// The duration that a share of all stays below, from 0 to 1. None if there are none.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = self.count() as f64 * share;
        let mut below = 0;
        let mut last = None;
        for (index, &count) in self.buckets.iter().enumerate().filter(|(_, count)| **count > 0) {
            let (from, to) = (lower_bound(index), lower_bound(index + 1));
            // Taken to be spread evenly over the bucket.
            let within = ((wanted - below as f64) / count as f64).clamp(0.0, 1.0);
            last = Some(Duration::from_nanos(from + ((to - from) as f64 * within) as u64));
            below += count;
            if below as f64 >= wanted {
                break;
            }
        }
        last
    }

    /// Bounds in seconds, an octave apart, each with the durations below it. `range` is the octaves to tell,
    /// counted from [`UNIT`]: 3 is a microsecond, 13 a millisecond, 23 a second.
    pub(super) fn octaves(&self, range: std::ops::Range<usize>) -> impl Iterator<Item = (f64, u64)> {
        range.map(|octave| {
            let below = self.buckets[..=2 * octave].iter().sum();
            ((UNIT << octave) as f64 / 1e9, below)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_in_the_bucket_whose_bounds_hold_it() {
        for nanoseconds in
            (0..40_u32).flat_map(|shift| (-1..=1).map(move |off| (125_u64 << shift).wrapping_add_signed(off)))
        {
            let index = bucket(nanoseconds);
            assert!(lower_bound(index) <= nanoseconds, "{nanoseconds} is in {index}");
            assert!(
                index == BUCKETS - 1 || nanoseconds < lower_bound(index + 1) || index == 1,
                "{nanoseconds}"
            );
        }
        assert_eq!([0, 124, 125, 249, 250, 375, 500, u64::MAX].map(bucket), [0, 0, 1, 1, 3, 4, 5, 63]);
        assert_eq!([0, 1, 3, 4, 5].map(lower_bound), [0, 125, 250, 375, 500]);
    }

    #[test]
    fn quantiles_are_near_the_truth() {
        let histogram = Histogram::default();
        for microseconds in 1..=10_000 {
            histogram.observe(Duration::from_micros(microseconds));
        }
        let all = Distribution::of([&histogram]);
        assert_eq!(all.count(), 10_000);
        assert_eq!(all.sum(), Duration::from_micros(10_000 * 10_001 / 2));
        for share in [0.01, 0.5, 0.9, 0.99, 1.0] {
            let found = all.quantile(share).expect("there are some").as_secs_f64() * 1e6;
            let truth = share * 10_000.0;
            assert!((found / truth - 1.0).abs() < 0.25, "{share}: {found} for {truth}");
        }
        assert_eq!(Distribution::default().quantile(0.5), None);
    }

    #[test]
    fn what_has_come_since_is_what_was_not_there_before() {
        let histogram = Histogram::default();
        histogram.observe(Duration::from_millis(1));
        let before = Distribution::of([&histogram]);
        histogram.observe_for(Duration::from_secs(1), 3);
        let since = Distribution::of([&histogram]).since(&before);
        assert_eq!((since.count(), since.sum()), (3, Duration::from_secs(3)));
        let below: Vec<_> = since.octaves(22..25).collect();
        assert_eq!(below, [(0.524288, 0), (1.048576, 3), (2.097152, 3)]);
    }
}
