//! Is a plugin asked that keeps failing, or takes the time of others?
//!
//! A plugin that has failed so often in a row is not asked for a while, and its requests are answered at once by what its
//! table says of failures. Then one call finds out whether it has recovered; if not, the while is twice as long. Each
//! worker decides this for itself, by what it has seen: nothing is shared on the way of a request, and of a plugin that is
//! well nothing is known but that it has not failed.
//!
//! One that takes more than its share of the worker's time is not asked until that is made up for. Its time is that of a
//! sample: of the calls that ran when an epoch ended.

use std::{
    cell::Cell,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{
    counts::{FailureKind, Hook},
    epoch::EPOCH,
    error::CallError,
    shared::Shared,
};
use crate::{config::PluginBreaker, telemetry::sampled};

/// One worker's breaker of one plugin.
#[derive(Debug)]
pub struct Breaker {
    plugin: Arc<str>,
    settings: PluginBreaker,
    shared: Arc<Shared>,
    /// In a row. Not 0 unless the breaker is closed.
    failures: Cell<u32>,
    /// The hook that has failed last: what another brings says nothing of it.
    failing: Cell<Hook>,
    state: Cell<State>,
    /// What it has taken and its share has not brought in since,
    debt: Cell<Duration>,
    /// as it was then.
    settled: Cell<Duration>,
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
    /// It has taken more than its share.
    Sated {
        until: Duration,
    },
}

/// What a call is to the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entry {
    Usual,
    /// It is to find out.
    Probe,
    /// It is only explained, and says nothing of the plugin.
    Explained,
}

impl Breaker {
    /// What a share brings in is not kept for longer than this, so that it is the most that can be taken at once.
    const WINDOW: Duration = Duration::from_secs(10);

    pub fn new(plugin: Arc<str>, settings: PluginBreaker, shared: Arc<Shared>) -> Self {
        Self {
            plugin,
            settings,
            shared,
            failures: Cell::new(0),
            failing: Cell::new(Hook::OnRequest),
            state: Cell::new(State::Closed),
            debt: Cell::default(),
            settled: Cell::default(),
        }
    }

    /// Whether this hook of the plugin may be called.
    pub fn enter(&self, hook: Hook, now: fn() -> Duration) -> Result<Entry, CallError> {
        if self.failures.get() < self.settings.failures.get() {
            return Ok(Entry::Usual);
        }
        match self.state.get() {
            State::Closed => Ok(Entry::Usual),
            // It comes before the one that can find out.
            State::Open { until, .. } if hook != self.failing.get() && now() >= until => Ok(Entry::Usual),
            State::Open { until, pause } if now() >= until => {
                self.state.set(State::Probing { pause });
                Ok(Entry::Probe)
            }
            State::Sated { until } if now() >= until => {
                self.close();
                Ok(Entry::Usual)
            }
            State::Open { .. } | State::Probing { .. } | State::Sated { .. } => Err(CallError::Broken),
        }
    }

    /// Whether this hook would be called of a request that is only explained. That takes the place of no call that is to find
    /// out, and its failure is not to open the breaker of those that serve.
    pub fn explain(&self, now: fn() -> Duration) -> Result<Entry, CallError> {
        match self.state.get() {
            State::Closed => Ok(Entry::Explained),
            State::Open { until, .. } | State::Sated { until } if now() >= until => Ok(Entry::Explained),
            State::Open { .. } | State::Probing { .. } | State::Sated { .. } => Err(CallError::Broken),
        }
    }

    /// A call has taken so much of the worker's time, by the sample.
    pub fn spend(&self, time: Duration, now: fn() -> Duration) {
        if let Some(share) = self.settings.cpu_share
            && !time.is_zero()
        {
            self.settle(time, share.get(), now());
        }
    }

