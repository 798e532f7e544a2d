//! Which endpoint has this key, so that few keys move when endpoints come and go?
//!
//! Multi-probe consistent hashing (Appleton and O'Reilly, 2015): an endpoint has some points on a ring for each unit
//! of its weight, and a key is looked up by several probes, of which the one that is closest to the point after it
//! counts. When an endpoint leaves, its keys are shared out and no others move. Points and keys are hashed by XXH3,
//! which gives the same on every node.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{Candidates, Endpoint};

/// The ring of an upstream's endpoints.
#[derive(Debug)]
pub struct Ring {
    /// Sorted by position.
    points: Box<[Point]>,
    candidates: Candidates,
}

#[derive(Debug, Clone, Copy)]
struct Point {
    position: u64,
    endpoint: u32,
}

impl Ring {
    /// With so many probes the busiest endpoint has some 1.05 times the share that is its due (section 3 there).
    const PROBES: u64 = 21;

    /// Points for each unit of weight. Probes keep the busiest from having too much, points the idlest from having
    /// too little.
    const POINTS: u64 = 16;

    /// Points of a ring, more or less. Weights that would need more are halved together until they do not, which
    /// moves keys, so it is not done gradually.
    const MOST: u64 = 1 << 14;

    pub fn new(endpoints: &[Endpoint]) -> Self {
        let candidates = Candidates::new(endpoints);
        let wanted: u64 = endpoints.iter().map(|endpoint| u64::from(endpoint.weight) * Self::POINTS).sum();
        let halvings = wanted.div_ceil(Self::MOST).next_power_of_two().trailing_zeros();
        let points_of = |weight: u32| match weight {
            0 => 0,
            weight => ((u64::from(weight) * Self::POINTS) >> halvings).max(1),
        };
        let mut points: Vec<Point> = (0..)
            .zip(endpoints)
            .flat_map(|(endpoint, Endpoint { address, weight, .. })| {
                (0..points_of(*weight)).map(move |number| Point {
                    position: xxh3_64_with_seed(address.as_bytes(), number),
                    endpoint,
                })
            })
            .collect();
        points.sort_unstable_by_key(|point| point.position);
        Self { points: points.into(), candidates }
    }

    /// The endpoints in the order in which this key prefers them, of those that have not been tried.
    ///
    /// The first is the key's own; those after it are where the key goes when the first has had too much or failed.
    pub fn prefer<'a>(&'a self, key: &[u8], tried: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let start = self.closest(hash(key));
        let (before, after) = self.points.split_at(start);
        let regular = after.iter().chain(before).map(|point| point.endpoint);
        let spares = self.candidates.spares().iter().copied();
        regular.chain(spares).filter(move |endpoint| !tried.contains(endpoint))
    }

    /// The place of the point that is the closest after any probe.
    fn closest(&self, hash: u64) -> usize {
        let probes = (0..Self::PROBES).map(|number| {
            let probe = mixed(hash.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            let place = self.after(probe);
            (self.points.get(place).map_or(u64::MAX, |point| point.position.wrapping_sub(probe)), place)
        });
        probes.min().map_or(0, |(_, place)| place)
    }

    /// The place of the first point at or after a position, around the ring.
    ///
    /// Positions are evenly spread, so the search begins where the point would be if they were exactly so: it takes
    /// a few steps for many points as for few.
    fn after(&self, position: u64) -> usize {
        let count = self.points.len();
        let mut place = ((u128::from(position) * count as u128) >> 64) as usize;
        while place > 0 && self.points[place - 1].position >= position {
            place -= 1;
        }
        while place < count && self.points[place].position < position {
            place += 1;
        }
        if place == count { 0 } else { place }
    }
}

/// A number for a key, evenly spread over all there are, and the same on every node.
pub fn hash(key: &[u8]) -> u64 {
    xxh3_64(key)
}

/// The finaliser of SplitMix64: every bit of the result depends on every bit of the number.
fn mixed(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(weights: &[u32]) -> Vec<Endpoint> {
        (0..)
            .zip(weights)
            .map(|(number, weight)| Endpoint {
                address: format!("10.0.{}.{}:80", number / 256, number % 256),
                weight: *weight,
                tags: Vec::new(),
            })
            .collect()
    }

    fn owner(ring: &Ring, key: u32) -> Option<u32> {
        ring.prefer(&key.to_le_bytes(), &[]).next()
    }

    #[test]
    fn shares_follow_the_weights_over_100_000_keys() {
        for (weights, tolerance) in [(vec![1; 10], 0.25), (vec![1; 100], 0.3), (vec![10, 20, 30], 0.1)] {
            let ring = Ring::new(&endpoints(&weights));
            let mut keys = vec![0_u32; weights.len()];
            (0..100_000).for_each(|key| keys[owner(&ring, key).expect("there are endpoints") as usize] += 1);
            let whole: u32 = weights.iter().sum();
            for (weight, keys) in weights.iter().zip(keys) {
                let due = 100_000.0 * f64::from(*weight) / f64::from(whole);
                assert!((f64::from(keys) - due).abs() < due * tolerance, "{keys} of {due}");
            }
        }
    }

    #[test]
    fn when_an_endpoint_leaves_only_its_keys_move() {
        let all = endpoints(&[1; 50]);
        let fewer: Vec<Endpoint> =
            all.iter().filter(|endpoint| endpoint.address != all[7].address).cloned().collect();
        let (before, after) = (Ring::new(&all), Ring::new(&fewer));
        for key in 0..100_000 {
            let owner_before = owner(&before, key).expect("there are endpoints") as usize;
            let owner_after = owner(&after, key).expect("there are endpoints") as usize;
            if owner_before != 7 {
                assert_eq!(all[owner_before].address, fewer[owner_after].address, "{key}");
            }
        }
    }

    #[test]
    fn a_key_goes_on_to_the_next_when_its_own_has_been_tried_and_to_spares_last() {
        let ring = Ring::new(&endpoints(&[1, 1, 0]));
        for key in 0_u32..100 {
            let first = owner(&ring, key).expect("there are endpoints");
            let key = key.to_le_bytes();
            assert_eq!(ring.prefer(&key, &[first]).next(), Some(1 - first));
            assert_eq!(ring.prefer(&key, &[0, 1]).next(), Some(2));
            assert_eq!(ring.prefer(&key, &[0, 1, 2]).next(), None);
        }
    }

    #[test]
    fn odd_lists_do_no_harm() {
        assert_eq!(owner(&Ring::new(&[]), 1), None);
        assert_eq!(owner(&Ring::new(&endpoints(&[0])), 1), Some(0));
        assert_eq!(owner(&Ring::new(&endpoints(&[u32::MAX])), 1), Some(0));
        let same = vec![endpoints(&[1])[0].clone(); 3];
        assert!(owner(&Ring::new(&same), 1).is_some());
        let ring = Ring::new(&endpoints(&[u32::MAX, 1]));
        assert!(ring.points.len() as u64 <= Ring::MOST + 2, "{}", ring.points.len());
    }
}
