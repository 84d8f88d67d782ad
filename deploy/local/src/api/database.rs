//! The state: every object, the recent changes, and the versions that order them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::journal::{Durable, Journal, JournalEntry, Remembered};
use super::object::metadata;
use super::packed::{Object, Packed, Stored};
use super::resource::Storage;
use super::shelf::Shelf;

/// The place of an object within its resource. The namespace of cluster-scoped objects is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Modified,
    Deleted,
}

impl ChangeKind {
    /// As a watch names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One change of one object, shared by everyone who watches.
#[derive(Debug)]
pub struct Change {
    pub storage: Storage,
    pub key: Key,
    pub version: u64,
    pub kind: ChangeKind,
    pub at: Instant,
    /// The object after the change; of a deletion its last content with the version of the deletion.
    pub object: Arc<Packed>,
    pub previous: Option<Arc<Packed>>,
    sides: Mutex<Option<Arc<Sides>>>,
}

/// The object before and after a change.
#[derive(Debug)]
pub struct Sides {
    pub before: Option<Value>,
    pub after: Value,
}

impl Change {
    /// The object before and after, unpacked once for those who look at it while it is new.
    pub fn sides(&self) -> Arc<Sides> {
        let value = |packed: &Arc<Packed>| packed.unpack().value.clone();
        let mut sides = self.sides.lock().unwrap_or_else(PoisonError::into_inner);
        let unpacked = || Arc::new(Sides { before: self.previous.as_ref().map(value), after: value(&self.object) });
        sides.get_or_insert_with(unpacked).clone()
    }

    /// Keeps the packed form only.
    pub fn pack(&self) {
        *self.sides.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// A line of a watch stream.
pub fn watch_line(kind: &str, object: &Value) -> Bytes {
    let mut line = json!({"type": kind, "object": object}).to_string();
    line.push('\n');
    line.into()
}

/// What a write expects to find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    Absent,
    Version(u64),
}

/// The object wasn't as expected: this is what is there.
#[derive(Debug)]
pub struct Mismatch;

/// The changes after that version are no longer known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooOld {
    pub oldest: u64,
}

#[derive(Debug, Default)]
struct State {
    version: u64,
    /// The version at which this server started: what changed before is not known.
    start: u64,
    /// Writes up to this version are in the journal: watchers are told of them.
    journalled: u64,
    shelves: HashMap<Storage, Shelf>,
    /// Objects by the uid of their owners.
    dependents: HashMap<String, HashSet<(Storage, Key)>>,
    uids: HashSet<String>,
}

/// All objects. Every write is one version; versions are one sequence over all resources.
#[derive(Debug)]
pub struct Database {
    state: Mutex<State>,
    journal: Option<Arc<Journal>>,
    /// Where writes are announced that are on their way into the journal.
    written: mpsc::UnboundedSender<Written>,
    /// Where the server's own controllers learn of changes.
    feed: mpsc::UnboundedSender<Arc<Change>>,
}

/// A write on its way into the journal.
pub struct Written {
    pub storage: Storage,
    pub version: u64,
    pub durable: Durable,
}

impl State {
    fn shelf(&mut self, storage: &Storage) -> &mut Shelf {
        let (start, version) = (self.start, self.version);
        self.shelves.entry(storage.clone()).or_insert_with(|| Shelf::new(start, version))
    }

