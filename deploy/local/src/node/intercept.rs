//! Interception of meshed pods, set up before any of their processes exists.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};

use fsm_ebpf::{InterceptError, Interceptor, PodAttachment, PodSpec, Rules, RulesError};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::cgroup::{Cgroup, CgroupError};
use crate::net::Netns;

/// The label the injector gives to pods of the mesh.
pub const PROXY_UUID: &str = "fsm-proxy-uuid";
/// The proxy's container, as the injector names it.
pub const PROXY_CONTAINER: &str = "sidecar";

/// Interception of one pod, until dropped.
#[derive(Debug)]
pub(super) struct Attached {
    _attachment: PodAttachment,
}

/// Why a meshed pod is not started: without interception its traffic would bypass the mesh.
#[derive(Debug, thiserror::Error)]
pub enum InterceptionError {
    #[error(transparent)]
    Rules(#[from] RulesError),
    #[error("interception is not possible: {0}; the pod is not started, because its traffic would bypass the mesh")]
    Kernel(#[from] InterceptError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error("interception could not be set up: {0}")]
    Task(#[from] tokio::task::JoinError),
}

/// The eBPF programs, loaded when the first meshed pod comes.
#[derive(Default, Clone)]
pub struct Interception {
    loaded: Arc<Mutex<Option<Interceptor>>>,
}

impl Interception {
    /// Whether a pod of the mesh has been intercepted.
    pub fn in_use(&self) -> bool {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Intercepts the pod if it belongs to the mesh.
    pub(super) async fn attach(
        &self,
        pod: &Pod,
        netns: &Netns,
        cgroup: &Cgroup,
    ) -> Result<Option<Attached>, InterceptionError> {
        if !pod.labels().contains_key(PROXY_UUID) {
            return Ok(None);
        }
        let rules = rules(pod.annotations())?;
        let proxy = cgroup.child(PROXY_CONTAINER);
        proxy.create()?;
        let (loaded, netns, cgroup) = (Arc::clone(&self.loaded), netns.clone(), cgroup.clone());
        let attached = tokio::task::spawn_blocking(move || {
            let interceptor = {
                let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
                match &*loaded {
                    Some(interceptor) => interceptor.clone(),
                    None => loaded.insert(Interceptor::load()?).clone(),
                }
            };
            let spec = PodSpec {
                netns: netns.as_fd(),
                cgroup: cgroup.path().to_owned(),
                proxy_cgroup: proxy.path().to_owned(),
                rules,
                fail_closed: true,
            };
            interceptor.attach(&spec)
        });
        Ok(Some(Attached { _attachment: attached.await?? }))
    }
}

fn rules(annotations: &BTreeMap<String, String>) -> Result<Rules, RulesError> {
    Rules::from_annotations(annotations.iter().map(|(key, value)| (key.as_str(), value.as_str())))
}
