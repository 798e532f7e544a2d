//! Which versions of a plugin have served, and which are to serve no more?
//!
//! A version is a component, known by its digest. Those that have served are kept with their bytes, so that one can
//! serve again after its file has been overwritten; those that were taken back are remembered, so that a file that holds
//! one is not loaded again, after a restart neither. All of it is on disk in the folder where compiled plugins are kept,
//! or in memory where there is none.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use super::artifact::Digest;
use crate::{file, private};

/// The versions of the plugins of one configuration, by the plugins' names.
#[derive(Debug)]
pub struct Versions {
    disk: Option<Disk>,
    /// Components, where there is no disk.
    memory: Mutex<HashMap<Digest, Kept>>,
    histories: Mutex<BTreeMap<String, History>>,
}

/// A component in memory.
#[derive(Debug, Default)]
struct Kept {
    component: Vec<u8>,
    /// What stood in the file of its signature.
    signature: Option<Vec<u8>>,
}

/// What is known of the versions of one plugin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// The one that served last comes last.
    pub served: Vec<Version>,
    /// Which are not to serve.
    pub taken_back: Vec<Digest>,
}

/// A version that has served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    pub digest: Digest,
    /// When it began, in seconds since 1970.
    pub since: u64,
}

impl Version {
    pub fn since(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.since)
    }
}

/// Why a version cannot be taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TakeBackError {
    #[error("no other version of this plugin has served, so there is none to go back to")]
    NoOther,
}

#[derive(Debug)]
struct Disk {
    components: PathBuf,
    /// Of components, by the same digests.
    signatures: PathBuf,
    history: PathBuf,
}

impl History {
    /// The version to serve if the one on offer may not: the last that did and was not taken back.
    fn last_good(&self) -> Option<Version> {
        self.served.iter().rev().find(|version| !self.taken_back.contains(&version.digest)).copied()
    }

    /// A version serves from now on.
    fn note(&mut self, digest: Digest, now: u64) {
        if self.served.last().is_some_and(|last| last.digest == digest) {
            return;
        }
        self.served.retain(|version| version.digest != digest);
        self.served.push(Version { digest, since: now });
        let excess = self.served.len().saturating_sub(Self::KEPT);
        self.served.drain(..excess);
    }

    /// Versions of a plugin that are remembered, of either kind.
    const KEPT: usize = 8;

    fn take_back(&mut self, digest: Digest) -> Result<Version, TakeBackError> {
        let mut without = self.clone();
        without.taken_back.push(digest);
        let excess = without.taken_back.len().saturating_sub(Self::KEPT);
        without.taken_back.drain(..excess);
        let other = without.last_good().ok_or(TakeBackError::NoOther)?;
        *self = without;
        Ok(other)
    }
}

impl Versions {
    /// Components that are kept in a folder, of all configurations; those that have not been used for longest go.
    const COMPONENTS: usize = 128;
    /// Configurations whose histories are.
    const HISTORIES: usize = 512;

    /// Opens what is kept in `folder` for the configuration in the folder `of`.
    pub fn open(folder: Option<&Path>, of: &Path) -> Self {
        let disk = folder.and_then(|folder| {
            Disk::open(folder, of)
                .inspect_err(|error| {
                    tracing::warn!(folder = %folder.display(), %error, "versions of plugins are not kept on disk");
                })
                .ok()
        });
        let histories = disk.as_ref().map(Disk::read).unwrap_or_default();
        Self { disk, memory: Mutex::default(), histories: Mutex::new(histories) }
    }

    /// Keeps a component that is about to serve, and its signature if it has one: who must have signed a version is asked
    /// again when it is to serve again.
    pub fn keep(&self, digest: Digest, component: &[u8], signature: Option<&[u8]>) {
        let Some(disk) = &self.disk else {
            let mut memory = lock(&self.memory);
            let kept = memory.entry(digest).or_default();
            if kept.component.is_empty() {
                kept.component = component.to_vec();
            }
            if let Some(signature) = signature {
                kept.signature = Some(signature.to_vec());
            }
            return;
        };
        let path = disk.component(digest);
        // What is used is young.
        let is_there = private::open(&path).is_ok_and(|file| file.set_modified(SystemTime::now()).is_ok());
        let kept = if is_there { Ok(()) } else { private::write(&path, &[component]) };
        if let Err(error) = kept.and_then(|()| prune(&disk.components, Self::COMPONENTS)) {
            tracing::warn!(%digest, %error, "cannot keep a plugin's component");
        }
        let Some(signature) = signature else { return };
        let path = disk.signature(digest);
        let is_there = private::read(&path, file::SIGNATURE).is_ok_and(|known| known == signature)
            && private::open(&path).is_ok_and(|file| file.set_modified(SystemTime::now()).is_ok());
        let kept = if is_there { Ok(()) } else { private::write(&path, &[signature]) };
        if let Err(error) = kept.and_then(|()| prune(&disk.signatures, Self::COMPONENTS)) {
            tracing::warn!(%digest, %error, "cannot keep a plugin's signature");
        }
    }

