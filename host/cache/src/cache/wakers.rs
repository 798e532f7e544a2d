//! How do those who wait keep their places?

use std::task::{Context, Waker};

use slab::Slab;

/// Keeps a waker, in its old place if it has one. Places are all given up when a stage is entered.
pub(super) fn register(wakers: &mut Slab<Waker>, key: Option<usize>, cx: &Context<'_>) -> usize {
    match key.and_then(|key| Some((key, wakers.get_mut(key)?))) {
        // Another may have the place by now; then it is woken for nothing, and both come back.
        Some((key, waker)) if waker.will_wake(cx.waker()) => key,
        _ => wakers.insert(cx.waker().clone()),
    }
}
