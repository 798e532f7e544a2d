//! What goes over a connection to an endpoint?
//!
//! Between hyper and the socket. Has the heads of responses read ([`HeadReader`]), and remembers the head of the last
//! request where that may have to be sent again: hyper takes requests and does not give them back, and the bytes that it
//! wrote are cheaper to keep than a copy of every header that it may never need.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker, ready},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use hyper::{
    client::conn::http1,
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, ReadBuf},
    sync::oneshot,
};

use super::{
    connections::{EndpointStream, Waiter},
    head::{Came, HeadLimits, HeadReader},
    switched::Switched,
};
use crate::{body::RequestBody, socket};

/// Sends requests over one connection, one at a time.
pub(super) type Sender = http1::SendRequest<RequestBody>;

/// A connection to an endpoint.
pub(super) struct Transport {
    stream: TokioIo<EndpointStream>,
    sent_head: Rc<RefCell<SentHead>>,
    scratch: Scratch,
}

/// SentHead to read the beginning of an answer into, one for all connections of a worker.
pub(super) type Scratch = Rc<RefCell<[u8; 8 << 10]>>;

/// What is known of the request on a connection: the bytes of its head, from when remembering was begun, and
/// the head of the response to it.
#[derive(Debug, Default)]
pub(super) struct SentHead {
    pub reader: HeadReader,
    /// Who gets the connection when it goes on in another protocol.
    pub upgrade_sender: Option<oneshot::Sender<Switched>>,
    is_on: bool,
    /// What hyper has given to be written.
    given: Vec<u8>,
    /// How much of it the socket has taken.
    written: usize,
    /// What had been written to the link before.
    since: u64,
    /// The endpoint had closed the connection before anything of the request can have reached it.
    pub is_unread: bool,
    /// Somebody on another worker gets the connection as soon as it is idle. With what sends requests over it, since
    /// hyper ends a connection without that.
    pub handed_over: Option<(Waiter, Sender)>,
    /// Of whatever drives the connection.
    pub driver: Option<Waker>,
    /// Whether it counts as one of those that are limited.
    pub is_counted: bool,
    /// Whether the socket has taken all that hyper has to write.
    pub is_flushed: bool,
}

impl Transport {
    pub fn new(stream: EndpointStream, scratch: Scratch) -> (Self, Rc<RefCell<SentHead>>) {
        let sent_head = SentHead { is_counted: stream.is_counted(), ..SentHead::default() };
        let sent_head = Rc::new(RefCell::new(sent_head));
        (Self { stream: TokioIo::new(stream), sent_head: sent_head.clone(), scratch }, sent_head)
    }

    /// The socket, and what has come from it and nobody has read.
    pub fn into_rest(self) -> (EndpointStream, Vec<u8>) {
        let rest = self.sent_head.borrow_mut().reader.take_rest();
        (self.stream.into_inner(), rest)
    }
}

impl SentHead {
    /// A request is sent. Remembers what is written from now on, or nothing.
    pub fn begin(&mut self, is_on: bool, limits: HeadLimits) {
        self.reader.begin(limits);
        self.upgrade_sender = None;
        self.is_on = is_on;
        self.given.clear();
        self.written = 0;
        self.is_unread = false;
    }

    /// The headers of the request that was given to be written; none if it was not given whole.
    pub fn headers(&self) -> Option<HeaderMap> {
        let lines = memchr::memchr_iter(b'\n', &self.given).count();
        let mut fields = vec![httparse::EMPTY_HEADER; lines];
        let mut request = httparse::Request::new(&mut fields);
        if !request.parse(&self.given).is_ok_and(|status| status.is_complete()) {
            return None;
        }
        let mut headers = HeaderMap::with_capacity(request.headers.len());
        for field in request.headers {
            let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
            let value = HeaderValue::from_maybe_shared(Bytes::copy_from_slice(field.value)).ok()?;
            headers.try_append(name, value).ok()?;
        }
        Some(headers)
    }
}

impl Read for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, sent_head, scratch } = self.get_mut();
        let mut sent_head = sent_head.borrow_mut();
        let SentHead { reader, written, since, is_unread, .. } = &mut *sent_head;
        loop {
            if reader.give(buffer.remaining(), |bytes| buffer.put_slice(bytes)) {
                return Poll::Ready(Ok(()));
            }
            if !reader.is_at_head() {
                return Pin::new(stream).poll_read(cx, buffer);
            }
            let mut scratch = scratch.borrow_mut();
            // Not more than can go on at once, so that as a rule nothing need be kept.
            let size = scratch.len().min(buffer.remaining());
            let mut came = ReadBuf::new(&mut scratch[..size]);
            let read = ready!(Pin::new(stream.inner_mut()).poll_read(cx, &mut came));
            let has_ended = match &read {
                Ok(()) => came.filled().is_empty(),
                // Of TLS, without `close_notify`.
                Err(error) => error.kind() == io::ErrorKind::UnexpectedEof,
            };
            if has_ended && !reader.has_heard() {
                let since = if *written == 0 { stream.inner().link().given() } else { *since };
                *is_unread = stream.inner().is_unread(since);
            }
            read?;
            let came = came.filled();
            if came.is_empty() {
                return Poll::Ready(Ok(()));
            }
            if reader.take(came).map_err(io::Error::other)? == Came::Plain {
                buffer.put_slice(came);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl Write for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, sent_head, .. } = self.get_mut();
        let mut sent_head = sent_head.borrow_mut();
        sent_head.is_flushed = false;
        if sent_head.written == 0 {
            sent_head.since = stream.inner().link().given();
        }
        if sent_head.is_on {
            // What the socket has not taken is given again.
            let SentHead { given, written, .. } = &mut *sent_head;
            given.truncate(*written);
            pieces.iter().for_each(|piece| given.extend_from_slice(piece));
        }
        let written = ready!(socket::poll_write_pieces(stream.inner_mut(), cx, pieces))?;
        sent_head.written += written;
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// hyper asks for it when it has nothing more to write.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, sent_head, .. } = self.get_mut();
        ready!(Pin::new(stream).poll_flush(cx))?;
        sent_head.borrow_mut().is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
