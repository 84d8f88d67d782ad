use serde_json::json;

use super::*;
use crate::core::Core;
use crate::fixture::{History, mesh_config, namespace_of_mesh};

fn injection(history: &History) -> Injection {
    let mut core = Core::default();
    core.apply(&history.0);
    core.injection().clone()
}

fn shop() -> Injection {
    let mut history = History::started();
    history.apply(namespace_of_mesh("shop"));
    injection(&history)
}

fn decide(pod: &Value) -> Verdict {
    decide_injection(&shop(), "shop", pod, "0000-uuid")
}

fn refusal(pod: &Value) -> String {
    match decide(pod) {
        Verdict::Refuse { message } => message,
        other => panic!("{other:?}"),
    }
}

fn annotated(name: &str, value: &str) -> Value {
    json!({"metadata": {"annotations": {name: value}}, "spec": {"containers": [{"name": "app"}]}})
}

/// The pod after the patch.
fn patched(state: &Injection, pod: &Value) -> Value {
    let Verdict::Patch { operations, .. } = decide_injection(state, "shop", pod, "0000-uuid") else {
        panic!("{:?}", decide_injection(state, "shop", pod, "0000-uuid"))
    };
    let mut patched = pod.clone();
    for PatchOp::Add { path, value } in operations {
        let (parent, member) = path.rsplit_once('/').unwrap();
        patched.pointer_mut(parent).unwrap()[member] = value;
    }
    patched
}

