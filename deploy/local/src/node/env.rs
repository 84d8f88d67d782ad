//! A container's environment and command line. Pure: what it refers to has been fetched before.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvVarSource, Pod, ResourceFieldSelector, Secret};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

/// What `fieldRef` and friends can ask for besides the pod's manifest.
#[derive(Debug, Clone)]
pub struct Facts {
    /// IPv4 first.
    pub pod_ips: Vec<String>,
    pub host_ip: String,
    pub node_name: String,
    pub kubernetes: Ipv4Addr,
}

impl Facts {
    pub fn pod_ip(&self) -> &str {
        self.pod_ips.first().map_or("", String::as_str)
    }
}

/// ConfigMaps and Secrets of the pod's namespace by name; absent ones are missing.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
}

/// Why an environment can't be made; the pod waits with `CreateContainerConfigError`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("{kind} \"{name}\" not found")]
    Missing { kind: &'static str, name: String },
    #[error("couldn't find key {key} in {kind} {name}")]
    MissingKey { kind: &'static str, name: String, key: String },
    #[error(
        "env {name}: fieldRef {path} is not supported; use metadata.*, spec.nodeName, spec.serviceAccountName or status.*IP"
    )]
    Field { name: String, path: String },
    #[error("env {name}: {why}")]
    Resource { name: String, why: String },
    #[error("env {0}: fileKeyRef is not supported by the local cluster; use configMapKeyRef or secretKeyRef")]
    FileKey(String),
}

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The names of the ConfigMaps and Secrets a container's environment refers to.
pub fn references(container: &Container) -> (Vec<String>, Vec<String>) {
    let (mut maps, mut secrets) = (Vec::new(), Vec::new());
    for from in container.env_from.iter().flatten() {
        maps.extend(from.config_map_ref.iter().map(|r| r.name.clone()));
        secrets.extend(from.secret_ref.iter().map(|r| r.name.clone()));
    }
    for source in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
        maps.extend(source.config_map_key_ref.iter().map(|r| r.name.clone()));
        secrets.extend(source.secret_key_ref.iter().map(|r| r.name.clone()));
    }
    (maps, secrets)
}

/// The whole environment of a container. Later definitions win, as Kubernetes says.
pub fn environment(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    sources: &Sources,
) -> Result<BTreeMap<String, String>, EnvError> {
    let mut env: BTreeMap<String, String> = BTreeMap::new();
    let mut set = |key: &str, value: String| env.insert(key.to_owned(), value);
    set("PATH", format!("{}:{DEFAULT_PATH}", super::image::PROGRAMS_DIR));
    set("HOME", "/root".into());
    set("HOSTNAME", hostname(pod));
    set("KUBERNETES_SERVICE_HOST", facts.kubernetes.to_string());
    set("KUBERNETES_SERVICE_PORT", "443".into());
    set("KUBERNETES_SERVICE_PORT_HTTPS", "443".into());
    for from in container.env_from.iter().flatten() {
        let prefix = from.prefix.as_deref().unwrap_or_default();
        if let Some(wanted) = &from.config_map_ref {
            match sources.config_maps.get(&wanted.name) {
                Some(map) => env.extend(map.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), v.clone()))),
                None if wanted.optional == Some(true) => {}
                None => return Err(EnvError::Missing { kind: "configmap", name: wanted.name.clone() }),
            }
        }
        if let Some(wanted) = &from.secret_ref {
            match sources.secrets.get(&wanted.name) {
                Some(secret) => {
                    let text = |v: &[u8]| String::from_utf8_lossy(v).into_owned();
                    env.extend(secret.data.iter().flatten().map(|(k, v)| (format!("{prefix}{k}"), text(&v.0))));
                }
                None if wanted.optional == Some(true) => {}
                None => return Err(EnvError::Missing { kind: "secret", name: wanted.name.clone() }),
            }
        }
    }
    for var in container.env.iter().flatten() {
        let value = match &var.value_from {
            None => Some(expand(var.value.as_deref().unwrap_or_default(), &env)),
            Some(source) => from_source(pod, container, facts, sources, &var.name, source)?,
        };
        if let Some(value) = value {
            env.insert(var.name.clone(), value);
        }
    }
    Ok(env)
}

