//! Who is to blame, and what is the client told?

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    mem::discriminant,
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};

use super::malformed::{BadRequest, BadResponse};
use crate::{
    clock::Elapsed,
    plugin::CallError,
    reason::{put_reason, reason},
    telemetry::traffic::Limit,
    upstream::{ConnectError, Reason},
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
    #[error("no matching route")]
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
    #[error("invalid response from {endpoint}")]
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

/// What follows from an error.
#[derive(Debug, Clone, Copy)]
pub struct Disposition {
    pub status: StatusCode,
    pub blame: Blame,
    /// What it says of the endpoint's health, if anything.
    pub endpoint: Option<Reason>,
    /// The limit that the client has come up against, where that has not been counted before.
    pub limit: Option<Limit>,
    /// The upstream cannot be reached, so that the proxy is cut off from it (RFC 9111, section 4.2.4).
    pub is_cut_off: bool,
    /// It is likely to be over soon, so that the client may ask again.
    pub is_passing: bool,
    /// The connection to the client is of no more use: what follows on it may not be what it seems.
    pub ends_connection: bool,
}

impl Disposition {
    fn new(status: StatusCode, blame: Blame) -> Self {
        Self {
            status,
            blame,
            endpoint: None,
            limit: None,
            is_cut_off: false,
            is_passing: false,
            ends_connection: false,
        }
    }

    /// Of a request that the client has sent as it must not.
    fn of_client(status: StatusCode, limit: Option<Limit>) -> Self {
        Self { limit, ends_connection: true, ..Self::new(status, Blame::Client) }
    }

    /// Of an endpoint that cannot be reached.
    fn unreachable(status: StatusCode, endpoint: Reason) -> Self {
        Self { endpoint: Some(endpoint), is_cut_off: true, ..Self::new(status, Blame::Upstream) }
    }

    /// Of the proxy, which has too little of something just now.
    fn overloaded() -> Self {
        Self {
            is_cut_off: true,
            is_passing: true,
            ..Self::new(StatusCode::SERVICE_UNAVAILABLE, Blame::Proxy)
        }
    }
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

    /// Takes out what a plugin has printed of its failure.
    pub fn take_printed(&mut self) -> Option<String> {
        match self {
            Self::Plugin { source, .. } => source.take_printed(),
            _ => None,
        }
    }

    /// The one table of what follows from each error.
    pub fn disposition(&self) -> Disposition {
        use Blame::{Client, Plugin, Proxy, Upstream};
        type Row = Disposition;
        match self {
            Self::BadRequest(reason) => Row::of_client(reason.status(), reason.limit()),
            Self::ClientBroke(status) => Row::of_client(status.unwrap_or(StatusCode::BAD_REQUEST), None),
            Self::ClientSlow(limit) => Row::of_client(StatusCode::REQUEST_TIMEOUT, Some(*limit)),
            Self::BodyTooLarge => Row::of_client(StatusCode::PAYLOAD_TOO_LARGE, Some(Limit::Body)),
            Self::Misdirected => Row::new(StatusCode::MISDIRECTED_REQUEST, Client),
            Self::NoRoute => Row::new(StatusCode::NOT_FOUND, Client),
            Self::NoEndpoint => Row { is_cut_off: true, ..Row::new(StatusCode::SERVICE_UNAVAILABLE, Proxy) },
            Self::Overloaded => Row::overloaded(),
            // RFC 9111, section 5.2.1.7.
            Self::OnlyIfCached => Row::new(StatusCode::GATEWAY_TIMEOUT, Client),
            Self::Connect { source, .. } if source.is_own() => Row::overloaded(),
            Self::Connect { source, .. } if source.is_time_out() => {
                Row::unreachable(StatusCode::GATEWAY_TIMEOUT, Reason::NoConnection)
            }
            Self::Connect { .. } => Row::unreachable(StatusCode::BAD_GATEWAY, Reason::NoConnection),
            Self::Send { .. } => Row::unreachable(StatusCode::BAD_GATEWAY, Reason::NoAnswer),
            Self::ResponseTimedOut { .. } | Self::AttemptsTimedOut { .. } => {
                Row::unreachable(StatusCode::GATEWAY_TIMEOUT, Reason::NoAnswer)
            }
            Self::DeadlineExceeded => Row::new(StatusCode::GATEWAY_TIMEOUT, Client),
            Self::BadResponse { source, .. } => {
                let endpoint = (!source.is_of_content()).then_some(Reason::NoAnswer);
                Row { endpoint, ..Row::new(StatusCode::BAD_GATEWAY, Upstream) }
            }
            // RFC 9220, section 3, which says it for RFC 8441 as well.
            Self::NotOffered => Row::new(StatusCode::NOT_IMPLEMENTED, Client),
            Self::NoTunnels { .. } | Self::NotSwitched => Row::new(StatusCode::BAD_GATEWAY, Upstream),
            Self::Plugin { source, .. } => {
                let is_passing = match source {
                    CallError::Busy(_) | CallError::Broken | CallError::Unsent(_) => true,
                    // There is no room for an instance just now.
                    CallError::Start(error) => error.is_environments(),
                    CallError::Trap(_)
                    | CallError::Deadline(_)
                    | CallError::Memory(_)
                    | CallError::MemoryInAll(_)
                    | CallError::InvalidReply(_)
                    | CallError::UnknownUpstream(_)
                    | CallError::UpstreamNotGranted(_) => false,
                };
                Row { is_passing, ..Row::new(StatusCode::SERVICE_UNAVAILABLE, Plugin) }
            }
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
