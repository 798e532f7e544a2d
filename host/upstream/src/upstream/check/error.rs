//! Why did a check fail?

use std::time::Duration;

use http::StatusCode;

use crate::upstream::ConnectError;

/// Why a check failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("no answer")]
    Exchange(#[from] hyper::Error),
    /// Nothing of the question was written.
    #[error("no answer")]
    Unsent(#[source] hyper::Error),
    #[error("took longer than {} ms", .0.as_millis())]
    TimedOut(Duration),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("the answer does not hold what it should")]
    Body,
    #[error("the call failed with grpc-status {0}")]
    Grpc(String),
    #[error("is not serving")]
    NotServing,
}
