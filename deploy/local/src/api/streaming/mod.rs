//! `exec`, `attach` and `portforward`: requests that become a stream in both directions.
//!
//! A client asks for a WebSocket and names the protocols it speaks within ([`offered`]); this server takes the first that it knows:
//!
//! | protocol | for | who speaks it |
//! | --- | --- | --- |
//! | `v5.channel.k8s.io`, `v4.channel.k8s.io` | exec, attach ([`channels`]) | kubectl 1.31 and later, kube-rs |
//! | `v4.channel.k8s.io` | port-forward ([`ports`]) | kube-rs |
//! | `SPDY/3.1+portforward.k8s.io` | port-forward ([`tunnel`]) | kubectl 1.31 and later |

mod channels;
mod ports;
mod spdy;
mod tunnel;

use std::sync::Arc;

use bytes::Bytes;
use http::Method;
use http::header::{CONNECTION, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::object::{items, name, namespace, text};
use super::path::Target;
use super::query::Query;
use super::reading;
use super::routes::{Answer, Reply, Request, plain};
use super::server::Server;
use super::session::{Purpose, SessionRequest};
use super::status::ApiError;

type Socket = WebSocketStream<TokioIo<Upgraded>>;

const EXEC_PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
const PORT_PROTOCOLS: [&str; 2] = [TUNNEL, "v4.channel.k8s.io"];

/// A connection that becomes a WebSocket.
struct Upgrade {
    on_upgrade: OnUpgrade,
    protocol: &'static str,
    accept: String,
}

/// Answers a request for such a stream.
pub async fn answer(
    server: &Arc<Server>,
    request: &Request,
    target: &Target,
    subresource: &str,
) -> Result<Reply, ApiError> {
    if request.method != Method::GET && request.method != Method::POST {
        return Err(ApiError::method_not_allowed());
    }
    let pod = reading::find(server, target)?;
    let node = server.node()?;
    let (pod_namespace, pod_name) = (namespace(&pod.value).to_owned(), name(&pod.value).to_owned());
    if subresource == "portforward" {
        let upgrade = upgrade(request, &PORT_PROTOCOLS)?;
        if upgrade.protocol == TUNNEL {
            return Ok(upgrade.answer(server, move |socket| tunnel::run(socket, node, pod_namespace, pod_name)));
        }
        let wanted = ports::wanted(&request.query)?;
        return Ok(upgrade.answer(server, move |socket| ports::run(socket, node, pod_namespace, pod_name, wanted)));
    }
    let session = session_request(&pod.value, &request.query, subresource)?;
    let upgrade = upgrade(request, &EXEC_PROTOCOLS)?;
    Ok(upgrade.answer(server, move |socket| {
        let input = session.stdin;
        let start = move |ends| node.session(&pod_namespace, &pod_name, session, ends);
        channels::run(socket, input, start)
    }))
}

/// What the query says about a session.
fn session_request(pod: &Value, query: &Query, subresource: &str) -> Result<SessionRequest, ApiError> {
    let container = container_of(pod, query.get("container"))?;
    let purpose = if subresource == "attach" {
        Purpose::Attach
    } else {
        Purpose::Exec(query.all("command").map(ToOwned::to_owned).collect())
    };
    if purpose == Purpose::Exec(Vec::new()) {
        return Err(ApiError::bad_request("you must specify at least one command for the container"));
    }
    let tty = query.flag("tty");
    let request = SessionRequest {
        container: container.to_owned(),
        purpose,
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        // A terminal has one output.
        stderr: query.flag("stderr") && !tty,
        tty,
    };
    if !(request.stdin || request.stdout || request.stderr) {
        return Err(ApiError::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    Ok(request)
}

/// The container a request is about: the one it names, or the pod's only one.
pub fn container_of<'a>(pod: &'a Value, wanted: Option<&str>) -> Result<&'a str, ApiError> {
    let names = |list: &str| -> Vec<&'a str> {
        items(pod, &["spec", list]).iter().map(|container| text(container, &["name"])).collect()
    };
    let (containers, init) = (names("containers"), names("initContainers"));
    let all = containers.iter().chain(&init);
    match (wanted, containers.as_slice()) {
        (Some(wanted), _) => all
            .copied()
            .find(|name| *name == wanted)
            .ok_or_else(|| ApiError::bad_request(format!("container {wanted} is not valid for pod {}", name(pod)))),
        (None, [only]) => Ok(only),
        (None, several) => {
            let mut message = format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                name(pod),
                several.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(ApiError::bad_request(message))
        }
    }
}

