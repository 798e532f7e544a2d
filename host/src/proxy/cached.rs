//! What does the cache do for this request?
//!
//! [`Flight::lookup`] may answer before anything is sent; [`Flight::settle`] looks at what came back, and may answer with
//! what is stored instead; [`Flight::keep`] has it stored while it goes to the client. Routes that do not cache pass through
//! all three without a trace.

mod answer;
mod storing;

use std::{rc::Rc, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body::Body as _;
use hyper::body::Incoming;
use sha2::{Digest, Sha256};
use smallvec::SmallVec;

use super::{
    answer::Answer, context::Context, error::Error, flight::Flight, hooks, meter::Meter, observer::Observer,
    record::RecordedExchange, sent::Sent,
};
use crate::{
    body::{Arriving, Content},
    cache::{
        Cache, Rules,
        body::StoredBody,
        encoded::Kept,
        fill::{FillResult, Filling, Followed, Lead},
        key::Key,
        policy::{self, Asked, Judgement, RequestDirectives, Reuse, Time, Update},
        status::{self, Forward, Served},
        store::Resource,
        stored::{Stored, storable_headers, tags},
        unkeyed,
    },
    clock::{Timer, before},
    plugin::{Exchange, Taint},
    snapshot::{Route, Target},
    telemetry::{Writer, sampled, with_sources},
};

/// What the cache says before anything is sent.
#[expect(
    clippy::large_enum_variant,
    reason = "the answer goes on at once, and a box would be one more for each hit"
)]
pub(super) enum Lookup {
    /// This is the answer.
    Answer(Answer),
    /// The upstream is to be asked. With what the cache wants to know then; nothing on routes that do not cache.
    Ask(Option<Box<CacheLookup>>),
}

/// A request on its way through the cache.
pub(super) struct CacheLookup {
    cache: Arc<Cache>,
    writer: Writer,
    key: Key,
    method: Method,
    /// The body of the request is in the key: it is a question like any other.
    is_question: bool,
    target: Uri,
    scheme: &'static str,
    /// As it was before the cache put its own conditions; known when the upstream is asked.
    request: HeaderMap,
    directives: RequestDirectives,
    /// It came with credentials, even if the upstream gets none.
    is_authorized: bool,
    /// Fields that plugins have made of what no key holds.
    derived: SmallVec<[HeaderName; 2]>,
    /// How often plugins had changed the request when the key was made.
    request_edits: u32,
    /// A plugin has changed the request after that.
    is_changed: bool,
    /// What is stored and was selected, but could not be used as it is.
    stored: Option<Arc<Stored>>,
    /// The origin is asked whether `stored` is still good.
    validates: bool,
    /// Others wait for what this request fetches.
    lead: Option<Lead>,
    forward: Forward,
    asked: Time,
}

impl Flight<'_> {
    /// Has it noted what plugins make of a request whose response may be stored.
    pub(super) fn note_what_plugins_derive(&mut self) {
        let Self { route, exchange, .. } = self;
        let Some(rules) = &route.cache else { return };
        let may_make =
            !route.on_request.is_empty() || (rules.stores_what_hooks_made() && !route.on_response.is_empty());
        if may_make {
            let is_authorized = is_authorized(exchange);
            let taint = Taint::new(rules.key.fields(), rules.key.hold_query(), is_authorized);
            exchange.taint = Some(Box::new(taint));
        }
    }
}

/// Whether a request came with credentials (RFC 9111, section 3.5: as received), in whichever way, wherever they are now.
fn is_authorized(exchange: &Exchange) -> bool {
    match &exchange.taint {
        Some(taint) => taint.is_authorized(),
        None => {
            exchange.certificate.is_some()
                || exchange.request.headers.contains_key(header::AUTHORIZATION)
                || unkeyed::names_client(&exchange.request.headers)
        }
    }
}

