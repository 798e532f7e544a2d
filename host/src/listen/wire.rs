//! What goes over a client's connection, and how long may it take?
//!
//! Between the socket and hyper. Bytes go on once [`Framing`] has passed them. Time-outs are kept here, where it
//! is known what is being waited for: the next request, the rest of a head or a body, or a client that does not
//! read. What is wrong with a request before hyper has seen it is answered here, too.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::StatusCode;
use hyper::rt::ReadBufCursor;
use smallvec::SmallVec;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::framing::Framing;
use crate::{
    clock::{Clock, MinimumRate, Timer},
    frames::PREFACE,
    proxy::{Connection, Turn},
    reason::reason,
    socket,
    telemetry::traffic::Limit,
};

/// Memory to read into, one for all connections of a worker.
pub(super) type Scratch = Rc<RefCell<Box<[u8]>>>;

/// The size of a worker's [`Scratch`].
pub(super) const SCRATCH: usize = 64 << 10;

/// A connection's socket.
pub(super) struct Wire<S> {
    stream: S,
    framing: Framing,
    connection: Rc<Connection>,
    turn: Rc<Turn>,
    scratch: Scratch,
    /// Whether these may still be the first bytes of HTTP/2.
    may_be_http2: bool,
    /// What has come and not gone on; the first `passed` bytes may.
    kept: Vec<u8>,
    passed: usize,
    reading: Timer,
    writing: Timer,
    /// How fast the body of a request comes, and how fast a response is taken.
    body_rate: MinimumRate,
    write_rate: MinimumRate,
    /// An interim response that is being written.
    interim: Bytes,
    is_closed: bool,
    /// The status of a response that hyper made itself, to what it could not read.
    refused: Option<StatusCode>,
    /// Why the connection is given up.
    why: RefCell<String>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Wire<S> {
    /// `turn` is that of the connection.
    pub fn new(
        stream: S,
        connection: Rc<Connection>,
        turn: Rc<Turn>,
        scratch: Scratch,
        clock: &Clock,
    ) -> Self {
        Self {
            stream,
            framing: Framing::new(&connection.listener.limits),
            may_be_http2: connection.listener.http2,
            connection,
            turn,
            scratch,
            kept: Vec::new(),
            passed: 0,
            reading: clock.timer(),
            writing: clock.timer(),
            body_rate: MinimumRate::default(),
            write_rate: MinimumRate::default(),
            interim: Bytes::new(),
            is_closed: false,
            refused: None,
            why: RefCell::default(),
        }
    }

    /// Reads from the socket, and keeps what may not go on yet.
    fn poll_fill(&mut self, cx: &mut Context<'_>, cursor: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        loop {
            if !self.kept.is_empty() && !self.may_be_http2 {
                match self.framing.advance(&self.kept) {
                    Ok(0) => {}
                    Ok(passed) => {
                        self.reading.stop();
                        self.passed = passed;
                        self.hand_over(cursor);
                        return Poll::Ready(Ok(()));
                    }
                    // The request before it is answered first.
                    Err(_) if self.is_ahead() => return Poll::Pending,
                    Err(fault) => return Poll::Ready(Err(self.fault(fault.status(), fault.limit(), fault))),
                }
            }
            let scratch = self.scratch.clone();
            let mut scratch = scratch.borrow_mut();
            // Not more than can go on at once, so that as a rule nothing need be kept.
            let size = cursor.remaining().min(scratch.len());
            let mut buffer = ReadBuf::new(&mut scratch[..size]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Pending => return self.poll_reading_deadline(cx),
                Poll::Ready(result) => result?,
            }
            // The time of a head counts from its first byte, that of all else from the last.
            if self.kept.is_empty() || !self.framing.expects_head() {
                self.reading.stop();
            }
            let came = buffer.filled();
            if came.is_empty() {
                self.is_closed = true;
                return self.poll_closed();
            }
            if self.framing.expects_head() {
                self.body_rate = MinimumRate::default();
            } else {
                let rate = self.connection.listener.min_rates.body();
                if !self.body_rate.pass(came.len(), rate, self.reading.clock()) {
                    let limit = Some(Limit::BodyRate);
                    let fault = self.fault(StatusCode::REQUEST_TIMEOUT, limit, "the body comes too slowly");
                    return Poll::Ready(Err(fault));
                }
            }
            if self.may_be_http2 {
                self.may_be_http2 =
                    PREFACE[self.kept.len()..].iter().zip(came).all(|(want, got)| want == got);
                if self.may_be_http2 {
                    self.kept.extend_from_slice(came);
                    if self.kept.len() >= PREFACE.len() {
                        return Poll::Ready(Err(io::Error::other("HTTP/2 is spoken")));
                    }
                    continue;
                }
            }
            // What is wrong with it is found again above, from its beginning.
            let passed = if self.kept.is_empty() { self.framing.advance(came).unwrap_or(0) } else { 0 };
            cursor.put_slice(&came[..passed]);
            self.kept.extend_from_slice(&came[passed..]);
            if passed > 0 {
                return Poll::Ready(Ok(()));
            }
        }
    }

