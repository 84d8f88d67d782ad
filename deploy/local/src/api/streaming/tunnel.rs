//! port-forward as kubectl asks for it: SPDY within a WebSocket. For each local connection the client opens two streams that name
//! a port and a number of their own: one for data, one on which the server says what went wrong.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::Message;

use super::spdy::{Decoder, Encoder, Frame, data, ping};
use super::{Socket, carry};
use crate::api::server::NodeBackend;

/// So much is sent to a pod before the client has to wait.
const QUEUE: usize = 64;

struct Tunnel {
    node: Arc<dyn NodeBackend>,
    namespace: String,
    pod: String,
    encoder: Encoder,
    to_client: mpsc::Sender<Bytes>,
    /// Connections of which one stream is open, by the client's number.
    halves: HashMap<String, Half>,
    /// Where data goes, by its stream.
    inputs: HashMap<u32, mpsc::Sender<Bytes>>,
    connections: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Half {
    data: Option<u32>,
    error: Option<u32>,
}

/// The client has gone, or doesn't keep to the protocol.
struct Over;

/// Serves the tunnel until the client ends it.
pub async fn run(socket: Socket, node: Arc<dyn NodeBackend>, namespace: String, pod: String) {
    let (mut sink, mut stream) = socket.split();
    let (to_client, mut frames) = mpsc::channel(QUEUE);
    let mut tunnel = Tunnel {
        node,
        namespace,
        pod,
        encoder: Encoder::default(),
        to_client,
        halves: HashMap::new(),
        inputs: HashMap::new(),
        connections: JoinSet::new(),
    };
    let receiving = async {
        let mut decoder = Decoder::default();
        while let Some(Ok(message)) = stream.next().await {
            let Message::Binary(bytes) = message else { continue };
            decoder.push(&bytes);
            loop {
                match decoder.next() {
                    Ok(None) => break,
                    Ok(Some(frame)) => {
                        if tunnel.take(frame).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a client's port-forward is given up");
                        return;
                    }
                }
            }
        }
    };
    let sending = async {
        while let Some(frame) = frames.recv().await {
            if sink.send(Message::Binary(frame)).await.is_err() {
                return;
            }
        }
    };
    // Connections end with the tunnel.
    tokio::select! {
        () = receiving => {}
        () = sending => {}
    }
}

impl Tunnel {
    async fn take(&mut self, frame: Frame) -> Result<(), Over> {
        match frame {
            Frame::Open { stream, headers } => self.open(stream, &headers).await,
            Frame::Data { stream, bytes, last } => {
                // What comes for a connection that has ended is dropped. A pod that doesn't read holds up the other connections:
                // they share one stream.
                if let Some(input) = self.inputs.get(&stream)
                    && (bytes.is_empty() || input.send(bytes).await.is_ok())
                    && !last
                {
                    return Ok(());
                }
                self.inputs.remove(&stream);
                Ok(())
            }
            Frame::Reset { stream } => {
                self.inputs.remove(&stream);
                Ok(())
            }
            Frame::Ping { id } => self.send(ping(id)).await,
            Frame::GoAway => Err(Over),
            Frame::Other => Ok(()),
        }
    }

    async fn open(&mut self, stream: u32, headers: &[(String, String)]) -> Result<(), Over> {
        let header = |name: &str| headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        let (Some(kind), Some(number)) = (header("streamtype"), header("requestid")) else { return Err(Over) };
        let port: u16 = header("port").and_then(|port| port.parse().ok()).ok_or(Over)?;
        let reply = self.encoder.reply(stream);
        self.send(reply).await?;
        let half = self.halves.entry(number.to_owned()).or_default();
        match kind {
            "data" => half.data = Some(stream),
            "error" => half.error = Some(stream),
            _ => return Err(Over),
        }
        let &mut Half { data: Some(data), error: Some(error) } = half else { return Ok(()) };
        self.halves.remove(number);
        self.connect(port, data, error);
        Ok(())
    }

    /// Connects to a port, now that both streams are open.
    fn connect(&mut self, port: u16, stream: u32, error_stream: u32) {
        let (input, from_client) = mpsc::channel(QUEUE);
        self.inputs.insert(stream, input);
        let (node, namespace, pod) = (Arc::clone(&self.node), self.namespace.clone(), self.pod.clone());
        let to_client = self.to_client.clone();
        while self.connections.try_join_next().is_some() {}
        self.connections.spawn(async move {
            let failed = match node.dial(&namespace, &pod, port).await {
                Ok(connection) => {
                    carry(connection, from_client, to_client.clone(), |bytes| data(stream, bytes, false)).await;
                    String::new()
                }
                Err(error) => error,
            };
            // Nothing on the error stream means that all went well.
            let _ = to_client.send(data(error_stream, failed.as_bytes(), true)).await;
            let _ = to_client.send(data(stream, &[], true)).await;
        });
    }

    async fn send(&self, frame: Bytes) -> Result<(), Over> {
        self.to_client.send(frame).await.map_err(|_| Over)
    }
}
