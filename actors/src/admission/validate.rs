//! The validating webhook: SMI objects and MeshConfig.

use std::sync::Arc;

use super::{AdmissionRequest, AdmissionResponse};
use crate::metrics::Metrics;

/// Refuses objects that could not work, and tells authors what has no effect.
#[derive(Clone)]
pub struct ValidationWebhook {
    metrics: Arc<Metrics>,
}

impl ValidationWebhook {
    /// Answers are counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }

    /// The answer to one question.
    pub fn answer(&self, request: &AdmissionRequest) -> AdmissionResponse {
        let response = validate(request);
        self.metrics.validated(!matches!(response, AdmissionResponse::Denied { .. }));
        response
    }
}

/// Pure: the object alone decides.
fn validate(request: &AdmissionRequest) -> AdmissionResponse {
    let mut object = request.object.clone();
    // Objects that are created in a namespace's URL need not name the namespace themselves.
    if let Some(metadata) = object.pointer_mut("/metadata").and_then(|metadata| metadata.as_object_mut()) {
        metadata.entry("namespace").or_insert_with(|| request.namespace.clone().into());
    }
    let report = fsm_api::validate_json(&object);
    let warnings = report.warnings.iter().map(ToString::to_string).collect();
    if report.is_ok() {
        AdmissionResponse::Allowed { warnings }
    } else {
        AdmissionResponse::Denied { message: report.error_text(), warnings }
    }
}
