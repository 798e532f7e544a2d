//! What is counted, and by whom?
//!
//! Counting on the way of a request must cost next to nothing. So whoever is counted (a route, an endpoint, a
//! plugin) owns a [`PerWorker`] of plain counts, in which each worker has a part that nobody else writes to: a
//! [`Tally`] is added to without a locked instruction, and no two cores share a cache line. Parts are added up
//! when somebody asks. The rare and the shared are counted by a [`Counter`].
//!
//! What is counted is written to a [`Page`](super::Page) by the room that counts it, a family at a time.

use std::{
    ops::Deref,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// A count that one thread adds to. Any may read it.
#[derive(Debug, Default)]
pub struct Tally(AtomicU64);

impl Tally {
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn add(&self, count: u64) {
        // Nobody else writes, so nothing comes between.
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(count), Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A count that any thread adds to. For what does not happen with every request.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Which worker it is that counts, of how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writer {
    pub number: usize,
    pub of: usize,
}

impl Writer {
    /// The only one there is.
    pub const ALONE: Self = Self { number: 0, of: 1 };
}

/// A `T` for each worker, which only that worker adds to. Made when it is first asked for.
#[derive(Debug)]
pub struct PerWorker<T>(OnceLock<Parts<T>>);

type Parts<T> = Box<[OnceLock<Box<Apart<T>>>]>;

/// On cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Apart<T>(T);

impl<T> Default for PerWorker<T> {
    fn default() -> Self {
        Self(OnceLock::new())
    }
}

impl<T: Default> PerWorker<T> {
    /// The worker's own part.
    pub fn of(&self, writer: Writer) -> &T {
        let parts = self.0.get_or_init(|| (0..writer.of).map(|_| OnceLock::new()).collect());
        &parts[writer.number].get_or_init(Box::default).0
    }
}

impl<T> PerWorker<T> {
    /// The parts of all workers that have counted anything.
    pub fn parts(&self) -> impl Iterator<Item = &T> {
        self.0.get().into_iter().flatten().filter_map(OnceLock::get).map(|part| &part.0)
    }

    /// One count of all workers.
    pub fn sum(&self, count: impl Fn(&T) -> &Tally) -> u64 {
        self.parts().map(|part| count(part).get()).sum()
    }
}

/// One worker's part, to be kept where it is counted.
#[derive(Debug)]
pub struct Part<T> {
    all: Arc<PerWorker<T>>,
    writer: Writer,
}

impl<T> Clone for Part<T> {
    fn clone(&self) -> Self {
        Self { all: self.all.clone(), writer: self.writer }
    }
}

impl<T> Part<T> {
    pub fn new(all: Arc<PerWorker<T>>, writer: Writer) -> Self {
        Self { all, writer }
    }
}

impl<T: Default> Deref for Part<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.all.of(self.writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Counts {
        hits: Tally,
    }

    #[test]
    fn what_all_workers_count_is_added_up() {
        let counts = Arc::new(PerWorker::<Counts>::default());
        assert_eq!(counts.sum(|counts| &counts.hits), 0);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let part = Part::new(counts.clone(), Writer { number, of: 4 });
                scope.spawn(move || (0..1000).for_each(|_| part.hits.add(1)));
            }
        });
        assert_eq!(counts.sum(|counts| &counts.hits), 4000);
        assert_eq!(counts.parts().count(), 4);
    }
}
