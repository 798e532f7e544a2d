//! Which endpoint serves it, and is it well?
//!
//! An [`Upstream`] is a named group of endpoints; what is known of an [`Endpoint`] is shared by all workers
//! and survives a reload. Who of them may be picked is a [`Roster`], which is replaced when that changes.
//! Connections are each worker's own: see [`pool`].

mod adapt;
mod bound;
mod budget;
mod check;
mod connect;
mod connections;
mod counts;
mod delivery;
mod discover;
mod endpoint;
mod head;
mod health;
mod http2;
mod http2_pool;
mod interim;
mod limit;
mod link;
mod maintenance;
mod members;
mod metrics;
mod number;
mod origins;
mod pool;
mod reach;
mod report;
mod roster;
mod state;
mod stream;
mod switched;
mod transport;

pub use bound::{Client, authenticates_connection};
pub use connect::ConnectError;
pub use connections::ConnectionPermit;
pub use counts::EndpointCounts;
pub use delivery::{Delivery, NotDelivered, deliver};
pub use endpoint::{Endpoint, InFlight};
pub use head::{BadHead, HeadLimits};
pub use health::{Event, Health, Reason, State, Transition};
pub use interim::Interim;
pub use limit::{Admission, Entering, Load, Permit};
pub use maintenance::Maintenance;
pub use members::{RegisterError, Registered, Source, SourceReport};
pub use metrics::write_upstreams;
pub use origins::Origins;
pub use pool::{Lease, Pool, Terms};
pub use roster::{Entry, Roster};
pub use state::{Tls, Upstream};
pub use switched::Switched;
pub use {
    head::{Came, HeadReader},
    http2::Watch,
};

#[cfg(test)]
mod tests;
