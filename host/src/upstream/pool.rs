//! Which connection carries it?
//!
//! Each worker keeps the connections it has made, last in first out: the one used last is the least likely
//! to have been closed, and those at the bottom grow old and go. Nothing here is shared between threads.

use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Request, Response, response};
use hyper::{body::Incoming, client::conn::TrySendError, upgrade::OnUpgrade};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use super::{
    Endpoint, Permit, Spoken, Upstream,
    connect::{ConnectError, Sender, dial, drive},
    interim::Interim,
    share::{self, Share, Shares, Taken},
    switched::Switched,
    transport::{Memory, Scratch, Stream},
};
use crate::{
    body::RequestBody,
    clock::{Clock, Tick},
    config::Protocol,
    drain::Drain,
    proxy_protocol::Introduction,
};

/// The idle connections of one worker.
#[derive(Debug)]
pub struct Pool {
    clock: Clock,
    drain: Drain,
    scratch: Scratch,
    /// By the endpoint's id.
    idle: RefCell<FxHashMap<u64, Shelf>>,
    shares: Shares,
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
    sender: Sender,
    memory: Rc<RefCell<Memory>>,
    introduction: Option<Introduction>,
    since: Tick,
}

/// A connection in use. Goes back to its pool by [`Lease::finish`], and is closed if dropped.
#[derive(Debug)]
pub struct Lease {
    carrier: Carrier,
    /// The connection itself, once it goes on in another protocol.
    switched: Option<oneshot::Receiver<Switched>>,
    endpoint: Arc<Endpoint>,
    /// What the endpoint was told of whose connection it is.
    introduction: Option<Introduction>,
    keep: Duration,
    pool: Rc<Pool>,
}

/// What a connection has to be for a request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// What the endpoint has been told of whose connection it is; the very same, where it is told.
    pub introduction: Option<Introduction>,
    /// Made now.
    pub is_fresh: bool,
    /// One that can go on in another protocol. Where there is a choice, HTTP/1.1 is spoken on it.
    pub is_switched: bool,
}

/// What carries a request.
#[derive(Debug)]
enum Carrier {
    /// A connection that it has to itself.
    Alone { sender: Sender, memory: Rc<RefCell<Memory>>, is_reused: bool },
    /// A stream of one.
    Shared(Share),
}

impl Pool {
    /// Connections to one endpoint that a worker keeps without a request.
    const IDLE: usize = 256;

    pub fn new(clock: Clock, drain: Drain) -> Rc<Self> {
        let shares = Shares::new(clock.clone(), drain.clone());
        let scratch = Rc::new(RefCell::new([0; 8 << 10]));
        Rc::new(Self { clock, drain, scratch, idle: RefCell::default(), shares })
    }

    /// A connection to the endpoint on these terms: the one used last, or a new one.
    pub async fn lease(
        self: &Rc<Self>,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        Terms { introduction, is_fresh, is_switched }: Terms,
    ) -> Result<Lease, ConnectError> {
        let lease = |carrier| Lease {
            carrier,
            switched: None,
            endpoint: endpoint.clone(),
            introduction,
            keep: upstream.timeouts.idle.get(),
            pool: self.clone(),
        };
        let protocol = match upstream.settings.protocol {
            Protocol::Auto if is_switched || !endpoint.is_https => Protocol::H1,
            protocol => protocol,
        };
        let mut stream = None;
        if endpoint.spoken(protocol) != Spoken::Http1 {
            match self.shares.take(endpoint, introduction, protocol, &upstream.timeouts, is_fresh).await? {
                Taken::Share(share) => return Ok(lease(Carrier::Shared(share))),
                Taken::Alone(made) => stream = made,
            }
        }
        while !is_fresh
            && stream.is_none()
            && let Some((mut sender, memory)) = self.take(endpoint, introduction)
        {
            // Ready at once unless its task has still to see that the last response has ended.
            if sender.is_ready() || sender.ready().await.is_ok() {
                return Ok(lease(Carrier::Alone { sender, memory, is_reused: true }));
            }
        }
        // In a box, since most requests find a connection.
        let terms = Terms { introduction, is_fresh, is_switched };
        Ok(lease(Box::pin(self.connect(upstream, endpoint, protocol, terms, stream)).await?))
    }