fn from_source(
    pod: &Pod,
    container: &Container,
    facts: &Facts,
    sources: &Sources,
    name: &str,
    source: &EnvVarSource,
) -> Result<Option<String>, EnvError> {
    if let Some(field) = &source.field_ref {
        let value = field_value(pod, facts, &field.field_path);
        return value.map(Some).ok_or_else(|| EnvError::Field { name: name.into(), path: field.field_path.clone() });
    }
    if let Some(wanted) = &source.resource_field_ref {
        let value = resource_value(pod, Some(container), wanted);
        return value.map(Some).map_err(|why| EnvError::Resource { name: name.into(), why });
    }
    let (kind, object, key, optional, found) = if let Some(wanted) = &source.config_map_key_ref {
        let map = sources.config_maps.get(&wanted.name);
        let value = map.map(|m| m.data.as_ref().and_then(|d| d.get(&wanted.key)).cloned());
        ("configmap", &wanted.name, &wanted.key, wanted.optional, value)
    } else if let Some(wanted) = &source.secret_key_ref {
        let secret = sources.secrets.get(&wanted.name);
        let value = secret.map(|s| s.data.as_ref().and_then(|d| d.get(&wanted.key)));
        let value = value.map(|v| v.map(|bytes| String::from_utf8_lossy(&bytes.0).into_owned()));
        ("secret", &wanted.name, &wanted.key, wanted.optional, value)
    } else if source.file_key_ref.is_some() {
        return Err(EnvError::FileKey(name.into()));
    } else {
        return Ok(None);
    };
    match found {
        Some(Some(value)) => Ok(Some(value)),
        _ if optional == Some(true) => Ok(None),
        Some(None) => Err(EnvError::MissingKey { kind, name: object.clone(), key: key.clone() }),
        None => Err(EnvError::Missing { kind, name: object.clone() }),
    }
}

/// What a `fieldPath` of the downward API stands for.
pub fn field_value(pod: &Pod, facts: &Facts, path: &str) -> Option<String> {
    if let Some((map, key)) = path.strip_suffix("']").and_then(|p| p.split_once("['")) {
        let map = match map {
            "metadata.labels" => pod.labels(),
            "metadata.annotations" => pod.annotations(),
            _ => return None,
        };
        return Some(map.get(key).cloned().unwrap_or_default());
    }
    let listed =
        |map: &BTreeMap<String, String>| map.iter().map(|(k, v)| format!("{k}={v:?}")).collect::<Vec<_>>().join("\n");
    Some(match path {
        "metadata.name" => pod.name_any(),
        "metadata.namespace" => pod.namespace().unwrap_or_default(),
        "metadata.uid" => pod.uid().unwrap_or_default(),
        "metadata.labels" => listed(pod.labels()),
        "metadata.annotations" => listed(pod.annotations()),
        "spec.nodeName" => facts.node_name.clone(),
        "spec.serviceAccountName" => {
            pod.spec.as_ref().and_then(|s| s.service_account_name.clone()).unwrap_or_else(|| "default".into())
        }
        "status.podIP" => facts.pod_ip().to_owned(),
        "status.podIPs" => facts.pod_ips.join(","),
        "status.hostIP" | "status.hostIPs" => facts.host_ip.clone(),
        _ => return None,
    })
}

/// What a `resourceFieldRef` stands for: the container's own limit or request, or the machine's size.
pub fn resource_value(pod: &Pod, own: Option<&Container>, wanted: &ResourceFieldSelector) -> Result<String, String> {
    let named = wanted.container_name.as_deref();
    let containers = pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
    let container = match named {
        None => own,
        Some(name) => containers.into_iter().find(|c| c.name == name),
    };
    let container = container.ok_or_else(|| format!("resourceFieldRef names no container of the pod: {named:?}"))?;
    let (kind, resource) = wanted.resource.split_once('.').unwrap_or_default();
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|r| r.limits.as_ref()).and_then(|l| l.get(resource));
    let set = match kind {
        "limits" => limits,
        "requests" => resources.and_then(|r| r.requests.as_ref()).and_then(|l| l.get(resource)).or(limits),
        _ => return Err(format!("resourceFieldRef {} is not supported; use limits.* or requests.*", wanted.resource)),
    };
    let amount = match (set, kind, resource) {
        (Some(quantity), _, _) => {
            parse_quantity(&quantity.0).ok_or_else(|| format!("\"{}\" is not a quantity", quantity.0))?
        }
        (None, "limits", "cpu") => std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64),
        (None, "limits", "memory") => super::machine_memory_bytes() as f64,
        _ => 0.0,
    };
    let divisor = wanted.divisor.as_ref().filter(|Quantity(d)| !d.is_empty() && d != "0");
    let divisor = divisor.map_or(Some(1.0), |Quantity(d)| parse_quantity(d)).ok_or("divisor is not a quantity")?;
    Ok(format!("{}", (amount / divisor).ceil()))
}

