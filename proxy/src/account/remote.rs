//! The access log's way to a server of the user's own: batches of entries, posted by HTTP.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::batches::Carrier;
use super::entry::Entry;
use super::json;
use super::place::Place;

/// A server that does not answer is given up for this batch.
const TIMEOUT: Duration = Duration::from_secs(10);
/// An answer is read up to here, so that its connection can be used again.
const LONGEST: usize = 64 * 1024;

/// A server that takes entries.
pub struct Sink {
    url: String,
    place: Place,
    client: Client<HttpConnector, Full<Bytes>>,
}

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    #[error("no answer within {} s", TIMEOUT.as_secs())]
    TimedOut(#[from] tokio::time::error::Elapsed),
    #[error("it cannot be asked: {}", root(.0))]
    Client(#[from] hyper_util::client::legacy::Error),
    #[error("it is no URL: {0}")]
    Url(#[from] http::Error),
    #[error("its answer is {0}")]
    Refused(StatusCode),
}

/// What the client's error comes from, which alone says something.
fn root(error: &dyn Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

impl Sink {
    pub fn new(url: &str, place: Place) -> Self {
        Self { url: url.to_owned(), place, client: Client::builder(TokioExecutor::new()).build_http() }
    }
}

impl Carrier for Sink {
    type Item = Arc<Entry>;
    type Error = SinkError;

    const ITEMS: &str = "entries of the access log";

    async fn carry(&mut self, batch: Vec<Arc<Entry>>) -> Result<(), SinkError> {
        let body = Full::from(json::array(&self.place, &batch));
        let request = Request::post(self.url.as_str()).header(CONTENT_TYPE, "application/json").body(body)?;
        let answered = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            if !head.status.is_success() {
                return Err(SinkError::Refused(head.status));
            }
            // Whatever it says, it has taken them.
            let _ = Limited::new(body, LONGEST).collect().await;
            Ok(())
        };
        tokio::time::timeout(TIMEOUT, answered).await?
    }
}
