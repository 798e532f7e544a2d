//! Would another version of a plugin have decided otherwise?
//!
//! A candidate in the shadow of a plugin is shown what the plugin was shown, on a copy. What it makes of that is compared with
//! what the plugin made of it, counted, and forgotten. It has a store, sequences and metrics of its own, and no log.

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, header};

use super::{
    BodyError, CallError, Exchange, FailureKind, Hook, HostIo, MessageHook, Plugin, Reply, RequestHook,
    RequestVerdict, ResponseHook, ResponseVerdict,
};
use crate::{
    outgoing::{Outgoing, Received, SendError},
    telemetry::{Page, PerWorker, Tally, Writer},
};

/// A candidate, and what came of showing it requests.
#[derive(Debug)]
pub struct Shadow {
    pub plugin: Arc<Plugin>,
    /// The plugin that decides.
    pub of: Arc<str>,
    /// Where it is, as the configuration has it.
    pub file: String,
    counts: PerWorker<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: Tally,
    failures: [Tally; FailureKind::ALL.len()],
    differences: [[Tally; DifferenceKind::ALL.len()]; Shadow::HOOKS.len()],
    /// Calls that decided otherwise.
    different: Tally,
    /// Calls that say nothing, since they asked for a body that was not there to be shown.
    missed: Tally,
}

/// The bodies that a plugin has read, for a candidate that asks for them.
#[derive(Debug)]
pub struct ReadBodies {
    request: Option<Bytes>,
    response: Option<Bytes>,
    /// The candidate has asked for another.
    pub has_missed: bool,
}

impl ReadBodies {
    /// What has been read of an exchange, when the plugin has been called.
    pub fn of(exchange: &Exchange) -> Self {
        Self {
            request: exchange.request_as_it_came().cloned(),
            response: exchange.response_as_it_came().cloned(),
            has_missed: false,
        }
    }

    fn within(&mut self, body: Option<Bytes>, most: usize) -> Result<Bytes, BodyError> {
        self.has_missed |= body.is_none();
        let body = body.ok_or(BodyError::Unavailable)?;
        if body.len() <= most { Ok(body) } else { Err(BodyError::TooLarge) }
    }
}

impl HostIo for ReadBodies {
    async fn send(&mut self, _: Outgoing) -> Result<Received, SendError> {
        Err(SendError::Denied)
    }

    async fn request_body(&mut self, most: usize, _: Duration) -> Result<Bytes, BodyError> {
        self.within(self.request.clone(), most)
    }

    async fn response_body(&mut self, most: usize, _: Duration) -> Result<Bytes, BodyError> {
        self.within(self.response.clone(), most)
    }
}

/// What a candidate does otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DifferenceKind {
    /// One goes on, another answers.
    Verdict,
    Status,
    Headers,
    Body,
    Target,
    Upstream,
    Notes,
}

impl DifferenceKind {
    pub const ALL: [Self; 7] =
        [Self::Verdict, Self::Status, Self::Headers, Self::Body, Self::Target, Self::Upstream, Self::Notes];

    pub fn name(self) -> &'static str {
        match self {
            Self::Verdict => "verdict",
            Self::Status => "status",
            Self::Headers => "headers",
            Self::Body => "body",
            Self::Target => "target",
            Self::Upstream => "upstream",
            Self::Notes => "notes",
        }
    }
}

/// One difference, in words that hold nothing of what a message says but names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    pub kind: DifferenceKind,
    words: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.kind.name(), self.words)
    }
}

impl Shadow {
    /// What a candidate is shown.
    pub const HOOKS: [Hook; 2] = [Hook::OnRequest, Hook::OnResponse];

    pub fn new(plugin: Arc<Plugin>, of: Arc<str>, file: String) -> Self {
        Self { plugin, of, file, counts: PerWorker::default() }
    }

