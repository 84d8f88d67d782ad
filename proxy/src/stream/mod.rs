//! Bytes and messages on their way through: bodies, tunnels, and what joins two connections.

mod body;
mod carry;
mod deadline;
mod gather;
mod idle;
mod intake;
mod kept;
mod meter;
mod noted;
mod send;
mod spare;
mod splice;
mod through;
mod tunnel;

pub use body::{Body, Held, with_head};
pub use carry::{Begun, carry};
pub use gather::{Gather, Turns, gather};
pub use intake::Intake;
pub use kept::Kept;
pub use meter::{End, Meter, Metered, Passed, Way};
pub use send::send_body;
pub use splice::{Abort, Until, reset, splice};
pub(crate) use through::writes_through;
pub use tunnel::Tunnel;
