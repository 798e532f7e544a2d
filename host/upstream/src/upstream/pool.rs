//! Which connection carries it?
//!
//! Each worker keeps the connections it has made, last in first out: the one used last is the least likely
//! to have been closed, and those at the bottom grow old and go. Nothing here is shared between threads. Where connections
//! are limited, one that comes free goes to whoever waits longest for one, also on another worker (`connections`).

use std::{
    cell::{Cell, RefCell},
    future::Future,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response, response};
use hyper::{body::Incoming, client::conn::TrySendError, upgrade::OnUpgrade};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};

use super::{
    Endpoint, Upstream,
    bound::Client,
    connect::{ConnectError, dial_patiently, drive},
    connections::{ConnectionPermit, EndpointStream, Got, IdleMark, InLine, Wanted},
    endpoint::Spoken,
    head::{BadHead, HeadLimits},
    http2_pool::{self, Http2Pool, Http2Stream, Taken},
    interim::Interim,
    number,
    switched::Switched,
    transport::{Scratch, Sender, SentHead},
};
use crate::{
    body::RequestBody,
    clock::{Clock, Tick},
    config::Protocol,
    descriptors,
    drain::Drain,
    proxy_protocol::ProxyHeader,
};

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Pool {
    clock: Clock,
    drain: Drain,
    scratch: Scratch,
    /// By the endpoint's id.
    idle: RefCell<FxHashMap<u64, Shelf>>,
    /// Connections for requests of this worker that have waited for them, until those take them.
    handed: RefCell<FxHashMap<u64, Free>>,
    next_handed: Cell<u64>,
    /// Tells pools apart.
    number: u64,
    /// SourceReport when somebody elsewhere waits for a connection.
    wanted: Arc<Notify>,
    http2: Http2Pool,
}

/// The idle connections to one endpoint, oldest first.
#[derive(Debug)]
struct Shelf {
    endpoint: Arc<Endpoint>,
    keep: Duration,
    connections: Vec<Idle>,
}

#[derive(Debug)]
struct Idle {
    free: Free,
    introduction: Option<ProxyHeader>,
    since: Tick,
    /// Where connections are limited.
    _mark: Option<IdleMark>,
}

/// A connection without a request.
#[derive(Debug)]
struct Free {
    sender: Sender,
    sent_head: Rc<RefCell<SentHead>>,
    /// The client that has authenticated it, if one has.
    owner: Option<Weak<Client>>,
}

impl Free {
    /// Whether others may have it, also on another worker. One that a client has authenticated is nobody else's; one from
    /// before connections were limited makes no room; and of one whose last request is still being written more would follow.
    fn may_be_handed_over(&self) -> bool {
        let SentHead { is_counted, is_flushed, .. } = *self.sent_head.borrow();
        !self.sender.is_closed() && self.owner.is_none() && is_counted && is_flushed
    }
}

/// A connection in use. Goes back to its pool by [`Lease::finish`], and is closed if dropped.
#[derive(Debug)]
pub struct Lease {
    carrier: Carrier,
    /// The connection itself, once it goes on in another protocol.
    switched: Option<oneshot::Receiver<Switched>>,
    endpoint: Arc<Endpoint>,
    /// What the endpoint was told of whose connection it is.
    introduction: Option<ProxyHeader>,
    /// The client that has authenticated the connection: it carries no other's requests.
    owner: Option<Weak<Client>>,
    keep: Duration,
    /// Whether there may only be so many connections.
    is_limited: bool,
    /// How large the head of a response may be.
    limits: HeadLimits,
    pool: Rc<Pool>,
}

/// What a connection has to be for a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms<'a> {
    /// What the endpoint has been told of whose connection it is; the very same, where it is told.
    pub introduction: Option<ProxyHeader>,
    /// Made now.
    pub is_fresh: bool,
    /// One that can go on in another protocol. Where there is a choice, HTTP/1.1 is spoken on it.
    pub is_switched: bool,
    /// The client that may have one of its own to the endpoint, or authenticates the one that it gets. Where there is a
    /// choice, HTTP/1.1 is spoken on it, since others share those of HTTP/2.
    pub client: Option<&'a Rc<Client>>,
}

