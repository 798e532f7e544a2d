//! What does an endpoint say of its load?
//!
//! In a header of its responses or at an address of its own, as in ORCA (xDS, `OrcaLoadReport`), in text or JSON:
//! `TEXT application_utilization=0.4,cpu_utilization=0.7` or `JSON {"cpu_utilization": 0.7}`.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use http::{HeaderName, HeaderValue};

pub(super) const HEADER: HeaderName = HeaderName::from_static("endpoint-load-metrics");

/// How long a report tells something.
const LATE: Duration = Duration::from_secs(10);

/// The last report of an endpoint. Read and written by all workers.
#[derive(Debug, Default)]
pub(super) struct Reported {
    /// When the first one came.
    first: OnceLock<Instant>,
    /// Milliseconds from then, plus one, times 2^32; and the bits of the load. 0 if there is none.
    last: AtomicU64,
}

impl Reported {
    pub fn note(&self, report: &HeaderValue) {
        if let Some(load) = report.to_str().ok().and_then(parse) {
            self.set(load);
        }
    }

    /// Takes note of what was answered at the endpoint's own address. False if that is no report.
    pub fn note_answer(&self, body: &[u8], pointer: Option<&str>) -> bool {
        let load = serde_json::from_slice(body).ok().and_then(|report| parse_answer(&report, pointer));
        load.map(|load| self.set(load)).is_some()
    }

    fn set(&self, load: f32) {
        let first = self.first.get_or_init(Instant::now);
        // After 49 days it begins anew, which makes one report look old.
        let at = (first.elapsed().as_millis() as u32).wrapping_add(1);
        self.last.store(u64::from(at) << 32 | u64::from(load.to_bits()), Ordering::Relaxed);
    }

    /// The load, if it was reported not long ago.
    pub fn of_late(&self) -> Option<f32> {
        let last = self.last.load(Ordering::Relaxed);
        if last == 0 {
            return None;
        }
        let now = (self.first.get()?.elapsed().as_millis() as u32).wrapping_add(1);
        let age = now.wrapping_sub((last >> 32) as u32);
        (Duration::from_millis(age.into()) <= LATE).then(|| f32::from_bits(last as u32))
    }
}

/// The load in JSON: the number at `pointer` (RFC 6901), or as in a report.
fn parse_answer(report: &serde_json::Value, pointer: Option<&str>) -> Option<f32> {
    let number = |value: Option<&serde_json::Value>| Some(value?.as_f64()? as f32);
    match pointer {
        Some(pointer) => number(report.pointer(pointer)).filter(is_load),
        None => load(|wanted| number(report.get(wanted))),
    }
}

/// The load in the header.
fn parse(report: &str) -> Option<f32> {
    let (form, rest) = report.trim().split_once(' ')?;
    match form {
        "TEXT" => load(|wanted| {
            let mut pairs = rest.split(',').filter_map(|pair| pair.split_once('='));
            pairs.find(|(name, _)| name.trim() == wanted)?.1.trim().parse().ok()
        }),
        "JSON" => parse_answer(&serde_json::from_str(rest).ok()?, None),
        _ => None,
    }
}

/// Of the values of a report that of the application if it is there, otherwise the greater of processor and memory.
fn load(value: impl Fn(&str) -> Option<f32>) -> Option<f32> {
    let value = |wanted| value(wanted).filter(is_load);
    let of_machine = || {
        let (processor, memory) = (value("cpu_utilization"), value("mem_utilization"));
        processor.into_iter().chain(memory).reduce(f32::max)
    };
    value("application_utilization").or_else(of_machine)
}

/// Above 1 it is too much.
fn is_load(number: &f32) -> bool {
    number.is_finite() && *number >= 0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_read_in_text_and_json() {
        for (report, load) in [
            ("TEXT application_utilization=0.4,cpu_utilization=0.7", Some(0.4)),
            ("TEXT cpu_utilization=0.3, mem_utilization = 0.8", Some(0.8)),
            ("TEXT rps=12", None),
            ("JSON {\"cpu_utilization\": 0.5, \"rps_fractional\": 9}", Some(0.5)),
            ("JSON {", None),
            ("BIN abc", None),
            ("TEXT cpu_utilization=NaN", None),
            ("TEXT cpu_utilization=-1", None),
            ("TEXT cpu_utilization=1e99", None),
            ("TEXT", None),
            ("", None),
        ] {
            assert_eq!(parse(report), load, "{report}");
        }
    }

    #[test]
    fn an_answer_is_read_as_a_report_or_at_a_pointer() {
        for (answer, pointer, load) in [
            (r#"{"cpu_utilization": 0.5, "mem_utilization": 0.6}"#, None, Some(0.6)),
            (r#"{"cpu": {"used": 0.25}}"#, Some("/cpu/used"), Some(0.25)),
            (r#"{"all": [1, 2]}"#, Some("/all/1"), Some(2.0)),
            (r#"{"cpu": "0.25"}"#, Some("/cpu"), None),
            (r#"{"cpu": -1}"#, Some("/cpu"), None),
            (r#"{"cpu": 0.25}"#, None, None),
            ("[", None, None),
        ] {
            let reported = Reported::default();
            assert_eq!(reported.note_answer(answer.as_bytes(), pointer), load.is_some(), "{answer}");
            assert_eq!(reported.of_late(), load, "{answer}");
        }
    }

    #[test]
    fn the_last_report_counts_and_nonsense_does_not() {
        let reported = Reported::default();
        assert_eq!(reported.of_late(), None);
        for (report, load) in
            [("TEXT cpu_utilization=0.5", 0.5), ("TEXT cpu_utilization=0", 0.0), ("nonsense", 0.0)]
        {
            reported.note(&HeaderValue::from_static(report));
            assert_eq!(reported.of_late(), Some(load), "{report}");
        }
    }
}
