//! Records, and what is handed in to become one.

use std::fmt;

use bytes::Bytes;
use bytestring::ByteString;
use serde::{Deserialize, Serialize};

/// The place of a record in the log. The first record has seq 1; 0 means "before everything".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u64);

impl Seq {
    /// Before the first record.
    pub const ZERO: Self = Self(0);

    /// The seq after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Wall-clock time in microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

/// W3C trace context of the change that a record belongs to; all zero if there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceContext {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
    pub flags: u8,
}

/// What is handed in to be appended. Of records that are read, texts and body are parts of their frame: who keeps one for long copies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What kind of fact this is, for listing and filtering; e.g. "object" or "ack".
    pub topic: ByteString,
    /// What it is about, e.g. "v1/Pod default/web-0".
    pub key: ByteString,
    /// The fact itself, self-describing (JSON).
    pub body: Bytes,
    pub trace: TraceContext,
}

/// An entry with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub seq: Seq,
    pub time: Timestamp,
    pub entry: Entry,
}
