//! What would a candidate in the shadow of a plugin have decided?
//!
//! It is called after the plugin, with a copy of what the plugin was given, and nothing that it does leaves this module but
//! counts and lines in the log.

use super::Context;
use crate::plugin::{
    CallError, Difference, Exchange, Hook, InHand, ReadBodies, RequestVerdict, ResponseVerdict, Shadow, Slot,
    at_once, request_differences, response_differences,
};

/// A message as it was before the plugin was called, for a candidate to decide on.
pub(super) struct Shown<'a> {
    context: &'a Context,
    shadow: &'a Shadow,
    slot: &'a Slot,
    exchange: InHand,
}

impl<'a> Shown<'a> {
    /// To the candidate at a place in the snapshot's list.
    pub fn to(context: &'a Context, place: usize, exchange: &Exchange) -> Self {
        let generation = &context.generation;
        let shadow = &generation.snapshot.shadows[place];
        Self { context, shadow, slot: generation.shadow(place), exchange: InHand::new(exchange.copy()) }
    }

    /// Has the candidate decide on a request, and compares.
    pub fn request(mut self, verdict: &Result<RequestVerdict, CallError>, exchange: &Exchange) {
        let mut bodies = ReadBodies::of(exchange);
        let decided = match self.slot.waits() {
            // It asks for bodies, which are there or are not, and waits for none.
            true => at_once(self.slot.on_request_waiting(&mut self.exchange, &mut bodies, None)),
            false => self.slot.on_request(&mut self.exchange, None),
        };
        let compare = |candidate| request_differences((verdict, exchange), (&candidate, &self.exchange));
        let differences = decided.map(compare);
        self.count(Hook::OnRequest, exchange, &bodies, differences);
    }

    /// The same of a response.
    pub fn response(mut self, verdict: &Result<ResponseVerdict, CallError>, exchange: &Exchange) {
        let mut bodies = ReadBodies::of(exchange);
        let decided = match self.slot.waits() {
            true => at_once(self.slot.on_response_waiting(&mut self.exchange, &mut bodies, None)),
            false => self.slot.on_response(&mut self.exchange, None),
        };
        let compare = |candidate| response_differences((verdict, exchange), (&candidate, &self.exchange));
        let differences = decided.map(compare);
        self.count(Hook::OnResponse, exchange, &bodies, differences);
    }

    fn count(
        &self,
        hook: Hook,
        exchange: &Exchange,
        bodies: &ReadBodies,
        differences: Result<Vec<Difference>, CallError>,
    ) {
        if bodies.has_missed {
            return self.shadow.missed(self.context.generation.writer);
        }
        let request = exchange.id().and_then(|id| id.to_str().ok());
        self.shadow.decided(self.context.generation.writer, hook, request, differences);
    }
}
