//! The application beside the client's sidecar.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// A whole response.
#[derive(Debug)]
pub struct Answered {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
    pub trailers: Option<HeaderMap>,
}

pub async fn collect(response: Response<hyper::body::Incoming>) -> Answered {
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap();
    let trailers = body.trailers().cloned();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    Answered { status: parts.status.as_u16(), headers: parts.headers, text, trailers }
}

/// An HTTP/1.1 connection, kept alive.
pub async fn connect1<B>(proxy: SocketAddr) -> http1::SendRequest<B>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(proxy).await.unwrap();
    let (send, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection.with_upgrades());
    send
}

/// An HTTP/2 connection, prior knowledge.
pub async fn connect2<B>(proxy: SocketAddr) -> http2::SendRequest<B>
where
    B: Body<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let stream = TcpStream::connect(proxy).await.unwrap();
    let (send, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    send
}

pub fn get(path: &str) -> Request<Full<Bytes>> {
    Request::builder().uri(path).header("host", "store").body(Full::default()).unwrap()
}

/// One GET on a connection of its own.
pub async fn fetch(proxy: SocketAddr, path: &str) -> Answered {
    let mut send = connect1(proxy).await;
    collect(send.send_request(get(path)).await.unwrap()).await
}
