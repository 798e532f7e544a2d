//! Which connections carry several requests at once?
//!
//! Those of HTTP/2. A worker has as few to an endpoint as the number of streams that the endpoint allows, and makes
//! one at a time, however many requests wait for it.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use http::{HeaderValue, Method, Request, Uri, Version, header, uri};
use http_body::Body;
use hyper::{client::conn::http2, ext, rt::Executor};
use hyper_util::rt::TokioTimer;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot, watch};

use super::{
    ConnectionPermit, Endpoint, Upstream,
    connect::{ConnectError, dial_patiently},
    connections::{EndpointStream, Got, IdleMark, Queued, Wanted},
    endpoint::Spoken,
    http2::{Heard, Line, Scratch, scratch},
};
use crate::{
    body::RequestBody,
    clock::{Clock, Tick},
    config::{Protocol, UpstreamTimeouts},
    drain::Drain,
    proxy_protocol::ProxyHeader,
};

pub(super) type Sender = http2::SendRequest<RequestBody>;

/// What an endpoint may send of one response before the client has taken it.
const STREAM_WINDOW: u32 = 256 << 10;

/// The same of all responses on a connection: clients that do not read must not hold up those that do.
const CONNECTION_WINDOW: u32 = 32 << 20;

/// What h2 takes of a response's head, more than any limit that can be configured: to h2 a head that is much too large
/// is a fault of the whole connection. The limits of an upstream are kept behind it, for each response.
pub(super) const HEAD: u32 = 2 << 20;

/// How long a connection waits for the request that had it made.
const UNCLAIMED: Duration = Duration::from_secs(5);

/// The shared connections of one worker.
#[derive(Debug)]
pub(super) struct Http2Pool {
    clock: Clock,
    drain: Drain,
    scratch: Scratch,
    groups: RefCell<FxHashMap<PoolKey, Rc<Group>>>,
    /// The number of the pool.
    pool: u64,
    /// SourceReport when somebody elsewhere waits for a connection.
    wanted: Arc<Notify>,
}

/// Who shares a connection: whoever asks an endpoint, by its id, that was told the same of whose connection it is.
type PoolKey = (u64, Option<ProxyHeader>);

/// The connections to one endpoint.
#[derive(Debug, Default)]
struct Group {
    connections: RefCell<Vec<Rc<Shared>>>,
    /// The one that is being made.
    attempt: RefCell<Option<watch::Receiver<Connected>>>,
    /// One that was made, on which the endpoint would speak HTTP/1.1.
    alone: RefCell<Option<(EndpointStream, Tick)>>,
    /// Where connections are limited: requests that wait for a connection or a stream,
    waiting: Cell<usize>,
    /// whether they wait until there may be another connection,
    is_queued: Cell<bool>,
    /// a stream has come free,
    freed: Rc<Notify>,
    /// and nobody waits any more.
    abandoned: Notify,
}

/// What was found for a request.
pub(super) enum Taken {
    Http2Stream(Http2Stream),
    /// The endpoint has chosen HTTP/1.1. With the connection on which it did, unless another request has that.
    Alone(Option<EndpointStream>),
}

/// A connection that was made.
enum Made {
    Shared(Shared),
    Alone(EndpointStream),
}

/// The connection that was made, if it is one that is shared.
type Connected = Option<Result<Option<Rc<Shared>>, Arc<ConnectError>>>;

/// A connection that carries several requests.
#[derive(Debug)]
struct Shared {
    sender: Sender,
    state: Rc<State>,
    endpoint: Arc<Endpoint>,
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
    /// Takes no more requests.
    is_retired: Cell<bool>,
    /// Whether a request has had it. Before, somebody is about to.
    is_used: Cell<bool>,
    /// Whether it has answered a request.
    has_answered: Cell<bool>,
    /// Where connections are limited: told when a stream comes free,
    freed: Option<Freed>,
    /// and there while there are no streams.
    idle_mark: RefCell<Option<IdleMark>>,
    idle_since: Cell<Tick>,
    heard: Heard,
    /// What drives the connection, until `most` is known.
    driver: RefCell<Option<Waker>>,
}

/// Who is told when a stream comes free.
#[derive(Debug)]
struct Freed {
    /// Who waits for a stream.
    stream: Rc<Notify>,
    /// The pool, if it was the last: who waits for a connection of their own may have this one's place.
    connection: Arc<Notify>,
}

/// One stream of a connection.
#[derive(Debug)]
pub(super) struct Http2Stream {
    connection: Rc<Shared>,
    began: Tick,
}

impl Http2Pool {
    pub fn new(clock: Clock, drain: Drain, pool: u64, wanted: Arc<Notify>) -> Self {
        Self { clock, drain, scratch: scratch(), groups: RefCell::default(), pool, wanted }
    }