impl Flight<'_> {
    /// Looks for a stored response that answers the request. Its body is read where it is part of the question.
    ///
    /// What opens a tunnel is no response that could be stored or be answered with one.
    pub(super) async fn lookup(&mut self) -> Result<Lookup, Error> {
        /// How often a request takes the place of one that has given up its lead.
        const TURNS: usize = 3;
        let Self { context, observer, route, target, exchange, body, deadline, .. } = self;
        let deadline = deadline.as_ref();
        let Some(rules) = route.cache.as_ref().filter(|_| !self.is_upgrade) else {
            return Ok(Lookup::Ask(None));
        };
        let cache = &context.generation.snapshot.cache;
        let mut lookup = CacheLookup::new(context, rules, target, exchange);
        let mut before_conditions = None;
        if let Some(forward) =
            lookup.is_kept_out(context, rules, &exchange.request, body.as_mut(), deadline).await?
        {
            return Ok(lookup.ask(forward, exchange));
        }
        let head = &exchange.request;
        let wait =
            target.upstream.settings.retry.timeout.map_or(cache.wait, |limit| limit.get().min(cache.wait));
        for _ in 0..TURNS {
            let now = Time::now();
            let resource = lookup.select(context, &head.headers, wait, deadline).await?;
            lookup.forward = match lookup.judged(rules, exchange, resource.as_ref(), now) {
                Judged::Answers { stored, served, is_renewed } => {
                    if is_renewed && let Filling::Lead(lead) = cache.store.fill(&lookup.key) {
                        renew(context, route, target, exchange, &stored, lead);
                    }
                    return Ok(Lookup::Answer(lookup.answered(
                        &head.headers,
                        stored,
                        served,
                        route,
                        observer,
                    )));
                }
                Judged::Refused => return Err(Error::OnlyIfCached),
                Judged::Asks(forward) => forward,
            };
            let conditions = lookup
                .stored
                .as_ref()
                .filter(|_| !lookup.is_question)
                .and_then(|stored| policy::conditional_headers(&stored.headers));
            let has_conditions = has_conditions(&head.headers);
            let may_lead = head.method != Method::HEAD
                && (conditions.is_some() || !has_conditions)
                && !resource.is_some_and(|resource| resource.passes(now))
                && !is_authorized(exchange)
                && lookup.obstacle(&head.headers).is_none();
            if may_lead {
                match cache.store.fill(&lookup.key) {
                    Filling::Lead(lead) => {
                        // What another has fetched may have been stored since the store was looked at.
                        let newer = cache.store.get(&lookup.key).is_some_and(|resource| {
                            let is_other = |stored: &Arc<Stored>| {
                                lookup.stored.as_ref().is_none_or(|before| !Arc::ptr_eq(before, stored))
                            };
                            resource.select(&head.headers).is_some_and(is_other)
                        });
                        if newer {
                            continue;
                        }
                        lookup.lead = Some(lead);
                    }
                    Filling::Follow(fill) => {
                        let followed = Box::pin(fill.followed(cache.waiters, |coming| {
                            !has_conditions && coming.selection.matches(&head.headers)
                        }));
                        let followed = before(deadline, context.worker.clock.within(wait, followed)).await;
                        match followed.map_err(|_| Error::DeadlineExceeded)? {
                            Ok(Some(Followed::Coming(coming))) => {
                                return Ok(Lookup::Answer(Answer::from_cache(
                                    lookup.read_along(&coming, observer),
                                )));
                            }
                            Ok(Some(Followed::Over(FillResult::Stored(stored))))
                                if stored.selection.matches(&head.headers) =>
                            {
                                let served = Served::Collapsed;
                                return Ok(Lookup::Answer(lookup.answered(
                                    &head.headers,
                                    stored,
                                    served,
                                    route,
                                    observer,
                                )));
                            }
                            // Either of another variant, or somebody else's turn.
                            Ok(Some(Followed::Over(FillResult::Stored(_) | FillResult::Abandoned))) => {
                                continue;
                            }
                            Ok(Some(Followed::Over(FillResult::Passed)) | None) | Err(_) => {}
                        }
                    }
                }
            }
            before_conditions = Some(head.headers.clone());
            if let Some(conditions) = conditions
                && head.method == Method::GET
            {
                lookup.validates = true;
                policy::with_conditions(&mut exchange.request.headers, conditions);
            }
            break;
        }
        lookup.request = before_conditions.unwrap_or_else(|| exchange.request.headers.clone());
        lookup.observe(exchange);
        lookup.asked = Time::now();
        Ok(Lookup::Ask(Some(Box::new(lookup))))
    }
}

