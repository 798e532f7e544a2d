//! Which connections carry several requests at once?
//!
//! Those of HTTP/2. A worker has as few to an endpoint as the number of streams that the endpoint allows, and makes
//! one at a time, however many requests wait for it.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use http::{HeaderValue, Method, Request, Uri, Version, header, uri};
use http_body::Body;
use hyper::{
    client::conn::http2,
    ext,
    rt::{Executor, Read, ReadBufCursor, Write},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustc_hash::FxHashMap;
use tokio::sync::{oneshot, watch};

use super::{
    Endpoint, Spoken,
    connect::{ConnectError, dial},
    transport::Stream,
};
use crate::{
    body::RequestBody,
    clock::{Clock, Tick},
    config::{Protocol, UpstreamTimeouts},
    drain::Drain,
    proxy_protocol::Introduction,
};

pub(super) type Sender = http2::SendRequest<RequestBody>;

/// What an endpoint may send of one response before the client has taken it.
const STREAM_WINDOW: u32 = 256 << 10;

/// The same of all responses on a connection: clients that do not read must not hold up those that do.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// The size of a response's head.
const HEAD: u32 = 64 << 10;

/// The shared connections of one worker.
#[derive(Debug)]
pub(super) struct Shares {
    clock: Clock,
    drain: Drain,
    groups: RefCell<FxHashMap<Whose, Rc<Group>>>,
}

/// Who shares a connection: whoever asks an endpoint, by its id, that was told the same of whose connection it is.
type Whose = (u64, Option<Introduction>);

/// The connections to one endpoint.
#[derive(Debug, Default)]
struct Group {
    connections: RefCell<Vec<Rc<Shared>>>,
    /// The one that is being made.
    attempt: RefCell<Option<watch::Receiver<Outcome>>>,
    /// One that was made, on which the endpoint would speak HTTP/1.1.
    alone: RefCell<Option<Stream>>,
}

/// What was found for a request.
pub(super) enum Taken {
    Share(Share),
    /// The endpoint has chosen HTTP/1.1. With the connection on which it did, unless another request has that.
    Alone(Option<Stream>),
}

/// A connection that was made.
enum Made {
    Shared(Shared),
    Alone(Stream),
}

type Outcome = Option<Result<(), Arc<ConnectError>>>;

/// A connection that carries several requests.
#[derive(Debug)]
struct Shared {
    sender: Sender,
    state: Rc<State>,
    since: Tick,
    timeouts: UpstreamTimeouts,
}

/// What is known of a connection, here and where it is driven.
#[derive(Debug)]
struct State {
    clock: Clock,
    /// Streams that the endpoint allows; none before it has said so.
    most: Cell<usize>,
    streams: Cell<usize>,
    /// Whether it takes requests to go on in another protocol.
    takes_connect: Cell<bool>,
    /// Whether it has carried a request.
    is_used: Cell<bool>,
    /// Takes no more requests.
    is_retired: Cell<bool>,
    idle_since: Cell<Tick>,
    /// When something has last come from the endpoint.
    heard: Cell<Tick>,
    /// What drives the connection, until `most` is known.
    driver: RefCell<Option<Waker>>,
}

/// One stream of a connection.
#[derive(Debug)]
pub(super) struct Share {
    connection: Rc<Shared>,
    began: Tick,
    pub is_reused: bool,
}

impl Shares {
    pub fn new(clock: Clock, drain: Drain) -> Self {
        Self { clock, drain, groups: RefCell::default() }
    }

    /// A stream on a connection that has room, or on a new one. With `fresh` on one that is made now.
    ///
    /// `protocol` is to be HTTP/2, or the endpoint's choice.
    pub async fn take(
        &self,
        endpoint: &Arc<Endpoint>,
        introduction: Option<Introduction>,
        protocol: Protocol,
        timeouts: &UpstreamTimeouts,
        mut fresh: bool,
    ) -> Result<Taken, ConnectError> {
        let group = self.groups.borrow_mut().entry((endpoint.id(), introduction)).or_default().clone();
        let mut prefers_new = false;
        loop {
            if !fresh && let Some(share) = group.find(prefers_new) {
                return Ok(Taken::Share(share));
            }
            (prefers_new, fresh) = (fresh, false);
            let mut attempt = self.attempt(&group, endpoint, introduction, protocol, timeouts);
            // The one that makes it is gone only with the worker.
            let outcome = attempt.wait_for(Option::is_some).await.map(|outcome| outcome.clone());
            match outcome {
                Ok(Some(Err(error))) => return Err(ConnectError::Shared(error)),
                Ok(_) => {}
                Err(_) => return Err(ConnectError::Ended),
            }
            if endpoint.spoken(protocol) == Spoken::Http1 {
                return Ok(Taken::Alone(group.alone.take()));
            }
        }
    }

    /// The connection that is being made; begins to make one if there is none.
    fn attempt(
        &self,
        group: &Rc<Group>,
        endpoint: &Arc<Endpoint>,
        introduction: Option<Introduction>,
        protocol: Protocol,
        timeouts: &UpstreamTimeouts,
    ) -> watch::Receiver<Outcome> {
        if let Some(attempt) = &*group.attempt.borrow() {
            return attempt.clone();
        }
        let (outcome, attempt) = watch::channel(None);
        *group.attempt.borrow_mut() = Some(attempt.clone());
        let (clock, drain) = (self.clock.clone(), self.drain.clone());
        let (group, endpoint, timeouts) = (group.clone(), endpoint.clone(), timeouts.clone());
        // In a task of its own, since others wait for it than the request that began it.
        self.drain.spawn_local(async move {
            let limit = timeouts.connect.get();
            let connecting = connect(&endpoint, introduction, protocol, &timeouts, &clock, &drain);
            let made = clock.within(limit, connecting).await;
            *group.attempt.borrow_mut() = None;
            let result = match made.map_err(ConnectError::from).flatten() {
                Ok(Made::Shared(connection)) => {
                    endpoint.note_spoken(true);
                    group.connections.borrow_mut().push(Rc::new(connection));
                    Ok(())
                }
                Ok(Made::Alone(stream)) => {
                    endpoint.note_spoken(false);
                    group.alone.replace(Some(stream));
                    Ok(())
                }
                Err(error) => Err(Arc::new(error)),
            };
            // Whoever waited may have gone.
            let _ = outcome.send(Some(result));
        });
        attempt
    }

    /// Lets go of connections that are of no more use.
    pub fn sweep(&self) {
        self.groups.borrow_mut().retain(|_, group| {
            // Whoever was to have it has gone.
            group.alone.take();
            let mut connections = group.connections.borrow_mut();
            connections.retain(|connection| {
                let State { clock, streams, idle_since, .. } = &*connection.state;
                let is_idle =
                    streams.get() == 0 && clock.has_passed(connection.timeouts.idle.get(), idle_since.get());
                connection.is_of_use() && !is_idle
            });
            !connections.is_empty() || group.attempt.borrow().is_some()
        });
    }

    /// Lets go of the connections to endpoints other than these; each ends with its last request.
    pub fn retain(&self, is_kept: impl Fn(u64) -> bool) {
        self.groups.borrow_mut().retain(|(id, _), _| is_kept(*id));
    }
}

impl Group {
    /// The first connection that has room, so that those that are not needed grow idle; or the last.
    fn find(&self, prefers_new: bool) -> Option<Share> {
        let connections = self.connections.borrow();
        let has_room = |connection: &&Rc<Shared>| {
            connection.is_of_use() && connection.state.streams.get() < connection.state.most.get()
        };
        let found = match prefers_new {
            false => connections.iter().find(has_room),
            true => connections.iter().rev().find(has_room),
        };
        found.map(Share::new)
    }
}

impl Shared {
    fn is_of_use(&self) -> bool {
        let State { clock, is_retired, .. } = &*self.state;
        let is_old = self.timeouts.age.is_some_and(|age| clock.has_passed(age.get(), self.since));
        !self.sender.is_closed() && !is_retired.get() && !is_old
    }
}

impl Share {
    fn new(connection: &Rc<Shared>) -> Self {
        let State { clock, streams, is_used, .. } = &*connection.state;
        streams.set(streams.get() + 1);
        let is_reused = is_used.replace(true);
        Self { connection: connection.clone(), began: clock.now(), is_reused }
    }

    pub fn sender(&self) -> Sender {
        self.connection.sender.clone()
    }

    pub fn takes_connect(&self) -> bool {
        self.connection.state.takes_connect.get()
    }

    /// No answer has come in time. If nothing else has come either, the connection is taken for dead.
    pub fn suspect(&self) {
        let State { heard, is_retired, .. } = &*self.connection.state;
        if heard.get() < self.began {
            is_retired.set(true);
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let State { clock, streams, idle_since, .. } = &*self.connection.state;
        streams.set(streams.get() - 1);
        idle_since.set(clock.now());
    }
}

/// Gives a request the form that it has in HTTP/2: the host is the authority (RFC 9113, section 8.3.1), and nothing
/// is said of the connection.
pub(super) fn rewrite(request: &mut Request<RequestBody>, endpoint: &Endpoint) {
    let headers = request.headers_mut();
    for name in [header::TRANSFER_ENCODING, header::CONNECTION, header::EXPECT] {
        headers.remove(name);
    }
    let host = headers.remove(header::HOST);
    let authority = host.and_then(|host| uri::Authority::try_from(host.as_bytes()).ok());
    let mut parts = uri::Parts::default();
    parts.scheme = Some(endpoint.scheme());
    parts.authority = Some(authority.unwrap_or_else(|| endpoint.authority.to_authority()));
    parts.path_and_query = request.uri().path_and_query().cloned();
    if let Ok(uri) = Uri::from_parts(parts) {
        *request.uri_mut() = uri;
    }
    *request.version_mut() = Version::HTTP_2;
}

/// Gives a request that asks to go on in another protocol the form that it has in HTTP/2 (RFC 8441, section 4).
pub(super) fn to_connect(request: &mut Request<RequestBody>, protocol: &HeaderValue) {
    *request.method_mut() = Method::CONNECT;
    let headers = request.headers_mut();
    headers.remove(header::UPGRADE);
    headers.remove(header::SEC_WEBSOCKET_KEY);
    if let Ok(protocol) = protocol.to_str() {
        request.extensions_mut().insert(ext::Protocol::from(protocol));
    }
}

/// Gives a request that was not sent the form back that it had.
pub(super) fn undo(request: &mut Request<RequestBody>) {
    let host = request.uri().authority().and_then(|host| host.as_str().parse().ok());
    let is_of_unknown_length = request.body().size_hint().exact().is_none();
    let headers = request.headers_mut();
    if let Some(host) = host {
        headers.insert(header::HOST, host);
    }
    if is_of_unknown_length {
        headers.insert(header::TRANSFER_ENCODING, header::HeaderValue::from_static("chunked"));
    }
    if headers.contains_key(header::TE) {
        headers.insert(header::CONNECTION, header::HeaderValue::from_static("te"));
    }
}

/// Whether the endpoint has said that it has done nothing with a request (RFC 9113, sections 6.8 and 8.7): h2 fails
/// with a GOAWAY those streams alone which that leaves out.
pub(super) fn is_refused(error: &hyper::Error) -> bool {
    let error = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        error.is_remote() && (error.is_go_away() || error.reason() == Some(h2::Reason::REFUSED_STREAM))
    })
}