    fn index(&mut self, storage: &Storage, key: &Key, before: Option<&Packed>, after: Option<&Packed>) {
        if let Some(before) = before {
            self.uids.remove(&*before.uid);
            for owner in &before.owners {
                if let Some(set) = self.dependents.get_mut(&**owner) {
                    set.remove(&(storage.clone(), key.clone()));
                    if set.is_empty() {
                        self.dependents.remove(&**owner);
                    }
                }
            }
        }
        if let Some(after) = after {
            self.uids.insert(after.uid.as_ref().to_owned());
            for owner in &after.owners {
                let owner = owner.as_ref().to_owned();
                self.dependents.entry(owner).or_default().insert((storage.clone(), key.clone()));
            }
        }
    }
}

impl Database {
    /// A database with the objects a journal remembers. Changes are told to `feed`.
    /// Writes are announced to `written`; whoever reads there [reveals](Self::reveal) them.
    pub fn new(
        journal: Option<Journal>,
        remembered: Remembered,
        feed: mpsc::UnboundedSender<Arc<Change>>,
        written: mpsc::UnboundedSender<Written>,
    ) -> Self {
        let version = remembered.version;
        let mut state = State { version, start: version, journalled: version, ..State::default() };
        for entry in remembered.objects {
            let Some(object) = entry.object else { continue };
            state.index(&entry.storage, &entry.key, None, Some(&object));
            state.shelf(&entry.storage).objects.insert(entry.key, object);
        }
        Self { state: Mutex::new(state), journal: journal.map(Arc::new), written, feed }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The version of the last write.
    pub fn version(&self) -> u64 {
        self.lock().version
    }

    /// The last version that watchers are told of.
    pub fn journalled(&self) -> u64 {
        self.lock().journalled
    }

    pub fn get(&self, storage: &Storage, key: &Key) -> Option<Object> {
        let found = self.lock().shelves.get(storage)?.objects.get(key).cloned()?;
        Some(found.unpack())
    }

    /// The objects of a resource in the order of their keys, and the version at which this is the whole truth.
    /// `namespace` limits them to one namespace.
    pub fn list(&self, storage: &Storage, namespace: Option<&str>) -> (u64, Vec<(Key, Object)>) {
        let (version, objects) = self.list_packed(storage, namespace);
        (version, objects.into_iter().map(|(key, object)| (key, object.unpack())).collect())
    }

    /// As [`list`](Self::list), packed.
    pub fn list_packed(&self, storage: &Storage, namespace: Option<&str>) -> (u64, Vec<(Key, Arc<Packed>)>) {
        let state = self.lock();
        let Some(shelf) = state.shelves.get(storage) else { return (state.version, Vec::new()) };
        let objects = shelf.present(namespace).map(|(key, object)| (key.clone(), object.clone())).collect();
        (state.version, objects)
    }

    /// The objects of a resource as they were at a version.
    pub fn list_at(
        &self,
        storage: &Storage,
        namespace: Option<&str>,
        version: u64,
    ) -> Result<Vec<(Key, Arc<Packed>)>, TooOld> {
        self.lock().shelf(storage).at(namespace, version)
    }

    /// The objects of a resource as far as they are in the journal, and the version up to which that is.
    pub fn list_journalled(&self, storage: &Storage, namespace: Option<&str>) -> (u64, Vec<(Key, Arc<Packed>)>) {
        let mut state = self.lock();
        let version = state.journalled;
        // What is not in the journal yet is among the last changes.
        let objects = state.shelf(storage).at(namespace, version).unwrap_or_default();
        (version, objects)
    }

    /// Tells watchers of a write that is in the journal now.
    pub fn reveal(&self, storage: &Storage, version: u64) {
        let mut state = self.lock();
        state.journalled = version;
        // What is no longer served has nobody to tell.
        if let Some(shelf) = state.shelves.get_mut(storage) {
            shelf.latest.send_replace(version);
        }
    }

    /// Every object, and the version of the last write: what a snapshot of the journal is made of.
    pub fn everything(&self) -> (u64, Vec<(Storage, Key, Arc<Packed>)>) {
        let state = self.lock();
        let all = state.shelves.iter().flat_map(|(storage, shelf)| {
            shelf.objects.iter().map(|(key, object)| (storage.clone(), key.clone(), object.clone()))
        });
        (state.version, all.collect())
    }

    /// Forgets the changes before a moment; says whether there were any.
    pub fn forget_before(&self, then: Instant) -> bool {
        self.lock().shelves.values_mut().fold(false, |any, shelf| shelf.forget_before(then) | any)
    }

    pub fn journal(&self) -> Option<Arc<Journal>> {
        self.journal.clone()
    }

    /// The changes of a resource after a version that are in the journal, and the version up to which they are complete.
    pub fn changes_after(&self, storage: &Storage, version: u64) -> Result<(Vec<Arc<Change>>, u64), TooOld> {
        let mut state = self.lock();
        let journalled = state.journalled;
        let shelf = state.shelf(storage);
        Ok((shelf.changes(version, journalled)?, journalled.max(version)))
    }

    /// The version of a resource's last change, in the journal or on its way there.
    pub fn newest(&self, storage: &Storage) -> u64 {
        self.lock().shelves.get(storage).map_or(0, Shelf::newest)
    }

    /// Tells the version of each new change of a resource.
    pub fn subscribe(&self, storage: &Storage) -> watch::Receiver<u64> {
        self.lock().shelf(storage).latest.subscribe()
    }

    /// Objects that name one of these uids as their owner.
    pub fn dependents(&self, owner: &str) -> Vec<(Storage, Key)> {
        self.lock().dependents.get(owner).into_iter().flatten().cloned().collect()
    }

    /// Whether an object with that uid exists.
    pub fn has_uid(&self, uid: &str) -> bool {
        self.lock().uids.contains(uid)
    }

    /// Stores an object under a new version, if what is there is as expected.
    pub fn store(
        &self,
        storage: &Storage,
        key: &Key,
        expect: Expect,
        mut value: Value,
    ) -> Result<(Object, Durable), Mismatch> {
        let mut state = self.lock();
        let previous = state.shelf(storage).objects.get(key).cloned();
        match (&previous, expect) {
            (None, Expect::Absent) => {}
            (Some(found), Expect::Version(version)) if found.version == version => {}
            _ => return Err(Mismatch),
        }
        let version = state.version + 1;
        metadata(&mut value).insert("resourceVersion".into(), json!(version.to_string()));
        let kind = if previous.is_some() { ChangeKind::Modified } else { ChangeKind::Added };
        let packed = Arc::new(Packed::new(kind, version, &value));
        let durable = self.publish(&mut state, storage, key, kind, packed, previous);
        Ok((Arc::new(Stored { version, value }), durable))
    }

    /// Removes an object, if it is still at the version expected. The change shows `last` (its last content).
    pub fn remove(
        &self,
        storage: &Storage,
        key: &Key,
        version: u64,
        mut last: Value,
    ) -> Result<(Object, Durable), Mismatch> {
        let mut state = self.lock();
        let previous = state.shelf(storage).objects.get(key).cloned();
        if previous.as_ref().is_none_or(|found| found.version != version) {
            return Err(Mismatch);
        }
        let version = state.version + 1;
        metadata(&mut last).insert("resourceVersion".into(), json!(version.to_string()));
        let packed = Arc::new(Packed::new(ChangeKind::Deleted, version, &last));
        let durable = self.publish(&mut state, storage, key, ChangeKind::Deleted, packed, previous);
        Ok((Arc::new(Stored { version, value: last }), durable))
    }

    fn publish(
        &self,
        state: &mut State,
        storage: &Storage,
        key: &Key,
        kind: ChangeKind,
        object: Arc<Packed>,
        previous: Option<Arc<Packed>>,
    ) -> Durable {
        let gone = kind == ChangeKind::Deleted;
        state.version = object.version;
        state.index(storage, key, previous.as_deref(), (!gone).then_some(&*object));
        let change = Arc::new(Change {
            storage: storage.clone(),
            key: key.clone(),
            version: object.version,
            kind,
            object: object.clone(),
            previous,
            at: Instant::now(),
            sides: Mutex::new(None),
        });
        let shelf = state.shelf(storage);
        shelf.record(change.clone());
        // Sent under the lock, so the journal has the order of the versions. The feed may be closed while stopping.
        let durable = self.journal.as_ref().map_or_else(Durable::at_once, |journal| {
            let stored = (!gone).then(|| object.clone());
            journal.append(&JournalEntry {
                storage: storage.clone(),
                key: key.clone(),
                version: object.version,
                object: stored,
            })
        });
        let _ = self.feed.send(change);
        let written = Written { storage: storage.clone(), version: object.version, durable: durable.clone() };
        let _ = self.written.send(written);
        durable
    }

    /// Ends every watch of a resource that is no longer served, by forgetting its history.
    pub fn forget(&self, storage: &Storage) {
        self.lock().shelves.remove(storage);
    }
}