/// What is to be done with a request, by what is stored for it.
enum Judged {
    Answers {
        stored: Arc<Stored>,
        served: Served,
        /// It is renewed meanwhile.
        is_renewed: bool,
    },
    /// Nothing may be used, and the request asks for nothing else.
    Refused,
    Asks(Forward),
}

/// What the cache would do for a request.
pub(super) struct Foreseen {
    pub key: Key,
    pub what: Result<Served, Error>,
    /// What is stored for it, in memory or on disk, and how old it is.
    pub stored: Option<(Arc<Stored>, Time)>,
    /// Why no answer to it would be stored, as far as the request says.
    pub obstacle: Option<&'static str>,
}

impl Flight<'_> {
    /// What [`Flight::lookup`] would find now; None on a route that does not cache. Nothing is counted, fetched or renewed, and
    /// nobody is waited for.
    pub(super) async fn foresee(&mut self) -> Result<Option<Foreseen>, Error> {
        let Self { context, route, target, exchange, body, .. } = self;
        let Some(rules) = route.cache.as_ref().filter(|_| !self.is_upgrade) else { return Ok(None) };
        let head = &exchange.request;
        let mut lookup = CacheLookup::new(context, rules, target, exchange);
        let now = Time::now();
        let what = match lookup.is_kept_out(context, rules, head, body.as_mut(), None).await? {
            Some(forward) => Ok(Served::Forwarded(forward)),
            None => {
                let wait = lookup.cache.wait;
                let resource = lookup.select(context, &head.headers, wait, None).await?;
                match lookup.judged(rules, exchange, resource.as_ref(), now) {
                    Judged::Answers { served, .. } => Ok(served),
                    Judged::Refused => Err(Error::OnlyIfCached),
                    Judged::Asks(forward) => Ok(Served::Forwarded(forward)),
                }
            }
        };
        if let Ok(Served::Forwarded(forward)) = what {
            lookup.forward = forward;
        }
        lookup.request = head.headers.clone();
        lookup.observe(exchange);
        let obstacle = lookup.obstacle(&lookup.request).or(lookup.is_authorized.then_some(
            "the request came with credentials, and only a response that says it is for others is stored",
        ));
        let stored = lookup.stored.take().map(|stored| (stored, now));
        Ok(Some(Foreseen { stored, key: lookup.key, what, obstacle }))
    }
}

/// What of a request is asked of the cache.
enum Question {
    /// It goes to the upstream, whatever is stored.
    None,
    /// What its target names.
    Target,
    /// That, with a body of so many bytes.
    Body(usize),
}

fn question(rules: &Rules, head: &http::request::Parts, body: Option<&Arriving>) -> Question {
    let Some(body) = body else { return Question::Target };
    match head.method {
        Method::GET | Method::HEAD if rules.methods.get && body.is_end_stream() => Question::Target,
        Method::POST if rules.methods.post && !has_conditions(&head.headers) => {
            let length = body.size_hint().exact().filter(|length| *length <= rules.key_body as u64);
            // Whoever waits to be asked for the body is asked by the upstream.
            let length = length.filter(|_| !head.headers.contains_key(header::EXPECT));
            length.map_or(Question::None, |length| Question::Body(length as usize))
        }
        _ => Question::None,
    }
}

/// Conditions and ranges, which are about the answer to GET.
fn has_conditions(headers: &HeaderMap) -> bool {
    [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE]
        .iter()
        .any(|name| headers.contains_key(name))
}

