//! What does an explanation say?

use std::{collections::BTreeMap, time::Instant};

use http::{HeaderMap, HeaderName, response};
use serde::Serialize;

use crate::{
    compress::{self, Wishes},
    config::{Encoding, is_secret},
    plugin::{Journal, Logged},
};

/// What was decided, stage by stage, as far as it came. Times are in microseconds.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    pub(in crate::proxy) generation: u64,
    pub(in crate::proxy) worker: usize,
    pub(in crate::proxy) listener: String,
    pub(in crate::proxy) micros: f64,
    pub(in crate::proxy) outcome: Outcome,
    pub(in crate::proxy) prepared: Option<Prepared>,
    pub(in crate::proxy) route: Option<Routed>,
    /// Request hooks, in the order in which they were asked.
    pub(in crate::proxy) plugins: Vec<Asked>,
    /// Plugins that were not asked, since one before them has answered.
    pub(in crate::proxy) not_asked: Vec<String>,
    /// Who would see the response, in this order.
    pub(in crate::proxy) response_hooks: Vec<String>,
    pub(in crate::proxy) cache: Option<Cached>,
    pub(in crate::proxy) compression: Option<Compression>,
    pub(in crate::proxy) pick: Option<Picked>,
}

/// What it comes to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Outcome {
    pub verdict: Verdict,
    /// What the client would get, where that does not depend on an upstream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body_bytes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// What would be sent, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) enum Verdict {
    /// Nothing has decided.
    #[default]
    Undecided,
    /// The proxy refuses it.
    Refused,
    /// The proxy answers by itself.
    Answered,
    /// A plugin answers.
    Replied,
    /// The cache answers.
    FromCache,
    /// It goes to an endpoint.
    Sent,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Prepared {
    pub micros: f64,
    pub method: String,
    pub scheme: &'static str,
    pub host: String,
    /// Canonical.
    pub path: String,
    pub query: Option<String>,
    /// After `trusted-proxies`.
    pub client: String,
    pub is_https: bool,
    /// Fields that were taken away, since they end here or are not the client's to say.
    pub removed: Vec<String>,
    /// Fields that the proxy has set.
    pub set: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Routed {
    pub micros: f64,
    pub name: Option<String>,
    pub upstream: Option<String>,
    /// Others, the nearest first, and why they did not get it.
    pub near: Vec<Near>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Near {
    pub name: String,
    pub objection: String,
}

/// What one plugin made of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Asked {
    pub name: String,
    pub micros: f64,
    /// `next`, `reply`, `forward` or `failed`.
    pub verdict: &'static str,
    /// Of its reply.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Where it sends the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream: Option<String>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// It failed, and the request goes on without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub is_passed_over: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub set: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Headers that it wants on the response.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub response: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub notes: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Line>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Line {
    pub level: String,
    pub text: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Cached {
    pub micros: f64,
    pub key: String,
    /// As `X-Cache` would begin: `hit`, `stale`, `miss` or `bypass`.
    pub decision: &'static str,
    /// Why the upstream is asked, as `Cache-Status` (RFC 9211) has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub forward: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub age_seconds: Option<f64>,
    /// Of what is stored; negative if it is stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub left_seconds: Option<f64>,
    /// Why no answer would be stored, as far as the request says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_stored: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Compression {
    /// `settled`, `as-is`, `encode` or `decode` where the response is known; otherwise `possible` or `no`.
    pub decision: &'static str,
    pub encoding: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Picked {
    pub micros: f64,
    pub upstream: String,
    /// The plugins that are asked, in order.
    pub balance: Vec<String>,
    pub endpoint: Option<String>,
    /// The plugin that chose it; the proxy itself if absent.
    pub by: Option<String>,
    pub is_panicking: bool,
    /// Requests at once, where they are limited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Limited>,
    pub endpoints: Vec<Candidate>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<Line>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Limited {
    pub requests: u32,
    pub limit: u32,
    pub waiting: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(in crate::proxy) struct Candidate {
    pub address: String,
    pub state: &'static str,
    pub weight: u32,
    pub active: u32,
    pub is_usable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objection: Option<String>,
}

impl Outcome {
    pub fn answered(head: &response::Parts, reason: &str) -> Self {
        Self {
            verdict: Verdict::Answered,
            status: Some(head.status.as_u16()),
            reason: Some(reason.to_owned()),
            headers: redacted(&head.headers),
            ..Self::default()
        }
    }
}

impl Compression {
    pub fn of(wishes: &Wishes<'_>, head: &response::Parts, length: Option<u64>) -> Self {
        let (decision, encoding) = match compress::negotiate(wishes, head, length) {
            compress::Decision::Settled => ("settled", None),
            compress::Decision::AsIs => ("as-is", None),
            compress::Decision::Encode(encoding) => ("encode", Some(encoding)),
            compress::Decision::Decode(encoding) => ("decode", Some(encoding)),
        };
        Self { decision, encoding: encoding.map(Encoding::name) }
    }

    pub fn foreseen(wishes: &Wishes<'_>) -> Self {
        let best = wishes.best();
        let decision = if best.is_some() { "possible" } else { "no" };
        Self { decision, encoding: best.map(Encoding::name) }
    }
}

/// How headers differ.
pub(in crate::proxy) struct Changed {
    pub set: BTreeMap<String, String>,
    pub removed: Vec<String>,
}

impl Changed {
    pub fn between(before: &HeaderMap, after: &HeaderMap) -> Self {
        let is_new = |name: &&HeaderName| !before.get_all(*name).iter().eq(after.get_all(*name).iter());
        Self {
            set: after.keys().filter(is_new).map(|name| field(after, name)).collect(),
            removed: before
                .keys()
                .filter(|name| !after.contains_key(*name))
                .map(|name| name.as_str().to_owned())
                .collect(),
        }
    }
}

/// All fields, those that speak of a secret without their values.
pub(in crate::proxy) fn redacted(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers.keys().map(|name| field(headers, name)).collect()
}

fn field(headers: &HeaderMap, name: &HeaderName) -> (String, String) {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (name.as_str().to_owned(), hidden(name.as_str(), values.join(", ")))
}

pub(in crate::proxy) fn hidden(name: &str, value: String) -> String {
    if is_secret(name) { "[hidden]".to_owned() } else { value }
}

pub(in crate::proxy) fn lines(journal: Option<&Journal>) -> Vec<Line> {
    let lines = journal.map(Journal::take).unwrap_or_default();
    let line = |line: Logged| Line { level: line.level.as_str().to_ascii_lowercase(), text: line.text };
    lines.into_iter().map(line).collect()
}

pub(in crate::proxy) fn micros(since: Instant) -> f64 {
    (since.elapsed().as_nanos() as f64 / 100.0).round() / 10.0
}
