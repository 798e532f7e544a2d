//! How much may a plugin log?
//!
//! A call has a number of lines. But calls come as often as requests do, so all instances of a plugin together have a number of
//! bytes a second as well, with some seconds' worth at once.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// What a plugin has logged of late, over all its instances and generations.
#[derive(Debug, Default)]
pub(super) struct LogRate {
    /// When everything that was logged would have been written at the rate that is allowed, in nanoseconds.
    done: AtomicU64,
    /// Lines that were left out, and those that nobody has been told of yet.
    dropped: AtomicU64,
    untold: AtomicU64,
    /// When somebody was told last, in seconds.
    warned: AtomicU64,
}

/// Whether a line may be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    Yes,
    No,
    /// No, and it is time to say that so many lines were left out since it was said last.
    NoAndSay(u64),
}

impl LogRate {
    /// Seconds whose bytes may be logged at once.
    const BURST: u64 = 4;
    /// What a line takes beside its text: time, level, names, the request's id.
    const OF_A_LINE: u64 = 128;

    /// Whether a line with so many bytes of text may be written, of `rate` bytes a second.
    pub fn ask(&self, text: usize, rate: u64, now: Duration) -> Allowed {
        const SECOND: u64 = 1_000_000_000;
        let at = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let size = (text as u64).saturating_add(Self::OF_A_LINE);
        let cost = size.saturating_mul(SECOND).checked_div(rate).unwrap_or(u64::MAX);
        let allowed = self.done.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |done| {
            let done = done.max(at).saturating_add(cost);
            (done - at <= Self::BURST * SECOND).then_some(done)
        });
        if allowed.is_ok() {
            return Allowed::Yes;
        }
        self.dropped.fetch_add(1, Ordering::Relaxed);
        self.untold.fetch_add(1, Ordering::Relaxed);
        // From 1, so that the first is told of at once.
        let second = now.as_secs() + 1;
        let warned = self.warned.load(Ordering::Relaxed);
        let is_first = second > warned
            && self.warned.compare_exchange(warned, second, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        match is_first {
            true => Allowed::NoAndSay(self.untold.swap(0, Ordering::Relaxed)),
            false => Allowed::No,
        }
    }

    /// Lines that were left out.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugin_logs_so_much_a_second_and_some_seconds_worth_at_once() {
        let rate = LogRate::default();
        let ask = |milliseconds| rate.ask(872, 1000, Duration::from_millis(milliseconds));
        let allowed = (0..10).filter(|_| ask(5000) == Allowed::Yes).count();
        assert_eq!(allowed, 4);
        assert_eq!(rate.dropped(), 6);
        assert_eq!(ask(5900), Allowed::No, "a line takes a second, and nobody is told twice in one");
        assert_eq!(ask(6000), Allowed::Yes);
        assert_eq!(ask(6500), Allowed::NoAndSay(7));
        assert_eq!(ask(6600), Allowed::No);
        assert_eq!(
            (0..10).filter(|_| ask(60_000) == Allowed::Yes).count(),
            4,
            "what was not used is not saved up"
        );
    }

    #[test]
    fn what_is_larger_than_all_there_may_be_is_left_out() {
        let rate = LogRate::default();
        assert_eq!(rate.ask(5000, 1000, Duration::from_secs(9)), Allowed::NoAndSay(1));
        assert_eq!(rate.ask(1, 0, Duration::from_secs(9)), Allowed::No);
        assert_eq!(rate.ask(1, 1000, Duration::from_secs(9)), Allowed::Yes);
    }
}
