//! Sending bytes through a proxy, and seeing what came of them on either side.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::draft::Case;
use super::reference::{self, Read, Request};
use crate::sidecar::tests::app;

/// When nothing has come for so long, nothing more is expected.
const SILENCE: Duration = Duration::from_millis(500);

/// What came of a case.
#[derive(Debug)]
pub struct Outcome {
    /// Of the answers, interim ones left out.
    pub statuses: Vec<u16>,
    pub seen: Vec<Result<Request, &'static str>>,
}

/// An application that notes what it receives, and answers every request with 200.
pub struct Witness {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Result<Request, &'static str>>>>,
}

impl Witness {
    pub async fn start() -> Self {
        let seen = Arc::<Mutex<Vec<_>>>::default();
        let notes = Arc::clone(&seen);
        let app = app::listen(move |stream| witness(stream, Arc::clone(&notes))).await;
        Self { address: app.address, seen }
    }

    /// Sends a case to a proxy in front of it.
    pub async fn send(&self, proxy: SocketAddr, case: &Case) -> Outcome {
        self.seen.lock().unwrap().clear();
        let stream = TcpStream::connect(proxy).await.unwrap();
        let (mut read, mut write) = stream.into_split();
        let bytes = case.bytes.clone();
        // A proxy that refuses need not read to the end.
        let sending = tokio::spawn(async move {
            let _ = write.write_all(&bytes).await;
            write
        });
        let mut answer = Vec::new();
        while let Ok(Ok(1..)) = tokio::time::timeout(SILENCE, read.read_buf(&mut answer)).await {}
        sending.abort();
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        Outcome { statuses: statuses(&answer), seen }
    }
}

async fn witness(mut stream: TcpStream, notes: Arc<Mutex<Vec<Result<Request, &'static str>>>>) {
    let mut bytes = Vec::new();
    while let Ok(1..) = stream.read_buf(&mut bytes).await {
        loop {
            match reference::read(&bytes) {
                Read::Part => break,
                Read::Flaw(flaw) => return notes.lock().unwrap().push(Err(flaw)),
                Read::Whole(request, len) => {
                    bytes.drain(..len);
                    let answer: &[u8] = match request.method.as_str() {
                        "HEAD" => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
                        _ => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                    };
                    notes.lock().unwrap().push(Ok(request));
                    if stream.write_all(answer).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// No body that proxies make has a status line in it.
fn statuses(answer: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(answer);
    let codes = text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok());
    codes.filter(|code| *code >= 200).collect()
}
