//! A plugin that sends requests and reads bodies as the request says.
//!
//! `x-do` holds commands such as `send GET http://other/; body`, for the request, and `x-do-response` for the
//! response. What came of each stands in `x-outcome` and `x-outcome-response`, separated by `; `. With `x-verdict:
//! reply` the request is answered with it. What is to be done at each tick stands in the configuration: `tick`.

use std::{
    hint::black_box,
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
};

wit_bindgen::generate!({
    inline: "
        package tollgate:waiting-guest;

        world guest {
            include tollgate:policy/plugin@0.1.0;
            import tollgate:policy/http-client@0.1.0;
            import tollgate:policy/body@0.1.0;
            export tollgate:policy/request-hook@0.1.0;
            export tollgate:policy/response-hook@0.1.0;
            export tollgate:policy/balance-hook@0.1.0;
            export tollgate:policy/tick-hook@0.1.0;
        }
    ",
    path: "../../../wit",
    world: "tollgate:waiting-guest/guest",
    generate_all,
});

use exports::tollgate::policy::{balance_hook, lifecycle, request_hook, response_hook, tick_hook};
use tollgate::policy::{
    body,
    http_client::{self, Outgoing},
    log, request, response,
    types::Reply,
};

struct Guest;

/// What is to be done at each tick.
static TICK: OnceLock<String> = OnceLock::new();

/// Calls of hooks into this instance.
static CALLS: AtomicU32 = AtomicU32::new(0);

fn outgoing(method: &str, url: &str) -> Outgoing {
    Outgoing {
        method: method.to_owned(),
        url: url.to_owned(),
        headers: vec![("x-from".to_owned(), "guest".to_owned())],
        body: Vec::new(),
        timeout_ms: 0,
    }
}

fn send(outgoing: &Outgoing) -> String {
    match http_client::send(outgoing) {
        Ok(incoming) => {
            let header = |(name, value): &(String, String)| (name == "x-origin").then(|| value.clone());
            let origin = incoming.headers.iter().find_map(header).unwrap_or_default();
            format!("{} {origin} {}", incoming.status, shown(&incoming.body))
        }
        Err(error) => error.name().to_owned(),
    }
}

/// Short content as it is, of long content the length.
fn shown(content: &[u8]) -> String {
    match content.len() {
        ..=64 => String::from_utf8_lossy(content).into_owned(),
        length => format!("{length} bytes"),
    }
}

/// What came of a command, in words.
fn obey(command: &str, of_response: bool) -> String {
    let words: Vec<&str> = command.split_whitespace().collect();
    match words[..] {
        [] => String::new(),
        ["send", method, url] => send(&outgoing(method, url)),
        ["send", method, url, timeout] => {
            let timeout_ms = timeout.parse().unwrap_or_default();
            send(&Outgoing { timeout_ms, ..outgoing(method, url) })
        }
        ["post", url, content] => send(&Outgoing { body: content.into(), ..outgoing("POST", url) }),
        ["header", name, value, url] => {
            let headers = vec![(name.to_owned(), value.to_owned())];
            send(&Outgoing { headers, ..outgoing("GET", url) })
        }
        ["send-forever", method, url] => loop {
            black_box(send(&outgoing(method, url)));
        },
        ["many", count, url] => {
            let headers = vec![("x-many".to_owned(), String::new()); count.parse().unwrap_or_default()];
            send(&Outgoing { headers, ..outgoing("GET", url) })
        }
        ["body"] => {
            let read = if of_response { body::response_body() } else { body::request_body() };
            read.map_or_else(|error| error.name().to_owned(), |content| shown(&content))
        }
        ["request-body"] => {
            let read = body::request_body();
            read.map_or_else(|error| error.name().to_owned(), |content| shown(&content))
        }
        ["set", ref content @ ..] => {
            let content = content.join(" ");
            match of_response {
                true => body::set_response_body(content.as_bytes()),
                false => body::set_request_body(content.as_bytes()),
            }
            "set".to_owned()
        }
        ["set-request-late"] => {
            body::set_request_body(b"late");
            "set".to_owned()
        }
        ["calls"] => CALLS.load(Ordering::Relaxed).to_string(),
        ["loop"] => loop {
            black_box(());
        },
        ["work"] => work(3),
        ["work", millions] => work(millions.parse().unwrap_or_default()),
        _ => panic!("{command} is not a command"),
    }
}

/// Counts so many millions.
fn work(millions: u32) -> String {
    for step in 0..millions * 1_000_000 {
        black_box(step);
    }
    "worked".to_owned()
}

fn outcomes(commands: &str, of_response: bool) -> String {
    CALLS.fetch_add(1, Ordering::Relaxed);
    commands.split(';').map(|command| obey(command, of_response)).collect::<Vec<_>>().join("; ")
}

impl lifecycle::Guest for Guest {
    fn configure(config: String) -> Result<(), String> {
        if config.contains("send at once") {
            return Err(send(&outgoing("GET", "http://127.0.0.1:1/")));
        }
        let config: serde_json::Value = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        let _ = TICK.set(config["tick"].as_str().unwrap_or_default().to_owned());
        Ok(())
    }
}

impl request_hook::Guest for Guest {
    fn on_request() -> request_hook::Verdict {
        let outcome = outcomes(&request::header("x-do").unwrap_or_default(), false);
        if request::header("x-verdict").as_deref() == Some("reply") {
            let (headers, body) = (Vec::new(), outcome.into_bytes());
            return request_hook::Verdict::Reply(Reply { status: 200, headers, body });
        }
        let _ = request::set_header("x-outcome", &outcome);
        request_hook::Verdict::Next
    }
}

impl response_hook::Guest for Guest {
    fn on_response() -> response_hook::Verdict {
        let Some(commands) = request::header("x-do-response") else { return response_hook::Verdict::Next };
        let outcome = outcomes(&commands, true);
        let _ = response::set_header("x-outcome-response", &outcome);
        response_hook::Verdict::Next
    }
}

impl tick_hook::Guest for Guest {
    fn on_tick() {
        let outcome = outcomes(TICK.get().map_or("", String::as_str), false);
        log::write(log::Level::Info, &format!("ticks: {outcome}"));
    }
}

impl balance_hook::Guest for Guest {
    fn endpoints_changed(_: String, _: Vec<balance_hook::Endpoint>) {}

    fn pick(_: String, _: Vec<u32>) -> Option<u32> {
        None
    }
}

// On the host the exported names are not ones that a linker takes.
#[cfg(target_family = "wasm")]
export!(Guest);
