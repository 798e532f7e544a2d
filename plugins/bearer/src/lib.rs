//! May the bearer of this token pass, and what does the upstream get to know?
//!
//! What the plugins `jwt`, `jwt-remote` and `oauth-introspection` have in common: [`Bearer`] finds the token of a request
//! and hands its claims on, [`Keys`] say whether it is signed, [`Validity`] whether it is valid now and here, and a
//! [`Refusal`] is what the client is told.

mod claims;
mod keys;
mod refusal;
mod remembered;
mod source;

pub use claims::{OneOrMore, Path, Validity};
pub use keys::{Keys, Unverified};
pub use refusal::Refusal;
pub use remembered::Remembered;
pub use source::Source;

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Map, Value};
use tollgate_plugin_sdk::{Verdict, config, log, request};

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// Where tokens are, what they must say, and what becomes of what they say.
#[derive(Debug)]
pub struct Bearer {
    source: Source,
    /// Claims, and the header that each goes to.
    headers: Vec<(Path, String)>,
    /// Claims that must have one of these values.
    require: Vec<(Path, OneOrMore)>,
    forward: bool,
}

impl Bearer {
    /// `claims` are names of headers by claims; `require` what claims must be; with `forward` the upstream sees the
    /// token. The error names what cannot be a header.
    pub fn new(
        source: Source,
        claims: &BTreeMap<String, String>,
        require: BTreeMap<String, OneOrMore>,
        forward: bool,
    ) -> Result<Self, String> {
        let name = match &source {
            Source::Bearer => None,
            Source::Header(name) | Source::Cookie(name) => Some(name),
        };
        if let Some(name) = claims.values().chain(name).find(|name| !config::is_header_name(name)) {
            return Err(format!(
                "`config`: `{}` is not a name for a header or a cookie",
                name.escape_debug()
            ));
        }
        Ok(Self {
            source,
            headers: claims.iter().map(|(path, name)| (Path::new(path), name.to_ascii_lowercase())).collect(),
            require: require.into_iter().map(|(path, values)| (Path::new(&path), values)).collect(),
            forward,
        })
    }

    /// The token of the request in hand.
    pub fn token(&self) -> Result<String, Refusal> {
        self.source.find(request::header)
    }

    /// Whether a token with these claims says what is required.
    pub fn check(&self, claims: &Claims) -> Result<(), Refusal> {
        let is_enough = self.require.iter().all(|(path, wanted)| path.has_any(claims, wanted));
        if is_enough { Ok(()) } else { Err(Refusal::Insufficient) }
    }

    /// Lets the request in hand go on with these claims in its headers, or turns it away.
    pub fn conclude(&self, claims: Result<Claims, Refusal>) -> Verdict {
        // What a client says of itself counts for nothing, whatever becomes of the token.
        for (_, name) in &self.headers {
            let _ = request::remove_header(name);
        }
        let claims = match claims {
            Ok(claims) => claims,
            Err(refusal) => return Verdict::Reply(refusal.reply()),
        };
        for (path, name) in &self.headers {
            let Some(value) = path.text(&claims) else { continue };
            if let Err(error) = request::set_header(name, &value) {
                log::write(log::Level::Warn, &format!("a claim cannot be `{name}`: {}", error.name()));
                return Verdict::Reply(Refusal::Invalid("a claim holds what no header can").reply());
            }
        }
        if !self.forward {
            self.source.remove();
        }
        Verdict::Next
    }
}

/// In seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs())
}
