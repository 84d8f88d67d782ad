//! The event log: ordered, durable, tamper-evident records. It knows nothing of meshes.

mod record;
pub use record::{Entry, Record, Seq, Timestamp, TraceContext};
