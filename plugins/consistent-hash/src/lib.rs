//! Which endpoint is this key's?

mod by;

use by::By;
use serde::Deserialize;
use tollgate_plugin_sdk::{Balance, Endpoint, Plugin, Ring, config, pool};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct ConsistentHash {
    by: By,
    /// How many times the average an endpoint may have in flight before a key goes on to its next.
    load: Option<Load>,
}

/// A factor above 1.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(try_from = "f64")]
struct Load(f64);

impl TryFrom<f64> for Load {
    type Error = &'static str;

    fn try_from(factor: f64) -> Result<Self, Self::Error> {
        let is_usable = factor.is_finite() && factor > 1.0;
        is_usable.then_some(Self(factor)).ok_or("is a factor above 1, such as 1.25")
    }
}

impl Plugin for ConsistentHash {
    fn configure(config: &str) -> Result<Self, String> {
        config::read(config)
    }
}

impl Balance for ConsistentHash {
    type Pool = Ring;

    fn prepare(&self, _: &str, endpoints: Vec<Endpoint>, _: Option<Ring>) -> Ring {
        Ring::new(&endpoints)
    }

    fn pick(&self, upstream: &str, ring: &Ring, tried: &[u32]) -> Option<u32> {
        let key = self.by.key()?;
        let mut preferred = ring.prefer(key.as_bytes(), tried);
        match self.load {
            None => preferred.next(),
            Some(load) => first_below(load, &pool::active(upstream), preferred),
        }
    }
}

/// The first that may take one more: Mirrokni, Thorup and Zadimoghaddam, "Consistent Hashing with Bounded Loads"
/// (2018). There always is one, as not all can be above the average.
fn first_below(Load(factor): Load, active: &[u32], mut preferred: impl Iterator<Item = u32>) -> Option<u32> {
    let whole: u64 = active.iter().map(|active| u64::from(*active)).sum::<u64>() + 1;
    let bound = (factor * whole as f64 / active.len().max(1) as f64).ceil();
    let first = preferred.next()?;
    let has_room =
        |place: &u32| active.get(*place as usize).is_none_or(|active| f64::from(*active) + 1.0 <= bound);
    if has_room(&first) {
        return Some(first);
    }
    preferred.find(has_room).or(Some(first))
}

tollgate_plugin_sdk::export!(ConsistentHash: Balance);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_goes_on_when_its_endpoint_has_more_than_its_bound() {
        for (active, preferred, picked) in [
            (&[0, 0, 0][..], &[1, 2, 0][..], Some(1)),
            // 1.25 times (6 + 1) / 3 is 2.9: three may be in flight, the third among them.
            (&[2, 2, 2], &[1, 2, 0], Some(1)),
            (&[1, 3, 2], &[1, 2, 0], Some(2)),
            (&[0, 6, 5], &[1, 2, 0], Some(0)),
            // All that are left have too much.
            (&[0, 6, 5], &[1, 2], Some(1)),
            (&[], &[4], Some(4)),
            (&[1], &[], None),
        ] {
            let picked_here = first_below(Load(1.25), active, preferred.iter().copied());
            assert_eq!(picked_here, picked, "{active:?} {preferred:?}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_place() {
        for (config, reason) in [
            ("{}", "the key `by` is missing"),
            (r#"{"by":"weather"}"#, "`by` in `config`"),
            (r#"{"by":{"header":"a b"}}"#, "`by.header` in `config`: is not the name of a header"),
            (r#"{"by":{"cookie":"a=b"}}"#, "`by.cookie` in `config`: is not the name of a cookie"),
            (r#"{"by":"path","load":1.0}"#, "`load` in `config`: is a factor above 1"),
        ] {
            let refusal = ConsistentHash::configure(config).expect_err("is refused");
            assert!(refusal.contains(reason), "{config}: {refusal}");
        }
    }
}
