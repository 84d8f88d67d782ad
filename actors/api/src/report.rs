//! What validation says.

use std::fmt;

/// One thing that is wrong, or not as its author may think.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: {field}: {message}")]
pub struct Problem {
    /// `<Kind> <namespace>/<name>`
    pub object: String,
    /// Path of the field, e.g. `spec.rules[0].kind`.
    pub field: String,
    /// What is wrong, and the remedy.
    pub message: String,
}

/// The outcome of validating one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The object is refused for these.
    pub errors: Vec<Problem>,
    /// The object is accepted; its author is told these.
    pub warnings: Vec<Problem>,
    object: String,
}

impl Report {
    /// An empty report about `<kind> <namespace>/<name>`.
    pub fn new(kind: &str, namespace: &str, name: &str) -> Self {
        let object = if namespace.is_empty() { format!("{kind} {name}") } else { format!("{kind} {namespace}/{name}") };
        Self { object, ..Self::default() }
    }

    /// Adds an error.
    pub fn error(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let problem = self.problem(field.into(), message.into());
        self.errors.push(problem);
    }

    /// Adds a warning.
    pub fn warn(&mut self, field: impl Into<String>, message: impl Into<String>) {
        let problem = self.problem(field.into(), message.into());
        self.warnings.push(problem);
    }

    /// Adds a warning if `asked`: the field asks for something that this version doesn't do.
    pub fn warn_if(&mut self, asked: bool, field: &str, message: &str) {
        if asked {
            self.warn(field, message);
        }
    }

    /// Whether the object can be used.
    pub fn is_ok(&self) -> bool {
        self.errors.is_empty()
    }

    /// All errors in one text.
    pub fn error_text(&self) -> String {
        self.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    fn problem(&self, field: String, message: String) -> Problem {
        Problem { object: self.object.clone(), field, message }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "error: {error}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        Ok(())
    }
}

/// Says what is wrong with an object, looking at nothing but the object.
pub trait Validate {
    /// Errors and warnings.
    fn validate(&self) -> Report;
}
