//! Creating and changing objects: one path for every kind and every way of writing.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::admission::{self, Operation};
use super::database::{Expect, Key, Object};
use super::decoding::{check_place, decode, to_storage, unknown_fields};
use super::object::{as_map, finalizers, is_terminating, metadata, name, now, same_content, text};
use super::options::WriteOptions;
use super::path::Target;
use super::resource::{Resource, Shape};
use super::server::{Server, present};
use super::status::{ApiError, FieldError};
use super::users::User;
use super::{crd, defaults, names, namespaces, ownership, services, validation};

/// How often a patch is tried again when the object changes under it.
const ATTEMPTS: usize = 16;

/// One writing request.
#[derive(Debug)]
pub struct Writing<'a> {
    pub server: &'a Arc<Server>,
    pub target: &'a Target,
    pub user: &'a User,
    pub options: WriteOptions,
    /// Told to the client beside the answer.
    pub warnings: Vec<String>,
}

/// Which part of an object a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Main,
    Status,
    /// Through a subresource that writes parts of the spec, such as `scale` or `binding`.
    Sub(&'static str),
}

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Self::Main => "",
            Self::Status => "status",
            Self::Sub(name) => name,
        }
    }
}

/// How the new state of an object comes about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The client sent the whole object.
    Replace,
    /// The client sent a change.
    Patch,
    /// Server-side apply: ownership of fields has been settled already.
    Apply,
}

