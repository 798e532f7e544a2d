//! The configuration of the proxy, and TLS as it says.
//!
//! The modules stand in reading order, and each names only modules below it, here or in a crate below this one.

pub mod tls;
pub mod config;

use tollgate_base::{address, clock, file, outgoing, private};
