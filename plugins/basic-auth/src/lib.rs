//! Who is this, and is that the password?
//!
//! Read in this order: [`Settings`] is what was configured, [`Credentials`] what a client says, [`Hash`](hash::Hash)
//! whether a password is right. That takes long, as it is meant to, so what was found is [`Remembered`], and no
//! more passwords are checked in a second than the [`Allowance`] has.

mod allowance;
mod credentials;
mod hash;
mod remembered;
mod settings;

use std::{
    cell::{Cell, RefCell},
    time::{SystemTime, UNIX_EPOCH},
};

use allowance::Allowance;
use credentials::Credentials;
use remembered::Remembered;
use settings::Settings;
use tollgate_plugin_sdk::{HeaderError, OnRequest, Plugin, Problem, Reply, Verdict, log, request};

/// The header in which the upstream finds the user's name.
const CONSUMER: &str = "x-consumer";

struct BasicAuth {
    settings: Settings,
    remembered: RefCell<Remembered>,
    allowance: Cell<Allowance>,
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
        let mut secret = [0; 16];
        getrandom::fill(&mut secret).map_err(|error| format!("there are no random numbers: {error}"))?;
        let settings = Settings::read(config)?;
        Ok(Self {
            remembered: RefCell::new(Remembered::new(&secret, settings.remember)),
            allowance: Cell::new(Allowance::new(settings.checks)),
            settings,
        })
    }
}

impl OnRequest for BasicAuth {
    fn on_request(&self) -> Verdict {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let credentials = request::header("authorization").as_deref().and_then(Credentials::read);
        let Some(credentials) = credentials else {
            return Verdict::Reply(self.refusal("a name and a password are needed"));
        };
        match self.find(&credentials, u64::try_from(now.as_millis()).unwrap_or(u64::MAX)) {
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
    /// Whose credentials these are, at a time in milliseconds.
    fn find(&self, credentials: &Credentials, now: u64) -> Finding {
        let mut remembered = self.remembered.borrow_mut();
        let digest = remembered.digest(credentials);
        if let Some(finding) = remembered.get(digest, now) {
            return finding;
        }
        let mut allowance = self.allowance.get();
        let is_allowed = allowance.take(now);
        self.allowance.set(allowance);
        if !is_allowed {
            return Finding::TooMany;
        }
        let finding = self.check(credentials, remembered.digest_of_name(credentials));
        remembered.put(digest, finding, now);
        finding
    }

    /// A name that nobody has takes as long as one that somebody has: its password is compared with a hash all the
    /// same. Whose hash that is, is always the same for a name, and cannot be foreseen.
    fn check(&self, credentials: &Credentials, name_digest: u128) -> Finding {
        let users = &self.settings.users;
        let known = users.iter().position(|user| user.name.as_bytes() == credentials.user);
        let decoy = || (name_digest % users.len() as u128) as usize;
        let hash = &users[known.unwrap_or_else(decoy)].hash;
        let is_right = hash.is_of(&credentials.password);
        known.filter(|_| is_right).map_or(Finding::Wrong, Finding::User)
    }

    /// Names the user to the upstream, in place of what the client may have claimed.
    fn pass(&self, user: &str) -> Result<(), HeaderError> {
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
    use super::*;

    /// By libxcrypt and libargon2: `correct horse`, and `other`.
    const CONFIG: &str = r#"{"checks":3,"remember":"10m","users":[
        "ann:$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
        "bob:$argon2d$v=19$m=64,t=2,p=2$c2FsdHNhbHRzYWx0c2FsdA$ze7+VY+D8J6Ak+RMnzSRLtDTx8jpS/ww"]}"#;

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
            let plugin = BasicAuth::configure(CONFIG).expect("the configuration is valid");
            assert_eq!(plugin.find(&credentials(user, password), 0), finding, "{user}");
            // From memory.
            assert_eq!(plugin.find(&credentials(user, password), 1), finding, "{user}");
        }
    }

    #[test]
    fn what_is_remembered_is_not_checked_and_so_many_others_are() {
        let plugin = BasicAuth::configure(CONFIG).expect("the configuration is valid");
        let right = credentials("ann", "correct horse");
        assert_eq!(plugin.find(&right, 0), Finding::User(0));
        for password in ["a", "b"] {
            assert_eq!(plugin.find(&credentials("ann", password), 0), Finding::Wrong);
        }
        assert_eq!(plugin.find(&credentials("ann", "c"), 0), Finding::TooMany);
        assert_eq!(plugin.find(&credentials("ann", "a"), 0), Finding::Wrong);
        assert_eq!(plugin.find(&right, 0), Finding::User(0));
        // A third of a second for each.
        assert_eq!(plugin.find(&credentials("ann", "c"), 334), Finding::Wrong);
        assert_eq!(plugin.find(&credentials("ann", "d"), 335), Finding::TooMany);
        // It is forgotten in the end, and checked again.
        assert_eq!(plugin.find(&right, 599_999), Finding::User(0));
        assert_eq!(plugin.find(&right, 600_000), Finding::User(0));
        assert_eq!(
            plugin.remembered.borrow().get(plugin.remembered.borrow().digest(&right), 700_000),
            Some(Finding::User(0))
        );
    }
}
