//! Stored responses, and the content codings that they are sent in.
//!
//! The modules stand in reading order, and each names only modules below it, here or in a crate below this one.

pub mod compress;
pub mod cache;

use tollgate_base::{body, drain, field, path, private, telemetry};
use tollgate_config::config;
