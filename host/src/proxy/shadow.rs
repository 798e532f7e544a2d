//! What would a candidate in the shadow of a plugin have decided?
//!
//! It is called after the plugin, with a copy of what the plugin was given, and nothing that it does leaves this module but
//! counts and lines in the log.

use super::context::Context;
use crate::plugin::{
    CallContext, CallError, Compare, Exchange, ExchangeSlot, ReadBodies, Shadow, Slot, at_once,
};

/// A call of a candidate that is to come, with the message as it was before the plugin was called.
pub(super) struct ShadowCall<'a> {
    shadow: &'a Shadow,
    slot: &'a Slot,
    exchange: ExchangeSlot,
}

impl<'a> ShadowCall<'a> {
    /// Of the candidate at a place in the snapshot's list.
    pub fn new(context: &'a Context, index: usize, exchange: &Exchange) -> Self {
        let generation = &context.generation;
        let shadow = &generation.snapshot.shadows[index];
        Self { shadow, slot: generation.shadow(index), exchange: ExchangeSlot::new(exchange.copy()) }
    }

    /// Has the candidate decide, and compares. `verdict` and `exchange` are what the plugin has made of the message.
    pub fn compare<H: Compare>(
        mut self,
        context: &Context,
        verdict: &Result<H::Verdict, CallError>,
        exchange: &Exchange,
    ) {
        let mut bodies = ReadBodies::of(exchange);
        // It asks for bodies, which are there or are not, and waits for none.
        let call = self.slot.call::<H, _>(&mut self.exchange, CallContext::new(&mut bodies));
        let decided = at_once(call);
        let writer = context.generation.writer;
        if bodies.has_missed {
            return self.shadow.missed(writer);
        }
        let compare = |candidate| H::differences((verdict, exchange), (&candidate, &self.exchange));
        let request = exchange.id().and_then(|id| id.to_str().ok());
        self.shadow.decided(writer, H::HOOK, request, decided.map(compare));
    }
}