/// Reads a body of this length, so that it can be sent all the same.
async fn digest(context: &Context, body: &mut Arriving, length: usize) -> Result<[u8; 32], Error> {
    let mut digest = Sha256::new();
    let limit = context.connection.listener.timeouts.body.get();
    let reading = body.read(length, |piece| digest.update(piece));
    match context.worker.clock.within(limit, reading).await {
        Ok(Ok(())) => Ok(digest.finalize().into()),
        Ok(Err(_)) => Err(Error::ClientBroke(context.connection.fault())),
        Err(_) => Err(Error::ClientBroke(Some(StatusCode::REQUEST_TIMEOUT))),
    }
}

impl Flight<'_> {
    /// Looks at what came back: is it what is to be sent?
    pub(super) fn on_upstream_response(
        &mut self,
        lookup: &mut Option<Box<CacheLookup>>,
        answer: Result<(Response<Incoming>, Sent), Error>,
    ) -> Result<Answer, Error> {
        let Self { observer, route, exchange, .. } = self;
        let (Some(present), Some(rules)) = (lookup.as_deref_mut(), &route.cache) else {
            return answer.map(|(response, sent)| Answer::from_upstream(response, sent));
        };
        if present.validates {
            // Response hooks see the request as it was before the cache asked on its own behalf.
            let forwarded = std::mem::take(&mut exchange.request.headers);
            exchange.request.headers = if forwarded.is_empty() { forwarded } else { present.request.clone() };
        }
        present.is_changed = exchange.request_edits() != present.request_edits;
        let now = Time::now();
        let (response, sent) = match answer {
            Ok(answer) => answer,
            Err(error) => {
                let (is_unreachable, kind) = (error.disposition().is_cut_off, error.kind());
                return match present.substitute(is_unreachable, true, now) {
                    Some(stored) => {
                        let (name, error) = (&*route.name, with_sources(&error));
                        sampled!(warn, of: (name, kind), route = name, error, "stale response served");
                        Ok(take(lookup).settled(stored, Served::Stale, route, observer))
                    }
                    None => {
                        if let Some(lead) = present.lead.take() {
                            lead.end(FillResult::Passed);
                        }
                        Err(error)
                    }
                };
            }
        };
        if present.validates && response.status() == StatusCode::NOT_MODIFIED {
            // Nothing follows, so that its connection is free.
            sent.finish();
            let present = take(lookup);
            return Ok(present.validated(rules, response.headers(), now, route, observer));
        }
        let is_error = matches!(response.status().as_u16(), 500 | 502 | 503 | 504);
        if let Some(stored) = present.substitute(is_error, false, now) {
            return Ok(take(lookup).settled(stored, Served::Stale, route, observer));
        }
        Ok(Answer::from_upstream(response, sent))
    }
}

impl Flight<'_> {
    /// Has a response stored, if it may be, while it goes to the client; and what it puts out of date forgotten.
    pub(super) fn store_response(&mut self, lookup: Option<Box<CacheLookup>>, answer: &mut Answer) {
        let Self { context, observer, route, exchange, .. } = self;
        let (Some(lookup), Some(rules)) = (lookup, route.cache.as_ref()) else { return };
        let nothing = Response::new(Content::Whole(Bytes::new()));
        let (mut head, body) = std::mem::replace(&mut answer.response, nothing).into_parts();
        let now = Time::now();
        if lookup.method == Method::HEAD {
            lookup.head(rules, &head, now);
        } else if !lookup.is_question && policy::invalidates(&lookup.method, head.status) {
            lookup.invalidate(rules, &head, now);
        }
        let served = Served::Forwarded(lookup.forward);
        lookup.report(served, observer);
        let Some((freshness, selection, headers)) = lookup.storable(rules, exchange, &head, now) else {
            lookup.pass(&head, now);
            status::tell(&mut head.headers, served, None, now);
            answer.response = Response::from_parts(head, body);
            return;
        };
        let stored = Stored {
            status: head.status,
            tags: tags(&headers),
            headers,
            body: StoredBody::default(),
            encoded: Arc::default(),
            freshness,
            selection,
        };
        status::tell(&mut head.headers, served, Some(&stored.freshness), now);
        if !head.headers.contains_key(header::DATE) {
            head.headers.extend(stored.headers.get(header::DATE).map(|date| (header::DATE, date.clone())));
        }
        let body = match body {
            Content::Streaming(incoming) => match answer.sent.take() {
                Some(sent) => {
                    observer.served_by(sent.endpoint(), sent.attempts);
                    answer.endpoint = Some(sent.endpoint().address.clone());
                    lookup.store_along(context, stored, incoming, sent)
                }
                None => Content::Streaming(incoming),
            },
            Content::Whole(bytes) => {
                lookup
                    .store(Stored { body: StoredBody::new(vec![Bytes::copy_from_slice(&bytes)]), ..stored });
                Content::Whole(bytes)
            }
            // What hooks have made of a body passes through.
            content @ (Content::Pieces(_) | Content::Changed(_)) => content,
        };
        answer.response = Response::from_parts(head, body);
    }
}

