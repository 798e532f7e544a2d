//! Whose turn is it?

use std::cmp::Reverse;

/// The endpoints of one upstream, in the order in which their turns come.
///
/// Everything that depends on the weights is worked out here once, so that a pick is one remainder and
/// one look at a list, the same on every worker that draws the same number.
pub(crate) struct Rotation {
    /// The index of an endpoint for each turn; an endpoint has as many turns as its share.
    turns: Box<[u32]>,
    /// Endpoints of weight 0, which only serve when nothing else is left.
    spares: Box<[u32]>,
}

impl Rotation {
    /// A rotation over endpoints of these weights, each known by its index.
    pub(crate) fn new(weights: &[u32]) -> Self {
        let indexed = || (0..).zip(weights.iter().copied());
        let weighted = indexed().filter(|&(_, weight)| weight > 0);
        let spares = indexed().filter(|&(_, weight)| weight == 0);
        Self { turns: turns(shares(weighted)), spares: spares.map(|(index, _)| index).collect() }
    }

    /// Whether there is no endpoint at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty() && self.spares.is_empty()
    }

    /// The endpoint whose turn the drawn number is, or the next one after it that is not in `tried`.
    pub(crate) fn pick(&self, drawn: u32, tried: &[u32]) -> Option<u32> {
        next_untried(&self.turns, drawn, tried).or_else(|| next_untried(&self.spares, drawn, tried))
    }
}

fn next_untried(ring: &[u32], drawn: u32, tried: &[u32]) -> Option<u32> {
    let start = (drawn as usize).checked_rem(ring.len())?;
    let (before, after) = ring.split_at(start);
    after.iter().chain(before).copied().find(|endpoint| !tried.contains(endpoint))
}

/// An endpoint, and how many turns it has in one round.
type Share = (u32, i64);

/// How many turns a round may have. Weights like 1,000,000 and 999,999 would make a long one, to say
/// nothing that a shorter one does not say as well.
const LONGEST_ROUND: i64 = 10_000;

/// Turns weights, which are all positive, into the smallest shares of the same proportions.
///
/// Where a round would be too long, proportions are rounded, but every endpoint keeps one turn; so
/// there may be as many turns more than [`LONGEST_ROUND`] as there are endpoints.
fn shares(weights: impl Iterator<Item = (u32, u32)>) -> Vec<Share> {
    let mut shares: Vec<Share> = weights.map(|(index, weight)| (index, weight.into())).collect();
    reduce(&mut shares);
    let round = round(&shares);
    if round > LONGEST_ROUND {
        for (_, share) in &mut shares {
            *share = ((*share * LONGEST_ROUND + round / 2) / round).max(1);
        }
        reduce(&mut shares);
    }
    shares
}

