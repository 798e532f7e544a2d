//! Which tokens have been checked before?

use std::{
    hash::{BuildHasherDefault, Hasher},
    rc::Rc,
};

use lru::LruCache;

use crate::Judgement;

/// What is thought of tokens whose signatures were right: of those that were used last.
///
/// Found by the hash of a token, and then compared with it: of two with one hash, the later is remembered.
#[derive(Debug)]
pub struct Remembered(LruCache<u64, (String, Rc<Judgement>), BuildHasherDefault<AsItIs>>);

impl Default for Remembered {
    /// Takes no memory before there is a token: an instance may be there for one request alone.
    fn default() -> Self {
        Self(LruCache::unbounded_with_hasher(BuildHasherDefault::default()))
    }
}

impl Remembered {
    const MOST: usize = 1_024;

    pub fn get(&mut self, token: &str) -> Option<Rc<Judgement>> {
        let (known, judgement) = self.0.get(&tail(token.as_bytes()))?;
        is_same(known.as_bytes(), token.as_bytes()).then(|| judgement.clone())
    }

    /// Forgets all, since the keys are others.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    pub fn put(&mut self, token: String, judgement: Judgement) -> Rc<Judgement> {
        let judgement = Rc::new(judgement);
        self.0.put(tail(token.as_bytes()), (token, judgement.clone()));
        if self.0.len() > Self::MOST {
            self.0.pop_lru();
        }
        judgement
    }
}

/// A hash of the end of a token: that is of the signature, which is as good as random, and which nobody can choose who has
/// not the key.
fn tail(token: &[u8]) -> u64 {
    let mut words = token.rchunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let (last, before) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    // The halves of a product depend on all bits of its factors; the numbers are digits of pi.
    let product = u128::from(last ^ 0x243f_6a88_85a3_08d3) * u128::from(before ^ 0x1319_8a2e_0370_7344);
    (product >> 64) as u64 ^ product as u64
}

/// Compares word by word: what a guest has for a `memcmp` goes byte by byte.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let word = |(one, other): (&[u8; 8], &[u8; 8])| u64::from_le_bytes(*one) == u64::from_le_bytes(*other);
    let ((ones, one_rest), (others, other_rest)) = (one.as_chunks(), other.as_chunks());
    one.len() == other.len() && ones.iter().zip(others).all(word) && one_rest == other_rest
}

/// For what is a hash already.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a hash is one number");
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn those_that_were_used_last_are_remembered() {
        let mut remembered = Remembered::default();
        for number in 0..5_000 {
            remembered.put(number.to_string(), Judgement::UNKNOWN);
            assert!(remembered.0.len() <= Remembered::MOST);
            assert!(remembered.get("0").is_some(), "it is in use after {number} others");
        }
        assert!(remembered.get("4999").is_some());
        assert!(remembered.get("1").is_none());
        assert!(remembered.get("").is_none());
    }

    #[test]
    fn a_token_is_remembered_to_its_last_byte() {
        let tail = "0123456789abcdef";
        let tokens: Vec<String> = (0..40).map(|length| format!("{}{tail}", "x".repeat(length))).collect();
        for token in &tokens {
            let mut remembered = Remembered::default();
            remembered.put(token.clone(), Judgement::UNKNOWN);
            for other in &tokens {
                assert_eq!(remembered.get(other).is_some(), token == other, "{token} {other}");
            }
            for place in 0..token.len() {
                let mut other = token.clone().into_bytes();
                other[place] = b'y';
                assert!(!is_same(token.as_bytes(), &other), "{token} {place}");
            }
        }
    }

    #[test]
    fn tokens_differ_in_the_hash_of_their_ends() {
        let hash = |token: String| tail(token.as_bytes());
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
