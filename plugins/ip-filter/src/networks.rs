//! Is an address in a network?

use std::{fmt, net::IpAddr};

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, de};

/// One address, or all that share a prefix: `192.0.2.7`, `10.0.0.0/8`, `2001:db8::/32`. One of IPv4 in whatever notation is
/// one of IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network(IpNet);

/// An IPv4 address in IPv6 notation (RFC 4291, section 2.5.5.2) is the IPv4 address.
pub(crate) fn contains(networks: &[Network], address: IpAddr) -> bool {
    let address = address.to_canonical();
    networks.iter().any(|network| network.0.contains(&address))
}

/// What clients are compared with, whose addresses are canonical.
fn canonical(network: IpNet) -> IpNet {
    /// Bits before the address of IPv4.
    const MAPPED: u8 = 96;
    match (network.addr().to_canonical(), network.prefix_len().checked_sub(MAPPED)) {
        (IpAddr::V4(address), Some(length)) if network.addr().is_ipv6() => {
            IpNet::new(address.into(), length).unwrap_or(network)
        }
        _ => network,
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Network;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an address or a network, such as \"192.0.2.7\" or \"10.0.0.0/8\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Network, E> {
                let address = text.parse::<IpAddr>().map(IpNet::from);
                let network = address.or_else(|_| text.parse::<IpNet>());
                let network = network.map_err(|_| E::invalid_value(de::Unexpected::Str(text), &self))?;
                // Whoever writes 10.0.0.1/8 may mean one address or sixteen million.
                if network.addr() != network.network() {
                    let (network, address) = (network.trunc(), network.addr());
                    return Err(E::custom(format!(
                        "{text} has bits beyond the length of its prefix: write {network} or {address}"
                    )));
                }
                Ok(Network(canonical(network)))
            }
        }

        deserializer.deserialize_str(Visitor)
    }
}
