//! Where are stored responses on disk?
//!
//! A file for each, in a folder that belongs to this proxy alone while it runs: 256 folders in it, by the first byte
//! of the key's hash, and names that tell key and age apart. What is where is known from an index in memory, which is
//! made anew at each start, behind the back of requests. Nothing here is needed: what cannot be read, is damaged or
//! gone is as if it had never been stored, and what cannot be written is not.
//!
//! Files are written under another name and renamed, so that a process that is killed leaves whole ones. They are not
//! forced to the medium: after a crash of the machine some may be torn, which their checksums show.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::HeaderMap;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter, sync};
use tokio::sync::{Notify, Semaphore, mpsc};
use xxhash_rust::xxh3::xxh3_128;

use super::{
    file::{self, Damaged, Head},
    key::Key,
    policy::{Selection, Time},
    purge::Purge,
    stored::Stored,
    voided::Voids,
};
use crate::{
    drain::Drain,
    private,
    telemetry::{Counter, sampled},
};

/// The tier of a cache that survives the process.
#[derive(Debug)]
pub struct Disk {
    shared: Arc<Shared>,
    orders: mpsc::Sender<Write>,
    /// Until somebody writes.
    received: Mutex<Option<mpsc::Receiver<Write>>>,
}

#[derive(Debug)]
struct Shared {
    folder: PathBuf,
    index: sync::Cache<Key, Files, BySize, DefaultHashBuilder, Evicted>,
    doomed: Arc<Doomed>,
    /// The folder is this proxy's.
    is_open: AtomicBool,
    /// How many of the folders in it are in the index; what is in the others is looked for when it is asked for.
    known: AtomicUsize,
    /// Held while the files of a key are replaced by others that were made of them.
    changing: Mutex<()>,
    /// What was declared void before all was known: it is not to come back.
    voided: Mutex<Vec<(Voided, Time)>>,
    /// Bytes that wait to be written.
    waiting: AtomicU64,
    reading: Semaphore,
    /// Tells files apart that are written in the same millisecond.
    next: AtomicU64,
    /// What the store above it knows to be void; another after a reload.
    voids: Mutex<Weak<Voids>>,
    counts: Counts,
}

/// How often what was done.
#[derive(Debug, Default)]
pub struct Counts {
    pub written: Counter,
    /// Since too much waited already.
    pub left_out: Counter,
    pub not_written: Counter,
    pub read: Counter,
    pub not_read: Counter,
    pub damaged: Counter,
}

/// The files of one key, the newest first.
#[derive(Debug, Clone, Default)]
struct Files(Arc<[File]>);

#[derive(Debug, Clone)]
struct File {
    name: Name,
    size: u64,
    selection: Selection,
    tags: Box<[Box<str>]>,
}

/// The name of a file: the hash of its key, and when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Name {
    hash: u128,
    /// Milliseconds since 1970, and twenty more bits.
    number: u64,
}

#[derive(Debug)]
struct Write {
    key: Key,
    stored: Arc<Stored>,
    asked: Time,
}

#[derive(Debug)]
enum Voided {
    All,
    Key(Key),
    Url(String),
    Prefix(String),
    Tag(String),
}

#[derive(Debug, Clone)]
struct BySize;

impl Weighter<Key, Files> for BySize {
    fn weight(&self, _: &Key, files: &Files) -> u64 {
        files.0.iter().map(|file| file.size).sum()
    }
}

/// Files that are to be removed.
#[derive(Debug, Default)]
struct Doomed {
    names: Mutex<Vec<Name>>,
    come: Notify,
}

#[derive(Debug, Clone)]
struct Evicted(Arc<Doomed>);

impl Lifecycle<Key, Files> for Evicted {
    type RequestState = ();

    fn on_evict(&self, (): &mut (), _: Key, files: Files) {
        self.0.add(files.0.iter().map(|file| file.name));
    }
}

impl Doomed {
    fn add(&self, names: impl Iterator<Item = Name>) {
        lock(&self.names).extend(names);
        self.come.notify_one();
    }
}

const FOLDERS: usize = 256;

impl Disk {
    /// Responses that may wait to be written, and bytes of them.
    const QUEUE: usize = 1024;
    const WAITING: u64 = 64 << 20;
    /// Files that are read at once.
    const READING: usize = 16;

