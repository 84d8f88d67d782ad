//! Admission: webhooks that may change or refuse what is written.

use serde_json::Value;

use super::status::ApiError;
use super::writing::Writing;

/// What a request does to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    Create,
    Update,
    Delete,
}

/// Calls the mutating webhooks. Gives whether one of them changed the object.
pub async fn mutate(
    _writing: &mut Writing<'_>,
    _operation: Operation,
    _subresource: &str,
    _object: &mut Value,
    _old: Option<&Value>,
) -> Result<bool, ApiError> {
    Ok(false)
}

/// Calls the validating webhooks.
pub async fn validate(
    _writing: &mut Writing<'_>,
    _operation: Operation,
    _subresource: &str,
    _object: Option<&Value>,
    _old: Option<&Value>,
) -> Result<(), ApiError> {
    Ok(())
}
