//! What may an instance use, and what has it used?

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use wasmtime::ResourceLimiter;

use super::{
    clocks::cpu_time,
    cost::Meter,
    error::{CallError, Trap},
    host_io::PendingIo,
    shared::Shared,
};

/// What an instance may use, and what it has used.
pub(super) struct Limits {
    /// CPU time of a call.
    pub time: Duration,
    /// What this call has used of it.
    pub meter: Meter,
    /// What this call has slept, which counts as if it had computed.
    pub slept: Duration,
    pub memory: usize,
    pub memory_used: usize,
    /// Of all instances of the plugin.
    pub memory_in_all: Option<usize>,
    pub shared: Arc<Shared>,
    pub exceeded: Option<Exceeded>,
}

/// How a call is found to do when it is looked at.
pub(super) enum Seen {
    Running,
    /// An epoch has passed, and the call has waited meanwhile.
    Back,
    OutOfTime,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Exceeded {
    Time,
    Memory,
    MemoryInAll(usize),
}

impl Limits {
    /// What a sleep costs at least: about what the system makes of a shorter one.
    const NAP: Duration = Duration::from_micros(100);

    /// A call begins.
    pub fn begin(&mut self) {
        (self.meter, self.slept) = (Meter::default(), Duration::ZERO);
    }

    /// Looks at the time of the call, which is counted with its pending I/O if it may suspend.
    pub fn look(&mut self, pending_io: Option<&PendingIo>) -> Seen {
        let now = cpu_time();
        let (used, has_run) = match pending_io {
            Some(pending_io) => pending_io.look(now),
            None => (self.meter.look(now), true),
        };
        if used.saturating_add(self.slept) >= self.time {
            self.exceeded = Some(Exceeded::Time);
            return Seen::OutOfTime;
        }
        if has_run { Seen::Running } else { Seen::Back }
    }

    /// The call is to sleep for so long. An error if that is more than it has left.
    pub fn sleep(&mut self, duration: Duration) -> wasmtime::Result<()> {
        self.slept = self.slept.saturating_add(duration.max(Self::NAP));
        if self.slept > self.time {
            self.exceeded = Some(Exceeded::Time);
            return Err(wasmtime::Error::msg("the plugin sleeps too long"));
        }
        Ok(())
    }

    /// Whether the last call was ended for what it has used.
    pub fn is_exceeded(&self) -> bool {
        self.exceeded.is_some()
    }

    /// What went wrong, in words for the log.
    pub fn blame(&self, error: &wasmtime::Error) -> CallError {
        match self.exceeded {
            Some(Exceeded::Time) => CallError::Deadline(self.time),
            Some(Exceeded::Memory) => CallError::Memory(self.memory),
            Some(Exceeded::MemoryInAll(most)) => CallError::MemoryInAll(most),
            None => CallError::Trap(Trap::new(error)),
        }
    }
}

impl ResourceLimiter for Limits {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current);
        let used = self.memory_used + more;
        if used > self.memory {
            self.exceeded = Some(Exceeded::Memory);
            return Err(wasmtime::Error::msg("out of memory"));
        }
        let before = self.shared.memory.fetch_add(more, Ordering::Relaxed);
        if let Some(most) = self.memory_in_all.filter(|most| before + more > *most) {
            self.shared.memory.fetch_sub(more, Ordering::Relaxed);
            self.exceeded = Some(Exceeded::MemoryInAll(most));
            return Err(wasmtime::Error::msg(
                "all instances of the plugin together have `limits.memory-in-all`",
            ));
        }
        self.memory_used = used;
        Ok(true)
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // Tables hold functions; the pool's own cap is beyond what any toolchain makes.
        if desired > 65_536 {
            return Ok(false);
        }
        // Their elements are pointers of the host, and there may be many tables.
        let more = desired.saturating_sub(current) * size_of::<usize>();
        self.memory_growing(0, more, None)
    }
}

impl Drop for Limits {
    fn drop(&mut self) {
        self.shared.memory.fetch_sub(self.memory_used, Ordering::Relaxed);
    }
}