/// Connects, and if HTTP/2 is spoken, spawns what drives the connection, and waits until the endpoint has said what it
/// allows.
async fn connect(
    endpoint: &Endpoint,
    introduction: Option<Introduction>,
    protocol: Protocol,
    timeouts: &UpstreamTimeouts,
    clock: &Clock,
    drain: &Drain,
) -> Result<Made, ConnectError> {
    let stream = dial(endpoint, introduction, protocol).await?;
    if protocol == Protocol::Auto && !stream.has_agreed_on_http2() {
        return Ok(Made::Alone(stream));
    }
    let now = clock.now();
    let state = Rc::new(State {
        clock: clock.clone(),
        most: Cell::new(0),
        streams: Cell::new(0),
        takes_connect: Cell::new(false),
        is_used: Cell::new(false),
        is_retired: Cell::new(false),
        idle_since: Cell::new(now),
        heard: Cell::new(now),
        driver: RefCell::new(None),
    });
    let stream = TokioIo::new(stream);
    let mut builder = http2::Builder::new(Tasks { drain: drain.clone(), state: state.clone() });
    builder
        .initial_max_send_streams(0)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD);
    if let Some(ping) = &timeouts.ping {
        builder.timer(TokioTimer::new()).keep_alive_interval(ping.get()).keep_alive_timeout(ping.get());
    }
    let (sender, connection) = builder.handshake(Heard { stream, state: state.clone() }).await?;
    let (ready, is_ready) = oneshot::channel();
    let driven = state.clone();
    drain.spawn_local(async move {
        let mut connection = pin!(connection);
        let mut ready = Some(ready);
        let result = poll_fn(|cx| {
            let polled = connection.as_mut().poll(cx);
            driven.most.set(connection.current_max_send_streams());
            driven.takes_connect.set(connection.is_extended_connect_protocol_enabled());
            if driven.most.get() > 0
                && let Some(ready) = ready.take()
            {
                // Whoever waited may have gone.
                let _ = ready.send(Ok(()));
            } else if ready.is_some() {
                *driven.driver.borrow_mut() = Some(cx.waker().clone());
            }
            polled
        })
        .await;
        match (result, ready) {
            (Err(error), Some(ready)) => drop(ready.send(Err(error))),
            (Err(error), None) => tracing::debug!(%error, "upstream connection ended"),
            (Ok(()), _) => {}
        }
    });
    is_ready.await.map_err(|_| ConnectError::Ended)??;
    Ok(Made::Shared(Shared { sender, state, since: now, timeouts: timeouts.clone() }))
}

/// Spawns the tasks of a connection.
#[derive(Clone)]
struct Tasks {
    drain: Drain,
    state: Rc<State>,
}

impl<F: Future<Output = ()> + 'static> Executor<F> for Tasks {
    fn execute(&self, task: F) {
        self.drain.spawn_local(ConnectionTask { task, state: self.state.clone() });
    }
}

pin_project_lite::pin_project! {
    /// A task of hyper's, one of which reads the settings of the endpoint: what drives the connection is to see them.
    struct ConnectionTask<F> {
        #[pin]
        task: F,
        state: Rc<State>,
    }
}

impl<F: Future<Output = ()>> Future for ConnectionTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let polled = this.task.poll(cx);
        if this.state.most.get() == 0
            && let Some(driver) = this.state.driver.take()
        {
            driver.wake();
        }
        polled
    }
}

/// A socket that notes when something has come.
struct Heard {
    stream: TokioIo<Stream>,
    state: Rc<State>,
}

impl Read for Heard {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if polled.is_ready() {
            self.state.heard.set(self.state.clock.now());
        }
        polled
    }
}

impl Write for Heard {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
