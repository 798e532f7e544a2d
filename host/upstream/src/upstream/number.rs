//! Which number tells one thing from all others, for as long as the process lives?

use std::sync::atomic::{AtomicU64, Ordering};

/// Numbers that are never used twice.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// A number that was never returned before.
pub(super) fn next() -> u64 {
    NEXT.fetch_add(1, Ordering::Relaxed)
}
