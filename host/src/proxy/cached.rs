//! What does the cache do for this request?
//!
//! `lookup` may answer before anything is sent; `settle` looks at what came back, and may answer with what is
//! stored instead; `keep` has it stored while it goes to the client. Routes that do not cache pass through all
//! three without a trace.

use std::{future::poll_fn, pin::Pin, rc::Rc, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, Version, header, response};
use hyper::body::Incoming;

use super::{
    Context, Error, hooks,
    meter::Meter,
    record::{self, Record},
    send::{self, Expects, Sent},
};
use crate::{
    body::Content,
    cache::{
        Cache, Rules,
        fill::{Coming, Filling, Followed, Lead, Outcome, Stream},
        key::{self, Key},
        policy::{self, Freshness, Judgement, Ranged, RequestDirectives, Reuse, Selection, Time, Update},
        status::{self, Forward, Served},
        stored::{Stored, StoredBody, storable_headers, tags},
    },
    config::ResponseHooks,
    plugin::{Exchange, InHand},
    snapshot::{Route, Target},
    telemetry::Writer,
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
    Ask(Option<Box<Visit>>),
}

/// A request on its way through the cache.
pub(super) struct Visit {
    cache: Arc<Cache>,
    writer: Writer,
    key: Key,
    method: Method,
    target: Uri,
    scheme: &'static str,
    /// As it was before the cache put its own conditions.
    request: HeaderMap,
    directives: RequestDirectives,
    /// What is stored and was selected, but could not be used as it is.
    stored: Option<Arc<Stored>>,
    /// The origin is asked whether `stored` is still good.
    validates: bool,
    /// Others wait for what this request fetches.
    lead: Option<Lead>,
    forward: Forward,
    asked: Time,
}

/// What an upstream has answered, or what is stored in its place.
pub(super) struct Answer {
    pub response: Response<Content>,
    /// How it was brought; none for what is stored.
    pub sent: Option<Sent>,
    /// The endpoint that answered, where `sent` is needed elsewhere.
    pub endpoint: Option<HeaderValue>,
    pub from_cache: bool,
}

impl Answer {
    fn from_cache(response: Response<Content>) -> Self {
        Self { response, sent: None, endpoint: None, from_cache: true }
    }

    fn from_upstream(response: Response<Incoming>, sent: Sent) -> Self {
        Self {
            response: response.map(Content::Streaming),
            sent: Some(sent),
            endpoint: None,
            from_cache: false,
        }
    }
}

