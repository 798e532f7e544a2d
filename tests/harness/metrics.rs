//! A reader of the text format of Prometheus that lets nothing pass.

use std::collections::{BTreeMap, BTreeSet};

/// The samples of a page, by name and labels.
#[derive(Debug)]
pub struct Metrics {
    samples: BTreeMap<Series, f64>,
    /// The kind of each family.
    families: BTreeMap<String, String>,
}

type Series = (String, BTreeMap<String, String>);

impl Metrics {
    /// Reads a page; fails the test if it is not as the format wants it.
    pub fn parse(text: &str) -> Self {
        let mut page = Self { samples: BTreeMap::new(), families: BTreeMap::new() };
        let mut family = String::new();
        assert!(text.ends_with('\n'), "the last line ends");
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').expect("a help has a text");
                assert!(is_name(name) && !help.is_empty(), "{line}");
                family = name.to_owned();
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type has a kind");
                assert_eq!(name, family, "help and type stand together");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                let known = page.families.insert(name.to_owned(), kind.to_owned());
                assert_eq!(known, None, "{name} stands in one place");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            } else {
                let (series, value) = sample(line);
                let suffixes: &[&str] =
                    match page.families.get(&family).expect("a family has a type").as_str() {
                        "histogram" => &["_bucket", "_sum", "_count"],
                        _ => &[""],
                    };
                let rest =
                    series.0.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("{line} is elsewhere"));
                assert!(suffixes.contains(&rest), "{line}");
                assert!(page.samples.insert(series, value).is_none(), "twice: {line}");
            }
        }
        page.check_histograms();
        page
    }

    fn check_histograms(&self) {
        let histograms = self.families.iter().filter(|(_, kind)| *kind == "histogram");
        for (family, _) in histograms {
            let mut buckets: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
            for ((name, labels), value) in &self.samples {
                if *name == format!("{family}_bucket") {
                    let mut labels = labels.clone();
                    let bound = labels.remove("le").expect("a bucket has a bound");
                    let bound =
                        if bound == "+Inf" { f64::INFINITY } else { bound.parse().expect("a number") };
                    buckets.entry(labels).or_default().push((bound, *value));
                }
            }
            for (labels, mut buckets) in buckets {
                buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
                assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{family}{labels:?} falls: {buckets:?}");
                let (bound, all) = *buckets.last().expect("there are some");
                assert!(bound.is_infinite());
                assert_eq!(self.samples[&(format!("{family}_count"), labels.clone())], all);
                assert!(self.samples.contains_key(&(format!("{family}_sum"), labels)));
            }
        }
    }

    /// The names of all families.
    pub fn families(&self) -> BTreeSet<&str> {
        self.families.keys().map(String::as_str).collect()
    }

    /// The sum of the samples of this name that have these labels, whatever others they have.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let has = |found: &BTreeMap<String, String>| {
            labels.iter().all(|(label, value)| found.get(*label).is_some_and(|found| found == value))
        };
        let samples = self.samples.iter().filter(|((found, labels), _)| found == name && has(labels));
        samples.map(|(_, value)| value).sum()
    }
}

fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn sample(line: &str) -> (Series, f64) {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value: {line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {line}"));
            assert!(is_name(label), "{line}");
            let (value, after) = quoted(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{label} twice: {line}");
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').unwrap_or_else(|| panic!("no end of labels: {line}"));
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value: {line}"));
    ((name.to_owned(), labels), value.parse().unwrap_or_else(|_| panic!("no number: {line}")))
}

/// A value up to its closing quote, and what follows that.
fn quoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((place, character)) = characters.next() {
        match character {
            '"' => return (value, &text[place + 1..]),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => panic!("{other:?} is not to be escaped"),
            },
            other => value.push(other),
        }
    }
    panic!("no end: {text}")
}