/// What carries a request.
#[derive(Debug)]
enum Carrier {
    /// A connection that it has to itself.
    Alone { sender: Sender, sent_head: Rc<RefCell<SentHead>>, is_reused: bool },
    /// A stream of one.
    Shared(Http2Stream),
}

impl Pool {
    /// Connections to one endpoint that a worker keeps without a request.
    const IDLE: usize = 256;

    pub fn new(clock: Clock, drain: Drain) -> Rc<Self> {
        let wanted = Arc::new(Notify::new());
        let number = number::next();
        let http2 = Http2Pool::new(clock.clone(), drain.clone(), number, wanted.clone());
        let scratch = Rc::new(RefCell::new([0; 8 << 10]));
        Rc::new(Self {
            clock,
            drain,
            scratch,
            idle: RefCell::default(),
            handed: RefCell::default(),
            next_handed: Cell::new(0),
            number,
            wanted,
            http2,
        })
    }

    /// Closes what has been idle for too long, and lets go of connections that are wanted elsewhere; for ever.
    pub async fn run(&self) {
        /// How often connections are looked at that have been idle for too long.
        const SWEEP: Duration = Duration::from_secs(1);
        let mut sweeps = tokio::time::interval(SWEEP);
        let mut shortages = descriptors::shortages();
        loop {
            tokio::select! {
                _ = sweeps.tick() => self.sweep(),
                Ok(()) = shortages.changed() => self.close_idle(),
                () = self.wanted.notified() => self.let_go(),
            }
        }
    }

    /// There are too few file descriptors for connections that nobody uses.
    fn close_idle(&self) {
        drop(self.idle.take());
        self.http2.close_idle();
    }

    /// Somebody waits for a connection, for whom an idle one of this worker may do.
    fn let_go(&self) {
        let mut closed = Vec::new();
        for Shelf { endpoint, connections: idle, .. } in self.idle.borrow_mut().values_mut() {
            let waiting = &endpoint.connections;
            if waiting.has_waiting() {
                closed.extend(idle.extract_if(.., |idle| idle.free.sender.is_closed()).map(|idle| idle.free));
            }
            // A connection that nobody who waits can use is closed, which makes room for a new one; no more of them than
            // are waited for. One that does not count makes no room.
            let mut room = 0;
            while waiting.waiting() > room {
                let wanted = waiting.wanted();
                let fits = |idle: &Idle| Some(idle.introduction) == wanted && idle.free.may_be_handed_over();
                let counts = |idle: &Idle| idle.free.sent_head.borrow().is_counted;
                let found = idle.iter().rposition(fits).or_else(|| idle.iter().position(counts));
                let Some(found) = found else { break };
                let Idle { free, introduction, .. } = idle.remove(found);
                if let Some(left) = self.hand_over(endpoint, introduction, free) {
                    closed.push(left);
                    room += 1;
                }
            }
        }
        // Without the borrow: what ends may have others begin.
        drop(closed);
        self.http2.let_go();
    }

    /// Gives a connection to whoever is first in the line, or gives it back.
    fn hand_over(&self, endpoint: &Endpoint, introduction: Option<ProxyHeader>, free: Free) -> Option<Free> {
        if !free.may_be_handed_over() {
            return Some(free);
        }
        while let Some(waiter) = endpoint.connections.next(introduction) {
            if waiter.has_gone() {
                continue;
            }
            if waiter.wanted.pool == self.number {
                let key = self.next_handed.get();
                self.next_handed.set(key + 1);
                self.handed.borrow_mut().insert(key, free);
                if waiter.give(Got::Local(key)) {
                    return None;
                }
                let taken_back = self.handed.borrow_mut().remove(&key);
                return self.hand_over(endpoint, introduction, taken_back?);
            }
            let Free { sender, sent_head, owner: _ } = free;
            let driver = {
                let mut sent_head = sent_head.borrow_mut();
                sent_head.handed_over = Some((waiter, sender));
                sent_head.driver.take()
            };
            if let Some(driver) = driver {
                driver.wake();
            }
            return None;
        }
        Some(free)
    }

