//! How much have instances of a plugin made that is not sent yet?
//!
//! The body of a reply leaves the memory of the instance that made it, and lives until its client has taken it. Clients that
//! do not read would let a plugin have any amount of memory so. It is counted until it is gone, with a cap for each plugin.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;

use super::error::CallError;

/// Counts what a plugin has made, in bytes, over all its instances and generations. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Unsent(Arc<AtomicUsize>);

impl Unsent {
    /// Keeps the content, and counts it until the last who has it lets it go. `most` is what there may be at once.
    pub fn keep(&self, content: Vec<u8>, most: usize) -> Result<Bytes, CallError> {
        if content.is_empty() {
            return Ok(Bytes::new());
        }
        let more = content.capacity();
        let before = self.0.fetch_add(more, Ordering::Relaxed);
        // From here on dropping it uncounts it.
        let counted = Counted { content, unsent: self.0.clone() };
        match before.saturating_add(more) > most {
            true => Err(CallError::Unsent(most)),
            false => Ok(Bytes::from_owner(counted)),
        }
    }

    /// Bytes that are not gone.
    pub fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// Keeps what a plugin has made, up to what it may.
#[derive(Debug, Clone, Copy)]
pub struct UnsentLimit<'a> {
    pub(super) unsent: &'a Unsent,
    pub(super) most: usize,
}

impl UnsentLimit<'_> {
    pub fn keep(self, content: Vec<u8>) -> Result<Bytes, CallError> {
        self.unsent.keep(content, self.most)
    }
}

struct Counted {
    content: Vec<u8>,
    unsent: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.content
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.unsent.fetch_sub(self.content.capacity(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_counts_until_the_last_has_let_it_go() {
        let made = Unsent::default();
        let first = made.keep(vec![1; 60], 100).unwrap();
        let part = first.slice(1..3);
        assert!(matches!(made.keep(vec![2; 60], 100), Err(CallError::Unsent(100))));
        assert_eq!(made.bytes(), 60, "what was refused is gone");
        drop(first);
        assert!(made.keep(vec![2; 60], 100).is_err(), "a part of it is still there");
        drop(part);
        assert_eq!(made.bytes(), 0);
        assert_eq!(made.keep(vec![2; 60], 100).unwrap(), [2; 60].as_slice());
        assert!(made.keep(Vec::new(), 0).is_ok());
    }
}
