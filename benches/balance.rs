//! What does a pick cost with 10 endpoints, and what with 10,000?

use std::{hint::black_box, path::Path, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::{
    address::Caller,
    config,
    plugin::{Capabilities, Compiler, Engine, EngineSettings, Exchange, ExchangeSlot, Plugin, Slot},
    telemetry::Writer,
    upstream::{Roster, Tls, Upstream},
};
use tollgate_tests::shipped;

/// That of the executable.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn slot(engine: &Engine, name: &str, settings: &str) -> Slot {
    let settings: config::Plugin = toml::from_str(settings).expect("the settings are valid");
    let code = engine.load(&shipped(name)).expect("the component is a plugin");
    let capabilities = Capabilities::granted(&settings.grants, Path::new("."), None);
    let capabilities = capabilities.expect("there are no secrets to be read");
    let plugin = Plugin::new(name.into(), code, &settings, capabilities, None, 1);
    Slot::new(Arc::new(plugin.expect("the plugin takes its configuration")), Writer::ALONE)
}

fn roster(count: u32) -> Arc<Roster> {
    let endpoint = |number: u32| format!("'http://10.0.{}.{}:80'", number / 256, number % 256);
    let endpoints: Vec<String> = (0..count).map(endpoint).collect();
    let settings = toml::from_str(&format!("endpoints = [{}]", endpoints.join(", ")));
    let settings = settings.expect("the settings are valid");
    Upstream::new("app".into(), &settings, Tls::default(), None).roster().clone()
}

fn exchange() -> ExchangeSlot {
    let request = http::Request::get("/").header("x-user", "somebody");
    let (parts, ()) = request.body(()).expect("the request is valid").into_parts();
    ExchangeSlot::new(Exchange::new(
        parts,
        Caller::Ip([127, 0, 0, 1].into()),
        "http",
        "route".into(),
        "app".into(),
    ))
}

fn picks(criterion: &mut Criterion) {
    let engine = Engine::new(&EngineSettings { workers: 2, artifacts: None, compiler: Compiler::InProcess })
        .expect("the engine starts");
    let mut exchange = exchange();
    for (name, settings) in [
        ("round-robin", ""),
        ("least-requests", ""),
        ("consistent-hash", "config = { by = { header = 'x-user' } }"),
    ] {
        let slot = slot(&engine, name, settings);
        for count in [10, 10_000] {
            let roster = roster(count);
            criterion.bench_function(&format!("{name} of {count}"), |bencher| {
                bencher.iter(|| black_box(slot.pick(&mut exchange, &roster, &[])).expect("a pick"));
            });
        }
    }
}

criterion_group!(benches, picks);
criterion_main!(benches);
