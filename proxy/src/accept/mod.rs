//! How connections come in: listeners, their limits, and what their first bytes say.

mod listen;
mod original_dst;
mod rewind;
mod sniff;

pub use listen::{Accepted, BindError, Listener, bind};
pub use original_dst::{OriginalDst, OriginalDstError};
pub use rewind::Rewind;
pub use sniff::{Sniffed, classify, sniff};
