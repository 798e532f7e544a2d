//! What happens to one request?
//!
//! [`handle`] always returns a response; `forward` is the way of a request, a stage a line. What a stage does
//! stands in a file of its own.

mod afterwards;
mod cached;
mod canary;
mod connection;
mod content;
mod cut;
mod error;
mod explain;
mod forwarded;
mod grpc;
pub mod headers;
mod hooks;
mod host_io;
mod identity;
mod meter;
mod record;
mod refused;
mod retry;
mod secure;
mod send;
mod shadow;
mod tunnel;
mod upgrade;

pub use afterwards::Afterwards;
pub use connection::{Connection, Turn};
pub use error::{Blame, Error};
pub use explain::{Explanation, Question, Unexplained, explain};
pub use headers::{BadRequest, BadResponse};
pub use identity::Peer;
pub use refused::Refusal;
pub use tunnel::Tunnel;

use std::{cell::Cell, pin::pin, rc::Rc};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header, request};

use crate::{
    authority,
    body::{Arriving, ClientBody, Content, ResponseBody},
    cache::{Rules, encoded::Kept},
    clock::before,
    compress::{self, Wishes},
    live::{Generation, Worker},
    plugin::Exchange,
    snapshot::Route,
    telemetry::{
        Sampler,
        traffic::{self, Limit},
        with_sources,
    },
};
use cached::Lookup;
use cut::Cut;
use hooks::Decision;
use meter::Meter;
use record::Record;
use send::Expects;

/// What a client gets.
pub type Body = ResponseBody<Afterwards>;

/// Where a request is answered: on which worker, by which generation, for which connection.
struct Context {
    worker: Rc<Worker>,
    generation: Rc<Generation>,
    connection: Rc<Connection>,
    meter: Meter,
    call: Option<grpc::Call>,
    /// By which the client came, once that is known; until then that of its connection.
    scheme: Cell<&'static str>,
}

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
    let record = generation.snapshot.config.log.access.then(|| Box::new(Record::new(&request, &connection)));
    let call = grpc::Call::of(&request);
    let is_head = request.method() == Method::HEAD;
    let connect = (request.method() == Method::CONNECT).then(|| hyper::upgrade::on(&mut request));
    let scheme = Cell::new(connection.peer.scheme);
    let context = Context { worker, generation, connection, meter, call, scheme };
    let mut unanswered = Unanswered { context: &context, record, is_answered: false };
    // In a box, since hyper moves the future about before it runs; and made there, since it is large.
    let way = forward(&context, request, &mut unanswered.record);
    let way = Box::into_pin(Box::write(Box::new_uninit(), way));
    let answer = way.await;
    let mut record = unanswered.take_record();
    let answer = match answer {
        Ok((response, _)) if connect.is_some() && response.status().is_success() => {
            Err(Error::NotSwitched.into())
        }
        answer => answer,
    };
    let (response, mut sent) = match answer {
        Ok((response, sent)) => (response, sent),
        Err(failure) => (failure.into_response(&context, &mut record), None),
    };
    let mut response = if context.call.is_some() { grpc::translate(response) } else { response };
    // RFC 6797, section 7.2: not to whom came in clear.
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
    record: Option<Box<Record>>,
    is_answered: bool,
}

