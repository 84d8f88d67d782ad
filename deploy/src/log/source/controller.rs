//! The debug API of a running controller.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use bytes::{Buf, Bytes, BytesMut};
use fsm_store::{Record, Seq};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::{Batches, parse_line};

/// What a controller says of itself at `/status`; fields of newer ones are kept as they are.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) seq: u64,
    #[serde(flatten)]
    pub(crate) rest: serde_json::Map<String, serde_json::Value>,
}

impl Status {
    /// The oldest record that is kept.
    pub(crate) fn first(&self) -> Seq {
        let records = self.rest.get("records").and_then(serde_json::Value::as_u64).unwrap_or(self.seq);
        Seq((self.seq + 1).saturating_sub(records))
    }
}

/// A controller, by the address of its debug API.
#[derive(Clone, Debug)]
pub(crate) struct Controller {
    url: String,
    authority: String,
}

impl Controller {
    /// `http://HOST:PORT`. Nothing else: the debug API listens on the loopback interface, without TLS.
    pub(crate) fn new(url: &str) -> anyhow::Result<Self> {
        let uri: http::Uri = url.parse().with_context(|| format!("--controller {url} is no URL"))?;
        ensure!(uri.scheme_str() == Some("http"), "--controller {url}: expected http://HOST:PORT");
        let authority = uri.authority().with_context(|| format!("--controller {url} names no host"))?;
        let port = authority.port_u16().unwrap_or(9092);
        Ok(Self { url: url.trim_end_matches('/').into(), authority: format!("{}:{port}", authority.host()) })
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    pub(crate) async fn status(&self) -> anyhow::Result<Status> {
        let body = self.get("/status").await?.collect().await.context("the controller broke off its answer")?;
        serde_json::from_slice(&body.to_bytes()).with_context(|| format!("{}/status answered something else", self.url))
    }

    pub(crate) fn records(&self, from: Seq, follow: bool) -> Batches {
        let path = format!("/records?from={from}{}", if follow { "&follow=true" } else { "" });
        let controller = self.clone();
        stream::try_unfold(None, move |answer: Option<Answer>| {
            let (controller, path) = (controller.clone(), path.clone());
            async move {
                let mut answer = match answer {
                    Some(answer) => answer,
                    None => Answer { body: controller.get(&path).await?, rest: BytesMut::new() },
                };
                let batch = answer.batch().await?;
                Ok::<_, anyhow::Error>((!batch.is_empty()).then(|| (Arc::from(batch), Some(answer))))
            }
        })
        .boxed()
    }

    /// The newest snapshot that is not after a record, if there is one. Older controllers give none.
    pub(crate) async fn snapshot(&self, at: Seq) -> anyhow::Result<Option<Bytes>> {
        let answer = self.ask(&format!("/snapshot?at={at}")).await?;
        if !answer.status().is_success() {
            return Ok(None);
        }
        let body = answer.into_body().collect().await.context("the controller broke off its answer")?;
        Ok(Some(body.to_bytes()))
    }

    async fn get(&self, path: &str) -> anyhow::Result<Incoming> {
        let answer = self.ask(path).await?;
        let status = answer.status();
        if !status.is_success() {
            let body = answer.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
            bail!("{}{path} answered {status}: {}", self.url, String::from_utf8_lossy(&body).trim());
        }
        Ok(answer.into_body())
    }

    async fn ask(&self, path: &str) -> anyhow::Result<http::Response<Incoming>> {
        let unreachable = || {
            format!(
                "no controller answers at {}: name another with --controller, or the log's directory with --data-dir",
                self.url
            )
        };
        let socket = TcpStream::connect(&self.authority).await.with_context(unreachable)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(socket)).await.with_context(unreachable)?;
        tokio::spawn(connection);
        let request = http::Request::get(path)
            .header(http::header::HOST, &self.authority)
            .body(Empty::<Bytes>::new())
            .context("the request can't be built")?;
        sender.send_request(request).await.with_context(unreachable)
    }
}

/// An answer in lines of JSON.
struct Answer {
    body: Incoming,
    rest: BytesMut,
}

impl Answer {
    /// The records of all whole lines that have come; waits for one if there is none. Empty at the end.
    async fn batch(&mut self) -> anyhow::Result<Vec<Record>> {
        loop {
            let batch = self.lines()?;
            if !batch.is_empty() {
                return Ok(batch);
            }
            match self.body.frame().await {
                Some(frame) => {
                    let frame = frame.context("the controller broke off its answer")?;
                    self.rest.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
                }
                None => {
                    ensure!(self.rest.is_empty(), "the controller broke off in the middle of a record");
                    return Ok(Vec::new());
                }
            }
        }
    }

    fn lines(&mut self) -> anyhow::Result<Vec<Record>> {
        let mut batch = Vec::new();
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line = self.rest.split_to(end);
            self.rest.advance(1);
            if !line.trim_ascii().is_empty() {
                batch.push(parse_line(std::str::from_utf8(&line)?)?);
            }
        }
        Ok(batch)
    }
}
