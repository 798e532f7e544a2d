//! What is a client told of what the cache did?
//!
//! `Cache-Status` is that of RFC 9211; `X-Cache` is what many look for.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::policy::{Freshness, Time};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
const X_CACHE: HeaderName = HeaderName::from_static("x-cache");

/// What the cache did for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Served {
    /// What was stored, and fresh.
    Hit,
    /// What was stored, and stale.
    Stale,
    /// What was stored, after its origin has said that it is still good.
    Revalidated,
    /// What another request fetched.
    Collapsed,
    /// What its origin said.
    Forwarded(Forward),
}

/// Why a request went to its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forward {
    /// Nothing is stored for what it names.
    UriMiss,
    /// What is stored is for other requests.
    VaryMiss,
    /// What is stored is too old.
    Stale,
    /// What is stored is not what the request accepts.
    Request,
    /// Its method is not one that is answered from the cache.
    Method,
    /// The cache was told to keep out.
    Bypass,
}

impl Served {
    /// For the log.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Stale => "stale",
            Self::Revalidated => "revalidated",
            Self::Collapsed => "collapsed",
            Self::Forwarded(Forward::Method | Forward::Bypass) => "bypass",
            Self::Forwarded(_) => "miss",
        }
    }

    /// Whether what the client gets was there already.
    pub fn is_from_cache(self) -> bool {
        match self {
            Self::Hit | Self::Stale | Self::Revalidated | Self::Collapsed => true,
            Self::Forwarded(_) => false,
        }
    }

    fn short(self) -> &'static str {
        match self {
            Self::Hit | Self::Collapsed => "HIT",
            Self::Stale => "STALE",
            Self::Revalidated => "REVALIDATED",
            Self::Forwarded(Forward::Method | Forward::Bypass) => "BYPASS",
            Self::Forwarded(_) => "MISS",
        }
    }
}

impl Forward {
    /// As `Cache-Status` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Stale => "stale",
            Self::Request => "request",
            Self::Method => "method",
            Self::Bypass => "bypass",
        }
    }
}

/// Says on a response what was done. `freshness` is that of what is stored of it now.
pub fn tell(headers: &mut HeaderMap, served: Served, freshness: Option<&Freshness>, now: Time) {
    use std::fmt::Write;

    let mut status = String::with_capacity(64);
    status.push_str("tollgate; ");
    match served {
        Served::Hit | Served::Stale => status.push_str("hit"),
        Served::Revalidated => status.push_str("hit; fwd=stale; fwd-status=304"),
        Served::Collapsed => status.push_str("fwd=uri-miss; collapsed"),
        Served::Forwarded(forward) => {
            status.push_str("fwd=");
            status.push_str(forward.name());
        }
    }
    if let Some(freshness) = freshness {
        if matches!(served, Served::Forwarded(_)) {
            status.push_str("; stored");
        }
        let lifetime = i64::try_from(freshness.lifetime).unwrap_or(i64::MAX);
        let left = lifetime.saturating_sub_unsigned(freshness.age(now) / 1000);
        // Writing to a string does not fail.
        let _ = write!(status, "; ttl={left}");
    }
    let short = HeaderValue::from_static(served.short());
    // A response with 32,768 headers is not one that two more would help.
    let _ = headers.try_insert(X_CACHE, short);
    if let Ok(status) = HeaderValue::try_from(status) {
        let _ = headers.try_append(CACHE_STATUS, status);
    }
}

/// States the age of a stored response (RFC 9111, section 5.1).
pub fn set_age(headers: &mut HeaderMap, freshness: &Freshness, now: Time) {
    let _ = headers.try_insert(header::AGE, HeaderValue::from(freshness.age(now) / 1000));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_is_told_in_two_fields() {
        let freshness = Freshness {
            lifetime: 60,
            initial_age: 5,
            received: Time(10_000),
            always_validates: false,
            never_stale: false,
            stale_while_revalidate: 0,
            stale_if_error: None,
        };
        for (served, is_stored, short, long) in [
            (Served::Hit, true, "HIT", "tollgate; hit; ttl=53"),
            (Served::Stale, true, "STALE", "tollgate; hit; ttl=53"),
            (Served::Revalidated, true, "REVALIDATED", "tollgate; hit; fwd=stale; fwd-status=304; ttl=53"),
            (Served::Collapsed, false, "HIT", "tollgate; fwd=uri-miss; collapsed"),
            (Served::Forwarded(Forward::UriMiss), true, "MISS", "tollgate; fwd=uri-miss; stored; ttl=53"),
            (Served::Forwarded(Forward::VaryMiss), false, "MISS", "tollgate; fwd=vary-miss"),
            (Served::Forwarded(Forward::Method), false, "BYPASS", "tollgate; fwd=method"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert("x-cache", "theirs".parse().unwrap());
            headers.insert("cache-status", "theirs; hit".parse().unwrap());
            tell(&mut headers, served, is_stored.then_some(&freshness), Time(12_900));
            assert_eq!(headers["x-cache"], short);
            let lines: Vec<_> = headers.get_all("cache-status").iter().collect();
            assert_eq!(lines, ["theirs; hit", long]);
            set_age(&mut headers, &freshness, Time(12_900));
            assert_eq!(headers["age"], "7");
        }
    }
}
