//! The little HTTP that the demo's programs need.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};

/// What the programs answer.
pub type Answer = Response<Full<Bytes>>;

/// Serves HTTP/1.1 on all addresses until the process is asked to stop.
pub async fn serve<F, Fut>(port: u16, answer: F) -> anyhow::Result<()>
where
    F: Fn(Request<Bytes>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    let address = SocketAddr::from(([0, 0, 0, 0], port));
    let listener = TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))?;
    let answer = Arc::new(answer);
    let mut stop = std::pin::pin!(stop_signal()?);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => accepted?.0,
            () = &mut stop => return Ok(()),
        };
        let answer = answer.clone();
        tokio::spawn(async move {
            let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                let answer = answer.clone();
                async move { Ok::<_, Infallible>(read_and_answer(request, &*answer).await) }
            });
            // A connection that breaks is the client's business.
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

async fn read_and_answer<F, Fut>(request: Request<Incoming>, answer: &F) -> Answer
where
    F: Fn(Request<Bytes>) -> Fut,
    Fut: Future<Output = Answer>,
{
    let (head, body) = request.into_parts();
    match body.collect().await {
        Ok(body) => answer(Request::from_parts(head, body.to_bytes())).await,
        Err(error) => text(StatusCode::BAD_REQUEST, format!("the request's body broke off: {error}")),
    }
}

fn stop_signal() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// A plain-text answer.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer
}

/// A JSON answer.
pub fn json(value: &serde_json::Value) -> Answer {
    let mut answer = text(StatusCode::OK, format!("{value}\n"));
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    answer
}

/// A client that keeps one connection to `host:port`, and dials again after it broke.
pub struct Client {
    target: String,
    connection: Option<SendRequest<Full<Bytes>>>,
}

/// How long one request may take, connecting included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

impl Client {
    /// `target` is `host:port`.
    pub fn new(target: impl Into<String>) -> Self {
        Self { target: target.into(), connection: None }
    }

    /// Sends one request (path in its URI; Host is filled in) and reads the whole answer.
    pub async fn send(&mut self, mut request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        request.headers_mut().insert(http::header::HOST, self.target.parse()?);
        let answered = tokio::time::timeout(REQUEST_TIMEOUT, self.exchange(request)).await;
        let answer = answered.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {REQUEST_TIMEOUT:?}")));
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    async fn exchange(&mut self, request: Request<Full<Bytes>>) -> anyhow::Result<Response<Bytes>> {
        let mut connection = match self.connection.take() {
            Some(mut kept) => match kept.ready().await {
                Ok(()) => kept,
                Err(_) => connect(&self.target).await?,
            },
            None => connect(&self.target).await?,
        };
        let (head, body) = connection.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        self.connection = Some(connection);
        Ok(Response::from_parts(head, body))
    }
}

async fn connect(target: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(target).await.with_context(|| format!("cannot connect to {target}"))?;
    stream.set_nodelay(true)?;
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    Ok(sender)
}
