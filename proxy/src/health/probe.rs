//! One check of one endpoint.

use bytes::{BufMut, Bytes, BytesMut};
use fsm_proxy_config::traffic::health::Probe;
use fsm_proxy_config::traffic::retry::grpc_status;
use http::{Method, Request, StatusCode, Version, header};
use http_body_util::BodyExt;
use prost::Message;

use super::Subject;
use crate::context::Context;
use crate::headers::FSM_DENIED;
use crate::stream::Body;
use crate::upstream::{Failed, Peer, UpstreamError};

/// An endpoint is not well.
#[derive(Debug, thiserror::Error)]
pub enum Unwell {
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    #[error("answered {status}{}", denied.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default())]
    Status { status: StatusCode, denied: Option<String> },
    #[error("answered with gRPC status {0}")]
    Grpc(u16),
    #[error("the answer broke off, or is none of grpc.health.v1")]
    Malformed,
    #[error("says that it is not serving (status {0} of grpc.health.v1)")]
    NotServing(i32),
    #[error("the check cannot be written as a request: {0}")]
    Request(#[from] http::Error),
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;
/// Not compressed, and the length of the message.
const PREFIX: usize = 5;
/// An answer is a few bytes; more of it is not read.
const MOST: usize = 1024;

/// Asks once.
pub async fn ask(context: &Context, subject: &Subject) -> Result<(), Unwell> {
    let peer = Peer::of(&subject.endpoint);
    let snapshot = context.snapshots.load_full();
    let timeout = snapshot.map_or(subject.check.timeout, |snapshot| snapshot.settings().connect_timeout);
    match &subject.check.probe {
        Probe::Tcp => match peer.identity {
            Some(_) => drop(context.upstream.tunnel(peer, timeout, header::HeaderMap::new()).await?),
            None => drop(context.upstream.tcp(peer.application, timeout).await.map_err(UpstreamError::from)?),
        },
        Probe::Http { path, host, statuses } => {
            let host = if host.is_empty() { name(&subject.service) } else { host.clone() };
            let request = Request::get(path.as_str()).header(header::HOST, host).body(Body::empty())?;
            let sent = context.upstream.request(peer, timeout, Box::new(request)).await;
            let response = sent.map_err(|Failed { error, .. }| error)?;
            if !Probe::accepts(response.status(), statuses) {
                let denied = response.headers().get(FSM_DENIED).and_then(|reason| reason.to_str().ok());
                return Err(Unwell::Status { status: response.status(), denied: denied.map(str::to_owned) });
            }
        }
        Probe::Grpc { service } => return grpc(context, subject, peer, service).await,
    }
    Ok(())
}

async fn grpc(context: &Context, subject: &Subject, peer: Peer<'_>, service: &str) -> Result<(), Unwell> {
    let message = HealthCheckRequest { service: service.to_owned() }.encode_to_vec();
    let mut body = BytesMut::with_capacity(PREFIX + message.len());
    body.put_u8(0);
    body.put_u32(message.len() as u32);
    body.put_slice(&message);
    let request = Request::builder()
        .method(Method::POST)
        .version(Version::HTTP_2)
        .uri(format!("http://{}/grpc.health.v1.Health/Check", name(&subject.service)))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Body::text(body.freeze()))?;
    let timeout = subject.check.timeout;
    let sent = context.upstream.request(peer, timeout, Box::new(request)).await;
    let response = sent.map_err(|Failed { error, .. }| error)?;
    if response.status() != StatusCode::OK {
        return Err(Unwell::Status { status: response.status(), denied: None });
    }
    let early = grpc_status(response.headers());
    let body = http_body_util::Limited::new(response.into_body(), MOST);
    let body = body.collect().await.map_err(|_| Unwell::Malformed)?;
    match early.or_else(|| body.trailers().and_then(grpc_status)) {
        Some(0) => {}
        Some(status) => return Err(Unwell::Grpc(status)),
        None => return Err(Unwell::Malformed),
    }
    match read(body.to_bytes()) {
        Some(SERVING) => Ok(()),
        Some(other) => Err(Unwell::NotServing(other)),
        None => Err(Unwell::Malformed),
    }
}

/// The status in the answer's one message.
fn read(body: Bytes) -> Option<i32> {
    let length: [u8; 4] = body.get(1..PREFIX)?.try_into().ok()?;
    let message = body.get(PREFIX..)?;
    let whole = body[0] == 0 && u32::from_be_bytes(length) as usize == message.len();
    whole.then(|| HealthCheckResponse::decode(message).ok()).flatten().map(|response| response.status)
}

/// The service's name as clients write it: `name.namespace`.
fn name(service: &str) -> String {
    service.split_once('/').map_or_else(|| service.to_owned(), |(namespace, name)| format!("{name}.{namespace}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_message_is_an_answer() {
        assert_eq!(read(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1])), Some(SERVING));
        assert_eq!(read(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 2])), Some(2));
        // Unknown is what an empty message says.
        assert_eq!(read(Bytes::from_static(&[0, 0, 0, 0, 0])), Some(0));
        for bad in [&[][..], &[0, 0, 0], &[0, 0, 0, 0, 3, 8, 1], &[1, 0, 0, 0, 2, 8, 1], &[0, 0, 0, 0, 1, 8]] {
            assert_eq!(read(Bytes::copy_from_slice(bad)), None, "{bad:?}");
        }
        assert_eq!(name("shop/store"), "store.shop");
    }
}
