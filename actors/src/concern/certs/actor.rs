//! The shell of this concern: mailbox, supervision and metrics are [`ConcernActor`]'s.

use super::Certs;
use crate::concern::{ConcernActor, FromCore};
use crate::core::Core;

/// The actor that runs [`Certs`].
pub type CertsActor = ConcernActor<Certs>;

impl FromCore for Certs {
    fn from_core(core: Core) -> Self {
        core.certs
    }
}
