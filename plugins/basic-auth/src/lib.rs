//! Who is this, and is that the password?
//!
//! Read in this order: [`Settings`] is what was configured, [`Credentials`] what a client says, [`Hash`](hash::Hash)
//! whether a password is right. That takes long, as it is meant to, so what was found is [`Remembered`] by all instances
//! together, and no more passwords are checked in a second than they may.

mod credentials;
mod hash;
mod remembered;
mod settings;

use credentials::Credentials;
use remembered::{Kept, Remembered, Store};
use settings::Settings;
use tollgate_plugin_sdk::{
    HeaderError, HeaderValue, OnRequest, Plugin, Problem, Reply, Verdict, log, request,
};

/// The header in which the upstream finds the user's name.
const CONSUMER: &str = "x-consumer";

struct BasicAuth {
    settings: Settings,
    remembered: Remembered,
}

/// What is found out about credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finding {
    /// The place of the user.
    User(usize),
    Wrong,
    /// Nobody knows: there are too many to be checked.
    TooMany,
}

impl Plugin for BasicAuth {
    fn configure(config: &str) -> Result<Self, String> {
        let settings = Settings::read(config)?;
        Ok(Self::new(settings, &Remembered::secret()?, config))
    }
}

impl OnRequest for BasicAuth {
    fn on_request(&self) -> Verdict {
        let credentials = request::header("authorization").as_deref().and_then(Credentials::read);
        let Some(credentials) = credentials else {
            return Verdict::Reply(self.refusal("a name and a password are needed"));
        };
        match self.find(&credentials, &Store) {
            Finding::User(place) => match self.pass(&self.settings.users[place].name) {
                Ok(()) => Verdict::Next,
                Err(error) => {
                    log::write(
                        log::Level::Error,
                        &format!("the user cannot be named to the upstream: {}", error.name()),
                    );
                    let problem =
                        Problem::new(500, "Internal Server Error", "the password could not be checked");
                    Verdict::Reply(problem.reply())
                }
            },
            Finding::Wrong => Verdict::Reply(self.refusal("the name or the password is wrong")),
            Finding::TooMany => {
                let problem =
                    Problem::new(503, "Service Unavailable", "too many passwords are waiting to be checked");
                Verdict::Reply(problem.with_header("retry-after", "1").reply())
            }
        }
    }
}

impl BasicAuth {
    fn new(settings: Settings, secret: &[u8; 16], config: &str) -> Self {
        Self { remembered: Remembered::new(secret, config, settings.remember), settings }
    }

    /// Whose credentials these are.
    fn find(&self, credentials: &Credentials, kept: &impl Kept) -> Finding {
        let key = self.remembered.key(credentials);
        if let Some(finding) = self.remembered.get(&key, kept) {
            return finding;
        }
        if !kept.take("checks", self.settings.checks) {
            return Finding::TooMany;
        }
        let finding = self.check(credentials, self.remembered.digest_of_name(credentials));
        self.remembered.put(&key, finding, kept);
        finding
    }

    /// A name that nobody has takes as long as one that somebody has: its password is compared with a hash all the
    /// same. Whose hash that is, is always the same for a name, and cannot be foreseen.
    fn check(&self, credentials: &Credentials, name_digest: u128) -> Finding {
        let users = &self.settings.users;
        let known = users.iter().position(|user| user.name.as_str().as_bytes() == credentials.user);
        let decoy = || (name_digest % users.len() as u128) as usize;
        let hash = &users[known.unwrap_or_else(decoy)].hash;
        let is_right = hash.is_of(&credentials.password);
        known.filter(|_| is_right).map_or(Finding::Wrong, Finding::User)
    }

    /// Names the user to the upstream, in place of what the client may have claimed.
    fn pass(&self, user: &HeaderValue) -> Result<(), HeaderError> {
        request::set_header(CONSUMER, user)?;
        if !self.settings.forward {
            request::remove_header("authorization")?;
        }
        Ok(())
    }

