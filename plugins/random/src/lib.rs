//! Whom does chance choose?

mod lottery;

use std::cell::RefCell;

use fastrand::Rng;
use lottery::Lottery;
use serde::Deserialize;
use tollgate_plugin_sdk::{Balance, Candidates, Endpoint, Plugin, config};

struct Random {
    random: RefCell<Rng>,
}

impl Plugin for Random {
    fn configure(config: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}

        let Nothing {} = config::read(config)?;
        Ok(Self { random: RefCell::new(Rng::new()) })
    }
}

impl Balance for Random {
    type Pool = Lottery;

    fn prepare(&self, _: &str, endpoints: Vec<Endpoint>, _: Option<Lottery>) -> Lottery {
        Lottery::new(Candidates::new(&endpoints))
    }

    fn pick(&self, _: &str, lottery: &Lottery, tried: &[u32]) -> Option<u32> {
        lottery.draw(&mut self.random.borrow_mut(), tried)
    }
}

tollgate_plugin_sdk::export!(Random: Balance);
