//! Where may a plugin send requests?

use serde::{Deserialize, Deserializer, de};

use crate::http_client;

/// The URL of a server that a plugin sends requests to: `http` or `https`, and a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    fn parse(text: String) -> Option<Self> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
        let has_host = !rest.is_empty() && !rest.starts_with(['/', '?', '#']);
        (has_host && text.bytes().all(|byte| byte.is_ascii_graphic())).then_some(Self(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Checks that the plugin is granted requests to this URL, which is configured as `key`. To be asked in `configure`,
    /// so that `tollgate check` says what would otherwise fail at each request.
    pub fn check_granted(&self, key: &str) -> Result<(), String> {
        if http_client::allowed(&self.0) {
            return Ok(());
        }
        Err(format!(
            "`{key}` in `config`: nothing may be sent there: add its origin to `http` in the plugin's `grants`"
        ))
    }
}

impl<'de> Deserialize<'de> for Url {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(text).ok_or_else(|| de::Error::custom("is no URL of `https` or `http`"))
    }
}

#[cfg(test)]
mod tests {
    use super::Url;

    #[test]
    fn a_url_has_a_scheme_and_a_host() {
        for (text, is_url) in [
            ("https://a.example:8443/b?c", true),
            ("http://a", true),
            ("keys.json", false),
            ("ftp://a/b", false),
            ("https://", false),
            ("https:///b", false),
            ("https://?b", false),
            ("https://a/b c", false),
            ("https://a/\u{e9}", false),
        ] {
            assert_eq!(Url::parse(text.to_owned()).is_some(), is_url, "{text}");
        }
    }
}
