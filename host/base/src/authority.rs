//! Which host and port does a request ask for?

use std::{borrow::Cow, net::Ipv6Addr};

use http::HeaderValue;

/// Whether this is host and optional port as in RFC 3986, section 3.2, without user information; or empty.
pub fn is_valid(value: &[u8]) -> bool {
    let (host, port) = split(value);
    let digits = port.unwrap_or_default();
    let port_is_valid = digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && digits.iter().fold(0, |port, digit| port * 10 + u32::from(digit - b'0')) <= u32::from(u16::MAX);
    let host_is_valid = match host.strip_prefix(b"[") {
        Some(rest) => rest.strip_suffix(b"]").is_some_and(|address| {
            std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
        }),
        None => host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)),
    };
    port_is_valid && host_is_valid && (!host.is_empty() || value.is_empty())
}

/// Whether two of them name one host and port, where what does not say its port means that of `scheme` (RFC 9110,
/// section 4.2.3).
pub fn is_same(one: &[u8], other: &[u8], scheme: &str) -> bool {
    bare(one, scheme).eq_ignore_ascii_case(bare(other, scheme))
}

/// Without the port that goes without saying, and without a colon that has none behind it.
fn bare<'a>(value: &'a [u8], scheme: &str) -> &'a [u8] {
    let default: &[u8] = if scheme == "https" { b"443" } else { b"80" };
    match split(value) {
        (host, Some(port)) if port.is_empty() || port == default => host,
        _ => value,
    }
}

fn split(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    match value.iter().rposition(|&byte| byte == b':') {
        Some(colon) if !value.ends_with(b"]") => (&value[..colon], Some(&value[colon + 1..])),
        _ => (value, None),
    }
}

/// The name to route by: lower case, without port and final dot.
pub fn host_name(host: &HeaderValue) -> Cow<'_, str> {
    let host = host.to_str().unwrap_or_default();
    let name = match host.rfind(':') {
        Some(colon) if !host.ends_with(']') => &host[..colon],
        _ => host,
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(name.to_ascii_lowercase())
    } else {
        Cow::Borrowed(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_and_a_port_and_nothing_else_is_an_authority() {
        for value in ["", "a", "A.example:8080", "[::1]", "[::1]:80", "1.2.3.4:65535", "a.", "a:", "a_b"] {
            assert!(is_valid(value.as_bytes()), "{value}");
        }
        for value in [
            "u@a", "u:p@a", "a/b", "a b", "a,b", "a:b", ":80", "[::1", "a:65536", "a:123456", "a?b", "[a]",
            "a#b",
        ] {
            assert!(!is_valid(value.as_bytes()), "{value}");
        }
    }

    #[test]
    fn the_default_port_goes_without_saying() {
        for (one, other, scheme, expected) in [
            ("a", "A", "http", true),
            ("a", "a:80", "http", true),
            ("a:", "a", "http", true),
            ("a:443", "a", "https", true),
            ("[::1]:443", "[::1]", "https", true),
            ("a:443", "a", "http", false),
            ("a:80", "a", "https", false),
            ("a:80", "a:81", "http", false),
            ("a", "b", "http", false),
            ("[::1]", "[::1]:81", "http", false),
        ] {
            assert_eq!(is_same(one.as_bytes(), other.as_bytes(), scheme), expected, "{one} {other} {scheme}");
        }
    }

    #[test]
    fn routing_goes_by_the_bare_name() {
        for (host, expected) in
            [("A.Example.:80", "a.example"), ("a", "a"), ("[::1]:80", "[::1]"), ("[::1]", "[::1]"), ("", "")]
        {
            assert_eq!(host_name(&HeaderValue::from_static(host)), expected, "{host}");
        }
    }
}