    /// A connection to the endpoint on these terms: the one used last, or a new one.
    pub async fn lease(
        self: &Rc<Self>,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        terms: Terms<'_>,
    ) -> Result<Lease, ConnectError> {
        let Terms { introduction, is_fresh, is_switched, client } = terms;
        let lease = |carrier, owner| Lease {
            carrier,
            owner,
            switched: None,
            endpoint: endpoint.clone(),
            introduction,
            keep: upstream.timeouts.idle.get(),
            is_limited: upstream.settings.limits.connections.is_some(),
            limits: HeadLimits::of(&upstream.settings.limits),
            pool: self.clone(),
        };
        let protocol = match upstream.settings.protocol {
            Protocol::Auto if is_switched || client.is_some() || !endpoint.is_https => Protocol::H1,
            protocol => protocol,
        };
        let mut stream = None;
        if endpoint.spoken(protocol) != Spoken::Http1 {
            match self.http2.take(upstream, endpoint, introduction, protocol, is_fresh).await? {
                Taken::Http2Stream(share) => return Ok(lease(Carrier::Shared(share), None)),
                Taken::Alone(made) => stream = made,
            }
        }
        while !is_fresh
            && stream.is_none()
            && let Some(Free { mut sender, sent_head, owner }) = self.take(endpoint, introduction, client)
        {
            // Ready at once unless its task has still to see that the last response has ended.
            if sender.is_ready() || sender.ready().await.is_ok() {
                return Ok(lease(Carrier::Alone { sender, sent_head, is_reused: true }, owner));
            }
        }
        // In a box, since most requests find a connection.
        let carrier = Box::pin(self.connect(upstream, endpoint, protocol, terms, stream)).await?;
        Ok(lease(carrier, None))
    }

    /// A new connection, over `stream` if there is one already; or one that another request has finished with.
    async fn connect(
        &self,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        protocol: Protocol,
        Terms { introduction, is_fresh, .. }: Terms<'_>,
        stream: Option<EndpointStream>,
    ) -> Result<Carrier, ConnectError> {
        let stream = match stream {
            Some(made) => made,
            None => {
                let permit = match self.permit(upstream, endpoint, introduction, is_fresh).await? {
                    Permitted::New(permit) => permit,
                    Permitted::Free(Free { sender, sent_head, owner: _ }) => {
                        return Ok(Carrier::Alone { sender, sent_head, is_reused: true });
                    }
                    Permitted::Moved(mut stream) => {
                        stream.arrive().map_err(ConnectError::Connect)?;
                        let (sender, sent_head) = drive(stream, &self.drain, &self.scratch).await?;
                        return Ok(Carrier::Alone { sender, sent_head, is_reused: true });
                    }
                };
                let limit = upstream.timeouts.connect.get();
                let dialling =
                    dial_patiently(endpoint, introduction, protocol, permit, &self.clock, limit / 2);
                self.clock.within(limit, dialling).await??
            }
        };
        if stream.has_agreed_on_http2() {
            // It has not been so before. Whoever shares connections makes one that can be shared.
            endpoint.note_spoken(true);
            drop(stream);
            let taken = self.http2.take(upstream, endpoint, introduction, protocol, is_fresh).await?;
            return match taken {
                Taken::Http2Stream(share) => Ok(Carrier::Shared(share)),
                // And now it is not.
                Taken::Alone(_) => Err(ConnectError::Ended),
            };
        }
        let (sender, sent_head) = drive(stream, &self.drain, &self.scratch).await?;
        Ok(Carrier::Alone { sender, sent_head, is_reused: false })
    }

