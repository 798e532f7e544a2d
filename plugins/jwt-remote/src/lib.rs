//! Whose token is this, and may its bearer pass, by keys that its issuer publishes?
//!
//! As `jwt`, and apart from it: a component that imports `http-client` may have to wait, and is called in a way that costs
//! more. Here the keys are a set that is fetched (RFC 7517), kept in the store for all instances: by `on-tick`, by the
//! first request that finds none, and when a token is signed with a key that is not there. Each instance reads the set
//! again when the store has another version of it.

mod remote;
mod settings;

use std::{cell::RefCell, rc::Rc};

use remote::Remote;
use settings::Settings;
use tollgate_plugin_bearer::{Bearer, Judgement, Keys, Refusal, Remembered, Unverified};
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
        let settings = Settings::read(config)?;
        settings.remote.url.check_granted("jwks-url")?;
        Ok(Self { settings, known: RefCell::default() })
    }
}

impl OnRequest for JwtRemote {
    fn on_request(&self) -> Verdict {
        let bearer = &self.settings.bearer;
        bearer.conclude(bearer.token().and_then(|token| self.judge(&token)))
    }
}

impl OnTick for JwtRemote {
    fn on_tick(&self) {
        self.settings.remote.fetch();
    }
}

impl JwtRemote {
    /// What is thought of a token, if one of the keys has signed it.
    fn judge(&self, token: &str) -> Result<Rc<Judgement>, Refusal> {
        let Settings { remote, bearer } = &self.settings;
        let mut known = self.known.borrow_mut();
        known.learn(remote);
        if known.keys.is_none() && remote.may_fetch_first() && remote.fetch() {
            known.learn(remote);
        }
        let mut judged = known.judge(token, bearer)?;
        if matches!(judged, Err(Unverified::NoKey)) && remote.may_fetch_again() && remote.fetch() {
            known.learn(remote);
            judged = known.judge(token, bearer)?;
        }
        judged.map_err(|unverified| Refusal::Invalid(unverified.reason()))
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

    fn judge(&mut self, token: &str, bearer: &Bearer) -> Result<Result<Rc<Judgement>, Unverified>, Refusal> {
        let keys = self.keys.as_ref().ok_or(Refusal::Unknown("the keys of tokens are not there"))?;
        if let Some(judgement) = self.remembered.get(token) {
            return Ok(Ok(judgement));
        }
        let verified = keys.verify(token);
        Ok(verified.map(|claims| self.remembered.put(token.to_owned(), bearer.judge(&claims))))
    }
}

tollgate_plugin_sdk::export!(JwtRemote: OnRequest, OnTick);
