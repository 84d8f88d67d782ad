//! The whole cluster: API server, network, controllers and node, up and down together.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use tokio::net::TcpStream;

use crate::api::{
    ApiConfig, ApiError, ApiServer, ClientError, Dialer, LogOptions, NodeBackend, Session, SessionError,
    SessionRequest, StartError, listen,
};
use crate::event::Recorder;
use crate::home::{Home, HomeError, Running};
use crate::informer::Informer;
use crate::net::{NetError, NetworkPlan, NodeNet};
use crate::node::{Agent, AgentConfig, AskError, Cgroup, CgroupError, Images, Want};
use crate::preflight::{self, Unfit};
use crate::tasks::Tasks;
use crate::{dns, service, workload};

/// How long pods get to end when the cluster goes down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The name of the only node.
const NODE: &str = "local";

/// How a cluster is made.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Where the cluster keeps everything. Its API objects outlive a restart.
    pub data_dir: PathBuf,
    /// The API's port on 127.0.0.1; any free one when not given.
    pub api_port: Option<u16>,
    /// The program behind the images `flomesh/fsm`, `flomesh/fsm-proxy` and `flomesh/fsm-controller`.
    pub executable: PathBuf,
}

/// Why a cluster can't be brought up. Nothing stays behind then.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error(transparent)]
    Unfit(#[from] Unfit),
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(transparent)]
    Api(#[from] StartError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("the cluster's own API refused a request: {0}")]
    Kube(#[from] kube::Error),
    #[error("cannot {what} {path}: {source}", path = path.display())]
    File { what: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot listen on {addr} in the node's network: {source}")]
    Listen { addr: SocketAddr, source: io::Error },
}

/// A running cluster. [`LocalCluster::shutdown`] ends it in order; dropping it ends it at once.
pub struct LocalCluster {
    api: Option<ApiServer>,
    agent: Arc<Agent>,
    net: Arc<NodeNet>,
    client: Client,
    kubeconfig: PathBuf,
    tasks: Tasks,
    home: Home,
}

impl LocalCluster {
    /// Brings a cluster up; it is usable when this returns. Pods known from an earlier start are started again.
    pub async fn up(config: LocalConfig) -> Result<Self, UpError> {
        if !preflight::is_root() {
            return Err(Unfit::NotRoot.into());
        }
        let mut home = Home::take(&config.data_dir)?;
        home.clean().await?;
        let scratch = home.dir().join("scratch");
        fs::create_dir_all(&scratch).map_err(|source| UpError::File { what: "make", path: scratch.clone(), source })?;
        preflight::check(&scratch)?;
        let cgroup = home.cgroup()?;
        // Only to see that it can be made; pods make theirs, and this one with it.
        cgroup.create()?;
        cgroup.remove().await?;
        let images = images(&config, home.dir())?;

        let net = Arc::new(NodeNet::create(NetworkPlan::default()).await?);
        let inside = SocketAddr::from((net.plan().kubernetes, 443));
        let listeners = vec![
            listen(SocketAddr::from((Ipv4Addr::LOCALHOST, config.api_port.unwrap_or(0))))?,
            net.listen_std(inside).map_err(|source| UpError::Listen { addr: inside, source })?,
        ];
        let api = ApiServer::start(ApiConfig {
            data_dir: home.dir().join("api"),
            listeners,
            extra_names: Vec::new(),
            dialer: Arc::new(NodeDialer(Arc::clone(&net))),
        })
        .await?;
        let kubeconfig = home.dir().join("kubeconfig");
        write_private(&kubeconfig, &api.kubeconfig_yaml()).map_err(|source| UpError::File {
            what: "write",
            path: kubeconfig.clone(),
            source,
        })?;
        let client = Client::try_from(api.client_config()?)?;

        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let api_server = format!("https://{}", api.address());
        home.announce(&Running { pid, kubeconfig: kubeconfig.clone(), api_server })?;

        let tasks = Tasks::default();
        let started = start(&client, &net, images, home.dir(), cgroup, &tasks).await;
        let agent = match started {
            Ok(agent) => agent,
            Err(error) => {
                tasks.stop().await;
                return Err(error);
            }
        };
        api.set_node(Arc::new(Node(Arc::clone(&agent))));
        Ok(Self { api: Some(api), agent, net, client, kubeconfig, tasks, home })
    }

    /// A file for `KUBECONFIG`, with the administrator's rights.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig
    }

    /// The API's address on this machine.
    pub fn api_address(&self) -> Option<SocketAddr> {
        self.api.as_ref().map(ApiServer::address)
    }

    /// A client with the administrator's rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The node's network, to reach services and pods as the node does.
    pub fn net(&self) -> &NodeNet {
        &self.net
    }

    /// Connects to a port of a pod as from inside it: to `127.0.0.1`.
    pub async fn dial_pod(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, AskError> {
        self.agent.dial_pod(namespace, pod, port).await
    }

    /// Runs a command in a container, or joins its process, as `kubectl exec` and `attach` do.
    pub fn session(
        &self,
        namespace: &str,
        pod: &str,
        request: SessionRequest,
        session: Session,
    ) -> BoxFuture<'static, Result<(), SessionError>> {
        self.agent.session(namespace, pod, request, session)
    }

    /// The process id, on this machine, of a running container.
    pub fn container_pid(&self, namespace: &str, pod: &str, container: &str) -> Result<i32, AskError> {
        self.agent.container_pid(namespace, pod, container)
    }

    /// By what means pods of the mesh are intercepted; `none` until there is one.
    pub fn interception(&self) -> &'static str {
        self.agent.interception()
    }

    /// Ends all pods, then everything else. The API's objects stay in the data directory.
    pub async fn shutdown(mut self) {
        self.agent.shutdown(SHUTDOWN_GRACE).await;
        self.tasks.stop().await;
        if let Some(api) = self.api.take() {
            api.stop().await;
        }
        if let Err(error) = self.home.clean().await {
            tracing::warn!(%error, "something of the cluster stays behind; it is removed at the next start");
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        self.tasks.cancel();
        self.agent.abandon();
        // Whoever is still there after an orderly shutdown is there by mistake; without one, all are.
        if let Ok(cgroup) = self.home.cgroup() {
            cgroup.remove_now();
        }
    }
}

/// Starts everything that lives on the API: services, names, controllers and the node.
async fn start(
    client: &Client,
    net: &Arc<NodeNet>,
    images: Images,
    data_dir: &Path,
    cgroup: Cgroup,
    tasks: &Tasks,
) -> Result<Arc<Agent>, UpError> {
    let events = Recorder::start(client.clone(), "controller-manager", tasks);
    let services = Informer::start(Api::<Service>::all(client.clone()), tasks);
    let slices = Informer::start(Api::<EndpointSlice>::all(client.clone()), tasks);
    service::start(Arc::clone(net), &services, &slices, tasks);
    let addr = SocketAddr::from((net.plan().dns, 53));
    dns::start(net, &services, &slices, tasks).map_err(|source| UpError::Listen { addr, source })?;
    let config = AgentConfig {
        client: client.clone(),
        net: Arc::clone(net),
        node_name: NODE.to_owned(),
        images,
        events: events.clone(),
        data_dir: data_dir.to_owned(),
        cgroup,
    };
    let agent = Agent::start(config).await?;
    workload::start(client, &events, NODE, tasks);
    Ok(agent)
}

/// Puts the executable where it stays as it is, even when the original is built anew meanwhile.
fn images(config: &LocalConfig, dir: &Path) -> Result<Images, UpError> {
    let bin = dir.join("images");
    fs::create_dir_all(&bin).map_err(|source| UpError::File { what: "make", path: bin.clone(), source })?;
    let kept = bin.join("fsm");
    if fs::hard_link(&config.executable, &kept).is_err() {
        // On another file system.
        let copied = fs::copy(&config.executable, &kept);
        copied.map_err(|source| UpError::File { what: "copy", path: config.executable.clone(), source })?;
    }
    Ok(Images::of_fsm(&kept))
}

fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let fresh = path.with_extension("new");
    fs::remove_file(&fresh).ok();
    let mut file = fs::OpenOptions::new().create_new(true).write(true).mode(0o600).open(&fresh)?;
    io::Write::write_all(&mut file, text.as_bytes())?;
    fs::rename(fresh, path)
}

