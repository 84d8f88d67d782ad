//! How connections come in: listeners, their limits, and what their first bytes say.

mod inherited;
mod listen;
mod original_dst;
mod rewind;
mod sniff;

pub use inherited::{Inherited, Role};
pub use listen::{Accepted, BindError, Listener, bind, bind_udp};
pub use original_dst::{OriginalDst, OriginalDstError};
pub use rewind::Rewind;
pub use sniff::{Sniffed, classify, sniff};
