//! The shell of this concern: mailbox, supervision and metrics are [`ConcernActor`]'s.

use super::Injection;
use crate::concern::{ConcernActor, FromCore};
use crate::core::Core;

/// The actor that runs [`Injection`].
pub type InjectionActor = ConcernActor<Injection>;

impl FromCore for Injection {
    fn from_core(core: Core) -> Self {
        core.injection
    }
}
