//! `GET /metrics`: all that is counted.
//!
//! Each room writes the families that it counts; this is the list of rooms.

use std::{sync::Arc, time::UNIX_EPOCH};

use axum::{extract::State, response::IntoResponse};
use http::{HeaderMap, HeaderValue, header};

use crate::{
    cache::write_cache,
    plugin::{Comparison, write_canaries, write_on_routes, write_plugins, write_shadows},
    server::Server,
    snapshot::{Loaded, write_loads},
    telemetry::{
        self, Format, Page,
        traffic::{write_listeners, write_routes},
    },
    upstream::write_upstreams,
};

pub(super) async fn show(State(server): State<Arc<Server>>, headers: HeaderMap) -> impl IntoResponse {
    let format = format(&headers);
    let mut page = Page::new(format);
    write(&mut page, &server);
    ([(header::CONTENT_TYPE, format.media_type())], page.finish())
}

fn write(page: &mut Page, server: &Server) {
    let snapshot = server.snapshot();
    write_process(page, server);
    write_listeners(page, &server.traffic());
    write_routes(page, &snapshot.traffic());
    write_upstreams(page, snapshot.upstreams.iter().map(|target| &*target.upstream));
    write_cache(page, &snapshot.cache);
    write_loads(page, server.loads());
    write_on_routes(page, &snapshot.plugin_calls());
    write_plugins(page, snapshot.plugins.iter().map(|loaded| &*loaded.plugin));
    write_shadows(page, snapshot.shadows.iter().map(|shadow| &**shadow));
    write_canaries(page, snapshot.plugins.iter().filter_map(tried));
}

/// The version that is tried beside the one in force, if one is.
fn tried(loaded: &Loaded) -> Option<(&str, f64, &Comparison)> {
    let candidate = loaded.candidate.as_ref()?;
    Some((&loaded.plugin.name, candidate.weight(), &candidate.comparison))
}

/// Writes the families of the process as a whole.
fn write_process(page: &mut Page, server: &Server) {
    let started = server.started().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    page.gauge("tollgate_build_info", "1, for the version that runs.", |family| {
        family.row(&[("version", env!("CARGO_PKG_VERSION"))], 1);
    });
    page.gauge("tollgate_start_time_seconds", "When the process started, since 1970.", |family| {
        family.row(&[], started);
    });
    page.gauge("tollgate_generation", "The generation in force.", |family| {
        family.row(&[], server.snapshot().number);
    });
    page.gauge("tollgate_draining", "1 once no new connection is accepted.", |family| {
        family.row(&[], u8::from(server.drain().has_started()));
    });
    page.counter("tollgate_reloads_total", "Attempts to put a configuration in force.", |family| {
        family.row(&[("outcome", "in-force")], server.reloads().done.get());
        family.row(&[("outcome", "refused")], server.reloads().refused.get());
    });
    page.counter("tollgate_log_lines_lost_total", "Lines of the log that nobody took in time.", |family| {
        family.row(&[], telemetry::lost_lines());
    });
}

/// What the client would rather have: OpenMetrics only if it says so.
fn format(headers: &HeaderMap) -> Format {
    let accepted =
        headers.get_all(header::ACCEPT).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
    let mut ranges = accepted.flat_map(|value| value.split(','));
    let is_open = |range: &str| {
        let mut parts = range.split(';').map(str::trim);
        let is_it =
            parts.next().is_some_and(|name| name.eq_ignore_ascii_case("application/openmetrics-text"));
        is_it && !parts.any(|parameter| matches!(parameter, "q=0" | "q=0.0"))
    };
    if ranges.any(is_open) { Format::OpenMetrics } else { Format::Prometheus }
}
