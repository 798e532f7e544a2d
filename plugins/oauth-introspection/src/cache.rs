//! What has the issuer said of a token before?

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};
use tollgate_plugin_sdk::{
    log::{self, Level},
    store,
};

use crate::introspection::Answer;

/// The secret under which tokens have names in the store. All instances have the same: the first has drawn it.
pub(crate) struct Cache(SipHasher24);

const SECRET: &str = "secret";

impl Cache {
    /// None if there is no room for it, or no chance.
    pub(crate) fn open() -> Option<Self> {
        let secret = match store::get(SECRET).ok()? {
            Some(secret) => secret,
            None => {
                let mut secret = [0; 16];
                getrandom::fill(&mut secret).ok()?;
                match store::compare_and_set(SECRET, None, &secret, None).ok()? {
                    true => secret.to_vec(),
                    false => store::get(SECRET).ok()??,
                }
            }
        };
        Some(Self(SipHasher24::new_with_key(secret.as_slice().try_into().ok()?)))
    }

    pub(crate) fn key(&self, token: &str) -> String {
        let mut hasher = self.0;
        hasher.write(token.as_bytes());
        format!("t:{:032x}", hasher.finish128().as_u128())
    }
}

pub(crate) fn get(key: &str) -> Option<Answer> {
    Answer::from_cache(&store::get(key).ok()??)
}

/// Keeps an answer for so many seconds. Without room, the issuer is asked again.
pub(crate) fn put(key: &str, answer: &Answer, seconds: u32) {
    if let Err(error) = store::set(key, &answer.for_cache(), Some(seconds.saturating_mul(1000))) {
        log::write(Level::Warn, &format!("the answer is not kept: the store is {}", error.name()));
    }
}
