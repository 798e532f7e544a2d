//! What time is it, roughly, and who has waited too long?
//!
//! A timer of the runtime costs a request half a microsecond or more; time-outs of seconds need no such
//! precision. A [`Clock`] belongs to one worker and ticks a few times a second; a [`Timer`] is a place in
//! its list, and starting or stopping one writes a number.

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use pin_project_lite::pin_project;
use slab::Slab;

/// Between two ticks. A time-out ends at most this much late.
pub const TICK: Duration = Duration::from_millis(20);

const TICKS_PER_SECOND: u64 = 50;

/// A point in time, in ticks since the clock was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    const NEVER: Tick = Tick(u64::MAX);

    fn after(self, duration: Duration) -> Self {
        // One more, since the current tick is partly over.
        let ticks = duration.as_secs().saturating_mul(TICKS_PER_SECOND);
        let rest = u64::from(duration.subsec_nanos().div_ceil(TICK.subsec_nanos()));
        Tick(self.0.saturating_add(ticks).saturating_add(rest + 1))
    }
}

/// The time of one worker, and all timers on it. Clones are the same clock.
#[derive(Debug, Clone, Default)]
pub struct Clock(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    now: Cell<u64>,
    timers: RefCell<Slab<Entry>>,
}

#[derive(Debug)]
struct Entry {
    deadline: Tick,
    waker: Option<Waker>,
}

impl Clock {
    pub fn now(&self) -> Tick {
        Tick(self.0.now.get())
    }

    /// Whether `duration` has passed since `then`.
    pub fn has_passed(&self, duration: Duration, then: Tick) -> bool {
        self.now() >= then.after(duration)
    }

    /// How much time has passed since `then`, in whole ticks.
    pub fn since(&self, then: Tick) -> Duration {
        TICK * u32::try_from(self.0.now.get().saturating_sub(then.0)).unwrap_or(u32::MAX)
    }

    /// Waits.
    pub async fn pause(&self, duration: Duration) {
        if !duration.is_zero() {
            let timer = self.timer();
            timer.start(duration);
            timer.await;
        }
    }

    /// A timer that is not running.
    pub fn timer(&self) -> Timer {
        let key = self.0.timers.borrow_mut().insert(Entry { deadline: Tick::NEVER, waker: None });
        Timer { clock: self.clone(), key }
    }

    /// Ticks for ever.
    pub async fn run(&self) {
        let mut ticks = tokio::time::interval(TICK);
        let mut last = ticks.tick().await;
        loop {
            let now = ticks.tick().await;
            // A worker that was held up has missed ticks; time has passed all the same.
            let passed = (now - last).as_nanos() / TICK.as_nanos();
            last += TICK * u32::try_from(passed).unwrap_or(u32::MAX);
            self.advance(u64::try_from(passed).unwrap_or(u64::MAX));
        }
    }

    fn advance(&self, ticks: u64) {
        let now = Tick(self.0.now.get() + ticks);
        self.0.now.set(now.0);
        for (_, entry) in self.0.timers.borrow_mut().iter_mut() {
            if entry.deadline <= now
                && let Some(waker) = entry.waker.take()
            {
                waker.wake();
            }
        }
    }

    /// Wakes whoever waits on a timer, as if it had run out: so that connections notice a drain.
    pub fn wake_all(&self) {
        for (_, entry) in self.0.timers.borrow_mut().iter_mut() {
            if let Some(waker) = entry.waker.take() {
                waker.wake();
            }
        }
    }

    /// Runs `task` for at most `limit`.
    pub fn within<F: Future>(&self, limit: Duration, task: F) -> Within<F> {
        let timer = self.timer();
        timer.start(limit);
        Within { task, timer }
    }
}

pin_project! {
    /// A task that has so much time. Written out, since an async function would hold the task twice.
    #[derive(Debug)]
    pub struct Within<F> {
        #[pin]
        task: F,
        timer: Timer,
    }
}

impl<F: Future> Future for Within<F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        poll_before(this.task, Some(this.timer), cx)
    }
}

pin_project! {
    /// A task that has until a timer runs out, if there is one.
    #[derive(Debug)]
    pub struct Before<'a, F> {
        #[pin]
        task: F,
        deadline: Option<&'a Timer>,
    }
}

/// Runs `task` until the timer runs out, if there is one.
pub fn before<F: Future>(deadline: Option<&Timer>, task: F) -> Before<'_, F> {
    Before { task, deadline }
}

impl<F: Future> Future for Before<'_, F> {
    type Output = Result<F::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        poll_before(this.task, *this.deadline, cx)
    }
}

