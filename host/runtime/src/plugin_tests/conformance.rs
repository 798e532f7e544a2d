//! What must every plugin withstand, whatever its own tests say?
//!
//! A battery of checks with a version of its own. Each has an id that stays what it is; a check that comes to ask for
//! more gets another. What is found tells a fault of the plugin from one of what is around it.

use std::{collections::BTreeSet, fmt, net::IpAddr, time::Duration};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::{
    PluginUnderTest,
    check::Check,
    file::{Endpoint, Request, Response, TestFile},
    run::TestRun,
    values::Moment,
    world::Props,
};
use crate::{
    config,
    plugin::{CallError, Hook, StartError},
    telemetry::with_sources,
};

/// The version of the battery: another number for other checks.
pub const VERSION: u32 = 1;

/// Calls of the soak.
pub const SOAK: u32 = 100_000;

/// What the memory of an instance may grow by in the second half of a soak, in bytes: one page.
const FLAT: usize = 64 << 10;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    Passed,
    /// The plugin is at fault.
    Failed(String),
    /// There is nothing to be checked, or the tests except it; and why.
    Skipped(String),
    /// The machine is at fault.
    Environment(String),
}

/// What came of the battery.
#[derive(Debug)]
pub struct Conformance {
    pub findings: Vec<(Check, Finding)>,
    /// None if it could not be made.
    pub soak: Option<Soak>,
}

/// What a soak has shown.
#[derive(Debug, Clone)]
pub struct Soak {
    pub calls: u32,
    /// Of each hook: how many calls, and the time of all together.
    pub hooks: Vec<(Hook, u32, Duration)>,
    /// Bytes of linear memory in the end.
    pub memory: usize,
    /// By how many it has grown in the second half.
    pub grown: usize,
}

impl Conformance {
    pub fn has_passed(&self) -> bool {
        let is_fine = |finding: &Finding| matches!(finding, Finding::Passed | Finding::Skipped(_));
        self.findings.iter().all(|(_, finding)| is_fine(finding))
    }

    pub fn is_environments(&self) -> bool {
        self.findings.iter().any(|(_, finding)| matches!(finding, Finding::Environment(_)))
    }
}

impl PluginUnderTest {
    /// Lets the component go through the battery, with the configuration and the requests of its tests if it has any.
    pub fn conformance(&self, file: Option<&TestFile>) -> Conformance {
        let mut battery = Battery { plugin: self, material: Material::new(file) };
        let mut conformance = Conformance { findings: Vec::new(), soak: None };
        let accepted = battery.accepted();
        if accepted == Finding::Passed {
            battery.leave_out_what_fails();
        }
        for check in Check::ALL {
            let exception = file.and_then(|file| file.conformance.except.get(check.id()));
            let needs_start = !matches!(
                check,
                Check::Hooks
                    | Check::Accepted
                    | Check::EmptyConfiguration
                    | Check::DeepConfiguration
                    | Check::HugeConfiguration
            );
            let finding = match exception {
                Some(reason) => Finding::Skipped(format!("the tests except it: {reason}")),
                None if needs_start && accepted != Finding::Passed => {
                    Finding::Skipped("there is no configuration that the plugin takes".into())
                }
                None => settled(|| match check {
                    Check::Hooks => battery.hooks(),
                    Check::Accepted => Ok(accepted.clone()),
                    Check::EmptyConfiguration => battery.withstands([toml::Table::new()]),
                    Check::DeepConfiguration => battery.withstands(battery.material.deep()),
                    Check::HugeConfiguration => battery.withstands(battery.material.huge()),
                    Check::WrongTypes => battery.wrong_types(),
                    Check::AbsentHeaders => battery.absent_headers(),
                    Check::EmptyHeaders => battery.headers(&HeaderValue::from_static("")),
                    Check::LongHeaders => battery.headers(&bytes(vec![b'x'; 64 << 10])),
                    Check::ForeignHeaders => battery.headers(&bytes((0x80..=0xff).collect())),
                    Check::ManyHeaders => battery.many_headers(),
                    Check::OddTargets => battery.odd_targets(),
                    Check::OddResponses => battery.odd_responses(),
                    Check::OddEndpoints => battery.odd_endpoints(),
                    Check::Soak => {
                        conformance.soak = battery.soak()?;
                        Ok(conformance.soak.as_ref().map_or_else(no_hook, |_| Finding::Passed))
                    }
                    Check::FlatMemory => Ok(flat_memory(conformance.soak.as_ref())),
                }),
            };
            conformance.findings.push((check, finding));
        }
        conformance
    }
}

