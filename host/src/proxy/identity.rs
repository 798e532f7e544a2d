//! Who sent a request, how did it come, and whose word counts on that?
//!
//! A client that is no trusted proxy is who its connection says, and came as that did. A trusted proxy says the same of
//! its own client, in `X-Forwarded-For`, `-Proto` and `-Host`, or in `Forwarded` (RFC 7239). What is found here is the one
//! notion of it: the listener's settings, plugins and logs go by it, and upstreams are told it.

use std::{
    borrow::Cow,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header};

use super::{forwarded, malformed::BadRequest};
use crate::{address::Caller, authority, config::TrustedProxies, tls::ClientCertificate};

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

/// Who sent a request in the first place, and how that client reached the first proxy that is trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Came {
    pub client: Caller<IpAddr>,
    /// `http` or `https`.
    pub scheme: &'static str,
    /// The host that it asked for, where a trusted proxy says that, since it need not be what stands in `Host`.
    pub host: Option<HeaderValue>,
}

impl Came {
    pub fn by_tls(&self) -> bool {
        self.scheme == "https"
    }
}

/// Says who sent the request, and finds out who did in the first place. `scheme` is that of its target.
///
/// A stranger's own word on that has been removed.
pub(super) fn identify(
    headers: &mut HeaderMap,
    peer: &Peer,
    trusted: &TrustedProxies,
    scheme: &'static str,
    version: Version,
) -> Result<Came, BadRequest> {
    let room = |_| BadRequest::TooManyHeaders;
    let host = headers.get(header::HOST).filter(|host| !host.is_empty()).cloned();
    let mut came = Came { client: peer.address.client(), scheme, host: None };
    let mut is_known = false;
    if peer.is_trusted {
        let claims = Claims::by(headers, trusted);
        if let Some(address) = claims.client {
            came.client = Caller::Ip(address);
        }
        came.scheme = claims.scheme.unwrap_or(scheme);
        came.host = claims.host;
        let mut hops = claims.hops;
        if let Some(address) = &peer.address_value {
            if !hops.is_empty() {
                hops.extend_from_slice(b", ");
            }
            hops.extend_from_slice(address.as_bytes());
        }
        if !hops.is_empty() {
            let hops =
                HeaderValue::from_maybe_shared(Bytes::from(hops)).map_err(|_| BadRequest::TooManyHeaders)?;
            headers.try_insert(X_FORWARDED_FOR, hops).map_err(room)?;
        }
        let mut ids = headers.get_all(X_REQUEST_ID).iter();
        is_known = ids.next().is_some_and(is_request_id) && ids.next().is_none();
        match claims.has_forwarded {
            Forwarded::Absent => {}
            Forwarded::Agrees => append_forwarded(headers, peer)?,
            // Whoever believes it would believe somebody else.
            Forwarded::Differs => drop(headers.remove(header::FORWARDED)),
        }
    } else if let Some(address) = &peer.address_value {
        headers.try_insert(X_FORWARDED_FOR, address.clone()).map_err(room)?;
    }
    headers.try_insert(X_FORWARDED_PROTO, HeaderValue::from_static(came.scheme)).map_err(room)?;
    match came.host.clone().or(host) {
        Some(host) => drop(headers.try_insert(X_FORWARDED_HOST, host).map_err(room)?),
        None => drop(headers.remove(X_FORWARDED_HOST)),
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
    Ok(came)
}

/// What a trusted proxy says of its client.
struct Claims {
    client: Option<IpAddr>,
    scheme: Option<&'static str>,
    host: Option<HeaderValue>,
    /// The addresses that the request has passed, as `X-Forwarded-For` has them.
    hops: Vec<u8>,
    has_forwarded: Forwarded,
}

enum Forwarded {
    Absent,
    /// It names the same client.
    Agrees,
    /// It names another, or cannot be read.
    Differs,
}

impl Claims {
    /// `X-Forwarded-For` counts before `Forwarded`: a proxy that sets the one may pass on what a client has put into
    /// the other. Where both name the same client, each completes the other.
    fn by(headers: &HeaderMap, trusted: &TrustedProxies) -> Self {
        let hops = joined(headers, &X_FORWARDED_FOR);
        let by_way = Entry::original(hops.rsplit(|&byte| byte == b','), trusted, |entry| {
            std::str::from_utf8(entry.trim_ascii()).ok().and_then(parse_address)
        });
        let elements = headers.contains_key(header::FORWARDED).then(|| {
            let field = joined(headers, &header::FORWARDED);
            forwarded::elements(&field)
        });
        let (elements, has_forwarded) = match elements {
            None => (Vec::new(), Forwarded::Absent),
            Some(None) => (Vec::new(), Forwarded::Differs),
            Some(Some(elements)) => (elements, Forwarded::Agrees),
        };
        let by_elements = Entry::original(elements.iter().rev(), trusted, |element| {
            element.client.as_deref().and_then(parse_address)
        });
        let has_way = !hops.trim_ascii().is_empty();
        let is_same = !has_way || by_way.address == by_elements.address;
        let has_forwarded = match has_forwarded {
            Forwarded::Agrees if !is_same => Forwarded::Differs,
            other => other,
        };
        // What the proxy says that has spoken to the client.
        let element = elements.iter().rev().nth(by_elements.index).filter(|_| is_same);
        let members = hops.split(|&byte| byte == b',').count();
        let scheme = scheme_of(member(&joined(headers, &X_FORWARDED_PROTO), members, by_way.index));
        let host = host_of(member(&joined(headers, &X_FORWARDED_HOST), members, by_way.index));
        let hops = match has_way {
            true => hops.into_owned(),
            false => {
                let known =
                    elements.iter().rev().map(|element| element.client.as_deref().and_then(parse_address));
                let known: Vec<_> =
                    known.map_while(|address| address).map(|address| address.to_string()).collect();
                known.into_iter().rev().collect::<Vec<_>>().join(", ").into_bytes()
            }
        };
        Self {
            client: if has_way { by_way.address } else { by_elements.address },
            scheme: scheme.or_else(|| scheme_of(element?.scheme.as_deref().map(str::as_bytes))),
            host: host.or_else(|| host_of(element?.host.as_deref().map(str::as_bytes))),
            hops,
            has_forwarded,
        }
    }
}

/// Where in a list that grows to the right the original client stands.
struct Entry {
    address: Option<IpAddr>,
    /// Counted from the right.
    index: usize,
}

impl Entry {
    /// The rightmost address that is not a trusted proxy; the leftmost if all are. What stands left of one that is no
    /// address is hearsay. `entries` come from the right.
    fn original<E>(
        entries: impl Iterator<Item = E>,
        trusted: &TrustedProxies,
        address_of: impl Fn(E) -> Option<IpAddr>,
    ) -> Self {
        let mut found = Self { address: None, index: 0 };
        for (index, entry) in entries.enumerate() {
            let Some(address) = address_of(entry) else { break };
            found = Self { address: Some(address), index };
            if !trusted.holds(Caller::Ip(address)) {
                break;
            }
        }
        found
    }
}

/// What a list says of the original client. Where each proxy has added to it as to `X-Forwarded-For`, that is what
/// stands at the same place; otherwise what was said first.
fn member(list: &[u8], members: usize, index: usize) -> Option<&[u8]> {
    let said =
        || list.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|member| !member.is_empty());
    let index = if said().count() == members { members - 1 - index } else { 0 };
    said().nth(index)
}

