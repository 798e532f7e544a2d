//! Did a file change on disk?
//!
//! Folders are watched, not files: editors and deployments replace a file by renaming another over it, and a
//! ConfigMap is a chain of links. An event only says that it is time to look; what counts is what the files
//! hold once they are still.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use notify::{
    EventKind, RecommendedWatcher, RecursiveMode, Watcher,
    event::{AccessKind, AccessMode},
};
use tokio::sync::mpsc;

use crate::{
    config::{Config, Source},
    file,
    server::{self, Server},
    telemetry::with_sources,
};

/// How long files must be still before they are read.
const STILL: Duration = Duration::from_millis(80);

/// How often to look whether a folder has come, gone or been replaced, of which there may be no event.
const LOOK: Duration = Duration::from_secs(1);

/// Reloads whenever the configuration or a plugin has changed since `in_force`. Runs until the drain starts.
pub async fn run(server: Arc<Server>, config: PathBuf, mut in_force: State) {
    let (events, mut changed) = mpsc::unbounded_channel();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // An error may mean that events were lost, so it is time to look, too.
        if event.map_or(true, |event| is_change(event.kind)) {
            let _ = events.send(());
        }
    });
    let mut folders = match watcher {
        Ok(watcher) => Folders { watcher, watched: BTreeMap::new() },
        Err(error) => {
            tracing::error!(%error, "cannot watch files; SIGHUP still reloads");
            return;
        }
    };
    loop {
        let plugins = server.plugin_dir();
        let files = server.files();
        let folders_of_files = files.iter().flat_map(|file| folders_of(file));
        let linked = links_in(&plugins).into_iter().flat_map(|link| folders_of(&link));
        let folders_of_files = folders_of(&config).into_iter().chain(folders_of_files).chain(linked);
        // The folder of plugins may be a link itself, or be below one.
        let folders_of_files = folders_of_files.chain(folders_of(&plugins));
        let has_moved = folders.watch(folders_of_files.chain([plugins.clone()]));
        if !has_moved {
            tokio::select! {
                () = server.drain().started() => return,
                Some(()) = changed.recv() => {}
                () = tokio::time::sleep(LOOK) => continue,
            }
        }
        let state = still(&config, &plugins, &files, &mut changed).await;
        if state != in_force {
            in_force = state;
            reload(&server, &config).await;
        }
    }
}

/// Reloads, and says what came of it.
pub async fn reload(server: &Arc<Server>, config: &Path) {
    if let Err(error) = server::reload(server, config.to_owned()).await {
        tracing::error!("configuration not used, the one in force stays: {}", with_sources(&error));
    }
}

/// Waits until the files have not changed for a while.
async fn still(
    config: &Path,
    plugins: &Path,
    files: &[PathBuf],
    changed: &mut mpsc::UnboundedReceiver<()>,
) -> State {
    let mut state = State::of(config, plugins, files);
    loop {
        tokio::time::sleep(STILL).await;
        while changed.try_recv().is_ok() {}
        let now = State::of(config, plugins, files);
        if now == state {
            return now;
        }
        state = now;
    }
}

fn is_change(kind: EventKind) -> bool {
    // Reading a file is an event as well; to look again because of having looked would never end.
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
        EventKind::Access(_) => false,
        _ => true,
    }
}

/// The folders in which something happens when a file changes: where it is, and where each link is on the way to it.
///
/// Any of them may be pointed elsewhere: `config.toml` -> `current/config.toml`, where `current` is a link to a release,
/// is how alternatives, Nix profiles and ConfigMaps replace files.
fn folders_of(file: &Path) -> BTreeSet<PathBuf> {
    /// As many as Linux follows (path_resolution(7)).
    const LINKS: usize = 40;
    let mut folders = BTreeSet::from([folder_of(file)]);
    // What has been walked holds no link; what is left may.
    let mut walked = PathBuf::new();
    let mut left: Vec<OsString> = components_of(file);
    let mut links = 0;
    while let Some(component) = left.pop() {
        match component.to_str() {
            Some(".") => continue,
            Some("..") if walked.file_name().is_some() => {
                walked.pop();
                continue;
            }
            _ => {}
        }
        let path = walked.join(&component);
        match fs::read_link(&path) {
            Ok(target) => {
                links += 1;
                if links > LINKS {
                    break;
                }
                folders.insert(folder_of(&path));
                if target.is_absolute() {
                    walked = PathBuf::new();
                }
                left.extend(components_of(&target));
            }
            // No link, or nothing at all: what comes later is seen by its folder.
            Err(_) => walked = path,
        }
    }
    folders.insert(folder_of(&walked));
    folders
}

/// The parts of a path, the last one first.
fn components_of(path: &Path) -> Vec<OsString> {
    path.components().rev().map(|component| component.as_os_str().to_owned()).collect()
}

