//! The simulated cluster: objects, and the history that watches are served from.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use fsm_actors::catalog::ObjectName;
use fsm_api::{KindInfo, kinds};
use serde_json::{Value, json};

/// The kinds that there are.
pub const KINDS: [KindInfo; 9] = [
    kinds::NAMESPACE,
    kinds::POD,
    kinds::SERVICE,
    kinds::ENDPOINT_SLICE,
    kinds::TRAFFIC_TARGET,
    kinds::TRAFFIC_SPLIT,
    kinds::HTTP_ROUTE_GROUP,
    kinds::TCP_ROUTE,
    kinds::MESH_CONFIG,
];
const NAMESPACES: [&str; 3] = ["shop", "bank", "post"];
const ACCOUNTS: [&str; 3] = ["web", "till", "clerk"];
pub const MESH_NAMESPACE: &str = "fsm-system";
pub const MESH_CONFIG: &str = "fsm-mesh-config";

/// A change of an object: as it is now, or as it was last.
#[derive(Clone, Debug)]
pub struct Event {
    pub kind: usize,
    pub object: Value,
    pub deleted: bool,
}

#[derive(Default)]
pub struct Cluster {
    version: u64,
    pub objects: BTreeMap<(usize, ObjectName), Value>,
    pub history: Vec<Event>,
}

impl Cluster {
    /// One object appears, changes or goes.
    pub fn change(&mut self, rng: &mut Rng) {
        let kind = [0, 1, 1, 1, 2, 2, 3, 3, 3, 3, 4, 4, 5, 5, 6, 7, 8][rng.usize(0..17)];
        let namespace = NAMESPACES[rng.usize(0..NAMESPACES.len())];
        let name = match KINDS[kind] {
            kinds::NAMESPACE => ObjectName::new("", namespace),
            kinds::MESH_CONFIG => ObjectName::new(MESH_NAMESPACE, MESH_CONFIG),
            info => ObjectName::new(namespace, format!("{}-{}", info.kind.to_lowercase(), rng.u32(0..3))),
        };
        let there = self.objects.contains_key(&(kind, name.clone()));
        if there && rng.u32(0..4) == 0 {
            self.delete(kind, &name);
        } else {
            let mut object = content(kind, &name, rng);
            self.version += 1;
            let before = self.objects.get(&(kind, name.clone()));
            let uid = before
                .map_or_else(|| json!(format!("uid-{}", self.version)), |before| before["metadata"]["uid"].clone());
            let metadata = &mut object["metadata"];
            metadata["name"] = name.name().into();
            if !name.namespace().is_empty() {
                metadata["namespace"] = name.namespace().into();
            }
            metadata["uid"] = uid;
            metadata["resourceVersion"] = self.version.to_string().into();
            object["apiVersion"] = KINDS[kind].api_version().into();
            object["kind"] = KINDS[kind].kind.into();
            self.objects.insert((kind, name), object.clone());
            self.history.push(Event { kind, object, deleted: false });
        }
    }

    /// What a controller does with an invalid MeshConfig depends on the one before: makes it a valid one.
    pub fn mend_mesh_config(&mut self) {
        let place = KINDS.iter().position(|kind| *kind == kinds::MESH_CONFIG).unwrap_or_default();
        let name = ObjectName::new(MESH_NAMESPACE, MESH_CONFIG);
        if let Some(config) = self.objects.get_mut(&(place, name)) {
            self.version += 1;
            config["metadata"]["resourceVersion"] = self.version.to_string().into();
            config["spec"]["traffic"]["inboundPortExclusionList"] = json!([]);
            self.history.push(Event { kind: place, object: config.clone(), deleted: false });
        }
    }

    fn delete(&mut self, kind: usize, name: &ObjectName) {
        let Some(mut object) = self.objects.remove(&(kind, name.clone())) else { return };
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.history.push(Event { kind, object, deleted: true });
    }

    /// All objects of a kind.
    pub fn list(&self, kind: usize) -> Vec<Value> {
        let from = self.objects.range((kind, ObjectName::default())..);
        from.take_while(|((its, _), _)| *its == kind).map(|(_, object)| object.clone()).collect()
    }

    /// Pods that run a proxy, with what makes one of them another one: its uid and its account.
    pub fn pods_with_proxies(&self) -> BTreeMap<ObjectName, (String, String)> {
        let pods = self.objects.iter().filter(|((kind, _), _)| KINDS[*kind] == kinds::POD);
        let with_proxy = pods.filter(|(_, pod)| pod["metadata"]["labels"]["fsm-proxy-uuid"].is_string());
        with_proxy
            .map(|((_, name), pod)| {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                (name.clone(), (text(&pod["metadata"]["uid"]), text(&pod["spec"]["serviceAccountName"])))
            })
            .collect()
    }
}

