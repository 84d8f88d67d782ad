//! Shared HTTP/2 connections: few for each peer, each with many requests and tunnels.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fsm_proxy_config::SpiffeId;
use futures::FutureExt as _;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Ping, PingPong, RecvStream};
use http::uri::Authority;
use http::{Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::dial::{DialError, Dialer};
use super::sending::Sending;
use super::{Failed, Peer, Queue, UpstreamError, window};
use crate::early;
use crate::headers;
use crate::limits::Limits;
use crate::metrics::Connections;
use crate::stream::{Body, Gather, Tunnel, Turns, gather, with_head};

/// A connection takes no new streams after this age, so that renewed certificates and trust come into use.
const RETIRE_AFTER: Duration = Duration::from_secs(3600);
/// A connection without streams is closed after this long.
const IDLE_AFTER: Duration = Duration::from_secs(300);

/// All shared connections.
pub struct Pool {
    hosts: Mutex<HashMap<SocketAddr, Arc<Host>>>,
    head_bytes: u32,
    mesh_connections: Arc<Connections>,
}

/// The connections to one address.
#[derive(Default)]
struct Host {
    open: Mutex<Vec<Arc<Shared>>>,
    /// Held while dialling, so that many waiting requests make one connection; what the last dial came to.
    dialling: tokio::sync::Mutex<Option<(Instant, DialError)>>,
}

struct Shared {
    identity: Option<SpiffeId>,
    send: SendRequest<Bytes>,
    /// Until the peer's settings were waited for.
    greeting: tokio::sync::Mutex<Option<PingPong>>,
    streams: Arc<Streams>,
    opened: Instant,
    closed: AtomicBool,
}

struct Streams {
    open: AtomicUsize,
    last_use: Mutex<Instant>,
}

/// A place for one stream on a connection.
pub struct Channel {
    shared: Arc<Shared>,
    place: Place,
}

/// Counts one stream until dropped.
struct Place(Arc<Streams>);

impl Drop for Place {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            *self.0.last_use.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
    }
}

impl Pool {
    /// Counts connections within the mesh in `mesh_connections`.
    pub fn new(limits: &Limits, mesh_connections: Arc<Connections>) -> Self {
        Self { hosts: Mutex::default(), head_bytes: limits.head_bytes, mesh_connections }
    }

    /// A place on a connection to `address`, which is made if there is none with room.
    pub async fn channel(
        &self,
        dialer: &Dialer,
        address: SocketAddr,
        peer: Peer<'_>,
        timeout: Duration,
    ) -> Result<Channel, DialError> {
        let (host, identity) = (self.host(address), peer.identity);
        if let Some(channel) = host.place(identity) {
            return Ok(channel);
        }
        let _waits = peer.queue.map(Queue::enter).transpose()?;
        let asked = Instant::now();
        let mut last = host.dialling.lock().await;
        if let Some(channel) = host.place(identity) {
            return Ok(channel);
        }
        if let Some((at, error)) = &*last
            && *at > asked
        {
            return Err(error.clone());
        }
        // Rare, and large: it has a place of its own.
        let dialled = Box::pin(self.dial(&host, dialer, address, identity, timeout)).await;
        *last = dialled.as_ref().err().map(|error| (Instant::now(), error.clone()));
        dialled
    }

