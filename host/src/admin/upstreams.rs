//! `/api/upstreams`: which endpoints are there, and how do they do?

use std::{collections::BTreeMap, time::Instant};

use axum::{Json, extract::State};
use serde::Serialize;

use super::{
    Context,
    recent::Sample,
    status::{ago, milliseconds},
};
use crate::{
    snapshot::{Snapshot, Target},
    upstream::Entry,
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
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Endpoint {
    address: String,
    weight: u32,
    tags: BTreeMap<String, String>,
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
            .map(|place| snapshot.plugins[*place].plugin.name.to_string())
            .collect(),
        is_usable: upstream.is_usable(),
        is_panicking: roster.is_panicking(),
        endpoints: roster
            .all()
            .iter()
            .zip(&recent)
            .map(|(entry, recent)| endpoint(entry, recent, all))
            .collect(),
    }
}

fn recent(context: &Context, upstream: &str, entry: &Entry) -> Sample {
    let endpoint = &entry.endpoint;
    let name = format!("upstream {upstream} {}", endpoint.authority);
    context.recent.since(&name, Sample { count: endpoint.requests(), durations: endpoint.durations() })
}

fn endpoint(entry: &Entry, recent: &Sample, all: u64) -> Endpoint {
    let endpoint = &entry.endpoint;
    let condition = endpoint.condition();
    let health = endpoint.health().clone();
    let moment = |instant: Option<Instant>| instant.map(ago);
    Endpoint {
        address: endpoint.authority.to_string(),
        weight: entry.weight,
        tags: entry.tags.iter().cloned().collect(),
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
