//! Follows the journal: what is in it is shown to watchers, and when it has grown it is made small again.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::database::{Key, Written};
use super::journal::{Journal, JournalEntry, Remembered};
use super::packed::Packed;
use super::resource::Storage;
use super::server::Server;

/// After so many writes the journal is replaced by the present state.
const WRITES_PER_SNAPSHOT: usize = 20_000;

/// Everything there was at a version.
type Everything = (u64, Vec<(Storage, Key, Arc<Packed>)>);

/// Runs until the server stops.
pub async fn follow(server: Arc<Server>, mut written: mpsc::UnboundedReceiver<Written>) {
    let mut writes = 0;
    let mut planned: Option<Everything> = None;
    while let Some(Some(write)) = server.stopping.run_until_cancelled(written.recv()).await {
        let placed = write.durable.place().await;
        // Its author is told when it isn't kept; others see what this server goes on with.
        server.database.reveal(&write.storage, write.version);
        writes += 1;
        if writes >= WRITES_PER_SNAPSHOT && planned.is_none() {
            planned = Some(server.database.everything());
        }
        let Ok(Some(seq)) = placed else { continue };
        // The state is that of the record whose write was the last one in it.
        if let Some((version, _)) = &planned
            && *version <= write.version
            && let (Some((version, objects)), Some(journal)) = (planned.take(), server.database.journal())
        {
            writes = 0;
            if version == write.version {
                tokio::spawn(snapshot(journal, version, objects, seq));
            }
        }
    }
}

async fn snapshot(journal: Arc<Journal>, version: u64, objects: Vec<(Storage, Key, Arc<Packed>)>, seq: fsm_store::Seq) {
    let entry = |(storage, key, object): (Storage, Key, Arc<Packed>)| JournalEntry {
        storage,
        key,
        version: object.version,
        object: Some(object),
    };
    let remembered = Remembered { objects: objects.into_iter().map(entry).collect(), version };
    if let Err(error) = journal.snapshot(&remembered, seq).await {
        tracing::warn!(%error, "the journal of the API server can't be made smaller; it goes on growing");
    }
}
