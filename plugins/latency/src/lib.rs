//! Who is likely to answer first?

use std::cell::RefCell;

use fastrand::Rng;
use tollgate_plugin_sdk::{
    Balance, Candidates, Endpoint, Plugin, config,
    pool::{self, Condition},
};

#[derive(Default)]
struct Latency {
    random: RefCell<Rng>,
}

impl Plugin for Latency {
    fn configure(config: &str) -> Result<Self, String> {
        config::nothing(config)?;
        Ok(Self::default())
    }
}

impl Balance for Latency {
    type Pool = Candidates;

    fn prepare(&self, _: &str, endpoints: Vec<Endpoint>, _: Option<Candidates>) -> Candidates {
        Candidates::new(&endpoints)
    }

    fn pick(&self, upstream: &str, candidates: &Candidates, tried: &[u32]) -> Option<u32> {
        let cost =
            |place| pool::inspect(upstream, place).map_or(0.0, |it| cost(&it, candidates.weight(place)));
        let random = &mut self.random.borrow_mut();
        candidates.better_of_two(random, tried, |one, other| cost(one) < cost(other))
    }
}

/// What a request may have to wait for, in microseconds: the average latency for each request in flight and itself,
/// seen by the weight; as in Finagle's "Power of Two Choices with Peak EWMA".
///
/// An endpoint that has not answered yet costs nothing while it is idle, so that it gets a first request, and more than
/// any other until that is answered.
fn cost(condition: &Condition, weight: u32) -> f64 {
    /// In microseconds.
    const UNKNOWN: f64 = 1e9;

    let latency = match condition.latency_us {
        0 if condition.active == 0 => 0.0,
        0 => UNKNOWN,
        known => f64::from(known),
    };
    latency * (f64::from(condition.active) + 1.0) / f64::from(weight)
}

tollgate_plugin_sdk::export!(Latency: Balance);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_grows_with_latency_and_requests_and_falls_with_weight() {
        let cost = |latency_us, active, weight| {
            cost(&Condition { active, latency_us, failures: 0, load: None }, weight)
        };
        let ascending = [
            ("never used", cost(0, 0, 1)),
            ("quick and idle", cost(1_000, 0, 1)),
            ("slow, idle and heavy", cost(4_000, 0, 3)),
            ("quick and busy", cost(1_000, 1, 1)),
            ("slow", cost(4_000, 0, 1)),
            ("slow and busy", cost(4_000, 9, 1)),
            ("not answered yet", cost(0, 1, 1)),
        ];
        assert!(ascending.is_sorted_by(|(_, a), (_, b)| a < b), "{ascending:?}");
    }
}
