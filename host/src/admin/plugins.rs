//! `/api/plugins`: which plugins are loaded, and how do they do?

use std::{collections::BTreeMap, sync::Arc};

use axum::{
    Json,
    extract::{Path, State},
};
use http::StatusCode;
use serde::Serialize;

use super::{
    context::Context,
    problem::Problem,
    recent::Sample,
    status::{milliseconds, timestamp},
};
use crate::{
    config,
    plugin::{self, DifferenceKind, FailureKind, Hook, RouteCalls, Shadow, Side},
    server::{RollBackError, Server},
    snapshot::{Candidate, Loaded, Refused, Snapshot},
    telemetry::{Distribution, PerWorker, with_sources},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Plugins {
    plugins: Vec<Plugin>,
    /// Files that no route needs, and that are not usable.
    not_loaded: Vec<NotLoaded>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Plugin {
    name: String,
    origin: String,
    /// The SHA-256 of the component in force.
    digest: String,
    size: usize,
    hooks: Vec<&'static str>,
    fail: &'static str,
    last_load: LastLoad,
    /// The version that is tried beside the one in force.
    canary: Option<Canary>,
    /// Candidates that are shown what it is shown, by their files.
    shadows: BTreeMap<String, ShadowStatus>,
    /// Cases of its own tests that it has passed before it came into force.
    tests_passed: Option<usize>,
    /// Those that have served, the last one last.
    versions: Vec<Version>,
    calls: BTreeMap<&'static str, u64>,
    failures: BTreeMap<&'static str, u64>,
    cpu_seconds: f64,
    /// Calls on the offload thread of a worker.
    offloaded: u64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    instances: usize,
    recycled: u64,
    /// Of all instances together.
    memory_bytes: usize,
    breaker: Breaker,
    /// By the names of the routes that it is on.
    routes: BTreeMap<String, OnRoute>,
    /// What the plugin counts itself.
    metrics: BTreeMap<String, f64>,
}

/// A candidate, and how often it would have decided otherwise.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct ShadowStatus {
    digest: String,
    calls: u64,
    /// Calls that decided otherwise, or failed.
    different: u64,
    /// Calls that asked for a body which was not there to be shown.
    missed: u64,
    /// By hook and kind.
    differences: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    failures: BTreeMap<&'static str, u64>,
    cpu_seconds: f64,
    memory_bytes: usize,
}

impl ShadowStatus {
    fn of(shadow: &Shadow) -> Self {
        let by_kind = |hook| {
            let kinds = DifferenceKind::ALL.into_iter();
            kinds.map(|kind| (kind.name(), shadow.differences(hook, kind))).collect()
        };
        Self {
            digest: shadow.plugin.code.digest().to_string(),
            calls: shadow.calls(),
            different: shadow.different(),
            missed: shadow.missing(),
            differences: Shadow::HOOKS.into_iter().map(|hook| (hook.name(), by_kind(hook))).collect(),
            failures: FailureKind::ALL.into_iter().map(|kind| (kind.name(), shadow.failures(kind))).collect(),
            cpu_seconds: shadow.plugin.computed().as_secs_f64(),
            memory_bytes: shadow.plugin.memory(),
        }
    }
}

/// A version that decides a share of the requests, and what both have come to since.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Canary {
    digest: String,
    size: usize,
    weight: f64,
    since: String,
    /// When it takes over at the earliest.
    until: String,
    /// Requests that it must have decided by then.
    requests: u32,
    in_force: Seen,
    candidate: Seen,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Seen {
    requests: u64,
    failed: u64,
    calls: u64,
    crashes: u64,
}

impl Canary {
    fn of(Candidate { plugin, rule, comparison, .. }: &Candidate) -> Self {
        let seen = |side| {
            let plugin::Seen { calls, crashes, requests, failed } = comparison.seen(side);
            Seen { requests, failed, calls, crashes }
        };
        Self {
            digest: plugin.code.digest().to_string(),
            size: plugin.code.size(),
            weight: rule.weight.get(),
            since: timestamp(comparison.since),
            until: timestamp(comparison.since + rule.time.get()),
            requests: rule.requests.get(),
            in_force: seen(Side::InForce),
            candidate: seen(Side::Candidate),
        }
    }
}

/// Whether it is left alone, because it keeps failing or takes the time of others.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Breaker {
    /// `open` if a worker leaves it alone.
    state: &'static str,
    open_workers: usize,
    opened: u64,
}

