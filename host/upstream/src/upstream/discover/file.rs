//! Which endpoints does a file name?
//!
//! The folder is watched, as files are replaced more often than written; and looked at now and then, since there
//! are changes of which nothing tells (a network's file system, a folder that has come later).

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::{sync::Notify, time::sleep};

use super::{
    directory::{Directory, Next},
    error::FileError,
};
use crate::{
    config::{self, EndpointFile, read_document},
    file,
};

/// How long the file must be still before it is read.
const STILL: Duration = Duration::from_millis(50);

/// How often it is looked at without an event.
const LOOK: Duration = Duration::from_secs(1);

/// What is read at most.
const LARGEST: u64 = 64 << 20;

/// A file of endpoints.
pub(super) struct File {
    path: PathBuf,
    /// As it looked when it was read, or that it was not there.
    seen: Option<Option<Look>>,
    changed: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
}

/// What tells a file from another in its place.
type Look = (u64, u64, Option<SystemTime>);

impl File {
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None, changed: Arc::default(), watcher: None }
    }

    /// Watches the folder, if it can be watched.
    fn watch(&mut self) {
        let changed = self.changed.clone();
        let watcher = notify::recommended_watcher(move |_| changed.notify_one());
        let folder = self.path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        self.watcher = watcher.ok().and_then(|mut watcher: RecommendedWatcher| {
            watcher.watch(folder, RecursiveMode::NonRecursive).ok().map(|()| watcher)
        });
    }

    fn look(&self) -> Option<Look> {
        let metadata = fs::metadata(&self.path).ok()?;
        Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
    }

    async fn read(&mut self) -> Result<Vec<config::Endpoint>, FileError> {
        if self.watcher.is_none() {
            self.watch();
        }
        while self.seen.is_some_and(|seen| seen == self.look()) {
            tokio::select! {
                () = self.changed.notified() => {}
                () = sleep(LOOK) => {}
            }
        }
        let mut look = self.look();
        if self.seen.is_some() {
            loop {
                sleep(STILL).await;
                let now = self.look();
                if now == look {
                    break;
                }
                look = now;
            }
        }
        let path = self.path.clone();
        let read = tokio::task::spawn_blocking(move || read(&path)).await;
        let result = read.unwrap_or_else(|error| {
            Err(FileError::Read { path: self.path.clone(), source: io::Error::other(error) })
        });
        // One that is there and cannot be read may be readable later without a change that is seen.
        let is_seen = look.is_none() || !matches!(result, Err(FileError::Read { .. }));
        self.seen = is_seen.then_some(look);
        result
    }
}

impl Directory for File {
    fn next(&mut self) -> Next<'_> {
        Box::pin(async { Ok(self.read().await?) })
    }
}

fn read(path: &Path) -> Result<Vec<config::Endpoint>, FileError> {
    let unreadable = |source| FileError::Read { path: path.to_owned(), source };
    let text = file::read_text(path, LARGEST).map_err(unreadable)?;
    understand(path, text)
}

/// A list in the file's table `endpoints`, as the configuration has it; in JSON it may stand alone.
fn understand(path: &Path, text: String) -> Result<Vec<config::Endpoint>, FileError> {
    if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        let read = match text.trim_start().starts_with('[') {
            true => serde_json::from_str(&text),
            false => serde_json::from_str::<EndpointFile>(&text).map(|file| file.endpoints),
        };
        return read.map_err(|source| FileError::Json { path: path.to_owned(), source });
    }
    match read_document::<EndpointFile>(path, text, None) {
        Ok((file, _)) => Ok(file.endpoints),
        Err(problems) => Err(FileError::Toml { path: path.to_owned(), problems }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(path: &str, text: &str) -> Result<Vec<String>, String> {
        let endpoints = understand(Path::new(path), text.to_owned()).map_err(|error| {
            let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
            format!("{error} {source}")
        })?;
        let show = |endpoint: &config::Endpoint| {
            let scheme = if endpoint.is_https { "https" } else { "http" };
            format!("{scheme}://{} {} {:?}", endpoint.authority, endpoint.weight, endpoint.tags)
        };
        Ok(endpoints.iter().map(show).collect())
    }

    #[test]
    fn a_file_is_toml_or_json_by_its_ending() {
        let expected = ["http://10.0.0.1:80 1 {}", "https://b:443 3 {\"zone\": \"a\"}"].map(str::to_owned);
        for (path, text) in [
            (
                "a.toml",
                "endpoints = ['http://10.0.0.1', { url = 'https://b', weight = 3, tags = { zone = 'a' } }]",
            ),
            (
                "a.json",
                r#"{"endpoints": ["http://10.0.0.1", {"url": "https://b", "weight": 3, "tags": {"zone": "a"}}]}"#,
            ),
            ("a.JSON", r#"  ["http://10.0.0.1", {"url": "https://b", "weight": 3, "tags": {"zone": "a"}}]"#),
        ] {
            assert_eq!(addresses(path, text).as_deref(), Ok(&expected[..]), "{path}");
        }
        assert_eq!(addresses("empty", "endpoints = []"), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (path, text, expected) in [
            ("a.toml", "endpoints = ['10.0.0.1']", "a.toml:1:14"),
            ("a.toml", "endpoint = []", "unknown key `endpoint`"),
            ("a.toml", "", "the key `endpoints` is missing"),
            ("a.json", "{\"endpoints\": [\n\"ftp://a\"]}", "line 2"),
            ("a.json", "{\"endpoints\": [], \"x\": 1}", "unknown field `x`"),
            ("a.json", "", "EOF"),
        ] {
            let error = addresses(path, text).unwrap_err();
            assert!(error.contains(expected), "{path}: {error}");
        }
    }
}
