//! `POST /api/plugins/{name}/record`: what does a plugin see, and what does it decide?

use std::{collections::BTreeSet, num::NonZero, sync::Arc, time};

use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::{
    config::Duration,
    plugin::{Hook, Recorded},
    plugin_tests::recorded::{self, Written},
    server::{Server, blocking},
};

/// How long, and how much.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Wanted {
    #[serde(rename = "for")]
    duration: Duration,
    /// The part of the calls, above 0 and up to 1.
    #[serde(default = "all")]
    sample: f64,
    /// Cases.
    #[serde(default = "hundred")]
    most: NonZero<usize>,
    /// Bodies as well.
    #[serde(default)]
    bodies: bool,
    /// Names of headers, cookies, parameters of queries and notes whose values are kept.
    #[serde(default)]
    keep: Vec<String>,
}

fn all() -> f64 {
    1.0
}

fn hundred() -> NonZero<usize> {
    const { NonZero::new(100).expect("it is not zero") }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct RecordingStatus {
    plugin: String,
    digest: String,
    origin: String,
    /// Requests that there were meanwhile.
    calls: u64,
    /// Those that pass, and those that do not and stand there as comments.
    cases: usize,
    left: usize,
    /// The cases, in the form of `<name>.test.toml`.
    text: String,
}

const LONGEST: time::Duration = time::Duration::from_secs(600);
const MOST: usize = 1000;

/// Answers when the time is over or there are as many as are wanted. Whoever goes away before ends it.
pub(super) async fn record(
    State(server): State<Arc<Server>>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<RecordingStatus>, Problem> {
    let problem = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
    let wanted: Wanted = serde_json::from_slice(&body)
        .map_err(|error| problem(&format!("this does not say what is to be recorded: {error}")))?;
    if wanted.duration.get() > LONGEST {
        return Err(problem("`for` is ten minutes at most"));
    }
    if !(wanted.sample > 0.0 && wanted.sample <= 1.0) {
        return Err(problem("`sample` is above 0 and up to 1"));
    }
    if wanted.most.get() > MOST {
        return Err(problem("`most` is 1000 at most"));
    }
    let snapshot = server.snapshot();
    let loaded = snapshot
        .plugin(&name)
        .ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "there is no plugin of this name in force"))?;
    let plugin = &loaded.plugin;
    let cannot = |detail: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
    if ![Hook::OnRequest, Hook::Pick, Hook::OnResponse].into_iter().any(|hook| plugin.code.exports(hook)) {
        return Err(cannot("this plugin decides neither on requests nor on responses nor on endpoints"));
    }
    let settings = Recorded { sample: wanted.sample, most: wanted.most.get(), bodies: wanted.bodies };
    let recording = plugin
        .record(settings)
        .ok_or_else(|| Problem::new(StatusCode::CONFLICT, "somebody records this plugin already"))?;
    tracing::info!(
        plugin = name,
        seconds = wanted.duration.get().as_secs(),
        bodies = wanted.bodies,
        "recording"
    );
    tokio::select! {
        () = tokio::time::sleep(wanted.duration.get()) => {}
        () = recording.full() => {}
        () = server.drain().started() => {}
    }
    let (calls, all) = recording.finish();
    let keep: BTreeSet<String> = wanted.keep.iter().map(|name| name.to_ascii_lowercase()).collect();
    let recorded = plugin.clone();
    let written = blocking(move || recorded::cases(&calls, &keep, &recorded)).await;
    let Written { text, cases, left } = written;
    tracing::info!(plugin = name, cases, left, "recorded");
    Ok(Json(RecordingStatus {
        plugin: name,
        digest: plugin.code.digest().to_string(),
        origin: loaded.origin.to_string(),
        calls: all,
        cases,
        left,
        text,
    }))
}