    /// One in this folder, of so many bytes. Nothing is touched before it is kept.
    pub fn new(folder: PathBuf, size: u64, max_object: u64) -> Self {
        let shards = (size / max_object.saturating_mul(4).max(1)).clamp(1, 64) as usize;
        let options = OptionsBuilder::new()
            .shards(if shards.is_power_of_two() { shards } else { shards.next_power_of_two() / 2 })
            .estimated_items_capacity((size >> 15).clamp(1000, 100_000) as usize)
            .weight_capacity(size)
            .build()
            .expect("both numbers are given");
        let doomed = Arc::<Doomed>::default();
        let index = sync::Cache::with_options(
            options,
            BySize,
            DefaultHashBuilder::default(),
            Evicted(doomed.clone()),
        );
        let shared = Shared {
            folder,
            index,
            doomed,
            is_open: AtomicBool::new(false),
            known: AtomicUsize::new(0),
            changing: Mutex::default(),
            voided: Mutex::default(),
            waiting: AtomicU64::new(0),
            reading: Semaphore::new(Self::READING),
            next: AtomicU64::new(0),
            voids: Mutex::default(),
            counts: Counts::default(),
        };
        let (orders, received) = mpsc::channel(Self::QUEUE);
        Self { shared: Arc::new(shared), orders, received: Mutex::new(Some(received)) }
    }

    /// Has files written and removed for the store that these are the voids of, and what is there already found.
    pub fn keep(&self, voids: &Arc<Voids>, drain: &Drain) {
        *lock(&self.shared.voids) = Arc::downgrade(voids);
        if let Some(received) = lock(&self.received).take() {
            let keeper = Keeper { shared: self.shared.clone() };
            drain.spawn(keeper.run(received, drain.clone()));
        }
    }

    /// Has a response written, unless too much waits already.
    pub fn write(&self, key: &Key, stored: &Arc<Stored>, asked: Time) {
        let size = stored.body.len();
        let shared = &self.shared;
        let is_room = shared.waiting.fetch_add(size, Ordering::AcqRel) < Self::WAITING;
        let write = Write { key: key.clone(), stored: stored.clone(), asked };
        if !is_room || self.orders.try_send(write).is_err() {
            shared.waiting.fetch_sub(size, Ordering::AcqRel);
            shared.counts.left_out.add(1);
        }
    }

    /// Whether it is worth asking for what is on disk.
    pub fn may_have(&self, key: &Key, request: &HeaderMap) -> bool {
        let shared = &self.shared;
        shared.is_open.load(Ordering::Acquire)
            && (shared.known.load(Ordering::Acquire) < FOLDERS || shared.select(key, request).is_some())
    }

    /// What is on disk for requests like this one. The file is read away from the caller's thread.
    pub async fn read(&self, key: &Key, request: &HeaderMap) -> Option<Arc<Stored>> {
        let shared = &self.shared;
        let mut file = shared.select(key, request);
        if file.is_none() && shared.known.load(Ordering::Acquire) < FOLDERS {
            let (finding, hash) = (shared.clone(), hash(key));
            if !blocking(move || finding.find(folder_of(hash), Some(hash))).await.ok()? {
                return None;
            }
            file = shared.select(key, request);
        }
        let file = file?;
        let _permit = shared.reading.acquire().await.ok()?;
        let path = file.name.path(&shared.folder);
        let read = blocking(move || file::read(open(&path)?)).await.ok()?;
        let outcome = match read {
            Ok((head, body)) if head.key == *key => {
                shared.counts.read.add(1);
                return Some(Arc::new(head.into_stored(body)));
            }
            Ok(_) => Damaged::Content.into(),
            Err(error) => error,
        };
        shared.forget(key, |other| other.name == file.name);
        shared.unreadable(&outcome);
        None
    }

    /// Drops all that is stored for a key.
    pub fn invalidate(&self, key: &Key, now: Time) {
        self.shared.void(|| Voided::Key(key.clone()), now);
        self.shared.forget(key, |_| true);
    }

    /// Drops what is there for requests of this kind.
    pub fn drop_one(&self, key: &Key, selection: &Selection) {
        self.shared.forget(key, |file| file.selection == *selection);
    }