/// WebSockets have schemes of their own, which some proxies say.
fn scheme_of(said: Option<&[u8]>) -> Option<&'static str> {
    let said = said?;
    let is = |scheme: &str| said.eq_ignore_ascii_case(scheme.as_bytes());
    match (is("https") || is("wss"), is("http") || is("ws")) {
        (true, _) => Some("https"),
        (false, true) => Some("http"),
        (false, false) => None,
    }
}

fn host_of(said: Option<&[u8]>) -> Option<HeaderValue> {
    let said = said.filter(|said| !said.is_empty() && authority::is_valid(said))?;
    HeaderValue::from_bytes(said).ok()
}

/// All values of a field, joined by commas; as a rule there is one, or none.
fn joined<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Cow<'a, [u8]> {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    match (values.next(), values.next()) {
        (None, _) => Cow::Borrowed(b""),
        (Some(only), None) => Cow::Borrowed(only),
        (Some(first), Some(second)) => {
            Cow::Owned([first, second].into_iter().chain(values).collect::<Vec<_>>().join(&b", "[..]))
        }
    }
}

/// An address, with or without port and brackets.
fn parse_address(text: &str) -> Option<IpAddr> {
    let address = text.parse().ok().or_else(|| text.parse::<SocketAddr>().ok().map(|address| address.ip()));
    let address = address.or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok());
    address.map(|address: IpAddr| address.to_canonical())
}

/// Continues `Forwarded` (RFC 7239) where a trusted proxy has begun one.
fn append_forwarded(headers: &mut HeaderMap, peer: &Peer) -> Result<(), BadRequest> {
    let element = match peer.address.client() {
        Caller::Ip(IpAddr::V4(address)) => format!("for={address};proto={}", peer.scheme),
        Caller::Ip(IpAddr::V6(address)) => format!("for=\"[{address}]\";proto={}", peer.scheme),
        Caller::Unix => format!("for=unknown;proto={}", peer.scheme),
    };
    let element = HeaderValue::try_from(element).map_err(|_| BadRequest::Field)?;
    headers.try_append(header::FORWARDED, element).map(drop).map_err(|_| BadRequest::TooManyHeaders)
}

fn is_request_id(value: &HeaderValue) -> bool {
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
}

/// 128 bits by chance, in hexadecimal.
pub(super) fn new_request_id() -> HeaderValue {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let number = fastrand::u128(..);
    let digits: [u8; 32] = std::array::from_fn(|index| DIGITS[(number >> (124 - 4 * index)) as usize & 15]);
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
