//! What of a response is stored, and what does it put out of date?

use std::{future::poll_fn, pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header, response};
use hyper::body::Incoming;

use super::{CacheLookup, Renewed};
use crate::{
    body::Content,
    cache::{
        Rules,
        body::StoredBody,
        fill::{Coming, FillResult},
        key::{self, Key},
        policy::{self, Asked, Freshness, Judgement, Refusal, Selection, Time, Vary},
        status::Forward,
        stored::{Stored, is_whole, storable_headers, tags},
        stream::Stream,
        unkeyed,
    },
    plugin::Exchange,
    proxy::{Context, sent::Sent},
};

impl CacheLookup {
    /// A stored response with new fields, put in the place of the old if it may be stored still.
    ///
    /// What was answered to a request that nothing may be stored for changes nothing for others: neither are its
    /// fields taken over, nor is what is stored dropped.
    pub(super) fn renewed(
        &self,
        rules: &Rules,
        stored: &Arc<Stored>,
        mut headers: HeaderMap,
        now: Time,
    ) -> Renewed {
        if rules.stores_what_hooks_made() {
            headers = only_freshness(&stored.headers, &headers);
        }
        ensure_date(&mut headers, now);
        if self.obstacle(&self.request).is_some() {
            return Renewed::ForOne(Arc::new(Stored { headers, ..Stored::clone(stored) }));
        }
        match policy::judge(self.judged_as(&Method::GET), stored.status, &headers, &rules.terms, now) {
            Judgement::Store { freshness, vary, omitted } => {
                let headers = storable_headers(&headers, &omitted);
                let selection = vary.selection(&self.request);
                let tags = tags(&headers);
                let renewed = Stored { headers, freshness, selection, tags, ..Stored::clone(stored) };
                let renewed = Arc::new(renewed);
                self.cache.store.renew(&self.key, stored, renewed.clone());
                Renewed::Stored(renewed)
            }
            Judgement::Pass(refusal) => {
                if refusal != Refusal::Authorization {
                    self.cache.store.drop_one(&self.key, stored);
                }
                Renewed::ForOne(Arc::new(Stored { headers, ..Stored::clone(stored) }))
            }
        }
    }

    /// What the policy has to know of the request.
    fn judged_as<'a>(&'a self, method: &'a Method) -> Asked<'a> {
        Asked {
            method,
            headers: &self.request,
            is_authorized: self.is_authorized,
            derived: &self.derived,
            sent: self.asked,
        }
    }

    /// Whether what is answered to the request says something about what others would get.
    fn speaks_for_others(&self) -> bool {
        !self.is_authorized && self.derived.is_empty() && self.obstacle(&self.request).is_none()
    }

