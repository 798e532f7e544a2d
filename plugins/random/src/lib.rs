//! Whom does chance choose?

mod lottery;

use std::cell::RefCell;

use fastrand::Rng;
use lottery::Lottery;
use tollgate_plugin_sdk::{Balance, Candidates, Endpoint, Plugin, config};

#[derive(Default)]
struct Random {
    random: RefCell<Rng>,
}

impl Plugin for Random {
    fn configure(config: &str) -> Result<Self, String> {
        config::nothing(config)?;
        Ok(Self::default())
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
