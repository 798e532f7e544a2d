//! What every other crate of the proxy rests on.
//!
//! The modules stand in reading order, and each names only modules below it, here or in a crate below this one.

pub mod telemetry;
pub mod members;
pub mod outgoing;
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