    /// Counts what a candidate decided, and logs what of it is new.
    pub fn decided(
        &self,
        writer: Writer,
        hook: Hook,
        request: Option<&str>,
        differences: Result<Vec<Difference>, CallError>,
    ) {
        let counts = self.counts.of(writer);
        counts.calls.add(1);
        let words = match differences {
            Ok(differences) if differences.is_empty() => return,
            Ok(differences) => {
                let index = usize::from(hook == Hook::OnResponse);
                for difference in &differences {
                    counts.differences[index][difference.kind as usize].add(1);
                }
                let words: Vec<String> = differences.iter().map(ToString::to_string).collect();
                words.join("; ")
            }
            Err(error) => {
                counts.failures[FailureKind::from(&error) as usize].add(1);
                format!("it {error}")
            }
        };
        counts.different.add(1);
        // All of the first, and then ever fewer: whoever reads knows by then, and the log has an end.
        let count = counts.different.get();
        if count <= Self::LOGGED || count.is_power_of_two() {
            let (plugin, candidate, hook) = (&*self.of, &self.file, hook.name());
            tracing::info!(
                plugin,
                candidate,
                request,
                hook,
                count,
                "the candidate decides otherwise: {words}"
            );
        }
    }

    /// Counts a call that can be compared with nothing.
    pub fn missed(&self, writer: Writer) {
        self.counts.of(writer).missed.add(1);
    }

    /// Differences that each worker logs before it logs fewer.
    const LOGGED: u64 = 16;

    pub fn calls(&self) -> u64 {
        self.counts.sum(|counts| &counts.calls)
    }

    /// Calls that decided otherwise, or failed.
    pub fn different(&self) -> u64 {
        self.counts.sum(|counts| &counts.different)
    }

    /// Calls that asked for a body which the plugin had not read.
    pub fn missing(&self) -> u64 {
        self.counts.sum(|counts| &counts.missed)
    }

    pub fn failures(&self, kind: FailureKind) -> u64 {
        self.counts.sum(|counts| &counts.failures[kind as usize])
    }

    pub fn differences(&self, hook: Hook, kind: DifferenceKind) -> u64 {
        let index = usize::from(hook == Hook::OnResponse);
        self.counts.sum(|counts| &counts.differences[index][kind as usize])
    }
}

/// A hook of which the verdicts of a plugin and of its candidate can be compared.
pub trait Compare: MessageHook {
    /// How the candidate differs. `plugin` and `candidate` are what each made of the message, by its verdict and by the
    /// exchange as it left it.
    fn differences(
        plugin: (&Result<Self::Verdict, CallError>, &Exchange),
        candidate: (&Self::Verdict, &Exchange),
    ) -> Vec<Difference>;
}

impl Compare for RequestHook {
    fn differences(
        plugin: (&Result<RequestVerdict, CallError>, &Exchange),
        candidate: (&RequestVerdict, &Exchange),
    ) -> Vec<Difference> {
        use RequestVerdict::{Forward, Next, Reply};
        let summary = |verdict: &RequestVerdict| match verdict {
            Next => "next".to_owned(),
            Reply(reply) => format!("reply {}", reply.status.as_u16()),
            Forward(_) => "forward".to_owned(),
        };
        let (one, other) = (plugin.1, candidate.1);
        let response_headers = |exchange: &Exchange| exchange.response_headers().iter().cloned().collect();
        let mut all = Vec::new();
        of_headers(&mut all, &response_headers(one), &response_headers(other));
        match (plugin.0, candidate.0) {
            (Ok(Next), Next) => {}
            (Ok(Reply(one)), Reply(other)) => {
                all.extend(of_replies(of_reply(one), of_reply(other)));
                return all;
            }
            (Ok(Forward(one)), Forward(other)) => {
                note(&mut all, DifferenceKind::Upstream, one != other, || "another".to_owned());
            }
            (one, other) => return of_verdicts(one.as_ref().ok().map(summary), summary(other)),
        }
        of_headers(&mut all, &one.request.headers, &other.request.headers);
        let unread = || one.request_as_it_came();
        of_bodies(&mut all, one.request_body(), other.request_body().or_else(unread));
        note(&mut all, DifferenceKind::Target, one.request.uri != other.request.uri, || "another".to_owned());
        of_notes(&mut all, one, other);
        all
    }
}

