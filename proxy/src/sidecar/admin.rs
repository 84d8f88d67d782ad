//! What the data path tells the admin port.

use std::net::SocketAddr;

use serde_json::{Value, json};

use super::Bound;
use crate::context::Context;
use crate::control::admin::DataPath;
use crate::upstream::{CircuitState, MemberState};

/// A sidecar's counters and listeners.
pub struct View {
    pub context: std::sync::Arc<Context>,
    pub bound: Bound,
}

impl DataPath for View {
    fn stats(&self) -> Value {
        json!(self.context.metrics.summary())
    }

    fn listeners(&self) -> Value {
        json!(self.bound)
    }

    fn endpoint(&self, service: &str, port: u16, address: SocketAddr) -> Option<MemberState> {
        self.context.balancer.state(service, port, address)
    }

    fn circuit(&self, service: &str, port: u16) -> Option<CircuitState> {
        self.context.balancer.circuit(service, port)
    }
}
