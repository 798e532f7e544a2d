//! How does it get to an endpoint, and what if that does not answer?

use std::{
    future::{Future, poll_fn},
    pin::pin,
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use http::{Request, Response, StatusCode, Version, request};
use hyper::{body::Incoming, client::conn::TrySendError};
use smallvec::SmallVec;

use super::{Context, Error, headers, hooks};
use crate::{
    body::{Patience, RequestBody, Upload, UploadState},
    clock::{Clock, Elapsed},
    plugin::InHand,
    snapshot::{Route, Target},
    upstream::{Endpoint, InFlight, Interim, Lease, Reason},
};

/// Endpoints that a request is brought to at most, if there is no connection to the first.
const ATTEMPTS: usize = 3;

/// How long an upstream may take to ask for a body that waits for it. Some never do (RFC 9110, section 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);

/// A request that an endpoint has answered: what is to be settled when the response has ended.
#[derive(Debug)]
pub struct Sent {
    in_flight: InFlight,
    /// Goes back to its pool, if all goes well.
    lease: Option<Lease>,
    upload: Option<Rc<Upload>>,
    /// Endpoints that the request was brought to.
    pub attempts: usize,
    pub clock: Clock,
    /// How long the body of the response may be silent.
    pub silence: Duration,
}

impl Sent {
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }

    /// Bytes of the request's body that have passed.
    pub fn uploaded(&self) -> u64 {
        self.upload.as_ref().map_or(0, |upload| upload.passed())
    }

    /// The response is not going to be read, so nothing else can be on its connection.
    pub fn give_up_response(&mut self) {
        self.lease = None;
    }

    /// The response has been read to its end.
    pub fn finish(mut self) {
        // A request that is still being written keeps its connection to itself.
        if self.upload.as_ref().is_none_or(|upload| upload.is_complete())
            && let Some(lease) = self.lease.take()
        {
            lease.finish();
        }
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        if let Some(upload) = &self.upload {
            upload.abandon();
        }
    }
}

/// Brings a request to an endpoint of an upstream, and waits for the head of its response.
///
/// An endpoint to which there is no connection is passed over for another. What has been sent is sent again
/// only where that can do no harm.
pub(super) async fn send(
    context: &Context,
    target: &Target,
    route: &Route,
    exchange: &mut InHand,
    body: Incoming,
    expects_continue: bool,
) -> Result<(Response<Incoming>, Sent), Error> {
    let upstream = &target.upstream;
    let writer = context.worker.writer;
    let mut outgoing = Outgoing::new(context, &exchange.request, body, expects_continue)?;
    let mut tried: SmallVec<[u64; 4]> = SmallVec::new();
    let mut failure = Error::NoEndpoint;
    while tried.len() < ATTEMPTS
        && let Some(in_flight) = choose(context, target, exchange, &tried, outgoing.is_repeatable)
    {
        let endpoint = in_flight.endpoint();
        let timed = endpoint.begins();
        match send_to(context, target, route, endpoint, exchange, &mut outgoing).await {
            Ok((response, lease)) => {
                if let Some(upload) = &outgoing.upload {
                    upload.set_answered();
                }
                let (mut head, body) = response.into_parts();
                let is_reusable = match headers::accept(&mut head, &endpoint.address) {
                    Ok(is_reusable) => is_reusable,
                    Err(source) => {
                        endpoint.lost(writer);
                        upstream.failed(&in_flight, Reason::NoAnswer);
                        return Err(Error::BadResponse { endpoint: name(endpoint), source });
                    }
                };
                upstream.answered(&in_flight, head.status, endpoint.ends(writer, timed));
                let sent = Sent {
                    in_flight,
                    lease: is_reusable.then_some(lease),
                    upload: outgoing.upload,
                    attempts: tried.len() + 1,
                    clock: context.worker.clock.clone(),
                    silence: upstream.timeouts.body.get(),
                };
                return Ok((Response::from_parts(head, body), sent));
            }
            Err(error) => {
                if let Some(reason) = blames(&error) {
                    endpoint.lost(writer);
                    upstream.failed(&in_flight, reason);
                }
                let may_go_elsewhere = match error {
                    Error::Connect { .. } => true,
                    Error::Send { .. } => outgoing.is_repeatable,
                    _ => false,
                };
                failure = error;
                if !may_go_elsewhere {
                    break;
                }
                tracing::debug!(endpoint = name(endpoint), error = %failure, "endpoint passed over");
                tried.push(endpoint.id());
            }
        }
    }
    Err(failure)
}

