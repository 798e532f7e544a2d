//! What becomes of the lines that a plugin logs?

use std::{
    borrow::Cow,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use tracing::Level;

use super::{
    bindings::tollgate::policy::log, clocks::now, log_rate::Allowed, shared::Shared, surroundings::Journal,
};
use crate::{config::ByteSize, telemetry::escaped};

/// A line of a plugin in the proxy's log.
pub(super) struct Line<'a> {
    pub plugin: &'a str,
    pub request: Option<&'a str>,
    pub text: &'a str,
}

impl Line<'_> {
    /// In bytes; what is longer is cut.
    pub const LONGEST: usize = 8 << 10;

    fn write(&self, level: log::Level, journal: Option<&Journal>) {
        let Self { plugin, request, text } = *self;
        let text = &text[..text.floor_char_boundary(Self::LONGEST)];
        if let Some(journal) = journal {
            return journal.keep(Level::from(level), text);
        }
        match level {
            log::Level::Trace => tracing::trace!(target: "plugin", plugin, request, "{}", in_a_line(text)),
            log::Level::Debug => tracing::debug!(target: "plugin", plugin, request, "{}", in_a_line(text)),
            log::Level::Info => tracing::info!(target: "plugin", plugin, request, "{}", in_a_line(text)),
            log::Level::Warn => tracing::warn!(target: "plugin", plugin, request, "{}", in_a_line(text)),
            log::Level::Error => tracing::error!(target: "plugin", plugin, request, "{}", in_a_line(text)),
        }
    }
}

/// A line is one line whatever stands in it: what comes behind its end would look as if the proxy itself had said it.
fn in_a_line(text: &str) -> Cow<'_, str> {
    let text = text.trim_end_matches(['\r', '\n']);
    if text.trim().is_empty() {
        return "(the plugin has logged nothing but white space)".into();
    }
    escaped(text, |character| character == '\t')
}

impl From<log::Level> for Level {
    fn from(level: log::Level) -> Self {
        match level {
            log::Level::Trace => Self::TRACE,
            log::Level::Debug => Self::DEBUG,
            log::Level::Info => Self::INFO,
            log::Level::Warn => Self::WARN,
            log::Level::Error => Self::ERROR,
        }
    }
}

/// How many lines a call may still log, whether it writes or prints them, and where they go. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct LogLines {
    left: Arc<AtomicU32>,
    journal: Option<Arc<Journal>>,
    /// Where the lines of all instances are counted.
    shared: Arc<Shared>,
    /// Bytes that they may log in a second.
    rate: u64,
    /// What the call has printed on standard error.
    errors: Arc<Mutex<String>>,
}

impl LogLines {
    const OF_A_CALL: u32 = 64;
    /// Bytes of what is kept of standard error.
    const KEPT: usize = 1 << 10;
    /// Bytes of what is shown of it.
    const LAST_WORDS: usize = 512;

    /// Lines go to the journal, if there is one, and to the proxy's log otherwise.
    pub fn new(journal: Option<Arc<Journal>>, shared: Arc<Shared>, rate: u64) -> Self {
        let left = Arc::new(AtomicU32::new(Self::OF_A_CALL));
        Self { left, journal, shared, rate, errors: Arc::default() }
    }

    /// A call begins.
    pub fn renew(&self) {
        // Whoever has printed has fewer lines left.
        if self.left.load(Ordering::Relaxed) != Self::OF_A_CALL {
            self.left.store(Self::OF_A_CALL, Ordering::Relaxed);
            self.errors().clear();
        }
    }

    /// Logs what was printed.
    pub fn print(&self, line: &Line<'_>, is_error: bool) {
        if is_error && self.left.load(Ordering::Relaxed) > 0 {
            keep_end(&mut self.errors(), line.text, Self::KEPT);
        }
        self.write(log::Level::Info, line, None);
    }

    /// What the call has said of its end on standard error, in one line.
    pub fn last_words(&self) -> Option<String> {
        let words = last_words(&self.errors())?;
        let words = &words[..words.floor_char_boundary(Self::LAST_WORDS)];
        Some(escaped(words, |_| false).into_owned())
    }

