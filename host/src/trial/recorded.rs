//! How do calls of a plugin that serves become cases of its tests, without what is nobody's business?
//!
//! The values of headers are kept that stand in a list; all others, those of cookies and queries, and what looks like
//! a token in a path, are replaced. The same value by the same placeholder, and by one of its kind, so that what a
//! plugin copies, compares or counts comes out the same. What a plugin has made of its own is expected to be there,
//! and no more is said of it. What was written is tried on the plugin, so that no case fails on what it was recorded
//! from.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use toml_edit::{Array, InlineTable, Value};

use super::{TestFile, Trial, stage::REQUEST_ID};
use crate::{
    address::Caller,
    plugin::{
        Call, Choice, Condition, Decided, Errand, Plugin, Secrets, SeenExchange, SeenPick, SendError, Sides,
    },
};

/// Headers of requests and responses whose values are kept: what messages are about, and not whose they are.
pub const KEPT: [&str; 44] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "accept-ranges",
    "access-control-allow-credentials",
    "access-control-allow-headers",
    "access-control-allow-methods",
    "access-control-allow-origin",
    "access-control-expose-headers",
    "access-control-max-age",
    "access-control-request-headers",
    "access-control-request-method",
    "age",
    "allow",
    "cache-control",
    "connection",
    "content-encoding",
    "content-language",
    "content-length",
    "content-type",
    "date",
    "expect",
    "host",
    "origin",
    "permissions-policy",
    "range",
    "referrer-policy",
    "retry-after",
    "sec-fetch-dest",
    "sec-fetch-mode",
    "sec-fetch-site",
    "server",
    "strict-transport-security",
    "te",
    "transfer-encoding",
    "upgrade",
    "vary",
    "via",
    "x-content-type-options",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-frame-options",
];

/// What was written of calls.
#[derive(Debug)]
pub struct Written {
    /// In the form of `<name>.test.toml`.
    pub text: String,
    /// Cases that pass.
    pub cases: usize,
    /// Cases that stand there as comments, since they do not.
    pub left: usize,
}

/// Writes calls of a plugin down as cases. Headers, cookies, parameters of queries and notes that are `wanted` by name
/// keep their values, unless one is among the plugin's secrets.
///
/// Each case is tried on the plugin. What does not pass becomes a comment: what it has decided by was replaced, or is
/// nothing that a case holds.
pub fn cases(calls: &[Call], wanted: &BTreeSet<String>, plugin: &Plugin) -> Written {
    let rehearsal = Rehearsal::of(plugin);
    let mut written = Written { text: String::new(), cases: 0, left: 0 };
    for (number, call) in calls.iter().enumerate() {
        let secrets = &plugin.capabilities().secrets;
        // Anew for each: who compares cases learns nothing of whose they are.
        let case = || Redaction { wanted, secrets, placeholders: HashMap::new() }.case(number + 1, call);
        match rehearsal.proven(call, case) {
            Ok(text) => {
                written.cases += 1;
                written.text.push_str(&text);
            }
            Err((text, reason)) => {
                written.left += 1;
                written.text.push_str(&format!("# Not a test as it stands: {reason}.\n"));
                for line in text.lines() {
                    written.text.push_str(&format!("# {line}\n"));
                }
            }
        }
        written.text.push('\n');
    }
    written
}

/// A plugin that goes through its cases once more.
struct Rehearsal {
    trial: Trial,
    config: toml::Table,
    /// No case is tried after this.
    until: Instant,
}

impl Rehearsal {
    /// For all cases together.
    const TIME: Duration = Duration::from_secs(20);

    fn of(plugin: &Plugin) -> Self {
        let trial = Trial { name: plugin.name.to_string(), code: plugin.code.clone() };
        // What was made of a table becomes one again.
        let config = serde_json::from_str(&plugin.config).unwrap_or_default();
        Self { trial, config, until: Instant::now() + Self::TIME }
    }

