//! How is time told apart while a plugin runs?

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// The resolution of CPU deadlines. A call may run two of these longer than its limit.
pub(super) const EPOCH: Duration = Duration::from_millis(5);

/// Epochs of any engine that have ended.
static ENDED: AtomicU64 = AtomicU64::new(0);

/// Another number in another epoch.
pub(super) fn epoch() -> u64 {
    ENDED.load(Ordering::Relaxed)
}

/// An epoch ends.
pub(super) fn pass() {
    ENDED.fetch_add(1, Ordering::Relaxed);
}
