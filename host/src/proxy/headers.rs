//! What may a message carry across the proxy?
//!
//! Values in, values out: nothing here does I/O. Rules are those of RFC 9110, section 7 (routing and
//! forwarding), and RFC 9112, section 3.2 (the request target).

use std::{
    borrow::Cow,
    net::{IpAddr, Ipv6Addr},
};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request, response,
    uri::PathAndQuery,
};
use hyper::ext::ReasonPhrase;

use super::{
    identity::{CLIENT_CERT, CLIENT_CERT_CHAIN, Peer, came_by_tls, identify},
    upgrade::{self, Expected, Offer},
};
use crate::{
    address::Caller,
    config::{ListenerLimits, TrustedProxies},
    path,
    telemetry::traffic::Limit,
};

const X_BACKEND_SERVER: HeaderName = HeaderName::from_static("x-backend-server");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// What a request asks for besides what stands in its headers.
#[derive(Debug)]
pub struct Prepared {
    /// The original client.
    pub client: Caller<IpAddr>,
    /// Whether that came by TLS, as far as is known.
    pub is_https: bool,
    /// The body waits for the upstream's word (RFC 9110, section 10.1.1).
    pub expects_continue: bool,
    /// The request has come as far as it may: the proxy answers by itself (RFC 9110, section 7.6.2).
    pub is_last_hop: bool,
    /// Other protocols that the client would go on in.
    pub(super) offer: Option<Offer>,
}

/// Why a request is not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    #[error(transparent)]
    Path(#[from] path::Error),
    #[error("the target is neither a path, nor a URL of this scheme, nor `*` with OPTIONS")]
    Target,
    #[error("a method in lower case")]
    Method,
    #[error("CONNECT is not offered")]
    Connect,
    #[error("there is no `Host`, more than one, or one that is no host")]
    Host,
    #[error("TRACE that may go no further")]
    Trace,
    #[error("`Host` and the target name different hosts")]
    HostMismatch,
    #[error("an expectation other than `100-continue`")]
    Expectation,
    #[error("more headers than can be forwarded")]
    TooManyHeaders,
    #[error("the target is longer than the listener allows")]
    LongTarget,
    #[error("a field of HTTP/2 that would mean something else in HTTP/1")]
    Field,
    #[error("a handshake of WebSocket without a key of 16 bytes")]
    WebSocketKey,
}

impl BadRequest {
    pub fn status(self) -> StatusCode {
        match self {
            Self::Path(_)
            | Self::Target
            | Self::Method
            | Self::Host
            | Self::HostMismatch
            | Self::Field
            | Self::WebSocketKey => StatusCode::BAD_REQUEST,
            Self::Connect | Self::Trace => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TooManyHeaders => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::LongTarget => StatusCode::URI_TOO_LONG,
        }
    }

    /// What of it there was too much, if that is what is wrong.
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::TooManyHeaders => Some(Limit::HeaderCount),
            Self::LongTarget => Some(Limit::RequestLine),
            Self::Path(_)
            | Self::Target
            | Self::Method
            | Self::Connect
            | Self::Host
            | Self::Trace
            | Self::HostMismatch
            | Self::Expectation
            | Self::WebSocketKey
            | Self::Field => None,
        }
    }
}

/// Fields that end at this hop, as bits.
#[derive(Default)]
struct Hop(u16);

/// Who a client is by its certificate is said by whoever has verified it, and that is never the client: nor a
/// proxy before this one, which may have passed on what it was sent (RFC 9440, section 4).
static HOP_FIELDS: [HeaderName; 10] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    CLIENT_CERT,
    CLIENT_CERT_CHAIN,
];

/// What is not for a client to say, nor by a name that servers take for it: to programs behind CGI and its heirs both
/// are `HTTP_X_FORWARDED_FOR` (RFC 3875, section 4.1.18).
const SPOKEN_FOR: [&str; 8] = [
    "client-cert",
    "client-cert-chain",
    "content-length",
    "transfer-encoding",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
];

/// Whether a name with an underscore in it is one of [`SPOKEN_FOR`] to some.
fn is_spoken_for(name: &HeaderName) -> bool {
    let is_taken_for = |other: &&str| {
        let letters = name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
        letters.eq(other.bytes())
    };
    name.as_str().contains('_') && SPOKEN_FOR.iter().any(is_taken_for)
}