    fn host(&self, address: SocketAddr) -> Arc<Host> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(address).or_default())
    }

    async fn dial(
        &self,
        host: &Arc<Host>,
        dialer: &Dialer,
        address: SocketAddr,
        identity: Option<&SpiffeId>,
        timeout: Duration,
    ) -> Result<Channel, DialError> {
        match identity {
            Some(id) => self.begin(host, address, identity, dialer.mesh(address, id, timeout).await?).await,
            None => self.begin(host, address, None, dialer.tcp(address, timeout).await?).await,
        }
    }

    async fn begin<T>(
        &self,
        host: &Arc<Host>,
        address: SocketAddr,
        identity: Option<&SpiffeId>,
        io: T,
    ) -> Result<Channel, DialError>
    where
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (io, turns) = gather(io);
        let (send, mut connection) = h2::client::Builder::new()
            .enable_push(false)
            .initial_window_size(window::STREAM)
            .initial_connection_window_size(window::CONNECTION)
            .max_frame_size(window::FRAME)
            .max_header_list_size(self.head_bytes)
            .max_send_buffer_size(window::STREAM as usize)
            .max_concurrent_reset_streams(window::RESET_STREAMS)
            // Counted over the whole life of the connection: requests that clients gave up must not end it.
            .max_local_error_reset_streams(None)
            .handshake(io)
            .await
            .map_err(|source| DialError::Http2 { address, source: Arc::new(source) })?;
        let streams = Arc::new(Streams { open: AtomicUsize::new(0), last_use: Mutex::new(Instant::now()) });
        let shared = Arc::new(Shared {
            identity: identity.cloned(),
            send,
            greeting: tokio::sync::Mutex::new(connection.ping_pong()),
            streams,
            opened: Instant::now(),
            closed: AtomicBool::new(false),
        });
        host.open.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&shared));
        let place = shared.place_unbounded();
        let open = identity.map(|_| self.mesh_connections.open());
        let (its_place, its_host) = (Arc::downgrade(&shared), Arc::downgrade(host));
        tokio::spawn(async move {
            let _open = open;
            drive(connection, turns, address, its_place, its_host).await;
        });
        Ok(Channel { shared, place })
    }

    /// Gives up connections that are idle or old, and forgets hosts without any.
    pub fn tidy(&self) {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        hosts.retain(|_, host| {
            let mut open = host.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|shared| !shared.is_spent());
            let in_use = !open.is_empty();
            drop(open);
            in_use || Arc::strong_count(host) > 1
        });
    }
}

/// Runs a connection until it ends; the pool forgets it then.
async fn drive<T>(
    mut connection: h2::client::Connection<Gather<T>, Bytes>,
    mut turns: Turns<T>,
    address: SocketAddr,
    shared: Weak<Shared>,
    host: Weak<Host>,
) where
    T: AsyncRead + AsyncWrite + Unpin,
{
    if let Err(error) = turns.next(|cx| connection.poll_unpin(cx)).await {
        tracing::debug!(%address, %error, "a shared connection ended");
    }
    if let (Some(shared), Some(host)) = (shared.upgrade(), host.upgrade()) {
        host.forget(&shared);
    }
}

impl Host {
    fn place(&self, identity: Option<&SpiffeId>) -> Option<Channel> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.iter().filter(|shared| shared.identity.as_ref() == identity).find_map(|shared| {
            let place = shared.place()?;
            Some(Channel { shared: Arc::clone(shared), place })
        })
    }

    fn forget(&self, shared: &Arc<Shared>) {
        shared.closed.store(true, Ordering::Release);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|one| !Arc::ptr_eq(one, shared));
    }
}

impl Shared {
    fn place(&self) -> Option<Place> {
        if self.closed.load(Ordering::Acquire) {
            return None;
        }
        let taken = self.streams.open.fetch_add(1, Ordering::AcqRel);
        let place = Place(Arc::clone(&self.streams));
        (taken < window::STREAMS as usize).then_some(place)
    }

    fn place_unbounded(&self) -> Place {
        self.streams.open.fetch_add(1, Ordering::AcqRel);
        Place(Arc::clone(&self.streams))
    }

    fn is_spent(&self) -> bool {
        let idle = self.streams.open.load(Ordering::Acquire) == 0
            && self.streams.last_use.lock().unwrap_or_else(PoisonError::into_inner).elapsed() > IDLE_AFTER;
        idle || self.opened.elapsed() > RETIRE_AFTER
    }
}

impl Channel {
    /// Waits until the connection takes one more stream. One that takes none any more is not used again.
    async fn ready(&self) -> Result<SendRequest<Bytes>, h2::Error> {
        let ready = self.shared.send.clone().ready().await;
        if ready.is_err() {
            self.shared.closed.store(true, Ordering::Release);
        }
        ready
    }

