//! What does a plugin remember, on all workers and over reloads?
//!
//! A table in shards, each behind a lock that is held for the time of one look-up. Nothing here waits, and
//! nothing reads a clock: `now` is time since any moment that stays the same. What has expired is gone for
//! whoever asks; its place is cleared by later writes and by [`Store::sweep`]. A bucket that has no room takes the place of
//! another that has not been drawn from of late: whoever fills a store must not keep others from being counted.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use lru::LruCache;
use rustc_hash::FxHasher;

/// What one plugin keeps. Clones are the same store.
#[derive(Debug, Clone)]
pub struct Store {
    contents: Arc<Contents>,
    quota: Quota,
}

/// The same store, with the same quota.
impl PartialEq for Store {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.contents, &other.contents) && self.quota == other.quota
    }
}

/// What a store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes of keys and values, and of what it takes to keep them.
    pub memory: usize,
    pub entries: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self { memory: 16 << 20, entries: 100_000 }
    }
}

/// What a store holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    pub memory: usize,
    pub entries: usize,
}

/// Why the store did not do as it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    #[error("the store is full")]
    Full,
    #[error("the key or the value is too large")]
    TooLarge,
    #[error("what is there is of another kind")]
    WrongKind,
}

#[derive(Debug, Default)]
struct Contents {
    shards: [Mutex<Shard>; Store::SHARDS],
    memory: AtomicUsize,
    entries: AtomicUsize,
}

#[derive(Debug)]
struct Shard {
    /// In the order in which they were last looked at. It has no bound of its own, as the quota is for all shards.
    entries: LruCache<Arc<str>, Entry>,
    /// When to look whether an entry has expired. An entry that is prolonged keeps its alarm, and is given
    /// another when that has rung.
    alarms: BinaryHeap<Reverse<(Duration, Arc<str>)>>,
}

impl Default for Shard {
    fn default() -> Self {
        Self { entries: LruCache::unbounded(), alarms: BinaryHeap::new() }
    }
}

#[derive(Debug)]
struct Entry {
    value: Value,
    expires: Option<Duration>,
    /// The earliest of its alarms.
    alarm: Option<Duration>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Bytes(Box<[u8]>),
    Number(i32),
    /// When the bucket will be full again, in nanoseconds.
    Bucket(u128),
}

/// What becomes of an entry.
enum Change {
    Keep,
    Put(Value, Expiry),
}

enum Expiry {
    AsBefore,
    At(Option<Duration>),
}

impl Store {
    /// Bytes of a key.
    pub const KEY: usize = 1 << 10;
    /// Bytes of a value.
    pub const VALUE: usize = 256 << 10;
    /// What an entry is taken to cost beside its key and its value.
    pub const ENTRY: usize = 128;

    /// More than there are cores, so that two seldom meet.
    const SHARDS: usize = 32;
    /// Entries looked at for a bucket that can go, in one shard, and in all until there is one.
    const LOOKED_AT_IN_A_SHARD: usize = 32;
    const LOOKED_AT: usize = 256;
    /// Buckets that make room for one more, at most: its key may be longer than theirs.
    const EVICTED: usize = 16;
    /// Alarms that a write attends to beside its own business.
    const CLEARED_BY_WRITE: usize = 2;

    pub fn new(quota: Quota) -> Self {
        Self { contents: Arc::default(), quota }
    }

    /// The same store with another quota. What is more than that stays until it expires.
    pub fn with_quota(&self, quota: Quota) -> Self {
        Self { contents: self.contents.clone(), quota }
    }

    /// The value of a key. A number is its decimal text.
    pub fn get(&self, key: &str, now: Duration) -> Result<Option<Vec<u8>>, StoreError> {
        if key.len() > Self::KEY {
            return Ok(None);
        }
        let mut shard = self.shard(key);
        match shard.entries.get(key).filter(|entry| entry.is_live(now)).map(|entry| &entry.value) {
            None => Ok(None),
            Some(Value::Bytes(bytes)) => Ok(Some(bytes.to_vec())),
            Some(Value::Number(number)) => Ok(Some(number.to_string().into_bytes())),
            Some(Value::Bucket(_)) => Err(StoreError::WrongKind),
        }
    }

