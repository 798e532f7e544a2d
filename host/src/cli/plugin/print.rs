//! How do results look on a terminal?

use std::{io::IsTerminal, time::Duration};

use crate::{
    cli::output::say,
    plugin::Logged,
    plugin_tests::{
        CaseReport, Difference, Level,
        conformance::{self, Conformance, Finding, Soak},
    },
};

/// Colours, where there is a terminal to show them.
pub(super) struct Colors(bool);

impl Colors {
    /// As <https://no-color.org> asks for.
    pub fn of_terminal() -> Self {
        let unwanted = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !unwanted)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub fn faint(&self, text: &str) -> String {
        self.paint("2", text)
    }

    pub fn green(&self, text: &str) -> String {
        self.paint("32", text)
    }

    pub fn red(&self, text: &str) -> String {
        self.paint("31", text)
    }

    pub fn yellow(&self, text: &str) -> String {
        self.paint("33", text)
    }
}

pub(super) fn case(case: &CaseReport, colors: &Colors) {
    let time = colors.faint(&duration(case.time));
    if case.has_passed() {
        say!("  {} {} {time}", colors.green("ok  "), printable(&case.name));
        return;
    }
    say!("  {} {} {time}", colors.red("FAIL"), printable(&case.name));
    for (number, step) in case.steps.iter().enumerate() {
        let place = if case.steps.len() > 1 { format!("step {}: ", number + 1) } else { String::new() };
        step.differences.iter().for_each(|found| difference(&place, found, colors));
        logs(&place, &step.logs, colors);
    }
}

/// What the plugin has logged and printed in a step of a case that failed: there it says why it trapped.
fn logs(place: &str, logs: &[Logged], colors: &Colors) {
    if logs.is_empty() {
        return;
    }
    say!("       {place}logged by the plugin");
    for Logged { level, text } in logs {
        let level = Level::from(*level).to_string();
        for line in text.lines() {
            say!("         {}", colors.faint(&format!("{level:5} {}", printable(line))));
        }
    }
}

fn difference(place: &str, difference: &Difference, colors: &Colors) {
    say!("       {place}{}", printable(&difference.place()));
    for line in difference.expected.lines() {
        say!("         {}", colors.green(&format!("- {}", printable(line))));
    }
    for line in difference.actual.lines() {
        say!("         {}", colors.red(&format!("+ {}", printable(line))));
    }
}

/// Every check, or those alone that have not passed.
pub(super) fn conformance(found: &Conformance, all: bool, colors: &Colors) {
    for (check, finding) in &found.findings {
        let (label, words) = match finding {
            Finding::Passed if all => (colors.green("ok  "), None),
            Finding::Skipped(words) if all => (colors.yellow("skip"), Some(words)),
            Finding::Passed | Finding::Skipped(_) => continue,
            Finding::Failed(words) => (colors.red("FAIL"), Some(words)),
            Finding::Environment(words) => (colors.yellow("ENVIRONMENT"), Some(words)),
        };
        say!("  {label} {} {}", check.id(), check.name());
        for line in words.into_iter().flat_map(|words| words.lines()) {
            say!("         {}", printable(line));
        }
    }
    let count = |is: fn(&Finding) -> bool| found.findings.iter().filter(|(_, finding)| is(finding)).count();
    say!(
        "  conformance {}: {} passed, {} failed, {} skipped",
        conformance::VERSION,
        count(|finding| matches!(finding, Finding::Passed)),
        count(|finding| matches!(finding, Finding::Failed(_) | Finding::Environment(_))),
        count(|finding| matches!(finding, Finding::Skipped(_))),
    );
}

/// What a call takes, in the mean.
pub(super) fn soak(soak: &Soak) {
    for (hook, calls, time) in &soak.hooks {
        if let Some(mean) = time.checked_div(*calls) {
            say!("  {}: {} a call, over {calls}", hook.name(), duration(mean));
        }
    }
    say!("  memory: {} after {} calls", crate::config::ByteSize::bytes(soak.memory), soak.calls);
}

/// With a unit that leaves few digits.
pub(super) fn duration(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos() as f64;
    match nanoseconds {
        short if short < 1e3 => format!("{short:.0} ns"),
        short if short < 1e6 => format!("{:.2} us", short / 1e3),
        short if short < 1e9 => format!("{:.1} ms", short / 1e6),
        long => format!("{:.2} s", long / 1e9),
    }
}

/// Without what a terminal would obey: texts come from plugins.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}
