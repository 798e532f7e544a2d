//! What has a call taken?
//!
//! A call of microseconds is never timed: that would cost a good part of what it takes. It is looked at when an epoch ends
//! while it runs. What is known of a plugin's time is a sample by that, and exact from then on.

use std::time::Duration;

use super::epoch::EPOCH;

/// The CPU time of a call, which may come and go. Taken only once the call has been seen to take long.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Meter {
    /// When it was looked at last, if it was.
    since: Option<Duration>,
    used: Duration,
    /// Whether an epoch was seen to end while it ran.
    is_sample: bool,
}

impl Meter {
    /// The call is seen to run: an epoch has passed, or a piece of something long that the host does for it. What it has
    /// used so far; nothing when it is first seen, so that one that was merely not scheduled is not blamed.
    pub fn look(&mut self, now: Duration) -> Duration {
        self.is_sample = true;
        self.watch(now)
    }

    /// The same for an epoch that has passed while the call waited: that says nothing of how long it runs.
    pub fn watch(&mut self, now: Duration) -> Duration {
        self.add(now);
        self.since = Some(now);
        self.used
    }

    /// The call goes on after it was away from the thread, if it is watched.
    pub fn resume(&mut self, cpu: fn() -> Duration) {
        self.since = self.since.map(|_| cpu());
    }

    /// The call lets go of the thread, or ends.
    pub fn pause(&mut self, cpu: fn() -> Duration) {
        if self.since.is_some() {
            self.add(cpu());
        }
    }

    /// What the call has taken, as a sample: an epoch for the one that ended while it ran, if any did, and what was seen
    /// since.
    pub fn sampled(&self) -> Duration {
        if self.is_sample { self.used.saturating_add(EPOCH) } else { self.used }
    }

    /// What the call has used since it was seen first.
    pub fn used(&self) -> Duration {
        self.used
    }

    /// Between two looks no more than an epoch counts: a call that runs is looked at in each, so what is beyond was
    /// mostly taken from the whole machine, by others on the same hardware.
    fn add(&mut self, now: Duration) {
        let since = self.since.unwrap_or(now);
        self.used += now.saturating_sub(since).min(EPOCH);
    }
}

/// What a call has taken that has ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Cost {
    /// Processor time: as it was timed on the offload thread, or else as a sample, which is nothing unless an epoch ended
    /// meanwhile.
    pub computed: Duration,
    pub slept: Duration,
    /// How long it has computed after it had been seen first.
    pub seen_for: Duration,
    /// How long it has waited.
    pub waited: Duration,
    /// It was made on the offload thread, from its beginning or in the end.
    pub is_offloaded: bool,
}

impl Cost {
    /// Of the time of its thread.
    pub fn taken(&self) -> Duration {
        self.computed.saturating_add(self.slept)
    }

    /// The same, less what it had taken before it was seen.
    pub fn held(&self) -> Duration {
        self.seen_for.saturating_add(self.slept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn time_that_is_taken_from_the_machine_counts_for_an_epoch_at_most() {
        let mut meter = Meter::default();
        assert_eq!(meter.look(ms(1000)), Duration::ZERO);
        assert_eq!(meter.look(ms(2000)), EPOCH);
        assert_eq!(meter.look(ms(3000)), EPOCH * 2);
    }

    #[test]
    fn a_call_that_was_not_seen_running_is_not_a_sample() {
        let mut meter = Meter::default();
        meter.pause(|| ms(7));
        assert_eq!(meter.sampled(), Duration::ZERO);
        // An epoch has passed while it waited: from now on all that it takes is known.
        assert_eq!(meter.watch(ms(10)), Duration::ZERO);
        meter.pause(|| ms(11));
        meter.resume(|| ms(20));
        meter.pause(|| ms(22));
        assert_eq!((meter.used(), meter.sampled()), (ms(3), ms(3)));
        meter.resume(|| ms(30));
        assert_eq!(meter.look(ms(34)), ms(7));
        assert_eq!(meter.sampled(), ms(7) + EPOCH);
    }
}