    /// RFC 7617, section 2.
    fn refusal(&self, detail: &str) -> Reply {
        Problem::new(401, "Unauthorized", detail)
            .with_header("www-authenticate", self.settings.challenge.clone())
            .reply()
    }
}

tollgate_plugin_sdk::export!(BasicAuth: OnRequest);

#[cfg(test)]
mod tests {
    use std::{
        cell::{Cell, RefCell},
        collections::HashMap,
    };

    use super::*;

    /// By libxcrypt and libargon2: `correct horse`, and `other`.
    const CONFIG: &str = r#"{"checks":3,"remember":"10m","users":[
        "ann:$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
        "bob:$argon2d$v=19$m=64,t=2,p=2$c2FsdHNhbHRzYWx0c2FsdA$ze7+VY+D8J6Ak+RMnzSRLtDTx8jpS/ww"]}"#;

    fn plugin() -> BasicAuth {
        let settings = Settings::read(CONFIG).expect("the configuration is valid");
        BasicAuth::new(settings, &[7; 16], CONFIG)
    }

    /// A store that forgets nothing, and lets so many be taken.
    #[derive(Default)]
    struct Memory {
        values: RefCell<HashMap<String, (Vec<u8>, u32)>>,
        left: Cell<u32>,
    }

    impl Kept for Memory {
        fn get(&self, key: &str) -> Option<Vec<u8>> {
            self.values.borrow().get(key).map(|(value, _)| value.clone())
        }

        fn put(&self, key: &str, value: &[u8], time_ms: u32) {
            self.values.borrow_mut().insert(key.to_owned(), (value.to_owned(), time_ms));
        }

        fn take(&self, _: &str, per_second: u32) -> bool {
            assert_eq!(per_second, 3);
            let left = self.left.get();
            self.left.set(left.saturating_sub(1));
            left > 0
        }
    }

    fn credentials(user: &str, password: &str) -> Credentials {
        Credentials { user: user.into(), password: password.into() }
    }

    #[test]
    fn a_password_is_right_for_its_user_alone() {
        for (user, password, finding) in [
            ("ann", "correct horse", Finding::User(0)),
            ("bob", "other", Finding::User(1)),
            ("ann", "other", Finding::Wrong),
            ("bob", "correct horse", Finding::Wrong),
            ("eve", "correct horse", Finding::Wrong),
            ("eve", "other", Finding::Wrong),
            ("", "", Finding::Wrong),
            ("Ann", "correct horse", Finding::Wrong),
        ] {
            let (plugin, memory) = (plugin(), Memory::default());
            memory.left.set(1);
            assert_eq!(plugin.find(&credentials(user, password), &memory), finding, "{user}");
            // From memory.
            assert_eq!(plugin.find(&credentials(user, password), &memory), finding, "{user}");
            let times: Vec<u32> = memory.values.borrow().values().map(|(_, time)| *time).collect();
            assert_eq!(times, [if finding == Finding::Wrong { 10_000 } else { 600_000 }]);
        }
    }

    #[test]
    fn what_is_remembered_is_not_checked_and_so_many_others_are() {
        let (plugin, memory) = (plugin(), Memory::default());
        memory.left.set(2);
        let right = credentials("ann", "correct horse");
        assert_eq!(plugin.find(&right, &memory), Finding::User(0));
        assert_eq!(plugin.find(&credentials("ann", "a"), &memory), Finding::Wrong);
        assert_eq!(plugin.find(&credentials("ann", "b"), &memory), Finding::TooMany);
        assert_eq!(plugin.find(&credentials("ann", "a"), &memory), Finding::Wrong);
        assert_eq!(plugin.find(&right, &memory), Finding::User(0));
        memory.left.set(1);
        assert_eq!(plugin.find(&credentials("ann", "b"), &memory), Finding::Wrong);
    }
}