    /// A new connection, over `stream` if there is one already.
    async fn connect(
        &self,
        upstream: &Upstream,
        endpoint: &Arc<Endpoint>,
        protocol: Protocol,
        Terms { introduction, is_fresh, .. }: Terms,
        stream: Option<Stream>,
    ) -> Result<Carrier, ConnectError> {
        let permit = self.permit(upstream, endpoint).await?;
        let stream = match stream {
            Some(stream) => stream,
            None => {
                let limit = upstream.timeouts.connect.get();
                self.clock.within(limit, dial(endpoint, introduction, protocol)).await??
            }
        };
        if stream.has_agreed_on_http2() {
            // It has not been so before. Whoever shares connections makes one that can be shared.
            endpoint.note_spoken(true);
            drop((stream, permit));
            let taken =
                self.shares.take(endpoint, introduction, protocol, &upstream.timeouts, is_fresh).await?;
            return match taken {
                Taken::Share(share) => Ok(Carrier::Shared(share)),
                // And now it is not.
                Taken::Alone(_) => Err(ConnectError::Ended),
            };
        }
        let (sender, memory) = drive(stream, &self.drain, &self.scratch, permit).await?;
        Ok(Carrier::Alone { sender, memory, is_reused: false })
    }

    /// Waits until there may be one more connection, where they are limited.
    async fn permit(&self, upstream: &Upstream, endpoint: &Endpoint) -> Result<Option<Permit>, ConnectError> {
        let limits = &upstream.settings.limits;
        if limits.connections.is_none() {
            return Ok(None);
        }
        if let Some(permit) = endpoint.connections.try_enter() {
            return Ok(Some(permit));
        }
        let entering = endpoint.connections.enter(limits.queue).map_err(|_| ConnectError::TooMany)?;
        let permit = self.clock.within(limits.queue_timeout.get(), entering).await;
        permit.map(Some).map_err(|_| ConnectError::TooMany)
    }

    fn take(
        &self,
        endpoint: &Endpoint,
        introduction: Option<Introduction>,
    ) -> Option<(Sender, Rc<RefCell<Memory>>)> {
        let mut idle = self.idle.borrow_mut();
        let connections = &mut idle.get_mut(&endpoint.id)?.connections;
        while let Some(place) = connections.iter().rposition(|idle| idle.introduction == introduction) {
            let connection = connections.remove(place);
            if !connection.sender.is_closed() {
                return Some((connection.sender, connection.memory));
            }
        }
        None
    }

    fn put(&self, lease: Lease) {
        // A stream ends with its request.
        let Carrier::Alone { sender, memory, .. } = lease.carrier else { return };
        // Somebody waits for a connection, perhaps on another worker, which cannot use this one.
        let is_wanted = lease.endpoint.connections.has_waiting();
        if is_wanted || sender.is_closed() || self.drain.has_started() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        let shelf = idle.entry(lease.endpoint.id).or_insert_with(|| Shelf {
            endpoint: lease.endpoint.clone(),
            keep: lease.keep,
            connections: Vec::new(),
        });
        shelf.keep = lease.keep;
        if shelf.connections.len() == Self::IDLE {
            shelf.connections.remove(0);
        }
        let introduction = lease.introduction;
        shelf.connections.push(Idle { sender, memory, introduction, since: self.clock.now() });
    }

    /// Closes connections that have been idle for too long. To be called now and then.
    pub fn sweep(&self) {
        self.idle.borrow_mut().retain(|_, shelf| {
            let Shelf { endpoint, keep, connections } = shelf;
            if endpoint.connections.has_waiting() {
                return false;
            }
            connections.retain(|idle| !idle.sender.is_closed() && !self.clock.has_passed(*keep, idle.since));
            !connections.is_empty()
        });
        self.shares.sweep();
    }

