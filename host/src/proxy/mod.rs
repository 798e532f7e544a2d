//! The life of a request.
//!
//! [`handle`] always returns a response. Between the request and its response there are three phases, called in this order
//! by [`respond`]:
//!
//! - [`Arrival::admit`]: may it come in, and by which route? What is not HTTP as it should be ends here.
//! - [`Flight::decide`]: what do the plugins of the route make of it?
//! - [`Flight::answer`]: the cache, an endpoint of the upstream, and the response hooks.
//!
//! What a step does stands in a file of its own. `explain` has a request that has not come go the same way.

mod afterwards;
mod answer;
mod cached;
mod canary;
mod connection;
mod content;
mod context;
mod cut;
mod decision;
mod error;
mod explain;
mod failure;
mod flight;
mod forwarded;
mod grpc;
pub mod headers;
mod hooks;
mod host_io;
mod identity;
mod malformed;
mod meter;
mod observer;
mod record;
mod refused;
mod retry;
mod secure;
mod send;
mod sent;
mod shadow;
mod tunnel;
mod upgrade;
mod versions;

pub use afterwards::Afterwards;
pub use connection::{Connection, Turn};
pub use error::{Blame, Error};
pub use explain::{Explanation, Question, Unexplained, explain};
pub use identity::Peer;
pub use malformed::{BadRequest, BadResponse};
pub use refused::Refusal;
pub use tunnel::Tunnel;

use std::{cell::Cell, rc::Rc};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, Version, header, request};

use crate::{
    authority,
    body::{ClientBody, Content, ResponseBody},
    cache::{Rules, encoded::Kept},
    compress,
    live::Worker,
    snapshot::Route,
    telemetry::traffic::{self, Limit},
};
use cached::Lookup;
use context::Context;
use cut::Cut;
use decision::Decision;
use failure::Failure;
use flight::{Admission, Arrival, Expect, Flight};
use meter::Meter;
use observer::Observer;
use record::Record;
use sent::Sent;

/// What a client gets.
pub type Body = ResponseBody<Afterwards>;

/// What a request has led to.
pub struct Answered {
    pub response: Response<Body>,
    /// To be gone on with when the head of the response has been written.
    pub tunnel: Option<Box<Tunnel>>,
}

/// Answers a request. There is always a response.
pub async fn handle(
    worker: Rc<Worker>,
    connection: Rc<Connection>,
    mut request: Request<ClientBody>,
) -> Answered {
    let meter = Meter::start();
    let generation = worker.generation();
    let observer = Observer::of(&request, &connection, generation.snapshot.config.log.access);
    let call = grpc::Call::of(&request);
    let is_head = request.method() == Method::HEAD;
    let connect = (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
    let scheme = Cell::new(connection.peer.scheme);
    let context = Context { worker, generation, connection, meter, call, scheme };
    let mut unanswered = Unanswered { context: &context, observer, is_answered: false };
    // In a box, since hyper moves the future about before it runs; and made there, since it is large.
    let responding = respond(&context, request, &mut unanswered.observer);
    let responding = Box::into_pin(Box::write(Box::new_uninit(), responding));
    let answer = responding.await;
    let mut record = unanswered.take_record();
    let answer = match answer {
        Ok((response, _)) if connect.is_some() && response.status().is_success() => {
            Err(Failure::of(Error::NotSwitched))
        }
        answer => answer,
    };
    let (response, mut sent) = match answer {
        Ok((response, sent)) => (response, sent),
        Err(failure) => (failure.into_response(&context, record.as_deref_mut()), None),
    };
    let mut response = if context.call.is_some() { grpc::translate(response) } else { response };
    // RFC 6797, section 7.2: not over plain HTTP.
    if let Some(hsts) = context.connection.hsts.as_ref().filter(|_| context.scheme.get() == "https") {
        // A response with 32,768 headers is not one that this one more would help.
        let _ = response.headers_mut().try_insert(header::STRICT_TRANSPORT_SECURITY, hsts.clone());
    }
    if let Some(switched) = sent.as_mut().and_then(|sent| sent.switched.take())
        && is_switching(&mut response)
        && let Some(sent) = sent.take()
    {
        if connect.is_some() {
            upgrade::to_connected(&mut response);
        }
        let status = response.status();
        let Context { worker, generation, connection, meter, .. } = context;
        connection.counts.requests.add(1);
        let counts = meter.opened(&generation, status);
        let ends = (worker, connection);
        let tunnel = Tunnel::new(*switched, connect, sent, record, counts, status, meter.started, ends);
        return Answered { response: response.map(|_| Body::empty()), tunnel: Some(Box::new(tunnel)) };
    }
    let length = content::settle(&mut response, is_head, &mut sent);
    let afterwards = Afterwards::new(context, sent, record, response.status());
    Answered { response: response.map(|content| Body::new(content, length, afterwards)), tunnel: None }
}

/// A request until there is the head of a response. Where it is dropped before that, its client has left or the process
/// ends, and that is written down.
struct Unanswered<'a> {
    context: &'a Context,
    observer: Observer,
    is_answered: bool,
}