impl Hop {
    /// There is a name that [`is_spoken_for`].
    const SPOKEN_FOR: u16 = 1 << HOP_FIELDS.len();

    /// One look at each header is cheaper than eight searches that nearly always find nothing.
    fn find(headers: &HeaderMap) -> Self {
        // Most names are told from all of these by their length.
        const LENGTHS: u32 = 1 << 2 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19;
        const SPOKEN_FOR: u32 = 1 << 11 | 1 << 12 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 17;
        let bit = |name: &HeaderName| {
            let length = name.as_str().len() as u32;
            let is_of = |lengths: u32| lengths.checked_shr(length).is_some_and(|lengths| lengths & 1 == 1);
            let place = HOP_FIELDS.iter().position(|field| is_of(LENGTHS) && field == name);
            let spoken_for = if is_of(SPOKEN_FOR) && is_spoken_for(name) { Self::SPOKEN_FOR } else { 0 };
            place.map_or(spoken_for, |place| 1 << place)
        };
        Self(headers.keys().fold(0, |found, name| found | bit(name)))
    }

    fn has(&self, name: &HeaderName) -> bool {
        HOP_FIELDS.iter().position(|field| field == name).is_some_and(|place| self.0 & (1 << place) != 0)
    }

    fn remove(&self, headers: &mut HeaderMap) {
        if self.0 == 0 {
            return;
        }
        if self.has(&header::CONNECTION) {
            remove_named(headers);
        }
        if self.0 & Self::SPOKEN_FOR != 0 {
            let spoken_for: Vec<_> = headers.keys().filter(|name| is_spoken_for(name)).cloned().collect();
            for name in spoken_for {
                headers.remove(name);
            }
        }
        for (place, name) in HOP_FIELDS.iter().enumerate() {
            if self.0 & (1 << place) != 0 {
                headers.remove(name);
            }
        }
    }
}

/// Removes the fields that `Connection` names, but for those that are nobody's to take away: a client must not
/// be able to make the proxy drop what upstreams rely on.
fn remove_named(headers: &mut HeaderMap) {
    const PROTECTED: [&str; 12] = [
        "authorization",
        "cache-control",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
        "forwarded",
        "host",
        "set-cookie",
        "te",
        "trailer",
        "via",
    ];
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .filter(|name| !PROTECTED.contains(&name.as_str()) && !name.as_str().starts_with("x-forwarded-"))
        .collect();
    for name in named {
        headers.remove(name);
    }
}