impl Compare for ResponseHook {
    fn differences(
        plugin: (&Result<ResponseVerdict, CallError>, &Exchange),
        candidate: (&ResponseVerdict, &Exchange),
    ) -> Vec<Difference> {
        use ResponseVerdict::{Next, Reply};
        let summary = |verdict: &ResponseVerdict| match verdict {
            Next => "next".to_owned(),
            Reply(reply) => format!("reply {}", reply.status.as_u16()),
        };
        match (plugin.0, candidate.0) {
            (Ok(Next), Next) => {}
            (Ok(Reply(one)), Reply(other)) => return of_replies(of_reply(one), of_reply(other)),
            (one, other) => return of_verdicts(one.as_ref().ok().map(summary), summary(other)),
        }
        let mut all = match (&plugin.1.response, &candidate.1.response) {
            (Some(one), Some(other)) => of_replies(
                (one.parts.status, &one.parts.headers, &[]),
                (other.parts.status, &other.parts.headers, &[]),
            ),
            _ => Vec::new(),
        };
        let unread = || plugin.1.response_as_it_came();
        of_bodies(&mut all, plugin.1.response_body(), candidate.1.response_body().or_else(unread));
        of_notes(&mut all, plugin.1, candidate.1);
        all
    }
}

/// Two that are not alike; the plugin has none if it failed.
fn of_verdicts(one: Option<String>, other: String) -> Vec<Difference> {
    let one = one.as_deref().unwrap_or("no verdict");
    let words = format!("{one}, and the candidate {other}");
    vec![Difference { kind: DifferenceKind::Verdict, words }]
}

type Response<'a> = (http::StatusCode, &'a HeaderMap, &'a [u8]);

fn of_reply(reply: &Reply) -> Response<'_> {
    (reply.status, &reply.headers, &reply.body)
}

fn of_replies(one: Response<'_>, other: Response<'_>) -> Vec<Difference> {
    let mut all = Vec::new();
    let statuses = || format!("{}, and the candidate {}", one.0.as_u16(), other.0.as_u16());
    note(&mut all, DifferenceKind::Status, one.0 != other.0, statuses);
    of_headers(&mut all, one.1, other.1);
    note(&mut all, DifferenceKind::Body, one.2 != other.2, || "another".to_owned());
    all
}

fn of_headers(all: &mut Vec<Difference>, one: &HeaderMap, other: &HeaderMap) {
    let differs = one != other && !differing(one, other).is_empty();
    note(all, DifferenceKind::Headers, differs, || differing(one, other));
}

/// Bodies that are read or made; of those that nobody knows, none is another.
fn of_bodies(all: &mut Vec<Difference>, one: Option<&Bytes>, other: Option<&Bytes>) {
    note(all, DifferenceKind::Body, one != other, || "another".to_owned());
}

fn of_notes(all: &mut Vec<Difference>, one: &Exchange, other: &Exchange) {
    let differ = one.notes().len() != other.notes().len()
        || one.notes().iter().any(|(name, value)| other.note(name) != Some(value));
    note(all, DifferenceKind::Notes, differ, || "others".to_owned());
}

fn note(all: &mut Vec<Difference>, kind: DifferenceKind, differs: bool, words: impl FnOnce() -> String) {
    if differs {
        all.push(Difference { kind, words: words() });
    }
}

/// Whether a field is set by the host where a plugin has made another body.
fn is_framing(name: &HeaderName) -> bool {
    [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::TRAILER].contains(name)
}

/// The names of fields that are not the same in both, up to so many.
fn differing(one: &HeaderMap, other: &HeaderMap) -> String {
    const MOST: usize = 8;
    let values =
        |headers: &HeaderMap, name: &str| -> Vec<_> { headers.get_all(name).iter().cloned().collect() };
    let mut names: Vec<&str> = one
        .keys()
        .chain(other.keys())
        .filter(|name| !is_framing(name))
        .map(HeaderName::as_str)
        .filter(|name| values(one, name) != values(other, name))
        .collect();
    names.sort_unstable();
    names.dedup();
    let more = if names.len() > MOST { " and more" } else { "" };
    names.truncate(MOST);
    format!("{}{more}", names.join(", "))
}

