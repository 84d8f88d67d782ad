//! Requests in HTTP/1.0 and HTTP/1.1.
//!
//! A connection that rests between two requests gives back its parser and buffers, 16 KiB and more, and is no more than a
//! socket until its next bytes come.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HeaderValue};
use http::{StatusCode, Version};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};
use tokio::time::Instant;

use super::Answer;
use super::quiet::{Told, Traffic};
use crate::accept::Rewind;
use crate::drain::Drain;
use crate::early;
use crate::limits::Limits;
use crate::stream::Body;

/// When a connection is looked at after it has woken; it rests if nothing has moved since the last look. One on which much
/// goes on is looked at ever less often. The first looks come soon, so that many connections with a request each do not hold
/// their buffers all at once.
const FIRST_LOOK: Duration = Duration::from_millis(8);
const LOOK_EVERY: Duration = Duration::from_millis(256);
/// What is read of the first bytes after a rest; the rest of them is read as usual.
const FIRST: usize = 128;

/// Serves requests one after the other until the client or the drain ends it.
///
/// `head_timeout` is for the wait from one request to the end of the next one's head, so idle connections end by it too.
pub async fn serve<T>(mut io: T, answer: impl Answer, head_timeout: Option<Duration>, limits: &Limits, drain: &Drain)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let mut head = Bytes::new();
    loop {
        // What a connection needs while it is busy has a place of its own.
        let served = Box::pin(until_rest(Rewind::new(head, io), answer.clone(), head_timeout, limits, drain)).await;
        let Some((begun, resting)) = served else { return };
        io = resting;
        let Some(next) = rest(&mut io, head_timeout, drain).await else { return };
        head = if begun.is_empty() { next } else { [begun, next].concat().into() };
    }
}

/// Waits for the first bytes of the next request. None: there will be none.
async fn rest<T: AsyncRead + Unpin>(io: &mut T, timeout: Option<Duration>, drain: &Drain) -> Option<Bytes> {
    let mut first = [0; FIRST];
    tokio::select! {
        read = io.read(&mut first) => match read {
            Ok(0) | Err(_) => None,
            Ok(read) => Some(Bytes::copy_from_slice(&first[..read])),
        },
        () = tokio::time::sleep(timeout.unwrap_or_default()), if timeout.is_some() => None,
        () = drain.idle_ended() => None,
    }
}

/// Serves requests until the connection rests: gives it back then, with what was read from it already.
async fn until_rest<T>(
    io: Rewind<T>,
    answer: impl Answer,
    head_timeout: Option<Duration>,
    limits: &Limits,
    drain: &Drain,
) -> Option<(Bytes, T)>
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let traffic = Arc::new(Traffic::until(drain));
    let io = Told::new(io, Arc::clone(&traffic));
    let counted = Arc::clone(&traffic);
    let title_case = answer.field_names().is_title();
    let service = service_fn(move |request| {
        let request = Box::new(http::Request::map(request, Body::from));
        let (answer, under_way) = (answer.clone(), counted.begin());
        // A connection without a request keeps no room for one.
        Box::pin(async move {
            let understands = request.version() == Version::HTTP_11;
            let (mut waiting, mut passed) = (pin!(answer.request(request)), 0);
            let mut response = poll_fn(|cx| {
                early::poll(waiting.as_mut(), &mut passed, cx, |interim| {
                    if understands {
                        under_way.interim(&interim);
                    }
                })
            })
            .await;
            if passed > 0 {
                // They leave when hyper has nothing to write.
                tokio::task::yield_now().await;
            }
            match response.status() {
                StatusCode::SWITCHING_PROTOCOLS => under_way.switched(),
                _ => {
                    if under_way.is_last() {
                        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
                    }
                    response.body_mut().attach(under_way);
                }
            }
            Ok::<_, Infallible>(response)
        })
    });
    let mut connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .preserve_header_case(true)
        .title_case_headers(title_case)
        .auto_date_header(false)
        .max_buf_size((limits.head_bytes as usize).max(16 * 1024))
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades();
    let mut wait = FIRST_LOOK;
    let mut look = pin!(tokio::time::sleep(wait));
    let mut draining = pin!(drain.idle_ended());
    let (mut moves, mut ending) = (0, false);
    let ended = poll_fn(|cx| {
        if !ending && draining.as_mut().poll(cx).is_ready() {
            ending = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(Some(ended));
        }
        while look.as_mut().poll(cx).is_ready() {
            let before = std::mem::replace(&mut moves, traffic.moves());
            if moves == before && !ending && traffic.is_at_rest() {
                return Poll::Ready(None);
            }
            wait = LOOK_EVERY.min(wait * 2);
            look.as_mut().reset(Instant::now() + wait);
        }
        Poll::Pending
    });
    match ended.await {
        None => {
            let parts = connection.into_parts()?;
            let (unread, io) = parts.io.into_inner().into_inner().into_parts();
            Some(([unread, parts.read_buf].concat().into(), io))
        }
        Some(Ok(())) => None,
        Some(Err(error)) => {
            tracing::debug!(%error, "an HTTP/1 connection ended");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use http::request::Parts;
    use http::{Request, Response};
    use tokio::io::{AsyncWriteExt as _, DuplexStream};

    use super::*;
    use crate::serve::Opening;

    /// Answers with the path. A connection that does not rest holds one more of it.
    #[derive(Clone)]
    struct Path(Arc<()>);

    impl Answer for Path {
        const WEBSOCKETS: bool = false;

        async fn request(self, request: Box<Request<Body>>) -> Response<Body> {
            Response::new(Body::text(request.uri().path().to_owned()))
        }

        async fn connect(self, _head: Parts, opening: Opening) {
            opening.unsupported();
        }
    }

    async fn exchange(client: &mut DuplexStream, parts: &[&str]) -> String {
        for part in parts {
            client.write_all(part.as_bytes()).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = vec![0; 4096];
        let read = client.read(&mut answer).await.unwrap();
        String::from_utf8(answer[..read].to_vec()).unwrap()
    }

    async fn wait_for_rest(answer: &Path) {
        // The test's, and the one with which the connection will go on.
        while Arc::strong_count(&answer.0) > 2 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_connection_goes_on_after_a_rest_wherever_its_bytes_were_cut() {
        let (mut client, server) = tokio::io::duplex(4096);
        let (answer, drain) = (Path(Arc::default()), Drain::default());
        let (serving, ending) = (answer.clone(), drain.clone());
        let served = tokio::spawn(async move { serve(server, serving, None, &Limits::default(), &ending).await });
        let said = exchange(&mut client, &["GET /a HTTP/1.1\r\nhost: a\r\n\r\n"]).await;
        assert!(said.ends_with("\r\n\r\n/a"), "{said}");
        wait_for_rest(&answer).await;
        let long = format!("/{}", "b".repeat(3 * FIRST));
        let said = exchange(&mut client, &["G", "ET ", &long, " HTTP/1.1\r\nhost: a\r\n\r", "\n"]).await;
        assert!(said.ends_with(&long), "{said}");
        // A head that has begun is kept through a rest.
        client.write_all(b"GET /c HTTP/1.1\r\nho").await.unwrap();
        wait_for_rest(&answer).await;
        let said = exchange(&mut client, &["st: a\r\n\r\n"]).await;
        assert!(said.ends_with("\r\n\r\n/c"), "{said}");
        wait_for_rest(&answer).await;
        drain.finish(Duration::from_secs(1)).await;
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        served.await.unwrap();
    }
}