/// Its calls for the requests of a route.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct OnRoute {
    calls: u64,
    failures: u64,
    failures_by_kind: BTreeMap<&'static str, u64>,
    cpu_seconds: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LastLoad {
    outcome: &'static str,
    at: String,
    /// How far what is not in force came.
    #[serde(skip_serializing_if = "Option::is_none")]
    stage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Version {
    digest: String,
    since: String,
    /// Whether it is not to serve any more.
    is_taken_back: bool,
}

impl LastLoad {
    fn of(loaded: &Loaded) -> Self {
        let Some(Refused { stage, reason, at, .. }) = &loaded.refused else {
            return Self { outcome: "in-force", at: timestamp(loaded.since), stage: None, reason: None };
        };
        Self {
            outcome: "refused",
            at: timestamp(*at),
            stage: Some(stage.name()),
            reason: Some(reason.clone()),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct NotLoaded {
    name: String,
    stage: &'static str,
    reason: String,
    at: String,
}

/// `GET`: all of them.
pub(super) async fn list(State(context): State<Context>) -> Json<Plugins> {
    let snapshot = context.server.snapshot();
    let not_loaded = snapshot.not_loaded.iter();
    Json(Plugins {
        plugins: snapshot.plugins.iter().map(|loaded| plugin(&context, &snapshot, loaded)).collect(),
        not_loaded: not_loaded
            .map(|(name, Refused { stage, reason, at, .. })| NotLoaded {
                name: name.clone(),
                stage: stage.name(),
                reason: reason.clone(),
                at: timestamp(*at),
            })
            .collect(),
    })
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RolledBack {
    plugin: String,
    from: String,
    to: String,
    generation: u64,
}

/// `POST /api/plugins/{name}/rollback`: the version before serves again, and the one in force no more.
pub(super) async fn roll_back(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<RolledBack>, Problem> {
    let rolled_back = server.roll_back(&name).await?;
    Ok(Json(RolledBack {
        plugin: name,
        from: rolled_back.from.to_string(),
        to: rolled_back.to.to_string(),
        generation: rolled_back.generation,
    }))
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Allowed {
    plugin: String,
    /// The version in force now.
    digest: Option<String>,
    generation: u64,
}

/// `DELETE` of the same: versions that were taken back may serve again, and what lies in the file does.
pub(super) async fn allow(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
) -> Result<Json<Allowed>, Problem> {
    let snapshot = server.allow_versions(&name).await?;
    let digest = snapshot.plugin(&name).map(|loaded| loaded.plugin.code.digest().to_string());
    Ok(Json(Allowed { plugin: name, digest, generation: snapshot.number }))
}

impl From<RollBackError> for Problem {
    fn from(error: RollBackError) -> Self {
        let status = match error {
            RollBackError::Unknown => StatusCode::NOT_FOUND,
            RollBackError::TakeBack(_) | RollBackError::NothingTakenBack => StatusCode::CONFLICT,
            RollBackError::Refused { .. } | RollBackError::Replace(_) => StatusCode::UNPROCESSABLE_ENTITY,
        };
        Self::new(status, with_sources(&error))
    }
}

fn plugin(context: &Context, snapshot: &Snapshot, loaded: &Loaded) -> Plugin {
    let plugin = &loaded.plugin;
    let durations = plugin.durations();
    let cpu_seconds = plugin.computed().as_secs_f64();
    let calls: BTreeMap<_, _> = Hook::ALL.into_iter().map(|hook| (hook.name(), plugin.calls(hook))).collect();
    let now = Sample { count: calls.values().sum(), durations };
    let recent = context.recent.since(&format!("plugin {}", plugin.name), now).durations;
    let history = context.server.versions().of(&plugin.name);
    Plugin {
        name: plugin.name.to_string(),
        origin: loaded.origin.to_string(),
        digest: plugin.code.digest().to_string(),
        size: plugin.code.size(),
        hooks: Hook::ALL.into_iter().filter(|hook| plugin.code.exports(*hook)).map(Hook::name).collect(),
        fail: match plugin.failure {
            config::Failure::Closed => "closed",
            config::Failure::Open => "open",
        },
        last_load: LastLoad::of(loaded),
        canary: loaded.candidate.as_ref().map(Canary::of),
        shadows: snapshot
            .shadows
            .iter()
            .filter(|shadow| shadow.of == plugin.name)
            .map(|shadow| (shadow.file.clone(), ShadowStatus::of(shadow)))
            .collect(),
        tests_passed: loaded.tested.map(|tested| tested.cases),
        versions: history
            .served
            .iter()
            .map(|version| Version {
                digest: version.digest.to_string(),
                since: timestamp(version.since()),
                is_taken_back: history.taken_back.contains(&version.digest),
            })
            .collect(),
        calls,
        failures: FailureKind::ALL.into_iter().map(|kind| (kind.name(), plugin.failures(kind))).collect(),
        cpu_seconds,
        offloaded: plugin.offloaded(),
        p50_ms: recent.quantile(0.5).map(milliseconds),
        p99_ms: recent.quantile(0.99).map(milliseconds),
        instances: plugin.instances(),
        recycled: plugin.recycled(),
        memory_bytes: plugin.memory(),
        breaker: Breaker {
            state: if plugin.open_breakers() > 0 { "open" } else { "closed" },
            open_workers: plugin.open_breakers(),
            opened: plugin.breaker_opened(),
        },
        routes: routes(context, snapshot, &plugin.name),
        metrics: plugin.metrics().into_iter().map(|(name, metric)| (name, metric.value())).collect(),
    }
}

fn routes(context: &Context, snapshot: &Snapshot, name: &str) -> BTreeMap<String, OnRoute> {
    let calls = snapshot.plugin_calls().into_iter().filter(|((plugin, _), _)| *plugin == name);
    let tell = |((_, route), calls): ((&str, &str), &PerWorker<RouteCalls>)| {
        let durations = Distribution::of(calls.parts().map(|part| &part.durations));
        let (count, cpu_seconds) = (calls.sum(|part| &part.calls), RouteCalls::computed(calls).as_secs_f64());
        let recent =
            context.recent.since(&format!("plugin {name} on {route}"), Sample { count, durations }).durations;
        let failures = |kind: FailureKind| (kind.name(), calls.sum(|part| part.failures(kind)));
        let failures: BTreeMap<_, _> = FailureKind::ALL.into_iter().map(failures).collect();
        let on_route = OnRoute {
            calls: count,
            failures: failures.values().sum(),
            failures_by_kind: failures,
            cpu_seconds,
            p50_ms: recent.quantile(0.5).map(milliseconds),
            p99_ms: recent.quantile(0.99).map(milliseconds),
        };
        (route.to_owned(), on_route)
    };
    calls.map(tell).collect()
}
