//! Who may ask?
//!
//! With a token, whoever has it. Without one the address is a loopback one, and the danger is a web page in a
//! browser on this machine: it may send requests here under a name that it has made to resolve to loopback (DNS
//! rebinding), so only names of this place count as `Host`; and it may send what changes something without being
//! able to read the answer, so what changes something must not come from another origin.

use std::net::{IpAddr, SocketAddr};

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header, uri::Authority};
use subtle::ConstantTimeEq;

use super::problem::Problem;
use crate::{config::Token, server::Server};

/// Why somebody may not ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Denied {
    #[error("send the token: Authorization: Bearer ...")]
    NoToken,
    #[error(
        "without a token the admin API answers only to `localhost`, loopback addresses and its own address as Host: ask by one \
         of these, or write a `token` under [admin] and send it"
    )]
    OtherHost,
    #[error("a page of another origin may not change anything here")]
    OtherOrigin,
}

impl Denied {
    pub fn into_answer(self) -> Response {
        let status = match self {
            Self::NoToken => StatusCode::UNAUTHORIZED,
            Self::OtherHost => StatusCode::MISDIRECTED_REQUEST,
            Self::OtherOrigin => StatusCode::FORBIDDEN,
        };
        let mut response = Problem::new(status, self.to_string()).into_response();
        if self == Self::NoToken {
            let challenge = HeaderValue::from_static("Bearer realm=\"tollgate\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

/// What needs no token where there is one: it tells nothing but that somebody is there.
const OPEN: [&str; 3] = ["/", "/healthz", "/readyz"];

/// Whether this request may be answered.
pub(super) fn check<B>(server: &Server, request: &Request<B>) -> Result<(), Denied> {
    // Where there is none any more, connections may still be open.
    let admin = server.admin().ok_or(Denied::OtherHost)?;
    let token = admin.config.token.as_ref();
    decide(request.method(), request.uri().path(), request.headers(), token, admin.config.address)
}

/// Whether whoever asks has shown the token, or need not.
pub(super) fn is_trusted(server: &Server, headers: &HeaderMap) -> bool {
    let token = server.admin().and_then(|admin| admin.config.token.clone());
    token.is_none_or(|token| shows(headers, &token))
}

fn decide(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    token: Option<&Token>,
    address: SocketAddr,
) -> Result<(), Denied> {
    match token {
        Some(token) if !OPEN.contains(&path) && !shows(headers, token) => return Err(Denied::NoToken),
        Some(_) => {}
        None if is_ours(headers, address.ip()) => {}
        None => return Err(Denied::OtherHost),
    }
    match method.is_safe() || !is_from_elsewhere(headers) {
        true => Ok(()),
        false => Err(Denied::OtherOrigin),
    }
}

fn shows(headers: &HeaderMap, token: &Token) -> bool {
    let credentials = headers.get(header::AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let Some((scheme, presented)) = credentials.split_at_checked("Bearer ".len()) else { return false };
    scheme.eq_ignore_ascii_case(b"Bearer ") && bool::from(presented.ct_eq(token.as_bytes()))
}

/// Whether `Host` is a name of loopback, a loopback address, or the one that is listened on.
fn is_ours(headers: &HeaderMap, address: IpAddr) -> bool {
    let mut hosts = headers.get_all(header::HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(authority) = Authority::try_from(host.as_bytes()) else { return false };
    let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
    let ip = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match ip {
        Ok(ip) => ip.is_loopback() || ip == address,
        Err(_) => name == "localhost" || name.ends_with(".localhost"),
    }
}

/// Whether a browser says that a page of another origin sends this. Programs that are no browsers say nothing.
fn is_from_elsewhere(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(HeaderValue::as_bytes);
    if let Some(site) = text(header::HeaderName::from_static("sec-fetch-site"))
        && site != b"same-origin"
        && site != b"none"
    {
        return true;
    }
    let Some(origin) = text(header::ORIGIN) else { return false };
    let host = text(header::HOST).unwrap_or_default();
    origin.strip_prefix(b"http://").is_none_or(|origin| !origin.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let pairs = lines.iter().map(|line| line.split_once(": ").unwrap());
        pairs
            .map(|(name, value)| (name.parse::<header::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    fn decided(method: &str, path: &str, lines: &[&str], token: Option<&str>) -> Result<(), Denied> {
        let table = token.map(|token| format!("address = \"127.0.0.1:1\"\ntoken = \"{token}\""));
        let admin = table.map(|table| toml::from_str::<crate::config::Admin>(&table).unwrap());
        let token = admin.and_then(|admin| admin.token);
        let address = "127.0.0.7:9901".parse().unwrap();
        decide(&method.parse().unwrap(), path, &headers(lines), token.as_ref(), address)
    }

    #[test]
    fn without_a_token_only_names_of_this_machine_are_answered() {
        for host in ["localhost", "LOCALHOST.:9901", "a.localhost", "127.0.0.1:1", "[::1]:9901", "127.0.0.7"]
        {
            assert_eq!(decided("GET", "/metrics", &[&format!("host: {host}")], None), Ok(()), "{host}");
        }
        for host in ["evil.example", "localhost.evil.example", "10.0.0.1", "127.0.0.1.evil.example", "@", ""]
        {
            let host = format!("host: {host}");
            assert_eq!(decided("GET", "/metrics", &[&host], None), Err(Denied::OtherHost), "{host}");
        }
        assert_eq!(decided("GET", "/", &[], None), Err(Denied::OtherHost));
        let two = ["host: localhost", "host: evil.example"];
        assert_eq!(decided("GET", "/", &two, None), Err(Denied::OtherHost));
    }

    #[test]
    fn with_a_token_only_who_shows_it_is_answered() {
        let ask = |path, lines: &[&str]| decided("GET", path, lines, Some("s3cret"));
        assert_eq!(ask("/metrics", &["host: any", "authorization: Bearer s3cret"]), Ok(()));
        assert_eq!(ask("/metrics", &["authorization: bearer s3cret"]), Ok(()));
        for credentials in ["Bearer s3cre", "Bearer s3cret2", "Bearer ", "Basic s3cret", "s3cret", "é"] {
            let line = format!("authorization: {credentials}");
            assert_eq!(ask("/metrics", &[&line]), Err(Denied::NoToken), "{credentials}");
        }
        for path in OPEN {
            assert_eq!(ask(path, &[]), Ok(()), "{path}");
        }
        assert_eq!(ask("/healthz/", &[]), Err(Denied::NoToken));
    }

    #[test]
    fn a_page_of_another_origin_changes_nothing() {
        let post = |lines: &[&str]| {
            decided("POST", "/api/reload", &[&["host: localhost:9901"], lines].concat(), None)
        };
        assert_eq!(post(&[]), Ok(()));
        assert_eq!(post(&["origin: http://localhost:9901", "sec-fetch-site: same-origin"]), Ok(()));
        for line in [
            "origin: https://evil.example",
            "origin: http://localhost:8080",
            "origin: https://localhost:9901",
            "origin: null",
            "sec-fetch-site: cross-site",
            "sec-fetch-site: same-site",
        ] {
            assert_eq!(post(&[line]), Err(Denied::OtherOrigin), "{line}");
        }
        let line = ["host: localhost:9901", "origin: https://evil.example"];
        assert_eq!(decided("GET", "/metrics", &line, None), Ok(()));
    }
}
