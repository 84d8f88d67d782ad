//! The shell of this concern: mailbox, supervision and metrics are [`ConcernActor`]'s.

use super::Routes;
use crate::concern::ConcernActor;

/// The actor that runs [`Routes`].
pub type RoutesActor = ConcernActor<Routes>;
