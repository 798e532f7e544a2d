//! Is the process alive, and is it of use?

use std::{collections::BTreeSet, sync::Arc};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::{access, problem::Problem};
use crate::{server::Server, snapshot::Snapshot};

/// `GET /healthz`: there is an answer as long as the process lives.
pub(super) async fn live() -> Json<serde_json::Value> {
    Json(json!({ "status": "alive" }))
}

/// `GET /readyz`: whether requests had better come here.
pub(super) async fn ready(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    let upstreams = upstreams(&server.snapshot());
    let reasons = reasons(&upstreams, server.is_leaving());
    // Names of upstreams are for those who may ask for them.
    let is_trusted = access::is_trusted(&server, &headers);
    match (reasons.is_empty(), is_trusted) {
        (true, true) => Json(json!({ "status": "ready", "upstreams": upstreams })).into_response(),
        (true, false) => Json(json!({ "status": "ready" })).into_response(),
        (false, true) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, reasons.join("; ")).into_response(),
        (false, false) => Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready").into_response(),
    }
}

/// An upstream that a route leads to.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Needed {
    name: String,
    is_usable: bool,
    /// Whether the proxy is not ready without it.
    is_required: bool,
}

fn upstreams(snapshot: &Snapshot) -> Vec<Needed> {
    let needed: BTreeSet<usize> = snapshot.routes.iter().map(|route| route.upstream).collect();
    let upstreams = needed.into_iter().map(|index| &snapshot.upstreams[index].upstream);
    let needed = upstreams.map(|upstream| Needed {
        name: upstream.name.to_string(),
        is_usable: upstream.is_usable(),
        is_required: upstream.settings.required_for_ready,
    });
    needed.collect()
}

/// Why requests had better go elsewhere.
fn reasons(upstreams: &[Needed], is_leaving: bool) -> Vec<String> {
    if is_leaving {
        return vec!["draining".to_owned()];
    }
    let missing = upstreams.iter().filter(|upstream| upstream.is_required && !upstream.is_usable);
    missing.map(|upstream| format!("the upstream `{}` has no endpoint to use", upstream.name)).collect()
}
