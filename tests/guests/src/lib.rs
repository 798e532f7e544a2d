//! A plugin that does what its configuration says, however bad: one component stands for many guests.
//!
//! Each hook has a key: `{ "configure": "refuse", "request": "loop", "response": "trap", "pick": "first" }`.
//! With "obey" the request says it: in `x-do`, `x-do-response` and `x-do-pick`. "request-0001" is what version 1 does alone.

use std::{
    hint::black_box,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use serde_json::{Value, json};

wit_bindgen::generate!({
    inline: "
        package tollgate:guest;

        world guest {
            include tollgate:policy/plugin@0.1.0;
            export tollgate:policy/request-hook@0.1.0;
            export tollgate:policy/response-hook@0.1.0;
            export tollgate:policy/balance-hook@0.1.0;
        }
    ",
    path: "../../wit",
    world: "tollgate:guest/guest",
    generate_all,
});

use exports::tollgate::policy::{balance_hook, lifecycle, request_hook, response_hook};
use tollgate::policy::{log, metrics, pool, request, response, sequence, types::Reply};

/// Tests put another number here, in the bytes of the component, to make a new version of it.
static VERSION: &str = "guest-version-0000";

struct Guest;

static CONFIG: OnceLock<Value> = OnceLock::new();

/// Reads one header and does nothing else, at no cost of its own: for the benchmark of a call.
static READS_HEADER: AtomicBool = AtomicBool::new(false);

/// Kept from call to call, so that growth shows.
static KEPT: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Calls of hooks into this instance.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// What a hook is to do; `header` is where the request says it, if it may.
fn behaviour(hook: &str, header: &str) -> String {
    CALLS.fetch_add(1, Ordering::Relaxed);
    let number = black_box(VERSION).rsplit('-').next().unwrap_or_default();
    let of_this =
        |config: &'static Value| config.get(format!("{hook}-{number}")).or_else(|| config.get(hook));
    let behaviour = CONFIG.get().and_then(|config| of_this(config)?.as_str()).unwrap_or("next");
    if behaviour == "obey" {
        return request::header(header).unwrap_or_default();
    }
    behaviour.to_owned()
}

/// The words for whatever is to be said: those of the request, or of the configuration.
fn says() -> String {
    let configured = || Some(CONFIG.get()?.get("says")?.as_str()?.to_owned());
    request::header("x-says").or_else(configured).unwrap_or_default()
}

fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Reply { status, headers, body: body.into() }
}

