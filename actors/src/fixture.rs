//! Histories for tests: records made of manifests.

use fsm_proxy_config::resource::Resource;
use fsm_proxy_config::{ConfigSet, SpiffeId};
use fsm_store::{Entry, Record, Seq, Timestamp, TraceContext};
use serde_json::{Value, json};

use crate::Fact;
use crate::catalog::{Audience, Catalog, ObjectName};
use crate::concern::{Change, Concern, Step};
use crate::fact::{ControllerStarted, Relist, RelistPhase};

/// A history under construction.
#[derive(Clone, Default)]
pub struct History(pub Vec<Record>);

impl History {
    /// A controller of mesh "fsm" has started; SMI mode, no egress.
    pub fn started() -> Self {
        let mut history = Self::default();
        history.push(&started());
        history
    }

    /// The bookstore: buyer, thief, two versions of the store behind one apex service, SMI mode.
    pub fn bookstore() -> Self {
        let mut history = Self::started();
        for namespace in ["bookbuyer", "bookthief", "bookstore"] {
            history.apply(namespace_of_mesh(namespace));
        }
        history.apply(pod("bookbuyer", "bookbuyer-0", "bookbuyer", "10.0.0.1"));
        history.apply(pod("bookthief", "bookthief-0", "bookthief", "10.0.0.2"));
        history.apply(pod("bookstore", "v1-0", "bookstore-v1", "10.0.0.3"));
        history.apply(pod("bookstore", "v2-0", "bookstore-v2", "10.0.0.4"));
        for (name, vip) in [("bookstore", "10.96.0.1"), ("bookstore-v1", "10.96.0.2"), ("bookstore-v2", "10.96.0.3")] {
            history.apply(service("bookstore", name, vip));
        }
        let (v1, v2) = (("v1-0", "10.0.0.3", true), ("v2-0", "10.0.0.4", true));
        history.apply(slice("bookstore", "bookstore", &[v1, v2]));
        history.apply(slice("bookstore", "bookstore-v1", &[v1]));
        history.apply(slice("bookstore", "bookstore-v2", &[v2]));
        history.apply(routes());
        history.apply(target("v1", "bookstore-v1", &["bookbuyer"]));
        history.apply(target("v2", "bookstore-v2", &["bookbuyer"]));
        history.apply(split(100, 0));
        history
    }

    pub fn push(&mut self, fact: &Fact) -> Seq {
        self.push_entry(fact.to_entry(TraceContext::default()))
    }

    pub fn push_entry(&mut self, entry: Entry) -> Seq {
        let seq = Seq(self.0.len() as u64 + 1);
        self.0.push(Record { seq, time: Timestamp(seq.0 * 1000), entry });
        seq
    }

    pub fn apply(&mut self, object: Value) -> Seq {
        self.push(&applied(object))
    }

    pub fn delete(&mut self, object: Value) -> Seq {
        self.push(&Fact::deleted(&gvk(&object), &object))
    }

    pub fn relist(&mut self, gvk: &str, phase: RelistPhase) -> Seq {
        self.push(&Fact::Relist(Relist { gvk: gvk.to_owned(), phase }))
    }
}

/// What one concern puts out at each record of a history, as `+<resource>` and `-<resource>`; and its final state.
pub fn drive<C: Concern>(history: &History) -> (C, Vec<Vec<String>>) {
    let (mut concern, mut catalog) = (C::default(), Catalog::default());
    let outputs = history.0.iter().map(|record| {
        let fact = Fact::parse(&record.entry).unwrap();
        let delta = catalog.apply(record.seq, &fact);
        let changes = concern.apply(&Step { seq: record.seq, fact: &fact, catalog: &catalog, delta: &delta });
        changes.iter().map(show).collect()
    });
    let outputs = outputs.collect();
    (concern, outputs)
}

fn show(change: &Change) -> String {
    let sign = if change.told.is_some() { '+' } else { '-' };
    let owner = change.key.proxy.as_ref().map(|proxy| format!(" of {proxy}")).unwrap_or_default();
    let audience = match change.told.as_ref().map(|told| &told.audience) {
        Some(Audience::Accounts(accounts)) if change.key.proxy.is_none() => {
            let accounts: Vec<String> = accounts.iter().map(ToString::to_string).collect();
            format!(" for {}", accounts.join(", "))
        }
        _ => String::new(),
    };
    format!("{sign}{}{owner}{audience}", change.key.name)
}

