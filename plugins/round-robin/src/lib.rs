//! How does the rotation reach the proxy?
//!
//! The plugin keeps one [`Rotation`] per upstream, made anew whenever the endpoints change, and asks
//! the host's `sequence` which turn it is: all workers draw from the same one, so the rotation is
//! strict over the whole process and goes on after a reload.

mod rotation;

use rotation::Rotation;
use tollgate_plugin_sdk::{Balance, Endpoint, Plugin, config, sequence};

struct RoundRobin;

/// The endpoints of one upstream, and the sequence that their turns are drawn from.
struct Turns {
    sequence: u32,
    rotation: Rotation,
}

impl Plugin for RoundRobin {
    fn configure(config: &str) -> Result<Self, String> {
        config::nothing(config).map(|()| Self)
    }
}

impl Balance for RoundRobin {
    type Pool = Turns;

    fn prepare(&self, upstream: &str, endpoints: Vec<Endpoint>, previous: Option<Turns>) -> Turns {
        let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.weight).collect();
        let sequence = previous.map_or_else(|| sequence::open(upstream), |previous| previous.sequence);
        Turns { sequence, rotation: Rotation::new(&weights) }
    }

    fn pick(&self, _: &str, Turns { sequence, rotation }: &Turns, tried: &[u32]) -> Option<u32> {
        if rotation.is_empty() {
            return None;
        }
        rotation.pick(sequence::next(*sequence), tried)
    }
}

tollgate_plugin_sdk::export!(RoundRobin: Balance);
