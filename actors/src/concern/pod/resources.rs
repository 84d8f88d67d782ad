//! Compute resources of the sidecar: from annotations, or else from the MeshConfig.

use std::collections::BTreeMap;

use fsm_api::mesh_config::ResourceRequirements;
use serde_json::{Value, json};

use super::annotations::{Annotations, Invalid, invalid};

/// Last parts of the annotations, and the resources that they mean.
const KINDS: [(&str, &str); 4] =
    [("cpu", "cpu"), ("memory", "memory"), ("storage", "storage"), ("ephemeral-storage", "ephemeral-storage")];

/// `resources` of the sidecar: annotations replace the mesh's, limits and requests each.
pub fn requirements(annotations: &Annotations, of_mesh: &ResourceRequirements) -> Result<Value, Invalid> {
    let mut requirements = json!({});
    for (member, of_mesh) in [("limits", &of_mesh.limits), ("requests", &of_mesh.requests)] {
        let mut quantities: BTreeMap<String, Value> = BTreeMap::new();
        for (kind, resource) in KINDS {
            let annotation = format!("flomesh.io/sidecar-resource-{member}-{kind}");
            let Some(value) = annotations.get(&annotation) else { continue };
            if !is_quantity(value) {
                return Err(invalid(
                    &annotation,
                    value,
                    "a quantity: write a number with an optional unit, such as 100m, 0.5, 64Mi or 1G",
                ));
            }
            quantities.insert(resource.to_owned(), json!(value));
        }
        if quantities.is_empty() {
            quantities.clone_from(of_mesh);
        }
        if !quantities.is_empty() {
            requirements[member] = json!(quantities);
        }
    }
    Ok(requirements)
}

/// A non-negative quantity as Kubernetes writes them.
fn is_quantity(text: &str) -> bool {
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number_ok = number.chars().any(|c| c.is_ascii_digit()) && number.matches('.').count() <= 1;
    let exponent = unit.strip_prefix(['e', 'E']).map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest));
    let exponent_ok = exponent.is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit()));
    let units = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    number_ok && (units.contains(&unit) || exponent_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_those_of_kubernetes() {
        for good in ["1", "100m", "0.5", ".5", "64Mi", "1G", "1e3", "1E-3", "0"] {
            assert!(is_quantity(good), "{good}");
        }
        for bad in ["", "Mi", "1 Gi", "-1", "1.2.3", "1mb", "e3", "1e", "one"] {
            assert!(!is_quantity(bad), "{bad}");
        }
    }
}
