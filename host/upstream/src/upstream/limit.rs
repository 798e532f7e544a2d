//! May one more begin, or is it to wait?
//!
//! A [`Limiter`] is shared by all workers. While there is room, to enter is one atomic operation, and so is to
//! leave. Whoever waits does so in order, on whichever worker, and those who come later do not pass by.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
};

use slab::Slab;

/// Lets so many in at once.
#[derive(Debug)]
pub struct Limiter {
    limit: AtomicU32,
    inside: AtomicU32,
    waiting: AtomicU32,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiters: Slab<Waiter>,
    /// Those that have not been let in, the first to be let in first.
    order: VecDeque<usize>,
}

#[derive(Debug)]
struct Waiter {
    waker: Option<Waker>,
    is_let_in: bool,
}

/// One who is in, until this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<Limiter>);

/// There are too many who wait.
#[derive(Debug, PartialEq, Eq)]
pub struct QueueFull;

impl Limiter {
    pub fn new(limit: u32) -> Arc<Self> {
        Arc::new(Self {
            limit: AtomicU32::new(limit),
            inside: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            queue: Mutex::default(),
        })
    }

    /// How many are let in at once from now on. Those who are in stay in.
    pub fn set_limit(&self, limit: u32) {
        if self.limit.swap(limit, Ordering::SeqCst) < limit && self.has_waiting() {
            self.let_in(&mut self.queue());
        }
    }

    pub fn limit(&self) -> u32 {
        self.limit.load(Ordering::Relaxed)
    }

    pub fn inside(&self) -> u32 {
        self.inside.load(Ordering::Relaxed)
    }

