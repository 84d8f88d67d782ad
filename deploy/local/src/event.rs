//! Kubernetes Events: what the cluster tells users about an object, shown by `kubectl describe`.

use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

use crate::tasks::Tasks;

/// So many kinds of events are remembered for counting; older ones begin again at one.
const REMEMBERED: usize = 1000;

/// Writes events in the background. An event that repeats is counted, not written again.
#[derive(Clone, Debug)]
pub struct Recorder {
    component: Arc<str>,
    queue: mpsc::UnboundedSender<Report>,
}

#[derive(Debug)]
struct Report {
    component: Arc<str>,
    kind: &'static str,
    object: ObjectReference,
    reason: String,
    message: String,
}

impl Recorder {
    pub fn start(client: Client, component: &str, tasks: &Tasks) -> Self {
        let (queue, reports) = mpsc::unbounded_channel();
        tasks.spawn(write(client, reports));
        Self { component: component.into(), queue }
    }

    /// The same queue under another component's name.
    pub fn named(&self, component: &str) -> Self {
        Self { component: component.into(), queue: self.queue.clone() }
    }

    /// Something went as it should.
    pub fn note<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: &str) {
        self.report("Normal", object, reason, message);
    }

    /// Something did not.
    pub fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, message: &str) {
        self.report("Warning", object, reason, message);
    }

    fn report<K: Resource<DynamicType = ()>>(&self, kind: &'static str, object: &K, reason: &str, message: &str) {
        let report = Report {
            component: Arc::clone(&self.component),
            kind,
            object: object.object_ref(&()),
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        // Closed when the cluster goes down: nobody is left to read events.
        self.queue.send(report).ok();
    }
}

async fn write(client: Client, mut reports: mpsc::UnboundedReceiver<Report>) {
    let mut seen: HashMap<String, (String, i32)> = HashMap::new();
    while let Some(report) = reports.recv().await {
        let key = format!("{:?} {} {}", report.object, report.reason, report.message);
        let now = Time(Timestamp::now());
        // Events about cluster-scoped objects belong in `default`.
        let namespace = report.object.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        if let Some((name, count)) = seen.get_mut(&key) {
            let patch = json!({"count": *count + 1, "lastTimestamp": now});
            if api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.is_ok() {
                *count += 1;
                continue;
            }
        }
        match api.create(&PostParams::default(), &event(&report, namespace, now)).await {
            Ok(made) => {
                if seen.len() >= REMEMBERED {
                    seen.clear();
                }
                seen.insert(key, (made.name_any(), 1));
            }
            // The namespace may be going; an event is no reason to trouble anyone.
            Err(error) => tracing::debug!(reason = report.reason, %error, "event not written"),
        }
    }
}

fn event(report: &Report, namespace: String, now: Time) -> Event {
    let object = report.object.name.clone().unwrap_or_default();
    let stamp = format!("{:x}", now.0.as_nanosecond());
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{object}.{stamp}")),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        involved_object: report.object.clone(),
        reason: Some(report.reason.clone()),
        message: Some(report.message.clone()),
        type_: Some(report.kind.to_owned()),
        source: Some(EventSource { component: Some(report.component.to_string()), host: None }),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        count: Some(1),
        reporting_component: Some(report.component.to_string()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}
