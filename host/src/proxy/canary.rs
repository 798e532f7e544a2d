//! Which version of a plugin decides this request?
//!
//! The one in force, unless another is tried beside it. Then the request's id decides, once for the request: its hooks, and
//! the pick of its endpoint, are all of one version. What came of it is counted when the request has ended.

use std::cell::RefCell;

use http::StatusCode;

use super::context::Context;
use crate::{
    live::Generation,
    plugin::{CallError, Exchange, Side, Slot},
};

/// What versions have decided of a request, of plugins that have two. Nothing on most requests.
#[derive(Debug, Default)]
pub(super) struct Decided(RefCell<Vec<One>>);

#[derive(Debug, Clone, Copy)]
struct One {
    /// The plugin's, in the snapshot's list.
    place: usize,
    side: Side,
    /// Whether a call brought no verdict.
    has_failed: bool,
}

/// The version that decides for the plugin at a place, and which of two that is, if there are two.
pub(super) fn version<'a>(
    context: &'a Context,
    place: usize,
    exchange: &Exchange,
) -> (&'a Slot, Option<Side>) {
    let generation = &context.generation;
    let in_force = generation.slot(place);
    let Some(candidate) = generation.candidate(place) else { return (in_force, None) };
    let decided = &mut *context.meter.decided.0.borrow_mut();
    let side = match decided.iter().find(|one| one.place == place) {
        Some(one) => one.side,
        None => {
            let tried = generation.snapshot.plugins[place].candidate.as_ref();
            let side =
                tried.map_or(Side::InForce, |tried| tried.comparison.side(exchange.id(), tried.share()));
            decided.push(One { place, side, has_failed: false });
            side
        }
    };
    // What is explained counts for neither.
    let counted = exchange.is_traffic().then_some(side);
    match side {
        Side::InForce => (in_force, counted),
        Side::Candidate => (candidate, counted),
    }
}

/// Counts a call, if the plugin at this place has two versions.
pub(super) fn called(context: &Context, place: usize, side: Option<Side>, error: Option<&CallError>) {
    let Some(side) = side else { return };
    let generation = &context.generation;
    if let Some(tried) = &generation.snapshot.plugins[place].candidate {
        tried.comparison.called(generation.writer, side, error);
    }
    if error.is_some() {
        let mut decided = context.meter.decided.0.borrow_mut();
        decided.iter_mut().filter(|one| one.place == place).for_each(|one| one.has_failed = true);
    }
}

impl Decided {
    /// Counts the request as it was answered.
    pub fn count(&self, generation: &Generation, status: StatusCode) {
        for One { place, side, has_failed } in self.0.borrow().iter() {
            if let Some(tried) = &generation.snapshot.plugins[*place].candidate {
                tried.comparison.decided(generation.writer, *side, *has_failed || status.is_server_error());
            }
        }
    }
}
