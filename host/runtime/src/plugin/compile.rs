//! How is a component compiled without harm, whatever it is?
//!
//! A compiler that is given a file made for it takes any amount of memory and time: 610 KB have taken 887 MB. So the proxy does
//! not compile in its own process. It starts its own executable as a child, which compiles and does nothing else, and kills it
//! when it takes more memory or time than it may.

use std::{
    env, fs,
    io::{self, Read, Seek, Write},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::{
    fs::{MemfdFlags, memfd_create},
    process::{
        Resource, Rlimit, Signal, getppid, set_parent_process_death_signal, setpriority_process, setrlimit,
    },
};
use wasmtime::component::Component;

use super::settings::{Layout, configuration, reason};
use crate::{config::ByteSize, file};

/// Who compiles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Compiler {
    /// A child process: this executable, whose `main` must call [`compile_for_parent`] before anything else.
    Child(PathBuf),
    /// This process. Nothing limits the memory, and what takes too long goes on: for programs that load only components that
    /// they trust, such as tests and benchmarks.
    InProcess,
}

impl Compiler {
    /// The executable that runs, as a child. It is found whatever has become of its file since it was started.
    pub fn own_executable() -> Self {
        Self::Child("/proc/self/exe".into())
    }
}

/// What a compilation may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    pub time: Duration,
    /// Kept to by a child process alone.
    pub memory: ByteSize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        let crate::config::Limits { plugin_compile, plugin_compile_memory, .. } = Default::default();
        Self { time: plugin_compile.get(), memory: plugin_compile_memory }
    }
}

/// Why a component was not compiled.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("{0}")]
    Invalid(String),
    #[error("compiling it took longer than {} s and was stopped; if it needs more, raise `limits.plugin-compile`", .0.as_secs_f64())]
    Slow(Duration),
    #[error(
        "compiling it took more than {0} of memory and was stopped; if it needs more, raise `limits.plugin-compile-memory`"
    )]
    Memory(ByteSize),
    #[error("it makes more than {0} of machine code")]
    Large(ByteSize),
    #[error("cannot start {} to compile it", program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("cannot compile it: the process that does has ended with {0}")]
    Ended(ExitStatus),
    #[error("cannot compile it: the process that does has said nothing that can be understood")]
    Answer,
}

/// The first argument of a process that compiles.
const COMMAND: &str = "compile-for-parent";

/// Address space that the child may have beyond the memory that it may use: the executable, stacks, what allocators reserve.
const UNUSED: u64 = 4 << 30;

/// Machine code that a component may make: sixteen bytes for each of its own is several times what compilers make, and the
/// proxy has to hold it in memory.
fn largest(component: usize) -> ByteSize {
    ByteSize::bytes(component.saturating_mul(16).saturating_add(16 << 20))
}

/// Threads that compile at once, at most: what is compiled is not worth more of the machine.
const THREADS: usize = 8;

/// What the child's answer begins with.
const COMPILED: u8 = b'+';
const INVALID: u8 = b'-';

