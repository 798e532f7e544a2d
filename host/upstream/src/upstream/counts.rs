//! How often is an endpoint asked, how long does it take, and how often does it fail?

use crate::telemetry::{Histogram, Tally};

/// What a worker counts of an endpoint.
#[derive(Debug, Default)]
pub struct EndpointCounts {
    /// Requests that got no response from it.
    pub(super) failures: Tally,
    /// Times to the head of a response.
    pub(super) durations: Histogram,
}
