//! What programs are built of on kube-rs: reflectors, controllers with finalizers, every kind of patch, leases.

mod api_support;

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::finalizer::{Event, finalizer};
use kube::runtime::reflector::{self, ObjectRef, reflector};
use kube::runtime::wait::await_condition;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

fn object<T: DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("the object is well-formed")
}

fn code<T: std::fmt::Debug>(result: Result<T, kube::Error>) -> u16 {
    match result {
        Err(kube::Error::Api(status)) => status.code,
        other => panic!("not refused: {other:?}"),
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work).await.expect("in time")
}

#[tokio::test]
async fn a_reflector_holds_what_the_server_has() {
    let server = api_support::start().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(server.client.clone());
    maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "before"}}))).await.unwrap();
    for config in [watcher::Config::default().page_size(1), watcher::Config::default().streaming_lists()] {
        let (store, writer) = reflector::store::<ConfigMap>();
        let mut events = reflector(writer, watcher(maps.clone(), config)).boxed();
        let names = || {
            let mut names: Vec<String> = store.state().iter().map(|map| map.name_any()).collect();
            names.retain(|name| name != "kube-root-ca.crt");
            names.sort();
            names
        };
        let mut until = async |wanted: &[&str]| {
            in_time(async {
                while names() != wanted {
                    events.try_next().await.unwrap().expect("a watch goes on");
                }
            })
            .await;
        };
        until(&["before"]).await;
        maps.create(&PostParams::default(), &object(json!({"metadata": {"name": "later"}}))).await.unwrap();
        until(&["before", "later"]).await;
        maps.delete("later", &DeleteParams::default()).await.unwrap();
        until(&["before"]).await;
        assert!(store.get(&ObjectRef::new("before").within("default")).is_some());
    }
    server.api.stop().await;
}

#[tokio::test]
async fn metadata_is_watched_without_the_rest() {
    let server = api_support::start().await;
    let secrets: Api<Secret> = Api::default_namespaced(server.client.clone());
    let secret = json!({"metadata": {"name": "s", "labels": {"a": "b"}}, "stringData": {"k": "v"}});
    secrets.create(&PostParams::default(), &object(secret)).await.unwrap();
    let shown: Api<PartialObjectMeta<Secret>> = Api::default_namespaced(server.client.clone());
    let mut seen = watcher(shown, watcher::Config::default()).applied_objects().boxed();
    let first = in_time(seen.try_next()).await.unwrap().unwrap();
    assert_eq!((first.name_any().as_str(), first.labels()["a"].as_str()), ("s", "b"));
    server.api.stop().await;
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Failure(#[from] Box<kube::runtime::finalizer::Error<kube::Error>>);

/// Keeps a Secret for each ConfigMap, and a note that it was there after it is gone.
async fn reconcile(map: Arc<ConfigMap>, client: Arc<Client>) -> Result<Action, Failure> {
    let maps: Api<ConfigMap> = Api::default_namespaced((*client).clone());
    let done = finalizer(&maps, "example.com/cleanup", map, async |event| match event {
        Event::Apply(map) => {
            let secrets: Api<Secret> = Api::default_namespaced((*client).clone());
            let owner = kube::Resource::controller_owner_ref(map.as_ref(), &()).expect("it is stored");
            let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": map.name_any(), "ownerReferences": [owner]},
                "stringData": map.data});
            secrets.patch(&map.name_any(), &PatchParams::apply("test").force(), &Patch::Apply(secret)).await?;
            Ok::<_, kube::Error>(Action::await_change())
        }
        Event::Cleanup(map) => {
            let note = object(json!({"metadata": {"name": format!("{}-was-here", map.name_any())}}));
            Api::<Secret>::default_namespaced((*client).clone()).create(&PostParams::default(), &note).await?;
            Ok(Action::await_change())
        }
    });
    Ok(done.await.map_err(Box::new)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_keeps_what_it_owns_and_cleans_up() {
    let server = api_support::start().await;
    let client = server.client.clone();
    let (maps, secrets): (Api<ConfigMap>, Api<Secret>) =
        (Api::default_namespaced(client.clone()), Api::default_namespaced(client.clone()));
    let controller = Controller::new(maps.clone(), watcher::Config::default().labels("controlled=yes"))
        .owns(secrets.clone(), watcher::Config::default())
        .run(reconcile, |_, _, _| Action::requeue(Duration::from_millis(100)), Arc::new(client));
    let running = tokio::spawn(controller.for_each(|_| std::future::ready(())));
    let map = json!({"metadata": {"name": "m", "labels": {"controlled": "yes"}}, "data": {"k": "1"}});
    maps.create(&PostParams::default(), &object(map)).await.unwrap();
    let holds = |value: &'static str| {
        move |secret: Option<&Secret>| {
            let data = secret.and_then(|secret| secret.data.as_ref());
            data.and_then(|data| data.get("k")).is_some_and(|found| found.0 == value.as_bytes())
        }
    };
    let first = in_time(await_condition(secrets.clone(), "m", holds("1"))).await.unwrap().unwrap();
    maps.patch("m", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "2"}}))).await.unwrap();
    in_time(await_condition(secrets.clone(), "m", holds("2"))).await.unwrap();
    // Taken away from under it.
    secrets.delete("m", &DeleteParams::default()).await.unwrap();
    let again = |secret: Option<&Secret>| secret.is_some_and(|secret| secret.uid() != first.uid());
    in_time(await_condition(secrets.clone(), "m", again)).await.unwrap();
    maps.delete("m", &DeleteParams::default()).await.unwrap();
    in_time(await_condition(secrets.clone(), "m", |secret: Option<&Secret>| secret.is_none())).await.unwrap();
    assert!(maps.get_opt("m").await.unwrap().is_none() && secrets.get_opt("m-was-here").await.unwrap().is_some());
    running.abort();
    server.api.stop().await;
}

