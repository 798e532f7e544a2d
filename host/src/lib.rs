//! Tollgate: a reverse proxy whose policies are WebAssembly components.
//!
//! The modules stand in reading order, from what an operator sees down to what everything rests on. Each
//! names only modules below it; a test holds them to that. Those that stand at the end are crates of their own, in the
//! folders beside this one. ARCHITECTURE.md tells the life of a request.

#[doc(hidden)]
pub mod fuzzing;
pub mod cli;
pub mod watch;
pub mod admin;
pub mod server;
pub mod listen;
pub mod proxy;
pub mod live;
pub mod tasks;
pub mod snapshot;
pub mod route;

pub use tollgate_base::{
    address, authority, body, clock, descriptors, drain, field, file, frames, outgoing, path, proxy_protocol,
    reason, socket, telemetry,
};
pub use tollgate_cache::{cache, compress};
pub use tollgate_config::{config, tls};
pub use tollgate_runtime::{plugin, plugin_tests};
pub use tollgate_upstream::upstream;
