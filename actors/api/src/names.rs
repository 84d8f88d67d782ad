//! Labels, annotations and other names that users write on their objects.

/// Label on a Namespace: the mesh that it belongs to.
pub const MONITORED_BY: &str = "flomesh.io/monitored-by";
/// Label on a Namespace, Pod or Service: leave it alone.
pub const IGNORE: &str = "flomesh.io/ignore";
/// Label on a Pod: the proxy's id, set at injection.
pub const PROXY_UUID: &str = "fsm-proxy-uuid";
/// Annotation on a Pod or Namespace: `enabled` or `disabled`; see [`switch`].
pub const SIDECAR_INJECTION: &str = "flomesh.io/sidecar-injection";
/// Annotation on a Pod or Namespace: the sidecar's image.
pub const SIDECAR_IMAGE: &str = "flomesh.io/sidecar-image";
/// Annotation on a Pod: inbound ports that bypass the proxy, comma separated.
pub const INBOUND_PORT_EXCLUSION: &str = "flomesh.io/inbound-port-exclusion-list";
/// Annotation on a Pod: whether its queries for names go to the sidecar.
pub const DNS_CAPTURE: &str = "flomesh.io/dns-capture";
/// Annotation on a Pod: outbound ports that bypass the proxy, comma separated.
pub const OUTBOUND_PORT_EXCLUSION: &str = "flomesh.io/outbound-port-exclusion-list";
/// Annotation on a Pod: destinations that bypass the proxy, comma separated CIDRs.
pub const OUTBOUND_IP_RANGE_EXCLUSION: &str = "flomesh.io/outbound-ip-range-exclusion-list";
/// Annotation on a Pod: the only destinations that are captured, comma separated CIDRs.
pub const OUTBOUND_IP_RANGE_INCLUSION: &str = "flomesh.io/outbound-ip-range-inclusion-list";
/// Annotation on a Namespace: `enabled` or `disabled` scraping of the proxies; see [`switch`].
pub const METRICS: &str = "flomesh.io/metrics";
/// Annotation on a Service: `true` excludes it from the mesh.
pub const SERVICE_EXCLUSION: &str = "flomesh.io/service-exclusion";
/// Annotation on a Namespace: names of Services that are not part of the mesh, comma separated.
pub const SERVICE_EXCLUSION_LIST: &str = "flomesh.io/service-exclusion-list";

/// The name of the one MeshConfig, unless the controller is told another.
pub const DEFAULT_MESH_CONFIG: &str = "fsm-mesh-config";

/// The value of an on/off annotation: `enabled`, `yes`, `true`, or `disabled`, `no`, `false`, in any case.
/// Anything else is `None`: an error, never a guess.
pub fn switch(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "enabled" | "yes" | "true" => Some(true),
        "disabled" | "no" | "false" => Some(false),
        _ => None,
    }
}
