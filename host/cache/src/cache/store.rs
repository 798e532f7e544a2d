//! Where are stored responses in memory?
//!
//! One store for all workers, in shards. What is used once only makes room for what is used again (S3-FIFO).

use std::sync::Arc;

use http::HeaderMap;
use quick_cache::{OptionsBuilder, Weighter, sync};

use super::{
    disk::Disk,
    fill::{Fetches, FillResult, Filling},
    key::Key,
    policy::{Selection, Time},
    purge::Purge,
    stored::{Stored, is_whole},
    voided::Voids,
};

/// Stored responses, by key.
#[derive(Debug)]
pub struct Store {
    resources: sync::Cache<Key, Resource, ByBytes>,
    fetches: Arc<Fetches>,
    /// A response that was asked for before is not stored.
    voids: Arc<Voids>,
    /// What is stored is written there as well.
    disk: Option<Arc<Disk>>,
}

/// What is known of a key: the stored responses to it, which differ in what they vary by, the newest first.
#[derive(Debug, Clone, Default)]
pub struct Resource(Arc<Known>);

#[derive(Debug, Clone, Default)]
struct Known {
    variants: Vec<Arc<Stored>>,
    /// Until when responses are expected not to be stored, so that nobody waits for another's.
    passes_until: Time,
    /// Bytes it takes with its key. Said once, since what the cache counts in must not change.
    size: u64,
}

#[derive(Debug, Clone)]
struct ByBytes {
    /// What the smallest entry counts for, so that there are not too many of them.
    least: u64,
}

impl Weighter<Key, Resource> for ByBytes {
    fn weight(&self, _: &Key, resource: &Resource) -> u64 {
        resource.0.size.max(self.least)
    }
}

impl Resource {
    /// The newest stored response that was made for requests like this one.
    pub fn select(&self, request: &HeaderMap) -> Option<&Arc<Stored>> {
        self.0.variants.iter().find(|stored| stored.selection.matches(request))
    }

    /// Whether there are stored responses to other requests.
    pub fn has_variants(&self) -> bool {
        !self.0.variants.is_empty()
    }

    /// Whether a response is expected not to be stored.
    pub fn passes(&self, now: Time) -> bool {
        now < self.0.passes_until
    }

    pub fn variants(&self) -> &[Arc<Stored>] {
        &self.0.variants
    }
}

impl Store {
    /// Responses to one key that differ in what they vary by.
    const VARIANTS: usize = 32;
    /// How long a response that was not stored lets requests go by without waiting for each other.
    const PASSES: u64 = 60_000;

    /// A store of so many entries and bytes at most.
    pub fn new(entries: usize, memory: u64, max_object: u64, disk: Option<Arc<Disk>>) -> Self {
        // A shard takes what fits its share of the memory only.
        let shards = (memory / max_object.saturating_mul(4).max(1)).clamp(1, 64) as usize;
        let shards = if shards.is_power_of_two() { shards } else { shards.next_power_of_two() / 2 };
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(entries)
            .weight_capacity(memory)
            .build()
            .expect("both numbers are given");
        let weigher = ByBytes { least: (memory / entries.max(1) as u64).max(1) };
        Self {
            resources: sync::Cache::with_options(options, weigher, Default::default(), Default::default()),
            fetches: Arc::default(),
            voids: Arc::default(),
            disk,
        }
    }

    pub fn get(&self, key: &Key) -> Option<Resource> {
        self.resources.get(key)
    }

    /// Stores a response in the place of those to the same requests, unless its body is not the whole that its fields
    /// announce, or what it answers was declared void after `asked`. Whether it was stored.
    pub fn put(&self, key: &Key, stored: Arc<Stored>, asked: Time) -> bool {
        if !is_whole(&stored.headers, stored.body.len()) || self.voids.is_voided(key, asked) {
            return false;
        }
        if let Some(disk) = &self.disk {
            disk.write(key, &stored, asked);
        }
        self.put_in_memory(key, stored);
        true
    }

    /// The same for what is stored elsewhere already.
    pub fn put_in_memory(&self, key: &Key, stored: Arc<Stored>) {
        self.change(key, |known| {
            known.variants.retain(|other| other.selection != stored.selection);
            known.variants.insert(0, stored);
            known.variants.truncate(Self::VARIANTS);
            known.passes_until = Time(0);
        });
    }

