//! Why did a request not come to its end?

use http::StatusCode;

use super::Connection;
use crate::{
    body::{End, Error},
    live::Worker,
    telemetry::traffic::Limit,
};

/// Why a response did not reach its end, or why there is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// The client closed the connection or reset the stream.
    ClientLeft,
    /// The client has come up against a limit, such as the time to take a response in.
    Client(Limit),
    /// The upstream closed the connection, reset the stream, or sent what is no body.
    UpstreamBroke,
    /// The upstream sent nothing for `timeouts.body`.
    UpstreamSilent,
    /// The client's own deadline is over (`grpc-timeout`).
    Deadline,
    /// The body could not be encoded or decoded.
    Coding,
    /// The process ends, and its time to drain is over.
    DrainTimeout,
    /// A tunnel in which nothing passed for `timeouts.tunnel`.
    TunnelSilent,
    /// One side of a tunnel broke off.
    TunnelBroke,
}

impl Cut {
    /// As it stands in the access log.
    pub fn name(self) -> &'static str {
        match self {
            Self::ClientLeft => "client-left",
            Self::Client(limit) => limit.name(),
            Self::UpstreamBroke => "upstream-broke-off",
            Self::UpstreamSilent => "upstreams.timeouts.body",
            Self::Deadline => "grpc-timeout",
            Self::Coding => "coding",
            Self::DrainTimeout => "drain-timeout",
            Self::TunnelSilent => "upstreams.timeouts.tunnel",
            Self::TunnelBroke => "tunnel-broke-off",
        }
    }

    /// The status that is written down where there is no response: nobody got it.
    pub fn status(self) -> StatusCode {
        match self {
            // As nginx has it; there is none for this in the registry.
            Self::ClientLeft | Self::Client(_) => {
                StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST)
            }
            Self::UpstreamBroke
            | Self::UpstreamSilent
            | Self::Deadline
            | Self::Coding
            | Self::DrainTimeout
            | Self::TunnelSilent
            | Self::TunnelBroke => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// What it means that nobody waits for an answer any more. To be asked once for each request.
    pub fn dropped(worker: &Worker, connection: &Connection) -> Self {
        match connection.given_up() {
            _ if worker.drain.is_aborted() => {
                worker.drain.note_cut();
                Self::DrainTimeout
            }
            Some(limit) => Self::Client(limit),
            None => Self::ClientLeft,
        }
    }

    /// Why a body ended as it did; none if it is complete.
    pub fn of_body(end: &End<'_>, worker: &Worker, connection: &Connection) -> Option<Self> {
        Some(match end {
            End::Complete => return None,
            End::Stalled => Self::UpstreamSilent,
            End::Dropped => Self::dropped(worker, connection),
            End::Broken(error) => match error {
                Error::Broken(_)
                | Error::Reset(_)
                | Error::CutShort
                | Error::Misstated
                | Error::StoringBroke
                | Error::TooLarge
                | Error::Abandoned => Self::UpstreamBroke,
                Error::Silent | Error::Slow | Error::Stalled => Self::UpstreamSilent,
                Error::Coding(_) => Self::Coding,
            },
        })
    }
}
