//! Who is to blame, and what is the client told?

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    mem::discriminant,
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::headers::{BadRequest, BadResponse};
use crate::{
    clock::Elapsed,
    plugin::CallError,
    reason::{put_reason, reason},
    telemetry::traffic::Limit,
    upstream::ConnectError,
};

/// Why a request was not answered by an upstream or a plugin.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("refused: {0}")]
    BadRequest(#[from] BadRequest),
    /// With the status for what was wrong, if it was not that the client went away.
    #[error("the body of the request broke off")]
    ClientBroke(Option<StatusCode>),
    /// In HTTP/2, where the connection goes on.
    #[error("the body of the request comes too slowly")]
    ClientSlow(Limit),
    #[error("the body of the request is larger than the listener allows")]
    BodyTooLarge,
    #[error("it is for another host than the connection was opened for")]
    Misdirected,
    #[error("no route wants it")]
    NoRoute,
    #[error("no endpoint is left to try")]
    NoEndpoint,
    #[error("the upstream has as many requests as it may have")]
    Overloaded,
    #[error("nothing that may be used is stored, and the request asks for nothing else")]
    OnlyIfCached,
    #[error("no connection to {endpoint}")]
    Connect { endpoint: String, source: ConnectError },
    #[error("no response from {endpoint}")]
    Send { endpoint: String, source: hyper::Error },
    #[error("no response from {endpoint} in time")]
    ResponseTimedOut { endpoint: String, source: Elapsed },
    #[error("no response from {endpoint} in the time for all attempts")]
    AttemptsTimedOut { endpoint: String, source: Elapsed },
    /// The client's own (`grpc-timeout`).
    #[error("no response before the deadline of the client")]
    DeadlineExceeded,
    #[error("no use for the response of {endpoint}")]
    BadResponse { endpoint: String, source: BadResponse },
    #[error("an extended CONNECT for a protocol that the route does not offer")]
    NotOffered,
    #[error("{endpoint} speaks HTTP/2 and does not offer to go on in another protocol")]
    NoTunnels { endpoint: String },
    /// In HTTP/2 that would open a tunnel to nowhere.
    #[error("a CONNECT was answered as if it had been agreed to, and it was not")]
    NotSwitched,
    #[error("the plugin `{plugin}` {source}")]
    Plugin { plugin: Arc<str>, source: CallError },
}

/// Whose fault an error is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    Client,
    Upstream,
    Plugin,
    Proxy,
}

impl Error {
    /// What tells apart errors of which the log says the same: the kind, and which plugin failed in which way.
    pub fn kind(&self) -> u64 {
        let failed = match self {
            Self::Plugin { plugin, source } => Some((plugin, source.kind())),
            _ => None,
        };
        let mut hasher = DefaultHasher::new();
        (discriminant(self), failed).hash(&mut hasher);
        hasher.finish()
    }

