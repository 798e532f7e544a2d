//! What can be wrong with a message?

use http::StatusCode;

use crate::{path, telemetry::traffic::Limit, upstream::BadHead};

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
    #[error("the head is longer than the listener allows")]
    LongHead,
    #[error("the target is longer than the listener allows")]
    LongTarget,
    #[error("a field of HTTP/2 that would mean something else in HTTP/1")]
    Field,
    #[error("the name of a field holds more than letters, digits and hyphens, which this listener refuses")]
    UnusualName,
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
            | Self::UnusualName
            | Self::WebSocketKey => StatusCode::BAD_REQUEST,
            Self::Connect | Self::Trace => StatusCode::NOT_IMPLEMENTED,
            Self::Expectation => StatusCode::EXPECTATION_FAILED,
            Self::TooManyHeaders | Self::LongHead => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::LongTarget => StatusCode::URI_TOO_LONG,
        }
    }

    /// What of it there was too much, if that is what is wrong.
    pub fn limit(self) -> Option<Limit> {
        match self {
            Self::TooManyHeaders => Some(Limit::HeaderCount),
            Self::LongHead => Some(Limit::Headers),
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
            | Self::UnusualName
            | Self::Field => None,
        }
    }
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
    #[error(transparent)]
    Head(#[from] BadHead),
}

impl BadResponse {
    /// Whether it says nothing of how well the endpoint is, and another would answer the same.
    pub fn is_of_content(self) -> bool {
        match self {
            Self::Head(head) => head.is_of_content(),
            Self::Upgrade
            | Self::Protocol
            | Self::WebSocketAccept
            | Self::Ended
            | Self::Connected
            | Self::TransferCoding
            | Self::Length => false,
        }
    }
}
