//! What if it has to be sent again?
//!
//! A body that may have to be is kept as it passes, up to a length; beyond it, it passes like any other and
//! cannot be sent again.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use super::{Arriving, Error};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// What has passed of a body, and where the rest comes from.
#[derive(Debug)]
pub(super) struct Tape {
    incoming: Arriving,
    kept: Vec<Piece>,
    /// Bytes that may still be kept; none if the beginning is lost.
    room: Option<usize>,
    /// As it was at the beginning.
    size: SizeHint,
    has_ended: bool,
    /// The one that reads now: any before it has been given up.
    reader: u32,
}

#[derive(Debug, Clone)]
enum Piece {
    Data(Bytes),
    Trailers(HeaderMap),
}

/// Reads a body from its beginning.
#[derive(Debug)]
pub(super) struct Reading {
    tape: Rc<RefCell<Tape>>,
    number: u32,
    /// Pieces that it has read of those that are kept.
    index: usize,
}

impl Tape {
    pub fn new(incoming: Arriving, room: usize) -> Rc<RefCell<Self>> {
        let size = incoming.size_hint();
        let tape = Self { incoming, kept: Vec::new(), room: Some(room), size, has_ended: false, reader: 0 };
        Rc::new(RefCell::new(tape))
    }

    /// Whether a further reading gets all of it.
    pub fn is_whole(&self) -> bool {
        self.room.is_some()
    }

    /// Nobody will read it from its beginning again. What is kept goes at once if it has been read to its end, and
    /// otherwise with the next piece.
    pub fn release(&mut self, has_been_read: bool) {
        self.room = None;
        if has_been_read {
            self.kept = Vec::new();
        }
    }

    fn keep(&mut self, piece: Piece) {
        let length = match &piece {
            Piece::Data(data) => data.len(),
            Piece::Trailers(_) => 0,
        };
        self.room = self.room.and_then(|room| room.checked_sub(length));
        match self.room {
            Some(_) => self.kept.push(piece),
            None => self.kept = Vec::new(),
        }
    }
}

/// What a reading finds.
pub(super) enum Found {
    /// For the first time.
    New(Frame<Bytes>),
    Again(Frame<Bytes>),
}

impl Reading {
    /// Reads from the beginning. Whoever read before gets no more. Only while the tape is whole.
    pub fn begin(tape: &Rc<RefCell<Tape>>) -> Self {
        let mut inner = tape.borrow_mut();
        inner.reader += 1;
        Self { tape: tape.clone(), number: inner.reader, index: 0 }
    }

    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Found, Error>>> {
        let mut tape = self.tape.borrow_mut();
        if tape.reader != self.number {
            return Poll::Ready(Some(Err(Error::Abandoned)));
        }
        if let Some(piece) = tape.kept.get(self.index) {
            self.index += 1;
            return Poll::Ready(Some(Ok(Found::Again(match piece.clone() {
                Piece::Data(data) => Frame::data(data),
                Piece::Trailers(trailers) => Frame::trailers(trailers),
            }))));
        }
        if tape.has_ended {
            return Poll::Ready(None);
        }
        let Some(frame) = ready!(Pin::new(&mut tape.incoming).poll_frame(cx)) else {
            tape.has_ended = true;
            return Poll::Ready(None);
        };
        let frame = frame?;
        tape.has_ended = tape.incoming.is_end_stream();
        let piece = match (frame.data_ref(), frame.trailers_ref()) {
            (Some(data), _) => Piece::Data(data.clone()),
            (None, Some(trailers)) => Piece::Trailers(trailers.clone()),
            (None, None) => return Poll::Ready(Some(Ok(Found::New(frame)))),
        };
        tape.keep(piece);
        self.index = tape.kept.len();
        Poll::Ready(Some(Ok(Found::New(frame))))
    }

    pub fn is_at_end(&self) -> bool {
        let tape = self.tape.borrow();
        tape.has_ended && self.index >= tape.kept.len()
    }

    /// Whether a body of HTTP/2 that gives nothing more has not come to its end.
    pub fn is_cut_short(&self) -> bool {
        !self.tape.borrow().incoming.is_end_stream()
    }

    /// Of the whole body, as it was when it came.
    pub fn size_hint(&self) -> SizeHint {
        self.tape.borrow().size
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::{super::Asked, *};

    fn poll(reading: &mut Reading) -> Option<Bytes> {
        match reading.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Some(Ok(Found::New(frame) | Found::Again(frame)))) => frame.into_data().ok(),
            Poll::Ready(None) => None,
            other => panic!("{}", if other.is_ready() { "an error" } else { "it waits" }),
        }
    }

    #[test]
    fn what_will_not_be_read_again_is_not_kept() {
        let content = Bytes::from_static(b"hello");
        let tape = Tape::new(Arriving::Made { content: content.clone(), client: Asked::Never }, 5);
        assert_eq!(poll(&mut Reading::begin(&tape)), Some(content.clone()));
        let mut again = Reading::begin(&tape);
        assert!(tape.borrow().is_whole());
        tape.borrow_mut().release(false);
        assert!(!tape.borrow().is_whole());
        assert_eq!(poll(&mut again), Some(content), "who is reading it gets all of it");
        assert_eq!(poll(&mut again), None);
        tape.borrow_mut().release(true);
        assert!(tape.borrow().kept.is_empty());
        assert!(poll(&mut again).is_none() && again.is_at_end());
    }
}
