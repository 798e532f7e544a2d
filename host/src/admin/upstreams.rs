//! `/api/upstreams`: which endpoints are there, how do they do, and who joins or leaves?

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::{
    context::Context,
    problem::Problem,
    recent::Sample,
    status::{ago, milliseconds},
};
use crate::{
    config,
    server::Server,
    snapshot::{Snapshot, Target},
    upstream::{self, Entry, RegisterError, Registered, SourceReport},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Upstreams {
    upstreams: Vec<Upstream>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Upstream {
    name: String,
    /// The plugins that are asked for an endpoint, in order.
    balance: Vec<String>,
    is_usable: bool,
    /// So few endpoints are well that all are used.
    is_panicking: bool,
    /// What is looked at of the certificates of endpoints, where there may be ones by TLS.
    verify: Option<&'static str>,
    discovery: Vec<Source>,
    endpoints: Vec<Endpoint>,
}

/// Who is asked which endpoints there are.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Source {
    source: &'static str,
    endpoints: usize,
    answers: u64,
    failures: u64,
    last_answer: Option<String>,
    last_change: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Endpoint {
    address: String,
    weight: u32,
    tags: BTreeMap<String, String>,
    source: &'static str,
    /// Of one that has registered.
    expires_in_seconds: Option<f64>,
    state: &'static str,
    last_healthy: Option<String>,
    last_error: Option<String>,
    last_transition: Option<String>,
    checks_passed: u64,
    checks_failed: u64,
    active: u32,
    requests: u64,
    failures: u64,
    failures_in_a_row: u32,
    /// Of the upstream's requests in the last seconds, from 0 to 1.
    share: f64,
    latency_ms: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

/// `GET`: all of them.
pub(super) async fn list(State(context): State<Context>) -> Json<Upstreams> {
    let snapshot = context.server.snapshot();
    let upstreams = snapshot.upstreams.iter().map(|target| upstream(&context, &snapshot, target)).collect();
    Json(Upstreams { upstreams })
}

fn upstream(context: &Context, snapshot: &Snapshot, target: &Target) -> Upstream {
    let upstream = &target.upstream;
    let roster = upstream.roster().clone();
    let recent: Vec<Sample> =
        roster.all().iter().map(|entry| recent(context, &upstream.name, entry)).collect();
    let all: u64 = recent.iter().map(|sample| sample.count).sum();
    Upstream {
        name: upstream.name.to_string(),
        balance: target
            .balancers
            .iter()
            .map(|index| snapshot.plugins[*index].plugin.name.to_string())
            .collect(),
        is_usable: upstream.is_usable(),
        is_panicking: roster.is_panicking(),
        verify: upstream.tls().endpoints.as_ref().map(|tls| tls.verify().name()),
        discovery: upstream
            .sources()
            .into_iter()
            .map(|(source, report)| discovery(source, &report))
            .collect(),
        endpoints: roster
            .all()
            .iter()
            .zip(&recent)
            .map(|(entry, recent)| endpoint(upstream, entry, recent, all))
            .collect(),
    }
}

fn recent(context: &Context, upstream: &str, entry: &Entry) -> Sample {
    let endpoint = &entry.endpoint;
    let name = format!("upstream {upstream} {}", endpoint.authority);
    context.recent.since(&name, Sample { count: endpoint.requests(), durations: endpoint.durations() })
}

fn discovery(source: upstream::Source, report: &SourceReport) -> Source {
    Source {
        source: source.name(),
        endpoints: report.endpoints(),
        answers: report.answers,
        failures: report.failures,
        last_answer: report.last_answer.map(ago),
        last_change: report.last_change.map(ago),
        error: report.error.as_deref().map(str::to_owned),
    }
}

fn endpoint(upstream: &upstream::Upstream, entry: &Entry, recent: &Sample, all: u64) -> Endpoint {
    let endpoint = &entry.endpoint;
    let condition = endpoint.condition();
    let health = endpoint.health().clone();
    let moment = |instant: Option<Instant>| instant.map(ago);
    Endpoint {
        address: endpoint.authority.to_string(),
        weight: entry.weight,
        tags: entry.tags.iter().cloned().collect(),
        source: entry.source.name(),
        expires_in_seconds: (entry.source == upstream::Source::Registered)
            .then(|| upstream.lifetime(endpoint.authority.as_str()))
            .flatten()
            .map(|lifetime| lifetime.as_secs_f64()),
        state: entry.state.name(),
        last_healthy: moment(health.last_healthy),
        last_error: health.last_error.as_deref().map(str::to_owned),
        last_transition: moment(health.last_transition),
        checks_passed: health.passed_checks,
        checks_failed: health.failed_checks,
        active: condition.active,
        requests: endpoint.requests(),
        failures: endpoint.lost_in_all(),
        failures_in_a_row: condition.failures,
        share: if all == 0 { 0.0 } else { recent.count as f64 / all as f64 },
        latency_ms: f64::from(condition.latency_us) / 1e3,
        p50_ms: recent.durations.quantile(0.5).map(milliseconds),
        p99_ms: recent.durations.quantile(0.99).map(milliseconds),
    }
}

/// What a server says of itself when it registers.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Registration {
    /// How long it stays without renewing.
    lifetime: config::Duration,
    weight: u32,
    tags: BTreeMap<String, String>,
    scheme: Scheme,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Scheme {
    #[default]
    Http,
    Https,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            lifetime: config::Duration::from_secs(30),
            weight: 1,
            tags: BTreeMap::new(),
            scheme: Scheme::default(),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Taken {
    upstream: String,
    address: String,
    outcome: &'static str,
}

/// `PUT /api/upstreams/{name}/endpoints/{address}`: a server registers or renews.
pub(super) async fn register(
    State(server): State<Arc<Server>>,
    Path((name, address)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Taken>, Problem> {
    let bad = |detail: String| Problem::new(StatusCode::BAD_REQUEST, detail);
    let registration: Registration = match body.is_empty() {
        true => Registration::default(),
        false => serde_json::from_slice(&body).map_err(|error| bad(format!("the body: {error}")))?,
    };
    let upstream = find(&server, &name)?;
    let is_https = registration.scheme == Scheme::Https;
    let mut endpoint = match address.contains("://") {
        true => return Err(bad("the address is a host and a port, without a scheme".to_owned())),
        false => config::Endpoint::parse(&address, is_https).map_err(|error| bad(error.to_owned()))?,
    };
    endpoint.weight = registration.weight;
    endpoint.tags = registration.tags;
    let address = endpoint.authority.to_string();
    let admin = server.admin().and_then(|admin| admin.sockets.address.ip());
    let registered = upstream.register(endpoint, registration.lifetime.get(), admin).map_err(|error| {
        let status = match error {
            RegisterError::NotAllowed(_) => StatusCode::FORBIDDEN,
            RegisterError::NotTaken | RegisterError::Configured | RegisterError::NoTls => {
                StatusCode::CONFLICT
            }
            RegisterError::TooMany => StatusCode::INSUFFICIENT_STORAGE,
        };
        Problem::new(status, error.to_string())
    })?;
    let outcome = match registered {
        Registered::New => "registered",
        Registered::Changed => "changed",
        Registered::Renewed => "renewed",
    };
    Ok(Json(Taken { upstream: name, address, outcome }))
}

/// `DELETE` of the same: it finishes what it has, and gets no more.
pub(super) async fn take_out(
    State(server): State<Arc<Server>>,
    Path((name, address)): Path<(String, String)>,
) -> Result<Json<Taken>, Problem> {
    let upstream = find(&server, &name)?;
    let address =
        config::Endpoint::parse(&address, false).map_or(address, |endpoint| endpoint.authority.to_string());
    match upstream.take_out(&address) {
        true => Ok(Json(Taken { upstream: name, address, outcome: "taken-out" })),
        false if upstream.configures(&address) => Err(Problem::new(
            StatusCode::CONFLICT,
            "this endpoint stands in the configuration: take it out of `endpoints` there, and reload",
        )),
        false => Err(Problem::new(StatusCode::NOT_FOUND, "no such endpoint is registered")),
    }
}

fn find(server: &Server, name: &str) -> Result<Arc<upstream::Upstream>, Problem> {
    let snapshot = server.snapshot();
    let index = snapshot.upstream(name);
    let index = index.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no such upstream"))?;
    Ok(snapshot.upstreams[index].upstream.clone())
}
