//! Is what came of a step what was expected?
//!
//! Values in, differences out. What an expectation does not name is not looked at, but for failures and for
//! hooks that were to run and are not there.

use std::{collections::BTreeMap, fmt};

use http::HeaderMap;
use serde_json::Value;

use super::{
    difference::{Difference, Differences, NOTHING, compare_headers, compare_text, quoted, texts},
    file::{Expect, ExpectLog, ExpectReply, ExpectResponse, Fault, Level, Step, Verdict},
    run::{StepOutcome, fault},
    values::ExpectPick,
};
use crate::plugin::{Hook, Logged};

/// How much a share of picks may be missed by, if nothing is said.
const TOLERANCE: f64 = 0.02;

/// How `outcome` differs from what `step` expects.
pub fn compare(step: &Step, outcome: &StepOutcome) -> Vec<Difference> {
    let nothing = Expect::default();
    let expect = step.expect.as_ref().unwrap_or(&nothing);
    let mut found = Differences(Vec::new());
    let failure = outcome.error.as_ref();
    let actual = failure.map(fault);
    if expect.error != actual {
        let expected = expect.error.map_or("no failure".to_owned(), |fault| fault.to_string());
        found.add(&["error"], expected, failure.map_or("no failure".to_owned(), tell_failure));
    }
    if expect.error.is_none() && failure.is_some() {
        // Whatever else is missing is missing because of that.
        return found.0;
    }
    missing_hooks(step, outcome, &mut found);
    if let Some(verdict) = expect.verdict {
        found.unless_same(&["verdict"], Some(verdict), outcome.verdict);
    }
    if let Some(upstream) = &expect.upstream {
        found.unless_same(&["upstream"], Some(upstream), outcome.upstream.as_ref());
    }
    if let Some(reply) = &expect.reply {
        compare_reply(reply, outcome, &mut found);
    }
    compare_headers(&["headers"], &expect.headers, &outcome.request.headers, &mut found);
    compare_removed(
        &["removed"],
        &expect.removed,
        &outcome.before.headers,
        &outcome.request.headers,
        &mut found,
    );
    if let Some(target) = &expect.target {
        found.unless_same(&["target"], Some(target), Some(&outcome.request.uri.to_string()));
    }
    if let Some(response) = &expect.response {
        compare_response(response, outcome, &mut found);
    }
    compare_picks(step, expect, outcome, &mut found);
    for (name, expected) in &expect.notes {
        let note = outcome.notes.iter().find(|(key, _)| key == name);
        compare_text(&["notes", name], expected, note.map(|(_, value)| value.as_str()), &mut found);
    }
    if let Some(expected) = &expect.body
        && expected.as_bytes() != outcome.body
    {
        found.add(&["body"], quoted(expected), quoted(&String::from_utf8_lossy(&outcome.body)));
    }
    compare_sent(expect, outcome, &mut found);
    for (key, expected) in &expect.store {
        let value = outcome.store.as_ref().and_then(|(store, now)| store.get(key, *now).ok().flatten());
        let value = value.map(|value| String::from_utf8_lossy(&value).into_owned());
        compare_text(&["store", key], expected, value.as_deref(), &mut found);
    }
    if let Some(logs) = &expect.logs {
        compare_logs(logs, &outcome.logs, &mut found);
    }
    for (name, expected) in &expect.metrics {
        let actual = outcome.metrics.get(name).copied();
        let same = actual.is_some_and(|actual| (actual - expected).abs() <= 1e-9 * expected.abs().max(1.0));
        if !same {
            let actual = actual.map_or_else(|| NOTHING.to_owned(), |actual| actual.to_string());
            found.add(&["metrics", name], expected.to_string(), actual);
        }
    }
    found.0
}

fn tell_failure(error: &crate::plugin::CallError) -> String {
    format!("{}: it {error}", fault(error))
}

/// What a step asks for, the plugin must be able to do.
fn missing_hooks(step: &Step, outcome: &StepOutcome, found: &mut Differences) {
    let ran = |hook| outcome.calls.iter().any(|(ran, _)| *ran == hook);
    let has_replied = outcome.reply.is_some();
    let only_request = step.pick.is_none() && step.response.is_none();
    for (asks, key, hook) in [
        (step.tick, "tick", Hook::OnTick),
        (step.request.is_some() && only_request, "request", Hook::OnRequest),
        (step.pick.as_ref().is_some_and(|pick| pick.calls > 0) && !has_replied, "pick", Hook::Pick),
        // One that has only said what it wants on the response is not called for it.
        (step.response.is_some() && outcome.response.is_none(), "response", Hook::OnResponse),
        (step.complete.is_some(), "complete", Hook::OnComplete),
    ] {
        if asks && !ran(hook) {
            found.add(&[key], format!("a plugin with {}", hook.name()), "the plugin does not export it");
        }
    }
    if step.pick.is_some() && has_replied && !ran(Hook::Pick) {
        found.add(&["pick"], "a pick", "on-request has replied, so nothing is picked");
    }
}

