//! Which fields of a request decide what is answered, beside its URL?
//!
//! From clients that are not trusted proxies most of these never come here (`field::is_only_for_proxies`). Those of
//! trusted proxies do, and a trusted proxy may pass on what it was sent. So what names another target goes into the
//! key, whatever its value; what names another method keeps the response from being stored.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};
use smallvec::SmallVec;

use crate::field;

/// The fields of a request by which some servers find another target than the URL, the host and the scheme name, in
/// the order of their names.
pub fn naming_targets(headers: &HeaderMap) -> SmallVec<[&HeaderName; 2]> {
    let mut names: SmallVec<[&HeaderName; 2]> =
        headers.keys().filter(|name| names_target(name.as_str())).collect();
    names.sort_by_key(|name| name.as_str());
    names
}

/// Whether some servers take a request for one with another method.
pub fn overrides_method(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        // Most requests have few fields that begin so.
        name.as_str().starts_with('x') && field::is_one_of(&field::OVERRIDES_METHOD, name.as_str())
    })
}

/// Whether a proxy in front says who the client is, which it has found out by credentials.
pub fn names_client(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        matches!(name.as_bytes().first(), Some(b'x' | b'r' | b'c' | b's' | b'o' | b't'))
            && is_of_client(&field::folded(name))
    })
}

fn is_of_client(folded: &str) -> bool {
    const NAMES: [&str; 13] = [
        "client-cert",
        "client-cert-chain",
        "remote-user",
        "x-arr-clientcert",
        "x-authenticated-user",
        "x-client-cert",
        "x-client-dn",
        "x-ssl-cert",
        "x-webauth-user",
        "x-forwarded-client-cert",
        "x-ms-client-principal",
        "x-remote-user",
        "x-vouch-user",
    ];
    const PREFIXES: [&str; 16] = [
        "cf-access-",
        "oidc-claim-",
        "remote-",
        "shib-",
        "ssl-client-",
        "tailscale-user-",
        "x-amzn-mtls-",
        "x-amzn-oidc-",
        "x-auth-request-",
        "x-authentik-",
        "x-forwarded-tls-client-",
        "x-goog-authenticated-user-",
        "x-ms-client-principal-",
        "x-pomerium-",
        "x-ssl-cert-",
        "x-ssl-client-",
    ];
    NAMES.contains(&folded) || PREFIXES.iter().any(|prefix| folded.starts_with(prefix))
}

/// `name` is in lower case, as in a [`HeaderName`].
fn names_target(name: &str) -> bool {
    const NAMES: [&str; 29] = [
        "cf-visitor",
        "cloudfront-forwarded-proto",
        "forwarded-proto",
        "front-end-https",
        "https",
        "proxy-host",
        "script-name",
        "wl-proxy-ssl",
        "x-arr-ssl",
        "x-client-scheme",
        "x-envoy-original-host",
        "x-envoy-original-path",
        "x-forwarded",
        "x-host",
        "x-host-override",
        "x-http-host-override",
        "x-https",
        "x-original-host",
        "x-original-path",
        "x-original-uri",
        "x-original-url",
        "x-proxy-url",
        "x-real-proto",
        "x-rewrite-uri",
        "x-rewrite-url",
        "x-scheme",
        "x-script-name",
        "x-ssl",
        "x-url-scheme",
    ];
    if !matches!(name.as_bytes().first(), Some(b'x' | b'f' | b's' | b'c' | b'h' | b'p' | b'w')) {
        return false;
    }
    let folded = field::folded(name);
    match folded.strip_prefix("x-forwarded-") {
        Some("for" | "by") => false,
        // They are in the key already, under their own names.
        Some("host" | "proto") => matches!(folded, Cow::Owned(_)),
        // Also those of who the client is: they are no others'.
        Some(_) => true,
        None => NAMES.contains(&&*folded),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(names: &[&str]) -> HeaderMap {
        names.iter().map(|name| (name.parse::<HeaderName>().unwrap(), "1".parse().unwrap())).collect()
    }

    #[test]
    fn what_names_another_target_is_found_under_any_spelling() {
        for name in [
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-scheme",
            "x-forwarded-server",
            "x-forwarded-ssl",
            "x-forwarded-protocol",
            "x-forwarded-uri",
            "x-forwarded-path",
            "x-forwarded-anything-new",
            "x-host",
            "x-http-host-override",
            "x-original-host",
            "x-original-uri",
            "x-original-url",
            "x-rewrite-url",
            "x-script-name",
            "x-url-scheme",
            "front-end-https",
        ] {
            for name in [name.to_owned(), name.replace('-', "_"), name.replace('-', ".").to_uppercase()] {
                assert_eq!(naming_targets(&headers(&[&name])).len(), 1, "{name}");
            }
        }
        for name in ["x_forwarded_host", "X.Forwarded-Proto"] {
            assert_eq!(naming_targets(&headers(&[name])).len(), 1, "{name}");
        }
        for name in [
            "accept",
            "from",
            "host",
            "user-agent",
            "x-api-key",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-real-ip",
            "x-request-id",
        ] {
            assert!(naming_targets(&headers(&[name])).is_empty(), "{name}");
        }
        let found = headers(&["x-original-url", "front-end-https", "x-forwarded-port"]);
        let found: Vec<_> = naming_targets(&found).iter().map(|name| name.as_str()).collect();
        assert_eq!(found, ["front-end-https", "x-forwarded-port", "x-original-url"]);
    }

    #[test]
    fn what_overrides_the_method_is_found_under_any_spelling() {
        for name in ["x-http-method-override", "X_HTTP_Method_Override", "x-method.override", "x-http-method"]
        {
            assert!(overrides_method(&headers(&[name])), "{name}");
        }
        assert!(!overrides_method(&headers(&["x-method", "accept"])));
    }

    #[test]
    fn what_says_who_the_client_is_is_found() {
        for name in [
            "remote-user",
            "X_Remote_User",
            "x-auth-request-email",
            "x-ssl-client-s-dn",
            "client-cert",
            "Tailscale-User-Login",
        ] {
            assert!(names_client(&headers(&[name])), "{name}");
        }
        assert!(!names_client(&headers(&["x-real-ip", "x-forwarded-for", "referer", "cookie", "server"])));
    }
}