/// Ways to misbehave that any hook has.
fn misbehave(behaviour: &str) {
    match behaviour {
        "loop" => loop {
            black_box(());
        },
        "loop-calling" => loop {
            black_box(request::method());
        },
        "trap" => panic!("the guest panics on purpose"),
        "unreachable" => std::process::abort(),
        "exit" => std::process::exit(3),
        "grow" => loop {
            keep(1 << 20);
        },
        "grow-slowly" => keep(256 << 10),
        "recurse" => {
            black_box(recurse(0));
        }
        "recurse-without-memory" => {
            black_box(count_down(u64::MAX));
        }
        "sleep" => std::thread::sleep(Duration::from_secs(60)),
        "nap" => {
            let (began, nap) = (Instant::now(), Duration::from_micros(says().parse().unwrap_or_default()));
            std::thread::sleep(nap);
            assert!(began.elapsed() >= nap);
        }
        "nap-endless" => loop {
            std::thread::sleep(Duration::from_nanos(1));
        },
        "work" => {
            log::write(log::Level::Info, &format!("{} works", says()));
            for step in 0..100_000_000_u32 {
                black_box(step);
            }
        }
        "wait-for-another" => {
            log::write(log::Level::Info, &format!("{} waits for another", says()));
            let turns = sequence::open("turns");
            let mut last = sequence::next(turns);
            loop {
                let now = sequence::next(turns);
                if now != last.wrapping_add(1) {
                    break;
                }
                last = now;
            }
        }
        "be-another" => drop(black_box(sequence::next(sequence::open("turns")))),
        "spin" => {
            let started = Instant::now();
            while started.elapsed() < Duration::from_millis(says().parse().unwrap_or_default()) {}
        }
        "log" => log::write(log::Level::Warn, &format!("{} was here", says())),
        "log-flood" => {
            for number in 0..10_000 {
                log::write(log::Level::Info, &format!("flood {number} {}", says()));
            }
        }
        "print" => {
            println!("{} printed", says());
            eprintln!("{} complained", says());
        }
        "print-endless" => loop {
            println!("{} prints", says());
        },
        "status-flood" => (0..10_000).for_each(|_| response::set_status(64_007)),
        "print-flood" => (0..10_000).for_each(|number| println!("flood {number} {}", says())),
        "files" => {
            assert!(std::fs::read("/etc/passwd").is_err());
            assert!(std::fs::read_dir("/").is_err());
            assert!(std::fs::write("made-by-a-guest", "").is_err());
            assert!(std::env::vars().next().is_none());
            assert!(std::env::args().next().is_none());
        }
        "socket" => drop(std::net::TcpStream::connect("127.0.0.1:1")),
        "random" => {
            black_box(std::collections::HashMap::<u8, u8>::new());
            black_box(Instant::now());
            assert!(SystemTime::now() > SystemTime::UNIX_EPOCH);
        }
        "huge-strings" => {
            let huge = "x".repeat(4 << 20);
            log::write(log::Level::Info, &huge);
            request::set_note(&huge, &huge);
            ignore(request::set_header(&huge, &huge));
            ignore(request::set_target(&huge));
            black_box((request::header(&huge), request::note(&huge), pool::active(&huge)));
            black_box((metrics::open(metrics::Kind::Gauge, &huge), sequence::open(&huge)));
        }
        "long-names" => {
            for number in 0..64_u8 {
                let name = char::from(b'0' + number).to_string().repeat(1 << 20);
                let (metric, sequence) = (metrics::open(metrics::Kind::Gauge, &name), sequence::open(&name));
                metrics::observe(metric, 1.0);
                assert_eq!([sequence::next(sequence), sequence::next(sequence)], [0, 0]);
            }
        }
        "invalid-text" => {
            // SAFETY: there is none; nobody here looks at it, and the host must not take it for text.
            let text = unsafe { String::from_utf8_unchecked(vec![b'a', 0xff, 0xfe]) };
            log::write(log::Level::Info, &text);
        }
        "meddle" => {
            for name in ["x-a", "host", "", "a b"] {
                ignore(request::set_header(name, "1"));
                ignore(request::append_header(name, "1"));
                ignore(request::remove_header(name));
                ignore(response::set_header(name, "1"));
                ignore(response::append_header(name, "1"));
                ignore(response::remove_header(name));
            }
            ignore(request::set_target("/elsewhere"));
            request::set_note("note", "note");
            response::set_status(500);
            black_box((seen(), response::headers(), response::endpoint(), response::from_cache()));
            black_box((pool::inspect("app", 0), pool::active("app")));
        }
        "metrics" => {
            for number in 0..1000 {
                let id = metrics::open(metrics::Kind::Counter, &format!("m{number}"));
                metrics::observe(id, f64::NAN);
                metrics::observe(id, 1.0);
            }
            metrics::observe(123_456, 1.0);
        }
        "sequences" => {
            for number in 0..1000 {
                black_box(sequence::next(sequence::open(&format!("s{number}"))));
            }
            black_box(sequence::next(123_456));
        }
        _ => {}
    }
}

fn keep(size: usize) {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner).push(Vec::with_capacity(size));
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    recurse(depth + 1) + frame[3]
}

/// Leaves nothing in linear memory, so that it is the host's stack that overflows.
fn count_down(left: u64) -> u64 {
    let next: fn(u64) -> u64 = black_box(count_down);
    if left == 0 { 0 } else { next(left - 1) ^ left }
}

/// Everything the request has to say, as JSON.
fn seen() -> Value {
    json!({
        "id": request::id(),
        "method": request::method(),
        "scheme": request::scheme(),
        "authority": request::authority(),
        "path": request::path(),
        "query": request::query(),
        "version": request::http_version(),
        "client": request::client_address(),
        "certificate": request::client_certificate(),
        "route": request::route(),
        "upstream": request::upstream(),
        "headers": request::headers(),
        "cookie": request::header("Cookie"),
        "accept": request::header("accept"),
        "accept-values": request::header_values("accept"),
        "note": request::note("note"),
        "status": response::status(),
    })
}