/// How often a check is made that a plugin takes too long for. What it needs by itself it needs each time; but a
/// machine that others share now and then counts time for a thread in which it did not run.
const ATTEMPTS: usize = 3;

fn settled(mut check: impl FnMut() -> Result<Finding, Fault>) -> Finding {
    let mut outcome = check();
    for _ in 1..ATTEMPTS {
        if !matches!(outcome, Err(Fault::Slowness(_))) {
            break;
        }
        outcome = check();
    }
    outcome.unwrap_or_else(Finding::from)
}

fn bytes(bytes: Vec<u8>) -> HeaderValue {
    HeaderValue::from_bytes(&bytes).unwrap_or(HeaderValue::from_static("x"))
}

/// What the battery makes its checks of: what the tests of the plugin have, so that they reach what it looks at.
struct Material {
    settings: config::Plugin,
    props: Props,
    time: Moment,
    is_tested: bool,
    requests: Vec<Request>,
    responses: Vec<Response>,
    endpoints: Vec<Endpoint>,
    /// Names of headers that the plugin may ask for.
    names: Vec<HeaderName>,
}

/// Headers that plugins look at, whether their tests have them or not.
const USUAL: [&str; 18] = [
    "accept",
    "accept-encoding",
    "authorization",
    "cache-control",
    "content-length",
    "content-type",
    "cookie",
    "etag",
    "host",
    "if-none-match",
    "location",
    "origin",
    "referer",
    "set-cookie",
    "user-agent",
    "x-api-key",
    "x-forwarded-for",
    "x-request-id",
];

/// Requests of the tests that are taken for material.
const REQUESTS: usize = 8;

impl Material {
    fn new(file: Option<&TestFile>) -> Self {
        let mut material = Self {
            settings: config::Plugin::default(),
            props: file.map(|file| Props::of(file, None)).unwrap_or_default(),
            time: Moment::default(),
            is_tested: file.is_some(),
            requests: vec![Request::default()],
            responses: vec![Response::default()],
            endpoints: Vec::new(),
            names: Vec::new(),
        };
        let mut names: BTreeSet<String> = USUAL.iter().map(|name| (*name).to_owned()).collect();
        if let Some(file) = file {
            material.settings.config = file.config.clone();
            material.settings.limits = file.limits.clone();
            material.time = file.time;
            names.extend(words(&toml::Value::Table(file.config.clone())));
            // What a case has of its own may not go with the configuration of the file.
            let cases = file.cases.iter().map(toml::Spanned::get_ref);
            for step in cases
                .filter(|case| case.config.is_none() && case.limits.is_none())
                .flat_map(super::Case::steps)
            {
                if step.expect.as_ref().is_some_and(|expect| expect.error.is_some()) {
                    continue;
                }
                if let Some(request) = step.request.filter(|_| material.requests.len() < REQUESTS) {
                    names.extend(request.headers.keys().map(|name| name.as_str().to_owned()));
                    material.requests.push(request);
                }
                if let Some(response) = step.response.filter(|_| material.responses.len() < REQUESTS) {
                    names.extend(response.headers.keys().map(|name| name.as_str().to_owned()));
                    material.responses.push(response);
                }
                if let Some(endpoints) = step.endpoints.filter(|list| list.len() > material.endpoints.len()) {
                    material.endpoints = endpoints;
                }
            }
        }
        if material.endpoints.is_empty() {
            material.endpoints = (1..=3).map(|port| endpoint(port, 1)).collect();
        }
        material.names =
            names.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect();
        material
    }

