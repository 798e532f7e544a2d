//! Whose key is this?

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

/// The keys of all consumers, of which only digests are kept.
#[derive(Debug)]
pub(crate) struct Keys {
    digests: Vec<Digest>,
    /// Whose digest it is that stands at the same place.
    consumers: Vec<Box<str>>,
}

/// What the values of the header say.
#[derive(Debug, PartialEq)]
pub(crate) enum Finding<'a> {
    Consumer(&'a str),
    Missing,
    Wrong,
}

/// Two consumers with the same key, so that it would not tell who is calling.
#[derive(Debug, PartialEq)]
pub(crate) struct SharedKey<'a>(pub(crate) &'a str, pub(crate) &'a str);

impl Keys {
    /// Takes consumers, each with one of its keys.
    pub(crate) fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, SharedKey<'a>> {
        let mut owners: Vec<(Digest, &str)> = pairs
            .into_iter()
            .map(|(consumer, key)| (digest(Sha256::new_with_prefix(key)), consumer))
            .collect();
        owners.sort_unstable();
        owners.dedup();
        if let Some([(_, one), (_, other)]) = owners.array_windows().find(|[(a, _), (b, _)]| a == b) {
            return Err(SharedKey(one, other));
        }
        let (digests, consumers) =
            owners.into_iter().map(|(digest, consumer)| (digest, Box::from(consumer))).unzip();
        Ok(Self { digests, consumers })
    }

    /// Takes all values of the header. More than one is a guess, and a wrong key.
    pub(crate) fn identify(&self, values: &[String]) -> Finding<'_> {
        match values {
            [] => Finding::Missing,
            [value] => self.owner(value).map_or(Finding::Wrong, Finding::Consumer),
            [_, _, ..] => Finding::Wrong,
        }
    }

    /// Compares with every digest to the end, so that the time it takes tells nothing of any key.
    fn owner(&self, value: &str) -> Option<&str> {
        let candidate = field_digest(value)?;
        let mut found = u32::MAX;
        for (place, known) in (0..).zip(&self.digests) {
            found.conditional_assign(&place, equal(known, &candidate));
        }
        self.consumers.get(found as usize).map(AsRef::as_ref)
    }
}

/// SHA-256 in words: four comparisons instead of thirty-two.
type Digest = [u64; 4];

fn equal(a: &Digest, b: &Digest) -> Choice {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b));
    difference.ct_eq(&0)
}

/// The digest of the bytes that a header's value stands for: its code points.
///
/// The host sends none beyond a byte. Where one does come, it is no key.
fn field_digest(value: &str) -> Option<Digest> {
    let mut sha256 = Sha256::new();
    if value.is_ascii() {
        sha256.update(value);
    } else {
        for character in value.chars() {
            sha256.update([u8::try_from(character).ok()?]);
        }
    }
    Some(digest(sha256))
}

fn digest(sha256: Sha256) -> Digest {
    let bytes: [u8; 32] = sha256.finalize().into();
    let (words, _) = bytes.as_chunks();
    std::array::from_fn(|place| u64::from_le_bytes(words[place]))
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::{Finding, Keys, SharedKey, digest, equal};

    fn keys() -> Keys {
        Keys::new([("demo", "k1"), ("batch", "old"), ("batch", "new"), ("zoe", "clé")]).expect("are distinct")
    }

    fn identify<'a>(keys: &'a Keys, values: &[&str]) -> Finding<'a> {
        let values: Vec<String> = values.iter().copied().map(str::to_owned).collect();
        keys.identify(&values)
    }

    #[test]
    fn a_key_tells_its_consumer() {
        let keys = keys();
        assert_eq!(identify(&keys, &["k1"]), Finding::Consumer("demo"));
        assert_eq!(identify(&keys, &["old"]), Finding::Consumer("batch"));
        assert_eq!(identify(&keys, &["new"]), Finding::Consumer("batch"));
    }

    #[test]
    fn every_one_of_many_keys_is_found() {
        let names: Vec<String> = (0..300).map(|number| format!("consumer-{number}")).collect();
        let keys = Keys::new(names.iter().map(|name| (name.as_str(), name.as_str()))).expect("are distinct");
        for name in &names {
            assert_eq!(identify(&keys, &[name]), Finding::Consumer(name));
        }
    }

    #[test]
    fn a_wrong_key_is_turned_away() {
        let keys = keys();
        for wrong in ["", "k", "k2", "K1", "k1 ", "k1,k1", "demo", "\u{107}\u{31}"] {
            assert_eq!(identify(&keys, &[wrong]), Finding::Wrong, "{wrong:?}");
        }
    }

    #[test]
    fn two_values_are_a_wrong_key_even_if_both_are_right() {
        assert_eq!(identify(&keys(), &["k1", "k1"]), Finding::Wrong);
    }

    #[test]
    fn no_value_is_a_missing_key() {
        assert_eq!(identify(&keys(), &[]), Finding::Missing);
    }

    #[test]
    fn a_key_beyond_ascii_is_compared_by_its_bytes() {
        let keys = keys();
        // UTF-8 on the wire, as the host hands it over.
        assert_eq!(identify(&keys, &["cl\u{c3}\u{a9}"]), Finding::Consumer("zoe"));
        // Latin-1 on the wire is another key.
        assert_eq!(identify(&keys, &["cl\u{e9}"]), Finding::Wrong);
        // What is no byte must not be cut down to one.
        assert_eq!(identify(&keys, &["cl\u{1c3}\u{a9}"]), Finding::Wrong);
    }

    #[test]
    fn a_key_has_one_consumer() {
        let shared = Keys::new([("a", "k"), ("b", "other"), ("c", "k")]).expect_err("is shared");
        assert_eq!(shared, SharedKey("a", "c"));
        assert!(Keys::new([("a", "k"), ("a", "k")]).is_ok());
    }

    #[test]
    fn digests_that_differ_in_any_bit_are_not_equal() {
        let known = digest(Sha256::new_with_prefix("k1"));
        assert!(bool::from(equal(&known, &known)));
        for bit in 0..256 {
            let mut other = known;
            other[bit / 64] ^= 1 << (bit % 64);
            assert!(!bool::from(equal(&known, &other)), "bit {bit}");
        }
    }
}
