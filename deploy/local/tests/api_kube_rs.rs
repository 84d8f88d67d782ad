//! The API server as kube-rs uses it.

mod api_support;

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Pod, Service, ServiceAccount};
use kube::ResourceExt;
use kube::api::{
    Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy, WatchEvent, WatchParams,
};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

const PATIENCE: Duration = Duration::from_secs(10);

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).expect("the object is well-formed")
}

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let server = api_support::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let made = maps
        .create(&PostParams::default(), &object(json!({"metadata": {"name": "k"}, "data": {"a": "1"}})))
        .await
        .unwrap();
    assert_eq!(made.metadata.namespace.as_deref(), Some("default"));
    assert!(made.metadata.uid.is_some() && made.metadata.creation_timestamp.is_some());

    let again = maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "k"}}))).await;
    let kube::Error::Api(status) = again.unwrap_err() else { panic!("a refusal is a Status") };
    assert_eq!(
        (status.code, status.reason.as_str(), status.message.as_str()),
        (409, "AlreadyExists", "configmaps \"k\" already exists")
    );

    let merged = maps.patch("k", &PatchParams::default(), &Patch::Merge(json!({"data": {"b": "2"}}))).await.unwrap();
    assert_eq!(merged.data.clone().unwrap().len(), 2);
    let replaced = maps.replace("k", &PostParams::default(), &merged).await.unwrap();
    assert_eq!(replaced.metadata.resource_version, merged.metadata.resource_version, "nothing changed");
    let stale = maps.replace("k", &PostParams::default(), &made).await;
    assert!(matches!(stale, Err(kube::Error::Api(s)) if s.code == 409 && s.reason == "Conflict"));

    let listed = maps.list(&ListParams::default().fields("metadata.name=k")).await.unwrap();
    assert_eq!(listed.items.len(), 1);
    maps.delete("k", &DeleteParams::default()).await.unwrap();
    assert!(maps.get_opt("k").await.unwrap().is_none());
    server.api.stop().await;
}

#[tokio::test]
async fn a_watcher_sees_every_change() {
    let server = api_support::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let mut seen = std::pin::pin!(watcher(maps.clone(), config.labels("t=1")).applied_objects());
        let write = async {
            for i in 0..5 {
                let map = object(json!({"metadata": {"name": format!("w{i}"), "labels": {"t": "1"}}}));
                maps.create(&PostParams::default(), &map).await.unwrap();
            }
        };
        let read = async {
            let mut names = Vec::new();
            while names.len() < 5 {
                let map =
                    tokio::time::timeout(PATIENCE, seen.try_next()).await.expect("an event in time").unwrap().unwrap();
                names.push(map.metadata.name.unwrap());
            }
            names
        };
        let (_, mut names) = tokio::join!(write, read);
        names.sort();
        assert_eq!(names, ["w0", "w1", "w2", "w3", "w4"]);
        maps.delete_collection(&DeleteParams::default(), &ListParams::default().labels("t=1")).await.unwrap();
    }
    server.api.stop().await;
}

#[tokio::test]
async fn pods_get_their_account_token_volume_and_defaults() {
    let server = api_support::start().await;
    let pods: Api<Pod> = Api::namespaced(server.client.clone(), "default");
    let pod = object(
        json!({"metadata": {"generateName": "p-"}, "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]}}),
    );
    let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
    let spec = pod.spec.unwrap();
    assert_eq!(spec.service_account_name.as_deref(), Some("default"));
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    let mounts = spec.containers[0].volume_mounts.as_ref().unwrap();
    assert_eq!(mounts[0].mount_path, "/var/run/secrets/kubernetes.io/serviceaccount");
    assert!(spec.volumes.unwrap()[0].name.starts_with("kube-api-access-"));
    assert_eq!(pod.status.unwrap().phase.as_deref(), Some("Pending"));
    server.api.stop().await;
}

#[tokio::test]
async fn a_bound_pod_stays_until_its_node_lets_it_go() {
    let server = api_support::start().await;
    let pods: Api<Pod> = Api::namespaced(server.client.clone(), "default");
    let pod = object(
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}),
    );
    pods.create(&PostParams::default(), &pod).await.unwrap();
    pods.patch_status(
        "p",
        &PatchParams::default(),
        &Patch::Merge(json!({"status": {"phase": "Running", "podIP": "10.244.0.2"}})),
    )
    .await
    .unwrap();
    let left = pods.delete("p", &DeleteParams::default()).await.unwrap().left().expect("the pod is still there");
    assert!(left.metadata.deletion_timestamp.is_some());
    assert_eq!(left.metadata.deletion_grace_period_seconds, Some(30));
    pods.delete("p", &DeleteParams::default().grace_period(0)).await.unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
    server.api.stop().await;
}

