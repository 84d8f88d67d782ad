//! Names of objects.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::map::Key;

/// `<namespace>/<name>`, or `<name>` alone for kinds without namespaces. Ordered by namespace first.
///
/// Names are most of what state machines copy and compare: a clone shares the text, and most names that differ are told apart by a
/// number.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ObjectName {
    text: Arc<str>,
    /// Length of the namespace at the beginning of the text; zero for kinds without namespaces.
    namespace_bytes: u32,
    /// Of the namespace (the upper half) and of the text; the same in every process.
    mark: u64,
}

/// Why a text is not the name of an object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"{0}\" is not the name of an object: expected <namespace>/<name>, or <name> for kinds without namespaces")]
pub struct InvalidObjectName(String);

impl ObjectName {
    /// The object `name` in `namespace`, which is empty for kinds without namespaces.
    pub fn new(namespace: impl AsRef<str>, name: impl AsRef<str>) -> Self {
        let (namespace, name) = (namespace.as_ref(), name.as_ref());
        if namespace.is_empty() {
            return Self::of_text(Arc::from(name), 0);
        }
        let mut text = String::with_capacity(namespace.len() + 1 + name.len());
        text.push_str(namespace);
        text.push('/');
        text.push_str(name);
        Self::of_text(Arc::from(text), namespace.len())
    }

    fn of_text(text: Arc<str>, namespace_bytes: usize) -> Self {
        let mark = mark(text.as_bytes(), namespace_bytes);
        Self { text, namespace_bytes: u32::try_from(namespace_bytes).unwrap_or(u32::MAX), mark }
    }

    /// Empty for kinds without namespaces.
    pub fn namespace(&self) -> &str {
        self.text.get(..self.namespace_bytes as usize).unwrap_or_default()
    }

    /// Without the namespace.
    pub fn name(&self) -> &str {
        match self.namespace_bytes {
            0 => &self.text,
            length => self.text.get(length as usize + 1..).unwrap_or_default(),
        }
    }

    /// `<namespace>/<name>`, or `<name>` alone.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same text, to keep.
    pub fn shared_text(&self) -> Arc<str> {
        self.text.clone()
    }

    /// How this name and that of an object without a namespace follow each other by [`Key`].
    pub(super) fn place_beside(&self, name: &str) -> Ordering {
        let mark = mark(name.as_bytes(), 0);
        self.mark.cmp(&mark).then_with(|| (&*self.text, self.namespace_bytes).cmp(&(name, 0)))
    }

    /// What tells namespaces apart in the order by [`Key`], for all names in `namespace` the same.
    pub(super) fn mark_of_namespace(namespace: &str) -> u32 {
        hash(namespace.as_bytes())
    }

    /// The same of this name's namespace.
    pub(super) fn namespace_mark(&self) -> u32 {
        (self.mark >> u32::BITS) as u32
    }
}

/// By marks: names of a namespace lie together, in an order that means nothing. Most comparisons read one number.
impl Key for ObjectName {
    #[inline]
    fn place(&self, other: &Self) -> Ordering {
        match self.mark.cmp(&other.mark) {
            Ordering::Equal if Arc::ptr_eq(&self.text, &other.text) => Ordering::Equal,
            Ordering::Equal => (&*self.text, self.namespace_bytes).cmp(&(&*other.text, other.namespace_bytes)),
            different => different,
        }
    }
}

fn mark(text: &[u8], namespace_bytes: usize) -> u64 {
    let namespace = text.get(..namespace_bytes).unwrap_or_default();
    (u64::from(hash(namespace)) << u32::BITS) | u64::from(hash(text))
}

/// FNV-1a, eight bytes at a time.
fn hash(text: &[u8]) -> u32 {
    const PRIME: u64 = 0x0100_0000_01b3;
    let (eights, rest) = text.as_chunks::<8>();
    let hash = eights.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, eight| {
        let mixed = (hash ^ u64::from_le_bytes(*eight)).wrapping_mul(PRIME);
        mixed ^ (mixed >> 29)
    });
    let hash = rest.iter().fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME));
    (hash ^ (hash >> 32)) as u32
}

impl PartialEq for ObjectName {
    fn eq(&self, other: &Self) -> bool {
        self.mark == other.mark
            && self.namespace_bytes == other.namespace_bytes
            && (Arc::ptr_eq(&self.text, &other.text) || self.text == other.text)
    }
}

impl Eq for ObjectName {}

impl Ord for ObjectName {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.text, &other.text) {
            return Ordering::Equal;
        }
        if self.namespace_bytes == other.namespace_bytes {
            // What separates namespace and name is in the same place.
            return self.text.cmp(&other.text);
        }
        let one = (self.namespace(), self.name());
        one.cmp(&(other.namespace(), other.name()))
    }
}

impl PartialOrd for ObjectName {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Hash for ObjectName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.mark.hash(state);
    }
}

impl Default for ObjectName {
    fn default() -> Self {
        Self::new("", "")
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectName({self})")
    }
}

impl FromStr for ObjectName {
    type Err = InvalidObjectName;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (namespace, name) = text.split_once('/').unwrap_or(("", text));
        if name.is_empty() || name.contains('/') || (namespace.is_empty() && text.contains('/')) {
            return Err(InvalidObjectName(text.to_owned()));
        }
        Ok(Self::of_text(Arc::from(text), namespace.len()))
    }
}

impl From<ObjectName> for String {
    fn from(name: ObjectName) -> Self {
        name.text().to_owned()
    }
}

impl TryFrom<String> for ObjectName {
    type Error = InvalidObjectName;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn names_compare_as_namespace_and_name(
            one in ("[a.-]{0,3}", "[a.-]{1,3}"), other in ("[a.-]{0,3}", "[a.-]{1,3}"),
        ) {
            let (first, second) = (ObjectName::new(&one.0, &one.1), ObjectName::new(&other.0, &other.1));
            prop_assert_eq!((first.namespace(), first.name()), (one.0.as_str(), one.1.as_str()));
            prop_assert_eq!(first.cmp(&second), one.cmp(&other));
            prop_assert_eq!(first.place(&second) == Ordering::Equal, one == other);
            prop_assert_eq!(first.place(&second), second.place(&first).reverse());
            prop_assert_eq!(first.namespace_mark(), ObjectName::mark_of_namespace(&one.0));
            let plain = ObjectName::new("", &other.1);
            prop_assert_eq!(first.place_beside(&other.1), first.place(&plain));
            prop_assert_eq!(first == second, one == other);
            prop_assert_eq!(first.text().parse::<ObjectName>().unwrap(), first);
        }
    }
}
