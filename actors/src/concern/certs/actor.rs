//! The shell of this concern: mailbox, supervision and metrics are [`ConcernActor`]'s.

use super::Certs;
use crate::concern::ConcernActor;

/// The actor that runs [`Certs`].
pub type CertsActor = ConcernActor<Certs>;
