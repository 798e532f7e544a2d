//! How does a gRPC client learn of it?
//!
//! A gRPC client reads its status from trailers, and an error without a message is a response of trailers only. See
//! "gRPC over HTTP2" and "HTTP to gRPC Status Code Mapping" in the documents of gRPC.

use std::{fmt::Write, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, header};

use super::Error;
use crate::body::Content;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
const APPLICATION_GRPC: HeaderValue = HeaderValue::from_static("application/grpc");

/// A request of gRPC.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    /// How long the client waits for the end of it.
    pub timeout: Option<Duration>,
}

/// The codes that the proxy answers with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Code {
    Unknown = 2,
    DeadlineExceeded = 4,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    Unauthenticated = 16,
}

impl Call {
    /// None for a request that is not of gRPC.
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        if request.version() != Version::HTTP_2 || request.method() != Method::POST {
            return None;
        }
        let kind = request.headers().get(header::CONTENT_TYPE)?;
        is_grpc(kind).then(|| Self { timeout: request.headers().get(GRPC_TIMEOUT).and_then(read_timeout) })
    }
}

/// `application/grpc`, alone or with the format of messages. `application/grpc-web` is something else.
fn is_grpc(kind: &HeaderValue) -> bool {
    const KIND: &[u8] = b"application/grpc";
    let kind = kind.as_bytes();
    kind.get(..KIND.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(KIND))
        && matches!(kind.get(KIND.len()), None | Some(b'+' | b';' | b' '))
}

/// One to eight digits and a unit. None for what is malformed: the upstream may have a view on that.
fn read_timeout(value: &HeaderValue) -> Option<Duration> {
    let (unit, digits) = value.as_bytes().split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0_u64, |number, digit| number * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What a client is told of an error. `status` is what it would be told in HTTP.
pub(super) fn refusal(error: &Error, status: StatusCode) -> Response<Content> {
    let code = match error {
        Error::DeadlineExceeded | Error::ResponseTimedOut { .. } => Code::DeadlineExceeded,
        Error::BodyTooLarge => Code::ResourceExhausted,
        _ => code(status),
    };
    let mut response = Response::new(Content::Whole(Bytes::new()));
    tell(response.headers_mut(), code, status.canonical_reason().unwrap_or_default().as_bytes());
    response
}

/// What becomes of an answer that a plugin gave. One that is not an error, or in gRPC already, stays as it is.
pub(super) fn translate(response: Response<Content>) -> Response<Content> {
    /// A message that is worth passing on.
    const LONGEST: usize = 1024;
    let status = response.status();
    let kind = response.headers().get(header::CONTENT_TYPE);
    let Content::Whole(body) = response.body() else { return response };
    if !(status.is_client_error() || status.is_server_error()) || kind.is_some_and(is_grpc) {
        return response;
    }
    let is_text = kind.is_none_or(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let message = match std::str::from_utf8(body) {
        Ok(text) if is_text && !text.is_empty() && text.len() <= LONGEST => text.trim().to_owned(),
        _ => status.canonical_reason().unwrap_or_default().to_owned(),
    };
    let mut headers = response.into_parts().0.headers;
    headers.remove(header::CONTENT_LENGTH);
    headers.remove(header::CONTENT_ENCODING);
    tell(&mut headers, code(status), message.as_bytes());
    let mut response = Response::new(Content::Whole(Bytes::new()));
    *response.headers_mut() = headers;
    response
}

/// The trailers of a response that the deadline has cut short.
pub(super) fn late() -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(Code::DeadlineExceeded as u16));
    trailers.insert(GRPC_MESSAGE, HeaderValue::from_static("the deadline has passed"));
    trailers
}

fn tell(headers: &mut HeaderMap, code: Code, message: &[u8]) {
    headers.insert(header::CONTENT_TYPE, APPLICATION_GRPC);
    headers.insert(GRPC_STATUS, HeaderValue::from(code as u16));
    if let Ok(message) = HeaderValue::try_from(encoded(message)) {
        headers.insert(GRPC_MESSAGE, message);
    }
}

/// What is not printable ASCII, and `%`, as `%XX`.
fn encoded(message: &[u8]) -> String {
    message.iter().fold(String::with_capacity(message.len()), |mut encoded, byte| {
        match byte {
            b' '..=b'~' if *byte != b'%' => encoded.push(char::from(*byte)),
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        400 => Code::Internal,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::Unimplemented,
        429 | 502 | 503 | 504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (written, expected) in [
            ("1H", Some(Duration::from_secs(3600))),
            ("2M", Some(Duration::from_secs(120))),
            ("99999999S", Some(Duration::from_secs(99_999_999))),
            ("250m", Some(Duration::from_millis(250))),
            ("7u", Some(Duration::from_micros(7))),
            ("0n", Some(Duration::ZERO)),
            ("100000000S", None),
            ("S", None),
            ("", None),
            ("5", None),
            ("-5S", None),
            ("5s", None),
            ("1.5S", None),
            ("5 S", None),
        ] {
            assert_eq!(read_timeout(&HeaderValue::from_static(written)), expected, "{written:?}");
        }
    }

    #[test]
    fn grpc_is_told_from_what_is_only_like_it() {
        let of = |kind: &'static str, version, method: Method| {
            let request = Request::builder().method(method).version(version).header("content-type", kind);
            Call::of(&request.body(()).unwrap()).is_some()
        };
        for kind in ["application/grpc", "application/grpc+proto", "Application/gRPC;x=y"] {
            assert!(of(kind, Version::HTTP_2, Method::POST), "{kind}");
            assert!(
                !of(kind, Version::HTTP_11, Method::POST) && !of(kind, Version::HTTP_2, Method::GET),
                "{kind}"
            );
        }
        for kind in
            ["application/grpc-web", "application/grpc-web+proto", "application/json", "application/grp"]
        {
            assert!(!of(kind, Version::HTTP_2, Method::POST), "{kind}");
        }
    }

    #[test]
    fn a_message_is_encoded() {
        assert_eq!(encoded("no: 100% für\n".as_bytes()), "no: 100%25 f%C3%BCr%0A");
    }

    #[test]
    fn an_answer_of_a_plugin_becomes_one_of_grpc() {
        let answer = |status: u16, kind: &str, body: &'static str| {
            let response =
                Response::builder().status(status).header("content-type", kind).header("x-kept", "1");
            translate(response.body(Content::Whole(Bytes::from_static(body.as_bytes()))).unwrap())
        };
        for (status, code, kind, body, message) in [
            (401, "16", "text/plain", "no key\n", "no key"),
            (403, "7", "application/json", "{}", "Forbidden"),
            (404, "12", "text/plain", "", "Not Found"),
            (429, "14", "text/html", "<p>", "Too Many Requests"),
            (418, "2", "text/plain; charset=utf-8", "tea", "tea"),
        ] {
            let response = answer(status, kind, body);
            assert_eq!(
                (response.status(), &response.headers()["grpc-status"]),
                (StatusCode::OK, &HeaderValue::from_static(code))
            );
            assert_eq!(response.headers()["grpc-message"], message);
            assert_eq!(response.headers()["content-type"], "application/grpc");
            assert_eq!(response.headers()["x-kept"], "1");
        }
        assert_eq!(answer(200, "text/plain", "fine").headers()["content-type"], "text/plain");
        assert!(!answer(500, "application/grpc", "").headers().contains_key("grpc-message"));
    }
}
