//! May a response be kept, and on what terms may it be used again?
//!
//! RFC 9111, sections 3 (storing) and 4.2 (freshness).

use http::{HeaderMap, HeaderName, Method, StatusCode, header};

use super::{
    RequestDirectives, ResponseDirectives, Scope, Time, Vary,
    date::parse,
    directives::{LONGEST, number},
    members,
};

/// What a route says besides the messages themselves. Times are in seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    /// For responses that do not say how long they stay fresh.
    pub default_lifetime: Lifetimes,
    /// For all responses that may be stored, whatever they say of their freshness.
    pub lifetime: Lifetimes,
    pub stale_while_revalidate: Option<u64>,
    pub stale_if_error: Option<u64>,
    /// Responses that set cookies are stored like any other.
    pub stores_cookies: bool,
    /// Requests of clients have no say.
    pub ignores_request_directives: bool,
}

/// How long responses are fresh, by their status. In seconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of each status that is heuristically cacheable (RFC 9110, section 15.1). An error, or a redirect to a login
    /// page, that says nothing of caching is not.
    pub general: Option<u64>,
    /// Of these statuses, heuristically cacheable or not.
    pub by_status: Vec<(StatusCode, u64)>,
}

impl Lifetimes {
    fn of(&self, status: StatusCode) -> Option<u64> {
        let listed =
            self.by_status.iter().find(|(listed, _)| *listed == status).map(|(_, lifetime)| *lifetime);
        listed.or(self.general.filter(|_| is_heuristically_cacheable(status)))
    }
}

/// What is known of the request that a response answers.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub method: &'a Method,
    /// As the upstream got them.
    pub headers: &'a HeaderMap,
    /// It came with credentials, even if the upstream did not get them: section 3.5 speaks of the request as received.
    pub is_authorized: bool,
    /// Fields that plugins have made of what no key holds. A response that does not name them in `Vary` may be one
    /// for this client alone.
    pub derived: &'a [HeaderName],
    pub sent: Time,
}

/// When a stored response may be used (sections 4.2 and 5.2.2). Times are in seconds where they are not a [`Time`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    pub lifetime: u64,
    /// How old it was when it came.
    pub initial_age: u64,
    pub received: Time,
    /// Only after the origin has been asked.
    pub always_validates: bool,
    /// Never once it is stale.
    pub never_stale: bool,
    pub stale_while_revalidate: u64,
    /// If the response or the route says so.
    pub stale_if_error: Option<u64>,
}

impl Freshness {
    /// In milliseconds (section 4.2.3).
    pub fn age(&self, now: Time) -> u64 {
        self.initial_age.saturating_mul(1000).saturating_add(now.since(self.received))
    }

    /// In milliseconds; none if it is stale.
    pub fn left(&self, now: Time) -> Option<u64> {
        self.lifetime.saturating_mul(1000).checked_sub(self.age(now)).filter(|left| *left > 0)
    }

    /// For how long it has been stale, in milliseconds.
    pub fn staleness(&self, now: Time) -> u64 {
        self.age(now).saturating_sub(self.lifetime.saturating_mul(1000))
    }
}

/// Whether a response may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    Store {
        freshness: Freshness,
        vary: Vary,
        /// Fields that must not be stored with it.
        omitted: Vec<HeaderName>,
    },
    Pass(Refusal),
}

/// Why a response is not stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Method,
    /// Interim, partial, 304, or one that must be understood and is not.
    Status,
    RequestNoStore,
    NoStore,
    Private,
    /// It answers a request with credentials, and does not say that it is for others as well.
    Authorization,
    /// It varies by a field that the request has under another name, which some servers take for the same.
    Spelling,
    /// `Vary: *`.
    VariesOnEverything,
    /// It sets cookies and does not say that it is for everybody.
    SetCookie,
    /// Nothing says how long it is fresh, and there is nothing to validate it by.
    Useless,
}

