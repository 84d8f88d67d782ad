//! exec and attach over a WebSocket. The first byte of a message is its channel: 0 input, 1 output, 2 error output, 3 how it ended
//! (a `Status`), 4 the terminal's size. In version 5, channel 255 says that the channel named by the next byte has ended.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::SplitStream;
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio_tungstenite::tungstenite::Message;

use super::{Socket, farewell};
use crate::api::session::{Output, Session, SessionError, TerminalSize};

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const CLOSE: u8 = 255;

/// How long a client gets to take note of the end.
const FAREWELL: Duration = Duration::from_secs(5);

/// Serves a session until its process has ended or the client has gone. `input` tells whether the client may send any.
pub async fn run(
    socket: Socket,
    input: bool,
    start: impl FnOnce(Session) -> BoxFuture<'static, Result<(), SessionError>>,
) {
    let (mut sink, mut stream) = socket.split();
    let (typed, stdin) = mpsc::channel(16);
    let (output, mut written) = mpsc::channel(16);
    let (resized, size) = watch::channel(None);
    let mut session = start(Session { stdin, output, size });
    let sending = async {
        // Some clients wait for a sign that the session has begun.
        sink.send(Message::binary(vec![STDOUT])).await?;
        while let Some(output) = written.recv().await {
            let message = match output {
                Output::Stdout(bytes) => frame(STDOUT, &bytes),
                Output::Stderr(bytes) => frame(STDERR, &bytes),
            };
            sink.send(message).await?;
        }
        Ok::<_, tokio_tungstenite::tungstenite::Error>(())
    };
    let ended = tokio::select! {
        (ended, sent) = async { tokio::join!(&mut session, sending) } => Some((ended, sent)),
        () = receive(&mut stream, input.then_some(typed), &resized) => None,
    };
    match ended {
        Some((ended, Ok(()))) => {
            let status = status(&ended).to_string();
            if sink.send(frame(STATUS, status.as_bytes())).await.is_ok() && sink.send(farewell()).await.is_ok() {
                let rest = async { while let Some(Ok(_)) = stream.next().await {} };
                let _ = tokio::time::timeout(FAREWELL, rest).await;
            }
        }
        Some((_, Err(_))) => {}
        // The client has gone, and the ends of the session with it: the node agent puts an end to the process.
        None => {
            let _ = session.await;
        }
    }
}

fn frame(channel: u8, bytes: &[u8]) -> Message {
    let mut frame = BytesMut::with_capacity(bytes.len() + 1);
    frame.put_u8(channel);
    frame.put_slice(bytes);
    Message::Binary(frame.freeze())
}

/// Passes on what the client sends, until it has gone.
async fn receive(
    stream: &mut SplitStream<Socket>,
    mut typed: Option<mpsc::Sender<Bytes>>,
    resized: &watch::Sender<Option<TerminalSize>>,
) {
    while let Some(Ok(message)) = stream.next().await {
        let Message::Binary(mut bytes) = message else { continue };
        if bytes.is_empty() {
            continue;
        }
        let channel = bytes.split_to(1)[0];
        match channel {
            STDIN if !bytes.is_empty() => {
                if let Some(sender) = &typed
                    && sender.send(bytes).await.is_err()
                {
                    // The process reads no more.
                    typed = None;
                }
            }
            CLOSE if bytes.first() == Some(&STDIN) => typed = None,
            RESIZE => {
                if let Some(size) = size_of(&bytes) {
                    resized.send_replace(Some(size));
                }
            }
            _ => {}
        }
    }
}

fn size_of(text: &[u8]) -> Option<TerminalSize> {
    let size: Value = serde_json::from_slice(text).ok()?;
    let number = |name: &str| size[name].as_u64().and_then(|n| u16::try_from(n).ok());
    Some(TerminalSize { width: number("Width")?, height: number("Height")? })
}

/// How a session ended, as clients expect it.
fn status(ended: &Result<(), SessionError>) -> Value {
    match ended {
        Ok(()) => json!({"metadata": {}, "status": "Success"}),
        Err(error @ SessionError::Exit(code)) => json!({
            "metadata": {}, "status": "Failure", "reason": "NonZeroExitCode", "message": error.to_string(),
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(error @ SessionError::Refused(why)) => json!({
            "metadata": {}, "status": "Failure", "reason": "InternalError", "message": error.to_string(),
            "details": {"causes": [{"message": why}]}, "code": 500,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_clients_write_them() {
        assert_eq!(size_of(br#"{"Width":80,"Height":24}"#), Some(TerminalSize { width: 80, height: 24 }));
        assert_eq!(size_of(b"{}"), None);
    }

    #[test]
    fn an_exit_code_is_a_cause() {
        let status = status(&Err(SessionError::Exit(3)));
        assert_eq!(status["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
    }
}