impl Unanswered<'_> {
    /// There is an answer.
    fn take_record(mut self) -> Option<Box<Record>> {
        self.is_answered = true;
        std::mem::replace(&mut self.observer, Observer::Nobody).into_record()
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let Context { worker, generation, connection, meter, .. } = self.context;
        let cut = Cut::dropped(worker, connection);
        let status = cut.status();
        let duration = meter.started.elapsed();
        let nothing = traffic::Bytes { of_request: 0, of_response: 0 };
        meter.count(generation, status, nothing, duration, false);
        connection.counts.requests.add(1);
        if let Some(record) = std::mem::replace(&mut self.observer, Observer::Nobody).into_record() {
            record.write(status, None, nothing, duration, Some(cut));
        }
    }
}

/// Whether a response still opens the tunnel that is there for it: a plugin may have made another of it.
fn is_switching(response: &mut Response<Content>) -> bool {
    let is_it = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if !is_it {
        upgrade::take_back(response);
    }
    is_it
}

/// Has a request go through its three phases. A response that came from an upstream comes with what it was sent by.
async fn respond(
    context: &Context,
    request: Request<ClientBody>,
    observer: &mut Observer,
) -> Result<(Response<Content>, Option<Sent>), Failure> {
    let mut arrival = Arrival::new(context, request);
    let mut flight = match arrival.admit(observer).await {
        Ok(Admission::Granted { route, came, is_upgrade }) => {
            arrival.set_out(route, came, is_upgrade, observer)
        }
        Ok(Admission::Answered { response, .. }) => return Ok((response.map(Content::Whole), None)),
        Err(error) => return Err(arrival.failure(error, observer)),
    };
    let answered = match flight.decide().await {
        Ok(Some(reply)) => Ok((flight.encode(reply, None), None)),
        Ok(None) => flight.answer().await,
        Err(error) => Err(error),
    };
    answered.map_err(|error| flight.failure(error))
}

impl<'a> Arrival<'a> {
    /// The first phase: brings the head into the form in which it is forwarded, and finds the route. Some requests the proxy
    /// answers by itself.
    async fn admit(&mut self, observer: &mut Observer) -> Result<Admission<'a>, Error> {
        let context = self.context;
        let Context { connection, worker, .. } = context;
        let listener = &connection.listener;
        observer.arrived(&self.head);
        if self.head.version == Version::HTTP_2 {
            headers::from_http2(&mut self.head, &listener.limits)?;
            // The end of a request without content may come behind its head. Nobody but those who have content waits.
            let method = &self.head.method;
            let is_empty_as_a_rule = method.is_safe() || method == Method::DELETE;
            if self.length.is_none() && !self.is_connect && is_empty_as_a_rule {
                let limit = listener.timeouts.body.get();
                let is_empty = worker.clock.within(limit, Box::pin(self.body.is_empty())).await;
                let is_empty = is_empty.map_err(|_| Error::ClientSlow(Limit::BodyTime))?;
                if is_empty.map_err(|_| Error::ClientBroke(connection.fault()))? {
                    self.length = Some(0);
                }
            }
        }

        let (trusted, unusual) = (&listener.trusted_proxies, listener.underscores_in_headers);
        let mut prepared = headers::prepare(&mut self.head, &connection.peer, trusted, unusual, self.length)?;
        self.expect = Expect::of(prepared.expects_continue);
        self.request_id = self.head.headers.get(identity::X_REQUEST_ID).cloned();
        context.scheme.set(prepared.came.scheme);
        observer.prepared(&self.head, &prepared.came);
        if let Some(response) = secure::redirect(connection, &self.head, &prepared)? {
            let reason = "it came by plain HTTP, and the listener redirects to HTTPS";
            return Ok(Admission::Answered { response, reason });
        }
        if !secure::is_authority_served(connection, &self.head) {
            return Err(Error::Misdirected);
        }
        if prepared.is_last_hop {
            let reason = "`Max-Forwards` has come to zero";
            return Ok(Admission::Answered { response: Response::new(Bytes::new()), reason });
        }

