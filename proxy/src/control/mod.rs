//! The side of the proxy that talks to the controller: it gets certificates and configurations, and keeps [`MeshTls`] and
//! the current snapshot up to date. The data path only reads those two.
//!
//! - [`certificate`]: makes a key, has the controller sign its certificate, renews it at half life.
//! - [`stream`]: the configuration stream; each version is compiled, swapped in as a whole, and acknowledged.
//! - [`disk`]: the last good configuration, for a start without a controller.
//! - [`admin`]: what is going on, on 127.0.0.1:15000.
//!
//! Without a controller, a proxy goes on with what it has: its configuration has no end, its certificate is good for
//! the rest of its life (24 h when issued, renewed at half life). After a restart of the proxy itself, the configuration
//! comes from disk, but not the certificate: keys are in memory only, so until a controller answers, mesh traffic is
//! answered with 503 and the reason, while passed-through traffic flows.

pub mod admin;
mod backoff;
pub mod certificate;
mod channel;
pub mod disk;
mod environment;
mod state;
pub mod stream;

#[cfg(test)]
mod controller;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::Snapshots;
use crate::tls::MeshTls;

pub use backoff::Backoff;
pub use environment::{Environment, InvalidEnvironment};
pub use state::State;

/// The tasks that keep a proxy up to date. They end when this is dropped.
#[derive(Debug)]
pub struct Control {
    state: watch::Receiver<State>,
    _tasks: JoinSet<()>,
}

impl Control {
    /// Takes the last configuration from disk, then keeps `tls` and `snapshots` up to date. Needs a tokio runtime.
    pub fn start(environment: Environment, tls: MeshTls, snapshots: Snapshots) -> Self {
        let environment = Arc::new(environment);
        let (state, watched) = watch::channel(State::default());
        if let Some(snapshot) = disk::load(&environment) {
            state.send_modify(|state| state.from_disk = Some(snapshot.seq()));
            snapshots.store(Some(Arc::new(snapshot)));
        }
        let state = Arc::new(state);
        let (certified, certificates) = watch::channel(None);
        let (applied, to_keep) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(certificate::keep(environment.clone(), tls.clone(), certified, state.clone()));
        tasks.spawn(disk::keep(environment.clone(), to_keep, state.clone()));
        let sink = stream::Sink { tls, snapshots, applied, state };
        tasks.spawn(stream::follow(environment, certificates, sink));
        Self { state: watched, _tasks: tasks }
    }

    /// What the connection to the controller is like, now and as it changes.
    pub fn state(&self) -> watch::Receiver<State> {
        self.state.clone()
    }
}
