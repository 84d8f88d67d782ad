//! Traffic shifting: TrafficSplits.

use fsm_proxy_config::resource::Resource;
use fsm_proxy_config::{Digest, Kind, ResourceName};

use crate::catalog::{Few, ObjectName};
use crate::concern::{Change, Concern, ResourceKey, Resources, Step, Told, message};

/// The state machine.
#[derive(Clone, Debug, Default)]
pub struct Splits {
    resources: Resources,
}

impl Concern for Splits {
    const NAME: &'static str = "splits";

    fn apply(&mut self, step: &Step<'_>) -> Vec<Change> {
        let (catalog, delta) = (step.catalog, step.delta);
        let mut changes = Vec::new();
        if delta.is_empty() {
            return changes;
        }
        let mut stale: Few<ObjectName> = delta.splits.keys().cloned().collect();
        for service in &delta.touched {
            stale.extend(catalog.splits_over(service).map(|(name, _)| name.clone()));
        }
        for name in stale {
            // Without an apex in the mesh there is nothing to split.
            let told = catalog.splits().get(&name).and_then(|split| {
                catalog.mesh_service(&split.apex)?;
                let bytes = Resource::Split(message::split(split)).encode().into();
                Some(Told { bytes, audience: catalog.audience_of_service(&split.apex) })
            });
            let key = ResourceKey::shared(ResourceName::new(Kind::Split, name.shared_text()));
            self.resources.set(key, told, &mut changes);
        }
        changes
    }

    fn settle_digest(&mut self) {
        self.resources.settle_digest();
    }

    fn digest(&self) -> Digest {
        self.resources.digest()
    }
}