    /// The one table of what the client is told, and of who is to blame.
    pub fn verdict(&self) -> (StatusCode, Blame) {
        match self {
            Self::BadRequest(reason) => (reason.status(), Blame::Client),
            Self::ClientBroke(status) => (status.unwrap_or(StatusCode::BAD_REQUEST), Blame::Client),
            Self::ClientSlow(_) => (StatusCode::REQUEST_TIMEOUT, Blame::Client),
            Self::BodyTooLarge => (StatusCode::PAYLOAD_TOO_LARGE, Blame::Client),
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, Blame::Client),
            Self::NoRoute => (StatusCode::NOT_FOUND, Blame::Client),
            Self::NoEndpoint | Self::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, Blame::Proxy),
            Self::Connect { source, .. } if source.is_own() => {
                (StatusCode::SERVICE_UNAVAILABLE, Blame::Proxy)
            }
            // RFC 9111, section 5.2.1.7.
            Self::OnlyIfCached => (StatusCode::GATEWAY_TIMEOUT, Blame::Client),
            Self::Connect { source, .. } if source.is_time_out() => {
                (StatusCode::GATEWAY_TIMEOUT, Blame::Upstream)
            }
            Self::Connect { .. } | Self::Send { .. } | Self::BadResponse { .. } => {
                (StatusCode::BAD_GATEWAY, Blame::Upstream)
            }
            Self::ResponseTimedOut { .. } | Self::AttemptsTimedOut { .. } => {
                (StatusCode::GATEWAY_TIMEOUT, Blame::Upstream)
            }
            Self::DeadlineExceeded => (StatusCode::GATEWAY_TIMEOUT, Blame::Client),
            // RFC 9220, section 3, which says it for RFC 8441 as well.
            Self::NotOffered => (StatusCode::NOT_IMPLEMENTED, Blame::Client),
            Self::NoTunnels { .. } | Self::NotSwitched => (StatusCode::BAD_GATEWAY, Blame::Upstream),
            Self::Plugin { .. } => (StatusCode::SERVICE_UNAVAILABLE, Blame::Plugin),
        }
    }

    /// The limit that the client has come up against, where that has not been counted before.
    pub fn limit(&self) -> Option<Limit> {
        match self {
            Self::BadRequest(reason) => reason.limit(),
            Self::ClientSlow(limit) => Some(*limit),
            Self::BodyTooLarge => Some(Limit::Body),
            Self::ClientBroke(_)
            | Self::Misdirected
            | Self::NotOffered
            | Self::NoTunnels { .. }
            | Self::NotSwitched
            | Self::NoRoute
            | Self::NoEndpoint
            | Self::Overloaded
            | Self::OnlyIfCached
            | Self::Connect { .. }
            | Self::Send { .. }
            | Self::ResponseTimedOut { .. }
            | Self::AttemptsTimedOut { .. }
            | Self::DeadlineExceeded
            | Self::BadResponse { .. }
            | Self::Plugin { .. } => None,
        }
    }

    /// Whether it is likely to be over soon, so that the client may ask again.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Connect { source, .. } => source.is_own(),
            Self::Overloaded
            | Self::Plugin {
                source: CallError::Busy(_) | CallError::Broken | CallError::Unsent(_), ..
            } => true,
            // There is no room for an instance just now.
            Self::Plugin { source: CallError::Start(error), .. } => error.is_environments(),
            _ => false,
        }
    }

    /// Whether the upstream cannot be reached, so that the proxy is cut off from it.
    pub(super) fn is_cut_off(&self) -> bool {
        match self {
            Self::NoEndpoint
            | Self::Overloaded
            | Self::Connect { .. }
            | Self::Send { .. }
            | Self::ResponseTimedOut { .. }
            | Self::AttemptsTimedOut { .. } => true,
            Self::BadRequest(_)
            | Self::ClientBroke(_)
            | Self::ClientSlow(_)
            | Self::BodyTooLarge
            | Self::Misdirected
            | Self::NoRoute
            | Self::OnlyIfCached
            | Self::DeadlineExceeded
            | Self::NotOffered
            | Self::NoTunnels { .. }
            | Self::NotSwitched
            | Self::BadResponse { .. }
            | Self::Plugin { .. } => false,
        }
    }

    /// Whether the connection to the client is of no more use: what follows on it may not be what it seems.
    pub fn ends_connection(&self) -> bool {
        match self {
            Self::BadRequest(_) | Self::ClientBroke(_) | Self::ClientSlow(_) | Self::BodyTooLarge => true,
            Self::Misdirected
            | Self::NoRoute
            | Self::NoEndpoint
            | Self::Overloaded
            | Self::OnlyIfCached
            | Self::Connect { .. }
            | Self::Send { .. }
            | Self::ResponseTimedOut { .. }
            | Self::AttemptsTimedOut { .. }
            | Self::DeadlineExceeded
            | Self::NotOffered
            | Self::NoTunnels { .. }
            | Self::NotSwitched
            | Self::BadResponse { .. }
            | Self::Plugin { .. } => false,
        }
    }
}

/// A problem document (RFC 9457) with nothing in it about the inside.
pub(super) fn problem(status: StatusCode, request_id: Option<&HeaderValue>) -> Response<Bytes> {
    let title = Some(reason(status)).filter(|words| !words.is_empty()).unwrap_or("Error");
    let id = request_id.and_then(|id| id.to_str().ok()).unwrap_or_default();
    // An id is visible ASCII; of that, JSON escapes two.
    let id = id.replace('\\', "\\\\").replace('"', "\\\"");
    let status_code = status.as_u16();
    let body = format!(
        "{{\"type\":\"about:blank\",\"title\":\"{title}\",\"status\":{status_code},\"request-id\":\"{id}\"}}\n"
    );
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = status;
    put_reason(&mut response);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
