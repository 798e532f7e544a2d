//! The promises of Tollgate, each tested on a proxy that runs.

mod architecture;
mod forwarding;
mod plugins;