    /// Whether what comes is ahead of its time: the client still waits for an answer.
    fn is_ahead(&self) -> bool {
        self.framing.expects_head() && self.turn.is_busy()
    }

    /// The client sends nothing more. It may still wait for the answer to what it has sent whole (RFC 9112, section
    /// 9.6), so hyper, which would give up the request, is told when that has been answered. That a client has gone
    /// altogether shows when something is written to it.
    fn poll_closed(&self) -> Poll<io::Result<()>> {
        if self.is_ahead() { Poll::Pending } else { Poll::Ready(Ok(())) }
    }

    /// Gives what may go on.
    fn hand_over(&mut self, cursor: &mut ReadBufCursor<'_>) {
        let count = self.passed.min(cursor.remaining());
        cursor.put_slice(&self.kept[..count]);
        self.kept.drain(..count);
        self.passed -= count;
        if self.kept.is_empty() {
            self.kept = Vec::new();
        }
    }

    /// Nothing has come. How long that may last depends on what it is that has not.
    fn poll_reading_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let timeouts = &self.connection.listener.timeouts;
        let is_between = self.framing.expects_head() && self.kept.is_empty();
        if self.is_ahead() {
            // hyper only wants to know whether the client is still there.
            self.reading.stop();
            return Poll::Pending;
        }
        let (time, limit) = match (is_between, self.framing.expects_head()) {
            (true, _) => (timeouts.idle, None),
            (false, true) => (timeouts.header, Some(Limit::HeaderTime)),
            (false, false) => (timeouts.body, Some(Limit::BodyTime)),
        };
        if !self.framing.expects_head() {
            self.body_rate.wait(self.reading.clock());
        }
        if !self.reading.is_running() {
            self.reading.start(time.get());
        }
        ready!(self.reading.poll(cx));
        self.reading.stop();
        if is_between {
            // Nobody is surprised by the end of a connection that has had its time.
            self.is_closed = true;
            return Poll::Ready(Ok(()));
        }
        Poll::Ready(Err(self.fault(StatusCode::REQUEST_TIMEOUT, limit, "the client took too long")))
    }

    fn fault(&self, status: StatusCode, limit: Option<Limit>, why: impl std::fmt::Display) -> io::Error {
        tracing::debug!(client = %self.connection.peer.address, status = status.as_u16(), %why, "connection given up");
        if let Some(limit) = limit {
            self.connection.counts.reached(limit);
        }
        self.turn.set_fault(status);
        let why = why.to_string();
        self.why.replace(why.clone());
        io::Error::other(why)
    }

    /// Ready when no interim response waits to be written.
    fn poll_interim(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while self.interim.has_remaining() {
                let written = match Pin::new(&mut self.stream).poll_write(cx, &self.interim) {
                    Poll::Pending => return self.poll_writing_deadline(cx).map(Err),
                    Poll::Ready(written) => written?,
                };
                self.interim.advance(written);
                self.note_written(written)?;
            }
            let waiting = self.turn.take_interim();
            if waiting.is_empty() {
                return Poll::Ready(Ok(()));
            }
            self.interim = waiting.concat().into();
        }
    }

    /// Writes these, with the proxy's own version where a response begins with an older one.
    fn poll_write_own_version(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        const OLD: &[u8] = b"HTTP/1.0";
        let version = self.turn.version();
        let first = bytes.first().and_then(|first| first.strip_prefix(&OLD[OLD.len() - version.len()..]));
        let Some(rest) = first.filter(|_| !version.is_empty()) else {
            return socket::poll_write_pieces(&mut self.stream, cx, bytes);
        };
        let mut pieces: SmallVec<[io::IoSlice<'_>; 8]> =
            [version, rest].map(io::IoSlice::new).into_iter().collect();
        pieces.extend(bytes[1..].iter().map(|piece| io::IoSlice::new(piece)));
        let written = ready!(socket::poll_write_pieces(&mut self.stream, cx, &pieces))?;
        self.turn.set_version_written(written);
        Poll::Ready(Ok(written))
    }

    fn poll_writing_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        self.write_rate.wait(self.writing.clock());
        if !self.writing.is_running() {
            self.writing.start(self.connection.listener.timeouts.write.get());
        }
        ready!(self.writing.poll(cx));
        self.connection.give_up(Limit::WriteTime);
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client does not read"))
    }

    /// The client has taken this much.
    fn note_written(&mut self, bytes: usize) -> io::Result<()> {
        self.writing.stop();
        let rate = self.connection.listener.min_rates.write();
        if self.write_rate.pass(bytes, rate, self.writing.clock()) {
            return Ok(());
        }
        self.connection.give_up(Limit::WriteRate);
        Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly"))
    }

    /// The request that was refused before the proxy saw it, if one was.
    pub fn refused(&self) -> Option<Refused<'_>> {
        let is_unanswered = self.framing.expects_head() && !self.turn.is_busy();
        match self.turn.fault() {
            Some(status) if is_unanswered => {
                Some(Refused::Here { status, head: &self.kept, why: self.why.borrow().clone() })
            }
            Some(_) => None,
            None => self.refused.map(Refused::ByHyper),
        }
    }

    /// The socket and what has come from it, if that is the beginning of HTTP/2.
    #[expect(clippy::result_large_err, reason = "no error: the wire itself, which goes on with HTTP/1")]
    pub fn into_http2(self) -> Result<(S, Vec<u8>), Self> {
        match self.may_be_http2 && self.kept.len() >= PREFACE.len() {
            true => Ok((self.stream, self.kept)),
            false => Err(self),
        }
    }

    /// The socket and what has come from it after the last request, when no more HTTP is spoken.
    pub fn into_rest(self) -> (S, Vec<u8>) {
        (self.stream, self.kept)
    }

    /// Ends the connection: answers a request that was refused before hyper saw it. If the client may still be
    /// sending, reads on for a moment, so that the answer is not lost to a reset (RFC 9112, section 9.6).
    pub async fn close(mut self, clock: &Clock) {
        const LINGER: std::time::Duration = std::time::Duration::from_secs(2);
        // More than the buffers of two sockets hold: who has stopped sending by then sees the answer.
        const LINGER_BYTES: u64 = 8 << 20;
        let fault = self.turn.fault();
        let may_be_sending = fault.is_some() || !self.framing.expects_head() || !self.kept.is_empty();
        let lingering_close = async {
            // What is wrong with a body is answered by whoever reads the body.
            let is_unanswered = self.framing.expects_head() && !self.turn.is_busy();
            if let Some(status) = fault.filter(|_| is_unanswered) {
                self.connection.counts.refused_with(status);
                self.stream.write_all(&refusal(status)).await?;
            }
            self.stream.shutdown().await?;
            if may_be_sending && !self.is_closed {
                let mut rest = (&mut self.stream).take(LINGER_BYTES);
                tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            }
            Ok::<_, io::Error>(())
        };
        // A client that is gone does not miss it.
        let _ = clock.within(LINGER, lingering_close).await;
    }
}

