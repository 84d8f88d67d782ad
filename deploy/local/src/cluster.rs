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
use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client, ResourceExt};
use tokio::net::TcpStream;

use crate::api::{
    ApiConfig, ApiError, ApiServer, ClientError, Dialer, LogOptions, NodeBackend, Session, SessionError,
    SessionRequest, StartError, listen,
};
use crate::event::Recorder;
use crate::home::{Home, HomeError, Running};
use crate::informer::Informer;
use crate::net::{Fabric, NetError, NetworkPlan, NodeNet};
use crate::node::{Agent, AgentConfig, AskError, Cgroup, CgroupError, Images, Interception, Want};
use crate::preflight::{self, Unfit};
use crate::service::Balancer;
use crate::tasks::Tasks;
use crate::{dns, home, service, workload};

/// How long pods get to end when the cluster goes down.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// The name of a node by its place.
pub fn node_name(index: u8) -> String {
    if index == 0 { "local".to_owned() } else { format!("local-{}", index + 1) }
}

/// How a cluster is made.
#[derive(Debug, Clone)]
pub struct LocalConfig {
    /// Where the cluster keeps everything. Its API objects outlive a restart.
    pub data_dir: PathBuf,
    /// The API's port on 127.0.0.1; any free one when not given.
    pub api_port: Option<u16>,
    /// The program behind the images `flomesh/fsm`, `flomesh/fsm-proxy` and `flomesh/fsm-controller`.
    pub executable: PathBuf,
    /// How many nodes; each has a network of its own.
    pub nodes: u8,
    /// Whether requests are held to roles and bindings (RBAC).
    pub rbac: bool,
    /// Whether Services may have IPv6 addresses.
    pub dual_stack: bool,
    /// What a container that ends again and again waits before its second restart; each further wait is twice as long.
    pub restart_delay: Duration,
}

