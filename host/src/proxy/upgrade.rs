//! What if the client wants to go on in another protocol?
//!
//! In HTTP/1.1 it says so with `Upgrade` (RFC 9110, section 7.8), in HTTP/2 with an extended CONNECT (RFC 8441),
//! which becomes the former on its way in and is made of it on its way out. Everything up to the answer is HTTP, and
//! nothing else passes: whatever the answer is, client and upstream agree on where the request has ended. Only 101
//! opens a tunnel.
//!
//! Values in, values out: nothing here does I/O.

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Version, header, request};
use hyper::ext::Protocol;

use super::malformed::{BadRequest, BadResponse};
use crate::config::UpgradeProtocol;

const WEBSOCKET: &str = "websocket";
const UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");

/// What a client offers to go on in, most wanted first.
#[derive(Debug)]
pub(super) struct Offer(Vec<HeaderValue>);

impl Offer {
    /// What a request offers. `length` is that of its body; none if it is not known before its end.
    ///
    /// None for a request of HTTP/1.0, as RFC 9110 has it, for one that does not name the field in `Connection`, and
    /// for one with a body, of which a server might take the rest for the other protocol. Such a request goes on as
    /// if nothing had been offered, which is always allowed.
    pub fn of(request: &request::Parts, length: Option<u64>) -> Option<Self> {
        let headers = &request.headers;
        if request.version == Version::HTTP_10 || length != Some(0) || !names_upgrade(headers) {
            return None;
        }
        let is_get = request.method == Method::GET;
        let protocols = elements(headers, &header::UPGRADE)
            .filter(|name| is_get || !name.eq_ignore_ascii_case(WEBSOCKET.as_bytes()))
            .filter_map(|name| HeaderValue::from_bytes(name).ok());
        Some(Self(protocols.collect()))
    }

    /// Accepts the first of the protocols that is allowed, and puts it into the request that is forwarded. Whether
    /// there is one.
    pub fn accept(
        self,
        allowed: &[UpgradeProtocol],
        request: &mut request::Parts,
    ) -> Result<bool, BadRequest> {
        let is_allowed = |protocol: &HeaderValue| {
            let matches =
                |name: &UpgradeProtocol| name.as_str().as_bytes().eq_ignore_ascii_case(protocol.as_bytes());
            allowed.iter().any(matches)
        };
        let Some(protocol) = self.0.into_iter().find(is_allowed) else { return Ok(false) };
        let headers = &mut request.headers;
        if is_websocket(&protocol) && key(headers).is_none() {
            return Err(BadRequest::WebSocketKey);
        }
        let room = |_| BadRequest::TooManyHeaders;
        headers.remove(header::TE);
        headers.try_insert(header::CONNECTION, UPGRADE).map_err(room)?;
        headers.try_insert(header::UPGRADE, protocol).map_err(room)?;
        Ok(true)
    }
}

/// Gives an extended CONNECT of HTTP/2 the form that it has in HTTP/1.1 (RFC 8441, section 5).
///
/// The key, which HTTP/2 does without, is the proxy's own.
pub(super) fn from_connect(request: &mut request::Parts) -> Result<(), BadRequest> {
    let Some(protocol) = request.extensions.remove::<Protocol>() else { return Err(BadRequest::Connect) };
    let protocol = HeaderValue::from_str(protocol.as_str()).map_err(|_| BadRequest::Field)?;
    request.method = Method::GET;
    let room = |_| BadRequest::TooManyHeaders;
    let headers = &mut request.headers;
    if is_websocket(&protocol) {
        let key = BASE64_STANDARD.encode(fastrand::u128(..).to_be_bytes());
        let key = HeaderValue::try_from(key).expect("base64 is visible ASCII");
        headers.try_insert(header::SEC_WEBSOCKET_KEY, key).map_err(room)?;
    }
    headers.try_insert(header::CONNECTION, UPGRADE).map_err(room)?;
    headers.try_insert(header::UPGRADE, protocol).map_err(room)?;
    Ok(())
}

/// What 101 must say to be an answer.
#[derive(Debug)]
pub(crate) struct Expected {
    protocol: HeaderValue,
    /// `Sec-WebSocket-Accept`.
    accept: Option<HeaderValue>,
}

impl Expected {
    /// In answer to a request that is forwarded with `Upgrade`.
    pub fn of(request: &HeaderMap) -> Option<Self> {
        let protocol = request.get(header::UPGRADE)?.clone();
        let accept = key(request).filter(|_| is_websocket(&protocol)).map(accept_of);
        Some(Self { protocol, accept })
    }

