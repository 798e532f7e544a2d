//! Which tokens have been checked before?

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
};

use crate::Judgement;

/// What is thought of tokens whose signatures were right. A bounded number: when they are too many, all are forgotten,
/// which costs less than to know which was used last, and each is checked again just once.
#[derive(Debug, Default)]
pub struct Remembered(HashMap<String, Rc<Judgement>, BuildHasherDefault<Tail>>);

impl Remembered {
    const MOST: usize = 1_024;

    pub fn get(&self, token: &str) -> Option<Rc<Judgement>> {
        self.0.get(token).cloned()
    }

    /// Forgets all, since the keys are others.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn put(&mut self, token: String, judgement: Judgement) -> Rc<Judgement> {
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        let judgement = Rc::new(judgement);
        self.0.insert(token, judgement.clone());
        judgement
    }
}

/// Takes the end of a token for its hash: that is of the signature, which is as good as random, and which nobody can
/// choose who has not the key.
#[derive(Debug, Default)]
struct Tail(u64);

impl Hasher for Tail {
    fn write(&mut self, bytes: &[u8]) {
        let mut words = bytes.rchunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        // The halves of a product depend on all bits of its factors; the numbers are digits of pi.
        let product = u128::from(last ^ 0x243f_6a88_85a3_08d3) * u128::from(before ^ 0x1319_8a2e_0370_7344);
        self.0 = (product >> 64) as u64 ^ product as u64;
    }

    /// Where a text ends.
    fn write_u8(&mut self, _: u8) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut remembered = Remembered::default();
        for number in 0..5_000 {
            remembered.put(number.to_string(), Judgement::UNKNOWN);
            assert!(remembered.0.len() <= Remembered::MOST);
        }
        assert!(remembered.get("4999").is_some());
        assert!(remembered.get("").is_none());
    }

    #[test]
    fn tokens_differ_in_the_hash_of_their_ends() {
        let hash = |token: String| {
            let mut tail = Tail::default();
            tail.write(token.as_bytes());
            tail.finish()
        };
        let hashes: HashSet<u64> =
            (0..1_000_u32).map(|end| hash(format!("{}{end:016x}", "e30.".repeat(60)))).collect();
        assert_eq!(hashes.len(), 1_000);
        // A table takes its place from the lowest bits, and tells entries apart by the seven highest.
        let buckets =
            |bits: fn(u64) -> u64| hashes.iter().map(|hash| bits(*hash)).collect::<HashSet<u64>>().len();
        assert!(buckets(|hash| hash % 256) > 240);
        assert!(buckets(|hash| hash >> 57) > 120);
    }
}
