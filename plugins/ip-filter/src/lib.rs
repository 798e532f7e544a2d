//! May a client with this address pass?

mod networks;

use std::net::IpAddr;

use networks::{Network, contains};
use serde::Deserialize;
use tollgate_plugin_sdk::{OnRequest, Plugin, Problem, Verdict, config, log, request};

/// Who may pass: whoever is in no network of `deny`, and in one of `allow` if there is any.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct IpFilter {
    #[serde(default)]
    allow: Vec<Network>,
    #[serde(default)]
    deny: Vec<Network>,
}

impl Plugin for IpFilter {
    fn configure(config: &str) -> Result<Self, String> {
        let filter: Self = config::read(config)?;
        if filter.allow.is_empty() && filter.deny.is_empty() {
            return Err("`config` names no network: write `allow` or `deny`, such as \
                `config = { allow = [\"10.0.0.0/8\"] }`"
                .to_owned());
        }
        Ok(filter)
    }
}

impl OnRequest for IpFilter {
    fn on_request(&self) -> Verdict {
        let address = request::client_address();
        match address.parse() {
            Ok(address) if self.passes(address) => Verdict::Next,
            Ok(_) => {
                log::write(log::Level::Info, &format!("refused {address}"));
                Verdict::Reply(refusal().reply())
            }
            Err(_) => Verdict::Reply(refusal().reply()),
        }
    }
}

impl IpFilter {
    fn passes(&self, address: IpAddr) -> bool {
        !contains(&self.deny, address) && (self.allow.is_empty() || contains(&self.allow, address))
    }
}

fn refusal() -> Problem {
    Problem::new(403, "Forbidden", "this address may not come here")
}

tollgate_plugin_sdk::export!(IpFilter: OnRequest);

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(config: &str) -> IpFilter {
        IpFilter::configure(config).expect("the configuration is valid")
    }

    #[test]
    fn deny_goes_before_allow_and_allow_excludes_the_rest() {
        let both = filter(r#"{"allow":["10.0.0.0/8","2001:db8::/32"],"deny":["10.6.6.0/24"]}"#);
        let deny = filter(r#"{"deny":["192.0.2.7"]}"#);
        for (address, by_both, by_deny) in [
            ("10.1.2.3", true, true),
            ("10.6.6.6", false, true),
            ("192.0.2.7", false, false),
            ("192.0.2.8", false, true),
            ("::ffff:192.0.2.7", false, false),
            ("::ffff:10.1.2.3", true, true),
            ("2001:db8:1::1", true, true),
            ("2001:db9::1", false, true),
        ] {
            let client = address.parse().expect("is an address");
            assert_eq!(both.passes(client), by_both, "{address} by both");
            assert_eq!(deny.passes(client), by_deny, "{address} by deny");
        }
    }

    #[test]
    fn a_network_of_ipv4_is_one_in_whatever_notation() {
        let deny = filter(r#"{"deny":["::ffff:192.0.2.7","::ffff:10.0.0.0/104"]}"#);
        for (address, passes) in [
            ("192.0.2.7", false),
            ("192.0.2.8", true),
            ("10.6.6.6", false),
            ("11.0.0.1", true),
            ("::ffff:10.6.6.6", false),
            ("::fffe:10.6.6.6", true),
        ] {
            assert_eq!(deny.passes(address.parse().expect("is an address")), passes, "{address}");
        }
        assert!(!filter(r#"{"deny":["::ffff:0:0/96"]}"#).passes([1, 2, 3, 4].into()));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "names no network"),
            (r#"{"allow":[]}"#, "names no network"),
            (r#"{"allow":["10.0.0.0/33"]}"#, "`allow[0]` in `config`: expected an address or a network"),
            (r#"{"deny":["10.0.0.1",7]}"#, "`deny[1]` in `config`: expected an address or a network"),
            (r#"{"block":[]}"#, "unknown key `block`"),
        ] {
            let refusal = IpFilter::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
