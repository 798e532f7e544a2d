//! Which credentials have been checked before?

use std::{collections::HashMap, hash::Hasher as _};

use siphasher::sip128::{Hasher128 as _, SipHasher24};
use tollgate_plugin_sdk::Seconds;

use crate::{Finding, credentials::Credentials};

/// Credentials that were checked, as digests under a secret that each instance draws for itself, for a time.
///
/// A bounded number of each kind: when they are too many, all of the kind are forgotten. Those that were wrong are kept
/// apart, so that guesses push out nobody who has logged in.
#[derive(Debug)]
pub(crate) struct Remembered {
    secret: SipHasher24,
    /// In milliseconds.
    remember: u64,
    right: HashMap<u128, (u64, Finding)>,
    wrong: HashMap<u128, u64>,
}

impl Remembered {
    const MOST: usize = 1_024;

    /// In milliseconds. A password that was set right is accepted by the configuration that is loaded with it.
    const WRONG: u64 = 10_000;

    pub(crate) fn new(secret: &[u8; 16], remember: Seconds) -> Self {
        Self {
            secret: SipHasher24::new_with_key(secret),
            remember: u64::from(remember.get()) * 1000,
            right: HashMap::new(),
            wrong: HashMap::new(),
        }
    }

    /// Names the credentials for as long as the instance lives.
    pub(crate) fn digest(&self, Credentials { user, password }: &Credentials) -> u128 {
        let mut hasher = self.secret;
        hasher.write(&(user.len() as u64).to_le_bytes());
        hasher.write(user);
        hasher.write(password);
        hasher.finish128().as_u128()
    }

    /// Names the user alone.
    pub(crate) fn digest_of_name(&self, credentials: &Credentials) -> u128 {
        let mut hasher = self.secret;
        hasher.write(&credentials.user);
        hasher.finish128().as_u128()
    }

    /// What was found, if it still holds at a time in milliseconds.
    pub(crate) fn get(&self, digest: u128, now: u64) -> Option<Finding> {
        let right = self.right.get(&digest).filter(|(until, _)| now < *until).map(|(_, finding)| *finding);
        right.or_else(|| self.wrong.get(&digest).filter(|until| now < **until).map(|_| Finding::Wrong))
    }

    pub(crate) fn put(&mut self, digest: u128, finding: Finding, now: u64) {
        match finding {
            Finding::User(_) => {
                if self.right.len() >= Self::MOST {
                    self.right.clear();
                }
                self.right.insert(digest, (now.saturating_add(self.remember), finding));
            }
            Finding::Wrong => {
                if self.wrong.len() >= Self::MOST {
                    self.wrong.clear();
                }
                self.wrong.insert(digest, now.saturating_add(Self::WRONG));
            }
            Finding::TooMany => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_remembered_is_bounded_and_guesses_push_out_nobody() {
        let mut remembered = Remembered::new(&[7; 16], Seconds::new(60).expect("a minute"));
        remembered.put(1, Finding::User(3), 0);
        for digest in 2..5_000 {
            remembered.put(digest, Finding::Wrong, 0);
            assert!(remembered.wrong.len() <= Remembered::MOST);
        }
        assert_eq!(remembered.get(1, 59_999), Some(Finding::User(3)));
        assert_eq!(remembered.get(1, 60_000), None);
        assert_eq!(remembered.get(4_999, 9_999), Some(Finding::Wrong));
        assert_eq!(remembered.get(4_999, 10_000), None);
    }

    #[test]
    fn a_digest_tells_name_and_password_apart() {
        let remembered = Remembered::new(&[7; 16], Seconds::new(60).expect("a minute"));
        let digest = |user: &str, password: &str| {
            remembered.digest(&Credentials { user: user.into(), password: password.into() })
        };
        assert_eq!(digest("ann", "x"), digest("ann", "x"));
        assert_ne!(digest("ann", "x"), digest("an", "nx"));
        assert_ne!(digest("ann", "x"), digest("ann", "y"));
    }
}
