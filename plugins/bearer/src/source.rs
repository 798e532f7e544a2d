//! Where is the token of a request?

use serde::Deserialize;
use tollgate_plugin_sdk::request;

use crate::Refusal;

/// Where the token is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Source {
    /// `Authorization: Bearer` (RFC 6750, section 2.1).
    #[default]
    Bearer,
    Header(String),
    Cookie(String),
}

/// With the space that ends it (RFC 9110, section 11.4).
const SCHEME: &str = "Bearer ";

impl Source {
    /// The token of a request whose headers are looked up.
    pub(crate) fn find(&self, header: impl Fn(&str) -> Option<String>) -> Result<String, Refusal> {
        let token = match self {
            Self::Bearer => {
                let mut value = header("authorization").ok_or(Refusal::Missing)?;
                let (scheme, token) = value.split_at_checked(SCHEME.len()).ok_or(Refusal::Missing)?;
                let is_bearer = scheme.eq_ignore_ascii_case(SCHEME);
                let begin = value.len() - token.trim_ascii_start().len();
                value.truncate(value.trim_ascii_end().len());
                value.drain(..begin.min(value.len()));
                is_bearer.then_some(value)
            }
            Self::Header(name) => header(name),
            Self::Cookie(name) => header("cookie").and_then(|cookies| {
                let value =
                    |pair: &str| pair.trim_ascii().strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
                cookies.split(';').find_map(value)
            }),
        };
        token.filter(|token| !token.is_empty()).ok_or(Refusal::Missing)
    }

    /// Takes the token away, so that the upstream does not see it; a cookie stays, among the others.
    pub(crate) fn remove(&self) {
        match self {
            Self::Bearer => drop(request::remove_header("authorization")),
            Self::Header(name) => drop(request::remove_header(name)),
            Self::Cookie(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_where_it_is_to_be() {
        let header = |name: &str| match name {
            "authorization" => Some("bEARER  abc".to_owned()),
            "x-token" => Some("def".to_owned()),
            "cookie" => Some("a=1; session=ghi; session=jkl".to_owned()),
            _ => None,
        };
        for (source, token) in [
            (Source::Bearer, Ok("abc")),
            (Source::Header("x-token".to_owned()), Ok("def")),
            (Source::Header("x-none".to_owned()), Err(Refusal::Missing)),
            (Source::Cookie("session".to_owned()), Ok("ghi")),
            (Source::Cookie("b".to_owned()), Err(Refusal::Missing)),
        ] {
            assert_eq!(source.find(header), token.map(str::to_owned), "{source:?}");
        }
        assert_eq!(Source::Bearer.find(|_| Some("Basic abc".to_owned())), Err(Refusal::Missing));
    }
}