#[test]
fn a_pod_gets_a_sidecar_and_its_probes_go_through_it() {
    let pod = json!({
        "metadata": {"generateName": "web-", "labels": {"app": "web"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-1", "controller": true}]},
        "spec": {
            "serviceAccountName": "web",
            "containers": [{
                "name": "web", "image": "web:1", "ports": [{"name": "http", "containerPort": 8080}],
                "livenessProbe": {"httpGet": {"path": "/alive", "port": "http", "httpHeaders": [{"name": "X", "value": "y"}]}, "timeoutSeconds": 3},
                "readinessProbe": {"httpGet": {"port": 8443, "scheme": "HTTPS", "path": "/ready"}},
                "startupProbe": {"tcpSocket": {"port": 8080}, "failureThreshold": 9},
            }, {
                "name": "helper", "image": "helper:1",
                "livenessProbe": {"exec": {"command": ["true"]}},
                "readinessProbe": {"grpc": {"port": 9000}},
                "startupProbe": {"httpGet": {"host": "example.com", "port": 80}},
            }],
            "initContainers": [{"name": "migrate", "image": "web:1"}],
            "volumes": [{"name": "data", "emptyDir": {}}],
        },
    });
    insta::assert_json_snapshot!(patched(&shop(), &pod));
}

#[test]
fn settings_of_mesh_namespace_and_pod_are_joined() {
    let mut history = History::started();
    let mut namespace = namespace_of_mesh("shop");
    namespace["metadata"]["annotations"] = json!({
        "flomesh.io/sidecar-injection": "enabled", "flomesh.io/metrics": "enabled",
        "flomesh.io/sidecar-image": "ns/proxy:2", "flomesh.io/sidecar-resource-limits-cpu": "2",
    });
    history.apply(namespace);
    let mut config = mesh_config(false);
    config["spec"]["traffic"]["outboundPortExclusionList"] = json!([3306]);
    config["spec"]["sidecar"] = json!({"sidecarImage": "mesh/proxy:1", "logLevel": "fatal",
        "localDNSProxy": {"enable": true},
        "resources": {"limits": {"memory": "1G"}, "requests": {"memory": "64Mi"}}});
    history.apply(config);
    let pod = json!({
        "metadata": {"annotations": {
            "flomesh.io/outbound-port-exclusion-list": "6379, 3306",
            "flomesh.io/outbound-ip-range-exclusion-list": "10.1.0.0/16"}},
        "spec": {"containers": [{"name": "app"}]},
    });
    let patched = patched(&injection(&history), &pod);
    let annotations = &patched["metadata"]["annotations"];
    assert_eq!(annotations["flomesh.io/outbound-port-exclusion-list"], "3306,6379");
    assert_eq!(annotations["flomesh.io/outbound-ip-range-exclusion-list"], "10.1.0.0/16");
    assert_eq!(annotations["prometheus.io/port"], "15010");
    assert_eq!(annotations["flomesh.io/dns-capture"], "enabled");
    let sidecar = &patched["spec"]["initContainers"][0];
    assert_eq!(sidecar["image"], "ns/proxy:2");
    assert_eq!(sidecar["resources"], json!({"limits": {"cpu": "2"}, "requests": {"memory": "64Mi"}}));
    let environment = sidecar["env"].as_array().unwrap();
    assert!(environment.contains(&json!({"name": "FSM_LOG", "value": "error"})));
}

#[test]
fn a_copy_of_an_injected_pod_gets_a_sidecar_of_its_own_once() {
    let pod = json!({"metadata": {}, "spec": {"containers": [
        {"name": "app", "livenessProbe": {"httpGet": {"path": "/alive", "port": 8080}}}]}});
    let once = patched(&shop(), &pod);
    assert_eq!(patched(&shop(), &once), once);
}

#[test]
fn some_pods_are_left_alone() {
    let plain = json!({"metadata": {}, "spec": {"containers": [{"name": "app"}]}});
    let skipped = |state: &Injection, namespace: &str, pod: &Value| match decide_injection(state, namespace, pod, "u") {
        Verdict::Skip { reason } => reason,
        other => panic!("{other:?}"),
    };
    let state = shop();
    assert!(skipped(&state, "kube-system", &plain).contains("kube-system"));
    assert!(skipped(&state, "fsm-system", &plain).contains("fsm-system"));
    assert!(skipped(&state, "elsewhere", &plain).contains("flomesh.io/monitored-by=fsm"));
    let mut host_network = plain.clone();
    host_network["spec"]["hostNetwork"] = json!(true);
    assert!(skipped(&state, "shop", &host_network).contains("network of its node"));
    assert!(skipped(&state, "shop", &annotated("flomesh.io/sidecar-injection", "No")).contains("says so"));
    let mut history = History::started();
    let mut namespace = namespace_of_mesh("shop");
    namespace["metadata"]["annotations"] = json!({});
    history.apply(namespace);
    assert!(skipped(&injection(&history), "shop", &plain).contains("neither pod nor namespace"));
}

#[test]
fn a_pods_own_switch_wins() {
    let mut history = History::started();
    let mut namespace = namespace_of_mesh("shop");
    namespace["metadata"]["annotations"] = json!({"flomesh.io/sidecar-injection": "disabled"});
    history.apply(namespace);
    let state = injection(&history);
    let pod = annotated("flomesh.io/sidecar-injection", "YES");
    assert!(matches!(decide_injection(&state, "shop", &pod, "u"), Verdict::Patch { .. }));
}

#[test]
fn what_cannot_be_is_refused_with_the_remedy() {
    for (annotation, value) in [
        ("flomesh.io/sidecar-injection", "maybe"),
        ("flomesh.io/inbound-port-exclusion-list", "80,http"),
        ("flomesh.io/dns-capture", "perhaps"),
        ("flomesh.io/outbound-port-exclusion-list", "70000"),
        ("flomesh.io/outbound-port-exclusion-list", "0"),
        ("flomesh.io/outbound-ip-range-inclusion-list", "10.0.0.1"),
        ("flomesh.io/sidecar-resource-limits-memory", "lots"),
        ("flomesh.io/hold-application-until-proxy-starts", "perhaps"),
    ] {
        let message = refusal(&annotated(annotation, value));
        assert!(message.contains(annotation) && message.contains("write"), "{message}");
    }
    let message = refusal(&json!({"metadata": {}, "spec": {"containers": [
        {"name": "app", "livenessProbe": {"httpGet": {"port": "web"}}}]}}));
    assert!(message.contains("container app: livenessProbe") && message.contains("name one of them"), "{message}");
}

#[test]
fn what_has_no_effect_is_said() {
    let pod = annotated("flomesh.io/hold-application-until-proxy-starts", "disabled");
    let Verdict::Patch { warnings, .. } = decide(&pod) else { panic!("not injected") };
    assert_eq!(warnings.len(), 1);
}
