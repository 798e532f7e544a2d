//! What changes the proxy as a whole: `POST /api/reload` and `POST /api/drain`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde_json::json;

use super::{
    context::Context,
    problem::{Place, Problem},
};
use crate::{
    config::Problems,
    server::{self, Error},
    telemetry::with_sources,
};

/// Reads the configuration and the plugins again. Answers when they are in force, or with what is wrong.
pub(super) async fn reload(State(context): State<Context>) -> Response {
    let Some(path) = context.config else {
        let detail = "this proxy was started without a file, so there is none to read again";
        return Problem::new(StatusCode::CONFLICT, detail).into_response();
    };
    match server::reload(&context.server, path.to_path_buf()).await {
        Ok(snapshot) => Json(json!({ "outcome": "in-force", "generation": snapshot.number })).into_response(),
        Err(error) => {
            tracing::error!("configuration not used, the one in force stays: {}", with_sources(&error));
            refused(&error).into_response()
        }
    }
}

/// Ends the proxy as SIGTERM does: requests finish first.
pub(super) async fn drain(State(context): State<Context>) -> Response {
    tracing::info!("draining, as the admin API was asked to");
    let server = context.server.clone();
    context.server.drain().accompany(async move { server.stop().await });
    (StatusCode::ACCEPTED, Json(json!({ "status": "draining" }))).into_response()
}

fn refused(error: &Error) -> Problem {
    match error {
        Error::Config(problems) => {
            let detail = "the configuration has problems; the one in force stays";
            Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with(places(problems))
        }
        Error::Bind(_) => Problem::new(StatusCode::CONFLICT, with_sources(error)),
        Error::Stopping => Problem::new(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        Error::Engine(_) | Error::Worker(_) => {
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, with_sources(error))
        }
    }
}

fn places(problems: &Problems) -> Vec<Place> {
    let place = |problem: &crate::config::Problem| {
        let place = problems.place(problem);
        Place {
            message: problem.message.clone(),
            help: problem.help.clone(),
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
        }
    };
    problems.iter().map(place).collect()
}