/// The protocols a client offers within a WebSocket; none when it asks for none.
fn offered(request: &Request) -> Vec<&str> {
    let lists = request.headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',').map(str::trim)).collect()
}

/// Checks that a client asks for a WebSocket, and chooses the protocol within.
fn upgrade(request: &Request, known: &[&'static str]) -> Result<Upgrade, ApiError> {
    let names = |header: http::header::HeaderName, wanted: &str| {
        let value = request.header(header).unwrap_or_default();
        value.split(',').any(|token| token.trim().eq_ignore_ascii_case(wanted))
    };
    let asked = names(CONNECTION, "upgrade") && names(UPGRADE, "websocket");
    let (true, Some(key), Some(on_upgrade)) = (asked, request.header(SEC_WEBSOCKET_KEY), request.upgrade.clone())
    else {
        return Err(ApiError::bad_request("Upgrade request required"));
    };
    let offered = offered(request);
    let protocol = known.iter().find(|protocol| offered.contains(protocol)).ok_or_else(|| {
        let (offered, known) = (offered.join(", "), known.join(", "));
        ApiError::bad_request(format!(
            "none of the protocols [{offered}] is spoken here, only [{known}]: use kubectl 1.31 or newer, or kube-rs"
        ))
    })?;
    Ok(Upgrade { on_upgrade, protocol, accept: derive_accept_key(key.as_bytes()) })
}

impl Upgrade {
    /// The answer that hands the connection to `run`, until the server stops.
    fn answer<F>(self, server: &Server, run: impl FnOnce(Socket) -> F + Send + 'static) -> Reply
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (stopping, on_upgrade) = (server.stopping.clone(), self.on_upgrade);
        tokio::spawn(async move {
            let Ok(upgraded) = on_upgrade.await else { return };
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            let _ = stopping.run_until_cancelled(run(socket)).await;
        });
        plain(Answer::Upgrade { protocol: self.protocol, accept: self.accept })
    }
}

/// The end of a stream that went as it should. kubectl takes one without a code for a failure.
fn farewell() -> Message {
    Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() }))
}

/// Carries bytes between a connection to a pod and a client until both directions have ended, or the client has gone. `frame`
/// makes what is sent to the client.
async fn carry(
    pod: TcpStream,
    mut from_client: mpsc::Receiver<Bytes>,
    to_client: mpsc::Sender<Bytes>,
    frame: impl Fn(&[u8]) -> Bytes,
) {
    let (mut read, mut write) = pod.into_split();
    let to_pod = async {
        while let Some(bytes) = from_client.recv().await {
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // The pod reads an end of file, and may go on answering.
        let _ = write.shutdown().await;
    };
    let from_pod = async {
        let mut buffer = vec![0; 32 * 1024];
        loop {
            let read = read.read(&mut buffer).await.unwrap_or(0);
            if read == 0 || to_client.send(frame(&buffer[..read])).await.is_err() {
                break;
            }
        }
    };
    let mut to_pod = std::pin::pin!(to_pod);
    tokio::select! {
        // Nothing more comes from the pod: whatever the client still sends, nobody reads.
        () = from_pod => {}
        () = async { to_pod.as_mut().await; std::future::pending().await } => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_container_is_the_one_named_or_the_only_one() {
        let pod = |names: &[&str]| {
            let containers: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            json!({"metadata": {"name": "p"}, "spec": {"containers": containers, "initContainers": [{"name": "i"}]}})
        };
        assert_eq!(container_of(&pod(&["a"]), None).unwrap(), "a");
        assert_eq!(container_of(&pod(&["a"]), Some("i")).unwrap(), "i");
        assert_eq!(container_of(&pod(&["a"]), Some("x")).unwrap_err().message, "container x is not valid for pod p");
        assert_eq!(
            container_of(&pod(&["a", "b"]), None).unwrap_err().message,
            "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]"
        );
    }
}
