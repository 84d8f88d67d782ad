//! Connections on which requests come in, in either version of HTTP.

mod http1;
mod http2;
mod quiet;

use std::future::Future;

use http::request::Parts;
use http::{Request, Response};

use crate::stream::Body;

pub use http1::serve as serve_http1;
pub use http2::{Opening, serve as serve_http2};

/// What answers the requests of a connection. Cloned for every request.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Answers a request.
    fn request(self, request: Request<Body>) -> impl Future<Output = Response<Body>> + Send;

    /// Takes a CONNECT stream of HTTP/2.
    fn connect(self, head: Parts, opening: Opening) -> impl Future<Output = ()> + Send;
}
