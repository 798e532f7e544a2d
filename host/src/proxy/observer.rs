//! Who follows a request on its way?

use std::{sync::Arc, time::Instant};

use http::{Request, request};

use super::{
    connection::Connection,
    context::Context,
    decision::Decision,
    explain::{Before, Explaining, Explanation},
    identity::Came,
    record::{Record, RecordedExchange},
};
use crate::{
    cache::Served,
    plugin::{CallError, Exchange, ExchangeSlot, Purpose},
    snapshot::{Route, Step},
    upstream::Endpoint,
};

/// Who is told what becomes of a request: an entry of the access log and the plugins that want to know, an explanation, or
/// nobody. The phases of a request are the same for all of them.
pub(super) enum Observer {
    Nobody,
    Record(Box<Record>),
    Explanation(Box<Explaining>),
}

impl Observer {
    /// The observer of a request that has come from a client.
    pub fn of<B>(request: &Request<B>, connection: &Connection, is_logged: bool) -> Self {
        match is_logged {
            true => Self::Record(Box::new(Record::new(request, connection))),
            false => Self::Nobody,
        }
    }

    pub fn record(&self) -> Option<&Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Nobody | Self::Explanation(_) => None,
        }
    }

    fn record_mut(&mut self) -> Option<&mut Record> {
        match self {
            Self::Record(record) => Some(record),
            Self::Nobody | Self::Explanation(_) => None,
        }
    }

    /// The record, which is written when the response has ended.
    pub fn into_record(self) -> Option<Box<Record>> {
        match self {
            Self::Record(record) => Some(record),
            Self::Nobody | Self::Explanation(_) => None,
        }
    }

    /// What is explained; nothing where nothing is.
    pub fn into_report(self) -> Explanation {
        match self {
            Self::Explanation(explanation) => explanation.into_report(),
            Self::Nobody | Self::Record(_) => Explanation::default(),
        }
    }

    /// Adds to what is explained.
    pub fn explain(&mut self, add: impl FnOnce(&mut Explanation)) {
        if let Self::Explanation(explanation) = self {
            add(explanation.report());
        }
    }

    fn explanation(&mut self) -> Option<&mut Explaining> {
        match self {
            Self::Explanation(explanation) => Some(explanation),
            Self::Nobody | Self::Record(_) => None,
        }
    }

    /// The head has come, and nothing was done with it.
    pub fn arrived(&mut self, head: &request::Parts) {
        if let Some(explanation) = self.explanation() {
            explanation.arrived(head);
        }
    }

    /// The head has the form in which it is forwarded, and it is known whose request it is.
    pub fn prepared(&mut self, head: &request::Parts, came: &Came) {
        match self {
            Self::Nobody => {}
            Self::Record(record) => record.identified(head, came),
            Self::Explanation(explanation) => explanation.prepared(head, came),
        }
    }

    /// The route was looked for.
    pub fn routed(&mut self, context: &Context, head: &request::Parts, route: Option<&Route>) {
        if let Some(explanation) = self.explanation() {
            explanation.routed(context, head, route);
        }
    }

    /// The exchange that plugins work on begins.
    pub fn follow(
        &mut self,
        mut exchange: Exchange,
        route: &Route,
        connection: &Connection,
    ) -> RecordedExchange {
        if let Self::Explanation(_) = self {
            exchange.purpose = Purpose::Explanation(Arc::default());
        }
        if route.on_complete.is_empty() {
            return RecordedExchange::new(exchange);
        }
        match self {
            Self::Explanation(_) => RecordedExchange::new(exchange),
            Self::Record(record) => record.follow(exchange, route),
            Self::Nobody => {
                let mut record = Box::new(Record::unlogged(&exchange, connection));
                let followed = record.follow(exchange, route);
                *self = Self::Record(record);
                followed
            }
        }
    }

    /// It is known which upstream is to get the request.
    pub fn goes_to_upstream(&mut self, exchange: &Exchange) {
        if let Some(record) = self.record_mut() {
            record.goes_to_upstream(exchange);
        }
    }

    /// A plugin is about to be called.
    pub fn before_call(&self, exchange: &Exchange) -> Option<Box<Before>> {
        match self {
            Self::Nobody | Self::Record(_) => None,
            Self::Explanation(_) => Some(Box::new(Before::of(exchange))),
        }
    }

    /// A request hook was called; `number` is its place among those of the route.
    pub fn called(
        &mut self,
        before: Option<Box<Before>>,
        context: &Context,
        (route, number, step): (&Route, usize, &Step),
        exchange: &ExchangeSlot,
        decided: Result<&Decision, &CallError>,
    ) {
        if let (Some(before), Some(explanation)) = (before, self.explanation()) {
            explanation.called(*before, context, (route, number, step), exchange, decided);
        }
    }

    /// The last call failed, and the request goes on without it.
    pub fn passed_over(&mut self) {
        if let Some(explanation) = self.explanation() {
            explanation.passed_over();
        }
    }

    /// An attempt has brought no response, or none to be passed on.
    pub fn attempt_failed(&mut self, endpoint: &Arc<Endpoint>, attempts: usize) {
        if let Some(record) = self.record_mut() {
            record.attempt_failed(endpoint, attempts);
        }
    }

    /// The upstream has answered, after a time that began at `since`.
    pub fn answered(&mut self, since: Option<Instant>) {
        if let (Some(since), Some(record)) = (since, self.record_mut()) {
            record.answered(since);
        }
    }

    /// What the cache did.
    pub fn cached(&mut self, what: Served) {
        if let Some(record) = self.record_mut() {
            record.cached(what);
        }
    }

    /// Which endpoint a response came from that goes to the client without its connection, and in how many attempts.
    pub fn served_by(&mut self, endpoint: &Endpoint, attempts: usize) {
        if let Some(record) = self.record_mut() {
            record.served_by(endpoint, attempts);
        }
    }
}
