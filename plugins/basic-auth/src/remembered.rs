//! Which credentials have been checked before, and may others be checked now?

use std::hash::Hasher as _;

use siphasher::sip128::{Hasher128 as _, SipHasher24};
use tollgate_plugin_sdk::{Seconds, log, store};

use crate::{Finding, credentials::Credentials};

/// What all instances on all workers know of in common.
pub(crate) trait Kept {
    fn get(&self, key: &str) -> Option<Vec<u8>>;

    fn put(&self, key: &str, value: &[u8], time_ms: u32);

    /// Takes one of so many in a second, if there is one.
    fn take(&self, key: &str, per_second: u32) -> bool;
}

/// The plugin's store. Where it has no room, nothing is remembered, and nothing that must be counted goes on.
pub(crate) struct Store;

impl Kept for Store {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        store::get(key).ok().flatten()
    }

    fn put(&self, key: &str, value: &[u8], time_ms: u32) {
        if let Err(error) = store::set(key, value, Some(time_ms)) {
            complain("what was found is not remembered", error);
        }
    }

    fn take(&self, key: &str, per_second: u32) -> bool {
        match store::take(key, 1, f64::from(per_second), per_second) {
            Ok(wait) => wait.is_none(),
            Err(error) => {
                complain("no password is checked", error);
                false
            }
        }
    }
}

fn complain(what: &str, error: store::Error) {
    log::write(log::Level::Warn, &format!("{what}: the store says {}", error.name()));
}

/// Credentials that were checked, as digests under a secret, for a time.
#[derive(Debug)]
pub(crate) struct Remembered {
    /// Begun with the secret and the configuration: under another one, nobody is remembered.
    digest: SipHasher24,
    remember_ms: u32,
}

impl Remembered {
    /// A password that was set right is accepted by the configuration that is loaded with it.
    const WRONG_MS: u32 = 10_000;

    pub(crate) fn new(secret: &[u8; 16], config: &str, remember: Seconds) -> Self {
        let mut digest = SipHasher24::new_with_key(secret);
        digest.write(&(config.len() as u64).to_le_bytes());
        digest.write(config.as_bytes());
        Self { digest, remember_ms: remember.get().saturating_mul(1000) }
    }

    /// The secret that all instances draw together: the first one that was put in the store.
    pub(crate) fn secret() -> Result<[u8; 16], String> {
        const KEY: &str = "secret";
        let mut drawn = [0; 16];
        getrandom::fill(&mut drawn).map_err(|error| format!("there are no random numbers: {error}"))?;
        let there = store::compare_and_set(KEY, None, &drawn, None).and_then(|_| store::get(KEY));
        let there = there.map_err(|error| {
            format!("the store has no room for a secret ({}): grant more of `store`", error.name())
        })?;
        there
            .and_then(|secret| secret.try_into().ok())
            .ok_or_else(|| "the store forgets what it is given".into())
    }

    /// The key under which credentials are remembered.
    pub(crate) fn key(&self, Credentials { user, password }: &Credentials) -> String {
        let mut hasher = self.digest;
        hasher.write(&(user.len() as u64).to_le_bytes());
        hasher.write(user);
        hasher.write(password);
        format!("checked-{:032x}", hasher.finish128().as_u128())
    }

    /// Names the user alone.
    pub(crate) fn digest_of_name(&self, credentials: &Credentials) -> u128 {
        let mut hasher = self.digest;
        hasher.write(&credentials.user);
        hasher.finish128().as_u128()
    }

    /// What was found, if that still holds.
    pub(crate) fn get(&self, key: &str, kept: &impl Kept) -> Option<Finding> {
        let found = kept.get(key)?;
        if found.is_empty() {
            return Some(Finding::Wrong);
        }
        let place = u32::from_le_bytes(found.try_into().ok()?);
        Some(Finding::User(place as usize))
    }

    pub(crate) fn put(&self, key: &str, finding: Finding, kept: &impl Kept) {
        match finding {
            Finding::User(place) => kept.put(key, &(place as u32).to_le_bytes(), self.remember_ms),
            Finding::Wrong => kept.put(key, &[], Self::WRONG_MS),
            Finding::TooMany => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(config: &str, user: &str, password: &str) -> String {
        let remembered = Remembered::new(&[7; 16], config, Seconds::new(60).expect("a minute"));
        remembered.key(&Credentials { user: user.into(), password: password.into() })
    }

    #[test]
    fn a_key_tells_name_password_and_configuration_apart() {
        assert_eq!(key("{}", "ann", "x"), key("{}", "ann", "x"));
        assert_ne!(key("{}", "ann", "x"), key("{}", "an", "nx"));
        assert_ne!(key("{}", "ann", "x"), key("{}", "ann", "y"));
        assert_ne!(key("{}", "ann", "x"), key("{ }", "ann", "x"));
    }
}
