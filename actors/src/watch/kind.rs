//! From what a watch of one kind shows to facts. Pure: no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};

use fsm_api::KindInfo;
use serde_json::{Value, json};

use crate::catalog::ObjectName;
use crate::fact::{Fact, Relist, RelistPhase};

/// What a watch shows.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A list of the whole kind begins.
    ListBegin,
    /// An object of the list.
    Listed(Value),
    /// The list is complete.
    ListEnd,
    /// An object was created or changed.
    Applied(Value),
    /// An object is gone; as it was last.
    Deleted(Value),
}

/// Which edition of an object the log knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Edition {
    uid: String,
    resource_version: String,
}

/// The watch of one kind, and what the log knows of the kind.
///
/// A list is recorded as what it changes: an object in the same edition is not recorded again (so a restart of the controller
/// leaves no copies of the whole cluster in the log), and an object that is missing from it is recorded as deleted. Only
/// when the log knows nothing of the kind, the list is recorded as a list.
#[derive(Debug)]
pub struct KindWatch {
    info: KindInfo,
    gvk: String,
    known: BTreeMap<ObjectName, Edition>,
    /// Names in the list under way.
    listing: Option<BTreeSet<ObjectName>>,
    recording: Recording,
}

/// Whether the list under way is recorded as a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Recording {
    /// As differences.
    #[default]
    No,
    /// Yes, from its first object on: an empty list says nothing that the log doesn't.
    Waiting,
    /// Its beginning is recorded.
    Begun,
}

impl KindWatch {
    /// A watch of a kind of which the log knows nothing yet; see [`Self::know`].
    pub fn new(info: KindInfo) -> Self {
        let known = BTreeMap::new();
        Self { gvk: info.gvk().to_owned(), info, known, listing: None, recording: Recording::No }
    }

    /// The kind.
    pub fn info(&self) -> &KindInfo {
        &self.info
    }

    /// Whether a list is under way.
    pub fn is_listing(&self) -> bool {
        self.listing.is_some()
    }

    /// The log knows this object.
    pub fn know(&mut self, object: &Value) {
        let (name, edition) = identify(object);
        self.known.insert(name, edition);
    }

    /// What to record.
    pub fn see(&mut self, seen: Seen) -> Vec<Fact> {
        match seen {
            Seen::ListBegin => {
                // A list that was broken off and begins again goes on as it began: what it recorded so far is known.
                if self.recording == Recording::No && self.known.is_empty() {
                    self.recording = Recording::Waiting;
                }
                self.listing = Some(BTreeSet::new());
                Vec::new()
            }
            Seen::Listed(object) => {
                let (name, edition) = identify(&object);
                if let Some(listing) = &mut self.listing {
                    listing.insert(name.clone());
                }
                if self.known.get(&name) == Some(&edition) {
                    return Vec::new();
                }
                self.known.insert(name, edition);
                let mut facts = Vec::new();
                if self.recording == Recording::Waiting {
                    self.recording = Recording::Begun;
                    facts.push(self.relist(RelistPhase::Begin));
                }
                facts.push(self.applied(object));
                facts
            }
            Seen::ListEnd => self.list_end(),
            Seen::Applied(object) => {
                let (name, edition) = identify(&object);
                if self.known.get(&name) == Some(&edition) {
                    return Vec::new();
                }
                self.known.insert(name, edition);
                vec![self.applied(object)]
            }
            Seen::Deleted(object) => {
                let (name, _) = identify(&object);
                self.known.remove(&name);
                vec![Fact::deleted(&self.gvk, &self.typed(object))]
            }
        }
    }

    fn list_end(&mut self) -> Vec<Fact> {
        let listed = self.listing.take().unwrap_or_default();
        let gone: Vec<ObjectName> = self.known.keys().filter(|name| !listed.contains(name)).cloned().collect();
        let mut facts = Vec::new();
        for name in gone {
            let edition = self.known.remove(&name).unwrap_or_default();
            // Nobody saw it go: what it last was is in the log already.
            let mut metadata = json!({
                "name": name.name(), "uid": edition.uid, "resourceVersion": edition.resource_version,
            });
            if !name.namespace().is_empty() {
                metadata["namespace"] = name.namespace().into();
            }
            facts.push(Fact::deleted(&self.gvk, &self.typed(json!({ "metadata": metadata }))));
        }
        if std::mem::take(&mut self.recording) == Recording::Begun {
            facts.push(self.relist(RelistPhase::End));
        }
        facts
    }

    fn relist(&self, phase: RelistPhase) -> Fact {
        Fact::Relist(Relist { gvk: self.gvk.clone(), phase })
    }

    fn applied(&self, object: Value) -> Fact {
        Fact::applied(&self.gvk, &self.typed(object))
    }

    /// The object with `apiVersion` and `kind`, which items of lists of built-in kinds lack.
    fn typed(&self, mut object: Value) -> Value {
        if let Some(members) = object.as_object_mut() {
            members.entry("apiVersion").or_insert_with(|| self.info.api_version().into());
            members.entry("kind").or_insert_with(|| self.info.kind.into());
        }
        object
    }
}

fn identify(object: &Value) -> (ObjectName, Edition) {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    let edition = Edition {
        uid: text("/metadata/uid").to_owned(),
        resource_version: text("/metadata/resourceVersion").to_owned(),
    };
    (ObjectName::new(text("/metadata/namespace"), text("/metadata/name")), edition)
}
