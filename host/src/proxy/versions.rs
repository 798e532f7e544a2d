//! Which versions of plugins have decided of a request?

use std::cell::RefCell;

use http::StatusCode;

use crate::{
    live::Generation,
    plugin::{CallError, Exchange, Side},
};

/// What versions have decided of a request, of plugins that have two. Nothing on most requests.
#[derive(Debug, Default)]
pub(super) struct Versions(RefCell<Vec<Decided>>);

#[derive(Debug, Clone, Copy)]
struct Decided {
    /// The plugin's, in the snapshot's list.
    index: usize,
    side: Side,
    /// Whether a call brought no verdict.
    has_failed: bool,
}

impl Versions {
    /// Which of the two versions of a plugin decides: the same for all calls of the request.
    pub fn side(&self, generation: &Generation, index: usize, exchange: &Exchange) -> Side {
        let decided = &mut *self.0.borrow_mut();
        if let Some(known) = decided.iter().find(|decided| decided.index == index) {
            return known.side;
        }
        let tried = generation.snapshot.plugins[index].candidate.as_ref();
        let side = tried.map_or(Side::InForce, |tried| tried.comparison.side(exchange.id(), tried.weight()));
        decided.push(Decided { index, side, has_failed: false });
        side
    }

    /// Counts a call of one of the two.
    pub fn called(&self, generation: &Generation, index: usize, side: Side, error: Option<&CallError>) {
        if let Some(tried) = &generation.snapshot.plugins[index].candidate {
            tried.comparison.called(generation.writer, side, error);
        }
        if error.is_some() {
            let mut decided = self.0.borrow_mut();
            decided.iter_mut().filter(|one| one.index == index).for_each(|one| one.has_failed = true);
        }
    }

    /// Counts the request as it was answered.
    pub fn count(&self, generation: &Generation, status: StatusCode) {
        for Decided { index, side, has_failed } in self.0.borrow().iter() {
            if let Some(tried) = &generation.snapshot.plugins[*index].candidate {
                tried.comparison.decided(generation.writer, *side, *has_failed || status.is_server_error());
            }
        }
    }
}
