//! How does it get to an endpoint, and what if that does not answer?

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use http::{Request, Response, StatusCode, Version, request, response};
use http_body::Body as _;
use hyper::{body::Incoming, client::conn::TrySendError};
use smallvec::SmallVec;

use super::{
    context::Context,
    error::Error,
    flight::{Expect, Flight},
    headers, hooks,
    malformed::BadResponse,
    retry::{self, Attempt, AttemptOutcome},
    sent::Sent,
    upgrade::Expected,
};
use crate::{
    body::{Arriving, Patience, RequestBody, Upload, UploadState},
    cache::policy::Time,
    clock::{Clock, Elapsed, TICK, Tick, before},
    field::Names,
    plugin::{Exchange, ExchangeSlot},
    proxy_protocol::ProxyHeader,
    snapshot::{Route, Target},
    telemetry::{traffic::Limit, with_sources},
    upstream::{
        Admission, Delivery, Endpoint, InFlight, Interim, Lease, NotDelivered, Permit, Switched, Terms,
        Upstream, authenticates_connection, deliver,
    },
};

/// How long an upstream may take to ask for a body that waits for it. Some never do (RFC 9110, section 10.1.1).
const CONTINUE: Duration = Duration::from_secs(1);

/// What a request waits for, besides its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Nothing,
    /// To be asked for its body.
    Continue,
    /// To go on in another protocol, which its headers name.
    Upgrade,
}

impl Flight<'_> {
    /// The same as [`Flight::send`], until the client's deadline if it has one.
    pub(super) async fn send_in_time(&mut self) -> Result<(Response<Incoming>, Sent), Error> {
        let deadline = self.deadline.take();
        let sent = {
            let sending = pin!(self.send());
            before(deadline.as_ref(), sending).await.unwrap_or(Err(Error::DeadlineExceeded))
        };
        self.deadline = deadline;
        sent
    }

    /// Brings the request to an endpoint of its upstream, and waits for the head of the response. Without a body where
    /// the proxy asks on its own behalf.
    ///
    /// If that fails there may be further attempts, for as long as [`retry`] finds them worth it and the upstream's
    /// budget lasts.
    pub(super) async fn send(&mut self) -> Result<(Response<Incoming>, Sent), Error> {
        let expects = match (self.is_upgrade, self.expect) {
            (true, _) => Expects::Upgrade,
            (false, Expect::Continue) => Expects::Continue,
            (false, Expect::Nothing | Expect::Abandoned) => Expects::Nothing,
        };
        let Self { context, observer, route, target, exchange, body, hears_interim, .. } = self;
        let exchange: &mut ExchangeSlot = exchange;
        let upstream = &target.upstream;
        let clock = &context.worker.clock;
        let since = (!route.on_complete.is_empty()).then(Instant::now);
        let writer = context.worker.writer;
        let mut outgoing = Outgoing::new(context, target, route, exchange, body.take(), expects)?;
        outgoing.hears_interim = *hears_interim;
        if upstream.settings.proxy_protocol {
            outgoing.introduction = Some(context.connection.introduction(exchange.client));
        }
        let permit = admit(upstream, clock).await?;
        let mut attempts = Attempts { upstream, clock, began: clock.now(), made: 0, tried: SmallVec::new() };
        loop {
            let Some(in_flight) = attempts.choose(context, target, exchange, &outgoing) else {
                return Err(attempts.nobody());
            };
            let endpoint = in_flight.endpoint();
            let timed = endpoint.begins();
            let limit = attempts.left().map(|left| {
                let timer = clock.timer();
                timer.start(left);
                timer
            });
            let answer = {
                let attempt = pin!(send_to(context, target, endpoint, exchange, &mut outgoing));
                before(limit.as_ref(), attempt).await
            };
            let answer = answer.unwrap_or_else(|source| {
                let endpoint = name(endpoint);
                let is_blameless = outgoing.upload.as_ref().is_some_and(|upload| upload.is_awaited());
                Err(Failure {
                    error: Error::AttemptsTimedOut { endpoint, source },
                    outcome: None,
                    is_blameless,
                })
            });
            let Failure { error, outcome, is_blameless } = match answer {
                Ok(answer) => {
                    let status = answer.response.status();
                    upstream.answered(&in_flight, status, endpoint.ends(writer, timed));
                    if upstream.settings.retry.on.contains(&status)
                        && let retry_after = retry::retry_after(answer.response.headers(), Time::now)
                        && let Some(wait) = attempts.again(
                            endpoint,
                            &outgoing,
                            AttemptOutcome::Answered { status, retry_after },
                        )
                        && outgoing.restore(&mut exchange.request, &answer.lease)
                    {
                        observer.attempt_failed(endpoint, attempts.made);
                        tracing::debug!(endpoint = name(endpoint), %status, "sent again");
                        // In a box, since most answers are wanted.
                        Box::pin(discard(context, answer, &outgoing)).await;
                        drop(in_flight);
                        clock.pause(wait).await;
                        continue;
                    }
                    let sent = Sent {
                        in_flight,
                        _permit: permit,
                        lease: (answer.is_reusable || answer.switched.is_some()).then_some(answer.lease),
                        switched: answer.switched,
                        tunnel_silence: upstream.timeouts.tunnel.get(),
                        upload: outgoing.upload,
                        attempts: attempts.made,
                        clock: clock.clone(),
                        silence: upstream.timeouts.body.get(),
                        deadline: None,
                    };
                    if let Some(upload) = &sent.upload {
                        upload.set_answered();
                    }
                    observer.answered(since);
                    return Ok((answer.response, sent));
                }
                Err(failure) => failure,
            };
            // Of the time for all attempts, the first has had all there was.
            let is_late = matches!(error, Error::AttemptsTimedOut { .. }) && attempts.made > 1;
            let reason = error.disposition().endpoint.filter(|_| !is_blameless && !is_late);
            if let Some(reason) = reason {
                endpoint.lost(writer);
                upstream.failed(&in_flight, reason, || with_sources(&error));
            }
            observer.attempt_failed(endpoint, attempts.made);
            let wait = outcome.and_then(|outcome| attempts.again(endpoint, &outgoing, outcome));
            let Some(wait) = wait else { return Err(error) };
            tracing::debug!(endpoint = name(endpoint), %error, "sent again");
            drop(in_flight);
            clock.pause(wait).await;
        }
    }
}

