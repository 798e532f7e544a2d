//! What was declared void, and when?
//!
//! A response that was asked for before is stored nowhere: what has been fetched meanwhile may be what was meant.

use std::{
    hash::BuildHasher,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::DefaultHashBuilder;

use super::{key::Key, policy::Time};

/// When what is stored was declared void, and the right to change it.
#[derive(Debug)]
pub struct Voids {
    hasher: DefaultHashBuilder,
    /// Held while a resource is replaced by another that was made of it, by the hash of the key.
    writing: [Mutex<()>; STRIPES],
    /// When what is stored under a hash was last declared void.
    voided: Box<[AtomicU64]>,
}

const STRIPES: usize = 16;

impl Default for Voids {
    fn default() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            writing: Default::default(),
            voided: (0..4096).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Voids {
    /// Does something about what was asked for then, unless it was declared void since. Whether it was done.
    pub(super) fn unless_voided(&self, key: &Key, asked: Time, call: impl FnOnce()) -> bool {
        let _writing = self.writing(key);
        let is_valid = !self.is_voided(key, asked);
        if is_valid {
            call();
        }
        is_valid
    }

    /// Whether what is stored under this key was declared void after that time.
    pub(super) fn is_voided(&self, key: &Key, asked: Time) -> bool {
        let voided = self.voided_at(key).load(Ordering::Acquire);
        voided != 0 && asked.0 <= voided
    }

    /// Declares void what is stored for a key, and what is on its way.
    pub(super) fn void(&self, key: &Key, now: Time) {
        self.voided_at(key).fetch_max(now.0, Ordering::AcqRel);
    }

    /// The same for all keys.
    pub(super) fn void_all(&self, now: Time) {
        for voided in &self.voided {
            voided.fetch_max(now.0, Ordering::AcqRel);
        }
    }

    /// Held while what is stored for a key changes.
    pub(super) fn writing(&self, key: &Key) -> MutexGuard<'_, ()> {
        let stripe = &self.writing[self.hasher.hash_one(key) as usize % STRIPES];
        // What a holder of the lock leaves is whole even if it panicked.
        stripe.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn voided_at(&self, key: &Key) -> &AtomicU64 {
        &self.voided[(self.hasher.hash_one(key) >> 32) as usize % self.voided.len()]
    }
}
