//! What does the outside get to know?
//!
//! Here is the log. What is counted, and how others add to it, is told in [`metrics`], how it is written in
//! [`exposition`]; what is counted of requests and connections in [`traffic`].

mod escape;
mod exposition;
mod histogram;
pub mod metrics;
mod sampler;
pub mod traffic;

pub use escape::escaped;
pub use exposition::{Format, Page};
pub use histogram::{Distribution, Histogram, Timed};
pub use metrics::{Counter, Part, PerWorker, Tally, Writer};
pub use sampler::sampled;
pub use sampler::{Admitted, admit};

use std::{
    io::{IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use escape::Escaping;
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: one line each, in colour on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// Lines that wait to be written, beyond which lines are lost: a request never waits for the log.
const WAITING: usize = 64_000;

/// Counts lines of this process's log that were lost.
static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Lines of the log that were lost since whoever reads standard error did not keep up.
pub fn lost_lines() -> u64 {
    LOST.get().map_or(0, |lost| lost.dropped_lines() as u64)
}

/// Writes lines to `output` from a thread of its own. Where more than so many wait, lines are lost and counted.
fn never_waiting(output: impl Write + Send + 'static, lines: usize) -> (NonBlocking, WorkerGuard) {
    let builder = NonBlockingBuilder::default().buffered_lines_limit(lines).lossy(true);
    let (writer, guard) = builder.finish(output);
    // There is one log in a process.
    let _ = LOST.set(writer.error_counter());
    (writer, guard)
}

/// Says how many lines were lost whenever some have been. Runs for ever.
pub async fn announce_losses() {
    const LOOK: Duration = Duration::from_secs(1);
    let mut said = 0;
    loop {
        tokio::time::sleep(LOOK).await;
        let lost = lost_lines();
        if lost > said {
            // Where this line is lost as well, there is one more to tell of the next time.
            tracing::warn!(
                lost = lost - said,
                in_all = lost,
                "lines of the log were lost: whoever reads standard error does not keep up"
            );
            said = lost;
        }
    }
}

/// Installs the subscriber, for the whole process. Lines go to standard error, from a thread of their own, so
/// that a slow terminal holds up no request; what is still under way is written when the guard is dropped.
///
/// `level` is a level or a list of `target=level`.
pub fn init(format: LogFormat, level: &str) -> Result<WorkerGuard, LogLevelError> {
    let filter = filter(level)?;
    let (writer, guard) = never_waiting(std::io::stderr(), WAITING);
    let registry = tracing_subscriber::registry().with(filter);
    let is_json = format == LogFormat::Json;
    let lines = move || Escaping { writer: writer.clone(), is_json };
    let layer = fmt::layer().with_writer(lines).with_ansi(std::io::stderr().is_terminal());
    // Fails if there is a subscriber already, which then goes on.
    let _ = match format {
        LogFormat::Human => registry.with(layer.with_target(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    Ok(guard)
}

/// What is logged: a level, or `target=level` for a part of the proxy, and several of them with commas.
fn filter(written: &str) -> Result<EnvFilter, LogLevelError> {
    let refused = || LogLevelError { level: written.to_owned() };
    // A word that is no level would be the name of a target, and nothing of any other would be logged.
    let is_level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| level.eq_ignore_ascii_case(word))
    };
    let is_target = |name: &str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:-.".contains(&byte))
    };
    let all_are_levels = written.split(',').all(|part| match part.rsplit_once('=') {
        Some((target, level)) => is_target(target.trim()) && is_level(level.trim()),
        None => is_level(part.trim()),
    });
    if !all_are_levels {
        return Err(refused());
    }
    EnvFilter::try_new(written).map_err(|_| refused())
}

/// An error and what it came from, in one line. What an error has said of its source already is not said again.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
        source = error.source();
    }
    text
}

/// The level of the log cannot be understood.
#[derive(Debug, thiserror::Error)]
#[error("`{level}` is not a log level: write error, warn, info, debug, trace or off, or target=level")]
pub struct LogLevelError {
    level: String,
}

#[cfg(test)]
mod tests {
    use std::{io, sync::mpsc};

    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("the file is missing")]
        Missing,
        #[error("cannot read: {0}")]
        Said(#[source] Box<Failure>),
        #[error("cannot start")]
        Unsaid(#[source] Box<Failure>),
    }

    #[test]
    fn a_misspelt_level_is_refused_and_does_not_silence_the_log() {
        for level in ["info", "WARN", "off", "info,tollgate=debug", "tollgate::proxy=trace,warn"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in
            ["", "inf", "nonsense", "warn;plugin=debug", "info,", "=info", "tollgate=inf", "tollgate"]
        {
            assert!(filter(level).is_err(), "{level}");
        }
    }

    #[test]
    fn an_error_is_said_once() {
        let said = Failure::Unsaid(Box::new(Failure::Said(Box::new(Failure::Missing))));
        assert_eq!(with_sources(&said), "cannot start: cannot read: the file is missing");
    }

    #[test]
    fn a_line_that_nobody_takes_is_lost_and_counted_and_holds_nobody_up() {
        /// Takes a line whenever it is allowed to.
        struct Slow(mpsc::Receiver<()>);

        impl Write for Slow {
            fn write(&mut self, line: &[u8]) -> io::Result<usize> {
                let _ = self.0.recv();
                Ok(line.len())
            }

            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }

        let (allow, allowed) = mpsc::channel();
        let (mut writer, guard) = never_waiting(Slow(allowed), 4);
        let before = lost_lines();
        for _ in 0..100 {
            writer.write_all(b"line\n").unwrap();
        }
        // One is being written, and four wait.
        assert!((95..=96).contains(&(lost_lines() - before)), "{}", lost_lines());
        drop(allow);
        drop(guard);
    }
}
