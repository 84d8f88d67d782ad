//! Requests are held to roles and bindings, and reviews tell the truth about them.

mod api_support;

use std::time::Duration;

use api_support::TestServer;
use k8s_openapi::api::authorization::v1::SelfSubjectAccessReview;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, Role, RoleBinding};
use kube::Client;
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(10);

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the object is well-formed")
}

/// A client with the rights of the ServiceAccount `default/default`.
async fn account(server: &TestServer) -> Client {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(server.client.clone());
    let request = object(json!({"spec": {"audiences": []}}));
    let token = accounts.create_token_request("default", &PostParams::default(), &request).await.expect("a token");
    let mut config = server.api.client_config().expect("a configuration");
    config.auth_info.token = token.status.and_then(|status| status.token).map(Into::into);
    Client::try_from(config).expect("a client")
}

fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("not refused: {other:?}"),
    }
}

async fn bind(server: &TestServer, name: &str, kind: &str, role: &str) {
    let bindings: Api<RoleBinding> = Api::default_namespaced(server.client.clone());
    let binding = json!({"metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]});
    bindings.create(&PostParams::default(), &object(binding)).await.expect("a binding");
}

#[tokio::test]
async fn an_account_may_do_what_its_bindings_say() {
    let server = api_support::start().await;
    let client = account(&server).await;
    let (maps, secrets): (Api<ConfigMap>, Api<Secret>) =
        (Api::default_namespaced(client.clone()), Api::default_namespaced(client.clone()));
    let kube::Error::Api(refused) = maps.list(&ListParams::default()).await.unwrap_err() else { panic!("a Status") };
    assert_eq!(
        refused.message,
        "configmaps is forbidden: User \"system:serviceaccount:default:default\" cannot list resource \"configmaps\" in API group \"\" in the namespace \"default\""
    );
    bind(&server, "viewers", "ClusterRole", "view").await;
    maps.list(&ListParams::default()).await.unwrap();
    assert_eq!(code(maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "m"}}))).await), 403);
    assert_eq!(code(secrets.list(&ListParams::default()).await), 403);
    assert_eq!(code(Api::<ConfigMap>::all(client.clone()).list(&ListParams::default()).await), 403);
    // A role within a namespace is about the namespace, too.
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.get("default").await.unwrap();
    assert_eq!(code(namespaces.get("kube-system").await), 403);

    let reviews: Api<SelfSubjectAccessReview> = Api::all(client);
    for (resource, allowed) in [("configmaps", true), ("secrets", false)] {
        let attributes = json!({"namespace": "default", "verb": "list", "resource": resource});
        let review = object(json!({"metadata": {}, "spec": {"resourceAttributes": attributes}}));
        let answer = reviews.create(&PostParams::default(), &review).await.unwrap();
        assert_eq!(answer.status.map(|status| status.allowed), Some(allowed), "{resource}");
    }
    server.api.stop().await;
}

#[tokio::test]
async fn nobody_gives_away_more_than_they_have() {
    let server = api_support::start().await;
    bind(&server, "administrators", "ClusterRole", "admin").await;
    let client = account(&server).await;
    let roles: Api<Role> = Api::default_namespaced(client.clone());
    let role = |name: &str, resource: &str| {
        object(
            json!({"metadata": {"name": name}, "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]}),
        )
    };
    roles.create(&PostParams::default(), &role("held", "configmaps")).await.unwrap();
    assert_eq!(code(roles.create(&PostParams::default(), &role("not-held", "nodes")).await), 403);
    let bindings: Api<RoleBinding> = Api::default_namespaced(client);
    let everything = object(json!({"metadata": {"name": "b"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"}}));
    assert_eq!(code(bindings.create(&PostParams::default(), &everything).await), 403);
    server.api.stop().await;
}

#[tokio::test]
async fn roles_are_put_together_from_those_with_their_label() {
    let server = api_support::start().await;
    let roles: Api<ClusterRole> = Api::all(server.client.clone());
    let splits = json!({"metadata": {"name": "splits", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}},
        "rules": [{"apiGroups": ["split.smi-spec.io"], "resources": ["trafficsplits"], "verbs": ["get"]}]});
    roles.create(&PostParams::default(), &object(splits)).await.unwrap();
    for role in ["view", "edit", "admin"] {
        let has_splits = |role: Option<&ClusterRole>| {
            role.and_then(|role| role.rules.as_ref()).is_some_and(|rules| {
                rules.iter().any(|rule| rule.api_groups.iter().flatten().any(|group| group == "split.smi-spec.io"))
            })
        };
        let seen = await_condition(roles.clone(), role, has_splits);
        tokio::time::timeout(PATIENCE, seen).await.expect(role).unwrap();
    }
    server.api.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_asks_what_may_be_done() {
    let Some(server) = api_support::start_for_kubectl().await else { return };
    bind(&server, "viewers", "ClusterRole", "view").await;
    server
        .kubectl(|kubectl| {
            let asks = |words: &str| {
                kubectl.run(&format!("auth can-i {words} --as=system:serviceaccount:default:default"), "").out
            };
            assert_eq!(asks("list pods"), "yes\n");
            assert_eq!(asks("delete pods"), "no\n");
            assert_eq!(asks("get secrets"), "no\n");
            assert_eq!(asks("list pods -n kube-system"), "no\n");
            assert_eq!(kubectl.ok("auth can-i delete nodes", ""), "yes\n");
            let rules = asks("--list");
            assert!(rules.contains("configmaps") && rules.contains("selfsubjectaccessreviews"), "{rules}");
            let refused = kubectl.run("get secrets --as=jane", "");
            assert!(refused.err.contains("User \"jane\" cannot list resource \"secrets\""), "{}", refused.err);
        })
        .await;
    server.api.stop().await;
}