    /// Puts a value in the place of whatever was there, for so long or for good.
    pub fn set(
        &self,
        key: &str,
        value: Vec<u8>,
        ttl: Option<Duration>,
        now: Duration,
    ) -> Result<(), StoreError> {
        let size = value.len();
        let expiry = Expiry::At(ttl.map(|ttl| now + ttl));
        self.change(key, size, now, |_| Ok((Change::Put(Value::Bytes(value.into()), expiry), ())))
    }

    /// Puts a value in the place of `old`, and only of that; of nothing if that is none. Whether it did.
    pub fn compare_and_set(
        &self,
        key: &str,
        old: Option<&[u8]>,
        new: Vec<u8>,
        ttl: Option<Duration>,
        now: Duration,
    ) -> Result<bool, StoreError> {
        let size = new.len();
        let expiry = Expiry::At(ttl.map(|ttl| now + ttl));
        self.change(key, size, now, |current| {
            let is_old = match (current, old) {
                (None, None) => true,
                (Some(Value::Bytes(bytes)), Some(old)) => **bytes == *old,
                (Some(Value::Number(number)), Some(old)) => number.to_string().as_bytes() == old,
                (None, Some(_)) | (Some(_), None) => false,
                (Some(Value::Bucket(_)), Some(_)) => return Err(StoreError::WrongKind),
            };
            Ok(if is_old {
                (Change::Put(Value::Bytes(new.into()), expiry), true)
            } else {
                (Change::Keep, false)
            })
        })
    }

    /// Adds to a number, which is 0 if it is not there, and says what it is now. It ends at the ends of its
    /// type. The `ttl` counts from when the number came to be.
    pub fn increment(
        &self,
        key: &str,
        delta: i32,
        ttl: Option<Duration>,
        now: Duration,
    ) -> Result<i32, StoreError> {
        self.change(key, 0, now, |current| {
            let (number, expiry) = match current {
                None => (0, Expiry::At(ttl.map(|ttl| now + ttl))),
                Some(Value::Number(number)) => (*number, Expiry::AsBefore),
                Some(Value::Bytes(bytes)) => {
                    let number = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
                    (number.ok_or(StoreError::WrongKind)?, Expiry::AsBefore)
                }
                Some(Value::Bucket(_)) => return Err(StoreError::WrongKind),
            };
            let number = number.saturating_add(delta);
            Ok((Change::Put(Value::Number(number), expiry), number))
        })
    }

    /// Takes `cost` tokens out of a bucket that holds `burst` and gets `per_second` back. None if they were
    /// there, and otherwise how many milliseconds it takes until they are; at most, if they never will be.
    ///
    /// A bucket is one number, the time at which it will be full again (the generic cell rate algorithm), and
    /// is forgotten when it is.
    pub fn take(
        &self,
        key: &str,
        cost: u32,
        per_second: f64,
        burst: u32,
        now: Duration,
    ) -> Result<Option<u32>, StoreError> {
        let Some(interval) = interval(per_second).filter(|_| cost <= burst) else {
            return Ok(Some(u32::MAX));
        };
        for _ in 0..Self::EVICTED {
            let taken = self.take_of(key, cost, interval, burst, now);
            if taken != Err(StoreError::Full) || !self.evict_bucket(key, now) {
                return taken;
            }
        }
        self.take_of(key, cost, interval, burst, now)
    }

    fn take_of(
        &self,
        key: &str,
        cost: u32,
        interval: u128,
        burst: u32,
        now: Duration,
    ) -> Result<Option<u32>, StoreError> {
        let tokens = |count: u32| u128::from(count) * interval;
        self.change(key, 0, now, |current| {
            let now = now.as_nanos();
            let full = match current {
                None => now,
                Some(Value::Bucket(full)) => (*full).max(now),
                Some(Value::Bytes(_) | Value::Number(_)) => return Err(StoreError::WrongKind),
            };
            let next = full + tokens(cost);
            let wait = next.saturating_sub(now + tokens(burst));
            if wait > 0 {
                let milliseconds = u32::try_from(wait.div_ceil(1_000_000)).unwrap_or(u32::MAX);
                return Ok((Change::Keep, Some(milliseconds)));
            }
            if next == now {
                return Ok((Change::Keep, None));
            }
            let expires = u64::try_from(next).ok().map(Duration::from_nanos);
            Ok((Change::Put(Value::Bucket(next), Expiry::At(expires)), None))
        })
    }