    /// One key that nobody knows, and each that the tests have, with this value.
    fn each_key(&self, value: &toml::Value) -> Vec<toml::Table> {
        let mut tables = vec![toml::Table::from_iter([("key-of-nobody".to_owned(), value.clone())])];
        for key in self.settings.config.keys() {
            let mut table = self.settings.config.clone();
            table.insert(key.clone(), value.clone());
            tables.push(table);
        }
        tables
    }

    fn deep(&self) -> Vec<toml::Table> {
        let arrays = (0..1000).fold(toml::Value::Boolean(true), |inner, _| toml::Value::Array(vec![inner]));
        let tables = (0..1000).fold(toml::Value::Boolean(true), |inner, _| {
            toml::Value::Table(toml::Table::from_iter([("a".to_owned(), inner)]))
        });
        [self.each_key(&arrays), self.each_key(&tables)].concat()
    }

    fn huge(&self) -> Vec<toml::Table> {
        let text = toml::Value::String("x".repeat(1 << 20));
        let list = toml::Value::Array(vec![toml::Value::Integer(1); 100_000]);
        let table = (0..10_000).map(|number| (format!("key-{number}"), toml::Value::Boolean(true)));
        let mut tables = [self.each_key(&text), self.each_key(&list)].concat();
        tables.push(table.collect());
        tables
    }
}

/// Text in a configuration that may be the name of a header.
fn words(value: &toml::Value) -> Vec<String> {
    match value {
        toml::Value::String(text) if text.len() < 100 => vec![text.clone()],
        toml::Value::Array(items) => items.iter().flat_map(words).collect(),
        toml::Value::Table(table) => table.iter().flat_map(|(_, value)| words(value)).collect(),
        _ => Vec::new(),
    }
}

/// The table with one value in it of another type than it has, for each value in it; and where that is.
fn with_wrong_types(table: &toml::Table) -> Vec<(String, toml::Table)> {
    let mut tables = Vec::new();
    for (key, value) in table {
        for (place, wrong) in wrong(value) {
            let mut table = table.clone();
            table.insert(key.clone(), wrong);
            tables.push((format!("{key}{place}"), table));
        }
    }
    tables
}

fn wrong(value: &toml::Value) -> Vec<(String, toml::Value)> {
    // Who takes one of something as well as a list of it takes neither of these.
    let other = match value {
        toml::Value::Array(_) | toml::Value::Table(_) => toml::Value::Boolean(true),
        _ => toml::Value::Array(vec![toml::Value::Array(Vec::new())]),
    };
    let mut wrong = vec![(String::new(), other)];
    match value {
        toml::Value::Table(table) => {
            let inner = with_wrong_types(table).into_iter();
            wrong.extend(inner.map(|(place, table)| (format!(".{place}"), toml::Value::Table(table))));
        }
        toml::Value::Array(items) => {
            for (number, item) in items.iter().enumerate() {
                wrong.extend(self::wrong(item).into_iter().map(|(place, item)| {
                    let mut items = items.clone();
                    items[number] = item;
                    (format!("[{number}]{place}"), toml::Value::Array(items))
                }));
            }
        }
        _ => {}
    }
    wrong
}

fn endpoint(number: u32, weight: u32) -> Endpoint {
    Endpoint {
        address: format!("10.0.{}.{}:80", number / 256 % 256, number % 256),
        weight,
        tags: Default::default(),
        active: number % 7,
        latency: None,
        failures: 0,
        load: None,
    }
}

struct Battery<'a> {
    plugin: &'a PluginUnderTest,
    material: Material,
}

/// How a failure is told apart.
enum Fault {
    Plugins(String),
    /// It takes longer than it may, which the plugin or the machine can be the reason of.
    Slowness(String),
    Environments(String),
}

impl From<Fault> for Finding {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Plugins(text) | Fault::Slowness(text) => Self::Failed(text),
            Fault::Environments(text) => Self::Environment(text),
        }
    }
}

