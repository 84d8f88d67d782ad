//! The data plane of FSM.
//!
//! A sidecar stands beside one application. Connections of the application come to the **outbound** listener and leave
//! as requests, decided one by one, on shared mutual-TLS connections to other sidecars; those come to the **inbound**
//! side of the sidecar there, which knows the caller from its certificate, and go on to the application.
//!
//! ```text
//!              the client's pod                        the server's pod
//!   application ──▶ accept ▶ outbound ▶ upstream ═══▶ inbound ▶ upstream ──▶ application
//!                     sniff    decide     balance  mTLS   decide
//! ```

pub mod accept;
mod account;
pub mod cli;
mod context;
pub mod control;
mod drain;
mod early;
mod field_names;
pub mod handover;
mod health;
mod inbound;
mod limits;
pub mod metrics;
mod names;
mod outbound;
mod probe;
mod reply;
mod serve;
pub mod sidecar;
mod stream;
pub mod telemetry;
mod throttle;
pub mod tls;
mod trace;
mod upstream;
mod websocket;
pub mod workers;

use fsm_proxy_config::head as headers;

pub use account::Output;
pub use context::Snapshots;
pub use field_names::FieldNames;
pub use limits::Limits;
pub use metrics::Metrics;
pub use sidecar::{Config, Handle, Sidecar, Sources};
pub use workers::Workers;
