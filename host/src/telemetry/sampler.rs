//! How often is the same thing said?

use std::{
    cell::RefCell,
    collections::HashMap,
    hash::Hash,
    time::{Duration, Instant},
};

/// Lets the first lines of a kind through, and of those that follow a few each while.
///
/// What happens to every request would otherwise fill the disk just when all upstreams are down.
#[derive(Debug)]
pub struct Sampler<K>(RefCell<HashMap<K, Said>>);

#[derive(Debug)]
struct Said {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl<K> Default for Sampler<K> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<K: Eq + Hash> Sampler<K> {
    /// Lines of a kind in a window.
    const LINES: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(10);
    /// Kinds that are remembered. Those of a configuration are fewer, but there may be many configurations.
    const KINDS: usize = 1024;

    /// Whether a line of this kind is to be written now; then how many have been left out since the last one.
    pub fn admit(&self, kind: K) -> Option<u64> {
        self.admit_at(kind, Instant::now())
    }

    fn admit_at(&self, kind: K, now: Instant) -> Option<u64> {
        let mut said = self.0.borrow_mut();
        if said.len() >= Self::KINDS && !said.contains_key(&kind) {
            said.clear();
        }
        let said = said.entry(kind).or_insert(Said { since: now, lines: 0, left_out: 0 });
        if now.duration_since(said.since) >= Self::WINDOW {
            *said = Said { since: now, lines: 0, left_out: said.left_out };
        }
        if said.lines >= Self::LINES {
            said.left_out += 1;
            return None;
        }
        said.lines += 1;
        Some(std::mem::take(&mut said.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_of_a_kind_are_written_and_then_a_few_with_the_number_of_the_others() {
        let sampler = Sampler::default();
        let start = Instant::now();
        let admit = |kind, seconds| sampler.admit_at(kind, start + Duration::from_secs(seconds));
        for _ in 0..5 {
            assert_eq!(admit("a", 0), Some(0));
        }
        for _ in 0..100 {
            assert_eq!(admit("a", 9), None);
        }
        assert_eq!(admit("b", 9), Some(0), "another kind is not held back");
        assert_eq!(admit("a", 10), Some(100));
        assert_eq!(admit("a", 10), Some(0));
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let sampler = Sampler::default();
        let now = Instant::now();
        for kind in 0..10_000 {
            assert_eq!(sampler.admit_at(kind, now), Some(0));
        }
        assert!(sampler.0.borrow().len() <= Sampler::<i32>::KINDS);
    }
}
