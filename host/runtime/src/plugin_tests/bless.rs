//! How does what has happened become what is expected?
//!
//! The text of a test file is changed where a case differs and nowhere else, so that comments and order stay.
//! Failures are not blessed: that a plugin traps is never what its author wants written down without a thought.

use std::collections::BTreeSet;

use serde_json::Value as Json;
use toml_edit::{Array, DocumentMut, InlineTable, Item, TableLike, Value};

use super::{
    CaseReport, Report, StepReport,
    difference::{Difference, texts},
    expect::shares,
    file::{Level, Step, TestFile, Verdict},
    run::StepOutcome,
};
use crate::plugin::Logged;

/// The text with the expectations of what has happened, how many were changed, and the names of the cases that were
/// left as they are since the plugin has failed in them.
#[derive(Debug)]
pub struct Blessed {
    pub text: String,
    pub changed: usize,
    pub left: Vec<String>,
}

/// `text` is that which `file` was read from, and `report` what came of it.
pub fn bless(text: &str, file: &TestFile, report: &Report) -> Option<Blessed> {
    let mut document: DocumentMut = text.parse().ok()?;
    let mut blessed = Blessed { text: String::new(), changed: 0, left: Vec::new() };
    for (number, (case, report)) in file.cases.iter().zip(&report.cases).enumerate() {
        if report.has_passed() {
            continue;
        }
        let Some(table) = element(document.as_table_mut(), "case", number) else { continue };
        let before = blessed.changed;
        let steps = case.get_ref().steps();
        if case.get_ref().has_steps() {
            for (number, (step, report)) in steps.iter().zip(&report.steps).enumerate() {
                if let Some(table) = element(table, "step", number) {
                    blessed.changed += usize::from(bless_step(table, step, report));
                }
            }
        } else if let (Some(step), Some(report)) = (steps.first(), report.steps.first()) {
            blessed.changed += usize::from(bless_step(table, step, report));
        }
        if before == blessed.changed || has_failed(report) {
            blessed.left.push(report.name.clone());
        }
    }
    blessed.text = document.to_string();
    Some(blessed)
}

fn has_failed(report: &CaseReport) -> bool {
    report.steps.iter().any(|step| match &step.outcome {
        Some(outcome) => outcome.error.is_some() && !step.differences.is_empty(),
        None => step.refusal.is_none(),
    })
}

/// An element of an array of tables, written either way.
fn element<'a>(table: &'a mut dyn TableLike, key: &str, number: usize) -> Option<&'a mut dyn TableLike> {
    match table.get_mut(key)? {
        Item::ArrayOfTables(tables) => tables.get_mut(number).map(|table| table as &mut dyn TableLike),
        Item::Value(Value::Array(values)) => {
            values.get_mut(number)?.as_inline_table_mut().map(|table| table as &mut dyn TableLike)
        }
        _ => None,
    }
}

/// Whether something has been changed.
fn bless_step(table: &mut dyn TableLike, step: &Step, report: &StepReport) -> bool {
    if report.differences.is_empty() {
        return false;
    }
    let Some(outcome) = &report.outcome else {
        let Some(message) = &report.refusal else { return false };
        // A refusal that nobody expects is a failure; one in other words is not.
        if step.expect.as_ref().is_none_or(|expect| expect.refused.is_none()) {
            return false;
        }
        set(table, &["expect", "refused"], Some(message.as_str().into()));
        return true;
    };
    if outcome.error.is_some() {
        return false;
    }
    let mut changed = false;
    for difference in &report.differences {
        changed |= match difference.at.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["expect"] => {
                table.insert("expect", Item::Value(Value::InlineTable(whole(step, outcome))));
                true
            }
            _ => bless_difference(table, step, difference, outcome),
        };
    }
    changed
}

