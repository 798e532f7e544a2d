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
use tollgate_plugin_sdk::{
    Change, HeaderValue, Verdict, config, is_same_field, log, may_change, request, twice,
};

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
    /// token. The error names what cannot be a header, and what two things would be written to.
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
        let carrier = match &source {
            Source::Bearer => "authorization",
            Source::Header(name) => name,
            Source::Cookie(_) => "cookie",
        };
        if let Some(name) = claims.values().chain(name).find(|name| !config::is_header_name(name)) {
            return Err(format!(
                "`config`: `{}` is not a name for a header or a cookie",
                name.escape_debug()
            ));
        }
        // Of two claims in one header the later would wipe the first, also where it is absent.
        if let Some((one, other)) = twice(claims.values().map(String::as_str)) {
            return Err(format!(
                "`claims` in `config`: two claims go to the same header, `{one}` and `{other}`: give each its own"
            ));
        }
        // A claim that is absent has its header removed.
        let carried = match &source {
            Source::Header(name) => Some((Change::Remove, "from", name)),
            Source::Bearer | Source::Cookie(_) => None,
        };
        for (change, key, name) in claims.values().map(|name| (Change::Remove, "claims", name)).chain(carried)
        {
            may_change(false, change, name).map_err(|why| format!("`{key}` in `config`: {why}"))?;
        }
        if let Some(name) = claims.values().find(|name| is_same_field(name, carrier)) {
            return Err(format!(
                "`claims` in `config`: a claim goes to `{name}`, which carries the token: use another header"
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