    /// Drops what is meant. How many responses that were for which `counts` holds.
    pub fn purge(&self, meant: Purge<'_>, now: Time, counts: impl Fn(&Key, &Selection) -> bool) -> usize {
        self.shared.void(
            || match meant {
                Purge::All => Voided::All,
                Purge::Url(url) => Voided::Url(url.to_owned()),
                Purge::Prefix(prefix) => Voided::Prefix(prefix.to_owned()),
                Purge::Tag(tag) => Voided::Tag(tag.to_owned()),
            },
            now,
        );
        let mut count = 0;
        let found: Vec<(Key, Files)> =
            self.shared.index.iter().filter(|(key, _)| meant.may_mean(key)).collect();
        for (key, files) in found {
            count += files
                .0
                .iter()
                .filter(|file| meant.means(&file.tags) && counts(&key, &file.selection))
                .count();
            self.shared.forget(&key, |file| meant.means(&file.tags));
        }
        count
    }

    pub fn entries(&self) -> usize {
        self.shared.index.len()
    }

    /// Bytes of the files.
    pub fn bytes(&self) -> u64 {
        self.shared.index.weight()
    }

    pub fn counts(&self) -> &Counts {
        &self.shared.counts
    }
}

impl Shared {
    fn select(&self, key: &Key, request: &HeaderMap) -> Option<File> {
        self.index.get(key)?.0.iter().find(|file| file.selection.matches(request)).cloned()
    }

    /// Puts files in the index that are in one of the folders: all of them, or those with this hash. Whether there
    /// are any.
    fn find(&self, number: usize, hash: Option<u128>) -> bool {
        let folder = self.folder.join(format!("{number:02x}"));
        let Ok(entries) = fs::read_dir(&folder) else { return false };
        let mut is_any = false;
        for entry in entries.flatten() {
            let file_name = entry.file_name();
            let Some(text) = file_name.to_str() else { continue };
            let Some((name, is_whole)) = Name::read(text).filter(|(name, _)| folder_of(name.hash) == number)
            else {
                continue;
            };
            if hash.is_some_and(|hash| hash != name.hash) {
                continue;
            }
            if !is_whole {
                // What was being written when the process ended; nobody else writes here.
                if hash.is_none() {
                    let _ = fs::remove_file(entry.path());
                }
                continue;
            }
            match open(&entry.path()).map_err(file::Error::from).and_then(|opened| file::read_head(&opened)) {
                Ok((head, size)) if self::hash(&head.key) == name.hash => {
                    is_any = true;
                    self.add(head, name, size);
                }
                Ok(_) | Err(file::Error::Damaged(_)) => {
                    self.counts.damaged.add(1);
                    let _ = fs::remove_file(entry.path());
                }
                // Something that is none of ours, or has gone meanwhile.
                Err(file::Error::Io(_)) => {}
            }
        }
        is_any
    }

    /// Puts a file in the index that was found.
    fn add(&self, head: Head, name: Name, size: u64) {
        let voided = lock(&self.voided);
        let is_void = voided.iter().any(|(voided, at)| name.written() <= *at && voided.means(&head));
        let file = File { name, size: on_disk(size), selection: head.selection, tags: head.tags };
        if is_void {
            self.doomed.add(std::iter::once(name));
        } else {
            self.put(head.key, file);
        }
    }

    /// Puts a file in the place of older ones for the same requests.
    fn put(&self, key: Key, file: File) {
        /// Responses to one key that differ in what they vary by.
        const VARIANTS: usize = 32;
        let _changing = lock(&self.changing);
        let before = self.index.peek(&key).unwrap_or_default();
        if before.0.iter().any(|other| other.name == file.name) {
            return;
        }
        let is_like = |other: &&File| other.selection == file.selection;
        if before.0.iter().filter(is_like).any(|other| other.name.number > file.name.number) {
            self.doomed.add(std::iter::once(file.name));
            return;
        }
        let (like, mut others): (Vec<File>, Vec<File>) =
            before.0.iter().cloned().partition(|other| is_like(&other));
        let beyond = others.split_off(others.len().min(VARIANTS - 1));
        self.doomed.add(like.iter().chain(&beyond).map(|file| file.name));
        others.insert(0, file);
        self.index.insert(key, Files(others.into()));
    }

    /// Takes files out of the index and has them removed.
    fn forget(&self, key: &Key, is_meant: impl Fn(&File) -> bool) {
        let _changing = lock(&self.changing);
        let Some(before) = self.index.peek(key) else { return };
        let (gone, left): (Vec<File>, Vec<File>) = before.0.iter().cloned().partition(is_meant);
        if gone.is_empty() {
            return;
        }
        if left.is_empty() {
            self.index.remove(key);
        } else {
            self.index.insert(key.clone(), Files(left.into()));
        }
        self.doomed.add(gone.iter().map(|file| file.name));
    }

