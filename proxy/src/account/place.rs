//! Who tells.

use serde::Serialize;

/// Where this proxy is, for those to whom many proxies tell.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Place {
    pub namespace: String,
    pub pod: String,
    pub node: String,
    /// The workload: what controls the pod, or its service account.
    pub workload: String,
}
