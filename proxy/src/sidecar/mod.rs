//! The proxy beside one application: its listeners, and its life from start to drain.

mod addresses;
mod admin;
mod sockets;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;

use crate::accept::{Accepted, BindError, Inherited, Listener, OriginalDst, Role};
use crate::account::{Observers, Output};
use crate::context::{Context, Snapshots};
use crate::control::admin::DataPath;
use crate::drain::Drain;
use crate::field_names::FieldNames;
use crate::health::Checks;
use crate::limits::Limits;
use crate::metrics::Metrics;
pub use crate::names::Resolver;
use crate::tls::MeshTls;
use crate::upstream::{Balancer, Upstream};
use crate::workers::Workers;
use crate::{inbound, metrics, names, outbound, probe};

pub use addresses::{Addresses, MESH_PORT, OWN_PORTS};
use sockets::{Lent, Sockets};

/// How often idle connections are looked through, and open ones judged if the configuration has changed.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// What is told of the last requests may take this long to get out, for each of its ways.
const TELL_TIMEOUT: Duration = Duration::from_secs(2);

/// How a sidecar is set up.
#[derive(Clone, Debug)]
pub struct Config {
    pub addresses: Addresses,
    pub limits: Limits,
    pub original_dst: OriginalDst,
    /// The pod's address, if known.
    pub pod_ip: Option<IpAddr>,
    /// The port on which other proxies listen.
    pub mesh_port: u16,
    /// Kind and name of what controls the pod, for metrics; empty if nothing does.
    pub owner: (String, String),
    /// The name servers of the pod.
    pub resolver: Resolver,
    /// Where the access log goes.
    pub access_log: Output,
    /// Where spans go if the configuration names no collector.
    pub collector: Option<String>,
    /// Towards applications that speak HTTP/1.1.
    pub field_names: FieldNames,
    /// The threads that carry traffic.
    pub workers: Workers,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            addresses: Addresses::default(),
            limits: Limits::default(),
            original_dst: OriginalDst::Kernel,
            pod_ip: None,
            mesh_port: MESH_PORT,
            owner: Default::default(),
            resolver: Resolver::default(),
            access_log: Output::default(),
            collector: None,
            field_names: FieldNames::default(),
            workers: Workers::default(),
        }
    }
}

/// What the control side keeps up to date while the sidecar runs.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    pub tls: MeshTls,
    pub snapshots: Snapshots,
}

/// A sidecar that runs.
pub struct Handle {
    context: Arc<Context>,
    bound: Bound,
    lent: Lent,
}

/// A sidecar whose sockets are bound, and that does not serve yet.
pub struct Prepared {
    handle: Handle,
    sockets: Sockets,
    original_dst: OriginalDst,
    resolver: Resolver,
}

/// The addresses that a sidecar listens on, one for each address asked for.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Bound {
    pub outbound: Vec<SocketAddr>,
    pub capture: Vec<SocketAddr>,
    pub mesh: Vec<SocketAddr>,
    pub metrics: Vec<SocketAddr>,
    pub probes: Vec<SocketAddr>,
    pub names: Vec<SocketAddr>,
}

/// The sidecar.
#[derive(Debug)]
pub struct Sidecar;

impl Sidecar {
    /// Binds all listeners, then serves until the handle is drained. Needs a tokio runtime.
    pub fn start(config: Config, sources: Sources) -> Result<Handle, BindError> {
        Ok(Self::prepare(config, sources, &mut Inherited::default())?.serve())
    }

    /// Binds all listeners that are not inherited. Needs a tokio runtime.
    pub fn prepare(config: Config, sources: Sources, inherited: &mut Inherited) -> Result<Prepared, BindError> {
        let Config {
            addresses,
            limits,
            original_dst,
            pod_ip,
            mesh_port,
            owner,
            resolver,
            access_log,
            collector,
            field_names,
            workers,
        } = config;
        let sockets = Sockets::bind(&addresses, inherited)?;
        let bound = sockets.bound();
        let counters = Arc::new(Metrics::default());
        let context = Arc::new(Context {
            upstream: Upstream::new(sources.tls.clone(), mesh_port, &limits, field_names, &counters, workers.count()),
            snapshots: sources.snapshots,
            tls: sources.tls,
            balancer: Balancer::new(&counters.traffic),
            observers: Arc::new(Observers::new(access_log, collector, owner.clone(), &counters)),
            metrics: counters,
            places: [(); 2].map(|()| Arc::new(Semaphore::new(limits.requests))),
            limits,
            field_names,
            drain: Drain::default(),
            allowed: inbound::Allowed::default(),
            pod_ip,
            owner,
            own_ports: bound.ports(),
            workers,
        });
        let handle = Handle { context, bound, lent: sockets.lent() };
        Ok(Prepared { handle, sockets, original_dst, resolver })
    }
}

