//! The server's parts, shared by everything that answers a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use serde_json::Value;
use tokio::net::TcpStream;

use super::database::{Database, Key};
use super::packed::Object;
use super::pki::Authority;
use super::resource::{Registry, Resource};
use super::session::{Session, SessionError, SessionRequest};
use super::status::ApiError;
use super::tokens::TokenKey;

/// Opens connections to pods, whose addresses may exist only in the cluster's own network.
pub trait Dialer: Send + Sync + 'static {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, std::io::Result<TcpStream>>;
}

/// Dials from where the server itself runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct HostDialer;

impl Dialer for HostDialer {
    fn dial(&self, address: SocketAddr) -> BoxFuture<'_, std::io::Result<TcpStream>> {
        Box::pin(TcpStream::connect(address))
    }
}

/// Which log a client wants, and how much of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The container; the pod's only or first one when not given.
    pub container: Option<String>,
    /// Keep the stream open and send what is written from now on.
    pub follow: bool,
    /// Only the last so many lines.
    pub tail_lines: Option<usize>,
    /// The log of the container's previous run.
    pub previous: bool,
    /// Begin each line with the time it was written at.
    pub timestamps: bool,
    /// Only lines younger than this.
    pub since_seconds: Option<i64>,
    /// End after this many bytes.
    pub limit_bytes: Option<usize>,
}

/// The node agent, as the API server needs it.
pub trait NodeBackend: Send + Sync + 'static {
    /// The log of a container. An error is answered to the client as it is.
    fn logs(
        &self,
        namespace: &str,
        pod: &str,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<BoxStream<'static, Bytes>, ApiError>>;

    /// Runs a command in a container, or joins its process, until it ends. The pod exists and has the container.
    fn session(
        &self,
        namespace: &str,
        pod: &str,
        request: SessionRequest,
        session: Session,
    ) -> BoxFuture<'static, Result<(), SessionError>>;

    /// Connects to a port of a pod as from inside it: to `127.0.0.1`. The error is told to the client.
    fn dial(&self, namespace: &str, pod: &str, port: u16) -> BoxFuture<'_, Result<TcpStream, String>>;
}

/// Everything a request may need.
pub struct Server {
    pub database: Database,
    registry: RwLock<Arc<Registry>>,
    pub authority: Authority,
    pub tokens: TokenKey,
    /// Users of tokens that aren't JSON Web Tokens: the administrator's.
    pub static_tokens: BTreeMap<String, super::users::User>,
    pub dialer: Arc<dyn Dialer>,
    /// Whether requests are held to the roles and bindings.
    pub rbac: bool,
    /// Whether Services may have addresses of both families.
    pub dual_stack: bool,
    pub node: Mutex<Option<Arc<dyn NodeBackend>>>,
    /// Held while Services are given addresses and ports.
    pub addresses: Mutex<()>,
    pub stopping: tokio_util::sync::CancellationToken,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("version", &self.database.version()).finish_non_exhaustive()
    }
}

/// What a server is made of.
pub struct Parts {
    pub database: Database,
    pub registry: Registry,
    pub authority: Authority,
    pub tokens: TokenKey,
    pub static_tokens: BTreeMap<String, super::users::User>,
    pub dialer: Arc<dyn Dialer>,
    pub rbac: bool,
    pub dual_stack: bool,
}

impl Server {
    pub fn new(parts: Parts) -> Self {
        Self {
            database: parts.database,
            registry: RwLock::new(Arc::new(parts.registry)),
            authority: parts.authority,
            tokens: parts.tokens,
            static_tokens: parts.static_tokens,
            dialer: parts.dialer,
            rbac: parts.rbac,
            dual_stack: parts.dual_stack,
            node: Mutex::new(None),
            addresses: Mutex::new(()),
            stopping: tokio_util::sync::CancellationToken::new(),
        }
    }

    /// The node agent; 503 when there is none.
    pub fn node(&self) -> Result<Arc<dyn NodeBackend>, ApiError> {
        let node = self.node.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let message = "no node agent is running in this cluster: logs and processes are with the node agent";
        node.ok_or_else(|| ApiError::new(503, "ServiceUnavailable", message))
    }

    /// What is served now.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Changes what is served.
    pub fn change_registry(&self, change: impl FnOnce(&mut Registry)) {
        let mut current = self.registry.write().unwrap_or_else(PoisonError::into_inner);
        let mut next = Registry::clone(&current);
        change(&mut next);
        *current = Arc::new(next);
    }

    /// A built-in resource. The name is one of the table's.
    pub fn builtin(&self, group: &str, plural: &str) -> Arc<Resource> {
        let registry = self.registry();
        let found = registry.iter().find(|r| r.is(group, plural));
        found.expect("the resource is in the table of built-in resources").clone()
    }

    /// A built-in object; the namespace is empty for cluster-scoped ones.
    pub fn find(&self, group: &str, plural: &str, namespace: &str, name: &str) -> Option<Object> {
        self.database.get(&format!("{group}/{plural}").into(), &Key::new(namespace, name))
    }

    /// All objects of a built-in resource, of one namespace or of all.
    pub fn all(&self, group: &str, plural: &str, namespace: Option<&str>) -> Vec<Object> {
        let (_, objects) = self.database.list(&format!("{group}/{plural}").into(), namespace);
        objects.into_iter().map(|(_, object)| object).collect()
    }
}

/// An object as one version of its resource shows it.
pub fn present(resource: &Resource, object: &Object) -> Value {
    let mut value = object.value.clone();
    convert(resource, &mut value);
    value
}

/// Turns a stored object into the version of the resource it is asked through.
pub fn convert(resource: &Resource, value: &mut Value) {
    if resource.is("events.k8s.io", "events") {
        super::events::to_events_v1(value);
    } else if value["apiVersion"] != *resource.api_version() {
        value["apiVersion"] = resource.api_version().into();
        if let Some(custom) = resource.custom() {
            super::crd::schema::default(&custom.schema, value);
        }
    }
}

/// Whether stored objects are shown by this resource as they are.
pub fn shows_stored(resource: &Resource) -> bool {
    match resource.custom() {
        Some(version) => version.stored,
        None => resource.group != "events.k8s.io",
    }
}
