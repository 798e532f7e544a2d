//! The table `[admin]`.

use std::{fmt, net::SocketAddr};

use serde::{Deserialize, Deserializer};

use super::{listener::address, shape::written};

/// Where an operator looks in. Without the table there is no such place.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Admin {
    /// IP address and port; port 0 lets the system choose.
    #[serde(deserialize_with = "address")]
    pub address: SocketAddr,
    /// What a client has to show as `Authorization: Bearer`. Required where the address is not a loopback one.
    pub token: Option<Token>,
}

/// A secret that nothing prints.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// To show it to whoever asks for it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// To compare it with.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Token(..)")
    }
}

impl<'de> Deserialize<'de> for Token {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        written(deserializer, "a token: visible ASCII characters without spaces", |text| {
            let is_visible = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
            is_visible.then(|| Self(text.to_owned()))
        })
    }
}
