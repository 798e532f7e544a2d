//! Who has the least to do?

use std::{cell::RefCell, fmt};

use fastrand::Rng;
use serde::{Deserialize, Deserializer, de};
use tollgate_plugin_sdk::{Balance, Candidates, Endpoint, Plugin, config, pool};

struct LeastRequests {
    choices: Choices,
    random: RefCell<Rng>,
}

/// How many endpoints are compared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Choices {
    /// Two, taken by chance.
    #[default]
    Two,
    All,
}

impl Plugin for LeastRequests {
    fn configure(config: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Config {
            #[serde(default)]
            choices: Choices,
        }

        let Config { choices } = config::read(config)?;
        Ok(Self { choices, random: RefCell::default() })
    }
}

impl Balance for LeastRequests {
    type Pool = Candidates;

    fn prepare(&self, _: &str, endpoints: Vec<Endpoint>, _: Option<Candidates>) -> Candidates {
        Candidates::new(&endpoints)
    }

    fn pick(&self, upstream: &str, candidates: &Candidates, tried: &[u32]) -> Option<u32> {
        let random = &mut *self.random.borrow_mut();
        match self.choices {
            Choices::Two => {
                let load = |place| Load {
                    active: pool::inspect(upstream, place).map_or(0, |condition| condition.active),
                    weight: candidates.weight(place),
                };
                candidates.better_of_two(random, tried, |one, other| load(one).is_less_than(load(other)))
            }
            Choices::All => least(candidates, &pool::active(upstream), tried, random),
        }
    }
}

/// Requests in flight, and the weight that they are to be seen by.
#[derive(Debug, Clone, Copy)]
struct Load {
    active: u32,
    weight: u32,
}

impl Load {
    /// Compares what the loads would be with one request more, so that weights count among the idle, too.
    fn is_less_than(self, other: Self) -> bool {
        let with_one_more = |load: Self| u64::from(load.active) + 1;
        with_one_more(self) * u64::from(other.weight) < with_one_more(other) * u64::from(self.weight)
    }
}

/// The least loaded of all; of several by chance.
fn least(candidates: &Candidates, active: &[u32], tried: &[u32], random: &mut Rng) -> Option<u32> {
    let mut best: Option<(u32, Load)> = None;
    let mut equals = 0;
    for place in candidates.untried(tried) {
        let load = Load {
            active: active.get(place as usize).copied().unwrap_or_default(),
            weight: candidates.weight(place),
        };
        let is_better = match best {
            None => true,
            Some((_, best)) if load.is_less_than(best) => true,
            Some((_, best)) if best.is_less_than(load) => false,
            Some(_) => {
                equals += 1;
                // Each of them is as likely as the others: Vitter, "Random Sampling with a Reservoir" (1985).
                if random.u32(..equals) == 0 {
                    best = Some((place, load));
                }
                continue;
            }
        };
        if is_better {
            best = Some((place, load));
            equals = 1;
        }
    }
    best.map(|(place, _)| place)
}

impl<'de> Deserialize<'de> for Choices {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Choices;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("2 or \"all\"")
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Choices, E> {
                (number == 2)
                    .then_some(Choices::Two)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Choices, E> {
                (text == "all")
                    .then_some(Choices::All)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

tollgate_plugin_sdk::export!(LeastRequests: Balance);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_seen_by_their_weights() {
        for (first, second, is_less) in [
            ((0, 1), (1, 1), true),
            ((1, 1), (1, 1), false),
            ((2, 3), (1, 1), true),
            ((5, 3), (1, 1), false),
            ((0, 1), (0, 2), false),
            ((0, 2), (0, 1), true),
            ((u32::MAX, u32::MAX), (u32::MAX, 1), true),
        ] {
            let load = |(active, weight)| Load { active, weight };
            assert_eq!(load(first).is_less_than(load(second)), is_less, "{first:?} {second:?}");
        }
    }

    #[test]
    fn the_least_of_all_is_found_and_equals_take_turns_by_chance() {
        let mut random = Rng::with_seed(7);
        let candidates = Candidates::of_weights([1, 1, 1, 0].into());
        let mut picks = [0; 4];
        for _ in 0..30_000 {
            picks[least(&candidates, &[1, 0, 0, 0], &[], &mut random).expect("there is one") as usize] += 1;
        }
        assert_eq!((picks[0], picks[3]), (0, 0));
        assert!(u32::abs_diff(picks[1], 15_000) < 750, "{picks:?}");
        assert_eq!(least(&candidates, &[1, 0, 0, 0], &[1, 2], &mut random), Some(0));
        assert_eq!(least(&candidates, &[], &[0, 1, 2], &mut random), Some(3));
        assert_eq!(least(&candidates, &[], &[0, 1, 2, 3], &mut random), None);
    }

    #[test]
    fn choices_are_two_or_all() {
        for (config, choices) in [
            ("{}", Some(Choices::Two)),
            (r#"{"choices":2}"#, Some(Choices::Two)),
            (r#"{"choices":"all"}"#, Some(Choices::All)),
            (r#"{"choices":3}"#, None),
            (r#"{"choices":"both"}"#, None),
        ] {
            let plugin = LeastRequests::configure(config);
            assert_eq!(plugin.as_ref().ok().map(|plugin| plugin.choices), choices, "{config}");
            if let Err(refusal) = plugin {
                assert_eq!(refusal, "`choices` in `config`: expected 2 or \"all\"");
            }
        }
    }
}
