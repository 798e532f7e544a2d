//! `GET /api/status`: what runs, since when, and what came of the last reload?

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use axum::{Json, extract::State};
use serde::Serialize;

use crate::{
    cache::Figures,
    server::Server,
    telemetry::traffic::{ListenerCounts, ListenerTraffic, TunnelCounts},
};

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Status {
    version: &'static str,
    started: String,
    uptime_seconds: u64,
    generation: u64,
    is_draining: bool,
    workers: usize,
    /// Absent before the first.
    last_reload: Option<Reload>,
    listeners: Vec<Listener>,
    requests: u64,
    /// Open ones.
    tunnels: u64,
    cache: Cache,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Cache {
    entries: usize,
    bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk: Option<Disk>,
    hits: u64,
    requests: u64,
    /// None before the first request.
    hit_ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Disk {
    entries: usize,
    bytes: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Reload {
    at: String,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Listener {
    address: String,
    connections: Connections,
    requests: u64,
    refusals: std::collections::BTreeMap<u16, u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Connections {
    open: usize,
    accepted: u64,
    refused: u64,
}

pub(super) async fn show(State(server): State<Arc<Server>>) -> Json<Status> {
    let listeners: Vec<Listener> = server.traffic().iter().map(listener).collect();
    let last = server.reloads().last();
    let snapshot = server.snapshot();
    Json(Status {
        version: env!("CARGO_PKG_VERSION"),
        started: timestamp(server.started()),
        uptime_seconds: server.started().elapsed().unwrap_or(Duration::ZERO).as_secs(),
        generation: snapshot.number,
        is_draining: server.is_leaving(),
        workers: server.workers(),
        last_reload: last.map(|last| Reload {
            at: timestamp(last.at),
            outcome: if last.outcome.is_ok() { "in-force" } else { "refused" },
            generation: last.outcome.as_ref().ok().copied(),
            reason: last.outcome.err(),
        }),
        tunnels: server.snapshot().traffic().iter().map(|(_, counts)| TunnelCounts::open(counts)).sum(),
        requests: listeners.iter().map(|listener| listener.requests).sum(),
        listeners,
        cache: cache(snapshot.cache.figures()),
    })
}

fn cache(figures: Figures) -> Cache {
    let Figures { entries, bytes, disk, hits, others } = figures;
    let requests = hits + others;
    Cache {
        entries,
        bytes,
        disk: disk.map(|(entries, bytes)| Disk { entries, bytes }),
        hits,
        requests,
        hit_ratio: (requests > 0).then(|| hits as f64 / requests as f64),
    }
}

fn listener(traffic: &ListenerTraffic) -> Listener {
    let counts = &traffic.counts;
    Listener {
        address: traffic.address.clone(),
        connections: Connections {
            open: traffic.open,
            accepted: counts.sum(|part| &part.accepted),
            refused: counts.sum(|part| &part.refused),
        },
        requests: counts.sum(|part| &part.requests),
        refusals: ListenerCounts::refusals(counts).collect(),
    }
}

/// When it was, as in RFC 3339.
pub(super) fn ago(moment: Instant) -> String {
    timestamp(SystemTime::now().checked_sub(moment.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH))
}

/// To the microsecond.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1e3
}

/// A moment as in RFC 3339.
pub(super) fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}
