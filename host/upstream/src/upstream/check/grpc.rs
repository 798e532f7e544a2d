//! Is a server of gRPC well, by its own word?
//!
//! `grpc.health.v1.Health/Check` takes a message of one string and answers with one of one number, so both are written
//! and read by hand. See the GRPC Health Checking Protocol and Protocol Buffers, "Encoding".

use http::{HeaderValue, Method, Request, StatusCode, Uri, header, uri};

use super::{answer::Whole, error::CheckError};
use crate::{config, upstream::Endpoint};

/// `ServingStatus.SERVING`.
const SERVING: u64 = 1;

/// The call; `agent` is who asks.
pub(super) fn request(
    endpoint: &Endpoint,
    settings: &config::Health,
    agent: &'static str,
) -> Request<String> {
    let mut request = Request::new(message(&settings.service));
    *request.method_mut() = Method::POST;
    let host = settings.host.as_ref().unwrap_or(&endpoint.address);
    let mut parts = uri::Parts::default();
    parts.scheme = Some(endpoint.scheme());
    parts.authority = uri::Authority::try_from(host.as_bytes()).ok();
    parts.path_and_query = Some(uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check"));
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    let headers = request.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(header::TE, HeaderValue::from_static("trailers"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(agent));
    for (name, value) in &settings.headers {
        headers.insert(name.get(), value.clone());
    }
    request
}

/// A message that is not compressed, with the string in field 1. All of it is ASCII, since no service that can be
/// configured has a name of more than 100 characters.
fn message(service: &str) -> String {
    let length = |length: usize| char::from(u8::try_from(length).unwrap_or_default());
    let field = match service {
        "" => String::new(),
        service => format!("\n{}{service}", length(service.len())),
    };
    format!("\0\0\0\0{}{field}", length(field.len()))
}

/// Whether the answer says that it is serving.
pub(super) fn judge(answer: &Whole) -> Result<(), CheckError> {
    if answer.head.status != StatusCode::OK {
        return Err(CheckError::Status(answer.head.status));
    }
    // With nothing else to say, it stands in the head.
    let status = answer.trailers.get("grpc-status").or_else(|| answer.head.headers.get("grpc-status"));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(other) => return Err(CheckError::Grpc(String::from_utf8_lossy(other).into_owned())),
        None => return Err(CheckError::Grpc("that is missing".to_owned())),
    }
    match serving_status(&answer.body) {
        Some(SERVING) => Ok(()),
        Some(_) => Err(CheckError::NotServing),
        None => Err(CheckError::Body),
    }
}

/// The number in field 1 of the one message, 0 if it has none. None if that cannot be read.
fn serving_status(body: &[u8]) -> Option<u64> {
    let (prefix, mut message) = body.split_at_checked(5)?;
    let [0, length @ ..] = prefix else { return None };
    let length = u32::from_be_bytes(length.try_into().ok()?);
    if usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut status = 0;
    while !message.is_empty() {
        let key = number(&mut message)?;
        match (key >> 3, key & 7) {
            (1, 0) => status = number(&mut message)?,
            (_, 0) => drop(number(&mut message)?),
            (_, 1) => message = message.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(number(&mut message)?).ok()?;
                message = message.get(length..)?;
            }
            (_, 5) => message = message.get(4..)?,
            _ => return None,
        }
    }
    Some(status)
}

/// The varint that a message begins with.
fn number(message: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for index in 0..10 {
        let (byte, rest) = message.split_first()?;
        *message = rest;
        number |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_written_as_any_client_would() {
        assert_eq!(message("").as_bytes(), [0, 0, 0, 0, 0]);
        assert_eq!(message("a.B").as_bytes(), [0, 0, 0, 0, 5, 0x0a, 3, b'a', b'.', b'B']);
        let long = "x".repeat(100);
        assert_eq!(&message(&long).as_bytes()[..7], [0, 0, 0, 0, 102, 0x0a, 100]);
    }

    #[test]
    fn the_status_is_read_whatever_else_there_is() {
        for (body, expected) in [
            (&[0, 0, 0, 0, 2, 8, 1][..], Some(1)),
            (&[0, 0, 0, 0, 2, 8, 2], Some(2)),
            (&[0, 0, 0, 0, 0], Some(0)),
            (&[0, 0, 0, 0, 3, 8, 0x81, 0], Some(1)),
            (&[0, 0, 0, 0, 6, 0x12, 2, 8, 9, 8, 1], Some(1)),
            (&[0, 0, 0, 0, 7, 0x1d, 1, 2, 3, 4, 8, 1], Some(1)),
            (&[0, 0, 0, 0, 1, 8], None),
            (&[0, 0, 0, 0, 3, 8, 1], None),
            (&[1, 0, 0, 0, 2, 8, 1], None),
            (&[0, 0, 0, 0, 2, 0x12, 9], None),
            (&[0, 0, 0], None),
            (&[], None),
        ] {
            assert_eq!(serving_status(body), expected, "{body:?}");
        }
    }
}
