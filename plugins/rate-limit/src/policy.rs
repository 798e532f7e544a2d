//! Who is counted together, and how much may they ask for?

use std::net::IpAddr;

use serde::Deserialize;
use tollgate_plugin_sdk::{Seconds, config, hash, store};

/// So many requests in a time, of whoever has the same key.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    #[serde(default = "default_name")]
    pub(crate) name: String,
    requests: u32,
    per: Seconds,
    /// Requests at once after a time without any; as many as `requests` if absent.
    #[serde(default)]
    burst: Option<u32>,
    #[serde(default)]
    by: By,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum By {
    #[default]
    Client,
    Route,
    Everybody,
    Header(String),
    Note(String),
}

fn default_name() -> String {
    "default".to_owned()
}

/// A request whose key is looked for.
pub(crate) trait Request {
    fn client(&self) -> String;
    fn header(&self, name: &str) -> Option<String>;
    fn note(&self, name: &str) -> Option<String>;
    fn route(&self) -> String;
}

impl Policy {
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.requests == 0 || self.burst == Some(0) {
            let key = if self.requests == 0 { "requests" } else { "burst" };
            return Err(format!("`{key}` is 0: nobody would pass, remove the route instead"));
        }
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        if !is_name(&self.name) {
            return Err("`name` is made of letters, digits, `-`, `_` and `.`".to_owned());
        }
        match &self.by {
            By::Header(name) if !config::is_header_name(name) => {
                Err(format!("`{}` is not the name of a header", name.escape_debug()))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn per_second(&self) -> f64 {
        f64::from(self.requests) / f64::from(self.per.get())
    }

    pub(crate) fn burst(&self) -> u32 {
        self.burst.unwrap_or(self.requests)
    }

    /// `"name";q=<requests>;w=<seconds>`: so many at once, and the time in which as many come back.
    pub(crate) fn announcement(&self) -> String {
        let window = f64::from(self.burst()) / self.per_second();
        format!("\"{}\";q={};w={}", self.name, self.burst(), window.ceil())
    }

    /// `"name";r=<requests>`: so many more at once. None if nobody can tell.
    pub(crate) fn remaining(&self, key: &str) -> Option<String> {
        let left = store::tokens(key, self.per_second(), self.burst()).ok()?;
        Some(format!("\"{}\";r={left}", self.name))
    }

    /// The name of the bucket that a request takes from.
    pub(crate) fn key(&self, request: &impl Request) -> String {
        let client = || client(request.client());
        let (kind, value) = match &self.by {
            By::Client => (":c:", client()),
            By::Route => (":r:", request.route()),
            By::Everybody => (":e:", String::new()),
            // Who leaves it away is counted by the address, or nobody would send it.
            By::Header(name) => {
                request.header(name).map_or_else(|| (":c:", client()), |value| (":v:", value))
            }
            By::Note(name) => request.note(name).map_or_else(|| (":c:", client()), |value| (":v:", value)),
        };
        // A store takes keys of 1 KiB.
        match value.len() {
            // Put together by hand, which is quicker than to format.
            0..=256 => [&self.name, kind, &value].concat(),
            _ => format!("{}:h:{:016x}:{}", self.name, hash(value.as_bytes()), value.len()),
        }
    }
}

/// One client: an IPv4 address, or the network of 64 bits that an IPv6 client usually has to itself.
fn client(address: String) -> String {
    // Shorter than what looks through a text of any length, which is code that has to be fetched.
    if !address.bytes().any(|byte| byte == b':') {
        return address;
    }
    match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
        Ok(IpAddr::V4(address)) => address.to_string(),
        Err(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake;

    impl Request for Fake {
        fn client(&self) -> String {
            "2001:db8:1:2:3:4:5:6".to_owned()
        }

        fn header(&self, name: &str) -> Option<String> {
            match name {
                "x-key" => Some("k1".to_owned()),
                "x-long" => Some("k".repeat(5_000)),
                _ => None,
            }
        }

        fn note(&self, name: &str) -> Option<String> {
            (name == "consumer").then(|| "ann".to_owned())
        }

        fn route(&self) -> String {
            "api".to_owned()
        }
    }

    fn policy(by: &str) -> Policy {
        config::read(&format!(r#"{{"requests":10,"per":"1m","by":{by}}}"#)).expect(by)
    }

    #[test]
    fn requests_are_counted_by_their_key() {
        for (by, key) in [
            (r#""client""#, "default:c:2001:db8:1:2::/64"),
            (r#""route""#, "default:r:api"),
            (r#""everybody""#, "default:e:"),
            (r#"{"header":"x-key"}"#, "default:v:k1"),
            (r#"{"header":"x-none"}"#, "default:c:2001:db8:1:2::/64"),
            (r#"{"note":"consumer"}"#, "default:v:ann"),
        ] {
            assert_eq!(policy(by).key(&Fake), key, "{by}");
        }
        assert!(policy(r#"{"header":"x-long"}"#).key(&Fake).len() < 64);
    }

    #[test]
    fn ipv4_in_ipv6_is_ipv4() {
        assert_eq!(client("192.0.2.1".to_owned()), "192.0.2.1");
        assert_eq!(client("::ffff:192.0.2.1".to_owned()), "192.0.2.1");
        assert_eq!(client("?".to_owned()), "?");
    }

    #[test]
    fn a_rate_is_requests_over_time() {
        let policy = policy(r#""client""#);
        assert!((policy.per_second() - 10.0 / 60.0).abs() < 1e-12);
        assert_eq!((policy.burst(), policy.announcement().as_str()), (10, "\"default\";q=10;w=60"));
    }
}
