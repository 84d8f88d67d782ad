//! The event log: ordered, durable, tamper-evident records. It knows nothing of meshes.

mod error;
mod log;
mod record;

pub use error::{Damage, Error};
pub use log::{EventLog, RecordBatch, Records, Snapshot};
pub use record::{Entry, Record, Seq, Timestamp, TraceContext};
