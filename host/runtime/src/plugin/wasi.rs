//! What of WASI is a plugin given?
//!
//! The usual toolchains import most of WASI 0.2 whether they use it or not. Clocks, random numbers, stdout
//! and stderr (which go to the log) work; environment and files are there and empty; sockets can be named
//! and not used. Hooks run on the thread that serves requests: one that sleeps pays for it with its time, and
//! one that waits for anything else than a moment traps.

use std::{
    future::Future,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use tokio::io::AsyncWrite;
use wasmtime::{
    Engine, Result,
    component::{HasData, Linker, Resource, ResourceTable, ResourceType, types},
};
use wasmtime_wasi::{
    WasiCtx,
    cli::{IsTerminal, StdoutStream},
    p2::{
        DynInputStream, DynOutputStream, DynPollable, OutputStream, Pollable, StreamError, StreamResult,
        bindings::sync::io::{poll, streams},
    },
};
use wasmtime_wasi_io::bindings::wasi::io as waiting;

use super::{
    alarm::Alarms,
    limits::Limits,
    log_lines::{Line, LogLines},
    surroundings::{Chance, Surroundings, WallClock},
};

/// Random bytes that a plugin may ask for at once.
const RANDOM: u64 = 64 << 10;

/// Resources of the host that an instance may have: streams, moments to wait for. They cost memory that is not its own.
const RESOURCES: usize = 4096;

/// What an instance may wait for at once.
const AWAITED: usize = 4096;

/// Where the resources of one instance are.
pub(super) fn resources() -> ResourceTable {
    let mut resources = ResourceTable::new();
    resources.set_max_capacity(RESOURCES);
    resources
}

/// What one instance sees of the system. Its output goes to the log, under the plugin's name.
pub(super) fn context(plugin: &Arc<str>, log_lines: &LogLines, surroundings: &Surroundings) -> WasiCtx {
    let mut builder = WasiCtx::builder();
    builder
        .max_random_size(RANDOM)
        .stdout(Output::new(plugin, log_lines, false))
        .stderr(Output::new(plugin, log_lines, true));
    if let Some(time) = &surroundings.time {
        builder.wall_clock(WallClock(time.clone()));
    }
    if let Some(chance) = &surroundings.chance {
        let mut random = chance.next();
        builder
            .secure_random(Chance::bytes(&mut random))
            .insecure_random(Chance::bytes(&mut random))
            .insecure_random_seed(random.u128(..));
    }
    builder.build()
}

/// Whether an import is WASI that works.
pub(super) fn is_offered(import: &str) -> bool {
    ["wasi:clocks/", "wasi:random/", "wasi:cli/", "wasi:filesystem/", "wasi:io/"]
        .iter()
        .any(|package| import.starts_with(package))
}

/// Whether an import may be named but not used.
pub(super) fn is_denied(import: &str) -> bool {
    import.starts_with("wasi:sockets/")
}

/// Adds an interface whose every function traps. `known` are the resources of interfaces that came before.
pub(super) fn deny<T: 'static>(
    linker: &mut Linker<T>,
    name: &str,
    interface: &types::ComponentInstance,
    known: &[ResourceType],
    engine: &Engine,
) -> Result<()> {
    let mut instance = linker.instance(name)?;
    for (item, external) in interface.exports(engine) {
        match external.ty {
            types::ComponentItem::ComponentFunc(_) => {
                let denied = format!("`{name}` is not for plugins: `{item}` was called");
                instance.func_new(item, move |_, _, _, _| Err(wasmtime::Error::msg(denied.clone())))?;
            }
            types::ComponentItem::Resource(resource) if !known.contains(&resource) => {
                instance.resource(item, ResourceType::host::<()>(), |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// `wasi:io` for code that may sleep: what waits for anything else traps.
pub(super) struct Waiting<'a> {
    pub table: &'a mut ResourceTable,
    pub alarms: &'a Alarms,
    pub limits: &'a mut Limits,
}

pub(super) struct OnlySleeps;

impl HasData for OnlySleeps {
    type Data<'a> = Waiting<'a>;
}

/// `wasi:io/error` never waits anyway.
pub(super) struct Errors;

impl HasData for Errors {
    type Data<'a> = &'a mut ResourceTable;
}

/// The outcome of a task that is expected to be ready.
fn at_once<T>(task: impl Future<Output = T>) -> Result<T> {
    match pin!(task).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(never()),
    }
}

/// The outcome of a task that waits for some moment, if for anything.
fn asleep<T>(task: impl Future<Output = T>, alarms: &Alarms, limits: &mut Limits) -> Result<T> {
    let mut task = pin!(task);
    loop {
        // What was waited for before is nothing to this task.
        alarms.take_next();
        if let Poll::Ready(output) = task.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Ok(output);
        }
        let duration = alarms.take_next().ok_or_else(never)?;
        limits.sleep(duration)?;
        alarms.pass(duration);
    }
}

fn never() -> wasmtime::Error {
    wasmtime::Error::msg("the plugin waits for what does not come in a hook")
}

impl poll::Host for Waiting<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        // One may be named more than once.
        if pollables.len() > AWAITED {
            return Err(wasmtime::Error::msg("the plugin waits for too much at once"));
        }
        asleep(waiting::poll::Host::poll(self.table, pollables), self.alarms, self.limits)?
    }
}

