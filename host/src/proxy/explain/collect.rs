//! What is written down of a request while it is explained?

use std::time::Instant;

use http::{HeaderMap, Uri, header, request};

use super::report::{Asked, Changed, Explanation, Near, Prepared, Routed, hidden, lines, micros};
use crate::{
    authority,
    plugin::{CallError, Exchange, ExchangeSlot},
    proxy::{context::Context, decision::Decision, identity::Came},
    route::Objection,
    snapshot::{Route, Snapshot, Step},
    telemetry::with_sources,
};

/// An explanation as far as the request has come.
#[derive(Debug)]
pub(in crate::proxy) struct Explaining {
    report: Explanation,
    /// The headers as they came.
    arrived: HeaderMap,
    /// When the step began that is under way.
    since: Instant,
}

impl Explaining {
    pub fn new(report: Explanation) -> Self {
        Self { report, arrived: HeaderMap::new(), since: Instant::now() }
    }

    pub fn report(&mut self) -> &mut Explanation {
        &mut self.report
    }

    pub fn into_report(self) -> Explanation {
        self.report
    }

    pub fn arrived(&mut self, head: &request::Parts) {
        (self.arrived, self.since) = (head.headers.clone(), Instant::now());
    }

    pub fn prepared(&mut self, head: &request::Parts, came: &Came) {
        let micros = micros(self.since);
        let Changed { set, removed } = Changed::between(&self.arrived, &head.headers);
        self.report.prepared = Some(Prepared {
            micros,
            method: head.method.to_string(),
            scheme: came.scheme,
            host: host(head),
            path: head.uri.path().to_owned(),
            query: head.uri.query().map(str::to_owned),
            client: came.client.to_string(),
            is_https: came.by_tls(),
            removed,
            set,
        });
        self.since = Instant::now();
    }

    /// Which route takes it, and which did not, though they were near.
    pub fn routed(&mut self, context: &Context, head: &request::Parts, route: Option<&Route>) {
        /// As many as a person looks at.
        const NEAR: usize = 8;
        let micros = micros(self.since);
        let snapshot = &context.generation.snapshot;
        let near = snapshot.table.near(&host(head), head.uri.path(), &head.method, &head.headers, NEAR + 1);
        let is_other = |index: usize| route.is_none_or(|route| !std::ptr::eq(route, &snapshot.routes[index]));
        let near = near.into_iter().filter(|(index, _)| is_other(*index)).take(NEAR);
        self.report.route = Some(Routed {
            micros,
            name: route.map(|route| route.name.to_string()),
            upstream: route.map(|route| snapshot.upstreams[route.upstream].upstream.name.to_string()),
            near: near
                .map(|(index, objection)| Near {
                    name: snapshot.routes[index].name.to_string(),
                    objection: match objection {
                        None => "it matches, and another is closer".to_owned(),
                        Some(Objection::Host) => "it is for another host".to_owned(),
                        Some(Objection::Path) => "it is for another path".to_owned(),
                        Some(Objection::Method) => format!("it does not take {}", head.method),
                        Some(Objection::Header(name)) => format!("it wants another `{name}`"),
                    },
                })
                .collect(),
        });
        let hooks = route.map(|route| names(snapshot, route.on_response.iter().map(|step| step.place)));
        self.report.response_hooks = hooks.unwrap_or_default();
    }

    /// A request hook was called; `number` is its place among those of the route.
    pub fn called(
        &mut self,
        before: Before,
        context: &Context,
        (route, number, step): (&Route, usize, &Step),
        exchange: &ExchangeSlot,
        decided: Result<&Decision, &CallError>,
    ) {
        let snapshot = &context.generation.snapshot;
        let mut asked = before.asked(&snapshot.plugins[step.place].plugin.name, exchange);
        match decided {
            Ok(Decision::Next) => {}
            Ok(Decision::Reply(reply)) => {
                (asked.verdict, asked.status) = ("reply", Some(reply.status.as_u16()));
                let rest = route.on_request[number + 1..].iter().map(|step| step.place);
                self.report.not_asked = names(snapshot, rest);
            }
            Ok(Decision::Forward(_)) => {
                (asked.verdict, asked.upstream) = ("forward", Some(exchange.upstream.to_string()));
            }
            Err(error) => (asked.verdict, asked.error) = ("failed", Some(with_sources(error))),
        }
        self.report.plugins.push(asked);
    }

    /// The last call failed, and the request goes on without it.
    pub fn passed_over(&mut self) {
        if let Some(asked) = self.report.plugins.last_mut() {
            asked.is_passed_over = true;
        }
    }
}

fn host(head: &request::Parts) -> String {
    head.headers.get(header::HOST).map(|host| authority::host_name(host).into_owned()).unwrap_or_default()
}

pub(super) fn names(snapshot: &Snapshot, indices: impl IntoIterator<Item = usize>) -> Vec<String> {
    indices.into_iter().map(|index| snapshot.plugins[index].plugin.name.to_string()).collect()
}

/// A request before a plugin was asked.
pub(in crate::proxy) struct Before {
    headers: HeaderMap,
    target: Uri,
    response_headers: HeaderMap,
    notes: Vec<(String, String)>,
    since: Instant,
}

impl Before {
    pub fn of(exchange: &Exchange) -> Self {
        Self {
            headers: exchange.request.headers.clone(),
            target: exchange.request.uri.clone(),
            response_headers: exchange.response_headers().iter().cloned().collect(),
            notes: exchange.notes().to_vec(),
            since: Instant::now(),
        }
    }

    /// What has changed since.
    fn asked(self, plugin: &str, exchange: &ExchangeSlot) -> Asked {
        let micros = micros(self.since);
        let name = plugin.to_owned();
        // It is not there where a call was given up.
        let Some(exchange) = exchange.there() else {
            return Asked { name, micros, verdict: "failed", ..Asked::default() };
        };
        let Changed { set, removed } = Changed::between(&self.headers, &exchange.request.headers);
        let response_headers = exchange.response_headers().iter().cloned().collect();
        let uri = &exchange.request.uri;
        let is_new = |note: &&(String, String)| !self.notes.contains(note);
        Asked {
            name,
            micros,
            verdict: "next",
            set,
            removed,
            response: Changed::between(&self.response_headers, &response_headers).set,
            target: (*uri != self.target).then(|| uri.to_string()),
            notes: exchange
                .notes()
                .iter()
                .filter(is_new)
                .map(|(name, value)| (name.clone(), hidden(name, value.clone())))
                .collect(),
            logs: lines(exchange.purpose.journal()),
            ..Asked::default()
        }
    }
}
