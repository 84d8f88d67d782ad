//! The gRPC health check (`grpc.health.v1`), as probes ask it.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

/// `HealthCheckResponse.ServingStatus`.
const SERVING: u64 = 1;

/// Asks for the health of `service` (all of the server when empty).
pub(super) async fn check(stream: TcpStream, authority: &str, service: &str) -> Result<(), String> {
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.map_err(|e| e.to_string())?;
    // Moves the bytes of the exchange; it ends with `sender` at the latest.
    let driver = tokio::spawn(connection);
    let request = Request::post(format!("http://{authority}/grpc.health.v1.Health/Check"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("user-agent", "kube-probe/1.36")
        .body(Full::new(Bytes::from(framed(service))))
        .map_err(|e| e.to_string())?;
    let answered = async {
        let answer = sender.send_request(request).await.map_err(|e| e.to_string())?;
        let early = answer.headers().get("grpc-status").cloned();
        let body = answer.into_body().collect().await.map_err(|e| e.to_string())?;
        let late = body.trailers().and_then(|t| t.get("grpc-status")).cloned();
        let code = early.or(late).and_then(|c| c.to_str().ok()?.parse::<u32>().ok());
        match code {
            Some(0) => match status(&body.to_bytes()) {
                Some(SERVING) => Ok(()),
                other => Err(format!("service unhealthy (responded with {})", name(other))),
            },
            Some(12) => {
                Err("this server does not implement the grpc health protocol (grpc.health.v1.Health)".to_owned())
            }
            code => {
                Err(format!("health rpc failed with gRPC status {}", code.map_or("missing".into(), |c| c.to_string())))
            }
        }
    };
    let answered = answered.await;
    driver.abort();
    answered
}

/// A `HealthCheckRequest` in gRPC's framing: not compressed, length, message.
fn framed(service: &str) -> Vec<u8> {
    let mut message = Vec::new();
    if !service.is_empty() {
        message.push(0x0a);
        push_varint(&mut message, service.len());
        message.extend(service.as_bytes());
    }
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    [&[0][..], &length.to_be_bytes(), &message].concat()
}

fn push_varint(to: &mut Vec<u8>, mut value: usize) {
    while value > 0x7f {
        to.push(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    to.push(value as u8);
}

/// The status in a framed `HealthCheckResponse`, whose only field it is; a default value is left out.
fn status(framed: &[u8]) -> Option<u64> {
    let message = framed.get(5..)?;
    match message {
        [] => Some(0),
        [0x08, value] if *value < 0x80 => Some(u64::from(*value)),
        _ => None,
    }
}

fn name(status: Option<u64>) -> &'static str {
    match status {
        Some(0) => "UNKNOWN",
        Some(2) => "NOT_SERVING",
        Some(3) => "SERVICE_UNKNOWN",
        _ => "something else",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_and_answers_are_in_grpcs_framing() {
        assert_eq!(framed(""), [0, 0, 0, 0, 0]);
        assert_eq!(framed("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert_eq!(framed(&"x".repeat(200))[5..8], [0x0a, 0xc8, 1]);
        assert_eq!((status(&[0, 0, 0, 0, 2, 8, 1]), status(&[0, 0, 0, 0, 0]), status(&[0])), (Some(1), Some(0), None));
    }
}
