//! Server-side apply, as a request.

use serde_json::{Value, json};

use super::decoding::{check_place, decode};
use super::object::{as_map, metadata, name, text};
use super::ownership;
use super::status::ApiError;
use super::writing::{ATTEMPTS, Part, Way, Writing};

impl Writing<'_> {
    /// Server-side apply of a configuration. Gives 201 for a new object and 200 for one that was there.
    pub async fn apply(&mut self, part: Part, configuration: Value) -> Result<(u16, Value), ApiError> {
        let resource = self.target.resource.clone();
        let configuration = self.read_configuration(part, configuration)?;
        let (manager, force) = (self.options.manager.clone(), self.options.force);
        let merged = |live: &Value| {
            let merged = ownership::applied(&resource, live, &configuration, &manager, part.name(), force);
            merged.map_err(|conflicts| ownership::Conflict::refusal(&conflicts))
        };
        for _ in 0..ATTEMPTS {
            let missing = super::reading::find(self.server, self.target).is_err();
            if missing && part == Part::Main {
                match self.create(merged(&json!({}))?, Way::Apply).await {
                    Err(error) if error.reason == "AlreadyExists" => continue,
                    made => return made.map(|object| (201, object)),
                }
            }
            let version = super::object::resource_version(&configuration);
            let updated = self
                .update(part, Way::Apply, |live| {
                    let mut next = merged(live)?;
                    for (key, value) in
                        [("resourceVersion", version), ("uid", text(&configuration, &["metadata", "uid"]))]
                    {
                        if !value.is_empty() {
                            metadata(&mut next).insert(key.into(), json!(value));
                        }
                    }
                    Ok(next)
                })
                .await;
            match updated {
                // Deleted meanwhile.
                Err(error) if error.code == 404 && part == Part::Main => {}
                other => return other.map(|object| (200, object)),
            }
        }
        Err(ApiError::modified(&resource, self.target.name.as_deref().unwrap_or_default()))
    }

    /// Checks an applied configuration, and reduces it to what this request may write.
    fn read_configuration(&self, part: Part, mut configuration: Value) -> Result<Value, ApiError> {
        let resource = self.resource();
        let wanted = self.target.name.as_deref().unwrap_or_default();
        let (version, kind) = (text(&configuration, &["apiVersion"]), text(&configuration, &["kind"]));
        if version.is_empty() || kind.is_empty() {
            return Err(ApiError::bad_request(format!("invalid object type: {version}, Kind={kind}")));
        }
        if name(&configuration).is_empty() && part != Part::Main {
            metadata(&mut configuration).insert("name".into(), json!(wanted));
        }
        if name(&configuration).is_empty() {
            return Err(ApiError::bad_request(format!(
                "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
            )));
        }
        if configuration["metadata"].get("managedFields").is_some_and(|m| !m.is_null()) {
            return Err(ApiError::bad_request("metadata.managedFields must be nil"));
        }
        drop_nulls(&mut configuration);
        check_place(self.target, &mut configuration)?;
        let refuse = |what: &str| {
            let place = format!(
                "{}/{wanted}; {}, Kind={}",
                self.target.namespace.as_deref().unwrap_or_default(),
                resource.api_version(),
                resource.kind
            );
            ApiError::new(500, "", format!("failed to create typed patch object ({place}): {what}"))
        };
        let decoded = decode(resource, configuration.clone());
        let decoded =
            decoded.map_err(|error| if resource.custom().is_some() { error } else { refuse(&error.message) })?;
        if let [field, ..] = decoded.unknown.as_slice() {
            return Err(refuse(&format!(".{field}: field not declared in schema")));
        }
        let map = as_map(&mut configuration);
        if part == Part::Status {
            map.retain(|key, _| matches!(key.as_str(), "apiVersion" | "kind" | "metadata" | "status"));
            let meta = metadata(&mut configuration);
            meta.retain(|key, _| matches!(key.as_str(), "name" | "namespace" | "uid" | "resourceVersion"));
        } else if resource.status {
            map.remove("status");
        }
        Ok(configuration)
    }
}

/// Drops nulls, which in a configuration name no field.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, child| !child.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}