#[tokio::test]
async fn every_kind_of_patch_does_what_it_says() {
    let server = api_support::start().await;
    let deployments: Api<Deployment> = Api::default_namespaced(server.client.clone());
    let (way, apply) = (PatchParams::default(), PatchParams::apply("applier"));
    let containers = |deployment: &Deployment| -> Vec<(String, Option<String>)> {
        let spec = deployment.spec.template.spec.as_ref().expect("pods have a spec");
        spec.containers.iter().map(|c| (c.name.clone(), c.image.clone())).collect()
    };
    let own = |name: &str, image: &str| (name.to_owned(), Some(image.to_owned()));
    let applied = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {"selector": {"matchLabels": {"app": "d"}}, "template": {"metadata": {"labels": {"app": "d"}},
            "spec": {"containers": [{"name": "a", "image": "a:1"}]}}}});
    deployments.patch("d", &apply, &Patch::Apply(&applied)).await.unwrap();

    // A list is merged by the names of its items.
    let strategic = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "image": "b:1"}]}}}});
    let merged = deployments.patch("d", &way, &Patch::Strategic(strategic)).await.unwrap();
    assert_eq!(containers(&merged), [own("b", "b:1"), own("a", "a:1")]);
    let removal = json!({"spec": {"template": {"spec": {"containers": [{"name": "b", "$patch": "delete"}]}}}});
    let removed = deployments.patch("d", &way, &Patch::Strategic(removal)).await.unwrap();
    assert_eq!(containers(&removed), [own("a", "a:1")]);

    // A list is replaced, and null removes.
    let merge = json!({"metadata": {"annotations": {"x": "1"}},
        "spec": {"template": {"spec": {"containers": [{"name": "c", "image": "c:1"}]}}}});
    let replaced = deployments.patch("d", &way, &Patch::Merge(merge)).await.unwrap();
    assert_eq!((containers(&replaced), replaced.annotations()["x"].as_str()), (vec![own("c", "c:1")], "1"));
    let null = json!({"metadata": {"annotations": {"x": null}}});
    assert!(deployments.patch("d", &way, &Patch::Merge(null)).await.unwrap().annotations().is_empty());

    let json_patch = |operations: Value| Patch::Json::<()>(object(operations));
    let image = "/spec/template/spec/containers/0/image";
    let tested =
        json!([{"op": "test", "path": image, "value": "c:1"}, {"op": "replace", "path": image, "value": "c:2"}]);
    let patched = deployments.patch("d", &way, &json_patch(tested.clone())).await.unwrap();
    assert_eq!(containers(&patched), [own("c", "c:2")]);
    assert_eq!(code(deployments.patch("d", &way, &json_patch(tested)).await), 422);

    // What others have set is theirs; who applies must insist.
    let mut other = applied.clone();
    other["spec"]["template"]["spec"]["containers"] = json!([{"name": "c", "image": "c:9"}]);
    assert_eq!(code(deployments.patch("d", &apply, &Patch::Apply(&other)).await), 409);
    let forced = deployments.patch("d", &apply.clone().force(), &Patch::Apply(&other)).await.unwrap();
    assert_eq!(containers(&forced), [own("c", "c:9")]);

    let status = json!({"spec": {"replicas": 9}, "status": {"readyReplicas": 1, "replicas": 1}});
    let shown = deployments.patch_status("d", &way, &Patch::Merge(status)).await.unwrap();
    assert_eq!((shown.spec.replicas, shown.status.unwrap().ready_replicas), (Some(1), Some(1)));
    let scaled = deployments.patch_scale("d", &way, &Patch::Merge(json!({"spec": {"replicas": 4}}))).await.unwrap();
    assert_eq!(scaled.spec.unwrap().replicas, Some(4));
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    deployments.patch_scale("d", &dry, &Patch::Merge(json!({"spec": {"replicas": 5}}))).await.unwrap();
    assert_eq!(deployments.get("d").await.unwrap().spec.replicas, Some(4));
    server.api.stop().await;
}

