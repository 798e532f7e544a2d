//! Who sent a request, and whose word counts on that?

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::headers::BadRequest;
use crate::{address::Caller, config::TrustedProxies, tls::ClientCertificate};

pub(super) const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
pub(super) const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// RFC 9440.
pub(super) const CLIENT_CERT: HeaderName = HeaderName::from_static("client-cert");
pub(super) const CLIENT_CERT_CHAIN: HeaderName = HeaderName::from_static("client-cert-chain");

/// Who speaks to the proxy, as far as headers are concerned.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: Caller<SocketAddr>,
    /// The address without the port, ready to be forwarded, if there is one.
    address_value: Option<HeaderValue>,
    /// Whether it is a proxy whose word on its own client counts.
    is_trusted: bool,
    pub scheme: &'static str,
    /// Its certificate, where it has shown one.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Where it has connected to, if somebody wants to know.
    pub destination: Option<SocketAddr>,
}

impl Peer {
    pub fn new(address: Caller<SocketAddr>, scheme: &'static str, is_trusted: bool) -> Self {
        let value = match address.client() {
            Caller::Ip(address) => {
                Some(HeaderValue::try_from(address.to_string()).expect("an IP address is visible ASCII"))
            }
            Caller::Unix => None,
        };
        Self { address, address_value: value, is_trusted, scheme, certificate: None, destination: None }
    }

    /// Whether it may speak for clients of its own.
    pub(super) fn is_trusted(&self) -> bool {
        self.is_trusted
    }
}

/// Whether the original client came by TLS. A trusted proxy knows that of its own client.
pub(super) fn came_by_tls(headers: &HeaderMap, peer: &Peer) -> bool {
    let told = headers.get(X_FORWARDED_PROTO).filter(|_| peer.is_trusted);
    told.map_or(peer.scheme == "https", |scheme| scheme.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Says who sent the request, and finds out who did in the first place.
pub(super) fn identify(
    headers: &mut HeaderMap,
    peer: &Peer,
    trusted: &TrustedProxies,
    host: Option<HeaderValue>,
    version: Version,
) -> Result<Caller<IpAddr>, BadRequest> {
    let room = |_| BadRequest::TooManyHeaders;
    let proto = HeaderValue::from_static(peer.scheme);
    let mut client = peer.address.client();
    let mut is_known = false;
    if peer.is_trusted {
        let before: Vec<u8> = joined(headers, &X_FORWARDED_FOR);
        client = original_client(&before, trusted).map_or(client, Caller::Ip);
        let mut value = before;
        if let Some(address) = &peer.address_value {
            if !value.is_empty() {
                value.extend_from_slice(b", ");
            }
            value.extend_from_slice(address.as_bytes());
        }
        if !value.is_empty() {
            let value =
                HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|_| BadRequest::TooManyHeaders)?;
            headers.try_insert(X_FORWARDED_FOR, value).map_err(room)?;
        }
        if !headers.contains_key(X_FORWARDED_PROTO) {
            headers.try_insert(X_FORWARDED_PROTO, proto).map_err(room)?;
        }
        if let Some(host) = host.filter(|_| !headers.contains_key(X_FORWARDED_HOST)) {
            headers.try_insert(X_FORWARDED_HOST, host).map_err(room)?;
        }
        let mut ids = headers.get_all(X_REQUEST_ID).iter();
        is_known = ids.next().is_some_and(is_request_id) && ids.next().is_none();
        append_forwarded(headers, peer);
    } else {
        headers.remove(header::FORWARDED);
        match &peer.address_value {
            Some(address) => drop(headers.try_insert(X_FORWARDED_FOR, address.clone()).map_err(room)?),
            // Whoever it is, it is not whom it names.
            None => drop(headers.remove(X_FORWARDED_FOR)),
        }
        headers.try_insert(X_FORWARDED_PROTO, proto).map_err(room)?;
        match host {
            Some(host) => drop(headers.try_insert(X_FORWARDED_HOST, host).map_err(room)?),
            None => drop(headers.remove(X_FORWARDED_HOST)),
        }
    }
    if !is_known {
        headers.try_insert(X_REQUEST_ID, new_request_id()).map_err(room)?;
    }
    if let Some(certificate) = &peer.certificate {
        for (name, value) in [(CLIENT_CERT, &certificate.forwarded), (CLIENT_CERT_CHAIN, &certificate.chain)]
        {
            value.clone().map(|value| headers.try_insert(name, value)).transpose().map_err(room)?;
        }
    }
    // RFC 9110, section 7.6.3.
    let via = match version {
        Version::HTTP_2 => "2 tollgate",
        Version::HTTP_10 => "1.0 tollgate",
        _ => "1.1 tollgate",
    };
    headers.try_append(header::VIA, HeaderValue::from_static(via)).map_err(room)?;
    Ok(client)
}

/// All values of a field, joined by commas.
fn joined(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect::<Vec<_>>().join(&b", "[..])
}

/// The rightmost address that is not a trusted proxy; the leftmost if all are. None if there is no address.
fn original_client(forwarded_for: &[u8], trusted: &TrustedProxies) -> Option<IpAddr> {
    let mut client = None;
    for entry in forwarded_for.rsplit(|&byte| byte == b',') {
        let Some(address) = std::str::from_utf8(entry.trim_ascii()).ok().and_then(parse_address) else {
            break;
        };
        client = Some(address);
        if !trusted.holds(Caller::Ip(address)) {
            break;
        }
    }
    client
}

/// An address, with or without port and brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    let address = address.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    address.map(|address: IpAddr| address.to_canonical())
}

/// Continues `Forwarded` (RFC 7239) where a trusted proxy has begun one.
fn append_forwarded(headers: &mut HeaderMap, peer: &Peer) {
    if !headers.contains_key(header::FORWARDED) {
        return;
    }
    let element = match peer.address.client() {
        Caller::Ip(IpAddr::V4(address)) => format!("for={address};proto={}", peer.scheme),
        Caller::Ip(IpAddr::V6(address)) => format!("for=\"[{address}]\";proto={}", peer.scheme),
        Caller::Unix => format!("for=unknown;proto={}", peer.scheme),
    };
    if let Ok(element) = HeaderValue::try_from(element) {
        let _ = headers.try_append(header::FORWARDED, element);
    }
}

fn is_request_id(value: &HeaderValue) -> bool {
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// 128 bits by chance, in hexadecimal.
pub(super) fn new_request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let number = fastrand::u128(..);
    let digits: [u8; 32] = std::array::from_fn(|place| DIGITS[(number >> (124 - 4 * place)) as usize & 15]);
    HeaderValue::from_bytes(&digits).expect("hexadecimal digits are visible ASCII")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_in_several_forms() {
        for (text, expected) in [
            ("1.2.3.4", Some("1.2.3.4")),
            ("1.2.3.4:80", Some("1.2.3.4")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:80", Some("2001:db8::1")),
            ("::ffff:1.2.3.4", Some("1.2.3.4")),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(parse_address(text), expected.map(|address| address.parse().unwrap()), "{text}");
        }
    }
}