#[tokio::test]
async fn services_get_addresses_of_their_own() {
    let server = api_support::start().await;
    let services: Api<Service> = Api::namespaced(server.client.clone(), "default");
    let kubernetes = services.get("kubernetes").await.unwrap();
    assert_eq!(kubernetes.spec.unwrap().cluster_ip.as_deref(), Some("10.96.0.1"));
    let mut addresses = Vec::new();
    for name in ["a", "b"] {
        let service =
            object(json!({"metadata": {"name": name}, "spec": {"selector": {"app": "x"}, "ports": [{"port": 80}]}}));
        let service = services.create(&PostParams::default(), &service).await.unwrap();
        addresses.push(service.spec.unwrap().cluster_ip.unwrap());
    }
    assert_ne!(addresses[0], addresses[1]);
    assert!(addresses.iter().all(|a| a.starts_with("10.")));
    let taken =
        object(json!({"metadata": {"name": "c"}, "spec": {"clusterIP": addresses[0], "ports": [{"port": 80}]}}));
    assert!(matches!(services.create(&PostParams::default(), &taken).await, Err(kube::Error::Api(s)) if s.code == 422));
    server.api.stop().await;
}

#[tokio::test]
async fn deployments_scale_and_their_dependents_go_with_them() {
    let server = api_support::start().await;
    let client = server.client.clone();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let deployment = object(json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}));
    let made = deployments.create(&PostParams::default(), &deployment).await.unwrap();
    assert_eq!((made.spec.replicas, made.metadata.generation), (Some(1), Some(1)));
    let scaled = deployments
        .patch_scale("d", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 3}})))
        .await
        .unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(3));
    assert_eq!(deployments.get("d").await.unwrap().metadata.generation, Some(2));

    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let owner = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": made.metadata.uid, "controller": true, "blockOwnerDeletion": true});
    let owned = object(json!({"metadata": {"name": "owned", "ownerReferences": [owner]}}));
    maps.create(&PostParams::default(), &owned).await.unwrap();
    let foreground =
        DeleteParams { propagation_policy: Some(PropagationPolicy::Foreground), ..DeleteParams::default() };
    deployments.delete("d", &foreground).await.unwrap();
    let gone = await_condition(deployments.clone(), "d", |d: Option<&Deployment>| d.is_none());
    tokio::time::timeout(PATIENCE, gone).await.expect("the deployment goes in time").unwrap();
    assert!(maps.get_opt("owned").await.unwrap().is_none());
    server.api.stop().await;
}

#[tokio::test]
async fn a_namespace_takes_its_content_along() {
    let server = api_support::start().await;
    let client = server.client.clone();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &object(json!({"metadata": {"name": "n"}}))).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "n");
    assert!(accounts.get_opt("default").await.unwrap().is_some());
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "n");
    let held = object(json!({"metadata": {"name": "held", "finalizers": ["example.com/hold"]}}));
    maps.create(&PostParams::default(), &held).await.unwrap();
    namespaces.delete("n", &DeleteParams::default()).await.unwrap();
    let refused = maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "late"}}))).await;
    assert!(matches!(refused, Err(kube::Error::Api(s)) if s.code == 403));
    maps.patch(
        "held",
        &PatchParams::default(),
        &Patch::Json::<()>(object(json!([{"op": "remove", "path": "/metadata/finalizers"}]))),
    )
    .await
    .unwrap();
    let gone = await_condition(namespaces.clone(), "n", |n: Option<&Namespace>| n.is_none());
    tokio::time::timeout(PATIENCE, gone).await.expect("the namespace goes in time").unwrap();
    assert!(maps.list(&ListParams::default()).await.unwrap().items.is_empty());
    server.api.stop().await;
}

#[tokio::test]
async fn many_watchers_read_the_same_stream() {
    let server = api_support::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let watchers: Vec<_> = (0..50)
        .map(|_| {
            let stream = watcher(maps.clone(), watcher::Config::default().labels("many=1")).applied_objects();
            tokio::spawn(async move {
                let mut stream = std::pin::pin!(stream.take(20));
                let mut names = Vec::new();
                while let Some(map) = stream.try_next().await.unwrap() {
                    names.push(map.metadata.name.unwrap());
                }
                names.sort();
                names.dedup();
                names.len()
            })
        })
        .collect();
    for i in 0..20 {
        let map = object(json!({"metadata": {"name": format!("m{i}"), "labels": {"many": "1"}}}));
        maps.create(&PostParams::default(), &map).await.unwrap();
    }
    for watching in watchers {
        assert_eq!(tokio::time::timeout(PATIENCE, watching).await.expect("in time").unwrap(), 20);
    }
    server.api.stop().await;
}