    fn errors(&self) -> MutexGuard<'_, String> {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs a line, to the journal of the request in hand if it has one.
    pub fn write(&self, level: log::Level, line: &Line<'_>, of_request: Option<&Journal>) {
        let journal = of_request.or(self.journal.as_deref());
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return;
        }
        self.left.store(left - 1, Ordering::Relaxed);
        if journal.is_none() && is_enabled(level) && !self.is_in_time(line) {
            return;
        }
        line.write(level, journal);
        if left == 1 {
            let text = "the plugin logs too much, the rest of this call's lines are dropped";
            Line { text, ..*line }.write(log::Level::Warn, journal);
        }
    }
}

impl LogLines {
    /// Whether the plugin has not logged too much of late. Says so now and then if it has.
    fn is_in_time(&self, line: &Line<'_>) -> bool {
        let length = line.text.len().min(Line::LONGEST);
        match self.shared.log_rate.ask(length, self.rate, now()) {
            Allowed::Yes => true,
            Allowed::No => false,
            Allowed::NoAndSay(lines) => {
                let rate = ByteSize::bytes(usize::try_from(self.rate).unwrap_or(usize::MAX));
                let plugin = line.plugin;
                tracing::warn!(
                    plugin,
                    lines,
                    "the plugin logs more than {rate} a second, which is its `limits.log-rate`: lines were left out"
                );
                false
            }
        }
    }
}

/// Appends a line to what was printed, of which the last `most` bytes are kept.
fn keep_end(printed: &mut String, line: &str, most: usize) {
    let line = &line[line.ceil_char_boundary(line.len().saturating_sub(most - 1))..];
    let excess = (printed.len() + line.len() + 1).saturating_sub(most);
    printed.drain(..printed.ceil_char_boundary(excess));
    printed.push_str(line);
    printed.push('\n');
}

/// The message of a panic in what was printed on standard error, or else its last line.
fn last_words(printed: &str) -> Option<String> {
    let is_note = |line: &&str| line.starts_with("note: ") || line.starts_with("stack backtrace:");
    let lines = || printed.lines().map(str::trim).filter(|line| !line.is_empty());
    // As Rust prints it: thread 'main' (1) panicked at src/lib.rs:1:2: and below it the message.
    let panic = printed.find("panicked at ").map(|begin| {
        let said = printed[begin..].lines().map(str::trim).filter(|line| !line.is_empty());
        said.take_while(|line| !is_note(line)).collect::<Vec<_>>().join(" ")
    });
    panic.or_else(|| lines().rfind(|line| !is_note(line)).map(str::to_owned))
}

/// Whether anybody reads lines of this level.
fn is_enabled(level: log::Level) -> bool {
    match level {
        log::Level::Trace => tracing::enabled!(target: "plugin", Level::TRACE),
        log::Level::Debug => tracing::enabled!(target: "plugin", Level::DEBUG),
        log::Level::Info => tracing::enabled!(target: "plugin", Level::INFO),
        log::Level::Warn => tracing::enabled!(target: "plugin", Level::WARN),
        log::Level::Error => tracing::enabled!(target: "plugin", Level::ERROR),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_of_a_panic_is_found_in_what_was_printed() {
        for (printed, words) in [
            (
                "\nthread '<unnamed>' (1) panicked at src/lib.rs:1:2:\nno such key\nnote: run with `RUST_BACKTRACE=1`\n",
                Some("panicked at src/lib.rs:1:2: no such key"),
            ),
            ("reading\npanic: no such key\n\n", Some("panic: no such key")),
            ("\n", None),
            ("", None),
        ] {
            assert_eq!(last_words(printed).as_deref(), words, "{printed:?}");
        }
    }

    #[test]
    fn of_what_is_printed_the_end_is_kept() {
        let mut printed = String::new();
        for (line, kept) in
            [("ab", "ab\n"), ("", "ab\n\n"), ("cdef", "b\n\ncdef\n"), ("ghäijklm", "äijklm\n")]
        {
            keep_end(&mut printed, line, 8);
            assert_eq!(printed, kept, "{line}");
        }
        for _ in 0..100_000 {
            keep_end(&mut printed, "x", 8);
        }
        assert!(printed.len() <= 8 && printed.capacity() < 64, "{printed:?}");
    }
}
