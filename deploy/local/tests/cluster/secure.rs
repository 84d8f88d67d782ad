//! Small servers for containers that speak TLS or gRPC: this test program, called by another name.

use std::convert::Infallible;
use std::future::Future;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

use crate::server;

pub const PORT: u16 = 8443;
const ARGS: [&str; 4] = ["--exact", "secure::serves_when_called_as_a_container", "--nocapture", "--test-threads=1"];

/// A container that serves `tls` or `grpc`, and is healthy while there is a file `/tmp/ready`.
pub fn serving(kind: &str) -> Value {
    json!({"name": "web", "image": server::IMAGE, "args": ARGS, "env": [{"name": "SERVE_SECURELY", "value": kind}]})
}

/// Not a test of anything by itself: inside a container it serves until it is killed.
#[test]
fn serves_when_called_as_a_container() {
    let Ok(kind) = std::env::var("SERVE_SECURELY") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        match kind.as_str() {
            "tls" => serve(tls).await,
            _ => serve(grpc).await,
        }
    });
}

async fn serve<F: Future<Output = ()> + Send + 'static>(connection: impl Fn(TcpStream) -> F) {
    let listener = TcpListener::bind(("::", PORT)).await.unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(connection(stream));
    }
}

fn is_ready() -> bool {
    Path::new("/tmp/ready").exists()
}

/// HTTP/1.1 behind a certificate that nobody has signed.
async fn tls(stream: TcpStream) {
    let own = rcgen::generate_simple_self_signed(["somebody.else".to_owned()]).unwrap();
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![own.cert.der().clone()], key.into()).unwrap();
    let Ok(stream) = tokio_rustls::TlsAcceptor::from(Arc::new(config)).accept(stream).await else { return };
    let answer = service_fn(async |_: Request<Incoming>| {
        let status = if is_ready() { 200 } else { 503 };
        Ok::<_, Infallible>(Response::builder().status(status).body(Empty::<Bytes>::new()).unwrap())
    });
    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await.ok();
}

/// The health service (grpc.health.v1), which knows the service `shop`.
async fn grpc(stream: TcpStream) {
    let answer = service_fn(async |request: Request<Incoming>| {
        assert_eq!(request.uri().path(), "/grpc.health.v1.Health/Check");
        let asked = request.into_body().collect().await.unwrap().to_bytes();
        // NOT_FOUND, or OK with SERVING or NOT_SERVING.
        let (code, message) = match (asked.ends_with(b"shop"), is_ready()) {
            (false, _) => ("5", None),
            (true, true) => ("0", Some([0, 0, 0, 0, 2, 8, 1])),
            (true, false) => ("0", Some([0, 0, 0, 0, 2, 8, 2])),
        };
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        let body = Full::new(message.map_or_else(Bytes::new, |message| Bytes::copy_from_slice(&message)));
        let body: BoxBody<Bytes, Infallible> = body.with_trailers(async { Some(Ok(trailers)) }).boxed();
        Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body(body).unwrap())
    });
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    server.serve_connection(TokioIo::new(stream), answer).await.ok();
}
