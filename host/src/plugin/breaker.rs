//! Is a plugin asked that keeps failing?
//!
//! A plugin that has failed so often in a row is not asked for a while, and its requests are answered at once by what its
//! table says of failures. Then one call finds out whether it has recovered; if not, the while is twice as long. Each
//! worker decides this for itself, by what it has seen: nothing is shared on the way of a request, and of a plugin that is
//! well nothing is known but that it has not failed.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{CallError, FailureKind, Shared};
use crate::config::PluginBreaker;

/// One worker's breaker of one plugin.
#[derive(Debug)]
pub struct Breaker {
    plugin: Arc<str>,
    settings: PluginBreaker,
    shared: Arc<Shared>,
    /// In a row. Not 0 unless the breaker is closed.
    failures: Cell<u32>,
    state: Cell<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    /// Nobody asks before this time.
    Open {
        until: Duration,
        pause: Duration,
    },
    /// One call finds out.
    Probing {
        pause: Duration,
    },
}

/// What a call is to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Usual,
    /// It is to find out.
    Probe,
}

impl Breaker {
    pub fn new(plugin: Arc<str>, settings: PluginBreaker, shared: Arc<Shared>) -> Self {
        Self { plugin, settings, shared, failures: Cell::new(0), state: Cell::new(State::Closed) }
    }

    /// Whether the plugin may be asked.
    pub fn enter(&self, now: fn() -> Duration) -> Result<Entry, CallError> {
        if self.failures.get() < self.settings.failures.get() {
            return Ok(Entry::Usual);
        }
        match self.state.get() {
            State::Closed => Ok(Entry::Usual),
            State::Open { until, pause } if now() >= until => {
                self.state.set(State::Probing { pause });
                Ok(Entry::Probe)
            }
            State::Open { .. } | State::Probing { .. } => Err(CallError::Broken),
        }
    }

    /// A call has ended.
    pub fn leave(&self, error: Option<&CallError>, now: fn() -> Duration) {
        match error {
            None if self.failures.get() == 0 => {}
            None => self.close(),
            Some(error) => self.fail(error, now),
        }
    }

    /// A call was given up before it had ended.
    pub fn give_up(&self, entry: Entry) {
        if let (Entry::Probe, State::Probing { pause }) = (entry, self.state.get()) {
            self.state.set(State::Open { until: Duration::ZERO, pause });
        }
    }

    #[cold]
    fn close(&self) {
        self.failures.set(0);
        if self.state.replace(State::Closed) != State::Closed {
            self.shared.open_breakers.fetch_sub(1, Ordering::Relaxed);
            tracing::info!(plugin = %self.plugin, "the plugin is well again on this worker");
        }
    }

    #[cold]
    fn fail(&self, error: &CallError, now: fn() -> Duration) {
        let state = self.state.get();
        if !FailureKind::from(error).is_crash() {
            // It has answered, if not well.
            if matches!(state, State::Probing { .. }) {
                self.close();
            }
            return;
        }
        self.failures.set(self.failures.get().saturating_add(1));
        let pause = match state {
            State::Closed if self.failures.get() < self.settings.failures.get() => return,
            State::Closed => self.settings.pause.get(),
            State::Probing { pause } => pause.saturating_mul(2),
            // One that had begun before.
            State::Open { .. } => return,
        };
        let pause = pause.min(self.settings.pause_max.get());
        self.state.set(State::Open { until: now().saturating_add(pause), pause });
        if state == State::Closed {
            self.shared.open_breakers.fetch_add(1, Ordering::Relaxed);
            self.shared.breaker_opened.fetch_add(1, Ordering::Relaxed);
        }
        let (plugin, failures) = (&self.plugin, self.failures.get());
        tracing::warn!(%plugin, failures, ?pause, %error, "the plugin keeps failing and is not asked for a while");
    }
}

impl Drop for Breaker {
    fn drop(&mut self) {
        if self.state.get() != State::Closed {
            self.shared.open_breakers.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZero, time::Duration};

    use super::*;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    fn now() -> Duration {
        Duration::from_secs(NOW.get())
    }

    fn breaker() -> Breaker {
        let settings = PluginBreaker {
            failures: NonZero::new(3).unwrap(),
            pause: crate::config::Duration::from_secs(2),
            pause_max: crate::config::Duration::from_secs(5),
        };
        Breaker::new("test".into(), settings, Arc::default())
    }

    /// Calls that end like this, each a second after the one before: `.` well, `x` badly, `b` busy. What comes of it:
    /// the same, or `-` for one that was not made.
    fn calls(breaker: &Breaker, calls: &str) -> String {
        let call = |how: char| {
            NOW.set(NOW.get() + 1);
            if breaker.enter(now).is_err() {
                return '-';
            }
            match how {
                '.' => breaker.leave(None, now),
                'b' => breaker.leave(Some(&CallError::Busy(1)), now),
                _ => breaker.leave(Some(&CallError::Trap(String::new())), now),
            }
            how
        };
        calls.chars().map(call).collect()
    }

    #[test]
    fn a_plugin_that_keeps_failing_is_asked_less_and_less() {
        for (wanted, made) in [
            ("....", "...."),
            ("xx.xx.xx.", "xx.xx.xx."),
            // Three in a row, and others for two seconds.
            ("xxx......", "xxx-....."),
            // The probe fails: four seconds, and then no more than five.
            (&"x".repeat(21), "xxx-x---x----x----x--"),
            ("xxxxx....", "xxx-x---."),
            // Busy is nobody's fault.
            ("xxbx.", "xxbx-"),
        ] {
            NOW.set(0);
            let breaker = breaker();
            assert_eq!(calls(&breaker, wanted), made, "{wanted}");
        }
    }

    #[test]
    fn what_it_is_told_by_others_is_counted_once() {
        NOW.set(0);
        let breaker = breaker();
        let shared = breaker.shared.clone();
        let open = || shared.open_breakers.load(Ordering::Relaxed);
        calls(&breaker, "xxx");
        assert_eq!(open(), 1);
        // A call that had begun before it opened.
        breaker.leave(Some(&CallError::Trap(String::new())), now);
        assert_eq!((open(), shared.breaker_opened.load(Ordering::Relaxed)), (1, 1));
        NOW.set(10);
        assert_eq!(breaker.enter(now).unwrap(), Entry::Probe);
        assert!(breaker.enter(now).is_err(), "one finds out");
        breaker.give_up(Entry::Usual);
        assert!(breaker.enter(now).is_err(), "it was not this one that was given up");
        breaker.give_up(Entry::Probe);
        assert_eq!(breaker.enter(now).unwrap(), Entry::Probe);
        breaker.leave(None, now);
        assert_eq!(open(), 0);
        calls(&breaker, "xxx");
        drop(breaker);
        assert_eq!(open(), 0);
    }
}
