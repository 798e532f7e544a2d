//! What does an upstream say before it answers?
//!
//! RFC 9110, section 15.2: a proxy forwards interim responses, other than those it has asked for itself. No response
//! hook is shown them, so they carry nothing that a hook would have had a say in.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, StatusCode, header};

/// An interim response.
#[derive(Debug, PartialEq, Eq)]
pub enum Interim {
    /// 100: the upstream wants the body.
    Continue,
    /// Any other, as it goes on the wire of HTTP/1.1.
    Other(Bytes),
}

/// What is about the connection or a content, which an interim response does not have (RFC 9110, sections 7.6.1 and
/// 15.2), and what changes something at the client for longer than this response.
const LEFT_OUT: [&str; 18] = [
    "alt-svc",
    "clear-site-data",
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "set-cookie",
    "set-cookie2",
    "set-login",
    "strict-transport-security",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "www-authenticate",
];

impl Interim {
    /// Made of an interim response.
    pub(super) fn new(status: StatusCode, headers: &HeaderMap) -> Self {
        if status == StatusCode::CONTINUE {
            return Self::Continue;
        }
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .collect();
        let reason = status.canonical_reason().unwrap_or_default();
        let mut wire = format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).into_bytes();
        for (name, value) in headers {
            if LEFT_OUT.binary_search(&name.as_str()).is_err() && !named.contains(name) {
                for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                    wire.extend_from_slice(part);
                }
            }
        }
        wire.extend_from_slice(b"\r\n");
        Self::Other(wire.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interim_response_says_nothing_of_the_connection_and_sets_nothing() {
        assert!(LEFT_OUT.is_sorted());
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("link", "</a>"),
            ("connection", "X-Hop, close"),
            ("x-hop", "1"),
            ("set-cookie", "a=b"),
            ("content-length", "5"),
            ("link", "</b>"),
        ] {
            headers.append(name, value.parse().unwrap());
        }
        let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\nlink: </b>\r\n\r\n";
        assert_eq!(Interim::new(StatusCode::EARLY_HINTS, &headers), Interim::Other(expected.into()));
        assert_eq!(Interim::new(StatusCode::CONTINUE, &HeaderMap::new()), Interim::Continue);
    }
}
