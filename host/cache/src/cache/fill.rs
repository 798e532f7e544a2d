//! How do many requests share one fetch?
//!
//! The first to ask for what is not stored leads: it fetches. Others that ask meanwhile, on whichever worker,
//! follow: they get what is fetched as it comes. What is fetched grows in a [`Stream`], which whoever follows
//! reads at its own pace.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use http_body::{Frame, SizeHint};
use slab::Slab;

use super::{key::Key, policy::Selection, store::Store, stored::Stored};
use crate::body::Error;

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
    store: Arc<Store>,
    key: Key,
    fill: Arc<Fill>,
    has_told: bool,
}

impl Lead {
    pub(super) fn new(store: Arc<Store>, key: Key, fill: Arc<Fill>) -> Self {
        Self { store, key, fill, has_told: false }
    }

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
        self.store.filled(&self.key, &self.fill);
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

/// Keeps a waker, in its old place if it has one. Places are all given up when a stage is entered.
fn register(wakers: &mut Slab<Waker>, key: Option<usize>, cx: &Context<'_>) -> usize {
    match key.and_then(|key| Some((key, wakers.get_mut(key)?))) {
        // Another may have the place by now; then it is woken for nothing, and both come back.
        Some((key, waker)) if waker.will_wake(cx.waker()) => key,
        _ => wakers.insert(cx.waker().clone()),
    }
}

/// The body of a response as it is fetched. Kept from its first byte on, until it turns out to be too large: then
/// it only passes through, to the one client that led.
#[derive(Debug)]
pub struct Stream(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    pieces: Vec<Bytes>,
    /// Of those that are kept.
    bytes: u64,
    is_kept: bool,
    trailers: Option<HeaderMap>,
    end: Option<Ending>,
    readers: Slab<Waker>,
    /// Whether the client that led still reads.
    has_leader: bool,
    writer: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Complete,
    Broken,
}

impl Stream {
    /// How much of a body that only passes through may wait for its client.
    const WINDOW: u64 = 256 << 10;

    /// An empty one, and its first reader. `length` is that of the whole, if it is known.
    pub fn new(length: Option<u64>) -> (Arc<Self>, Reader) {
        let state = State { is_kept: true, has_leader: true, ..State::default() };
        let stream = Arc::new(Self(Mutex::new(state)));
        (stream.clone(), Reader { stream, place: 0, key: None, length, passed: 0, is_leader: true })
    }

    /// An empty one that is kept to its end, whoever reads it.
    pub fn kept_whole() -> Arc<Self> {
        Arc::new(Self(Mutex::new(State { is_kept: true, ..State::default() })))
    }

    /// One more reader, from the first byte on. For streams that are kept to their end.
    pub fn reader(self: &Arc<Self>, length: Option<u64>) -> Reader {
        Reader { stream: self.clone(), place: 0, key: None, length, passed: 0, is_leader: false }
    }

    /// Adds a piece.
    pub fn push(&self, piece: Bytes) {
        self.change(|state| {
            state.bytes += piece.len() as u64;
            state.pieces.push(piece);
        });
    }

    /// Bytes that are kept.
    pub fn bytes(&self) -> u64 {
        lock(&self.0).bytes
    }

    /// Keeps nothing any more.
    pub fn release(&self) {
        self.change(|state| state.is_kept = false);
    }

