//! Cluster DNS: the names of services and pods, over UDP and TCP (RFC 1035; Kubernetes DNS specification 1.1.0).
//!
//! It is authoritative for the cluster domain and knows nothing else: there is no upstream, so every other name does not
//! exist. What a name means is decided in [`zone`], a pure function of Services and EndpointSlices.

mod respond;
mod zone;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::watch;

use crate::informer::Informer;
use crate::net::NodeNet;
use crate::service::any;
use crate::tasks::Tasks;

pub use respond::respond;
pub use zone::{Answer, Query, Zone};

/// The cluster's domain.
pub const DOMAIN: &str = "cluster.local";
/// A TCP client that says nothing for so long is cut off.
const TCP_IDLE: Duration = Duration::from_secs(10);

type Current = watch::Receiver<Arc<Zone>>;

/// Binds port 53 of the DNS address in each node's namespace and answers until `tasks` stops.
pub fn start(
    nets: &[Arc<NodeNet>],
    services: &Informer<Service>,
    slices: &Informer<EndpointSlice>,
    tasks: &Tasks,
) -> io::Result<()> {
    let (publish, zone) = watch::channel(Arc::new(Zone::default()));
    let (services, slices) = (services.clone(), slices.clone());
    tasks.spawn(async move {
        let mut changes = [services.changes(), slices.changes()];
        loop {
            changes.iter_mut().for_each(watch::Receiver::mark_unchanged);
            publish.send_replace(Arc::new(Zone::build(&services.store.state(), &slices.store.state())));
            if !any(&mut changes).await {
                return;
            }
        }
    });
    for net in nets {
        let addr = SocketAddr::from((net.plan().dns, 53));
        let (udp, tcp) = (net.listen_udp(addr)?, net.listen(addr)?);
        tasks.spawn(serve_udp(udp, zone.clone()));
        tasks.spawn(serve_tcp(tcp, zone.clone(), tasks.clone()));
    }
    Ok(())
}

async fn serve_udp(socket: UdpSocket, zone: Current) {
    let mut buffer = vec![0; 4096];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, client)) => {
                let zone = Arc::clone(&zone.borrow());
                if let Some(answer) = respond(&zone, &buffer[..length], respond::Transport::Udp) {
                    socket.send_to(&answer, client).await.ok();
                }
            }
            // ICMP errors of earlier answers surface here; they concern no one but that client.
            Err(error) => tracing::debug!(%error, "DNS receive"),
        }
    }
}

async fn serve_tcp(listener: TcpListener, zone: Current, tasks: Tasks) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let zone = zone.clone();
                tasks.spawn(async move {
                    tcp_client(client, zone).await.ok();
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a DNS connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Messages over TCP have a length of two bytes before them (RFC 1035, 4.2.2).
async fn tcp_client(mut client: TcpStream, zone: Current) -> io::Result<()> {
    loop {
        let length = tokio::time::timeout(TCP_IDLE, client.read_u16()).await??;
        let mut query = vec![0; usize::from(length)];
        tokio::time::timeout(TCP_IDLE, client.read_exact(&mut query)).await??;
        let zone = Arc::clone(&zone.borrow());
        let Some(answer) = respond(&zone, &query, respond::Transport::Tcp) else { return Ok(()) };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        client.write_u16(length).await?;
        client.write_all(&answer).await?;
    }
}