/// Decides on a response that came at `received`.
pub fn judge(
    asked: Asked<'_>,
    status: StatusCode,
    response: &HeaderMap,
    terms: &Terms,
    received: Time,
) -> Judgement {
    let directives = ResponseDirectives::of(response);
    let pass = Judgement::Pass;
    if !matches!(*asked.method, Method::GET | Method::POST) {
        return pass(Refusal::Method);
    }
    if RequestDirectives::of(asked.headers).no_store && !terms.ignores_request_directives {
        return pass(Refusal::RequestNoStore);
    }
    if !may_be_stored(status) || (directives.must_understand && !is_understood(status)) {
        return pass(Refusal::Status);
    }
    // Section 5.2.2.3: `no-store` is for those that do not understand `must-understand`.
    if directives.no_store && !directives.must_understand {
        return pass(Refusal::NoStore);
    }
    if directives.private == Scope::Whole {
        return pass(Refusal::Private);
    }
    let is_shared = directives.public || directives.s_maxage.is_some();
    let Some(vary) = Vary::of(response) else { return pass(Refusal::VariesOnEverything) };
    // Section 3.5.
    let is_authorized = asked.is_authorized
        || asked.headers.contains_key(header::AUTHORIZATION)
        || asked.derived.iter().any(|name| !vary.names(name));
    if is_authorized && !is_shared && !directives.must_revalidate {
        return pass(Refusal::Authorization);
    }
    if vary.is_evaded(asked.headers) {
        return pass(Refusal::Spelling);
    }
    // Whoever came without credentials was asked for them. It is no answer to those who have some.
    if status == StatusCode::UNAUTHORIZED && !is_shared {
        return pass(Refusal::Status);
    }
    let may_set_cookies = is_shared || directives.is_targeted || terms.stores_cookies;
    let omitted: Vec<HeaderName> = [directives.no_cache.fields(), directives.private.fields()].concat();
    if response.contains_key(header::SET_COOKIE) && !may_set_cookies && !omitted.contains(&header::SET_COOKIE)
    {
        return pass(Refusal::SetCookie);
    }
    let freshness = freshness(status, response, &directives, terms, asked.sent, received);
    let has_validator = response.contains_key(header::ETAG) || response.contains_key(header::LAST_MODIFIED);
    if freshness.lifetime == 0 && freshness.stale_while_revalidate == 0 && !has_validator {
        return pass(Refusal::Useless);
    }
    // Without freshness of its own, only what may be taken for fresh is kept (section 3).
    let is_explicit = is_explicit(response, &directives);
    if !is_explicit
        && !is_shared
        && terms.default_lifetime.of(status).is_none()
        && terms.lifetime.of(status).is_none()
        && !is_heuristically_cacheable(status)
    {
        return pass(Refusal::Status);
    }
    Judgement::Store { freshness, vary, omitted }
}

fn is_explicit(response: &HeaderMap, directives: &ResponseDirectives) -> bool {
    let is_told = directives.s_maxage.is_some() || directives.max_age.is_some();
    is_told || (!directives.is_targeted && response.contains_key(header::EXPIRES))
}

fn freshness(
    status: StatusCode,
    response: &HeaderMap,
    directives: &ResponseDirectives,
    terms: &Terms,
    sent: Time,
    received: Time,
) -> Freshness {
    let lifetime = terms.lifetime.of(status).unwrap_or_else(|| {
        let lifetime = directives.s_maxage.or(directives.max_age);
        lifetime
            .or_else(|| (!directives.is_targeted).then(|| until_expiry(response, received)).flatten())
            .or_else(|| terms.default_lifetime.of(status))
            .unwrap_or_else(|| heuristic(status, response, directives, received))
    });
    // An override is the operator's word on what the response says of staleness too.
    let never_stale =
        directives.must_revalidate || directives.proxy_revalidate || directives.s_maxage.is_some();
    Freshness {
        lifetime,
        initial_age: initial_age(response, sent, received),
        received,
        always_validates: directives.no_cache == Scope::Whole,
        never_stale,
        stale_while_revalidate: directives
            .stale_while_revalidate
            .or(terms.stale_while_revalidate)
            .unwrap_or_default(),
        stale_if_error: directives.stale_if_error.or(terms.stale_if_error),
    }
}

/// From `Date` to `Expires` (section 5.3). What is no date lies in the past.
fn until_expiry(response: &HeaderMap, received: Time) -> Option<u64> {
    let expires = response.get(header::EXPIRES)?;
    let Some(expires) = parse(expires.as_bytes(), received) else { return Some(0) };
    let date = date(response, received).unwrap_or(received.seconds());
    Some(expires.saturating_sub(date).min(LONGEST))
}