impl Writing<'_> {
    fn key(&self, name: &str) -> Key {
        Key::new(self.target.namespace.as_deref().unwrap_or_default(), name)
    }

    fn resource(&self) -> &Resource {
        &self.target.resource
    }

    /// Stores a new object and gives it in the version of the request.
    pub async fn create(&mut self, body: Value, way: Way) -> Result<Value, ApiError> {
        let resource = self.target.resource.clone();
        let mut object = self.read(body)?;
        check_place(self.target, &mut object)?;
        if way == Way::Replace && !super::object::resource_version(&object).is_empty() {
            return Err(ApiError::new(500, "", "resourceVersion should not be set on objects to be created"));
        }
        self.check_namespace()?;
        if way != Way::Apply {
            metadata(&mut object).remove("managedFields");
        }
        prepare_new(&resource, &mut object);
        generate_name(&mut object);
        defaults::fill(&resource, &mut object);
        defaults::admit(self.server, &resource, &mut object)?;
        if admission::mutate(self, Operation::Create, "", &mut object, None).await? {
            object = decode(&resource, object)?.object;
            defaults::fill(&resource, &mut object);
        }
        generate_name(&mut object);
        finish_new(&mut object);
        // Again, for what is made from the uid.
        defaults::fill(&resource, &mut object);
        if way != Way::Apply {
            object = ownership::updated(&resource, &self.options.manager, Part::Main, &json!({}), object);
        }
        validation::check(&resource, &object, None)?;
        admission::validate(self, Operation::Create, "", Some(&object), None).await?;
        let object_name = name(&object).to_owned();
        let key = self.key(&object_name);
        if let Some(existing) = self.server.database.get(&resource.storage, &key) {
            return Err(already_exists(&resource, &object_name, &existing));
        }
        let result = {
            let _addresses = services::lock_for(self.server, &resource);
            services::allocate(self.server, &resource, &mut object, None, self.options.dry_run)?;
            if self.options.dry_run {
                return Ok(object);
            }
            self.check_namespace()?;
            to_storage(&resource, &self.stored_version(), &mut object);
            self.server.database.store(&resource.storage, &key, Expect::Absent, object)
        };
        let Ok((stored, durable)) = result else {
            let existing = self.server.database.get(&resource.storage, &key);
            return Err(existing.map_or_else(
                || ApiError::modified(&resource, &object_name),
                |existing| already_exists(&resource, &object_name, &existing),
            ));
        };
        if resource.is("", "namespaces") {
            namespaces::furnish(self.server, &object_name);
        }
        durable.wait().await.map_err(ApiError::internal)?;
        Ok(present(&resource, &stored))
    }

    /// Changes an object: `change` makes its new state from the present one, both in the version of the request. Tried again
    /// when the object changed meanwhile, unless the new state names the version it was made from.
    pub async fn update(
        &mut self,
        part: Part,
        way: Way,
        change: impl Fn(&Value) -> Result<Value, ApiError> + Send + Sync,
    ) -> Result<Value, ApiError> {
        let resource = self.target.resource.clone();
        let object_name = self.target.name.clone().unwrap_or_default();
        let key = self.key(&object_name);
        for _ in 0..ATTEMPTS {
            let Some(current) = self.server.database.get(&resource.storage, &key) else {
                return Err(ApiError::not_found(&resource, &object_name));
            };
            let old = present(&resource, &current);
            let candidate = change(&old)?;
            self.warnings.clear();
            let versioned = self.check_version(&candidate, &old, way)?;
            match self.update_once(part, way, &current, &old, candidate).await? {
                Some(updated) => return Ok(updated),
                None if versioned => break,
                None => {}
            }
        }
        Err(ApiError::modified(&resource, &object_name))
    }

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
        } else if has_status(resource) {
            map.remove("status");
        }
        Ok(configuration)
    }

    /// One attempt; `None` when the object changed meanwhile.
    async fn update_once(
        &mut self,
        part: Part,
        way: Way,
        current: &Object,
        old: &Value,
        candidate: Value,
    ) -> Result<Option<Value>, ApiError> {
        let resource = self.target.resource.clone();
        let mut object = match (way, self.read(candidate)) {
            (_, Ok(object)) => object,
            // What the patch made is no object of this kind.
            (Way::Patch, Err(error)) if error.code == 400 && !error.message.contains("strict decoding") => {
                let cause = json!([{"reason": "FieldValueInvalid", "field": "patch", "message": error.message}]);
                let refused = ApiError::new(422, "Invalid", format!(" \"\" is invalid: patch: {}", error.message));
                return Err(refused.with_details(json!({"causes": cause})));
            }
            (_, Err(error)) => return Err(error),
        };
        check_place(self.target, &mut object)?;
        let claimed = metadata(&mut object).get("managedFields").cloned();
        self.keep_system_fields(part, old, &mut object);
        defaults::fill(&resource, &mut object);
        if admission::mutate(self, Operation::Update, part.name(), &mut object, Some(old)).await? {
            object = decode(&resource, object)?.object;
            self.keep_system_fields(part, old, &mut object);
            defaults::fill(&resource, &mut object);
        }
        services::keep_addresses(&resource, old, &mut object);
        advance_generation(&resource, part, old, &mut object);
        match (way, claimed) {
            (Way::Apply, Some(claimed)) => {
                metadata(&mut object).insert("managedFields".into(), claimed);
            }
            (Way::Apply, None) => {}
            (_, claimed) => {
                // An empty list from the client means: forget who owns what.
                if claimed.as_ref().and_then(Value::as_array).is_some_and(Vec::is_empty) {
                    metadata(&mut object).remove("managedFields");
                } else {
                    object = ownership::updated(&resource, &self.options.manager, part, old, object);
                }
            }
        }
        validation::check_update(&resource, part, &object, old)?;
        admission::validate(self, Operation::Update, part.name(), Some(&object), Some(old)).await?;
        let _addresses = services::lock_for(self.server, &resource);
        services::allocate(self.server, &resource, &mut object, Some(old), self.options.dry_run)?;
        if self.options.dry_run {
            return Ok(Some(object));
        }
        let key = self.key(name(old));
        to_storage(&resource, &self.stored_version(), &mut object);
        if is_terminating(&object) && released(&resource, &object) {
            let answer = object.clone();
            let removed = self.server.database.remove(&resource.storage, &key, current.version, object);
            drop(_addresses);
            let Ok((_, durable)) = removed else { return Ok(None) };
            durable.wait().await.map_err(ApiError::internal)?;
            return Ok(Some(answer));
        }
        if same_content(&current.value, &object) {
            return Ok(Some(present(&resource, current)));
        }
        let stored = self.server.database.store(&resource.storage, &key, Expect::Version(current.version), object);
        drop(_addresses);
        let Ok((stored, durable)) = stored else { return Ok(None) };
        durable.wait().await.map_err(ApiError::internal)?;
        Ok(Some(present(&resource, &stored)))
    }

    /// Reads a body as this resource; unknown fields become warnings or an error.
    fn read(&mut self, body: Value) -> Result<Value, ApiError> {
        let decoded = decode(self.resource(), body)?;
        self.warnings.extend(unknown_fields(&decoded.unknown, self.options.validation, self.resource())?);
        Ok(decoded.object)
    }

    fn check_namespace(&self) -> Result<(), ApiError> {
        let Some(namespace) = &self.target.namespace else { return Ok(()) };
        let resource = self.resource();
        match self.server.find("", "namespaces", "", namespace) {
            None => Err(ApiError::not_found(&self.server.builtin("", "namespaces"), namespace)),
            Some(found) if is_terminating(&found.value) => {
                let why =
                    format!("unable to create new content in namespace {namespace} because it is being terminated");
                let cause = json!([{"reason": "NamespaceTerminating", "field": "metadata.namespace",
                    "message": format!("namespace {namespace} is being terminated")}]);
                let mut details = super::status::about(resource, "");
                details["causes"] = cause;
                let message = format!("{} {:?} is forbidden: {why}", resource.qualified(), "");
                Err(ApiError::new(403, "Forbidden", message).with_details(details))
            }
            Some(_) => Ok(()),
        }
    }

    /// Refuses a new state made from another version or another object. Gives whether a version was named.
    fn check_version(&self, candidate: &Value, old: &Value, way: Way) -> Result<bool, ApiError> {
        let resource = self.resource();
        let object_name = name(old);
        let uid = text(candidate, &["metadata", "uid"]);
        if !uid.is_empty() && uid != text(old, &["metadata", "uid"]) {
            if way != Way::Replace {
                let error = FieldError::invalid("metadata.uid", &json!(uid), "field is immutable");
                return Err(ApiError::invalid(resource, object_name, &[error]));
            }
            let found = text(old, &["metadata", "uid"]);
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {found}");
            return Err(ApiError::conflict(resource, object_name, &why));
        }
        let version = super::object::resource_version(candidate);
        if version.is_empty() || version == "0" {
            if way == Way::Replace && resource.custom().is_some() {
                let error =
                    FieldError::invalid("metadata.resourceVersion", &json!(0), "must be specified for an update");
                return Err(ApiError::invalid(resource, object_name, &[error]));
            }
            return Ok(false);
        }
        if version != super::object::resource_version(old) {
            return Err(ApiError::modified(resource, object_name));
        }
        // A patch starts from the present version, so having it is no condition of the client.
        Ok(way == Way::Replace)
    }

    /// Puts back what a client can't change, and the part that this request doesn't write.
    fn keep_system_fields(&self, part: Part, old: &Value, object: &mut Value) {
        let resource = self.resource();
        if part == Part::Status {
            let mut kept = old.clone();
            super::object::put(as_map(&mut kept), "status", object.get("status").cloned());
            // As in a real server: the status of these kinds brings labels and annotations along.
            if resource.group.is_empty() && resource.custom().is_none() {
                for key in ["labels", "annotations"] {
                    super::object::put(metadata(&mut kept), key, object["metadata"].get(key).cloned());
                }
            }
            *object = kept;
        } else if has_status(resource) {
            super::object::put(as_map(object), "status", old.get("status").cloned());
        }
        let kept = [
            "uid",
            "creationTimestamp",
            "generation",
            "deletionTimestamp",
            "deletionGracePeriodSeconds",
            "resourceVersion",
            "managedFields",
        ];
        for key in kept {
            super::object::put(metadata(object), key, old["metadata"].get(key).cloned());
        }
        metadata(object).remove("selfLink");
        if text(object, &["metadata", "generateName"]).is_empty() {
            super::object::put(metadata(object), "generateName", old["metadata"].get("generateName").cloned());
        }
    }

    /// The `apiVersion` in which objects of this resource are kept.
    fn stored_version(&self) -> String {
        let registry = self.server.registry();
        let resource = self.resource();
        match &resource.shape {
            Shape::Custom(version) if !version.stored => registry
                .by_storage(&resource.storage)
                .map_or_else(|| resource.api_version(), |stored| stored.api_version()),
            _ => resource.api_version(),
        }
    }
}