    /// A stream on a connection that has room, or on a new one. With `fresh` on one that is made now.
    ///
    /// `protocol` is to be HTTP/2, or the endpoint's choice.
    pub async fn take(
        &self,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        introduction: Option<ProxyHeader>,
        protocol: Protocol,
        mut fresh: bool,
    ) -> Result<Taken, ConnectError> {
        let group = self.groups.borrow_mut().entry((endpoint.id(), introduction)).or_default().clone();
        let limits = &upstream.settings.limits;
        let is_limited = limits.connections.is_some();
        let began = self.clock.now();
        let mut prefers_new = false;
        // Where somebody waits already, nobody passes by.
        let mut has_turn = group.waiting.get() == 0;
        let mut waiter = None;
        loop {
            if !fresh
                && has_turn
                && let Some(share) = group.find(prefers_new)
            {
                return Ok(Taken::Http2Stream(share));
            }
            (prefers_new, fresh) = (fresh, false);
            let mut attempt = self.attempt(&group, upstream, endpoint, introduction, protocol);
            if is_limited && waiter.is_none() && group.is_queued.get() {
                let Ok(queued) = endpoint.connections.queue(limits.queue) else {
                    // Nobody else may wait for what has just been begun.
                    if group.waiting.get() == 0 {
                        group.abandoned.notify_one();
                    }
                    return Err(ConnectError::TooMany);
                };
                waiter = Some(GroupWaiter::new(&group, queued));
            }
            // The one that makes it is gone only with the worker.
            let made = async {
                tokio::select! {
                    biased;
                    made = attempt.wait_for(Option::is_some) => Some(made.map(|made| made.clone())),
                    () = group.freed.notified() => None,
                }
            };
            let made = match &waiter {
                None => made.await,
                Some(_) => {
                    let left = limits.queue_timeout.get().saturating_sub(self.clock.since(began));
                    match self.clock.within(left, made).await {
                        Ok(made) => made,
                        Err(_) if group.is_queued.get() => return Err(ConnectError::TooMany),
                        // It is being made, which has a time-out of its own.
                        Err(_) => Some(attempt.wait_for(Option::is_some).await.map(|made| made.clone())),
                    }
                }
            };
            has_turn = true;
            match made {
                // One that cannot be used at once ended before anybody could: another would end as soon.
                Some(Ok(Some(Ok(Some(made))))) if !made.is_of_use() => return Err(ConnectError::Ended),
                None | Some(Ok(None | Some(Ok(_)))) => {}
                Some(Ok(Some(Err(error)))) => return Err(ConnectError::Shared(error)),
                Some(Err(_)) => return Err(ConnectError::Ended),
            }
            if endpoint.spoken(protocol) == Spoken::Http1 {
                return Ok(Taken::Alone(group.alone.take().map(|(stream, _)| stream)));
            }
        }
    }

    /// The connection that is being made; begins to make one if there is none.
    fn attempt(
        &self,
        group: &Rc<Group>,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        introduction: Option<ProxyHeader>,
        protocol: Protocol,
    ) -> watch::Receiver<Connected> {
        if let Some(attempt) = &*group.attempt.borrow() {
            return attempt.clone();
        }
        let (outcome, attempt) = watch::channel(None);
        *group.attempt.borrow_mut() = Some(attempt.clone());
        let (clock, drain, scratch) = (self.clock.clone(), self.drain.clone(), self.scratch.clone());
        let (group, endpoint, timeouts) = (group.clone(), endpoint.clone(), upstream.timeouts.clone());
        let is_limited = upstream.settings.limits.connections.is_some();
        let permit = is_limited.then(|| endpoint.connections.try_permit(&self.wanted));
        group.is_queued.set(matches!(permit, Some(None)));
        let (pool, worker) = (self.pool, self.wanted.clone());
        // In a task of its own, since others wait for it than the request that began it.
        self.drain.spawn_local(async move {
            let permit = match permit {
                None => Ok(None),
                Some(Some(permit)) => Ok(Some(permit)),
                Some(None) => wait(&group, &endpoint, introduction, pool, &worker, &clock).await.map(Some),
            };
            group.is_queued.set(false);
            let made = match permit {
                Ok(permit) => {
                    let freed =
                        is_limited.then(|| Freed { stream: group.freed.clone(), connection: worker.clone() });
                    let connecting = connect(
                        &endpoint,
                        introduction,
                        protocol,
                        &timeouts,
                        (&clock, &drain, &scratch),
                        permit,
                        freed,
                    );
                    clock
                        .within(timeouts.connect.get(), connecting)
                        .await
                        .map_err(ConnectError::from)
                        .flatten()
                }
                Err(error) => Err(error),
            };
            *group.attempt.borrow_mut() = None;
            let result = match made {
                Ok(Made::Shared(connection)) => {
                    endpoint.note_spoken(true);
                    let connection = Rc::new(connection);
                    group.connections.borrow_mut().push(connection.clone());
                    Ok(Some(connection))
                }
                Ok(Made::Alone(stream)) => {
                    endpoint.note_spoken(false);
                    group.alone.replace(Some((stream, clock.now())));
                    Ok(None)
                }
                Err(error) => Err(Arc::new(error)),
            };
            // Whoever waited may have gone.
            let _ = outcome.send(Some(result));
        });
        attempt
    }