    /// What stood in the file of a version's signature, if it had one.
    pub fn signature(&self, digest: Digest) -> Option<Vec<u8>> {
        match &self.disk {
            Some(disk) => private::read(&disk.signature(digest), file::SIGNATURE).ok(),
            None => lock(&self.memory).get(&digest)?.signature.clone(),
        }
    }

    /// These versions serve from now on, each under the name of its plugin.
    pub fn note<'a>(&self, serving: impl Iterator<Item = (&'a str, Digest)>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut histories = lock(&self.histories);
        let before = histories.clone();
        for (name, digest) in serving {
            histories.entry(name.to_owned()).or_default().note(digest, now);
        }
        if *histories != before {
            self.write(&histories);
        }
        if self.disk.is_none() {
            let is_known = |digest: &Digest| {
                histories
                    .values()
                    .flat_map(|history| &history.served)
                    .any(|version| version.digest == *digest)
            };
            lock(&self.memory).retain(|digest, _| is_known(digest));
        }
    }

    /// What is known of a plugin's versions.
    pub fn of(&self, name: &str) -> History {
        lock(&self.histories).get(name).cloned().unwrap_or_default()
    }

    /// Whether a version is not to serve.
    pub fn is_taken_back(&self, name: &str, digest: Digest) -> bool {
        lock(&self.histories).get(name).is_some_and(|history| history.taken_back.contains(&digest))
    }

    /// The version to serve in the place of one that was taken back.
    pub fn last_good(&self, name: &str) -> Option<Version> {
        lock(&self.histories).get(name).and_then(History::last_good)
    }

    /// A version is not to serve any more. Says which will in its place.
    pub fn take_back(&self, name: &str, digest: Digest) -> Result<Version, TakeBackError> {
        let mut histories = lock(&self.histories);
        let other = histories.get_mut(name).ok_or(TakeBackError::NoOther)?.take_back(digest)?;
        self.write(&histories);
        Ok(other)
    }

    /// Versions of a plugin that were taken back may serve again: this one, or all. Whether there were any.
    pub fn allow(&self, name: &str, digest: Option<Digest>) -> bool {
        let mut histories = lock(&self.histories);
        let Some(history) = histories.get_mut(name) else { return false };
        let before = history.taken_back.len();
        history.taken_back.retain(|taken_back| digest.is_some_and(|digest| digest != *taken_back));
        let has_changed = history.taken_back.len() < before;
        if has_changed {
            self.write(&histories);
        }
        has_changed
    }

    /// The component of a version.
    pub fn component(&self, digest: Digest) -> io::Result<Vec<u8>> {
        let Some(disk) = &self.disk else {
            let memory = lock(&self.memory);
            let component = memory.get(&digest).map(|kept| kept.component.clone());
            return component.ok_or_else(|| io::ErrorKind::NotFound.into());
        };
        let component = private::read(&disk.component(digest), file::COMPONENT)?;
        if Digest::of(&component) == digest {
            Ok(component)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the file is corrupt"))
        }
    }

    fn write(&self, histories: &BTreeMap<String, History>) {
        let Some(disk) = &self.disk else { return };
        let written = serde_json::to_vec(histories).map_err(io::Error::from);
        let written = written.and_then(|text| private::write(&disk.history, &[&text]));
        let folder = disk.history.parent().unwrap_or(Path::new("."));
        if let Err(error) = written.and_then(|()| prune(folder, Self::HISTORIES)) {
            tracing::warn!(%error, "cannot write down which versions of plugins have served");
        }
    }
}

impl Disk {
    fn open(folder: &Path, of: &Path) -> io::Result<Self> {
        let (components, histories) = (folder.join("components"), folder.join("versions"));
        let signatures = folder.join("signatures");
        private::open_folder(folder)?;
        private::open_folder(&signatures)?;
        private::open_folder(&components)?;
        private::open_folder(&histories)?;
        let of = if of.as_os_str().is_empty() { Path::new(".") } else { of };
        // One that is not there has no other name than this.
        let of = of.canonicalize().or_else(|_| std::path::absolute(of))?;
        let name = format!("{}.json", Digest::of(of.as_os_str().as_encoded_bytes()));
        Ok(Self { components, signatures, history: histories.join(name) })
    }

    fn component(&self, digest: Digest) -> PathBuf {
        self.components.join(format!("{digest}.wasm"))
    }

    fn signature(&self, digest: Digest) -> PathBuf {
        self.signatures.join(format!("{digest}.sig"))
    }

