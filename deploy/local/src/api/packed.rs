//! Objects as they are kept: as JSON text. Parsed, the same takes ten times the room.
//!
//! The text is a whole line of a watch stream, so a change is told to all watchers without being written again, and the object
//! is a slice of it.

use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::database::ChangeKind;
use super::object::{items, text, uid};

/// An object as it was at one version.
#[derive(Debug)]
pub struct Stored {
    pub version: u64,
    pub value: Value,
}

pub type Object = Arc<Stored>;

/// An object as it was at one version, packed.
#[derive(Debug)]
pub struct Packed {
    pub version: u64,
    pub uid: Box<str>,
    /// The uids of the objects that own it.
    pub owners: Box<[Box<str>]>,
    line: Bytes,
    /// Where in the line the object begins.
    start: usize,
    /// Where what follows its `apiVersion` and `kind` begins.
    rest: usize,
}

/// What follows the object in a line.
const END: &str = "}\n";

impl Packed {
    /// Packs the state of an object after a change.
    pub fn new(kind: ChangeKind, version: u64, value: &Value) -> Self {
        let mut line = format!("{{\"type\":\"{}\",\"object\":", kind.name()).into_bytes();
        let start = line.len();
        line.push(b'{');
        let none = Map::new();
        let fields = value.as_object().unwrap_or(&none);
        let of_type = |key: &str| matches!(key, "apiVersion" | "kind");
        for (key, field) in fields.iter().filter(|(key, _)| of_type(key)) {
            line.extend_from_slice(format!("{}:{field},", json!(key)).as_bytes());
        }
        let rest = line.len();
        for (key, field) in fields.iter().filter(|(key, _)| !of_type(key)) {
            line.extend_from_slice(format!("{}:", json!(key)).as_bytes());
            serde_json::to_writer(&mut line, field).expect("JSON is written to memory");
            line.push(b',');
        }
        // After the last field there is no comma.
        line.pop_if(|byte| *byte == b',');
        line.push(b'}');
        line.extend_from_slice(END.as_bytes());
        line.shrink_to_fit();
        let owners = items(value, &["metadata", "ownerReferences"]).iter().map(|owner| text(owner, &["uid"]).into());
        Self { version, uid: uid(value).into(), owners: owners.collect(), line: line.into(), start, rest }
    }

    /// The change as a line of a watch stream.
    pub fn line(&self) -> Bytes {
        self.line.clone()
    }

    /// The object as a line of a watch stream with another type.
    pub fn line_as(&self, kind: ChangeKind) -> Bytes {
        let head = format!("{{\"type\":\"{}\",\"object\":", kind.name());
        [head.as_bytes(), &self.line[self.start..]].concat().into()
    }

    /// The object.
    pub fn json(&self) -> Bytes {
        self.line.slice(self.start..self.line.len() - END.len())
    }

    /// Writes the object into a list, whose items may be without `apiVersion` and `kind`.
    pub fn write_item(&self, typed: bool, list: &mut Vec<u8>) {
        let begin = if typed { self.start + 1 } else { self.rest };
        list.push(b'{');
        list.extend_from_slice(&self.line[begin..self.line.len() - END.len()]);
    }

    pub fn unpack(&self) -> Object {
        let value = serde_json::from_slice(&self.json()).expect("what was packed is JSON");
        Arc::new(Stored { version: self.version, value })
    }

    /// Of the object only what label selectors and the common field selectors look at.
    pub fn heading(&self) -> Value {
        let heading: Heading = serde_json::from_slice(&self.json()).expect("what was packed has metadata");
        json!({"metadata": heading.metadata})
    }
}

#[derive(Deserialize)]
struct Heading {
    metadata: Names,
}

#[derive(Deserialize, serde::Serialize)]
struct Names {
    name: String,
    namespace: Option<String>,
    labels: Option<Map<String, Value>>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn config_map() -> Value {
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n", "uid": "u",
            "labels": {"x": "y"}, "ownerReferences": [{"uid": "o"}]}, "data": {"k": "\"v\""}})
    }

    #[test]
    fn a_packed_object_is_a_line_an_object_and_an_item() {
        let value = config_map();
        let packed = Packed::new(ChangeKind::Modified, 7, &value);
        assert_eq!(packed.unpack().value, value);
        assert_eq!((&*packed.uid, &*packed.owners[0]), ("u", "o"));
        for (line, kind) in [(packed.line(), "MODIFIED"), (packed.line_as(ChangeKind::Added), "ADDED")] {
            assert!(line.ends_with(b"\n"));
            assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), json!({"type": kind, "object": value}));
        }
        let item = |typed: bool| {
            let mut item = Vec::new();
            packed.write_item(typed, &mut item);
            serde_json::from_slice::<Value>(&item).unwrap()
        };
        assert_eq!(item(true), value);
        let mut untyped = value.clone();
        untyped.as_object_mut().unwrap().retain(|key, _| key != "apiVersion" && key != "kind");
        assert_eq!(item(false), untyped);
        let heading = json!({"metadata": {"name": "a", "namespace": "n", "labels": {"x": "y"}}});
        assert_eq!(packed.heading(), heading);
    }

    proptest! {
        #[test]
        fn whatever_is_packed_comes_back(fields in proptest::collection::btree_map("[a-zA-Z\"\\\\é]{1,6}", ".{0,9}", 0..6)) {
            let mut value = config_map();
            for (key, text) in &fields {
                value["data"][key] = json!(text);
                value[key] = json!({key.as_str(): text});
            }
            let packed = Packed::new(ChangeKind::Added, 1, &value);
            prop_assert_eq!(&packed.unpack().value, &value);
            let mut item = Vec::new();
            packed.write_item(true, &mut item);
            prop_assert_eq!(serde_json::from_slice::<Value>(&item).unwrap(), value);
        }
    }
}
