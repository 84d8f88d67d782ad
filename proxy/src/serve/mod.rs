//! Connections on which requests come in, in either version of HTTP.

mod downstream;
mod http1;
mod http2;
mod quiet;
mod websocket;

use std::future::Future;

use http::request::Parts;
use http::{Request, Response};

use crate::field_names::FieldNames;
use crate::stream::Body;

pub use downstream::{Downstream, Pending};
pub use http1::serve as serve_http1;
pub use http2::{Opening, serve as serve_http2};

/// What answers the requests of a connection. Cloned for every request.
pub trait Answer: Clone + Send + Sync + 'static {
    /// Whether clients may open WebSockets in HTTP/2.
    const WEBSOCKETS: bool;

    /// How names of fields are written in HTTP/1.1.
    fn field_names(&self) -> FieldNames {
        FieldNames::Lower
    }

    /// Answers a request. It is large, and handed from one to the next.
    fn request(self, request: Box<Request<Body>>) -> impl Future<Output = Response<Body>> + Send;

    /// Takes a plain CONNECT stream of HTTP/2.
    fn connect(self, head: Parts, opening: Opening) -> impl Future<Output = ()> + Send;
}