    /// How many whole tokens there are in a bucket that [`Store::take`] takes from.
    pub fn tokens(&self, key: &str, per_second: f64, burst: u32, now: Duration) -> Result<u32, StoreError> {
        let Some(interval) = interval(per_second) else { return Ok(0) };
        if key.len() > Self::KEY {
            return Ok(burst);
        }
        let mut shard = self.shard(key);
        let full = match shard.entries.get(key).filter(|entry| entry.is_live(now)).map(|entry| &entry.value) {
            None => return Ok(burst),
            Some(Value::Bucket(full)) => *full,
            Some(Value::Bytes(_) | Value::Number(_)) => return Err(StoreError::WrongKind),
        };
        let missing = full.saturating_sub(now.as_nanos()).div_ceil(interval.max(1));
        Ok(burst.saturating_sub(u32::try_from(missing).unwrap_or(u32::MAX)))
    }

    /// Forgets a key.
    pub fn delete(&self, key: &str) {
        if key.len() > Self::KEY {
            return;
        }
        let mut shard = self.shard(key);
        if let Some((key, entry)) = shard.entries.pop_entry(key) {
            self.contents.release(&key, &entry);
        }
    }

    /// Clears what has expired away.
    pub fn sweep(&self, now: Duration) {
        for shard in &self.contents.shards {
            let mut shard = lock(shard);
            while self.contents.clear_one(&mut shard, now) {}
            shard.shrink();
        }
    }

    pub fn usage(&self) -> Usage {
        Usage {
            memory: self.contents.memory.load(Ordering::Relaxed),
            entries: self.contents.entries.load(Ordering::Relaxed),
        }
    }

