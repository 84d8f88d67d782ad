//! Trust: what peers are verified against, and which certificates are in use.

mod actor;
mod state;
#[cfg(test)]
mod tests;

pub use actor::CertsActor;
pub use state::{Certificate, Certs};