#[tokio::test]
async fn a_restarted_server_remembers_everything() {
    let server = api_support::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let made = maps
        .create(&PostParams::default(), &object(json!({"metadata": {"name": "kept"}, "data": {"a": "1"}})))
        .await
        .unwrap();
    maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "gone"}}))).await.unwrap();
    maps.delete("gone", &DeleteParams::default()).await.unwrap();
    let ca = server.api.ca_pem().to_owned();
    let version = maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    server.api.stop().await;

    let server = api_support::start_in(server.dir).await;
    assert_eq!(server.api.ca_pem(), ca, "clients needn't learn a new CA");
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    assert_eq!(maps.get("kept").await.unwrap(), made);
    assert!(maps.get_opt("gone").await.unwrap().is_none());
    let later: u64 =
        maps.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap().parse().unwrap();
    assert!(later >= version.parse().unwrap(), "versions never go back");
    server.api.stop().await;
}

#[tokio::test]
async fn an_apply_merges_by_field_ownership() {
    let server = api_support::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let patch = |data: serde_json::Value| {
        Patch::Apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "s"}, "data": data}))
    };
    let alpha = PatchParams::apply("alpha");
    let made = maps.patch("s", &alpha, &patch(json!({"a": "1", "b": "2"}))).await.unwrap();
    let again = maps.patch("s", &alpha, &patch(json!({"a": "1", "b": "2"}))).await.unwrap();
    assert_eq!(again.metadata.resource_version, made.metadata.resource_version, "nothing changed");
    let beta = PatchParams::apply("beta");
    let conflict = maps.patch("s", &beta, &patch(json!({"b": "9"}))).await;
    let Err(kube::Error::Api(status)) = conflict else { panic!("beta doesn't own b") };
    assert_eq!(
        (status.code, status.message.as_str()),
        (409, "Apply failed with 1 conflict: conflict with \"alpha\": .data.b")
    );
    let forced = maps.patch("s", &beta.force(), &patch(json!({"b": "9"}))).await.unwrap();
    assert_eq!(forced.data.unwrap()["b"], "9");
    let dropped = maps.patch("s", &alpha, &patch(json!({}))).await.unwrap();
    assert_eq!(dropped.data.unwrap().keys().collect::<Vec<_>>(), ["b"]);
    server.api.stop().await;
}

