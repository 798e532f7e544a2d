//! What is told of a request that has not come?

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, Uri, response};
use serde::Serialize;

use crate::{
    cache::{Served, policy::Time},
    compress::{self, Wishes},
    config::{Encoding, is_secret},
    plugin::{Exchange, InHand, Journal, Logged},
    proxy::cached,
};

/// What was decided, stage by stage, as far as it came. Times are in microseconds.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Explanation {
    pub(super) generation: u64,
    pub(super) worker: usize,
    pub(super) listener: String,
    pub(super) micros: f64,
    pub(super) outcome: Outcome,
    pub(super) prepared: Option<Prepared>,
    pub(super) route: Option<Routed>,
    /// Request hooks, in the order in which they were asked.
    pub(super) plugins: Vec<Asked>,
    /// Plugins that were not asked, since one before them has answered.
    pub(super) not_asked: Vec<String>,
    /// Who would see the response, in this order.
    pub(super) response_hooks: Vec<String>,
    pub(super) cache: Option<Cached>,
    pub(super) compression: Option<Compression>,
    pub(super) pick: Option<Picked>,
}

/// What it comes to.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Outcome {
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
pub(super) enum Verdict {
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
pub(super) struct Prepared {
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
pub(super) struct Routed {
    pub micros: f64,
    pub name: Option<String>,
    pub upstream: Option<String>,
    /// Others, the nearest first, and why they did not get it.
    pub near: Vec<Near>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Near {
    pub name: String,
    pub objection: String,
}

/// What one plugin made of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Asked {
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
pub(super) struct Line {
    pub level: String,
    pub text: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Cached {
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
pub(super) struct Compression {
    /// `settled`, `as-is`, `encode` or `decode` where the response is known; otherwise `possible` or `no`.
    pub decision: &'static str,
    pub encoding: Option<&'static str>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Picked {
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
pub(super) struct Limited {
    pub requests: u32,
    pub limit: u32,
    pub waiting: u32,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Candidate {
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
            headers: shown(&head.headers),
            ..Self::default()
        }
    }
}

impl Cached {
    pub fn of(foreseen: &cached::Foreseen, micros: f64) -> Self {
        let seconds = |milliseconds: u64| milliseconds as f64 / 1e3;
        let stored = foreseen.stored.as_ref().map(|(stored, now): &(_, Time)| (&stored.freshness, *now));
        Self {
            micros,
            key: foreseen.key.as_str().to_owned(),
            decision: foreseen.what.as_ref().map_or("refused", |what| what.name()),
            forward: match &foreseen.what {
                Ok(Served::Forwarded(forward)) => Some(forward.name()),
                Ok(_) | Err(_) => None,
            },
            age_seconds: stored.map(|(freshness, now)| seconds(freshness.age(now))),
            left_seconds: stored
                .map(|(freshness, now)| freshness.lifetime as f64 - seconds(freshness.age(now))),
            not_stored: foreseen.obstacle,
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

/// A request before a plugin was asked.
pub(super) struct Before {
    pub headers: HeaderMap,
    pub target: Uri,
    pub promised: HeaderMap,
    pub notes: Vec<(String, String)>,
}

impl Before {
    pub fn of(exchange: &Exchange) -> Self {
        Self {
            headers: exchange.request.headers.clone(),
            target: exchange.request.uri.clone(),
            promised: exchange.promised().iter().cloned().collect(),
            notes: exchange.notes().to_vec(),
        }
    }

    /// What has changed since.
    pub fn asked(self, plugin: &str, exchange: &InHand, micros: f64) -> Asked {
        let name = plugin.to_owned();
        // It is not there where a call was given up.
        let Some(exchange) = exchange.there() else {
            return Asked { name, micros, verdict: "failed", ..Asked::default() };
        };
        let Changed { set, removed } = Changed::between(&self.headers, &exchange.request.headers);
        let promised = exchange.promised().iter().cloned().collect();
        let uri = &exchange.request.uri;
        let is_new = |note: &&(String, String)| !self.notes.contains(note);
        Asked {
            name,
            micros,
            verdict: "next",
            set,
            removed,
            response: Changed::between(&self.promised, &promised).set,
            target: (*uri != self.target).then(|| uri.to_string()),
            notes: exchange
                .notes()
                .iter()
                .filter(is_new)
                .map(|(name, value)| (name.clone(), hidden(name, value.clone())))
                .collect(),
            logs: lines(exchange.journal.as_deref()),
            ..Asked::default()
        }
    }
}

/// How headers differ.
pub(super) struct Changed {
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
pub(super) fn shown(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers.keys().map(|name| field(headers, name)).collect()
}

fn field(headers: &HeaderMap, name: &HeaderName) -> (String, String) {
    let values: Vec<_> =
        headers.get_all(name).iter().map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    (name.as_str().to_owned(), hidden(name.as_str(), values.join(", ")))
}

fn hidden(name: &str, value: String) -> String {
    if is_secret(name) { "[hidden]".to_owned() } else { value }
}

pub(super) fn lines(journal: Option<&Journal>) -> Vec<Line> {
    let lines = journal.map(Journal::take).unwrap_or_default();
    let line = |line: Logged| Line { level: line.level.as_str().to_ascii_lowercase(), text: line.text };
    lines.into_iter().map(line).collect()
}
