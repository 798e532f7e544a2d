//! Which version of a plugin decides this request?
//!
//! The one in force, unless another is tried beside it. Then the request's id decides, once for the request: its hooks, and
//! the pick of its endpoint, are all of one version. What came of it is counted when the request has ended.

use super::context::Context;
use crate::plugin::{CallError, Exchange, Side, Slot};

/// The version that decides for the plugin at a place, and which of two that is, if there are two.
pub(super) fn version<'a>(
    context: &'a Context,
    index: usize,
    exchange: &Exchange,
) -> (&'a Slot, Option<Side>) {
    let generation = &context.generation;
    let in_force = generation.slot(index);
    let Some(candidate) = generation.candidate(index) else { return (in_force, None) };
    let side = context.meter.versions.side(generation, index, exchange);
    // What is explained counts for neither.
    let counted = exchange.is_traffic().then_some(side);
    match side {
        Side::InForce => (in_force, counted),
        Side::Candidate => (candidate, counted),
    }
}

/// Counts a call, if the plugin at this place has two versions.
pub(super) fn called(context: &Context, index: usize, side: Option<Side>, error: Option<&CallError>) {
    if let Some(side) = side {
        context.meter.versions.called(&context.generation, index, side, error);
    }
}