impl Unanswered<'_> {
    /// There is an answer.
    fn take_record(mut self) -> Option<Box<Record>> {
        self.is_answered = true;
        self.record.take()
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
        if let Some(record) = self.record.take() {
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

/// The way of a request. A response that came from an upstream comes with what it was sent by.
async fn forward(
    context: &Context,
    request: Request<ClientBody>,
    record: &mut Option<Box<Record>>,
) -> Result<(Response<Content>, Option<send::Sent>), Failure> {
    let (mut head, body) = request.into_parts();
    let mut length = http_body::Body::size_hint(&body).exact();
    let is_connect = head.method == Method::CONNECT;
    let mut body = Arriving::Untouched(body);
    let Context { connection, generation, worker, call, .. } = context;
    let deadline = call.and_then(|call| call.timeout).map(|timeout| {
        let timer = worker.clock.timer();
        timer.start(timeout);
        timer
    });

    if head.version == Version::HTTP_2 {
        headers::from_http2(&mut head, &connection.listener.limits)?;
        // The end of a request without content may come behind its head. Nobody but those who have content waits.
        if length.is_none() && !is_connect && (head.method.is_safe() || head.method == Method::DELETE) {
            let limit = connection.listener.timeouts.body.get();
            let is_empty = worker.clock.within(limit, Box::pin(body.is_empty())).await;
            let is_empty = is_empty.map_err(|_| Error::ClientSlow(Limit::BodyTime))?;
            if is_empty.map_err(|_| Error::ClientBroke(connection.fault()))? {
                length = Some(0);
            }
        }
    }
    let listener = &connection.listener;
    let (trusted, unusual) = (&listener.trusted_proxies, listener.underscores_in_headers);
    let mut prepared = headers::prepare(&mut head, &connection.peer, trusted, unusual, length)?;
    let failed = Failure::of(&head, prepared.expects_continue, record.is_none());
    context.scheme.set(prepared.came.scheme);
    record::identified(record, &head, &prepared.came);
    if let Some(response) =
        secure::redirect(connection, &head, &prepared).map_err(Error::from).map_err(&failed)?
    {
        return Ok((response.map(Content::Whole), None));
    }
    if !secure::is_at_the_right_door(connection, &head) {
        return Err(failed(Error::Misdirected));
    }
    if prepared.is_last_hop {
        return Ok((Response::new(Content::Whole(Bytes::new())), None));
    }
    let route = find_route(context, &head).ok_or(Error::NoRoute).map_err(&failed)?;
    let is_upgrade = match prepared.offer.take() {
        Some(offer) => offer.accept(&route.upgrades, &mut head).map_err(Error::from).map_err(&failed)?,
        None => false,
    };
    if is_connect && !is_upgrade {
        return Err(failed(Error::NotOffered));
    }
    let mut upstream = &generation.snapshot.upstreams[route.upstream];
    let mut exchange = Exchange::new(
        head,
        prepared.came.client,
        prepared.came.scheme,
        route.name.clone(),
        upstream.upstream.name.clone(),
    );
    exchange.asked_host = prepared.came.host;
    let mut exchange = record::follow(exchange, route, connection, record);
    exchange.certificate = connection.peer.certificate.clone();
    cached::follow(route, &mut exchange);
    record::routed(record, &exchange);
    let wishes =
        route.compress.as_ref().map(|settings| Wishes::of(settings, &route.name, &mut exchange.request));
    // What opens a tunnel has no content (RFC 9110, section 9.3.6).
    let content = (!is_upgrade).then_some(&mut body);
    let asked = hooks::on_request(context, route, &mut exchange, content, deadline.as_ref()).await;
    let waits_for_body = prepared.expects_continue && !body.was_read();
    if prepared.expects_continue && !waits_for_body {
        exchange.request.headers.remove(header::EXPECT);
    }
    match asked.map_err(&failed)? {
        Decision::Next => {}
        Decision::Forward(place) => {
            upstream = &generation.snapshot.upstreams[place];
            record::routed(record, &exchange);
        }
        Decision::Reply(reply) => {
            let response = hooks::on_reply(context, route, &mut exchange, reply).await;
            let mut response = response.map_err(&failed)?;
            if waits_for_body {
                close(connection, &mut response);
            }
            return Ok((compress::encode(wishes.as_ref(), response), None));
        }
    }
    // What opens a tunnel is no response that could be stored or be answered with one.
    let rules = route.cache.as_ref().filter(|_| !is_upgrade);
    let looked = match is_upgrade {
        true => Ok(Lookup::Ask(None)),
        false => {
            let deadline = deadline.as_ref();
            cached::lookup(context, route, upstream, &mut exchange, &mut body, deadline, record).await
        }
    };
    let mut visit = match looked.map_err(&failed)? {
        Lookup::Answer(mut answer) => {
            exchange.keep_promises(answer.response.headers_mut());
            hooks::on_response(context, route, &mut exchange, &mut answer).await.map_err(&failed)?;
            return Ok((encode(context, wishes.as_ref(), answer.response, answer.kept), None));
        }
        Lookup::Ask(visit) => visit,
    };
    let leaves_body = waits_for_body && body.leaves_body();
    if leaves_body {
        exchange.request.headers.remove(header::EXPECT);
    }
    let expects = match (is_upgrade, waits_for_body && !leaves_body) {
        (true, _) => Expects::Upgrade,
        (false, true) => Expects::Continue,
        (false, false) => Expects::Nothing,
    };
    let answer = {
        let sending = pin!(send::send(context, upstream, route, &mut exchange, Some(body), expects, record));
        before(deadline.as_ref(), sending).await.unwrap_or(Err(Error::DeadlineExceeded))
    };
    let mut answer = cached::settle(&mut visit, route, &mut exchange, answer, record).map_err(&failed)?;
    if let Some(sent) = &mut answer.sent {
        sent.deadline = deadline;
    }
    if rules.is_some_and(Rules::stores_what_hooks_made) {
        hooks::on_response(context, route, &mut exchange, &mut answer).await.map_err(&failed)?;
        cached::keep(visit, context, rules, &exchange, &mut answer, record);
        // What request hooks want on the response to this client is in nothing that others get.
        exchange.keep_promises(answer.response.headers_mut());
    } else {
        cached::keep(visit, context, rules, &exchange, &mut answer, record);
        exchange.keep_promises(answer.response.headers_mut());
        hooks::on_response(context, route, &mut exchange, &mut answer).await.map_err(&failed)?;
    }
    if leaves_body || answer.sent.as_ref().is_some_and(send::Sent::leaves_body) {
        close(connection, &mut answer.response);
    }
    Ok((encode(context, wishes.as_ref(), answer.response, answer.kept), answer.sent))
}

/// Brings a response into the encoding that the client wants; one that is stored, once for all clients.
fn encode(
    context: &Context,
    wishes: Option<&Wishes<'_>>,
    response: Response<Content>,
    kept: Option<Kept>,
) -> Response<Content> {
    compress::encode_kept(wishes, response, kept.map(|kept| (kept, &context.worker.drain)))
}

fn find_route<'a>(context: &'a Context, request: &request::Parts) -> Option<&'a Route> {
    let snapshot = &context.generation.snapshot;
    let host = request.headers.get(header::HOST).map(authority::host_name).unwrap_or_default();
    let place = snapshot.table.find(&host, request.uri.path(), &request.method, &request.headers)?;
    context.meter.routed(place);
    Some(&snapshot.routes[place])
}