    /// What is there, in no order: of a bucket, nothing.
    pub fn entries(&self, now: Duration) -> Vec<(String, Vec<u8>)> {
        let shards = self.contents.shards.iter().map(lock);
        let of = |shard: MutexGuard<'_, Shard>| -> Vec<(String, Vec<u8>)> {
            let live = shard.entries.iter().filter(|(_, entry)| entry.is_live(now));
            live.filter_map(|(key, entry)| match &entry.value {
                Value::Bytes(bytes) => Some((key.to_string(), bytes.to_vec())),
                Value::Number(number) => Some((key.to_string(), number.to_string().into_bytes())),
                Value::Bucket(_) => None,
            })
            .collect()
        };
        shards.flat_map(of).collect()
    }

    fn shard(&self, key: &str) -> MutexGuard<'_, Shard> {
        lock(&self.contents.shards[place(key)])
    }

    /// Makes of a key's value what `decide` says. `size` is of the value that may come.
    fn change<T>(
        &self,
        key: &str,
        size: usize,
        now: Duration,
        decide: impl FnOnce(Option<&Value>) -> Result<(Change, T), StoreError>,
    ) -> Result<T, StoreError> {
        if key.len() > Self::KEY || size > Self::VALUE {
            return Err(StoreError::TooLarge);
        }
        // Before the shard is locked, since no one holds two.
        self.make_room(key.len() + size + Self::ENTRY, now);
        let mut shard = self.shard(key);
        let Shard { entries, alarms } = &mut *shard;
        let known = entries.get_mut(key);
        let live = known.as_deref().filter(|entry| entry.is_live(now));
        let (change, outcome) = decide(live.map(|entry| &entry.value))?;
        match (change, known) {
            (Change::Keep, _) => {}
            (Change::Put(value, expiry), Some(entry)) => {
                let (was, is) = (entry.value.size(), value.size());
                self.claim(0, is.saturating_sub(was))?;
                if was > is {
                    self.contents.memory.fetch_sub(was - is, Ordering::Relaxed);
                }
                entry.value = value;
                entry.expire(expiry, || key.into(), alarms);
            }
            (Change::Put(value, expiry), None) => {
                let mut entry = Entry { value, expires: None, alarm: None };
                self.claim(1, cost(key, &entry))?;
                let key: Arc<str> = key.into();
                entry.expire(expiry, || key.clone(), alarms);
                entries.put(key, entry);
            }
        }
        // Only now, so that what has expired and comes again keeps its place: a bucket that is drawn from now and then
        // has mostly been full before.
        for _ in 0..Self::CLEARED_BY_WRITE {
            self.contents.clear_one(&mut shard, now);
        }
        drop_stale(&mut shard);
        Ok(outcome)
    }

    /// Counts what is about to be put in, if there is room for it.
    fn claim(&self, entries: usize, memory: usize) -> Result<(), StoreError> {
        let Contents { entries: all_entries, memory: all_memory, .. } = &*self.contents;
        // What is the same size as before, which is most of what is counted, touches nothing that is shared.
        if entries > 0 && all_entries.fetch_add(entries, Ordering::Relaxed) + entries > self.quota.entries {
            all_entries.fetch_sub(entries, Ordering::Relaxed);
            return Err(StoreError::Full);
        }
        if memory > 0 && all_memory.fetch_add(memory, Ordering::Relaxed) + memory > self.quota.memory {
            all_memory.fetch_sub(memory, Ordering::Relaxed);
            all_entries.fetch_sub(entries, Ordering::Relaxed);
            return Err(StoreError::Full);
        }
        Ok(())
    }

    /// Forgets a bucket, if there is one, for another that comes to be at `key`: of some that were not drawn from for
    /// longest, the one that is full again first. Whoever draws from it finds a full one. One that is empty stays, so that
    /// nobody gets rid of having had enough by filling the store.
    fn evict_bucket(&self, key: &str, now: Duration) -> bool {
        let mut looked_at = 0;
        let mut first: Option<(u128, usize, Arc<str>)> = None;
        for step in 0..Self::SHARDS {
            let index = (place(key) + step) % Self::SHARDS;
            let (count, found) = lock(&self.contents.shards[index]).oldest_bucket();
            looked_at += count;
            if let Some((full, key)) = found
                && first.as_ref().is_none_or(|(other, ..)| full < *other)
            {
                first = Some((full, index, key));
            }
            let is_full = first.as_ref().is_some_and(|(full, ..)| *full <= now.as_nanos());
            if is_full || (first.is_some() && looked_at >= Self::LOOKED_AT) {
                break;
            }
        }
        let Some((_, index, key)) = first else { return false };
        let mut shard = lock(&self.contents.shards[index]);
        // Somebody may have put something else there meanwhile.
        if shard.entries.peek(&key).is_some_and(|entry| matches!(entry.value, Value::Bucket(_)))
            && let Some((key, entry)) = shard.entries.pop_entry(&key)
        {
            self.contents.release(&key, &entry);
        }
        true
    }

    /// Clears expired entries away, if there is no room for another, until there is.
    fn make_room(&self, memory: usize, now: Duration) {
        let is_full = || {
            let usage = self.usage();
            usage.entries >= self.quota.entries || usage.memory + memory > self.quota.memory
        };
        if !is_full() {
            return;
        }
        for shard in &self.contents.shards {
            let mut shard = lock(shard);
            while self.contents.clear_one(&mut shard, now) {
                if !is_full() {
                    return;
                }
            }
        }
    }
}

impl Contents {
    /// Attends to one alarm that is due, if there is one.
    fn clear_one(&self, shard: &mut Shard, now: Duration) -> bool {
        let Shard { entries, alarms } = shard;
        let Some(due) = alarms.peek_mut().filter(|alarm| alarm.0.0 <= now) else { return false };
        let Reverse((at, key)) = std::collections::binary_heap::PeekMut::pop(due);
        // That it is looked at here is no use of it.
        let Some(entry) = entries.peek_mut(&key).filter(|entry| entry.alarm == Some(at)) else {
            return true;
        };
        if entry.is_live(now) {
            entry.alarm = entry.expires;
            alarms.extend(entry.expires.map(|expires| Reverse((expires, key))));
        } else if let Some((key, entry)) = entries.pop_entry(&key) {
            self.release(&key, &entry);
        }
        true
    }