/// Waits until the upstream may get one more request.
async fn admit(upstream: &Upstream, clock: &Clock) -> Result<Option<Permit>, Error> {
    match upstream.admit() {
        Admission::In(permit) => Ok(permit),
        Admission::Wait(entering) => {
            let limit = upstream.settings.limits.queue_timeout.get();
            clock.within(limit, entering).await.map(Some).map_err(|Elapsed| Error::Overloaded)
        }
        Admission::Full => Err(Error::Overloaded),
    }
}

/// The attempts that were made with one request.
struct Attempts<'a> {
    upstream: &'a Upstream,
    clock: &'a Clock,
    began: Tick,
    made: usize,
    /// The endpoints, by id.
    tried: SmallVec<[u64; 4]>,
}

impl Attempts<'_> {
    /// Which endpoint gets the request next: one that it has not been brought to, while there is one.
    fn choose(
        &mut self,
        context: &Context,
        target: &Target,
        exchange: &mut ExchangeSlot,
        outgoing: &Outgoing,
    ) -> Option<InFlight> {
        let roster = self.upstream.roster();
        self.made += 1;
        if self.made == 1
            && let Some(probe) = roster.begin_probe(outgoing.is_repeatable(), &self.upstream.settings.outlier)
        {
            return Some(probe);
        }
        let mut tried = roster.places(&self.tried);
        if !tried.is_empty() && tried.len() >= roster.usable().len() {
            // All have had their turn. The last one is asked again last.
            let last = self.tried.pop();
            self.tried.clear();
            self.tried.extend(last.filter(|_| roster.usable().len() > 1));
            tried = roster.places(&self.tried);
        }
        let most = self.upstream.settings.limits.endpoint_requests;
        // Where the client has logged in on a connection, its requests go there while they can.
        if self.made == 1
            && let [index, ..] = roster.places(&context.connection.client.endpoints())[..]
            && let Some(in_flight) = roster.begin(index as usize, false, most)
        {
            return Some(in_flight);
        }
        // Each time round there is one less to pick.
        loop {
            let index = hooks::pick(context, target, &roster, exchange, &tried)?;
            match roster.begin(index, self.made > 1, most) {
                Some(in_flight) => return Some(in_flight),
                None => tried.push(index as u32),
            }
        }
    }

    /// Why no endpoint was left.
    fn nobody(&self) -> Error {
        match self.upstream.roster().usable() {
            [] => Error::NoEndpoint,
            _ => Error::Overloaded,
        }
    }

    /// What is left of the time for all attempts, where it is limited.
    fn left(&self) -> Option<Duration> {
        let limit = self.upstream.settings.retry.timeout?.get();
        Some(limit.saturating_sub(self.clock.since(self.began)))
    }

    /// After what time there is to be another attempt, if there is to be one.
    fn again(
        &mut self,
        endpoint: &Endpoint,
        outgoing: &Outgoing,
        outcome: AttemptOutcome,
    ) -> Option<Duration> {
        self.tried.push(endpoint.id());
        let roster = self.upstream.roster();
        let attempt = Attempt {
            outcome,
            made: self.made,
            is_repeatable: outgoing.is_repeatable(),
            has_others: roster.places(&self.tried).len() < roster.usable().len(),
            left: self.left(),
        };
        let wait = retry::again(&self.upstream.settings.retry, attempt, fastrand::f64())?;
        self.upstream.may_send_again().then_some(wait)
    }
}

