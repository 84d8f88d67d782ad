//! The shell of this concern: mailbox, supervision and metrics are [`ConcernActor`]'s.

use super::Injection;
use crate::concern::ConcernActor;

/// The actor that runs [`Injection`].
pub type InjectionActor = ConcernActor<Injection>;