    /// The protocol, as it is named to an upstream of HTTP/2.
    pub fn protocol(&self) -> &HeaderValue {
        &self.protocol
    }

    /// Whether the upstream goes on in what it was asked for, and has seen the request that was sent.
    pub fn check(&self, response: &HeaderMap) -> Result<(), BadResponse> {
        let mut protocols = elements(response, &header::UPGRADE);
        let is_it = protocols.next().is_some_and(|name| name.eq_ignore_ascii_case(self.protocol.as_bytes()));
        if !is_it || protocols.next().is_some() || !names_upgrade(response) {
            return Err(BadResponse::Protocol);
        }
        let mut accepts = response.get_all(header::SEC_WEBSOCKET_ACCEPT).iter();
        if self.accept.is_some() && (accepts.next() != self.accept.as_ref() || accepts.next().is_some()) {
            return Err(BadResponse::WebSocketAccept);
        }
        Ok(())
    }

    /// The fields of 101 that belong to the connection, and that answer the key. After the others of their kind have
    /// been removed.
    pub fn write(&self, response: &mut HeaderMap) {
        // A response with 32,768 headers is not one that these would help.
        let _ = response.try_insert(header::CONNECTION, UPGRADE);
        let _ = response.try_insert(header::UPGRADE, self.protocol.clone());
        if let Some(accept) = &self.accept {
            let _ = response.try_insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
    }
}

/// Gives the response that opens a tunnel the form that it has in HTTP/2. What has made 101 of a 200 does not matter.
pub(super) fn to_connected<B>(response: &mut Response<B>) {
    *response.status_mut() = StatusCode::OK;
    let headers = response.headers_mut();
    for name in [header::CONNECTION, header::UPGRADE, header::SEC_WEBSOCKET_ACCEPT] {
        headers.remove(name);
    }
}

/// Takes back what a response says of a tunnel that is not going to be there.
pub(super) fn take_back<B>(response: &mut Response<B>) {
    for name in [header::CONNECTION, header::UPGRADE] {
        response.headers_mut().remove(name);
    }
}

fn is_websocket(protocol: &HeaderValue) -> bool {
    protocol.as_bytes().eq_ignore_ascii_case(WEBSOCKET.as_bytes())
}

/// The one key of a handshake: 16 bytes (RFC 6455, section 4.2.1).
fn key(headers: &HeaderMap) -> Option<&HeaderValue> {
    let mut keys = headers.get_all(header::SEC_WEBSOCKET_KEY).iter();
    let key = keys.next().filter(|_| keys.next().is_none())?;
    BASE64_STANDARD.decode(key.as_bytes()).ok().filter(|bytes| bytes.len() == 16).map(|_| key)
}

/// RFC 6455, section 4.2.2.
fn accept_of(key: &HeaderValue) -> HeaderValue {
    let salted = [key.as_bytes(), b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    let digest = BASE64_STANDARD.encode(digest(&SHA1_FOR_LEGACY_USE_ONLY, &salted));
    HeaderValue::from_maybe_shared(Bytes::from(digest)).expect("base64 is visible ASCII")
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    elements(headers, &header::CONNECTION).any(|name| name.eq_ignore_ascii_case(b"upgrade"))
}

/// The elements of a field that is a list.
fn elements<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    let lists = headers.get_all(name).iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    lists.map(<[u8]>::trim_ascii).filter(|element| !element.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        let mut headers = HeaderMap::new();
        fields.iter().map(field).for_each(|(name, value)| {
            headers.append(name, value);
        });
        headers
    }

    fn request(method: &str, fields: &[(&'static str, &'static str)]) -> request::Parts {
        let mut parts = http::Request::builder().method(method).body(()).unwrap().into_parts().0;
        parts.headers = headers(fields);
        parts
    }

    fn allowed() -> Vec<UpgradeProtocol> {
        #[derive(serde::Deserialize)]
        struct Table {
            upgrades: Vec<UpgradeProtocol>,
        }
        toml::from_str::<Table>(r#"upgrades = ["websocket", "Echo/1"]"#).unwrap().upgrades
    }

    #[test]
    fn what_is_offered_and_allowed_is_forwarded() {
        let key = ("sec-websocket-key", KEY);
        for (method, fields, expected) in [
            ("GET", &[("connection", "Upgrade"), ("upgrade", "websocket"), key][..], Ok(Some("websocket"))),
            ("GET", &[("connection", "x, UPGRADE"), ("upgrade", "WebSocket"), key], Ok(Some("WebSocket"))),
            ("GET", &[("connection", "upgrade"), ("upgrade", "h2c, echo/1")], Ok(Some("echo/1"))),
            ("GET", &[("connection", "upgrade"), ("upgrade", "echo/2, echo")], Ok(None)),
            ("GET", &[("connection", "upgrade"), ("upgrade", "h2c")], Ok(None)),
            ("GET", &[("connection", "upgrade"), ("upgrade", "")], Ok(None)),
            ("GET", &[("upgrade", "websocket"), key], Ok(None)),
            ("POST", &[("connection", "upgrade"), ("upgrade", "websocket"), key], Ok(None)),
            ("POST", &[("connection", "upgrade"), ("upgrade", "echo/1")], Ok(Some("echo/1"))),
            ("GET", &[("connection", "upgrade"), ("upgrade", "websocket")], Err(BadRequest::WebSocketKey)),
            (
                "GET",
                &[("connection", "upgrade"), ("upgrade", "websocket"), key, key],
                Err(BadRequest::WebSocketKey),
            ),
            (
                "GET",
                &[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", "c2hvcnQ=")],
                Err(BadRequest::WebSocketKey),
            ),
        ] {
            let mut request = request(method, fields);
            let offer = Offer::of(&request, Some(0));
            request.headers.remove(header::CONNECTION);
            request.headers.remove(header::UPGRADE);
            let accepted = offer.map_or(Ok(false), |offer| offer.accept(&allowed(), &mut request));
            let upgrade = request.headers.get(header::UPGRADE).map(|value| value.to_str().unwrap());
            assert_eq!(accepted.map(|accepted| upgrade.filter(|_| accepted)), expected, "{fields:?}");
            let connection = request.headers.get(header::CONNECTION);
            assert_eq!(connection.is_some(), upgrade.is_some(), "{fields:?}");
        }
    }

    #[test]
    fn what_cannot_be_left_off_is_not_begun() {
        let fields = [("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", KEY)];
        let mut parts = request("GET", &fields);
        assert!(Offer::of(&parts, Some(5)).is_none(), "a body");
        assert!(Offer::of(&parts, None).is_none(), "a body of unknown length");
        parts.version = Version::HTTP_10;
        assert!(Offer::of(&parts, Some(0)).is_none(), "HTTP/1.0");
    }

    #[test]
    fn switching_is_an_answer_only_to_what_was_asked() {
        let request =
            headers(&[("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-key", KEY)]);
        let expected = Expected::of(&request).unwrap();
        // The example of RFC 6455, section 1.3.
        let accept = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let other = ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOp=");
        for (fields, result) in [
            (&[("connection", "Upgrade"), ("upgrade", "WebSocket"), accept][..], Ok(())),
            (&[("upgrade", "websocket"), accept], Err(BadResponse::Protocol)),
            (&[("connection", "upgrade"), accept], Err(BadResponse::Protocol)),
            (&[("connection", "upgrade"), ("upgrade", "h2c"), accept], Err(BadResponse::Protocol)),
            (&[("connection", "upgrade"), ("upgrade", "websocket, h2c"), accept], Err(BadResponse::Protocol)),
            (&[("connection", "upgrade"), ("upgrade", "websocket")], Err(BadResponse::WebSocketAccept)),
            (
                &[("connection", "upgrade"), ("upgrade", "websocket"), other],
                Err(BadResponse::WebSocketAccept),
            ),
            (
                &[("connection", "upgrade"), ("upgrade", "websocket"), accept, accept],
                Err(BadResponse::WebSocketAccept),
            ),
        ] {
            assert_eq!(expected.check(&headers(fields)), result, "{fields:?}");
        }
        let mut made = HeaderMap::new();
        expected.write(&mut made);
        assert_eq!(expected.check(&made), Ok(()));
    }

    #[test]
    fn a_connect_becomes_an_upgrade_with_a_key_of_its_own() {
        let mut parts = request("CONNECT", &[]);
        parts.extensions.insert(Protocol::from_static("websocket"));
        from_connect(&mut parts).unwrap();
        assert_eq!(parts.method, Method::GET);
        assert!(key(&parts.headers).is_some());
        let offer = Offer::of(&parts, Some(0)).unwrap();
        assert_eq!(offer.accept(&allowed(), &mut parts), Ok(true));
        assert_eq!(from_connect(&mut request("CONNECT", &[])), Err(BadRequest::Connect));
    }
}