fn compare_reply(expect: &ExpectReply, outcome: &StepOutcome, found: &mut Differences) {
    let Some(reply) = &outcome.reply else {
        let verdict = outcome.verdict.map_or(NOTHING.to_owned(), |verdict| verdict.to_string());
        return found.add(&["reply"], "a reply", verdict);
    };
    if let Some(status) = expect.status {
        found.unless_same(&["reply", "status"], Some(status.as_u16()), Some(reply.status.as_u16()));
    }
    compare_headers(&["reply", "headers"], &expect.headers, &reply.headers, found);
    let body = String::from_utf8_lossy(&reply.body);
    if let Some(expected) = &expect.body
        && expected.as_bytes() != reply.body
    {
        found.add(&["reply", "body"], quoted(expected), quoted(&body));
    }
    if let Some(part) = &expect.body_contains
        && !body.contains(part.as_str())
    {
        found.add(&["reply", "body-contains"], quoted(part), quoted(&body));
    }
    if let Some(expected) = &expect.json {
        match serde_json::from_slice::<Value>(&reply.body) {
            Ok(actual) => compare_json(vec!["reply".into(), "json".into()], expected, &actual, found),
            Err(_) => found.add(&["reply", "json"], expected.to_string(), quoted(&body)),
        }
    }
}

/// Objects may have more members than are expected; everything else is the same or different.
fn compare_json(at: Vec<String>, expected: &toml::Value, actual: &Value, found: &mut Differences) {
    match (expected, actual) {
        (toml::Value::Table(expected), Value::Object(actual)) => {
            for (key, expected) in expected {
                let mut at = at.clone();
                at.push(key.clone());
                match actual.get(key) {
                    Some(actual) => compare_json(at, expected, actual, found),
                    None => found.0.push(Difference {
                        at,
                        expected: expected.to_string(),
                        actual: NOTHING.to_owned(),
                    }),
                }
            }
        }
        (toml::Value::Array(expected), Value::Array(actual)) if expected.len() == actual.len() => {
            for (place, (expected, actual)) in expected.iter().zip(actual).enumerate() {
                let mut at = at.clone();
                at.push(place.to_string());
                compare_json(at, expected, actual, found);
            }
        }
        _ => {
            let same = match (expected, actual) {
                (toml::Value::String(expected), Value::String(actual)) => {
                    expected == actual || expected == "*"
                }
                (toml::Value::String(expected), _) => expected == "*",
                (toml::Value::Integer(expected), Value::Number(actual)) => {
                    actual.as_f64() == Some(*expected as f64)
                }
                (toml::Value::Float(expected), Value::Number(actual)) => actual.as_f64() == Some(*expected),
                (toml::Value::Boolean(expected), Value::Bool(actual)) => expected == actual,
                _ => false,
            };
            if !same {
                found.0.push(Difference { at, expected: expected.to_string(), actual: actual.to_string() });
            }
        }
    }
}

fn compare_response(expect: &ExpectResponse, outcome: &StepOutcome, found: &mut Differences) {
    let Some(response) = &outcome.response else {
        return found.add(&["response"], "a response", "on-response has not run");
    };
    if let Some(status) = expect.status {
        found.unless_same(&["response", "status"], Some(status.as_u16()), Some(response.status.as_u16()));
    }
    compare_headers(&["response", "headers"], &expect.headers, &response.headers, found);
    if let Some(expected) = &expect.body
        && expected.as_bytes() != outcome.response_body
    {
        let actual = String::from_utf8_lossy(&outcome.response_body);
        found.add(&["response", "body"], quoted(expected), quoted(&actual));
    }
    compare_removed(
        &["response", "removed"],
        &expect.removed,
        &outcome.response_before,
        &response.headers,
        found,
    );
}

/// A request that no answer was written to is a fault, whatever is expected.
fn compare_sent(expect: &Expect, outcome: &StepOutcome, found: &mut Differences) {
    for request in &outcome.unanswered {
        found.add(&["http"], "an answer to every request", format!("none to {request}"));
    }
    if let Some(expected) = &expect.sent
        && *expected != outcome.sent
    {
        found.add(&["sent"], format!("{expected:?}"), format!("{:?}", outcome.sent));
    }
}