/// Whether there was something to write down.
fn bless_difference(
    table: &mut dyn TableLike,
    step: &Step,
    difference: &Difference,
    outcome: &StepOutcome,
) -> bool {
    let at: Vec<&str> = difference.at.iter().map(String::as_str).collect();
    let path: Vec<&str> = [&["expect"], &at[..]].concat();
    let headers = |headers: &http::HeaderMap, name: &str| Some(header(&texts(headers, name)));
    let expect = step.expect.as_ref();
    let still_removed = |names: &[String], before: &http::HeaderMap, after: &http::HeaderMap| {
        let is_gone = |name: &&String| !texts(before, name).is_empty() && texts(after, name).is_empty();
        names.iter().filter(is_gone).map(|name| Value::from(name.as_str())).collect::<Array>()
    };
    let value: Option<Value> = match at[..] {
        ["verdict"] => outcome.verdict.map(|verdict| verdict.to_string().into()),
        ["upstream"] => outcome.upstream.as_deref().map(Value::from),
        ["error" | "refused" | "reply"] => None,
        ["target"] => Some(outcome.request.uri.to_string().into()),
        ["headers", name] => headers(&outcome.request.headers, name),
        ["removed"] => expect.map(|expect| {
            Value::Array(still_removed(&expect.removed, &outcome.before.headers, &outcome.request.headers))
        }),
        ["reply", ..] => {
            let Some(reply) = &outcome.reply else { return false };
            match at[1..] {
                ["status"] => Some(i64::from(reply.status.as_u16()).into()),
                ["headers", name] => headers(&reply.headers, name),
                ["body" | "body-contains"] => match std::str::from_utf8(&reply.body) {
                    Ok(body) => Some(body.into()),
                    // What is no text cannot be expected as text.
                    Err(_) => return false,
                },
                ["json", ref inner @ ..] => {
                    let Ok(actual) = serde_json::from_slice::<Json>(&reply.body) else {
                        set(table, &["expect", "reply", "json"], None);
                        let body = String::from_utf8_lossy(&reply.body);
                        set(table, &["expect", "reply", "body"], Some(body.as_ref().into()));
                        return true;
                    };
                    inner
                        .iter()
                        .try_fold(&actual, |value, key| match value {
                            Json::Array(items) => items.get(key.parse::<usize>().ok()?),
                            value => value.get(key),
                        })
                        .and_then(toml_of)
                }
                _ => return false,
            }
        }
        ["response", ..] => {
            let Some(response) = &outcome.response else { return false };
            match at[1..] {
                ["status"] => Some(i64::from(response.status.as_u16()).into()),
                ["headers", name] => headers(&response.headers, name),
                ["removed"] => expect.and_then(|expect| expect.response.as_ref()).map(|expect| {
                    Value::Array(still_removed(&expect.removed, &outcome.response_before, &response.headers))
                }),
                ["body"] => match std::str::from_utf8(&outcome.response_body) {
                    Ok(body) => Some(body.into()),
                    Err(_) => return false,
                },
                _ => return false,
            }
        }
        ["body"] => match std::str::from_utf8(&outcome.body) {
            Ok(body) => Some(body.into()),
            Err(_) => return false,
        },
        ["sent"] => Some(Value::Array(outcome.sent.iter().map(String::as_str).collect())),
        ["store", key] => match stored(outcome, key) {
            None => Some(false.into()),
            Some(value) => match std::str::from_utf8(&value) {
                Ok(value) => Some(literal(value)),
                Err(_) => return false,
            },
        },
        ["picks"] => Some(picks(outcome)),
        ["share", address] => {
            shares(outcome).get(address).map(|share| Value::from((share * 1e4).round() / 1e4))
        }
        ["notes", name] => {
            let note = outcome.notes.iter().find(|(key, _)| key == name);
            Some(note.map_or(Value::from(false), |(_, value)| literal(value)))
        }
        ["metrics", name] => outcome.metrics.get(name).map(|value| number(*value)),
        ["logs", ..] => {
            set(table, &["expect", "logs"], Some(logs(&outcome.logs)));
            return true;
        }
        _ => return false,
    };
    if at == ["reply"] {
        set(table, &["expect", "verdict"], outcome.verdict.map(|verdict| verdict.to_string().into()));
    }
    set(table, &path, value);
    true
}

/// What is kept under a key afterwards.
fn stored(outcome: &StepOutcome, key: &str) -> Option<Vec<u8>> {
    outcome.store.as_ref().and_then(|(store, now)| store.get(key, *now).ok().flatten())
}

/// A body that is another than before, if it is text.
fn changed_body<'a>(before: Option<&String>, after: &'a [u8]) -> Option<&'a str> {
    let before = before.map(String::as_bytes).unwrap_or_default();
    std::str::from_utf8(after).ok().filter(|after| after.as_bytes() != before)
}

