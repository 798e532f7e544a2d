//! How often is the same thing said?

use std::{
    cell::RefCell,
    hash::{DefaultHasher, Hash, Hasher},
    num::{NonZeroU64, NonZeroUsize},
    time::{Duration, Instant},
};

use lru::LruCache;

/// Logs a line that requests can cause, unless enough of its kind were logged of late. A kind is this line of the
/// source and what it is `of`: the route, the plugin, the upstream. Each thread counts for itself; the field `left_out` says
/// how many lines were not logged since the last one, and is not there where none was.
#[macro_export]
macro_rules! sampled {
    ($level:ident, of: $of:expr, $($line:tt)+) => {
        if let Some(admitted) = $crate::telemetry::admit((module_path!(), line!()), &$of) {
            let left_out = admitted.left_out;
            tracing::$level!(left_out, $($line)+);
        }
    };
}

pub use sampled;

thread_local! {
    /// What this thread has logged of late, by the line of the source and what it is of.
    static SAID: Sampler<u64> = Sampler::default();
}

/// Whether a line from this place of the source, of this subject, is to be written now.
pub fn admit(place: (&'static str, u32), of: &impl Hash) -> Option<Admitted> {
    let mut hasher = DefaultHasher::new();
    (place, of).hash(&mut hasher);
    SAID.with(|said| said.admit(hasher.finish()))
}

/// A line may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Admitted {
    /// How many of its kind were not, since the last one that was.
    pub left_out: Option<NonZeroU64>,
}

/// Lets the first lines of a kind through, and of those that follow a few each while.
///
/// What happens to every request would otherwise fill the disk just when all upstreams are down.
#[derive(Debug)]
struct Sampler<K: Eq + Hash>(RefCell<LruCache<K, Said>>);

#[derive(Debug)]
struct Said {
    since: Instant,
    lines: u32,
    left_out: u64,
}

impl<K: Eq + Hash> Default for Sampler<K> {
    fn default() -> Self {
        Self(RefCell::new(LruCache::new(Self::KINDS)))
    }
}

impl<K: Eq + Hash> Sampler<K> {
    /// Lines of a kind in a window.
    const LINES: u32 = 5;
    const WINDOW: Duration = Duration::from_secs(10);
    /// Kinds that are remembered: those that were met last. Those of a configuration are fewer, but there may be many
    /// configurations.
    const KINDS: NonZeroUsize = NonZeroUsize::new(1024).expect("it is not zero");

    /// Whether a line of this kind is to be written now.
    fn admit(&self, kind: K) -> Option<Admitted> {
        self.admit_at(kind, Instant::now())
    }

    fn admit_at(&self, kind: K, now: Instant) -> Option<Admitted> {
        let mut said = self.0.borrow_mut();
        let said = said.get_or_insert_mut(kind, || Said { since: now, lines: 0, left_out: 0 });
        if now.duration_since(said.since) >= Self::WINDOW {
            *said = Said { since: now, lines: 0, left_out: said.left_out };
        }
        if said.lines >= Self::LINES {
            said.left_out += 1;
            return None;
        }
        said.lines += 1;
        Some(Admitted { left_out: NonZeroU64::new(std::mem::take(&mut said.left_out)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_lines_of_a_kind_are_written_and_then_a_few_with_the_number_of_the_others() {
        let sampler = Sampler::default();
        let start = Instant::now();
        let admit = |kind, seconds| {
            let admitted = sampler.admit_at(kind, start + Duration::from_secs(seconds));
            admitted.map(|admitted| admitted.left_out.map_or(0, NonZeroU64::get))
        };
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
        let often = -1;
        while sampler.admit_at(often, now).is_some() {}
        for kind in 0..10_000 {
            assert_eq!(sampler.admit_at(kind, now), Some(Admitted { left_out: None }));
            assert_eq!(sampler.admit_at(often, now), None, "others do not make it new");
        }
        assert_eq!(sampler.0.borrow().len(), Sampler::<i32>::KINDS.get());
    }
}