    pub fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    pub fn has_waiting(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Enters, if there is room and nobody waits.
    pub fn try_enter(self: &Arc<Self>) -> Option<Permit> {
        (!self.has_waiting() && self.take()).then(|| Permit(self.clone()))
    }

    /// Waits to enter, unless as many as `longest` wait.
    pub fn enter(self: &Arc<Self>, longest: u32) -> Result<Entering, QueueFull> {
        let mut queue = self.queue();
        if queue.order.len() >= longest as usize {
            return Err(QueueFull);
        }
        let key = queue.waiters.insert(Waiter { waker: None, is_let_in: false });
        queue.order.push_back(key);
        // Whoever leaves after this sees that somebody waits, and whoever has left before has made room.
        self.waiting.fetch_add(1, Ordering::SeqCst);
        self.let_in(&mut queue);
        drop(queue);
        Ok(Entering { limiter: self.clone(), key: Some(key) })
    }

    /// Takes a place, if there is one.
    fn take(&self) -> bool {
        let has_room = self.inside.fetch_add(1, Ordering::SeqCst) < self.limit.load(Ordering::SeqCst);
        if !has_room {
            // For a moment it looked fuller than it is: somebody may have been kept out by that.
            self.leave();
        }
        has_room
    }

    fn leave(&self) {
        self.inside.fetch_sub(1, Ordering::SeqCst);
        if self.has_waiting() {
            self.let_in(&mut self.queue());
        }
    }

    /// Lets those in who wait, while there is room.
    fn let_in(&self, queue: &mut Queue) {
        while let Some(key) = queue.order.front().copied() {
            if self.inside.fetch_add(1, Ordering::SeqCst) >= self.limit.load(Ordering::SeqCst) {
                self.inside.fetch_sub(1, Ordering::SeqCst);
                // Who left in between waits for the queue, and looks again.
                return;
            }
            queue.order.pop_front();
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            let waiter = &mut queue.waiters[key];
            waiter.is_let_in = true;
            if let Some(waker) = waiter.waker.take() {
                waker.wake();
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Somebody who waits to enter. Gives up when dropped.
#[derive(Debug)]
pub struct Entering {
    limiter: Arc<Limiter>,
    /// None when it is over.
    key: Option<usize>,
}

impl Future for Entering {
    type Output = Permit;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Permit> {
        let entering = self.get_mut();
        let Some(key) = entering.key else { return Poll::Pending };
        let mut queue = entering.limiter.queue();
        let waiter = &mut queue.waiters[key];
        if !waiter.is_let_in {
            waiter.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        queue.waiters.remove(key);
        drop(queue);
        entering.key = None;
        Poll::Ready(Permit(entering.limiter.clone()))
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        let Some(key) = self.key else { return };
        let mut queue = self.limiter.queue();
        let waiter = queue.waiters.remove(key);
        if waiter.is_let_in {
            drop(queue);
            self.limiter.leave();
        } else {
            queue.order.retain(|waiting| *waiting != key);
            self.limiter.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// How many requests an upstream gets, and may get at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub requests: u32,
    /// For others to end.
    pub waiting: u32,
    pub limit: u32,
}

/// Whether a request may go to an upstream.
#[derive(Debug)]
pub enum Admission {
    In(Option<Permit>),
    Wait(Entering),
    /// As many as may wait do.
    Full,
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn poll(entering: &mut Entering) -> Option<Permit> {
        match Pin::new(entering).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn so_many_are_let_in_and_the_others_in_order() {
        let limiter = Limiter::new(2);
        let first = limiter.try_enter().unwrap();
        let second = limiter.try_enter().unwrap();
        assert!(limiter.try_enter().is_none());
        let mut third = limiter.enter(2).unwrap();
        let mut fourth = limiter.enter(2).unwrap();
        assert_eq!(limiter.enter(2).unwrap_err(), QueueFull);
        assert!(poll(&mut third).is_none() && poll(&mut fourth).is_none());
        drop(first);
        assert!(poll(&mut fourth).is_none(), "not before the one that came first");
        assert!(limiter.try_enter().is_none(), "nobody passes by");
        let third = poll(&mut third).expect("it is its turn");
        drop((second, third));
        assert!(poll(&mut fourth).is_some());
        assert_eq!((limiter.inside(), limiter.waiting()), (0, 0));
    }

    #[test]
    fn who_gives_up_leaves_room_whether_let_in_or_not() {
        let limiter = Limiter::new(1);
        let inside = limiter.try_enter().unwrap();
        let gives_up = limiter.enter(9).unwrap();
        let is_let_in = limiter.enter(9).unwrap();
        let mut last = limiter.enter(9).unwrap();
        drop(gives_up);
        drop(inside);
        assert!(poll(&mut last).is_none());
        drop(is_let_in);
        assert!(poll(&mut last).is_some());
        assert_eq!((limiter.inside(), limiter.waiting()), (0, 0));
        assert!(limiter.queue().waiters.is_empty());
    }

    #[test]
    fn another_limit_lets_more_in_or_fewer() {
        let limiter = Limiter::new(1);
        let _first = limiter.try_enter().unwrap();
        let mut second = limiter.enter(9).unwrap();
        limiter.set_limit(2);
        let second = poll(&mut second).expect("there is room now");
        limiter.set_limit(1);
        drop(second);
        assert!(limiter.try_enter().is_none());
        assert!(limiter.enter(0).is_err(), "where nobody is to wait");
    }

    #[test]
    fn nobody_is_forgotten_and_never_are_too_many_inside() {
        const LIMIT: u32 = 3;
        let limiter = Limiter::new(LIMIT);
        let inside = AtomicU32::new(0);
        thread::scope(|scope| {
            for number in 0..8 {
                let (limiter, inside) = (&limiter, &inside);
                scope.spawn(move || {
                    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                    runtime.block_on(async {
                        for turn in 0..2000 {
                            // Some lose their patience.
                            let is_patient = (turn + number) % 5 != 0;
                            let permit = match limiter.try_enter() {
                                Some(permit) => permit,
                                None if is_patient => limiter.enter(100).unwrap().await,
                                None => match poll(&mut limiter.enter(100).unwrap()) {
                                    Some(permit) => permit,
                                    None => continue,
                                },
                            };
                            assert!(inside.fetch_add(1, Ordering::SeqCst) < LIMIT);
                            thread::yield_now();
                            inside.fetch_sub(1, Ordering::SeqCst);
                            drop(permit);
                        }
                    });
                });
            }
        });
        assert_eq!((limiter.inside(), limiter.waiting()), (0, 0));
        assert!(limiter.queue().waiters.is_empty());
    }
}
