//! Bytes and messages on their way through: bodies, tunnels, and what joins two connections.

mod body;
mod idle;
mod kept;
mod send;
mod splice;
mod tunnel;

pub use body::Body;
pub use kept::Kept;
pub use send::send_body;
pub use splice::{Abort, Until, reset, splice};
pub use tunnel::Tunnel;
