//! Does a version of a plugin pass the tests that lie beside its file?

use std::{fs, io, sync::Arc};

use super::{
    files::in_a_line,
    loading::{Origin, PluginError},
};
use crate::{
    plugin::{Code, Digest},
    trial::{CaseReport, Report, TestFile, Trial},
};

/// The tests that a version has passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tested {
    /// The file of tests.
    tests: Digest,
    code: Digest,
    pub cases: usize,
}

/// Has the plugin go through the tests that lie beside its file, unless it has passed these very ones before.
pub(super) fn test(
    name: &str,
    code: &Arc<Code>,
    origin: &Origin,
    passed: Option<Tested>,
) -> Result<Option<Tested>, PluginError> {
    // Others have passed, where somebody has made them so or they have served.
    let Origin::File(path) = origin else { return Ok(None) };
    let path = path.with_extension("test.toml");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(PluginError::Read { path, source }),
    };
    let (tests, code_digest) = (Digest::of(&text), code.digest());
    if let Some(passed) = passed.filter(|passed| (passed.tests, passed.code) == (tests, code_digest)) {
        return Ok(Some(passed));
    }
    let not_text = |_| PluginError::Tests(format!("{} is not text in UTF-8", path.display()));
    let text = String::from_utf8(text).map_err(not_text)?;
    let (file, _) = TestFile::read_text(&path, text)
        .map_err(|problems| PluginError::Tests(in_a_line(&path, &problems)))?;
    let report = Trial { name: name.to_owned(), code: code.clone() }.run(&file);
    match first_failure(&report) {
        None => Ok(Some(Tested { tests, code: code_digest, cases: report.cases.len() })),
        Some(failure) => Err(PluginError::Fails(failure)),
    }
}

/// What the first case that fails has to say, and how many others there are.
fn first_failure(report: &Report) -> Option<String> {
    let mut failures = report.cases.iter().filter(|case| !case.has_passed());
    let CaseReport { name, steps, .. } = failures.next()?;
    let difference = steps.iter().flat_map(|step| &step.differences).next()?;
    let (place, expected, actual) = (difference.place(), &difference.expected, &difference.actual);
    let more = match failures.count() {
        0 => String::new(),
        count => format!(" (and {count} more of {} cases)", report.cases.len()),
    };
    Some(format!("{name}: {place} is {actual}, and was to be {expected}{more}"))
}
