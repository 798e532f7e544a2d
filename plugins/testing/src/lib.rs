//! Does my plugin do what I promise, as a `#[test]`?
//!
//! The component runs as in `tollgate plugin test`: in the same engine, within the same limits, without sockets, and at a
//! time that stands still. What happens and what is expected is said in Rust in place of a `<name>.test.toml`, with the
//! same words: docs/plugin-testing.md tells what each means.
//!
//! ```ignore
//! use tollgate_testing::{Expect, Plugin, Request, toml};
//!
//! #[test]
//! fn who_is_denied_does_not_pass() {
//!     Plugin::package(env!("CARGO_MANIFEST_DIR"))
//!         .config(toml::toml! { deny = ["10.0.0.0/8"] })
//!         .case()
//!         .request(Request::get("/").client("10.1.2.3"), Expect::reply(403))
//!         .request(Request::get("/").client("192.0.2.1"), Expect::next())
//!         .run();
//! }
//! ```
//!
//! A fault anywhere ends the test with all that differs.

mod expect;
mod happen;

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
};

pub use expect::Expect;
pub use happen::{Answer, Endpoint, Request, Response};
use tollgate::{
    plugin::{Code, Compiler, Engine, EngineSettings, shipped},
    plugin_tests::{PluginUnderTest, TestFile, subject::Component},
};
pub use toml;
use toml::{Table, Value};

/// A component, and what its cases begin with.
#[derive(Debug, Clone)]
pub struct Plugin {
    name: String,
    code: Arc<Code>,
    file: Table,
}

/// Steps that one instance goes through, in order.
#[derive(Debug, Clone)]
#[must_use = "nothing happens before `run`"]
pub struct Case {
    plugin: Plugin,
    steps: Vec<Value>,
    /// Of the next step.
    next: Table,
}

impl Plugin {
    /// The component in a file.
    #[track_caller]
    pub fn component(path: impl AsRef<Path>) -> Self {
        let path = path.as_ref();
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Self::made(name, &Component::File(path.to_owned()))
    }

    /// The component of the package in a folder, built by `cargo build --release --target wasm32-wasip2`:
    /// `Plugin::package(env!("CARGO_MANIFEST_DIR"))`.
    #[track_caller]
    pub fn package(folder: impl AsRef<Path>) -> Self {
        let folder = folder.as_ref();
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self::made(name, &Component::Package(folder.to_owned()))
    }

    /// A plugin that is part of Tollgate.
    #[track_caller]
    pub fn shipped(name: &str) -> Self {
        let component =
            shipped::find(name).unwrap_or_else(|| panic!("there is no plugin `{name}` in Tollgate"));
        Self::made(name.to_owned(), &Component::Shipped(component))
    }

    #[track_caller]
    fn made(name: String, component: &Component) -> Self {
        let bytes = component.make().unwrap_or_else(|error| panic!("there is no component: {error}"));
        let code = engine().load(&bytes).unwrap_or_else(|error| panic!("`{name}` is no plugin: {error}"));
        Self { name, code, file: Table::new() }
    }

    /// Its settings, as in its table of `config.toml`.
    pub fn config(self, config: Table) -> Self {
        self.with(&["config"], config)
    }

    /// Its limits: `toml::toml! { time = "10ms" }`.
    pub fn limits(self, limits: Table) -> Self {
        self.with(&["limits"], limits)
    }

    /// How much it is granted of what it imports: `toml::toml! { body = { request = "1KiB" } }`.
    pub fn grants(self, grants: Table) -> Self {
        self.with(&["grants"], grants)
    }

    /// What it takes for the time when a case begins: `"2026-01-01T00:00:00Z"`.
    pub fn time(self, time: &str) -> Self {
        self.with(&["time"], time)
    }

    /// A secret, by the name that the plugin calls it by.
    pub fn secret(self, name: &str, secret: &str) -> Self {
        self.with(&["secrets", name], secret)
    }

    /// What is in its store when a case begins.
    pub fn stored(self, key: &str, value: &str) -> Self {
        self.with(&["store", key], value)
    }

