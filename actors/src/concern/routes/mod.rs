//! Who can be reached and how, and what servers allow.

mod state;
#[cfg(test)]
mod tests;

pub use state::Routes;
