//! The promises of Tollgate, each tested on a proxy that runs.

mod architecture;
mod configuration;
mod forwarding;
mod hostile;
mod plugins;
mod reload;

/// The executable, as cargo has built it for these tests.
const TOLLGATE: &str = env!("CARGO_BIN_EXE_tollgate-tested");
