//! How do endpoints and discovery do, in figures?

use std::sync::Arc;

use super::{State, Upstream};
use crate::telemetry::Page;

/// Writes the families of upstreams.
///
/// `upstreams` are those in force.
pub fn write_upstreams<'a>(page: &mut Page, upstreams: impl Iterator<Item = &'a Upstream> + Clone) {
    /// From 64 µs to 134 s.
    const OCTAVES: std::ops::Range<usize> = 9..31;
    let rosters: Vec<_> = upstreams.map(|upstream| (upstream, Arc::clone(&upstream.roster()))).collect();
    let sources: Vec<_> = rosters
        .iter()
        .flat_map(|(upstream, _)| {
            let report = upstream.sources().into_iter();
            report
                .map(|(source, report)| ([("upstream", &*upstream.name), ("source", source.name())], report))
        })
        .collect();
    let endpoints = rosters.iter().flat_map(|(upstream, roster)| {
        roster.all().iter().map(|entry| {
            let labels = [("upstream", &*upstream.name), ("endpoint", entry.endpoint.authority.as_str())];
            (labels, &*entry.endpoint, entry.state)
        })
    });
    page.counter("tollgate_upstream_requests_total", "Requests brought to an endpoint.", |family| {
        for (labels, endpoint, _) in endpoints.clone() {
            family.row(&labels, endpoint.requests());
        }
    });
    page.counter("tollgate_upstream_failures_total", "Requests that got no response from it.", |family| {
        for (labels, endpoint, _) in endpoints.clone() {
            family.row(&labels, endpoint.lost_in_all());
        }
    });
    page.gauge("tollgate_upstream_active", "Requests in flight.", |family| {
        for (labels, endpoint, _) in endpoints.clone() {
            family.row(&labels, endpoint.active());
        }
    });
    page.gauge(
        "tollgate_upstream_state",
        "1 for the state that an endpoint is in, 0 for the others.",
        |family| {
            for (labels, _, now) in endpoints.clone() {
                for state in State::ALL {
                    let labels = [labels[0], labels[1], ("state", state.name())];
                    family.row(&labels, u8::from(state == now));
                }
            }
        },
    );
    let help = "Time to the head of a response; of many, one in eight is taken and stands for eight.";
    page.histogram("tollgate_upstream_duration_seconds", help, |family| {
        for (labels, endpoint, _) in endpoints {
            family.distribution(&labels, &endpoint.durations(), OCTAVES);
        }
    });
    page.gauge("tollgate_discovery_endpoints", "Endpoints that a source names.", |family| {
        for (labels, report) in &sources {
            family.row(labels, report.endpoints() as u64);
        }
    });
    page.gauge("tollgate_discovery_up", "1 if the last answer of a source counts, 0 if not.", |family| {
        for (labels, report) in &sources {
            family.row(labels, u8::from(report.last_answer.is_some() && report.error.is_none()));
        }
    });
    page.counter("tollgate_discovery_answers_total", "Lists of endpoints that a source gave.", |family| {
        for (labels, report) in &sources {
            family.row(labels, report.answers);
        }
    });
    page.counter("tollgate_discovery_failures_total", "Times that a source gave none.", |family| {
        for (labels, report) in &sources {
            family.row(labels, report.failures);
        }
    });
}
