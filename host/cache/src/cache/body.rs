//! What does the body of a stored response consist of?

use std::sync::Arc;

use bytes::Bytes;

use crate::body::{Content, Pieces};

/// The body of a stored response: pieces that are sent as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StoredBody {
    pieces: Arc<[Bytes]>,
    length: u64,
}

impl StoredBody {
    /// Small pieces are made one, so that they are sent at once and waste nothing.
    pub fn new(pieces: Vec<Bytes>) -> Self {
        const SMALL: usize = 16 << 10;
        let length: usize = pieces.iter().map(Bytes::len).sum();
        let pieces = if pieces.len() > 1 && length / pieces.len() < SMALL {
            let whole = pieces.concat();
            whole.chunks(256 << 10).map(Bytes::copy_from_slice).collect()
        } else {
            pieces
        };
        Self { pieces: pieces.into(), length: length as u64 }
    }

    pub fn len(&self) -> u64 {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    /// All of it, not copied.
    pub fn content(&self) -> Content {
        self.part(0, self.length)
    }

    /// From the first byte named to before the second, not copied.
    pub fn part(&self, from: u64, to: u64) -> Content {
        match &*self.pieces {
            [] => Content::Whole(Bytes::new()),
            [piece] => Content::Whole(piece.slice(from as usize..to as usize)),
            _ => Content::Pieces(Pieces::part(self.pieces.clone(), from, to)),
        }
    }

    /// Whether a content is all of this.
    pub fn is(&self, content: &Content) -> bool {
        match content {
            Content::Whole(bytes) => match &*self.pieces {
                [piece] => piece.as_ptr() == bytes.as_ptr() && piece.len() == bytes.len(),
                _ => false,
            },
            Content::Pieces(pieces) => pieces.begin(&self.pieces) && pieces.left() == self.length,
            Content::Streaming(_) | Content::Changed(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        task::{Context, Poll},
    };

    use super::*;

    fn read(mut content: Content) -> Vec<u8> {
        let mut read = Vec::new();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while let Poll::Ready(Some(frame)) = http_body::Body::poll_frame(Pin::new(&mut content), &mut cx) {
            read.extend(frame.unwrap().into_data().unwrap());
        }
        read
    }

    #[test]
    fn a_body_is_read_in_part_or_whole() {
        let large: Vec<Bytes> = (0..3u8).map(|digit| Bytes::from(vec![digit; 20 << 10])).collect();
        let whole = large.concat();
        let body = StoredBody::new(large);
        assert_eq!(body.pieces().len(), 3, "large pieces stay as they are");
        assert_eq!(read(body.content()), whole);
        for (from, to) in [(0, 1), (0, 20 << 10), (20 << 10, 40 << 10), (100, 41_000), (61_439, 61_440)] {
            assert_eq!(read(body.part(from, to)), whole[from as usize..to as usize], "{from} {to}");
            assert!(!body.is(&body.part(from, to)));
        }
        assert!(body.is(&body.content()));
        let small = StoredBody::new(vec![Bytes::from("ab"), Bytes::from("cd")]);
        assert_eq!(small.pieces(), ["abcd"]);
        assert_eq!(read(StoredBody::new(vec![]).content()), b"");
    }
}