/// A tenth of the time since it was modified, a day at most (section 4.2.2).
fn heuristic(
    status: StatusCode,
    response: &HeaderMap,
    directives: &ResponseDirectives,
    received: Time,
) -> u64 {
    const LONGEST: u64 = 24 * 60 * 60;
    if !is_heuristically_cacheable(status) && !directives.public {
        return 0;
    }
    let modified = response.get(header::LAST_MODIFIED).and_then(|date| parse(date.as_bytes(), received));
    let date = date(response, received).unwrap_or(received.seconds());
    modified.map_or(0, |modified| (date.saturating_sub(modified) / 10).min(LONGEST))
}

fn date(response: &HeaderMap, received: Time) -> Option<u64> {
    parse(response.get(header::DATE)?.as_bytes(), received)
}

/// Section 4.2.3. Of an `Age` with several members the first counts, one that is no number does not (section 5.1).
fn initial_age(response: &HeaderMap, sent: Time, received: Time) -> u64 {
    let apparent = date(response, received).map_or(0, |date| received.seconds().saturating_sub(date));
    let stated = members(response, &header::AGE).next().and_then(number).unwrap_or(0);
    let delay = received.since(sent).div_ceil(1000);
    // A response within a second is not made older by it: `Age` counts whole seconds.
    let delay = if received.since(sent) < 1000 { 0 } else { delay };
    apparent.max(stated.saturating_add(delay)).min(LONGEST)
}

/// Whether a response with this status may be stored at all: a whole one, that is about the target of the request and
/// not about how it was asked for. A 416 to somebody's absurd `Range` would be everybody's answer. RFC 6585 forbids to
/// store 428, 429, 431 and 511.
pub fn may_be_stored(status: StatusCode) -> bool {
    !status.is_informational()
        && !matches!(
            status.as_u16(),
            206 | 304 | 407 | 408 | 411..=413 | 415..=417 | 421 | 425 | 426 | 428 | 429 | 431 | 511
        )
}

