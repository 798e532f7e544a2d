//! What is written for whoever scrapes?
//!
//! A [`Page`] is the exposition of all that is counted, in one of two text formats, a family at a time.

use std::{
    fmt::{self, Write},
    ops::Range,
};

use super::Distribution;

/// How a [`Page`] is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// All that is counted, at one moment.
#[derive(Debug)]
pub struct Page {
    text: String,
    format: Format,
}

impl Page {
    pub fn new(format: Format) -> Self {
        Self { text: String::new(), format }
    }

    /// A family of counts that only grow. Its name ends in `_total`.
    pub fn counter(&mut self, name: &'static str, help: &str, rows: impl FnOnce(&mut Rows<'_>)) {
        self.family(name, "counter", help, rows);
    }

    /// A family of numbers that rise and fall.
    pub fn gauge(&mut self, name: &'static str, help: &str, rows: impl FnOnce(&mut Rows<'_>)) {
        self.family(name, "gauge", help, rows);
    }

    /// A family of distributions, of seconds unless its name says otherwise.
    pub fn histogram(&mut self, name: &'static str, help: &str, rows: impl FnOnce(&mut Rows<'_>)) {
        self.family(name, "histogram", help, rows);
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str, rows: impl FnOnce(&mut Rows<'_>)) {
        let escaped = match self.format {
            Format::Prometheus => name,
            Format::OpenMetrics => name.strip_suffix("_total").unwrap_or(name),
        };
        let start = self.text.len();
        self.write(format_args!("# HELP {escaped} {help}\n# TYPE {escaped} {kind}\n"));
        let head = self.text.len();
        rows(&mut Rows { name, page: self });
        if self.text.len() == head {
            // A family without a member is none.
            self.text.truncate(start);
        }
    }

    /// The text.
    pub fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn write(&mut self, text: fmt::Arguments<'_>) {
        self.text.write_fmt(text).expect("a string takes all that is written");
    }
}

/// The members of one family.
#[derive(Debug)]
pub struct Rows<'a> {
    name: &'static str,
    page: &'a mut Page,
}

/// What tells the members of a family apart.
pub type Labels<'a> = [(&'a str, &'a str)];

impl Rows<'_> {
    pub fn row(&mut self, labels: &Labels<'_>, value: impl fmt::Display) {
        self.line("", labels, None, value);
    }

    /// A distribution of durations; `octaves` is the range that is told, see [`Distribution::octaves`].
    pub fn distribution(&mut self, labels: &Labels<'_>, durations: &Distribution, octaves: Range<usize>) {
        self.buckets(labels, durations.octaves(octaves), durations.count(), durations.sum().as_secs_f64());
    }

    /// A distribution of anything: upper bounds with the observations up to them, in rising order.
    pub fn buckets(
        &mut self,
        labels: &Labels<'_>,
        bounds: impl Iterator<Item = (f64, u64)>,
        count: u64,
        sum: f64,
    ) {
        for (bound, below) in bounds {
            self.line("_bucket", labels, Some(&bound), below);
        }
        self.line("_bucket", labels, Some(&"+Inf"), count);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &Labels<'_>,
        bound: Option<&dyn fmt::Display>,
        value: impl fmt::Display,
    ) {
        let name = self.name;
        self.page.write(format_args!("{name}{suffix}"));
        let mut before = '{';
        for (label, value) in labels {
            self.page.write(format_args!("{before}{label}=\"{}\"", Escaped(value)));
            before = ',';
        }
        if let Some(bound) = bound {
            self.page.write(format_args!("{before}le=\"{bound}\""));
            before = ',';
        }
        let end = if before == ',' { "}" } else { "" };
        self.page.write(format_args!("{end} {value}\n"));
    }
}

/// The value of a label as both formats want it.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '\\' => formatter.write_str("\\\\")?,
                '"' => formatter.write_str("\\\"")?,
                '\n' => formatter.write_str("\\n")?,
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_written_in_either_format() {
        let write = |format| {
            let mut page = Page::new(format);
            page.counter("x_total", "Things.", |family| {
                family.row(&[("name", "a \"b\"\\\n"), ("kind", "c")], 3);
            });
            page.gauge("y", "Level.", |family| family.row(&[], 0.5));
            page.gauge("z", "Nothing.", |_| {});
            page.histogram("d_seconds", "Time.", |family| {
                family.buckets(&[("name", "a")], [(0.25, 1), (0.5, 2)].into_iter(), 3, 1.5);
            });
            page.finish()
        };
        let prometheus = "# HELP x_total Things.\n# TYPE x_total counter\n\
            x_total{name=\"a \\\"b\\\"\\\\\\n\",kind=\"c\"} 3\n\
            # HELP y Level.\n# TYPE y gauge\ny 0.5\n\
            # HELP d_seconds Time.\n# TYPE d_seconds histogram\n\
            d_seconds_bucket{name=\"a\",le=\"0.25\"} 1\nd_seconds_bucket{name=\"a\",le=\"0.5\"} 2\n\
            d_seconds_bucket{name=\"a\",le=\"+Inf\"} 3\nd_seconds_sum{name=\"a\"} 1.5\n\
            d_seconds_count{name=\"a\"} 3\n";
        assert_eq!(write(Format::Prometheus), prometheus);
        let open = prometheus.replace("HELP x_total", "HELP x").replace("TYPE x_total", "TYPE x") + "# EOF\n";
        assert_eq!(write(Format::OpenMetrics), open);
    }
}