/// What a 304, or a 200 to HEAD, has made of a stored response.
enum Renewed {
    /// It is stored in the place of the other.
    Stored(Arc<Stored>),
    /// It is for the client that asked, and nobody else.
    ForOne(Arc<Stored>),
}

/// The visit that is known to be there.
fn take(lookup: &mut Option<Box<CacheLookup>>) -> Box<CacheLookup> {
    lookup.take().expect("only a lookup comes here")
}

impl CacheLookup {
    fn new(context: &Context, rules: &Rules, target: &Target, exchange: &Exchange) -> Self {
        let head = &exchange.request;
        let directives = match rules.terms.ignores_request_directives {
            true => RequestDirectives::default(),
            false => RequestDirectives::of(&head.headers),
        };
        Self {
            cache: context.generation.snapshot.cache.clone(),
            writer: context.worker.writer,
            key: Key::new(&rules.key, exchange.scheme, &head.uri, &head.headers, &target.upstream.name),
            method: head.method.clone(),
            is_question: false,
            target: head.uri.clone(),
            scheme: exchange.scheme,
            // These two are known when the upstream is asked.
            request: HeaderMap::new(),
            asked: Time(0),
            directives,
            is_authorized: false,
            derived: SmallVec::new(),
            request_edits: 0,
            is_changed: false,
            stored: None,
            validates: false,
            lead: None,
            forward: Forward::UriMiss,
        }
    }

    /// Notes what is known of the request now that no plugin is to change it any more.
    fn observe(&mut self, exchange: &Exchange) {
        self.is_authorized = is_authorized(exchange);
        self.derived = exchange.taint.iter().flat_map(|taint| taint.derived()).cloned().collect();
        self.request_edits = exchange.request_edits();
    }

    /// Why the cache is not asked, if it is not. Reads the body where that is part of the question.
    async fn is_kept_out(
        &mut self,
        context: &Context,
        rules: &Rules,
        head: &http::request::Parts,
        body: Option<&mut Arriving>,
        deadline: Option<&Timer>,
    ) -> Result<Option<Forward>, Error> {
        match question(rules, head, body.as_deref()) {
            Question::None => return Ok(Some(Forward::Method)),
            Question::Target => {}
            Question::Body(length) => {
                // In a box, since most requests do not wait for it.
                let Some(body) = body else { return Ok(None) };
                let reading = Box::pin(digest(context, body, length));
                let digest = before(deadline, reading).await.map_err(|_| Error::DeadlineExceeded)??;
                self.is_question = true;
                self.key = self.key.with_body(&head.headers, &digest);
            }
        }
        let is_kept_out = self.directives.no_store || policy::is_met_elsewhere(&head.headers);
        Ok(is_kept_out.then_some(Forward::Bypass))
    }