impl poll::HostPollable for Waiting<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> Result<bool> {
        at_once(waiting::poll::HostPollable::ready(self.table, pollable))?
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        asleep(waiting::poll::HostPollable::block(self.table, pollable), self.alarms, self.limits)?
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        waiting::poll::HostPollable::drop(self.table, pollable)
    }
}

impl streams::Host for Waiting<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.table, error)
    }
}

impl streams::HostInputStream for Waiting<'_> {
    fn read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        streams::HostInputStream::read(self.table, stream, len)
    }

    fn blocking_read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        at_once(waiting::streams::HostInputStream::blocking_read(self.table, stream, len))
            .map_err(StreamError::Trap)?
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        streams::HostInputStream::skip(self.table, stream, len)
    }

    fn blocking_skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        at_once(waiting::streams::HostInputStream::blocking_skip(self.table, stream, len))
            .map_err(StreamError::Trap)?
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        streams::HostInputStream::subscribe(self.table, stream)
    }

    fn drop(&mut self, stream: Resource<DynInputStream>) -> Result<()> {
        at_once(waiting::streams::HostInputStream::drop(self.table, stream))?
    }
}

impl streams::HostOutputStream for Waiting<'_> {
    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        streams::HostOutputStream::check_write(self.table, stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        streams::HostOutputStream::write(self.table, stream, bytes)
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        at_once(waiting::streams::HostOutputStream::blocking_write_and_flush(self.table, stream, bytes))
            .map_err(StreamError::Trap)?
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        len: u64,
    ) -> StreamResult<()> {
        at_once(waiting::streams::HostOutputStream::blocking_write_zeroes_and_flush(self.table, stream, len))
            .map_err(StreamError::Trap)?
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        streams::HostOutputStream::subscribe(self.table, stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        streams::HostOutputStream::write_zeroes(self.table, stream, len)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        streams::HostOutputStream::flush(self.table, stream)
    }

    fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        at_once(waiting::streams::HostOutputStream::blocking_flush(self.table, stream))
            .map_err(StreamError::Trap)?
    }

    fn splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        streams::HostOutputStream::splice(self.table, to, from, len)
    }

    fn blocking_splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        at_once(waiting::streams::HostOutputStream::blocking_splice(self.table, to, from, len))
            .map_err(StreamError::Trap)?
    }

    fn drop(&mut self, stream: Resource<DynOutputStream>) -> Result<()> {
        at_once(waiting::streams::HostOutputStream::drop(self.table, stream))?
    }
}

/// Standard output of a plugin: each line is a line in the log. Clones are the same.
#[derive(Clone)]
struct Output(Arc<Mutex<Unfinished>>);

/// A line that is being printed. Standard error comes piece by piece, each flushed.
struct Unfinished {
    plugin: Arc<str>,
    log_lines: LogLines,
    is_error: bool,
    line: Vec<u8>,
}

impl Output {
    fn new(plugin: &Arc<str>, log_lines: &LogLines, is_error: bool) -> Self {
        let (plugin, log_lines) = (plugin.clone(), log_lines.clone());
        Self(Arc::new(Mutex::new(Unfinished { plugin, log_lines, is_error, line: Vec::new() })))
    }
}

impl Unfinished {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            let room = Line::LONGEST.saturating_sub(self.line.len());
            self.line.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.finish();
            }
        }
    }

    fn finish(&mut self) {
        let text = String::from_utf8_lossy(&self.line);
        let text = text.trim_end();
        if !text.is_empty() {
            self.log_lines.print(&Line { plugin: &self.plugin, request: None, text }, self.is_error);
        }
        self.line.clear();
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.finish();
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        // Only components of WASI 0.3 ask for this, and those are not linked.
        Box::new(tokio::io::sink())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        false
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {}
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(Line::LONGEST)
    }
}