    /// Waits until there is room for more in a stream that only passes through. Whether anybody still reads.
    pub async fn has_room(&self) -> bool {
        poll_fn(|cx| {
            let mut state = lock(&self.0);
            if !state.has_leader {
                return Poll::Ready(false);
            }
            if state.bytes < Self::WINDOW {
                return Poll::Ready(true);
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// What is kept so far.
    pub fn kept(&self) -> Vec<Bytes> {
        let state = lock(&self.0);
        if state.is_kept { state.pieces.clone() } else { Vec::new() }
    }

    /// Ends the body.
    pub fn finish(&self, trailers: Option<HeaderMap>) {
        self.change(|state| {
            state.trailers = trailers;
            state.end = Some(Ending::Complete);
        });
    }

    /// Nothing more will come, and what has come is not all.
    pub fn break_off(&self) {
        self.change(|state| {
            state.end.get_or_insert(Ending::Broken);
        });
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let readers = {
            let mut state = lock(&self.0);
            change(&mut state);
            std::mem::take(&mut state.readers)
        };
        for (_, waker) in readers {
            waker.wake();
        }
    }
}

/// A body that is read from a [`Stream`].
#[derive(Debug)]
pub struct Reader {
    stream: Arc<Stream>,
    place: usize,
    key: Option<usize>,
    length: Option<u64>,
    passed: u64,
    is_leader: bool,
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let reader = self.get_mut();
        let mut state = lock(&reader.stream.0);
        if state.is_kept || !reader.is_leader {
            if let Some(piece) = state.pieces.get(reader.place) {
                reader.place += 1;
                reader.passed += piece.len() as u64;
                return Poll::Ready(Some(Ok(Frame::data(piece.clone()))));
            }
        } else if reader.place < state.pieces.len() {
            let piece = std::mem::take(&mut state.pieces[reader.place]);
            reader.place += 1;
            reader.passed += piece.len() as u64;
            // What was read while it was still being kept goes with the first that is read after.
            if reader.place == state.pieces.len() {
                state.pieces.clear();
                reader.place = 0;
                state.bytes = 0;
            } else {
                state.bytes = state.bytes.saturating_sub(piece.len() as u64);
            }
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        match state.end {
            Some(Ending::Broken) => Poll::Ready(Some(Err(Error::StoringBroke))),
            Some(Ending::Complete) if reader.is_leader => {
                Poll::Ready(state.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(Ending::Complete) => Poll::Ready(None),
            None => {
                reader.key = Some(register(&mut state.readers, reader.key, cx));
                Poll::Pending
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        let state = lock(&self.stream.0);
        let is_over = state.end == Some(Ending::Complete) && self.place >= state.pieces.len();
        is_over && (!self.is_leader || state.trailers.is_none())
    }

    fn size_hint(&self) -> SizeHint {
        match self.length {
            Some(length) => SizeHint::with_exact(length.saturating_sub(self.passed)),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = lock(&self.stream.0);
        if let Some(key) = self.key {
            state.readers.try_remove(key);
        }
        if self.is_leader {
            state.has_leader = false;
            if let Some(writer) = state.writer.take() {
                writer.wake();
            }
        }
    }
}

/// What a holder of the lock leaves is whole even if it panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{future::Future, pin::pin};

    use super::*;

    fn now<T>(future: impl Future<Output = T>) -> Poll<T> {
        pin!(future).poll(&mut Context::from_waker(Waker::noop()))
    }

    fn read(reader: &mut Reader) -> Poll<Option<Result<Bytes, ()>>> {
        let frame = http_body::Body::poll_frame(Pin::new(reader), &mut Context::from_waker(Waker::noop()));
        frame.map(|frame| {
            frame.map(|frame| frame.map_err(drop).map(|frame| frame.into_data().unwrap_or_default()))
        })
    }

    fn data(text: &'static str) -> Poll<Option<Result<Bytes, ()>>> {
        Poll::Ready(Some(Ok(Bytes::from(text))))
    }

    #[test]
    fn every_reader_gets_all_of_it_as_it_comes() {
        let (stream, mut leader) = Stream::new(Some(3));
        assert_eq!(read(&mut leader), Poll::Pending);
        stream.push("a".into());
        let mut follower = stream.reader(Some(3));
        assert_eq!((read(&mut leader), read(&mut follower)), (data("a"), data("a")));
        drop(leader);
        stream.push("bc".into());
        assert_eq!(read(&mut follower), data("bc"));
        assert_eq!(read(&mut follower), Poll::Pending);
        assert_eq!(stream.kept(), ["a", "bc"]);
        stream.finish(None);
        assert_eq!(read(&mut follower), Poll::Ready(None));
        assert_eq!(read(&mut stream.reader(Some(3))), data("a"));
    }

    #[test]
    fn a_body_that_broke_off_breaks_off_for_all() {
        let (stream, mut leader) = Stream::new(Some(3));
        stream.push("a".into());
        stream.break_off();
        let mut follower = stream.reader(Some(3));
        for reader in [&mut leader, &mut follower] {
            assert_eq!(read(reader), data("a"));
            assert_eq!(read(reader), Poll::Ready(Some(Err(()))));
        }
    }

    #[test]
    fn what_is_too_large_passes_through_at_the_pace_of_its_client() {
        let (stream, mut leader) = Stream::new(None);
        stream.push("a".into());
        stream.release();
        stream.push(vec![7; Stream::WINDOW as usize].into());
        assert_eq!(now(stream.has_room()), Poll::Pending);
        assert_eq!(read(&mut leader), data("a"));
        assert_eq!(now(stream.has_room()), Poll::Pending);
        assert!(
            matches!(read(&mut leader), Poll::Ready(Some(Ok(piece))) if piece.len() == Stream::WINDOW as usize)
        );
        assert_eq!(now(stream.has_room()), Poll::Ready(true));
        assert!(stream.kept().is_empty(), "nothing is kept");
        stream.finish(None);
        assert_eq!(read(&mut leader), Poll::Ready(None));
        drop(leader);
        assert_eq!(now(stream.has_room()), Poll::Ready(false));
    }

    #[test]
    fn followers_are_told_and_are_not_too_many() {
        let store = Arc::new(Store::new(10, 1 << 20, 1 << 10, None));
        let key = Key::restored("http://h/\napp".to_owned());
        let Filling::Lead(lead) = store.fill(&key) else { panic!("nobody else asks") };
        let Filling::Follow(fill) = store.fill(&key) else { panic!("somebody asks") };
        let mut first = pin!(fill.followed(1, |_| true));
        let mut cx = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut cx).is_pending());
        assert!(matches!(now(fill.followed(1, |_| true)), Poll::Ready(None)), "one waits already");
        lead.end(FillResult::Passed);
        assert!(matches!(first.poll(&mut cx), Poll::Ready(Some(Followed::Over(FillResult::Passed)))));
        let Filling::Lead(lead) = store.fill(&key) else { panic!("it is over") };
        let Filling::Follow(fill) = store.fill(&key) else { panic!("somebody asks") };
        drop(lead);
        assert!(matches!(
            now(fill.followed(1, |_| true)),
            Poll::Ready(Some(Followed::Over(FillResult::Abandoned)))
        ));
    }
}
