//! What every connection of one proxy shares.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use fsm_proxy_config::Snapshot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::account::Observers;
use crate::drain::Drain;
use crate::field_names::FieldNames;
use crate::inbound::Allowed;
use crate::limits::Limits;
use crate::metrics::text::State;
use crate::metrics::{Direction, Metrics};
use crate::reply::Reply;
use crate::tls::MeshTls;
use crate::upstream::{Balancer, Upstream};
use crate::workers::Workers;

/// The configuration in use: replaced as a whole, read anew for every request and connection. None before the first.
pub type Snapshots = Arc<ArcSwapOption<Snapshot>>;

/// A request's place among those under way, until dropped.
pub type Place = OwnedSemaphorePermit;

/// One proxy's state.
pub struct Context {
    pub snapshots: Snapshots,
    pub tls: MeshTls,
    pub upstream: Upstream,
    pub balancer: Balancer,
    pub metrics: Arc<Metrics>,
    /// Who is told of single requests.
    pub observers: Arc<Observers>,
    pub limits: Limits,
    pub field_names: FieldNames,
    /// Places for requests under way: out of the application, and into it. Apart, as one request may need both.
    pub places: [Arc<Semaphore>; 2],
    pub drain: Drain,
    /// Inbound connections that are judged again when the configuration changes.
    pub allowed: Allowed,
    /// The pod's address, if known; else the address that a connection came to is taken.
    pub pod_ip: Option<IpAddr>,
    /// Kind and name of what controls the pod.
    pub owner: (String, String),
    /// Ports of the proxy itself: never forwarded to as if they were the application's.
    pub own_ports: Vec<u16>,
    /// The threads that carry traffic.
    pub workers: Workers,
}

impl Context {
    /// Whether traffic can be served: there are a certificate and a complete configuration.
    pub fn is_ready(&self) -> bool {
        self.tls.server_config().is_ok()
            && self.snapshots.load().as_ref().is_some_and(|snapshot| snapshot.is_complete())
    }

    /// A place for a request, to be held until its response has ended.
    pub fn place(&self, direction: Direction) -> Result<Place, Reply> {
        let places = &self.places[usize::from(direction == Direction::Inbound)];
        Arc::clone(places).try_acquire_owned().map_err(|_| Reply::overloaded(self.limits.requests))
    }

    /// What the metrics page tells besides the counters.
    pub fn state(&self) -> State {
        let snapshot = self.snapshots.load();
        let workload = snapshot.as_ref().map(|snapshot| snapshot.workload());
        State {
            seq: snapshot.as_ref().map(|snapshot| snapshot.seq()),
            certificate_not_after: self.tls.identity().map(|identity| identity.not_after()),
            workload: workload.map(|workload| (workload.namespace.clone(), workload.pod.clone())),
            owner: self.owner.clone(),
        }
    }
}
