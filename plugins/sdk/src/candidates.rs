//! Which endpoints may be chosen, and which two by chance?

use fastrand::Rng;

use crate::Endpoint;

/// The endpoints of an upstream by their places, those of weight 0 apart: they only serve when nothing else is left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    weights: Box<[u32]>,
    regular: Box<[u32]>,
    spares: Box<[u32]>,
}

impl Candidates {
    pub fn new(endpoints: &[Endpoint]) -> Self {
        Self::of_weights(endpoints.iter().map(|endpoint| endpoint.weight).collect())
    }

    pub fn of_weights(weights: Box<[u32]>) -> Self {
        let places = || (0..).zip(weights.iter());
        let regular = places().filter(|(_, weight)| **weight > 0).map(|(place, _)| place).collect();
        let spares = places().filter(|(_, weight)| **weight == 0).map(|(place, _)| place).collect();
        Self { weights, regular, spares }
    }

    /// The weight of an endpoint; of a spare it is 1, as they only compete with each other.
    pub fn weight(&self, place: u32) -> u32 {
        self.weights.get(place as usize).copied().unwrap_or_default().max(1)
    }

    /// The endpoints of weight 0.
    pub fn spares(&self) -> &[u32] {
        &self.spares
    }

    /// The endpoints to choose from: those not tried, of weight 0 only if there are no others.
    pub fn untried<'a>(&'a self, tried: &'a [u32]) -> impl Iterator<Item = u32> + 'a {
        let is_untried = move |place: &u32| !tried.contains(place);
        let has_regular = self.regular.iter().any(is_untried);
        let these = if has_regular { &self.regular } else { &self.spares };
        these.iter().copied().filter(is_untried)
    }

    /// The better of two different endpoints taken by chance, or the only one there is to choose: see Mitzenmacher,
    /// "The Power of Two Choices in Randomized Load Balancing" (2001).
    pub fn better_of_two(
        &self,
        random: &mut Rng,
        tried: &[u32],
        is_better: impl FnOnce(u32, u32) -> bool,
    ) -> Option<u32> {
        match self.two(random, tried)? {
            (first, Some(second)) if is_better(second, first) => Some(second),
            (first, _) => Some(first),
        }
    }

    /// Two different endpoints taken by chance, or the only one there is to choose.
    ///
    /// Costs the same for many endpoints as for few unless most of them have been tried.
    fn two(&self, random: &mut Rng, tried: &[u32]) -> Option<(u32, Option<u32>)> {
        if self.regular.len() > 2 * tried.len() + 1 {
            let first =
                self.regular[draw(random, self.regular.len(), |place| tried.contains(&self.regular[place]))];
            let second = self.regular[draw(random, self.regular.len(), |place| {
                let drawn = self.regular[place];
                drawn == first || tried.contains(&drawn)
            })];
            return Some((first, Some(second)));
        }
        let mut left: Vec<u32> = self.untried(tried).collect();
        random.shuffle(&mut left);
        let mut left = left.into_iter();
        Some((left.next()?, left.next()))
    }
}

/// A place below `count` that is not excluded, of which there are fewer than half.
fn draw(random: &mut Rng, count: usize, is_excluded: impl Fn(usize) -> bool) -> usize {
    loop {
        let place = random.usize(..count);
        if !is_excluded(place) {
            return place;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u32]) -> Candidates {
        Candidates::of_weights(weights.into())
    }

    #[test]
    fn spares_are_left_until_nothing_else_is() {
        let candidates = candidates(&[0, 2, 1, 0]);
        let untried = |tried: &[u32]| candidates.untried(tried).collect::<Vec<_>>();
        assert_eq!(untried(&[]), [1, 2]);
        assert_eq!(untried(&[1]), [2]);
        assert_eq!(untried(&[1, 2]), [0, 3]);
        assert_eq!(untried(&[1, 2, 3]), [0]);
        assert_eq!(untried(&[0, 1, 2, 3]), [0_u32; 0]);
    }

    #[test]
    fn two_are_different_untried_and_each_as_likely_as_any_other() {
        let mut random = Rng::with_seed(7);
        for (weights, tried) in [
            (vec![1; 3], vec![]),
            (vec![5, 1, 1, 0, 1, 1], vec![2]),
            (vec![1; 10], vec![1, 3, 5]),
            (vec![1; 3], vec![0]),
        ] {
            let candidates = candidates(&weights);
            let mut drawn = vec![0_u32; weights.len()];
            for _ in 0..30_000 {
                let (first, second) = candidates.two(&mut random, &tried).expect("there are some");
                let second = second.expect("there are two");
                assert_ne!(first, second);
                drawn[first as usize] += 1;
                drawn[second as usize] += 1;
            }
            let untried: Vec<u32> = candidates.untried(&tried).collect();
            let share = 60_000 / untried.len() as u32;
            for (place, drawn) in (0..).zip(drawn) {
                match untried.contains(&place) {
                    true => assert!(drawn.abs_diff(share) < share / 10, "{place}: {drawn} of {share}"),
                    false => assert_eq!(drawn, 0, "{place}"),
                }
            }
        }
    }

    #[test]
    fn the_better_of_two_is_never_the_worst_of_all() {
        let mut random = Rng::with_seed(7);
        let candidates = candidates(&[1, 1, 1]);
        let mut picks = [0; 3];
        for _ in 0..3_000 {
            let pick = candidates.better_of_two(&mut random, &[], |one, other| one > other);
            picks[pick.expect("there are some") as usize] += 1;
        }
        assert_eq!(picks[0], 0);
        assert!(picks[2] > picks[1] && picks[1] > 0, "{picks:?}");
        assert_eq!(candidates.better_of_two(&mut random, &[1, 2], |_, _| true), Some(0));
        assert_eq!(candidates.better_of_two(&mut random, &[0, 1, 2], |_, _| true), None);
    }

    #[test]
    fn where_there_is_one_or_none_there_are_not_two() {
        let mut random = Rng::with_seed(7);
        assert_eq!(candidates(&[]).two(&mut random, &[]), None);
        assert_eq!(candidates(&[1, 1]).two(&mut random, &[0, 1]), None);
        assert_eq!(candidates(&[1, 1, 0]).two(&mut random, &[0]), Some((1, None)));
        assert_eq!(candidates(&[1, 0]).two(&mut random, &[0]), Some((1, None)));
    }
}
