//! Is this token valid, by the word of whoever has issued it?
//!
//! The issuer is asked (RFC 7662), and what it says is kept in the store for all instances: for a time, and no longer
//! than the token is valid. Tokens are named there by a keyed digest.

mod cache;
mod introspection;
mod settings;

use cache::Cache;
use introspection::Answer;
use settings::Settings;
use tollgate_plugin_bearer::{Judgement, Refusal, now};
use tollgate_plugin_sdk::{
    OnRequest, Plugin, Verdict,
    config::Unchecked,
    http_client,
    log::{self, Level},
};

impl Plugin for Settings {
    fn configure(config: &str) -> Result<Self, String> {
        let settings = Self::read(config)?;
        settings.endpoint.check_granted("endpoint")?;
        Ok(settings)
    }
}

impl OnRequest for Settings {
    fn on_request(&self) -> Verdict {
        self.bearer.conclude(self.bearer.token().and_then(|token| self.judge(&token).map(Box::new)))
    }
}

/// Bytes of a token.
const LONGEST: usize = 16 << 10;

impl Settings {
    /// What is thought of a token by the word of its issuer.
    fn judge(&self, token: &str) -> Result<Judgement, Refusal> {
        if token.len() > LONGEST {
            return Err(Refusal::Invalid("the token is too long"));
        }
        let answer = match self.answer(token) {
            Ok(answer) => answer,
            Err(reason) => {
                log::write(Level::Warn, &format!("a token cannot be checked: {reason}"));
                return match self.unavailable {
                    Unchecked::Refuse => Err(Refusal::Unknown("tokens cannot be checked")),
                    Unchecked::Pass => Ok(Judgement::UNKNOWN),
                };
            }
        };
        let Answer::Active(claims) = answer else {
            return Err(Refusal::Invalid("the token is not valid"));
        };
        let is_enough = introspection::has_scopes(&claims, &self.scopes);
        Ok(self.bearer.judge(&claims).and(is_enough.then_some(()).ok_or(Refusal::Insufficient)))
    }

    /// From the store, or else from the issuer.
    fn answer(&self, token: &str) -> Result<Answer, String> {
        let cache = Cache::open();
        let key = cache.as_ref().map(|cache| cache.key(token));
        if let Some(answer) = key.as_deref().and_then(cache::get) {
            return Ok(answer);
        }
        let response = http_client::send(&self.request(token)).map_err(|error| error.name().to_owned())?;
        let answer = Answer::read(response.status, &response.body)?;
        if let (Some(key), Some(seconds)) = (key, self.keep(&answer, now())) {
            cache::put(&key, &answer, seconds);
        }
        Ok(answer)
    }
}

tollgate_plugin_sdk::export!(Settings: OnRequest);
