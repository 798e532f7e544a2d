//! Whose token is this, and may its bearer pass, by keys that its issuer publishes?
//!
//! As `jwt`, and apart from it: a component that imports `http-client` may have to wait, and is called in a way that costs
//! more. Here the keys are a set that is fetched (RFC 7517), kept in the store for all instances: by `on-tick`, by the
//! first request that finds none, and when a token is signed with a key that is not there. Each instance reads the set
//! again when the store has another version of it.

mod remote;
mod settings;

use std::cell::RefCell;

use remote::Remote;
use settings::Settings;
use tollgate_plugin_bearer::{Claims, Keys, Refusal, Remembered, Unverified, now};
use tollgate_plugin_sdk::{OnRequest, OnTick, Plugin, Verdict};

struct JwtRemote {
    settings: Settings,
    known: RefCell<Known>,
}

/// What an instance knows.
#[derive(Debug, Default)]
struct Known {
    /// Of the set that the keys are from.
    version: Option<i32>,
    keys: Option<Keys>,
    /// Tokens that one of these keys has signed.
    remembered: Remembered,
}

impl Plugin for JwtRemote {
    fn configure(config: &str) -> Result<Self, String> {
        Ok(Self { settings: Settings::read(config)?, known: RefCell::default() })
    }
}

impl OnRequest for JwtRemote {
    fn on_request(&self) -> Verdict {
        let bearer = &self.settings.bearer;
        bearer.conclude(bearer.token().and_then(|token| self.check(token, now())))
    }
}

impl OnTick for JwtRemote {
    fn on_tick(&self) {
        self.settings.remote.fetch();
    }
}

impl JwtRemote {
    /// The claims of a token, if it is valid at a time (in seconds since 1970) and says what is required.
    fn check(&self, token: String, now: u64) -> Result<Claims, Refusal> {
        let Settings { remote, validity, bearer } = &self.settings;
        let mut known = self.known.borrow_mut();
        known.learn(remote);
        if known.keys.is_none() && remote.may_fetch_first() && remote.fetch() {
            known.learn(remote);
        }
        let mut verified = known.verify(&token)?;
        if verified == Err(Unverified::NoKey) && remote.may_fetch_again() && remote.fetch() {
            known.learn(remote);
            verified = known.verify(&token)?;
        }
        let claims = verified.map_err(|unverified| Refusal::Invalid(unverified.reason()))?;
        validity.check(&claims, now).map_err(Refusal::Invalid)?;
        bearer.check(&claims)?;
        Ok(claims)
    }
}

impl Known {
    /// Takes the keys from the store, if it has others.
    fn learn(&mut self, remote: &Remote) {
        let version = remote.version();
        if version == self.version {
            return;
        }
        // What a key has signed that is gone does not count any longer.
        self.remembered.clear();
        (self.version, self.keys) = (version, remote.keys());
    }

    fn verify(&mut self, token: &str) -> Result<Result<Claims, Unverified>, Refusal> {
        let keys = self.keys.as_ref().ok_or(Refusal::Unknown("the keys of tokens are not there"))?;
        if let Some(claims) = self.remembered.get(token) {
            return Ok(Ok(claims.clone()));
        }
        let verified = keys.verify(token);
        if let Ok(claims) = &verified {
            self.remembered.put(token.to_owned(), claims.clone());
        }
        Ok(verified)
    }
}

tollgate_plugin_sdk::export!(JwtRemote: OnRequest, OnTick);
