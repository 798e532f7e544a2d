//! `POST /api/explain`: what would become of a request?

use std::sync::Arc;

use axum::{
    Json,
    body::Bytes,
    extract::{State, rejection::BytesRejection},
};
use http::StatusCode;

use super::problem::Problem;
use crate::{
    proxy::{Explanation, Question, Unexplained},
    server::Server,
};

/// Bytes of a question.
pub(super) const LARGEST: usize = 1 << 20;

pub(super) async fn explain(
    State(server): State<Arc<Server>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Explanation>, Problem> {
    let body = body.map_err(|_| {
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, format!("a question has at most {LARGEST} bytes"))
    })?;
    let question: Question = serde_json::from_slice(&body)
        .map_err(|error| Problem::new(StatusCode::BAD_REQUEST, format!("this is no question: {error}")))?;
    server.explain(question).await.map(Json).map_err(|error| {
        let status = match error {
            Unexplained::Method
            | Unexplained::Url
            | Unexplained::Header(_)
            | Unexplained::NoListener { .. }
            | Unexplained::UnknownListener(_)
            | Unexplained::Certificate
            | Unexplained::NotAsked(_) => StatusCode::BAD_REQUEST,
            Unexplained::TimedOut => StatusCode::GATEWAY_TIMEOUT,
            Unexplained::Stopping => StatusCode::SERVICE_UNAVAILABLE,
        };
        Problem::new(status, error.to_string())
    })
}
