//! Who says that it has the least to do?

use std::cell::RefCell;

use fastrand::Rng;
use tollgate_plugin_sdk::{
    Balance, Candidates, Endpoint, Plugin, config,
    pool::{self, Condition},
};

#[derive(Default)]
struct Resource {
    random: RefCell<Rng>,
}

impl Plugin for Resource {
    fn configure(config: &str) -> Result<Self, String> {
        config::nothing(config)?;
        Ok(Self::default())
    }
}

impl Balance for Resource {
    type Pool = Candidates;

    fn prepare(&self, _: &str, endpoints: Vec<Endpoint>, _: Option<Candidates>) -> Candidates {
        Candidates::new(&endpoints)
    }

    fn pick(&self, upstream: &str, candidates: &Candidates, tried: &[u32]) -> Option<u32> {
        let state = |place| (pool::inspect(upstream, place), candidates.weight(place));
        let random = &mut self.random.borrow_mut();
        candidates.better_of_two(random, tried, |one, other| is_less(state(one), state(other)))
    }
}

/// Whether one endpoint has less to do than the other: by what both report, or else by their requests in flight.
///
/// A report is of the past, so that requests in flight decide between equals, too.
fn is_less(one: (Option<Condition>, u32), other: (Option<Condition>, u32)) -> bool {
    let load = |(condition, _): &(Option<Condition>, u32)| condition.as_ref().and_then(|it| it.load);
    let active = |(condition, weight): &(Option<Condition>, u32)| {
        (condition.as_ref().map_or(0.0, |it| f64::from(it.active)) + 1.0) / f64::from(*weight)
    };
    match (load(&one), load(&other)) {
        (Some(a), Some(b)) if a != b => a < b,
        _ => active(&one) < active(&other),
    }
}

tollgate_plugin_sdk::export!(Resource: Balance);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_decide_where_both_have_made_one() {
        let state =
            |load, active, weight| (Some(Condition { active, latency_us: 0, failures: 0, load }), weight);
        for (one, other, less) in [
            (state(Some(0.2), 9, 1), state(Some(0.7), 0, 1), true),
            (state(Some(0.7), 0, 1), state(Some(0.2), 9, 1), false),
            (state(Some(0.5), 0, 1), state(Some(0.5), 1, 1), true),
            (state(None, 1, 1), state(Some(0.1), 2, 1), true),
            (state(None, 3, 4), state(None, 1, 1), true),
            (state(None, 0, 1), (None, 1), false),
        ] {
            assert_eq!(is_less(one, other), less, "{one:?} {other:?}");
        }
    }
}
