//! WATCH: a stream of changes, one JSON document a line.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::database::{Change, ChangeKind, watch_line};
use super::media::Form;
use super::path::Target;
use super::query::Query;
use super::reading::{Filter, include_object, partial};
use super::resource::{Resource, empty_object};
use super::server::{Server, convert, present, shows_stored};
use super::status::{ApiError, FieldError};
use super::table;

/// How long a watch lasts when the client doesn't say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// Where a watch begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// What exists, as ADDED, then changes; `marked` when a bookmark shows where the first part ends.
    Everything { marked: bool },
    /// The changes after a version.
    After(u64),
    /// The changes from now on.
    Now,
}

struct Watch {
    server: Arc<Server>,
    target: Target,
    filter: Filter,
    form: Form,
    query: Query,
    bookmarks: bool,
    sender: mpsc::Sender<Bytes>,
    /// Changes up to this version have been sent.
    seen: u64,
    columns_sent: bool,
}

/// The client has gone, or the stream has ended.
struct Ended;

/// Starts a watch. Its lines come out of the receiver; it ends when the receiver is dropped, at the client's timeout, or when
/// the server stops.
pub fn start(server: Arc<Server>, target: Target, query: Query, form: Form) -> Result<mpsc::Receiver<Bytes>, ApiError> {
    let filter = Filter::of(&query, &target.resource)?;
    let start = start_of(&query, &target.resource)?;
    let timeout = query.number("timeoutSeconds")?.and_then(|s| u64::try_from(s).ok()).filter(|s| *s > 0);
    let deadline = Instant::now() + timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs);
    let bookmarks = query.flag("allowWatchBookmarks");
    let (sender, receiver) = mpsc::channel(64);
    let mut watch = Watch { server, target, filter, form, query, bookmarks, sender, seen: 0, columns_sent: false };
    tokio::spawn(async move {
        let stopping = watch.server.stopping.clone();
        let _ = stopping.run_until_cancelled(watch.run(start, deadline)).await;
    });
    Ok(receiver)
}

fn start_of(query: &Query, resource: &Resource) -> Result<Start, ApiError> {
    let version = query.get("resourceVersion");
    let number = version.map_or(Ok(0), str::parse);
    let number: u64 =
        number.map_err(|_| ApiError::internal(format!("strconv.ParseUint: parsing {version:?}: invalid syntax")))?;
    if query.get("sendInitialEvents").is_some() {
        if query.get("resourceVersionMatch") != Some("NotOlderThan") {
            let list = Resource { kind: "ListOptions".into(), group: "meta.k8s.io".into(), ..resource.clone() };
            let error = FieldError::forbidden(
                "resourceVersionMatch",
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            );
            return Err(ApiError::invalid(&list, "", &[error]));
        }
        if query.flag("sendInitialEvents") {
            return Ok(Start::Everything { marked: true });
        }
        return Ok(if number == 0 { Start::Now } else { Start::After(number) });
    }
    Ok(if number == 0 { Start::Everything { marked: false } } else { Start::After(number) })
}

impl Watch {
    async fn run(&mut self, start: Start, deadline: Instant) -> Result<(), Ended> {
        let mut latest = self.server.database.subscribe(&self.target.resource.storage);
        match start {
            Start::After(version) => self.seen = version,
            Start::Now => self.seen = self.server.database.journalled(),
            Start::Everything { marked } => {
                // Who wrote something and then looks must see it.
                let newest = self.server.database.newest(&self.target.resource.storage);
                latest.wait_for(|latest| *latest >= newest).await.map_err(|_| Ended)?;
                self.send_existing().await?;
                if marked && self.bookmarks {
                    self.send_bookmark(true).await?;
                }
            }
        }
        let mut bookmark = tokio::time::interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
        let closing = deadline - Duration::from_secs(1).min(deadline.duration_since(Instant::now()) / 2);
        let mut closing = std::pin::pin!(tokio::time::sleep_until(closing));
        let mut said_farewell = false;
        loop {
            self.send_changes().await?;
            tokio::select! {
                changed = latest.changed() => if changed.is_err() { return Err(Ended) },
                _ = bookmark.tick(), if self.bookmarks => self.send_bookmark(false).await?,
                () = &mut closing, if !said_farewell => {
                    said_farewell = true;
                    if self.bookmarks {
                        self.send_bookmark(false).await?;
                    }
                }
                () = tokio::time::sleep_until(deadline) => return Ok(()),
                () = self.sender.closed() => return Err(Ended),
            }
        }
    }

