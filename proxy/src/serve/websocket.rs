//! WebSockets of HTTP/2 clients: each is one stream, opened by an extended CONNECT (RFC 8441).
//!
//! Within the proxy such a request has the form of HTTP/1.1, a GET that asks for an upgrade. So it is decided, judged, counted
//! and carried as any other WebSocket, whatever the server speaks. What the client does not send in HTTP/2, the key, is made
//! here, and its answer is looked at here.

use bytes::Bytes;
use h2::RecvStream;
use h2::ext::Protocol;
use h2::server::SendResponse;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, Request, Response, StatusCode, Version};

use super::http2::{answered, send};
use super::{Answer, Pending};
use crate::headers;
use crate::reply::Reply;
use crate::stream::{Body, Tunnel};
use crate::websocket;

/// Serves one stream.
pub async fn stream(
    request: Request<RecvStream>,
    protocol: Protocol,
    mut respond: SendResponse<Bytes>,
    answer: impl Answer,
) {
    let (mut parts, receive) = request.into_parts();
    if protocol.as_str() != websocket::PROTOCOL {
        let refused = Reply::unknown_protocol(protocol.as_str()).into_response(false);
        return send(refused, respond, false).await;
    }
    parts.method = Method::GET;
    parts.version = Version::HTTP_11;
    let key = websocket::key();
    parts.headers.remove(CONTENT_LENGTH);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.headers.insert(UPGRADE, HeaderValue::from_static(websocket::PROTOCOL));
    parts.headers.insert(SEC_WEBSOCKET_KEY, key.clone());
    let (pending, agreed) = Pending::new();
    parts.extensions.insert(pending);
    let answer = answer.request(Box::new(Request::from_parts(parts, Body::empty())));
    let Some(response) = answered(answer, &mut respond).await else { return };
    let (mut parts, body) = response.into_parts();
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        headers::strip_hop_by_hop(&mut parts.headers);
        return send(Response::from_parts(parts, body), respond, false).await;
    }
    if parts.headers.remove(SEC_WEBSOCKET_ACCEPT) != Some(websocket::accept(&key)) {
        return send(Reply::no_websocket().into_response(false), respond, false).await;
    }
    headers::strip_hop_by_hop(&mut parts.headers);
    parts.status = StatusCode::OK;
    parts.version = Version::HTTP_2;
    match respond.send_response(Response::from_parts(parts, ()), false) {
        // If nobody takes the tunnel any more, the server has gone: dropping it resets the stream.
        Ok(stream) => drop(agreed.send(Tunnel::new(stream, receive))),
        Err(error) => tracing::debug!(%error, "a WebSocket could not be accepted"),
    }
}