#[tokio::test]
async fn a_token_says_which_pod_it_belongs_to_until_the_pod_is_gone() {
    use k8s_openapi::api::authentication::v1::{TokenRequest, TokenReview};
    let server = api_support::start().await;
    let pods: Api<Pod> = Api::namespaced(server.client.clone(), "default");
    let pod = object(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    let pod = pods.create(&PostParams::default(), &pod).await.unwrap();
    let accounts: Api<ServiceAccount> = Api::namespaced(server.client.clone(), "default");
    let bound = json!({"kind": "Pod", "apiVersion": "v1", "name": "p", "uid": pod.metadata.uid});
    let spec = json!({"audiences": ["fsm"], "expirationSeconds": 3600, "boundObjectRef": bound});
    let request: TokenRequest = object(json!({"spec": spec}));
    let made = accounts.create_token_request("default", &PostParams::default(), &request).await.unwrap();
    let token = made.status.unwrap().token.unwrap();

    let reviews: Api<TokenReview> = Api::all(server.client.clone());
    let review = async |token: &str, audience: &str| {
        let review = object(json!({"spec": {"token": token, "audiences": [audience]}}));
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap()
    };
    let status = review(&token, "fsm").await;
    assert_eq!((status.authenticated, status.audiences), (Some(true), Some(vec!["fsm".into()])));
    let user = status.user.unwrap();
    assert_eq!(user.username.as_deref(), Some("system:serviceaccount:default:default"));
    let extra = user.extra.unwrap();
    assert_eq!(extra["authentication.kubernetes.io/pod-name"], ["p"]);
    assert_eq!(extra["authentication.kubernetes.io/pod-uid"], [pod.metadata.uid.unwrap()]);

    assert_eq!(review(&token, "other").await.authenticated, None, "another audience");
    assert_eq!(review("nonsense", "fsm").await.authenticated, None);
    // For the API itself it is no credential: it is for another audience.
    let mut config = server.api.client_config().unwrap();
    config.auth_info.token = Some(token.clone().into());
    let stranger: Api<Pod> = Api::namespaced(kube::Client::try_from(config).unwrap(), "default");
    assert!(matches!(stranger.get("p").await, Err(kube::Error::Api(s)) if s.code == 401));

    pods.delete("p", &DeleteParams::default()).await.unwrap();
    let status = review(&token, "fsm").await;
    assert_eq!(status.authenticated, None);
    assert!(status.error.unwrap().contains("the pod default/p of the token is gone"));
    server.api.stop().await;
}

#[tokio::test]
async fn without_credentials_nothing_is_shown_but_health_and_version() {
    let server = api_support::start().await;
    let mut config = server.api.client_config().unwrap();
    config.auth_info.token = None;
    let nobody = kube::Client::try_from(config).unwrap();
    nobody.apiserver_version().await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(nobody, "default");
    assert!(matches!(maps.get("k").await, Err(kube::Error::Api(s)) if s.code == 403 && s.reason == "Forbidden"));
    server.api.stop().await;
}

#[tokio::test]
async fn a_custom_resource_lives_as_long_as_its_definition() {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
    use kube::core::{ApiResource, DynamicObject, GroupVersionKind};
    let server = api_support::start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client.clone());
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                "spec": {"type": "object", "properties": {"size": {"type": "integer", "maximum": 10}, "color": {"type": "string", "default": "red"}}},
                "status": {"type": "object", "properties": {"phase": {"type": "string"}}}}}}})
    };
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gizmos.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "gizmos", "kind": "Gizmo"}, "versions": [version("v1", true), version("v1beta1", false)]}});
    let params = PatchParams::apply("test").force();
    definitions.patch("gizmos.example.com", &params, &Patch::Apply(&definition)).await.unwrap();
    let established = kube::runtime::conditions::is_crd_established();
    let ready = await_condition(definitions.clone(), "gizmos.example.com", established);
    tokio::time::timeout(PATIENCE, ready).await.expect("it is served in time").unwrap();

    let kind = |version: &str| ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", version, "Gizmo"));
    let gizmos: Api<DynamicObject> = Api::namespaced_with(server.client.clone(), "default", &kind("v1"));
    let gizmo = json!({"apiVersion": "example.com/v1", "kind": "Gizmo", "metadata": {"name": "g"}, "spec": {"size": 3, "unknown": 1}, "status": {"phase": "no"}});
    let made = gizmos.create(&PostParams::default(), &object(gizmo)).await.unwrap();
    assert_eq!((&made.data["spec"], made.data.get("status")), (&json!({"size": 3, "color": "red"}), None));
    let refused = gizmos.patch("g", &PatchParams::default(), &Patch::Merge(json!({"spec": {"size": 11}}))).await;
    assert!(matches!(refused, Err(kube::Error::Api(s)) if s.code == 422));
    gizmos
        .patch_status(
            "g",
            &PatchParams::default(),
            &Patch::Merge(json!({"status": {"phase": "on"}, "spec": {"size": 9}})),
        )
        .await
        .unwrap();
    let older: Api<DynamicObject> = Api::namespaced_with(server.client.clone(), "default", &kind("v1beta1"));
    let seen = older.get("g").await.unwrap();
    assert_eq!(
        (seen.types.unwrap().api_version.as_str(), &seen.data["spec"]["size"]),
        ("example.com/v1beta1", &json!(3))
    );
    assert_eq!((&seen.data["status"]["phase"], seen.metadata.generation), (&json!("on"), Some(1)));

    definitions.delete("gizmos.example.com", &DeleteParams::default()).await.unwrap();
    let gone =
        await_condition(definitions.clone(), "gizmos.example.com", |d: Option<&CustomResourceDefinition>| d.is_none());
    tokio::time::timeout(PATIENCE, gone).await.expect("it goes in time").unwrap();
    assert!(matches!(gizmos.list(&ListParams::default()).await, Err(kube::Error::Api(s)) if s.code == 404));
    server.api.stop().await;
}

#[tokio::test]
async fn a_watch_from_a_version_before_the_start_is_told_to_list_again() {
    let server = api_support::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "k"}}))).await.unwrap();
    server.api.stop().await;
    let server = api_support::start_in(server.dir).await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client.clone(), "default");
    let mut events = maps.watch(&kube::api::WatchParams::default(), "1").await.unwrap().boxed();
    let first = tokio::time::timeout(PATIENCE, events.try_next()).await.expect("an event in time");
    let Ok(Some(kube::api::WatchEvent::Error(status))) = first else { panic!("not an error event: {first:?}") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    server.api.stop().await;
}

/// A watch that begins with what exists once missed what its own client had just been told is stored.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_streaming_list_has_what_was_written_before() {
    let server = api_support::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client.clone());
    for i in 0..200 {
        let name = format!("written-{i}");
        let map = serde_json::from_value(json!({"metadata": {"name": name}})).expect("a ConfigMap");
        maps.create(&PostParams::default(), &map).await.expect("it is made");
        let only = WatchParams::default().fields(&format!("metadata.name={name}")).initial_events();
        let mut events = maps.watch(&only, "0").await.expect("a watch").boxed();
        let first = events.next().await.expect("an event").expect("an event");
        assert!(matches!(&first, WatchEvent::Added(map) if map.name_any() == name), "{first:?}");
    }
    server.api.stop().await;
}