impl LocalConfig {
    /// One node, any free port, and what the options of `fsm local up` are when they are not given.
    pub fn new(data_dir: &Path, executable: PathBuf) -> Self {
        Self {
            data_dir: data_dir.to_owned(),
            api_port: None,
            executable,
            nodes: 1,
            rbac: false,
            dual_stack: false,
            restart_delay: Duration::from_secs(1),
        }
    }
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
    #[error("a cluster has 1 to {max} nodes, not {0}", max = NetworkPlan::MAX_NODES)]
    Nodes(u8),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error(
        "the kernel can't do the service network: {0}; it needs nf_tables for inet with nat, masquerade, numgen and hash \
         (CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_MASQ, CONFIG_NFT_NUMGEN, CONFIG_NFT_HASH)"
    )]
    ServiceNetwork(#[source] io::Error),
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
    agents: Agents,
    nets: Vec<Arc<NodeNet>>,
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
        if config.nodes == 0 || config.nodes > NetworkPlan::MAX_NODES {
            return Err(UpError::Nodes(config.nodes));
        }
        let mut home = Home::take(&config.data_dir)?;
        home.clean().await?;
        home::sweep().await;
        let scratch = home.dir().join("scratch");
        fs::create_dir_all(&scratch).map_err(|source| UpError::File { what: "make", path: scratch.clone(), source })?;
        preflight::check(&scratch)?;
        let cgroup = home.hold_cgroup()?;
        let images = images(&config, home.dir())?;

        service::check().map_err(UpError::ServiceNetwork)?;
        let nets = networks(config.nodes).await?;
        let mut listeners = vec![listen(SocketAddr::from((Ipv4Addr::LOCALHOST, config.api_port.unwrap_or(0))))?];
        for net in &nets {
            let inside = SocketAddr::from((net.plan().kubernetes, 443));
            listeners.push(net.listen_std(inside).map_err(|source| UpError::Listen { addr: inside, source })?);
        }
        let api = ApiServer::start(ApiConfig {
            data_dir: home.dir().join("api"),
            listeners,
            extra_names: Vec::new(),
            dialer: Arc::new(NodeDialer(Arc::clone(&nets[0]))),
            rbac: config.rbac,
            dual_stack: config.dual_stack,
            history: ApiServer::HISTORY,
        })
        .await?;
        let kubeconfig = home.dir().join("kubeconfig");
        write_private(&kubeconfig, &api.kubeconfig_yaml()).map_err(|source| UpError::File {
            what: "write",
            path: kubeconfig.clone(),
            source,
        })?;
        let client = api.client("fsm")?;

        let pid = i32::try_from(std::process::id()).unwrap_or_default();
        let api_server = format!("https://{}", api.address());
        home.announce(&Running { pid, kubeconfig: kubeconfig.clone(), api_server })?;

        let tasks = Tasks::default();
        let common = Common {
            kubelet: api.client("kubelet")?,
            controllers: api.client("kube-controller-manager")?,
            images,
            home: &home,
            cgroup,
            restart_delay: config.restart_delay,
        };
        let started = start(common, &nets, &tasks).await;
        let agents = match started {
            Ok(agents) => Agents(agents),
            Err(error) => {
                tasks.stop().await;
                return Err(error);
            }
        };
        api.set_node(Arc::new(agents.clone()));
        Ok(Self { api: Some(api), agents, nets, client, kubeconfig, tasks, home })
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

    /// The first node's network, to reach services and pods as the node does.
    pub fn net(&self) -> &NodeNet {
        &self.nets[0]
    }

    /// Connects to a port of a pod as from inside it: to `127.0.0.1`.
    pub async fn dial_pod(&self, namespace: &str, pod: &str, port: u16) -> Result<TcpStream, AskError> {
        self.agents.of(namespace, pod).dial_pod(namespace, pod, port).await
    }

    /// The nodes, as the API server asks them for logs and sessions.
    pub fn backend(&self) -> &impl NodeBackend {
        &self.agents
    }

    /// The process id, on this machine, of a running container.
    pub fn container_pid(&self, namespace: &str, pod: &str, container: &str) -> Result<i32, AskError> {
        self.agents.of(namespace, pod).container_pid(namespace, pod, container)
    }

    /// By what means pods of the mesh are intercepted; `none` until there is one.
    pub fn interception(&self) -> &'static str {
        if self.agents.0.iter().any(|agent| agent.intercepts()) { "ebpf" } else { "none" }
    }

    /// Ends all pods, then everything else. The API's objects stay in the data directory.
    pub async fn shutdown(mut self) {
        futures::future::join_all(self.agents.0.iter().map(|agent| agent.shutdown(SHUTDOWN_GRACE))).await;
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
        self.agents.0.iter().for_each(|agent| agent.abandon());
    }
}

/// Makes the nodes' networks, connected with one another.
async fn networks(nodes: u8) -> Result<Vec<Arc<NodeNet>>, NetError> {
    let fabric = if nodes > 1 { Some(Arc::new(Fabric::create(nodes).await?)) } else { None };
    let mut nets = Vec::new();
    for index in 0..nodes {
        nets.push(Arc::new(NodeNet::create(NetworkPlan::of_node(index), fabric.clone()).await?));
    }
    Ok(nets)
}

/// What all nodes have in common.
struct Common<'a> {
    kubelet: Client,
    controllers: Client,
    images: Images,
    home: &'a Home,
    cgroup: Cgroup,
    restart_delay: Duration,
}