    #[cold]
    fn settle(&self, time: Duration, share: f64, now: Duration) {
        let earned = now.saturating_sub(self.settled.replace(now)).mul_f64(share);
        let debt = self.debt.get().saturating_sub(earned).saturating_add(time);
        self.debt.set(debt);
        // Of a sample of four not much can be said.
        if debt < Self::WINDOW.mul_f64(share).max(EPOCH * 4) || self.state.get() != State::Closed {
            return;
        }
        let seconds = (debt.as_secs_f64() / share).min(self.settings.pause_max.get().as_secs_f64());
        let pause = Duration::from_secs_f64(seconds);
        self.open(State::Sated { until: now.saturating_add(pause) });
        // So that it is known to whoever enters that it is not closed.
        self.failures.set(self.settings.failures.get());
        let plugin = &self.plugin;
        sampled!(warn, of: plugin, %plugin, share, ?pause, "the plugin takes more than its share of the time and is not asked for a while");
    }

    /// A call of this hook has ended.
    pub fn leave(&self, hook: Hook, error: Option<&CallError>, now: fn() -> Duration) {
        match error {
            None if self.failures.get() == 0 => {}
            // It had begun before.
            None if matches!(self.state.get(), State::Sated { .. }) => {}
            None if hook != self.failing.get() => {}
            None => self.close(),
            Some(error) => self.fail(hook, error, now),
        }
    }

    /// Whether the plugin is left alone.
    pub fn is_open(&self) -> bool {
        matches!(self.state.get(), State::Open { .. } | State::Sated { .. })
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
        let before = self.state.replace(State::Closed);
        if before != State::Closed {
            self.shared.open_breakers.fetch_sub(1, Ordering::Relaxed);
        }
        match before {
            State::Closed => {}
            State::Sated { .. } => {
                tracing::info!(plugin = %self.plugin, "the plugin is asked again on this worker");
            }
            State::Open { .. } | State::Probing { .. } => {
                tracing::info!(plugin = %self.plugin, "plugin healthy again on this worker");
            }
        }
    }

