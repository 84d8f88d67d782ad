//! A local copy of one kind, kept up to date by a watch, and a signal when it changed.

use std::fmt::Debug;
use std::hash::Hash;

use futures::StreamExt;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::tasks::Tasks;

/// The objects of one kind as last seen, with a counter that grows at every change.
pub struct Informer<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    pub store: Store<K>,
    changes: watch::Receiver<u64>,
}

impl<K> Informer<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    /// Starts a watch that ends with `tasks`. A broken watch is resumed with a growing delay.
    pub fn start(api: Api<K>, tasks: &Tasks) -> Self {
        let (store, writer) = reflector::store();
        let (bump, changes) = watch::channel(0_u64);
        tasks.spawn(async move {
            let events = reflector::reflector(writer, watcher(api, watcher::Config::default())).default_backoff();
            let mut events = std::pin::pin!(events);
            while let Some(event) = events.next().await {
                match event {
                    // Between Init and InitDone the store still shows what was before.
                    Ok(watcher::Event::Init | watcher::Event::InitApply(_)) => {}
                    Ok(_) => bump.send_modify(|n| *n += 1),
                    Err(error) => tracing::debug!(kind = %K::kind(&()), %error, "watch interrupted"),
                }
            }
        });
        Self { store, changes }
    }

    /// A receiver that is notified of changes from now on.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.clone()
    }
}

impl<K> Clone for Informer<K>
where
    K: Resource + Clone + 'static,
    K::DynamicType: Eq + Hash + Clone,
{
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), changes: self.changes.clone() }
    }
}