/// Says that the connection ends with this response, where there is nothing else on it.
///
/// A client that waits to be asked for its body, and is not, may send it all the same or go on with another
/// request: nobody can tell which (RFC 9110, section 10.1.1).
fn close<B>(connection: &Connection, response: &mut Response<B>) {
    if connection.turn.is_some() {
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
}

/// An error, and what is known of the request it befell.
struct Failure {
    error: Error,
    request_id: Option<HeaderValue>,
    /// The client may still wait to be asked for the body.
    leaves_body: bool,
    /// What was asked for, where there is no record that says so.
    asked: Option<(Method, Uri)>,
}

thread_local! {
    /// What this worker has said of late, by the route and the kind of error.
    static SAID: Sampler<(Option<usize>, std::mem::Discriminant<Error>)> = Sampler::default();
}

impl Failure {
    fn of(
        request: &request::Parts,
        leaves_body: bool,
        is_unrecorded: bool,
    ) -> impl Fn(Error) -> Self + use<> {
        let request_id = request.headers.get(identity::X_REQUEST_ID).cloned();
        let asked = is_unrecorded.then(|| (request.method.clone(), request.uri.clone()));
        move |error| Self { error, request_id: request_id.clone(), leaves_body, asked: asked.clone() }
    }

    /// What the client is told; the operator is told more.
    fn into_response(self, context: &Context, record: &mut Option<Box<Record>>) -> Response<Content> {
        let Context { connection, generation, meter, call, .. } = context;
        let Self { error, request_id, leaves_body, asked } = self;
        let kind = (meter.route(), std::mem::discriminant(&error));
        let (status, blame) = error.verdict();
        let (ends_connection, is_passing) = (error.ends_connection(), error.is_passing());
        connection.counts.refused_with(status);
        if let Some(limit) = error.limit() {
            connection.counts.reached(limit);
        }
        let refusal = call.is_some().then(|| grpc::refusal(&error, status));
        let request = request_id.as_ref().and_then(|id| id.to_str().ok());
        let client = connection.peer.address;
        let error = with_sources(&error);
        record::refused(record, &error);
        match blame {
            Blame::Client => tracing::debug!(%client, request, error, "request not answered"),
            Blame::Upstream | Blame::Plugin | Blame::Proxy => {
                // With all upstreams down this would be a line for each request, which the access log has already.
                if let Some(left_out) = SAID.with(|said| said.admit(kind)) {
                    let asked = asked.as_ref().map(|(method, uri)| (method, uri));
                    let asked = record.as_ref().map(|record| record.asked()).or(asked);
                    let (method, uri) = asked.unzip();
                    let route = meter.route().map(|place| &generation.snapshot.routes[place]);
                    let upstream =
                        route.map(|route| &*generation.snapshot.upstreams[route.upstream].upstream.name);
                    let upstream = record.as_ref().and_then(|record| record.upstream()).or(upstream);
                    tracing::warn!(
                        %client,
                        request,
                        method = method.map(Method::as_str),
                        uri = uri.map(tracing::field::display),
                        route = route.map(|route| &*route.name),
                        upstream,
                        status = status.as_u16(),
                        error,
                        left_out,
                        "request not answered"
                    );
                }
            }
        }
        if let Some(refusal) = refusal {
            return refusal;
        }
        let mut response = error::problem(status, request_id.as_ref());
        if is_passing {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if ends_connection || leaves_body || connection.fault().is_some() {
            close(connection, &mut response);
        }
        response.map(Content::Whole)
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), request_id: None, leaves_body: false, asked: None }
    }
}
