//! How is a body read while it is fetched?
//!
//! What is fetched grows in a [`Stream`], which whoever follows reads at its own pace.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use slab::Slab;

use super::wakers::register;
use crate::body::Error;

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
}
