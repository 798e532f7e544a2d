//! What may a message carry across the proxy?
//!
//! Values in, values out: nothing here does I/O. Rules are those of RFC 9110, section 7 (routing and
//! forwarding), and RFC 9112, section 3.2 (the request target).

use std::borrow::Cow;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, Version, header, request, response,
    uri::PathAndQuery,
};
use hyper::ext::ReasonPhrase;

use super::{
    identity::{CLIENT_CERT, CLIENT_CERT_CHAIN, Came, Peer, identify},
    malformed::{BadRequest, BadResponse},
    upgrade::{self, Expected, Offer},
};
use crate::{
    authority,
    config::{ListenerLimits, TrustedProxies, UnusualNames},
    field::{self, OF_THE_PROXY},
    path,
};

const X_BACKEND_SERVER: HeaderName = HeaderName::from_static("x-backend-server");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const CHUNKED: HeaderValue = HeaderValue::from_static("chunked");

/// What a request asks for besides what stands in its headers.
#[derive(Debug)]
pub struct Prepared {
    /// Who sent it in the first place, and how that client reached the first proxy.
    pub came: Came,
    /// The body waits for the upstream's word (RFC 9110, section 10.1.1).
    pub expects_continue: bool,
    /// The request has come as far as it may: the proxy answers by itself (RFC 9110, section 7.6.2).
    pub is_last_hop: bool,
    /// Other protocols that the client would go on in.
    pub(super) offer: Option<Offer>,
}

/// What there is to remove from a message, as bits: a field of [`HOP_FIELDS`] each, and two for a request.
#[derive(Default)]
struct Found(u16);

/// Who a client is by its certificate is said by whoever has verified it, and that is never the client: nor a
/// proxy before this one, which may have passed on what it was sent (RFC 9440, section 4).
static HOP_FIELDS: [HeaderName; 11] = [
    header::CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::PROXY_AUTHORIZATION,
    header::PROXY_AUTHENTICATE,
    HTTP2_SETTINGS,
    CLIENT_CERT,
    CLIENT_CERT_CHAIN,
];

impl Found {
    /// A name that holds more than letters, digits and hyphens.
    const UNUSUAL: u16 = 1 << HOP_FIELDS.len();
    /// A field that only proxies may send, from somebody else.
    const STRANGE: u16 = Self::UNUSUAL << 1;

    /// One look at each header is cheaper than eleven searches that nearly always find nothing.
    fn in_response(headers: &HeaderMap) -> Self {
        Self(headers.keys().fold(0, |found, name| found | Self::hop_bit(name)))
    }

    fn in_request(headers: &HeaderMap, is_trusted: bool) -> Self {
        let bit = |name: &HeaderName| match name.as_str() {
            text if !field::is_plain(text) => Self::UNUSUAL,
            text if !is_trusted && field::is_plain_and_only_for_proxies(text) => Self::STRANGE,
            _ => 0,
        };
        Self(headers.keys().fold(0, |found, name| found | Self::hop_bit(name) | bit(name)))
    }

    fn hop_bit(name: &HeaderName) -> u16 {
        // Most names are told from all of these by their length.
        const LENGTHS: u32 =
            1 << 2 | 1 << 7 | 1 << 10 | 1 << 11 | 1 << 14 | 1 << 16 | 1 << 17 | 1 << 18 | 1 << 19;
        let is_of_length =
            LENGTHS.checked_shr(name.as_str().len() as u32).is_some_and(|lengths| lengths & 1 == 1);
        let index = HOP_FIELDS.iter().position(|field| is_of_length && field == name);
        index.map_or(0, |index| 1 << index)
    }

    fn has(&self, name: &HeaderName) -> bool {
        HOP_FIELDS.iter().position(|field| field == name).is_some_and(|index| self.0 & (1 << index) != 0)
    }

    /// Removes what is not a client's to say, under whatever name a server may take for it.
    fn remove_from_request(&self, headers: &mut HeaderMap, unusual: UnusualNames) -> Result<(), BadRequest> {
        if self.0 == 0 {
            return Ok(());
        }
        if self.0 & Self::UNUSUAL != 0 {
            match unusual {
                UnusualNames::Drop => remove(headers, |name| !field::is_plain(name)),
                UnusualNames::Refuse => return Err(BadRequest::UnusualName),
                // What a proxy says is spelled with hyphens. Otherwise it is a client who speaks through one.
                UnusualNames::Forward => remove(headers, |name| {
                    !field::is_plain(name)
                        && (field::is_one_of(&OF_THE_PROXY, name) || field::is_only_for_proxies(name))
                }),
            }
        }
        if self.0 & Self::STRANGE != 0 {
            remove(headers, field::is_only_for_proxies);
        }
        self.remove_hop_fields(headers);
        Ok(())
    }