    /// What others answer to its requests. Of several answers to the same request each stands once, in order, and the
    /// last for all that follow.
    pub fn answer(mut self, answer: Answer) -> Self {
        push(&mut self.file, &["http"], answer.0);
        self
    }

    /// A case. Nothing happens before [`Case::run`].
    pub fn case(&self) -> Case {
        Case { plugin: self.clone(), steps: Vec::new(), next: Table::new() }
    }

    fn with(mut self, at: &[&str], value: impl Into<Value>) -> Self {
        put(&mut self.file, at, value);
        self
    }
}

impl Case {
    /// Time passes before the next step: `"10s"`.
    pub fn advance(mut self, time: &str) -> Self {
        put(&mut self.next, &["advance"], time);
        self
    }

    /// The next step begins with a tick.
    pub fn tick(mut self) -> Self {
        put(&mut self.next, &["tick"], true);
        self
    }

    /// The next step has another instance than the one before, as after a recycling.
    pub fn fresh_instance(mut self) -> Self {
        put(&mut self.next, &["instance"], "fresh");
        self
    }

    /// The endpoints of the upstream from the next step on.
    pub fn endpoints(mut self, endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let endpoints: Vec<Value> = endpoints.into_iter().map(|endpoint| Value::Table(endpoint.0)).collect();
        put(&mut self.next, &["endpoints"], endpoints);
        self
    }

    /// A request comes: `on-request`.
    pub fn request(mut self, request: Request, expect: Expect) -> Self {
        put(&mut self.next, &["request"], request.0);
        self.expect(expect)
    }

    /// The response to a request comes: `on-request`, and then `on-response`.
    pub fn exchange(mut self, request: Request, response: Response, expect: Expect) -> Self {
        put(&mut self.next, &["request"], request.0);
        self.response(response, expect)
    }

    /// A response comes: `on-response`.
    pub fn response(mut self, response: Response, expect: Expect) -> Self {
        put(&mut self.next, &["response"], response.0);
        self.expect(expect)
    }

    /// Endpoints are picked so many times for a request; `tried` are places of those that it has failed on.
    pub fn pick(mut self, request: Request, calls: u32, tried: &[u32], expect: Expect) -> Self {
        put(&mut self.next, &["request"], request.0);
        put(&mut self.next, &["pick", "calls"], i64::from(calls));
        let tried: Vec<Value> = tried.iter().map(|place| Value::Integer((*place).into())).collect();
        put(&mut self.next, &["pick", "tried"], tried);
        self.expect(expect)
    }

    /// Nothing comes, but what the next step has been given: a tick, for one.
    pub fn expect(mut self, Expect(expect): Expect) -> Self {
        put(&mut self.next, &["expect"], expect);
        self.steps.push(Value::Table(std::mem::take(&mut self.next)));
        self
    }

    /// Lets the plugin go through it.
    ///
    /// # Panics
    ///
    /// If something differs from what is expected, with all that does; and if what is said makes no sense.
    #[track_caller]
    pub fn run(self) {
        let differences = self.differences();
        assert!(differences.is_empty(), "{differences}");
    }

    /// What differs, a line for each expectation and what happened in its place; empty if nothing does.
    #[track_caller]
    fn differences(self) -> String {
        let Self { plugin: Plugin { name, code, mut file }, steps, .. } = self;
        assert!(!steps.is_empty(), "nothing is to happen: add a request");
        let mut case = Table::new();
        put(&mut case, &["name"], "case");
        put(&mut case, &["step"], steps);
        push(&mut file, &["case"], case);
        let text = toml::to_string(&file).unwrap_or_else(|error| panic!("what is said is no TOML: {error}"));
        let file = match TestFile::read_text(&PathBuf::from(format!("{name}.test.toml")), text) {
            Ok((file, _)) => file,
            Err(problems) => panic!("what is said makes no sense:\n{problems}"),
        };
        let report = PluginUnderTest { name, code }.run(&file);
        let mut text = String::new();
        for (number, step) in report.cases.iter().flat_map(|case| &case.steps).enumerate() {
            for difference in &step.differences {
                let (expected, actual) = (&difference.expected, &difference.actual);
                let _ = write!(
                    text,
                    "\nstep {}: {}\n  - {expected}\n  + {actual}",
                    number + 1,
                    difference.place()
                );
            }
        }
        text
    }
}

