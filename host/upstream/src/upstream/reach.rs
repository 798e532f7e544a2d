//! Which addresses can anybody reach?
//!
//! A name that somebody else has given may lead to what is near the proxy and not meant for others: to its own
//! machine, its network, the services of its cloud.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::config::Reach;

/// Whether a connection may be made to an address.
pub(super) fn allows(reach: &Reach, address: SocketAddr) -> bool {
    let Reach::Guarded { networks, admin } = reach else { return true };
    let ip = address.ip().to_canonical();
    let is_named = networks.iter().any(|network| network.contains(&ip));
    let is_admin = admin.is_some_and(|admin| is_at(admin, SocketAddr::new(ip, address.port())));
    !is_admin && (is_named || is_public(ip))
}

/// Whether whoever connects to `address` reaches what listens on `listening`.
fn is_at(listening: SocketAddr, address: SocketAddr) -> bool {
    let (own, ip) = (listening.ip().to_canonical(), address.ip());
    let is_own_machine = ip.is_loopback() || ip.is_unspecified();
    address.port() == listening.port() && (own == ip || own.is_unspecified() || is_own_machine)
}

/// Whether an address is one that anybody can reach: none of the proxy's own machine or network, and none of those
/// that have a meaning of their own (RFC 6890 and the registries after it).
pub(super) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match (a, b, c) {
        // This network; shared with the provider's customers (RFC 6598); protocol assignments and examples;
        // relays of 6to4; measurements; the upper end, with multicast and broadcast.
        (0, _, _) | (100, 64..=127, _) | (192, 0, 0 | 2) | (192, 88, 99) | (198, 18 | 19, _) => true,
        (198, 51, 100) | (203, 0, 113) | (224..=255, _, _) => true,
        // Where Azure has its own services, among others' addresses.
        (168, 63, 129) => true,
        _ => false,
    };
    !(is_special || address.is_private() || address.is_loopback() || address.is_link_local())
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [first, second, ..] = segments;
    let v4 = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match segments {
        // An address of the old kind in one of the new: mapped, translated (RFC 6052), 6to4 (RFC 3056).
        [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            is_public_v4(v4(high, low))
        }
        [0x2002, high, low, ..] => is_public_v4(v4(high, low)),
        // Global unicast is 2000::/3; of it, Teredo and others of 2001::/23, and examples, are not for this.
        _ => {
            let is_special = first == 0x2001 && (second < 0x200 || second == 0xdb8);
            let is_example = first & 0xfff0 == 0x3ff0;
            first & 0xe000 == 0x2000 && !is_special && !is_example
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_name_is_public_or_in_a_network_that_was_allowed_and_never_the_admin_api() {
        let networks = ["10.0.0.0/8", "127.0.0.0/8", "fd00::/8"].map(|network| network.parse().unwrap());
        let admin = |address: &str| Some(address.parse().unwrap());
        let guarded = |admin| Reach::Guarded { networks: networks.into(), admin };
        let local = guarded(admin("127.0.0.1:9901"));
        let allows = |reach: &Reach, address: &str| allows(reach, address.parse().unwrap());
        for (address, is_allowed) in [
            ("10.1.2.3:80", true),
            ("[::ffff:10.1.2.3]:80", true),
            ("[fd00::1]:80", true),
            ("1.1.1.1:80", true),
            ("127.0.0.1:8001", true),
            ("169.254.169.254:80", false),
            ("192.168.0.1:80", false),
            ("127.0.0.1:9901", false),
            ("127.8.8.8:9901", false),
            ("[::ffff:127.0.0.1]:9901", false),
            ("10.0.0.1:9901", true),
        ] {
            assert_eq!(allows(&local, address), is_allowed, "{address}");
        }
        assert!(!allows(&guarded(admin("10.0.0.1:9901")), "10.0.0.1:9901"));
        assert!(!allows(&Reach::public(), "127.0.0.1:80") && allows(&Reach::Anywhere, "127.0.0.1:80"));
    }

    #[test]
    fn only_addresses_that_anybody_can_reach_are_public() {
        let near = "127.0.0.1 127.8.8.8 0.0.0.0 10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 169.254.169.254 \
            100.64.0.1 100.127.255.255 192.0.0.1 192.0.2.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 240.0.0.1 \
            255.255.255.255 168.63.129.16 :: ::1 ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 \
            ::ffff:169.254.169.254 fe80::1 fc00::1 fd00:ec2::254 ff02::1 fec0::1 64:ff9b::127.0.0.1 64:ff9b:1::1 \
            2002:7f00:1:: 2001::1 2001:db8::1 3fff::1 100::1 4000::1";
        for address in near.split_whitespace() {
            assert!(!is_public(address.parse().expect("it is an address")), "{address}");
        }
        let far = "1.1.1.1 8.8.8.8 100.63.0.1 100.128.0.1 172.32.0.1 192.0.1.1 198.20.0.1 223.255.255.255 \
            2606:4700::1111 2a00:1450::1 ::ffff:1.1.1.1 64:ff9b::1.1.1.1 2001:200::1 2002:101:101::";
        for address in far.split_whitespace() {
            assert!(is_public(address.parse().expect("it is an address")), "{address}");
        }
    }
}