/// Which endpoint gets the request, if one is left that it has not been brought to.
fn choose(
    context: &Context,
    target: &Target,
    exchange: &mut InHand,
    tried: &[u64],
    is_repeatable: bool,
) -> Option<InFlight> {
    let roster = target.upstream.roster();
    if tried.is_empty()
        && let Some(trial) = roster.begin_trial(is_repeatable, &target.upstream.settings.outlier)
    {
        return Some(trial);
    }
    let place = hooks::pick(&context.generation, target, &roster, exchange, &roster.places(tried))?;
    Some(roster.begin(place))
}

/// What a failure says of the endpoint, if it is the endpoint's.
fn blames(error: &Error) -> Option<Reason> {
    match error {
        Error::Connect { .. } => Some(Reason::NoConnection),
        Error::Send { .. } | Error::ResponseTimedOut { .. } | Error::BadResponse { .. } => {
            Some(Reason::NoAnswer)
        }
        Error::BadRequest(_)
        | Error::ClientBroke(_)
        | Error::BodyTooLarge
        | Error::NoRoute
        | Error::NoEndpoint
        | Error::Plugin { .. } => None,
    }
}

/// Brings a request to one endpoint. A connection that was used before may have been closed while it was
/// idle, which only shows when it is used: then once more on a fresh one, if that can do no harm.
async fn send_to(
    context: &Context,
    target: &Target,
    route: &Route,
    endpoint: &Arc<Endpoint>,
    exchange: &mut InHand,
    outgoing: &mut Outgoing,
) -> Result<(Response<Incoming>, Lease), Error> {
    let upstream = &target.upstream;
    let mut is_fresh = false;
    loop {
        let mut lease = context
            .worker
            .pool
            .lease(upstream, endpoint, is_fresh)
            .await
            .map_err(|source| Error::Connect { endpoint: name(endpoint), source })?;
        // Response hooks see the request as it was forwarded.
        let keeps_headers = !route.on_response.is_empty();
        let request = outgoing.request(&mut exchange.request, keeps_headers);
        let answer = lease.send(request, outgoing.is_repeatable && !keeps_headers);
        let limit = upstream.timeouts.response.get();
        let error = match converse(context, &lease, answer, outgoing, limit).await {
            Ok(response) => return Ok((response, lease)),
            Err(error) => error,
        };
        match error {
            SendError::Unsent(source, request) if lease.is_reused() => {
                tracing::debug!(endpoint = name(endpoint), error = %source, "idle connection was closed");
                outgoing.take_back(&mut exchange.request, request);
            }
            SendError::Lost(source) if outgoing.is_repeatable => {
                if !keeps_headers {
                    match lease.remembered() {
                        Some(headers) => exchange.request.headers = headers,
                        None => outgoing.is_repeatable = false,
                    }
                }
                if !lease.is_reused() || !outgoing.is_repeatable {
                    return Err(Error::Send { endpoint: name(endpoint), source });
                }
                tracing::debug!(endpoint = name(endpoint), error = %source, "idle connection was closed");
            }
            SendError::Unsent(source, _) | SendError::Lost(source) => {
                return Err(match outgoing.upload.as_ref().map(|upload| upload.state()) {
                    Some(UploadState::TooLarge) => Error::BodyTooLarge,
                    Some(UploadState::Silent) => Error::ClientBroke(Some(StatusCode::REQUEST_TIMEOUT)),
                    Some(UploadState::Broken) => Error::ClientBroke(context.connection.fault()),
                    _ => Error::Send { endpoint: name(endpoint), source },
                });
            }
            SendError::TimedOut => {
                return Err(Error::ResponseTimedOut { endpoint: name(endpoint), source: Elapsed });
            }
        }
        is_fresh = true;
    }
}

