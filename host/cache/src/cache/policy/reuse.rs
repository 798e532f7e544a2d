//! May a stored response be used for this request, now?
//!
//! RFC 9111, sections 4.2 and 5.2.1; RFC 5861.

use super::{Freshness, RequestDirectives, Time};

/// What may be done with a stored response that was selected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reuse {
    /// It is fresh enough.
    Fresh,
    /// It is stale, and the request puts up with that.
    Stale,
    /// It is stale; it may be used while it is being renewed.
    StaleWhileRevalidate,
    /// Not before the origin has said that it is still good.
    Validate,
}

/// Decides on a stored response for a request with these directives.
pub fn reuse(freshness: &Freshness, request: &RequestDirectives, now: Time) -> Reuse {
    if freshness.always_validates || request.no_cache {
        return Reuse::Validate;
    }
    let age = freshness.age(now);
    if request.max_age.is_some_and(|limit| age > limit.saturating_mul(1000)) {
        return Reuse::Validate;
    }
    if let Some(left) = freshness.left(now) {
        let wanted = request.min_fresh.unwrap_or(0).saturating_mul(1000);
        return if left >= wanted { Reuse::Fresh } else { Reuse::Validate };
    }
    // Section 4.2.4: where the response forbids it, no request can allow it.
    if freshness.never_stale || request.min_fresh.is_some() {
        return Reuse::Validate;
    }
    let staleness = freshness.staleness(now);
    let within = |seconds: u64| staleness <= seconds.saturating_mul(1000);
    if request.max_stale.is_some_and(within) {
        return Reuse::Stale;
    }
    // A request that states the age it accepts does not get what is stale anyway.
    if request.max_age.is_none()
        && freshness.stale_while_revalidate > 0
        && within(freshness.stale_while_revalidate)
    {
        return Reuse::StaleWhileRevalidate;
    }
    Reuse::Validate
}

/// Whether a stored response may be used because the origin does not answer (`is_unreachable`) or answers with
/// an error of its own.
///
/// A cache that is cut off may use what is stale (section 4.2.4); here for an hour, if nothing else is said.
/// After an error, only if the response or the route says so (RFC 5861, section 4).
pub fn usable_on_failure(
    freshness: &Freshness,
    request: &RequestDirectives,
    is_unreachable: bool,
    now: Time,
) -> bool {
    const CUT_OFF: u64 = 60 * 60;
    if freshness.always_validates || freshness.never_stale || request.no_cache {
        return false;
    }
    let directive = request.stale_if_error.or(freshness.stale_if_error);
    let limit = directive.or(is_unreachable.then_some(CUT_OFF));
    limit.is_some_and(|limit| freshness.staleness(now) <= limit.saturating_mul(1000))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECEIVED: Time = Time(1_795_000_000_000);

    fn freshness(lifetime: u64) -> Freshness {
        Freshness {
            lifetime,
            initial_age: 0,
            received: RECEIVED,
            always_validates: false,
            never_stale: false,
            stale_while_revalidate: 0,
            stale_if_error: None,
        }
    }

    fn request(text: &str) -> RequestDirectives {
        let mut headers = http::HeaderMap::new();
        headers.insert("cache-control", text.parse().unwrap());
        RequestDirectives::of(&headers)
    }

    #[test]
    fn freshness_and_the_request_decide() {
        let plain = freshness(60);
        let strict = Freshness { never_stale: true, ..freshness(60) };
        let unsure = Freshness { always_validates: true, ..freshness(60) };
        let lenient = Freshness { stale_while_revalidate: 30, ..freshness(60) };
        let both = Freshness { stale_while_revalidate: 30, ..strict.clone() };
        for (freshness, directives, age, expected) in [
            (&plain, "", 0, Reuse::Fresh),
            (&plain, "", 59_999, Reuse::Fresh),
            (&plain, "", 60_000, Reuse::Validate),
            (&plain, "no-cache", 0, Reuse::Validate),
            (&plain, "max-age=0", 1, Reuse::Validate),
            (&plain, "max-age=10", 10_000, Reuse::Fresh),
            (&plain, "max-age=10", 10_001, Reuse::Validate),
            (&plain, "min-fresh=30", 30_000, Reuse::Fresh),
            (&plain, "min-fresh=30", 30_001, Reuse::Validate),
            (&plain, "min-fresh=99999999999", 0, Reuse::Validate),
            (&plain, "max-stale", 9_000_000, Reuse::Stale),
            (&plain, "max-stale=10", 70_000, Reuse::Stale),
            (&plain, "max-stale=10", 70_001, Reuse::Validate),
            (&plain, "max-stale=10, max-age=65", 66_000, Reuse::Validate),
            (&plain, "max-stale, min-fresh=1", 61_000, Reuse::Validate),
            (&strict, "max-stale", 60_001, Reuse::Validate),
            (&strict, "", 0, Reuse::Fresh),
            (&unsure, "", 0, Reuse::Validate),
            (&unsure, "max-stale", 0, Reuse::Validate),
            (&lenient, "", 60_001, Reuse::StaleWhileRevalidate),
            (&lenient, "", 90_000, Reuse::StaleWhileRevalidate),
            (&lenient, "", 90_001, Reuse::Validate),
            (&lenient, "max-age=100", 70_000, Reuse::Validate),
            (&both, "", 60_001, Reuse::Validate),
        ] {
            let reused = reuse(freshness, &request(directives), Time(RECEIVED.0 + age));
            assert_eq!(reused, expected, "{freshness:?} {directives} {age}");
        }
        let set_back = reuse(&plain, &request(""), Time(0));
        assert_eq!(set_back, Reuse::Fresh, "a clock that was set back makes nothing stale");
    }

    #[test]
    fn a_failure_is_covered_up_for_as_long_as_was_said() {
        let plain = freshness(60);
        let directive = Freshness { stale_if_error: Some(30), ..freshness(60) };
        let strict = Freshness { never_stale: true, ..directive.clone() };
        for (freshness, directives, is_unreachable, age, expected) in [
            (&plain, "", true, 61, true),
            (&plain, "", true, 60 + 3601, false),
            (&plain, "", false, 61, false),
            (&plain, "stale-if-error=5", false, 65, true),
            (&plain, "stale-if-error=5", false, 66, false),
            (&directive, "", false, 90, true),
            (&directive, "", false, 91, false),
            (&directive, "", true, 91, false),
            (&strict, "", true, 61, false),
            (&directive, "no-cache", true, 61, false),
        ] {
            let now = Time(RECEIVED.0 + age * 1000);
            let usable = usable_on_failure(freshness, &request(directives), is_unreachable, now);
            assert_eq!(usable, expected, "{freshness:?} {directives} {age}");
        }
    }
}