#[tokio::test]
async fn a_lease_has_one_holder() {
    let server = api_support::start().await;
    let leases: Api<Lease> = Api::default_namespaced(server.client.clone());
    let held_by = |holder: &str, at: &str| -> Lease {
        object(json!({"metadata": {"name": "leader"}, "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15,
            "acquireTime": "2026-01-01T00:00:00.000000Z", "renewTime": at, "leaseTransitions": 0}}))
    };
    let first = "2026-01-01T00:00:00.000001Z";
    let lease = leases.create(&PostParams::default(), &held_by("a", first)).await.unwrap();
    assert_eq!(code(leases.create(&PostParams::default(), &held_by("b", first)).await), 409);

    // Both saw the same version; who writes first has it.
    let (mut by_a, mut by_b) = (lease.clone(), lease);
    by_a.spec.as_mut().unwrap().renew_time = held_by("a", "2026-01-01T00:00:05.000000Z").spec.unwrap().renew_time;
    by_b.spec.as_mut().unwrap().holder_identity = Some("b".into());
    let renewed = leases.replace("leader", &PostParams::default(), &by_a).await.unwrap();
    assert_eq!(code(leases.replace("leader", &PostParams::default(), &by_b).await), 409);

    // Given up, and taken over.
    let mut released = renewed;
    released.spec.as_mut().unwrap().holder_identity = Some(String::new());
    let released = leases.replace("leader", &PostParams::default(), &released).await.unwrap();
    let mut taken = released.clone();
    taken.spec.as_mut().unwrap().holder_identity = Some("b".into());
    taken.spec.as_mut().unwrap().lease_transitions = Some(1);
    let taken = leases.replace("leader", &PostParams::default(), &taken).await.unwrap();
    assert_eq!(taken.spec.unwrap().holder_identity.as_deref(), Some("b"));
    assert_ne!(taken.metadata.resource_version, released.metadata.resource_version);
    server.api.stop().await;
}
