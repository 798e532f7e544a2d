//! Which header fields are the same field to some server, and which of them only proxies may send?
//!
//! To a proxy `X_Consumer` is another field than `X-Consumer`. To a program behind CGI and its heirs (FastCGI, WSGI,
//! Rack, PHP, Plack, ISAPI) both are the variable `HTTP_X_CONSUMER`. So whoever removes, sets or judges a field by
//! its name compares names here, and nowhere else.
//!
//! What servers fold: upper and lower case (all of them), `-` and `_` (RFC 3875, section 4.1.18), `.` as well (PHP,
//! for every variable), and every character that is neither letter nor digit (lighttpd, Apache before 2.4). The
//! widest of these is what counts here.

mod owned;

pub use owned::{OF_A_CONNECTION, OF_THE_PROXY};

use std::borrow::Cow;

use http::HeaderName;

/// The byte that stands for this one in a folded name.
fn fold(byte: u8) -> u8 {
    match byte {
        b'A'..=b'Z' => byte.to_ascii_lowercase(),
        b'a'..=b'z' | b'0'..=b'9' => byte,
        _ => b'-',
    }
}

/// Whether two names are those of one field to some server.
pub fn is_same_to_some_server(one: &str, other: &str) -> bool {
    one.len() == other.len() && one.bytes().map(fold).eq(other.bytes().map(fold))
}

/// Whether a name in lower case holds letters, digits and hyphens alone. Two such names are one field to some server
/// only where they are equal.
pub fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| fold(byte) == byte)
}

/// The plain name that is the same to some server. Equal for two names exactly where [`is_same_to_some_server`].
pub fn folded(name: &str) -> Cow<'_, str> {
    match is_plain(name) {
        true => Cow::Borrowed(name),
        false => Cow::Owned(name.bytes().map(|byte| char::from(fold(byte))).collect()),
    }
}

/// Fields by which some servers take a request for one with another method.
pub const OVERRIDES_METHOD: [&str; 4] =
    ["x-http-method", "x-http-method-override", "x-method-override", "x-original-method"];

/// Whether a name is that of one of these fields to some server.
pub fn is_one_of(fields: &[&str], name: &str) -> bool {
    fields.iter().any(|field| is_same_to_some_server(field, name))
}

/// Whether only a proxy has reason to send this field: it says who a client is, by which way it came, or what it had
/// asked for before a proxy changed it. Upstreams believe such fields, so from clients that are not trusted proxies
/// they are removed.
///
/// Prefixes stand for whole families, so that a field which a CDN invents next year is covered.
pub fn is_only_for_proxies(name: &str) -> bool {
    match is_plain(name) {
        true => is_plain_and_only_for_proxies(name),
        false => is_plain_and_only_for_proxies(&folded(name)),
    }
}

/// The same of a name that is plain.
///
/// By the first letter, since nearly no field of a browser's request comes further than that.
pub fn is_plain_and_only_for_proxies(name: &str) -> bool {
    let Some((first, rest)) = name.as_bytes().split_first() else { return false };
    let is_in = |names: &[&str], prefixes: &[&str]| {
        names.iter().any(|field| field.as_bytes() == rest)
            || prefixes.iter().any(|prefix| rest.starts_with(prefix.as_bytes()))
    };
    match first {
        b'a' => is_in(&[], &["kamai-"]),
        // `Client-IP`, the certificate of RFC 9440; Cloudflare and CloudFront.
        b'c' => is_in(&["lient-ip"], &["f-", "lient-cert", "loudfront-"]),
        b'f' => is_in(&["orwarded", "ront-end-https"], &["astly-", "orwarded-"]),
        b'h' => is_in(&["ttps"], &[]),
        // `Proxy` becomes `HTTP_PROXY`, by which libraries choose a proxy of their own (CVE-2016-5385).
        b'p' => is_in(&["roxy", "roxy-client-ip", "roxy-user", "roxy-host", "roxy-port"], &[]),
        // What proxies that authenticate say (mod_auth_openidc, Authelia, Apache, Shibboleth, Tailscale).
        b'o' => is_in(&[], &["idc-claim-"]),
        b'r' => is_in(&["edirect-remote-user"], &["emote-"]),
        b's' => is_in(&["cript-name", "urrogate-capability"], &["hib-", "sl-"]),
        b't' => is_in(&["rue-client-ip"], &["ailscale-user-"]),
        b'w' => is_in(&[], &["l-proxy-"]),
        b'x' => rest.strip_prefix(b"-").is_some_and(is_listed_with_x),
        _ => false,
    }
}

