//! Where is the compiled form of a component kept?
//!
//! Compiling takes 60 ms for a small Rust guest and up to half a minute for a JavaScript or Python one, so
//! machine code is kept on disk between starts, by the component's digest and the engine's settings. What is
//! read back is executed: a file counts only if it belongs to this user, nobody else can write it, and its
//! digest is right. Anything else is compiled again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest as _, Sha256};

use crate::{file, private};

/// The SHA-256 of a component's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// Reads what is shown of it.
    pub fn read(text: &str) -> Option<Self> {
        crate::config::Sha256::read(text).map(|digest| Self(digest.0))
    }

    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, formatter)
    }
}

/// A folder of compiled components.
#[derive(Debug)]
pub struct Artifacts {
    folder: PathBuf,
    /// Stands for the version and settings of the engine that compiled them.
    engine: u64,
}

impl Artifacts {
    /// The oldest go when there are more.
    const KEPT: usize = 128;
    const MAGIC: &[u8; 16] = b"tollgate cwasm 1";

    /// Opens the folder, and makes it if it is not there.
    pub fn open(folder: &Path, engine: u64) -> io::Result<Self> {
        private::open_folder(folder)?;
        Ok(Self { folder: folder.to_owned(), engine })
    }

    /// Whether there seems to be one for a component.
    pub fn has(&self, digest: Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The artifact for a component, if there is one that can be trusted.
    pub fn get(&self, digest: Digest) -> Option<Vec<u8>> {
        match self.read(digest) {
            Ok(artifact) => Some(artifact),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let path = self.path(digest);
                tracing::warn!(path = %path.display(), %error, "compiled plugin not used, compiling again");
                None
            }
        }
    }

    /// Keeps an artifact. A failure costs the next start some time and is only logged.
    pub fn put(&self, digest: Digest, artifact: &[u8]) {
        if let Err(error) = self.write(digest, artifact).and_then(|()| self.prune()) {
            tracing::warn!(folder = %self.folder.display(), %error, "cannot keep a compiled plugin");
        }
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.folder.join(format!("{digest}-{:016x}.cwasm", self.engine))
    }

    fn read(&self, digest: Digest) -> io::Result<Vec<u8>> {
        let file = private::open(&self.path(digest))?;
        let content = file::read_to_end(&file, file::COMPONENT)?;
        let corrupt = || io::Error::new(io::ErrorKind::InvalidData, "the file is corrupt");
        let (magic, rest) = content.split_first_chunk::<16>().ok_or_else(corrupt)?;
        let (sum, artifact) = rest.split_first_chunk::<32>().ok_or_else(corrupt)?;
        if magic != Self::MAGIC || Digest(*sum) != Digest::of(artifact) {
            return Err(corrupt());
        }
        // Eviction goes by the time of last use.
        let _ = file.set_modified(SystemTime::now());
        Ok(artifact.to_vec())
    }

    fn write(&self, digest: Digest, artifact: &[u8]) -> io::Result<()> {
        private::write(&self.path(digest), &[Self::MAGIC, &Digest::of(artifact).0, artifact])
    }

    fn prune(&self) -> io::Result<()> {
        let mut files: Vec<_> = fs::read_dir(&self.folder)?
            .filter_map(Result::ok)
            // Others keep things here, too.
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "cwasm"))
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        files.sort();
        let excess = files.len().saturating_sub(Self::KEPT);
        files.iter().take(excess).try_for_each(|(_, path)| fs::remove_file(path))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_kept_is_found_again_by_digest_and_engine() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"component");
        let artifacts = Artifacts::open(folder.path(), 1).unwrap();
        artifacts.put(digest, b"machine code");
        assert_eq!(artifacts.get(digest).as_deref(), Some(&b"machine code"[..]));
        assert_eq!(artifacts.get(Digest::of(b"another")), None);
        assert_eq!(Artifacts::open(folder.path(), 2).unwrap().get(digest), None);
    }

    #[test]
    fn a_file_that_was_tampered_with_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let digest = Digest::of(b"component");
        let artifacts = Artifacts::open(folder.path(), 1).unwrap();
        let path = artifacts.path(digest);

        artifacts.put(digest, b"machine code");
        let mut content = fs::read(&path).unwrap();
        *content.last_mut().unwrap() ^= 1;
        fs::write(&path, &content).unwrap();
        assert_eq!(artifacts.get(digest), None, "a bit was flipped");

        fs::write(&path, &content[..20]).unwrap();
        assert_eq!(artifacts.get(digest), None, "the file was cut short");

        artifacts.put(digest, b"machine code");
        assert!(artifacts.get(digest).is_some());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o622)).unwrap();
        assert_eq!(artifacts.get(digest), None, "others can write to it");

        fs::remove_file(&path).unwrap();
        artifacts.put(digest, b"machine code");
        let elsewhere = folder.path().join("elsewhere");
        fs::rename(&path, &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
        assert_eq!(artifacts.get(digest), None, "it is a link");
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(Artifacts::open(folder.path(), 1).is_err());
    }

    #[test]
    fn the_folder_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = Artifacts::open(folder.path(), 1).unwrap();
        for number in 0..Artifacts::KEPT + 20 {
            artifacts.put(Digest::of(&number.to_le_bytes()), b"code");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), Artifacts::KEPT);
    }
}
