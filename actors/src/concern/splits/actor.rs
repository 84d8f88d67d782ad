//! The shell of this concern: mailbox, supervision and metrics are [`ConcernActor`]'s.

use super::Splits;
use crate::concern::{ConcernActor, FromCore};
use crate::core::Core;

/// The actor that runs [`Splits`].
pub type SplitsActor = ConcernActor<Splits>;

impl FromCore for Splits {
    fn from_core(core: Core) -> Self {
        core.splits
    }
}
