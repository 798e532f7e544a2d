//! How many connections has each client?
//!
//! Asked once for a connection, and only where there is a limit. What is kept has an end: a client is forgotten
//! with its last connection, and of those there are no more than the listener allows.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};

/// The connections to one listener by client, of all workers.
#[derive(Debug, Default)]
pub(super) struct Clients {
    /// In several parts, so that workers seldom meet. Which one is not for clients to choose.
    parts: [Mutex<HashMap<Client, u32>>; PARTS],
    chooser: RandomState,
}

const PARTS: usize = 16;

/// What of an address tells clients apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Client(u128);

/// One connection, for as long as it lives.
#[derive(Debug)]
pub(super) struct Entered {
    clients: Arc<Clients>,
    client: Client,
}

impl Clients {
    /// Counts one more connection from this address, unless its client has `most` already. `prefix` is how many
    /// bits of an IPv6 address say who it is: who has one has the whole network that was given out with it.
    pub fn enter(self: &Arc<Self>, address: IpAddr, prefix: u8, most: u32) -> Option<Entered> {
        let client = Client::new(address, prefix);
        let mut part = self.part(client).lock().unwrap_or_else(PoisonError::into_inner);
        let count = part.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Entered { clients: self.clone(), client })
    }

    fn part(&self, client: Client) -> &Mutex<HashMap<Client, u32>> {
        &self.parts[self.chooser.hash_one(client) as usize % PARTS]
    }
}

impl Client {
    fn new(address: IpAddr, prefix: u8) -> Self {
        // What comes by an IPv6 socket over IPv4 is of IPv4.
        match address.to_canonical() {
            IpAddr::V4(address) => Self(address.to_ipv6_mapped().to_bits()),
            IpAddr::V6(address) => {
                let rest = u32::from(128 - prefix.min(128));
                Self(address.to_bits() & u128::MAX.checked_shl(rest).unwrap_or(0))
            }
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let mut part = self.clients.part(self.client).lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = part.entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(clients: &Arc<Clients>, address: &str) -> Option<Entered> {
        clients.enter(address.parse().unwrap(), 64, 2)
    }

    #[test]
    fn a_client_has_so_many_connections_and_no_more() {
        for (addresses, stranger) in [
            (["10.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"], "10.0.0.2"),
            (["2001:db8::1", "2001:db8::2", "2001:db8::ffff:1:2:3"], "2001:db8:0:1::1"),
        ] {
            let clients = Arc::<Clients>::default();
            let [first, second, third] = addresses;
            let entered = enter(&clients, first).unwrap();
            let _second = enter(&clients, second).unwrap();
            assert!(enter(&clients, third).is_none());
            assert!(enter(&clients, stranger).is_some());
            drop(entered);
            assert!(enter(&clients, third).is_some());
        }
    }

    #[test]
    fn a_client_without_connections_is_forgotten() {
        let clients = Arc::<Clients>::default();
        drop((enter(&clients, "10.0.0.1"), enter(&clients, "10.0.0.1"), enter(&clients, "::1")));
        assert!(clients.parts.iter().all(|part| part.lock().unwrap().is_empty()));
    }

    #[test]
    fn every_prefix_can_be_asked_for() {
        let address = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        for prefix in 1..=128 {
            assert_eq!(Client::new(address, prefix).0.leading_ones(), u32::from(prefix));
        }
    }
}
