//! How does a connection become requests?
//!
//! [`tcp`] binds and accepts, also sockets of Unix ([`unix`]), up to what [`clients`] allows each ([`client`]); [`tls`]
//! shakes hands where it is spoken; [`wire`] reads and writes, and lets nothing through whose beginning and end two readers
//! could see differently ([`framing`]); [`http`] hands the requests to the proxy. [`http2`] does all of this for HTTP/2, with
//! an eye on its frames.

mod client;
mod clients;
pub mod framing;
mod http;
mod http2;
pub mod tcp;
mod tls;
mod unix;
mod wire;

pub use tcp::{Acceptors, BindError, Bound, Listening, Sockets, bind};
