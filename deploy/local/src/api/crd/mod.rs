//! Custom resources: what a CustomResourceDefinition makes the server serve, and how objects follow its schema.

pub mod definition;
pub mod rules;
pub mod schema;
pub mod validate;
