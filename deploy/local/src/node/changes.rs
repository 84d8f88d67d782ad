//! News of ConfigMaps and Secrets, for those who have files made of them. Only names are kept and passed on.

use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::broadcast;

use crate::tasks::Tasks;

/// How many changes a slow listener may be behind before it looks at everything.
const BACKLOG: usize = 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    ConfigMap,
    Secret,
}

/// One of them has changed, come or gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

/// Watches both kinds until `tasks` stops.
pub(super) fn start(client: &Client, tasks: &Tasks) -> broadcast::Sender<Change> {
    let news = broadcast::Sender::new(BACKLOG);
    tasks.spawn(watch::<ConfigMap>(client.clone(), Kind::ConfigMap, news.clone()));
    tasks.spawn(watch::<Secret>(client.clone(), Kind::Secret, news.clone()));
    news
}

async fn watch<K>(client: Client, kind: Kind, news: broadcast::Sender<Change>)
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let events = watcher(Api::<PartialObjectMeta<K>>::all(client), watcher::Config::default()).default_backoff();
    let mut events = std::pin::pin!(events);
    while let Some(event) = events.next().await {
        match event {
            // What is listed again after an interruption may have changed meanwhile.
            Ok(watcher::Event::Apply(object) | watcher::Event::Delete(object) | watcher::Event::InitApply(object)) => {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                news.send(Change { kind, namespace, name }).ok();
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a watch for volumes was interrupted"),
        }
    }
}
