//! The text of a JSON value, kept as it came.

mod jump;
mod skim;

use std::fmt;

use bytestring::ByteString;
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error as _};
use serde_json::value::RawValue;
pub(crate) use skim::Skim;

/// A JSON text; a clone shares it. It is not looked into before somebody reads it: looking through every object that passes
/// would cost more than all that is made of it.
#[derive(Clone)]
pub struct Json {
    text: ByteString,
    is_part: bool,
}

impl Json {
    /// The text.
    pub fn get(&self) -> &str {
        &self.text
    }

    /// A part of a text, which it keeps as long as it is there itself.
    pub(crate) fn part(text: &ByteString, part: &str) -> Self {
        Self { text: text.slice_ref(part), is_part: true }
    }

    /// Whether it keeps something larger than itself.
    pub(crate) fn is_part(&self) -> bool {
        self.is_part
    }

    /// The same on its own.
    pub(crate) fn copied(&self) -> Self {
        Self::from(self.get())
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Json {}

impl From<&str> for Json {
    fn from(text: &str) -> Self {
        Self { text: text.into(), is_part: false }
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Self { text: value.to_string().into(), is_part: false }
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_json::from_str::<&RawValue>(self.get()).map_err(S::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&RawValue>::deserialize(deserializer).map(|raw| Self::from(raw.get()))
    }
}