/// Brings a request of HTTP/2 into the form of one of HTTP/1, in which everything else is done. What is malformed
/// beyond repair, h2 has refused by itself (RFC 9113, section 8).
///
/// The limits are those that `framing` keeps for HTTP/1.
pub fn from_http2(request: &mut request::Parts, limits: &ListenerLimits) -> Result<(), BadRequest> {
    // The version stands in no line here, but the limit is the same for the same target.
    if request.method == Method::CONNECT {
        upgrade::from_connect(request)?;
    }
    check_line(request, limits)?;
    let headers = &mut request.headers;
    check_count(headers, limits)?;
    let (mut lengths, mut cookies) = (0, 0);
    for (name, value) in headers.iter() {
        // Section 8.2.1. In HTTP/1 such a space is not part of the value.
        if let [b' ' | b'\t', ..] | [.., b' ' | b'\t'] = value.as_bytes() {
            return Err(BadRequest::Field);
        }
        lengths += usize::from(name == header::CONTENT_LENGTH);
        cookies += usize::from(name == header::COOKIE);
    }
    if lengths > 1 {
        return Err(BadRequest::Field);
    }
    if cookies > 1 {
        // Section 8.2.3: in HTTP/1 there is one field.
        let crumbs: Vec<_> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
        let cookie = HeaderValue::from_maybe_shared(Bytes::from(crumbs.join(&b"; "[..])));
        headers.insert(header::COOKIE, cookie.map_err(|_| BadRequest::Field)?);
    }
    // hyper has no way to send 100 in HTTP/2. Clients do not wait for it for ever (RFC 9110, section 10.1.1).
    if headers.get(header::EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"))
    {
        headers.remove(header::EXPECT);
    }
    Ok(())
}

fn check_line(request: &request::Parts, limits: &ListenerLimits) -> Result<(), BadRequest> {
    let line = request.method.as_str().len() + 1 + request.uri.path().len() + " HTTP/1.1".len();
    let query = request.uri.query().map_or(0, |query| query.len() + 1);
    if line + query > limits.request_line.as_usize() {
        return Err(BadRequest::LongTarget);
    }
    // As in HTTP/1.
    let is_lower = request.method.as_str().bytes().any(|byte| byte.is_ascii_lowercase());
    (!is_lower).then_some(()).ok_or(BadRequest::Method)
}

fn check_count(headers: &HeaderMap, limits: &ListenerLimits) -> Result<(), BadRequest> {
    let is_within = headers.len() <= limits.header_count;
    is_within.then_some(()).ok_or(BadRequest::TooManyHeaders)
}

/// What `framing` keeps of a request of HTTP/1, of one that has not come by a wire.
pub fn check_limits(request: &request::Parts, limits: &ListenerLimits) -> Result<(), BadRequest> {
    check_line(request, limits)?;
    check_count(&request.headers, limits)
}

/// Makes a client's request the proxy's own: target and host in one canonical form, no field that ends at this
/// hop, and the word of the proxy on who sent it.
///
/// `length` is that of the body; none if it is not known before its end.
pub fn prepare(
    request: &mut request::Parts,
    peer: &Peer,
    trusted: &TrustedProxies,
    length: Option<u64>,
) -> Result<Prepared, BadRequest> {
    if request.method == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    let host = authority(request, peer)?;
    canonicalise(request)?;
    let is_last_hop = count_forwards(request)?;

    let headers = &request.headers;
    let hop = Hop::find(headers);
    let wants_trailers = hop.has(&header::TE) && asks_for_trailers(headers);
    let offer = if hop.has(&header::UPGRADE) { Offer::of(request, length) } else { None };
    let headers = &mut request.headers;
    hop.remove(headers);
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if length.is_none() {
        // hyper takes it that GET and HEAD have no body unless it is told.
        headers.insert(header::TRANSFER_ENCODING, CHUNKED);
    }
    let expects_continue = expectation(headers, request.version, length)?;
    let is_https = came_by_tls(headers, peer);
    let client = identify(headers, peer, trusted, host, request.version)?;
    Ok(Prepared { client, is_https, expects_continue, is_last_hop, offer })
}

/// Settles which host is asked for, and leaves it in `Host` alone (RFC 9112, section 3.2). None for a client of
/// HTTP/1.0 that names none.
fn authority(request: &mut request::Parts, peer: &Peer) -> Result<Option<HeaderValue>, BadRequest> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next().cloned();
    if hosts.next().is_some() || host.as_ref().is_some_and(|host| !is_authority(host.as_bytes())) {
        return Err(BadRequest::Host);
    }
    let Some(target) = request.uri.authority() else {
        return match host {
            None if request.version != Version::HTTP_10 => Err(BadRequest::Host),
            host => Ok(host.filter(|host| !host.is_empty())),
        };
    };
    // Absolute form: what it names must be what `Host` names.
    if request.uri.scheme_str() != Some(peer.scheme) || !is_authority(target.as_str().as_bytes()) {
        return Err(BadRequest::Target);
    }
    if host.as_ref().is_some_and(|host| !host.as_bytes().eq_ignore_ascii_case(target.as_str().as_bytes())) {
        return Err(BadRequest::HostMismatch);
    }
    let host = HeaderValue::from_str(target.as_str()).map_err(|_| BadRequest::Target)?;
    request.headers.insert(header::HOST, host.clone());
    Ok(Some(host))
}

/// Whether this is host and optional port as in RFC 3986, section 3.2, without user information; or empty.
fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value.iter().rposition(|&byte| byte == b':') {
        Some(colon) if !value.ends_with(b"]") => (&value[..colon], &value[colon + 1..]),
        _ => (value, &b""[..]),
    };
    let port_is_valid = port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    let host_is_valid = match host.strip_prefix(b"[") {
        Some(rest) => rest.strip_suffix(b"]").is_some_and(|address| {
            std::str::from_utf8(address).is_ok_and(|address| address.parse::<Ipv6Addr>().is_ok())
        }),
        None => host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(byte)),
    };
    port_is_valid && host_is_valid && (!host.is_empty() || value.is_empty())
}

