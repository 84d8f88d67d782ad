//! What makes the state survive a restart: one record in an event log for each write, and a snapshot now and then.
//!
//! Secrets are sealed; their key lies beside the log, not in it.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fsm_store::{Entry, EventLog, Options, Sealer, Seq, SledLog, TraceContext};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, Shared};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::database::{ChangeKind, Key};
use super::packed::Packed;
use super::resource::Storage;

/// The name of the snapshots, with their format.
const SNAPSHOT: &str = "fsm-local objects v1";
/// With so many records to read at a start, a snapshot is made for the next one.
const MANY_RECORDS: u64 = 2000;
const SECRETS: &str = "/secrets";

/// Why the journal can't be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    #[error("the journal of the API server: {0}")]
    Log(#[from] fsm_store::Error),
    #[error("the journal of the API server: {0}")]
    Seal(#[from] fsm_store::SealError),
    #[error(
        "record {seq} in the journal of the API server can't be read: {problem}; move the directory away to begin with an empty cluster"
    )]
    Record { seq: u64, problem: String },
}

/// One write: the object as it became, or its removal.
#[derive(Debug, Clone)]
pub struct JournalEntry {
    pub storage: Storage,
    pub key: Key,
    pub version: u64,
    /// `None` when the object was removed.
    pub object: Option<Arc<Packed>>,
}

/// What a journal remembers.
#[derive(Debug, Default)]
pub struct Remembered {
    pub objects: Vec<JournalEntry>,
    /// The version of the last write.
    pub version: u64,
}

/// Ready when a write is in the journal. Everyone who waits for the same write has one.
#[derive(Clone)]
pub struct Durable(Option<Shared<BoxFuture<'static, Result<Seq, fsm_store::Error>>>>);

impl Durable {
    /// For a server without a journal.
    pub fn at_once() -> Self {
        Self(None)
    }

    /// Waits for the journal. The error says why the write isn't kept.
    pub async fn wait(self) -> Result<(), String> {
        self.place().await.map(|_| ())
    }

    /// Waits for the journal; gives the place of the write's record in it.
    pub async fn place(self) -> Result<Option<Seq>, String> {
        match self.0 {
            None => Ok(None),
            Some(appended) => appended.await.map(Some).map_err(|error| error.to_string()),
        }
    }
}

/// The journal of a server.
pub struct Journal {
    log: Arc<SledLog>,
    sealer: Sealer,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("last", &self.log.last()).finish_non_exhaustive()
    }
}

impl Journal {
    /// Opens the journal in a directory, which is made if missing, and reads what it remembers.
    pub async fn open(dir: &Path) -> Result<(Self, Remembered), JournalError> {
        let log_dir = dir.join("objects");
        let sealer = Sealer::open_or_create(&dir.join("seal.key"), &log_dir)?;
        let options = Options { cache_bytes: 8 << 20, ..Options::default() };
        let log = Arc::new(SledLog::open(&log_dir, options)?);
        let journal = Self { log, sealer };
        let remembered = journal.read().await?;
        Ok((journal, remembered))
    }

    /// Takes a write. Its place is taken now; it is durable when the answer is ready.
    pub fn append(&self, entry: &JournalEntry) -> Durable {
        let key = format!("{} {}/{}", entry.storage, entry.key.namespace, entry.key.name);
        let body = match self.body(entry) {
            Ok(body) => body,
            Err(error) => return Durable(Some(async move { Err(error) }.boxed().shared())),
        };
        let topic = if entry.object.is_some() { "stored" } else { "removed" };
        let record = Entry { topic: topic.into(), key: key.into(), body: body.into(), trace: TraceContext::default() };
        Durable(Some(self.log.append(vec![record]).boxed().shared()))
    }

    fn body(&self, entry: &JournalEntry) -> Result<Vec<u8>, fsm_store::Error> {
        let head = json!({
            "storage": &*entry.storage, "namespace": entry.key.namespace, "name": entry.key.name, "version": entry.version,
        });
        let mut body = head.to_string().into_bytes();
        let Some(object) = &entry.object else { return Ok(body) };
        body.pop();
        if *entry.storage == *SECRETS {
            let sealed = self.sealer.seal(&context(&entry.key), &object.json());
            let sealed = sealed.map_err(|error| fsm_store::Error::Io {
                action: format!("seal {}", context(&entry.key)),
                source: Arc::new(std::io::Error::other(error)),
            })?;
            body.extend_from_slice(format!(",\"sealed\":{}}}", json!(sealed)).as_bytes());
        } else {
            body.extend_from_slice(b",\"object\":");
            body.extend_from_slice(&object.json());
            body.push(b'}');
        }
        Ok(body)
    }

    fn entry(&self, body: &RawValue) -> Result<JournalEntry, String> {
        let body: Body<'_> = serde_json::from_str(body.get()).map_err(|e| e.to_string())?;
        let key = Key { namespace: body.namespace, name: body.name };
        let object: Option<Value> = match (&body.sealed, body.object) {
            (Some(sealed), _) => {
                let opened = self.sealer.open(&context(&key), sealed).map_err(|e| e.to_string())?;
                Some(serde_json::from_slice(&opened).map_err(|e| e.to_string())?)
            }
            (None, Some(object)) => Some(serde_json::from_str(object.get()).map_err(|e| e.to_string())?),
            (None, None) => None,
        };
        let object = object.map(|object| Arc::new(Packed::new(ChangeKind::Added, body.version, &object)));
        Ok(JournalEntry { storage: body.storage.into(), key, version: body.version, object })
    }

