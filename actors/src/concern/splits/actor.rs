//! The shell of this concern: mailbox, supervision and metrics are [`ConcernActor`]'s.

use super::Splits;
use crate::concern::ConcernActor;

/// The actor that runs [`Splits`].
pub type SplitsActor = ConcernActor<Splits>;
