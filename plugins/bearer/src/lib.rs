//! May the bearer of this token pass, and what does the upstream get to know?
//!
//! What the plugins `jwt`, `jwt-remote` and `oauth-introspection` have in common: [`Bearer`] finds the token of a request
//! and hands its claims on, [`Keys`] say whether it is signed, a [`Judgement`] is what is thought of it, [`Remembered`]
//! keeps those, and a [`Refusal`] is what the client is told.

mod claims;
mod judgement;
mod keys;
mod refusal;
mod remembered;
mod source;

pub use claims::{OneOrMore, Path, Validity};
pub use judgement::Judgement;
pub use keys::{Keys, Unverified};
pub use refusal::Refusal;
pub use remembered::Remembered;
pub use source::Source;

use std::{
    collections::BTreeMap,
    ops::Deref,
    time::{SystemTime, UNIX_EPOCH},
};

use judgement::Lifetime;
use serde_json::{Map, Value};
use tollgate_plugin_sdk::{Verdict, config, log, request};

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// Where tokens are, what they must say, and what becomes of what they say.
#[derive(Debug)]
pub struct Bearer {
    source: Source,
    validity: Validity,
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
        validity: Validity,
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
            validity,
            headers: claims.iter().map(|(path, name)| (Path::new(path), name.to_ascii_lowercase())).collect(),
            require: require.into_iter().map(|(path, values)| (Path::new(&path), values)).collect(),
            forward,
        })
    }

    /// The token of the request in hand.
    pub fn token(&self) -> Result<String, Refusal> {
        self.source.find(request::header)
    }

    /// What is thought of a token with these claims.
    pub fn judge(&self, claims: &Claims) -> Judgement {
        let (lifetime, headers) = match self.validity.lifetime(claims) {
            Ok(lifetime) => (lifetime, self.values(claims)),
            Err(reason) => (Lifetime::ALWAYS, Err(Refusal::Invalid(reason))),
        };
        Judgement { lifetime, headers }
    }

    /// The values of the headers, if the token is for here and says what is required.
    fn values(&self, claims: &Claims) -> Result<Vec<Option<String>>, Refusal> {
        self.validity.check(claims).map_err(Refusal::Invalid)?;
        match self.require.iter().all(|(path, wanted)| path.has_any(claims, wanted)) {
            true => Ok(self.headers.iter().map(|(path, _)| path.text(claims)).collect()),
            false => Err(Refusal::Insufficient),
        }
    }

    /// Lets the request in hand go on with what its token says in its headers, or turns it away.
    pub fn conclude(&self, judged: Result<impl Deref<Target = Judgement>, Refusal>) -> Verdict {
        let passed = judged.as_ref().map_err(|refusal| *refusal).and_then(|judged| judged.at(now()));
        let values = passed.unwrap_or_default();
        for (place, (_, name)) in self.headers.iter().enumerate() {
            let Some(Some(value)) = values.get(place) else {
                // What a client says of itself counts for nothing, whatever becomes of the token.
                let _ = request::remove_header(name);
                continue;
            };
            if let Err(error) = request::set_header(name, value) {
                log::write(log::Level::Warn, &format!("a claim cannot be `{name}`: {}", error.name()));
                return Verdict::Reply(Refusal::Invalid("a claim holds what no header can").reply());
            }
        }
        if let Err(refusal) = passed {
            return Verdict::Reply(refusal.reply());
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
