//! May the bearer of a token with these claims pass?

use tollgate_plugin_sdk::HeaderValue;

use crate::Refusal;

/// What is thought of a token whose claims are known: all that does not change from one request to the next is settled.
#[derive(Debug, Clone, PartialEq)]
pub struct Judgement {
    pub(crate) lifetime: Lifetime,
    /// The values of the headers that claims go to, in order, for a token that says what it must.
    pub(crate) headers: Result<Vec<Option<HeaderValue>>, Refusal>,
}

/// When a token is valid, in seconds since 1970, with what clocks may differ by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Lifetime {
    pub(crate) begin: f64,
    pub(crate) end: f64,
}

impl Lifetime {
    pub(crate) const ALWAYS: Self = Self { begin: f64::NEG_INFINITY, end: f64::INFINITY };
}

impl Judgement {
    /// Of a token that nobody can say anything of, and whose bearer may pass all the same.
    pub const UNKNOWN: Self = Self { lifetime: Lifetime::ALWAYS, headers: Ok(Vec::new()) };

    /// What the upstream gets to know if the bearer may pass at this time, in seconds since 1970 (RFC 7519, sections
    /// 4.1.4 and 4.1.5).
    pub fn at(&self, now: u64) -> Result<&[Option<HeaderValue>], Refusal> {
        let now = now as f64;
        if now >= self.lifetime.end {
            return Err(Refusal::Invalid("the token has expired"));
        }
        if now < self.lifetime.begin {
            return Err(Refusal::Invalid("the token is not valid yet"));
        }
        self.headers.as_deref().map_err(|refusal| *refusal)
    }

    /// The same where something else has to be well besides.
    pub fn and(self, other: Result<(), Refusal>) -> Self {
        let Self { lifetime, headers } = self;
        Self { lifetime, headers: headers.and_then(|headers| other.map(|()| headers)) }
    }
}