pub fn started() -> Fact {
    Fact::ControllerStarted(ControllerStarted {
        version: "0.1.0".to_owned(),
        mesh_name: "fsm".to_owned(),
        mesh_namespace: "fsm-system".to_owned(),
        mesh_config: "fsm-mesh-config".to_owned(),
        trust_domain: "cluster.local".to_owned(),
        trust_bundle_pem: "-----BEGIN CERTIFICATE-----\nMII=\n-----END CERTIFICATE-----\n".to_owned(),
        ..ControllerStarted::default()
    })
}

pub fn applied(object: Value) -> Fact {
    Fact::applied(&gvk(&object), &object)
}

fn gvk(object: &Value) -> String {
    format!("{}/{}", object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap())
}

pub fn namespace_of_mesh(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {
        "name": name, "labels": {"flomesh.io/monitored-by": "fsm"},
        "annotations": {"flomesh.io/sidecar-injection": "enabled"}}})
}

pub fn pod(namespace: &str, name: &str, account: &str, ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": account, "fsm-proxy-uuid": format!("uuid-{name}")}},
        "spec": {"serviceAccountName": account, "nodeName": "node-1",
            "containers": [{"name": "app"}], "initContainers": [{"name": "sidecar"}]},
        "status": {"phase": "Running", "podIP": ip}})
}

pub fn service(namespace: &str, name: &str, vip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"namespace": namespace, "name": name},
        "spec": {"clusterIP": vip, "ports": [{"name": "http", "port": 14001, "targetPort": 8080}]}})
}

/// The EndpointSlice `<service>-1`: pods with their address and readiness.
pub fn slice(namespace: &str, service: &str, pods: &[(&str, &str, bool)]) -> Value {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(pod, ip, ready)| {
            json!({"addresses": [ip], "conditions": {"ready": ready}, "zone": "z1",
                "targetRef": {"kind": "Pod", "namespace": namespace, "name": pod}})
        })
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"namespace": namespace, "name": format!("{service}-1"), "labels": {"kubernetes.io/service-name": service}},
        "endpoints": endpoints, "ports": [{"name": "http", "port": 8080}]})
}

pub fn routes() -> Value {
    json!({"apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup",
        "metadata": {"namespace": "bookstore", "name": "routes"},
        "spec": {"matches": [
            {"name": "books-bought", "pathRegex": "/books-bought", "methods": ["GET"],
             "headers": [{"User-Agent": ".*-http-client/*.*"}, {"client-app": "bookbuyer"}]},
            {"name": "buy-a-book", "pathRegex": ".*a-book.*new", "methods": ["*"]}]}})
}

/// The TrafficTarget `bookstore/<name>` for all of `routes`; sources are `name` in namespace `name`.
pub fn target(name: &str, destination: &str, sources: &[&str]) -> Value {
    let sources: Vec<Value> =
        sources.iter().map(|name| json!({"kind": "ServiceAccount", "name": name, "namespace": name})).collect();
    json!({"apiVersion": "access.smi-spec.io/v1alpha3", "kind": "TrafficTarget",
        "metadata": {"namespace": "bookstore", "name": name},
        "spec": {"destination": {"kind": "ServiceAccount", "name": destination, "namespace": "bookstore"},
            "sources": sources,
            "rules": [{"kind": "HTTPRouteGroup", "name": "routes", "matches": ["buy-a-book", "books-bought"]}]}})
}

pub fn split(v1: u32, v2: u32) -> Value {
    json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"namespace": "bookstore", "name": "bookstore-split"},
        "spec": {"service": "bookstore.bookstore.svc.cluster.local", "backends": [
            {"service": "bookstore-v1", "weight": v1}, {"service": "bookstore-v2", "weight": v2}]}})
}

pub fn mesh_config(permissive: bool) -> Value {
    json!({"apiVersion": "config.flomesh.io/v1alpha3", "kind": "MeshConfig",
        "metadata": {"namespace": "fsm-system", "name": "fsm-mesh-config"},
        "spec": {"traffic": {"enablePermissiveTrafficPolicyMode": permissive, "enableEgress": true}}})
}

pub fn name(text: &str) -> ObjectName {
    text.parse().unwrap()
}

pub fn identity(account: &str) -> SpiffeId {
    let (namespace, account) = account.split_once('/').unwrap();
    SpiffeId::new("cluster.local", namespace, account).unwrap()
}

/// A configuration as text: every resource decoded, with the seq at which it changed.
pub fn text(config: &ConfigSet) -> String {
    let mut text = format!("seq {}\n", config.seq);
    for (name, entry) in &config.resources {
        let resource = Resource::decode(name.kind, &entry.bytes).unwrap();
        text.push_str(&format!("\n{name} @{}\n{resource:#?}\n", entry.version));
    }
    text
}

/// The names of the resources in a configuration.
pub fn names(config: &ConfigSet) -> Vec<String> {
    config.resources.keys().map(ToString::to_string).collect()
}
