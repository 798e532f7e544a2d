//! May a plugin send this request?
//!
//! What a plugin writes is checked here, at the boundary: afterwards a request is one request to one origin.
//! Whether the origin was granted, and how it is reached, is for whoever sends it to say.

use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, Uri, uri::PathAndQuery};

use super::text::to_value;
use crate::{
    field::{self, OF_A_CONNECTION},
    outgoing::{Outgoing, SendError, Target},
};

/// Bytes of the head that a plugin may write.
const LONGEST_HEAD: usize = 64 << 10;

/// Checks what a plugin wants to send. `timeout` in milliseconds, 0 for as long as the call may wait.
pub(super) fn outgoing(
    method: &str,
    url: &str,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    timeout: u32,
) -> Result<Outgoing, SendError> {
    // What a field costs beside its text, as HTTP/2 counts it (RFC 9113, section 10.5.1).
    let fields: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    if method.len() + url.len() + fields > LONGEST_HEAD {
        return Err(SendError::InvalidRequest);
    }
    let uri: Uri = url.parse().map_err(|_| SendError::InvalidUrl)?;
    let target = Target::of(&uri).ok_or(SendError::InvalidUrl)?;
    let method = Method::from_bytes(method.as_bytes()).map_err(|_| SendError::InvalidRequest)?;
    if method == Method::CONNECT {
        return Err(SendError::InvalidRequest);
    }
    let mut map = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        // Framing, hop-by-hop (RFC 9110, section 7.6.1), and where it goes.
        if field::is_one_of(&OF_A_CONNECTION, &name) || field::is_one_of(&["expect", "host"], &name) {
            return Err(SendError::InvalidRequest);
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| SendError::InvalidRequest)?;
        let value = to_value(value).map_err(|_| SendError::InvalidRequest)?;
        map.try_append(name, value).map_err(|_| SendError::InvalidRequest)?;
    }
    let path = uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let timeout = if timeout == 0 { Duration::MAX } else { Duration::from_millis(timeout.into()) };
    Ok(Outgoing { method, target, path, headers: map, body: body.into(), timeout })
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn check(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Outgoing, SendError> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        outgoing(method, url, headers.collect(), Vec::new(), 0)
    }

    #[test]
    fn what_is_sent_is_one_request_to_one_origin() {
        for url in [
            "",
            "/",
            "example.com",
            "ftp://example.com/",
            "http://",
            "http://a@b/",
            "http://a:b@c/",
            "http://a:0/",
            "http://a:/",
            "http://a:99999/",
            "http://a b/",
            "http://a/\r\nx: y",
            "http://a/ HTTP/1.1",
            "//a/",
        ] {
            assert_eq!(check("GET", url, &[]).err(), Some(SendError::InvalidUrl), "{url:?}");
        }
        for method in ["", "GET /", "CONNECT", "GET\r\n"] {
            let refused = check(method, "http://a/", &[]).err();
            assert_eq!(refused, Some(SendError::InvalidRequest), "{method:?}");
        }
        let fields = OF_A_CONNECTION.into_iter().chain(["expect", "host", "transfer_encoding"]);
        let fields: Vec<_> = fields.map(|name| (name.to_uppercase(), "1".to_owned())).collect();
        let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let broken = [("x a", "1"), ("x-a", "1\r\nx-b: 2"), ("x-a", "\u{20ac}"), ("", "1")];
        for field in fields.chain(broken) {
            let refused = check("GET", "http://a/", &[field]).err();
            assert_eq!(refused, Some(SendError::InvalidRequest), "{field:?}");
        }
        let long = "x".repeat(LONGEST_HEAD);
        assert_eq!(check("GET", "http://a/", &[("x", &long)]).err(), Some(SendError::InvalidRequest));
        let request = check("POST", "http://Example.com:8080/a?b#c", &[("X-A", "1")]).expect("it is fine");
        assert_eq!(
            (request.path.as_str(), &request.headers["x-a"]),
            ("/a?b", &HeaderValue::from_static("1"))
        );
        assert_eq!(request.target.authority(), Some(HeaderValue::from_static("example.com:8080")));
        assert_eq!(check("GET", "https://a", &[]).expect("it is fine").path, "/");
    }
}