    /// Notes what is void, for as long as not all is known that is on disk.
    fn void(&self, voided: impl FnOnce() -> Voided, now: Time) {
        if self.known.load(Ordering::Acquire) < FOLDERS {
            lock(&self.voided).push((voided(), now));
        }
    }

    fn unreadable(&self, error: &file::Error) {
        match error {
            file::Error::Damaged(_) => {
                self.counts.damaged.add(1);
                sampled!(warn, of: self.folder, %error, folder = %self.folder.display(), "a stored response was dropped");
            }
            file::Error::Io(source) => {
                self.counts.not_read.add(1);
                // Whoever clears the folder need not be told.
                if source.kind() != io::ErrorKind::NotFound {
                    sampled!(warn, of: self.folder, error = %source, folder = %self.folder.display(), "a stored response cannot be read");
                }
            }
        }
    }

    fn new_name(&self, key: &Key) -> Name {
        let count = self.next.fetch_add(1, Ordering::Relaxed) & 0xf_ffff;
        Name { hash: hash(key), number: Time::now().0 << 20 | count }
    }
}

/// Does what is done to files.
struct Keeper {
    shared: Arc<Shared>,
}

impl Keeper {
    /// How long nothing is written after something could not be.
    const PAUSE: Duration = Duration::from_secs(10);

    async fn run(self, mut orders: mpsc::Receiver<Write>, drain: Drain) {
        let Some(_lock) = self.take_folder(&drain).await else { return };
        let mut folder = 0;
        let mut pause: Option<tokio::time::Instant> = None;
        loop {
            self.remove_doomed().await;
            let order = if folder < FOLDERS {
                orders.try_recv().ok()
            } else {
                tokio::select! {
                    biased;
                    order = orders.recv() => match order {
                        Some(order) => Some(order),
                        // The cache has gone, or has another disk.
                        None => break,
                    },
                    () = self.shared.doomed.come.notified() => None,
                    () = drain.started() => break,
                }
            };
            if let Some(order) = order {
                self.take(order, &mut pause).await;
            }
            if folder < FOLDERS {
                let shared = self.shared.clone();
                let _ = blocking(move || shared.find(folder, None)).await;
                folder += 1;
                self.shared.known.store(folder, Ordering::Release);
                if folder == FOLDERS {
                    lock(&self.shared.voided).clear();
                    let (entries, bytes) = (self.shared.index.len(), self.shared.index.weight());
                    tracing::info!(entries, bytes, "stored responses were found on disk");
                }
            }
            if folder < FOLDERS && drain.has_started() {
                break;
            }
        }
        while let Ok(order) = orders.try_recv() {
            self.take(order, &mut pause).await;
        }
        self.remove_doomed().await;
        self.shared.is_open.store(false, Ordering::Release);
    }

    /// Makes the folder this proxy's own, for as long as what is returned is held. None if the proxy ends first.
    async fn take_folder(&self, drain: &Drain) -> Option<fs::File> {
        let mut is_told = false;
        loop {
            let folder = self.shared.folder.clone();
            let taken = blocking(move || -> io::Result<fs::File> {
                private::open_folder(&folder)?;
                let lock = fs::OpenOptions::new()
                    .create(true)
                    .truncate(false)
                    .write(true)
                    .mode(0o600)
                    .custom_flags(NO_SURPRISES)
                    .open(folder.join("lock"))?;
                lock.try_lock()?;
                Ok(lock)
            });
            let error = match taken.await {
                Ok(Ok(lock)) => {
                    self.shared.is_open.store(true, Ordering::Release);
                    return Some(lock);
                }
                Ok(Err(error)) => error,
                Err(_) => return None,
            };
            let folder = self.shared.folder.display();
            // Most often a process that is about to end.
            let wait = if error.kind() == io::ErrorKind::WouldBlock {
                Duration::from_millis(200)
            } else {
                Self::PAUSE
            };
            if !std::mem::replace(&mut is_told, true) {
                tracing::warn!(%folder, %error, "the folder for stored responses cannot be used yet");
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = drain.started() => return None,
            }
        }
    }