    fn release(&self, key: &str, entry: &Entry) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.memory.fetch_sub(cost(key, entry), Ordering::Relaxed);
    }
}

impl Shard {
    /// Of the buckets that were not drawn from for longest, the one that is full again first, and when that is; and how many
    /// entries were looked at.
    fn oldest_bucket(&mut self) -> (usize, Option<(u128, Arc<str>)>) {
        let mut values = Vec::new();
        let mut first: Option<(u128, Arc<str>)> = None;
        let mut count = 0;
        for (key, entry) in self.entries.iter().rev().take(Store::LOOKED_AT_IN_A_SHARD) {
            count += 1;
            match &entry.value {
                Value::Bucket(full) => {
                    if first.as_ref().is_none_or(|(other, _)| full < other) {
                        first = Some((*full, key.clone()));
                    }
                }
                Value::Bytes(_) | Value::Number(_) => values.push(key.clone()),
            }
        }
        // Values do not go, and those that nobody asks for must not hide the buckets behind them next time.
        for key in values {
            self.entries.promote(&key);
        }
        (count, first)
    }

    /// Gives memory back that was needed once.
    fn shrink(&mut self) {
        // Alarms were as many as entries, of which each is freed by itself.
        if self.alarms.capacity() > 64 && self.alarms.len() < self.alarms.capacity() / 4 {
            let mut fewer = LruCache::unbounded();
            while let Some((key, entry)) = self.entries.pop_lru() {
                fewer.put(key, entry);
            }
            self.entries = fewer;
            self.alarms.shrink_to_fit();
        }
    }
}

impl Entry {
    fn is_live(&self, now: Duration) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    fn expire(
        &mut self,
        expiry: Expiry,
        key: impl FnOnce() -> Arc<str>,
        alarms: &mut BinaryHeap<Reverse<(Duration, Arc<str>)>>,
    ) {
        let Expiry::At(expires) = expiry else { return };
        self.expires = expires;
        if let Some(expires) = expires
            && self.alarm.is_none_or(|alarm| expires < alarm)
        {
            self.alarm = Some(expires);
            alarms.push(Reverse((expires, key())));
        }
    }
}

impl Value {
    /// In bytes, beside what every entry costs.
    fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Number(_) | Self::Bucket(_) => 0,
        }
    }
}

fn cost(key: &str, entry: &Entry) -> usize {
    Store::ENTRY + key.len() + entry.value.size()
}

/// Drops alarms that are nobody's any more, if they have become many.
fn drop_stale(shard: &mut Shard) {
    let Shard { entries, alarms } = shard;
    if alarms.len() > 2 * entries.len() + 64 {
        let is_set = |alarm: &Reverse<(Duration, Arc<str>)>| {
            entries.peek(&alarm.0.1).is_some_and(|entry| entry.alarm == Some(alarm.0.0))
        };
        alarms.retain(is_set);
    }
}