    async fn read(&self) -> Result<Remembered, JournalError> {
        let mut objects: BTreeMap<(Storage, Key), JournalEntry> = BTreeMap::new();
        let mut version = 0;
        let mut remember = |entry: JournalEntry| {
            version = version.max(entry.version);
            let place = (entry.storage.clone(), entry.key.clone());
            if entry.object.is_some() {
                objects.insert(place, entry);
            } else {
                objects.remove(&place);
            }
        };
        let last = self.log.last();
        let mut from = Seq::ZERO;
        if let Some(snapshot) = self.log.latest_snapshot(SNAPSHOT, last).await? {
            let refuse = |problem: String| JournalError::Record { seq: snapshot.seq.0, problem };
            let bodies: Vec<&RawValue> = serde_json::from_slice(&snapshot.bytes).map_err(|e| refuse(e.to_string()))?;
            for body in bodies {
                remember(self.entry(body).map_err(refuse)?);
            }
            from = snapshot.seq.next();
        }
        let mut records = 0;
        if last >= from && last > Seq::ZERO {
            let mut batches = self.log.read(from);
            while let Some(batch) = batches.next().await {
                for record in batch?.iter() {
                    let refuse = |problem: String| JournalError::Record { seq: record.seq.0, problem };
                    let body: &RawValue =
                        serde_json::from_slice(&record.entry.body).map_err(|e| refuse(e.to_string()))?;
                    remember(self.entry(body).map_err(refuse)?);
                    records += 1;
                }
            }
        }
        let remembered = Remembered { objects: objects.into_values().collect(), version };
        if records >= MANY_RECORDS {
            self.snapshot(&remembered, last).await?;
        }
        Ok(remembered)
    }

    /// Keeps the present state and drops the records before it.
    pub async fn snapshot(&self, remembered: &Remembered, seq: Seq) -> Result<(), JournalError> {
        let mut bodies = vec![b'['];
        for entry in &remembered.objects {
            bodies.extend_from_slice(&self.body(entry)?);
            bodies.push(b',');
        }
        // The version of the last write, even if that was a removal.
        let last = json!({"storage": "", "namespace": "", "name": "", "version": remembered.version});
        bodies.extend_from_slice(format!("{last}]").as_bytes());
        self.log.snapshot(SNAPSHOT, seq, bodies).await?;
        self.log.compact(seq.next()).await?;
        Ok(())
    }
}

/// A record as it is written.
#[derive(Deserialize)]
struct Body<'a> {
    storage: String,
    namespace: String,
    name: String,
    version: u64,
    #[serde(borrow)]
    object: Option<&'a RawValue>,
    sealed: Option<String>,
}

/// What a sealed Secret belongs to.
fn context(key: &Key) -> String {
    format!("v1/Secret {}/{}", key.namespace, key.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(storage: &str, name: &str, version: u64, object: Option<Value>) -> JournalEntry {
        let object = object.map(|object| Arc::new(Packed::new(ChangeKind::Added, version, &object)));
        JournalEntry { storage: storage.into(), key: Key::new("n", name), version, object }
    }

    #[tokio::test]
    async fn what_was_written_is_remembered_and_secrets_are_sealed() {
        let dir = tempfile::tempdir().unwrap();
        let (journal, empty) = Journal::open(dir.path()).await.unwrap();
        assert!(empty.objects.is_empty());
        let secret = json!({"data": {"password": "aHVudGVyMg=="}});
        for entry in [
            write("/configmaps", "a", 1, Some(json!({"data": {"x": "1"}}))),
            write("/secrets", "s", 2, Some(secret.clone())),
            write("/configmaps", "b", 3, Some(json!({}))),
            write("/configmaps", "b", 4, None),
        ] {
            journal.append(&entry).wait().await.unwrap();
        }
        let mut raw = String::new();
        let mut batches = journal.log.read(Seq::ZERO);
        while let Some(batch) = batches.next().await {
            batch.unwrap().iter().for_each(|r| raw.push_str(&String::from_utf8_lossy(&r.entry.body)));
        }
        assert!(!raw.contains("aHVudGVyMg==") && raw.contains("\"x\""));
        drop((batches, journal));

        for round in 0..2 {
            let (journal, remembered) = Journal::open(dir.path()).await.unwrap();
            assert_eq!(remembered.version, 4);
            let found: Vec<_> =
                remembered.objects.iter().filter(|e| !e.key.name.is_empty()).map(|e| e.key.name.as_str()).collect();
            assert_eq!(found, ["a", "s"], "round {round}");
            let kept = remembered.objects.iter().find(|e| e.key.name == "s").unwrap();
            assert_eq!(kept.object.as_ref().map(|object| object.unpack().value.clone()), Some(secret.clone()));
            // The second round reads a snapshot.
            journal.snapshot(&remembered, journal.log.last()).await.unwrap();
        }
    }
}
