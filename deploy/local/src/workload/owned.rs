//! Ownership: who made an object, and is responsible for it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

/// The reference by which `owner` controls what it makes.
pub(super) fn controlled_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether `owner` controls `object`.
pub(super) fn is_controlled_by<K: Resource>(object: &impl ResourceExt, owner: &K) -> bool {
    let uid = owner.meta().uid.as_deref();
    object.owner_references().iter().any(|r| r.controller == Some(true) && Some(r.uid.as_str()) == uid)
}
