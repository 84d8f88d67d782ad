//! A running API server for tests, on a port of its own, with a data directory that goes with it.

#[allow(dead_code, reason = "only some test programs run kubectl")]
pub mod kubectl;
#[allow(dead_code, reason = "only some test programs need a node")]
pub mod node;

use std::net::SocketAddr;
use std::sync::Arc;

use fsm_local::api::{ApiConfig, ApiServer, Dialer, HostDialer, listen};
use kube::Client;

use kubectl::Kubectl;

// Each test program uses its own part of this.
#[allow(dead_code, reason = "the kubectl tests need no client of their own")]
pub struct TestServer {
    pub api: ApiServer,
    pub client: Client,
    pub dir: tempfile::TempDir,
}

pub async fn start() -> TestServer {
    start_in(tempfile::tempdir().expect("a temporary directory")).await
}

/// Starts a server with what another one left in its directory.
pub async fn start_in(dir: tempfile::TempDir) -> TestServer {
    start_with(dir, Arc::new(HostDialer)).await
}

/// Starts a server that reaches pods in a way of the test's own.
pub async fn start_with(dir: tempfile::TempDir, dialer: Arc<dyn Dialer>) -> TestServer {
    let config = ApiConfig {
        data_dir: dir.path().join("api"),
        listeners: vec![listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port")],
        extra_names: Vec::new(),
        dialer,
        rbac: true,
        dual_stack: false,
        history: ApiServer::HISTORY,
    };
    let api = ApiServer::start(config).await.expect("the API server starts");
    let client = Client::try_from(api.client_config().expect("a client configuration")).expect("a client");
    TestServer { api, client, dir }
}

/// Starts a server for kubectl, which finds its kubeconfig; `None` (and a line saying so) where there is no kubectl.
#[allow(dead_code, reason = "only some test programs run kubectl")]
pub async fn start_for_kubectl() -> Option<TestServer> {
    if !kubectl::have_kubectl() {
        return None;
    }
    let server = start().await;
    std::fs::write(server.dir.path().join("kubeconfig"), server.api.kubeconfig_yaml()).expect("a kubeconfig");
    Some(server)
}

/// Runs kubectl commands against a server of their own; skipped where there is no kubectl.
#[allow(dead_code, reason = "only some test programs run kubectl")]
pub async fn with_kubectl(commands: impl FnOnce(&Kubectl) + Send + 'static) {
    let Some(server) = start_for_kubectl().await else { return };
    server.kubectl(commands).await;
    server.api.stop().await;
}

impl TestServer {
    /// Runs kubectl commands against this server.
    #[allow(dead_code, reason = "only some test programs run kubectl")]
    pub async fn kubectl(&self, commands: impl FnOnce(&Kubectl) + Send + 'static) {
        kubectl::run(self.dir.path(), commands).await;
    }
}
