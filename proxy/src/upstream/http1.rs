//! HTTP/1.1 connections, kept alive and used again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};
use http::{Request, Response};
use http_body::Body as _;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

use super::dial::{DialError, Dialer};
use super::{Failed, UpstreamError};
use crate::headers;
use crate::limits::Limits;
use crate::stream::Body;

/// A connection is not used again after this long: applications close theirs after 5 s and more.
const IDLE_AFTER: Duration = Duration::from_secs(4);
/// Idle connections that are kept for one address.
const IDLE_CONNECTIONS: usize = 128;

/// Idle connections by address.
pub struct Pool {
    idle: Mutex<HashMap<SocketAddr, Vec<Idle>>>,
    head_bytes: u32,
    head_fields: usize,
}

struct Idle {
    send: SendRequest<Body>,
    since: Instant,
}

impl Pool {
    pub fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self { idle: Mutex::default(), head_bytes: limits.head_bytes, head_fields: limits.head_fields })
    }

    /// Sends a request, on an idle connection if there is one.
    pub async fn request(
        self: &Arc<Self>,
        dialer: &Dialer,
        address: SocketAddr,
        timeout: Duration,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failed> {
        let (mut parts, body) = request.into_parts();
        headers::into_http1(&mut parts);
        if !body.is_end_stream() && !parts.headers.contains_key(CONTENT_LENGTH) {
            // Said explicitly, as hyper takes GET and HEAD to have no body otherwise.
            parts.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        let mut request = Request::from_parts(parts, body);
        while let Some(send) = self.take(address) {
            // The application may close an idle connection at any time, even while the request is on its way.
            match self.send(address, send, request).await {
                Err(Failed { request: Some(unsent), .. }) => request = *unsent,
                answered => return answered,
            }
        }
        match self.dial(dialer, address, timeout).await {
            Ok(send) => self.send(address, send, request).await.map_err(|failed| Failed { request: None, ..failed }),
            Err(error) => Err(Failed { error: error.into(), request: Some(Box::new(request)) }),
        }
    }

    async fn send(
        self: &Arc<Self>,
        address: SocketAddr,
        mut send: SendRequest<Body>,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failed> {
        let again = (headers::is_safe(request.method()) && request.body().is_end_stream()).then(|| head(&request));
        match send.try_send_request(request).await {
            Ok(response) => {
                let mut response = response.map(Body::from);
                response.body_mut().attach(GiveBack { pool: Arc::downgrade(self), address, send: Some(send) });
                Ok(response)
            }
            Err(mut error) => {
                let request = error.take_message().or(again);
                let error = UpstreamError::Http1 { peer: address, source: error.into_error() };
                Err(Failed { error, request: request.map(Box::new) })
            }
        }
    }

    async fn dial(
        &self,
        dialer: &Dialer,
        address: SocketAddr,
        timeout: Duration,
    ) -> Result<SendRequest<Body>, DialError> {
        let stream = dialer.tcp(address, timeout).await?;
        let (send, connection) = hyper::client::conn::http1::Builder::new()
            .preserve_header_case(true)
            .max_headers(self.head_fields)
            .max_header_size(self.head_bytes as usize)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|source| DialError::Http1 { address, source: Arc::new(source) })?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%address, %error, "a kept connection ended");
            }
        });
        Ok(send)
    }

    fn take(&self, address: SocketAddr) -> Option<SendRequest<Body>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.get_mut(&address)?;
        while let Some(Idle { send, since }) = kept.pop() {
            if since.elapsed() > IDLE_AFTER {
                kept.clear();
            } else if send.is_ready() {
                return Some(send);
            }
        }
        None
    }

    fn put(&self, address: SocketAddr, send: SendRequest<Body>) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = idle.entry(address).or_default();
        if kept.len() < IDLE_CONNECTIONS {
            kept.push(Idle { send, since: Instant::now() });
        }
    }

    /// Closes connections that have been idle for long.
    pub fn tidy(&self) {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|_, kept| {
            kept.retain(|one| !one.send.is_closed() && one.since.elapsed() <= IDLE_AFTER);
            !kept.is_empty()
        });
    }
}

/// The same request again, for one that has no body.
fn head(request: &Request<Body>) -> Request<Body> {
    let mut copy = Request::new(Body::empty());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    *copy.extensions_mut() = request.extensions().clone();
    copy
}

/// Gives a connection back to the pool when the response on it has come to its end.
struct GiveBack {
    pool: Weak<Pool>,
    address: SocketAddr,
    send: Option<SendRequest<Body>>,
}

impl Drop for GiveBack {
    fn drop(&mut self) {
        let (Some(pool), Some(mut send)) = (self.pool.upgrade(), self.send.take()) else { return };
        if send.is_closed() {
            return;
        }
        if send.is_ready() {
            return pool.put(self.address, send);
        }
        // The connection has yet to notice the end of the response, or is still sending the request.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let address = self.address;
            runtime.spawn(async move {
                if let Ok(Ok(())) = tokio::time::timeout(IDLE_AFTER, send.ready()).await {
                    pool.put(address, send);
                }
            });
        }
    }
}