fn some<'a>(rng: &mut Rng, of: &[&'a str]) -> BTreeSet<&'a str> {
    of.iter().copied().filter(|_| rng.bool()).collect()
}

/// An object of a kind, with anything in it, sometimes what no API server should let in.
fn content(kind: usize, name: &ObjectName, rng: &mut Rng) -> Value {
    let own = name.namespace();
    let account = ACCOUNTS[rng.usize(0..ACCOUNTS.len())];
    let service = |rng: &mut Rng| format!("service-{}", rng.u32(0..3));
    match KINDS[kind] {
        kinds::NAMESPACE => {
            let mesh = ["fsm", "fsm", "fsm", "other"][rng.usize(0..4)];
            let mut labels = json!({ "flomesh.io/monitored-by": mesh });
            if rng.u32(0..6) == 0 {
                labels["flomesh.io/ignore"] = "true".into();
            }
            json!({ "metadata": { "labels": labels } })
        }
        kinds::POD => {
            let labels = if rng.u32(0..5) > 0 { json!({ "fsm-proxy-uuid": "some" }) } else { json!({}) };
            let phase = ["Running", "Running", "Running", "Pending", "Succeeded"][rng.usize(0..5)];
            json!({
                "metadata": { "labels": labels },
                "spec": { "serviceAccountName": account, "containers": [{ "name": "app" }], "initContainers": [{ "name": "sidecar" }] },
                "status": { "phase": phase, "podIP": format!("10.0.0.{}", rng.u8(1..250)) },
            })
        }
        kinds::SERVICE => {
            let ports: Vec<Value> = (0..rng.u32(0..3))
                .map(|n| json!({ "name": format!("p{n}"), "port": 80 + n, "targetPort": 8080 }))
                .collect();
            json!({ "metadata": {}, "spec": { "clusterIP": format!("10.96.0.{}", rng.u8(1..250)), "ports": ports } })
        }
        kinds::ENDPOINT_SLICE => {
            let endpoints: Vec<Value> = (0..rng.u32(0..4))
                .map(|n| {
                    let pod = format!("pod-{}", rng.u32(0..3));
                    json!({ "addresses": [format!("10.0.1.{n}")], "conditions": { "ready": rng.bool() }, "zone": "z",
                        "targetRef": { "kind": "Pod", "namespace": own, "name": pod } })
                })
                .collect();
            json!({ "metadata": { "labels": { "kubernetes.io/service-name": service(rng) } }, "addressType": "IPv4",
                "endpoints": endpoints, "ports": [{ "name": "p0", "port": 8080 }] })
        }
        kinds::TRAFFIC_TARGET => {
            let sources: Vec<Value> = some(rng, &ACCOUNTS)
                .into_iter()
                .map(|name| json!({ "kind": "ServiceAccount", "name": name, "namespace": NAMESPACES[rng.usize(0..3)] }))
                .collect();
            let rule = if rng.u32(0..4) == 0 {
                json!({ "kind": "TCPRoute", "name": format!("tcproute-{}", rng.u32(0..3)) })
            } else {
                json!({ "kind": "HTTPRouteGroup", "name": format!("httproutegroup-{}", rng.u32(0..3)) })
            };
            json!({ "metadata": {}, "spec": { "destination": { "kind": "ServiceAccount", "name": account, "namespace": own },
                "sources": sources, "rules": [rule] } })
        }
        kinds::TRAFFIC_SPLIT => {
            let weight = |rng: &mut Rng| rng.i32(-1..100);
            let matches = if rng.u32(0..3) == 0 {
                json!([{ "kind": "HTTPRouteGroup", "name": "httproutegroup-0" }])
            } else {
                json!([])
            };
            json!({ "metadata": {}, "spec": { "service": service(rng), "matches": matches,
                "backends": [{ "service": service(rng), "weight": weight(rng) }, { "service": service(rng), "weight": weight(rng) }] } })
        }
        kinds::HTTP_ROUTE_GROUP => {
            let path = ["/a", "/b.*", "("][rng.usize(0..3)];
            json!({ "metadata": {}, "spec": { "matches": [{ "name": "some", "pathRegex": path, "methods": ["GET"] }] } })
        }
        kinds::TCP_ROUTE => json!({ "metadata": {}, "spec": { "matches": { "ports": [rng.u16(1..9)] } } }),
        _ => json!({ "metadata": {}, "spec": { "traffic": { "enablePermissiveTrafficPolicyMode": rng.u32(0..3) == 0,
            "inboundPortExclusionList": if rng.u32(0..4) == 0 { json!([70_000]) } else { json!([]) } } } }),
    }
}
