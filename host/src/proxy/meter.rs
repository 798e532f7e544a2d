//! What is counted of a request?

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use http::StatusCode;

use super::versions::Versions;
use crate::{
    live::Generation,
    telemetry::{
        Part,
        traffic::{Bytes, RouteCounts},
    },
};

/// One request, as it is counted.
#[derive(Debug)]
pub(super) struct Meter {
    /// When its head had come. The clock is read once more at its end, and not between.
    pub started: Instant,
    /// A place in the snapshot's list.
    route: Cell<Option<usize>>,
    /// By which versions of plugins.
    pub versions: Versions,
}

impl Meter {
    pub fn start() -> Self {
        Self { started: Instant::now(), route: Cell::new(None), versions: Versions::default() }
    }

    /// Notes the route that takes it.
    pub fn routed(&self, index: usize) {
        self.route.set(Some(index));
    }

    /// The route that takes it, if one does.
    pub fn route(&self) -> Option<usize> {
        self.route.get()
    }

    /// Counts it as answered by the opening of a tunnel, of which more is counted in what is returned.
    pub fn opened(&self, generation: &Generation, status: StatusCode) -> Part<RouteCounts> {
        let nothing = Bytes { of_request: 0, of_response: 0 };
        self.count(generation, status, nothing, self.started.elapsed(), true);
        Part::new(generation.snapshot.counts(self.route.get()).clone(), generation.writer)
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
        self.versions.count(generation, status);
    }
}
