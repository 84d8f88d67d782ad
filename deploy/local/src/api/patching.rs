//! The three patches that carry a change: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7386), strategic merge patch.

use serde_json::{Value, json};

use super::resource::Resource;
use super::status::ApiError;
use super::strategic;

/// What kind of patch a request carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    Json,
    Merge,
    Strategic,
    Apply,
}

impl PatchKind {
    /// From the content type; custom resources take no strategic merge patch.
    pub fn of(content_type: Option<&str>, resource: &Resource) -> Result<Self, ApiError> {
        let media = content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let mut known =
            "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml".to_owned();
        if resource.custom().is_none() {
            known.push_str(", application/strategic-merge-patch+json");
        }
        match media {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" if resource.custom().is_none() => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => {
                let message =
                    format!("the body of the request was in an unknown format - accepted media types include: {known}");
                let error = ApiError::new(415, "UnsupportedMediaType", message);
                Err(if resource.custom().is_some() { error } else { error.with_details(json!({})) })
            }
        }
    }
}

/// The patched object.
pub fn patched(kind: PatchKind, patch: &Value, object: &Value) -> Result<Value, ApiError> {
    let mut object = object.clone();
    match kind {
        PatchKind::Json => apply_json(patch, &mut object)?,
        PatchKind::Merge => {
            require_map(patch)?;
            json_patch::merge(&mut object, patch);
        }
        PatchKind::Strategic => {
            require_map(patch)?;
            strategic::merge(&mut object, patch).map_err(|message| ApiError::new(500, "", message))?;
        }
        PatchKind::Apply => {
            return Err(ApiError::bad_request("an apply patch is no change: it is merged by field ownership"));
        }
    }
    Ok(object)
}

fn require_map(patch: &Value) -> Result<(), ApiError> {
    if patch.is_object() {
        return Ok(());
    }
    Err(ApiError::bad_request("error decoding patch: it must be a JSON object"))
}

/// As the real server does it: `replace` of a missing key adds it, a `test` for null holds where nothing is, everything else that
/// doesn't fit is 422.
fn apply_json(patch: &Value, object: &mut Value) -> Result<(), ApiError> {
    let operations = patch
        .as_array()
        .ok_or_else(|| ApiError::bad_request("error decoding patch: it must be a list of operations"))?;
    if operations.len() > 10_000 {
        let message = format!("the allowed maximum operations in a JSON patch is 10000, got {}", operations.len());
        return Err(ApiError::new(413, "RequestEntityTooLarge", message));
    }
    let refuse = || {
        ApiError::new(422, "Invalid", "the server rejected our request due to an error in our request")
            .with_details(json!({}))
    };
    for operation in operations {
        let mut operation = operation.clone();
        let path = operation["path"].as_str().unwrap_or_default().to_owned();
        if operation["op"] == "replace" && object.pointer(&path).is_none() {
            operation["op"] = json!("add");
        }
        if operation["op"] == "test" && operation["value"].is_null() && object.pointer(&path).is_none() {
            continue;
        }
        let parsed: json_patch::PatchOperation = serde_json::from_value(operation).map_err(|_| refuse())?;
        json_patch::patch(object, std::slice::from_ref(&parsed)).map_err(|_| refuse())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json_patch_of(patch: Value) -> Result<Value, ApiError> {
        patched(PatchKind::Json, &patch, &json!({"data": {"a": "1"}}))
    }

    #[test]
    fn json_patches_follow_the_real_server() {
        assert_eq!(
            json_patch_of(json!([{"op": "replace", "path": "/data/b", "value": "2"}])).unwrap(),
            json!({"data": {"a": "1", "b": "2"}})
        );
        // So kube-rs sets the first finalizer.
        let first =
            json!([{"op": "test", "path": "/none", "value": null}, {"op": "add", "path": "/none", "value": ["x"]}]);
        assert_eq!(json_patch_of(first).unwrap()["none"], json!(["x"]));
        for bad in [
            json!([{"op": "test", "path": "/data/a", "value": null}]),
            json!([{"op": "test", "path": "/data/a", "value": "x"}]),
            json!([{"op": "remove", "path": "/data/none"}]),
            json!([{"op": "add", "path": "/spec/none/x", "value": 1}]),
            json!([{"op": "nope", "path": "/data/a"}]),
        ] {
            assert_eq!(json_patch_of(bad.clone()).unwrap_err().code, 422, "{bad}");
        }
        assert_eq!(json_patch_of(json!({"op": "add"})).unwrap_err().code, 400);
    }

    #[test]
    fn merge_patches_remove_with_null() {
        let merged =
            patched(PatchKind::Merge, &json!({"data": {"a": null, "b": "2"}}), &json!({"data": {"a": "1"}})).unwrap();
        assert_eq!(merged, json!({"data": {"b": "2"}}));
        assert_eq!(patched(PatchKind::Merge, &json!([1]), &json!({})).unwrap_err().code, 400);
    }
}
