//! A plugin that uses the store and the secrets it was granted as the request says, and answers with what came
//! of it.
//!
//! `x-do` holds commands such as `set a 1; get a`; the answer is the outcome of each, a line each. With the
//! configuration `{ "request": "take", "times": 100 }` each request takes from one bucket so many times, and goes on; with
//! `"get"`, `"set"` and `"increment"` it does that with one value. For benchmarks.

use std::{
    hint::black_box,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

use serde_json::Value;

wit_bindgen::generate!({
    inline: "
        package tollgate:granted-guest;

        world guest {
            include tollgate:policy/plugin@0.1.0;
            import tollgate:policy/store@0.1.0;
            import tollgate:policy/secret@0.1.0;
            export tollgate:policy/request-hook@0.1.0;
        }
    ",
    path: "../../../wit",
    world: "tollgate:granted-guest/guest",
    generate_all,
});

use exports::tollgate::policy::{
    lifecycle,
    request_hook::{self, Verdict},
};
use tollgate::policy::{
    request, secret,
    store::{self, Error},
    types::Reply,
};

struct Guest;

static BEHAVIOUR: OnceLock<String> = OnceLock::new();

/// Kept from `configure`, which has the time to make it.
static PREPARED: OnceLock<Vec<u8>> = OnceLock::new();

/// How often a request does what is configured.
static TIMES: AtomicU32 = AtomicU32::new(1);

fn number<T: std::str::FromStr>(word: &str) -> T {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

fn ttl(word: Option<&&str>) -> Option<u32> {
    word.map(|word| number(word))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn prepared() -> &'static [u8] {
    PREPARED.get().map(Vec::as_slice).unwrap_or_default()
}

/// What came of a command, in words.
fn obey(command: &str) -> Result<String, Error> {
    let words: Vec<&str> = command.split_whitespace().collect();
    Ok(match words[..] {
        ["get", key] => store::get(key)?.map_or("none".to_owned(), |value| text(&value)),
        ["set", key, value, ref rest @ ..] => {
            store::set(key, value.as_bytes(), ttl(rest.first()))?;
            "ok".to_owned()
        }
        ["swap", key, old, new, ref rest @ ..] => {
            let old = Some(old.as_bytes()).filter(|old| *old != b"-");
            store::compare_and_set(key, old, new.as_bytes(), ttl(rest.first()))?.to_string()
        }
        ["add", key, delta, ref rest @ ..] => {
            store::increment(key, number(delta), ttl(rest.first()))?.to_string()
        }
        ["take", key, cost, rate, burst] => {
            let wait = store::take(key, number(cost), number(rate), number(burst))?;
            wait.map_or("passed".to_owned(), |wait| format!("wait {wait}"))
        }
        ["delete", key] => {
            store::delete(key)?;
            "ok".to_owned()
        }
        ["long", bytes] => {
            store::set("long", &vec![0; number(bytes)], None)?;
            "ok".to_owned()
        }
        // Until there is no more room.
        ["flood", bytes] => {
            let value = vec![0; number(bytes)];
            let taken = (0..).map(|place| store::set(&format!("flood {place}"), &value, None));
            taken.take_while(Result::is_ok).count().to_string()
        }
        ["verify", name, candidate] => secret::verify(name, candidate.as_bytes()).to_string(),
        ["sign", name, message] => match secret::hmac_sha256(name, message.as_bytes()) {
            None => "none".to_owned(),
            Some(mac) => mac.iter().map(|byte| format!("{byte:02x}")).collect(),
        },
        ["prepare", bytes] => PREPARED.get_or_init(|| vec![0; number(bytes)]).len().to_string(),
        ["verify-prepared", name] => secret::verify(name, prepared()).to_string(),
        ["sign-prepared", name] => secret::hmac_sha256(name, prepared()).is_some().to_string(),
        _ => panic!("{command} is not a command"),
    })
}

impl lifecycle::Guest for Guest {
    fn configure(config: String) -> Result<(), String> {
        let config: Value = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        let _ = BEHAVIOUR.set(config["request"].as_str().unwrap_or_default().to_owned());
        if let Some(times) = config["times"].as_u64() {
            TIMES.store(times.try_into().unwrap_or(u32::MAX), Ordering::Relaxed);
        }
        let once = config["once"].as_str().unwrap_or_default();
        match once.is_empty() {
            true => Ok(()),
            false => obey(once).map(drop).map_err(|error| error.name().to_owned()),
        }
    }
}

impl request_hook::Guest for Guest {
    fn on_request() -> Verdict {
        let again = 0..TIMES.load(Ordering::Relaxed);
        match BEHAVIOUR.get().map(String::as_str) {
            Some("take") => {
                for _ in again {
                    let _ = black_box(store::take("192.0.2.1", 1, 1e9, 1000));
                }
                return Verdict::Next;
            }
            Some("get") => {
                for _ in again {
                    let _ = black_box(store::get("192.0.2.1"));
                }
                return Verdict::Next;
            }
            Some("set") => {
                for _ in again {
                    let _ = black_box(store::set("192.0.2.1", b"a value", None));
                }
                return Verdict::Next;
            }
            Some("increment") => {
                for _ in again {
                    let _ = black_box(store::increment("192.0.2.1", 1, None));
                }
                return Verdict::Next;
            }
            Some("nothing") => return Verdict::Next,
            _ => {}
        }
        let commands = request::header("x-do").unwrap_or_default();
        let outcomes =
            commands.split(';').map(|command| obey(command).unwrap_or_else(|error| error.name().to_owned()));
        let body = outcomes.collect::<Vec<_>>().join("\n").into_bytes();
        Verdict::Reply(Reply { status: 200, headers: Vec::new(), body })
    }
}

// On the host the exported names are not ones that a linker takes.
#[cfg(target_family = "wasm")]
export!(Guest);
