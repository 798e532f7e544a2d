//! Do the calls of a plugin take so long that its worker is not to wait for them?
//!
//! A call that is quick is never timed. What is known of them comes from those that ran when an epoch ended: how long
//! they ran on, and how many were not seen in between. A plugin is slow whose long calls hold the worker for more than a
//! hundredth of the time, or whose calls take long on average. Then they are offloaded, and each is timed, until
//! they are quick. One long call says nothing: what a hypervisor takes meanwhile looks the same.

use std::{cell::Cell, time::Duration};

use super::cost::Cost;

/// One worker's view of one plugin.
#[derive(Debug, Default)]
pub struct SlowCalls {
    is_slow: Cell<bool>,
    /// Calls that were seen running, or of a slow one those that were timed, since the count began.
    seen: Cell<u32>,
    /// The number of all calls when it began,
    began: Cell<u64>,
    /// and the time.
    since: Cell<Duration>,
    /// What those that are in the count have taken.
    took: Cell<Duration>,
    /// What long ones have taken, beyond their part of the time while the plugin is quick.
    long: Cell<Duration>,
    /// When that was told last.
    last_seen: Cell<Duration>,
}

impl SlowCalls {
    /// What a call may take and not be long.
    const LONG: Duration = Duration::from_millis(2);
    /// The part of the time that long ones may take: one in so many.
    const PART: u32 = 100;
    /// What they may take beyond that, so that a single one is none too many.
    const MORE: Duration = Duration::from_millis(10);
    /// What all calls may take on average.
    const MEAN: Duration = Duration::from_micros(500);
    /// Calls that have to be seen, so that an average means something.
    const ENOUGH: u32 = 16;
    /// How long a plugin has to be quick until it is taken to be.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Whether its calls are to be offloaded.
    pub fn is_slow(&self) -> bool {
        self.is_slow.get()
    }

    /// A call, the last of so many, has taken what is not nothing by the sample. Whether that is how the plugin was found to
    /// be slow.
    #[cold]
    pub fn seen(&self, cost: &Cost, calls: u64, now: fn() -> Duration) -> bool {
        if self.is_slow() {
            return false;
        }
        let time = cost.held();
        let mut is_slow = false;
        if time >= Self::LONG {
            let now = now();
            let free = now.saturating_sub(self.last_seen.replace(now)) / Self::PART;
            self.long.set(self.long.get().saturating_sub(free) + time);
            is_slow = self.long.get() > Self::MORE;
        }
        self.count(cost);
        if self.seen.get() >= Self::ENOUGH {
            let since = u32::try_from(calls.saturating_sub(self.began.get())).unwrap_or(u32::MAX).max(1);
            is_slow |= self.took.get() / since >= Self::MEAN;
            self.begin(calls, Duration::ZERO);
        }
        if is_slow {
            self.is_slow.set(true);
            self.long.set(Duration::ZERO);
            self.begin(calls, now());
        }
        is_slow
    }

    /// A call, the last of so many, has taken this on the offload thread. Whether that is how the plugin was found to be
    /// quick again.
    pub fn timed(&self, cost: &Cost, calls: u64, now: fn() -> Duration) -> bool {
        if !self.is_slow() {
            return false;
        }
        self.count(cost);
        if cost.taken() >= Self::LONG {
            self.long.set(self.long.get().saturating_add(cost.taken()));
        }
        if !self.seen.get().is_multiple_of(Self::ENOUGH) {
            return false;
        }
        let now = now();
        let elapsed = now.saturating_sub(self.since.get());
        if elapsed < Self::PATIENCE {
            return false;
        }
        // Half of what makes it slow, so that it is not found to be so again at once.
        let is_quick = self.long.get() < elapsed / (2 * Self::PART)
            && self.took.get() / self.seen.get() < Self::MEAN / 2;
        self.is_slow.set(!is_quick);
        self.long.set(Duration::ZERO);
        self.last_seen.set(now);
        self.begin(calls, now);
        is_quick
    }