fn folder_of(file: &Path) -> PathBuf {
    match file.parent() {
        Some(folder) if folder != Path::new("") => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// The watched folders, each with what tells it from another of the same name.
struct Folders {
    watcher: RecommendedWatcher,
    watched: BTreeMap<PathBuf, (u64, u64)>,
}

impl Folders {
    /// Watches these and no others. Whether one of them has come, gone or been replaced.
    fn watch(&mut self, folders: impl IntoIterator<Item = PathBuf>) -> bool {
        let wanted: BTreeSet<PathBuf> = folders.into_iter().collect();
        let mut has_moved = false;
        self.watched.retain(|folder, identity| {
            let stays = wanted.contains(folder) && identify(folder).is_ok_and(|now| now == *identity);
            if !stays {
                // It may have gone, and its watch with it.
                let _ = self.watcher.unwatch(folder);
                has_moved = true;
            }
            stays
        });
        for folder in wanted {
            if self.watched.contains_key(&folder) {
                continue;
            }
            let Ok(identity) = identify(&folder) else { continue };
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder, identity);
                    has_moved = true;
                }
                Err(error) => tracing::warn!(folder = %folder.display(), %error, "cannot watch the folder"),
            }
        }
        has_moved
    }
}

fn identify(folder: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(folder)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// What the files look like at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    config: Option<Vec<u8>>,
    plugins: BTreeMap<PathBuf, Look>,
    /// Those that the configuration names.
    files: BTreeMap<PathBuf, Option<Look>>,
}

/// What tells a file from another in its place: where it is on the disk, how long, and when it was written.
type Look = (u64, u64, Option<SystemTime>);

impl State {
    /// The state with this configuration, whose paths are relative to `folder`. To be taken before the plugins
    /// are loaded, which takes its time: what changes meanwhile is a change.
    pub fn before_loading(source: &Source, config: &Config, folder: &Path) -> Self {
        Self {
            config: Some(source.text.clone().into_bytes()),
            plugins: plugins_in(&folder.join(&config.plugin_dir)),
            files: look_at_all(&server::named_files(config, folder)),
        }
    }

    fn of(config: &Path, plugins: &Path, files: &[PathBuf]) -> Self {
        Self {
            config: file::read(config, file::CONFIGURATION).ok(),
            plugins: plugins_in(plugins),
            files: look_at_all(files),
        }
    }
}

fn look_at(file: &Path) -> Option<Look> {
    let metadata = fs::metadata(file).ok()?;
    Some((metadata.ino(), metadata.len(), metadata.modified().ok()))
}

fn look_at_all(files: &[PathBuf]) -> BTreeMap<PathBuf, Option<Look>> {
    files.iter().map(|file| (file.clone(), look_at(file))).collect()
}

fn plugins_in(plugins: &Path) -> BTreeMap<PathBuf, Look> {
    let paths = entries_of(plugins).map(|entry| entry.path());
    paths.filter_map(|path| look_at(&path).map(|look| (path, look))).collect()
}

/// Those that lead elsewhere, where they may change without an event here.
fn links_in(plugins: &Path) -> Vec<PathBuf> {
    let is_link = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_symlink());
    entries_of(plugins).filter(is_link).map(|entry| entry.path()).collect()
}

/// Components, what lies beside them, and signatures.
fn entries_of(plugins: &Path) -> impl Iterator<Item = fs::DirEntry> {
    let entries = fs::read_dir(plugins).into_iter().flatten().filter_map(Result::ok);
    entries.filter(|entry| {
        let path = entry.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| ["wasm", "toml", "sig"].contains(&extension))
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_folder_of_every_link_on_the_way_is_watched() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for name in ["etc", "middle", "store", "releases/2"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        let index = |name: &str| root.join(name);
        let folders = |name: &str| folders_of(&index(name));
        let among =
            |found: &BTreeSet<PathBuf>, names: &[&str]| names.iter().all(|name| found.contains(&index(name)));
        fs::write(index("store/v1.toml"), "").unwrap();
        symlink(index("store/v1.toml"), index("middle/current.toml")).unwrap();
        symlink("../middle/current.toml", index("etc/config.toml")).unwrap();
        assert!(among(&folders("etc/config.toml"), &["etc", "middle", "store"]));
        assert_eq!(folders("store/v1.toml"), BTreeSet::from([index("store")]));
        // A folder on the way is a link.
        fs::write(index("releases/2/a.toml"), "").unwrap();
        symlink("releases/2", index("current")).unwrap();
        let found = folders("current/a.toml");
        assert!(among(&found, &["", "current", "releases/2"]), "{found:?}");
        // Links that lead nowhere, and in circles.
        symlink("gone/b.toml", index("etc/b.toml")).unwrap();
        assert!(among(&folders("etc/b.toml"), &["etc", "etc/gone"]));
        symlink("d", index("etc/c")).unwrap();
        symlink("c", index("etc/d")).unwrap();
        assert!(among(&folders("etc/c"), &["etc"]));
        assert_eq!(folders_of(Path::new("config.toml")), BTreeSet::from([PathBuf::from(".")]));
    }
}