    /// Waits until there may be one more connection, where they are limited, or until one comes free.
    async fn permit(
        &self,
        upstream: &Upstream,
        endpoint: &Endpoint,
        introduction: Option<ProxyHeader>,
        is_fresh: bool,
    ) -> Result<Permitted, ConnectError> {
        let limits = &upstream.settings.limits;
        if limits.connections.is_none() {
            return Ok(Permitted::New(None));
        }
        let connections = &endpoint.connections;
        if let Some(permit) = connections.try_permit(&self.wanted) {
            return Ok(Permitted::New(Some(permit)));
        }
        let _queued = connections.queue(limits.queue).map_err(|_| ConnectError::TooMany)?;
        let wanted = Wanted { pool: self.number, introduction, is_new: is_fresh, is_starved: false };
        let waiting = async {
            loop {
                let mut waiting = Waited { pool: self, waiting: connections.wait(wanted, &self.wanted) };
                match (&mut waiting.waiting).await {
                    Some(Got::Permit(permit)) => return Permitted::New(Some(permit)),
                    Some(Got::Moved(stream)) => return Permitted::Moved(stream),
                    Some(Got::Local(key)) => {
                        // It may have been closed since.
                        if let Some(free) = self.handed.borrow_mut().remove(&key)
                            && !free.sender.is_closed()
                        {
                            return Permitted::Free(free);
                        }
                    }
                    // The connection that was to come has ended.
                    None => {}
                }
            }
        };
        let permitted = self.clock.within(limits.queue_timeout.get(), waiting).await;
        permitted.map_err(|_| ConnectError::TooMany)
    }

    fn take(
        &self,
        endpoint: &Endpoint,
        introduction: Option<ProxyHeader>,
        client: Option<&Rc<Client>>,
    ) -> Option<Free> {
        let mut idle = self.idle.borrow_mut();
        let connections = &mut idle.get_mut(&endpoint.id)?.connections;
        let is_own = |idle: &Idle| match (&idle.free.owner, client) {
            (Some(owner), Some(client)) => std::ptr::eq(owner.as_ptr(), Rc::as_ptr(client)),
            (Some(_), None) | (None, _) => false,
        };
        let is_told = |idle: &Idle| idle.introduction == introduction;
        loop {
            let own = client.and_then(|_| connections.iter().rposition(|idle| is_told(idle) && is_own(idle)));
            let free = || connections.iter().rposition(|idle| is_told(idle) && idle.free.owner.is_none());
            let connection = connections.remove(own.or_else(free)?);
            if !connection.free.sender.is_closed() {
                return Some(connection.free);
            }
        }
    }

    fn put(&self, lease: Lease) {
        // A stream ends with its request.
        let Carrier::Alone { sender, sent_head, .. } = lease.carrier else { return };
        if sender.is_closed() || self.drain.has_started() {
            return;
        }
        let (endpoint, introduction) = (lease.endpoint, lease.introduction);
        let mut free = Free { sender, sent_head, owner: lease.owner };
        if endpoint.connections.has_waiting() {
            // One that cannot be handed over is closed, which makes room for another.
            match self.hand_over(&endpoint, introduction, free) {
                // Whoever waited has got another, or has gone.
                Some(left) if !endpoint.connections.has_waiting() => free = left,
                Some(_) | None => return,
            }
        }
        // It was made before connections were limited, and would be one too many for as long as it is used.
        if lease.is_limited && !free.sent_head.borrow().is_counted {
            return;
        }
        let mark = lease.is_limited.then(|| endpoint.connections.idle());
        {
            let mut idle = self.idle.borrow_mut();
            let shelf = idle.entry(endpoint.id).or_insert_with(|| Shelf {
                endpoint: endpoint.clone(),
                keep: lease.keep,
                connections: Vec::new(),
            });
            shelf.keep = lease.keep;
            if shelf.connections.len() == Self::IDLE {
                shelf.connections.remove(0);
            }
            shelf.connections.push(Idle { free, introduction, since: self.clock.now(), _mark: mark });
        }
        // Somebody has begun to wait who has not seen that this one is idle.
        if endpoint.connections.has_waiting() {
            self.wanted.notify_one();
        }
    }

    /// Closes connections that have been idle for too long.
    fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, shelf| {
            let Shelf { keep, connections, .. } = shelf;
            connections.retain(|idle| {
                let Free { sender, owner, .. } = &idle.free;
                let has_owner = owner.as_ref().is_none_or(|owner| owner.strong_count() > 0);
                has_owner && !sender.is_closed() && !self.clock.has_passed(*keep, idle.since)
            });
            !connections.is_empty()
        });
        self.http2.sweep();
    }

    /// Closes the idle connections to endpoints that are no longer there.
    pub fn retain<'a>(&self, endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) {
        let kept: rustc_hash::FxHashSet<u64> = endpoints.map(|endpoint| endpoint.id).collect();
        self.idle.borrow_mut().retain(|id, _| kept.contains(id));
        self.http2.retain(|id| kept.contains(&id));
    }
}