/// Everything that may be expected of what has happened.
fn whole(step: &Step, outcome: &StepOutcome) -> InlineTable {
    let mut expect = InlineTable::new();
    if let Some(verdict) = outcome.verdict {
        expect.insert("verdict", verdict.to_string().into());
    }
    if let Some(upstream) = &outcome.upstream {
        expect.insert("upstream", upstream.as_str().into());
    }
    if let (Some(Verdict::Reply), Some(reply)) = (outcome.verdict, &outcome.reply) {
        let mut table = InlineTable::new();
        table.insert("status", i64::from(reply.status.as_u16()).into());
        if !reply.headers.is_empty() {
            table.insert("headers", Value::InlineTable(changed(&http::HeaderMap::new(), &reply.headers)));
        }
        if let Ok(body) = std::str::from_utf8(&reply.body) {
            table.insert("body", body.into());
        }
        expect.insert("reply", Value::InlineTable(table));
    }
    let headers = changed(&outcome.before.headers, &outcome.request.headers);
    if !headers.is_empty() {
        expect.insert("headers", Value::InlineTable(headers));
    }
    if outcome.before.uri != outcome.request.uri {
        expect.insert("target", outcome.request.uri.to_string().into());
    }
    if let Some(response) = &outcome.response {
        let mut table = InlineTable::new();
        table.insert("status", i64::from(response.status.as_u16()).into());
        let headers = changed(&outcome.response_before, &response.headers);
        if !headers.is_empty() {
            table.insert("headers", Value::InlineTable(headers));
        }
        // That of a reply of its own is expected there.
        let before = step.response.as_ref().map(|response| &response.body);
        if outcome.reply.is_none()
            && let Some(body) = changed_body(before, &outcome.response_body)
        {
            table.insert("body", body.into());
        }
        expect.insert("response", Value::InlineTable(table));
    }
    if let Some(body) = changed_body(step.request.as_ref().map(|request| &request.body), &outcome.body) {
        expect.insert("body", body.into());
    }
    if !outcome.sent.is_empty() {
        expect.insert("sent", Value::Array(outcome.sent.iter().map(String::as_str).collect()));
    }
    if !outcome.picks.is_empty() {
        expect.insert("picks", picks(outcome));
    }
    if !outcome.notes.is_empty() {
        let notes = outcome.notes.iter().map(|(name, value)| (name.as_str(), literal(value)));
        expect.insert("notes", Value::InlineTable(notes.collect()));
    }
    if !outcome.logs.is_empty() {
        expect.insert("logs", logs(&outcome.logs));
    }
    if !outcome.metrics.is_empty() {
        let metrics = outcome.metrics.iter().map(|(name, value)| (name.as_str(), number(*value)));
        expect.insert("metrics", Value::InlineTable(metrics.collect()));
    }
    expect
}

/// The headers that are others than before, as they are now.
fn changed(before: &http::HeaderMap, after: &http::HeaderMap) -> InlineTable {
    let names: BTreeSet<&str> = before.keys().chain(after.keys()).map(http::HeaderName::as_str).collect();
    let is_changed = |name: &&str| texts(before, name) != texts(after, name);
    names.into_iter().filter(is_changed).map(|name| (name, header(&texts(after, name)))).collect()
}

fn header(values: &[String]) -> Value {
    match values {
        [] => false.into(),
        [one] => literal(one),
        several => Value::Array(several.iter().map(String::as_str).collect()),
    }
}

/// Text that stands for itself and nothing else.
fn literal(text: &str) -> Value {
    if text == "*" { Value::Array([text].into_iter().collect()) } else { text.into() }
}

fn picks(outcome: &StepOutcome) -> Value {
    let pick = |pick: &Option<usize>| pick.map_or(Value::from(false), |place| Value::from(place as i64));
    Value::Array(outcome.picks.iter().map(pick).collect())
}

fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { Value::from(value as i64) } else { value.into() }
}

fn logs(logs: &[Logged]) -> Value {
    let line = |logged: &Logged| {
        let level = Level::from(logged.level).to_string();
        InlineTable::from_iter([("level", Value::from(level)), ("contains", logged.text.as_str().into())])
    };
    Value::Array(logs.iter().map(line).map(Value::InlineTable).collect())
}

/// None for what TOML has no word for.
fn toml_of(json: &Json) -> Option<Value> {
    Some(match json {
        Json::Null => return None,
        Json::Bool(truth) => (*truth).into(),
        Json::Number(number) => match number.as_i64() {
            Some(number) => number.into(),
            None => number.as_f64()?.into(),
        },
        Json::String(text) => text.as_str().into(),
        Json::Array(items) => Value::Array(items.iter().map(toml_of).collect::<Option<_>>()?),
        Json::Object(members) => {
            let members = members.iter().filter_map(|(key, value)| Some((key.as_str(), toml_of(value)?)));
            Value::InlineTable(members.collect())
        }
    })
}

/// Sets or removes what is at the end of the way. Tables that are missing on it are made.
fn set(table: &mut dyn TableLike, path: &[&str], value: Option<Value>) {
    match path {
        [] => {}
        [key] => {
            let existing =
                table.iter().map(|(key, _)| key.to_owned()).find(|known| known.eq_ignore_ascii_case(key));
            let key = existing.as_deref().unwrap_or(key);
            match value {
                None => drop(table.remove(key)),
                Some(mut value) => {
                    if let Some(Item::Value(old)) = table.get(key) {
                        *value.decor_mut() = old.decor().clone();
                    }
                    table.insert(key, Item::Value(value));
                }
            }
        }
        [key, rest @ ..] => {
            let inner = table.entry(key).or_insert(Item::Value(Value::InlineTable(InlineTable::new())));
            if let Some(inner) = inner.as_table_like_mut() {
                set(inner, rest, value);
            } else if let ([number, rest @ ..], Some(items)) = (rest, inner.as_array_mut())
                && let Some(item) = number.parse().ok().and_then(|number: usize| items.get_mut(number))
            {
                match (rest, value) {
                    ([], Some(value)) => *item = value,
                    (rest, value) => {
                        if let Some(inner) = item.as_inline_table_mut() {
                            set(inner, rest, value);
                        }
                    }
                }
            }
        }
    }
}
