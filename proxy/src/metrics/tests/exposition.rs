//! A strict reader of Prometheus' text format (version 0.0.4) and of OpenMetrics 1.0: it panics at what a lenient one lets pass.

use std::collections::{BTreeMap, BTreeSet};

use crate::metrics::Form;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    Unknown,
}

type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub struct Exposition {
    pub kinds: BTreeMap<String, Kind>,
    pub samples: BTreeMap<(String, Labels), f64>,
}

impl Exposition {
    pub fn parse(text: &str, form: Form) -> Self {
        let mut page = Self::default();
        let (mut family, mut helped, mut ended) = (String::new(), BTreeSet::new(), false);
        assert!(text.ends_with('\n'));
        for line in text.lines() {
            assert!(!ended, "after the end: {line}");
            if line == "# EOF" {
                ended = true;
            } else if let Some(rest) = line.strip_prefix("# HELP ") {
                let (name, help) = rest.split_once(' ').unwrap();
                assert!(!help.is_empty() && helped.insert(name.to_owned()), "twice: {line}");
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                let kind = match kind {
                    "counter" => Kind::Counter,
                    "gauge" => Kind::Gauge,
                    "histogram" => Kind::Histogram,
                    "unknown" if form == Form::OpenMetrics => Kind::Unknown,
                    other => panic!("no such type: {other}"),
                };
                assert!(helped.contains(name) && is_name(name), "{line}");
                assert!(page.kinds.insert(name.to_owned(), kind).is_none(), "twice: {line}");
                family = name.to_owned();
            } else {
                let (name, labels, value) = sample(line);
                let kind = page.kinds[&family];
                // Samples of one family stand together, under their type.
                let suffixes: &[&str] = match (kind, form) {
                    (Kind::Histogram, _) => &["_bucket", "_sum", "_count"],
                    (Kind::Counter, Form::OpenMetrics) => &["_total"],
                    _ => &[""],
                };
                let suffix = name.strip_prefix(family.as_str()).unwrap_or_else(|| panic!("not of {family}: {line}"));
                assert!(suffixes.contains(&suffix), "{line}");
                assert!(kind != Kind::Counter || value >= 0.0, "{line}");
                assert_eq!(labels.contains_key("le"), suffix == "_bucket", "{line}");
                assert!(page.samples.insert((name, labels), value).is_none(), "twice: {line}");
            }
        }
        assert_eq!(ended, form == Form::OpenMetrics);
        page.check_histograms();
        page
    }

    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        self.samples.get(&(name.to_owned(), labels)).copied()
    }

    /// Buckets grow with their bounds, and the last one has everything.
    fn check_histograms(&self) {
        let mut buckets: BTreeMap<(String, Labels), Vec<(f64, f64)>> = BTreeMap::new();
        for ((name, labels), value) in &self.samples {
            if let Some(family) = name.strip_suffix("_bucket") {
                let mut labels = labels.clone();
                let le = labels.remove("le").unwrap();
                let bound = if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap() };
                buckets.entry((family.to_owned(), labels)).or_default().push((bound, *value));
            }
        }
        for ((family, labels), mut buckets) in buckets {
            buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
            assert!(buckets.is_sorted_by(|one, other| one.1 <= other.1), "{family} {labels:?}");
            let last = buckets.last().unwrap();
            let count = self.samples[&(format!("{family}_count"), labels.clone())];
            assert_eq!(*last, (f64::INFINITY, count), "{family} {labels:?}");
            assert!(self.samples.contains_key(&(format!("{family}_sum"), labels)));
        }
    }
}

fn is_name(name: &str) -> bool {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    name.bytes().next().is_some_and(is_first) && name.bytes().all(|byte| is_first(byte) || byte.is_ascii_digit())
}

fn sample(line: &str) -> (String, Labels, f64) {
    let name_end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(name_end);
    assert!(is_name(name), "{line}");
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (label, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(label), "{line}");
            let (value, after) = text(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "twice: {line}");
            match after.split_at(1) {
                (",", after) => rest = after,
                ("}", after) => {
                    rest = after;
                    break;
                }
                _ => panic!("{line}"),
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap().parse().unwrap_or_else(|_| panic!("{line}"));
    (name.to_owned(), labels, value)
}

/// A text up to its quote, and what comes after.
fn text(escaped: &str) -> (String, &str) {
    let mut value = String::new();
    let mut characters = escaped.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return (value, &escaped[index + 1..]),
            '\\' => value.push(match characters.next().unwrap().1 {
                'n' => '\n',
                same @ ('"' | '\\') => same,
                other => panic!("\\{other} means nothing"),
            }),
            other => value.push(other),
        }
    }
    panic!("no end: {escaped}")
}
