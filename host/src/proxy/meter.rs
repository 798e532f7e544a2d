//! What is counted of a request?

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use http::StatusCode;

use crate::{live::Generation, telemetry::traffic::Bytes};

/// One request, as it is counted.
#[derive(Debug)]
pub(super) struct Meter {
    /// When its head had come. The clock is read once more at its end, and not between.
    pub started: Instant,
    /// A place in the snapshot's list.
    route: Cell<Option<usize>>,
}

impl Meter {
    pub fn start() -> Self {
        Self { started: Instant::now(), route: Cell::new(None) }
    }

    /// Notes the route that takes it.
    pub fn routed(&self, place: usize) {
        self.route.set(Some(place));
    }

    /// Counts it.
    pub fn count(
        &self,
        generation: &Generation,
        status: StatusCode,
        bytes: Bytes,
        duration: Duration,
        is_complete: bool,
    ) {
        let counts = generation.snapshot.counts(self.route.get()).of(generation.writer);
        counts.answered(status, bytes, duration, is_complete);
    }
}
