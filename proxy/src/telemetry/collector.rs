//! A collector of spans, for tests.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Takes everything that is sent to it.
pub struct Collector {
    pub endpoint: String,
    calls: mpsc::UnboundedReceiver<(String, Bytes)>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let (received, calls) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let received = received.clone();
                let service = service_fn(move |request: Request<Incoming>| answer(received.clone(), request));
                let connection =
                    http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection);
            }
        });
        Self { endpoint, calls }
    }

    /// The path and the body of the next call.
    pub async fn call(&mut self) -> (String, Bytes) {
        self.calls.recv().await.unwrap()
    }

    /// The next `count` spans, each with the name of its service.
    pub async fn spans(&mut self, count: usize) -> Vec<(String, Span)> {
        let mut spans = Vec::new();
        while spans.len() < count {
            let (_, body) = self.call().await;
            // Behind the length that gRPC puts before a message.
            let request = ExportTraceServiceRequest::decode(&body[5..]).unwrap();
            for of_resource in request.resource_spans {
                let attributes = of_resource.resource.unwrap().attributes;
                let service = attributes.iter().find(|one| one.key == "service.name").unwrap();
                let service = format!("{:?}", service.value.as_ref().unwrap().value.as_ref().unwrap());
                let of_scope = of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
                spans.extend(of_scope.map(|span| (service.clone(), span)));
            }
        }
        spans
    }
}

async fn answer(
    received: mpsc::UnboundedSender<(String, Bytes)>,
    request: Request<Incoming>,
) -> Result<Response<impl hyper::body::Body<Data = Bytes, Error = std::convert::Infallible>>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let _ = received.send((path, request.into_body().collect().await?.to_bytes()));
    let status = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))]);
    let body = Full::new(Bytes::from_static(&[0; 5])).with_trailers(async move { Some(Ok(status)) });
    Ok(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
}
