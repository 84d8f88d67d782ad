//! Structured output in the form that was asked for.

use clap::ValueEnum;
use serde::Serialize;

use crate::log::Out;

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Text,
    Json,
    Yaml,
}

impl Format {
    /// Prints a value as JSON, or else as YAML.
    pub(super) fn print(self, out: &mut Out, value: &impl Serialize) -> anyhow::Result<()> {
        match self {
            Self::Json => out.pretty_json(value)?,
            Self::Text | Self::Yaml => out.line(serde_yaml::to_string(value)?.trim_end())?,
        }
        Ok(())
    }
}
