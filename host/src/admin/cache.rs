//! `DELETE /api/cache`: what is stored and is to be stored no more?

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
};
use http::StatusCode;
use serde::{Deserialize, Serialize};

use super::problem::Problem;
use crate::{cache::purge::Purge, server::Server};

/// What is meant: one of the first three, or `all`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Meant {
    key: Option<String>,
    prefix: Option<String>,
    tag: Option<String>,
    all: Option<String>,
    soft: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Purged {
    /// Stored responses that were dropped or made stale.
    purged: usize,
}

pub(super) async fn purge(
    State(server): State<Arc<Server>>,
    RawQuery(query): RawQuery,
) -> Result<Json<Purged>, Problem> {
    let problem = |detail: &str| Problem::new(StatusCode::BAD_REQUEST, detail);
    let uri = format!("/?{}", query.unwrap_or_default());
    let uri: http::Uri = uri.parse().map_err(|_| problem("the query cannot be read"))?;
    let axum::extract::Query(meant) = axum::extract::Query::<Meant>::try_from_uri(&uri)
        .map_err(|_| problem("the query has a name that is not key, prefix, tag, all or soft"))?;
    let Meant { key, prefix, tag, all, soft } = &meant;
    let is_said = |flag: &Option<String>| flag.as_ref().is_some_and(|text| text.is_empty() || text == "true");
    let purge = match (key, prefix, tag, is_said(all)) {
        (Some(url), None, None, false) => Purge::Url(url),
        (None, Some(prefix), None, false) => Purge::Prefix(prefix),
        (None, None, Some(tag), false) => Purge::Tag(tag),
        (None, None, None, true) => Purge::All,
        _ => return Err(problem("say what is to be purged: one of key, prefix, tag or all")),
    };
    let purged = server.snapshot().cache.purge(purge, is_said(soft));
    tracing::info!(purged, soft = is_said(soft), "purged from the cache");
    Ok(Json(Purged { purged }))
}