    /// What a response to HEAD says of what is stored for GET (RFC 9111, section 4.3.5).
    pub(super) fn head(&self, rules: &Rules, head: &response::Parts, now: Time) {
        let Some(stored) = self.stored.as_ref().filter(|_| head.status == StatusCode::OK) else { return };
        if !self.speaks_for_others() {
            return;
        }
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
    pub(super) fn invalidate(&self, rules: &Rules, head: &response::Parts, now: Time) {
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

    /// Why no response to the request is stored, whatever it says, if that is so.
    pub(super) fn obstacle(&self, request: &HeaderMap) -> Option<&'static str> {
        // A GET that was not looked up is one with a body, which may have changed the answer, or on a route where GET
        // is not cached.
        let is_unkeyed = self.forward == Forward::Method && self.method == Method::GET;
        if is_unkeyed {
            Some("a GET with a body, or on a route where GET is not cached")
        } else if self.forward == Forward::Bypass {
            Some("the request keeps the cache out")
        } else if unkeyed::overrides_method(request) {
            Some("a field of the request names another method")
        } else if self.is_changed {
            Some("a plugin has changed the request after the cache was asked")
        } else {
            None
        }
    }

    /// Whether and how a response is stored.
    pub(super) fn storable(
        &self,
        rules: &Rules,
        exchange: &Exchange,
        head: &response::Parts,
        now: Time,
    ) -> Option<(Freshness, Selection, HeaderMap)> {
        if self.obstacle(&self.request).is_some() || is_endless(&head.headers) {
            return None;
        }
        if self.method == Method::POST && !self.is_question {
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
        let judged = policy::judge(self.judged_as(&self.method), head.status, &headers, &rules.terms, now);
        match judged {
            Judgement::Store { vary, .. } if !is_made_for_all(rules, exchange, &vary) => None,
            Judgement::Store { freshness, vary, omitted } => {
                let selection = vary.selection(&self.request);
                Some((freshness, selection, storable_headers(&headers, &omitted)))
            }
            Judgement::Pass(_) => None,
        }
    }

    /// Lets others go by: this is nothing for them.
    pub(super) fn pass(mut self: Box<Self>, head: &response::Parts, now: Time) {
        if let Some(stored) = &self.stored
            && self.validates
            && head.status.is_success()
            && self.speaks_for_others()
        {
            // There is something else now, and it may not be stored.
            self.cache.store.drop_one(&self.key, stored);
        }
        if let Some(lead) = self.lead.take() {
            self.cache.store.passes(&self.key, now);
            lead.end(FillResult::Passed);
        }
    }

    /// Stores what is there already.
    pub(super) fn store(mut self: Box<Self>, stored: Stored) {
        let stored = Arc::new(stored);
        let is_stored = self.cache.store.put(&self.key, stored.clone(), self.asked_for_storing());
        if let Some(lead) = self.lead.take() {
            let is_for_all = is_stored && is_shared(&stored.freshness);
            lead.end(if is_for_all { FillResult::Stored(stored) } else { FillResult::Passed });
        }
    }

    /// When what is stored was asked for; a response to an unsafe method comes after what it has put out of date.
    fn asked_for_storing(&self) -> Time {
        if self.method == Method::POST && !self.is_question { Time(Time::now().0 + 1) } else { self.asked }
    }

    /// Stores a response while it comes. Returns what its client reads.
    pub(super) fn store_along(
        mut self: Box<Self>,
        context: &Context,
        stored: Stored,
        incoming: Incoming,
        sent: Sent,
    ) -> Content {
        let length = http_body::Body::size_hint(&incoming).exact();
        let is_shared = is_shared(&stored.freshness);
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
        if !is_shared {
            self.give_up_lead();
        }
        let drain = context.worker.drain.clone();
        drain.spawn_local(self.fetch(stored, stream, incoming, length, sent));
        Content::Changed(Box::new(reader))
    }

    /// Has those who wait for this fetch go to the upstream themselves, and for a while nobody wait for another's.
    fn give_up_lead(&mut self) {
        if let Some(lead) = self.lead.take() {
            self.cache.store.passes(&self.key, Time::now());
            lead.end(FillResult::Passed);
        }
    }

    /// Reads a response to its end, and stores it then. It goes on when its client does not, since what has been
    /// begun is soon done, and others may wait for it.
    async fn fetch(
        mut self: Box<Self>,
        stored: Stored,
        stream: Arc<Stream>,
        mut incoming: Incoming,
        length: Option<u64>,
        sent: Sent,
    ) {
        /// Of a body whose length is not known: a pause, or so much time since its head, is the first sign that it has
        /// no end soon. Nobody waits for it any more.
        const PAUSE: Duration = Duration::from_millis(100);
        const SHORT: Duration = Duration::from_millis(500);
        /// After this it is not kept: a stream that never ends would take memory for ever.
        const LONGEST: Duration = Duration::from_secs(30);
        let began = Time::now();
        let mut is_kept = true;
        let mut trailers = None;
        let mut came: u64 = 0;
        loop {
            if !is_kept && !stream.has_room().await {
                return;
            }
            if length.is_none() && is_kept {
                let so_far = Duration::from_millis(Time::now().since(began));
                if so_far > LONGEST {
                    is_kept = false;
                    stream.release();
                } else if so_far > SHORT {
                    self.give_up_lead();
                }
            }
            let waits_for_it = length.is_none() && self.lead.is_some();
            let limit = if waits_for_it { PAUSE.min(sent.silence) } else { sent.silence };
            let frame = match sent.clock.within(limit, frame_of(&mut incoming)).await {
                Ok(Some(Ok(frame))) => frame,
                Ok(None) => break,
                Err(_) if waits_for_it && limit < sent.silence => {
                    self.give_up_lead();
                    continue;
                }
                Ok(Some(Err(_))) | Err(_) => return self.break_off(&stream),
            };
            match frame.into_data() {
                Ok(piece) => {
                    came += piece.len() as u64;
                    if !is_kept {
                        stream.push(piece);
                        continue;
                    }
                    // A copy, since a piece may be the small rest of a large buffer.
                    stream.push(Bytes::copy_from_slice(&piece));
                    if stream.bytes() > self.cache.max_object {
                        is_kept = false;
                        stream.release();
                        self.give_up_lead();
                    }
                }
                Err(frame) => trailers = frame.into_trailers().ok(),
            }
        }
        // Whatever says that this was the end: a body of another length than was announced is none.
        if !is_whole(&stored.headers, came) {
            return self.break_off(&stream);
        }
        sent.finish();
        // Stored before anybody learns that it is complete, so that whoever asks next finds it.
        if is_kept {
            let body = StoredBody::new(stream.kept());
            self.store(Stored { body, ..stored });
        }
        stream.finish(trailers);
    }

    /// Nothing is stored, and whoever reads along learns that there is no more.
    fn break_off(mut self: Box<Self>, stream: &Stream) {
        stream.break_off();
        if let Some(lead) = self.lead.take() {
            lead.end(FillResult::Passed);
        }
    }
}

/// Whether what is stored may be the answer to requests that came while it was fetched.
fn is_shared(freshness: &Freshness) -> bool {
    freshness.left(freshness.received).is_some() && !freshness.always_validates
}

/// Whether a response is of a kind that ends when its client goes, and not before.
fn is_endless(headers: &HeaderMap) -> bool {
    const TYPES: [&str; 2] = ["text/event-stream", "multipart/x-mixed-replace"];
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let content_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    TYPES.iter().any(|endless| content_type.eq_ignore_ascii_case(endless))
}

/// Whether response hooks, where they run before storing, have made what they made for everybody: of nothing that the
/// response does not vary by.
fn is_made_for_all(rules: &Rules, exchange: &Exchange, vary: &Vary) -> bool {
    let Some(taint) = exchange.taint.as_ref().filter(|_| rules.stores_what_hooks_made()) else { return true };
    taint.is_response_for_all(|name| vary.names(name)) && (rules.terms.stores_cookies || !taint.sets_cookie())
}

/// The next frame of a body.
async fn frame_of(incoming: &mut Incoming) -> Option<Result<http_body::Frame<Bytes>, hyper::Error>> {
    poll_fn(|cx| http_body::Body::poll_frame(Pin::new(&mut *incoming), cx)).await
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
        super::set(headers, header::DATE, &policy::format_date(now));
    }
}