/// Looks for a stored response that answers the request.
pub(super) async fn lookup(
    context: &Context,
    route: &Route,
    target: &Target,
    exchange: &mut InHand,
    body: &Incoming,
    record: &mut Option<Box<Record>>,
) -> Result<Lookup, Error> {
    /// How often a request takes the place of one that has given up its lead.
    const TURNS: usize = 3;
    let Some(rules) = &route.cache else { return Ok(Lookup::Ask(None)) };
    let cache = &context.generation.snapshot.cache;
    let has_body = !http_body::Body::is_end_stream(body);
    let head = &exchange.request;
    let mut visit = Visit::new(context, rules, target, exchange);
    let is_read = matches!(head.method, Method::GET | Method::HEAD) && !has_body;
    if !is_read {
        visit.forward = Forward::Method;
        return Ok(Lookup::Ask(Some(Box::new(visit))));
    }
    if visit.directives.no_store || policy::is_met_elsewhere(&head.headers) {
        visit.forward = Forward::Bypass;
        return Ok(Lookup::Ask(Some(Box::new(visit))));
    }
    for _ in 0..TURNS {
        let now = Time::now();
        let resource = cache.store.get(&visit.key);
        visit.stored = resource.as_ref().and_then(|resource| resource.select(&head.headers)).cloned();
        if let Some(stored) = &visit.stored {
            let served = match policy::reuse(&stored.freshness, &visit.directives, now) {
                Reuse::Fresh => Some(Served::Hit),
                Reuse::Stale => Some(Served::Stale),
                Reuse::StaleWhileRevalidate => {
                    if let Filling::Lead(lead) = cache.store.fill(&visit.key) {
                        renew(context, route, target, exchange, stored, lead);
                    }
                    Some(Served::Stale)
                }
                Reuse::Validate => None,
            };
            if let Some(served) = served {
                return Ok(Lookup::Answer(Answer::from_cache(visit.answer(stored, served, record))));
            }
        }
        if visit.directives.only_if_cached {
            return Err(Error::OnlyIfCached);
        }
        visit.forward = match (&visit.stored, &resource) {
            (Some(stored), _) if stored.freshness.left(now).is_some() => Forward::Request,
            (Some(_), _) => Forward::Stale,
            (None, Some(resource)) if resource.has_variants() => Forward::VaryMiss,
            (None, _) => Forward::UriMiss,
        };
        let conditions =
            visit.stored.as_ref().and_then(|stored| policy::conditional_headers(&stored.headers));
        let has_conditions = [header::IF_NONE_MATCH, header::IF_MODIFIED_SINCE, header::RANGE]
            .iter()
            .any(|name| head.headers.contains_key(name));
        let may_lead = head.method == Method::GET
            && (conditions.is_some() || !has_conditions)
            && !head.headers.contains_key(header::AUTHORIZATION)
            && !resource.is_some_and(|resource| resource.passes(now));
        if may_lead {
            match cache.store.fill(&visit.key) {
                Filling::Lead(lead) => visit.lead = Some(lead),
                Filling::Follow(fill) => {
                    let followed = fill.followed(cache.waiters, |coming| {
                        !has_conditions && coming.selection.matches(&head.headers)
                    });
                    match context.worker.clock.within(cache.wait, followed).await {
                        Ok(Some(Followed::Coming(coming))) => {
                            return Ok(Lookup::Answer(Answer::from_cache(visit.read_along(&coming, record))));
                        }
                        Ok(Some(Followed::Over(Outcome::Stored(stored))))
                            if stored.selection.matches(&head.headers) =>
                        {
                            return Ok(Lookup::Answer(Answer::from_cache(visit.answer(
                                &stored,
                                Served::Collapsed,
                                record,
                            ))));
                        }
                        // Either of another variant, or somebody else's turn.
                        Ok(Some(Followed::Over(Outcome::Stored(_) | Outcome::Abandoned))) => continue,
                        Ok(Some(Followed::Over(Outcome::Passed)) | None) | Err(_) => {}
                    }
                }
            }
        }
        if let Some(conditions) = conditions
            && head.method == Method::GET
        {
            visit.validates = true;
            policy::with_conditions(&mut exchange.request.headers, conditions);
        }
        break;
    }
    visit.asked = Time::now();
    Ok(Lookup::Ask(Some(Box::new(visit))))
}

/// Looks at what came back: is it what is to be sent?
pub(super) fn settle(
    visit: &mut Option<Box<Visit>>,
    rules: Option<&Rules>,
    exchange: &mut InHand,
    answer: Result<(Response<Incoming>, Sent), Error>,
    record: &mut Option<Box<Record>>,
) -> Result<Answer, Error> {
    let (Some(present), Some(rules)) = (visit.as_deref_mut(), rules) else {
        return answer.map(|(response, sent)| Answer::from_upstream(response, sent));
    };
    if present.validates {
        // Response hooks see the request as it was before the cache asked on its own behalf.
        let forwarded = std::mem::take(&mut exchange.request.headers);
        exchange.request.headers = if forwarded.is_empty() { forwarded } else { present.request.clone() };
    }
    let now = Time::now();
    let (response, sent) = match answer {
        Ok(answer) => answer,
        Err(error) => {
            let is_unreachable = error.is_cut_off();
            return match present.substitute(is_unreachable, true, now) {
                Some(stored) => {
                    tracing::warn!(error = %crate::telemetry::with_sources(&error), "answered with what is stale");
                    Ok(take(visit).answered(&stored, Served::Stale, record))
                }
                None => {
                    if let Some(lead) = present.lead.take() {
                        lead.end(Outcome::Passed);
                    }
                    Err(error)
                }
            };
        }
    };
    if present.validates && response.status() == StatusCode::NOT_MODIFIED {
        // Nothing follows, so that its connection is free.
        sent.finish();
        let present = take(visit);
        return Ok(present.validated(rules, response.headers(), now, record));
    }
    let is_error = matches!(response.status().as_u16(), 500 | 502 | 503 | 504);
    if let Some(stored) = present.substitute(is_error, false, now) {
        return Ok(take(visit).answered(&stored, Served::Stale, record));
    }
    Ok(Answer::from_upstream(response, sent))
}