impl Lease {
    /// Whether the connection has carried a request to its answer before, so that it may have been closed for being idle.
    pub fn is_reused(&self) -> bool {
        match &self.carrier {
            Carrier::Alone { is_reused, .. } => *is_reused,
            Carrier::Shared(share) => share.has_answered(),
        }
    }

    /// Whether other requests go over the same connection. Then nothing of a request is remembered, no interim
    /// response is heard, and the endpoint is not asked before a body is sent.
    pub fn is_shared(&self) -> bool {
        matches!(self.carrier, Carrier::Shared(_))
    }

    /// A request that authenticates the connection goes over it. A stream cannot be kept from others' connection.
    pub fn bind(&mut self, client: &Rc<Client>) {
        if !self.is_shared() {
            client.bind(self.endpoint.id);
            self.owner = Some(Rc::downgrade(client));
        }
    }

    /// Whether the endpoint has said with this error that it has done nothing with the request.
    pub fn is_refused(&self, error: &hyper::Error) -> bool {
        self.is_shared() && http2_pool::is_refused(error)
    }

    /// An answer has come.
    pub fn note_answer(&self) {
        if let Carrier::Shared(share) = &self.carrier {
            share.note_answer();
        }
    }

    /// Whether the endpoint has ended a connection that had served it well, in good order: what it refuses with that is not
    /// its failure.
    pub fn has_retired(&self, error: &hyper::Error) -> bool {
        match &self.carrier {
            Carrier::Alone { .. } => false,
            Carrier::Shared(share) => share.has_answered() && http2_pool::is_retirement(error),
        }
    }

    /// No answer has come in time.
    pub fn suspect(&self) {
        if let Carrier::Shared(share) = &self.carrier {
            share.suspect();
        }
    }

    /// Whether a request may ask to go on in another protocol. In HTTP/2 the endpoint says so (RFC 8441, section 3).
    pub fn takes_upgrades(&self) -> bool {
        match &self.carrier {
            Carrier::Alone { .. } => true,
            Carrier::Shared(share) => share.takes_connect(),
        }
    }

    /// What goes on in another protocol, after an answer that says so. None if it has ended already.
    pub async fn switch(&mut self, answer: &mut response::Parts) -> Option<Switched> {
        match &self.carrier {
            Carrier::Alone { .. } => self.switched.take()?.await.ok(),
            Carrier::Shared(_) => answer.extensions.remove::<OnUpgrade>()?.await.ok().map(Switched::shared),
        }
    }

    /// Sends a request; the future waits for the head of the response. An error holds the request if nothing of
    /// it was written.
    ///
    /// With `remember`, [`Lease::remembered`] has the headers of a request that is lost. For requests without
    /// a body.
    ///
    /// With `upgrade`, a protocol, the request asks to go on in that, and [`Lease::switch`] is what does.
    pub fn send(
        &mut self,
        mut request: Request<RequestBody>,
        remember: bool,
        upgrade: Option<&HeaderValue>,
    ) -> impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>> + use<> {
        match &mut self.carrier {
            Carrier::Alone { sender, sent_head, .. } => {
                let known = sent_head.clone();
                let mut sent_head = sent_head.borrow_mut();
                sent_head.begin(remember, self.limits);
                if upgrade.is_some() {
                    let (upgrade_sender, switched) = oneshot::channel();
                    sent_head.upgrade_sender = Some(upgrade_sender);
                    self.switched = Some(switched);
                }
                drop(sent_head);
                ResponseFuture::Alone { answer: sender.try_send_request(request), sent_head: known }
            }
            Carrier::Shared(share) => {
                http2_pool::rewrite(&mut request, &self.endpoint);
                if let Some(protocol) = upgrade {
                    http2_pool::to_connect(&mut request, protocol);
                }
                ResponseFuture::Shared { answer: share.sender().try_send_request(request) }
            }
        }
    }

