//! What did the author of a plugin's tests write?
//!
//! Plain data in the shape of `<name>.test.toml`. Reading reports every problem with its place, as it does for
//! the configuration; strings are taken as they are written, `$` included.

use std::{collections::BTreeMap, net::IpAddr, path::Path, path::PathBuf};

use http::{HeaderMap, Method, StatusCode, Version};
use serde::Deserialize;
use toml::Spanned;

use super::{
    check::Check,
    values::{ExpectPick, Expected, Moment, Url},
    words::{
        authority, client_address, headers, method, method_if, status, status_if, table_if, tables_if,
        tables_or_none, target, version, word_if,
    },
};
use crate::{
    address::Caller,
    config::{
        self, BodyGrant, Duration, PluginLimits, Problem, Problems, Source, StoreGrant, read_document,
        shape::{table, tables, word},
    },
    file as files,
    plugin::Completed,
};

/// The whole of `<name>.test.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TestFile {
    /// The component, relative to the folder of the file.
    pub component: Option<PathBuf>,
    /// A command for the shell that makes it, run in the folder of the file.
    pub build: Option<String>,
    #[serde(default)]
    pub config: toml::Table,
    /// Where `config` is taken from in its place.
    pub config_from: Option<Spanned<ConfigFrom>>,
    #[serde(default, deserialize_with = "table")]
    pub limits: PluginLimits,
    /// How much it is granted of what it imports.
    #[serde(default, deserialize_with = "table")]
    pub grants: Grants,
    /// What is in its store when a case begins.
    #[serde(default)]
    pub store: BTreeMap<String, String>,
    /// What it draws next from its sequences.
    #[serde(default)]
    pub sequences: BTreeMap<String, u32>,
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// What others answer to its requests.
    #[serde(default, deserialize_with = "tables_or_none")]
    pub http: Vec<Answered>,
    #[serde(default)]
    pub time: Moment,
    /// What the cases begin with that do not say so themselves.
    #[serde(default, deserialize_with = "word")]
    pub instance: Instance,
    #[serde(default, deserialize_with = "table")]
    pub conformance: Exceptions,
    #[serde(default, rename = "case", deserialize_with = "tables")]
    pub cases: Vec<Spanned<Case>>,
}

/// The table of a plugin in a configuration, with its variables filled in from the environment.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ConfigFrom {
    /// The configuration, relative to the folder of the tests.
    pub file: PathBuf,
    pub plugin: String,
}

impl ConfigFrom {
    fn read(&self, tests: &Path) -> Result<toml::Table, String> {
        let path = tests.parent().unwrap_or(Path::new("")).join(&self.file);
        let (config, _) = config::read(&path).map_err(|problems| {
            let first = problems.iter().next().map(|problem| problem.message.clone()).unwrap_or_default();
            format!("{} cannot be read: {first}", path.display())
        })?;
        let table = config.plugins.into_iter().find(|(name, _)| *name.get_ref() == self.plugin);
        table
            .map(|(_, plugin)| plugin.config)
            .ok_or_else(|| format!("there is no [plugins.{}] in {}", self.plugin, path.display()))
    }
}

/// What the plugin is not asked for.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Exceptions {
    /// Checks of the conformance battery by their ids, each with the reason.
    pub except: BTreeMap<Spanned<String>, String>,
}

/// One promise of a plugin.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Case {
    pub name: String,
    #[serde(default, deserialize_with = "word_if")]
    pub instance: Option<Instance>,
    /// In place of that of the file, not merged with it.
    pub config: Option<toml::Table>,
    #[serde(default, deserialize_with = "table_if")]
    pub limits: Option<PluginLimits>,
    #[serde(default, deserialize_with = "table_if")]
    pub grants: Option<Grants>,
    pub store: Option<BTreeMap<String, String>>,
    pub sequences: Option<BTreeMap<String, u32>>,
    pub secrets: Option<BTreeMap<String, String>>,
    #[serde(default, deserialize_with = "tables_if")]
    pub http: Option<Vec<Answered>>,
    pub time: Option<Moment>,
    #[serde(default, rename = "step", deserialize_with = "tables")]
    steps: Vec<Spanned<Step>>,
    // The keys of a step, for a case that has one.
    advance: Option<Duration>,
    #[serde(default)]
    tick: bool,
    #[serde(default, deserialize_with = "table_if")]
    request: Option<Request>,
    #[serde(default, deserialize_with = "tables_if")]
    endpoints: Option<Vec<Endpoint>>,
    #[serde(default, deserialize_with = "table_if")]
    pick: Option<Picks>,
    #[serde(default, deserialize_with = "table_if")]
    response: Option<Response>,
    #[serde(default, deserialize_with = "tables_if")]
    complete: Option<Vec<Ended>>,
    #[serde(default, deserialize_with = "table_if")]
    expect: Option<Expect>,
}

