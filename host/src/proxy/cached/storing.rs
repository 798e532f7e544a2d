//! What of a response is stored, and what does it put out of date?

use std::{future::poll_fn, pin::Pin, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, header, response};
use hyper::body::Incoming;

use super::Visit;
use crate::{
    body::Content,
    cache::{
        Rules,
        fill::{Coming, Outcome, Stream},
        key::{self, Key},
        policy::{self, Freshness, Judgement, Selection, Time},
        status::Forward,
        stored::{Stored, StoredBody, storable_headers, tags},
    },
    config::ResponseHooks,
    proxy::{Context, send::Sent},
};

impl Visit {
    /// A stored response with new fields, put in the place of the old if it may be stored still.
    pub(super) fn renewed(
        &self,
        rules: &Rules,
        stored: &Arc<Stored>,
        mut headers: HeaderMap,
        now: Time,
    ) -> Arc<Stored> {
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
    pub(super) fn head(&self, rules: &Rules, head: &response::Parts, now: Time) {
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
    pub(super) fn obstacle(&self) -> Option<&'static str> {
        // A GET that was not looked up is one with a body, which may have changed the answer, or on a route where GET
        // is not cached.
        let is_unkeyed = self.forward == Forward::Method && self.method == Method::GET;
        if is_unkeyed {
            Some("a GET with a body, or on a route where GET is not cached")
        } else if self.forward == Forward::Bypass {
            Some("the request keeps the cache out")
        } else if changes_unkeyed(&self.request) {
            Some("a field of the request may change the answer, and is in no key")
        } else {
            None
        }
    }

    /// Whether and how a response is stored.
    pub(super) fn storable(
        &self,
        rules: &Rules,
        head: &response::Parts,
        now: Time,
    ) -> Option<(Freshness, Selection, HeaderMap)> {
        if self.obstacle().is_some() {
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
    pub(super) fn pass(mut self: Box<Self>, head: &response::Parts, now: Time) {
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
    pub(super) fn store(mut self: Box<Self>, stored: Stored) {
        let stored = Arc::new(stored);
        self.cache.store.put(&self.key, stored.clone(), self.asked_for_storing());
        if let Some(lead) = self.lead.take() {
            lead.end(Outcome::Stored(stored));
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
        super::set(headers, header::DATE, &policy::format_date(now));
    }
}