/// What an endpoint has answered.
struct Answered {
    response: Response<Incoming>,
    lease: Lease,
    /// Whether the connection can carry another request after this.
    is_reusable: bool,
    switched: Option<Box<Switched>>,
}

/// Why an attempt has brought no answer. Without an outcome, no further attempt can help.
struct Failure {
    error: Error,
    outcome: Option<AttemptOutcome>,
    /// Whether it says nothing of the endpoint, whatever the error.
    is_blameless: bool,
}

impl Failure {
    fn of(error: Error, outcome: Option<AttemptOutcome>) -> Self {
        Self { error, outcome, is_blameless: false }
    }
}

/// Lets go of an answer that nobody will see. Its connection is kept if the rest of it is short and there.
async fn discard(context: &Context, answer: Answered, outgoing: &Outgoing) {
    const MOST: usize = 64 << 10;
    let Answered { response, lease, is_reusable, switched: _ } = answer;
    if !is_reusable || outgoing.upload.is_some() {
        return;
    }
    let mut body = response.into_body();
    let reading = async {
        let mut length = 0;
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            length += frame.ok()?.data_ref().map_or(0, bytes::Bytes::len);
            if length > MOST {
                return None;
            }
        }
        Some(())
    };
    if let Ok(Some(())) = context.worker.clock.within(TICK, reading).await {
        lease.finish();
    }
}

/// Brings a request to one endpoint, once.
async fn send_to(
    context: &Context,
    target: &Target,
    endpoint: &Arc<Endpoint>,
    exchange: &mut ExchangeSlot,
    outgoing: &mut Outgoing,
) -> Result<Answered, Failure> {
    let mut request = OfClient { context, target, endpoint, exchange, outgoing };
    let delivered = deliver(&context.worker.pool, &target.upstream, endpoint, &mut request).await;
    let endpoint = || name(endpoint);
    match delivered {
        Ok((lease, Accepted { response, is_reusable, switched })) => {
            Ok(Answered { response, lease, is_reusable, switched })
        }
        Err(NotDelivered::NoConnection(source)) => {
            // What the proxy itself is short of, it is short of for every endpoint.
            let outcome = (!source.is_shortage()).then_some(AttemptOutcome::Unsent);
            Err(Failure::of(Error::Connect { endpoint: endpoint(), source }, outcome))
        }
        Err(NotDelivered::Unread(source)) => {
            Err(Failure::of(Error::Send { endpoint: endpoint(), source }, Some(AttemptOutcome::Unsent)))
        }
        Err(NotDelivered::Failed(failure)) => Err(failure),
    }
}

