//! How does a value differ from what was expected?

use std::{collections::BTreeMap, fmt};

use http::HeaderMap;

use super::values::Expected;

/// What nothing is expected of, yet happened.
pub(super) const NOTHING: &str = "nothing";

/// One thing that is other than it was to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Keys of the expectation, from the outermost.
    pub at: Vec<String>,
    pub expected: String,
    pub actual: String,
}

impl Difference {
    /// The keys as they would be written in TOML.
    pub fn place(&self) -> String {
        self.at.join(".")
    }
}

/// All that is other than it was to be.
pub(super) struct Differences(pub(super) Vec<Difference>);

impl Differences {
    pub fn add(&mut self, at: &[&str], expected: impl Into<String>, actual: impl Into<String>) {
        let at = at.iter().map(|key| (*key).to_owned()).collect();
        self.0.push(Difference { at, expected: expected.into(), actual: actual.into() });
    }

    pub fn unless_same<T: PartialEq + fmt::Display>(
        &mut self,
        at: &[&str],
        expected: Option<T>,
        actual: Option<T>,
    ) {
        if expected != actual {
            let tell = |value: Option<T>| value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string());
            self.add(at, tell(expected), tell(actual));
        }
    }
}

pub(super) fn compare_headers(
    at: &[&str],
    expect: &BTreeMap<String, Expected>,
    headers: &HeaderMap,
    found: &mut Differences,
) {
    for (name, expected) in expect {
        let at = [at, &[name.as_str()]].concat();
        let actual = texts(headers, name);
        if let Expected::Are(expected) = expected {
            if *expected != actual {
                let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
                let actual: Vec<&str> = actual.iter().map(String::as_str).collect();
                found.add(&at, format!("{expected:?}"), format!("{actual:?}"));
            }
            continue;
        }
        let joined = (!actual.is_empty()).then(|| actual.join(", "));
        compare_text(&at, expected, joined.as_deref(), found);
    }
}

/// Whether these headers are as they are to be.
pub fn are_as_expected(expect: &BTreeMap<String, Expected>, headers: &HeaderMap) -> bool {
    let mut found = Differences(Vec::new());
    compare_headers(&[], expect, headers, &mut found);
    found.0.is_empty()
}

/// The values of a header, each the string whose code points are its bytes.
pub fn texts(headers: &HeaderMap, name: &str) -> Vec<String> {
    let values = headers.get_all(name.to_ascii_lowercase()).iter();
    values.map(|value| value.as_bytes().iter().copied().map(char::from).collect()).collect()
}

pub(super) fn compare_text(at: &[&str], expected: &Expected, actual: Option<&str>, found: &mut Differences) {
    let tell = match (expected, actual) {
        (Expected::Present, Some(_)) | (Expected::Absent, None) => return,
        (Expected::Is(expected), Some(actual)) if expected == actual => return,
        (Expected::Are(expected), Some(actual)) if *expected == [actual] => return,
        (Expected::Present, None) => "anything".to_owned(),
        (Expected::Absent, Some(_)) => NOTHING.to_owned(),
        (Expected::Is(expected), _) => quoted(expected),
        (Expected::Are(expected), _) => format!("{expected:?}"),
    };
    found.add(at, tell, actual.map_or_else(|| NOTHING.to_owned(), quoted));
}

pub(super) fn quoted(text: &str) -> String {
    format!("{text:?}")
}
