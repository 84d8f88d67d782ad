//! Subresources with a kind of their own: `scale`, `binding`, `eviction`, `token`, `finalize`.

use serde_json::{Value, json};

use super::deleting::Deletion;
use super::object::{as_map, at, is_terminating, items, name, namespace, resource_version, text, uid};
use super::options::DeleteOptions;
use super::query::Query;
use super::resource::{Resource, ScalePaths};
use super::status::{ApiError, FieldError};
use super::tokens::ISSUER;
use super::writing::{Part, Way, Writing};

/// The value at a dotted path.
fn dotted<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    at(object, &path.split('.').collect::<Vec<_>>())
}

/// An object as its Scale.
pub fn scale_of(resource: &Resource, paths: &ScalePaths, object: &Value) -> Value {
    let number = |path: &str| dotted(object, path).and_then(Value::as_i64).unwrap_or(0);
    let selector = match &paths.selector {
        Some(path) => dotted(object, path).and_then(Value::as_str).unwrap_or_default().to_owned(),
        None => selector_text(&object["spec"]["selector"]),
    };
    let mut spec = json!({});
    if number(&paths.replicas) != 0 {
        spec["replicas"] = json!(number(&paths.replicas));
    }
    let mut status = json!({"replicas": number(&paths.status_replicas)});
    if !selector.is_empty() {
        status["selector"] = json!(selector);
    }
    let mut metadata = json!({
        "name": name(object), "uid": uid(object),
        "resourceVersion": resource_version(object), "creationTimestamp": object["metadata"]["creationTimestamp"],
    });
    if resource.namespaced {
        metadata["namespace"] = json!(namespace(object));
    }
    json!({"kind": "Scale", "apiVersion": "autoscaling/v1", "metadata": metadata, "spec": spec, "status": status})
}

