//! Which origins may come?

use std::fmt;

use serde::{Deserialize, Deserializer, de};

/// Any, or those of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origins {
    Any,
    These(Vec<Origin>),
}

/// A scheme, a host and maybe a port, as browsers write it; or all hosts below a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    Exact(String),
    /// What stands before and after the `*`: `https://` and `.example.com`.
    Below {
        scheme: String,
        domain: String,
    },
}

impl Origins {
    pub(crate) fn is_any(&self) -> bool {
        *self == Self::Any
    }

    /// Whether the answer depends on who asks.
    pub(crate) fn vary(&self) -> bool {
        !self.is_any()
    }

    /// What is said to this origin, if it may come.
    pub(crate) fn allow<'a>(&self, origin: &'a str) -> Option<&'a str> {
        match self {
            Self::Any => Some("*"),
            Self::These(origins) => origins.iter().any(|known| known.is(origin)).then_some(origin),
        }
    }
}

impl Origin {
    fn is(&self, origin: &str) -> bool {
        match self {
            Self::Exact(known) => known == origin,
            Self::Below { scheme, domain } => origin
                .strip_prefix(scheme.as_str())
                .and_then(|host| host.strip_suffix(domain.as_str()))
                .is_some_and(|labels| labels.split('.').all(is_label)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        if text == "null" {
            return Some(Self::Exact(text.to_owned()));
        }
        let (scheme, host) = text.split_once("://")?;
        let is_scheme = !scheme.is_empty()
            && scheme.bytes().all(|byte| byte.is_ascii_lowercase() || b"+-.".contains(&byte));
        let (name, port) = match host.rsplit_once(':') {
            Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
            _ => (host, None),
        };
        let is_port = port.is_none_or(|port| port.parse::<u16>().is_ok());
        if !is_scheme || !is_port || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
            return None;
        }
        match name.strip_prefix("*.") {
            Some(domain) => domain
                .split('.')
                .all(is_label)
                .then(|| Self::Below { scheme: format!("{scheme}://"), domain: host[1..].to_owned() }),
            None => {
                let is_address = name.starts_with('[') && name.ends_with(']');
                (is_address || name.split('.').all(is_label)).then(|| Self::Exact(text.to_owned()))
            }
        }
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
}

impl<'de> Deserialize<'de> for Origin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| {
            de::Error::custom("is no origin: write it as browsers do, such as \"https://app.example.com\" or \"https://*.example.com\", without a path")
        })
    }
}

impl<'de> Deserialize<'de> for Origins {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Origins;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("\"*\", or an array of origins")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Origins, E> {
                (text == "*")
                    .then_some(Origins::Any)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }

            fn visit_seq<A: de::SeqAccess<'de>>(self, mut origins: A) -> Result<Origins, A::Error> {
                let mut these = Vec::new();
                while let Some(origin) = origins.next_element()? {
                    these.push(origin);
                }
                Ok(Origins::These(these))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_compared_whole_and_a_wildcard_takes_whole_labels() {
        for (known, origin, is) in [
            ("https://app.example", "https://app.example", true),
            ("https://app.example", "https://app.example.evil", false),
            ("https://app.example", "http://app.example", false),
            ("https://app.example:8443", "https://app.example:8443", true),
            ("https://app.example", "https://app.example:8443", false),
            ("https://*.example.com", "https://a.example.com", true),
            ("https://*.example.com", "https://a.b.example.com", true),
            ("https://*.example.com", "https://example.com", false),
            ("https://*.example.com", "https://.example.com", false),
            ("https://*.example.com", "https://evilexample.com", false),
            ("https://*.example.com", "https://evil/.example.com", false),
            ("https://*.example.com:8443", "https://a.example.com:8443", true),
            ("https://*.example.com:8443", "https://a.example.com", false),
            ("null", "null", true),
            ("http://[::1]:80", "http://[::1]:80", true),
        ] {
            let known = Origin::parse(known).expect(known);
            assert_eq!(known.is(origin), is, "{known:?} {origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "*",
            "app.example",
            "https://",
            "https://a/",
            "https://A.example",
            "https://a:x",
            "https://*",
            "https://*.",
            "https://a b",
        ] {
            assert_eq!(Origin::parse(text), None, "{text}");
        }
    }
}
