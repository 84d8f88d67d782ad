//! A small Kubernetes API server, for one machine.
//!
//! kubectl and kube-rs talk to it as to a real one: the built-in kinds that a mesh meets, custom resources, watches, patches,
//! admission webhooks, ServiceAccount tokens. The state is in memory and in a journal beside it.
//!
//! A request goes one way: [`serve`] (connection, user) → [`routes`] (path) → [`verbs`] (method) → [`reading`], [`watching`] or [`writing`] →
//! [`database`]. What takes more than one write is done afterwards by [`housekeeping`].

mod admission;
mod applying;
mod builtin;
mod cel;
mod crd;
mod database;
mod decoding;
mod defaults;
mod deleting;
mod discovery;
mod durability;
mod events;
mod extras;
mod families;
mod housekeeping;
mod journal;
mod lists;
mod media;
mod names;
mod namespaces;
mod object;
mod openapi;
mod options;
mod ownership;
mod packed;
mod patching;
mod path;
mod pki;
mod protobuf;
mod query;
mod rbac;
mod reading;
mod resource;
mod reviews;
mod routes;
mod selector;
mod serve;
mod server;
mod services;
mod session;
mod shelf;
mod status;
mod strategic;
mod streaming;
mod subresources;
mod system_fields;
mod table;
mod tidying;
mod tokens;
mod users;
mod validation;
mod verbs;
mod watching;
mod writing;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

pub use journal::JournalError;
pub use pki::PkiError;
pub use server::{Dialer, HostDialer, LogOptions, NodeBackend};
pub use session::{Output, Purpose, Session, SessionError, SessionRequest, TerminalSize};
pub use status::ApiError;

use pki::{Authority, Pair};
use server::{Parts, Server};
use users::User;

/// How an API server is started.
pub struct ApiConfig {
    /// Where keys and objects are kept. Made if missing; readable by the owner only.
    pub data_dir: PathBuf,
    /// Where clients connect. The first one is named in the kubeconfig; others may be in another network namespace.
    pub listeners: Vec<TcpListener>,
    /// Names and addresses that the server's certificate is valid for, beside the usual ones.
    pub extra_names: Vec<String>,
    /// How webhooks behind a Service are reached.
    pub dialer: Arc<dyn Dialer>,
    /// Whether requests are held to the roles and bindings (RBAC). Without, whoever is authenticated may do everything.
    pub rbac: bool,
    /// Whether Services may have addresses of both families.
    pub dual_stack: bool,
    /// How long changes are kept for watches that resume, and for lists of the past.
    pub history: Duration,
}

/// Why an API server can't be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "can't listen on {address}: {source}; choose another port with --api-port, or end the program that uses this one"
    )]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("the API server needs at least one address to listen on")]
    NoListener,
    #[error("can't make the data directory {path}: {source}")]
    Directory { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Keys(#[from] PkiError),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// A running API server. Dropping it stops it without waiting.
pub struct ApiServer {
    server: Arc<Server>,
    address: SocketAddr,
    admin: Pair,
    admin_token: String,
    tasks: TaskTracker,
}

/// Opens a listening socket; the error names the address.
pub fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Listen { address, source })
}

impl ApiServer {
    /// How long changes are kept, as by a real server.
    pub const HISTORY: Duration = Duration::from_secs(300);

