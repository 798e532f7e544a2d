//! What did the operator configure?

use serde::Deserialize;
use tollgate_plugin_sdk::{HeaderValue, Seconds, config};

use crate::hash::Hash;

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) users: Vec<User>,
    /// The value of `www-authenticate`.
    pub(crate) challenge: String,
    /// For how long credentials that were right are not checked again.
    pub(crate) remember: Seconds,
    /// Passwords that are checked in a second, at most, by all instances together.
    pub(crate) checks: u32,
    /// Whether the upstream sees the credentials.
    pub(crate) forward: bool,
}

#[derive(Debug)]
pub(crate) struct User {
    pub(crate) name: HeaderValue,
    pub(crate) hash: Hash,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Config {
    users: Lines,
    #[serde(default = "default_realm")]
    realm: String,
    #[serde(default = "default_remember")]
    remember: Seconds,
    #[serde(default = "default_checks")]
    checks: u32,
    #[serde(default)]
    forward: bool,
}

/// The lines of an htpasswd file, as one text or one by one.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected the lines of an htpasswd file, in a string or an array of strings")]
enum Lines {
    Text(String),
    List(Vec<String>),
}

fn default_realm() -> String {
    "tollgate".to_owned()
}

fn default_remember() -> Seconds {
    const { Seconds::new(600).expect("ten minutes are some time") }
}

fn default_checks() -> u32 {
    5
}

impl Settings {
    /// Takes the plugin's `config` table as JSON.
    pub(crate) fn read(text: &str) -> Result<Self, String> {
        let config: Config = config::read(text)?;
        let is_realm = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'"' && byte != b'\\';
        if !config.realm.bytes().all(is_realm) {
            return Err("`realm` in `config`: is made of what ASCII prints, without quotes and backslashes"
                .to_owned());
        }
        if config.checks == 0 {
            return Err("`checks` in `config`: is 0, and nobody would ever pass".to_owned());
        }
        Ok(Self {
            users: users(&config.users)?,
            challenge: format!("Basic realm=\"{}\", charset=\"UTF-8\"", config.realm),
            remember: config.remember,
            checks: config.checks,
            forward: config.forward,
        })
    }
}

fn users(lines: &Lines) -> Result<Vec<User>, String> {
    let mut users: Vec<User> = Vec::new();
    let lines: Vec<&str> = match lines {
        Lines::Text(text) => text.lines().collect(),
        Lines::List(list) => list.iter().map(String::as_str).collect(),
    };
    for (number, line) in (1..).zip(lines) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = |reason: &str| format!("`users` in `config`, line {number}: {reason}");
        let (name, hash) =
            line.split_once(':').ok_or_else(|| place("is not `name:hash`, as `htpasswd -B` writes it"))?;
        let value = HeaderValue::text(name).ok().filter(|_| !name.is_empty()).ok_or_else(|| {
            place("the name cannot be the value of a header: use letters, digits and punctuation of ASCII")
        })?;
        let hash = Hash::parse(hash).map_err(|reason| place(&format!("the hash of `{name}` {reason}")))?;
        if users.iter().any(|user| user.name == value) {
            return Err(place(&format!("there is a `{name}` already")));
        }
        users.push(User { name: value, hash });
    }
    if users.is_empty() {
        return Err(
            "`users` in `config` names nobody: write a line as `htpasswd -nB NAME` prints it".to_owned()
        );
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::Settings;

    const HASH: &str = "$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e";

    #[test]
    fn users_are_lines_of_an_htpasswd_file() {
        for users in [
            format!(r#"["ann:{HASH}","bob b:{HASH}"]"#),
            format!(r##""# staff\r\nann:{HASH}\n\n  bob b:{HASH}""##),
        ] {
            let settings = Settings::read(&format!(r#"{{"users":{users}}}"#)).expect(&users);
            let names: Vec<&str> = settings.users.iter().map(|user| user.name.as_str()).collect();
            assert_eq!(names, ["ann", "bob b"]);
            assert_eq!(settings.challenge, r#"Basic realm="tollgate", charset="UTF-8""#);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place_and_shows_no_secret() {
        for (config, reason) in [
            ("{}".to_owned(), "the key `users` is missing"),
            (r#"{"users":[]}"#.to_owned(), "names nobody"),
            (r##"{"users":"# nobody"}"##.to_owned(), "names nobody"),
            (r#"{"users":[7]}"#.to_owned(), "expected the lines of an htpasswd file"),
            (format!(r#"{{"users":["ann:{HASH}","hunter2"]}}"#), "line 2: is not `name:hash`"),
            (r#"{"users":"ann:hunter2"}"#.to_owned(), "line 1: the hash of `ann` is no bcrypt or argon2"),
            (r#"{"users":"ann:{SHA}hunter2="}"#.to_owned(), "make it anew with `htpasswd -B`"),
            (format!(r#"{{"users":["ann:{HASH}","ann:{HASH}"]}}"#), "line 2: there is a `ann` already"),
            (format!(r#"{{"users":["ä:{HASH}"]}}"#), "line 1: the name cannot be"),
            (format!(r#"{{"users":["ann:{HASH}"],"checks":0}}"#), "`checks` in `config`"),
            (format!(r#"{{"users":["ann:{HASH}"],"remember":"0s"}}"#), "`remember` in `config`: is no time"),
            (format!(r#"{{"users":["ann:{HASH}"],"realm":"a\"b"}}"#), "`realm` in `config`"),
        ] {
            let refusal = Settings::read(&config).expect_err(&config);
            assert!(refusal.contains(reason), "{config}: {refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }
}
