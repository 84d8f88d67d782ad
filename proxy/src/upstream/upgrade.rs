//! Requests that ask to switch protocols: WebSocket and the like.

use std::net::SocketAddr;
use std::time::Duration;

use h2::ext::Protocol;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::http2::{Channel, authority};
use super::{Peer, Queue, Upstream, UpstreamError};
use crate::accept::Rewind;
use crate::headers;
use crate::serve::Downstream;
use crate::stream::{Abort, Body, Held, Until, splice};
use crate::websocket;

/// A request that asks to switch, in the form of HTTP/1.1.
pub struct Asking {
    pub request: Box<Request<Body>>,
    /// The side that asks.
    pub downstream: Downstream,
    /// What ends that which follows the switch.
    pub until: Until,
}

impl Asking {
    pub fn of(mut request: Box<Request<Body>>, until: Until) -> Self {
        let downstream = Downstream::of(&mut request);
        Self { request, downstream, until }
    }
}

impl Upstream {
    /// Asks `peer` to switch, and joins both sides if it agrees. A WebSocket goes out as a stream of HTTP/2 if that is
    /// `preferred` and the peer can, else all go out on an HTTP/1.1 connection of their own.
    ///
    /// # Errors
    ///
    /// With the request, if it was not sent.
    pub async fn switch(
        &self,
        peer: Peer<'_>,
        timeout: Duration,
        mut asking: Asking,
        http2_preferred: bool,
    ) -> Result<Response<Body>, (UpstreamError, Option<Asking>)> {
        let address = peer.application;
        let broken = |source| (UpstreamError::Http1 { peer: address, source }, None);
        let headers = asking.request.headers_mut();
        // Left by an attempt at another endpoint.
        headers::strip_internal(headers);
        if peer.identity.is_some() {
            if asking.downstream.is_http2() {
                headers.insert(headers::FSM_HTTP_VERSION, HeaderValue::from_static("2"));
            }
            let told = HeaderMap::from_iter([(headers::FSM_UPGRADE, HeaderValue::from_static("1"))]);
            return match self.tunnel(peer, timeout, told).await {
                Ok(tunnel) => over_http1(tunnel, asking).await.map_err(broken),
                Err(error) => Err((error, Some(asking))),
            };
        }
        if http2_preferred
            && websocket::is_asked(headers)
            && let Some(channel) = self.for_websockets(peer, timeout).await
        {
            return over_http2(channel, asking, address).await.map_err(|error| (error, None));
        }
        let dialled = match peer.queue.map(Queue::enter).transpose() {
            Ok(_waits) => self.tcp(address, timeout).await,
            Err(crowded) => Err(crowded),
        };
        match dialled {
            Ok(stream) => over_http1(stream, asking).await.map_err(broken),
            Err(error) => Err((error.into(), Some(asking))),
        }
    }

    /// A connection on which the peer takes WebSockets. None too if it does not speak HTTP/2.
    async fn for_websockets(&self, peer: Peer<'_>, timeout: Duration) -> Option<Channel> {
        let channel = self.channel(peer, timeout).await.ok()?;
        let takes = tokio::time::timeout(timeout, channel.takes_websockets()).await;
        takes.unwrap_or(false).then_some(channel)
    }
}

/// On a connection of its own.
async fn over_http1<T>(io: T, asking: Asking) -> Result<Response<Body>, hyper::Error>
where
    T: AsyncRead + AsyncWrite + Abort + Send + Unpin + 'static,
{
    let (mut parts, body) = asking.request.into_parts();
    headers::into_http1(&mut parts);
    let (mut send, connection) =
        hyper::client::conn::http1::Builder::new().preserve_header_case(true).handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a connection for an upgrade ended");
        }
    });
    let mut response = send.send_request(Request::from_parts(parts, body)).await?;
    let agreed = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    headers::strip_but_upgrade(response.headers_mut(), agreed);
    if !agreed {
        return Ok(response.map(Body::from));
    }
    let upstream = hyper::upgrade::on(&mut response);
    let (body, held) = Body::switched();
    tokio::spawn(async move {
        match upstream.await.map(hyper::upgrade::Upgraded::downcast::<TokioIo<T>>) {
            Ok(Ok(parts)) => {
                let upstream = Rewind::new(parts.read_buf, parts.io.into_inner());
                join(asking.downstream, upstream, asking.until, held).await;
            }
            Ok(Err(_)) => tracing::error!("an upgrade gave another connection than it was made on"),
            Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
        }
    });
    Ok(response.map(|_| body))
}

/// As a stream of a shared connection (RFC 8441, section 5): there the key and its answer are not sent.
async fn over_http2(channel: Channel, asking: Asking, peer: SocketAddr) -> Result<Response<Body>, UpstreamError> {
    let (mut parts, _none) = asking.request.into_parts();
    let key = parts.headers.remove(SEC_WEBSOCKET_KEY);
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.method = Method::CONNECT;
    headers::into_http2(&mut parts, || authority(peer));
    parts.extensions.insert(Protocol::from_static(websocket::PROTOCOL));
    let (response, tunnel) = channel.open(Request::from_parts(parts, ()), peer).await?;
    let (mut parts, body) = match (response, tunnel) {
        (response, Some(tunnel)) => {
            let (body, held) = Body::switched();
            tokio::spawn(join(asking.downstream, tunnel, asking.until, held));
            (response.into_parts().0, body)
        }
        (response, None) => return Ok(response),
    };
    parts.status = StatusCode::SWITCHING_PROTOCOLS;
    parts.version = Version::HTTP_11;
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, HeaderValue::from_static(websocket::PROTOCOL));
    if let Some(key) = key {
        parts.headers.insert(SEC_WEBSOCKET_ACCEPT, websocket::accept(&key));
    }
    Ok(Response::from_parts(parts, body))
}

async fn join(downstream: Downstream, upstream: impl AsyncRead + AsyncWrite + Abort + Unpin, until: Until, held: Held) {
    match downstream.switched().await {
        Ok(downstream) => {
            if let Err(error) = splice(downstream, upstream, until).await {
                tracing::debug!(%error, "a connection that was upgraded broke off");
            }
        }
        Err(error) => tracing::debug!(%error, "an upgrade was not completed"),
    }
    drop(held);
}