/// RFC 9110, section 15.1.
fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// Status codes of RFC 9110 whose meaning for caches is known here.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=205 | 300..=303 | 305 | 307 | 308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Time(1_795_000_000_500);

    fn headers(fields: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            // `@n` is the date n seconds from now.
            let date = value.strip_prefix('@').map(|delta| {
                let seconds = NOW.seconds() as i64 + delta.parse::<i64>().unwrap();
                super::super::format_date(Time::from_seconds(seconds as u64))
            });
            let value = date.as_deref().unwrap_or(value);
            headers.append(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        headers
    }

    fn judged(status: u16, request: &[(&str, &str)], response: &[(&str, &str)], terms: &Terms) -> Judgement {
        let status = StatusCode::from_u16(status).unwrap();
        judge(asked(&headers(request)), status, &headers(response), terms, NOW)
    }

    fn asked(request: &HeaderMap) -> Asked<'_> {
        Asked { method: &Method::GET, headers: request, is_authorized: false, derived: &[], sent: NOW }
    }

    fn stored(response: &[(&str, &str)]) -> Freshness {
        match judged(200, &[], response, &Terms::default()) {
            Judgement::Store { freshness, .. } => freshness,
            Judgement::Pass(reason) => panic!("{response:?}: {reason:?}"),
        }
    }

    fn refusal(status: u16, request: &[(&str, &str)], response: &[(&str, &str)]) -> Option<Refusal> {
        match judged(status, request, response, &Terms::default()) {
            Judgement::Store { .. } => None,
            Judgement::Pass(reason) => Some(reason),
        }
    }

    #[test]
    fn a_response_is_fresh_as_long_as_it_says() {
        // Section 4.2.1.
        for (fields, expected) in [
            (&[("cache-control", "max-age=60")][..], 60),
            (&[("cache-control", "max-age=60, s-maxage=5")], 5),
            (&[("cache-control", "s-maxage=5"), ("cache-control", "max-age=60")], 5),
            (&[("cache-control", "max-age=60"), ("expires", "@-5")], 60),
            (&[("cache-control", "max-age=60"), ("expires", "0")], 60),
            (&[("cache-control", "max-age=0"), ("expires", "@60"), ("etag", "\"a\"")], 0),
            (&[("expires", "@60"), ("date", "@0")], 60),
            (&[("expires", "@60"), ("date", "@10")], 50),
            (&[("expires", "@60")], 60),
            (&[("expires", "@60"), ("date", "foo")], 60),
            (&[("expires", "@60"), ("expires", "@90"), ("date", "@0")], 60),
            (&[("expires", "0"), ("etag", "\"a\"")], 0),
            (&[("expires", "@300"), ("date", "@400"), ("etag", "\"a\"")], 0),
            (&[("last-modified", "@-1000"), ("date", "@0")], 100),
            (&[("last-modified", "@-100000000"), ("date", "@0")], 86_400),
            (&[("last-modified", "@100"), ("date", "@0")], 0),
            (&[("last-modified", "@-1000"), ("cache-control", "no-cache")], 100),
            (&[("cdn-cache-control", "max-age=7"), ("cache-control", "max-age=60")], 7),
            (&[("cdn-cache-control", "max-age=7"), ("cache-control", "no-store")], 7),
            (&[("cdn-cache-control", "max-age=7"), ("expires", "@-60")], 7),
            (&[("cdn-cache-control", "no-cache"), ("expires", "@60"), ("etag", "\"a\"")], 0),
            (&[("cdn-cache-control", "max-age=\"7\""), ("cache-control", "max-age=60")], 60),
        ] {
            assert_eq!(stored(fields).lifetime, expected, "{fields:?}");
        }
    }

    #[test]
    fn a_response_is_as_old_as_it_says_or_seems() {
        // Sections 4.2.3 and 5.1.
        let fresh = ("cache-control", "max-age=3600");
        for (fields, expected) in [
            (&[][..], 0),
            (&[("age", "30")], 30),
            (&[("date", "@-40")], 40),
            (&[("date", "@-40"), ("age", "30")], 40),
            (&[("date", "@40"), ("age", "30")], 30),
            (&[("age", "7200, 0")], 7200),
            (&[("age", "0, 7200")], 0),
            (&[("age", "7200"), ("age", "0")], 7200),
            (&[("age", "abc")], 0),
            (&[("age", "-7200")], 0),
            (&[("age", "7200.0")], 0),
            (&[("age", "7200;a=b")], 0),
            (&[("age", "2147483649")], LONGEST),
            (&[("age", "99999999999999999999999999999999")], LONGEST),
        ] {
            let fields = [fields, &[fresh]].concat();
            assert_eq!(stored(&fields).initial_age, expected, "{fields:?}");
        }
        let slow = initial_age(&headers(&[("age", "30")]), Time(NOW.0 - 2500), NOW);
        assert_eq!(slow, 33, "the time that the answer took counts");
    }

    #[test]
    fn what_must_not_be_stored_is_not() {
        // Sections 3, 3.5, 5.2.2.
        let fresh = ("cache-control", "max-age=60");
        let authorized = &[("authorization", "Basic x")][..];
        for (status, request, response, expected) in [
            (200, &[][..], &[fresh][..], None),
            (200, &[("cache-control", "no-store")], &[fresh], Some(Refusal::RequestNoStore)),
            (200, &[], &[("cache-control", "max-age=60, no-store")], Some(Refusal::NoStore)),
            (200, &[], &[("cache-control", "max-age=60, private")], Some(Refusal::Private)),
            (200, &[], &[("cache-control", "max-age=60, private=\"x\"")], None),
            (200, &[], &[fresh, ("cdn-cache-control", "no-store")], Some(Refusal::NoStore)),
            (200, &[], &[fresh, ("cdn-cache-control", "private")], Some(Refusal::Private)),
            (200, &[], &[fresh, ("vary", "*")], Some(Refusal::VariesOnEverything)),
            (200, &[], &[fresh, ("vary", "a, *")], Some(Refusal::VariesOnEverything)),
            (200, authorized, &[fresh], Some(Refusal::Authorization)),
            (200, authorized, &[("cache-control", "max-age=60, public")], None),
            (200, authorized, &[("cache-control", "max-age=60, must-revalidate")], None),
            (200, authorized, &[("cache-control", "s-maxage=60")], None),
            (200, authorized, &[("expires", "@60")], Some(Refusal::Authorization)),
            (200, &[], &[fresh, ("set-cookie", "a=b")], Some(Refusal::SetCookie)),
            (200, &[], &[("cache-control", "max-age=60, public"), ("set-cookie", "a=b")], None),
            (
                200,
                &[],
                &[("cache-control", "max-age=60, private=\"set-cookie\""), ("set-cookie", "a=b")],
                None,
            ),
            (200, &[], &[], Some(Refusal::Useless)),
            (200, &[], &[("cache-control", "max-age=0")], Some(Refusal::Useless)),
            (200, &[], &[("etag", "\"a\"")], None),
            (206, &[], &[fresh], Some(Refusal::Status)),
            (304, &[], &[fresh], Some(Refusal::Status)),
            (599, &[], &[fresh], None),
            (401, &[], &[fresh], Some(Refusal::Status)),
            (401, &[], &[("cache-control", "s-maxage=60")], None),
            (412, &[], &[fresh], Some(Refusal::Status)),
            (416, &[], &[fresh], Some(Refusal::Status)),
            (429, &[], &[("cache-control", "public, max-age=60")], Some(Refusal::Status)),
            (431, &[], &[fresh], Some(Refusal::Status)),
            (200, &[("x_lang", "de")], &[fresh, ("vary", "x-lang")], Some(Refusal::Spelling)),
            (200, &[("x_lang", "de")], &[fresh, ("vary", "x-other")], None),
            (599, &[], &[("cache-control", "max-age=60, must-understand")], Some(Refusal::Status)),
            (200, &[], &[("cache-control", "max-age=60, must-understand, no-store")], None),
            (201, &[], &[("last-modified", "@-1000")], Some(Refusal::Status)),
            (503, &[], &[("last-modified", "@-1000")], Some(Refusal::Status)),
            (404, &[], &[("last-modified", "@-1000")], None),
            (599, &[], &[("last-modified", "@-1000"), ("cache-control", "public")], None),
        ] {
            assert_eq!(refusal(status, request, response), expected, "{status} {request:?} {response:?}");
        }
        assert!(matches!(
            judge(
                Asked { method: &Method::PUT, ..asked(&HeaderMap::new()) },
                StatusCode::OK,
                &headers(&[fresh]),
                &Terms::default(),
                NOW
            ),
            Judgement::Pass(Refusal::Method)
        ));
    }

    #[test]
    fn credentials_count_wherever_they_have_gone() {
        // Section 3.5 is about the request as received.
        let consumer = [HeaderName::from_static("x-consumer")];
        for (is_authorized, derived, response, is_stored) in [
            (false, &[][..], &[("cache-control", "max-age=60")][..], true),
            (true, &[], &[("cache-control", "max-age=60")], false),
            (true, &[], &[("cache-control", "max-age=60"), ("vary", "x-consumer")], false),
            (true, &[], &[("cache-control", "max-age=60, public")], true),
            (true, &[], &[("cache-control", "s-maxage=60")], true),
            (true, &[], &[("cache-control", "max-age=60, must-revalidate")], true),
            (false, &consumer, &[("cache-control", "max-age=60")], false),
            (false, &consumer, &[("cache-control", "max-age=60"), ("vary", "accept")], false),
            (false, &consumer, &[("cache-control", "max-age=60"), ("vary", "accept, X-Consumer")], true),
            (false, &consumer, &[("cache-control", "max-age=60, public")], true),
        ] {
            let request = HeaderMap::new();
            let asked = Asked { is_authorized, derived, ..asked(&request) };
            let judged = judge(asked, StatusCode::OK, &headers(response), &Terms::default(), NOW);
            let stores = matches!(judged, Judgement::Store { .. });
            assert_eq!(stores, is_stored, "{is_authorized} {derived:?} {response:?}");
        }
    }

    #[test]
    fn a_lifetime_of_the_route_is_for_statuses_that_are_cacheable_by_default_or_listed() {
        // Section 3; RFC 9110, section 15.1.
        let listed = vec![(StatusCode::FOUND, 10), (StatusCode::NOT_FOUND, 5)];
        let general = Lifetimes { general: Some(300), by_status: vec![] };
        let both = Lifetimes { general: Some(300), by_status: listed.clone() };
        let only_listed = Lifetimes { general: None, by_status: listed };
        for (lifetimes, status, expected) in [
            (&general, 200, Some(300)),
            (&general, 301, Some(300)),
            (&general, 404, Some(300)),
            (&general, 410, Some(300)),
            (&general, 302, None),
            (&general, 307, None),
            (&general, 400, None),
            (&general, 401, None),
            (&general, 403, None),
            (&general, 429, None),
            (&general, 500, None),
            (&general, 502, None),
            (&general, 503, None),
            (&both, 200, Some(300)),
            (&both, 302, Some(10)),
            (&both, 404, Some(5)),
            (&both, 503, None),
            (&only_listed, 200, None),
            (&only_listed, 302, Some(10)),
        ] {
            let default = Terms { default_lifetime: lifetimes.clone(), ..Terms::default() };
            let forced = Terms { lifetime: lifetimes.clone(), ..Terms::default() };
            for terms in [&default, &forced] {
                let lifetime = match judged(status, &[], &[], terms) {
                    Judgement::Store { freshness, .. } => Some(freshness.lifetime),
                    Judgement::Pass(_) => None,
                };
                assert_eq!(lifetime, expected, "{status} {terms:?}");
            }
            let own = [("cache-control", "max-age=7")];
            if let Judgement::Store { freshness, .. } = judged(status, &[], &own, &forced) {
                assert_eq!(
                    freshness.lifetime,
                    expected.unwrap_or(7),
                    "{status}: what it says itself is left to it"
                );
            }
        }
    }

    #[test]
    fn a_route_has_the_last_word_on_freshness_only() {
        let lifetime = |terms: Terms, response: &[(&str, &str)]| match judged(200, &[], response, &terms) {
            Judgement::Store { freshness, .. } => Some(freshness.lifetime),
            Judgement::Pass(_) => None,
        };
        let all = |seconds| Lifetimes { general: Some(seconds), by_status: vec![] };
        let default = Terms { default_lifetime: all(300), ..Terms::default() };
        assert_eq!(lifetime(default.clone(), &[]), Some(300));
        assert_eq!(lifetime(default.clone(), &[("cache-control", "max-age=5")]), Some(5));
        assert_eq!(lifetime(default, &[("cache-control", "no-store")]), None);
        let forced = Terms { lifetime: all(300), ..Terms::default() };
        assert_eq!(lifetime(forced.clone(), &[("cache-control", "max-age=5")]), Some(300));
        assert_eq!(lifetime(forced, &[("cache-control", "private")]), None);
    }

    #[test]
    fn fields_that_are_not_for_all_are_named() {
        let response = [("cache-control", "max-age=60, private=\"x-a\", no-cache=\"x-b\"")];
        let Judgement::Store { omitted, freshness, .. } = judged(200, &[], &response, &Terms::default())
        else {
            panic!("it may be stored");
        };
        assert_eq!(omitted, ["x-b", "x-a"]);
        assert!(!freshness.always_validates);
    }

    proptest::proptest! {
        #[test]
        fn no_response_causes_a_panic(
            status in 100u16..1000,
            fields in proptest::collection::vec((0usize..9, "[ -~]{0,30}"), 0..8),
            sent: u64,
            received: u64,
        ) {
            const NAMES: [&str; 9] = ["age", "date", "expires", "last-modified", "cache-control",
                "cdn-cache-control", "vary", "etag", "set-cookie"];
            let fields: Vec<_> = fields.iter().map(|(name, value)| (NAMES[*name], value.trim_start_matches('@'))).collect();
            let fields = headers(&fields);
            let status = StatusCode::from_u16(status).unwrap();
            let terms = Terms::default();
            let request = HeaderMap::new();
            let asked = Asked { sent: Time(sent), ..asked(&request) };
            let judged = judge(asked, status, &fields, &terms, Time(received));
            if let Judgement::Store { freshness, .. } = judged {
                let _ = (freshness.age(Time(sent)), freshness.left(Time(u64::MAX)), freshness.staleness(Time(0)));
            }
        }
    }
}
