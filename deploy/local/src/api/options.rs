//! What a writing request asks for beside its body.

use serde_json::{Value, json};

use super::query::Query;
use super::resource::Resource;
use super::status::{ApiError, FieldError};

/// What to do about fields that the server doesn't know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    /// As the parameter names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ignore => "Ignore",
            Self::Warn => "Warn",
            Self::Strict => "Strict",
        }
    }
}

/// Options of create, update and patch.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// Answer as if it had been done, and store nothing.
    pub dry_run: bool,
    /// Who the written fields belong to.
    pub manager: String,
    /// Whether the client said so itself.
    pub manager_named: bool,
    pub validation: FieldValidation,
    /// Whether the client said so itself.
    pub validation_named: bool,
    /// Whether this is one of many writes of one request.
    pub collection: bool,
    /// Server-side apply: take fields over from their owners.
    pub force: bool,
}

impl WriteOptions {
    /// Reads the query of a request. `kind` names the options in messages; `apply` when it is a server-side apply.
    pub fn of(query: &Query, kind: &'static str, user_agent: &str, apply: bool) -> Result<Self, ApiError> {
        let mut errors = Vec::new();
        let dry_run = dry_run(query.all("dryRun"), &mut errors);
        let validation = match query.get("fieldValidation") {
            None | Some("Warn") => FieldValidation::Warn,
            Some("Ignore") => FieldValidation::Ignore,
            Some("Strict") => FieldValidation::Strict,
            Some(other) => {
                errors.push(FieldError::unsupported("fieldValidation", &json!(other), &["Ignore", "Strict", "Warn"]));
                FieldValidation::Warn
            }
        };
        let force = query.get("force") == Some("true") || query.get("force") == Some("1");
        if force && !apply {
            errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
        }
        let named = query.get("fieldManager");
        if apply && named.is_none() {
            errors.push(FieldError::required("fieldManager", "is required for apply patch"));
        }
        if named.is_some_and(|manager| manager.len() > 128) {
            errors.push(FieldError::too_long("fieldManager", "may not be more than 128 bytes".into()));
        }
        refuse(kind, &errors)?;
        let program = user_agent.split('/').next().filter(|program| !program.is_empty());
        let manager = named.or(program).unwrap_or("unknown").to_owned();
        Ok(Self {
            dry_run,
            manager,
            manager_named: named.is_some(),
            validation,
            validation_named: query.get("fieldValidation").is_some(),
            collection: false,
            force,
        })
    }

    /// The options of the server's own writes.
    pub fn internal(manager: &str) -> Self {
        Self {
            dry_run: false,
            manager: manager.into(),
            manager_named: false,
            validation: FieldValidation::Ignore,
            validation_named: false,
            collection: false,
            force: false,
        }
    }
}

fn dry_run<'a>(values: impl Iterator<Item = &'a str>, errors: &mut Vec<FieldError>) -> bool {
    let mut dry = false;
    for value in values {
        if value == "All" {
            dry = true;
        } else {
            errors.push(FieldError::unsupported("dryRun", &json!([value]), &["All"]));
        }
    }
    dry
}

fn refuse(kind: &str, errors: &[FieldError]) -> Result<(), ApiError> {
    if errors.is_empty() { Ok(()) } else { Err(ApiError::invalid(&options_resource(kind), "", errors)) }
}

/// The "resource" that messages about options name.
fn options_resource(kind: &str) -> Resource {
    Resource {
        group: "meta.k8s.io".into(),
        version: "v1".into(),
        plural: String::new(),
        singular: String::new(),
        kind: kind.into(),
        list_kind: String::new(),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced: false,
        status: false,
        scale: None,
        extras: &[],
        storage: "".into(),
        shape: super::resource::Shape::Review,
    }
}

/// What becomes of an object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// The object waits until they are gone.
    Foreground,
    /// They stay, without their owner.
    Orphan,
}

/// Options of a deletion, from its body and its query.
#[derive(Debug, Clone)]
pub struct DeleteOptions {
    pub dry_run: bool,
    pub propagation: Option<Propagation>,
    pub grace_seconds: Option<i64>,
    /// The object must have this uid.
    pub uid: Option<String>,
    /// The object must be at this version.
    pub version: Option<String>,
}

impl DeleteOptions {
    /// Reads the options of a request whose body is `null` when there is none.
    pub fn of(query: &Query, body: &Value) -> Result<Self, ApiError> {
        if let Some(kind) = body.get("kind").and_then(Value::as_str).filter(|kind| *kind != "DeleteOptions") {
            let version = body["apiVersion"].as_str().unwrap_or_default();
            return Err(ApiError::bad_request(format!(
                "no kind {kind:?} is registered for version {version:?}: send DeleteOptions"
            )));
        }
        let mut errors = Vec::new();
        let body_dry: Vec<&str> = super::object::items(body, &["dryRun"]).iter().filter_map(Value::as_str).collect();
        let dry_run = dry_run(query.all("dryRun").chain(body_dry), &mut errors);
        let policy = body["propagationPolicy"].as_str().or_else(|| query.get("propagationPolicy"));
        let orphan = body["orphanDependents"].as_bool();
        let propagation = match (policy, orphan) {
            (Some(policy), Some(_)) => {
                let detail = "orphanDependents and deletionPropagation cannot be both set";
                errors.push(FieldError::invalid("propagationPolicy", &json!(policy), detail));
                None
            }
            (Some("Background"), None) | (None, Some(false)) => Some(Propagation::Background),
            (Some("Foreground"), None) => Some(Propagation::Foreground),
            (Some("Orphan"), None) | (None, Some(true)) => Some(Propagation::Orphan),
            (Some(other), None) => {
                let supported = ["Foreground", "Background", "Orphan", "nil"];
                errors.push(FieldError::unsupported("propagationPolicy", &json!(other), &supported));
                None
            }
            (None, None) => None,
        };
        refuse("DeleteOptions", &errors)?;
        let grace_seconds = match body["gracePeriodSeconds"].as_i64() {
            Some(seconds) => Some(seconds),
            None => query.number("gracePeriodSeconds")?,
        };
        let precondition = |name: &str| body["preconditions"][name].as_str().map(Into::into);
        Ok(Self {
            dry_run,
            propagation,
            grace_seconds,
            uid: precondition("uid"),
            version: precondition("resourceVersion"),
        })
    }

    /// The options of the server's own deletions.
    pub fn internal(propagation: Propagation) -> Self {
        Self { dry_run: false, propagation: Some(propagation), grace_seconds: None, uid: None, version: None }
    }
}
