//! Whose key is this?

use siphasher::sip128::SipHasher24;
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};
use tollgate_plugin_sdk::HeaderValue;

/// The keys of all consumers, of which only digests are kept.
///
/// A digest is SipHash-2-4 with 128 bits of output under a secret that each instance draws for itself
/// (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012): who does not know the secret can
/// neither foresee a digest nor find two keys with the same.
#[derive(Debug)]
pub(crate) struct Keys {
    secret: SipHasher24,
    /// In order.
    digests: Vec<Digest>,
    /// Whose digest it is that stands at the same place.
    consumers: Vec<HeaderValue>,
}

/// What the values of the header say.
#[derive(Debug, PartialEq)]
pub(crate) enum Finding<'a> {
    Consumer(&'a HeaderValue),
    Missing,
    Wrong,
}

/// Two consumers with the same key, so that it would not tell who is calling.
#[derive(Debug, PartialEq)]
pub(crate) struct SharedKey<'a>(pub(crate) &'a str, pub(crate) &'a str);

impl Keys {
    /// Takes consumers, each with one of its keys, and a secret by chance.
    pub(crate) fn new<'a>(
        pairs: impl IntoIterator<Item = (&'a HeaderValue, &'a str)>,
        secret: &[u8; 16],
    ) -> Result<Self, SharedKey<'a>> {
        let secret = SipHasher24::new_with_key(secret);
        let mut owners: Vec<(Digest, &HeaderValue)> =
            pairs.into_iter().map(|(consumer, key)| (digest(&secret, key.as_bytes()), consumer)).collect();
        owners.sort_unstable();
        owners.dedup();
        if let Some([(_, one), (_, other)]) = owners.array_windows().find(|[(a, _), (b, _)]| a == b) {
            return Err(SharedKey(one.as_str(), other.as_str()));
        }
        let (digests, consumers) =
            owners.into_iter().map(|(digest, consumer)| (digest, consumer.clone())).unzip();
        Ok(Self { secret, digests, consumers })
    }

    /// Takes the value of the header; values of several are joined, which is no key of anybody's.
    pub(crate) fn identify(&self, value: Option<&str>) -> Finding<'_> {
        match value {
            None => Finding::Missing,
            Some(value) => self.owner(value).map_or(Finding::Wrong, Finding::Consumer),
        }
    }

    /// Looks for the digest by its first half and compares the whole in constant time. How long the search takes
    /// depends on a digest that nobody outside can foresee, so it tells nothing of any key.
    fn owner(&self, value: &str) -> Option<&HeaderValue> {
        let candidate = self.field_digest(value)?;
        let first = self.digests.partition_point(|known| half(*known) < half(candidate));
        let alike = self.digests[first..].iter().take_while(|known| half(**known) == half(candidate));
        let mut found = u32::MAX;
        for (place, known) in (first as u32..).zip(alike) {
            found.conditional_assign(&place, equal(*known, candidate));
        }
        self.consumers.get(found as usize)
    }

    /// The digest of the bytes that a header's value stands for: its code points.
    ///
    /// The host sends none beyond a byte. Where one does come, it is no key.
    fn field_digest(&self, value: &str) -> Option<Digest> {
        if value.is_ascii() {
            return Some(digest(&self.secret, value.as_bytes()));
        }
        let bytes: Vec<u8> = value.chars().map(u8::try_from).collect::<Result<_, _>>().ok()?;
        Some(digest(&self.secret, &bytes))
    }
}

type Digest = u128;

fn digest(secret: &SipHasher24, key: &[u8]) -> Digest {
    secret.hash(key).as_u128()
}

/// What digests are searched by.
fn half(digest: Digest) -> u64 {
    (digest >> 64) as u64
}

fn equal(a: Digest, b: Digest) -> Choice {
    let difference = a ^ b;
    (half(difference) | difference as u64).ct_eq(&0)
}

#[cfg(test)]
mod tests {
    use tollgate_plugin_sdk::HeaderValue;

    use super::{Finding, Keys, SharedKey, digest, equal};

    const SECRET: &[u8; 16] = b"drawn by a test.";

    fn keys() -> Keys {
        of(&[("demo", "k1"), ("batch", "old"), ("batch", "new"), ("zoe", "cl\u{e9}")]).expect("are distinct")
    }

    fn of(pairs: &[(&str, &str)]) -> Result<Keys, (String, String)> {
        let pairs: Vec<_> = pairs.iter().map(|(consumer, key)| (value(consumer), *key)).collect();
        Keys::new(pairs.iter().map(|(consumer, key)| (consumer, *key)), SECRET)
            .map_err(|SharedKey(one, other)| (one.to_owned(), other.to_owned()))
    }

    fn value(consumer: &str) -> HeaderValue {
        HeaderValue::text(consumer).expect(consumer)
    }

    #[test]
    fn a_key_tells_its_consumer() {
        let keys = keys();
        assert_eq!(keys.identify(Some("k1")), Finding::Consumer(&value("demo")));
        assert_eq!(keys.identify(Some("old")), Finding::Consumer(&value("batch")));
        assert_eq!(keys.identify(Some("new")), Finding::Consumer(&value("batch")));
    }

    #[test]
    fn every_one_of_many_keys_is_found() {
        let names: Vec<String> = (0..300).map(|number| format!("consumer-{number}")).collect();
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
        let keys = of(&pairs).expect("are distinct");
        for name in &names {
            assert_eq!(keys.identify(Some(name)), Finding::Consumer(&value(name)));
        }
    }

    #[test]
    fn a_wrong_key_is_turned_away() {
        let keys = keys();
        for wrong in ["", "k", "k2", "K1", "k1 ", "k1,k1", "demo", "\u{107}\u{31}"] {
            assert_eq!(keys.identify(Some(wrong)), Finding::Wrong, "{wrong:?}");
        }
    }

    #[test]
    fn two_values_are_a_wrong_key_even_if_both_are_right() {
        assert_eq!(keys().identify(Some("k1, k1")), Finding::Wrong);
    }

    #[test]
    fn no_value_is_a_missing_key() {
        assert_eq!(keys().identify(None), Finding::Missing);
    }

    #[test]
    fn a_key_beyond_ascii_is_compared_by_its_bytes() {
        let keys = keys();
        // UTF-8 on the wire, as the host hands it over.
        assert_eq!(keys.identify(Some("cl\u{c3}\u{a9}")), Finding::Consumer(&value("zoe")));
        // Latin-1 on the wire is another key.
        assert_eq!(keys.identify(Some("cl\u{e9}")), Finding::Wrong);
        // What is no byte must not be cut down to one.
        assert_eq!(keys.identify(Some("cl\u{1c3}\u{a9}")), Finding::Wrong);
    }

    #[test]
    fn a_key_has_one_consumer() {
        let shared = of(&[("a", "k"), ("b", "other"), ("c", "k")]).expect_err("is shared");
        assert_eq!(shared, ("a".to_owned(), "c".to_owned()));
        assert!(of(&[("a", "k"), ("a", "k")]).is_ok());
    }

    #[test]
    fn digests_that_differ_in_any_bit_are_not_equal() {
        let known = digest(&keys().secret, b"k1");
        assert!(bool::from(equal(known, known)));
        for bit in 0..128 {
            assert!(!bool::from(equal(known, known ^ (1 << bit))), "bit {bit}");
        }
    }
}
