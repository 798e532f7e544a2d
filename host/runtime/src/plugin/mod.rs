//! What do the plugins say about it?
//!
//! A plugin is a component and its configuration. [`Engine::load`] turns bytes into [`Code`], once for each
//! file; [`Plugin`] is code with one table's settings; a [`Slot`] holds a worker's instance of it and makes
//! the calls. The request in hand travels as an [`Exchange`], which is the store's data while a hook runs.

mod alarm;
mod anatomy;
mod artifact;
mod bindings;
mod breaker;
mod canary;
mod capability;
mod client;
mod clocks;
mod code;
mod compile;
mod configured;
mod contract;
mod cost;
mod counts;
mod crowd;
mod engine;
mod epoch;
mod error;
mod exchange;
mod granted;
mod host;
mod host_io;
mod instance;
mod maintenance;
mod limits;
mod linker;
mod load_error;
mod log_lines;
mod log_rate;
mod unsent;
mod message_hook;
mod metrics;
mod offload;
mod outcome;
mod slow_calls;
mod record;
mod recording;
mod room;
mod sequences;
mod settings;
mod shadow;
mod shared;
pub mod shipped;
mod slot;
mod state;
mod surroundings;
mod taint;
mod text;
mod trust;
mod verdict;
mod versions;
mod wasi;

pub use anatomy::{Anatomy, AnatomyError, Range};
pub use artifact::Digest;
pub use canary::{Comparison, Ended, Judgement, Seen, Side, write_canaries};
pub use capability::{
    Capabilities, Capability, Granted, Quota, SecretError, Secrets, Store, StoreError, Usage,
};
pub use code::{Code, Hooks, Takes};
pub use compile::{CompileError, CompileLimits, Compiler, compile_for_parent};
pub use configured::Plugin;
pub use counts::{FailureKind, Hook, Metric, MetricKind, PluginCounts, RouteCalls};
pub use engine::{Engine, EngineError, EngineSettings};
pub use error::{CallError, Edit, StartError};
pub use exchange::{Exchange, ExchangeSlot, Purpose, Reply, ResponseHead};
pub use host_io::{BodyError, HostIo, NoHostIo, at_once};
pub use load_error::LoadError;
pub use maintenance::Maintenance;
pub use message_hook::{MessageHook, RequestHook, ResponseHook};
pub use metrics::{write_on_routes, write_plugins};
pub use offload::{OffloadThread, make_way};
pub use outcome::{Batch, Completed, Outcomes};
pub use record::{
    Begun, Call, Choice, Decided, Errand, Recorded, SeenExchange, SeenPick, SeenResponse, Sides,
};
pub use recording::Recording;
pub use room::NoRoom;
pub use shadow::{Compare, Difference, DifferenceKind, ReadBodies, Shadow, write_shadows};
pub use shared::Shared;
pub use slot::{CallContext, Slot};
pub use surroundings::{Chance, Journal, Logged, Surroundings, Time};
pub use taint::Taint;
pub use text::brief;
pub use trust::{Demand, TrustError, signature_file};
pub use verdict::{RequestVerdict, ResponseVerdict};
pub use versions::{History, TakeBackError, Version, Versions};
