//! How do bytes get into a socket at the least cost?

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::AsyncWrite;

/// What is shorter than this is sent in one piece.
const PIECE: usize = 4 << 10;

/// Writes a head and what there is of a body. Copying a few hundred bytes together costs less than telling the
/// kernel of several pieces; long ones are not copied.
pub fn poll_write_pieces<S: AsyncWrite + Unpin>(
    stream: &mut S,
    cx: &mut Context<'_>,
    pieces: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    let stream = Pin::new(stream);
    if let [piece] = pieces {
        return stream.poll_write(cx, piece);
    }
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() > PIECE {
        return stream.poll_write_vectored(cx, pieces);
    }
    let mut whole = [0; PIECE];
    let mut length = 0;
    for piece in pieces {
        whole[length..length + piece.len()].copy_from_slice(piece);
        length += piece.len();
    }
    stream.poll_write(cx, &whole[..length])
}
