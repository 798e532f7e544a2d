//! What of WASI is a plugin given?
//!
//! The usual toolchains import most of WASI 0.2 whether they use it or not. Clocks, random numbers, stdout
//! and stderr (which go to the log) work; environment and files are there and empty; sockets can be named
//! and not used. Nothing here ever waits: hooks run on the thread that serves requests, so whatever would
//! block there traps instead.

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
    WasiCtx, WasiView,
    cli::{IsTerminal, StdoutStream, WasiCli, WasiCliView},
    clocks::{WasiClocks, WasiClocksView},
    filesystem::{WasiFilesystem, WasiFilesystemView},
    p2::{
        DynInputStream, DynOutputStream, DynPollable, OutputStream, Pollable, StreamError, StreamResult,
        bindings::{
            cli, clocks, filesystem, random,
            sync::{
                self,
                io::{poll, streams},
            },
        },
    },
    random::{WasiRandom, WasiRandomView},
};
use wasmtime_wasi_io::bindings::wasi::io as waiting;

use super::{
    host::{Line, LogLines},
    surroundings::{Chance, Clocks, Surroundings},
};

/// Random bytes that a plugin may ask for at once.
const RANDOM: u64 = 64 << 10;

/// What one instance sees of the system. Its output goes to the log, under the plugin's name.
pub(super) fn context(plugin: &Arc<str>, log_lines: &LogLines, surroundings: &Surroundings) -> WasiCtx {
    let mut builder = WasiCtx::builder();
    builder
        .max_random_size(RANDOM)
        .stdout(Output::new(plugin, log_lines))
        .stderr(Output::new(plugin, log_lines));
    if let Some(time) = &surroundings.time {
        let clocks = || Clocks { time: time.clone(), chance: surroundings.chance.clone() };
        builder.wall_clock(clocks()).monotonic_clock(clocks());
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

/// Adds what works to a linker.
pub(super) fn add_to_linker<T: WasiView>(linker: &mut Linker<T>) -> Result<()> {
    clocks::wall_clock::add_to_linker::<T, WasiClocks>(linker, T::clocks)?;
    clocks::monotonic_clock::add_to_linker::<T, WasiClocks>(linker, T::clocks)?;
    random::random::add_to_linker::<T, WasiRandom>(linker, T::random)?;
    random::insecure::add_to_linker::<T, WasiRandom>(linker, T::random)?;
    random::insecure_seed::add_to_linker::<T, WasiRandom>(linker, T::random)?;
    cli::exit::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::environment::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::stdin::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::stdout::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::stderr::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_input::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_output::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stdin::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stdout::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    cli::terminal_stderr::add_to_linker::<T, WasiCli>(linker, T::cli)?;
    // Without preopened folders there is no descriptor to call any of these with.
    filesystem::preopens::add_to_linker::<T, WasiFilesystem>(linker, T::filesystem)?;
    sync::filesystem::types::add_to_linker::<T, WasiFilesystem>(linker, T::filesystem)?;
    waiting::error::add_to_linker::<T, Errors>(linker, |state| state.ctx().table)?;
    poll::add_to_linker::<T, NeverWaits>(linker, |state| NoWait(state.ctx().table))?;
    streams::add_to_linker::<T, NeverWaits>(linker, |state| NoWait(state.ctx().table))
}

/// Whether an import is WASI that [`add_to_linker`] has added.
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

/// `wasi:io` for code that must not wait: what is not ready at once traps.
struct NoWait<'a>(&'a mut ResourceTable);

struct NeverWaits;

impl HasData for NeverWaits {
    type Data<'a> = NoWait<'a>;
}

/// `wasi:io/error` never waits anyway.
struct Errors;

impl HasData for Errors {
    type Data<'a> = &'a mut ResourceTable;
}

/// The outcome of a task that is expected to be ready.
fn at_once<T>(task: impl Future<Output = T>) -> Result<T> {
    match pin!(task).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Ok(output),
        Poll::Pending => Err(wasmtime::Error::msg("the plugin tried to wait, which a hook may not")),
    }
}

