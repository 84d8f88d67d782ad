//! The event log: ordered, durable, tamper-evident records. It knows nothing of meshes.

mod error;
mod export;
mod frame;
mod log;
mod options;
mod packed;
mod record;
mod seal;
mod sled_log;

pub use error::{Damage, Error};
pub use export::{ExportFile, ExportSummary, ExportWriter};
pub use frame::{FrameError, FrameHash, FrameHeader};
pub use log::{EventLog, RecordBatch, Records, Retention, Snapshot};
pub use options::{Clock, Durability, OnDamage, Options};
pub use record::{Entry, Record, Seq, Timestamp, TraceContext};
pub use seal::{SealError, Sealer};
pub use sled_log::{Gap, LogSummary, SledLog};
