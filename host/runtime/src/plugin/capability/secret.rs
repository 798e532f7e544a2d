//! Which secrets may a plugin use, without seeing them?
//!
//! What is kept is a digest to compare with and the beginnings of a signature; the secret itself is not.

use std::{
    collections::BTreeMap,
    env, fmt, io,
    ops::Range,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use toml::Spanned;

use crate::{config::SecretSource, file};

/// The secrets of one plugin, by name. Clones share them.
#[derive(Clone, Default)]
pub struct Secrets(Arc<BTreeMap<String, Secret>>);

#[derive(Clone)]
struct Secret {
    digest: [u8; 32],
    /// The inner and the outer hash of HMAC (RFC 2104), each after its key.
    inner: Sha256,
    outer: Sha256,
}

/// Why a secret is not there, and where the configuration asks for it.
#[derive(Debug, thiserror::Error)]
#[error("the secret `{name}` is not there: {reason}")]
pub struct SecretError {
    pub name: String,
    pub place: Range<usize>,
    reason: Reason,
}

#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("the environment variable `{0}` is not set")]
    NotSet(String),
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("it is empty")]
    Empty,
}

impl SecretError {
    /// What to do instead.
    pub fn help(&self) -> &'static str {
        match self.reason {
            Reason::NotSet(_) => "set it where `tollgate` is started, or name another",
            Reason::Read { .. } => {
                "write the file, relative to the folder of the configuration, and let the user that runs `tollgate` read it"
            }
            Reason::Empty => "write the secret there: whoever sends nothing would know it",
        }
    }
}

impl Secrets {
    /// Reads all of them. Relative paths are relative to `folder`; the end of line that most editors put at the
    /// end of a file is not part of a secret.
    pub(super) fn read(
        sources: &BTreeMap<String, Spanned<SecretSource>>,
        folder: &Path,
    ) -> Result<Self, SecretError> {
        let read = |(name, source): (&String, &Spanned<SecretSource>)| {
            let problem = |reason| SecretError { name: name.clone(), place: source.span(), reason };
            let bytes = bytes(source.get_ref(), folder).map_err(problem)?;
            Ok((name.clone(), Secret::new(&bytes)))
        };
        sources.iter().map(read).collect::<Result<_, _>>().map(|secrets| Self(Arc::new(secrets)))
    }

    /// Secrets that are known already.
    pub fn known(secrets: impl IntoIterator<Item = (String, Vec<u8>)>) -> Self {
        Self(Arc::new(secrets.into_iter().map(|(name, bytes)| (name, Secret::new(&bytes))).collect()))
    }

    /// Whether `candidate` is any of them.
    pub fn holds(&self, candidate: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(candidate).into();
        self.0.values().any(|secret| secret.digest.ct_eq(&digest).into())
    }

