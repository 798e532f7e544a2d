//! What does the outside get to know?
//!
//! Here is the log. What is counted, and how others add to it, is told in [`metrics`]; what is counted of
//! requests and connections in [`traffic`].

mod histogram;
pub mod metrics;
pub mod traffic;

pub use histogram::{Distribution, Histogram, Timed};
pub use metrics::{Counter, Page, Part, PerWorker, Tally, Writer};

use std::io::IsTerminal;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// How lines of the log look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people: one line each, in colour on a terminal.
    Human,
    /// One JSON object a line.
    Json,
}

/// Installs the subscriber, for the whole process. Lines go to standard error, from a thread of their own, so
/// that a slow terminal holds up no request; what is still under way is written when the guard is dropped.
///
/// `level` is a level or a list of `target=level`.
pub fn init(format: LogFormat, level: &str) -> Result<WorkerGuard, LogLevelError> {
    let filter = EnvFilter::try_new(level)
        .map_err(|source| LogLevelError { level: level.to_owned(), source: Box::new(source) })?;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let registry = tracing_subscriber::registry().with(filter);
    let layer = fmt::layer().with_writer(writer).with_ansi(std::io::stderr().is_terminal());
    // Fails if there is a subscriber already, which then goes on.
    let _ = match format {
        LogFormat::Human => registry.with(layer.with_target(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
    Ok(guard)
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
#[error("`{level}` is not a log level: write \"error\", \"warn\", \"info\", \"debug\" or \"trace\"")]
pub struct LogLevelError {
    level: String,
    source: Box<dyn std::error::Error + Send + Sync>,
}

#[cfg(test)]
mod tests {
    use super::with_sources;

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
    fn an_error_is_said_once() {
        let said = Failure::Unsaid(Box::new(Failure::Said(Box::new(Failure::Missing))));
        assert_eq!(with_sources(&said), "cannot start: cannot read: the file is missing");
    }
}