    /// From now on it is not asked.
    fn open(&self, state: State) {
        if self.state.replace(state) == State::Closed {
            self.shared.open_breakers.fetch_add(1, Ordering::Relaxed);
            self.shared.breaker_opened.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[cold]
    fn fail(&self, hook: Hook, error: &CallError, now: fn() -> Duration) {
        let state = self.state.get();
        if !FailureKind::from(error).is_crash() {
            // It has answered, if not well.
            if matches!(state, State::Probing { .. }) {
                self.close();
            }
            return;
        }
        if !matches!(state, State::Sated { .. }) {
            self.failures.set(self.failures.get().saturating_add(1));
            self.failing.set(hook);
        }
        let pause = match state {
            State::Closed if self.failures.get() < self.settings.failures.get() => return,
            State::Closed => self.settings.pause.get(),
            State::Probing { pause } => pause.saturating_mul(2),
            // One that had begun before.
            State::Open { .. } | State::Sated { .. } => return,
        };
        let pause = pause.min(self.settings.pause_max.get());
        self.open(State::Open { until: now().saturating_add(pause), pause });
        let (plugin, failures) = (&self.plugin, self.failures.get());
        sampled!(warn, of: plugin, %plugin, failures, ?pause, %error, "the plugin keeps failing and is not asked for a while");
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

    use super::{super::error::Trap, *};
    use crate::config::Share;

    thread_local!(static NOW: Cell<u64> = const { Cell::new(0) });

    fn now() -> Duration {
        Duration::from_secs(NOW.get())
    }

    fn breaker() -> Breaker {
        let settings = PluginBreaker {
            failures: NonZero::new(3).unwrap(),
            pause: crate::config::Duration::from_secs(2),
            pause_max: crate::config::Duration::from_secs(5),
            cpu_share: Some(Share::new(0.25)),
        };
        Breaker::new("test".into(), settings, Arc::default())
    }

    /// Calls that end like this, each a second after the one before: `.` well, `x` badly, `b` busy. What comes of it:
    /// the same, or `-` for one that was not made.
    fn calls(breaker: &Breaker, calls: &str) -> String {
        let call = |how: char| {
            NOW.set(NOW.get() + 1);
            if breaker.enter(Hook::OnRequest, now).is_err() {
                return '-';
            }
            match how {
                '.' => breaker.leave(Hook::OnRequest, None, now),
                'b' => breaker.leave(Hook::OnRequest, Some(&CallError::Busy(1)), now),
                _ => breaker.leave(Hook::OnRequest, Some(&CallError::Trap(Trap::default())), now),
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
    fn what_one_hook_brings_says_nothing_of_another() {
        NOW.set(0);
        let breaker = breaker();
        let trap = CallError::Trap(Trap::default());
        // Each request: whether its request hook was called, and how its response hook ended.
        let ask = |response: Option<&CallError>| {
            NOW.set(NOW.get() + 1);
            let called = breaker.enter(Hook::OnRequest, now).is_ok();
            if called {
                breaker.leave(Hook::OnRequest, None, now);
                let entry = breaker.enter(Hook::OnResponse, now);
                breaker.leave(Hook::OnResponse, response, now);
                return Some(entry.ok());
            }
            None
        };
        for _ in 0..3 {
            assert_eq!(ask(Some(&trap)), Some(Some(Entry::Usual)));
        }
        assert_eq!(ask(None), None, "it is not asked");
        assert_eq!(ask(Some(&trap)), Some(Some(Entry::Probe)), "the response hook finds out");
        assert_eq!([ask(None), ask(None), ask(None)], [None; 3]);
        assert_eq!(ask(None), Some(Some(Entry::Probe)));
        assert_eq!(ask(None), Some(Some(Entry::Usual)));
    }

    #[test]
    fn a_plugin_that_takes_more_than_its_share_makes_up_for_it() {
        NOW.set(100);
        let breaker = breaker();
        let open = || breaker.shared.open_breakers.load(Ordering::Relaxed);
        let take = |milliseconds| {
            let entered = breaker.enter(Hook::OnRequest, now).is_ok();
            if entered {
                breaker.spend(Duration::from_millis(milliseconds), now);
                breaker.leave(Hook::OnRequest, None, now);
            }
            entered
        };
        // What it may take in ten seconds it may take at once.
        assert!(take(1000) && take(1000) && take(499) && take(1));
        assert_eq!(open(), 1);
        assert!(!take(1));
        breaker.leave(Hook::OnRequest, Some(&CallError::Trap(Trap::default())), now);
        breaker.leave(Hook::OnRequest, None, now);
        assert!(!take(1), "what had begun before changes nothing");
        NOW.set(104);
        assert!(!take(1), "ten seconds, but no longer than `pause-max`");
        NOW.set(105);
        assert!(take(1));
        assert_eq!(open(), 0);
        // Five seconds have brought in as many quarters.
        assert!(take(1248) && take(2) && !take(1));
        NOW.set(200);
        for _ in 0..20 {
            NOW.set(NOW.get() + 1);
            assert!(take(250), "its share is its share");
        }
        drop(breaker);
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
        breaker.leave(Hook::OnRequest, Some(&CallError::Trap(Trap::default())), now);
        assert_eq!((open(), shared.breaker_opened.load(Ordering::Relaxed)), (1, 1));
        NOW.set(10);
        assert_eq!(breaker.enter(Hook::OnRequest, now).unwrap(), Entry::Probe);
        assert!(breaker.enter(Hook::OnRequest, now).is_err(), "one finds out");
        breaker.give_up(Entry::Usual);
        assert!(breaker.enter(Hook::OnRequest, now).is_err(), "it was not this one that was given up");
        breaker.give_up(Entry::Probe);
        assert_eq!(breaker.enter(Hook::OnRequest, now).unwrap(), Entry::Probe);
        breaker.leave(Hook::OnRequest, None, now);
        assert_eq!(open(), 0);
        calls(&breaker, "xxx");
        drop(breaker);
        assert_eq!(open(), 0);
    }
}
