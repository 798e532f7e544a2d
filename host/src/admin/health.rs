//! Is the process alive, and is it of use?

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use super::{access, problem::Problem};
use crate::{server::Server, snapshot::Snapshot};

/// `GET /healthz`: there is an answer as long as the process lives.
pub(super) async fn live() -> Json<serde_json::Value> {
    Json(json!({ "status": "alive" }))
}

/// `GET /readyz`: whether requests had better come here.
pub(super) async fn ready(State(server): State<Arc<Server>>, headers: HeaderMap) -> Response {
    let reasons = reasons(&server.snapshot(), server.drain().has_started());
    if reasons.is_empty() {
        return Json(json!({ "status": "ready" })).into_response();
    }
    // Names of upstreams are for those who may ask for them.
    let is_trusted = access::is_trusted(&server, &headers);
    let detail = if is_trusted { reasons.join("; ") } else { "not ready".to_owned() };
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).into_response()
}

/// Why requests had better go elsewhere.
fn reasons(snapshot: &Snapshot, is_draining: bool) -> Vec<String> {
    if is_draining {
        return vec!["draining".to_owned()];
    }
    let needed: std::collections::BTreeSet<usize> =
        snapshot.routes.iter().map(|route| route.upstream).collect();
    let upstreams = needed.into_iter().map(|place| &snapshot.upstreams[place].upstream);
    let unusable = upstreams.filter(|upstream| !upstream.is_usable());
    unusable.map(|upstream| format!("the upstream `{}` has no endpoint to use", upstream.name)).collect()
}
