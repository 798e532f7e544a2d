//! How does a cookie name an endpoint, and tell nobody which?

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use serde::Deserialize;
use tollgate_plugin_sdk::{HeaderValue, Lossy, config::is_header_name};

/// What browsers are told of the cookie.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct Cookie {
    pub name: Name,
    path: Path,
    /// In seconds; until the browser ends if absent.
    max_age: Option<u32>,
    same_site: SameSite,
    /// Whether it goes by TLS only; as the request came if absent.
    secure: Option<bool>,
}

impl Default for Cookie {
    fn default() -> Self {
        Self {
            name: Name("tollgate-endpoint".to_owned()),
            path: Path("/".to_owned()),
            max_age: None,
            same_site: SameSite::Lax,
            secure: None,
        }
    }
}

/// A token (RFC 6265, section 4.1.1).
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct Name(String);

impl TryFrom<String> for Name {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        if is_header_name(&name) { Ok(Self(name)) } else { Err("is not the name of a cookie") }
    }
}

/// What stands in `Path`.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Path(String);

impl TryFrom<String> for Path {
    type Error = &'static str;

    fn try_from(path: String) -> Result<Self, Self::Error> {
        let is_path =
            path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';');
        if is_path {
            Ok(Self(path))
        } else {
            Err("is a path such as \"/\", of visible characters without `;`")
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum SameSite {
    Lax,
    Strict,
    None,
}

impl Cookie {
    /// Why these settings make no cookie that a browser would keep.
    pub fn check(&self) -> Result<(), String> {
        match (self.same_site, self.secure) {
            (SameSite::None, Some(false)) => {
                Err("browsers drop a cookie with `same-site = \"none\"` that is not `secure`".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// The values of this cookie in a `Cookie` header (RFC 6265, section 4.2.1). There may be several, set for
    /// other paths or by others.
    pub fn values<'a>(&'a self, header: &'a str) -> impl Iterator<Item = &'a str> {
        let pairs = header.split(';').map(|pair| pair.trim_matches([' ', '\t']));
        pairs.filter_map(|pair| pair.strip_prefix(&self.name.0)?.strip_prefix('='))
    }

    /// The value of `Set-Cookie` that has a browser send this back.
    pub fn set(&self, value: &str, is_https: bool) -> Result<HeaderValue, Lossy> {
        let Self { name: Name(name), path: Path(path), max_age, same_site, secure } = self;
        let mut text = format!("{name}={value}; Path={path}; HttpOnly; SameSite=");
        text.push_str(match same_site {
            SameSite::Lax => "Lax",
            SameSite::Strict => "Strict",
            SameSite::None => "None",
        });
        if let Some(seconds) = max_age {
            text.push_str(&format!("; Max-Age={seconds}"));
        }
        if secure.unwrap_or(is_https || matches!(same_site, SameSite::None)) {
            text.push_str("; Secure");
        }
        HeaderValue::text(&text)
    }
}

/// What is signed for an endpoint of an upstream. A name has no zero byte in it, so no two are the same.
pub(crate) fn message(upstream: &str, address: &str) -> Vec<u8> {
    [b"sticky\0", upstream.as_bytes(), b"\0", address.as_bytes()].concat()
}

/// The value of the cookie, from the signature: half of its bits, which nobody can guess either.
pub(crate) fn value(signature: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(&signature[..signature.len() / 2])
}

#[cfg(test)]
mod tests {
    use tollgate_plugin_sdk::config;

    use super::*;

    fn cookie(settings: &str) -> Cookie {
        config::read(settings).unwrap()
    }

    #[test]
    fn a_cookie_is_found_by_its_whole_name_however_often_it_is_there() {
        let cookie = cookie(r#"{"name": "a"}"#);
        for (header, values) in
            [("a=1", &["1"][..]), ("aa=1; a=2;b=3; a=4", &["2", "4"]), ("b=a=1", &[]), ("a", &[]), ("", &[])]
        {
            assert_eq!(cookie.values(header).collect::<Vec<_>>(), values, "{header}");
        }
    }

    #[test]
    fn a_cookie_is_set_as_the_settings_say() {
        for (settings, is_https, expected) in [
            ("{}", false, "tollgate-endpoint=v; Path=/; HttpOnly; SameSite=Lax"),
            ("{}", true, "tollgate-endpoint=v; Path=/; HttpOnly; SameSite=Lax; Secure"),
            (
                r#"{"same-site": "none"}"#,
                false,
                "tollgate-endpoint=v; Path=/; HttpOnly; SameSite=None; Secure",
            ),
            (
                r#"{"name": "n", "path": "/a", "max-age": 60, "same-site": "strict", "secure": false}"#,
                true,
                "n=v; Path=/a; HttpOnly; SameSite=Strict; Max-Age=60",
            ),
        ] {
            assert_eq!(cookie(settings).set("v", is_https), HeaderValue::text(expected));
        }
    }

    #[test]
    fn every_endpoint_has_a_message_of_its_own() {
        assert_ne!(message("ab", "c"), message("a", "bc"));
        assert_ne!(message("a", "b"), message("b", "a"));
        assert_eq!(value(&[0xff; 32]), "_____________________w");
    }
}