        let route = find_route(context, &self.head);
        observer.routed(context, &self.head, route);
        let route = route.ok_or(Error::NoRoute)?;
        let is_upgrade = match prepared.offer.take() {
            Some(offer) => offer.accept(&route.upgrades, &mut self.head)?,
            None => false,
        };
        if self.is_connect && !is_upgrade {
            return Err(Error::NotOffered);
        }
        Ok(Admission::Granted { route, came: prepared.came, is_upgrade })
    }
}

impl Flight<'_> {
    /// The second phase: asks the request hooks, which may send it to another upstream. If one of them replies, this is the
    /// response.
    async fn decide(&mut self) -> Result<Option<Response<Content>>, Error> {
        let Self { context, observer, route, exchange, deadline, .. } = self;
        // What opens a tunnel has no content (RFC 9110, section 9.3.6).
        let content = self.body.as_mut().filter(|_| !self.is_upgrade);
        let decided =
            hooks::on_request(context, route, exchange, content, deadline.as_ref(), observer).await?;
        if let Some(body) = &self.body {
            self.expect.after_hooks(body, &mut self.exchange.request.headers);
        }
        match decided {
            Decision::Next => Ok(None),
            Decision::Forward(index) => {
                self.target = &self.context.generation.snapshot.upstreams[index];
                self.observer.goes_to_upstream(&self.exchange);
                Ok(None)
            }
            Decision::Reply(reply) => {
                let mut response =
                    hooks::on_reply(self.context, self.route, &mut self.exchange, reply).await?;
                if self.expect.leaves_body() {
                    self.context.connection.ends_with(&mut response);
                }
                Ok(Some(response))
            }
        }
    }

    /// The third phase: the response, from the cache or from an endpoint, as the response hooks leave it.
    async fn answer(&mut self) -> Result<(Response<Content>, Option<Sent>), Error> {
        let mut lookup = match self.lookup().await? {
            Lookup::Answer(mut answer) => {
                self.exchange.apply_response_headers(answer.response.headers_mut());
                self.run_response_hooks(&mut answer).await?;
                if self.expect.leaves_body() {
                    self.context.connection.ends_with(&mut answer.response);
                }
                return Ok((self.encode(answer.response, answer.kept), None));
            }
            Lookup::Ask(lookup) => lookup,
        };
        if let Some(body) = &self.body {
            self.expect.before_sending(body, &mut self.exchange.request.headers);
        }
        let answer = self.send_in_time().await;
        let mut answer = self.on_upstream_response(&mut lookup, answer)?;
        // What stores the response may take over what it was sent by.
        let leaves_body =
            self.expect == Expect::Abandoned || answer.sent.as_ref().is_some_and(Sent::leaves_body);
        if let Some(sent) = &mut answer.sent {
            sent.deadline = self.deadline.take();
        }
        if self.route.cache.as_ref().is_some_and(Rules::stores_what_hooks_made) && !self.is_upgrade {
            self.run_response_hooks(&mut answer).await?;
            self.store_response(lookup, &mut answer);
            // What request hooks want on the response to this client is in nothing that others get.
            self.exchange.apply_response_headers(answer.response.headers_mut());
        } else {
            self.store_response(lookup, &mut answer);
            self.exchange.apply_response_headers(answer.response.headers_mut());
            self.run_response_hooks(&mut answer).await?;
        }
        if leaves_body {
            self.context.connection.ends_with(&mut answer.response);
        }
        Ok((self.encode(answer.response, answer.kept), answer.sent))
    }

    async fn run_response_hooks(&mut self, answer: &mut answer::Answer) -> Result<(), Error> {
        hooks::on_response(self.context, self.route, &mut self.exchange, answer).await
    }

    /// Brings a response into the encoding that the client wants; one that is stored, once for all clients.
    fn encode(&self, response: Response<Content>, kept: Option<Kept>) -> Response<Content> {
        let kept = kept.map(|kept| (kept, &self.context.worker.drain));
        compress::encode(self.wishes.as_ref(), response, kept)
    }
}

fn find_route<'a>(context: &'a Context, request: &request::Parts) -> Option<&'a Route> {
    let snapshot = &context.generation.snapshot;
    let host = request.headers.get(header::HOST).map(authority::host_name).unwrap_or_default();
    let index = snapshot.table.find(&host, request.uri.path(), &request.method, &request.headers)?;
    context.meter.routed(index);
    Some(&snapshot.routes[index])
}