/// A Kubernetes quantity (`500m`, `64Mi`, `1e3`) as a number of its base unit.
pub(super) fn parse_quantity(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 13] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
    ];
    let scaled = SUFFIXES.iter().find_map(|(suffix, scale)| Some((text.strip_suffix(suffix)?, *scale)));
    let (number, scale) = scaled.unwrap_or((text, 1.0));
    number.parse::<f64>().ok().map(|n| n * scale)
}

/// The pod's host name: what the manifest says, or the pod's name.
pub fn hostname(pod: &Pod) -> String {
    let given = pod.spec.as_ref().and_then(|s| s.hostname.clone()).filter(|h| !h.is_empty());
    let mut name = given.unwrap_or_else(|| pod.name_any());
    name.truncate(63);
    name.trim_end_matches(['-', '.']).to_owned()
}

/// Replaces `$(NAME)` by the variable's value; `$$` stands for `$`, and unknown names stay as they are.
pub fn expand(text: &str, env: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match env.get(name) {
                Some(value) => out.push_str(value),
                None => {
                    out.push_str("$(");
                    out.push_str(name);
                    out.push(')');
                }
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn facts() -> Facts {
        Facts {
            pod_ips: vec!["10.244.0.7".into()],
            host_ip: "10.244.0.1".into(),
            node_name: "local".into(),
            kubernetes: Ipv4Addr::new(10, 96, 0, 1),
        }
    }

    fn env(container: Value) -> Result<BTreeMap<String, String>, EnvError> {
        let pod = json!({"metadata": {"name": "web-1", "namespace": "shop", "uid": "u1", "labels": {"app": "web"}},
            "spec": {"serviceAccountName": "buyer", "containers": []}});
        let map = json!({"metadata": {"name": "settings"}, "data": {"MODE": "fast"}});
        let secret = json!({"metadata": {"name": "keys"}, "data": {"token": "c2VjcmV0"}});
        let parse = |v| serde_json::from_value(v).unwrap();
        let sources = Sources {
            config_maps: [("settings".to_owned(), parse(map))].into(),
            secrets: [("keys".to_owned(), serde_json::from_value(secret).unwrap())].into(),
        };
        let pod: Pod = serde_json::from_value(pod).unwrap();
        environment(&pod, &serde_json::from_value(container).unwrap(), &facts(), &sources)
    }

    #[test]
    fn variables_come_from_all_sources_and_later_ones_see_earlier_ones() {
        let field = |path: &str| json!({"fieldRef": {"fieldPath": path}});
        let env = env(json!({"name": "c", "resources": {"limits": {"memory": "64Mi"}},
            "envFrom": [{"prefix": "S_", "configMapRef": {"name": "settings"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [{"name": "IP", "valueFrom": field("status.podIP")}, {"name": "APP", "valueFrom": field("metadata.labels['app']")},
                {"name": "SA", "valueFrom": field("spec.serviceAccountName")},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "token"}}},
                {"name": "MEMORY", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}}},
                {"name": "URL", "value": "http://$(IP):80/$(S_MODE)/$(NONE)/$$(IP)"}]}))
        .unwrap();
        let get = |name: &str| env[name].as_str();
        assert_eq!((get("IP"), get("APP"), get("SA"), get("TOKEN")), ("10.244.0.7", "web", "buyer", "secret"));
        assert_eq!((get("URL"), get("MEMORY")), ("http://10.244.0.7:80/fast/$(NONE)/$(IP)", "64"));
        assert_eq!((get("KUBERNETES_SERVICE_HOST"), get("HOSTNAME")), ("10.96.0.1", "web-1"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let from = |source: Value| {
            env(json!({"name": "c", "env": [{"name": "X", "valueFrom": source}]})).unwrap_err().to_string()
        };
        assert_eq!(from(json!({"secretKeyRef": {"name": "none", "key": "k"}})), "secret \"none\" not found");
        assert_eq!(
            from(json!({"configMapKeyRef": {"name": "settings", "key": "k"}})),
            "couldn't find key k in configmap settings"
        );
        assert!(from(json!({"fieldRef": {"fieldPath": "status.phase"}})).contains("status.phase is not supported"));
    }
}