    /// Finds what is on disk for requests like this one, and puts it in memory. Of many that ask at once one reads;
    /// at most `waiters` wait for it.
    pub async fn from_disk(&self, key: &Key, request: &HeaderMap, waiters: usize) -> Option<Arc<Stored>> {
        let disk = self.disk.as_ref().filter(|disk| disk.may_have(key, request))?;
        let reading = key.on_disk();
        let lead = match self.fill(&reading) {
            Filling::Lead(lead) => lead,
            Filling::Follow(fill) => {
                fill.followed(waiters, |_| false).await;
                return self.get(key)?.select(request).cloned();
            }
        };
        let asked = Time::now();
        let stored = disk.read(key, request).await;
        if let Some(stored) = &stored {
            if self.voids.is_voided(key, asked) {
                return None;
            }
            self.put_in_memory(key, stored.clone());
        }
        lead.end(FillResult::Passed);
        stored
    }

    pub fn disk(&self) -> Option<&Arc<Disk>> {
        self.disk.as_ref()
    }

    /// What was declared void, for whoever stores the same elsewhere.
    pub(super) fn voids(&self) -> &Arc<Voids> {
        &self.voids
    }

    /// Puts a renewed response in the place of the one it was made of, if that is still there.
    pub fn renew(&self, key: &Key, before: &Arc<Stored>, renewed: Arc<Stored>) {
        /// What is larger is not worth writing once more for some fields.
        const SMALL: u64 = 64 << 10;
        let mut is_there = false;
        self.change(key, |known| {
            if let Some(index) = known.variants.iter().position(|stored| Arc::ptr_eq(stored, before)) {
                known.variants.remove(index);
                known.variants.retain(|other| other.selection != renewed.selection);
                known.variants.insert(0, renewed.clone());
                is_there = true;
            }
        });
        if let Some(disk) = self.disk.as_ref().filter(|_| is_there && renewed.body.len() <= SMALL) {
            disk.write(key, &renewed, renewed.freshness.received);
        }
    }

    /// Counts what has been made of the stored responses since they were stored.
    pub fn weigh(&self, key: &Key) {
        self.change(key, |_| {});
    }

    /// Drops one stored response.
    pub fn drop_one(&self, key: &Key, stored: &Arc<Stored>) {
        self.change(key, |known| known.variants.retain(|other| !Arc::ptr_eq(other, stored)));
        if let Some(disk) = &self.disk {
            disk.drop_one(key, &stored.selection);
        }
    }

    /// Notes that responses to this key are not stored.
    pub fn passes(&self, key: &Key, now: Time) {
        self.change(key, |known| known.passes_until = Time(now.0 + Self::PASSES));
    }

    /// Drops all that is stored for a key. What is being fetched is not stored either.
    pub fn invalidate(&self, key: &Key, now: Time) {
        self.voids.void(key, now);
        let _writing = self.voids.writing(key);
        self.resources.remove(key);
        if let Some(disk) = &self.disk {
            disk.invalidate(key, now);
        }
    }

    /// Drops what is meant, or with `soft` makes it stale, which drops what is on disk. How many stored responses that
    /// were.
    pub fn purge(&self, meant: Purge<'_>, soft: bool, now: Time) -> usize {
        // What is on its way may be meant too, and its tags are not known yet.
        self.voids.void_all(now);
        // What is in memory as well counts there.
        let is_on_disk_only = |key: &Key, selection: &Selection| {
            self.resources
                .peek(key)
                .is_none_or(|known| known.variants().iter().all(|one| one.selection != *selection))
        };
        let mut count = self.disk.as_ref().map_or(0, |disk| disk.purge(meant, now, is_on_disk_only));
        let keys: Vec<Key> =
            self.resources.iter().map(|(key, _)| key).filter(|key| meant.may_mean(key)).collect();
        for key in keys {
            self.change(&key, |known| {
                let before = known.variants.len();
                if soft {
                    for stored in known.variants.iter_mut().filter(|stored| meant.means(&stored.tags)) {
                        let mut stale = Stored::clone(stored);
                        stale.freshness.lifetime = 0;
                        *stored = Arc::new(stale);
                        count += 1;
                    }
                } else {
                    known.variants.retain(|stored| !meant.means(&stored.tags));
                    count += before - known.variants.len();
                }
            });
        }
        count
    }

