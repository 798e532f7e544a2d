//! Does a version of a plugin pass the tests that lie beside its file?

use std::{path::Path, sync::Arc, time::Instant};

use super::{
    error::PluginError,
    files::{in_a_line, read_beside},
};
use crate::{
    config::{self, Config},
    file,
    plugin::{Code, Digest},
    plugin_tests::{CaseReport, PluginUnderTest, Report, TestFile},
};

/// The tests that a version has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tested {
    /// The file of tests, and the settings that it was run with if those are of the configuration.
    tests: (Digest, Option<Digest>),
    code: Digest,
    pub cases: usize,
}

/// Has the plugin go through the tests that lie beside its file, unless it has passed these very ones before. There is no
/// `file` where it is shipped or has served: such a version has passed its tests already.
pub(super) fn test(
    name: &str,
    code: &Arc<Code>,
    file: Option<&Path>,
    table: &config::Plugin,
    config: &Config,
    until: Instant,
    passed: Option<Tested>,
) -> Result<Option<Tested>, PluginError> {
    let Some(path) = file else { return Ok(None) };
    let path = path.with_extension("test.toml");
    let Some(text) = read_beside(&path, file::TESTS, config)? else { return Ok(None) };
    let digest = Digest::of(text.as_bytes());
    let (mut tests, _) = TestFile::read_text(&path, text)
        .map_err(|problems| PluginError::Tests(in_a_line(&path, &problems)))?;
    // Who may write tests may not read every file that the proxy can, nor the tables of other plugins: the file that
    // `config-from` names is not read. The plugin is tried with the settings that it is about to run with.
    let is_configured = tests.config_from.is_some();
    if is_configured {
        tests.config.clone_from(&table.config);
    }
    let settings = is_configured.then(|| Digest::of(table.config.to_string().as_bytes()));
    let tested = Tested { tests: (digest, settings), code: code.digest(), cases: tests.cases.len() };
    if passed == Some(tested) {
        return Ok(passed);
    }
    let report = PluginUnderTest { name: name.to_owned(), code: code.clone() }.run_until(&tests, until);
    if report.cases.len() < tests.cases.len() {
        return Err(PluginError::NoTime(config.limits.plugin_start.get()));
    }
    match first_failure(&report, is_configured) {
        None => Ok(Some(tested)),
        Some(failure) => Err(PluginError::Fails(failure)),
    }
}

/// What the first case that fails has to say, and how many others there are. With settings of the configuration, what is
/// expected and what comes may be a secret, and this goes to the log and to the admin API: only the place is told.
fn first_failure(report: &Report, is_configured: bool) -> Option<String> {
    let mut failures = report.cases.iter().filter(|case| !case.has_passed());
    let CaseReport { name, steps, .. } = failures.next()?;
    let difference = steps.iter().flat_map(|step| &step.differences).next()?;
    let place = difference.place();
    let more = match failures.count() {
        0 => String::new(),
        count => format!(" (and {count} more of {} cases)", report.cases.len()),
    };
    Some(if is_configured {
        // What comes after the first word may be a name that the plugin has made.
        let place = place.split('.').next().unwrap_or_default();
        format!("{name}: `{place}` is not as expected, and is not shown, since `config-from` is used{more}")
    } else {
        let (expected, actual) = (&difference.expected, &difference.actual);
        format!("{name}: {place} is {actual}, and was to be {expected}{more}")
    })
}
