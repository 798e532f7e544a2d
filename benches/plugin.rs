//! What does a call into a plugin cost, and what a fresh instance?

use std::{path::Path, sync::Arc};

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use tollgate::{
    address::Caller,
    config,
    plugin::{
        CallContext, CallError, Capabilities, Compiler, Engine, EngineSettings, Exchange, ExchangeSlot,
        NoHostIo, Plugin, RequestVerdict, Slot, at_once,
    },
    telemetry::Writer,
    upstream::{Tls, Upstream},
};
use tollgate_tests::{granted_guest, guest, shipped};

/// That of the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Calls on one request, which takes only so many added headers.
const CALLS: u64 = 256;

fn plugin(engine: &Engine, component: &[u8], settings: &str) -> Plugin {
    let settings: config::Plugin = toml::from_str(settings).expect("the settings are valid");
    let code = engine.load(component).expect("the component is a plugin");
    let capabilities = Capabilities::granted(&settings.grants, Path::new("."), None);
    let capabilities = capabilities.expect("there are no secrets to be read");
    Plugin::new("bench".into(), code, &settings, capabilities, None, 1)
        .expect("the plugin takes its configuration")
}

fn slot(engine: &Engine, component: &[u8], settings: &str) -> Slot {
    Slot::new(Arc::new(plugin(engine, component, settings)), Writer::ALONE)
}

/// Calls the hook as the proxy does. Nothing is waited for.
fn on_request(slot: &Slot, exchange: &mut ExchangeSlot) -> Result<RequestVerdict, CallError> {
    at_once(slot.on_request(exchange, CallContext::new(&mut NoHostIo)))
}

/// A request with 15 headers.
fn exchange() -> ExchangeSlot {
    let mut request = http::Request::get("/api/v1/users?page=2").header("host", "example.com");
    for number in 0..12 {
        request =
            request.header(format!("x-header-{number}"), "a value of some usual length, as headers have");
    }
    let request =
        request.header("x-api-key", "k1").header("x-request-id", "0123456789abcdef0123456789abcdef");
    let (parts, ()) = request.body(()).expect("the request is valid").into_parts();
    ExchangeSlot::new(Exchange::new(
        parts,
        Caller::Ip([127, 0, 0, 1].into()),
        "http",
        "route".into(),
        "app".into(),
    ))
}

fn calls(criterion: &mut Criterion) {
    let engine = Engine::new(&EngineSettings { workers: 2, artifacts: None, compiler: Compiler::InProcess })
        .expect("the engine starts");
    let mut exchange = exchange();

    let header = slot(&engine, &guest(), "config = { request = 'read-header' }");
    criterion.bench_function("call a hook that reads one header", |bencher| {
        bencher.iter(|| on_request(&header, &mut exchange));
    });

    let key = slot(&engine, &shipped("api-key"), "config = { keys = { demo = 'k1' }, forward = true }");
    let mut group = criterion.benchmark_group("call");
    group.throughput(Throughput::Elements(CALLS));
    group.bench_function("api-key, so many times", |bencher| {
        let calls = |exchange: &mut ExchangeSlot| (0..CALLS).for_each(|_| drop(on_request(&key, exchange)));
        bencher.iter_batched_ref(self::exchange, calls, BatchSize::SmallInput);
    });
    group.finish();

    let settings =
        toml::from_str("endpoints = ['http://127.0.0.1:1', 'http://127.0.0.1:2', 'http://127.0.0.1:3']");
    let upstream =
        Upstream::new("app".into(), &settings.expect("the settings are valid"), Tls::default(), None);
    let rotation = slot(&engine, &shipped("round-robin"), "");
    criterion.bench_function("pick by round-robin among three", |bencher| {
        bencher.iter(|| rotation.pick(&mut exchange, &upstream.roster(), &[]));
    });

    let grants = "grants = { store = true, secrets = { unused = { env = 'PATH' } } }";
    for request in ["nothing", "get", "take"] {
        let keeping =
            slot(&engine, &granted_guest(), &format!("config = {{ request = '{request}' }}\n{grants}"));
        let name = format!("call a hook that does this with its store: {request}");
        criterion.bench_function(&name, |bencher| bencher.iter(|| on_request(&keeping, &mut exchange)));
    }

    let fresh = plugin(&engine, &guest(), "config = { request = 'read-header' }");
    let fresh = Arc::new(fresh);
    criterion.bench_function("start a fresh instance and call it", |bencher| {
        bencher.iter_batched(
            || Slot::new(fresh.clone(), Writer::ALONE),
            |slot| {
                let _ = on_request(&slot, &mut exchange);
                slot
            },
            BatchSize::PerIteration,
        );
    });
}

criterion_group!(benches, calls);
criterion_main!(benches);