fn compare_removed(
    at: &[&str],
    names: &[String],
    before: &HeaderMap,
    after: &HeaderMap,
    found: &mut Differences,
) {
    for name in names {
        if texts(before, name).is_empty() {
            found.add(at, format!("{name} is taken away"), format!("{name} was not there to begin with"));
        } else if !texts(after, name).is_empty() {
            found.add(at, format!("{name} is taken away"), format!("{name} is still there"));
        }
    }
}

fn compare_picks(step: &Step, expect: &Expect, outcome: &StepOutcome, found: &mut Differences) {
    if let Some(expected) = &expect.picks {
        let tried = step.pick.as_ref().map(|picks| picks.tried.as_slice()).unwrap_or_default();
        let mut both = expected.iter().zip(&outcome.picks);
        let is_it = expected.len() == outcome.picks.len()
            && both.all(|(expected, picked)| expected.allows(*picked, tried));
        if !is_it {
            let place = |pick: &Option<usize>| {
                pick.map_or(ExpectPick::Nothing, |place| ExpectPick::Place(place as u32))
            };
            let actual: Vec<ExpectPick> = outcome.picks.iter().map(place).collect();
            found.add(&["picks"], tell_picks(expected), tell_picks(&actual));
        }
    }
    let tolerance = expect.tolerance.unwrap_or(TOLERANCE);
    let shares = shares(outcome);
    for (address, expected) in &expect.share {
        let actual = shares.get(address.as_str()).copied();
        let at = ["share", address.as_str()];
        match actual {
            None => found.add(&at, format!("{expected}"), "there is no endpoint of this address"),
            Some(actual) if (actual - expected).abs() > tolerance => {
                found.add(&at, format!("{expected}, give or take {tolerance}"), format!("{actual:.4}"));
            }
            Some(_) => {}
        }
    }
}

/// The part of the picks that falls on each address.
pub fn shares(outcome: &StepOutcome) -> BTreeMap<&str, f64> {
    let mut shares: BTreeMap<&str, f64> =
        outcome.endpoints.iter().map(|address| (address.as_str(), 0.0)).collect();
    let one = 1.0 / outcome.picks.len().max(1) as f64;
    for place in outcome.picks.iter().flatten() {
        if let Some(share) =
            outcome.endpoints.get(*place).and_then(|address| shares.get_mut(address.as_str()))
        {
            *share += one;
        }
    }
    shares
}

fn tell_picks(picks: &[ExpectPick]) -> String {
    let tell = |pick: &ExpectPick| match pick {
        ExpectPick::Nothing => "false".to_owned(),
        ExpectPick::Place(place) => place.to_string(),
        ExpectPick::Untried => "\"*\"".to_owned(),
    };
    let picks: Vec<String> = picks.iter().map(tell).collect();
    format!("[{}]", picks.join(", "))
}

fn compare_logs(expect: &[ExpectLog], logs: &[Logged], found: &mut Differences) {
    if expect.is_empty() && !logs.is_empty() {
        return found.add(&["logs"], "no line", tell_logs(logs));
    }
    let mut rest = logs;
    for (place, line) in expect.iter().enumerate() {
        let is_it = |logged: &Logged| {
            logged.text.contains(&line.contains)
                && line.level.is_none_or(|level| level == Level::from(logged.level))
        };
        match rest.iter().position(is_it) {
            Some(place) => rest = &rest[place + 1..],
            None => {
                let level = line.level.map(|level| format!("{level} ")).unwrap_or_default();
                let expected = format!("{level}... {} ...", line.contains);
                return found.add(&["logs", &place.to_string()], expected, tell_logs(logs));
            }
        }
    }
}

fn tell_logs(logs: &[Logged]) -> String {
    if logs.is_empty() {
        return "no line".to_owned();
    }
    let tell = |logged: &Logged| format!("{} {}", Level::from(logged.level), logged.text);
    logs.iter().map(tell).collect::<Vec<_>>().join("\n")
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Next => "next",
            Self::Reply => "reply",
            Self::Forward => "forward",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Deadline => "deadline",
            Self::Memory => "memory",
            Self::Trap => "trap",
            Self::InvalidReply => "invalid-reply",
            Self::Start => "start",
        })
    }
}

impl fmt::Display for Level {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Trace => "trace",
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        })
    }
}

impl From<tracing::Level> for Level {
    fn from(level: tracing::Level) -> Self {
        match level {
            tracing::Level::TRACE => Self::Trace,
            tracing::Level::DEBUG => Self::Debug,
            tracing::Level::INFO => Self::Info,
            tracing::Level::WARN => Self::Warn,
            tracing::Level::ERROR => Self::Error,
        }
    }
}