    /// What was written down, or nothing if that cannot be understood.
    fn read(&self) -> BTreeMap<String, History> {
        let read = private::read(&self.history, file::CONFIGURATION);
        match read.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from)) {
            Ok(histories) => histories,
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    let path = self.history.display();
                    tracing::warn!(%path, %error, "it is not known which versions of plugins have served");
                }
                BTreeMap::new()
            }
        }
    }
}

/// Removes the oldest files beyond so many.
fn prune(folder: &Path, most: usize) -> io::Result<()> {
    let entries = fs::read_dir(folder)?.filter_map(Result::ok);
    let mut files: Vec<_> =
        entries.filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path()))).collect();
    let excess = files.len().saturating_sub(most);
    if excess > 0 {
        files.sort();
    }
    for (_, path) in files.into_iter().take(excess) {
        match fs::remove_file(path) {
            // Another process has done it.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result?,
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::read(&text).ok_or_else(|| serde::de::Error::custom("a digest has 64 hexadecimal digits"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(versions: &Versions, components: &[&[u8]]) -> Vec<Digest> {
        let digests: Vec<Digest> = components.iter().map(|component| Digest::of(component)).collect();
        for (digest, component) in digests.iter().zip(components) {
            versions.keep(*digest, component, None);
            versions.note([("a", *digest)].into_iter());
        }
        digests
    }

    #[test]
    fn the_last_that_was_not_taken_back_serves_again() {
        let (folder, of) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for folder in [Some(folder.path()), None] {
            let versions = Versions::open(folder, of.path());
            let digests = serve(&versions, &[b"one", b"two", b"three"]);
            assert_eq!(versions.take_back("a", digests[2]).unwrap().digest, digests[1]);
            assert_eq!(versions.take_back("a", digests[1]).unwrap().digest, digests[0]);
            assert_eq!(versions.take_back("a", digests[0]), Err(TakeBackError::NoOther));
            assert_eq!(versions.take_back("b", digests[0]), Err(TakeBackError::NoOther));
            assert!(versions.is_taken_back("a", digests[2]) && !versions.is_taken_back("a", digests[0]));
            assert_eq!(versions.component(digests[0]).unwrap(), b"one");
            // It serves, and is the last of them now.
            versions.note([("a", digests[0])].into_iter());
            assert!(versions.allow("a", Some(digests[1])) && !versions.is_taken_back("a", digests[1]));
            assert_eq!(versions.last_good("a").unwrap().digest, digests[0]);
            assert!(versions.allow("a", None) && !versions.allow("a", None));
        }
    }

    #[test]
    fn it_is_known_after_a_restart_and_to_this_configuration_alone() {
        let (folder, of) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let versions = Versions::open(Some(folder.path()), of.path());
        let digests = serve(&versions, &[b"one", b"two"]);
        versions.take_back("a", digests[1]).unwrap();

        let again = Versions::open(Some(folder.path()), of.path());
        assert_eq!(again.of("a"), versions.of("a"));
        assert_eq!(again.component(digests[1]).unwrap(), b"two");
        let other = Versions::open(Some(folder.path()), folder.path());
        assert_eq!(other.of("a"), History::default());

        let path = again.disk.as_ref().unwrap().component(digests[0]);
        fs::write(&path, b"uno").unwrap();
        assert!(again.component(digests[0]).is_err(), "it was tampered with");
        fs::write(&again.disk.as_ref().unwrap().history, b"{").unwrap();
        assert_eq!(Versions::open(Some(folder.path()), of.path()).of("a"), History::default());
    }

    #[test]
    fn a_folder_that_is_not_there_has_its_versions() {
        let (folder, none) = (tempfile::tempdir().unwrap(), Path::new("not-there"));
        let digests = serve(&Versions::open(Some(folder.path()), none), &[b"one", b"two"]);
        let again = Versions::open(Some(folder.path()), none);
        assert_eq!(again.take_back("a", digests[1]).unwrap().digest, digests[0]);
    }

    #[test]
    fn what_is_kept_does_not_grow_without_end() {
        let (folder, of) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let versions = Versions::open(Some(folder.path()), of.path());
        let components: Vec<Vec<u8>> =
            (0..Versions::COMPONENTS + 9).map(|number| vec![number as u8; 3]).collect();
        let components: Vec<&[u8]> = components.iter().map(Vec::as_slice).collect();
        serve(&versions, &components);
        assert_eq!(versions.of("a").served.len(), History::KEPT);
        assert_eq!(fs::read_dir(folder.path().join("components")).unwrap().count(), Versions::COMPONENTS);
        let last = *components.last().unwrap();
        assert_eq!(versions.component(Digest::of(last)).unwrap(), last);
    }
}
