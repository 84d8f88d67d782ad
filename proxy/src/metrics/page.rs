//! How a page of metrics is written: Prometheus' text format, or OpenMetrics 1.0 for scrapers that ask for it.

use std::fmt::{Display, Write as _};

use super::Histogram;

/// The form of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Prometheus,
    OpenMetrics,
}

impl Form {
    /// What a scraper wants that sends this as its Accept header.
    pub fn wanted(accept: Option<&str>) -> Self {
        let asked = accept.is_some_and(|accept| {
            accept.split(',').any(|kind| {
                let mut parts = kind.split(';').map(str::trim);
                // A later version may mean something else.
                parts.next() == Some("application/openmetrics-text")
                    && parts.all(|part| {
                        !part.starts_with("version=") || part.starts_with("version=1.") || part == "version=0.0.1"
                    })
            })
        });
        if asked { Self::OpenMetrics } else { Self::Prometheus }
    }

    pub fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// Names and values of labels.
pub type Labels<'l> = [(&'l str, &'l str)];

/// A page that is being written, family by family.
pub struct Page {
    text: String,
    form: Form,
}

impl Page {
    pub fn new(form: Form) -> Self {
        Self { text: String::with_capacity(32 * 1024), form }
    }

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // In OpenMetrics a counter's samples end in _total, and its family does not.
        let (name, kind) = match (self.form, kind, name.strip_suffix("_total")) {
            (Form::OpenMetrics, "counter", Some(family)) => (family, kind),
            (Form::OpenMetrics, "counter", None) => (name, "unknown"),
            _ => (name, kind),
        };
        let _ = writeln!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    pub fn sample(&mut self, name: &str, labels: &Labels<'_>, value: impl Display) {
        self.text.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }

    /// A family of one sample.
    pub fn single(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The samples of one histogram of the family `name`.
    pub fn histogram(&mut self, name: &str, labels: &Labels<'_>, histogram: &Histogram) {
        let (bucket, mut count) = (format!("{name}_bucket"), 0);
        for (bound, cumulative) in histogram.cumulative() {
            let bound = match (bound, self.form) {
                (None, _) => "+Inf".to_owned(),
                (Some(bound), Form::Prometheus) => bound.to_string(),
                (Some(bound), Form::OpenMetrics) => format!("{bound}.0"),
            };
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.sample(&bucket, &labels, cumulative);
            count = cumulative;
        }
        self.sample(&format!("{name}_sum"), labels, histogram.sum_ms());
        self.sample(&format!("{name}_count"), labels, count);
    }

    pub fn end(mut self) -> String {
        if self.form == Form::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}