/// What comes of touching each of these headers.
fn touch(
    names: &[&str],
    set: impl Fn(&str, &str) -> Result<(), tollgate::policy::types::HeaderError>,
) -> Value {
    names
        .iter()
        .map(|name| ((*name).to_owned(), set(name, "1").map_err(|error| error.name()).into_value()))
        .collect()
}

/// For changes of which the message tells whether they were made.
fn ignore(_outcome: Result<(), tollgate::policy::types::HeaderError>) {}

trait IntoValue {
    fn into_value(self) -> Value;
}

impl IntoValue for Result<(), &str> {
    fn into_value(self) -> Value {
        self.map_or_else(Value::from, |()| Value::from("ok"))
    }
}

const TOUCHED: [&str; 21] = [
    "client-cert",
    "client-cert-chain",
    "connection",
    "content-length",
    "expect",
    "forwarded",
    "host",
    "keep-alive",
    "not a name",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "Transfer-Encoding",
    "upgrade",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-free",
    "x-request-id",
];

impl lifecycle::Guest for Guest {
    fn configure(config: String) -> Result<(), String> {
        let config: Value = serde_json::from_str(&config).map_err(|error| error.to_string())?;
        READS_HEADER.store(config["request"] == "read-header", Ordering::Relaxed);
        let _ = CONFIG.set(config);
        // Outside a request there is nothing to see, and no harm in looking.
        black_box(seen());
        let behaviour = behaviour("configure", "");
        misbehave(&behaviour);
        match behaviour.as_str() {
            "refuse" => Err(says()),
            _ => Ok(()),
        }
    }
}

impl request_hook::Guest for Guest {
    fn on_request() -> request_hook::Verdict {
        use request_hook::Verdict;
        if READS_HEADER.load(Ordering::Relaxed) {
            black_box(request::header("x-api-key"));
            return Verdict::Next;
        }
        let behaviour = behaviour("request", "x-do");
        misbehave(&behaviour);
        match behaviour.as_str() {
            "version" => return Verdict::Reply(reply(200, &[], black_box(VERSION))),
            "mark-version" => ignore(request::set_header("x-version", black_box(VERSION))),
            "mark" => ignore(request::append_header("x-mark", &says())),
            "see" => {
                return Verdict::Reply(reply(
                    200,
                    &[("content-type", "application/json")],
                    seen().to_string(),
                ));
            }
            "touch" => {
                let touched = touch(&TOUCHED, request::set_header);
                ignore(request::set_header("x-touched", &touched.to_string()));
            }
            "copy" => {
                let value = request::header("x-bytes").unwrap_or_default();
                ignore(request::set_header("x-copy", &value));
            }
            "count" => {
                let counted = json!({
                    "calls": CALLS.load(Ordering::Relaxed),
                    "sequence": sequence::next(sequence::open("count")),
                });
                return Verdict::Reply(reply(200, &[], counted.to_string()));
            }
            "note" => request::set_note("note", &says()),
            "target" => {
                let outcome = request::set_target(&says()).map_err(|error| error.name()).into_value();
                ignore(request::set_header("x-outcome", outcome.as_str().unwrap_or_default()));
            }
            "header" => drop(request::set_header("x-guest", &says())),
            "promise" => {
                for promise in says().split(';') {
                    let (name, value) = promise.split_once('=').unwrap_or((promise, ""));
                    let outcome =
                        request::set_response_header(name, value).map_err(|error| error.name()).into_value();
                    ignore(request::append_header("x-outcome", outcome.as_str().unwrap_or_default()));
                }
            }
            "promise-and-reply" => {
                ignore(request::set_response_header("x-a", "3"));
                return Verdict::Reply(reply(418, &[("x-a", "1"), ("x-a", "2")], "short and stout"));
            }
            "reply" => return Verdict::Reply(reply(418, &[("x-a", "1"), ("x-a", "2")], "short and stout")),
            "reply-error" => return Verdict::Reply(reply(503, &[], "")),
            "reply-empty" => return Verdict::Reply(reply(204, &[], "")),
            "reply-bad-header" => return Verdict::Reply(reply(200, &[("x-a", "a\r\nx-b: b")], "")),
            "reply-bad-name" => return Verdict::Reply(reply(200, &[("x a", "1")], "")),
            "reply-framing" => return Verdict::Reply(reply(200, &[("content-length", "1000")], "short")),
            "reply-bad-status" => return Verdict::Reply(reply(42, &[], "")),
            "reply-million-headers" => {
                return Verdict::Reply(Reply {
                    status: 200,
                    headers: vec![(String::from("x"), String::new()); 1_000_000],
                    body: Vec::new(),
                });
            }
            "reply-huge" => return Verdict::Reply(reply(200, &[], vec![b'x'; 20 << 20])),
            "forward-huge" => return Verdict::Forward("x".repeat(20 << 20)),
            "reply-many-headers" => {
                return Verdict::Reply(Reply {
                    status: 200,
                    headers: (0..100_000).map(|number| (format!("x-{number}"), String::new())).collect(),
                    body: Vec::new(),
                });
            }
            "many-headers" => {
                for number in 0..100_000 {
                    ignore(request::append_header("x-many", &number.to_string()));
                }
            }
            "long-header" => ignore(request::set_header("x-long", &"x".repeat(10 << 20))),
            "forward" => return Verdict::Forward(says()),
            _ => {}
        }
        Verdict::Next
    }
}