fn poll_before<F: Future>(
    task: Pin<&mut F>,
    deadline: Option<&Timer>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, Elapsed>> {
    match (task.poll(cx), deadline) {
        (Poll::Ready(output), _) => Poll::Ready(Ok(output)),
        (Poll::Pending, Some(deadline)) => deadline.poll(cx).map(|()| Err(Elapsed)),
        (Poll::Pending, None) => Poll::Pending,
    }
}

/// How many bytes have to pass in so much time of waiting.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// Each second; none is no limit.
    pub bytes: u64,
    pub window: Duration,
}

/// Tells whether who is waited for keeps up with a [`Rate`]. Time counts only while it is waited for.
#[derive(Debug, Default)]
pub struct MinimumRate {
    /// Since then nothing has passed.
    since: Option<Tick>,
    waited: Duration,
    passed: u64,
}

impl MinimumRate {
    /// Nothing passes, since the other side is not ready.
    pub fn wait(&mut self, clock: &Clock) {
        self.since.get_or_insert(clock.now());
    }

    /// This many bytes have passed. False if they were too few for the time that they took.
    pub fn pass(&mut self, bytes: usize, rate: Rate, clock: &Clock) -> bool {
        self.passed = self.passed.saturating_add(bytes as u64);
        let Some(since) = self.since.take() else { return true };
        self.waited += clock.since(since);
        if self.waited < rate.window {
            return true;
        }
        let Self { waited, passed, .. } = std::mem::take(self);
        u128::from(passed) * 1000 >= u128::from(rate.bytes) * waited.as_millis()
    }
}

/// The time that a task had has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("took too long")]
pub struct Elapsed;

/// A deadline that can be moved at no cost.
#[derive(Debug)]
pub struct Timer {
    clock: Clock,
    key: usize,
}

impl Timer {
    /// Sets the deadline, in place of any earlier one.
    pub fn start(&self, duration: Duration) {
        self.clock.0.timers.borrow_mut()[self.key].deadline = self.clock.now().after(duration);
    }

    /// Takes the deadline away.
    pub fn stop(&self) {
        self.clock.0.timers.borrow_mut()[self.key].deadline = Tick::NEVER;
    }

    /// That it goes by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    pub fn is_running(&self) -> bool {
        self.clock.0.timers.borrow()[self.key].deadline != Tick::NEVER
    }

    /// Ready once the deadline has passed; until then the task is woken when it does.
    pub fn poll(&self, cx: &mut Context<'_>) -> Poll<()> {
        let entry = &mut self.clock.0.timers.borrow_mut()[self.key];
        if entry.deadline <= self.clock.now() {
            return Poll::Ready(());
        }
        match &entry.waker {
            Some(waker) if waker.will_wake(cx.waker()) => {}
            _ => entry.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.clock.0.timers.borrow_mut().remove(self.key);
    }
}

impl Future for Timer {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Timer::poll(&self, cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_over(timer: &Timer) -> bool {
        timer.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn a_timer_never_runs_out_early() {
        let clock = Clock::default();
        let timer = clock.timer();
        timer.start(TICK * 3);
        clock.advance(3);
        assert!(!is_over(&timer), "the tick in which it was started does not count");
        clock.advance(1);
        assert!(is_over(&timer));
    }

    #[test]
    fn a_timer_that_was_moved_or_stopped_forgets_its_old_deadline() {
        let clock = Clock::default();
        let timer = clock.timer();
        timer.start(TICK);
        timer.start(TICK * 10);
        clock.advance(5);
        assert!(!is_over(&timer));
        timer.stop();
        clock.advance(1000);
        assert!(!is_over(&timer));
    }

    #[test]
    fn only_waiting_counts_against_a_pace() {
        let clock = Clock::default();
        let rate = Rate { bytes: 100, window: Duration::from_secs(1) };
        let mut pace = MinimumRate::default();
        for (waited, idle, bytes, expected) in [
            // In ticks, of which there are 50 a second.
            (50, 0, 100, true),
            (50, 0, 99, false),
            (20, 100, 1, true),
            (20, 100, 1, true),
            (20, 100, 118, true),
            (100, 0, 199, false),
            (0, 1000, 1, true),
            (49, 0, 0, true),
            (1, 0, 98, false),
        ] {
            clock.advance(idle);
            if waited > 0 {
                pace.wait(&clock);
                clock.advance(waited - 1);
                pace.wait(&clock);
                clock.advance(1);
            }
            assert_eq!(pace.pass(bytes, rate, &clock), expected, "{bytes} bytes in {waited} ticks");
        }
        pace.wait(&clock);
        clock.advance(1000);
        assert!(pace.pass(0, Rate { bytes: 0, ..rate }, &clock));
    }

    #[test]
    fn dropped_timers_leave_nothing_behind() {
        let clock = Clock::default();
        drop((clock.timer(), clock.timer()));
        assert!(clock.0.timers.borrow().is_empty());
    }
}