    fn remove_hop_fields(&self, headers: &mut HeaderMap) {
        if self.0 == 0 {
            return;
        }
        if self.has(&header::CONNECTION) {
            remove_named(headers);
        }
        for (index, name) in HOP_FIELDS.iter().enumerate() {
            if self.0 & (1 << index) != 0 {
                headers.remove(name);
            }
        }
    }
}

fn remove(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let unwanted: Vec<_> = headers.keys().filter(|name| is_unwanted(name.as_str())).cloned().collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Removes the fields that `Connection` names, but for those that are nobody's to take away: a client must not
/// be able to make the proxy drop what upstreams rely on, nor an upstream what decides who gets a stored response.
fn remove_named(headers: &mut HeaderMap) {
    const PROTECTED: [&str; 19] = [
        "age",
        "authorization",
        "cache-control",
        "cdn-cache-control",
        "content-range",
        "date",
        "etag",
        "expires",
        "last-modified",
        "vary",
        "content-encoding",
        "content-length",
        "content-type",
        "cookie",
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
        .filter(|name| !PROTECTED.contains(&name.as_str()) && !field::is_only_for_proxies(name.as_str()))
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
    let line = check_line(request, limits)?;
    let host = request.uri.authority().map_or(0, |host| "host: \r\n".len() + host.as_str().len());
    let headers = &mut request.headers;
    let (mut lengths, mut cookies, mut size) = (0, 0, 0);
    for (name, value) in headers.iter() {
        size += name.as_str().len() + ": \r\n".len() + value.len();
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
    // In the form that it has in HTTP/1, a cookie goes behind `; ` and not on a line of its own.
    let of_crumbs = cookies.max(1) - 1;
    size -= of_crumbs * ("cookie: \r\n".len() - "; ".len());
    if line + host + size + 2 * "\r\n".len() > limits.headers.as_usize() {
        return Err(BadRequest::LongHead);
    }
    check_count(headers.len() - of_crumbs, limits)?;
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

/// The length of the request line that this would be in HTTP/1.
fn check_line(request: &request::Parts, limits: &ListenerLimits) -> Result<usize, BadRequest> {
    let line = request.method.as_str().len() + 1 + request.uri.path().len() + " HTTP/1.1".len();
    let line = line + request.uri.query().map_or(0, |query| query.len() + 1);
    if line > limits.request_line.as_usize() {
        return Err(BadRequest::LongTarget);
    }
    // As in HTTP/1.
    let is_lower = request.method.as_str().bytes().any(|byte| byte.is_ascii_lowercase());
    (!is_lower).then_some(line).ok_or(BadRequest::Method)
}

fn check_count(fields: usize, limits: &ListenerLimits) -> Result<(), BadRequest> {
    (fields <= limits.header_count).then_some(()).ok_or(BadRequest::TooManyHeaders)
}

/// What `framing` keeps of a request of HTTP/1, of one that has not come by a wire.
pub fn check_limits(request: &request::Parts, limits: &ListenerLimits) -> Result<(), BadRequest> {
    check_line(request, limits)?;
    check_count(request.headers.len(), limits)
}

/// Makes a client's request the proxy's own: target and host in one canonical form, no field that ends at this
/// hop, and the word of the proxy on who sent it.
///
/// `length` is that of the body; none if it is not known before its end.
pub fn prepare(
    request: &mut request::Parts,
    peer: &Peer,
    trusted: &TrustedProxies,
    unusual: UnusualNames,
    length: Option<u64>,
) -> Result<Prepared, BadRequest> {
    if request.method == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    let scheme = settle_host(request, peer)?;
    canonicalise(request)?;
    let is_last_hop = count_forwards(request)?;

    let headers = &request.headers;
    let found = Found::in_request(headers, peer.is_trusted());
    let wants_trailers = found.has(&header::TE) && asks_for_trailers(headers);
    let offer = if found.has(&header::UPGRADE) { Offer::of(request, length) } else { None };
    let headers = &mut request.headers;
    found.remove_from_request(headers, unusual)?;
    if wants_trailers {
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    match length {
        // hyper takes it that GET and HEAD have no body unless it is told.
        None => drop(headers.insert(header::TRANSFER_ENCODING, CHUNKED)),
        // HTTP/2 need not say so; servers of HTTP/1 may answer 411 if nobody does (RFC 9110, section 8.6).
        Some(0)
            if request.version == Version::HTTP_2
                && matches!(request.method, Method::POST | Method::PUT | Method::PATCH) =>
        {
            headers
                .try_insert(header::CONTENT_LENGTH, HeaderValue::from(0))
                .map_err(|_| BadRequest::TooManyHeaders)?;
        }
        Some(_) => {}
    }
    let expects_continue = expectation(headers, request.version, length)?;
    let came = identify(headers, peer, trusted, scheme, request.version)?;
    Ok(Prepared { came, expects_continue, is_last_hop, offer })
}

/// Settles which host is asked for, and leaves it in `Host` alone (RFC 9112, section 3.2): an empty one where a client
/// of HTTP/1.0 names none. Gives the scheme of the target.
fn settle_host(request: &mut request::Parts, peer: &Peer) -> Result<&'static str, BadRequest> {
    let mut hosts = request.headers.get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() || host.is_some_and(|host| !authority::is_valid(host.as_bytes())) {
        return Err(BadRequest::Host);
    }
    // Only HTTP/1.0 and HTTP/2 can do without, and the former need not name a host at all.
    let may_lack = match request.uri.authority() {
        Some(_) => request.version != Version::HTTP_11,
        None => request.version == Version::HTTP_10,
    };
    if host.is_none() && !may_lack {
        return Err(BadRequest::Host);
    }
    let Some(target) = request.uri.authority() else {
        if host.is_none() {
            // What goes upstream is HTTP/1.1, and must have one.
            let empty = HeaderValue::from_static("");
            request.headers.try_insert(header::HOST, empty).map_err(|_| BadRequest::TooManyHeaders)?;
        }
        return Ok(peer.scheme);
    };
    let target = target.as_str().as_bytes();
    // In letters of any case (RFC 3986, section 3.1).
    let says = |scheme: &str| request.uri.scheme_str().is_some_and(|said| said.eq_ignore_ascii_case(scheme));
    let scheme = match ["http", "https"].into_iter().find(|scheme| says(scheme)) {
        Some(scheme) if scheme == peer.scheme => scheme,
        // A gateway says the scheme by which its client came (RFC 9110, section 7.4; RFC 9113, section 8.3.1).
        Some(scheme) if peer.is_trusted() => scheme,
        Some(_) | None => return Err(BadRequest::Target),
    };
    if !authority::is_valid(target) || target.is_empty() {
        return Err(BadRequest::Target);
    }
    // Absolute form: what it names must be what `Host` names.
    if host.is_some_and(|host| !authority::is_same(host.as_bytes(), target, scheme)) {
        return Err(BadRequest::HostMismatch);
    }
    let host = HeaderValue::from_bytes(target).map_err(|_| BadRequest::Target)?;
    request.headers.try_insert(header::HOST, host).map_err(|_| BadRequest::TooManyHeaders)?;
    Ok(scheme)
}

/// Brings the target into origin form, with a canonical path and a query of ASCII.
fn canonicalise(request: &mut request::Parts) -> Result<(), BadRequest> {
    let is_absolute = request.uri.authority().is_some();
    if request.uri.path() == "*" {
        let is_asterisk = request.method == Method::OPTIONS && request.uri.query().is_none();
        if is_asterisk && is_absolute {
            // In HTTP/2 scheme and host stand beside it.
            request.uri = Uri::from(PathAndQuery::from_static("*"));
        }
        return if is_asterisk { Ok(()) } else { Err(BadRequest::Target) };
    }
    let path = match request.uri.path() {
        "" if is_absolute => "/",
        path => path,
    };
    let target = match (path::canonical(path)?, request.uri.query().map(path::canonical_query)) {
        (Cow::Borrowed(_), None | Some(Cow::Borrowed(_))) if !is_absolute => return Ok(()),
        (Cow::Borrowed(_), None | Some(Cow::Borrowed(_))) if !request.uri.path().is_empty() => {
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

/// Makes an upstream's response the proxy's own. Whether its connection can carry another request.
///
/// `expected` is there if the request asked to go on in another protocol.
pub(crate) fn accept(
    response: &mut response::Parts,
    endpoint: &HeaderValue,
    expected: Option<&Expected>,
) -> Result<bool, BadResponse> {
    let headers = &mut response.headers;
    if response.status == StatusCode::SWITCHING_PROTOCOLS {
        let expected = expected.ok_or(BadResponse::Upgrade)?;
        expected.check(headers)?;
        Found::in_response(headers).remove_hop_fields(headers);
        // RFC 9110, section 8.6: it has no content.
        headers.remove(header::CONTENT_LENGTH);
        expected.write(headers);
        let _ = headers.try_insert(X_BACKEND_SERVER, endpoint.clone());
        return Ok(false);
    }
    let hop = Found::in_response(headers);
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
    // RFC 9110, section 15.5.22: it says what the client is to go on in, which only the upstream knows.
    let required = match response.status {
        StatusCode::UPGRADE_REQUIRED => headers.get(header::UPGRADE).cloned(),
        _ => None,
    };
    hop.remove_hop_fields(headers);
    if let Some(protocols) = required {
        headers.insert(header::UPGRADE, protocols);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    }
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
    use std::net::IpAddr;

    use super::*;
    use crate::address::Caller;

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
        prepare(&mut request, &peer, &trusted, UnusualNames::Drop, Some(0))
            .map(|prepared| (request, prepared))
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
        assert_eq!(prepared.came.client, Caller::Ip(IpAddr::from([192, 0, 2, 1])));
        assert_eq!(values(&request, "x-forwarded-for"), ["192.0.2.1"]);
        assert_eq!(values(&request, "x-forwarded-proto"), ["http"]);
        assert_eq!(values(&request, "x-forwarded-host"), ["a"]);
        assert_eq!(values(&request, "forwarded"), [""; 0]);
        assert_ne!(values(&request, "x-request-id"), ["mine"]);
        assert_eq!(values(&request, "via"), ["1.1 tollgate"]);
    }

    #[test]
    fn what_only_proxies_say_does_not_come_from_a_stranger_under_any_name() {
        let fields = [
            ("host", "a"),
            ("x-real-ip", "6.6.6.6"),
            ("x-forwarded-port", "6"),
            ("x-forwarded-user", "root"),
            ("front-end-https", "on"),
            ("x-original-url", "/admin"),
            ("proxy", "http://evil"),
            ("x_forwarded_for", "6.6.6.6"),
            ("x.real.ip", "6.6.6.6"),
            ("x_consumer", "root"),
            ("x-kept", "1"),
        ];
        let (stranger, _) = prepare_from("192.0.2.1:1", &["10.0.0.0/8"], request("/", &fields)).unwrap();
        let mut left: Vec<_> = stranger.headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        let own = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-kept", "x-request-id"];
        assert_eq!(left, [&["host", "via"][..], &own].concat());
        let (trusted, _) = prepare_from("10.0.0.1:1", &["10.0.0.0/8"], request("/", &fields)).unwrap();
        for name in ["x-real-ip", "x-forwarded-port", "x-original-url", "x-kept"] {
            assert!(trusted.headers.contains_key(name), "{name} of a trusted proxy");
        }
        for name in ["x_forwarded_for", "x.real.ip", "x_consumer"] {
            assert!(!trusted.headers.contains_key(name), "{name}, which no proxy says");
        }
    }

    #[test]
    fn what_becomes_of_underscores_is_for_the_operator_to_say() {
        let fields = [("host", "a"), ("x_real_ip", "6"), ("content_length", "5"), ("x_a", "1")];
        let prepare_with = |unusual| {
            let mut request = request("/", &fields);
            let peer = Peer::new(Caller::Ip("10.0.0.1:1".parse().unwrap()), "http", true);
            prepare(&mut request, &peer, &networks(&["10.0.0.0/8"]), unusual, Some(0)).map(|_| {
                let names = request.headers.keys().map(|name| name.as_str().to_owned());
                names.filter(|name| name.contains('_')).collect::<Vec<_>>()
            })
        };
        assert_eq!(prepare_with(UnusualNames::Drop), Ok(vec![]));
        assert_eq!(prepare_with(UnusualNames::Refuse), Err(BadRequest::UnusualName));
        assert_eq!(prepare_with(UnusualNames::Forward), Ok(vec!["x_a".to_owned()]));
    }

    #[test]
    fn a_trusted_proxy_says_how_its_client_came() {
        let came = |fields: &[(&str, &str)]| {
            let fields = [&[("host", "a")], fields].concat();
            let (request, prepared) =
                prepare_from("10.0.0.1:1", &["10.0.0.0/8"], request("/", &fields)).unwrap();
            let Came { client, scheme, host } = prepared.came;
            assert_eq!(values(&request, "x-forwarded-proto"), [scheme], "{fields:?}");
            let host = host.map(|host| host.to_str().unwrap().to_owned());
            assert_eq!(values(&request, "x-forwarded-host"), [host.as_deref().unwrap_or("a")], "{fields:?}");
            (
                client.to_string(),
                scheme,
                host.unwrap_or_default(),
                values(&request, "x-forwarded-for").concat(),
            )
        };
        let own = "10.0.0.1";
        for (fields, client, scheme, host, hops) in [
            (&[][..], own, "http", "", own),
            (&[("x-forwarded-proto", "https")], own, "https", "", own),
            (&[("x-forwarded-proto", "https, https")], own, "https", "", own),
            (&[("x-forwarded-proto", "https"), ("x-forwarded-proto", "http")], own, "https", "", own),
            (&[("x-forwarded-proto", "wss")], own, "https", "", own),
            (&[("x-forwarded-proto", "gopher")], own, "http", "", own),
            (&[("x-forwarded-host", "b:81, c")], own, "http", "b:81", own),
            (&[("x-forwarded-host", "u@evil")], own, "http", "", own),
            // What stands left of the client is hearsay, there and in the other lists.
            (
                &[
                    ("x-forwarded-for", "6.6.6.6, 1.1.1.1, 10.0.0.2"),
                    ("x-forwarded-proto", "http, https, http"),
                ],
                "1.1.1.1",
                "https",
                "",
                "6.6.6.6, 1.1.1.1, 10.0.0.2, 10.0.0.1",
            ),
            (&[("forwarded", "for=1.1.1.1")], "1.1.1.1", "http", "", "1.1.1.1, 10.0.0.1"),
            (
                &[(
                    "forwarded",
                    "for=6.6.6.6;proto=http, For=\"1.1.1.1:80\";Proto=HTTPS;Host=b, for=10.0.0.2;proto=http",
                )],
                "1.1.1.1",
                "https",
                "b",
                "6.6.6.6, 1.1.1.1, 10.0.0.2, 10.0.0.1",
            ),
            (&[("forwarded", "proto=https")], own, "https", "", own),
            (&[("forwarded", "for=unknown;proto=https")], own, "https", "", own),
            (&[("forwarded", "for=\"[2001:db8::1]:1\"")], "2001:db8::1", "http", "", "2001:db8::1, 10.0.0.1"),
            (&[("forwarded", "for=1.1.1.1;proto")], own, "http", "", own),
            // It may be the client's own where `X-Forwarded-For` says otherwise.
            (
                &[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=6.6.6.6;proto=https;host=evil")],
                "1.1.1.1",
                "http",
                "",
                "1.1.1.1, 10.0.0.1",
            ),
            (
                &[("x-forwarded-for", "1.1.1.1"), ("forwarded", "for=1.1.1.1;proto=https;host=b")],
                "1.1.1.1",
                "https",
                "b",
                "1.1.1.1, 10.0.0.1",
            ),
        ] {
            let expected = (client.to_owned(), scheme, host.to_owned(), hops.to_owned());
            assert_eq!(came(fields), expected, "{fields:?}");
        }
    }

    #[test]
    fn a_gateway_may_name_the_scheme_of_its_client() {
        for (address, target, expected) in [
            ("10.0.0.1:1", "https://a/", Ok("https")),
            ("10.0.0.1:1", "http://a/", Ok("http")),
            ("10.0.0.1:1", "HTTPS://a/", Ok("https")),
            ("192.0.2.1:1", "Http://a/", Ok("http")),
            ("10.0.0.1:1", "ftp://a/", Err(BadRequest::Target)),
            ("192.0.2.1:1", "https://a/", Err(BadRequest::Target)),
        ] {
            let prepared = prepare_from(address, &["10.0.0.0/8"], request(target, &[("host", "a")]));
            assert_eq!(prepared.map(|(_, prepared)| prepared.came.scheme), expected, "{address} {target}");
        }
    }

    #[test]
    fn what_goes_upstream_names_a_host_and_the_length_of_what_may_have_content() {
        let mut old = request("/", &[]);
        old.version = Version::HTTP_10;
        let (old, _) = prepare_from("192.0.2.1:1", &[], old).unwrap();
        assert_eq!(values(&old, "host"), [""]);
        for (method, expected) in [(Method::POST, &["0"][..]), (Method::PUT, &["0"]), (Method::GET, &[])] {
            let mut parts = request("/", &[("host", "a")]);
            (parts.method, parts.version) = (method, Version::HTTP_2);
            let (parts, _) = prepare_from("192.0.2.1:1", &[], parts).unwrap();
            assert_eq!(values(&parts, "content-length"), expected, "{}", parts.method);
        }
        let mut asterisk = request("http://a/", &[("host", "a")]);
        (asterisk.method, asterisk.version) = (Method::OPTIONS, Version::HTTP_2);
        let mut parts = asterisk.uri.clone().into_parts();
        parts.path_and_query = Some(PathAndQuery::from_static("*"));
        asterisk.uri = Uri::from_parts(parts).unwrap();
        let (asterisk, _) = prepare_from("192.0.2.1:1", &[], asterisk).unwrap();
        assert_eq!(asterisk.uri, "*");
    }

    #[test]
    fn the_crumbs_of_a_cookie_are_one_field() {
        let crumbs = |count: usize, size: usize| {
            let mut parts = request("http://a/", &[("x-a", "1")]);
            parts.version = Version::HTTP_2;
            for number in 0..count {
                let crumb = HeaderValue::try_from(format!("c{number}={}", "x".repeat(size))).unwrap();
                parts.headers.append(header::COOKIE, crumb);
            }
            let result = from_http2(&mut parts, &ListenerLimits::default());
            result.map(|()| values(&parts, "cookie").concat().matches("; ").count() + 1)
        };
        assert_eq!(crumbs(300, 10), Ok(300));
        assert_eq!(crumbs(300, 200), Err(BadRequest::LongHead), "as in HTTP/1");
        let mut many = request("http://a/", &[]);
        for number in 0..101 {
            many.headers.append("x-a", HeaderValue::from(number));
        }
        assert_eq!(from_http2(&mut many, &ListenerLimits::default()), Err(BadRequest::TooManyHeaders));
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
            prepared.came.client,
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
        assert_eq!(prepared.came.client, Caller::Unix);
        assert_eq!(values(&stranger, "x-forwarded-for"), [""; 0]);
        assert_eq!(values(&stranger, "forwarded"), [""; 0]);
        let (trusted, prepared) = prepare_from("unix:", &["unix:"], request("/", &fields)).unwrap();
        assert_eq!(prepared.came.client, Caller::Ip(IpAddr::from([203, 0, 113, 7])));
        assert_eq!(values(&trusted, "x-forwarded-for"), ["203.0.113.7"]);
        assert_eq!(values(&trusted, "forwarded"), ["for=203.0.113.7", "for=unknown;proto=http"]);
        let (silent, prepared) = prepare_from("unix:", &["unix:"], request("/", &fields[..1])).unwrap();
        assert_eq!(prepared.came.client, Caller::Unix);
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
            ("http://a:80/x", &["A"], Ok("a:80")),
            ("http://a/x", &["a:80"], Ok("a")),
            ("http://a/x", &["a:443"], Err(BadRequest::HostMismatch)),
            // RFC 9112, section 3.2: HTTP/1.1 has it in any case.
            ("http://a/x", &[], Err(BadRequest::Host)),
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
    fn the_target_is_forwarded_in_canonical_origin_form() {
        for (target, expected) in [
            ("/a?b", "/a?b"),
            ("/a/../b//c?d=/../", "/b/c?d=/../"),
            ("http://a", "/"),
            ("/a?q=é", "/a?q=%C3%A9"),
            ("/é?q", "/%C3%A9?q"),
            ("http://a/?é", "/?%C3%A9"),
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
        // What decides who else gets the response stays.
        let (_, headers) =
            response(&[("connection", "vary, expires"), ("vary", "x-u"), ("expires", "0")]).unwrap();
        assert!(headers.contains_key("vary") && headers.contains_key("expires"), "{headers:?}");
        assert!(response(&[("transfer-encoding", "chunked")]).unwrap().0);
        assert_eq!(
            response(&[("transfer-encoding", "gzip, chunked")]).unwrap_err(),
            BadResponse::TransferCoding
        );
    }
}