/// How the API server reaches webhooks: from the node, through the service network.
struct NodeDialer(Arc<NodeNet>);

impl Dialer for NodeDialer {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<TcpStream>> {
        Box::pin(self.0.dial(address))
    }
}

/// What the API server asks of the node agent.
struct Node(Arc<Agent>);

impl NodeBackend for Node {
    fn logs(
        &self,
        namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Bytes>, ApiError>> {
        let want = Want {
            follow: options.follow,
            tail_lines: options.tail_lines,
            previous: options.previous,
            timestamps: options.timestamps,
            since: options.since_seconds.map(jiff::SignedDuration::from_secs),
            limit_bytes: options.limit_bytes,
        };
        let answer = self.0.logs(namespace, pod, options.container.as_deref(), want);
        Box::pin(std::future::ready(answer.map_err(|error| ApiError::bad_request(error.to_string()))))
    }

    fn session(
        &self,
        namespace: &str,
        pod: &str,
        request: SessionRequest,
        session: Session,
    ) -> BoxFuture<'static, Result<(), SessionError>> {
        self.0.session(namespace, pod, request, session)
    }

    fn dial(&self, namespace: &str, pod: &str, port: u16) -> BoxFuture<'_, Result<TcpStream, String>> {
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        Box::pin(async move { self.0.dial_pod(&namespace, &pod, port).await.map_err(|error| error.to_string()) })
    }
}
