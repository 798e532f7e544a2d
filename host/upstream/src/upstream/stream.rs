//! What carries bytes to an endpoint and back: a bare socket, or TLS over one?

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use super::link::Link;

/// A connection to an endpoint, with TLS or without. `P` is the permit that its [`Link`] holds.
#[derive(Debug)]
pub(super) enum Stream<P> {
    Clear(Link<P>),
    Private(Box<TlsStream<Link<P>>>),
}

impl<P> Stream<P> {
    /// Whether it was agreed in the handshake of TLS that HTTP/2 is spoken.
    pub fn has_agreed_on_http2(&self) -> bool {
        match self {
            Self::Clear(_) => false,
            Self::Private(stream) => stream.get_ref().1.alpn_protocol() == Some(b"h2"),
        }
    }

    /// Has the connection count until its socket is closed.
    pub fn hold(&mut self, permit: Option<P>) {
        self.link_mut().hold(permit);
    }

    /// Whether it counts as one of those that are limited.
    pub fn is_counted(&self) -> bool {
        self.link().is_counted()
    }

    pub fn link(&self) -> &Link<P> {
        match self {
            Self::Clear(link) => link,
            Self::Private(stream) => stream.get_ref().0,
        }
    }

    fn link_mut(&mut self) -> &mut Link<P> {
        match self {
            Self::Clear(link) => link,
            Self::Private(stream) => stream.get_mut().0,
        }
    }

    /// Takes it off the runtime of this worker; nothing can be read or written until it arrives at another's.
    pub fn leave(&mut self) -> io::Result<()> {
        self.link_mut().leave()
    }

    pub fn arrive(&mut self) -> io::Result<()> {
        self.link_mut().arrive()
    }

    /// Whether the endpoint has acknowledged nothing of what was written since `since`, so that it cannot have read any
    /// of it. Asked when the end of its stream has come: that acknowledges all that had reached it by then.
    pub fn is_unread(&self, since: u64) -> bool {
        let written = self.link().given() - since;
        written == 0 || self.link().unacknowledged().is_some_and(|outstanding| outstanding >= written)
    }
}

impl<P: Unpin> AsyncRead for Stream<P> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buffer),
            // An end without `close_notify` is an error there: a body that has no length could have been cut short.
            Self::Private(stream) => Pin::new(stream).poll_read(cx, buffer),
        }
    }
}

impl<P: Unpin> AsyncWrite for Stream<P> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Private(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
            Self::Private(stream) => Pin::new(stream).poll_write_vectored(cx, pieces),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            Self::Private(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Private(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
