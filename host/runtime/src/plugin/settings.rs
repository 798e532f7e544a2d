//! How is wasmtime set up, for whoever runs components and for whoever only compiles them?

use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::room::TABLES;

/// What a call that may wait has for a stack: wasmtime's half a MiB for the plugin, and as much for the host.
const STACK: usize = 1 << 20;

/// What is wrong with a file, in one line: of text the parser shows every byte.
pub(super) fn reason(error: &wasmtime::Error) -> String {
    error.root_cause().to_string().lines().next().unwrap_or_default().to_owned()
}

/// How instances lie in the address space, which the code that is compiled for them depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Layout {
    /// Each memory has 4 GiB of it, so that what is out of its bounds is found by the processor.
    Large,
    /// A memory has what it uses, and the code looks at its bounds.
    Small,
}

impl Layout {
    const ALL: [Self; 2] = [Self::Large, Self::Small];

    pub fn name(self) -> &'static str {
        match self {
            Self::Large => "large",
            Self::Small => "small",
        }
    }

    pub fn read(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|layout| layout.name() == name)
    }
}

/// The configuration of wasmtime, with a pool of so many places; without one for whoever only compiles, or has no address space
/// for it.
pub(super) fn configuration(layout: Layout, places: Option<usize>) -> Config {
    let mut config = Config::new();
    config
        .epoch_interruption(true)
        .async_stack_size(STACK)
        .memory_init_cow(true)
        // With the machinery for concurrent tasks a call costs three times as much, and no hook needs it.
        .concurrency_support(false);
    match layout {
        Layout::Large => {}
        Layout::Small => {
            config.memory_reservation(0).memory_reservation_for_growth(1 << 20).memory_guard_size(64 << 10);
        }
    }
    let Some(places) = places else {
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        return config;
    };
    let places = u32::try_from(places).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(places)
        // These take nothing until they are there, and so are counted by what is in them.
        .total_core_instances(places.saturating_mul(64))
        .total_memories(places)
        .total_tables(places.saturating_mul(TABLES as u32))
        // A call that may wait has one of its own; no instance has more than one call.
        .total_stacks(places)
        .max_core_instances_per_component(64)
        .max_memories_per_component(8)
        .max_tables_per_component(32)
        .table_elements(65_536)
        // Enough that a recycled instance of a small guest does not fault its pages in again.
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(64 << 10)
        // Where the kernel can say which pages were written to, only those are cleared: Linux 6.7 or newer.
        .pagemap_scan(Enabled::Auto);
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
    config
}
