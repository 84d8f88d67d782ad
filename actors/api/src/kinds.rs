//! The registry of kinds: which ones the control plane watches, and how the API names them.

/// How the Kubernetes API names a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KindInfo {
    /// Empty for the core group.
    pub group: &'static str,
    pub version: &'static str,
    pub kind: &'static str,
    /// Lower case, as in URLs.
    pub plural: &'static str,
    pub namespaced: bool,
    /// Whether the kind comes from a CustomResourceDefinition (and may be missing until that is installed).
    pub custom: bool,
    gvk: &'static str,
}

impl KindInfo {
    /// `v1`, or `<group>/<version>`.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// `<apiVersion>/<Kind>`, e.g. `v1/Pod`: how the log's keys begin.
    pub fn gvk(&self) -> &'static str {
        self.gvk
    }

    /// The kind with this apiVersion and kind. `v1alpha2` TrafficSplits count as the `v1alpha4` kind.
    pub fn find(api_version: &str, kind: &str) -> Option<&'static Self> {
        WATCHED.iter().find(|info| {
            info.kind == kind
                && match api_version.split_once('/') {
                    None => info.group.is_empty() && info.version == api_version,
                    Some((group, version)) => {
                        info.group == group
                            && (info.version == version || (**info == TRAFFIC_SPLIT && version == "v1alpha2"))
                    }
                }
        })
    }
}

type Text = &'static str;

const fn builtin(gvk: Text, group: Text, version: Text, kind: Text, plural: Text, namespaced: bool) -> KindInfo {
    KindInfo { group, version, kind, plural, namespaced, custom: false, gvk }
}

const fn custom(gvk: Text, group: Text, version: Text, kind: Text, plural: Text) -> KindInfo {
    KindInfo { group, version, kind, plural, namespaced: true, custom: true, gvk }
}

pub const NAMESPACE: KindInfo = builtin("v1/Namespace", "", "v1", "Namespace", "namespaces", false);
pub const SERVICE_ACCOUNT: KindInfo = builtin("v1/ServiceAccount", "", "v1", "ServiceAccount", "serviceaccounts", true);
pub const SERVICE: KindInfo = builtin("v1/Service", "", "v1", "Service", "services", true);
pub const POD: KindInfo = builtin("v1/Pod", "", "v1", "Pod", "pods", true);
pub const ENDPOINT_SLICE: KindInfo =
    builtin("discovery.k8s.io/v1/EndpointSlice", "discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", true);
pub const MESH_CONFIG: KindInfo =
    custom("config.flomesh.io/v1alpha3/MeshConfig", "config.flomesh.io", "v1alpha3", "MeshConfig", "meshconfigs");
pub const TRAFFIC_TARGET: KindInfo = custom(
    "access.smi-spec.io/v1alpha3/TrafficTarget",
    "access.smi-spec.io",
    "v1alpha3",
    "TrafficTarget",
    "traffictargets",
);
pub const HTTP_ROUTE_GROUP: KindInfo = custom(
    "specs.smi-spec.io/v1alpha4/HTTPRouteGroup",
    "specs.smi-spec.io",
    "v1alpha4",
    "HTTPRouteGroup",
    "httproutegroups",
);
pub const TCP_ROUTE: KindInfo =
    custom("specs.smi-spec.io/v1alpha4/TCPRoute", "specs.smi-spec.io", "v1alpha4", "TCPRoute", "tcproutes");
pub const TRAFFIC_SPLIT: KindInfo =
    custom("split.smi-spec.io/v1alpha4/TrafficSplit", "split.smi-spec.io", "v1alpha4", "TrafficSplit", "trafficsplits");

/// Every kind that the control plane watches.
pub const WATCHED: [KindInfo; 10] = [
    NAMESPACE,
    SERVICE_ACCOUNT,
    SERVICE,
    POD,
    ENDPOINT_SLICE,
    MESH_CONFIG,
    TRAFFIC_TARGET,
    HTTP_ROUTE_GROUP,
    TCP_ROUTE,
    TRAFFIC_SPLIT,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_api_version_and_kind() {
        assert_eq!(KindInfo::find("v1", "Pod"), Some(&POD));
        assert_eq!(KindInfo::find("split.smi-spec.io/v1alpha4", "TrafficSplit"), Some(&TRAFFIC_SPLIT));
        assert_eq!(KindInfo::find("split.smi-spec.io/v1alpha2", "TrafficSplit"), Some(&TRAFFIC_SPLIT));
        assert_eq!(KindInfo::find("split.smi-spec.io/v1alpha3", "TrafficSplit"), None);
        assert_eq!(KindInfo::find("apps/v1", "Deployment"), None);
        assert_eq!(POD.gvk(), "v1/Pod");
        for kind in WATCHED {
            assert_eq!(kind.gvk(), format!("{}/{}", kind.api_version(), kind.kind));
        }
    }
}