/// Writes the families of candidates in the shadow of plugins.
pub fn write_shadows<'a>(page: &mut Page, shadows: impl Iterator<Item = &'a Shadow> + Clone) {
    let labels = |shadow: &'a Shadow| [("plugin", &*shadow.of), ("candidate", shadow.file.as_str())];
    page.counter("tollgate_shadow_calls_total", "Calls of candidates in the shadow of a plugin.", |family| {
        for shadow in shadows.clone() {
            family.row(&labels(shadow), shadow.calls());
        }
    });
    let help =
        "Calls of candidates that asked for a body which the plugin had not read, and were not compared.";
    page.counter("tollgate_shadow_missed_total", help, |family| {
        for shadow in shadows.clone() {
            family.row(&labels(shadow), shadow.missing());
        }
    });
    let help = "What candidates decided otherwise than the plugin.";
    page.counter("tollgate_shadow_differences_total", help, |family| {
        for shadow in shadows.clone() {
            for hook in Shadow::HOOKS {
                for kind in DifferenceKind::ALL {
                    let [plugin, candidate] = labels(shadow);
                    let labels = [plugin, candidate, ("hook", hook.name()), ("kind", kind.name())];
                    family.row(&labels, shadow.differences(hook, kind));
                }
            }
        }
    });
    page.counter(
        "tollgate_shadow_failures_total",
        "Calls of candidates that brought no verdict.",
        |family| {
            for shadow in shadows.clone() {
                for kind in FailureKind::ALL {
                    let [plugin, candidate] = labels(shadow);
                    family.row(&[plugin, candidate, ("kind", kind.name())], shadow.failures(kind));
                }
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::StatusCode;

    use super::{super::error::Trap, *};
    use crate::{address::Caller, plugin::Reply};

    fn exchange(target: &str, headers: &[(&'static str, &'static str)]) -> Exchange {
        let mut request = http::Request::get(target);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        Exchange::new(parts, Caller::Unix, "http", "route".into(), "upstream".into())
    }

    fn reply(status: StatusCode, body: &'static str) -> Reply {
        Reply { status, headers: HeaderMap::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn whatever_a_candidate_does_otherwise_is_found() {
        use RequestVerdict::{Forward, Next, Reply};
        let same = exchange("/a", &[("x-a", "1")]);
        let failed = || Err(CallError::Trap(Trap::default()));
        let mut noted = exchange("/a", &[("x-a", "1")]);
        noted.set_note("consumer".to_owned(), "demo".to_owned());
        let mut made = exchange("/a", &[("x-a", "1")]);
        made.make_request_body(Bytes::from_static(b"made"));
        let mut response_headers = exchange("/a", &[("x-a", "1")]);
        response_headers.set_response_header("x-b", "1".to_owned()).expect("it can be set");
        let framed = exchange("/a", &[("x-a", "1"), ("content-length", "4")]);
        for (plugin, candidate, other, expected) in [
            (Ok(Next), Next, &same, ""),
            (Ok(Next), Next, &exchange("/a", &[("x-a", "2"), ("x-b", "1")]), "headers: x-a, x-b"),
            (Ok(Next), Next, &exchange("/b", &[("x-a", "1")]), "target: another"),
            (Ok(Next), Next, &noted, "notes: others"),
            (Ok(Next), Next, &made, "body: another"),
            (Ok(Next), Next, &response_headers, "headers: x-b"),
            (Ok(Next), Next, &framed, ""),
            (
                Ok(Next),
                Reply(reply(StatusCode::UNAUTHORIZED, "")),
                &same,
                "verdict: next, and the candidate reply 401",
            ),
            (failed(), Next, &same, "verdict: no verdict, and the candidate next"),
            (Ok(Forward("a".to_owned())), Forward("a".to_owned()), &same, ""),
            (Ok(Forward("a".to_owned())), Forward("b".to_owned()), &same, "upstream: another"),
            (
                Ok(Reply(reply(StatusCode::UNAUTHORIZED, "a"))),
                Reply(reply(StatusCode::FORBIDDEN, "b")),
                // What a request looks like that is answered does not matter.
                &noted,
                "status: 401, and the candidate 403; body: another",
            ),
            (
                Ok(Reply(reply(StatusCode::UNAUTHORIZED, ""))),
                Reply(reply(StatusCode::UNAUTHORIZED, "")),
                &response_headers,
                "headers: x-b",
            ),
        ] {
            let found = RequestHook::differences((&plugin, &same), (&candidate, other));
            let words: Vec<_> = found.iter().map(ToString::to_string).collect();
            assert_eq!(words.join("; "), expected);
        }
    }
}