/// One for all tests of a process.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let settings = EngineSettings { workers: 1, artifacts: None, compiler: Compiler::InProcess };
        Engine::new(&settings).unwrap_or_else(|error| panic!("the engine does not start: {error}"))
    })
}

/// Writes a value at a place, whose tables are made.
fn put(table: &mut Table, at: &[&str], value: impl Into<Value>) {
    *place(table, at) = value.into();
}

/// The same at the end of a list.
fn push(table: &mut Table, at: &[&str], item: Table) {
    match place(table, at) {
        Value::Array(items) => items.push(item.into()),
        other => *other = Value::Array(vec![item.into()]),
    }
}

/// What stands at a place; an empty table if nothing did.
fn place<'a>(table: &'a mut Table, at: &[&str]) -> &'a mut Value {
    let (first, rest) = at.split_first().expect("a place has a name");
    let value = table.entry(*first).or_insert_with(|| Value::Table(Table::new()));
    if rest.is_empty() {
        return value;
    }
    if !value.is_table() {
        *value = Value::Table(Table::new());
    }
    place(value.as_table_mut().expect("it is one now"), rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter() -> Plugin {
        Plugin::shipped("ip-filter").config(toml::toml! { deny = ["10.0.0.0/8"] })
    }

    #[test]
    fn what_differs_is_told_with_its_step() {
        let case = filter().case().request(Request::get("/"), Expect::next());
        let case = case.request(Request::get("/").client("10.1.2.3"), Expect::next().header("x-a", "1"));
        let differences = case.differences();
        assert!(differences.starts_with("\nstep 2: "), "{differences}");
        assert!(differences.contains("verdict\n  - next\n  + reply"), "{differences}");
        assert!(differences.contains("headers.x-a\n  - \"1\"\n  + nothing"), "{differences}");
    }

    #[test]
    fn a_configuration_that_is_refused_is_told() {
        let differences =
            Plugin::shipped("ip-filter").case().request(Request::get("/"), Expect::next()).differences();
        assert!(differences.contains("names no network"), "{differences}");
    }

    #[test]
    #[should_panic(expected = "makes no sense")]
    fn what_makes_no_sense_ends_the_test() {
        filter().case().advance("soon").request(Request::get("/"), Expect::next()).run();
    }

    #[test]
    fn time_and_the_store_are_at_hand() {
        let limiter =
            Plugin::shipped("rate-limit").config(toml::toml! { policies = [{ requests = 1, per = "10s" }] });
        limiter
            .case()
            .request(Request::get("/"), Expect::next())
            .fresh_instance()
            .request(Request::get("/"), Expect::reply(429).reply_header("retry-after", "10"))
            .advance("10s")
            .exchange(
                Request::get("/"),
                Response::of(200),
                Expect::next().response_header("ratelimit-policy", "*"),
            )
            .run();
    }

    #[test]
    fn endpoints_are_picked() {
        let endpoints = ["10.0.0.1:80", "10.0.0.2:80"].map(Endpoint::at);
        Plugin::shipped("round-robin")
            .case()
            .endpoints(endpoints)
            .pick(Request::get("/"), 4, &[], Expect::picks([0, 1, 0, 1]))
            .pick(Request::get("/"), 1, &[0], Expect::picks([1]))
            .run();
    }

    #[test]
    fn what_others_answer_is_written_down() {
        let url = "https://auth.example.com/introspect";
        Plugin::shipped("oauth-introspection")
            .config(toml::toml! { endpoint = "https://auth.example.com/introspect" })
            .answer(Answer::to("POST", url).body(r#"{"active":false}"#))
            .answer(Answer::to("POST", url).status(500))
            .case()
            .request(
                Request::get("/").header("authorization", "Bearer a"),
                Expect::reply(401).sent([format!("POST {url}")]),
            )
            .request(
                Request::get("/").header("authorization", "Bearer b"),
                Expect::reply(503).log("warn", "the answer is 500"),
            )
            .run();
    }
}