/// A request of a client on its way to an endpoint.
struct OfClient<'a> {
    context: &'a Context,
    target: &'a Target,
    endpoint: &'a Arc<Endpoint>,
    exchange: &'a mut ExchangeSlot,
    outgoing: &'a mut Outgoing,
}

/// A response that is the proxy's own by now.
struct Accepted {
    response: Response<Incoming>,
    /// Whether the connection can carry another request after this.
    is_reusable: bool,
    switched: Option<Box<Switched>>,
}

impl Delivery for OfClient<'_> {
    type Response = Accepted;
    type Error = Failure;

    fn terms(&self) -> Terms<'_> {
        let client = &self.context.connection.client;
        let is_bound = self.outgoing.authenticates || client.is_bound_to(self.endpoint.id());
        Terms {
            introduction: self.outgoing.introduction,
            is_fresh: false,
            is_switched: self.outgoing.expected.is_some(),
            client: is_bound.then_some(client),
        }
    }

    async fn over(&mut self, lease: &mut Lease) -> Result<Accepted, NotDelivered<Failure>> {
        let Self { context, target, endpoint, exchange, outgoing } = self;
        let failed = |failure| Err(NotDelivered::Failed(failure));
        if outgoing.authenticates {
            lease.bind(&context.connection.client);
        }
        match &outgoing.upload {
            // The endpoint is not asked before.
            Some(upload) if lease.is_shared() => upload.release(),
            Some(_) => {}
            // A stream may be refused.
            None => outgoing.keeps_headers |= lease.is_shared(),
        }
        if outgoing.expected.is_some() && !lease.takes_upgrades() {
            return failed(Failure::of(Error::NoTunnels { endpoint: name(endpoint) }, None));
        }
        let request = outgoing.request(&mut exchange.request);
        let protocol = outgoing.expected.as_ref().map(Expected::protocol);
        let answer = pin!(lease.send(request, outgoing.is_remembered, protocol));
        let limit = target.upstream.timeouts.response.get();
        let error = match converse(context, lease, answer, outgoing, limit).await {
            Ok(response) => {
                lease.note_answer();
                let (mut head, body) = response.into_parts();
                return match accept(&mut head, endpoint, lease, outgoing).await {
                    Ok((is_reusable, switched)) => {
                        if !target.balancers.is_empty() {
                            endpoint.take_report(&mut head.headers);
                        }
                        Ok(Accepted { response: Response::from_parts(head, body), is_reusable, switched })
                    }
                    Err(source) => failed(refused(source, endpoint, lease, outgoing, &mut exchange.request)),
                };
            }
            Err(error) => error,
        };
        let request = &mut exchange.request;
        if let Some(head) = lease.bad_head() {
            return failed(refused(head.into(), endpoint, lease, outgoing, request));
        }
        match error {
            SendError::TimedOut => {
                lease.suspect();
                let outcome = outgoing.restore(request, lease).then_some(AttemptOutcome::TimedOut);
                let error = Error::ResponseTimedOut { endpoint: name(endpoint), source: Elapsed };
                // Whether the endpoint is silent, or has nothing to answer yet, only the client knows.
                let is_blameless = outgoing.upload.as_ref().is_some_and(|upload| upload.is_awaited());
                failed(Failure { error, outcome, is_blameless })
            }
            SendError::Unsent(..) | SendError::Lost(_)
                if let Some(error) = outgoing.fault_of_client(context) =>
            {
                failed(Failure::of(error, None))
            }
            SendError::Unsent(source, mut returned) => {
                lease.restore(&mut returned);
                outgoing.take_back(request, returned);
                Err(NotDelivered::Unread(source))
            }
            // Whatever it is, nothing was done with it.
            SendError::Lost(source) if lease.is_refused(&source) && outgoing.restore_all(request, lease) => {
                let is_blameless = lease.has_retired(&source);
                let error = Error::Send { endpoint: name(endpoint), source };
                failed(Failure { error, outcome: Some(AttemptOutcome::Unsent), is_blameless })
            }
            SendError::Lost(source) if lease.is_unread() && outgoing.restore_all(request, lease) => {
                Err(NotDelivered::Unread(source))
            }
            SendError::Lost(source) => {
                // Whoever waits for a body has a limit for that, too.
                let is_blameless = outgoing.upload.as_ref().is_some_and(|upload| upload.is_owed());
                let outcome = outgoing.restore(request, lease).then_some(AttemptOutcome::Lost);
                failed(Failure {
                    error: Error::Send { endpoint: name(endpoint), source },
                    outcome,
                    is_blameless,
                })
            }
        }
    }
}