/// The way of one request through the plugin, and what is to come of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Step {
    /// Time that passes before it.
    pub advance: Option<Duration>,
    /// Calls `on-tick`, before anything else.
    pub tick: bool,
    /// `fresh`: another instance than the step before had, with what all instances share.
    #[serde(deserialize_with = "word")]
    pub instance: StepInstance,
    /// Calls `on-request`.
    #[serde(deserialize_with = "table_if")]
    pub request: Option<Request>,
    /// The endpoints of the upstream from now on.
    #[serde(deserialize_with = "tables_if")]
    pub endpoints: Option<Vec<Endpoint>>,
    /// Calls `pick`.
    #[serde(deserialize_with = "table_if")]
    pub pick: Option<Picks>,
    /// Calls `on-response`.
    #[serde(deserialize_with = "table_if")]
    pub response: Option<Response>,
    /// Calls `on-complete`, after anything else.
    #[serde(deserialize_with = "tables_if")]
    pub complete: Option<Vec<Ended>>,
    #[serde(deserialize_with = "table_if")]
    pub expect: Option<Expect>,
}

/// What a case begins with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Instance {
    /// An instance of its own, which knows nothing of other cases.
    #[default]
    Fresh,
    /// The instance of the case before it, with all that it and its like remember.
    Shared,
}

/// The same for a step.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepInstance {
    #[default]
    Shared,
    Fresh,
}

/// A request as the plugin sees it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Request {
    #[serde(deserialize_with = "method")]
    pub method: Method,
    /// With the query; made canonical, as the proxy does.
    #[serde(deserialize_with = "target")]
    pub path: String,
    #[serde(deserialize_with = "headers")]
    pub headers: HeaderMap,
    #[serde(deserialize_with = "authority")]
    pub authority: String,
    #[serde(deserialize_with = "word")]
    pub scheme: Scheme,
    #[serde(deserialize_with = "version")]
    pub http_version: Version,
    #[serde(deserialize_with = "client_address")]
    pub client_address: Caller<IpAddr>,
    pub route: String,
    pub upstream: String,
    pub body: String,
    /// What other plugins have noted of it.
    pub notes: BTreeMap<String, String>,
}

impl Default for Request {
    fn default() -> Self {
        Self {
            method: Method::GET,
            path: "/".to_owned(),
            headers: HeaderMap::new(),
            authority: "example.com".to_owned(),
            scheme: Scheme::Http,
            http_version: Version::HTTP_11,
            client_address: IpAddr::from([192, 0, 2, 1]).into(),
            route: "route".to_owned(),
            upstream: "app".to_owned(),
            body: String::new(),
            notes: BTreeMap::new(),
        }
    }
}

/// How much a plugin is granted of what it imports.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Grants {
    pub store: StoreGrant,
    pub body: BodyGrant,
}

/// What somebody answers to a request of the plugin's own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Answered {
    pub(super) url: Url,
    /// Any if absent.
    #[serde(default, deserialize_with = "method_if")]
    pub(super) method: Option<Method>,
    #[serde(default, deserialize_with = "status")]
    pub status: StatusCode,
    #[serde(default, deserialize_with = "headers")]
    pub headers: HeaderMap,
    #[serde(default)]
    pub body: String,
    /// There is no answer.
    #[serde(default, deserialize_with = "word_if")]
    pub error: Option<SendFault>,
    /// What a request has to have that this is the answer to.
    #[serde(default, deserialize_with = "table")]
    pub(super) asked: Asked,
}

/// More of a request of the plugin's own than where it goes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Asked {
    pub(super) headers: BTreeMap<String, Expected>,
    pub(super) body: Option<String>,
}

/// Why a request of the plugin's own gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SendFault {
    Denied,
    Unreachable,
    TimedOut,
    TooLarge,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A response of the upstream.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Response {
    #[serde(deserialize_with = "status")]
    pub status: StatusCode,
    #[serde(deserialize_with = "headers")]
    pub headers: HeaderMap,
    /// `host:port` of who answered.
    pub endpoint: Option<String>,
    /// The cache has answered.
    pub from_cache: bool,
    pub body: String,
    /// What other plugins have noted of the request by then.
    pub notes: BTreeMap<String, String>,
}

impl Default for Response {
    fn default() -> Self {
        Self {
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            endpoint: None,
            from_cache: false,
            body: String::new(),
            notes: BTreeMap::new(),
        }
    }
}

