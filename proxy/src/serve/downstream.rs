//! The side of a client that asked to switch protocols.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use http::Request;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;
use tokio_util::either::Either;

use crate::stream::{Abort, Body, Tunnel};

/// The client's connection, once the switch is agreed on.
pub enum Downstream {
    /// All of an HTTP/1.1 connection.
    Http1(OnUpgrade),
    /// One stream of HTTP/2.
    Http2(Pending),
}

/// A connection after the switch.
pub type Switched = Either<TokioIo<Upgraded>, Tunnel>;

/// A stream whose client waits for the answer.
#[derive(Clone)]
pub struct Pending(Arc<Mutex<Option<oneshot::Receiver<Tunnel>>>>);

impl Abort for TokioIo<Upgraded> {
    fn abort(&mut self) {
        // Dropping it closes the connection that was upgraded.
    }
}

impl Pending {
    /// One half promises the stream in a request's extensions, the other one keeps the promise.
    pub fn new() -> (Self, oneshot::Sender<Tunnel>) {
        let (agreed, pending) = oneshot::channel();
        (Self(Arc::new(Mutex::new(Some(pending)))), agreed)
    }
}

impl Downstream {
    /// That of a request which asks to switch.
    pub fn of(request: &mut Request<Body>) -> Self {
        match request.extensions_mut().remove::<Pending>() {
            Some(pending) => Self::Http2(pending),
            None => Self::Http1(hyper::upgrade::on(request)),
        }
    }

    pub fn is_http2(&self) -> bool {
        matches!(self, Self::Http2(_))
    }

    /// Waits for the client to hear that the switch is agreed on.
    pub async fn switched(self) -> io::Result<Switched> {
        match self {
            Self::Http1(upgrade) => match upgrade.await {
                Ok(upgraded) => Ok(Either::Left(TokioIo::new(upgraded))),
                Err(error) => Err(io::Error::other(error)),
            },
            Self::Http2(Pending(pending)) => {
                let pending = pending.lock().unwrap_or_else(PoisonError::into_inner).take();
                let gone = || io::Error::from(io::ErrorKind::ConnectionAborted);
                Ok(Either::Right(pending.ok_or_else(gone)?.await.map_err(|_| gone())?))
            }
        }
    }
}
