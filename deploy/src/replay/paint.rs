//! Colours, where somebody sees them.

use std::fmt::Display;
use std::io::{self, IsTerminal};

/// Whether to use colours: on a terminal, unless `NO_COLOR` is set (<https://no-color.org>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Paint(bool);

impl Paint {
    /// For what goes to stdout.
    pub(super) fn stdout() -> Self {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let dumb = set("TERM").is_some_and(|term| term == "dumb");
        Self(io::stdout().is_terminal() && set("NO_COLOR").is_none() && !dumb)
    }

    fn with(self, codes: &str, text: impl Display) -> String {
        if self.0 { format!("\x1b[{codes}m{text}\x1b[0m") } else { text.to_string() }
    }

    pub(super) fn bold(self, text: impl Display) -> String {
        self.with("1", text)
    }

    pub(super) fn dim(self, text: impl Display) -> String {
        self.with("2", text)
    }

    /// What is new, or allowed.
    pub(super) fn good(self, text: impl Display) -> String {
        self.with("32", text)
    }

    /// What is gone, or refused.
    pub(super) fn bad(self, text: impl Display) -> String {
        self.with("31", text)
    }

    /// What changed, or is undecided.
    pub(super) fn warn(self, text: impl Display) -> String {
        self.with("33", text)
    }

    /// Names of things.
    pub(super) fn name(self, text: impl Display) -> String {
        self.with("36", text)
    }
}