    /// Starts a server with the objects its data directory remembers. Must be called within a Tokio runtime.
    pub async fn start(config: ApiConfig) -> Result<Self, StartError> {
        // Several TLS providers may be compiled in; kube-rs asks for the process's default one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        make_private_dir(&config.data_dir)
            .map_err(|source| StartError::Directory { path: config.data_dir.clone(), source })?;
        let authority = Authority::open(&config.data_dir)?;
        let tokens = tokens::TokenKey::open(&config.data_dir)?;
        let admin = authority.client("kubernetes-admin", "system:masters")?;
        let admin_token = uuid::Uuid::new_v4().simple().to_string();
        let names = certificate_names(&config.extra_names);
        let acceptor = TlsAcceptor::from(Arc::new(authority.server_tls(&names)?));
        let mut listeners = Vec::new();
        for listener in config.listeners {
            let address = listener.local_addr().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
            let refuse = |source| StartError::Listen { address, source };
            listener.set_nonblocking(true).map_err(refuse)?;
            listeners.push((address, tokio::net::TcpListener::from_std(listener).map_err(refuse)?));
        }
        let address = listeners.first().ok_or(StartError::NoListener)?.0;

        let (feed, changes) = mpsc::unbounded_channel();
        let (journal, remembered) = journal::Journal::open(&config.data_dir).await?;
        let (written, writes) = mpsc::unbounded_channel();
        let database = database::Database::new(Some(journal), remembered, feed, written);
        let server = Arc::new(Server::new(Parts {
            database,
            registry: builtin::registry(),
            authority,
            tokens,
            static_tokens: BTreeMap::from([(admin_token.clone(), User::admin())]),
            dialer: config.dialer,
            rbac: config.rbac,
            dual_stack: config.dual_stack,
        }));
        for definition in server.all("apiextensions.k8s.io", "customresourcedefinitions", None) {
            server.change_registry(|registry| crd::definition::register(registry, &definition.value));
        }
        namespaces::found_cluster(&server, address.port());
        rbac::found(&server);
        let tasks = TaskTracker::new();
        tasks.spawn(housekeeping::run(server.clone(), changes));
        tasks.spawn(tidying::run(server.clone(), config.history));
        tasks.spawn(durability::follow(server.clone(), writes));
        for (_, listener) in listeners {
            tasks.spawn(serve::accept(server.clone(), listener, acceptor.clone(), tasks.clone()));
        }
        Ok(Self { server, address, admin, admin_token, tasks })
    }

    /// Where the first listener listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster's CA certificate.
    pub fn ca_pem(&self) -> &str {
        &self.server.authority.certificate_pem
    }

    /// Lets the server hand out containers' logs.
    pub fn set_node(&self, node: Arc<dyn NodeBackend>) {
        *self.server.node.lock().unwrap_or_else(PoisonError::into_inner) = Some(node);
    }

    /// A kubeconfig with the administrator's client certificate, as YAML.
    pub fn kubeconfig_yaml(&self) -> String {
        let encode = |pem: &str| STANDARD.encode(pem);
        format!(
            "apiVersion: v1\nkind: Config\nclusters:\n- name: fsm-local\n  cluster:\n    server: https://{}\n    certificate-authority-data: {}\nusers:\n- name: kubernetes-admin\n  user:\n    client-certificate-data: {}\n    client-key-data: {}\ncontexts:\n- name: fsm-local\n  context:\n    cluster: fsm-local\n    user: kubernetes-admin\ncurrent-context: fsm-local\n",
            self.address,
            encode(self.ca_pem()),
            encode(&self.admin.certificate_pem),
            encode(&self.admin.key_pem),
        )
    }

    /// The configuration of a kube-rs client with the administrator's rights. The token is valid until this server stops.
    pub fn client_config(&self) -> Result<kube::Config, ClientError> {
        let uri = format!("https://{}", self.address).parse()?;
        let mut config = kube::Config::new(uri);
        let der = pem_bytes(self.ca_pem()).ok_or(ClientError::Certificate)?;
        config.root_cert = Some(vec![der]);
        config.auth_info.token = Some(self.admin_token.clone().into());
        Ok(config)
    }

    /// A client with the administrator's rights that calls itself `program`: the objects that it writes say so.
    pub fn client(&self, program: &'static str) -> Result<kube::Client, ClientError> {
        let mut config = self.client_config()?;
        config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(program)));
        Ok(kube::Client::try_from(config).map_err(Box::new)?)
    }

    /// Ends watches, stops listening and waits for requests under way, for at most five seconds.
    pub async fn stop(self) {
        self.server.stopping.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await.is_err() {
            tracing::warn!("some requests to the API server did not end in time");
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.server.stopping.cancel();
    }
}

/// Why no client can be configured.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    #[error("the address of the API server is no URI: {0}")]
    Address(#[from] http::uri::InvalidUri),
    #[error("the CA certificate of the cluster is damaged: remove ca.crt and ca.key from the data directory")]
    Certificate,
    #[error("a client could not be made: {0}")]
    Client(#[from] Box<kube::Error>),
}

fn pem_bytes(pem: &str) -> Option<Vec<u8>> {
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject;
    CertificateDer::from_pem_slice(pem.as_bytes()).ok().map(|der| der.to_vec())
}

fn certificate_names(extra: &[String]) -> Vec<String> {
    let usual = [
        "127.0.0.1",
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "10.96.0.1",
    ];
    usual.iter().map(|name| (*name).to_owned()).chain(extra.iter().cloned()).collect()
}

fn make_private_dir(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}