/// The failure of an attempt whose answer is of no use.
fn refused(
    source: BadResponse,
    endpoint: &Endpoint,
    lease: &Lease,
    outgoing: &mut Outgoing,
    request: &mut request::Parts,
) -> Failure {
    let outcome =
        (!source.is_of_content() && outgoing.restore(request, lease)).then_some(AttemptOutcome::Lost);
    Failure::of(Error::BadResponse { endpoint: name(endpoint), source }, outcome)
}

/// Makes the head of an answer the proxy's own, and takes the connection over if it goes on in another protocol.
/// Whether the connection can carry another request.
async fn accept(
    head: &mut response::Parts,
    endpoint: &Endpoint,
    lease: &mut Lease,
    outgoing: &Outgoing,
) -> Result<(bool, Option<Box<Switched>>), BadResponse> {
    lease.check(head)?;
    let Some(expected) = &outgoing.expected else {
        return headers::accept(head, &endpoint.address, None).map(|is_reusable| (is_reusable, None));
    };
    if lease.is_shared() && head.status.is_success() {
        // RFC 8441, section 5: there, this is the answer that opens a tunnel. hyper knows no other than 200.
        if head.status != StatusCode::OK {
            return Err(BadResponse::Connected);
        }
        head.status = StatusCode::SWITCHING_PROTOCOLS;
        expected.write(&mut head.headers);
    }
    let is_reusable = headers::accept(head, &endpoint.address, Some(expected))?;
    if head.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok((is_reusable, None));
    }
    // In a box, since most answers open no tunnel.
    let switched = Box::pin(lease.switch(head)).await.ok_or(BadResponse::Ended)?;
    Ok((false, Some(Box::new(switched))))
}

/// What of a request goes to an upstream.
struct Outgoing {
    body: RequestBody,
    upload: Option<Rc<Upload>>,
    /// Sending it twice does no harm.
    is_idempotent: bool,
    /// Whether the headers are sent as a copy, since they are needed afterwards.
    keeps_headers: bool,
    /// Whether they can be had back from the connection instead.
    is_remembered: bool,
    /// Whether interim responses go on to the client.
    hears_interim: bool,
    /// What the answer must say if it is to go on in another protocol, where the request asks for that.
    expected: Option<Expected>,
    /// Its credentials are those of the connection that it goes over.
    authenticates: bool,
    /// What the endpoint is told of whose connection it is, where it wants to know.
    introduction: Option<ProxyHeader>,
}

