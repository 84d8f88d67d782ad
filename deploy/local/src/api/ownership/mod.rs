//! Who owns which field (`managedFields`), and server-side apply.
//!
//! A write by way of create, update or patch takes the fields it changes from everyone else. An apply takes the fields it
//! names; when another manager owns one of them with another value, that is a conflict, unless it is forced.

mod apply;
mod fields;
mod walk;

use serde_json::{Value, json};

use super::object::{items, metadata, now, text};
use super::resource::Resource;
use super::writing::Part;
pub use apply::{Conflict, applied};
use fields::FieldSet;
use walk::Shape;

/// The fields one manager owns through one way of writing.
#[derive(Debug, Clone)]
struct Entry {
    manager: String,
    /// `Apply` or `Update`.
    operation: String,
    api_version: String,
    subresource: String,
    time: Value,
    fields: FieldSet,
}

impl Entry {
    fn read(value: &Value) -> Self {
        let own = |key: &str| text(value, &[key]).to_owned();
        Self {
            manager: own("manager"),
            operation: own("operation"),
            api_version: own("apiVersion"),
            subresource: own("subresource"),
            time: value["time"].clone(),
            fields: FieldSet::read(&value["fieldsV1"]),
        }
    }

    fn write(&self) -> Value {
        let mut value = json!({
            "manager": self.manager, "operation": self.operation, "apiVersion": self.api_version,
            "fieldsType": "FieldsV1", "fieldsV1": self.fields.write(),
        });
        if !self.time.is_null() {
            value["time"] = self.time.clone();
        }
        if !self.subresource.is_empty() {
            value["subresource"] = json!(self.subresource);
        }
        value
    }

    fn is(&self, manager: &str, operation: &str, subresource: &str) -> bool {
        (self.manager.as_str(), self.operation.as_str(), self.subresource.as_str()) == (manager, operation, subresource)
    }
}

fn entries(object: &Value) -> Vec<Entry> {
    items(object, &["metadata", "managedFields"]).iter().map(Entry::read).collect()
}

fn put_entries(object: &mut Value, entries: &[Entry]) {
    let written: Vec<Value> = entries.iter().map(Entry::write).collect();
    super::object::put(metadata(object), "managedFields", (!written.is_empty()).then(|| json!(written)));
}

/// The object with its `managedFields` brought up to date after a create, update or patch by `manager`.
pub fn updated(resource: &Resource, manager: &str, part: Part, old: &Value, mut object: Value) -> Value {
    let changed = walk::difference(Shape::of(resource), old, &object);
    let mut all = entries(old);
    let mine = |entry: &Entry| entry.is(manager, "Update", part.name());
    for entry in &mut all {
        entry.fields.keep_present(&object);
        if !mine(entry) {
            entry.fields.subtract(&changed);
        }
    }
    if !changed.is_empty() {
        match all.iter_mut().find(|e| mine(e)) {
            Some(entry) => {
                entry.fields.union(&changed);
                entry.time = json!(now());
            }
            None => all.push(Entry {
                manager: manager.into(),
                operation: "Update".into(),
                api_version: resource.api_version(),
                subresource: part.name().into(),
                time: json!(now()),
                fields: changed,
            }),
        }
    }
    all.retain(|entry| !entry.fields.is_empty());
    put_entries(&mut object, &all);
    object
}