impl response_hook::Guest for Guest {
    fn on_response() -> response_hook::Verdict {
        use response_hook::Verdict;
        let behaviour = behaviour("response", "x-do-response");
        misbehave(&behaviour);
        match behaviour.as_str() {
            "mark-version" => ignore(response::set_header("x-version", black_box(VERSION))),
            "copy" => {
                let value = response::header("x-bytes").unwrap_or_default();
                ignore(response::set_header("x-copy", &value));
            }
            "many-headers" => {
                for number in 0..100_000 {
                    ignore(response::append_header("x-many", &number.to_string()));
                }
            }
            "long-header" => ignore(response::set_header("x-long", &"x".repeat(10 << 20))),
            "reply-bad-header" => return Verdict::Reply(reply(200, &[("x-a", "a\nb")], "")),
            "reply-bad-status" => return Verdict::Reply(reply(101, &[], "")),
            "mark" => ignore(response::append_header("x-mark", &says())),
            "see" => {
                let seen = json!({
                    "request": seen(),
                    "status": response::status(),
                    "headers": response::headers(),
                    "from-cache": response::from_cache(),
                    "endpoint": response::endpoint(),
                    "late": request::set_header("x-late", "1").map_err(|error| error.name()).into_value(),
                    "late-promise": request::set_response_header("x-late", "1").map_err(|error| error.name()).into_value(),
                });
                return Verdict::Reply(reply(200, &[], seen.to_string()));
            }
            "touch" => {
                let touched = touch(&TOUCHED, response::set_header);
                ignore(response::set_header("x-touched", &touched.to_string()));
            }
            "status" => {
                response::set_status(42);
                response::set_status(203);
            }
            "status-204" => response::set_status(204),
            "status-205" => response::set_status(205),
            "status-304" => response::set_status(304),
            "promised" => {
                ignore(response::set_header("x-seen", &response::header("x-a").unwrap_or_default()));
            }
            "remove" => ignore(response::remove_header("x-backend-server")),
            "reply" => return Verdict::Reply(reply(418, &[], "instead")),
            "reply-framing" => return Verdict::Reply(reply(200, &[("transfer-encoding", "chunked")], "")),
            _ => {}
        }
        Verdict::Next
    }
}

impl balance_hook::Guest for Guest {
    fn endpoints_changed(upstream: String, endpoints: Vec<balance_hook::Endpoint>) {
        misbehave(&behaviour("endpoints", "x-do-endpoints"));
        black_box((upstream, endpoints));
    }

    fn pick(upstream: String, tried: Vec<u32>) -> Option<u32> {
        let behaviour = behaviour("pick", "x-do-pick");
        misbehave(&behaviour);
        match behaviour.as_str() {
            "first" => Some(0),
            "last" => Some(pool::active(&upstream).len() as u32 - 1),
            "beyond" => Some(1000),
            "tried" => Some(tried.first().copied().unwrap_or_default()),
            "by-header" => request::header("x-endpoint")?.parse().ok(),
            "least" => {
                let active = pool::active(&upstream);
                (0..active.len()).min_by_key(|index| active[*index]).map(|index| index as u32)
            }
            _ => None,
        }
    }
}

// On the host the exported names are not ones that a linker takes.
#[cfg(target_family = "wasm")]
export!(Guest);