    /// The strictest form of a case that passes, whatever chance has in store; or why there is none.
    fn proven(&self, call: &Call, case: impl Fn() -> CaseText) -> Result<String, (String, String)> {
        let mut case = case();
        let exact = case.text();
        let Err(reason) = self.passes(&exact, call) else { return Ok(exact) };
        if case.loosen(call) {
            let loose = case.text();
            if self.passes(&loose, call).is_ok() {
                return Ok(loose);
            }
        }
        Err((exact, reason))
    }

    fn passes(&self, text: &str, call: &Call) -> Result<(), String> {
        let seeds = 0..if call.pick.is_some() { 8 } else { 2 };
        let cannot = |_| "it cannot be written down".to_owned();
        let (mut file, _) =
            TestFile::read_text(Path::new("recorded.test.toml"), text.to_owned()).map_err(cannot)?;
        file.config.clone_from(&self.config);
        for seed in seeds {
            if Instant::now() > self.until {
                return Err("there was no time to try it".to_owned());
            }
            let report = self.trial.run_by_chance(&file, seed);
            let steps = report.cases.iter().flat_map(|case| &case.steps);
            // What comes out may be anybody's secret: only the place is told.
            if let Some(difference) = steps.flat_map(|step| &step.differences).next() {
                return Err(format!("`{}` comes out otherwise when it is replayed", difference.place()));
            }
        }
        Ok(())
    }
}

/// A case, as it is to be written.
struct CaseText {
    lines: Vec<String>,
    /// What others answer; none if the plugin asks nobody.
    http: Option<Vec<InlineTable>>,
    expect: InlineTable,
}

impl CaseText {
    fn text(&self) -> String {
        let mut text = format!("{}\n", self.lines.join("\n"));
        match self.http.as_deref() {
            None => {}
            Some([]) => text.push_str("http = []\n"),
            Some(answers) => {
                let lines: String = answers.iter().map(|answer| format!("    {answer},\n")).collect();
                text.push_str(&format!("http = [\n{lines}]\n"));
            }
        }
        format!("{text}expect = {}\n", self.expect)
    }

    /// Asks for less: for any untried endpoint where one was picked, and for nothing of the bodies that were sent. Whether
    /// that is less than before.
    fn loosen(&mut self, call: &Call) -> bool {
        let has_picked = call.pick.as_ref().is_some_and(|pick| pick.picked.is_some());
        if has_picked {
            self.expect.insert("picks", Value::Array(["*"].into_iter().collect()));
        }
        let asked = self.http.iter_mut().flatten();
        let asked = asked.filter_map(|answer| answer.get_mut("asked")?.as_inline_table_mut());
        let bodies = asked.filter_map(|asked| asked.remove("body")).count();
        has_picked || bodies > 0
    }
}

/// What stands for what in one case.
struct Redaction<'a> {
    wanted: &'a BTreeSet<String>,
    secrets: &'a Secrets,
    placeholders: HashMap<String, String>,
}

