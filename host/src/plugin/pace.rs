//! Do the calls of a plugin take so long that its worker is not to wait for them?
//!
//! A call that is quick is never timed. What is known of the others comes from those that ran when an epoch ended: how long
//! they ran on, and how many were not seen in between. So a plugin that is slow is found out by its first long call, or by
//! some ten that are not quite as long; then its calls go to the background, where each is timed, until they are quick.

use std::{cell::Cell, time::Duration};

use super::engine::EPOCH;

/// One worker's view of one plugin.
#[derive(Debug, Default)]
pub struct Pace {
    /// When it was found to be slow last, if it is.
    slow: Cell<Option<Duration>>,
    /// Calls that were seen running, or of a slow one those that were timed, since the count began,
    seen: Cell<u32>,
    /// and the number of all calls by then.
    began: Cell<u64>,
    /// What those that were timed have taken.
    took: Cell<Duration>,
}

impl Pace {
    /// What one call may hold its worker without ado.
    const LONG: Duration = Duration::from_millis(2);
    /// What all calls may take on average.
    const MEAN: Duration = Duration::from_micros(500);
    /// Calls that have to be seen, so that an average means something.
    const ENOUGH: u32 = 16;
    /// How long a plugin has to be quick until it is taken to be.
    const PATIENCE: Duration = Duration::from_secs(10);

    /// Whether its calls belong into the background.
    pub fn is_slow(&self) -> bool {
        self.slow.get().is_some()
    }

    /// A call, the last of so many, was seen running, and has run on for so long. Whether that is how the plugin was found
    /// to be slow.
    #[cold]
    pub fn seen(&self, time: Duration, calls: u64, now: fn() -> Duration) -> bool {
        if self.is_slow() {
            return false;
        }
        self.seen.set(self.seen.get() + 1);
        let mut is_slow = time >= Self::LONG;
        if self.seen.get() >= Self::ENOUGH {
            let since = u32::try_from(calls.saturating_sub(self.began.get())).unwrap_or(u32::MAX).max(1);
            is_slow |= EPOCH * self.seen.get() / since >= Self::MEAN;
            self.begin(calls);
        }
        if is_slow {
            self.begin(calls);
            self.slow.set(Some(now()));
        }
        is_slow
    }

    /// A call, the last of so many, has taken so long in the background. Whether that is how the plugin was found to be
    /// quick again.
    pub fn timed(&self, time: Duration, calls: u64, now: fn() -> Duration) -> bool {
        let Some(since) = self.slow.get() else { return false };
        self.seen.set(self.seen.get() + 1);
        self.took.set(self.took.get().saturating_add(time));
        if time >= Self::LONG {
            self.begin(calls);
            self.slow.set(Some(now()));
            return false;
        }
        if self.seen.get() < Self::ENOUGH {
            return false;
        }
        let (mean, now) = (self.took.get() / self.seen.get(), now());
        // Not at the first moment at which it could be found to be slow again.
        if mean >= Self::MEAN / 2 {
            self.slow.set(Some(now));
        } else if now.saturating_sub(since) >= Self::PATIENCE {
            self.slow.set(None);
        }
        self.begin(calls);
        !self.is_slow()
    }

    /// A count begins.
    fn begin(&self, calls: u64) {
        self.seen.set(0);
        self.began.set(calls);
        self.took.set(Duration::ZERO);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    fn now() -> Duration {
        Duration::from_secs(NOW.get())
    }

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn one_long_call_is_enough() {
        let pace = Pace::default();
        assert!(!pace.seen(ms(1), 10_000, now) && !pace.is_slow());
        assert!(pace.seen(ms(2), 20_000, now) && pace.is_slow());
        assert!(!pace.seen(ms(2), 20_001, now), "that is known");
    }

    #[test]
    fn calls_that_are_not_quite_as_long_are_found_out_by_how_often_they_are_seen() {
        // Every so many calls one is seen: those of half a millisecond are one in ten.
        for (every, is_found) in [(1, true), (9, true), (11, false), (1000, false)] {
            let pace = Pace::default();
            let found = (1..=160).any(|number| pace.seen(Duration::ZERO, number * every, now));
            assert_eq!((found, pace.is_slow()), (is_found, is_found), "one of {every}");
        }
    }

    #[test]
    fn what_was_slow_has_to_be_quick_for_a_while() {
        NOW.set(100);
        let pace = Pace::default();
        assert!(!pace.timed(ms(0), 0, now), "it is not in the background");
        assert!(pace.seen(ms(5), 1, now));
        // A call each second: how long it takes, and whether the plugin is slow after it.
        let calls = |milliseconds: u64, count: u64| {
            let call = |_| {
                NOW.set(NOW.get() + 1);
                pace.timed(ms(milliseconds), NOW.get(), now)
            };
            (0..count).map(call).filter(|is_over| *is_over).count()
        };
        assert_eq!(calls(0, 15), 0, "that is not enough to tell");
        assert_eq!(calls(1, 1), 1, "none was long, and they are quick on average");
        assert!(pace.seen(ms(5), 1, now));
        assert_eq!(calls(1, 200), 0, "they are not, on average");
        assert_eq!(calls(0, 15) + calls(3, 1) + calls(0, 15), 0, "one was long");
        assert_eq!(calls(0, 1), 1);
    }

    #[test]
    fn many_quick_calls_do_not_make_it_quick_at_once() {
        NOW.set(0);
        let pace = Pace::default();
        assert!(pace.seen(ms(5), 1, now));
        assert!((0..1000).all(|number| !pace.timed(ms(0), number, now)));
        NOW.set(10);
        assert!((0..16).any(|number| pace.timed(ms(0), number, now)));
        assert!(!pace.is_slow());
    }
}