    /// Somebody on another worker waits for a connection: closes one that is idle, or has one of a worker that has
    /// others wait for nothing finish what it carries.
    pub fn let_go(&self) {
        /// How long a worker keeps a connection to itself that another worker has none of.
        const SLICE: Duration = Duration::from_millis(50);
        let groups: Vec<_> = self.groups.borrow().values().cloned().collect();
        for group in groups {
            let gone = {
                let mut connections = group.connections.borrow_mut();
                let Some(first) = connections.first() else { continue };
                let wanted = &first.endpoint.connections;
                let is_old = |connection: &Rc<Shared>| self.clock.has_passed(SLICE, connection.since);
                // One that was made just now is not idle: whoever waits for it has not had a turn.
                let is_idle = |connection: &Rc<Shared>| {
                    let State { streams, is_used, .. } = &*connection.state;
                    streams.get() == 0 && (is_used.get() || is_old(connection))
                };
                let index = match wanted.has_waiting() {
                    false => None,
                    true => connections
                        .iter()
                        .position(is_idle)
                        .or_else(|| connections.iter().position(is_old).filter(|_| wanted.has_starved())),
                };
                index.map(|index| connections.remove(index))
            };
            // It ends with its last request.
            if let Some(gone) = gone {
                gone.state.is_retired.set(true);
            }
        }
    }

    /// Lets go of connections that are of no more use.
    pub fn sweep(&self) {
        self.groups.borrow_mut().retain(|_, group| {
            // Whoever was to have it has gone, if it has been there for as long as that.
            group.alone.borrow_mut().take_if(|(_, since)| self.clock.has_passed(UNCLAIMED, *since));
            let mut connections = group.connections.borrow_mut();
            connections.retain(|connection| {
                let State { clock, streams, idle_since, .. } = &*connection.state;
                let is_idle =
                    streams.get() == 0 && clock.has_passed(connection.timeouts.idle.get(), idle_since.get());
                connection.is_of_use() && !is_idle
            });
            !connections.is_empty() || group.attempt.borrow().is_some() || group.waiting.get() > 0
        });
    }

    /// Lets go of connections that carry nothing.
    pub fn close_idle(&self) {
        for group in self.groups.borrow().values() {
            group.connections.borrow_mut().retain(|connection| connection.state.streams.get() > 0);
        }
    }

    /// Lets go of the connections to endpoints other than these; each ends with its last request.
    pub fn retain(&self, is_kept: impl Fn(u64) -> bool) {
        self.groups.borrow_mut().retain(|(id, _), _| is_kept(*id));
    }
}

impl Group {
    /// The first connection that has room, so that those that are not needed grow idle; or the last.
    fn find(&self, prefers_new: bool) -> Option<Http2Stream> {
        let connections = self.connections.borrow();
        let has_room = |connection: &&Rc<Shared>| {
            connection.is_of_use() && connection.state.streams.get() < connection.state.most.get()
        };
        let found = match prefers_new {
            false => connections.iter().find(has_room),
            true => connections.iter().rev().find(has_room),
        };
        found.map(Http2Stream::new)
    }
}

impl Shared {
    fn is_of_use(&self) -> bool {
        let State { clock, is_retired, .. } = &*self.state;
        let is_old = self.timeouts.age.is_some_and(|age| clock.has_passed(age.get(), self.since));
        !self.sender.is_closed() && !is_retired.get() && !is_old
    }
}

impl Http2Stream {
    fn new(connection: &Rc<Shared>) -> Self {
        let State { clock, streams, .. } = &*connection.state;
        streams.set(streams.get() + 1);
        connection.state.is_used.set(true);
        connection.state.idle_mark.take();
        Self { connection: connection.clone(), began: clock.now() }
    }

    pub fn sender(&self) -> Sender {
        self.connection.sender.clone()
    }

    pub fn takes_connect(&self) -> bool {
        self.connection.state.takes_connect.get()
    }

    pub fn note_answer(&self) {
        self.connection.state.has_answered.set(true);
    }

    /// Whether its connection has carried a request to its answer.
    pub fn has_answered(&self) -> bool {
        self.connection.state.has_answered.get()
    }

