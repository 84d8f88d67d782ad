//! Requests in HTTP/1.0 and HTTP/1.1.

use std::convert::Infallible;
use std::pin::pin;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};

use super::Answer;
use crate::drain::Drain;
use crate::limits::Limits;
use crate::stream::Body;

/// Serves requests one after the other until the client or the drain ends it.
///
/// `head_timeout` is for the wait from one request to the end of the next one's head, so idle connections end by it too.
pub async fn serve<T>(io: T, answer: impl Answer, head_timeout: Option<Duration>, limits: &Limits, drain: &Drain)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer.clone();
        // An idle connection keeps no room for a request.
        Box::pin(async move { Ok::<_, Infallible>(answer.request(http::Request::map(request, Body::from)).await) })
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .preserve_header_case(true)
        .auto_date_header(false)
        .max_buf_size((limits.head_bytes as usize).max(16 * 1024))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.started() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "an HTTP/1 connection ended");
    }
}