impl Prepared {
    /// What it will be once it serves.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Takes connections from now on.
    pub fn serve(self) -> Handle {
        let Self { handle, sockets, original_dst, resolver } = self;
        let context = &handle.context;
        let of = |role| sockets.of(role);
        let captures = Arc::new(inbound::Captures::default());
        serve(context, of(Role::Outbound), move |context, accepted| {
            outbound::connection(context, original_dst, accepted)
        });
        serve(context, of(Role::Mesh), inbound::connection);
        serve(context, of(Role::Capture), move |context, accepted| {
            inbound::captured(context, Arc::clone(&captures), accepted)
        });
        serve(context, of(Role::Metrics), metrics::serve::connection);
        serve(context, of(Role::Probes), probe::connection);
        let resolver = Arc::new(resolver);
        for socket in sockets.names() {
            tokio::spawn(names::serve(Arc::clone(context), Arc::clone(socket), Arc::clone(&resolver)));
        }
        tokio::spawn(keep(Arc::downgrade(context)));
        handle
    }
}

fn serve<F, Fut>(context: &Arc<Context>, listeners: impl Iterator<Item = Arc<Listener>>, connection: F)
where
    F: Fn(Arc<Context>, Accepted) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(context.limits.connections));
    for listener in listeners {
        let (context, connection, slots) = (Arc::clone(context), connection.clone(), Arc::clone(&slots));
        tokio::spawn(async move {
            let drain = context.drain.clone();
            let workers = context.workers.clone();
            listener.serve(slots, drain, workers, move |accepted| connection(Arc::clone(&context), accepted)).await;
        });
    }
}

/// Looks after what no request looks after, as long as the sidecar is there.
async fn keep(context: Weak<Context>) {
    let mut ticks = tokio::time::interval(KEEP_EVERY);
    let mut judged_by = None;
    let mut checks = Checks::default();
    loop {
        ticks.tick().await;
        let Some(context) = context.upgrade() else { return };
        context.upstream.tidy();
        let snapshot = context.snapshots.load_full();
        if let Some(snapshot) = snapshot.filter(|now| !judged_by.as_ref().is_some_and(|by| Arc::ptr_eq(by, now))) {
            checks.follow(&context, &snapshot);
            context.balancer.tidy(&snapshot);
            let ended = context.allowed.judge(&snapshot);
            if ended > 0 {
                tracing::info!(ended, seq = snapshot.seq(), "open connections are no longer allowed, and were ended");
            }
            judged_by = Some(snapshot);
        }
    }
}

impl Handle {
    /// The addresses that are listened on.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// The counters.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.context.metrics
    }

    /// For the admin port.
    pub fn data_path(&self) -> Arc<dyn DataPath> {
        Arc::new(admin::View { context: Arc::clone(&self.context), bound: self.bound.clone() })
    }

    /// Whether there are a certificate and a complete configuration.
    pub fn is_ready(&self) -> bool {
        self.context.is_ready()
    }

    /// Whether nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.context.drain.under_way() == 0
    }

    /// Its sockets, for a proxy that takes its place.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub fn sockets(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        self.lent.for_successor()
    }

    /// Leaves new connections to a successor that has the sockets, and waits for those under way as [`drain`](Self::drain)
    /// does. Clients find none of their kept connections closed under their hands: they are told with the next answer.
    pub async fn hand_over(&self) -> bool {
        let finished = self.context.drain.hand_over(self.context.limits.drain_timeout).await;
        self.context.observers.finish(TELL_TIMEOUT).await;
        finished
    }

    /// Takes no more connections and requests, and waits for those under way, at most as long as the limits say.
    /// True if all of them came to their end.
    pub async fn drain(&self) -> bool {
        let finished = self.context.drain.finish(self.context.limits.drain_timeout).await;
        self.context.observers.finish(TELL_TIMEOUT).await;
        finished
    }
}