    /// Selects what is stored for a request, in memory or on disk, for which it waits so long at most. All that is stored
    /// under its key.
    async fn select(
        &mut self,
        context: &Context,
        headers: &HeaderMap,
        wait: Duration,
        deadline: Option<&Timer>,
    ) -> Result<Option<Resource>, Error> {
        let Cache { store, waiters, .. } = &*self.cache;
        let resource = store.get(&self.key);
        self.stored = resource.as_ref().and_then(|resource| resource.select(headers)).cloned();
        if self.stored.is_some() || store.disk().is_none() {
            return Ok(resource);
        }
        // In a box, since most requests do not wait for it.
        let reading = Box::pin(store.from_disk(&self.key, headers, *waiters));
        let read = before(deadline, context.worker.clock.within(wait, reading)).await;
        self.stored = read.map_err(|_| Error::DeadlineExceeded)?.ok().flatten();
        Ok(store.get(&self.key))
    }

    /// What is to be done, as far as what was selected tells; `resource` is all that is stored under its key.
    fn judged(&self, rules: &Rules, exchange: &Exchange, resource: Option<&Resource>, now: Time) -> Judged {
        if let Some(stored) = &self.stored {
            let (served, is_renewed) = match policy::reuse(&stored.freshness, &self.directives, now) {
                Reuse::Fresh => (Some(Served::Hit), false),
                Reuse::Stale => (Some(Served::Stale), false),
                Reuse::StaleWhileRevalidate => {
                    (self.may_renew(rules, exchange, stored, now).then_some(Served::Stale), true)
                }
                Reuse::Validate => (None, false),
            };
            if let Some(served) = served {
                return Judged::Answers { stored: stored.clone(), served, is_renewed };
            }
        }
        if self.directives.only_if_cached {
            return Judged::Refused;
        }
        Judged::Asks(match (&self.stored, resource) {
            (Some(stored), _) if stored.freshness.left(now).is_some() => Forward::Request,
            (Some(_), _) => Forward::Stale,
            (None, Some(resource)) if resource.has_variants() => Forward::VaryMiss,
            (None, _) => Forward::UriMiss,
        })
    }

    /// Whether what the upstream answers to this request could take the place of what is stored.
    fn may_renew(&self, rules: &Rules, exchange: &Exchange, stored: &Stored, now: Time) -> bool {
        let headers = &exchange.request.headers;
        // The body of a question is not there any more when it is renewed.
        if self.is_question || self.obstacle(headers).is_some() {
            return false;
        }
        let derived: SmallVec<[HeaderName; 2]> =
            exchange.taint.iter().flat_map(|taint| taint.derived()).cloned().collect();
        let asked = Asked {
            method: &Method::GET,
            headers,
            is_authorized: is_authorized(exchange),
            derived: &derived,
            sent: now,
        };
        let judged = policy::judge(asked, stored.status, &stored.headers, &rules.terms, now);
        matches!(judged, Judgement::Store { .. })
    }

    fn report(&self, served: Served, observer: &mut Observer) {
        self.cache.count(served, self.writer);
        observer.cached(served);
    }

    /// The upstream is to be asked.
    fn ask(mut self, forward: Forward, exchange: &Exchange) -> Lookup {
        self.forward = forward;
        self.request = exchange.request.headers.clone();
        self.observe(exchange);
        self.asked = Time::now();
        Lookup::Ask(Some(Box::new(self)))
    }

    fn answered(
        self,
        request: &HeaderMap,
        stored: Arc<Stored>,
        served: Served,
        route: &Route,
        observer: &mut Observer,
    ) -> Answer {
        let response = self.answer(request, &stored, served, observer);
        let kept =
            route.compress.is_some().then(|| Kept { store: self.cache.store.clone(), key: self.key, stored });
        Answer { kept, ..Answer::from_cache(response) }
    }

    /// The same after the upstream was asked.
    fn settled(
        mut self: Box<Self>,
        stored: Arc<Stored>,
        served: Served,
        route: &Route,
        observer: &mut Observer,
    ) -> Answer {
        let request = std::mem::take(&mut self.request);
        self.answered(&request, stored, served, route, observer)
    }

    /// What may be sent in the place of a failure.
    fn substitute(&self, has_failed: bool, is_unreachable: bool, now: Time) -> Option<Arc<Stored>> {
        let is_read = self.is_question || self.method != Method::POST;
        let stored = self.stored.as_ref().filter(|_| has_failed && is_read)?;
        policy::usable_on_failure(&stored.freshness, &self.directives, is_unreachable, now)
            .then(|| stored.clone())
    }

