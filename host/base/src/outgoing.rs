//! What is a request that a plugin sends of its own, and what comes back?

use std::time::Duration;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Uri,
    uri::{PathAndQuery, Scheme},
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

impl Target {
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