/// Whether nothing keeps a terminating object any longer.
pub fn released(resource: &Resource, object: &Value) -> bool {
    let held = resource.is("", "namespaces") && !super::object::items(object, &["spec", "finalizers"]).is_empty();
    let graceful = object["metadata"]["deletionGracePeriodSeconds"].as_i64().unwrap_or(0) > 0;
    finalizers(object).next().is_none() && !held && !graceful
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

fn already_exists(resource: &Resource, name: &str, existing: &Object) -> ApiError {
    if is_terminating(&existing.value) {
        let why = format!("object is being deleted: {} {name:?} already exists", resource.qualified());
        return ApiError { message: why, ..ApiError::already_exists(resource, name) };
    }
    ApiError::already_exists(resource, name)
}

/// Whether the main path must leave `status` alone.
fn has_status(resource: &Resource) -> bool {
    resource.status
}

/// Clears what the server decides, and the status of kinds that have one of their own.
fn prepare_new(resource: &Resource, object: &mut Value) {
    let meta = metadata(object);
    for key in [
        "uid",
        "resourceVersion",
        "generation",
        "selfLink",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "creationTimestamp",
    ] {
        meta.remove(key);
    }
    if has_generation(resource) {
        meta.insert("generation".into(), json!(1));
    }
    if resource.status {
        let status = match (resource.group.as_str(), resource.plural.as_str()) {
            // Nodes and volumes come with their status.
            ("", "nodes" | "persistentvolumes") => object.get("status").cloned(),
            ("", "pods") => Some(json!({"phase": "Pending"})),
            ("", "namespaces") => Some(json!({"phase": "Active"})),
            ("", "persistentvolumeclaims") => Some(json!({"phase": "Pending"})),
            ("", "services") => Some(json!({"loadBalancer": {}})),
            ("apiextensions.k8s.io", _) => Some(crd::definition::first_status(object)),
            _ if resource.custom().is_none() => Some(json!({})),
            _ => None,
        };
        super::object::put(as_map(object), "status", status);
    }
}

/// What is decided after admission: it can't be changed by a webhook.
fn finish_new(object: &mut Value) {
    let meta = metadata(object);
    meta.insert("uid".into(), json!(uuid::Uuid::new_v4().to_string()));
    meta.insert("creationTimestamp".into(), json!(now()));
    for key in ["labels", "annotations", "finalizers", "ownerReferences"] {
        let empty = |v: &Value| v.as_object().is_some_and(Map::is_empty) || v.as_array().is_some_and(Vec::is_empty);
        if meta.get(key).is_some_and(empty) {
            meta.remove(key);
        }
    }
}

/// Makes a name from `generateName`, when there is no name.
fn generate_name(object: &mut Value) {
    let prefix = text(object, &["metadata", "generateName"]);
    if name(object).is_empty() && !prefix.is_empty() {
        // So that prefix and suffix together are a label.
        let prefix: String = prefix.chars().take(58).collect();
        let full = format!("{prefix}{}", names::random_suffix());
        metadata(object).insert("name".into(), json!(full));
    }
}

/// Whether objects of a resource count the changes of their spec.
pub fn has_generation(resource: &Resource) -> bool {
    if resource.custom().is_some() {
        return true;
    }
    match resource.group.as_str() {
        "" => matches!(resource.plural.as_str(), "pods" | "replicationcontrollers"),
        "apps" => resource.plural != "controllerrevisions",
        "batch" | "networking.k8s.io" | "policy" | "admissionregistration.k8s.io" | "apiextensions.k8s.io" => true,
        _ => false,
    }
}

fn advance_generation(resource: &Resource, part: Part, old: &Value, object: &mut Value) {
    if !has_generation(resource) || part == Part::Status {
        return;
    }
    let significant = |value: &Value| {
        let mut map = value.as_object().cloned().unwrap_or_default();
        for key in ["apiVersion", "kind", "metadata"] {
            map.remove(key);
        }
        if resource.status {
            map.remove("status");
        }
        map
    };
    if significant(old) != significant(object) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or(0) + 1;
        metadata(object).insert("generation".into(), json!(generation));
    }
}
