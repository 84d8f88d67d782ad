//! The shell of this concern: mailbox, supervision and metrics are [`ConcernActor`]'s.

use super::Routes;
use crate::concern::{ConcernActor, FromCore};
use crate::core::Core;

/// The actor that runs [`Routes`].
pub type RoutesActor = ConcernActor<Routes>;

impl FromCore for Routes {
    fn from_core(core: Core) -> Self {
        core.routes
    }
}