impl Redaction<'_> {
    fn case(mut self, number: usize, call: &Call) -> CaseText {
        let mut lines = vec!["[[case]]".to_owned()];
        let first = call.request.as_ref().map(|sides| &sides.before);
        let first = first.or(call.pick.as_ref().map(|pick| &pick.before));
        let first = first.or(call.response.as_ref().map(|sides| &sides.before));
        let Some(first) = first else { return CaseText { lines, http: None, expect: InlineTable::new() } };
        let target = self.target(&first.target.to_string());
        let decided = [
            call.request.as_ref().map(|sides| sides.decided.in_words()),
            call.pick.as_ref().map(SeenPick::in_words),
            call.response.as_ref().map(|sides| sides.decided.in_words()),
        ];
        let decided: Vec<String> = decided.into_iter().flatten().collect();
        let name = format!("recorded {number}: {} {target}: {}", first.method, decided.join(", "));
        lines.push(format!("name = {}", Value::from(name)));
        lines.push(format!("time = {}", Value::from(timestamp(call.at))));
        if !call.sequences.is_empty() {
            let sequences = call.sequences.iter();
            let sequences = sequences.map(|(name, next)| (name.as_str(), Value::from(i64::from(*next))));
            lines.push(format!("sequences = {}", sequences.collect::<InlineTable>()));
        }
        let mut request = self.request(first, target);
        if let (None, Some(pick)) = (&call.request, &call.pick) {
            request.insert("upstream", pick.choice.members.upstream().into());
        }
        lines.push(format!("request = {request}"));
        if let Some(pick) = &call.pick {
            lines.push(format!("endpoints = [\n{}]", self.endpoints(&pick.choice)));
            let mut table = InlineTable::new();
            if !pick.choice.tried.is_empty() {
                let tried: Array = pick.choice.tried.iter().map(|place| i64::from(*place)).collect();
                table.insert("tried", tried.into());
            }
            lines.push(format!("pick = {table}"));
        }
        if let Some(response) = self.response(call, first) {
            lines.push(format!("response = {response}"));
        }
        let http =
            call.errands.as_ref().map(|errands| errands.iter().map(|errand| self.answer(errand)).collect());
        CaseText { lines, http, expect: self.expect(call) }
    }

    /// What somebody has answered to the plugin.
    fn answer(&mut self, errand: &Errand) -> InlineTable {
        let Errand { request, answer, has_bodies } = errand;
        let mut table = InlineTable::new();
        table.insert("url", self.url(errand).into());
        table.insert("method", request.method.as_str().into());
        let mut asked = InlineTable::new();
        let headers = self.expected(&HeaderMap::new(), &request.headers);
        if !headers.is_empty() {
            asked.insert("headers", headers.into());
        }
        if let Some(body) = self.body(&request.body).filter(|_| *has_bodies) {
            asked.insert("body", body.into());
        }
        if !asked.is_empty() {
            table.insert("asked", asked.into());
        }
        match answer {
            Ok(received) => {
                table.insert("status", i64::from(received.status).into());
                let headers = self.headers(&received.headers, |_, _| false);
                if !headers.is_empty() {
                    table.insert("headers", headers.into());
                }
                if let Some(body) = self.body(&received.body).filter(|body| !body.is_empty()) {
                    table.insert("body", body.into());
                }
            }
            Err(error) => {
                let word = match error {
                    SendError::Denied | SendError::InvalidUrl | SendError::InvalidRequest => "denied",
                    SendError::Unreachable => "unreachable",
                    SendError::TimedOut => "timed-out",
                    SendError::TooLarge => "too-large",
                };
                table.insert("error", word.into());
            }
        }
        table
    }

    /// Where a request of the plugin's own went, as it may be written down.
    fn url(&mut self, Errand { request, .. }: &Errand) -> String {
        let path = self.target(request.path.as_str());
        format!("{}{path}", request.target)
    }

    /// A body, if it is text. What has been replaced elsewhere is replaced in it, too.
    fn body(&self, body: &[u8]) -> Option<String> {
        let mut text = std::str::from_utf8(body).ok()?.to_owned();
        let mut known: Vec<(&String, &String)> =
            self.placeholders.iter().filter(|(value, _)| value.len() >= Self::FOUND).collect();
        // What is part of another comes after it.
        known.sort_by_key(|(value, _)| (std::cmp::Reverse(value.len()), *value));
        for (value, placeholder) in known {
            text = text.replace(value.as_str(), placeholder);
        }
        Some(text)
    }

    /// From this length on a value is looked for in bodies: shorter ones are everywhere.
    const FOUND: usize = 6;

    fn request(&mut self, seen: &SeenExchange, target: String) -> InlineTable {
        let mut table = InlineTable::new();
        if seen.method != Method::GET {
            table.insert("method", seen.method.as_str().into());
        }
        table.insert("path", target.into());
        let authority = text(seen.headers.get(header::HOST));
        let client = match seen.client {
            Caller::Ip(address) => address.to_string(),
            Caller::Unix => String::new(),
        };
        // What the proxy says of every request is said by the trial, too.
        let said = |name: &HeaderName, value: &HeaderValue| {
            let value = text(Some(value));
            match name.as_str() {
                "host" | "x-request-id" => true,
                "x-forwarded-for" => value == client,
                "x-forwarded-host" => value == authority,
                "x-forwarded-proto" => value == seen.scheme,
                _ => false,
            }
        };
        self.placeholders.insert(text(seen.headers.get("x-request-id")), text(Some(&REQUEST_ID)));
        let headers = self.headers(&seen.headers, said);
        if !headers.is_empty() {
            table.insert("headers", headers.into());
        }
        table.insert("authority", authority.clone().into());
        if seen.scheme != "http" {
            table.insert("scheme", seen.scheme.into());
        }
        match seen.version {
            Version::HTTP_10 => table.insert("http-version", "1.0".into()),
            Version::HTTP_2 => table.insert("http-version", "2".into()),
            _ => None,
        };
        if !client.is_empty() {
            table.insert("client-address", client.into());
        }
        table.insert("route", seen.route.to_string().into());
        table.insert("upstream", seen.upstream.to_string().into());
        let notes = self.notes(&seen.notes, &[]);
        if !notes.is_empty() {
            table.insert("notes", notes.into());
        }
        if let Some(body) = seen.body.as_deref().and_then(|body| self.body(body)) {
            table.insert("body", body.into());
        }
        table
    }

    /// Notes that were not there before.
    fn notes(&mut self, notes: &[(String, String)], before: &[(String, String)]) -> InlineTable {
        let mut table = InlineTable::new();
        for (name, value) in notes.iter().filter(|note| !before.contains(note)) {
            let value = match self.is_wanted(name, value) {
                true => value.clone(),
                false => self.placeholder(value),
            };
            table.insert(name, value.into());
        }
        table
    }

    /// A line for each of the endpoints that there were.
    fn endpoints(&self, choice: &Choice) -> String {
        let mut lines = String::new();
        for (member, condition) in choice.members.describe().into_iter().zip(&choice.conditions) {
            let mut table = InlineTable::new();
            table.insert("address", member.address.into());
            if member.weight != 1 {
                table.insert("weight", i64::from(member.weight).into());
            }
            let tags = member.tags.iter().filter(|(_, value)| !self.secrets.holds(value.as_bytes()));
            let tags: InlineTable = tags.map(|(name, value)| (name.as_str(), value.as_str())).collect();
            if !tags.is_empty() {
                table.insert("tags", tags.into());
            }
            if let Some(Condition { active, latency_us, failures, load }) = condition {
                for (name, number) in [("active", active), ("failures", failures)] {
                    if *number != 0 {
                        table.insert(name, i64::from(*number).into());
                    }
                }
                if *latency_us != 0 {
                    table.insert("latency", format!("{latency_us}us").into());
                }
                // By its shortest form it is the same number again.
                if let Some(load) = load.and_then(|load| load.to_string().parse::<f64>().ok()) {
                    table.insert("load", load.into());
                }
            }
            lines.push_str(&format!("    {table},\n"));
        }
        lines
    }

    fn response(&mut self, call: &Call, first: &SeenExchange) -> Option<InlineTable> {
        let before = &call.response.as_ref()?.before;
        let response = before.response.as_ref()?;
        let mut table = InlineTable::new();
        let own = call.request.as_ref().is_some_and(|sides| matches!(sides.decided, Decided::Reply { .. }));
        // Its own reply it makes again.
        if !own {
            table.insert("status", i64::from(response.status.as_u16()).into());
            let headers = self.headers(&response.headers, |_, _| false);
            if !headers.is_empty() {
                table.insert("headers", headers.into());
            }
            if let Some(endpoint) = &response.endpoint {
                table.insert("endpoint", text(Some(endpoint)).into());
            }
            if response.from_cache {
                table.insert("from-cache", true.into());
            }
            if let Some(body) = response.body.as_deref().and_then(|body| self.body(body)) {
                table.insert("body", body.into());
            }
        }
        let known = call.request.as_ref().map_or(&first.notes, |sides| &sides.after.notes);
        let notes = self.notes(&before.notes, known);
        if !notes.is_empty() {
            table.insert("notes", notes.into());
        }
        Some(table)
    }

    fn expect(&mut self, call: &Call) -> InlineTable {
        let mut table = InlineTable::new();
        let both = [&call.request, &call.response].map(|sides| sides.as_ref().map(|sides| &sides.decided));
        if let Some(last) = both[1].or(both[0]) {
            table.insert("verdict", last.word().into());
        }
        for decided in both.into_iter().flatten() {
            match decided {
                Decided::Next => {}
                Decided::Forward(upstream) => drop(table.insert("upstream", upstream.as_str().into())),
                Decided::Reply { status, headers, body } => {
                    let mut reply = self.expected_response(*status, &HeaderMap::new(), headers);
                    if let Some(body) = body.as_deref().and_then(|body| self.body(body)) {
                        reply.insert("body", body.into());
                    }
                    table.insert("reply", reply.into());
                }
            }
        }
        if let Some(errands) = &call.errands {
            let sent = errands.iter().map(|errand| format!("{} {}", errand.request.method, self.url(errand)));
            table.insert("sent", Value::Array(sent.collect()));
        }
        let mut notes = InlineTable::new();
        if let Some(Sides { before, after, .. }) = &call.request {
            let headers = self.expected(&before.headers, &after.headers);
            if !headers.is_empty() {
                table.insert("headers", headers.into());
            }
            removed(&before.headers, &after.headers, &mut table);
            if before.target != after.target {
                let target = self.target(&after.target.to_string());
                table.insert("target", target.into());
            }
            if before.body != after.body
                && let Some(body) = after.body.as_deref().and_then(|body| self.body(body))
            {
                table.insert("body", body.into());
            }
            // What another has noted since is no longer what this one has.
            let last = call.response.as_ref().map_or(&after.notes, |sides| &sides.before.notes);
            self.expect_notes(&before.notes, &after.notes, last, &mut notes);
        }
        if let Some(SeenPick { picked, .. }) = &call.pick {
            let picked = picked.map_or(Value::from(false), |place| Value::from(place as i64));
            table.insert("picks", Value::Array([picked].into_iter().collect()));
        }
        if let Some(Sides { before, after, decided }) = &call.response {
            if let (Some(one), Some(other), Decided::Next) = (&before.response, &after.response, decided) {
                let mut response = self.expected_response(other.status, &one.headers, &other.headers);
                removed(&one.headers, &other.headers, &mut response);
                if one.body != other.body
                    && let Some(body) = other.body.as_deref().and_then(|body| self.body(body))
                {
                    response.insert("body", body.into());
                }
                table.insert("response", response.into());
            }
            self.expect_notes(&before.notes, &after.notes, &after.notes, &mut notes);
        }
        if !notes.is_empty() {
            table.insert("notes", notes.into());
        }
        table
    }

    /// Notes that were made between two moments, and are still there at a last one.
    fn expect_notes(
        &self,
        before: &[(String, String)],
        after: &[(String, String)],
        last: &[(String, String)],
        table: &mut InlineTable,
    ) {
        for note in after.iter().filter(|note| !before.contains(note) && last.contains(note)) {
            let (name, value) = note;
            table.insert(name, self.made(name, value.clone()).into());
        }
    }

    fn expected_response(
        &mut self,
        status: StatusCode,
        before: &HeaderMap,
        after: &HeaderMap,
    ) -> InlineTable {
        let mut table = InlineTable::new();
        table.insert("status", i64::from(status.as_u16()).into());
        let headers = self.expected(before, after);
        if !headers.is_empty() {
            table.insert("headers", headers.into());
        }
        table
    }

    /// Fields that are other than before.
    fn expected(&mut self, before: &HeaderMap, after: &HeaderMap) -> InlineTable {
        let mut table = InlineTable::new();
        for name in after.keys().filter(|name| !is_framing(name)) {
            let values: Vec<_> = after.get_all(name).iter().collect();
            if before.get_all(name).iter().eq(values.iter().copied()) {
                continue;
            }
            let mut list: Vec<String> =
                values.iter().map(|value| self.made(name.as_str(), text(Some(value)))).collect();
            let value = match list.as_mut_slice() {
                [one] => std::mem::take(one).into(),
                many if many.iter().any(|value| value == PRESENT) => PRESENT.into(),
                _ => Value::from(list.into_iter().collect::<Array>()),
            };
            table.insert(name.as_str(), value);
        }
        table
    }

    /// What is to be expected where a plugin has made this.
    fn made(&self, name: &str, value: String) -> String {
        match self.placeholders.get(&value) {
            Some(placeholder) => placeholder.clone(),
            None if self.keeps(name, &value) && value != PRESENT => value,
            None => PRESENT.to_owned(),
        }
    }

    fn headers(
        &mut self,
        headers: &HeaderMap,
        is_said: impl Fn(&HeaderName, &HeaderValue) -> bool,
    ) -> InlineTable {
        let mut table = InlineTable::new();
        for name in headers.keys() {
            let values = headers.get_all(name).iter().filter(|value| !is_said(name, value));
            let mut values: Vec<String> = values.map(|value| self.field(name, text(Some(value)))).collect();
            let value = match values.as_mut_slice() {
                [] => continue,
                [one] => std::mem::take(one).into(),
                _ => Value::from(values.into_iter().collect::<Array>()),
            };
            table.insert(name.as_str(), value);
        }
        table
    }

    /// The value of a header, as it may be written down.
    fn field(&mut self, name: &HeaderName, value: String) -> String {
        if self.keeps(name.as_str(), &value) {
            return value;
        }
        match name.as_str() {
            "authorization" | "proxy-authorization" => match value.split_once(' ') {
                Some((scheme, credentials)) if scheme.eq_ignore_ascii_case("basic") => {
                    let placeholder = self.placeholder(credentials);
                    format!("{scheme} {}", BASE64_STANDARD.encode(format!("{placeholder}:{placeholder}")))
                }
                Some((scheme, credentials)) => format!("{scheme} {}", self.placeholder(credentials)),
                None => self.placeholder(&value),
            },
            "cookie" => {
                let crumbs: Vec<String> = value.split(';').map(|crumb| self.pair(crumb.trim())).collect();
                crumbs.join("; ")
            }
            "set-cookie" => match value.split_once(';') {
                Some((cookie, attributes)) => format!("{};{attributes}", self.pair(cookie)),
                None => self.pair(&value),
            },
            _ => self.placeholder(&value),
        }
    }

    /// `name=value`, of a cookie or a query.
    fn pair(&mut self, pair: &str) -> String {
        match pair.split_once('=') {
            Some((name, value)) if self.is_wanted(name, value) => pair.to_owned(),
            Some((name, value)) => match self.known(value) {
                Some(placeholder) => format!("{name}={placeholder}"),
                None => format!("{name}={}", self.placeholder(value)),
            },
            None if looks_like_a_token(pair) => self.placeholder(pair),
            None => pair.to_owned(),
        }
    }

    /// Path and query, as they may be written down.
    fn target(&mut self, target: &str) -> String {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let segments: Vec<String> = path
            .split('/')
            .map(|segment| match self.known(segment) {
                Some(placeholder) => placeholder,
                None if looks_like_a_token(segment) => self.placeholder(segment),
                None => segment.to_owned(),
            })
            .collect();
        let path = segments.join("/");
        match query {
            Some(query) => {
                let pairs: Vec<String> = query.split('&').map(|pair| self.pair(pair)).collect();
                format!("{path}?{}", pairs.join("&"))
            }
            None => path,
        }
    }

    /// What stands already for a part of a URL, which may be written there in another way than it was elsewhere.
    fn known(&self, part: &str) -> Option<String> {
        let known = |value: &str| self.placeholders.get(value).filter(|_| value.len() >= 3).cloned();
        known(part).or_else(|| known(&decoded(part)?))
    }

    fn keeps(&self, name: &str, value: &str) -> bool {
        KEPT.contains(&name) && !self.secrets.holds(value.as_bytes()) || self.is_wanted(name, value)
    }

    fn is_wanted(&self, name: &str, value: &str) -> bool {
        self.wanted.contains(&name.to_ascii_lowercase()) && !self.secrets.holds(value.as_bytes())
    }

    /// What stands for a value: the same for the same, and of the same kind.
    fn placeholder(&mut self, value: &str) -> String {
        if value.is_empty() {
            return String::new();
        }
        let number = self.placeholders.len();
        let made = || {
            let length = value.len();
            let is_all = |is: fn(&u8) -> bool| value.bytes().all(|byte| is(&byte));
            if is_all(u8::is_ascii_digit) {
                format!("{number:0>length$}")
            } else if is_uuid(value) {
                format!("00000000-0000-4000-8000-{number:012x}")
            } else if length >= 16 && is_all(u8::is_ascii_hexdigit) {
                format!("{number:0>length$x}")
            } else {
                format!("redacted-{number}")
            }
        };
        self.placeholders.entry(value.to_owned()).or_insert_with(made).clone()
    }
}

