//! What is known of a request on its way?
//!
//! An [`Arrival`] until it is admitted to a route, and a [`Flight`] after that. What happens to it is told in the module
//! above: three phases, which are methods of these two.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, header, request};

use super::{
    context::Context, error::Error, failure::Failure, identity::Came, observer::Observer,
    record::RecordedExchange,
};
use crate::{
    body::{Arriving, ClientBody},
    clock::Timer,
    compress::Wishes,
    plugin::Exchange,
    snapshot::{Route, Target},
};

/// A request that has come and is not admitted yet.
pub(super) struct Arrival<'a> {
    pub context: &'a Context,
    pub head: request::Parts,
    pub body: Arriving,
    /// Of the body; none if it is not known before its end.
    pub length: Option<u64>,
    pub expect: Expect,
    pub is_connect: bool,
    /// Until when the client waits, if it has said so.
    pub deadline: Option<Timer>,
    /// The id that it goes by, once that is known.
    pub request_id: Option<HeaderValue>,
}

/// What the first phase comes to.
pub(super) enum Admission<'a> {
    /// The request goes on.
    Granted {
        route: &'a Route,
        came: Came,
        /// It asks to go on in another protocol, and the route allows that.
        is_upgrade: bool,
    },
    /// The proxy answers by itself.
    Answered { response: Response<Bytes>, reason: &'static str },
}

/// A request on its way.
pub(super) struct Flight<'a> {
    pub context: &'a Context,
    pub observer: &'a mut Observer,
    pub route: &'a Route,
    /// Whose endpoints get the request.
    pub target: &'a Target,
    pub exchange: RecordedExchange,
    /// None where the proxy asks on its own behalf, and once it has been sent.
    pub body: Option<Arriving>,
    pub expect: Expect,
    pub is_upgrade: bool,
    /// The client takes interim responses: HTTP/1.0 has none (RFC 9110, section 15.2), and hyper cannot send them in HTTP/2.
    pub hears_interim: bool,
    /// The encodings that the client takes, where the route compresses.
    pub wishes: Option<Wishes<'a>>,
    pub deadline: Option<Timer>,
    request_id: Option<HeaderValue>,
    /// The method and the target that the client has asked for, where plugins may change them and no record has them.
    asked: Option<(Method, Uri)>,
}

/// Whether the client waits to be asked for its body (RFC 9110, section 10.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// No, or it has been asked.
    Nothing,
    /// It waits.
    Continue,
    /// It waits, and nobody is going to ask: a plugin has put another body in the place of its own.
    Abandoned,
}

impl Expect {
    pub fn of(expects_continue: bool) -> Self {
        if expects_continue { Self::Continue } else { Self::Nothing }
    }

    /// Plugins may have read the body, which asks for it.
    pub fn after_hooks(&mut self, body: &Arriving, headers: &mut HeaderMap) {
        if *self == Self::Continue && body.was_read() {
            headers.remove(header::EXPECT);
            *self = Self::Nothing;
        }
    }

    /// The request is about to be sent. If the body is not the client's, the upstream is not to ask for it.
    pub fn before_sending(&mut self, body: &Arriving, headers: &mut HeaderMap) {
        if *self == Self::Continue && body.leaves_body() {
            headers.remove(header::EXPECT);
            *self = Self::Abandoned;
        }
    }

    /// Whether a response that ends the request leaves a body on the connection that the client may or may not send.
    pub fn leaves_body(self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Continue | Self::Abandoned => true,
        }
    }
}

impl<'a> Arrival<'a> {
    pub fn new(context: &'a Context, request: Request<ClientBody>) -> Self {
        let (head, body) = request.into_parts();
        let length = http_body::Body::size_hint(&body).exact();
        let deadline = context.call.as_ref().and_then(|call| call.timeout).map(|timeout| {
            let timer = context.worker.clock.timer();
            timer.start(timeout);
            timer
        });
        Self { deadline, ..Self::of(context, head, Arriving::Untouched(body), length) }
    }

    /// One without a deadline.
    pub fn of(context: &'a Context, head: request::Parts, body: Arriving, length: Option<u64>) -> Self {
        let is_connect = head.method == Method::CONNECT;
        let (expect, deadline, request_id) = (Expect::Nothing, None, None);
        Self { context, head, body, length, expect, is_connect, deadline, request_id }
    }

    /// Sets out on the route that it was admitted to.
    pub fn set_out(
        self,
        route: &'a Route,
        came: Came,
        is_upgrade: bool,
        observer: &'a mut Observer,
    ) -> Flight<'a> {
        let Self { context, head, body, expect, deadline, request_id, .. } = self;
        let target = &context.generation.snapshot.upstreams[route.upstream];
        let is_kept = observer.record().is_none() && !route.on_request.is_empty();
        let asked = is_kept.then(|| (head.method.clone(), head.uri.clone()));
        let mut exchange =
            Exchange::new(head, came.client, came.scheme, route.name.clone(), target.upstream.name.clone());
        exchange.asked_host = came.host;
        exchange.certificate = context.connection.peer.certificate.clone();
        let exchange = observer.follow(exchange, route, &context.connection);
        let hears_interim = exchange.request.version == Version::HTTP_11;
        let mut flight = Flight {
            body: Some(body),
            expect,
            is_upgrade,
            hears_interim,
            deadline,
            request_id,
            asked,
            ..Flight::new(context, route, target, exchange, observer)
        };
        flight.note_what_plugins_derive();
        flight.observer.goes_to_upstream(&flight.exchange);
        let settings = route.compress.as_ref();
        flight.wishes =
            settings.map(|settings| Wishes::of(settings, &route.name, &mut flight.exchange.request));
        flight
    }

    /// An error that ends the request here.
    pub fn failure(&self, error: Error, observer: &Observer) -> Failure {
        let asked = observer.record().is_none().then(|| (self.head.method.clone(), self.head.uri.clone()));
        let (request_id, leaves_body) = (self.request_id.clone(), self.expect.leaves_body());
        Failure { error, request_id, leaves_body, asked, upstream: None }
    }
}

impl<'a> Flight<'a> {
    /// One without a body, of which the client wants nothing in particular.
    pub fn new(
        context: &'a Context,
        route: &'a Route,
        target: &'a Target,
        exchange: RecordedExchange,
        observer: &'a mut Observer,
    ) -> Self {
        Self {
            context,
            observer,
            route,
            target,
            exchange,
            body: None,
            expect: Expect::Nothing,
            is_upgrade: false,
            hears_interim: false,
            wishes: None,
            deadline: None,
            request_id: None,
            asked: None,
        }
    }

    /// An error that ends the request here.
    pub fn failure(&self, error: Error) -> Failure {
        let asked = || {
            let head = &self.exchange.there()?.request;
            Some((head.method.clone(), head.uri.clone()))
        };
        Failure {
            error,
            request_id: self.request_id.clone(),
            leaves_body: self.expect.leaves_body(),
            asked: self.asked.clone().or_else(asked),
            upstream: Some(self.target.upstream.name.clone()),
        }
    }
}