impl poll::Host for NoWait<'_> {
    fn poll(&mut self, pollables: Vec<Resource<DynPollable>>) -> Result<Vec<u32>> {
        at_once(waiting::poll::Host::poll(self.0, pollables))?
    }
}

impl poll::HostPollable for NoWait<'_> {
    fn ready(&mut self, pollable: Resource<DynPollable>) -> Result<bool> {
        at_once(waiting::poll::HostPollable::ready(self.0, pollable))?
    }

    fn block(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        at_once(waiting::poll::HostPollable::block(self.0, pollable))?
    }

    fn drop(&mut self, pollable: Resource<DynPollable>) -> Result<()> {
        waiting::poll::HostPollable::drop(self.0, pollable)
    }
}

impl streams::Host for NoWait<'_> {
    fn convert_stream_error(&mut self, error: StreamError) -> Result<streams::StreamError> {
        streams::Host::convert_stream_error(self.0, error)
    }
}

impl streams::HostInputStream for NoWait<'_> {
    fn read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        streams::HostInputStream::read(self.0, stream, len)
    }

    fn blocking_read(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<Vec<u8>> {
        at_once(waiting::streams::HostInputStream::blocking_read(self.0, stream, len))
            .map_err(StreamError::Trap)?
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        streams::HostInputStream::skip(self.0, stream, len)
    }

    fn blocking_skip(&mut self, stream: Resource<DynInputStream>, len: u64) -> StreamResult<u64> {
        at_once(waiting::streams::HostInputStream::blocking_skip(self.0, stream, len))
            .map_err(StreamError::Trap)?
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> Result<Resource<DynPollable>> {
        streams::HostInputStream::subscribe(self.0, stream)
    }

    fn drop(&mut self, stream: Resource<DynInputStream>) -> Result<()> {
        at_once(waiting::streams::HostInputStream::drop(self.0, stream))?
    }
}

impl streams::HostOutputStream for NoWait<'_> {
    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        streams::HostOutputStream::check_write(self.0, stream)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        streams::HostOutputStream::write(self.0, stream, bytes)
    }

    fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        at_once(waiting::streams::HostOutputStream::blocking_write_and_flush(self.0, stream, bytes))
            .map_err(StreamError::Trap)?
    }

    fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        len: u64,
    ) -> StreamResult<()> {
        at_once(waiting::streams::HostOutputStream::blocking_write_zeroes_and_flush(self.0, stream, len))
            .map_err(StreamError::Trap)?
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> Result<Resource<DynPollable>> {
        streams::HostOutputStream::subscribe(self.0, stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, len: u64) -> StreamResult<()> {
        streams::HostOutputStream::write_zeroes(self.0, stream, len)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        streams::HostOutputStream::flush(self.0, stream)
    }

    fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        at_once(waiting::streams::HostOutputStream::blocking_flush(self.0, stream))
            .map_err(StreamError::Trap)?
    }

    fn splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        streams::HostOutputStream::splice(self.0, to, from, len)
    }

    fn blocking_splice(
        &mut self,
        to: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        len: u64,
    ) -> StreamResult<u64> {
        at_once(waiting::streams::HostOutputStream::blocking_splice(self.0, to, from, len))
            .map_err(StreamError::Trap)?
    }

    fn drop(&mut self, stream: Resource<DynOutputStream>) -> Result<()> {
        at_once(waiting::streams::HostOutputStream::drop(self.0, stream))?
    }
}

/// Standard output of a plugin: each line is a line in the log. Clones are the same.
#[derive(Clone)]
struct Output(Arc<Mutex<Unfinished>>);

/// A line that is being printed. Standard error comes piece by piece, each flushed.
struct Unfinished {
    plugin: Arc<str>,
    log_lines: LogLines,
    line: Vec<u8>,
}

impl Output {
    fn new(plugin: &Arc<str>, log_lines: &LogLines) -> Self {
        let (plugin, log_lines) = (plugin.clone(), log_lines.clone());
        Self(Arc::new(Mutex::new(Unfinished { plugin, log_lines, line: Vec::new() })))
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
            self.log_lines.print(&Line { plugin: &self.plugin, request: None, text });
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