    /// One more.
    fn count(&self, cost: &Cost) {
        self.seen.set(self.seen.get() + 1);
        self.took.set(self.took.get().saturating_add(cost.taken()));
    }

    /// A count begins.
    fn begin(&self, calls: u64, now: Duration) {
        self.seen.set(0);
        self.began.set(calls);
        self.since.set(now);
        self.took.set(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::{super::epoch::EPOCH, *};

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    fn now() -> Duration {
        Duration::from_secs(NOW.get())
    }

    /// Of a call that ran on for so many milliseconds after it had been seen.
    fn sample(milliseconds: u64) -> Cost {
        let seen_for = Duration::from_millis(milliseconds);
        Cost { seen_for, computed: seen_for + EPOCH, ..Cost::default() }
    }

    /// Of a call that was timed.
    fn known(time: Duration) -> Cost {
        Cost { seen_for: time, computed: time, ..Cost::default() }
    }

    #[test]
    fn long_calls_may_take_a_hundredth_of_the_time() {
        for (milliseconds, every, is_found) in [(8, 0, true), (10, 1, false), (4, 1, false), (1, 0, false)] {
            NOW.set(100);
            let slow_calls = SlowCalls::default();
            // Among so many others that they are quick on average.
            let found = (1..=100).any(|number| {
                NOW.set(NOW.get() + every);
                slow_calls.seen(&sample(milliseconds), number * 1000, now)
            });
            assert_eq!(
                (found, slow_calls.is_slow()),
                (is_found, is_found),
                "{milliseconds} ms every {every} s"
            );
        }
        NOW.set(100);
        let slow_calls = SlowCalls::default();
        assert!(!slow_calls.seen(&sample(9), 1, now), "that may have been taken from the machine");
        assert!(slow_calls.seen(&sample(9), 2, now));
        assert!(!slow_calls.seen(&sample(5), 3, now), "that is known");
    }

    #[test]
    fn calls_that_are_not_quite_as_long_are_found_out_by_how_often_they_are_seen() {
        // Every so many calls one is seen: those of half a millisecond are one in ten.
        for (every, is_found) in [(1, true), (9, true), (11, false), (1000, false)] {
            let slow_calls = SlowCalls::default();
            let found = (1..=160).any(|number| slow_calls.seen(&sample(0), number * every, now));
            assert_eq!((found, slow_calls.is_slow()), (is_found, is_found), "one of {every}");
        }
        // One that waits is watched each time, and what it takes is known.
        for (microseconds, is_found) in [(100, false), (400, false), (600, true)] {
            let slow_calls = SlowCalls::default();
            let cost = known(Duration::from_micros(microseconds));
            let found = (1..=160).any(|number| slow_calls.seen(&cost, number, now));
            assert_eq!((found, slow_calls.is_slow()), (is_found, is_found), "{microseconds} us");
        }
    }

    #[test]
    fn what_was_slow_has_to_be_quick_for_a_while() {
        NOW.set(100);
        let slow_calls = SlowCalls::default();
        assert!(!slow_calls.timed(&known(Duration::from_millis(0)), 0, now), "it is not offloaded");
        let slow = || assert!(slow_calls.seen(&sample(11), 1, now));
        slow();
        // A call each second; how often the plugin is found to be quick.
        let calls = |milliseconds: u64, count: u64| {
            let call = |_| {
                NOW.set(NOW.get() + 1);
                slow_calls.timed(&known(Duration::from_millis(milliseconds)), NOW.get(), now)
            };
            (0..count).map(call).filter(|is_over| *is_over).count()
        };
        assert_eq!(calls(0, 15), 0, "that is not enough to tell");
        assert_eq!(calls(0, 1), 1);
        slow();
        assert_eq!(calls(1, 200), 0, "they are not, on average");
        assert_eq!(calls(0, 15) + calls(50, 3) + calls(0, 14), 0, "some were long");
        assert_eq!(calls(0, 8), 1);
        slow();
        assert!(
            (0..1000).all(|number| !slow_calls.timed(&known(Duration::from_millis(0)), number, now)),
            "at once it is not"
        );
    }
}
