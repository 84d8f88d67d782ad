//! HTTP over a connection into a pod.

use anyhow::{Context, bail};
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

/// GETs `path` and reads the answer as JSON.
pub async fn json<T: DeserializeOwned>(stream: TcpStream, path: &str) -> anyhow::Result<T> {
    let body = open(stream, path).await?.collect().await.with_context(|| format!("GET {path}"))?.to_bytes();
    serde_json::from_slice(&body).with_context(|| format!("GET {path}: the answer is not what was expected"))
}

/// GETs `path` and gives its lines as they come.
pub async fn lines(stream: TcpStream, path: &str) -> anyhow::Result<Lines> {
    Ok(Lines { body: open(stream, path).await?, waiting: Vec::new() })
}

async fn open(stream: TcpStream, path: &str) -> anyhow::Result<Incoming> {
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header(http::header::HOST, "localhost").body(Empty::<Bytes>::new())?;
    let answer = sender.send_request(request).await.with_context(|| format!("GET {path}"))?;
    if answer.status() != StatusCode::OK {
        bail!("GET {path}: {}", answer.status());
    }
    Ok(answer.into_body())
}

/// The lines of an answer that goes on.
pub struct Lines {
    body: Incoming,
    waiting: Vec<u8>,
}

impl Lines {
    /// All complete lines of the next piece; none when the answer has ended.
    pub async fn next(&mut self) -> anyhow::Result<Option<Vec<Bytes>>> {
        loop {
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            let Ok(data) = frame?.into_data() else { continue };
            self.waiting.extend_from_slice(&data);
            if let Some(end) = self.waiting.iter().rposition(|byte| *byte == b'\n') {
                let rest = self.waiting.split_off(end + 1);
                let complete = Bytes::from(std::mem::replace(&mut self.waiting, rest));
                let lines = complete.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
                return Ok(Some(lines.map(|line| complete.slice_ref(line)).collect()));
            }
        }
    }
}
