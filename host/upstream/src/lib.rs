//! Upstreams: their endpoints, health, balancing, connections, and how a request is delivered to one.
//!
//! The modules stand in reading order, and each names only modules below it, here or in a crate below this one.

pub mod upstream;

use tollgate_base::{
    body, clock, descriptors, drain, file, frames, members, outgoing, proxy_protocol, socket, telemetry,
};
use tollgate_config::{config, tls};
