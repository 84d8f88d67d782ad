//! What there is to know about the connection to the controller.

use serde::Serialize;

/// Shown by the admin port; tests wait on it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct State {
    /// The configuration stream is open.
    pub connected: bool,
    /// The seq that was taken from disk at the start.
    pub from_disk: Option<u64>,
    /// The seq that was written to disk last.
    pub on_disk: Option<u64>,
    /// The seq that was acknowledged last.
    pub acked_seq: Option<u64>,
    /// The version that was refused last, and why, until a later one is taken.
    pub refused: Option<Refused>,
    /// Why the stream ended, or could not be opened; none while it is open.
    pub stream_error: Option<String>,
    /// Why there is no certificate, or no new one; none after a success.
    pub certificate_error: Option<String>,
    /// How many certificates were signed for this process.
    pub certificates: u64,
    /// How many streams were opened.
    pub streams: u64,
}

/// A version that this proxy could not use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    pub seq: String,
    pub reason: String,
}
