//! Which endpoint has this client had before?
//!
//! The response that an endpoint gives to a client who is not its own yet sets a cookie, by which the client's next
//! requests come to the same endpoint. The cookie is a signature of the endpoint's address: it cannot be made up, and
//! tells nobody the address.

mod cookie;

use cookie::{Cookie, message, value};
use serde::Deserialize;
use tollgate_plugin_sdk::{
    Balance, Endpoint, OnResponse, Plugin, ResponseVerdict, config, request, response, secret,
};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Sticky {
    /// The name of the secret that signs.
    #[serde(default = "default_secret")]
    secret: String,
    #[serde(default)]
    cookie: Cookie,
}

fn default_secret() -> String {
    "sticky".to_owned()
}

impl Plugin for Sticky {
    fn configure(text: &str) -> Result<Self, String> {
        let sticky = Self::read(text)?;
        sticky.has_secret()?;
        Ok(sticky)
    }
}

impl Sticky {
    fn read(text: &str) -> Result<Self, String> {
        let sticky: Self = config::read(text)?;
        sticky.cookie.check().map_err(|reason| format!("`cookie` in `config`: {reason}"))?;
        Ok(sticky)
    }

    /// Without a secret no cookie would ever be set, and nobody be told.
    fn has_secret(&self) -> Result<(), String> {
        let name = &self.secret;
        secret::hmac_sha256(name, b"").map(drop).ok_or_else(|| {
            format!(
                "there is no secret `{}` to sign cookies with: grant it in the plugin's table, as in \
                 grants = {{ secrets = {{ sticky = {{ env = \"STICKY_KEY\" }} }} }}",
                name.escape_debug()
            )
        })
    }

    /// The value of the cookie for an endpoint. None without the secret.
    fn sign(&self, upstream: &str, address: &str) -> Option<String> {
        secret::hmac_sha256(&self.secret, &message(upstream, address)).map(|signature| value(&signature))
    }

    /// Whether the request has this value of the cookie.
    fn is_shown(&self, wanted: &str) -> bool {
        request::header("cookie")
            .is_some_and(|header| self.cookie.values(&header).any(|value| value == wanted))
    }
}

/// The value for each endpoint, with its place, sorted.
struct Pins(Vec<(String, u32)>);

impl Pins {
    fn place(&self, value: &str) -> Option<u32> {
        let found = self.0.binary_search_by(|(known, _)| known.as_str().cmp(value)).ok()?;
        Some(self.0[found].1)
    }
}

impl Balance for Sticky {
    type Pool = Pins;

    fn prepare(&self, upstream: &str, endpoints: Vec<Endpoint>, _: Option<Pins>) -> Pins {
        let pin =
            |(place, endpoint): (u32, &Endpoint)| Some((self.sign(upstream, &endpoint.address)?, place));
        let mut pins: Vec<_> = (0..).zip(&endpoints).filter_map(pin).collect();
        pins.sort_unstable();
        Pins(pins)
    }

    fn pick(&self, _: &str, pins: &Pins, tried: &[u32]) -> Option<u32> {
        let header = request::header("cookie")?;
        let mut places = self.cookie.values(&header).filter_map(|value| pins.place(value));
        places.find(|place| !tried.contains(place))
    }
}

impl OnResponse for Sticky {
    fn on_response(&self) -> ResponseVerdict {
        // What comes from the cache, or from a plugin, comes from no endpoint.
        if let Some(address) = response::endpoint()
            && let Some(value) = self.sign(&request::upstream(), &address)
            && !self.is_shown(&value)
            && let Ok(set) = self.cookie.set(&value, request::scheme() == "https")
        {
            // A response with as many headers as there may be goes without.
            let _ = response::append_header("set-cookie", &set);
        }
        ResponseVerdict::Next
    }
}

tollgate_plugin_sdk::export!(Sticky: Balance, OnResponse);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            (r#"{"secrt":"a"}"#, "unknown key `secrt`"),
            (r#"{"cookie":{"name":"a b"}}"#, "is not the name of a cookie"),
            (r#"{"cookie":{"path":"a"}}"#, "is a path"),
            (r#"{"cookie":{"path":"/;x"}}"#, "is a path"),
            (r#"{"cookie":{"max-age":-1}}"#, "`cookie.max-age` in `config`"),
            (r#"{"cookie":{"same-site":"no"}}"#, "expected"),
            (r#"{"cookie":{"same-site":"none","secure":false}}"#, "not `secure`"),
        ] {
            let refusal = Sticky::read(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
        assert!(Sticky::read("{}").is_ok());
    }

    #[test]
    fn a_pin_is_found_by_its_value() {
        let pins = Pins(vec![("a".to_owned(), 2), ("c".to_owned(), 0)]);
        assert_eq!((pins.place("a"), pins.place("b"), pins.place("c")), (Some(2), None, Some(0)));
    }
}