    /// Whether `candidate` is the secret of this name. The time it takes says nothing about the secret.
    ///
    /// A long one is taken piece by piece, and `go_on` asked before each: its error is that of the whole.
    pub fn verify<E>(
        &self,
        name: &str,
        candidate: &[u8],
        go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<bool, E> {
        let Some(secret) = self.0.get(name) else { return Ok(false) };
        let digest: [u8; 32] = hashed(Sha256::new(), candidate, go_on)?.finalize().into();
        Ok(secret.digest.ct_eq(&digest).into())
    }

    /// HMAC-SHA-256 of `message` (RFC 2104). None if there is no secret of this name. `go_on` as in [`Secrets::verify`].
    pub fn hmac_sha256<E>(
        &self,
        name: &str,
        message: &[u8],
        go_on: impl FnMut() -> Result<(), E>,
    ) -> Result<Option<[u8; 32]>, E> {
        let Some(secret) = self.0.get(name) else { return Ok(None) };
        let inner = hashed(secret.inner.clone(), message, go_on)?.finalize();
        Ok(Some(secret.outer.clone().chain_update(inner).finalize().into()))
    }

    /// Whether these are the same secrets.
    pub fn is_same(&self, other: &Self) -> bool {
        let digests = |secrets: &Self| -> Vec<_> {
            secrets.0.iter().map(|(name, secret)| (name.clone(), secret.digest)).collect()
        };
        digests(self) == digests(other)
    }
}

impl Secret {
    fn new(bytes: &[u8]) -> Self {
        /// The block of SHA-256; a longer key is replaced by its hash.
        const BLOCK: usize = 64;
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        let key = if bytes.len() > BLOCK { &digest } else { bytes };
        let padded = |padding: u8| {
            let mut block = [padding; BLOCK];
            block.iter_mut().zip(key).for_each(|(byte, key)| *byte ^= key);
            Sha256::new_with_prefix(block)
        };
        Self { digest, inner: padded(0x36), outer: padded(0x5c) }
    }
}

/// Adds bytes to a hash. What is long takes many milliseconds, so `go_on` is asked now and then.
fn hashed<E>(mut hash: Sha256, bytes: &[u8], mut go_on: impl FnMut() -> Result<(), E>) -> Result<Sha256, E> {
    /// Takes a millisecond or two where the processor has no instructions for it.
    const PIECE: usize = 256 << 10;
    if bytes.len() <= PIECE {
        return Ok(hash.chain_update(bytes));
    }
    for piece in bytes.chunks(PIECE) {
        go_on()?;
        hash.update(piece);
    }
    Ok(hash)
}

fn bytes(source: &SecretSource, folder: &Path) -> Result<Vec<u8>, Reason> {
    let bytes = match source {
        SecretSource::Env(name) => env::var_os(name).ok_or_else(|| Reason::NotSet(name.clone()))?.into_vec(),
        SecretSource::File(path) => {
            let path = folder.join(path);
            let mut bytes =
                file::read(&path, file::SECRET).map_err(|source| Reason::Read { path, source })?;
            if bytes.ends_with(b"\n") {
                bytes.truncate(bytes.len() - if bytes.ends_with(b"\r\n") { 2 } else { 1 });
            }
            bytes
        }
    };
    // Whoever knows nothing would know it.
    if bytes.is_empty() { Err(Reason::Empty) } else { Ok(bytes) }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn secrets(secret: &str) -> Secrets {
        Secrets::known([("s".to_owned(), secret.as_bytes().to_vec())])
    }

    /// For what is to come to its end.
    fn go_on() -> Result<(), std::convert::Infallible> {
        Ok(())
    }

    fn verify(secrets: &Secrets, name: &str, candidate: &[u8]) -> bool {
        let Ok(is_secret) = secrets.verify(name, candidate, go_on);
        is_secret
    }

    fn hmac_sha256(secrets: &Secrets, name: &str, message: &[u8]) -> Option<[u8; 32]> {
        let Ok(mac) = secrets.hmac_sha256(name, message, go_on);
        mac
    }

    #[test]
    fn what_is_long_is_taken_piece_by_piece_and_can_be_ended_in_between() {
        let long = "x".repeat(1 << 20);
        let secrets = secrets(&long);
        assert!(verify(&secrets, "s", long.as_bytes()) && secrets.holds(long.as_bytes()));
        let whole = hmac_sha256(&secrets, "s", long.as_bytes()).unwrap();
        let other = Secrets::known([("s".to_owned(), Sha256::digest(&long).to_vec())]);
        assert_eq!(
            hmac_sha256(&other, "s", long.as_bytes()),
            Some(whole),
            "RFC 2104: a long key is its hash"
        );

        let mut asked = 0;
        let mut twice = || {
            asked += 1;
            if asked > 2 { Err("enough") } else { Ok(()) }
        };
        assert_eq!(secrets.hmac_sha256("s", long.as_bytes(), &mut twice), Err("enough"));
        assert_eq!(secrets.verify("s", long.as_bytes(), &mut twice), Err("enough"));
        assert_eq!(secrets.verify("s", b"short", &mut twice), Ok(false), "what is short is not held up");
        assert_eq!(asked, 4);
    }

    #[test]
    fn only_the_secret_itself_is_the_secret() {
        let secrets = secrets("hunter2");
        assert!(verify(&secrets, "s", b"hunter2"));
        for candidate in ["", "hunter", "hunter22", "hunter2\n", "hunter2\0"] {
            assert!(!verify(&secrets, "s", candidate.as_bytes()), "{candidate:?}");
        }
        assert!(!verify(&secrets, "other", b"hunter2"));
        assert!(!verify(&secrets, "other", b""));
    }

    #[test]
    fn signatures_are_those_of_the_standard() {
        let sign = |key: &[u8], message: &str| {
            let secrets = Secrets::known([("s".to_owned(), key.to_vec())]);
            let mac = hmac_sha256(&secrets, "s", message.as_bytes()).unwrap();
            mac.iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        // RFC 4231, test cases 2 and 6.
        assert_eq!(
            sign(b"Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            sign(&[0xaa; 131], "Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        assert_eq!(hmac_sha256(&secrets("a"), "other", b""), None);
    }

    #[test]
    fn a_secret_comes_from_a_file_or_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let read = |source| {
            let sources = BTreeMap::from([("s".to_owned(), Spanned::new(3..5, source))]);
            Secrets::read(&sources, folder.path())
        };
        let file = || SecretSource::File("secret".into());
        let error = read(file()).unwrap_err();
        assert_eq!((error.name.as_str(), error.place), ("s", 3..5));
        for content in ["hunter2", "hunter2\n", "hunter2\r\n"] {
            fs::write(folder.path().join("secret"), content).unwrap();
            assert!(verify(&read(file()).unwrap(), "s", b"hunter2"), "{content:?}");
        }
        fs::write(folder.path().join("secret"), "\n").unwrap();
        assert!(read(file()).is_err(), "an empty secret is none");
        let path = env::var("PATH").unwrap();
        assert!(verify(&read(SecretSource::Env("PATH".to_owned())).unwrap(), "s", path.as_bytes()));
        let error = read(SecretSource::Env("NOBODY_SETS_THIS".to_owned())).unwrap_err();
        assert!(error.to_string().ends_with("the environment variable `NOBODY_SETS_THIS` is not set"));
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert_eq!(format!("{:?}", secrets("hunter2")), r#"{"s"}"#);
    }

    #[test]
    fn another_value_is_another_secret() {
        assert!(secrets("a").is_same(&secrets("a")));
        assert!(!secrets("a").is_same(&secrets("b")));
        assert!(!secrets("a").is_same(&Secrets::default()));
    }
}
