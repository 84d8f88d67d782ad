//! Commands that make no sense: they end with exit code 2, as those do whose flags can't be read.

use clap::error::ErrorKind;

/// What makes no sense about a command.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Misuse(pub(super) String);

impl Misuse {
    /// Ends the program.
    pub(super) fn exit(&self) -> ! {
        clap::Error::raw(ErrorKind::ValueValidation, format!("{self}\n\nFor more information, try '--help'.\n")).exit()
    }
}
