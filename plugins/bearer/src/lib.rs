//! May the bearer of this token pass, and what does the upstream get to know?
//!
//! What the plugins `jwt`, `jwt-remote` and `oauth-introspection` have in common: [`read`] takes the settings that all of
//! them have, [`Bearer`] finds the token of a request and hands its claims on, [`Keys`] say whether it is signed, a [`Judgement`] is what is thought of it, [`Remembered`]
//! keeps those, and a [`Refusal`] is what the client is told.

mod claims;
mod judgement;
mod keys;
mod refusal;
mod remembered;
mod settings;
mod source;

pub use judgement::Judgement;
pub use keys::{Keys, Unverified};
pub use refusal::Refusal;
pub use remembered::Remembered;
pub use settings::{Verification, read};

use std::{
    ops::Deref,
    time::{SystemTime, UNIX_EPOCH},
};

use claims::{Path, Validity};
use judgement::Lifetime;
use serde_json::{Map, Value};
use source::Source;
use tollgate_plugin_sdk::{HeaderValue, Verdict, config::OneOrMore, log, request};

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
    fn values(&self, claims: &Claims) -> Result<Vec<Option<HeaderValue>>, Refusal> {
        self.validity.check(claims).map_err(Refusal::Invalid)?;
        if !self.require.iter().all(|(path, wanted)| path.has_any(claims, wanted)) {
            return Err(Refusal::Insufficient);
        }
        let value = |(place, (path, _)): (usize, &(Path, String))| {
            path.value(claims).map_err(|why| Refusal::Claim { place, why })
        };
        self.headers.iter().enumerate().map(value).collect()
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
                log::write(log::Level::Warn, &format!("`{name}` cannot be set to a claim: {}", error.name()));
                return Verdict::Reply(
                    Refusal::Invalid("a claim of the token cannot be sent in a header").reply(),
                );
            }
        }
        if let Err(refusal) = passed {
            if let Refusal::Claim { place, why } = refusal
                && let Some((claim, name)) = self.headers.get(place)
            {
                // Not what it says, which may be anybody's secret.
                log::write(
                    log::Level::Warn,
                    &format!("the claim `{claim}` cannot be sent in `{name}`: {why}"),
                );
            }
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
