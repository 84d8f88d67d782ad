//! The names of objects, read once.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;

use crate::catalog::{Gvk, ObjectName, canonical};
use crate::digest::Quick;

/// So many names are known at most; then all are forgotten.
const MOST: usize = 1 << 16;

/// Names that records had so far: most are about an object that others were about before. What is known changes nothing about what is read.
#[derive(Debug, Default)]
pub struct Names(HashMap<Box<str>, (Gvk, ObjectName), BuildHasherDefault<Quick>>);

impl Names {
    /// The kind and the name that the key of an object's record says.
    pub(super) fn of_object(&mut self, key: &str) -> Result<(Gvk, ObjectName), String> {
        if let Some(known) = self.0.get(key) {
            return Ok(known.clone());
        }
        let (gvk, name) = key.split_once(' ').ok_or("no object in its key")?;
        let read =
            (canonical(gvk), name.parse().map_err(|error: crate::catalog::InvalidObjectName| error.to_string())?);
        if self.0.len() == MOST {
            self.0.clear();
        }
        self.0.insert(key.into(), read.clone());
        Ok(read)
    }
}

/// A copy knows none.
impl Clone for Names {
    fn clone(&self) -> Self {
        Self::default()
    }
}
