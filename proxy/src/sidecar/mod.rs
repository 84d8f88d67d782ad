//! The proxy beside one application: its listeners, and its life from start to drain.

mod addresses;
mod admin;
#[cfg(test)]
pub(crate) mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use crate::accept::{Accepted, BindError, Listener, OriginalDst, bind};
use crate::context::{Context, Snapshots};
use crate::control::admin::DataPath;
use crate::drain::Drain;
use crate::limits::Limits;
use crate::metrics::Metrics;
pub use crate::names::Resolver;
use crate::tls::MeshTls;
use crate::upstream::{Balancer, Upstream};
use crate::{inbound, metrics, names, outbound, probe};

pub use addresses::{Addresses, MESH_PORT, OWN_PORTS};

/// How often idle connections are looked through, and open ones judged if the configuration has changed.
const KEEP_EVERY: Duration = Duration::from_secs(1);

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
        let Config { addresses, limits, original_dst, pod_ip, mesh_port, owner, resolver } = config;
        let outbound = bind_all(&addresses.outbound, "connections of the application")?;
        let capture = bind_all(&addresses.capture, "captured inbound connections")?;
        let mesh = bind_all(&addresses.mesh, "connections of other proxies")?;
        let metrics = bind_all(&addresses.metrics, "metrics")?;
        let probes = bind_all(&addresses.probes, "probes")?;
        let names = bind_names(&addresses.names)?;
        let bound = Bound {
            outbound: outbound.iter().map(Listener::address).collect(),
            capture: capture.iter().map(Listener::address).collect(),
            mesh: mesh.iter().map(Listener::address).collect(),
            metrics: metrics.iter().map(Listener::address).collect(),
            probes: probes.iter().map(Listener::address).collect(),
            names: names.iter().filter_map(|socket| socket.local_addr().ok()).collect(),
        };
        let counters = Arc::new(Metrics::default());
        let context = Arc::new(Context {
            upstream: Upstream::new(sources.tls.clone(), mesh_port, &limits, &counters),
            snapshots: sources.snapshots,
            tls: sources.tls,
            balancer: Balancer::default(),
            metrics: counters,
            places: [(); 2].map(|()| Arc::new(Semaphore::new(limits.requests))),
            limits,
            drain: Drain::default(),
            allowed: inbound::Allowed::default(),
            pod_ip,
            owner,
            own_ports: bound.ports(),
        });
        serve(&context, outbound, move |context, accepted| outbound::connection(context, original_dst, accepted));
        serve(&context, mesh, inbound::connection);
        let captures = Arc::new(inbound::Captures::default());
        serve(&context, capture, move |context, accepted| inbound::captured(context, Arc::clone(&captures), accepted));
        serve(&context, metrics, metrics::serve::connection);
        serve(&context, probes, probe::connection);
        let resolver = Arc::new(resolver);
        for socket in names {
            tokio::spawn(names::serve(Arc::clone(&context), socket, Arc::clone(&resolver)));
        }
        tokio::spawn(keep(Arc::downgrade(&context)));
        Ok(Handle { context, bound })
    }
}

fn bind_all(addresses: &[SocketAddr], purpose: &'static str) -> Result<Vec<Listener>, BindError> {
    let mut listeners = Vec::new();
    for address in addresses {
        match bind(*address, purpose) {
            Ok(listener) => listeners.push(listener),
            // A host without IPv6 is served in IPv4 alone.
            Err(error) if address.is_ipv6() && !listeners.is_empty() && error.is_missing_family() => {
                tracing::info!(%error, "continuing without IPv6");
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listeners)
}

fn bind_names(addresses: &[SocketAddr]) -> Result<Vec<UdpSocket>, BindError> {
    let bound = |address: &SocketAddr| {
        let open = || {
            let socket = std::net::UdpSocket::bind(address)?;
            socket.set_nonblocking(true)?;
            UdpSocket::from_std(socket)
        };
        open().map_err(|source| BindError { address: *address, purpose: "queries for names", source })
    };
    let mut sockets = Vec::new();
    for address in addresses {
        match bound(address) {
            Ok(socket) => sockets.push(socket),
            Err(error) if address.is_ipv6() && !sockets.is_empty() && error.is_missing_family() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(sockets)
}

fn serve<F, Fut>(context: &Arc<Context>, listeners: Vec<Listener>, connection: F)
where
    F: Fn(Arc<Context>, Accepted) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let slots = Arc::new(Semaphore::new(context.limits.connections));
    for listener in listeners {
        let (context, connection, slots) = (Arc::clone(context), connection.clone(), Arc::clone(&slots));
        tokio::spawn(async move {
            let drain = context.drain.clone();
            listener.serve(slots, drain, |accepted| connection(Arc::clone(&context), accepted)).await;
        });
    }
}

/// Looks after what no request looks after, as long as the sidecar is there.
async fn keep(context: Weak<Context>) {
    let mut ticks = tokio::time::interval(KEEP_EVERY);
    let mut judged_by = None;
    loop {
        ticks.tick().await;
        let Some(context) = context.upgrade() else { return };
        context.upstream.tidy();
        let snapshot = context.snapshots.load_full();
        if let Some(snapshot) = snapshot.filter(|now| !judged_by.as_ref().is_some_and(|by| Arc::ptr_eq(by, now))) {
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

    /// Takes no more connections and requests, and waits for those under way, at most as long as the limits say.
    /// True if all of them came to their end.
    pub async fn drain(&self) -> bool {
        self.context.drain.finish(self.context.limits.drain_timeout).await
    }
}
