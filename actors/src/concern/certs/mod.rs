//! Trust: what peers are verified against, and which certificates are in use.

mod state;
#[cfg(test)]
mod tests;

pub use state::{Certificate, Certs};