/// The same of what comes behind `x-`.
fn is_listed_with_x(name: &[u8]) -> bool {
    const NAMES: [&str; 35] = [
        "authenticated-user",
        "vouch-user",
        "webauth-user",
        "accel-mapping",
        "cluster-client-ip",
        "envoy-external-address",
        "envoy-internal",
        "envoy-original-host",
        "envoy-original-path",
        "forwarded",
        "forwarder-for",
        "forwared-for",
        "host",
        "host-override",
        "http-host-override",
        "https",
        "ms-client-principal",
        "original-host",
        "original-method",
        "original-path",
        "original-uri",
        "original-url",
        "originating-ip",
        "proxy-url",
        "proxyuser-ip",
        "real-ip",
        "real-port",
        "real-proto",
        "rewrite-uri",
        "rewrite-url",
        "scheme",
        "script-name",
        // Which field a server may answer with instead of a file (Rack, CVE-2025-61780).
        "sendfile-type",
        "true-client-ip",
        "url-scheme",
    ];
    const PREFIXES: [&str; 17] = [
        "pomerium-",
        "akamai-",
        "amzn-mtls-",
        "amzn-oidc-",
        "appengine-",
        "arr-",
        "auth-request-",
        "authentik-",
        "azure-",
        "client-",
        "envoy-downstream-",
        "forwarded-",
        "goog-authenticated-user-",
        "ms-client-principal-",
        "original-forwarded-",
        "remote-",
        "ssl-",
    ];
    NAMES.iter().any(|field| field.as_bytes() == name)
        || PREFIXES.iter().any(|prefix| name.starts_with(prefix.as_bytes()))
}

/// A set of names, each of which stands for all of its spellings. However many are noted, it has an end.
#[derive(Debug, Clone, Default)]
pub struct Names {
    names: Vec<HeaderName>,
    /// There were more than can be kept: it holds every name.
    is_full: bool,
}

impl Names {
    /// Names, and bytes of a name, that a plugin may make the proxy keep.
    const MOST: usize = 256;

    pub fn note(&mut self, name: &HeaderName) {
        if self.is_full || self.names.contains(name) {
            return;
        }
        self.is_full = self.names.len() == Self::MOST || name.as_str().len() > Self::MOST;
        if !self.is_full {
            self.names.push(name.clone());
        }
    }

