//! Which number comes next?

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
};

/// The sequences of a plugin, by name, which all its instances draw from.
#[derive(Debug, Default)]
pub(super) struct Sequences(Mutex<HashMap<String, Arc<AtomicU32>>>);

impl Sequences {
    /// Sequences that one plugin may open.
    pub const MOST: usize = 64;

    /// The sequence of this name; made if there is room.
    pub fn open(&self, name: &str) -> Option<Arc<AtomicU32>> {
        let mut sequences = self.0.lock().expect("no holder of this lock panics");
        if let Some(sequence) = sequences.get(name) {
            return Some(sequence.clone());
        }
        if sequences.len() >= Self::MOST {
            return None;
        }
        let sequence = Arc::<AtomicU32>::default();
        sequences.insert(name.to_owned(), sequence.clone());
        Some(sequence)
    }

    /// What is drawn next from each sequence.
    pub fn next_numbers(&self) -> BTreeMap<String, u32> {
        let sequences = self.0.lock().expect("no holder of this lock panics");
        sequences.iter().map(|(name, next)| (name.clone(), next.load(Ordering::Relaxed))).collect()
    }
}

/// A number all instances draw from.
pub(super) fn draw(sequence: &AtomicU32) -> u32 {
    sequence.fetch_add(1, Ordering::Relaxed)
}
