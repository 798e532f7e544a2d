//! What happens to a connection on which no HTTP is spoken any more?
//!
//! Bytes are copied both ways until both sides have ended, or nothing has come from either for too long. What one
//! side does not take is not read from the other. An idle tunnel holds no memory to read into: that is the worker's.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use bytes::{Buf, Bytes};
use http::StatusCode;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{connection::Connection, cut::Cut, record::Record, sent::Sent};
use crate::{
    clock::{Clock, Timer},
    live::Worker,
    telemetry::{
        Part,
        traffic::{Bytes as Passed, RouteCounts},
    },
    upstream::Switched,
};

/// A tunnel between a client and an endpoint, which the response has opened.
///
/// It holds no generation: nothing is asked of the configuration any more, and it may live for days.
#[derive(Debug)]
pub struct Tunnel {
    upstream: Switched,
    /// Where the client's end comes from in HTTP/2; in HTTP/1 it is the whole connection.
    client: Option<OnUpgrade>,
    silence: Duration,
    clock: Clock,
    open: Open,
}

/// What is settled when a tunnel is closed, however that comes.
#[derive(Debug)]
struct Open {
    counts: Part<RouteCounts>,
    sent: Sent,
    record: Option<Box<Record>>,
    status: StatusCode,
    started: Instant,
    /// How it ended, once it has.
    closed: Option<Option<Cut>>,
    passed: Passed,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
}

impl Tunnel {
    /// `sent` is what has brought the request to the endpoint, and is busy until the tunnel is closed.
    #[expect(
        clippy::too_many_arguments,
        reason = "what was known of the request is all there is to a tunnel"
    )]
    pub(super) fn new(
        upstream: Switched,
        client: Option<OnUpgrade>,
        sent: Sent,
        record: Option<Box<Record>>,
        counts: Part<RouteCounts>,
        status: StatusCode,
        started: Instant,
        (worker, connection): (Rc<Worker>, Rc<Connection>),
    ) -> Self {
        counts.tunnels.opened.add(1);
        let (silence, clock) = (sent.tunnel_silence, sent.clock.clone());
        let passed = Passed { of_request: 0, of_response: 0 };
        let open = Open { counts, sent, record, status, started, closed: None, passed, worker, connection };
        Self { upstream, client, silence, clock, open }
    }

    /// Goes on with the client of a whole connection to the end. `begun` has come from it already.
    pub async fn run<S: AsyncRead + AsyncWrite + Unpin>(
        self: Box<Self>,
        mut client: S,
        begun: Bytes,
        scratch: &RefCell<Box<[u8]>>,
    ) {
        let Self { mut upstream, silence, clock, mut open, .. } = *self;
        copy(&mut client, begun, &mut upstream, scratch, &clock.timer(), silence, &mut open).await;
    }

    /// The same with the client of a stream, once that is there.
    pub async fn run_stream(mut self: Box<Self>, scratch: &RefCell<Box<[u8]>>) {
        let Some(client) = self.client.take() else { return };
        // It is gone, and so is the tunnel.
        let Ok(client) = client.await else { return };
        self.run(TokioIo::new(client), Bytes::new(), scratch).await;
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.counts.tunnels.closed.add(1);
        let dropped = || Some(Cut::dropped(&self.worker, &self.connection));
        let cut = self.closed.unwrap_or_else(dropped);
        if let Some(record) = self.record.take() {
            record.write(self.status, Some(&self.sent), self.passed, self.started.elapsed(), cut);
        }
    }
}