    /// Writes a response, unless it is out of date by now.
    async fn take(&self, Write { key, stored, asked }: Write, pause: &mut Option<tokio::time::Instant>) {
        let shared = &self.shared;
        shared.waiting.fetch_sub(stored.body.len(), Ordering::AcqRel);
        if pause.is_some_and(|until| tokio::time::Instant::now() < until) {
            shared.counts.not_written.add(1);
            return;
        }
        let name = shared.new_name(&key);
        let (writing, writes, path) = (stored.clone(), key.clone(), name.path(&shared.folder));
        let written = blocking(move || -> io::Result<u64> {
            if let Some(folder) = path.parent() {
                private::open_folder(folder)?;
            }
            let head = file::head(&writes, &writing);
            let checksum = file::checksum(writing.body.pieces());
            let pieces: Vec<&[u8]> = std::iter::once(&head[..])
                .chain(writing.body.pieces().iter().map(|piece| &piece[..]))
                .chain(std::iter::once(&checksum[..]))
                .collect();
            private::write(&path, &pieces)?;
            Ok(pieces.iter().map(|piece| piece.len() as u64).sum())
        });
        match written.await {
            Ok(Ok(size)) => {
                shared.counts.written.add(1);
                let file = File {
                    name,
                    size: on_disk(size),
                    selection: stored.selection.clone(),
                    tags: stored.tags.clone(),
                };
                let voids = lock(&shared.voids).upgrade();
                if !voids
                    .is_some_and(|voids| voids.unless_voided(&key, asked, || shared.put(key.clone(), file)))
                {
                    shared.doomed.add(std::iter::once(name));
                }
            }
            Ok(Err(error)) => {
                shared.counts.not_written.add(1);
                *pause = Some(tokio::time::Instant::now() + Self::PAUSE);
                tracing::warn!(%error, folder = %shared.folder.display(), "stored responses cannot be written for now");
            }
            Err(_) => {}
        }
    }

    async fn remove_doomed(&self) {
        let names = std::mem::take(&mut *lock(&self.shared.doomed.names));
        if names.is_empty() {
            return;
        }
        let shared = self.shared.clone();
        let _ = blocking(move || {
            for name in names {
                // One that is gone, or cannot be removed, is found at the next start at the latest.
                let _ = fs::remove_file(name.path(&shared.folder));
            }
        })
        .await;
    }
}

impl Voided {
    fn means(&self, head: &Head) -> bool {
        match self {
            Self::All => true,
            Self::Key(key) => head.key == *key,
            Self::Url(url) => head.key.url() == url,
            Self::Prefix(prefix) => head.key.url().starts_with(prefix),
            Self::Tag(tag) => head.tags.iter().any(|known| **known == **tag),
        }
    }
}

impl Name {
    /// The name that a text is, or begins with; and whether that is all of it.
    fn read(text: &str) -> Option<(Self, bool)> {
        let digits =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let (name, rest) = text.split_at_checked(49)?;
        let (hash, number) = name.split_once('-').filter(|(hash, number)| digits(hash) && digits(number))?;
        if hash.len() != 32 || !(rest.is_empty() || rest.starts_with('.')) {
            return None;
        }
        let name = Self {
            hash: u128::from_str_radix(hash, 16).ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        };
        Some((name, rest.is_empty()))
    }

    fn path(self, folder: &Path) -> PathBuf {
        folder.join(format!("{:02x}/{:032x}-{:016x}", folder_of(self.hash), self.hash, self.number))
    }

    fn written(self) -> Time {
        Time(self.number >> 20)
    }
}

fn hash(key: &Key) -> u128 {
    xxh3_128(key.as_str().as_bytes())
}

fn folder_of(hash: u128) -> usize {
    (hash >> 120) as usize
}

/// What a file takes: whole blocks.
fn on_disk(size: u64) -> u64 {
    size.next_multiple_of(4096)
}

/// No links are followed, and nothing is waited for that is no file.
const NO_SURPRISES: i32 = (rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::NONBLOCK.bits()) as i32;

fn open(path: &Path) -> io::Result<fs::File> {
    let file = fs::OpenOptions::new().read(true).custom_flags(NO_SURPRISES).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "this is no file"))
    }
}

/// Does what may wait for a disk away from the caller's thread. An error if the runtime ends.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> Result<T, tokio::task::JoinError> {
    tokio::task::spawn_blocking(call).await
}

/// What a holder of the lock leaves is whole even if it panicked.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