/// Who has refused a request.
pub(super) enum Refused<'a> {
    /// Its framing has a fault, or it did not come in time; with what has come of its head.
    Here { status: StatusCode, head: &'a [u8], why: String },
    /// hyper, which has its head.
    ByHyper(StatusCode),
}

/// The status of a response that begins with these bytes.
fn status_of(head: &[u8]) -> Option<StatusCode> {
    let (_, status) = head.split_at_checked("HTTP/1.1 ".len())?;
    StatusCode::from_bytes(status.get(..3)?).ok()
}

/// A response without a body that closes the connection.
pub(super) fn refusal(status: StatusCode) -> Vec<u8> {
    let reason = reason(status);
    let status = status.as_u16();
    format!("HTTP/1.1 {status} {reason}\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Read for Wire<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if cursor.remaining() == 0 {
            // Whoever asks for nothing gets it, and has not come to the end.
            return Poll::Ready(Ok(()));
        }
        let wire = self.get_mut();
        if wire.passed > 0 {
            wire.hand_over(&mut cursor);
            return Poll::Ready(Ok(()));
        }
        if wire.is_closed {
            return wire.poll_closed();
        }
        wire.poll_fill(cx, &mut cursor)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        ready!(wire.poll_interim(cx))?;
        if wire.refused.is_none() && !wire.turn.is_busy() {
            // No request is being answered, so hyper says why it could not read one.
            wire.refused = bytes.iter().find_map(|piece| status_of(piece));
        }
        match wire.poll_write_own_version(cx, bytes) {
            Poll::Pending => wire.poll_writing_deadline(cx).map(Err),
            Poll::Ready(written) => Poll::Ready(written.and_then(|written| {
                wire.note_written(written)?;
                Ok(written)
            })),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        ready!(wire.poll_interim(cx))?;
        // TLS keeps what the socket does not take.
        match Pin::new(&mut wire.stream).poll_flush(cx) {
            Poll::Pending => return wire.poll_writing_deadline(cx).map(Err),
            Poll::Ready(flushed) => flushed?,
        }
        // hyper flushes when it has nothing more to write.
        if wire.turn.set_written() {
            wire.write_rate = MinimumRate::default();
            if wire.kept.is_empty() && !wire.is_closed {
                // hyper need not come back to read before something happens: the time begins here.
                wire.reading.stop();
                let _: Poll<io::Result<()>> = wire.poll_reading_deadline(cx);
            } else {
                // What has come ahead of its time is looked at again, be it the end.
                cx.waker().wake_by_ref();
            }
        }
        Poll::Ready(Ok(()))
    }

    /// The end is [`Wire::close`], which may have something to say first.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