fn reduce(shares: &mut [Share]) {
    let divisor = shares.iter().fold(0, |divisor, &(_, share)| greatest_common_divisor(divisor, share));
    for (_, share) in shares {
        *share /= divisor;
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

fn round(shares: &[Share]) -> i64 {
    shares.iter().map(|&(_, share)| share).sum()
}

/// One round of nginx's smooth weighted round robin: the turns of a heavy endpoint are spread out
/// instead of following each other.
///
/// There, each turn adds its share to the credit of every endpoint, the one with the most credit is
/// picked (the first of them, if there are several) and pays the whole round. So the credit of an
/// endpoint follows from how often it has been picked, and endpoints of equal share take turns among
/// themselves: it is enough to compare one of each rank. As the different shares of a round add up to
/// no more than the round, there are few ranks, and many endpoints cost no more than few.
fn turns(shares: Vec<Share>) -> Box<[u32]> {
    let round = round(&shares);
    let mut ranks: Vec<Rank> = Vec::new();
    for (index, share) in shares {
        match ranks.iter_mut().find(|rank| rank.share == share) {
            Some(rank) => rank.members.push(index),
            None => ranks.push(Rank { share, members: vec![index], next: 0, rounds: 0 }),
        }
    }
    (1..=round)
        .filter_map(|turn| {
            let rank = ranks.iter_mut().max_by_key(|rank| {
                let credit = turn * rank.share - round * rank.rounds;
                (credit, Reverse(rank.members[rank.next]))
            })?;
            Some(rank.take())
        })
        .collect()
}

/// The endpoints of one share, by index. Never empty.
struct Rank {
    share: i64,
    members: Vec<u32>,
    /// The place of the one that is picked next.
    next: usize,
    /// How often that one has been picked.
    rounds: i64,
}

impl Rank {
    fn take(&mut self) -> u32 {
        let endpoint = self.members[self.next];
        self.next += 1;
        if self.next == self.members.len() {
            self.next = 0;
            self.rounds += 1;
        }
        endpoint
    }
}

#[cfg(test)]
mod tests {
    use super::{LONGEST_ROUND, Rotation};

    fn picks(weights: &[u32], calls: u32) -> Vec<u32> {
        let rotation = Rotation::new(weights);
        (0..calls).filter_map(|drawn| rotation.pick(drawn, &[])).collect()
    }

    fn turns_of(rotation: &Rotation, endpoint: u32) -> usize {
        rotation.turns.iter().filter(|&&turn| turn == endpoint).count()
    }

    #[test]
    fn equal_weights_rotate_in_order() {
        for weight in [1, 7, u32::MAX] {
            assert_eq!(picks(&[weight; 3], 7), [0, 1, 2, 0, 1, 2, 0]);
        }
    }

    #[test]
    fn a_heavy_endpoint_has_its_turns_spread_out() {
        assert_eq!(picks(&[5, 1, 1], 7), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(picks(&[1, 3], 8), [1, 0, 1, 1, 1, 0, 1, 1]);
    }

    #[test]
    fn the_order_is_that_of_nginx() {
        for weights in
            [&[5, 1, 1][..], &[1, 2, 3, 4], &[4, 4, 2, 2, 1], &[3, 1, 3, 2, 3, 1], &[1, 100], &[13, 7, 7, 13]]
        {
            let round = weights.iter().sum();
            assert_eq!(picks(weights, round), as_nginx_does(weights, round), "{weights:?}");
        }
    }

    fn as_nginx_does(weights: &[u32], calls: u32) -> Vec<u32> {
        let total: i64 = weights.iter().copied().map(i64::from).sum();
        let mut credits = vec![0; weights.len()];
        (0..calls)
            .map(|_| {
                let mut best = 0;
                for index in 0..weights.len() {
                    credits[index] += i64::from(weights[index]);
                    if credits[index] > credits[best] {
                        best = index;
                    }
                }
                credits[best] -= total;
                best as u32
            })
            .collect()
    }

    #[test]
    fn proportions_matter_and_not_their_unit() {
        assert_eq!(Rotation::new(&[300, 100]).turns, Rotation::new(&[3, 1]).turns);
    }

    #[test]
    fn a_round_is_never_long_and_leaves_nobody_out() {
        let rotation = Rotation::new(&[u32::MAX, 1, u32::MAX / 2]);
        assert!(rotation.turns.len() as i64 <= LONGEST_ROUND + 3);
        assert_eq!(turns_of(&rotation, 1), 1);
        assert_eq!(turns_of(&rotation, 0), 6667);
        assert_eq!(turns_of(&rotation, 2), 3333);

        let many: Vec<u32> = (1..=20_000).collect();
        let rotation = Rotation::new(&many);
        assert!(rotation.turns.len() as i64 <= LONGEST_ROUND + 20_000);
        assert!(turns_of(&rotation, 0) > 0);
    }

    #[test]
    fn a_tried_endpoint_gives_its_turn_to_the_next() {
        let rotation = Rotation::new(&[1; 3]);
        assert_eq!(rotation.pick(0, &[0]), Some(1));
        assert_eq!(rotation.pick(2, &[2, 0]), Some(1));
        assert_eq!(rotation.pick(1, &[9]), Some(1));
    }

    #[test]
    fn there_is_no_opinion_when_all_were_tried() {
        assert_eq!(Rotation::new(&[2, 1]).pick(5, &[1, 0]), None);
        assert_eq!(Rotation::new(&[2, 0]).pick(5, &[0, 1]), None);
    }

    #[test]
    fn there_is_no_opinion_without_endpoints() {
        let rotation = Rotation::new(&[]);
        assert!(rotation.is_empty());
        assert_eq!(rotation.pick(0, &[]), None);
    }

    #[test]
    fn weight_zero_serves_only_when_nothing_else_is_left() {
        let rotation = Rotation::new(&[0, 2, 1, 0]);
        assert!((0..30).all(|drawn| matches!(rotation.pick(drawn, &[]), Some(1 | 2))));
        assert_eq!(rotation.pick(0, &[1, 2]), Some(0));
        assert_eq!(rotation.pick(1, &[2, 1]), Some(3));
        assert_eq!(picks(&[0, 0], 3), [0, 1, 0]);
    }

    #[test]
    fn the_last_number_of_the_sequence_is_a_turn_like_any_other() {
        assert_eq!(Rotation::new(&[1; 4]).pick(u32::MAX, &[]), Some(3));
    }
}