/// A request that has ended, as a plugin is told of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Ended {
    pub request_id: String,
    /// When its head had come.
    pub time: Moment,
    #[serde(deserialize_with = "method")]
    pub method: Method,
    pub authority: String,
    /// With the query.
    #[serde(deserialize_with = "target")]
    pub target: String,
    #[serde(deserialize_with = "client_address")]
    pub client_address: Caller<IpAddr>,
    pub route: String,
    pub upstream: String,
    #[serde(deserialize_with = "status")]
    pub status: StatusCode,
    /// `host:port` of who answered.
    pub endpoint: Option<String>,
    pub attempts: u32,
    pub from_cache: bool,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration: Option<Duration>,
    pub upstream_duration: Option<Duration>,
    pub notes: BTreeMap<String, String>,
}

impl Default for Ended {
    fn default() -> Self {
        let Request { method, path, authority, client_address, route, upstream, .. } = Request::default();
        Self {
            request_id: "0".repeat(32),
            time: Moment::default(),
            method,
            authority,
            target: path,
            client_address,
            route,
            upstream,
            status: StatusCode::OK,
            endpoint: None,
            attempts: 1,
            from_cache: false,
            bytes_in: 0,
            bytes_out: 0,
            duration: None,
            upstream_duration: None,
            notes: BTreeMap::new(),
        }
    }
}

impl Ended {
    pub fn completed(&self) -> Completed {
        let length = |duration: Option<Duration>| duration.map(Duration::get).unwrap_or_default();
        Completed {
            request_id: self.request_id.clone(),
            time_ms: (self.time.since_epoch().as_micros() as f64 / 1e3).round(),
            method: self.method.to_string(),
            authority: self.authority.clone(),
            target: self.target.clone(),
            client_address: self.client_address.to_string(),
            route: self.route.clone(),
            upstream: self.upstream.clone(),
            status: self.status.as_u16(),
            endpoint: self.endpoint.clone(),
            attempts: self.attempts,
            from_cache: self.from_cache,
            bytes_in: self.bytes_in,
            bytes_out: self.bytes_out,
            duration: length(self.duration),
            upstream_duration: length(self.upstream_duration),
            notes: self.notes.clone().into_iter().collect(),
        }
    }
}

/// An endpoint that may be picked, and how it does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Endpoint {
    /// `host:port`.
    pub address: String,
    #[serde(default = "one")]
    pub weight: u32,
    #[serde(default)]
    pub tags: BTreeMap<String, String>,
    /// Requests in flight.
    #[serde(default)]
    pub active: u32,
    /// Moving average of the time to the head of a response.
    pub latency: Option<Duration>,
    /// Failures in a row.
    #[serde(default)]
    pub failures: u32,
    /// What it has reported of its load.
    pub load: Option<f32>,
}

/// Picks, one after the other, for the same request.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Picks {
    pub calls: u32,
    /// Places of the endpoints that the request has failed on already.
    pub tried: Vec<u32>,
}

impl Default for Picks {
    fn default() -> Self {
        Self { calls: 1, tried: Vec::new() }
    }
}

fn one() -> u32 {
    1
}

/// What is to come of a step. What is not named may be as it likes, but for failures: they are always a fault,
/// unless they are expected.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Expect {
    #[serde(deserialize_with = "word_if")]
    pub verdict: Option<Verdict>,
    /// The upstream that `forward` names.
    pub upstream: Option<String>,
    #[serde(deserialize_with = "table_if")]
    pub reply: Option<ExpectReply>,
    /// The headers of the request as they are afterwards.
    pub headers: BTreeMap<String, Expected>,
    /// Headers of the request that were there before.
    pub removed: Vec<String>,
    /// Path and query as they are afterwards.
    pub target: Option<String>,
    /// The response as it is afterwards.
    #[serde(deserialize_with = "table_if")]
    pub response: Option<ExpectResponse>,
    /// What each call of `pick` gives.
    pub picks: Option<Vec<ExpectPick>>,
    /// The part of the picks that falls on each address.
    pub share: BTreeMap<String, f64>,
    /// By how much a share may be missed.
    pub tolerance: Option<f64>,
    pub notes: BTreeMap<String, Expected>,
    /// The request's body as it is afterwards.
    pub body: Option<String>,
    /// Requests that the plugin has sent: these, in this order, each as `GET https://host/path`.
    pub sent: Option<Vec<String>>,
    /// What is in the plugin's store afterwards.
    pub store: BTreeMap<String, Expected>,
    /// Lines that are logged, in this order, others between them; none at all if it is empty.
    #[serde(deserialize_with = "tables_if")]
    pub logs: Option<Vec<ExpectLog>>,
    /// Values of metrics: of a counter and a histogram the sum, of a gauge the last.
    pub metrics: BTreeMap<String, f64>,
    /// The hook fails in this way.
    #[serde(deserialize_with = "word_if")]
    pub error: Option<Fault>,
    /// The configuration is refused with these words.
    pub refused: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    Next,
    Reply,
    Forward,
}

