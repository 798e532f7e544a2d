//! One worker's instance of one plugin, and the calls it makes.

use std::{cell::RefCell, sync::Arc};

use super::{
    Hook, Plugin, PluginCounts,
    bindings::exports::tollgate::policy::{balance_hook, request_hook, response_hook},
    exchange::{InHand, Reply},
    instance::{CallError, Instance},
};
use crate::telemetry::Writer;

/// The place of a plugin's instance on a worker. Empty before the first call and after a failure.
#[derive(Debug)]
pub struct Slot {
    plugin: Arc<Plugin>,
    writer: Writer,
    instance: RefCell<Option<Instance>>,
}

/// What a request hook decided.
#[derive(Debug)]
pub enum RequestVerdict {
    Next,
    Reply(Reply),
    /// Go on, to the upstream of this name.
    Forward(String),
}

/// What a response hook decided.
#[derive(Debug)]
pub enum ResponseVerdict {
    Next,
    Reply(Reply),
}

/// The place of the endpoint that a balancer chose; none if it has no opinion.
pub type Pick = Option<usize>;

/// The endpoints of an upstream, as a balancer may know them.
pub trait Members: Send + Sync + std::fmt::Debug {
    /// The name of the upstream.
    fn upstream(&self) -> &str;
    /// Another number for another list: who has seen this one need not be told again.
    fn version(&self) -> u64;
    /// What a balancer is told.
    fn describe(&self) -> Vec<Member>;
    /// How many there are.
    fn len(&self) -> usize;
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// How one of them does at this moment.
    fn inspect(&self, index: usize) -> Option<Condition>;
}

/// An endpoint, described to a balancer.
#[derive(Debug, Clone)]
pub struct Member {
    /// `host:port`.
    pub address: String,
    pub weight: u32,
    pub tags: Vec<(String, String)>,
}

/// How an endpoint does.
#[derive(Debug, Clone, Copy)]
pub struct Condition {
    /// Requests in flight.
    pub active: u32,
    /// Moving average of the time to the head of a response, in microseconds.
    pub latency_us: u32,
    /// Failures in a row.
    pub failures: u32,
    /// What it has reported of its load of late, if it has.
    pub load: Option<f32>,
}

impl From<Member> for balance_hook::Endpoint {
    fn from(member: Member) -> Self {
        Self { address: member.address, weight: member.weight, tags: member.tags }
    }
}

impl Slot {
    pub fn new(plugin: Arc<Plugin>, writer: Writer) -> Self {
        Self { plugin, writer, instance: RefCell::default() }
    }

    pub fn plugin(&self) -> &Arc<Plugin> {
        &self.plugin
    }

    /// The memory of the instance in bytes, if there is one.
    pub fn memory(&self) -> Option<usize> {
        self.instance.borrow().as_ref().map(Instance::memory_used)
    }

    /// What this worker counts of the plugin.
    pub fn counts(&self) -> &PluginCounts {
        self.plugin.counts().of(self.writer)
    }

    /// Calls `on-request`.
    pub fn on_request(&self, exchange: &mut InHand) -> Result<RequestVerdict, CallError> {
        Ok(match self.call(Hook::OnRequest, exchange, Instance::on_request)? {
            None | Some(request_hook::Verdict::Next) => RequestVerdict::Next,
            Some(request_hook::Verdict::Forward(upstream)) => RequestVerdict::Forward(upstream),
            Some(request_hook::Verdict::Reply(reply)) => {
                RequestVerdict::Reply(Reply::new(reply.status, reply.headers, reply.body)?)
            }
        })
    }

    /// Calls `on-response`.
    pub fn on_response(&self, exchange: &mut InHand) -> Result<ResponseVerdict, CallError> {
        Ok(match self.call(Hook::OnResponse, exchange, Instance::on_response)? {
            None | Some(response_hook::Verdict::Next) => ResponseVerdict::Next,
            Some(response_hook::Verdict::Reply(reply)) => {
                ResponseVerdict::Reply(Reply::new(reply.status, reply.headers, reply.body)?)
            }
        })
    }

    /// Calls `pick`. `tried` holds the places of those that the request has failed on.
    pub fn pick(
        &self,
        exchange: &mut InHand,
        members: &Arc<impl Members + 'static>,
        tried: &[u32],
    ) -> Result<Pick, CallError> {
        let index = self.call(Hook::Pick, exchange, |instance| instance.pick(members, tried))?.flatten();
        Ok(index.map(|index| index as usize).filter(|index| *index < members.len()))
    }

    fn call<T>(
        &self,
        hook: Hook,
        exchange: &mut InHand,
        call: impl FnOnce(&mut Instance) -> Option<wasmtime::Result<T>>,
    ) -> Result<Option<T>, CallError> {
        let mut place = self.instance.borrow_mut();
        let instance = match &mut *place {
            Some(instance) => instance,
            empty => empty.insert(self.plugin.instance().map_err(Box::new)?),
        };
        let counts = self.counts();
        let timed = counts.begin(hook);
        let result = exchange.lend(|exchange| instance.call(exchange, call));
        counts.end(timed);
        // A trapped instance refuses entry; one that is worn has done its service.
        let is_worn = result.is_ok() && instance.is_worn(self.plugin.limits.recycle_after);
        if result.is_err() || is_worn {
            counts.recycled.add(u64::from(is_worn));
            *place = None;
        }
        result
    }
}

impl std::fmt::Debug for Instance {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Instance").finish_non_exhaustive()
    }
}