/// Has a response stored, if it may be, while it goes to the client; and what it puts out of date forgotten.
pub(super) fn keep(
    visit: Option<Box<Visit>>,
    context: &Context,
    rules: Option<&Rules>,
    answer: Answer,
    record: &mut Option<Box<Record>>,
) -> Answer {
    let (Some(visit), Some(rules)) = (visit, rules) else { return answer };
    let Answer { response, sent, mut endpoint, from_cache } = answer;
    let (mut head, body) = response.into_parts();
    let now = Time::now();
    if visit.method == Method::HEAD {
        visit.head(rules, &head, now);
    } else if policy::invalidates(&visit.method, head.status) {
        visit.invalidate(rules, &head, now);
    }
    let served = Served::Forwarded(visit.forward);
    visit.told(served, record);
    let Some((freshness, selection, headers)) = visit.storable(rules, &head, now) else {
        visit.pass(&head, now);
        status::tell(&mut head.headers, served, None, now);
        return Answer { response: Response::from_parts(head, body), sent, endpoint, from_cache };
    };
    let stored = Stored {
        status: head.status,
        tags: tags(&headers),
        headers,
        body: StoredBody::default(),
        freshness,
        selection,
    };
    status::tell(&mut head.headers, served, Some(&stored.freshness), now);
    if !head.headers.contains_key(header::DATE) {
        head.headers.extend(stored.headers.get(header::DATE).map(|date| (header::DATE, date.clone())));
    }
    let (body, sent) = match body {
        Content::Streaming(incoming) => match sent {
            Some(sent) => {
                record::served(record, &sent);
                endpoint = Some(sent.endpoint().address.clone());
                (visit.store_along(context, stored, incoming, sent), None)
            }
            None => (Content::Streaming(incoming), None),
        },
        Content::Whole(bytes) => {
            visit.store(Stored { body: StoredBody::new(vec![Bytes::copy_from_slice(&bytes)]), ..stored });
            (Content::Whole(bytes), sent)
        }
        // What hooks have made of a body passes through.
        Content::Changed(change) => (Content::Changed(change), sent),
    };
    Answer { response: Response::from_parts(head, body), sent, endpoint, from_cache }
}

/// The visit that is known to be there.
fn take(visit: &mut Option<Box<Visit>>) -> Box<Visit> {
    visit.take().expect("only a visit comes here")
}