async fn copy<C: AsyncRead + AsyncWrite + Unpin, U: AsyncRead + AsyncWrite + Unpin>(
    client: &mut C,
    begun: Bytes,
    upstream: &mut U,
    scratch: &RefCell<Box<[u8]>>,
    timer: &Timer,
    silence: Duration,
    open: &mut Open,
) {
    let mut up = Direction { held: begun, ..Direction::default() };
    let mut down = Direction::default();
    timer.start(silence);
    let copied = poll_fn(|cx| {
        let before = (up.passed, down.passed, up.stage, down.stage);
        {
            let scratch = &mut *scratch.borrow_mut();
            // An error on either way is the end of both.
            if let Poll::Ready(Err(error)) = up.poll(cx, client, upstream, scratch) {
                return Poll::Ready(Err((Cut::TunnelBroke, error)));
            }
            if let Poll::Ready(Err(error)) = down.poll(cx, upstream, client, scratch) {
                return Poll::Ready(Err((Cut::TunnelBroke, error)));
            }
        }
        let counts = &open.counts.tunnels;
        counts.up.add(up.passed - before.0);
        counts.down.add(down.passed - before.1);
        open.passed = Passed { of_request: up.passed, of_response: down.passed };
        if up.stage == CopyState::Over && down.stage == CopyState::Over {
            return Poll::Ready(Ok(()));
        }
        if before != (up.passed, down.passed, up.stage, down.stage) {
            timer.start(silence);
            if before.2 != up.stage {
                // A stream that was reset looks like one that has ended, until it is written to. Its other half
                // learns of it at the same time, and perhaps after this.
                cx.waker().wake_by_ref();
            }
        } else if up.stage != CopyState::Reading
            && let Poll::Ready(Err(error)) = Pin::new(&mut *client).poll_flush(cx)
        {
            return Poll::Ready(Err((Cut::TunnelBroke, error)));
        }
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "both sides were silent");
        timer.poll(cx).map(|()| Err((Cut::TunnelSilent, silent())))
    })
    .await;
    open.closed = Some(copied.as_ref().err().map(|(cut, _)| *cut));
    if let Err((_, error)) = copied {
        tracing::debug!(%error, "tunnel closed");
    }
}

/// One way through a tunnel.
#[derive(Default)]
struct Direction {
    stage: CopyState,
    /// What has been read and not been taken.
    held: Bytes,
    passed: u64,
    /// Something has been written since the last flush.
    is_written: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum CopyState {
    #[default]
    Reading,
    /// One side has ended, and the other is to know.
    Ending,
    Over,
}

impl Direction {
    /// Ready when this way is over.
    fn poll<R: AsyncRead + Unpin, W: AsyncWrite + Unpin>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        scratch: &mut [u8],
    ) -> Poll<io::Result<()>> {
        loop {
            while self.held.has_remaining() {
                let written = ready!(Pin::new(&mut *to).poll_write(cx, &self.held))?;
                self.note(written)?;
                self.held.advance(written);
            }
            match self.stage {
                CopyState::Reading => {}
                CopyState::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.stage = CopyState::Over;
                    return Poll::Ready(Ok(()));
                }
                CopyState::Over => return Poll::Ready(Ok(())),
            }
            let mut buffer = ReadBuf::new(scratch);
            match Pin::new(&mut *from).poll_read(cx, &mut buffer) {
                Poll::Pending => {
                    if self.is_written {
                        // TLS keeps what the socket does not take.
                        ready!(Pin::new(&mut *to).poll_flush(cx))?;
                        self.is_written = false;
                    }
                    return Poll::Pending;
                }
                // TLS without `close_notify`. Whether all has come is for the protocol in the tunnel to say.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {}
                Poll::Ready(read) => read?,
            }
            let came = buffer.filled();
            if came.is_empty() {
                self.stage = CopyState::Ending;
                continue;
            }
            let written = match Pin::new(&mut *to).poll_write(cx, came) {
                Poll::Pending => 0,
                Poll::Ready(written) => {
                    let written = written?;
                    self.note(written)?;
                    written
                }
            };
            self.held = Bytes::copy_from_slice(&came[written..]);
        }
    }

    fn note(&mut self, written: usize) -> io::Result<()> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.passed += written as u64;
        self.is_written = true;
        Ok(())
    }
}
