//! One service port: accepts in the node's namespace, carries each connection to an endpoint, in turn.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::net::NodeNet;
use crate::tasks::Tasks;

/// How long an endpoint may take to answer a connect before the next one is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A listener with its endpoints. Dropping it ends the listening; connections under way go on.
#[derive(Debug)]
pub(super) struct Forwarder {
    endpoints: watch::Sender<Arc<[SocketAddr]>>,
    stop: CancellationToken,
}

impl Forwarder {
    pub fn start(net: Arc<NodeNet>, addr: SocketAddr, endpoints: Vec<SocketAddr>, tasks: &Tasks) -> io::Result<Self> {
        let listener = net.listen(addr)?;
        let (endpoints, current) = watch::channel(Arc::from(endpoints));
        let stop = CancellationToken::new();
        let (token, group) = (stop.clone(), tasks.clone());
        tasks.spawn(async move {
            token.run_until_cancelled(accept(net, listener, current, group)).await;
        });
        Ok(Self { endpoints, stop })
    }

    pub fn set(&self, endpoints: Vec<SocketAddr>) {
        self.endpoints.send_if_modified(|current| {
            let changed = current[..] != endpoints[..];
            if changed {
                *current = Arc::from(endpoints);
            }
            changed
        });
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(net: Arc<NodeNet>, listener: TcpListener, endpoints: watch::Receiver<Arc<[SocketAddr]>>, tasks: Tasks) {
    let turn = Arc::new(AtomicUsize::new(0));
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let endpoints = Arc::clone(&endpoints.borrow());
                let (net, turn) = (Arc::clone(&net), Arc::clone(&turn));
                tasks.spawn(async move { carry(&net, client, &endpoints, &turn).await });
            }
            // Out of descriptors, most likely: let connections end before accepting more.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a service connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Tries every endpoint once, beginning with the next in turn. If none answers the client is reset, as a refusal would do.
async fn carry(net: &NodeNet, mut client: TcpStream, endpoints: &[SocketAddr], turn: &AtomicUsize) {
    let first = turn.fetch_add(1, Ordering::Relaxed);
    for attempt in 0..endpoints.len() {
        let endpoint = endpoints[(first.wrapping_add(attempt)) % endpoints.len()];
        match tokio::time::timeout(CONNECT_TIMEOUT, net.dial(endpoint)).await {
            Ok(Ok(mut server)) => {
                if client.set_nodelay(true).is_ok() {
                    // An error here is one side's reset; dropping both passes it on.
                    copy_bidirectional(&mut client, &mut server).await.ok();
                }
                return;
            }
            Ok(Err(error)) => tracing::debug!(%endpoint, %error, "endpoint refused"),
            Err(_) => tracing::debug!(%endpoint, "endpoint did not answer"),
        }
    }
    client.set_zero_linger().ok();
}
