//! How do build servers read what came of tests?
//!
//! JUnit's XML, as far as those that read it agree: a suite for each component, a case for each case and for each
//! check of the battery.

use std::{fmt::Write, time::Duration};

use super::{
    CaseReport, Report,
    conformance::{self, Conformance, Finding},
    file::Level,
};
use crate::plugin::Logged;

/// What came of one component.
#[derive(Debug)]
pub struct Suite {
    pub name: String,
    pub report: Option<Report>,
    pub conformance: Option<Conformance>,
    /// Why nothing could be tried; and whether that is the plugin's fault.
    pub not_tried: Option<(String, bool)>,
}

/// The whole document.
pub fn document(suites: &[Suite]) -> String {
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for suite in suites {
        let cases = cases(suite);
        let count = |kind: &str| {
            cases.iter().filter(|case| case.outcome.as_ref().is_some_and(|(is, _)| *is == kind)).count()
        };
        let _ = writeln!(
            text,
            "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\">",
            escape(&suite.name),
            cases.len(),
            count("failure"),
            count("error"),
            count("skipped"),
            cases.iter().map(|case| case.time).sum::<Duration>().as_secs_f64(),
        );
        for case in &cases {
            let _ = write!(
                text,
                "    <testcase classname=\"{}\" name=\"{}\" time=\"{:.3}\"",
                escape(&suite.name),
                escape(&case.name),
                case.time.as_secs_f64(),
            );
            let _ = match &case.outcome {
                None => writeln!(text, "/>"),
                Some(("skipped", words)) => {
                    writeln!(text, "><skipped message=\"{}\"/></testcase>", escape(words))
                }
                Some((kind, words)) => {
                    let first = escape(words.lines().next().unwrap_or_default());
                    writeln!(text, "><{kind} message=\"{first}\">{}</{kind}></testcase>", escape(words))
                }
            };
        }
        text.push_str("  </testsuite>\n");
    }
    text.push_str("</testsuites>\n");
    text
}

struct Case {
    name: String,
    time: Duration,
    /// An element of JUnit and its text; none for what has passed.
    outcome: Option<(&'static str, String)>,
}

fn cases(suite: &Suite) -> Vec<Case> {
    let mut cases = Vec::new();
    if let Some((words, is_plugins)) = &suite.not_tried {
        let kind = if *is_plugins { "failure" } else { "error" };
        cases.push(Case {
            name: "it can be loaded".into(),
            time: Duration::ZERO,
            outcome: Some((kind, words.clone())),
        });
    }
    for case in suite.report.iter().flat_map(|report| &report.cases) {
        let outcome = (!case.has_passed()).then(|| ("failure", tell(case)));
        cases.push(Case { name: case.name.clone(), time: case.time, outcome });
    }
    for (check, finding) in suite.conformance.iter().flat_map(|conformance| &conformance.findings) {
        let outcome = match finding {
            Finding::Passed => None,
            Finding::Failed(words) => Some(("failure", words.clone())),
            Finding::Skipped(words) => Some(("skipped", words.clone())),
            Finding::Environment(words) => Some(("error", words.clone())),
        };
        let name = format!("conformance {} {}: {}", conformance::VERSION, check.id(), check.name());
        cases.push(Case { name, time: Duration::ZERO, outcome });
    }
    cases
}

fn tell(case: &CaseReport) -> String {
    let mut text = String::new();
    for (number, step) in case.steps.iter().enumerate() {
        for difference in &step.differences {
            let step = if case.steps.len() > 1 { format!("step {}: ", number + 1) } else { String::new() };
            let _ = writeln!(
                text,
                "{step}{}: expected {}, was {}",
                difference.place(),
                difference.expected,
                difference.actual
            );
        }
        for Logged { level, text: line } in &step.logs {
            let _ = writeln!(text, "logged: {} {line}", Level::from(*level));
        }
    }
    text
}

/// Text as XML 1.0 can hold it: what it has no way to write becomes a replacement character.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' => escaped.push_str("&#10;"),
            '\t' => escaped.push(c),
            c if c < ' ' || c == '\u{fffe}' || c == '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_breaks_out_of_the_document() {
        assert_eq!(
            escape("<a b=\"c\">&\u{0}\u{1b}[31m"),
            "&lt;a b=&quot;c&quot;&gt;&amp;\u{fffd}\u{fffd}[31m"
        );
        let suite = Suite {
            name: "\"><x>".into(),
            report: None,
            conformance: None,
            not_tried: Some(("<b>".into(), true)),
        };
        let document = document(&[suite]);
        assert!(!document.contains("<x>") && !document.contains("<b>"), "{document}");
        assert!(document.contains("failures=\"1\" errors=\"0\""), "{document}");
    }
}
