//! How is a call of a plugin written down as a case of its tests?
//!
//! What a plugin has made of its own is expected to be there, and no more is said of it.

use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header};
use toml_edit::{Array, InlineTable, Value};

use super::redaction::{PRESENT, Redaction, text};
use crate::{
    address::Caller,
    members::Condition,
    outgoing::SendError,
    plugin::{Call, Choice, Decided, Errand, SeenExchange, SeenPick, Sides},
};

/// How much is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Strictness {
    /// All that can be said.
    Exact,
    /// Any untried endpoint where one was picked; nothing of the bodies that were sent; and that there is what the plugin
    /// may have copied, or made as it is by chance.
    Loose,
}

/// The case of a call.
pub(super) fn text_of(
    number: usize,
    call: &Call,
    strictness: Strictness,
    redaction: &mut Redaction<'_>,
) -> String {
    Case { redaction, is_loose: strictness == Strictness::Loose }.text(number, call)
}

/// A case that is being written.
struct Case<'a, 'b> {
    redaction: &'a mut Redaction<'b>,
    is_loose: bool,
}

impl Case<'_, '_> {
    fn text(mut self, number: usize, call: &Call) -> String {
        let first = call.request.as_ref().map(|sides| &sides.before);
        let first = first.or(call.pick.as_ref().map(|pick| &pick.before));
        let first = first.or(call.response.as_ref().map(|sides| &sides.before));
        let Some(first) = first else { return String::new() };
        let target = self.redaction.target(&first.target.to_string());
        let decided = [
            call.request.as_ref().map(|sides| sides.decided.in_words()),
            call.pick.as_ref().map(SeenPick::in_words),
            call.response.as_ref().map(|sides| sides.decided.in_words()),
        ];
        let decided: Vec<String> = decided.into_iter().flatten().collect();
        let name = format!("recorded {number}: {} {target}: {}", first.method, decided.join(", "));
        let mut lines = vec!["[[case]]".to_owned(), format!("name = {}", Value::from(name))];
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
        match call.errands.as_deref() {
            None => {}
            Some([]) => lines.push("http = []".to_owned()),
            Some(errands) => {
                let answers: String =
                    errands.iter().map(|errand| format!("    {},\n", self.answer(errand))).collect();
                lines.push(format!("http = [\n{answers}]"));
            }
        }
        lines.push(format!("expect = {}\n", self.expect(call)));
        lines.join("\n")
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
        if let Some(body) = self.redaction.body(&request.body).filter(|_| *has_bodies && !self.is_loose) {
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
                if let Some(body) = self.redaction.body(&received.body).filter(|body| !body.is_empty()) {
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
        let path = self.redaction.target(request.path.as_str());
        format!("{}{path}", request.target)
    }

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
        // What the proxy says of every request is said in tests, too.
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
        self.redaction.has_id(text(seen.headers.get("x-request-id")));
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
        if let Some(body) = seen.body.as_deref().and_then(|body| self.redaction.body(body)) {
            table.insert("body", body.into());
        }
        table
    }

    /// Notes that were not there before.
    fn notes(&mut self, notes: &[(String, String)], before: &[(String, String)]) -> InlineTable {
        let mut table = InlineTable::new();
        for (name, value) in notes.iter().filter(|note| !before.contains(note)) {
            table.insert(name, self.redaction.note(name, value).into());
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
            let tags = member.tags.iter().filter(|(_, value)| !self.redaction.is_secret(value));
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
            if let Some(body) = response.body.as_deref().and_then(|body| self.redaction.body(body)) {
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
                    if let Some(body) = body.as_deref().and_then(|body| self.redaction.body(body)) {
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
                let target = self.redaction.target(&after.target.to_string());
                table.insert("target", target.into());
            }
            if before.body != after.body
                && let Some(body) = after.body.as_deref().and_then(|body| self.redaction.body(body))
            {
                table.insert("body", body.into());
            }
            // What another has noted since is no longer what this one has.
            let last = call.response.as_ref().map_or(&after.notes, |sides| &sides.before.notes);
            self.expect_notes(&before.notes, &after.notes, last, &mut notes);
        }
        if let Some(SeenPick { picked, .. }) = &call.pick {
            let picked = match picked {
                Some(_) if self.is_loose => Value::from(PRESENT),
                Some(place) => Value::from(*place as i64),
                None => Value::from(false),
            };
            table.insert("picks", Value::Array([picked].into_iter().collect()));
        }
        if let Some(Sides { before, after, decided }) = &call.response {
            if let (Some(one), Some(other), Decided::Next) = (&before.response, &after.response, decided) {
                let mut response = self.expected_response(other.status, &one.headers, &other.headers);
                removed(&one.headers, &other.headers, &mut response);
                if one.body != other.body
                    && let Some(body) = other.body.as_deref().and_then(|body| self.redaction.body(body))
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
            table.insert(name, self.redaction.made(name, value.clone(), self.is_loose).into());
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
            let mut list: Vec<String> = values
                .iter()
                .map(|value| self.redaction.made(name.as_str(), text(Some(value)), self.is_loose))
                .collect();
            let value = match list.as_mut_slice() {
                [one] => std::mem::take(one).into(),
                many if many.iter().any(|value| value == PRESENT) => PRESENT.into(),
                _ => Value::from(list.into_iter().collect::<Array>()),
            };
            table.insert(name.as_str(), value);
        }
        table
    }

    fn headers(
        &mut self,
        headers: &HeaderMap,
        is_said: impl Fn(&HeaderName, &HeaderValue) -> bool,
    ) -> InlineTable {
        let mut table = InlineTable::new();
        for name in headers.keys() {
            let values = headers.get_all(name).iter().filter(|value| !is_said(name, value));
            let mut values: Vec<String> =
                values.map(|value| self.redaction.field(name, text(Some(value)))).collect();
            let value = match values.as_mut_slice() {
                [] => continue,
                [one] => std::mem::take(one).into(),
                _ => Value::from(values.into_iter().collect::<Array>()),
            };
            table.insert(name.as_str(), value);
        }
        table
    }
}

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

fn timestamp(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|time| format!("{time:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::Ipv4Addr, path::Path};

    use super::*;
    use crate::{plugin::Secrets, plugin_tests::TestFile};

    #[test]
    fn odd_bytes_come_back_as_they_were() {
        let all: String = (0..0x180_u32).filter_map(char::from_u32).collect();
        let bytes = (0x80..=0xff).chain(*b"\t'\"\\").collect::<Vec<u8>>();
        let mut headers = HeaderMap::new();
        for value in [&bytes[..], b"two", b""] {
            headers.append("x-odd", HeaderValue::from_bytes(value).expect("it is a value"));
        }
        for odd in
            [all.as_str(), "a\r\nb\rc\n\u{7f}'''\"\"\"", "\n", "\r", "\u{85}\u{2028}\u{feff}\\u", "a\\\n  b"]
        {
            let seen = SeenExchange {
                method: Method::from_bytes(b"X'!#").expect("it is a method"),
                target: "/a?x".parse().expect("it is a target"),
                version: Version::HTTP_11,
                headers: headers.clone(),
                scheme: "http",
                client: Caller::Ip(Ipv4Addr::LOCALHOST.into()),
                route: odd.into(),
                upstream: "app".into(),
                notes: vec![(odd.to_owned(), odd.to_owned())],
                body: Some(odd.to_owned().into()),
                response: None,
            };
            let sides = Sides { before: seen.clone(), after: seen, decided: Decided::Next };
            let call = Call {
                at: SystemTime::UNIX_EPOCH,
                request: Some(sides),
                pick: None,
                response: None,
                errands: None,
                sequences: [(odd.to_owned(), 1)].into(),
            };
            let (wanted, secrets) =
                (BTreeSet::from(["x-odd".to_owned(), odd.to_ascii_lowercase()]), Secrets::default());
            let text = text_of(1, &call, Strictness::Exact, &mut Redaction::new(&wanted, &secrets));
            let (file, _) = TestFile::read_text(Path::new("odd.test.toml"), text.clone())
                .unwrap_or_else(|problems| panic!("{problems}: {text}"));
            let steps = file.cases[0].get_ref().steps();
            let request = steps[0].request.as_ref().expect("there is a request");
            assert_eq!((request.method.as_str(), request.route.as_str()), ("X'!#", odd));
            assert_eq!(request.headers, headers);
            assert_eq!(request.notes.get(odd).map(String::as_str), Some(odd));
            assert_eq!(request.body, odd);
            // As a comment, too.
            let comment: String = text.lines().map(|line| format!("# {line}\n")).collect();
            assert!(
                toml::from_str::<toml::Table>(&comment).is_ok_and(|table| table.is_empty()),
                "{comment:?}"
            );
        }
    }
}
