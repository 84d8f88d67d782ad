//! Connections: TLS, HTTP/1.1 and HTTP/2, and the form of answers on the wire.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH, SEC_WEBSOCKET_ACCEPT,
    SEC_WEBSOCKET_PROTOCOL, UPGRADE, WARNING,
};
use http::{Request as HttpRequest, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::query::Query;
use super::rbac;
use super::reviews;
use super::routes::{self, Answer, Reply, Request};
use super::server::Server;
use super::status::ApiError;
use super::tokens::ISSUER;
use super::users::User;

type Body = UnsyncBoxBody<Bytes, Infallible>;

/// The largest request body: that of a real server.
const LARGEST_BODY: usize = 3 * 1024 * 1024;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// Accepts connections until the server stops.
pub async fn accept(server: Arc<Server>, listener: TcpListener, tls: TlsAcceptor, connections: TaskTracker) {
    loop {
        let accepted = tokio::select! {
            () = server.stopping.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(server.clone(), stream, tls.clone()));
            }
            Err(error) => {
                // Out of descriptors, most likely: others must end first.
                tracing::warn!(%error, "the API server can't accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn connection(server: Arc<Server>, stream: TcpStream, tls: TlsAcceptor) {
    let _ = stream.set_nodelay(true);
    let address = stream.local_addr().map(|a| a.to_string()).unwrap_or_default();
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "a client of the API server gave up or doesn't trust its certificate");
            return;
        }
        Err(_) => return,
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let user = certificates.and_then(<[_]>::first).and_then(|certificate| User::from_certificate(certificate));
    let stopping = server.stopping.clone();
    let service = service_fn(move |request: HttpRequest<Incoming>| {
        let (server, user, address) = (server.clone(), user.clone(), address.clone());
        async move { Ok::<_, Infallible>(handle(&server, request, user, address).await) }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http2().max_concurrent_streams(1000);
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to the API server ended early");
    }
}

async fn handle(
    server: &Arc<Server>,
    mut request: HttpRequest<Incoming>,
    certificate: Option<User>,
    address: String,
) -> Response<Body> {
    let upgrade = request.headers().contains_key(UPGRADE).then(|| hyper::upgrade::on(&mut request));
    let (parts, body) = request.into_parts();
    let none_match = parts.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).map(ToOwned::to_owned);
    let result = async {
        let user = authenticate(server, &parts.headers, certificate)?;
        let user = rbac::impersonated(server, &parts.headers, user)?;
        let body = match Limited::new(body, LARGEST_BODY).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.downcast_ref::<LengthLimitError>().is_some() => {
                let message = format!("Request entity too large: limit is {LARGEST_BODY}");
                return Err(ApiError::new(413, "RequestEntityTooLarge", message));
            }
            Err(error) => return Err(ApiError::bad_request(format!("the body of the request can't be read: {error}"))),
        };
        let request = Request {
            method: parts.method.clone(),
            path: parts.uri.path().to_owned(),
            query: Query::parse(parts.uri.query().unwrap_or_default()),
            headers: parts.headers.clone(),
            body,
            user,
            address,
            upgrade,
        };
        routes::answer(server, request).await
    }
    .await;
    tracing::debug!(method = %parts.method, uri = %parts.uri, failed = result.as_ref().err().map(|e| e.message.as_str()), "api request");
    match result {
        Ok(reply) => respond(reply, none_match.as_deref()),
        Err(error) => refuse(&error),
    }
}

/// Who asks: a bearer token goes before a certificate. A token that isn't accepted is refused, whatever else there is.
fn authenticate(server: &Server, headers: &http::HeaderMap, certificate: Option<User>) -> Result<User, ApiError> {
    let bearer = headers
        .get(http::header::AUTHORIZATION)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.strip_prefix("Bearer ").or_else(|| v.strip_prefix("bearer ")));
    match bearer {
        Some(token) => match reviews::authenticate(server, token.trim(), &[ISSUER.into()]) {
            Ok((user, _)) => Ok(user),
            Err(error) => {
                tracing::debug!(%error, "a bearer token was refused");
                Err(ApiError::unauthorized())
            }
        },
        None => Ok(certificate.unwrap_or_else(User::anonymous)),
    }
}

fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

fn respond(reply: Reply, none_match: Option<&str>) -> Response<Body> {
    let mut response = match reply.answer {
        Answer::Value { code, value, content_type, etag } => {
            let (bytes, media) = if reply.yaml {
                (serde_yaml::to_string(&value).unwrap_or_default().into_bytes(), "application/yaml")
            } else {
                (value.to_string().into_bytes(), content_type.unwrap_or("application/json"))
            };
            let tag = etag.then(|| super::discovery::etag(&bytes));
            let unchanged = tag.is_some() && none_match == tag.as_deref();
            let code = if unchanged { 304 } else { code };
            let mut response = new(code, media, if unchanged { full(Bytes::new()) } else { full(bytes) });
            if let Some(tag) = tag.and_then(|tag| HeaderValue::from_str(&tag).ok()) {
                response.headers_mut().insert(ETAG, tag);
            }
            response
        }
        Answer::Json(document) => new(200, "application/json", full(document)),
        Answer::Text(media, text) => new(200, media, full(text)),
        Answer::Bytes(media, bytes) => new(200, media, full(bytes)),
        Answer::Lines(lines) => {
            let frames = tokio_stream::wrappers::ReceiverStream::new(lines).map(|line| Ok(Frame::data(line)));
            new(200, "application/json", BodyExt::boxed_unsync(StreamBody::new(frames)))
        }
        Answer::Log(log) => {
            let frames = log.map(|chunk| Ok(Frame::data(chunk)));
            new(200, "text/plain", BodyExt::boxed_unsync(StreamBody::new(frames)))
        }
        Answer::Upgrade { protocol, accept } => switch(protocol, &accept),
    };
    warn(&mut response, &reply.warnings);
    response
}

fn refuse(error: &ApiError) -> Response<Body> {
    let mut response = if error.plain {
        new(error.code, "text/plain; charset=utf-8", full(format!("{}\n", error.message)))
    } else {
        new(error.code, "application/json", full(error.status().to_string()))
    };
    warn(&mut response, &error.warnings);
    response
}

fn new(code: u16, media: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// The answer after which the connection is a WebSocket (RFC 6455 section 4.2.2).
fn switch(protocol: &'static str, accept: &str) -> Response<Body> {
    let mut response = Response::new(full(Bytes::new()));
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    response
}

/// Warnings in the form of RFC 7234 section 5.5, as kubectl shows them.
fn warn(response: &mut Response<Body>, warnings: &[String]) {
    for warning in warnings {
        let clean: String = warning.chars().filter(|c| !c.is_control()).collect();
        let quoted = clean.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(WARNING, value);
        }
    }
}
