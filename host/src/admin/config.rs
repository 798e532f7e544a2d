//! `GET /api/config`: what was written that is in force?

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::context::Context;
use crate::config;

/// The configuration in force as it was written: variables stand as they are, and what may be secret does not.
pub(super) async fn show(State(context): State<Context>) -> Json<Value> {
    let snapshot = context.server.snapshot();
    // Whoever asks may stand in another folder.
    let path = &snapshot.source.path;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.clone());
    Json(json!({
        "generation": snapshot.number,
        "file": path.display().to_string(),
        "config": config::redacted(&snapshot.source.text),
    }))
}