/// Starts everything that lives on the API: services, names, controllers and nodes.
async fn start(common: Common<'_>, nets: &[Arc<NodeNet>], tasks: &Tasks) -> Result<Vec<Arc<Agent>>, UpError> {
    let Common { kubelet, controllers: client, images, home, cgroup, restart_delay } = common;
    let events = Recorder::start(client.clone(), "controller-manager", tasks);
    let names: Vec<String> = nets.iter().map(|net| node_name(net.plan().index)).collect();
    forget_nodes_but(&client, &names).await?;
    let interception = Interception::default();
    let mut agents = Vec::new();
    for (net, name) in nets.iter().zip(&names) {
        let config = AgentConfig {
            client: kubelet.clone(),
            net: Arc::clone(net),
            node_name: name.clone(),
            images: images.clone(),
            events: events.clone(),
            data_dir: home.dir().to_owned(),
            cgroup: cgroup.clone(),
            restart_delay,
            interception: interception.clone(),
        };
        agents.push(Agent::start(config).await?);
    }
    let nodes = Informer::start(Api::<Node>::all(client.clone()), tasks);
    let services = Informer::start(Api::<Service>::all(client.clone()), tasks);
    let slices = Informer::start(Api::<EndpointSlice>::all(client.clone()), tasks);
    let addr = SocketAddr::from((nets[0].plan().dns, 53));
    dns::start(nets, &services, &slices, tasks).map_err(|source| UpError::Listen { addr, source })?;
    // Zones and node names are decided on from the start; the writer ends only with the cluster.
    nodes.store.wait_until_ready().await.ok();
    for (net, name) in nets.iter().zip(&names) {
        service::start(Arc::clone(net), name.clone(), &services, &slices, &nodes, tasks);
        service::keep_cut(Arc::clone(net), name.clone(), &nodes, tasks);
    }
    let balancer = Balancer {
        client: client.clone(),
        events: events.named("service-controller"),
        net: Arc::clone(&nets[0]),
        node: names[0].clone(),
        interface: format!("fsm-{}", home.id()),
    };
    service::balance(balancer, &services, tasks);
    workload::start(&client, &events, &nodes, tasks);
    Ok(agents)
}

/// Removes nodes of an earlier start that had more of them, and their pods.
async fn forget_nodes_but(client: &Client, names: &[String]) -> Result<(), kube::Error> {
    let nodes: Api<Node> = Api::all(client.clone());
    for node in nodes.list(&ListParams::default()).await?.items {
        let name = node.name_any();
        // Nodes of other names are not ours.
        if !name.starts_with("local-") || names.contains(&name) {
            continue;
        }
        let query = ListParams::default().fields(&format!("spec.nodeName={name}"));
        for pod in Api::<Pod>::all(client.clone()).list(&query).await?.items {
            let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default());
            let at_once = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            api.delete(&pod.name_any(), &at_once).await?;
        }
        nodes.delete(&name, &DeleteParams::default()).await?;
    }
    Ok(())
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

/// All nodes' agents; not empty.
#[derive(Clone)]
struct Agents(Vec<Arc<Agent>>);

impl Agents {
    /// The agent that runs the pod; any other says that it does not.
    fn of(&self, namespace: &str, pod: &str) -> &Arc<Agent> {
        self.0.iter().find(|agent| agent.runs(namespace, pod)).unwrap_or(&self.0[0])
    }
}

/// What the API server asks of the nodes.
impl NodeBackend for Agents {
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
        let answer = self.of(namespace, pod).logs(namespace, pod, options.container.as_deref(), want);
        Box::pin(std::future::ready(answer.map_err(|error| ApiError::bad_request(error.to_string()))))
    }

    fn session(
        &self,
        namespace: &str,
        pod: &str,
        request: SessionRequest,
        session: Session,
    ) -> BoxFuture<'static, Result<(), SessionError>> {
        self.of(namespace, pod).session(namespace, pod, request, session)
    }

    fn dial(&self, namespace: &str, pod: &str, port: u16) -> BoxFuture<'_, Result<TcpStream, String>> {
        let (namespace, pod) = (namespace.to_owned(), pod.to_owned());
        Box::pin(async move {
            self.of(&namespace, &pod).dial_pod(&namespace, &pod, port).await.map_err(|error| error.to_string())
        })
    }
}