/// The name to route by: lower case, without port and final dot.
pub(super) fn host_name(host: &HeaderValue) -> Cow<'_, str> {
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

/// Brings the target into origin form, with a canonical path.
fn canonicalise(request: &mut request::Parts) -> Result<(), BadRequest> {
    if request.uri.path() == "*" {
        let is_asterisk = request.method == Method::OPTIONS && request.uri.query().is_none();
        return if is_asterisk { Ok(()) } else { Err(BadRequest::Target) };
    }
    let is_absolute = request.uri.authority().is_some();
    let path = match request.uri.path() {
        "" if is_absolute => "/",
        path => path,
    };
    let target = match (path::canonical(path)?, request.uri.query()) {
        (Cow::Borrowed(_), _) if !is_absolute => return Ok(()),
        (Cow::Borrowed(_), _) if !request.uri.path().is_empty() => {
            // As it is, but for the scheme and the authority.
            let target = request.uri.path_and_query().cloned();
            request.uri = Uri::from(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
            return Ok(());
        }
        (path, Some(query)) => format!("{path}?{query}"),
        (path, None) => path.into_owned(),
    };
    let target = PathAndQuery::from_maybe_shared(Bytes::from(target)).map_err(|_| BadRequest::Target)?;
    request.uri = Uri::from(target);
    Ok(())
}

/// Counts `Max-Forwards` down. Whether it had come to zero.
///
/// The answer to TRACE would be the request as it came. Before a proxy that is trusted stand fields that are not
/// the client's to see, so there is none.
fn count_forwards(request: &mut request::Parts) -> Result<bool, BadRequest> {
    if request.method != Method::TRACE && request.method != Method::OPTIONS {
        return Ok(false);
    }
    let digits = request.headers.get(header::MAX_FORWARDS).map(HeaderValue::as_bytes);
    let digits = digits.filter(|digits| !digits.is_empty() && digits.iter().all(u8::is_ascii_digit));
    let left = digits.map(|digits| {
        digits
            .iter()
            .fold(0_u64, |left, digit| left.saturating_mul(10).saturating_add(u64::from(digit - b'0')))
    });
    match left {
        Some(0) if request.method == Method::TRACE => return Err(BadRequest::Trace),
        Some(0) => return Ok(true),
        Some(left) => {
            let left = (left - 1).min(u32::MAX.into());
            request.headers.insert(header::MAX_FORWARDS, HeaderValue::from(left));
        }
        None => {}
    }
    Ok(false)
}

fn asks_for_trailers(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::TE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|&byte| byte == b','))
        .any(|coding| coding.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

/// Whether the body waits to be asked for.
fn expectation(headers: &mut HeaderMap, version: Version, length: Option<u64>) -> Result<bool, BadRequest> {
    if !headers.contains_key(header::EXPECT) {
        return Ok(false);
    }
    let mut expected = headers.get_all(header::EXPECT).iter();
    if !expected.all(|expect| expect.as_bytes().eq_ignore_ascii_case(b"100-continue")) {
        return Err(BadRequest::Expectation);
    }
    if version == Version::HTTP_10 || length == Some(0) {
        headers.remove(header::EXPECT);
        return Ok(false);
    }
    Ok(true)
}

/// What is wrong with a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadResponse {
    #[error("the upstream switched protocols, which it was not asked to")]
    Upgrade,
    #[error("the upstream switched to a protocol that it was not asked for")]
    Protocol,
    #[error("`Sec-WebSocket-Accept` of the upstream does not answer the key")]
    WebSocketAccept,
    #[error("the upstream ended the connection when it was to go on in another protocol")]
    Ended,
    #[error("the upstream took the request for one that opens a tunnel, and none that can be used")]
    Connected,
    #[error("the upstream used a transfer coding other than `chunked`")]
    TransferCoding,
    #[error("the upstream stated a length of the body that is not one number")]
    Length,
}