/// Matches any value.
const PRESENT: &str = "*";

impl Decided {
    fn word(&self) -> &'static str {
        match self {
            Self::Next => "next",
            Self::Reply { .. } => "reply",
            Self::Forward(_) => "forward",
        }
    }

    fn in_words(&self) -> String {
        match self {
            Self::Reply { status, .. } => format!("reply {}", status.as_u16()),
            Self::Next | Self::Forward(_) => self.word().to_owned(),
        }
    }
}

impl SeenPick {
    fn in_words(&self) -> String {
        match self.picked.and_then(|place| self.choice.members.describe().into_iter().nth(place)) {
            Some(member) => format!("picks {}", member.address),
            None => "picks none".to_owned(),
        }
    }
}

fn removed(before: &HeaderMap, after: &HeaderMap, table: &mut InlineTable) {
    let gone = before.keys().filter(|name| !after.contains_key(*name) && !is_framing(name));
    let gone: Array = gone.map(HeaderName::as_str).collect();
    if !gone.is_empty() {
        table.insert("removed", gone.into());
    }
}

/// Whether the host sees to a field when a plugin has put another body in the place of one.
fn is_framing(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER].contains(name)
}

/// Whether a part of a path may be somebody's: long and of letters and digits, a long number, or an address of mail.
fn looks_like_a_token(segment: &str) -> bool {
    let has = |is: fn(&u8) -> bool| segment.bytes().any(|byte| is(&byte));
    let is_mixed = has(u8::is_ascii_digit) && has(u8::is_ascii_alphabetic);
    let is_number = segment.bytes().all(|byte| byte.is_ascii_digit());
    (segment.len() >= 16 && is_mixed)
        || (segment.len() >= 9 && is_number)
        || segment.len() >= 40
        || segment.contains('@')
        || segment.contains("%40")
}

