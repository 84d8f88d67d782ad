//! Who owns which field.

use serde_json::Value;

use super::resource::Resource;
use super::writing::Part;

/// The object with its `managedFields` brought up to date after a write by `manager`.
pub fn updated(_resource: &Resource, _manager: &str, _part: Part, _old: &Value, object: Value) -> Value {
    object
}
