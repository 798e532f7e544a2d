//! A plugin that is told of requests that have ended, and writes each down in the log, or does worse.
//!
//! `{ "told": "log" }` is the first; `"trap"` and `"loop"` are what they say, `"trap once"` does so the first time that an
//! instance is told of a target that ends in `trap`. At each tick it logs of how many it has been told.

use std::{
    cell::{Cell, OnceCell},
    hint::black_box,
};

use serde_json::{Value, json};

wit_bindgen::generate!({
    inline: "
        package tollgate:told-guest;

        world guest {
            include tollgate:policy/plugin@0.1.0;
            export tollgate:policy/complete-hook@0.1.0;
            export tollgate:policy/tick-hook@0.1.0;
        }
    ",
    path: "../../../wit",
    world: "tollgate:told-guest/guest",
    generate_all,
});

use exports::tollgate::policy::{
    complete_hook::{self, Outcome},
    lifecycle, tick_hook,
};
use tollgate::policy::log;

struct Guest;

thread_local! {
    static BEHAVIOUR: OnceCell<String> = const { OnceCell::new() };
    static TOLD: Cell<usize> = const { Cell::new(0) };
}

fn written(outcome: &Outcome) -> Value {
    json!({
        "id": outcome.request_id,
        "time": outcome.time_ms,
        "method": outcome.method,
        "authority": outcome.authority,
        "target": outcome.target,
        "client": outcome.client_address,
        "route": outcome.route,
        "upstream": outcome.upstream,
        "status": outcome.status,
        "endpoint": outcome.endpoint,
        "attempts": outcome.attempts,
        "from-cache": outcome.from_cache,
        "in": outcome.bytes_in,
        "out": outcome.bytes_out,
        "duration": outcome.duration_us,
        "upstream-duration": outcome.upstream_us,
        "notes": outcome.notes,
    })
}

impl lifecycle::Guest for Guest {
    fn configure(config: String) -> Result<(), String> {
        let config: Value = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        let behaviour = config["told"].as_str().unwrap_or("log").to_owned();
        BEHAVIOUR.with(|place| place.set(behaviour)).map_err(|_| "it is configured once".to_owned())
    }
}

impl complete_hook::Guest for Guest {
    fn on_complete(outcomes: Vec<Outcome>) {
        let behaviour = BEHAVIOUR.with(|behaviour| behaviour.get().cloned().unwrap_or_default());
        let has_bait = outcomes.iter().any(|outcome| outcome.target.ends_with("trap"));
        match behaviour.as_str() {
            "trap" => panic!("the guest panics on purpose"),
            "trap once" if has_bait => panic!("the guest panics on purpose"),
            "loop" => loop {
                black_box(());
            },
            _ => {}
        }
        TOLD.with(|told| told.set(told.get() + outcomes.len()));
        for outcome in &outcomes {
            log::write(log::Level::Info, &format!("told: {}", written(outcome)));
        }
    }
}

impl tick_hook::Guest for Guest {
    fn on_tick() {
        log::write(log::Level::Info, &format!("told of so far: {};", TOLD.with(Cell::get)));
    }
}

// On the host the exported names are not ones that a linker takes.
#[cfg(target_family = "wasm")]
export!(Guest);
