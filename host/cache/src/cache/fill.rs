//! How do many requests share one fetch?
//!
//! The first to ask for what is not stored leads: it fetches. Others that ask meanwhile, on whichever worker,
//! follow: they get what is fetched as it comes, from a [`Stream`].

use std::{
    future::poll_fn,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

use http::{HeaderMap, StatusCode};
use quick_cache::DefaultHashBuilder;
use rustc_hash::FxHashMap;
use slab::Slab;

use super::{key::Key, policy::Selection, stored::Stored, stream::Stream, wakers::register};

/// Whose turn it is to fetch.
#[derive(Debug)]
pub enum Filling {
    Lead(Lead),
    Follow(Arc<Fill>),
}

/// One fetch, seen by those that wait for it.
#[derive(Debug, Default)]
pub struct Fill(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    stage: FillState,
    wakers: Slab<Waker>,
}

#[derive(Debug, Clone, Default)]
enum FillState {
    #[default]
    Asking,
    /// The response comes, and everybody it is for may read along.
    Coming(Arc<Coming>),
    Over(FillResult),
}

/// A response that is being stored.
#[derive(Debug)]
pub struct Coming {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub selection: Selection,
    /// Of the body.
    pub length: u64,
    pub stream: Arc<Stream>,
}

/// How a fetch has ended.
#[derive(Debug, Clone)]
pub enum FillResult {
    Stored(Arc<Stored>),
    /// It is nothing that others could use.
    Passed,
    /// Whoever led has gone before there was an answer. Somebody else may lead.
    Abandoned,
}

/// What a follower gets.
#[derive(Debug)]
pub enum Followed {
    Coming(Arc<Coming>),
    Over(FillResult),
}

/// The right to fetch, and the duty to tell the followers. If it is dropped, they are told that nobody does.
#[derive(Debug)]
pub struct Lead {
    fetches: Arc<Fetches>,
    key: Key,
    fill: Arc<Fill>,
    has_told: bool,
}

/// What is being fetched, by key.
#[derive(Debug, Default)]
pub(super) struct Fetches {
    hasher: DefaultHashBuilder,
    /// By the hash of the key.
    running: [Mutex<FxHashMap<Key, Arc<Fill>>>; STRIPES],
}

const STRIPES: usize = 16;

impl Fetches {
    /// Whose turn it is to fetch what this key names.
    pub fn fill(self: &Arc<Self>, key: &Key) -> Filling {
        let mut running = lock(self.stripe(key));
        match running.get(key) {
            Some(fill) => Filling::Follow(fill.clone()),
            None => {
                let fill = Arc::new(Fill::default());
                running.insert(key.clone(), fill.clone());
                Filling::Lead(Lead { fetches: self.clone(), key: key.clone(), fill, has_told: false })
            }
        }
    }

    /// A fetch is over, or will not help others.
    fn filled(&self, key: &Key, fill: &Arc<Fill>) {
        let mut running = lock(self.stripe(key));
        if running.get(key).is_some_and(|current| Arc::ptr_eq(current, fill)) {
            running.remove(key);
        }
    }

    fn stripe(&self, key: &Key) -> &Mutex<FxHashMap<Key, Arc<Fill>>> {
        &self.running[self.hasher.hash_one(key) as usize % STRIPES]
    }
}

impl Lead {
    /// Lets followers read along.
    pub fn share(&self, coming: Coming) {
        self.fill.enter(FillState::Coming(Arc::new(coming)));
    }

    /// Tells the followers how it has ended.
    pub fn end(mut self, outcome: FillResult) {
        self.tell(outcome);
    }

    fn tell(&mut self, outcome: FillResult) {
        self.has_told = true;
        self.fetches.filled(&self.key, &self.fill);
        self.fill.enter(FillState::Over(outcome));
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        if !self.has_told {
            self.tell(FillResult::Abandoned);
        }
    }
}

impl Fill {
    fn enter(&self, stage: FillState) {
        let wakers = {
            let mut waiting = lock(&self.0);
            waiting.stage = stage;
            std::mem::take(&mut waiting.wakers)
        };
        for (_, waker) in wakers {
            waker.wake();
        }
    }

    /// Waits until there is something to read, or the fetch has ended. None if `most` wait already.
    ///
    /// `may_follow` says of a response that comes whether it is for this request; for one that is not, the wait
    /// goes on to its end.
    pub async fn followed(&self, most: usize, may_follow: impl Fn(&Coming) -> bool) -> Option<Followed> {
        let mut place = Place { fill: self, key: None };
        poll_fn(|cx| {
            let mut waiting = lock(&self.0);
            match &waiting.stage {
                FillState::Over(outcome) => return Poll::Ready(Some(Followed::Over(outcome.clone()))),
                FillState::Coming(coming) if may_follow(coming) => {
                    return Poll::Ready(Some(Followed::Coming(coming.clone())));
                }
                FillState::Coming(_) | FillState::Asking => {}
            }
            let known = place.key.is_some();
            if !known && waiting.wakers.len() >= most {
                return Poll::Ready(None);
            }
            place.key = Some(register(&mut waiting.wakers, place.key, cx));
            Poll::Pending
        })
        .await
    }
}

/// A place among those who wait, given up when it is dropped.
struct Place<'a> {
    fill: &'a Fill,
    key: Option<usize>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            lock(&self.fill.0).wakers.try_remove(key);
        }
    }
}

/// What a holder of the lock leaves is whole even if it panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin, task::Context};

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn followers_are_told_and_are_not_too_many() {
        let fetches = Arc::new(Fetches::default());
        let key = Key::restored("http://h/\napp".to_owned());
        let Filling::Lead(lead) = fetches.fill(&key) else { panic!("nobody else asks") };
        let Filling::Follow(fill) = fetches.fill(&key) else { panic!("somebody asks") };
        let mut first = pin!(fill.followed(1, |_| true));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(matches!(now(fill.followed(1, |_| true)), Poll::Ready(None)), "one waits already");
        lead.end(FillResult::Passed);
        assert!(matches!(first.poll(&mut cx), Poll::Ready(Some(Followed::Over(FillResult::Passed)))));
        let Filling::Lead(lead) = fetches.fill(&key) else { panic!("it is over") };
        let Filling::Follow(fill) = fetches.fill(&key) else { panic!("somebody asks") };
        drop(lead);
        assert!(matches!(
            now(fill.followed(1, |_| true)),
            Poll::Ready(Some(Followed::Over(FillResult::Abandoned)))
        ));
    }
}
