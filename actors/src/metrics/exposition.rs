//! Prometheus' text format, version 0.0.4.

use std::fmt::Write;

/// Text under construction. Samples belong to the family before them.
#[derive(Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a family; `kind` is `counter`, `gauge` or `histogram`.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}=\"{}\"", escaped(value))).collect();
        if labels.is_empty() {
            self.line(format_args!("{name} {value}"));
        } else {
            self.line(format_args!("{name}{{{}}} {value}", labels.join(",")));
        }
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{line}").expect("writing to a string can't fail");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Counts of durations by size.
#[derive(Clone, Debug)]
pub struct Histogram<const N: usize> {
    /// Upper bounds in seconds, ascending.
    bounds: [f64; N],
    counts: [u64; N],
    count: u64,
    sum: f64,
}

impl<const N: usize> Histogram<N> {
    /// An empty histogram.
    pub const fn new(bounds: [f64; N]) -> Self {
        Self { bounds, counts: [0; N], count: 0, sum: 0.0 }
    }

    /// Counts one duration.
    pub fn observe(&mut self, seconds: f64) {
        for (bound, count) in self.bounds.iter().zip(&mut self.counts) {
            *count += u64::from(seconds <= *bound);
        }
        self.count += 1;
        self.sum += seconds;
    }

    /// Writes the samples of the family `name`.
    pub fn render(&self, name: &str, out: &mut Exposition) {
        let bucket = format!("{name}_bucket");
        for (bound, count) in self.bounds.iter().zip(&self.counts) {
            out.sample(&bucket, &[("le", &bound.to_string())], *count as f64);
        }
        out.sample(&bucket, &[("le", "+Inf")], self.count as f64);
        out.sample(&format!("{name}_sum"), &[], self.sum);
        out.sample(&format!("{name}_count"), &[], self.count as f64);
    }
}