    async fn send_existing(&mut self) -> Result<(), Ended> {
        let (storage, namespace) = (&self.target.resource.storage, self.target.namespace.as_deref());
        let (version, mut objects) = self.server.database.list_journalled(storage, namespace);
        objects.retain(|(key, _)| self.target.name.as_ref().is_none_or(|name| *name == key.name));
        let as_kept = self.form == Form::Whole && shows_stored(&self.target.resource);
        for (_, object) in objects {
            if !self.filter.admits(&self.target.resource, &object) {
                continue;
            }
            if as_kept {
                self.send(object.line_as(ChangeKind::Added)).await?;
            } else {
                self.send_object("ADDED", &present(&self.target.resource, &object.unpack())).await?;
            }
        }
        self.seen = version;
        Ok(())
    }

    async fn send_changes(&mut self) -> Result<(), Ended> {
        match self.server.database.changes_after(&self.target.resource.storage, self.seen) {
            Ok((changes, version)) => {
                for change in changes {
                    self.send_change(&change).await?;
                }
                self.seen = version;
                Ok(())
            }
            Err(too_old) => {
                // As an event: clients that get HTTP 410 ask for the same version again for ever.
                let message = format!("too old resource version: {} ({})", self.seen, too_old.oldest);
                self.send(watch_line("ERROR", &ApiError::expired(message).status())).await?;
                Err(Ended)
            }
        }
    }

    async fn send_change(&mut self, change: &Change) -> Result<(), Ended> {
        let key = &change.key;
        if self.target.namespace.as_ref().is_some_and(|n| *n != key.namespace)
            || self.target.name.as_ref().is_some_and(|n| *n != key.name)
        {
            return Ok(());
        }
        let resource = &self.target.resource;
        let as_kept = self.form == Form::Whole && shows_stored(resource);
        if as_kept && self.filter.is_empty() {
            return self.send(change.object.line()).await;
        }
        let sides = change.sides();
        let shown = |value: &Value| {
            let mut value = value.clone();
            convert(resource, &mut value);
            value
        };
        let passes =
            |value: &Value| if as_kept { self.filter.matches(value) } else { self.filter.matches(&shown(value)) };
        let matched = sides.before.as_ref().is_some_and(passes);
        let matches = change.kind != ChangeKind::Deleted && passes(&sides.after);
        let kind = match (matched, matches) {
            (false, false) => return Ok(()),
            (false, true) => ChangeKind::Added,
            (true, true) => ChangeKind::Modified,
            (true, false) => ChangeKind::Deleted,
        };
        let left = kind == ChangeKind::Deleted && change.kind != ChangeKind::Deleted;
        match &sides.before {
            // It no longer matches: its old content with the new version.
            Some(before) if left => {
                let mut gone = shown(before);
                super::object::metadata(&mut gone).insert("resourceVersion".into(), json!(change.version.to_string()));
                self.send_object("DELETED", &gone).await
            }
            _ if as_kept && kind == change.kind => self.send(change.object.line()).await,
            _ if as_kept => self.send(change.object.line_as(kind)).await,
            _ => self.send_object(kind.name(), &shown(&sides.after)).await,
        }
    }

    async fn send_object(&mut self, kind: &str, object: &Value) -> Result<(), Ended> {
        let shown = match self.form {
            Form::Whole | Form::Discovery => return self.send(watch_line(kind, object)).await,
            Form::Metadata => partial(object),
            Form::Table => {
                let version = super::object::resource_version(object);
                let metadata = json!({"resourceVersion": version});
                let mut table = table::of(
                    &self.target.resource,
                    std::slice::from_ref(object),
                    metadata,
                    include_object(&self.query),
                );
                if std::mem::replace(&mut self.columns_sent, true) {
                    table["columnDefinitions"] = Value::Null;
                }
                table
            }
        };
        self.send(watch_line(kind, &shown)).await
    }

    async fn send_bookmark(&mut self, end_of_initial: bool) -> Result<(), Ended> {
        let mut object = empty_object(&self.target.resource, self.seen);
        if self.form != Form::Whole {
            object = partial(&object);
        }
        if end_of_initial {
            object["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        self.send(watch_line("BOOKMARK", &object)).await
    }

    async fn send(&mut self, line: Bytes) -> Result<(), Ended> {
        self.sender.send(line).await.map_err(|_| Ended)
    }
}
