//! Applications behind sidecars.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};

pub type AppBody = BoxBody<Bytes, hyper::Error>;

/// An application, and how many connections it has taken.
pub struct App {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
}

impl App {
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

/// Accepts on a port of its own and gives every connection to `serve`.
pub async fn listen<F, Fut>(serve: F) -> App
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&connections);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            count.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve(stream));
        }
    });
    App { address, connections }
}

/// An address where nothing listens.
pub async fn closed_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap().local_addr().unwrap().port()
}

pub fn text(text: impl Into<Bytes>) -> AppBody {
    Full::new(text.into()).map_err(|never: Infallible| match never {}).boxed()
}

/// An HTTP/1.1 application with one answer function.
pub async fn http1<F, Fut>(answer: F) -> App
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Response<AppBody>> + Send + 'static,
{
    listen(move |stream| {
        let answer = answer.clone();
        async move {
            let service = service_fn(move |request| {
                let answered = answer(request);
                async move { Ok::<_, Infallible>(answered.await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .preserve_header_case(true)
                .serve_connection(TokioIo::new(stream), service);
            let _ = connection.with_upgrades().await;
        }
    })
    .await
}

/// An HTTP/2 application (prior knowledge) that echoes the body and ends with the trailer `grpc-status: 0`.
pub async fn grpc_echo() -> App {
    listen(|stream| async move {
        let service = service_fn(|request: Request<Incoming>| async move {
            let path = request.uri().to_string();
            let trailers = HeaderMap::from_iter([(
                http::HeaderName::from_static("grpc-status"),
                http::HeaderValue::from_static("0"),
            )]);
            let end = futures::stream::iter([Ok::<_, hyper::Error>(Frame::trailers(trailers))]);
            let data = http_body_util::BodyStream::new(request.into_body());
            let body = StreamBody::new(futures::StreamExt::chain(data, end));
            let response = Response::builder().header("content-type", "application/grpc").header("x-uri", path);
            Ok::<_, Infallible>(response.body(body).unwrap())
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(stream), service)
            .await;
    })
    .await
}

/// Says what it was asked: `METHOD path host=… [headers]`.
pub async fn describe(request: Request<Incoming>) -> Response<AppBody> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut internal: Vec<&str> =
        parts.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("fsm-")).collect();
    internal.sort_unstable();
    let host = parts.headers.get("host").map(|host| host.to_str().unwrap()).unwrap_or("-");
    let line = format!(
        "{} {} {:?} host={host} internal={internal:?} body={}",
        parts.method,
        parts.uri,
        parts.version,
        String::from_utf8_lossy(&body)
    );
    Response::builder().status(StatusCode::OK).header("x-app", "describe").body(text(line)).unwrap()
}
