//! The debug and time-travel API on the loopback interface: what the log holds, and what every proxy is told.

mod records;
mod service;
#[cfg(test)]
mod tests;

pub use records::{RecordsQuery, body, line};
pub use service::DebugService;
