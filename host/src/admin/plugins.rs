//! `/api/plugins`: which plugins are loaded, and how do they do?

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use serde::Serialize;

use super::{Context, recent::Sample, status::milliseconds};
use crate::{
    config,
    plugin::{FailureKind, Hook},
    snapshot::Loaded,
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
    calls: BTreeMap<&'static str, u64>,
    failures: BTreeMap<&'static str, u64>,
    cpu_seconds: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    instances: usize,
    recycled: u64,
    /// What the plugin counts itself.
    metrics: BTreeMap<String, f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct LastLoad {
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct NotLoaded {
    name: String,
    reason: String,
}

/// `GET`: all of them.
pub(super) async fn list(State(context): State<Context>) -> Json<Plugins> {
    let snapshot = context.server.snapshot();
    let not_loaded = snapshot.not_loaded.iter();
    Json(Plugins {
        plugins: snapshot.plugins.iter().map(|loaded| plugin(&context, loaded)).collect(),
        not_loaded: not_loaded
            .map(|(name, reason)| NotLoaded { name: name.clone(), reason: reason.clone() })
            .collect(),
    })
}

fn plugin(context: &Context, loaded: &Loaded) -> Plugin {
    let plugin = &loaded.plugin;
    let durations = plugin.durations();
    let cpu_seconds = durations.sum().as_secs_f64();
    let calls: BTreeMap<_, _> = Hook::ALL.into_iter().map(|hook| (hook.name(), plugin.calls(hook))).collect();
    let now = Sample { count: calls.values().sum(), durations };
    let recent = context.recent.since(&format!("plugin {}", plugin.name), now).durations;
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
        last_load: LastLoad {
            outcome: if loaded.refused.is_some() { "refused" } else { "in-force" },
            reason: loaded.refused.clone(),
        },
        calls,
        failures: FailureKind::ALL.into_iter().map(|kind| (kind.name(), plugin.failures(kind))).collect(),
        cpu_seconds,
        p50_ms: recent.quantile(0.5).map(milliseconds),
        p99_ms: recent.quantile(0.99).map(milliseconds),
        instances: plugin.instances(),
        recycled: plugin.recycled(),
        metrics: plugin.metrics().into_iter().map(|(name, metric)| (name, metric.value())).collect(),
    }
}