impl Visit {
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
            target: head.uri.clone(),
            scheme: exchange.scheme,
            request: head.headers.clone(),
            directives,
            stored: None,
            validates: false,
            lead: None,
            forward: Forward::UriMiss,
            asked: Time::now(),
        }
    }

    fn told(&self, served: Served, record: &mut Option<Box<Record>>) {
        self.cache.count(served, self.writer);
        record::cached(record, served.name());
    }

    fn answered(
        self: Box<Self>,
        stored: &Arc<Stored>,
        served: Served,
        record: &mut Option<Box<Record>>,
    ) -> Answer {
        Answer::from_cache(self.answer(stored, served, record))
    }

    /// What a client gets of a stored response: all of it, a part, or the word that it has it already.
    fn answer(&self, stored: &Stored, served: Served, record: &mut Option<Box<Record>>) -> Response<Content> {
        let now = Time::now();
        self.told(served, record);
        let length = stored.body.len();
        let mut response = Response::new(Content::Whole(Bytes::new()));
        if policy::is_not_modified(&self.request, stored.status, &stored.headers, now) {
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.headers_mut() = policy::not_modified_headers(&stored.headers);
        } else {
            *response.status_mut() = stored.status;
            *response.headers_mut() = stored.headers.clone();
            let ranged = match self.method {
                Method::HEAD => Ranged::Whole,
                _ => policy::requested_range(&self.request, stored.status, &stored.headers, length, now),
            };
            let stated = match ranged {
                Ranged::Whole if self.method == Method::HEAD => {
                    (!stored.headers.contains_key(header::CONTENT_LENGTH)
                        && stored.status != StatusCode::NO_CONTENT)
                        .then_some(length)
                }
                Ranged::Whole => {
                    *response.body_mut() = stored.body.content();
                    None
                }
                Ranged::Part(from, to) => {
                    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
                    *response.body_mut() = stored.body.part(from, to);
                    let range = format!("bytes {from}-{}/{length}", to - 1);
                    set(response.headers_mut(), header::CONTENT_RANGE, &range);
                    Some(to - from)
                }
                Ranged::Unsatisfiable => {
                    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
                    set(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{length}"));
                    Some(0)
                }
            };
            if let Some(stated) = stated {
                response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(stated));
            }
        }
        status::set_age(response.headers_mut(), &stored.freshness, now);
        status::tell(response.headers_mut(), served, Some(&stored.freshness), now);
        response
    }

    /// What another request fetches, while it comes.
    fn read_along(&self, coming: &Coming, record: &mut Option<Box<Record>>) -> Response<Content> {
        self.told(Served::Collapsed, record);
        let content = Content::Changed(Box::new(coming.stream.reader(coming.length)));
        let mut response = Response::new(content);
        *response.status_mut() = coming.status;
        *response.headers_mut() = coming.headers.clone();
        status::tell(response.headers_mut(), Served::Collapsed, None, Time::now());
        response
    }

    /// What may be sent in the place of a failure.
    fn substitute(&self, has_failed: bool, is_unreachable: bool, now: Time) -> Option<Arc<Stored>> {
        let stored = self.stored.as_ref().filter(|_| has_failed && self.method != Method::POST)?;
        policy::usable_on_failure(&stored.freshness, &self.directives, is_unreachable, now)
            .then(|| stored.clone())
    }

    /// The origin says that what is stored is still good.
    fn validated(
        mut self: Box<Self>,
        rules: &Rules,
        not_modified: &HeaderMap,
        now: Time,
        record: &mut Option<Box<Record>>,
    ) -> Answer {
        let stored = self.stored.clone().expect("only what is stored is validated");
        let not_modified = storable_headers(not_modified, &[]);
        let renewed = match Update::of(&stored.headers, &not_modified) {
            Update::Fields(headers) => self.renewed(rules, &stored, headers, now),
            Update::Other => stored.clone(),
        };
        if let Some(lead) = self.lead.take() {
            lead.end(Outcome::Stored(renewed.clone()));
        }
        self.answered(&renewed, Served::Revalidated, record)
    }

    /// A stored response with new fields, put in the place of the old if it may be stored still.
    fn renewed(&self, rules: &Rules, stored: &Arc<Stored>, mut headers: HeaderMap, now: Time) -> Arc<Stored> {
        if rules.response_hooks == ResponseHooks::Once {
            headers = only_freshness(&stored.headers, &headers);
        }
        ensure_date(&mut headers, now);
        let judged = policy::judge(
            &Method::GET,
            &self.request,
            stored.status,
            &headers,
            &rules.terms,
            self.asked,
            now,
        );
        match judged {
            Judgement::Store { freshness, vary, omitted } => {
                let headers = storable_headers(&headers, &omitted);
                let selection = vary.selection(&self.request);
                let tags = tags(&headers);
                let renewed = Stored { headers, freshness, selection, tags, ..Stored::clone(stored) };
                let renewed = Arc::new(renewed);
                self.cache.store.renew(&self.key, stored, renewed.clone());
                renewed
            }
            Judgement::Pass(_) => {
                self.cache.store.drop_one(&self.key, stored);
                Arc::new(Stored { headers, ..Stored::clone(stored) })
            }
        }
    }

    /// What a response to HEAD says of what is stored for GET (RFC 9111, section 4.3.5).
    fn head(&self, rules: &Rules, head: &response::Parts, now: Time) {
        let Some(stored) = self.stored.as_ref().filter(|_| head.status == StatusCode::OK) else { return };
        let fields = storable_headers(&head.headers, &[]);
        match policy::update_head(&stored.headers, stored.body.len(), &fields) {
            Some(headers) => drop(self.renewed(rules, stored, headers, now)),
            None => {
                let mut stale = Stored::clone(stored);
                stale.freshness.lifetime = 0;
                self.cache.store.renew(&self.key, stored, Arc::new(stale));
            }
        }
    }

    /// Forgets what an answer to an unsafe method has put out of date.
    fn invalidate(&self, rules: &Rules, head: &response::Parts, now: Time) {
        self.cache.store.invalidate(&self.key, now);
        for field in [header::LOCATION, header::CONTENT_LOCATION] {
            if let Some(key) = self.key_of(rules, &field, head) {
                self.cache.store.invalidate(&key, now);
            }
        }
    }

    /// The key of what a field of the response names, if that is of the same origin.
    fn key_of(&self, rules: &Rules, field: &http::HeaderName, head: &response::Parts) -> Option<Key> {
        let (scheme, authority) = key::origin(self.scheme, &self.request);
        let target = policy::same_origin_target(field, &head.headers, &scheme, &authority, &self.target)?;
        let upstream = self.key.upstream();
        Some(Key::new(&rules.key, self.scheme, &target.parse().ok()?, &self.request, upstream))
    }

    /// Whether and how a response is stored.
    fn storable(
        &self,
        rules: &Rules,
        head: &response::Parts,
        now: Time,
    ) -> Option<(Freshness, Selection, HeaderMap)> {
        if matches!(self.forward, Forward::Bypass) || changes_unkeyed(&self.request) {
            return None;
        }
        if self.method == Method::POST {
            // RFC 9110, section 9.3.3: explicitly fresh, and of what its target is.
            let is_of_target =
                self.key_of(rules, &header::CONTENT_LOCATION, head).as_ref() == Some(&self.key);
            let is_explicit = head.headers.contains_key(header::CACHE_CONTROL)
                || head.headers.contains_key(header::EXPIRES);
            if !is_of_target || !is_explicit || head.status != StatusCode::OK {
                return None;
            }
        }
        let length =
            head.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        if length.is_some_and(|length: u64| length > self.cache.max_object) {
            return None;
        }
        let mut headers = head.headers.clone();
        ensure_date(&mut headers, now);
        let judged =
            policy::judge(&self.method, &self.request, head.status, &headers, &rules.terms, self.asked, now);
        match judged {
            Judgement::Store { freshness, vary, omitted } => {
                let selection = vary.selection(&self.request);
                Some((freshness, selection, storable_headers(&headers, &omitted)))
            }
            Judgement::Pass(_) => None,
        }
    }

    /// Lets others go by: this is nothing for them.
    fn pass(mut self: Box<Self>, head: &response::Parts, now: Time) {
        if let Some(stored) = &self.stored
            && self.validates
            && head.status.is_success()
        {
            // There is something else now, and it may not be stored.
            self.cache.store.drop_one(&self.key, stored);
        }
        if let Some(lead) = self.lead.take() {
            self.cache.store.passes(&self.key, now);
            lead.end(Outcome::Passed);
        }
    }

    /// Stores what is there already.
    fn store(mut self: Box<Self>, stored: Stored) {
        let stored = Arc::new(stored);
        self.cache.store.put(&self.key, stored.clone(), self.asked_for_storing());
        if let Some(lead) = self.lead.take() {
            lead.end(Outcome::Stored(stored));
        }
    }

    /// When what is stored was asked for; a response to an unsafe method comes after what it has put out of date.
    fn asked_for_storing(&self) -> Time {
        if self.method == Method::POST { Time(Time::now().0 + 1) } else { self.asked }
    }

    /// Stores a response while it comes. Returns what its client reads.
    fn store_along(
        mut self: Box<Self>,
        context: &Context,
        stored: Stored,
        incoming: Incoming,
        sent: Sent,
    ) -> Content {
        let length = http_body::Body::size_hint(&incoming).exact();
        let is_shared =
            stored.freshness.left(stored.freshness.received).is_some() && !stored.freshness.always_validates;
        let (stream, reader) = Stream::new(length);
        if let Some(lead) = &self.lead {
            match length {
                // Others may read along what is sure to be kept to its end.
                Some(length) if is_shared => lead.share(Coming {
                    status: stored.status,
                    headers: stored.headers.clone(),
                    selection: stored.selection.clone(),
                    length,
                    stream: stream.clone(),
                }),
                _ => {}
            }
        }
        if !is_shared && let Some(lead) = self.lead.take() {
            self.cache.store.passes(&self.key, Time::now());
            lead.end(Outcome::Passed);
        }
        let drain = context.worker.drain.clone();
        drain.spawn_local(self.fetch(stored, stream, incoming, sent));
        Content::Changed(Box::new(reader))
    }

    /// Reads a response to its end, and stores it then. It goes on when its client does not, since what has been
    /// begun is soon done, and others may wait for it.
    async fn fetch(
        mut self: Box<Self>,
        stored: Stored,
        stream: Arc<Stream>,
        mut incoming: Incoming,
        sent: Sent,
    ) {
        let mut is_kept = true;
        let mut trailers = None;
        loop {
            if !is_kept && !stream.has_room().await {
                return;
            }
            let frame = match sent.clock.within(sent.silence, frame_of(&mut incoming)).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => break,
                Ok(Some(Err(_))) | Err(_) => {
                    stream.break_off();
                    if let Some(lead) = self.lead.take() {
                        lead.end(Outcome::Passed);
                    }
                    return;
                }
            };
            match frame.into_data() {
                Ok(piece) if is_kept => {
                    // A copy, since a piece may be the small rest of a large buffer.
                    stream.push(Bytes::copy_from_slice(&piece));
                    if stream.bytes() > self.cache.max_object {
                        is_kept = false;
                        stream.release();
                        if let Some(lead) = self.lead.take() {
                            self.cache.store.passes(&self.key, Time::now());
                            lead.end(Outcome::Passed);
                        }
                    }
                }
                Ok(piece) => stream.push(piece),
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        sent.finish();
        // Stored before anybody learns that it is complete, so that whoever asks next finds it.
        if is_kept {
            let body = StoredBody::new(stream.kept());
            self.store(Stored { body, ..stored });
        }
        stream.finish(trailers);
    }
}