/// Compiles the component in a child process. Waits for it, so this is not for a worker.
pub(super) fn in_child(
    program: &Path,
    bytes: &[u8],
    layout: Layout,
    limits: CompileLimits,
) -> Result<Vec<u8>, CompileError> {
    let cannot = |source| CompileError::Start { program: program.to_owned(), source };
    let largest = largest(bytes.len());
    let run = || -> io::Result<(Running, fs::File)> {
        // Files in memory, so that neither side waits for the other.
        let mut component = fs::File::from(memfd_create("component", MemfdFlags::CLOEXEC)?);
        component.write_all(bytes)?;
        component.rewind()?;
        let answer = fs::File::from(memfd_create("compiled", MemfdFlags::CLOEXEC)?);
        let threads = thread::available_parallelism().map_or(1, usize::from).min(THREADS);
        let numbers = [limits.memory.get(), largest.get(), std::process::id().into()];
        let child = Command::new(program)
            .args([COMMAND, layout.name()])
            .args(numbers.map(|number| number.to_string()))
            .env_clear()
            .env("RAYON_NUM_THREADS", threads.to_string())
            .current_dir("/")
            .stdin(Stdio::from(component))
            .stdout(Stdio::from(answer.try_clone()?))
            .stderr(Stdio::null())
            .spawn()?;
        Ok((Running(child), answer))
    };
    let (mut child, mut answer) = run().map_err(cannot)?;
    let status = child.end_within(limits)?;
    answer.rewind().map_err(cannot)?;
    let mut said = file::read_to_end(&answer, largest.get()).map_err(cannot)?;
    match said.first() {
        Some(&COMPILED) if status.success() => Ok(said.split_off(1)),
        Some(&INVALID) if status.success() => {
            Err(CompileError::Invalid(String::from_utf8_lossy(&said[1..]).into_owned()))
        }
        _ if status.success() => Err(CompileError::Answer),
        // What an allocator makes of the limit of address space.
        _ if has_ended_by(status, Signal::ABORT) => Err(CompileError::Memory(limits.memory)),
        _ if has_ended_by(status, Signal::XFSZ) => Err(CompileError::Large(largest)),
        _ => Err(CompileError::Ended(status)),
    }
}

fn has_ended_by(status: ExitStatus, signal: Signal) -> bool {
    status.signal() == Some(signal.as_raw())
}

/// A child that is killed and waited for when this is dropped.
struct Running(Child);

impl Running {
    /// Waits for its end, and kills it if it takes more than it may.
    fn end_within(&mut self, limits: CompileLimits) -> Result<ExitStatus, CompileError> {
        const LONGEST: Duration = Duration::from_millis(20);
        let since = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            match self.0.try_wait() {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => {}
                Err(source) => return Err(CompileError::Start { program: COMMAND.into(), source }),
            }
            if since.elapsed() > limits.time {
                return Err(CompileError::Slow(limits.time));
            }
            if resident(self.0.id()).is_some_and(|resident| resident > limits.memory.get()) {
                return Err(CompileError::Memory(limits.memory));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(LONGEST);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing, if it has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Bytes of memory that a process has to itself, without what is mapped of files.
fn resident(process: u32) -> Option<u64> {
    let text = file::read_text(Path::new(&format!("/proc/{process}/status")), 64 << 10).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes << 10)
}

/// Compiles, if this process is the child that [`Compiler::Child`] has started. A program that uses it calls this first of all.
pub fn compile_for_parent() -> Option<ExitCode> {
    let mut arguments = env::args().skip(1);
    if arguments.next()? != COMMAND {
        return None;
    }
    let layout = Layout::read(&arguments.next()?)?;
    let mut number = || arguments.next()?.parse::<u64>().ok();
    let (memory, largest, parent) = (number()?, number()?, number()?);
    Some(match compile(layout, memory, largest, parent) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn compile(layout: Layout, memory: u64, largest: u64, parent: u64) -> io::Result<()> {
    // Whoever waits for this may be gone, and may have been before the next line.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if getppid().is_none_or(|now| u64::from(now.as_raw_nonzero().get().cast_unsigned()) != parent) {
        return Err(io::Error::other("the parent is gone"));
    }
    let limit = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, largest)?;
    // The parent looks at the memory that is used. This is for what happens between two looks.
    let _ = limit(Resource::As, memory.saturating_add(UNUSED));
    // Requests come first; but not so that a busy machine makes it take too long.
    let _ = setpriority_process(None, 2);

    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    let compiled = wasmtime::Engine::new(&configuration(layout, None))
        .and_then(|engine| Component::from_binary(&engine, &bytes)?.serialize());
    let mut answer = io::stdout();
    match compiled {
        Ok(artifact) => {
            answer.write_all(&[COMPILED])?;
            answer.write_all(&artifact)?;
        }
        Err(error) => {
            answer.write_all(&[INVALID])?;
            answer.write_all(reason(&error).as_bytes())?;
        }
    }
    answer.flush()
}
