//! Which fields may come behind a body?
//!
//! Some servers treat those as if they had come before it. What steers a message, or says who sends it, is believed
//! there without ever having been looked at: it goes no further (RFC 9110, section 6.5.1).

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::field::{self, Names, OF_THE_PROXY};

/// Takes away from behind a response what has to be in its head or nowhere, and values that would be malformed to the
/// next reader: HTTP/1 trims them, HTTP/2 does not (RFC 9113, section 8.2.1).
pub(super) fn clean(trailers: &mut HeaderMap) {
    retain(trailers, |name| !is_misplaced(name));
}

/// The same behind a request, and what its head has said already, or a plugin: a server that takes trailers for part
/// of the head would believe the client in what it has no say in.
pub(super) fn clean_request(trailers: &mut HeaderMap, settled: &Names) {
    retain(trailers, |name| field::is_plain(name) && !is_misplaced(name) && !settled.hold(name));
}

fn retain(trailers: &mut HeaderMap, may_stay: impl Fn(&str) -> bool) {
    let misplaced: Vec<HeaderName> = trailers
        .iter()
        .filter(|(name, value)| !may_stay(name.as_str()) || is_spaced(value))
        .map(|(name, _)| name.clone())
        .collect();
    for name in misplaced {
        trailers.remove(name);
    }
}

fn is_spaced(value: &HeaderValue) -> bool {
    matches!(value.as_bytes(), [b' ' | b'\t', ..] | [.., b' ' | b'\t'])
}

/// Whether a field steers a message, or says who sends it.
fn is_misplaced(name: &str) -> bool {
    const NAMES: [&str; 25] = [
        "authorization",
        "cache-control",
        "cdn-cache-control",
        "content-encoding",
        "content-range",
        "content-type",
        "cookie",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "range",
        "referer",
        "set-cookie",
        "vary",
        "www-authenticate",
        "x-api-key",
    ];
    field::is_one_of(&OF_THE_PROXY, name)
        || field::is_only_for_proxies(name)
        || field::is_one_of(&field::OVERRIDES_METHOD, name)
        || field::is_one_of(&NAMES, name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_message_or_says_who_sends_it_does_not_come_behind_it() {
        let mut trailers = HeaderMap::new();
        let names = [
            "cookie",
            "x-method-override",
            "x-forwarded-for",
            "x_forwarded_for",
            "authorization",
            "x-request-id",
            "via",
            "te",
        ];
        for name in names.into_iter().chain(["grpc-status", "x-checksum", "digest", "server-timing", "etag"])
        {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        clean(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["digest", "etag", "grpc-status", "server-timing", "x-checksum"]);
    }

    #[test]
    fn a_client_does_not_say_behind_its_request_what_was_settled_before() {
        let settled: Names =
            [HeaderName::from_static("x-consumer")].iter().fold(Names::default(), |mut names, name| {
                names.note(name);
                names
            });
        let head = HeaderName::from_static("x-tenant");
        let mut trailers = HeaderMap::new();
        for name in ["x-consumer", "x_consumer", "x-tenant", "x_sum", "x-real-ip", "x-sum"] {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        clean_request(&mut trailers, &settled.with([&head].into_iter()));
        let left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        assert_eq!(left, ["x-sum"]);
    }
}
