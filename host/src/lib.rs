//! Tollgate: a reverse proxy whose policies are WebAssembly components.
//!
//! The modules stand in reading order, from what an operator sees down to what everything rests on. Each
//! names only modules below it; a test holds them to that. ARCHITECTURE.md tells the life of a request.

#[doc(hidden)]
pub mod fuzzing;
pub mod cli;
pub mod watch;
pub mod admin;
pub mod server;
pub mod listen;
pub mod proxy;
pub mod live;
pub mod aside;
pub mod snapshot;
pub mod route;
pub mod compress;
pub mod trial;
pub mod cache;
pub mod upstream;
pub mod plugin;
pub mod tls;
pub mod config;
pub mod telemetry;
pub mod private;
pub mod file;
pub mod path;
pub mod authority;
pub mod proxy_protocol;
pub mod address;
pub mod descriptors;
pub mod socket;
pub mod frames;
pub mod body;
pub mod field;
pub mod reason;
pub mod clock;
pub mod drain;