/// Part of a URL without its percent-encoding (RFC 3986, section 2.1).
fn decoded(part: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = rest.get(2..)?;
    }
    String::from_utf8(bytes).ok()
}

fn is_uuid(value: &str) -> bool {
    value.len() == 36
        && value.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// The string whose code points are the bytes, as in the contract.
fn text(value: Option<&HeaderValue>) -> String {
    value.map(|value| value.as_bytes().iter().map(|byte| char::from(*byte)).collect()).unwrap_or_default()
}

fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &'static str, value: &str) -> String {
        let (wanted, secrets) = (BTreeSet::from(["x-wanted".to_owned()]), Secrets::default());
        let mut redaction = Redaction { wanted: &wanted, secrets: &secrets, placeholders: HashMap::new() };
        redaction.field(&HeaderName::from_static(name), value.to_owned())
    }

    #[test]
    fn what_is_not_known_to_be_harmless_is_replaced_by_something_of_its_kind() {
        for (name, value, written) in [
            ("accept", "text/html", "text/html"),
            ("x-wanted", "hunter2", "hunter2"),
            ("x-api-key", "hunter2", "redacted-0"),
            ("x-anything", "hunter2", "redacted-0"),
            ("authorization", "Bearer hunter2", "Bearer redacted-0"),
            ("authorization", "hunter2", "redacted-0"),
            ("authorization", "Basic aHVudGVyMg==", "Basic cmVkYWN0ZWQtMDpyZWRhY3RlZC0w"),
            ("cookie", "a=hunter2; b=hunter3; a=hunter2", "a=redacted-0; b=redacted-1; a=redacted-0"),
            ("set-cookie", "a=hunter2; Path=/; Secure", "a=redacted-0; Path=/; Secure"),
            ("x-account", "12345", "00000"),
            ("x-trace", "0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            ("x-id", "550e8400-e29b-41d4-a716-446655440000", "00000000-0000-4000-8000-000000000000"),
            ("x-empty", "", ""),
        ] {
            assert_eq!(field(name, value), written, "{name}: {value}");
        }
    }

    #[test]
    fn paths_keep_their_shape_and_queries_their_names() {
        let (wanted, secrets) = (BTreeSet::from(["page".to_owned()]), Secrets::default());
        for (target, written) in [
            ("/v1/users", "/v1/users"),
            ("/v1/users/42", "/v1/users/42"),
            ("/v1/users/me@example.com/x", "/v1/users/redacted-0/x"),
            ("/reset/sk9f8a7s6d5f4g3h2j1", "/reset/redacted-0"),
            ("/a?page=2&token=abc&flag", "/a?page=2&token=redacted-0&flag"),
            ("/a?t=abc&u=abc", "/a?t=redacted-0&u=redacted-0"),
            ("/cards/4111111111111111", "/cards/0000000000000000"),
        ] {
            let mut redaction =
                Redaction { wanted: &wanted, secrets: &secrets, placeholders: HashMap::new() };
            assert_eq!(redaction.target(target), written);
        }
    }

    #[test]
    fn what_is_replaced_in_one_place_is_replaced_in_all() {
        let (wanted, secrets) = (BTreeSet::new(), Secrets::default());
        let mut redaction = Redaction { wanted: &wanted, secrets: &secrets, placeholders: HashMap::new() };
        let name = HeaderName::from_static("x-api-key");
        assert_eq!(redaction.field(&name, "hunter2/3".to_owned()), "redacted-0");
        for (target, written) in [
            ("/keys/hunter2%2F3", "/keys/redacted-0"),
            ("/keys?key=hunter2%2f3", "/keys?key=redacted-0"),
            ("/keys?key=hunter2/3", "/keys?key=redacted-0"),
            ("/keys/hunter%2", "/keys/hunter%2"),
        ] {
            assert_eq!(redaction.target(target), written);
        }
        assert_eq!(redaction.body(b"key=hunter2/3&a"), Some("key=redacted-0&a".to_owned()));
        assert_eq!(redaction.body(b"\xff"), None);
    }
}
