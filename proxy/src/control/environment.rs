//! What the injector tells a proxy through its environment.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::SpiffeId;
use fsm_proxy_config::identity::InvalidSpiffeId;

use super::Backoff;
use crate::tls::{InvalidTrust, Trust};

/// Who this proxy is, and where its controller.
#[derive(Clone, Debug)]
pub struct Environment {
    /// `host:port` of the controller's stream and certificate service.
    pub controller: String,
    /// The identity that the controller must show.
    pub controller_identity: SpiffeId,
    /// What the controller is verified against, before the first certificate.
    pub trust_anchors: Arc<Trust>,
    /// The identity that this proxy must get.
    pub identity: SpiffeId,
    pub pod: String,
    /// The projected ServiceAccount token; read anew each time, as the kubelet replaces it.
    pub token_path: PathBuf,
    /// Where the last configuration is kept; none: nowhere.
    pub state_dir: Option<PathBuf>,
    /// Between two tries to reach the controller.
    pub backoff: Backoff,
    /// How long dialling the controller, or an answer of it, may take.
    pub timeout: Duration,
}

/// What is wrong with the environment.
#[derive(Debug, thiserror::Error)]
pub enum InvalidEnvironment {
    #[error("{0} is not set: FSM's injector sets it in injected pods; outside of one, set it by hand")]
    Missing(&'static str),
    #[error("FSM_CONTROLLER is \"{0}\": expected fsm-controller.<namespace>.svc.<cluster domain>:<port>")]
    Controller(String),
    #[error("FSM_TRUST_ANCHORS: {0}")]
    Trust(#[from] InvalidTrust),
    #[error("FSM_TRUST_DOMAIN, POD_NAMESPACE and SERVICE_ACCOUNT: {0}")]
    Identity(#[from] InvalidSpiffeId),
}

impl Environment {
    /// From the environment of this process.
    pub fn from_process() -> Result<Self, InvalidEnvironment> {
        Self::read(|name| std::env::var(name).ok())
    }

    /// From the variables that the injector sets; an empty one counts as not set.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidEnvironment> {
        let optional = |name| variable(name).filter(|value| !value.is_empty());
        let required = |name| optional(name).ok_or(InvalidEnvironment::Missing(name));
        let controller = required("FSM_CONTROLLER")?;
        let trust_domain = required("FSM_TRUST_DOMAIN")?;
        let mesh_namespace =
            mesh_namespace(&controller).ok_or_else(|| InvalidEnvironment::Controller(controller.clone()))?;
        Ok(Self {
            controller_identity: SpiffeId::new(&trust_domain, mesh_namespace, "fsm-controller")?,
            trust_anchors: Arc::new(Trust::from_pem(&required("FSM_TRUST_ANCHORS")?)?),
            identity: SpiffeId::new(&trust_domain, &required("POD_NAMESPACE")?, &required("SERVICE_ACCOUNT")?)?,
            pod: required("POD_NAME")?,
            token_path: required("FSM_TOKEN_PATH")?.into(),
            state_dir: optional("FSM_STATE_DIR").map(PathBuf::from),
            controller,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(3)),
            timeout: Duration::from_secs(5),
        })
    }

    /// `ns/pod`, as the controller knows this proxy.
    pub fn node_id(&self) -> String {
        format!("{}/{}", self.identity.namespace(), self.pod)
    }
}

/// The namespace in `<service>.<namespace>.svc…:<port>`.
fn mesh_namespace(controller: &str) -> Option<&str> {
    let (host, port) = controller.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let mut labels = host.split('.');
    let (_, namespace, svc) = (labels.next()?, labels.next()?, labels.next()?);
    (svc == "svc" && !namespace.is_empty()).then_some(namespace)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::tls::testing::TestCa;

    fn variables() -> HashMap<&'static str, String> {
        HashMap::from([
            ("FSM_CONTROLLER", "fsm-controller.fsm-system.svc.cluster.local:15128".to_owned()),
            ("FSM_TRUST_DOMAIN", "cluster.local".to_owned()),
            ("FSM_TRUST_ANCHORS", TestCa::new().trust_pem()),
            ("FSM_TOKEN_PATH", "/var/run/secrets/fsm/token".to_owned()),
            ("FSM_STATE_DIR", String::new()),
            ("POD_NAMESPACE", "bookstore".to_owned()),
            ("POD_NAME", "bookstore-v1-abc".to_owned()),
            ("SERVICE_ACCOUNT", "bookstore".to_owned()),
        ])
    }

    fn read(variables: &HashMap<&str, String>) -> Result<Environment, InvalidEnvironment> {
        Environment::read(|name| variables.get(name).cloned())
    }

    #[test]
    fn identities_follow_from_the_variables() {
        let environment = read(&variables()).unwrap();
        assert_eq!(
            environment.controller_identity.to_string(),
            "spiffe://cluster.local/ns/fsm-system/sa/fsm-controller"
        );
        assert_eq!(environment.identity.to_string(), "spiffe://cluster.local/ns/bookstore/sa/bookstore");
        assert_eq!(environment.node_id(), "bookstore/bookstore-v1-abc");
        assert_eq!(environment.state_dir, None);
    }

    #[test]
    fn a_missing_variable_is_named() {
        for name in ["FSM_CONTROLLER", "FSM_TRUST_ANCHORS", "POD_NAME", "SERVICE_ACCOUNT", "FSM_TOKEN_PATH"] {
            let mut variables = variables();
            variables.remove(name);
            assert!(read(&variables).unwrap_err().to_string().starts_with(&format!("{name} is not set")));
        }
    }

    #[test]
    fn a_controller_without_namespace_or_port_is_refused() {
        for text in ["fsm-controller:15128", "fsm-controller.fsm-system.svc", "10.96.0.1:15128"] {
            let mut variables = variables();
            variables.insert("FSM_CONTROLLER", text.to_owned());
            assert!(matches!(read(&variables), Err(InvalidEnvironment::Controller(_))), "{text}");
        }
    }
}