/// What of a request goes to an upstream.
struct Outgoing {
    body: RequestBody,
    upload: Option<Rc<Upload>>,
    /// Sending it twice does no harm, and there is nothing that could be sent only once.
    is_repeatable: bool,
    /// HTTP/1.0 has no interim responses (RFC 9110, section 15.2).
    hears_interim: bool,
}

impl Outgoing {
    fn new(
        context: &Context,
        head: &request::Parts,
        body: Incoming,
        expects_continue: bool,
    ) -> Result<Self, Error> {
        let Context { worker, connection, .. } = context;
        let cap = connection.listener.limits.body.get();
        if http_body::Body::size_hint(&body).lower() > cap {
            return Err(Error::BodyTooLarge);
        }
        let (body, upload) = RequestBody::new(body, cap, expects_continue, || {
            // In HTTP/1 the wire knows.
            let limit = connection.listener.timeouts.body.get();
            connection.turn.is_none().then(|| Patience { timer: worker.clock.timer(), limit })
        });
        // RFC 9110, section 9.2.2.
        let is_repeatable = upload.is_none() && head.method.is_idempotent();
        // hyper has no way to send them in HTTP/2.
        let hears_interim = head.version == Version::HTTP_11;
        Ok(Self { body, upload, is_repeatable, hears_interim })
    }

    /// The message to send; headers are copied only if they are needed again.
    fn request(&mut self, head: &mut request::Parts, keeps_headers: bool) -> Request<RequestBody> {
        let body = std::mem::replace(&mut self.body, RequestBody::Empty);
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = match keeps_headers {
            true => head.headers.clone(),
            false => std::mem::take(&mut head.headers),
        };
        request
    }

    /// Takes a message back of which nothing was written.
    fn take_back(&mut self, head: &mut request::Parts, request: Request<RequestBody>) {
        let (returned, body) = request.into_parts();
        head.headers = returned.headers;
        self.body = body;
    }
}

/// Why a request has got no response.
#[expect(clippy::large_enum_variant, reason = "the request comes back whole, and this is not the common way")]
enum SendError {
    /// Nothing of it was written.
    Unsent(hyper::Error, Request<RequestBody>),
    /// Some of it may have been.
    Lost(hyper::Error),
    TimedOut,
}

/// Waits for the head of the response, at most `limit` after the last of the request's body. Interim responses
/// go to the client meanwhile.
async fn converse(
    context: &Context,
    lease: &Lease,
    answer: impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>,
    outgoing: &Outgoing,
    limit: Duration,
) -> Result<Response<Incoming>, SendError> {
    let upload = outgoing.upload.as_ref();
    let clock = &context.worker.clock;
    let patience = upload.filter(|upload| upload.state() == UploadState::Held).map(|upload| {
        let timer = clock.timer();
        timer.start(CONTINUE);
        (timer, upload)
    });
    let deadline = clock.timer();
    deadline.start(limit);
    let mut passed = 0;
    let mut answer = pin!(answer);
    poll_fn(|cx| {
        let answered = answer.as_mut().poll(cx);
        for interim in lease.take_interim(cx) {
            match (interim, upload) {
                (Interim::Continue, Some(upload)) => upload.release(),
                (Interim::Continue, None) => {}
                (Interim::Other(head), _) => {
                    if let Some(turn) = context.connection.turn.as_ref().filter(|_| outgoing.hears_interim) {
                        turn.push_interim(head);
                    }
                }
            }
        }
        if let Poll::Ready(answer) = answered {
            return Poll::Ready(answer.map_err(|mut error| match error.take_message() {
                Some(request) => SendError::Unsent(error.into_error(), request),
                None => SendError::Lost(error.into_error()),
            }));
        }
        if let Some((timer, upload)) = &patience
            && timer.poll(cx).is_ready()
        {
            timer.stop();
            upload.release();
        }
        while deadline.poll(cx).is_ready() {
            match upload.map(|upload| upload.passed()) {
                // The time counts from the last that has been sent.
                Some(now) if now > passed => passed = now,
                _ => return Poll::Ready(Err(SendError::TimedOut)),
            }
            deadline.start(limit);
        }
        Poll::Pending
    })
    .await
}

fn name(endpoint: &Endpoint) -> String {
    endpoint.authority.to_string()
}
