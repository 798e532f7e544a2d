//! What does an endpoint say of its load?
//!
//! In a header of its responses, as in ORCA (xDS, `OrcaLoadReport`), in text or JSON:
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
        let Some(load) = report.to_str().ok().and_then(parse) else { return };
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

/// The load in a report: that of the application if it is there, otherwise the greater of processor and memory. Not
/// negative and finite; above 1 it is too much.
fn parse(report: &str) -> Option<f32> {
    let (form, rest) = report.trim().split_once(' ')?;
    let value = |wanted: &str| -> Option<f32> {
        let number = match form {
            "TEXT" => {
                let mut pairs = rest.split(',').filter_map(|pair| pair.split_once('='));
                pairs.find(|(name, _)| name.trim() == wanted)?.1.trim().parse().ok()?
            }
            "JSON" => serde_json::from_str::<serde_json::Value>(rest).ok()?.get(wanted)?.as_f64()? as f32,
            _ => return None,
        };
        (number.is_finite() && number >= 0.0).then_some(number)
    };
    let of_machine = || {
        let (processor, memory) = (value("cpu_utilization"), value("mem_utilization"));
        processor.into_iter().chain(memory).reduce(f32::max)
    };
    value("application_utilization").or_else(of_machine)
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
