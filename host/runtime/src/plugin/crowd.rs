//! Has a plugin enough instances for the requests that want one at once, and how many would be enough?
//!
//! A plugin that waits for somebody slow, such as an issuer of tokens, holds an instance for each request meanwhile. When all
//! are out, further requests are refused. That is told in the log, now and then, with the number of instances that would
//! have been enough: requests in a second, times the seconds that each has its instance (Little's law).

use std::{cell::Cell, time::Duration};

/// What is counted of one plugin on one worker.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    /// When counting began.
    since: Cell<Duration>,
    /// Requests that wanted an instance since then, with those that got none.
    arrived: Cell<u32>,
    /// In a second, in the period before that.
    rate: Cell<f64>,
    /// Requests that got none since it was told last.
    refused: Cell<u32>,
    /// How long a call has its instance, in the mean of late.
    held: Cell<Duration>,
    /// When it was told last.
    warned: Cell<Option<Duration>>,
}

/// What the operator is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Crowded {
    /// Requests that got no instance since it was told last.
    pub refused: u32,
    /// How long a call has its instance, in the mean.
    pub held: Duration,
    /// Instances that would have been enough, on this worker.
    pub enough: u32,
}

impl Crowd {
    /// Between two lines of the log, and what is counted together.
    const PERIOD: Duration = Duration::from_secs(10);

    /// A request wants an instance.
    pub fn arrive(&self, now: Duration) {
        let counted = now.saturating_sub(self.since.get());
        if counted >= Self::PERIOD {
            self.rate.set(f64::from(self.arrived.get()) / counted.as_secs_f64());
            self.since.set(now);
            self.arrived.set(0);
        }
        self.arrived.set(self.arrived.get().saturating_add(1));
    }

    /// A call has ended that had its instance for so long.
    pub fn leave(&self, held: Duration) {
        let before = self.held.get();
        // A mean in which the last few calls count most: what is slow now is what matters.
        let mean = if before.is_zero() { held } else { (before * 7 + held) / 8 };
        self.held.set(mean);
    }

    /// A request gets none of the `most` instances. What is to be told of it, if it is time to. `longest` is how long a
    /// call may take, which is what is known before the first has ended.
    pub fn refuse(&self, most: u32, longest: Duration, now: Duration) -> Option<Crowded> {
        self.refused.set(self.refused.get().saturating_add(1));
        if self.warned.get().is_some_and(|warned| now.saturating_sub(warned) < Self::PERIOD) {
            return None;
        }
        self.warned.set(Some(now));
        let held = if self.held.get().is_zero() { longest } else { self.held.get() };
        // A rate over less than a second is of a burst.
        let seconds = now.saturating_sub(self.since.get()).as_secs_f64().max(1.0);
        let rate = (f64::from(self.arrived.get()) / seconds).max(self.rate.get());
        let needed = (rate * held.as_secs_f64()).ceil();
        // The cast ends at what a `u32` holds.
        let enough = (needed as u32).max(most.saturating_add(1));
        Some(Crowded { refused: self.refused.take(), held, enough })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn the_number_that_would_be_enough_is_told_now_and_then() {
        let crowd = Crowd::default();
        // Twenty requests in a second, each of which has its instance for two seconds.
        let mut warned = Vec::new();
        for number in 0..400 {
            let now = ms(100_000 + number * 50);
            crowd.arrive(now);
            if number % 2 == 0 {
                crowd.leave(ms(2000));
            } else {
                warned.extend(crowd.refuse(16, ms(5000), now));
            }
        }
        assert_eq!(warned.len(), 2, "{warned:?}");
        assert_eq!((warned[1].held, warned[1].enough), (ms(2000), 40), "{warned:?}");
        assert!(warned[1].refused > 90, "{warned:?}");
    }

    #[test]
    fn before_the_first_call_has_ended_the_longest_counts() {
        let crowd = Crowd::default();
        for _ in 0..17 {
            crowd.arrive(ms(50_000));
        }
        let warned = crowd.refuse(16, ms(5000), ms(50_000));
        assert_eq!(warned, Some(Crowded { refused: 1, held: ms(5000), enough: 85 }));
        assert_eq!(crowd.refuse(16, ms(5000), ms(50_001)), None);
    }

    #[test]
    fn more_than_there_are_would_be_enough() {
        let crowd = Crowd::default();
        crowd.arrive(ms(50_000));
        crowd.leave(ms(1));
        let enough = crowd.refuse(16, ms(5000), ms(50_000)).map(|crowded| crowded.enough);
        assert_eq!(enough, Some(17));
    }
}