/// The next frame of a body.
async fn frame_of(incoming: &mut Incoming) -> Option<Result<http_body::Frame<Bytes>, hyper::Error>> {
    poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *incoming), cx)).await
}

/// Fields of requests by which some servers take a request for another than its URL and host say. No key holds
/// them, so what is answered to them is for nobody else.
fn changes_unkeyed(request: &HeaderMap) -> bool {
    const NAMES: [&str; 10] = [
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "x-host",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
    ];
    // Most requests have few fields that begin so.
    request.keys().any(|name| name.as_str().starts_with("x-") && NAMES.contains(&name.as_str()))
}

/// What says how long a response is fresh and by what it is validated is taken over, and nothing else.
fn only_freshness(stored: &HeaderMap, renewed: &HeaderMap) -> HeaderMap {
    let mut headers = stored.clone();
    for name in [header::CACHE_CONTROL, header::DATE, header::EXPIRES, header::LAST_MODIFIED, header::AGE] {
        headers.remove(&name);
        for value in renewed.get_all(&name) {
            headers.append(&name, value.clone());
        }
    }
    headers
}

/// RFC 9110, section 6.6.1: who keeps a response without a date notes when it came.
fn ensure_date(headers: &mut HeaderMap, now: Time) {
    if !headers.contains_key(header::DATE) {
        set(headers, header::DATE, &policy::format_date(now));
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
    head.version = Version::HTTP_2;
    head.uri = exchange.request.uri.clone();
    head.headers = exchange.request.headers.clone();
    policy::forget_conditions(&mut head.headers);
    head.headers.remove(header::CACHE_CONTROL);
    let mut exchange = Exchange::new(
        head,
        exchange.client,
        exchange.scheme,
        exchange.route.clone(),
        exchange.upstream.clone(),
    );
    let mut visit = Visit::new(context, rules, target, &exchange);
    visit.stored = Some(stored.clone());
    visit.lead = Some(lead);
    visit.forward = Forward::Stale;
    if let Some(conditions) = policy::conditional_headers(&stored.headers) {
        visit.validates = true;
        policy::with_conditions(&mut exchange.request.headers, conditions);
    }
    // As on a connection of HTTP/2, which has no place for interim responses.
    let context = Context {
        worker: context.worker.clone(),
        generation: context.generation.clone(),
        connection: Rc::new(context.connection.to_http2()),
        meter: Meter::start(),
        call: None,
    };
    let snapshot = &context.generation.snapshot;
    let route = snapshot.routes.iter().position(|other| std::ptr::eq(other, route));
    let target = snapshot.upstreams.iter().position(|other| std::ptr::eq(other, target));
    let Some((route, target)) = route.zip(target) else { return };
    let drain = context.worker.drain.clone();
    drain.spawn_local(async move {
        let snapshot = context.generation.snapshot.clone();
        let (route, target) = (&snapshot.routes[route], &snapshot.upstreams[target]);
        let (rules, mut visit, mut exchange) =
            (route.cache.as_ref(), Some(Box::new(visit)), InHand::new(exchange));
        let answer =
            send::send(&context, target, route, &mut exchange, None, Expects::Nothing, &mut None).await;
        let answer = settle(&mut visit, rules, &mut exchange, answer, &mut None);
        let Ok(mut answer) = answer else { return };
        if visit.is_some() && rules.is_some_and(|rules| rules.response_hooks == ResponseHooks::Once) {
            match hooks::on_response(&context.generation, route, &mut exchange, answer) {
                Ok(hooked) => answer = hooked,
                Err(_) => return,
            }
        }
        drop(keep(visit, &context, rules, answer, &mut None));
    });
}
