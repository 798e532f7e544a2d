//! Which clocks of the system are plugins measured by?

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// The time since any moment that stays the same.
pub(super) fn now() -> Duration {
    reading(ClockId::Monotonic)
}

/// The CPU time of this thread.
pub(super) fn cpu_time() -> Duration {
    reading(ClockId::ThreadCPUTime)
}

/// What a clock of the system shows.
fn reading(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec.unsigned_abs() as u32)
}
