//! Which pods are intercepted, and how: from the objects of the Kubernetes API alone.

use crate::rules::{
    INBOUND_PORT_EXCLUSION_LIST, OUTBOUND_IP_RANGE_EXCLUSION_LIST, OUTBOUND_IP_RANGE_INCLUSION_LIST,
    OUTBOUND_PORT_EXCLUSION_LIST, Rules, RulesError,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::Value;

/// The label that the injector gives to pods of the mesh.
pub const PROXY_UUID: &str = "fsm-proxy-uuid";
/// The proxy's container, as the injector names it.
pub const PROXY_CONTAINER: &str = "sidecar";

/// A pod to be intercepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Namespace and name, for people.
    pub name: String,
    pub uid: String,
    /// The runtime's id of the running proxy container; nothing before it runs.
    pub proxy: Option<String>,
    pub rules: Rules,
}

/// What is to be done about `pod`: nothing if it does not belong to the mesh, has ended, or has not begun.
pub fn wanted(pod: &Pod, mesh: &Rules) -> Option<Result<Wanted, String>> {
    let meta = &pod.metadata;
    let labelled = meta.labels.as_ref().is_some_and(|labels| labels.contains_key(PROXY_UUID));
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    if !labelled || matches!(phase, Some("Succeeded" | "Failed")) {
        return None;
    }
    let name =
        format!("{}/{}", meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default());
    if pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true) {
        return Some(Err(format!(
            "pod {name} uses its node's network, which is not one pod's to be intercepted: remove hostNetwork or the sidecar"
        )));
    }
    let annotations = meta.annotations.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
    let rules = match Rules::from_annotations(annotations) {
        Ok(rules) => rules.merged(mesh),
        Err(error) => return Some(Err(format!("pod {name}: {error}"))),
    };
    Some(Ok(Wanted { name, uid: meta.uid.clone()?, proxy: running_proxy(pod), rules }))
}

/// A native sidecar is among the init containers.
fn running_proxy(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let all = [&status.init_container_statuses, &status.container_statuses].into_iter().flatten().flatten();
    let proxy = all.into_iter().find(|container| container.name == PROXY_CONTAINER)?;
    proxy.state.as_ref()?.running.as_ref()?;
    // `containerd://0123…`, `cri-o://0123…`
    proxy.container_id.as_deref()?.split("://").nth(1).filter(|id| !id.is_empty()).map(str::to_owned)
}

/// The lists of a MeshConfig, which add to those of each pod.
pub fn mesh_rules(mesh_config: &Value) -> Result<Rules, RulesError> {
    let list = |field: &str| {
        let entries = mesh_config.pointer(&format!("/spec/traffic/{field}")).and_then(Value::as_array);
        let text = |entry: &Value| entry.as_str().map_or_else(|| entry.to_string(), str::to_owned);
        entries.into_iter().flatten().map(text).collect::<Vec<_>>().join(",")
    };
    let lists = [
        (INBOUND_PORT_EXCLUSION_LIST, list("inboundPortExclusionList")),
        (OUTBOUND_PORT_EXCLUSION_LIST, list("outboundPortExclusionList")),
        (OUTBOUND_IP_RANGE_EXCLUSION_LIST, list("outboundIPRangeExclusionList")),
        (OUTBOUND_IP_RANGE_INCLUSION_LIST, list("outboundIPRangeInclusionList")),
    ];
    Rules::from_annotations(lists.iter().map(|(name, value)| (*name, value.as_str())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ID: &str = "3f4e";

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": "web", "uid": "u-1", "labels": {PROXY_UUID: "x"},
                "annotations": {OUTBOUND_PORT_EXCLUSION_LIST: "3306"}},
            "spec": {"containers": []},
            "status": {"phase": "Pending", "initContainerStatuses": [
                {"name": PROXY_CONTAINER, "containerID": format!("containerd://{ID}"), "image": "", "imageID": "",
                 "ready": true, "restartCount": 0, "state": {"running": {}}}]},
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_pod_with_a_running_sidecar_is_wanted_with_the_rules_of_mesh_and_pod() {
        let mesh = mesh_rules(&json!({"spec": {"traffic": {
            "outboundPortExclusionList": [5432], "outboundIPRangeExclusionList": ["10.0.0.0/8"]}}}))
        .unwrap();
        let wanted = wanted(&pod(|_| {}), &mesh).unwrap().unwrap();
        assert_eq!((wanted.name.as_str(), wanted.uid.as_str(), wanted.proxy.as_deref()), ("shop/web", "u-1", Some(ID)));
        assert_eq!(wanted.rules.outbound_port_exclusions, [3306, 5432].into());
        assert_eq!(wanted.rules.outbound_ip_range_exclusions.len(), 1);
    }

    #[test]
    fn a_sidecar_among_the_other_containers_counts_too_and_one_that_waits_does_not() {
        let elsewhere = pod(|pod| {
            let statuses = pod["status"]["initContainerStatuses"].take();
            pod["status"]["containerStatuses"] = statuses;
        });
        assert_eq!(wanted(&elsewhere, &Rules::default()).unwrap().unwrap().proxy.as_deref(), Some(ID));
        let waiting = pod(|pod| pod["status"]["initContainerStatuses"][0]["state"] = json!({"waiting": {}}));
        assert_eq!(wanted(&waiting, &Rules::default()).unwrap().unwrap().proxy, None);
    }

    #[test]
    fn pods_outside_the_mesh_and_ended_ones_are_left_alone() {
        assert!(wanted(&pod(|pod| pod["metadata"]["labels"] = json!({})), &Rules::default()).is_none());
        assert!(wanted(&pod(|pod| pod["status"]["phase"] = json!("Succeeded")), &Rules::default()).is_none());
    }

    #[test]
    fn what_cannot_be_intercepted_is_refused_by_name() {
        let refused = |pod| wanted(&pod, &Rules::default()).unwrap().unwrap_err();
        assert!(refused(pod(|pod| pod["spec"]["hostNetwork"] = json!(true))).contains("shop/web"));
        let text = refused(pod(|pod| pod["metadata"]["annotations"][OUTBOUND_PORT_EXCLUSION_LIST] = json!("mysql")));
        assert!(text.contains("shop/web") && text.contains("mysql"), "{text}");
    }
}
