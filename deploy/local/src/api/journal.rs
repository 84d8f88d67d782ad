//! What makes the state survive a restart: one journal entry for each write.

use tokio::sync::{mpsc, oneshot};

use super::database::Key;
use super::resource::Storage;
use serde_json::Value;

/// One write: the object as it became, or its removal.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    pub storage: Storage,
    pub key: Key,
    pub version: u64,
    /// `None` when the object was removed.
    pub object: Option<Value>,
}

/// Ready when a write is in the journal.
#[derive(Debug)]
pub struct Durable(Option<oneshot::Receiver<Result<(), String>>>);

impl Durable {
    /// For a server without a journal.
    pub fn at_once() -> Self {
        Self(None)
    }

    /// Waits for the journal. The error says why the write isn't kept.
    pub async fn wait(self) -> Result<(), String> {
        match self.0 {
            None => Ok(()),
            Some(receiver) => receiver.await.unwrap_or_else(|_| Err("the API server is stopping".into())),
        }
    }
}

pub(super) type Pending = (JournalEntry, oneshot::Sender<Result<(), String>>);

/// The way into the journal.
#[derive(Debug, Clone)]
pub struct Journal(mpsc::UnboundedSender<Pending>);

impl Journal {
    pub(super) fn new(sender: mpsc::UnboundedSender<Pending>) -> Self {
        Self(sender)
    }

    pub fn append(&self, entry: JournalEntry) -> Durable {
        let (done, receiver) = oneshot::channel();
        // When the writer is gone the receiver says so.
        let _ = self.0.send((entry, done));
        Durable(Some(receiver))
    }
}