    /// Bytes that the stored responses take.
    pub fn bytes(&self) -> u64 {
        self.resources.iter().map(|(_, resource)| resource.0.size).sum()
    }

    pub fn entries(&self) -> usize {
        self.resources.len()
    }

    /// Everything stored, for whoever wants to write it down.
    pub fn each(&self, mut call: impl FnMut(Key, Resource)) {
        for (key, resource) in self.resources.iter() {
            call(key, resource);
        }
    }

    /// Whose turn it is to fetch what this key names.
    pub fn fill(&self, key: &Key) -> Filling {
        self.fetches.fill(key)
    }

    fn change(&self, key: &Key, change: impl FnOnce(&mut Known)) {
        let _writing = self.voids.writing(key);
        let mut known =
            self.resources.peek(key).map(|resource| Known::clone(&resource.0)).unwrap_or_default();
        change(&mut known);
        if known.variants.is_empty() && known.passes_until == Time(0) {
            self.resources.remove(key);
        } else {
            let variants: usize = known.variants.iter().map(|stored| stored.size()).sum();
            known.size = (key.as_str().len() + 128 + variants) as u64;
            self.resources.insert(key.clone(), Resource(Arc::new(known)));
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::*;
    use crate::cache::{
        body::StoredBody,
        policy::{Freshness, Vary},
    };

    fn key(name: &str) -> Key {
        Key::restored(format!("http://h/{name}\napp"))
    }

    fn stored(size: usize, vary: &[(&str, &str)], tags: &[&str]) -> Arc<Stored> {
        let mut response = HeaderMap::new();
        let mut request = HeaderMap::new();
        for (name, value) in vary {
            response.append("vary", name.parse().unwrap());
            request.append(name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap());
        }
        let freshness = Freshness {
            lifetime: 60,
            initial_age: 0,
            received: Time(1000),
            always_validates: false,
            never_stale: false,
            stale_while_revalidate: 0,
            stale_if_error: None,
        };
        Arc::new(Stored {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            body: StoredBody::new(vec![Bytes::from(vec![7; size])]),
            encoded: Arc::default(),
            freshness,
            selection: Vary::of(&response).unwrap().selection(&request),
            tags: tags.iter().map(|&tag| tag.into()).collect(),
        })
    }

    fn request(fields: &[(&str, &str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn the_memory_is_kept_and_a_scan_does_not_drive_out_what_is_used() {
        const CAP: u64 = 16 << 20;
        const SIZE: usize = 4 << 10;
        let store = Store::new(100_000, CAP, 64 << 10, None);
        let hot: Vec<Key> = (0..1000).map(|number| key(&format!("hot/{number}"))).collect();
        for _ in 0..3 {
            for key in &hot {
                if store.get(key).is_none() {
                    store.put(key, stored(SIZE, &[], &[]), Time(2000));
                }
            }
        }
        let scanned = 10 * CAP as usize / SIZE;
        let (mut hits, mut asked, mut most) = (0, 0, 0);
        for number in 0..scanned {
            store.put(&key(&format!("scan/{number}")), stored(SIZE, &[], &[]), Time(2000));
            let hot = &hot[number % hot.len()];
            asked += 1;
            match store.get(hot) {
                Some(_) => hits += 1,
                None => drop(store.put(hot, stored(SIZE, &[], &[]), Time(2000))),
            }
            if number % 1000 == 0 {
                most = most.max(store.bytes());
            }
        }
        let ratio = f64::from(hits) / f64::from(asked);
        assert!(ratio > 0.9, "the hot set was hit at a ratio of {ratio}");
        assert!(most <= CAP + CAP / 10, "{most} bytes were stored");
        assert!(store.bytes() >= CAP / 2, "{} bytes are stored", store.bytes());
    }

    #[test]
    fn there_are_no_more_entries_than_allowed() {
        let store = Store::new(100, 1 << 20, 1 << 10, None);
        for number in 0..1000 {
            store.put(&key(&number.to_string()), stored(10, &[], &[]), Time(2000));
        }
        assert!((50..=100).contains(&store.entries()), "{} entries", store.entries());
    }

    #[test]
    fn variants_are_told_apart_and_replaced_by_their_like() {
        let store = Store::new(100, 1 << 20, 1 << 10, None);
        let key = key("a");
        store.put(&key, stored(1, &[("foo", "1")], &[]), Time(2000));
        store.put(&key, stored(2, &[("foo", "2")], &[]), Time(2000));
        store.put(&key, stored(3, &[("foo", "1")], &[]), Time(2000));
        let resource = store.get(&key).unwrap();
        let size = |fields| resource.select(&request(fields)).map(|stored| stored.body.len());
        assert_eq!(size(&[("foo", "1")]), Some(3));
        assert_eq!(size(&[("foo", "2")]), Some(2));
        assert_eq!(size(&[("foo", "3")]), None);
        assert_eq!(resource.variants().len(), 2);
        for number in 0..100 {
            store.put(&key, stored(1, &[("foo", &number.to_string())], &[]), Time(2000));
        }
        assert_eq!(store.get(&key).unwrap().variants().len(), Store::VARIANTS);
    }

    #[test]
    fn what_was_asked_for_before_an_invalidation_is_not_stored() {
        let store = Store::new(100, 1 << 20, 1 << 10, None);
        let key = key("a");
        store.put(&key, stored(1, &[], &[]), Time(1000));
        store.invalidate(&key, Time(2000));
        assert!(store.get(&key).is_none());
        assert!(!store.put(&key, stored(1, &[], &[]), Time(1999)));
        assert!(!store.put(&key, stored(1, &[], &[]), Time(2000)));
        assert!(store.put(&key, stored(1, &[], &[]), Time(2001)));
    }

    #[test]
    fn what_is_not_as_long_as_announced_is_not_stored() {
        let store = Store::new(100, 1 << 20, 1 << 10, None);
        let key = key("a");
        for (length, expected) in [("10", false), ("4", true)] {
            let headers = HeaderMap::from_iter([(http::header::CONTENT_LENGTH, length.parse().unwrap())]);
            let stored = Stored { headers, ..Stored::clone(&stored(4, &[], &[])) };
            assert_eq!(store.put(&key, Arc::new(stored), Time(1000)), expected, "{length}");
            assert_eq!(store.get(&key).is_some(), expected, "{length}");
        }
    }

    #[test]
    fn an_operator_purges_what_is_meant() {
        for (meant, soft, left, stale) in [
            (Purge::Url("http://h/a"), false, &["a/b", "c"][..], &[][..]),
            (Purge::Prefix("http://h/a"), false, &["c"], &[]),
            (Purge::Tag("t"), false, &["a"], &[]),
            (Purge::All, false, &[], &[]),
            (Purge::Tag("t"), true, &["a", "a/b", "c"], &["a/b", "c"]),
            (Purge::Url("http://h/"), false, &["a", "a/b", "c"], &[]),
        ] {
            let store = Store::new(100, 1 << 20, 1 << 10, None);
            for (name, tags) in [("a", &["s"][..]), ("a/b", &["t"]), ("c", &["s", "t"])] {
                store.put(&key(name), stored(1, &[], tags), Time(1000));
            }
            let count = store.purge(meant, soft, Time(2000));
            assert_eq!(count, if soft { stale.len() } else { 3 - left.len() }, "{meant:?}");
            for name in ["a", "a/b", "c"] {
                let found = store.get(&key(name));
                assert_eq!(found.is_some(), left.contains(&name), "{meant:?} {name}");
                let is_stale =
                    found.is_some_and(|found| found.variants()[0].freshness.left(Time(1001)).is_none());
                assert_eq!(is_stale, stale.contains(&name), "{meant:?} {name}");
            }
        }
    }

    #[test]
    fn what_is_not_stored_is_remembered_for_a_while() {
        let store = Store::new(100, 1 << 20, 1 << 10, None);
        let key = key("a");
        store.passes(&key, Time(1000));
        assert!(store.get(&key).unwrap().passes(Time(1001)));
        assert!(!store.get(&key).unwrap().passes(Time(61_001)));
        store.put(&key, stored(1, &[], &[]), Time(1002));
        assert!(!store.get(&key).unwrap().passes(Time(1003)));
    }
}
