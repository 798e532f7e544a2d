//! How do the streams of an HTTP/2 connection become requests?
//!
//! Between the socket and hyper is a [`Line`], which does for HTTP/2 what `Wire` does for HTTP/1: it counts what a
//! client sends, and knows what is being waited for. What h2 bounds by itself is left to it: streams at once, heads
//! and their continuations, streams reset before they were looked at, empty frames of data.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    future::{Future, poll_fn},
    io::{self, IoSlice},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::{Body as _, Frame as BodyFrame, SizeHint};
use hyper::{
    body::Incoming,
    rt::{Executor, ReadBufCursor},
    server::conn::http2,
    service::service_fn,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

use super::wire::Scratch;
use crate::{
    body::{self, ClientBody, Unwanted},
    clock::{MinimumRate, Timer},
    config::ListenerLimits,
    frames::{Allowance, Code, Frame, Frames, Kind, PREFACE},
    live::Worker,
    proxy::{self, Answered, Connection, Refusal, Tunnel},
    socket,
    telemetry::traffic::Limit,
};

/// What a client may send of one request's body before the upstream has taken it: enough for 40 Mbit/s over a way
/// of 50 ms.
const STREAM_WINDOW: u32 = 256 << 10;

/// The same of all requests on a connection.
const CONNECTION_WINDOW: u32 = 1 << 20;

/// Requests that a client may have reset before anybody has looked at them (CVE-2023-44487).
const RESETS_UNSEEN: usize = 20;

/// Codes of RFC 9113, section 7: a malformed message,
const PROTOCOL_ERROR: u32 = 1;

/// and too many streams at once.
const REFUSED_STREAM: u32 = 7;

/// Streams that a client may make the proxy reset by its errors (CVE-2025-8671).
const RESETS_BY_ERROR: usize = 100;

/// What of a response hyper gets at a time, and the client has to take in the time for writing.
const PIECE: usize = 32 << 10;

/// How long a client may take to go, once it has been asked to.
const LINGER: Duration = Duration::from_secs(2);

/// The same in bytes that are read and thrown away: more than the buffers of two sockets hold, so that a client that has
/// stopped sending by then is told why.
const LINGER_BYTES: u64 = 8 << 20;

/// Serves a connection to its end. `begun` has come from it already.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    worker: Rc<Worker>,
    scratch: Scratch,
    stream: S,
    begun: Vec<u8>,
    connection: Rc<Connection>,
) {
    let limits = &connection.listener.limits;
    let streams = Streams::new(worker.clone(), connection.clone());
    let ends = streams.0.ends.clone();
    let line = Line::new(stream, begun, scratch.clone(), worker.clone(), connection.clone(), ends);
    let line = Rc::new(RefCell::new(line));
    let mut builder = http2::Builder::new(streams.clone());
    builder
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(header_list_size(limits))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_pending_accept_reset_streams(RESETS_UNSEEN)
        .max_local_error_reset_streams(RESETS_BY_ERROR)
        // For WebSocket and the like (RFC 8441).
        .enable_connect_protocol();
    let unwanted = {
        let worker = worker.clone();
        Unwanted::new(move |body| drop(worker.drain.spawn_local(read_on(body, worker.clone()))))
    };
    let service = service_fn(|request: Request<Incoming>| {
        let progress = streams.begin();
        let request = request.map(|body| ClientBody::new(body, Some(unwanted.clone())));
        let (worker, connection) = (worker.clone(), connection.clone());
        let (streams, scratch) = (streams.clone(), scratch.clone());
        // Hyper moves this about more than once before it runs.
        Box::pin(async move {
            let Answered { response, tunnel } = proxy::handle(worker, connection, request).await;
            progress.set(Turn::Client, 0);
            match tunnel {
                Some(tunnel) => streams.spawn_tunnel(tunnel, scratch),
                None if response.body().is_end_stream() => progress.expect_end(),
                None => {}
            }
            Ok::<_, Infallible>(response.map(|body| Watched { body, rest: Bytes::new(), given: 0, progress }))
        })
    });
    let mut serving = builder.serve_connection(Socket(line.clone()), service);
    let mut generation = worker.generation().snapshot.number;
    let result = poll_fn(|cx| {
        let open = &streams.0;
        let current = worker.generation().snapshot.number;
        let is_gone = std::mem::replace(&mut generation, current) != current
            && !worker.listens_on(&connection.listener.address);
        let is_over = is_gone || worker.is_draining() || open.idle.poll(cx).is_ready();
        if is_over && !open.is_ending.get() {
            open.end();
            Pin::new(&mut serving).graceful_shutdown();
        }
        if let Poll::Ready(result) = Pin::new(&mut serving).poll(cx) {
            return Poll::Ready(result);
        }
        // A client that has been told that it is over, and has nothing left to wait for, may not go by itself.
        match open.idle.poll(cx) {
            Poll::Ready(()) if open.is_ending.get() => Poll::Ready(Ok(())),
            Poll::Ready(()) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    if let Err(error) = result {
        tracing::debug!(client = %connection.peer.address, %error, "connection ended");
    }
    // The socket is let go by hyper, and closed here.
    drop(serving);
    if let Some(line) = Rc::into_inner(line) {
        line.into_inner().close().await;
    }
}

/// What h2 is to refuse by itself. The limits of the listener are kept once the head is in the form that it has in
/// HTTP/1 (`headers::from_http2`); h2 counts 32 bytes more for each field, and each crumb of a cookie for one (RFC 9113,
/// sections 6.5.2 and 8.2.3).
fn header_list_size(limits: &ListenerLimits) -> u32 {
    let fields = 32 * limits.header_count as u64;
    u32::try_from(limits.headers.get().saturating_mul(2).saturating_add(fields)).unwrap_or(u32::MAX)
}

/// Reads what is still to come of a request that has been answered, so that the stream is not reset while its client
/// has still to read the answer.
async fn read_on(mut body: Incoming, worker: Rc<Worker>) {
    let reading = async {
        let mut left = LINGER_BYTES;
        while let Some(Ok(frame)) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            let length = frame.data_ref().map_or(0, Bytes::len) as u64;
            let Some(rest) = left.checked_sub(length) else { return };
            left = rest;
        }
    };
    // Who sends on for longer has had the time to read it.
    let _ = worker.clock.within(LINGER, reading).await;
}

/// Writes down that a request was refused by h2.
fn refused(worker: &Worker, connection: &Connection, status: Option<StatusCode>, reason: &str) {
    let client = connection.peer.address.client();
    let tls = connection.tls.as_ref().map(|session| session.version);
    Refusal { client, tls, version: Some("2"), head: &[], status, reason }.write(worker);
}

/// The streams of a connection, and what spawns their tasks.
#[derive(Clone)]
struct Streams(Rc<Open>);

struct Open {
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    /// Requests that are being answered.
    count: Cell<usize>,
    /// Runs while there are none.
    idle: Timer,
    /// The client has been told that no more requests are taken.
    is_ending: Cell<bool>,
    /// That of the request whose task is about to be spawned.
    next: RefCell<Option<Rc<Progress>>>,
    ends: Ends,
}

/// Frames of fields that end a stream, which hyper has still to send. Those that go beyond are h2's own.
type Ends = Rc<Cell<u32>>;

/// Whose turn it is to go on with a response.
struct Progress {
    turn: Cell<Turn>,
    /// Bytes that the client has made room for since that was last looked at, if hyper has come back at all.
    taken: Cell<Option<usize>>,
    ends: Ends,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The upstream's, or the client's to send its request.
    Other,
    /// The client's, to take what there is.
    Client,
}

impl Progress {
    /// The next frame of fields is the last of its stream.
    fn expect_end(&self) {
        self.ends.set(self.ends.get() + 1);
    }

    fn set(&self, turn: Turn, taken: usize) {
        self.turn.set(turn);
        self.taken.set(Some(self.taken.get().unwrap_or(0) + taken));
    }
}

impl Streams {
    fn new(worker: Rc<Worker>, connection: Rc<Connection>) -> Self {
        let idle = worker.clock.timer();
        idle.start(connection.listener.timeouts.idle.get());
        let (count, is_ending, next) = (Cell::new(0), Cell::new(false), RefCell::default());
        Self(Rc::new(Open { worker, connection, count, idle, is_ending, next, ends: Rc::default() }))
    }

    /// A request has come. hyper spawns its task next.
    fn begin(&self) -> Rc<Progress> {
        let progress = self.progress();
        *self.0.next.borrow_mut() = Some(progress.clone());
        progress
    }

    fn progress(&self) -> Rc<Progress> {
        let (turn, ends) = (Cell::new(Turn::Other), self.0.ends.clone());
        Rc::new(Progress { turn, taken: Cell::default(), ends })
    }

    /// Goes on with a stream in another protocol. It is a request that is being answered until that ends.
    fn spawn_tunnel(&self, tunnel: Box<Tunnel>, scratch: Scratch) {
        let open = OpenStream::new(self.0.clone(), self.progress());
        self.0.worker.drain.spawn_local(async move {
            let _open = open;
            tunnel.run_stream(&scratch).await;
        });
    }
}

impl Open {
    fn end(&self) {
        self.is_ending.set(true);
        if self.count.get() == 0 {
            self.idle.start(LINGER);
        }
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        let progress = self.0.next.take();
        let open = progress.map(|progress| OpenStream::new(self.0.clone(), progress));
        self.0.worker.drain.spawn_local(StreamTask { task, open });
    }
}

/// A request that is being answered, for as long as it lives.
struct OpenStream {
    open: Rc<Open>,
    progress: Rc<Progress>,
    /// There once it was the client's turn.
    writing: Option<Timer>,
    min_rate: MinimumRate,
    /// Its client does not read.
    is_given_up: bool,
}

impl OpenStream {
    fn new(open: Rc<Open>, progress: Rc<Progress>) -> Self {
        open.count.set(open.count.get() + 1);
        open.idle.stop();
        Self { open, progress, writing: None, min_rate: MinimumRate::default(), is_given_up: false }
    }

    /// Ready when the client has not taken anything for too long, or too little.
    fn poll_abandoned(&mut self, cx: &mut Context<'_>) -> Poll<Limit> {
        let Open { worker, connection, .. } = &*self.open;
        if let Some(taken) = self.progress.taken.take() {
            if let Some(timer) = &self.writing {
                timer.stop();
            }
            if !self.min_rate.pass(taken, connection.listener.min_rates.write(), &worker.clock) {
                return Poll::Ready(Limit::WriteRate);
            }
        }
        if self.progress.turn.get() == Turn::Other {
            return Poll::Pending;
        }
        self.min_rate.wait(&worker.clock);
        let timer = self.writing.get_or_insert_with(|| worker.clock.timer());
        if !timer.is_running() {
            timer.start(connection.listener.timeouts.write.get());
        }
        timer.poll(cx).map(|()| Limit::WriteTime)
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if self.is_given_up {
            // What the stream's task had in hand has been dropped before this.
            self.open.connection.go_on();
        }
        let left = self.open.count.get() - 1;
        self.open.count.set(left);
        if left == 0 {
            self.open.idle.start(match self.open.is_ending.get() {
                true => LINGER,
                false => self.open.connection.listener.timeouts.idle.get(),
            });
        }
    }
}

pin_project_lite::pin_project! {
    /// What hyper does for a request; given up, and the stream with it, when the client does not read.
    struct StreamTask<F> {
        #[pin]
        task: F,
        open: Option<OpenStream>,
    }
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(open) = this.open else { return Poll::Pending };
        let limit = ready!(open.poll_abandoned(cx));
        let connection = &open.open.connection;
        connection.give_up(limit);
        tracing::debug!(client = %connection.peer.address, limit = limit.name(), "stream given up");
        open.is_given_up = true;
        Poll::Ready(())
    }
}

/// The body of a response, which shows when hyper asks for more of it: when the client has made room for what hyper
/// has got already.
struct Watched {
    body: proxy::Body,
    /// What is left of a large piece.
    rest: Bytes,
    /// Bytes of the piece that hyper got last.
    given: usize,
    progress: Rc<Progress>,
}

impl http_body::Body for Watched {
    type Data = Bytes;
    type Error = body::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<Bytes>, body::Error>>> {
        let Self { body, rest, given, progress } = self.get_mut();
        let taken = std::mem::take(given);
        let mut frame = if rest.is_empty() {
            match Pin::new(body).poll_frame(cx) {
                Poll::Pending => {
                    progress.set(Turn::Other, taken);
                    return Poll::Pending;
                }
                Poll::Ready(frame) => frame,
            }
        } else {
            Some(Ok(BodyFrame::data(std::mem::take(rest))))
        };
        if let Some(Ok(frame)) = &mut frame {
            if let Some(data) = frame.data_mut() {
                *rest = data.split_off(data.len().min(PIECE));
                *given = data.len();
            } else if frame.is_trailers() {
                progress.expect_end();
            }
        }
        progress.set(Turn::Client, taken);
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (mut hint, rest) = (self.body.size_hint(), self.rest.len() as u64);
        if let Some(upper) = hint.upper() {
            hint.set_upper(upper + rest);
        }
        hint.set_lower(hint.lower() + rest);
        hint
    }
}

/// The socket of a connection, and what is seen to pass.
struct Line<S> {
    stream: S,
    /// What has come before the line was there.
    begun: Vec<u8>,
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    scratch: Scratch,
    /// Bytes of the preface that have still to come.
    preface: usize,
    incoming: Frames,
    outgoing: Frames,
    allowance: Allowance,
    reading: Timer,
    writing: Timer,
    write_rate: MinimumRate,
    ends: Ends,
    /// The last stream whose head was refused, by h2.
    refused_head: u32,
    /// Whether a frame of the client has come.
    has_begun: bool,
    /// Why the connection ends, which the client is told.
    fault: Option<Code>,
    is_closed: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    fn new(
        stream: S,
        begun: Vec<u8>,
        scratch: Scratch,
        worker: Rc<Worker>,
        connection: Rc<Connection>,
        ends: Ends,
    ) -> Self {
        Self {
            stream,
            begun,
            scratch,
            preface: PREFACE.len(),
            incoming: Frames::default(),
            outgoing: Frames::default(),
            allowance: Allowance::new(&worker.clock),
            reading: worker.clock.timer(),
            writing: worker.clock.timer(),
            write_rate: MinimumRate::default(),
            ends,
            refused_head: 0,
            worker,
            connection,
            has_begun: false,
            fault: None,
            is_closed: false,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, cursor: &mut ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        if cursor.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if self.fault.is_some() {
            return Poll::Ready(Err(io::Error::other("the client was told that the connection ends")));
        }
        if !self.begun.is_empty() {
            let count = self.begun.len().min(cursor.remaining());
            let begun: Vec<u8> = self.begun.drain(..count).collect();
            cursor.put_slice(&begun);
            return Poll::Ready(self.follow(&begun));
        }
        let scratch = self.scratch.clone();
        let mut scratch = scratch.borrow_mut();
        let size = cursor.remaining().min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..size]);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => return self.poll_reading_deadline(cx),
            Poll::Ready(result) => result?,
        }
        let came = buffer.filled();
        self.is_closed = came.is_empty();
        cursor.put_slice(came);
        Poll::Ready(self.follow(came))
    }

    /// Looks at what goes on to hyper.
    fn follow(&mut self, bytes: &[u8]) -> io::Result<()> {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        let Self { incoming, allowance, reading, worker, has_begun, .. } = self;
        let mut fault = None;
        incoming.follow(&bytes[preface..], |frame| {
            if !std::mem::replace(has_begun, true) && !frame.may_be_first() {
                fault.get_or_insert((Code::ProtocolError, None, "the first frame is not SETTINGS"));
            }
            if frame.is_of_wrong_size() {
                fault.get_or_insert((
                    Code::FrameSizeError,
                    None,
                    "a frame has a length that its kind never has",
                ));
            }
            if !allowance.take(frame, &worker.clock) {
                let limit = Some(Limit::ControlFrames);
                fault.get_or_insert((Code::EnhanceYourCalm, limit, "control frames without end"));
            }
            // The time of a head goes on to its end.
            if !frame.continues_head() {
                reading.stop();
            }
        });
        match fault {
            Some((code, limit, why)) => Err(self.fault(code, limit, why)),
            None => Ok(()),
        }
    }

    /// Nothing has come. What has begun to come may not take for ever.
    fn poll_reading_deadline(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let has_begun = (1..PREFACE.len()).contains(&self.preface) || self.incoming.is_inside();
        if !has_begun {
            self.reading.stop();
        } else if !self.reading.is_running() {
            self.reading.start(self.connection.listener.timeouts.header.get());
        }
        ready!(self.reading.poll(cx));
        Poll::Ready(Err(self.fault(Code::EnhanceYourCalm, Some(Limit::HeaderTime), "a head takes too long")))
    }

    fn fault(&mut self, code: Code, limit: Option<Limit>, why: &'static str) -> io::Error {
        if let Some(limit) = limit {
            self.connection.counts.reached(limit);
        }
        tracing::debug!(client = %self.connection.peer.address, why, "connection given up");
        self.fault = Some(code);
        io::Error::other(why)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = match socket::poll_write_pieces(&mut self.stream, cx, pieces) {
            Poll::Pending => {
                if !self.writing.is_running() {
                    self.writing.start(self.connection.listener.timeouts.write.get());
                }
                self.write_rate.wait(&self.worker.clock);
                ready!(self.writing.poll(cx));
                self.connection.give_up(Limit::WriteTime);
                return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read")));
            }
            Poll::Ready(written) => written?,
        };
        self.writing.stop();
        let Self { outgoing, allowance, connection, write_rate, worker, ends, refused_head, .. } = self;
        if !write_rate.pass(written, connection.listener.min_rates.write(), &worker.clock) {
            connection.give_up(Limit::WriteRate);
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client reads too slowly")));
        }
        let mut left = written;
        for piece in pieces {
            let passed = left.min(piece.len());
            left -= passed;
            outgoing.follow(&piece[..passed], |frame| {
                allowance.answered(frame);
                match frame.kind {
                    Kind::GoAway => connection.counts.ended_with(frame.error_code()),
                    Kind::Reset => {
                        connection.counts.reset_with(frame.error_code());
                        let reason = match frame.error_code() {
                            REFUSED_STREAM => {
                                connection.counts.reached(Limit::Streams);
                                "the connection has too many streams"
                            }
                            // A request with content whose head is too large was answered, and is reset behind that.
                            PROTOCOL_ERROR if *refused_head == frame.stream => return,
                            // h2 has found it.
                            PROTOCOL_ERROR => "the request is malformed",
                            _ => return,
                        };
                        refused(worker, connection, None, reason);
                    }
                    Kind::Headers if frame.ends_stream() => match ends.get().checked_sub(1) {
                        Some(left) => ends.set(left),
                        // The one answer that h2 gives by itself is that to a head which is too large.
                        None => {
                            *refused_head = frame.stream;
                            let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
                            connection.counts.refused_with(status);
                            connection.counts.reached(Limit::Headers);
                            refused(worker, connection, Some(status), "the head is too long");
                        }
                    },
                    _ => {}
                }
            });
        }
        Poll::Ready(Ok(written))
    }

    /// Says why, if it is the client's fault; and reads on for a moment, so that what was said is not lost to a reset.
    async fn close(mut self) {
        let lingering_close = async {
            if let Some(code) = self.fault {
                self.connection.counts.ended_with(code as u32);
                if self.outgoing.is_between() {
                    self.stream.write_all(&Frame::go_away(self.incoming.last_stream(), code)).await?;
                }
            }
            self.stream.shutdown().await?;
            if !self.is_closed {
                let mut rest = (&mut self.stream).take(LINGER_BYTES);
                tokio::io::copy(&mut rest, &mut tokio::io::sink()).await?;
            }
            Ok::<_, io::Error>(())
        };
        // A client that is gone does not miss it.
        let _ = self.worker.clock.within(LINGER, lingering_close).await;
    }
}

/// The end of a line that hyper holds.
struct Socket<S>(Rc<RefCell<Line<S>>>);

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Read for Socket<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut cursor: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, &mut cursor)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> hyper::rt::Write for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().stream).poll_flush(cx)
    }

    /// The end is [`Line::close`].
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush(cx)
    }
}