/// In which way a call fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// It ran for longer than `limits.time`.
    Deadline,
    /// It wanted more than `limits.memory`.
    Memory,
    Trap,
    /// An answer that cannot be sent.
    InvalidReply,
    /// There was no instance to call.
    Start,
}

/// An answer that the plugin makes.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ExpectReply {
    #[serde(deserialize_with = "status_if")]
    pub status: Option<StatusCode>,
    pub headers: BTreeMap<String, Expected>,
    /// The whole of it.
    pub body: Option<String>,
    pub body_contains: Option<String>,
    /// What the body holds at least, as JSON: objects may have more members.
    pub json: Option<toml::Value>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ExpectResponse {
    #[serde(deserialize_with = "status_if")]
    pub status: Option<StatusCode>,
    pub headers: BTreeMap<String, Expected>,
    pub removed: Vec<String>,
    pub body: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct ExpectLog {
    #[serde(default, deserialize_with = "word_if")]
    pub level: Option<Level>,
    pub contains: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl TestFile {
    /// Reads the file, and takes the settings from where `config-from` says. For whoever runs the tests, who may read that
    /// file, too.
    pub fn read(path: &Path) -> Result<(Self, Source), Problems> {
        let text = files::read_text(path, files::TESTS).map_err(|error| {
            let source = Source { path: path.to_owned(), text: String::new() };
            Problems::new(source, vec![Problem::general(format!("cannot read the tests: {error}"))])
        })?;
        let (mut file, source) = Self::read_text(path, text)?;
        if let Some(from) = &file.config_from {
            match from.get_ref().read(path) {
                Ok(config) => file.config = config,
                Err(message) => {
                    let problem = Problem::at(from.span(), message);
                    return Err(Problems::new(source, vec![problem]));
                }
            }
        }
        Ok((file, source))
    }

    /// Reads what was in the file at `path`. No other file is read: `config-from` is left to the caller, since whoever wrote
    /// the tests may not be allowed to read what it names.
    pub fn read_text(path: &Path, text: String) -> Result<(Self, Source), Problems> {
        let (file, source): (Self, Source) = read_document(path, text, None)?;
        let excepted = file.conformance.except.keys();
        let unknown = excepted.filter(|id| !Check::ALL.iter().any(|check| check.id() == id.get_ref()));
        let unknown = unknown.map(|id| {
            let known = Check::ALL.map(Check::id).join("`, `");
            Problem::at(id.span(), "there is no such check").help(format!("the checks are `{known}`"))
        });
        let problems: Vec<Problem> = file.cases.iter().flat_map(check).chain(unknown).collect();
        if problems.is_empty() { Ok((file, source)) } else { Err(Problems::new(source, problems)) }
    }
}

impl Case {
    /// Its steps in order: those that are written out, or the one that stands in its own keys.
    pub fn steps(&self) -> Vec<Step> {
        if !self.steps.is_empty() {
            return self.steps.iter().map(|step| step.get_ref().clone()).collect();
        }
        vec![Step {
            advance: self.advance,
            tick: self.tick,
            instance: StepInstance::Shared,
            request: self.request.clone(),
            endpoints: self.endpoints.clone(),
            pick: self.pick.clone(),
            response: self.response.clone(),
            complete: self.complete.clone(),
            expect: self.expect.clone(),
        }]
    }

    /// Whether its steps are written out.
    pub fn has_steps(&self) -> bool {
        !self.steps.is_empty()
    }
}

/// What no single key can be blamed for.
fn check(case: &Spanned<Case>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (span, case) = (case.span(), case.get_ref());
    let says_a_step = case.request.is_some()
        || case.tick
        || case.endpoints.is_some()
        || case.pick.is_some()
        || case.response.is_some()
        || case.complete.is_some()
        || case.expect.is_some();
    if case.has_steps() && says_a_step {
        let message = "a case has either steps, or the keys of one step itself";
        problems.push(Problem::at(span.clone(), message).help("move its own into a `[[case.step]]`"));
    }
    let places = case.steps.iter().map(Spanned::span).chain(std::iter::repeat(span));
    for (step, place) in case.steps().iter().zip(places) {
        let refuses = step.expect.as_ref().is_some_and(|expect| expect.refused.is_some());
        let acts = step.tick
            || step.request.is_some()
            || step.pick.is_some()
            || step.response.is_some()
            || step.complete.is_some();
        if !acts && !refuses {
            let message = "nothing happens here: there is no `request`, no `pick` and no `response`";
            problems
                .push(Problem::at(place, message).help("`request = {}` calls on-request with a plain GET"));
        } else if step.pick.is_some() && !case.steps().iter().any(|step| step.endpoints.is_some()) {
            let message = "there is nothing to pick from";
            problems.push(
                Problem::at(place, message)
                    .help("write endpoints = [{ address = \"a:1\" }], or endpoints = []"),
            );
        }
    }
    problems
}
