//! The priority of a pod, from its PriorityClass.

use serde_json::{Value, json};

use crate::api::object::{map, name, text};
use crate::api::resource::Resource;
use crate::api::server::Server;
use crate::api::status::{ApiError, about};

/// Classes that every cluster has.
const SYSTEM: [(&str, i64); 2] = [("system-cluster-critical", 2_000_000_000), ("system-node-critical", 2_000_001_000)];

/// Fills in the priority of a new pod; a class that doesn't exist is refused.
pub fn admit(server: &Server, resource: &Resource, pod: &mut Value) -> Result<(), ApiError> {
    let wanted = text(pod, &["spec", "priorityClassName"]).to_owned();
    let known = server.find("scheduling.k8s.io", "priorityclasses", "", &wanted);
    let system = SYSTEM.iter().find(|(class, _)| *class == wanted).map(|(_, value)| json!({"value": value}));
    let class = if wanted.is_empty() {
        let classes = server.all("scheduling.k8s.io", "priorityclasses", None);
        classes.into_iter().find(|class| class.value["globalDefault"] == true).map(|class| class.value.clone())
    } else {
        let Some(class) = known.map(|class| class.value.clone()).or(system) else {
            let why = format!("no PriorityClass with name {wanted} was found");
            let message = format!("{} {:?} is forbidden: {why}", resource.plural, name(pod));
            return Err(ApiError::new(403, "Forbidden", message).with_details(about(resource, name(pod))));
        };
        Some(class)
    };
    let Some(class) = class else { return Ok(()) };
    let spec = map(pod, "spec");
    if wanted.is_empty() {
        spec.insert("priorityClassName".into(), json!(name(&class)));
    }
    spec.insert("priority".into(), class["value"].clone());
    if let Some(policy) = class.get("preemptionPolicy") {
        spec.insert("preemptionPolicy".into(), policy.clone());
    }
    Ok(())
}