    /// Closes the idle connections to endpoints that are no longer there.
    pub fn retain<'a>(&self, endpoints: impl Iterator<Item = &'a Arc<Endpoint>>) {
        let kept: rustc_hash::FxHashSet<u64> = endpoints.map(|endpoint| endpoint.id).collect();
        self.idle.borrow_mut().retain(|id, _| kept.contains(id));
        self.shares.retain(|id| kept.contains(&id));
    }
}

impl Lease {
    /// Whether the connection has carried a request before, so that its end may have been missed.
    pub fn is_reused(&self) -> bool {
        match &self.carrier {
            Carrier::Alone { is_reused, .. } => *is_reused,
            Carrier::Shared(share) => share.is_reused,
        }
    }

    /// Whether other requests go over the same connection. Then nothing of a request is remembered, no interim
    /// response is heard, and the endpoint is not asked before a body is sent.
    pub fn is_shared(&self) -> bool {
        matches!(self.carrier, Carrier::Shared(_))
    }

    /// Whether the endpoint has said with this error that it has done nothing with the request.
    pub fn is_refused(&self, error: &hyper::Error) -> bool {
        self.is_shared() && share::is_refused(error)
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
            Carrier::Alone { sender, memory, .. } => {
                let mut memory = memory.borrow_mut();
                memory.begin(remember);
                if upgrade.is_some() {
                    let (heir, switched) = oneshot::channel();
                    memory.heir = Some(heir);
                    self.switched = Some(switched);
                }
                Answer::Alone { answer: sender.try_send_request(request) }
            }
            Carrier::Shared(share) => {
                share::rewrite(&mut request, &self.endpoint);
                if let Some(protocol) = upgrade {
                    share::to_connect(&mut request, protocol);
                }
                Answer::Shared { answer: share.sender().try_send_request(request) }
            }
        }
    }

    /// Gives a request that has come back the form in which it was sent.
    pub fn restore(&self, request: &mut Request<RequestBody>) {
        if self.is_shared() {
            share::undo(request);
        }
    }

    /// Interim responses to the last request since the last time; the task is woken by the next.
    pub fn take_interim(&self, cx: &Context<'_>) -> Vec<Interim> {
        match &self.carrier {
            Carrier::Alone { memory, .. } => memory.borrow_mut().ear.take(cx),
            Carrier::Shared(_) => Vec::new(),
        }
    }

    /// The headers of the last request, if it was to be remembered.
    pub fn remembered(&self) -> Option<HeaderMap> {
        match &self.carrier {
            Carrier::Alone { memory, .. } => memory.borrow().headers(),
            Carrier::Shared(_) => None,
        }
    }

    /// Whether something has come in answer to the last request: then it was not lost to the end of a connection that
    /// had been idle. Of a stream that is not known.
    pub fn has_answered(&self) -> bool {
        match &self.carrier {
            Carrier::Alone { memory, .. } => memory.borrow().ear.has_heard(),
            Carrier::Shared(_) => false,
        }
    }

    /// Gives the connection back: the response has been read to its end, the request written to its own.
    pub fn finish(self) {
        let pool = self.pool.clone();
        pool.put(self);
    }
}

pin_project_lite::pin_project! {
    /// The head of a response, which is waited for in one way or the other.
    #[project = Waiting]
    enum Answer<A, B> {
        Alone { #[pin] answer: A },
        Shared { #[pin] answer: B },
    }
}

impl<A: Future, B: Future<Output = A::Output>> Future for Answer<A, B> {
    type Output = A::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<A::Output> {
        match self.project() {
            Waiting::Alone { answer } => answer.poll(cx),
            Waiting::Shared { answer } => answer.poll(cx),
        }
    }
}
