//! Is this the password that a hash was made of?

use argon2::{Algorithm, Argon2, Params, Version};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use subtle::ConstantTimeEq as _;

/// What is kept in the place of a password.
#[derive(Debug)]
pub(crate) enum Hash {
    /// As `htpasswd -B` writes it.
    Bcrypt(String),
    /// As the tool `argon2 -e` writes it.
    Argon2(Argon2Hash),
}

#[derive(Debug)]
pub(crate) struct Argon2Hash {
    algorithm: Algorithm,
    version: Version,
    params: Params,
    salt: Vec<u8>,
    output: Vec<u8>,
}

/// What to do about a hash that is not taken.
const REMEDY: &str = "make it anew with `htpasswd -B`";

impl Hash {
    /// Takes what stands behind the colon in a line. The error says what it is instead, and does not show it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let is = |prefixes: &[&str]| prefixes.iter().any(|prefix| text.starts_with(prefix));
        if is(&["$2y$", "$2b$", "$2a$"]) {
            let is_cost = |parts: bcrypt::HashParts| (4..=31).contains(&parts.get_cost());
            let is_hash = text.is_ascii() && text.len() == 60 && text.parse().is_ok_and(is_cost);
            return match is_hash {
                true => Ok(Self::Bcrypt(text.to_owned())),
                false => Err(format!("is not the whole of a bcrypt hash: {REMEDY}")),
            };
        }
        if is(&["$argon2"]) {
            let hash = Argon2Hash::parse(text);
            return hash.map(Self::Argon2).ok_or_else(|| {
                "is no argon2 hash: make it anew with `argon2 SALT -id -e`, or with `htpasswd -B`".to_owned()
            });
        }
        let what = if is(&["{SHA}", "{SSHA}"]) {
            "is made by SHA-1, which is tried out in no time"
        } else if is(&["$apr1$", "$1$"]) {
            "is made by MD5, which is tried out in no time"
        } else if is(&["$5$", "$6$", "$y$", "$7$", "$2x$"]) {
            "is of a kind that is not offered"
        } else if text.is_empty() {
            "is empty"
        } else {
            "is no bcrypt or argon2 hash, and may be the password itself"
        };
        Err(format!("{what}: {REMEDY}"))
    }

    /// Whether this is its password. Takes long: tens of milliseconds for the usual costs.
    pub(crate) fn is_of(&self, password: &[u8]) -> bool {
        match self {
            // Only the first 72 bytes count, for whoever made the hash as well.
            Self::Bcrypt(hash) => bcrypt::verify(password, hash).unwrap_or(false),
            Self::Argon2(hash) => hash.is_of(password),
        }
    }
}

impl Argon2Hash {
    /// `$argon2id$v=19$m=19456,t=2,p=1$<salt>$<output>`; without `v` it is of version 16.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('$')?.split('$').peekable();
        let algorithm = parts.next()?.parse().ok()?;
        let version = match parts.next_if(|part| part.starts_with("v=")) {
            Some(version) => Version::try_from(version[2..].parse::<u32>().ok()?).ok()?,
            None => Version::V0x10,
        };
        let costs = parts.next()?;
        let cost = |name: &str| {
            costs.split(',').find_map(|cost| cost.strip_prefix(name)?.strip_prefix('=')?.parse::<u32>().ok())
        };
        let (salt, output) =
            (STANDARD_NO_PAD.decode(parts.next()?).ok()?, STANDARD_NO_PAD.decode(parts.next()?).ok()?);
        let params = Params::new(cost("m")?, cost("t")?, cost("p")?, Some(output.len())).ok()?;
        let is_whole = parts.next().is_none() && salt.len() >= argon2::MIN_SALT_LEN && output.len() >= 16;
        is_whole.then_some(Self { algorithm, version, params, salt, output })
    }

    fn is_of(&self, password: &[u8]) -> bool {
        let argon2 = Argon2::new(self.algorithm, self.version, self.params.clone());
        let mut output = vec![0; self.output.len()];
        let made = argon2.hash_password_into(password, &self.salt, &mut output);
        made.is_ok() && bool::from(output.ct_eq(&self.output))
    }
}

#[cfg(test)]
mod tests {
    use super::Hash;

    #[test]
    fn hashes_that_others_have_made_know_their_password() {
        // By libxcrypt 4.4 and libargon2.
        for (hash, password) in [
            ("$2y$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e", "correct horse"),
            ("$2b$04$zbcdefghijklmnopqrstuunh91iSWQUIU0ZxMrAxgLtmGMDIIhh76", "correct horse"),
            ("$2y$04$abcdefghijklmnopqrstuuC5VMwYwbzdFgvTXUffgXF6mHCmfegLa", "pa:ss wörd"),
            (
                "$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$rAjuexKlLdAHLvqk7TeeiWZjW4OPoRGwldJXdHbTuKI",
                "correct horse",
            ),
            (
                "$argon2i$v=19$m=64,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$m2Ty71nbneX+kE7BCWXHSnpMJtJ6r26bfFT0wwIdxTQ",
                "correct horse",
            ),
            ("$argon2d$v=19$m=64,t=2,p=2$c2FsdHNhbHRzYWx0c2FsdA$ze7+VY+D8J6Ak+RMnzSRLtDTx8jpS/ww", "other"),
        ] {
            let parsed = Hash::parse(hash).expect(hash);
            assert!(parsed.is_of(password.as_bytes()), "{hash}");
            for wrong in ["", "correct hors", "Other", &format!("{password} ")] {
                assert!(!parsed.is_of(wrong.as_bytes()), "{hash}: {wrong}");
            }
        }
    }

    #[test]
    fn what_is_no_safe_hash_is_refused_with_the_remedy_and_not_shown() {
        for (hash, reason) in [
            ("{SHA}hunter2AAAAAAAAAAAAAAAAAAAA=", "SHA-1"),
            ("$apr1$hunter2$AAAAAAAAAAAAAAAAAAAAAA", "MD5"),
            ("$6$hunter2$AAAA", "not offered"),
            ("hunter2", "the password itself"),
            ("", "is empty"),
            ("$2y$04$hunter2", "not the whole"),
            ("$2y$99$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e", "not the whole"),
            (&format!("$2y$04${}", "\u{e9}".repeat(27)), "not the whole"),
            ("$argon2id$v=19$m=64,t=1,p=1$hunter2$AAAA", "no argon2 hash"),
            ("$argon2id$v=19$m=64,t=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAA", "no argon2 hash"),
            ("$argon2id$v=19$m=1,t=1,p=1$c2FsdHNhbHRzYWx0c2FsdA$AAAAAAAAAAAAAAAAAAAAAA", "no argon2 hash"),
            ("$argon2id", "no argon2 hash"),
        ] {
            let refusal = Hash::parse(hash).expect_err(hash);
            assert!(refusal.contains(reason) && refusal.contains("htpasswd -B"), "{hash}: {refusal}");
            assert!(!refusal.contains("hunter2"), "{refusal}");
        }
    }
}
