//! Objects that are new, and whose texts are still parts of the records that they came with.

use super::{Catalog, ObjectKey};

/// There are so many of them at most: then the texts of those that are still there are copied. Most change again before, and are never
/// copied. In the meantime each may keep the memory of a whole frame of the log.
const MOST: usize = 256;

/// Objects whose texts are parts of records. A copy of a catalog has none: it stays as it is, or is of use for a moment only.
#[derive(Debug, Default)]
pub(super) struct Young(Vec<ObjectKey>);

impl Young {
    /// The text of this object is a part of a record from now on.
    pub fn add(&mut self, key: &ObjectKey) {
        self.0.push(key.clone());
    }
}

impl Clone for Young {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Catalog {
    /// Texts that stayed get memory of their own, so that they don't keep that of all records around them.
    pub(super) fn grow_up(&mut self) {
        if self.young.0.len() < MOST {
            return;
        }
        for key in std::mem::take(&mut self.young.0) {
            if self.objects.get(&key).is_some_and(|object| object.json.is_part())
                && let Some(object) = self.objects.get_mut(&key)
            {
                object.json = object.json.copied();
            }
        }
    }
}
