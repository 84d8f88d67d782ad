//! Webhooks: the API server asks before it takes a pod (inject) or one of the mesh's own objects (validate).

mod inject;
mod register;
mod review;
mod service;
#[cfg(test)]
mod tests;
mod validate;

pub use inject::InjectionWebhook;
pub use register::{RegisterError, register};
pub use review::{AdmissionRequest, AdmissionResponse, AdmissionReview, ReviewError};
pub use service::WebhookService;
pub use validate::ValidationWebhook;

/// Path of the mutating webhook.
pub const INJECT_PATH: &str = "/mutate-pod-creation";
/// Path of the validating webhook.
pub const VALIDATE_PATH: &str = "/validate";
