//! The watches themselves: one task per kind.

use std::sync::Arc;
use std::time::Duration;

use fsm_store::{Entry, EventLog};
use futures::StreamExt;
use futures::future::try_join_all;
use kube::Api;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;

use super::{KindWatch, Seen, WatchedObject};
use crate::fact::Fact;
use crate::kubernetes::Causes;
use crate::serve::Readiness;
use crate::trace::Change;

/// Events that are there at once are appended together, but no more than these.
const CHUNK_EVENTS: usize = 256;
/// An append is not larger than this, unless one object is.
const CHUNK_BYTES: usize = 8 << 20;
/// Time before trying again after an error: doubled from the first to the second.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(3));

/// Why watching ended.
#[derive(Debug, thiserror::Error)]
#[error("what the watch of {kind} saw can't be recorded: {source}")]
pub struct WatchError {
    kind: &'static str,
    source: fsm_store::Error,
}

/// Watches all kinds until the log takes no more. Each kind is reported to `readiness` under the name `watch <Kind>` when its
/// first list is recorded.
pub async fn watch_all(
    client: kube::Client,
    kinds: Vec<KindWatch>,
    log: Arc<dyn EventLog>,
    readiness: Readiness,
) -> Result<(), WatchError> {
    for kind in &kinds {
        readiness.expect(condition(kind));
    }
    try_join_all(kinds.into_iter().map(|kind| watch(client.clone(), kind, Arc::clone(&log), readiness.clone())))
        .await?;
    Ok(())
}

fn condition(kind: &KindWatch) -> String {
    format!("watch {}", kind.info().kind)
}

async fn watch(
    client: kube::Client,
    mut kind: KindWatch,
    log: Arc<dyn EventLog>,
    readiness: Readiness,
) -> Result<(), WatchError> {
    let info = *kind.info();
    let gvk = GroupVersionKind::gvk(info.group, info.version, info.kind);
    let api: Api<WatchedObject> = Api::all_with(client, &ApiResource::from_gvk_with_plural(&gvk, info.plural));
    let mut backoff = BACKOFF.0;
    let mut missing = false;
    loop {
        // Each turn lists the kind anew.
        let mut events = watcher(api.clone(), watcher::Config::default()).boxed().ready_chunks(CHUNK_EVENTS);
        'stream: while let Some(chunk) = events.next().await {
            let mut entries = Entries::default();
            let mut listed = false;
            let mut failure = None;
            for event in chunk {
                let seen = match event {
                    Ok(event) => seen(event),
                    Err(error) => {
                        failure = Some(error);
                        continue;
                    }
                };
                // The beginning of a list only says that it will be tried.
                if !matches!(seen, Seen::ListBegin) {
                    backoff = BACKOFF.0;
                    missing = false;
                }
                listed |= matches!(seen, Seen::ListEnd);
                for fact in kind.see(seen) {
                    if let Some(full) = entries.push(&fact) {
                        append(&log, &kind, full).await?;
                    }
                }
            }
            append(&log, &kind, entries).await?;
            if listed {
                tracing::info!(kind = info.kind, "listed; watching");
                readiness.met(&condition(&kind));
            }
            let Some(error) = failure else { continue };
            if is_missing(&error) {
                if !missing {
                    tracing::warn!(
                        "the Kubernetes API has no {}.{}: install its CustomResourceDefinition (`fsm install`); going on without it meanwhile",
                        info.plural,
                        info.group,
                    );
                }
                missing = true;
                // There are none, then; the rest of the mesh works without.
                readiness.met(&condition(&kind));
            } else {
                tracing::warn!(kind = info.kind, error = %Causes(&error), "the watch was interrupted; trying again");
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
            if is_expired(&error) {
                break 'stream;
            }
        }
    }
}

fn seen(event: watcher::Event<WatchedObject>) -> Seen {
    match event {
        watcher::Event::Init => Seen::ListBegin,
        watcher::Event::InitApply(object) => Seen::Listed(object.json),
        watcher::Event::InitDone => Seen::ListEnd,
        watcher::Event::Apply(object) => Seen::Applied(object.json),
        watcher::Event::Delete(object) => Seen::Deleted(object.json),
    }
}

/// The API server doesn't know the kind.
fn is_missing(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.code == 404)
}

/// The version to watch from is gone. In the stream kube's watcher handles that; as an HTTP status it would ask the same for ever.
fn is_expired(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

async fn append(log: &Arc<dyn EventLog>, kind: &KindWatch, entries: Entries) -> Result<(), WatchError> {
    if entries.entries.is_empty() {
        return Ok(());
    }
    let appended = log.append(entries.entries).await;
    // The spans of these changes end here: what was seen is durable.
    drop(entries.changes);
    appended.map(drop).map_err(|source| WatchError { kind: kind.info().kind, source })
}

/// Entries on their way into one append.
#[derive(Default)]
struct Entries {
    entries: Vec<Entry>,
    changes: Vec<Change>,
    bytes: usize,
}

impl Entries {
    /// Adds a fact; gives those before it if there would be too much.
    fn push(&mut self, fact: &Fact) -> Option<Self> {
        let about = match fact {
            Fact::Object(fact) => format!("{} {}", fact.gvk, fact.name),
            _ => String::new(),
        };
        let change = Change::begin("watch", about);
        let entry = fact.to_entry(change.context);
        let too_much = self.bytes + entry.body.len() > CHUNK_BYTES && !self.entries.is_empty();
        let full = too_much.then(|| std::mem::take(self));
        self.bytes += entry.body.len();
        self.entries.push(entry);
        if change.is_exported() {
            self.changes.push(change);
        }
        full
    }
}
