//! What is the key of a request?

use serde::Deserialize;
use tollgate_plugin_sdk::{config, request};

/// The part of a request that is its key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum By {
    Path,
    /// Path and query.
    Target,
    ClientAddress,
    Header(HeaderName),
    Cookie(CookieName),
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct HeaderName(String);

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) struct CookieName(String);

impl TryFrom<String> for HeaderName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<Self, Self::Error> {
        match config::is_header_name(&name) {
            true => Ok(Self(name.to_ascii_lowercase())),
            false => Err("is not the name of a header"),
        }
    }
}

impl TryFrom<String> for CookieName {
    type Error = &'static str;

    /// The name of a cookie is a token, as that of a header (RFC 6265, section 4.1.1).
    fn try_from(name: String) -> Result<Self, Self::Error> {
        if config::is_header_name(&name) { Ok(Self(name)) } else { Err("is not the name of a cookie") }
    }
}

impl By {
    /// The key of the request in hand, if it has one.
    pub(crate) fn key(&self) -> Option<String> {
        match self {
            Self::Path => Some(request::path()),
            Self::Target => Some(match request::query() {
                Some(query) => format!("{}?{query}", request::path()),
                None => request::path(),
            }),
            Self::ClientAddress => Some(request::client_address()),
            Self::Header(HeaderName(name)) => request::header(name),
            Self::Cookie(CookieName(name)) => {
                request::header("cookie").and_then(|cookies| cookie(&cookies, name).map(str::to_owned))
            }
        }
    }
}

/// The value of the first cookie of this name (RFC 6265, section 4.2.1).
fn cookie<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    cookies.split(';').find_map(|pair| pair.trim_matches([' ', '\t']).strip_prefix(name)?.strip_prefix('='))
}

#[cfg(test)]
mod tests {
    use super::cookie;

    #[test]
    fn a_cookie_is_found_by_its_whole_name() {
        for (cookies, value) in [
            ("a=1", Some("1")),
            ("aa=1; a=2;b=3", Some("2")),
            ("b=3; a=", Some("")),
            ("a=1=2", Some("1=2")),
            ("b=a=1", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(cookie(cookies, "a"), value, "{cookies}");
        }
    }
}
