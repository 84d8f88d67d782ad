//! Creating and changing objects: one path for every kind and every way of writing.

use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::{self, Operation};
use super::database::{Expect, Key};
use super::decoding::{check_place, decode, to_storage, unknown_fields};
use super::object::{as_map, is_terminating, metadata, name, same_content, text};
use super::options::WriteOptions;
use super::packed::Object;
use super::path::Target;
use super::resource::{Resource, Shape};
use super::server::{Server, present};
use super::status::{ApiError, FieldError};
use super::system_fields::{advance_generation, finish_new, generate_name, prepare_new, released};
use super::users::User;
use super::{defaults, namespaces, ownership, rbac, services, validation};

/// How often a patch is tried again when the object changes under it.
pub const ATTEMPTS: usize = 16;

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
    /// The client sent a strategic merge patch.
    StrategicPatch,
    /// Server-side apply: ownership of fields has been settled already.
    Apply,
}

impl Writing<'_> {
    fn key(&self, name: &str) -> Key {
        Key::new(self.target.namespace.as_deref().unwrap_or_default(), name)
    }

    pub fn resource(&self) -> &Resource {
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
        self.check_definition(name(&object))?;
        if way != Way::Apply {
            metadata(&mut object).remove("managedFields");
        }
        prepare_new(&resource, &mut object);
        defaults::fill(&resource, &mut object);
        defaults::admit(self.server, &resource, &mut object)?;
        if admission::mutate(self, Operation::Create, "", &mut object, None).await? {
            object = decode(&resource, object)?.object;
            defaults::fill(&resource, &mut object);
        }
        generate_name(&mut object);
        finish_new(&resource, &mut object);
        // Again, for what is made from the uid.
        defaults::fill(&resource, &mut object);
        if way != Way::Apply {
            object = ownership::updated(&resource, &self.options.manager, Part::Main, &json!({}), object);
        }
        validation::check(&resource, &object, None)?;
        services::check_wishes(self.server, &resource, &object)?;
        rbac::check_escalation(self.server, self.user, self.target, &object)?;
        let shown = services::proposed(self.server, &resource, &object, None)?;
        admission::validate(self, Operation::Create, "", Some(shown.as_ref().unwrap_or(&object)), None).await?;
        let object_name = name(&object).to_owned();
        let key = self.key(&object_name);
        if let Some(existing) = self.server.database.get(&resource.storage, &key) {
            return Err(already_exists(&resource, &object_name, &existing));
        }
        let result = {
            let _addresses = services::lock_for(self.server, &resource);
            services::settle(self.server, &resource, &mut object, shown, None, self.options.dry_run)?;
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
            (Way::Patch | Way::StrategicPatch, Err(error))
                if error.code == 400 && (way == Way::StrategicPatch || !error.message.contains("strict decoding")) =>
            {
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
        services::check_wishes(self.server, &resource, &object)?;
        rbac::check_escalation(self.server, self.user, self.target, &object)?;
        let shown = services::proposed(self.server, &resource, &object, Some(old))?;
        let seen = shown.as_ref().unwrap_or(&object);
        admission::validate(self, Operation::Update, part.name(), Some(seen), Some(old)).await?;
        let _addresses = services::lock_for(self.server, &resource);
        services::settle(self.server, &resource, &mut object, shown, Some(old), self.options.dry_run)?;
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

    /// Nothing new comes into being through a definition that is going.
    fn check_definition(&self, object_name: &str) -> Result<(), ApiError> {
        let resource = self.resource();
        let definition = super::crd::definition::waiting_for(self.server, &resource.storage);
        if resource.custom().is_none() || definition.is_none() {
            return Ok(());
        }
        let why = "create not allowed while custom resource definition is terminating";
        let message = format!("{} {object_name:?} is forbidden: {why}", resource.qualified());
        Err(ApiError::new(403, "Forbidden", message).with_details(super::status::about(resource, object_name)))
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
                // As a real server has it: the resource where the kind should be.
                let named = Resource { kind: resource.plural.clone(), ..resource.clone() };
                return Err(ApiError::invalid(&named, object_name, &[error]));
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
        } else if resource.status {
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

fn already_exists(resource: &Resource, name: &str, existing: &Object) -> ApiError {
    if is_terminating(&existing.value) {
        let why = format!("object is being deleted: {} {name:?} already exists", resource.qualified());
        return ApiError { message: why, ..ApiError::already_exists(resource, name) };
    }
    ApiError::already_exists(resource, name)
}