impl Battery<'_> {
    fn start(&self, settings: &config::Plugin) -> Result<TestRun, StartError> {
        let mut stage = TestRun::set(
            &self.plugin.code,
            &self.plugin.name,
            settings,
            &self.material.props,
            self.material.time,
        )
        .map_err(|not_set| not_set.error)?;
        stage.give_endpoints(self.material.endpoints.clone());
        Ok(stage)
    }

    fn stage(&self) -> Result<TestRun, Fault> {
        self.start(&self.material.settings).map_err(|error| blame(&error))
    }

    /// Takes the messages of cases out on which a hook fails as they are: that is for the case to say, and is no fault of
    /// what a check would put into them.
    fn leave_out_what_fails(&mut self) {
        let Ok(mut stage) = self.stage() else { return };
        let mut is_fine = |request: &Request, response: &Response| {
            Hook::ALL.into_iter().filter(|hook| self.plugin.code.exports(*hook)).all(|hook| {
                let result = stage.call(hook, request, response, &[]);
                // What may be the machine's fault is asked for again by the check.
                !result.is_err_and(|error| matches!(blame_call(hook, "", &error), Fault::Plugins(_)))
            })
        };
        let (request, response) = (Request::default(), Response::default());
        let requests: Vec<bool> =
            self.material.requests.iter().map(|request| is_fine(request, &response)).collect();
        let responses: Vec<bool> =
            self.material.responses.iter().map(|response| is_fine(&request, response)).collect();
        // The first of each is of no case.
        let kept =
            |fine: Vec<bool>| fine.into_iter().enumerate().map(|(place, is_fine)| place == 0 || is_fine);
        let (mut requests, mut responses) = (kept(requests), kept(responses));
        self.material.requests.retain(|_| requests.next().unwrap_or(true));
        self.material.responses.retain(|_| responses.next().unwrap_or(true));
    }

    fn hooks(&self) -> Result<Finding, Fault> {
        match Hook::ALL.iter().any(|hook| self.plugin.code.exports(*hook)) {
            true => Ok(Finding::Passed),
            false => Err(Fault::Plugins("it exports lifecycle and no hook".into())),
        }
    }

    fn accepted(&self) -> Finding {
        settled(|| match self.start(&self.material.settings) {
            Ok(_) => Ok(Finding::Passed),
            Err(StartError::Refused(message)) if !self.material.is_tested => Ok(Finding::Skipped(format!(
                "it needs one: write `config` in {}.test.toml (it says: {message})",
                self.plugin.name
            ))),
            Err(error) => Err(blame(&error)),
        })
    }

    /// Whether the plugin takes or refuses each of these, and does not fail.
    fn withstands(&self, tables: impl IntoIterator<Item = toml::Table>) -> Result<Finding, Fault> {
        for table in tables {
            match self.start(&config::Plugin { config: table, ..self.material.settings.clone() }) {
                Ok(_) | Err(StartError::Refused(_)) => {}
                Err(error) => return Err(blame(&error)),
            }
        }
        Ok(Finding::Passed)
    }

    fn wrong_types(&self) -> Result<Finding, Fault> {
        let tables = with_wrong_types(&self.material.settings.config);
        if tables.is_empty() {
            return Ok(Finding::Skipped("the tests have no `config`".into()));
        }
        for (place, table) in tables {
            match self.start(&config::Plugin { config: table, ..self.material.settings.clone() }) {
                Err(StartError::Refused(_)) => {}
                Ok(_) => {
                    return Err(Fault::Plugins(format!("it takes a value of a wrong type for `{place}`")));
                }
                Err(error) => return Err(blame(&error)),
            }
        }
        Ok(Finding::Passed)
    }

    /// Calls every hook there is with each of these messages.
    fn calls(
        &self,
        messages: impl IntoIterator<Item = (String, Request, Response)>,
    ) -> Result<Finding, Fault> {
        let mut stage = self.stage()?;
        for (what, request, response) in messages {
            for hook in Hook::ALL.into_iter().filter(|hook| self.plugin.code.exports(*hook)) {
                if let Err(error) = stage.call(hook, &request, &response, &[]) {
                    return Err(blame_call(hook, &what, &error));
                }
            }
        }
        Ok(Finding::Passed)
    }

    fn absent_headers(&self) -> Result<Finding, Fault> {
        let nothing = |mut request: Request| {
            request.headers = HeaderMap::new();
            request.authority.clear();
            request
        };
        let response = Response { headers: HeaderMap::new(), ..Response::default() };
        let mut messages = Vec::new();
        for request in &self.material.requests {
            messages.push(("no header".to_owned(), nothing(request.clone()), response.clone()));
            for name in request.headers.keys() {
                let mut without = request.clone();
                without.headers.remove(name);
                messages.push((format!("no `{name}`"), without, response.clone()));
            }
        }
        self.calls(messages)
    }

    /// Each header that the plugin may look at, in each request, with this value.
    fn headers(&self, value: &HeaderValue) -> Result<Finding, Fault> {
        let Material { names, requests, responses, .. } = &self.material;
        let message = |name: &HeaderName, request: &Request, place: usize| {
            let mut request = request.clone();
            let mut response = responses[place % responses.len()].clone();
            request.headers.insert(name.clone(), value.clone());
            response.headers.insert(name.clone(), value.clone());
            (format!("such a `{name}`"), request, response)
        };
        self.calls(names.iter().flat_map(|name| {
            requests.iter().enumerate().map(move |(place, request)| message(name, request, place))
        }))
    }

    fn many_headers(&self) -> Result<Finding, Fault> {
        let mut request = Request::default();
        let mut response = Response::default();
        for headers in [&mut request.headers, &mut response.headers] {
            for number in 0..500 {
                if let Ok(name) = HeaderName::try_from(format!("x-many-{number}")) {
                    headers.insert(name, HeaderValue::from(number));
                }
                headers.append("x-many", HeaderValue::from(number));
            }
        }
        self.calls([("a thousand headers".to_owned(), request, response)])
    }

    fn odd_targets(&self) -> Result<Finding, Fault> {
        let mut messages = Vec::new();
        let paths = [
            "/".to_owned(),
            "/?".to_owned(),
            "/%C3%A9?%ff&&==".to_owned(),
            format!("/{}?{}", "a/".repeat(2000), "b=c&".repeat(2000)),
        ];
        for path in paths {
            let request = Request { path: path.clone(), ..Request::default() };
            messages.push((format!("the target {path:.40}"), request, Response::default()));
        }
        for method in ["OPTIONS", "TRACE", "X-SOMETHING-OF-ONES-OWN"] {
            let method = http::Method::from_bytes(method.as_bytes()).unwrap_or_default();
            let request = Request { method: method.clone(), ..Request::default() };
            messages.push((format!("the method {method}"), request, Response::default()));
        }
        let request = Request { client_address: IpAddr::from([0_u16; 8]).into(), ..Request::default() };
        messages.push(("a client of IPv6".to_owned(), request, Response::default()));
        self.calls(messages)
    }

    fn odd_responses(&self) -> Result<Finding, Fault> {
        if !self.plugin.code.exports(Hook::OnResponse) {
            return Ok(Finding::Skipped("it has no on-response".into()));
        }
        let statuses = [200, 204, 206, 301, 304, 400, 404, 418, 500, 503, 599, 999];
        self.calls(statuses.into_iter().filter_map(|status| {
            let status = StatusCode::from_u16(status).ok()?;
            let response = Response { status, ..Response::default() };
            Some((format!("the status {status}"), Request::default(), response))
        }))
    }

    fn odd_endpoints(&self) -> Result<Finding, Fault> {
        if !self.plugin.code.exports(Hook::Pick) {
            return Ok(Finding::Skipped("it has no pick".into()));
        }
        let mut stage = self.stage()?;
        let lists: [(&str, Vec<Endpoint>); 6] = [
            ("no endpoint", Vec::new()),
            ("one endpoint", vec![endpoint(1, 1)]),
            ("a thousand endpoints", (0..1000).map(|number| endpoint(number, number % 100)).collect()),
            ("weights of zero", (0..3).map(|number| endpoint(number, 0)).collect()),
            ("the greatest weights", (0..3).map(|number| endpoint(number, u32::MAX)).collect()),
            ("the same address twice", vec![endpoint(1, 1), endpoint(1, 2)]),
        ];
        for (what, list) in lists {
            let all: Vec<u32> = (0..list.len() as u32).collect();
            stage.give_endpoints(list);
            for tried in [&[][..], &all, &[0, 0], &[u32::MAX]] {
                for request in &self.material.requests {
                    if let Err(error) = stage.call(Hook::Pick, request, &Response::default(), tried) {
                        return Err(blame_call(Hook::Pick, what, &error));
                    }
                }
            }
        }
        Ok(Finding::Passed)
    }

    /// None if there is nothing to be called.
    fn soak(&self) -> Result<Option<Soak>, Fault> {
        let mut settings = self.material.settings.clone();
        settings.limits.recycle_after = u32::MAX;
        let mut stage = self.start(&settings).map_err(|error| blame(&error))?;
        let hooks: Vec<Hook> = Hook::ALL.into_iter().filter(|hook| self.plugin.code.exports(*hook)).collect();
        if hooks.is_empty() {
            return Ok(None);
        }
        let Material { requests, responses, .. } = &self.material;
        let mut times: Vec<(Hook, u32, Duration)> =
            hooks.iter().map(|hook| (*hook, 0, Duration::ZERO)).collect();
        let mut half = 0;
        for number in 0..SOAK {
            let place = number as usize / hooks.len();
            let (hook, calls, time) = &mut times[number as usize % hooks.len()];
            let (request, response) =
                (&requests[place % requests.len()], &responses[place % responses.len()]);
            match stage.call(*hook, request, response, &[]) {
                Ok(took) => *time += took,
                Err(error) => return Err(blame_call(*hook, &format!("call {number}"), &error)),
            }
            *calls += 1;
            // Lets caches that go by time do their work.
            stage.advance(Duration::from_millis(1));
            let Some(memory) = stage.memory() else {
                let limit = settings.limits.memory;
                let text = format!("after {number} calls it uses more than three quarters of its {limit}");
                return Err(Fault::Plugins(text));
            };
            if number == SOAK / 2 {
                half = memory;
            }
        }
        let memory = stage.memory().unwrap_or_default();
        Ok(Some(Soak { calls: SOAK, hooks: times, memory, grown: memory.saturating_sub(half) }))
    }
}

