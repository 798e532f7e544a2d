//! Whose connection is it?

use std::net::SocketAddr;

use crate::{address::Caller, proxy::Peer};

/// Whose connection it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub address: Caller<SocketAddr>,
    /// Where it has connected to, if somebody wants to know.
    pub destination: Option<SocketAddr>,
    /// Whether it may speak for clients of its own.
    pub is_trusted: bool,
}

impl Client {
    pub fn peer(self, scheme: &'static str) -> Peer {
        let mut peer = Peer::new(self.address, scheme, self.is_trusted);
        peer.destination = self.destination;
        peer
    }
}
