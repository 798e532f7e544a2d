//! What goes on in another protocol on the way to an endpoint?

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use bytes::{Buf, Bytes};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::connections::EndpointStream;

/// A connection to an endpoint, or a stream of one of HTTP/2, on which no HTTP is spoken any more.
#[derive(Debug)]
pub struct Switched {
    inner: Inner,
    /// What came right behind the answer.
    begun: Bytes,
}

#[derive(Debug)]
enum Inner {
    Alone { stream: EndpointStream },
    Shared { stream: TokioIo<Upgraded> },
}

impl Switched {
    pub(super) fn alone(stream: EndpointStream, begun: Bytes) -> Self {
        Self { inner: Inner::Alone { stream }, begun }
    }

    pub(super) fn shared(stream: Upgraded) -> Self {
        Self { inner: Inner::Shared { stream: TokioIo::new(stream) }, begun: Bytes::new() }
    }
}

impl AsyncRead for Switched {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { inner, begun } = self.get_mut();
        if !begun.is_empty() {
            let length = begun.len().min(buffer.remaining());
            buffer.put_slice(&begun[..length]);
            begun.advance(length);
            return Poll::Ready(Ok(()));
        }
        match inner {
            Inner::Alone { stream } => Pin::new(stream).poll_read(cx, buffer),
            Inner::Shared { stream } => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Switched {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Alone { stream } => Pin::new(stream).poll_write(cx, bytes),
            Inner::Shared { stream } => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Alone { stream } => Pin::new(stream).poll_write_vectored(cx, pieces),
            Inner::Shared { stream } => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Alone { stream } => Pin::new(stream).poll_flush(cx),
            Inner::Shared { stream } => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Alone { stream } => Pin::new(stream).poll_shutdown(cx),
            Inner::Shared { stream } => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