impl Outgoing {
    fn new(
        context: &Context,
        target: &Target,
        route: &Route,
        exchange: &Exchange,
        body: Option<Arriving>,
        expects: Expects,
    ) -> Result<Self, Error> {
        let Context { worker, connection, .. } = context;
        let head = &exchange.request;
        let cap = connection.listener.limits.body.get();
        let least = body.as_ref().map_or(0, |body| body.size_hint().lower());
        if least > cap {
            return Err(Error::BodyTooLarge);
        }
        // RFC 9110, section 9.2.2.
        let is_idempotent = head.method.is_idempotent() || route.is_repeatable;
        let policy = &target.upstream.settings.retry;
        // A stream may be refused, and then any request may be sent again: for as long as its body is kept.
        let may_be_refused = target.upstream.may_share_connections();
        let is_kept =
            policy.attempts > 0 && (may_be_refused || (is_idempotent && least <= policy.body.get()));
        let kept = is_kept.then(|| policy.body.as_usize());
        let patience = || {
            // In HTTP/1 the wire knows.
            if connection.turn.is_some() {
                return None;
            }
            let limit = connection.listener.timeouts.body.get();
            let mut rate = connection.listener.min_rates.body();
            if context.call.is_some() {
                // The messages of a call come when there is something to say.
                rate.bytes = 0;
            }
            Some(Patience { timer: worker.clock.timer(), limit, rate, min_rate: RefCell::default() })
        };
        // In HTTP/1 nothing comes behind a body whose length is known.
        let may_have_trailers = head.version == Version::HTTP_2
            || body.as_ref().is_some_and(|body| body.size_hint().exact().is_none());
        let settled = || match may_have_trailers {
            true => exchange.settled().with(head.headers.keys()),
            false => Names::default(),
        };
        let (body, upload) = match body {
            Some(body) => RequestBody::new(body, cap, expects == Expects::Continue, kept, settled, patience),
            None => (RequestBody::Empty, None),
        };
        // Response hooks see the request as it was forwarded.
        let keeps_headers =
            !route.on_response.is_empty() || (is_kept && upload.is_some()) || expects == Expects::Upgrade;
        Ok(Self {
            body,
            is_remembered: is_idempotent && upload.is_none() && !keeps_headers,
            upload,
            is_idempotent,
            keeps_headers,
            hears_interim: false,
            expected: if expects == Expects::Upgrade { Expected::of(&head.headers) } else { None },
            authenticates: authenticates_connection(&head.headers),
            introduction: None,
        })
    }

    /// What the client has done wrong with its body, if that is why there is no response.
    fn fault_of_client(&self, context: &Context) -> Option<Error> {
        match self.upload.as_ref()?.state() {
            UploadState::TooLarge => Some(Error::BodyTooLarge),
            UploadState::Silent => Some(Error::ClientSlow(Limit::BodyTime)),
            UploadState::Slow => Some(Error::ClientSlow(Limit::BodyRate)),
            UploadState::Broken => Some(Error::ClientBroke(context.connection.fault())),
            _ => None,
        }
    }

    /// Sending it twice does no harm, and all of it is there.
    fn is_repeatable(&self) -> bool {
        self.is_idempotent && self.upload.as_ref().is_none_or(|upload| upload.is_repeatable())
    }

    /// The message to send; headers are copied only if they are needed again.
    fn request(&mut self, head: &mut request::Parts) -> Request<RequestBody> {
        let body = std::mem::replace(&mut self.body, RequestBody::Empty);
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = head.uri.clone();
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = match self.keeps_headers {
            true => head.headers.clone(),
            false => std::mem::take(&mut head.headers),
        };
        request
    }

    /// Takes a message back of which nothing was written.
    fn take_back(&mut self, head: &mut request::Parts, request: Request<RequestBody>) {
        let (returned, body) = request.into_parts();
        if !self.keeps_headers {
            head.headers = returned.headers;
        }
        self.body = body;
    }

    /// Makes the message ready to be sent again after it was sent over this connection, if that does no harm.
    fn restore(&mut self, head: &mut request::Parts, lease: &Lease) -> bool {
        self.is_repeatable() && self.restore_all(head, lease)
    }

    /// The same for a message that nobody has looked at. False if not all of it is there any more.
    fn restore_all(&mut self, head: &mut request::Parts, lease: &Lease) -> bool {
        if !self.keeps_headers {
            match lease.remembered() {
                Some(headers) => head.headers = headers,
                None => return false,
            }
        }
        if let Some(upload) = &self.upload {
            match upload.repeat() {
                Some(body) => self.body = body,
                None => return false,
            }
        }
        true
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

/// Waits for the head of the response, at most `limit` after the last of the request's body. A client that owes more of it
/// has a limit of its own. Interim responses go to the client meanwhile.
async fn converse(
    context: &Context,
    lease: &Lease,
    mut answer: Pin<
        &mut impl Future<Output = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>,
    >,
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
            match upload {
                // The time counts from the last that has been sent, and stands still while the body is held back or the client
                // owes more of it.
                Some(upload)
                    if upload.state() == UploadState::Held
                        || upload.is_owed()
                        || upload.passed() > passed =>
                {
                    passed = upload.passed();
                }
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
