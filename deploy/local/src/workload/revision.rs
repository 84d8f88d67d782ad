//! Names for versions of a pod template.

use k8s_openapi::api::core::v1::PodTemplateSpec;
use sha2::{Digest, Sha256};

/// The label that tells the pods of different versions of a Deployment's template apart.
pub(super) const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Letters and digits that can't form words (as Kubernetes' own `rand.SafeEncodeString`).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// A name of ten characters that is the same for equal templates. The hash label itself does not count.
pub(super) fn template_hash(template: &PodTemplateSpec) -> String {
    let mut template = template.clone();
    if let Some(labels) = template.metadata.as_mut().and_then(|m| m.labels.as_mut()) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    // Maps in it are sorted, so equal templates have equal text; a template is always representable as JSON.
    let text = serde_json::to_vec(&template).unwrap_or_default();
    let digest = Sha256::digest(&text);
    digest.iter().take(10).map(|byte| char::from(ALPHABET[usize::from(*byte) % ALPHABET.len()])).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_hash_follows_the_template_and_ignores_its_own_label() {
        let hash = |labels, image: &str| {
            let template =
                json!({"metadata": {"labels": labels}, "spec": {"containers": [{"name": "a", "image": image}]}});
            template_hash(&serde_json::from_value(template).unwrap())
        };
        let first = hash(json!({"app": "web"}), "v1");
        assert_eq!(first.len(), 10);
        assert_eq!(first, hash(json!({"app": "web", "pod-template-hash": "zzz"}), "v1"));
        assert_ne!(first, hash(json!({"app": "web"}), "v2"));
    }
}