    /// Gives a request that has come back the form in which it was sent.
    pub fn restore(&self, request: &mut Request<RequestBody>) {
        if self.is_shared() {
            http2_pool::undo(request);
        }
    }

    /// Interim responses to the last request since the last time; the task is woken by the next.
    pub fn take_interim(&self, cx: &Context<'_>) -> Vec<Interim> {
        match &self.carrier {
            Carrier::Alone { sent_head, .. } => sent_head.borrow_mut().reader.take_interim(cx),
            Carrier::Shared(_) => Vec::new(),
        }
    }

    /// The headers of the last request, if it was to be remembered.
    pub fn remembered(&self) -> Option<HeaderMap> {
        match &self.carrier {
            Carrier::Alone { sent_head, .. } => sent_head.borrow().headers(),
            Carrier::Shared(_) => None,
        }
    }

    /// Whether the endpoint had closed the connection before anything of the last request can have reached it: the end of
    /// its stream has come, nothing before it, and it acknowledges nothing of the request (RFC 9110, section 9.2.2, asks
    /// for such means). Of a stream that is not known.
    pub fn is_unread(&self) -> bool {
        match &self.carrier {
            Carrier::Alone { sent_head, .. } => sent_head.borrow().is_unread,
            Carrier::Shared(_) => false,
        }
    }

    /// What is wrong with the head of the last response, where that is why there is none.
    pub fn bad_head(&self) -> Option<BadHead> {
        match &self.carrier {
            Carrier::Alone { sent_head, .. } => sent_head.borrow().reader.fault(),
            Carrier::Shared(_) => None,
        }
    }

    /// Checks what has not been checked of a head that has come: that of a stream.
    pub fn check(&self, head: &response::Parts) -> Result<(), BadHead> {
        match &self.carrier {
            Carrier::Alone { .. } => Ok(()),
            Carrier::Shared(_) => self.limits.check(&head.headers),
        }
    }

    /// Gives the connection back: the response has been read to its end, the request given to be written to its own.
    pub fn finish(self) {
        let pool = self.pool.clone();
        pool.put(self);
    }
}

/// What a request gets that wants a connection of its own.
enum Permitted {
    /// It may make one.
    New(Option<ConnectionPermit>),
    /// One of this worker.
    Free(Free),
    /// One of another worker.
    Moved(EndpointStream),
}

/// Somebody who waits for a connection. If it comes too late it is kept for others.
struct Waited<'a> {
    pool: &'a Pool,
    waiting: InLine,
}

impl Drop for Waited<'_> {
    fn drop(&mut self) {
        if let Some(Got::Local(key)) = self.waiting.give_up() {
            // It is closed, which lets the next one in.
            self.pool.handed.borrow_mut().remove(&key);
        }
    }
}

pin_project_lite::pin_project! {
    /// The head of a response, which is waited for in one way or the other.
    #[project = Waiting]
    enum ResponseFuture<A, B> {
        Alone { #[pin] answer: A, sent_head: Rc<RefCell<SentHead>> },
        Shared { #[pin] answer: B },
    }
}

impl<A, B, E> Future for ResponseFuture<A, B>
where
    A: Future<Output = Result<Response<Incoming>, E>>,
    B: Future<Output = A::Output>,
{
    type Output = A::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A::Output> {
        match self.project() {
            Waiting::Alone { answer, sent_head } => {
                let mut answered = ready!(answer.poll(cx));
                if let Ok(response) = &mut answered
                    && let Some(further) = sent_head.borrow_mut().reader.take_further()
                {
                    append(response.headers_mut(), further);
                }
                Poll::Ready(answered)
            }
            Waiting::Shared { answer } => answer.poll(cx),
        }
    }
}

/// Appends fields, in their order. There cannot be so many that a map does not take them.
fn append(headers: &mut HeaderMap, further: HeaderMap) {
    let mut last = None;
    for (name, value) in further {
        last = name.or(last);
        if let Some(name) = &last {
            let _ = headers.try_append(name.clone(), value);
        }
    }
}
