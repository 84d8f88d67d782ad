//! AdmissionReview (admission.k8s.io/v1): the question and the answer.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// The envelope of a question.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdmissionReview {
    pub api_version: String,
    pub kind: String,
    pub request: Option<AdmissionRequest>,
}

/// The question: what somebody wants to do.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct AdmissionRequest {
    pub uid: String,
    pub kind: GroupVersionKind,
    /// Empty while the name is to be made up.
    pub name: String,
    pub namespace: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    pub object: Value,
    /// Nothing may be changed by answering.
    pub dry_run: bool,
}

/// The kind of object in question.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct GroupVersionKind {
    pub group: String,
    pub version: String,
    pub kind: String,
}

/// Why a body is not a question.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    #[error("the body is not an AdmissionReview: {0}")]
    Json(#[from] serde_json::Error),
    #[error("expected an AdmissionReview of admission.k8s.io/v1 with a request, got {kind} of {api_version}")]
    Kind { api_version: String, kind: String },
}

impl AdmissionRequest {
    /// Reads the body of a webhook call.
    pub fn parse(body: &[u8]) -> Result<Self, ReviewError> {
        let review: AdmissionReview = serde_json::from_slice(body)?;
        match review {
            AdmissionReview { api_version, kind, request: Some(request) }
                if api_version == "admission.k8s.io/v1" && kind == "AdmissionReview" =>
            {
                Ok(request)
            }
            AdmissionReview { api_version, kind, .. } => Err(ReviewError::Kind { api_version, kind }),
        }
    }

    /// The object's name, or what its name will begin with.
    pub fn object_name(&self) -> String {
        let text = |pointer| self.object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        [self.name.as_str(), text("/metadata/name"), text("/metadata/generateName")]
            .into_iter()
            .find(|name| !name.is_empty())
            .unwrap_or_default()
            .to_owned()
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq)]
pub enum AdmissionResponse {
    /// Let it pass, with these warnings for the user.
    Allowed { warnings: Vec<String> },
    /// Let it pass, changed by this JSON patch.
    Patched { patch: Value, warnings: Vec<String> },
    /// Refuse it, for this reason.
    Denied { message: String, warnings: Vec<String> },
}

impl AdmissionResponse {
    /// The whole body of the answer to the question `uid`.
    pub fn into_review(self, uid: &str) -> Value {
        let mut response = json!({ "uid": uid, "allowed": !matches!(self, Self::Denied { .. }) });
        match self {
            Self::Allowed { warnings } => set_warnings(&mut response, warnings),
            Self::Patched { patch, warnings } => {
                response["patchType"] = "JSONPatch".into();
                response["patch"] = STANDARD.encode(patch.to_string()).into();
                set_warnings(&mut response, warnings);
            }
            Self::Denied { message, warnings } => {
                response["status"] = json!({ "code": 403, "reason": "Forbidden", "message": message });
                set_warnings(&mut response, warnings);
            }
        }
        json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response })
    }
}

fn set_warnings(response: &mut Value, warnings: Vec<String>) {
    if !warnings.is_empty() {
        response["warnings"] = warnings.into();
    }
}
