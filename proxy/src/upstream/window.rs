//! How much may be under way on a shared HTTP/2 connection.
//!
//! A connection's window is as large as those of all its streams together, so a stream that nobody reads never holds
//! up another one.

/// Streams on one connection; for more, another one is opened.
pub const STREAMS: u32 = 128;
/// Streams that were reset by this end and are remembered, so that what the peer sent before it knew is not an error.
pub const RESET_STREAMS: usize = 1024;
/// Bytes that a stream may have received and not yet passed on: what a fast stream sends while the other end waits for its turn.
pub const STREAM: u32 = 512 * 1024;
/// Bytes that a connection may have received and not yet passed on.
pub const CONNECTION: u32 = STREAMS * STREAM;
/// The largest DATA frame, in bytes: a TLS record's worth.
pub const FRAME: u32 = 16 * 1024;
