//! Which fields may come behind a body?
//!
//! Some servers treat those as if they had come before it. What steers a message, or says who sends it, is believed
//! there without ever having been looked at: it goes no further (RFC 9110, section 6.5.1).

use http::{HeaderMap, HeaderName};

/// Takes away what has to be in a head or nowhere.
pub(super) fn clean(trailers: &mut HeaderMap) {
    let misplaced: Vec<HeaderName> =
        trailers.keys().filter(|name| is_misplaced(name.as_str())).cloned().collect();
    for name in misplaced {
        trailers.remove(name);
    }
}

/// `_` is taken for `-`, as it is behind CGI.
fn is_misplaced(name: &str) -> bool {
    const NAMES: [&str; 39] = [
        "authorization",
        "cache-control",
        "cdn-cache-control",
        "client-cert",
        "client-cert-chain",
        "connection",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "cookie",
        "expect",
        "forwarded",
        "host",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "location",
        "max-forwards",
        "origin",
        "pragma",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "referer",
        "set-cookie",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "vary",
        "via",
        "www-authenticate",
        "x-real-ip",
        "x-request-id",
    ];
    let name = name.replace('_', "-");
    NAMES.binary_search(&&*name).is_ok() || name.starts_with("x-forwarded-")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn what_steers_a_message_or_says_who_sends_it_does_not_come_behind_it() {
        let mut trailers = HeaderMap::new();
        let names =
            ["cookie", "x-forwarded-for", "x_forwarded_for", "authorization", "x-request-id", "via", "te"];
        for name in names.into_iter().chain(["grpc-status", "x-checksum", "digest", "server-timing", "etag"])
        {
            trailers.append(HeaderName::from_static(name), HeaderValue::from_static("1"));
        }
        clean(&mut trailers);
        let mut left: Vec<_> = trailers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["digest", "etag", "grpc-status", "server-timing", "x-checksum"]);
    }
}