    /// These, and those of a message's head, which has an end of its own.
    pub fn with<'a>(&'a self, head: impl Iterator<Item = &'a HeaderName>) -> Self {
        let names = self.names.iter().chain(head).cloned().collect();
        Self { names, is_full: self.is_full }
    }

    /// Whether some server would take this name for one of them.
    pub fn hold(&self, name: &str) -> bool {
        self.is_full || self.names.iter().any(|known| is_same_to_some_server(known.as_str(), name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_a_server_folds_into_one_are_one() {
        for other in ["X-Consumer", "x_consumer", "X.Consumer", "x~consumer", "x!CONSUMER", "X_CONSUMER"] {
            assert!(is_same_to_some_server("x-consumer", other), "{other}");
            assert_eq!(folded(other), "x-consumer");
        }
        for other in ["xconsumer", "x--consumer", "x-consumers", "x-consume", "", "x-cons-mer"] {
            assert!(!is_same_to_some_server("x-consumer", other), "{other}");
            assert_ne!(folded(other), "x-consumer");
        }
    }

    #[test]
    fn a_plain_name_is_its_own() {
        for name in ["host", "x-consumer", "sec-ch-ua-mobile", "x-1", ""] {
            assert!(is_plain(name) && folded(name) == name, "{name}");
        }
        for name in ["X-Consumer", "x_consumer", "x.y", "a!b", "a~", "a|b", "a'b", "a%b", "a^b", "a`b"] {
            assert!(!is_plain(name), "{name}");
        }
    }

    #[test]
    fn what_only_a_proxy_says_is_known_under_every_spelling() {
        for name in [
            "forwarded",
            "forwarded-for",
            "x-forwarded",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-forwarded-port",
            "x-forwarded-prefix",
            "x-forwarded-server",
            "x-forwarded-scheme",
            "x-forwarded-ssl",
            "x-forwarded-by",
            "x-forwarded-user",
            "x-forwarded-protocol",
            "x-forwarded-uri",
            "x-forwarded-path",
            "x-forwarded-tls-client-cert",
            "x-real-ip",
            "x-client-ip",
            "x-client-cert",
            "x-original-url",
            "x-original-uri",
            "x-original-host",
            "x-rewrite-url",
            "x-url-scheme",
            "x-scheme",
            "x-host",
            "x-http-host-override",
            "x-script-name",
            "x-remote-user",
            "x-sendfile-type",
            "front-end-https",
            "https",
            "proxy",
            "client-ip",
            "client-cert",
            "client-cert-chain",
            "true-client-ip",
            "cf-connecting-ip",
            "cloudfront-viewer-address",
            "fastly-client-ip",
            "ssl-client-cert",
            "remote-user",
            "script-name",
            "wl-proxy-client-ip",
        ] {
            assert!(is_only_for_proxies(name), "{name}");
            assert!(is_only_for_proxies(&name.replace('-', "_")), "{name}");
            assert!(is_only_for_proxies(&name.replace('-', ".").to_uppercase()), "{name}");
        }
    }

    #[test]
    fn what_clients_say_of_themselves_is_theirs_to_say() {
        for name in [
            "",
            "x",
            "x-",
            "host",
            "accept",
            "authorization",
            "cache-control",
            "cdn-loop",
            "client",
            "content-type",
            "cookie",
            "from",
            "origin",
            "proxy-authorization",
            "referer",
            "sec-fetch-site",
            "traceparent",
            "via",
            "x-api-key",
            "x-amzn-trace-id",
            "x-b3-traceid",
            "x-consumer",
            "x-http-method-override",
            "x-request-id",
            "x-requested-with",
        ] {
            assert!(!is_only_for_proxies(name), "{name}");
        }
    }

    #[test]
    fn what_frames_a_message_is_known_under_every_spelling() {
        for name in ["transfer-encoding", "Transfer_Encoding", "content.length", "te", "TRAILER"] {
            assert!(is_one_of(&OF_A_CONNECTION, name), "{name}");
            assert!(is_one_of(&OF_THE_PROXY, name), "{name}");
        }
        assert!(is_one_of(&OF_THE_PROXY, "x_forwarded_for") && !is_one_of(&OF_A_CONNECTION, "via"));
        assert!(!is_one_of(&OF_THE_PROXY, "content-type"));
    }

    #[test]
    fn a_set_of_names_has_an_end() {
        let mut names = Names::default();
        let name = |number: usize| HeaderName::try_from(format!("x-{number}")).unwrap();
        for number in 0..Names::MOST {
            names.note(&name(number));
            names.note(&name(number));
        }
        assert!(names.hold("x_0") && !names.hold("x-999"));
        names.note(&name(Names::MOST));
        assert!(names.hold("x-999"), "what cannot be told apart any more is all held");
        assert_eq!(names.names.len(), Names::MOST);
    }

    proptest::proptest! {
        #[test]
        fn two_names_are_one_field_where_their_folded_names_are_equal(one in "[a-cA-C_.~-]{0,4}", other in "[a-cA-C_.~-]{0,4}") {
            proptest::prop_assert_eq!(is_same_to_some_server(&one, &other), folded(&one) == folded(&other));
        }
    }
}