    /// No answer has come in time. If nothing else has come either, the connection is taken for dead.
    pub fn suspect(&self) {
        let State { heard, is_retired, .. } = &*self.connection.state;
        if heard.get() < self.began {
            is_retired.set(true);
        }
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        let State { clock, streams, idle_since, freed, idle_mark, .. } = &*self.connection.state;
        streams.set(streams.get() - 1);
        idle_since.set(clock.now());
        if let Some(freed) = freed {
            freed.stream.notify_one();
            if streams.get() == 0 {
                let connections = &self.connection.endpoint.connections;
                idle_mark.replace(Some(connections.idle()));
                if connections.has_waiting() {
                    freed.connection.notify_one();
                }
            }
        }
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

/// Whether the endpoint has ended the connection in good order (RFC 9113, section 6.8), as servers do after so many requests
/// or when they stop.
pub(super) fn is_retirement(error: &hyper::Error) -> bool {
    let error = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    error.is_some_and(|error| {
        error.is_remote() && error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR)
    })
}

/// One who waits for a connection or a stream.
struct GroupWaiter {
    group: Rc<Group>,
    _queued: Queued,
}

impl GroupWaiter {
    fn new(group: &Rc<Group>, queued: Queued) -> Self {
        group.waiting.set(group.waiting.get() + 1);
        Self { group: group.clone(), _queued: queued }
    }
}

impl Drop for GroupWaiter {
    fn drop(&mut self) {
        let left = self.group.waiting.get() - 1;
        self.group.waiting.set(left);
        if left == 0 {
            self.group.abandoned.notify_one();
        }
    }
}

/// Waits until there may be one more connection, for as long as anybody waits for it.
async fn wait(
    group: &Group,
    endpoint: &Endpoint,
    introduction: Option<ProxyHeader>,
    pool: u64,
    worker: &Arc<Notify>,
    clock: &Clock,
) -> Result<ConnectionPermit, ConnectError> {
    /// How often workers that have connections are asked again to let go of one.
    const AGAIN: Duration = Duration::from_millis(50);
    loop {
        let is_starved = group.connections.borrow().iter().all(|connection| !connection.is_of_use());
        let wanted = Wanted { pool, introduction, is_new: true, is_starved };
        let mut waiting = endpoint.connections.wait(wanted, worker);
        loop {
            tokio::select! {
                biased;
                got = &mut waiting => match got {
                    Some(Got::Permit(permit)) => return Ok(permit),
                    // One that is not new is closed.
                    Some(Got::Moved(_) | Got::Local(_)) | None => break,
                },
                () = group.abandoned.notified() => {
                    // Others may have come since.
                    if group.waiting.get() == 0 {
                        return Err(ConnectError::TooMany);
                    }
                }
                () = clock.pause(AGAIN) => waiting.nudge(wanted, worker),
            }
        }
    }
}

/// Connects, and if HTTP/2 is spoken, spawns what drives the connection, and waits until the endpoint has said what it
/// allows.
async fn connect(
    endpoint: &Arc<Endpoint>,
    introduction: Option<ProxyHeader>,
    protocol: Protocol,
    timeouts: &UpstreamTimeouts,
    (clock, drain, scratch): (&Clock, &Drain, &Scratch),
    permit: Option<ConnectionPermit>,
    freed: Option<Freed>,
) -> Result<Made, ConnectError> {
    let limit = timeouts.connect.get() / 2;
    let stream = dial_patiently(endpoint, introduction, protocol, permit, clock, limit).await?;
    if protocol == Protocol::Auto && !stream.has_agreed_on_http2() {
        return Ok(Made::Alone(stream));
    }
    let now = clock.now();
    let state = Rc::new(State {
        clock: clock.clone(),
        most: Cell::new(0),
        streams: Cell::new(0),
        takes_connect: Cell::new(false),
        is_retired: Cell::new(false),
        is_used: Cell::new(false),
        has_answered: Cell::new(false),
        idle_mark: RefCell::new(freed.is_some().then(|| endpoint.connections.idle())),
        freed,
        idle_since: Cell::new(now),
        heard: Rc::new(Cell::new(now)),
        driver: RefCell::new(None),
    });
    let line = Line::new(stream, scratch.clone(), state.heard.clone(), clock.clone());
    let mut builder = http2::Builder::new(Tasks { drain: drain.clone(), state: state.clone() });
    builder
        .initial_max_send_streams(0)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(HEAD);
    if let Some(ping) = &timeouts.ping {
        builder.timer(TokioTimer::new()).keep_alive_interval(ping.get()).keep_alive_timeout(ping.get());
    }
    let (sender, connection) = builder.handshake(line).await?;
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
    Ok(Made::Shared(Shared {
        sender,
        state,
        endpoint: endpoint.clone(),
        since: now,
        timeouts: timeouts.clone(),
    }))
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