/// Makes an upstream's response the proxy's own. Whether its connection can carry another request.
///
/// `expected` is there if the request asked to go on in another protocol.
pub(super) fn accept(
    response: &mut response::Parts,
    endpoint: &HeaderValue,
    expected: Option<&Expected>,
) -> Result<bool, BadResponse> {
    let headers = &mut response.headers;
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        let expected = expected.ok_or(BadResponse::Upgrade)?;
        expected.check(headers)?;
        Hop::find(headers).remove(headers);
        // RFC 9110, section 8.6: it has no content.
        headers.remove(header::CONTENT_LENGTH);
        expected.write(headers);
        let _ = headers.try_insert(X_BACKEND_SERVER, endpoint.clone());
        return Ok(false);
    }
    let hop = Hop::find(headers);
    let mut is_reusable = true;
    if hop.has(&header::TRANSFER_ENCODING) {
        let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
        let is_chunked =
            codings.next().is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(b"chunked"));
        if !is_chunked || codings.next().is_some() {
            return Err(BadResponse::TransferCoding);
        }
        // RFC 9112, section 6.3: whoever sends both lengths may be up to something.
        is_reusable = headers.remove(header::CONTENT_LENGTH).is_none();
    }
    // Section 6.3 again. hyper takes equal lengths for one, looks at none if there is no body, and hands them on
    // as they came.
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next()
        && (length.is_empty()
            || !length.as_bytes().iter().all(u8::is_ascii_digit)
            || lengths.next().is_some())
    {
        return Err(BadResponse::Length);
    }
    hop.remove(headers);
    if response.extensions.get::<ReasonPhrase>().is_some_and(|reason| reason.as_bytes().is_empty()) {
        // To some clients a status without a reason is none; hyper puts one in the place of none.
        response.extensions.remove::<ReasonPhrase>();
    }
    response.version = Version::HTTP_11;
    // A response with 32,768 headers is not one that this one more would help.
    let _ = headers.try_insert(X_BACKEND_SERVER, endpoint.clone());
    Ok(is_reusable)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(list: &[&str]) -> TrustedProxies {
        let networks = list.iter().filter(|entry| **entry != "unix:").map(|entry| entry.parse().unwrap());
        TrustedProxies { networks: networks.collect(), unix: list.contains(&"unix:") }
    }

    fn request(target: &str, headers: &[(&str, &str)]) -> request::Parts {
        let mut request = http::Request::builder().uri(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn prepare_from(
        address: &str,
        trusted: &[&str],
        mut request: request::Parts,
    ) -> Result<(request::Parts, Prepared), BadRequest> {
        let trusted = networks(trusted);
        let address = if address == "unix:" { Caller::Unix } else { Caller::Ip(address.parse().unwrap()) };
        let peer = Peer::new(address, "http", trusted.holds(address.client()));
        prepare(&mut request, &peer, &trusted, Some(0)).map(|prepared| (request, prepared))
    }

    fn values<'a>(request: &'a request::Parts, name: &str) -> Vec<&'a str> {
        request.headers.get_all(name).iter().map(|value| value.to_str().unwrap()).collect()
    }

    #[test]
    fn what_ends_at_this_hop_is_not_forwarded() {
        let request = request(
            "/",
            &[
                ("host", "a"),
                ("connection", "close, X-Private, authorization, x-forwarded-for, host"),
                ("connection", "x-other"),
                ("keep-alive", "timeout=5"),
                ("proxy-connection", "keep-alive"),
                ("upgrade", "h2c"),
                ("te", "gzip"),
                ("x-private", "1"),
                ("x-other", "1"),
                ("authorization", "Bearer x"),
                ("x-kept", "1"),
            ],
        );
        let (request, _) = prepare_from("192.0.2.1:1", &[], request).unwrap();
        for name in ["connection", "keep-alive", "proxy-connection", "upgrade", "te", "x-private", "x-other"]
        {
            assert!(!request.headers.contains_key(name), "{name}");
        }
        for name in ["authorization", "host", "x-forwarded-for", "x-kept"] {
            assert!(request.headers.contains_key(name), "{name}");
        }
    }

    #[test]
    fn a_stranger_does_not_say_who_it_is() {
        let request = request(
            "/",
            &[
                ("host", "a"),
                ("x-forwarded-for", "1.1.1.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "b"),
                ("forwarded", "for=1.1.1.1"),
                ("x-request-id", "mine"),
            ],
        );
        let (request, prepared) = prepare_from("192.0.2.1:1", &["10.0.0.0/8"], request).unwrap();
        assert_eq!(prepared.client, Caller::Ip(IpAddr::from([192, 0, 2, 1])));
        assert_eq!(values(&request, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["a"]);
        assert_eq!(values(&request, "forwarded"), [""; 0]);
        assert_ne!(values(&request, "x-request-id"), ["mine"]);
        assert_eq!(values(&request, "via"), ["1.1 tollgate"]);
    }

    #[test]
    fn the_word_of_a_trusted_proxy_counts() {
        let request = request(
            "/",
            &[
                ("host", "a"),
                ("x-forwarded-for", "6.6.6.6, 203.0.113.7"),
                ("x-forwarded-for", "10.1.1.1"),
                ("x-forwarded-proto", "https"),
                ("x-forwarded-host", "b"),
                ("forwarded", "for=203.0.113.7"),
                ("x-request-id", "theirs"),
            ],
        );
        let (request, prepared) = prepare_from("10.0.0.1:1", &["10.0.0.0/8"], request).unwrap();
        assert_eq!(
            prepared.client,
            Caller::Ip(IpAddr::from([203, 0, 113, 7])),
            "what stands left of it is hearsay"
        );
        assert_eq!(values(&request, "x-forwarded-for"), ["6.6.6.6, 203.0.113.7, 10.1.1.1, 10.0.0.1"]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["https"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["b"]);
        assert_eq!(values(&request, "forwarded"), ["for=203.0.113.7", "for=10.0.0.1;proto=http"]);
        assert_eq!(values(&request, "x-request-id"), ["theirs"]);

        let fields = [("host", "a"), ("x-request-id", "one"), ("x-request-id", "two")];
        let (request, _) =
            prepare_from("10.0.0.1:1", &["10.0.0.0/8"], super::tests::request("/", &fields)).unwrap();
        let ids = values(&request, "x-request-id");
        assert!(ids.len() == 1 && !["one", "two"].contains(&ids[0]), "{ids:?}");
    }

    #[test]
    fn who_comes_by_a_socket_of_unix_has_no_address() {
        let fields = [("host", "a"), ("x-forwarded-for", "203.0.113.7"), ("forwarded", "for=203.0.113.7")];
        let (stranger, prepared) = prepare_from("unix:", &["10.0.0.0/8"], request("/", &fields)).unwrap();
        assert_eq!(prepared.client, Caller::Unix);
        assert_eq!(values(&stranger, "x-forwarded-for"), [""; 0]);
        assert_eq!(values(&stranger, "forwarded"), [""; 0]);
        let (trusted, prepared) = prepare_from("unix:", &["unix:"], request("/", &fields)).unwrap();
        assert_eq!(prepared.client, Caller::Ip(IpAddr::from([203, 0, 113, 7])));
        assert_eq!(values(&trusted, "x-forwarded-for"), ["203.0.113.7"]);
        assert_eq!(values(&trusted, "forwarded"), ["for=203.0.113.7", "for=unknown;proto=http"]);
        let (silent, prepared) = prepare_from("unix:", &["unix:"], request("/", &fields[..1])).unwrap();
        assert_eq!(prepared.client, Caller::Unix);
        assert_eq!(values(&silent, "x-forwarded-for"), [""; 0]);
    }

    #[test]
    fn one_host_is_asked_for() {
        for (target, hosts, expected) in [
            ("/", &["a"][..], Ok("a")),
            ("/", &["A.example:8080"], Ok("A.example:8080")),
            ("/", &["[::1]:80"], Ok("[::1]:80")),
            ("/", &[], Err(BadRequest::Host)),
            ("/", &["a", "a"], Err(BadRequest::Host)),
            ("/", &["a b"], Err(BadRequest::Host)),
            ("/", &["a/b"], Err(BadRequest::Host)),
            ("/", &["u@a"], Err(BadRequest::Host)),
            ("/", &["a:b"], Err(BadRequest::Host)),
            ("/", &[":80"], Err(BadRequest::Host)),
            ("/", &["[::1"], Err(BadRequest::Host)),
            ("/", &["a,b"], Err(BadRequest::Host)),
            ("http://a/x", &["A"], Ok("a")),
            ("http://a/x", &[], Ok("a")),
            ("http://a", &["a"], Ok("a")),
            ("http://a/x", &["b"], Err(BadRequest::HostMismatch)),
            ("http://a:81/x", &["a"], Err(BadRequest::HostMismatch)),
            ("http://u@a/x", &["a"], Err(BadRequest::Target)),
            ("https://a/x", &["a"], Err(BadRequest::Target)),
            ("ftp://a/x", &["a"], Err(BadRequest::Target)),
        ] {
            let headers: Vec<_> = hosts.iter().map(|host| ("host", *host)).collect();
            let prepared = prepare_from("192.0.2.1:1", &[], request(target, &headers));
            let host = prepared.map(|(request, _)| values(&request, "host").concat());
            assert_eq!(host.as_deref().map_err(|error| *error), expected, "{target} {hosts:?}");
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

    #[test]
    fn the_target_is_forwarded_in_canonical_origin_form() {
        for (target, expected) in [
            ("/a?b", "/a?b"),
            ("/a/../b//c?d=/../", "/b/c?d=/../"),
            ("http://a", "/"),
            ("http://a?q", "/?q"),
            ("http://a/x/./y?q", "/x/y?q"),
        ] {
            let (request, _) = prepare_from("192.0.2.1:1", &[], request(target, &[("host", "a")])).unwrap();
            assert_eq!(request.uri, expected, "{target}");
        }
        let error = prepare_from("192.0.2.1:1", &[], request("*", &[("host", "a")])).unwrap_err();
        assert_eq!(error, BadRequest::Target, "`*` goes with OPTIONS only");
    }

    #[test]
    fn only_one_expectation_is_understood() {
        let with =
            |value| prepare_from("192.0.2.1:1", &[], request("/", &[("host", "a"), ("expect", value)]));
        assert_eq!(with("200-ok").unwrap_err(), BadRequest::Expectation);
        let (request, prepared) = with("100-Continue").unwrap();
        assert!(!prepared.expects_continue, "there is no body to wait with");
        assert!(!request.headers.contains_key("expect"));
    }

    #[test]
    fn trailers_are_asked_for_on_behalf_of_the_client() {
        let headers = [("host", "a"), ("te", "gzip;q=0.5, trailers"), ("connection", "TE")];
        let (request, _) = prepare_from("192.0.2.1:1", &[], request("/", &headers)).unwrap();
        assert_eq!(values(&request, "te"), ["trailers"]);
        assert_eq!(values(&request, "connection"), ["te"]);
    }

    #[test]
    fn a_request_goes_no_further_than_it_asks() {
        for (forwards, is_last, left) in [("0", true, "0"), ("3", false, "2"), ("x", false, "x")] {
            let mut parts = request("/", &[("host", "a"), ("max-forwards", forwards)]);
            parts.method = Method::OPTIONS;
            let (request, prepared) = prepare_from("192.0.2.1:1", &[], parts).unwrap();
            assert_eq!(prepared.is_last_hop, is_last);
            assert_eq!(values(&request, "max-forwards"), [left]);
        }
    }

    #[test]
    fn a_response_with_both_lengths_is_not_trusted_further() {
        let endpoint = HeaderValue::from_static("a:1");
        let response = |headers: &[(&'static str, &'static str)]| {
            let mut response = http::Response::builder();
            for (name, value) in headers {
                response = response.header(*name, *value);
            }
            let mut parts = response.body(()).unwrap().into_parts().0;
            accept(&mut parts, &endpoint, None).map(|is_reusable| (is_reusable, parts.headers))
        };
        let (is_reusable, headers) = response(&[
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("connection", "x-a"),
            ("x-a", "1"),
        ])
        .unwrap();
        assert!(!is_reusable);
        assert_eq!(headers.len(), 1, "{headers:?}");
        assert_eq!(headers["x-backend-server"], "a:1");
        assert!(response(&[("transfer-encoding", "chunked")]).unwrap().0);
        assert_eq!(
            response(&[("transfer-encoding", "gzip, chunked")]).unwrap_err(),
            BadResponse::TransferCoding
        );
    }
}