    /// Sends a request and waits for the head of the response. The body is sent meanwhile, and after.
    pub async fn request(self, mut request: Box<Request<Body>>, peer: SocketAddr) -> Result<Response<Body>, Failed> {
        let failed = |source, request| Failed { error: UpstreamError::Http2 { peer, source }, request };
        request.body_mut().read_ahead().await;
        let mut send = match self.ready().await {
            Ok(send) => send,
            Err(error) => return Err(failed(error, Some(request))),
        };
        let Self { shared, place } = self;
        let without_body = request.body().is_end_stream();
        // The original stays as it came, its version included: it may go elsewhere in that.
        let (response, stream) = match send.send_request(head(&mut request, peer), without_body) {
            Ok(sent) => sent,
            Err(error) => return Err(failed(error, Some(request))),
        };
        drop(send);
        let body = std::mem::take(request.body_mut());
        let sending = (!without_body).then(|| Sending::begin(body, stream));
        match answered(response).await {
            Ok(response) => {
                if let Some(sending) = sending {
                    sending.answered();
                }
                let mut response = response.map(Body::from);
                response.body_mut().attach(place);
                Ok(response)
            }
            Err(error) => {
                let not_begun = was_not_begun(&error);
                if not_begun && error.is_go_away() {
                    shared.closed.store(true, Ordering::Release);
                }
                let body = match sending {
                    None if not_begun || headers::is_safe(request.method()) => Some(Body::empty()),
                    Some(sending) if not_begun => sending.again().await,
                    _ => None,
                };
                let again = body.map(|body| {
                    *request.body_mut() = body;
                    request
                });
                Err(failed(error, again))
            }
        }
    }

    /// Opens a tunnel.
    pub async fn connect(self, request: Request<()>, peer: SocketAddr) -> Result<Tunnel, UpstreamError> {
        match self.open(request, peer).await? {
            (_, Some(tunnel)) => Ok(tunnel),
            (response, None) => {
                let reason = response.headers().get(headers::FSM_DENIED).and_then(|reason| reason.to_str().ok());
                let reason = reason.unwrap_or_default().to_owned();
                Err(UpstreamError::Tunnel { peer, status: response.status(), reason })
            }
        }
    }

    /// Sends a CONNECT. There is a tunnel if the peer agrees, else the response has a body.
    pub async fn open(
        self,
        request: Request<()>,
        peer: SocketAddr,
    ) -> Result<(Response<Body>, Option<Tunnel>), UpstreamError> {
        let failed = |source| UpstreamError::Http2 { peer, source };
        let mut send = self.ready().await.map_err(failed)?;
        let Self { shared: _shared, place } = self;
        let (response, mut stream) = send.send_request(request, false).map_err(failed)?;
        let (parts, receive) = answered(response).await.map_err(failed)?.into_parts();
        if parts.status.is_success() {
            let tunnel = Tunnel::new(stream, receive).with(place);
            return Ok((Response::from_parts(parts, Body::empty()), Some(tunnel)));
        }
        // There will be nothing to send; a peer that has ended the stream knows.
        let _ = stream.send_data(Bytes::new(), true);
        let mut body = Body::from(receive);
        body.attach(place);
        Ok((Response::from_parts(parts, body), None))
    }

    /// Whether the peer takes extended CONNECT (RFC 8441, section 3). Its settings are the first that it sends, so they
    /// are there once it has answered a ping.
    pub async fn takes_websockets(&self) -> bool {
        let takes = || self.shared.send.is_extended_connect_protocol_enabled();
        if takes() {
            return true;
        }
        let mut greeting = self.shared.greeting.lock().await;
        if let Some(ping) = &mut *greeting
            && ping.ping(Ping::opaque()).await.is_ok()
        {
            *greeting = None;
        }
        takes()
    }
}

/// Waits for the final response, and offers those before it.
async fn answered(mut response: ResponseFuture) -> Result<Response<RecvStream>, h2::Error> {
    poll_fn(|cx| {
        loop {
            match response.poll_informational(cx) {
                Poll::Ready(Some(Ok(interim))) => early::offer(interim),
                // The final one is there, or none will be.
                Poll::Ready(_) => return response.poll_unpin(cx),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// The head of a request in the form of HTTP/2.
fn head(request: &mut Request<Body>, peer: SocketAddr) -> Request<()> {
    let mut parts = with_head(request, |parts| parts.clone());
    headers::into_http2(&mut parts, || authority(peer));
    Request::from_parts(parts, ())
}

/// Whether the peer said that it has not looked at the request (RFC 9113, section 8.7).
fn was_not_begun(error: &h2::Error) -> bool {
    let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
    let going_away = error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    error.is_remote() && (refused || going_away)
}

pub(super) fn authority(peer: SocketAddr) -> Authority {
    peer.to_string().parse().unwrap_or_else(|_| Authority::from_static("localhost"))
}
