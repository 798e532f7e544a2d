//! The plugin runtime, and the tests of plugins.
//!
//! The modules stand in reading order, and each names only modules below it, here or in a crate below this one.

pub mod plugin_tests;
pub mod plugin;

use tollgate_base::{address, authority, drain, field, file, members, outgoing, path, private, telemetry};
use tollgate_config::{config, tls};
