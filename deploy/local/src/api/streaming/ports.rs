//! port-forward over a WebSocket, as kube-rs asks for it. The ports are named in the query; the one at place `i` has the channels
//! `2i` (data) and `2i + 1` (what went wrong). The first message on each channel is the number of its port.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream::{FuturesUnordered, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Message;

use super::{Socket, carry, farewell};
use crate::api::query::Query;
use crate::api::server::NodeBackend;
use crate::api::status::ApiError;

/// So many ports have channels of their own.
const MOST_PORTS: usize = 127;

/// The ports a query names.
pub fn wanted(query: &Query) -> Result<Vec<u16>, ApiError> {
    let pieces = query.all("ports").flat_map(|list| list.split(','));
    let ports: Vec<u16> = pieces
        .map(|piece| match piece.trim().parse() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(ApiError::bad_request(format!("ports: {piece:?} is not a port"))),
        })
        .collect::<Result<_, _>>()?;
    if ports.is_empty() || ports.len() > MOST_PORTS {
        let message = format!("the parameter \"ports\" must name between 1 and {MOST_PORTS} ports");
        return Err(ApiError::bad_request(message));
    }
    Ok(ports)
}

/// Serves the ports until all their connections have ended or the client has gone.
pub async fn run(socket: Socket, node: Arc<dyn NodeBackend>, namespace: String, pod: String, ports: Vec<u16>) {
    let (mut sink, stream) = socket.split();
    let (to_client, mut frames) = mpsc::channel::<Bytes>(16);
    let mut inputs = Vec::new();
    let connections = FuturesUnordered::new();
    for (channel, port) in (0u8..).step_by(2).zip(&ports) {
        let (input, from_client) = mpsc::channel(16);
        inputs.push(Some(input));
        let (node, namespace, pod) = (&node, &namespace, &pod);
        let to_client = to_client.clone();
        connections.push(async move {
            for channel in [channel, channel + 1] {
                let _ = to_client.send(frame(channel, &port.to_le_bytes())).await;
            }
            match node.dial(namespace, pod, *port).await {
                Ok(connection) => carry(connection, from_client, to_client, |bytes| frame(channel, bytes)).await,
                Err(error) => {
                    let _ = to_client.send(frame(channel + 1, error.as_bytes())).await;
                }
            }
        });
    }
    drop(to_client);
    let sending = async {
        while let Some(frame) = frames.recv().await {
            if sink.send(Message::Binary(frame)).await.is_err() {
                return;
            }
        }
        let _ = sink.send(farewell()).await;
    };
    let connected = connections.for_each(|()| std::future::ready(()));
    tokio::select! {
        _ = async { tokio::join!(connected, sending) } => {}
        () = receive(stream, inputs) => {}
    }
}

fn frame(channel: u8, bytes: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(bytes.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(bytes);
    frame.freeze()
}

/// Passes on what the client sends, until it has gone. A connection that doesn't read holds up the others: they share one stream.
async fn receive(mut stream: SplitStream<Socket>, mut inputs: Vec<Option<mpsc::Sender<Bytes>>>) {
    while let Some(Ok(message)) = stream.next().await {
        let Message::Binary(mut bytes) = message else { continue };
        if bytes.is_empty() {
            continue;
        }
        let channel = bytes.split_to(1)[0];
        if channel % 2 == 1 {
            continue;
        }
        if let Some(input) = inputs.get_mut(usize::from(channel / 2))
            && let Some(sender) = input
            && sender.send(bytes).await.is_err()
        {
            *input = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_named_in_either_way() {
        assert_eq!(wanted(&Query::parse("ports=80,8080&ports=1")).unwrap(), [80, 8080, 1]);
        assert_eq!(wanted(&Query::parse("")).unwrap_err().code, 400);
        assert_eq!(wanted(&Query::parse("ports=0")).unwrap_err().code, 400);
        assert_eq!(wanted(&Query::parse("ports=http")).unwrap_err().code, 400);
    }
}
