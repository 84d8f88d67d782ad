//! The objects of one resource, and its recent changes.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::database::{Change, ChangeKind, Key, TooOld};
use super::packed::Packed;

/// How many changes of a resource are remembered for watches that resume.
const WINDOW: usize = 8192;
/// So many of the newest changes stay unpacked once somebody has looked at them: most watchers read them at about the same time.
const UNPACKED: usize = 16;

#[derive(Debug)]
pub struct Shelf {
    pub objects: BTreeMap<Key, Arc<Packed>>,
    history: VecDeque<Arc<Change>>,
    /// Changes after this version are in the history.
    floor: u64,
    /// Tells watchers up to which version there is something to see.
    pub latest: watch::Sender<u64>,
}

impl Shelf {
    /// An empty one, of a server whose first version was `start` and whose present one is `version`.
    pub fn new(start: u64, version: u64) -> Self {
        Self { objects: BTreeMap::new(), history: VecDeque::new(), floor: start, latest: watch::Sender::new(version) }
    }

    /// The objects there are, of one namespace or of all, in the order of their keys.
    pub fn present(&self, namespace: Option<&str>) -> impl Iterator<Item = (&Key, &Arc<Packed>)> {
        let start = namespace.map_or(Bound::Unbounded, |namespace| Bound::Included(Key::new(namespace, "")));
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |(key, _)| namespace.is_none_or(|namespace| key.namespace == namespace))
    }

    /// The objects as they were at a version: the present ones, with what changed since undone.
    pub fn at(&self, namespace: Option<&str>, version: u64) -> Result<Vec<(Key, Arc<Packed>)>, TooOld> {
        self.known(version)?;
        let mut objects: BTreeMap<Key, Arc<Packed>> =
            self.present(namespace).map(|(key, object)| (key.clone(), object.clone())).collect();
        let since = self.history.partition_point(|change| change.version <= version);
        let within = |key: &Key| namespace.is_none_or(|namespace| key.namespace == namespace);
        for change in self.history.range(since..).rev().filter(|change| within(&change.key)) {
            match &change.previous {
                Some(previous) => objects.insert(change.key.clone(), previous.clone()),
                None => objects.remove(&change.key),
            };
        }
        Ok(objects.into_iter().collect())
    }

    /// The version of the last change; 0 if none is remembered.
    pub fn newest(&self) -> u64 {
        self.history.back().map_or(0, |change| change.version)
    }

    /// The changes after a version and up to another.
    pub fn changes(&self, after: u64, until: u64) -> Result<Vec<Arc<Change>>, TooOld> {
        self.known(after)?;
        let place = |version: u64| self.history.partition_point(|change| change.version <= version);
        let (start, end) = (place(after), place(until));
        Ok(self.history.range(start..end.max(start)).cloned().collect())
    }

    /// Makes a change.
    pub fn record(&mut self, change: Arc<Change>) {
        if change.kind == ChangeKind::Deleted {
            self.objects.remove(&change.key);
        } else {
            self.objects.insert(change.key.clone(), change.object.clone());
        }
        self.history.push_back(change);
        if let Some(older) = self.history.len().checked_sub(UNPACKED + 1) {
            self.history[older].pack();
        }
        if self.history.len() > WINDOW
            && let Some(forgotten) = self.history.pop_front()
        {
            self.floor = forgotten.version;
        }
    }

    /// Forgets the changes before a moment; says whether there were any.
    pub fn forget_before(&mut self, then: Instant) -> bool {
        let old = self.history.partition_point(|change| change.at < then);
        if old > 0 {
            self.floor = self.history[old - 1].version;
            self.history.drain(..old);
            self.history.shrink_to_fit();
        }
        old > 0
    }

    fn known(&self, version: u64) -> Result<(), TooOld> {
        if version < self.floor { Err(TooOld { oldest: self.floor }) } else { Ok(()) }
    }
}