    /// The origin says that what is stored is still good.
    fn validated(
        mut self: Box<Self>,
        rules: &Rules,
        not_modified: &HeaderMap,
        now: Time,
        route: &Route,
        observer: &mut Observer,
    ) -> Answer {
        let stored = self.stored.clone().expect("only what is stored is validated");
        let not_modified = storable_headers(not_modified, &[]);
        let (renewed, is_for_all) = match Update::of(&stored.headers, &not_modified) {
            Update::Fields(headers) => match self.renewed(rules, &stored, headers, now) {
                Renewed::Stored(renewed) => (renewed, true),
                Renewed::ForOne(renewed) => (renewed, false),
            },
            Update::Other => (stored.clone(), true),
        };
        if let Some(lead) = self.lead.take() {
            lead.end(if is_for_all { FillResult::Stored(renewed.clone()) } else { FillResult::Passed });
        }
        self.settled(renewed, Served::Revalidated, route, observer)
    }
}

fn set(headers: &mut HeaderMap, name: http::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// Renews a stored response in the background. The request is that of the client who found it stale, as request
/// hooks have left it; they do not run again.
fn renew(
    context: &Context,
    route: &Route,
    target: &Target,
    exchange: &Exchange,
    stored: &Arc<Stored>,
    lead: Lead,
) {
    let Some(rules) = &route.cache else { return };
    let (mut head, ()) = http::Request::new(()).into_parts();
    head.method = Method::GET;
    head.version = exchange.request.version;
    head.uri = exchange.request.uri.clone();
    head.headers = exchange.request.headers.clone();
    policy::forget_conditions(&mut head.headers);
    head.headers.remove(header::CACHE_CONTROL);
    let mut renewing = Exchange::new(
        head,
        exchange.client,
        exchange.scheme,
        exchange.route.clone(),
        exchange.upstream.clone(),
    );
    (renewing.certificate, renewing.taint) = (exchange.certificate.clone(), exchange.taint.clone());
    renewing.asked_host = exchange.asked_host.clone();
    let mut exchange = renewing;
    let mut lookup = CacheLookup::new(context, rules, target, &exchange);
    lookup.stored = Some(stored.clone());
    lookup.lead = Some(lead);
    lookup.forward = Forward::Stale;
    lookup.asked = Time::now();
    lookup.request = exchange.request.headers.clone();
    lookup.observe(&exchange);
    if let Some(conditions) = policy::conditional_headers(&stored.headers) {
        lookup.validates = true;
        policy::with_conditions(&mut exchange.request.headers, conditions);
    }
    let context = Context {
        worker: context.worker.clone(),
        generation: context.generation.clone(),
        connection: Rc::new(context.connection.without_turn()),
        meter: Meter::start(),
        call: None,
        scheme: context.scheme.clone(),
    };
    let snapshot = &context.generation.snapshot;
    let route = snapshot.routes.iter().position(|other| std::ptr::eq(other, route));
    let target = snapshot.upstreams.iter().position(|other| std::ptr::eq(other, target));
    let Some((route, target)) = route.zip(target) else { return };
    let drain = context.worker.drain.clone();
    drain.spawn_local(async move {
        let snapshot = context.generation.snapshot.clone();
        let (route, target) = (&snapshot.routes[route], &snapshot.upstreams[target]);
        let mut observer = Observer::Nobody;
        let mut flight = Flight::new(&context, route, target, RecordedExchange::new(exchange), &mut observer);
        let mut lookup = Some(Box::new(lookup));
        let answer = flight.send().await;
        let Ok(mut answer) = flight.on_upstream_response(&mut lookup, answer) else { return };
        if lookup.is_some()
            && route.cache.as_ref().is_some_and(Rules::stores_what_hooks_made)
            && hooks::on_response(&context, route, &mut flight.exchange, &mut answer).await.is_err()
        {
            return;
        }
        flight.store_response(lookup, &mut answer);
    });
}