fn no_hook() -> Finding {
    Finding::Skipped("it has no hook".into())
}

fn flat_memory(soak: Option<&Soak>) -> Finding {
    match soak {
        None => Finding::Skipped("there was no soak to the end".into()),
        Some(Soak { grown, memory, .. }) if *grown > FLAT => Finding::Failed(format!(
            "it grew by {} in the second half, to {}: give memory back, or set `recycle-after`",
            config::ByteSize::bytes(*grown),
            config::ByteSize::bytes(*memory),
        )),
        Some(_) => Finding::Passed,
    }
}

fn blame(error: &StartError) -> Fault {
    let text = format!("the plugin {}", with_sources(error));
    match error {
        error if error.is_environments() => Fault::Environments(text),
        StartError::Configure(CallError::Deadline(_)) | StartError::Begin(CallError::Deadline(_)) => {
            Fault::Slowness(text)
        }
        _ => Fault::Plugins(text),
    }
}

fn blame_call(hook: Hook, what: &str, error: &CallError) -> Fault {
    match error {
        CallError::Start(error) => blame(error),
        CallError::Deadline(_) => Fault::Slowness(format!("{} with {what}: it {error}", hook.name())),
        error => Fault::Plugins(format!("{} with {what}: it {error}", hook.name())),
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Passed => formatter.write_str("passed"),
            Self::Failed(text) => write!(formatter, "failed: {text}"),
            Self::Skipped(text) => write!(formatter, "skipped: {text}"),
            Self::Environment(text) => write!(formatter, "could not be checked: {text}"),
        }
    }
}
