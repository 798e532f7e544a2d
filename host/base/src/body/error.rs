//! Why did a body end too early?

/// Why a body ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the body is larger than allowed")]
    TooLarge,
    #[error("the body was given up")]
    Abandoned,
    #[error("the client took too long")]
    Silent,
    #[error("the body comes too slowly")]
    Slow,
    #[error("the body was cut short")]
    CutShort,
    #[error("the body is not as long as its head says")]
    Misstated,
    #[error("the body came to a standstill")]
    Stalled,
    #[error("the body broke off")]
    Broken(#[source] hyper::Error),
    /// The other side was told a reason for it that is none of this side's business.
    #[error("the body broke off: {0}")]
    Reset(hyper::Error),
    #[error("the body could not be encoded or decoded")]
    Coding(#[from] std::io::Error),
    #[error("the body that was being stored broke off")]
    StoringBroke,
}

impl From<hyper::Error> for Error {
    /// hyper takes the reason for a reset of HTTP/2 from what stands at the source: that it was cancelled goes on, and
    /// everything else is an error of this proxy to the other side.
    fn from(error: hyper::Error) -> Self {
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<h2::Error>());
        match cause.and_then(h2::Error::reason) {
            None | Some(h2::Reason::CANCEL) => Self::Broken(error),
            Some(_) => Self::Reset(error),
        }
    }
}

/// Why the body of a request is given up; to an upstream of HTTP/2 it is cancelled.
#[derive(Debug, thiserror::Error)]
#[error("{why}")]
pub struct GivenUp {
    why: Error,
    source: h2::Error,
}

impl From<Error> for GivenUp {
    fn from(why: Error) -> Self {
        Self { why, source: h2::Reason::CANCEL.into() }
    }
}
