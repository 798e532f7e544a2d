//! What does a plugin send of its own, and may it be sent?
//!
//! What a plugin writes is checked here, at the boundary: afterwards a request is one request to one origin.
//! Whether the origin was granted, and how it is reached, is for whoever sends it to say.

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Uri,
    uri::{PathAndQuery, Scheme},
};

use super::text::to_value;
use crate::{
    config::HttpGrant,
    field::{self, OF_A_CONNECTION},
};

/// A request of a plugin's own.
#[derive(Debug, Clone)]
pub struct Outgoing {
    pub method: Method,
    pub target: Target,
    pub path: PathAndQuery,
    pub headers: HeaderMap,
    pub body: Bytes,
    /// Until the last byte of the response.
    pub timeout: Duration,
}

/// Where a request goes: an origin as in RFC 6454, section 4.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Target {
    pub is_https: bool,
    /// In lower case; an address of IPv6 in brackets.
    pub host: String,
    pub port: u16,
}

/// What came back, whole.
#[derive(Debug, Clone)]
pub struct Received {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// Why there is no response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    #[error("it is not granted")]
    Denied,
    #[error("it is not a URL to send a request to")]
    InvalidUrl,
    #[error("it is not a request that may be sent")]
    InvalidRequest,
    #[error("there was no response")]
    Unreachable,
    #[error("the response took too long")]
    TimedOut,
    #[error("the response is too large")]
    TooLarge,
}

impl Outgoing {
    /// Bytes of the head that a plugin may write.
    const HEAD: usize = 64 << 10;

    /// Checks what a plugin wants to send. `timeout` in milliseconds, 0 for as long as the call may wait.
    pub(super) fn new(
        method: &str,
        url: &str,
        headers: Vec<(String, String)>,
        body: Vec<u8>,
        timeout: u32,
    ) -> Result<Self, SendError> {
        // What a field costs beside its text, as HTTP/2 counts it (RFC 9113, section 10.5.1).
        let fields: usize = headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
        if method.len() + url.len() + fields > Self::HEAD {
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
        Ok(Self { method, target, path, headers: map, body: body.into(), timeout })
    }
}

impl Target {
    /// The origin that a line of `grants.http` names.
    pub fn of_grant(grant: &HttpGrant) -> Option<Self> {
        let scheme = if grant.origin.is_https { "https" } else { "http" };
        Self::of(&format!("{scheme}://{}", grant.origin.authority).parse().ok()?)
    }

    /// None if the URL has no origin that a request could be sent to, or names a user.
    pub fn of(uri: &Uri) -> Option<Self> {
        let authority = uri.authority()?;
        let is_https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(_) | None => return None,
        };
        let host = authority.host().to_ascii_lowercase();
        let port = match authority.port_u16() {
            Some(port) => Some(port).filter(|port| *port > 0)?,
            // A colon without a port, or more than a port, is nothing to be guessed at.
            None if authority.as_str().len() == host.len() => default_port(is_https),
            None => return None,
        };
        let is_bare = !host.is_empty() && !authority.as_str().contains('@');
        is_bare.then_some(Self { is_https, host, port })
    }

    /// What `Host` says.
    pub fn authority(&self) -> Option<HeaderValue> {
        match self.port == default_port(self.is_https) {
            true => HeaderValue::try_from(self.host.as_str()).ok(),
            false => HeaderValue::try_from(format!("{}:{}", self.host, self.port)).ok(),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(formatter, "{scheme}://{}", self.host)?;
        if self.port != default_port(self.is_https) {
            write!(formatter, ":{}", self.port)?;
        }
        Ok(())
    }
}

fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Outgoing, SendError> {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Outgoing::new(method, url, headers.collect(), Vec::new(), 0)
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
            assert_eq!(outgoing("GET", url, &[]).err(), Some(SendError::InvalidUrl), "{url:?}");
        }
        for method in ["", "GET /", "CONNECT", "GET\r\n"] {
            let refused = outgoing(method, "http://a/", &[]).err();
            assert_eq!(refused, Some(SendError::InvalidRequest), "{method:?}");
        }
        let fields = OF_A_CONNECTION.into_iter().chain(["expect", "host", "transfer_encoding"]);
        let fields: Vec<_> = fields.map(|name| (name.to_uppercase(), "1".to_owned())).collect();
        let fields = fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let broken = [("x a", "1"), ("x-a", "1\r\nx-b: 2"), ("x-a", "\u{20ac}"), ("", "1")];
        for field in fields.chain(broken) {
            let refused = outgoing("GET", "http://a/", &[field]).err();
            assert_eq!(refused, Some(SendError::InvalidRequest), "{field:?}");
        }
        let long = "x".repeat(Outgoing::HEAD);
        assert_eq!(outgoing("GET", "http://a/", &[("x", &long)]).err(), Some(SendError::InvalidRequest));
        let request = outgoing("POST", "http://Example.com:8080/a?b#c", &[("X-A", "1")]).expect("it is fine");
        assert_eq!(
            (request.path.as_str(), &request.headers["x-a"]),
            ("/a?b", &HeaderValue::from_static("1"))
        );
        assert_eq!(request.target.authority(), Some(HeaderValue::from_static("example.com:8080")));
        assert_eq!(outgoing("GET", "https://a", &[]).expect("it is fine").path, "/");
    }

    #[test]
    fn origins_are_compared_without_their_dress() {
        let target = |url: &str| Target::of(&url.parse().expect("it is a URL")).expect("it has an origin");
        assert_eq!(target("http://Example.com/a"), target("http://example.COM:80/b?c"));
        assert_eq!(target("https://example.com"), target("https://example.com:443"));
        for other in [
            "http://example.com:8080",
            "http://example.com.evil",
            "http://example.com.",
            "https://example.com",
        ] {
            assert_ne!(target("http://example.com/"), target(other), "{other}");
        }
        assert_eq!(target("https://[::1]:443/").to_string(), "https://[::1]");
    }
}