fn selector_text(selector: &Value) -> String {
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    let mut parts: Vec<String> =
        labels.into_iter().flatten().map(|(k, v)| format!("{k}={}", v.as_str().unwrap_or_default())).collect();
    for expression in items(selector, &["matchExpressions"]) {
        let key = text(expression, &["key"]);
        let values: Vec<&str> = items(expression, &["values"]).iter().filter_map(Value::as_str).collect();
        parts.push(match text(expression, &["operator"]) {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    parts.join(",")
}

impl Writing<'_> {
    /// Changes an object's replicas through its Scale; gives the new Scale.
    pub async fn rescale(
        &mut self,
        paths: &ScalePaths,
        way: Way,
        change: impl Fn(&Value) -> Result<Value, ApiError> + Send + Sync,
    ) -> Result<Value, ApiError> {
        let resource = self.target.resource.clone();
        let updated = self
            .update(Part::Sub("scale"), Way::Patch, |object| {
                let scale = change(&scale_of(&resource, paths, object))?;
                let version = resource_version(&scale);
                if way == Way::Replace && !version.is_empty() && version != resource_version(object) {
                    return Err(ApiError::modified(&resource, name(object)));
                }
                let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
                if replicas < 0 {
                    let error =
                        FieldError::invalid("spec.replicas", &json!(replicas), "must be greater than or equal to 0");
                    return Err(ApiError::invalid(&resource, name(object), &[error]));
                }
                let mut next = object.clone();
                set_dotted(&mut next, &paths.replicas, json!(replicas));
                Ok(next)
            })
            .await?;
        Ok(scale_of(&resource, paths, &updated))
    }

    /// POST of a Binding: the pod gets its node.
    pub async fn bind(&mut self, binding: &Value) -> Result<Value, ApiError> {
        let resource = self.target.resource.clone();
        let node = text(binding, &["target", "name"]).to_owned();
        if node.is_empty() {
            let error = FieldError::required("target.name", "");
            return Err(ApiError::invalid(&resource, text(binding, &["metadata", "name"]), &[error]));
        }
        self.update(Part::Sub("binding"), Way::Patch, |pod| {
            let bound = text(pod, &["spec", "nodeName"]);
            if !bound.is_empty() {
                let why = format!("pod {} is already assigned to node {bound:?}", name(pod));
                return Err(ApiError::conflict(&resource, name(pod), &why));
            }
            if is_terminating(pod) {
                return Err(ApiError::conflict(
                    &resource,
                    name(pod),
                    "pod is being deleted, cannot be assigned to a host",
                ));
            }
            let mut pod = pod.clone();
            super::object::map(&mut pod, "spec").insert("nodeName".into(), json!(node));
            Ok(pod)
        })
        .await?;
        Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
    }

    /// POST of an Eviction: the pod is deleted.
    pub async fn evict(&mut self, eviction: &Value) -> Result<Value, ApiError> {
        let options = DeleteOptions::of(&Query::default(), &without_kind(&eviction["deleteOptions"]))?;
        let pod = self.target.name.clone().unwrap_or_default();
        match self.delete(&pod, &options).await? {
            Deletion::Gone(_) | Deletion::Waiting(_) => {
                Ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}))
            }
        }
    }

    /// POST of a TokenRequest: a token of this ServiceAccount.
    pub fn token(&self, mut request: Value) -> Result<Value, ApiError> {
        let resource = &self.target.resource;
        let account = super::reading::find(self.server, self.target)?;
        let (account_namespace, account_name) = (namespace(&account.value), name(&account.value));
        let seconds = request["spec"]["expirationSeconds"].as_i64().unwrap_or(3600);
        let token_request = Resource {
            kind: "TokenRequest".into(),
            group: "authentication.k8s.io".into(),
            ..Resource::clone(resource)
        };
        if seconds < 600 {
            let detail = "may not specify a duration less than 10 minutes";
            let error = FieldError::invalid("spec.expirationSeconds", &json!(seconds), detail);
            return Err(ApiError::invalid(&token_request, "", &[error]));
        }
        let mut audiences = request["spec"]["audiences"].clone();
        if audiences.as_array().is_none_or(Vec::is_empty) {
            audiences = json!([ISSUER]);
        }
        let now = jiff::Timestamp::now().as_second();
        let mut kubernetes = json!({
            "namespace": account_namespace,
            "serviceaccount": {"name": account_name, "uid": uid(&account.value)},
        });
        let bound = request["spec"]["boundObjectRef"].clone();
        if text(&bound, &["kind"]) == "Pod" {
            let pod = self.server.find("", "pods", account_namespace, text(&bound, &["name"]));
            let pod =
                pod.ok_or_else(|| ApiError::not_found(&self.server.builtin("", "pods"), text(&bound, &["name"])))?;
            let wanted = text(&bound, &["uid"]);
            if !wanted.is_empty() && wanted != uid(&pod.value) {
                let why = format!(
                    "the UID in the bound object reference ({wanted}) does not match the UID in record. The object might have been deleted and then recreated"
                );
                return Err(ApiError::conflict(&self.server.builtin("", "pods"), name(&pod.value), &why));
            }
            if text(&pod.value, &["spec", "serviceAccountName"]) != account_name {
                let detail = "cannot bind token for serviceaccount to pod running with different serviceaccount name";
                return Err(ApiError::bad_request(format!("{detail} ({})", name(&pod.value))));
            }
            kubernetes["pod"] = json!({"name": name(&pod.value), "uid": uid(&pod.value)});
            let node = text(&pod.value, &["spec", "nodeName"]);
            if !node.is_empty() {
                kubernetes["node"] = json!({"name": node});
            }
        }
        let claims = json!({
            "aud": audiences, "exp": now + seconds, "iat": now, "nbf": now, "iss": ISSUER,
            "jti": uuid::Uuid::new_v4().to_string(),
            "kubernetes.io": kubernetes,
            "sub": format!("system:serviceaccount:{account_namespace}:{account_name}"),
        });
        let token = self.server.tokens.sign(&claims).map_err(|e| ApiError::internal(e.to_string()))?;
        let expires = jiff::Timestamp::from_second(now + seconds).unwrap_or_default();
        let request = as_map(&mut request);
        request.insert("kind".into(), json!("TokenRequest"));
        request.insert("apiVersion".into(), json!("authentication.k8s.io/v1"));
        request.insert(
            "metadata".into(),
            json!({"name": account_name, "namespace": account_namespace,
            "creationTimestamp": super::object::now()}),
        );
        let mut spec = json!({"audiences": audiences, "expirationSeconds": seconds});
        if !bound.is_null() {
            spec["boundObjectRef"] = bound;
        }
        request.insert("spec".into(), spec);
        request
            .insert("status".into(), json!({"token": token, "expirationTimestamp": super::object::timestamp(expires)}));
        Ok(Value::Object(request.clone()))
    }
}

fn without_kind(options: &Value) -> Value {
    let mut options = options.clone();
    if let Some(map) = options.as_object_mut() {
        map.remove("kind");
    }
    options
}

fn set_dotted(object: &mut Value, path: &str, value: Value) {
    let mut at = object;
    for key in path.split('.') {
        at = as_map(at).entry(key).or_insert(Value::Null);
    }
    *at = value;
}
