//! The controllers a mesh's workloads need: Deployments, ReplicaSets, StatefulSets, DaemonSets, Jobs, EndpointSlices, and a scheduler.
//!
//! Each is driven by watches and reconciles one object at a time. A reconcile reads the objects it decides on from the API
//! itself, not from a cache: the API is in the same process, and a decision on stale data would make pods twice.

mod daemonset;
mod deployment;
mod endpoints;
mod history;
mod job;
mod job_plan;
mod owned;
mod placement;
mod pods;
mod progress;
mod replicaset;
mod revision;
mod rollout;
mod scheduler;
mod statefulset;

use std::fmt::Debug;
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::controller::{self, Action, Controller};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;

pub(crate) use pods::is_ready;

use crate::event::Recorder;
use crate::informer::Informer;
use crate::service::ZONE;
use crate::tasks::Tasks;

/// How long after a failed reconcile the next attempt follows, if no change comes first.
const RETRY: Duration = Duration::from_secs(1);

/// Why an object could not be brought to its desired state this time.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    #[error("the API refused: {0}")]
    Api(#[from] kube::Error),
    #[error("{kind} {name}: {field} is not usable: {why}")]
    Invalid { kind: &'static str, name: String, field: &'static str, why: String },
}

/// What every controller works with.
#[derive(Clone)]
pub(crate) struct Context {
    pub client: Client,
    pub events: Recorder,
    pub nodes: Informer<Node>,
}

impl Context {
    /// The zone a node is in.
    pub fn zone_of(&self, node: &str) -> Option<String> {
        let node = self.nodes.store.get(&ObjectRef::new(node))?;
        node.labels().get(ZONE).cloned()
    }
}

/// Starts all workload controllers; they end with `tasks`.
pub fn start(client: &Client, events: &Recorder, nodes: &Informer<Node>, tasks: &Tasks) {
    let any = watcher::Config::default;
    let context = Arc::new(Context { client: client.clone(), events: events.clone(), nodes: nodes.clone() });
    let pods = || Api::<Pod>::all(client.clone());
    let sets = || Api::<ReplicaSet>::all(client.clone());

    let controller = Controller::new(Api::<Deployment>::all(client.clone()), any()).owns(sets(), any());
    run(controller, deployment::reconcile, &context, tasks);
    let controller = Controller::new(sets(), any()).owns(pods(), any());
    run(controller, replicaset::reconcile, &context, tasks);
    let controller = Controller::new(Api::<StatefulSet>::all(client.clone()), any()).owns(pods(), any());
    run(controller, statefulset::reconcile, &context, tasks);

    let controller = Controller::new(Api::<DaemonSet>::all(client.clone()), any());
    let daemons = controller.store();
    let all = move |_: Node| daemons.state().iter().map(|set| ObjectRef::from_obj(set.as_ref())).collect::<Vec<_>>();
    let controller = controller.owns(pods(), any()).watches(Api::<Node>::all(client.clone()), any(), all);
    run(controller, daemonset::reconcile, &context, tasks);
    let controller = Controller::new(Api::<Job>::all(client.clone()), any()).owns(pods(), any());
    run(controller, job::reconcile, &context, tasks);

    let controller = Controller::new(Api::<Service>::all(client.clone()), any());
    let services = controller.store();
    let controller =
        controller.owns(Api::<EndpointSlice>::all(client.clone()), any()).watches(pods(), any(), move |pod| {
            let namespace = pod.namespace();
            let near = services.state_filter(|service| service.namespace() == namespace);
            near.into_iter().map(|service| ObjectRef::from_obj(service.as_ref())).collect::<Vec<_>>()
        });
    run(controller, endpoints::reconcile, &context, tasks);

    scheduler::start(client, nodes, tasks);
}

fn run<K, F, R>(controller: Controller<K>, reconcile: R, context: &Arc<Context>, tasks: &Tasks)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash,
    F: Future<Output = Result<Action, ReconcileError>> + Send + 'static,
    R: FnMut(Arc<K>, Arc<Context>) -> F + Send + 'static,
{
    let retry = |object: Arc<K>, error: &ReconcileError, _: Arc<Context>| {
        let (kind, namespace, name) = (K::kind(&()), object.namespace().unwrap_or_default(), object.name_any());
        tracing::debug!(%kind, namespace, name, %error, "reconcile will be tried again");
        Action::requeue(RETRY)
    };
    let outcomes = controller.run(reconcile, retry, Arc::clone(context));
    tasks.spawn(drain(outcomes));
}

/// A controller does its work as its stream is read. Its errors have been logged where they arose or are interrupted watches.
async fn drain<T, E: std::error::Error + 'static, Q: std::error::Error + 'static>(
    outcomes: impl Stream<Item = Result<T, controller::Error<E, Q>>>,
) {
    let mut outcomes = std::pin::pin!(outcomes);
    while let Some(outcome) = outcomes.next().await {
        if let Err(controller::Error::QueueError(error)) = outcome {
            tracing::debug!(%error, "controller watch interrupted");
        }
    }
}
