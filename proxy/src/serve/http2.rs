//! Requests in HTTP/2.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use h2::RecvStream;
use h2::ext::Protocol;
use h2::server::SendResponse;
use http::{Method, Request, Response};
use http_body::Body as _;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{Answer, websocket};
use crate::drain::Drain;
use crate::early;
use crate::limits::Limits;
use crate::reply::Reply;
use crate::stream::{Body, Tunnel, gather, send_body};
use crate::upstream::window;

/// A CONNECT stream that is neither accepted nor refused yet.
pub struct Opening {
    respond: SendResponse<Bytes>,
    receive: RecvStream,
}

/// Serves streams, all at once, until the client or the drain ends the connection.
pub async fn serve<T, A>(io: T, answer: A, limits: &Limits, drain: &Drain)
where
    A: Answer,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (io, mut turns) = gather(io);
    let mut builder = h2::server::Builder::new();
    if A::WEBSOCKETS {
        builder.enable_connect_protocol();
    }
    let handshake = builder
        .initial_window_size(window::STREAM)
        .initial_connection_window_size(window::CONNECTION)
        .max_concurrent_streams(window::STREAMS)
        .max_frame_size(window::FRAME)
        .max_header_list_size(limits.head_bytes)
        .max_send_buffer_size(window::STREAM as usize)
        .max_concurrent_reset_streams(window::RESET_STREAMS)
        .max_pending_accept_reset_streams(window::STREAMS as usize)
        // Counted over the whole life of the connection: requests that clients gave up must not end it.
        .max_local_error_reset_streams(None)
        .handshake(io);
    let mut connection = match tokio::time::timeout(limits.head_timeout, handshake).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return tracing::debug!(%error, "HTTP/2 did not begin"),
        Err(_elapsed) => return,
    };
    let mut draining = false;
    loop {
        let accepted = tokio::select! {
            accepted = turns.next(|cx| connection.poll_accept(cx)) => accepted,
            () = drain.started(), if !draining => {
                draining = true;
                connection.graceful_shutdown();
                continue;
            }
        };
        match accepted {
            Some(Ok((mut request, respond))) if request.method() == Method::CONNECT => {
                match request.extensions_mut().remove::<Protocol>() {
                    Some(protocol) => drain.spawn(websocket::stream(request, protocol, respond, answer.clone())),
                    None => {
                        let (head, receive) = request.into_parts();
                        drain.spawn(answer.clone().connect(head, Opening { respond, receive }));
                    }
                }
            }
            Some(Ok((request, respond))) => {
                let request = Box::new(request.map(Body::from));
                // It is large, and a task is moved as a whole more than once.
                drain.spawn(Box::pin(stream(request, respond, answer.clone())));
            }
            Some(Err(error)) => return tracing::debug!(%error, "an HTTP/2 connection ended"),
            None => return,
        }
    }
}

async fn stream(request: Box<Request<Body>>, mut respond: SendResponse<Bytes>, answer: impl Answer) {
    let head_only = request.method() == Method::HEAD;
    let Some(response) = answered(answer.request(request), &mut respond).await else { return };
    send(response, respond, head_only).await;
}

/// Waits for an answer, and sends the interim responses before it. None: nobody waits for it any more, and dropping the
/// request ends it upstream too.
pub(super) async fn answered(
    answer: impl Future<Output = Response<Body>>,
    respond: &mut SendResponse<Bytes>,
) -> Option<Response<Body>> {
    let (mut answer, mut passed) = (pin!(answer), 0);
    poll_fn(|cx| {
        // What cannot be sent will show when the final response cannot.
        let pass = |interim| drop(respond.send_informational(interim));
        match early::poll(answer.as_mut(), &mut passed, cx, pass) {
            Poll::Pending => respond.poll_reset(cx).map(|_| None),
            Poll::Ready(response) => Poll::Ready(Some(response)),
        }
    })
    .await
}

/// Sends a response, and its body at the client's pace.
pub(super) async fn send(response: Response<Body>, mut respond: SendResponse<Bytes>, head_only: bool) {
    let (mut parts, mut body) = response.into_parts();
    parts.version = http::Version::HTTP_2;
    body.read_ahead().await;
    let ended = head_only || body.is_end_stream();
    match respond.send_response(Response::from_parts(parts, ()), ended) {
        Ok(stream) if !ended => drop(send_body(body, stream, None).await),
        Ok(_) => {}
        Err(error) => tracing::debug!(%error, "a response could not be sent"),
    }
}

impl Opening {
    /// Accepts the tunnel.
    pub fn accept(mut self) -> Result<Tunnel, h2::Error> {
        let stream = self.respond.send_response(Response::new(()), false)?;
        Ok(Tunnel::new(stream, self.receive))
    }

    /// Refuses the tunnel, and says why.
    pub fn refuse(mut self, reply: Reply) {
        let (mut parts, _text) = reply.into_response(false).into_parts();
        parts.headers.remove(http::header::CONTENT_TYPE);
        parts.headers.remove(http::header::CONTENT_LENGTH);
        // The client has not ended its side, and is not expected to: once the response has left, dropping the rest resets
        // the stream without error. To reset it here could overtake the response.
        if let Err(error) = self.respond.send_response(Response::from_parts(parts, ()), true) {
            tracing::debug!(%error, "a tunnel could not be refused");
        }
    }

    /// The connection cannot make tunnels.
    pub fn unsupported(self) {
        self.refuse(Reply::no_tunnels());
    }
}
