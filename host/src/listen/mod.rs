//! How does a connection become requests?
//!
//! [`tcp`] binds and accepts; [`wire`] reads and writes, and lets nothing through whose beginning and end two
//! readers could see differently ([`framing`]); [`http`] hands the requests to the proxy.

pub mod framing;
mod http;
pub mod tcp;
mod wire;

pub use tcp::{Acceptors, BindError, Bound, Sockets, bind};