/// Which shard a key is in. Whoever can choose keys may choose the shard, and gains nothing by it.
fn place(key: &str) -> usize {
    let mut hasher = FxHasher::default();
    key.hash(&mut hasher);
    (hasher.finish() >> 32) as usize % Store::SHARDS
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Nanoseconds from one token to the next. None of what is not a rate, which must not let everybody pass.
fn interval(per_second: f64) -> Option<u128> {
    /// Whoever gives a token less often gives none.
    const LONGEST: f64 = 365.0 * 24.0 * 3600.0 * 1e9;
    let interval = 1e9 / per_second;
    let is_rate = per_second.is_sign_positive() && (0.0..=LONGEST).contains(&interval);
    is_rate.then_some(interval as u128)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: Quota = Quota { memory: 16 << 20, entries: 100_000 };

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn text(store: &Store, key: &str, now: u64) -> Option<String> {
        store.get(key, ms(now)).unwrap().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn a_value_is_there_until_it_expires() {
        let store = Store::new(LARGE);
        store.set("a", b"1".to_vec(), Some(ms(100)), ms(1000)).unwrap();
        store.set("b", b"2".to_vec(), None, ms(1000)).unwrap();
        assert_eq!(text(&store, "a", 1099).as_deref(), Some("1"));
        assert_eq!(text(&store, "a", 1100), None);
        assert_eq!(text(&store, "b", u64::MAX / 2).as_deref(), Some("2"));
        store.set("a", b"3".to_vec(), None, ms(1050)).unwrap();
        store.sweep(ms(2000));
        assert_eq!(text(&store, "a", 2000).as_deref(), Some("3"), "an old alarm does not end a new value");
        store.delete("b");
        assert_eq!(text(&store, "b", 2000), None);
    }

    #[test]
    fn what_has_expired_leaves_nothing_behind() {
        let store = Store::new(LARGE);
        for number in 0..1000 {
            let key = format!("key {number}");
            // Prolonged twice, and then cut short.
            for ttl in [100, 200, 300, 50] {
                store.set(&key, vec![0; number], Some(ms(ttl)), ms(0)).unwrap();
            }
            store.increment(&format!("number {number}"), 1, Some(ms(60)), ms(0)).unwrap();
            store.take(&format!("bucket {number}"), 1, 100.0, 10, ms(0)).unwrap();
        }
        assert_eq!(store.usage().entries, 3000);
        store.sweep(ms(10));
        assert_eq!(store.usage().entries, 2000, "a bucket that is full again is none");
        store.sweep(ms(50));
        assert_eq!(store.usage().entries, 1000);
        store.sweep(ms(60));
        assert_eq!(store.usage(), Usage { memory: 0, entries: 0 });
        let shards = store.contents.shards.iter().map(lock);
        // The alarms of values that were cut short ring later.
        assert!(shards.map(|shard| shard.alarms.len()).sum::<usize>() <= 1000 + 64 * 32);
        store.sweep(ms(1000));
        assert!(store.contents.shards.iter().map(lock).all(|shard| shard.alarms.is_empty()));
    }

    #[test]
    fn alarms_do_not_pile_up() {
        let store = Store::new(LARGE);
        for ttl in (1..100_000).rev() {
            store.set("a", vec![], Some(ms(ttl)), ms(0)).unwrap();
        }
        assert!(store.shard("a").alarms.len() <= 67);
        store.sweep(ms(1));
        assert_eq!(store.usage().entries, 0);
    }

    #[test]
    fn a_full_store_takes_no_more_until_something_has_expired() {
        let store = Store::new(Quota { memory: 1 << 20, entries: 10 });
        for number in 0..10 {
            store.set(&number.to_string(), vec![], Some(ms(100 + number)), ms(0)).unwrap();
        }
        assert_eq!(store.set("more", vec![], None, ms(0)), Err(StoreError::Full));
        assert_eq!(store.increment("more", 1, None, ms(0)), Err(StoreError::Full));
        assert_eq!(store.take("more", 1, 1.0, 1, ms(0)), Err(StoreError::Full), "values do not make room");
        store.set("0", b"another".to_vec(), None, ms(0)).unwrap();
        assert_eq!(store.set("more", vec![], None, ms(100)), Err(StoreError::Full), "it was prolonged");
        store.set("more", vec![], None, ms(101)).unwrap();
        assert_eq!(store.usage().entries, 10);

        let store = Store::new(Quota { memory: 1000, entries: 10 });
        let room = 1000 - Store::ENTRY - 1;
        store.set("a", vec![0; room], None, ms(0)).unwrap();
        assert_eq!(store.set("a", vec![0; room + 1], None, ms(0)), Err(StoreError::Full));
        assert_eq!(store.get("a", ms(0)).unwrap().unwrap().len(), room, "what was there stays");
        store.set("a", vec![], None, ms(0)).unwrap();
        assert_eq!(store.usage().memory, Store::ENTRY + 1);
        let smaller = store.with_quota(Quota { memory: 1, entries: 1 });
        assert_eq!(smaller.set("a", vec![1], None, ms(0)), Err(StoreError::Full));
        smaller.delete("a");
        assert_eq!(store.usage(), Usage { memory: 0, entries: 0 });
    }

    #[test]
    fn a_newcomer_is_counted_however_many_buckets_fill_the_store() {
        let store = Store::new(Quota { memory: 1 << 20, entries: 1000 });
        let take = |key: &str, cost| store.take(key, cost, 0.01, 10, ms(0));
        store.set("secret", b"kept".to_vec(), None, ms(0)).unwrap();
        assert_eq!(take("exhausted", 10), Ok(None));
        for number in 0..20_000 {
            assert_eq!(take(&format!("newcomer {number}"), 1), Ok(None));
        }
        assert_eq!(store.usage().entries, 1000);
        assert_eq!(take("exhausted", 1), Ok(Some(100_000)), "an empty bucket does not become a full one");
        assert_eq!(take("newcomer 19999", 10), Ok(Some(100_000)), "it was drawn from last");
        assert_eq!(take("newcomer 0", 10), Ok(None), "it was forgotten");
        assert_eq!(text(&store, "secret", 0).as_deref(), Some("kept"), "values do not make room");
        // By memory, too.
        let store = Store::new(Quota { memory: 10_000, entries: 1000 });
        for number in 0..1000 {
            let key = format!("{number:0width$}", width = number % 900 + 4);
            assert_eq!(store.take(&key, 1, 0.01, 10, ms(0)), Ok(None), "{number}");
            assert!(store.usage().memory <= 10_000);
        }
    }

    #[test]
    fn an_empty_bucket_stays_however_few_there_are() {
        for entries in [2, 3, 10, 100] {
            let store = Store::new(Quota { memory: 1 << 20, entries });
            assert_eq!(store.take("exhausted", 10, 0.01, 10, ms(0)), Ok(None));
            for number in 0..500 {
                assert_eq!(store.take(&format!("newcomer {number}"), 1, 0.01, 10, ms(0)), Ok(None));
            }
            assert_eq!(store.take("exhausted", 1, 0.01, 10, ms(0)), Ok(Some(100_000)), "{entries}");
            assert_eq!(store.usage().entries, entries);
        }
    }

    #[test]
    fn values_that_nobody_asks_for_do_not_hide_buckets() {
        let store = Store::new(Quota { memory: 1 << 20, entries: 4000 });
        for number in 0..3900 {
            store.set(&format!("value {number}"), vec![], None, ms(0)).unwrap();
        }
        for number in 0..2000 {
            let taken = store.take(&format!("bucket {number}"), 1, 0.01, 10, ms(0));
            assert!(taken == Ok(None) || taken == Err(StoreError::Full), "{taken:?}");
        }
        for number in 2000..3000 {
            assert_eq!(store.take(&format!("bucket {number}"), 1, 0.01, 10, ms(0)), Ok(None), "{number}");
        }
        assert_eq!(store.usage().entries, 4000);
    }

    #[test]
    fn keys_and_values_have_an_end() {
        let store = Store::new(LARGE);
        let key = "k".repeat(Store::KEY + 1);
        assert_eq!(store.set(&key, vec![], None, ms(0)), Err(StoreError::TooLarge));
        assert_eq!(store.take(&key, 1, 1.0, 1, ms(0)), Err(StoreError::TooLarge));
        assert_eq!(store.set("k", vec![0; Store::VALUE + 1], None, ms(0)), Err(StoreError::TooLarge));
        assert_eq!(store.get(&key, ms(0)), Ok(None));
        assert_eq!(store.tokens(&key, 1.0, 1, ms(0)), Ok(1));
    }

    #[test]
    fn a_number_counts_within_its_time_and_its_type() {
        let store = Store::new(LARGE);
        assert_eq!(store.increment("n", 5, Some(ms(100)), ms(0)), Ok(5));
        assert_eq!(store.increment("n", -7, Some(ms(100)), ms(50)), Ok(-2));
        assert_eq!(text(&store, "n", 99).as_deref(), Some("-2"));
        assert_eq!(store.increment("n", 1, None, ms(100)), Ok(1), "its time was not prolonged");
        assert_eq!(store.increment("n", i32::MAX, None, ms(100)), Ok(i32::MAX));
        store.set("n", b"41".to_vec(), None, ms(100)).unwrap();
        assert_eq!(store.increment("n", 1, None, ms(100)), Ok(42));
        store.set("n", b"many".to_vec(), None, ms(100)).unwrap();
        assert_eq!(store.increment("n", 1, None, ms(100)), Err(StoreError::WrongKind));
        assert_eq!(store.take("n", 1, 1.0, 1, ms(100)), Err(StoreError::WrongKind));
    }

    #[test]
    fn a_value_is_set_if_it_is_as_expected() {
        let store = Store::new(LARGE);
        let set = |old: Option<&str>, new: &str, now| {
            store.compare_and_set("a", old.map(str::as_bytes), new.into(), Some(ms(100)), ms(now)).unwrap()
        };
        assert!(!set(Some("1"), "2", 0));
        assert!(set(None, "1", 0));
        assert!(!set(None, "2", 0));
        assert!(!set(Some("2"), "3", 0));
        assert!(set(Some("1"), "2", 0));
        assert!(set(None, "3", 100), "what has expired is not there");
        assert_eq!(text(&store, "a", 100).as_deref(), Some("3"));
    }

    #[test]
    fn a_bucket_gives_a_burst_and_then_a_rate() {
        let store = Store::new(LARGE);
        let take = |cost, now| store.take("b", cost, 3.0, 4, ms(now)).unwrap();
        assert_eq!((0..5).map(|_| take(1, 0)).collect::<Vec<_>>(), [None, None, None, None, Some(334)]);
        assert_eq!(take(1, 333), Some(1), "in whole milliseconds, and never too early");
        let tokens = |now| store.tokens("b", 3.0, 4, ms(now)).unwrap();
        assert_eq!((tokens(0), tokens(333), tokens(334), tokens(100_000)), (0, 0, 1, 4));
        assert_eq!(take(1, 334), None);
        assert_eq!(tokens(334), 0);
        assert_eq!(take(2, 334), Some(666));
        assert_eq!(take(0, 334), None, "what costs nothing passes");
        assert_eq!(take(4, 100_000), None, "it fills up to the burst and no further");
        assert_eq!(take(1, 100_000), Some(334));
        assert_eq!(take(5, 200_000), Some(u32::MAX), "more than the burst never passes");
    }

    #[test]
    fn what_is_not_a_rate_lets_nobody_pass() {
        let store = Store::new(LARGE);
        for rate in [0.0, -1.0, f64::NAN, f64::NEG_INFINITY, 1e-300, -0.0] {
            assert_eq!(store.take("b", 1, rate, u32::MAX, ms(0)), Ok(Some(u32::MAX)), "{rate}");
            assert_eq!(store.tokens("b", rate, u32::MAX, ms(0)), Ok(0), "{rate}");
        }
        assert_eq!(store.tokens("b", f64::INFINITY, 1, ms(0)), Ok(1));
        assert_eq!(store.take("b", 1, f64::INFINITY, 1, ms(0)), Ok(None));
        assert_eq!(store.take("slow", u32::MAX, 1e-7, u32::MAX, ms(0)), Ok(None));
        assert_eq!(store.take("slow", 1, 1e-7, u32::MAX, ms(0)), Ok(Some(u32::MAX)));
    }

    #[test]
    fn threads_that_count_together_lose_nothing() {
        let store = Store::new(Quota { memory: 1 << 20, entries: 50 });
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..10_000_u32 {
                        store.increment("all", 1, None, ms(0)).unwrap();
                        let key = format!("{}", number % 100);
                        let _ = store.set(&key, vec![0; number as usize % 7], Some(ms(1)), ms(number.into()));
                        store.delete(&key);
                    }
                });
            }
        });
        assert_eq!(text(&store, "all", 0).as_deref(), Some("40000"));
        store.delete("all");
        store.sweep(ms(100_000));
        assert_eq!(store.usage(), Usage { memory: 0, entries: 0 });
    }
}
