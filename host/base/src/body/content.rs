//! What does a response carry?

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;

use super::Error;

/// What a response carries.
#[derive(Debug)]
pub enum Content {
    /// Empty when it has gone.
    Whole(Bytes),
    Streaming(Incoming),
    Pieces(Pieces),
    /// Another, that becomes this on its way.
    Changed(Box<dyn Change>),
}

/// Pieces that somebody else keeps, from one byte of them to another. None of them is copied.
#[derive(Debug)]
pub struct Pieces {
    pieces: Arc<[Bytes]>,
    /// The piece that goes next.
    index: usize,
    /// Bytes of it that do not go.
    skipped: usize,
    left: u64,
}

impl Pieces {
    /// From the first byte named to before the second, which is not beyond the end.
    pub fn part(pieces: Arc<[Bytes]>, from: u64, to: u64) -> Self {
        let (mut index, mut skipped) = (0, from);
        while let Some(length) =
            pieces.get(index).map(|piece| piece.len() as u64).filter(|length| skipped >= *length)
        {
            skipped -= length;
            index += 1;
        }
        Self { pieces, index, skipped: skipped as usize, left: to.saturating_sub(from) }
    }

    /// Whether they are of these, from the first byte on.
    pub fn begin(&self, pieces: &Arc<[Bytes]>) -> bool {
        Arc::ptr_eq(&self.pieces, pieces) && self.index == 0 && self.skipped == 0
    }

    /// Bytes that are still to go.
    pub fn left(&self) -> u64 {
        self.left
    }

    fn next(&mut self) -> Option<Bytes> {
        let piece = self.pieces.get(self.index).filter(|_| self.left > 0)?;
        let end = piece.len().min(self.skipped + usize::try_from(self.left).unwrap_or(usize::MAX));
        let piece = piece.slice(self.skipped..end);
        self.index += 1;
        self.skipped = 0;
        self.left -= piece.len() as u64;
        Some(piece)
    }
}

/// A body that is made of another.
pub trait Change: http_body::Body<Data = Bytes, Error = Error> + Unpin + std::fmt::Debug {}

impl<B: http_body::Body<Data = Bytes, Error = Error> + Unpin + std::fmt::Debug> Change for B {}

impl http_body::Body for Content {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        match self.get_mut() {
            Self::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Self::Streaming(incoming) => {
                Pin::new(incoming).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Error::from)))
            }
            Self::Pieces(pieces) => Poll::Ready(pieces.next().map(|piece| Ok(Frame::data(piece)))),
            Self::Changed(change) => Pin::new(change).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_empty(),
            Self::Streaming(incoming) => incoming.is_end_stream(),
            Self::Pieces(pieces) => pieces.left == 0,
            Self::Changed(change) => change.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streaming(incoming) => incoming.size_hint(),
            Self::Pieces(pieces) => SizeHint::with_exact(pieces.left),
            Self::Changed(change) => change.size_hint(),
        }
    }
}
