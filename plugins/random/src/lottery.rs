//! How is an endpoint drawn by its weight, however many there are?

use fastrand::Rng;
use tollgate_plugin_sdk::Candidates;

/// Walker's alias method, with the tables made as in Vose, "A Linear Algorithm for Generating Random Numbers with a
/// Given Distribution" (1991): a draw is one look at a table.
#[derive(Debug)]
pub(crate) struct Lottery {
    /// For each column the endpoint it is of, the one that has the rest of it, and the share of the first.
    columns: Box<[Column]>,
    candidates: Candidates,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    own: u32,
    other: u32,
    /// Of 1.
    share: f64,
}

impl Lottery {
    /// Draws that meet an endpoint which has been tried, before the others are looked at one by one.
    const DRAWS: usize = 8;

    pub(crate) fn new(candidates: Candidates) -> Self {
        let places: Vec<u32> = candidates.untried(&[]).collect();
        let whole: f64 = places.iter().map(|place| f64::from(candidates.weight(*place))).sum();
        let mut columns: Vec<Column> = places
            .iter()
            .map(|place| Column {
                own: *place,
                other: *place,
                share: f64::from(candidates.weight(*place)) * places.len() as f64 / whole,
            })
            .collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) =
            (0..columns.len()).partition(|column| columns[*column].share < 1.0);
        while let (Some(less), Some(more)) = (small.pop(), large.pop()) {
            columns[less].other = columns[more].own;
            columns[more].share -= 1.0 - columns[less].share;
            if columns[more].share < 1.0 { small.push(more) } else { large.push(more) }
        }
        Self { columns: columns.into(), candidates }
    }

    pub(crate) fn draw(&self, random: &mut Rng, tried: &[u32]) -> Option<u32> {
        if self.columns.is_empty() {
            return None;
        }
        for _ in 0..Self::DRAWS {
            let column = self.columns[random.usize(..self.columns.len())];
            let drawn = if random.f64() < column.share { column.own } else { column.other };
            if !tried.contains(&drawn) {
                return Some(drawn);
            }
        }
        let left: Vec<u32> = self.candidates.untried(tried).collect();
        random.choice(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_weights_over_100_000_draws() {
        let mut random = Rng::with_seed(7);
        for weights in [vec![1, 1, 1], vec![5, 1, 1, 0], vec![1; 100], vec![1_000_000, 1], vec![0, 0]] {
            let lottery = Lottery::new(Candidates::of_weights(weights.clone().into()));
            let mut drawn = vec![0_u32; weights.len()];
            for _ in 0..100_000 {
                drawn[lottery.draw(&mut random, &[]).expect("there are endpoints") as usize] += 1;
            }
            let spares_only = weights.iter().all(|weight| *weight == 0);
            let weights: Vec<u32> = weights.iter().map(|weight| weight + u32::from(spares_only)).collect();
            let whole: u32 = weights.iter().sum();
            for (weight, drawn) in weights.iter().zip(drawn) {
                let due = 100_000.0 * f64::from(*weight) / f64::from(whole);
                // Five times the standard deviation.
                assert!((f64::from(drawn) - due).abs() <= 5.0 * due.sqrt(), "{drawn} of {due}");
            }
        }
    }

    #[test]
    fn what_has_been_tried_is_not_drawn_again() {
        let mut random = Rng::with_seed(7);
        let lottery = Lottery::new(Candidates::of_weights([1_000_000, 1, 0].into()));
        for _ in 0..100 {
            assert_eq!(lottery.draw(&mut random, &[0]), Some(1));
            assert_eq!(lottery.draw(&mut random, &[0, 1]), Some(2));
            assert_eq!(lottery.draw(&mut random, &[0, 1, 2]), None);
        }
        assert_eq!(Lottery::new(Candidates::of_weights([].into())).draw(&mut random, &[]), None);
    }
}
