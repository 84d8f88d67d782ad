//! A proxy's control side against a controller, over real sockets.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::proto::{HttpMatch, RouteGroup, Settings, TrustBundle, Workload};
use fsm_proxy_config::{ConfigSet, Entry, Kind, Resource, ResourceName, Snapshot, Update};
use tempfile::TempDir;
use tonic::Status;

use super::controller::{CONTROLLER, Controller, Signing, TOKEN};
use super::{Backoff, Control, Environment, State, disk};
use crate::Snapshots;
use crate::tls::MeshTls;
use crate::tls::testing::TestCa;

const STORE: &str = "spiffe://cluster.local/ns/bookstore/sa/bookstore";

/// A proxy and what it runs on.
struct Proxy {
    ca: Arc<TestCa>,
    directory: TempDir,
    environment: Environment,
    tls: MeshTls,
    snapshots: Snapshots,
}

impl Proxy {
    fn new() -> Self {
        let ca = Arc::new(TestCa::new());
        let directory = tempfile::tempdir().unwrap();
        let token_path = directory.path().join("token");
        std::fs::write(&token_path, format!("{TOKEN}\n")).unwrap();
        let environment = Environment {
            // Nothing listens on the discard port here, so that a proxy without a controller finds none.
            controller: "127.0.0.1:9".to_owned(),
            controller_identity: CONTROLLER.parse().unwrap(),
            trust_anchors: ca.trust(),
            identity: STORE.parse().unwrap(),
            pod: "bookstore-v1-0".to_owned(),
            token_path,
            state_dir: Some(directory.path().join("state")),
            backoff: Backoff::new(Duration::from_millis(1), Duration::from_millis(50)),
            timeout: Duration::from_secs(10),
        };
        Self { ca, directory, environment, tls: MeshTls::default(), snapshots: Snapshots::default() }
    }

    /// A controller that this proxy is told of.
    async fn controller(&mut self) -> Controller {
        let controller = self.controller_signing(STORE, Duration::from_secs(3600)).await;
        self.environment.controller = controller.address.to_string();
        controller
    }

    async fn controller_signing(&mut self, identity: &str, lifetime: Duration) -> Controller {
        let signing = Signing { identity: identity.parse().unwrap(), lifetime };
        let controller = Controller::start(self.ca.clone(), signing, "127.0.0.1:0".parse().unwrap()).await;
        self.environment.controller = controller.address.to_string();
        controller
    }

    fn start(&self) -> Control {
        Control::start(self.environment.clone(), self.tls.clone(), self.snapshots.clone())
    }

    /// The same pod, after a restart of the proxy.
    fn restarted(self) -> Self {
        Self { tls: MeshTls::default(), snapshots: Snapshots::default(), ..self }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("state").join(disk::FILE_NAME)
    }

    fn seq(&self) -> Option<u64> {
        self.snapshots.load().as_ref().map(|snapshot| snapshot.seq())
    }
}

/// Everything a proxy needs, at `seq`.
fn complete(ca: &TestCa, seq: u64) -> ConfigSet {
    let mut set = ConfigSet { seq, ..ConfigSet::default() };
    let settings =
        Settings { mesh_name: "fsm".to_owned(), trust_domain: "cluster.local".to_owned(), ..Settings::default() };
    let workload = Workload {
        namespace: "bookstore".to_owned(),
        pod: "bookstore-v1-0".to_owned(),
        service_account: "bookstore".to_owned(),
        ..Workload::default()
    };
    for (name, resource) in [
        ("settings", Resource::Settings(settings)),
        ("workload", Resource::Workload(workload)),
        ("trust", Resource::TrustBundle(TrustBundle { pem: ca.trust_pem() })),
    ] {
        put(&mut set, name, &resource);
    }
    set
}

fn put(set: &mut ConfigSet, name: &str, resource: &Resource) {
    let entry = Entry { version: set.seq, bytes: resource.encode().into() };
    set.resources.insert(ResourceName::new(resource.kind(), name), entry);
}

/// An update that brings one route group with this path.
fn routes(seq: u64, path: &str) -> Update {
    let mut set = ConfigSet { seq, ..ConfigSet::default() };
    let route = HttpMatch { name: "all".to_owned(), path_regex: path.to_owned(), ..HttpMatch::default() };
    put(&mut set, "bookstore/routes", &Resource::RouteGroup(RouteGroup { matches: vec![route] }));
    set.as_update()
}

/// Waits for a state, and shows the last one when it does not come.
async fn until(control: &Control, what: &str, reached: impl FnMut(&State) -> bool) -> State {
    let mut states = control.state();
    let waited = tokio::time::timeout(Duration::from_secs(30), states.wait_for(reached)).await;
    match waited {
        Ok(state) => state.unwrap().clone(),
        Err(_) => panic!("{what}: still {:?}", control.state().borrow()),
    }
}

#[tokio::test]
async fn a_proxy_gets_a_certificate_and_a_configuration_and_acknowledges_it() {
    let mut proxy = Proxy::new();
    let mut controller = proxy.controller().await;
    let control = proxy.start();

    let mut stream = controller.stream().await;
    assert_eq!(stream.peer.to_string(), STORE);
    let first = stream.request().await;
    assert_eq!(first.node.unwrap().id, "bookstore/bookstore-v1-0");
    assert_eq!((first.running_seq, first.initial_resource_versions.len()), (0, 0));

    let mut set = complete(&proxy.ca, 7);
    stream.respond(set.as_update().to_response("")).await;
    let ack = stream.request().await;
    assert_eq!((ack.response_nonce.as_str(), &ack.error_detail), ("7", &None));
    assert_eq!(ack.config_digest, set.digest().0);
    assert_eq!(proxy.seq(), Some(7));

    let update = routes(8, "/books");
    set.apply(&update);
    stream.respond(update.to_response("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")).await;
    assert_eq!(stream.request().await.config_digest, set.digest().0);
    let state = until(&control, "second version", |state| state.acked_seq == Some(8)).await;
    assert_eq!((state.streams, state.certificates, state.stream_error), (1, 1, None));
    assert_eq!(proxy.tls.identity().unwrap().spiffe().to_string(), STORE);
}

#[tokio::test]
async fn a_version_that_cannot_be_used_is_refused_and_the_one_before_stays() {
    let mut proxy = Proxy::new();
    let mut controller = proxy.controller().await;
    let control = proxy.start();
    let mut stream = controller.stream().await;
    stream.request().await;
    let mut set = complete(&proxy.ca, 1);
    stream.respond(set.as_update().to_response("")).await;
    stream.request().await;

    stream.respond(routes(2, "/books(").to_response("")).await;
    let nack = stream.request().await;
    let reason = nack.error_detail.unwrap().message;
    assert!(reason.starts_with("RouteGroup/bookstore/routes: matches[0].path_regex: \"/books(\""), "{reason}");
    assert_eq!((nack.response_nonce.as_str(), nack.config_digest.len()), ("2", 0));
    assert_eq!(proxy.seq(), Some(1));
    until(&control, "refusal", |state| state.refused.as_ref().is_some_and(|refused| refused.seq == "2")).await;

    let good = routes(3, "/books");
    set.apply(&good);
    stream.respond(good.to_response("")).await;
    assert_eq!(stream.request().await.config_digest, set.digest().0);
    until(&control, "recovery", |state| state.refused.is_none() && state.acked_seq == Some(3)).await;
}

#[tokio::test]
async fn a_trust_bundle_that_is_none_is_refused() {
    let mut proxy = Proxy::new();
    let mut controller = proxy.controller().await;
    let _control = proxy.start();
    let mut stream = controller.stream().await;
    stream.request().await;
    let mut set = complete(&proxy.ca, 1);
    put(&mut set, "trust", &Resource::TrustBundle(TrustBundle { pem: "nothing".to_owned() }));
    stream.respond(set.as_update().to_response("")).await;
    let reason = stream.request().await.error_detail.unwrap().message;
    assert_eq!(reason, "TrustBundle/trust: pem: the trust bundle holds no certificate");
    assert_eq!(proxy.seq(), None);
}

#[tokio::test]
async fn a_new_trust_bundle_is_used_for_new_handshakes() {
    let mut proxy = Proxy::new();
    let mut controller = proxy.controller().await;
    let _control = proxy.start();
    let mut stream = controller.stream().await;
    stream.request().await;
    let both = format!("{}{}", proxy.ca.trust_pem(), TestCa::new().trust_pem());
    let mut set = complete(&proxy.ca, 1);
    put(&mut set, "trust", &Resource::TrustBundle(TrustBundle { pem: both.clone() }));
    stream.respond(set.as_update().to_response("")).await;
    stream.request().await;
    let identity = proxy.tls.identity().unwrap();
    assert_eq!((identity.trust().pem(), identity.trust().len()), (both.as_str(), 2));
}

#[tokio::test]
async fn after_a_break_the_proxy_says_what_it_has_and_takes_the_difference() {
    let mut proxy = Proxy::new();
    let mut controller = proxy.controller().await;
    let control = proxy.start();
    let mut stream = controller.stream().await;
    stream.request().await;
    let mut set = complete(&proxy.ca, 5);
    stream.respond(set.as_update().to_response("")).await;
    stream.request().await;
    stream.refuse(Status::unavailable("restarting")).await;
    drop(stream);

    let mut stream = controller.stream().await;
    let first = stream.request().await;
    assert_eq!(first.running_seq, 5);
    let held: Vec<(String, String)> = set.versions().into_iter().collect();
    let mut told: Vec<(String, String)> = first.initial_resource_versions.into_iter().collect();
    told.sort();
    assert_eq!(told, held);

    let update = routes(6, "/books");
    set.apply(&update);
    stream.respond(update.to_response("")).await;
    assert_eq!(stream.request().await.config_digest, set.digest().0);
    let state = until(&control, "after the break", |state| state.acked_seq == Some(6)).await;
    assert_eq!((state.streams, state.certificates), (2, 1));
}

#[tokio::test]
async fn while_the_controller_is_gone_the_configuration_stays_and_the_state_says_why() {
    let mut proxy = Proxy::new();
    let mut controller = proxy.controller().await;
    let control = proxy.start();
    let mut stream = controller.stream().await;
    stream.request().await;
    let set = complete(&proxy.ca, 5);
    stream.respond(set.as_update().to_response("")).await;
    stream.request().await;

    let address = controller.address;
    drop((stream, controller));
    let unreachable =
        |state: &State| state.stream_error.as_deref().is_some_and(|error| error.contains("cannot be reached"));
    let state = until(&control, "controller gone", unreachable).await;
    assert!(!state.connected);
    assert_eq!(proxy.seq(), Some(5));
    assert!(proxy.tls.server_config().is_ok());

    let signing = Signing { identity: STORE.parse().unwrap(), lifetime: Duration::from_secs(3600) };
    let mut controller = Controller::start(proxy.ca.clone(), signing, address).await;
    let mut stream = controller.stream().await;
    assert_eq!(stream.request().await.running_seq, 5);
    until(&control, "controller back", |state| state.connected && state.stream_error.is_none()).await;
}

#[tokio::test]
async fn a_refused_token_is_explained_and_a_new_one_is_taken_from_the_file() {
    let mut proxy = Proxy::new();
    std::fs::write(&proxy.environment.token_path, "a-stale-token").unwrap();
    let _controller = proxy.controller().await;
    let control = proxy.start();
    let state = until(&control, "refusal", |state| state.certificate_error.is_some()).await;
    let error = state.certificate_error.unwrap();
    for part in ["bookstore/bookstore-v1-0", "not valid for audience fsm", "ServiceAccount bookstore", "token"] {
        assert!(error.contains(part), "{error}");
    }
    assert!(!error.contains("a-stale-token"), "{error}");

    std::fs::write(&proxy.environment.token_path, TOKEN).unwrap();
    until(&control, "certificate", |state| state.certificates == 1 && state.certificate_error.is_none()).await;
}

#[tokio::test]
async fn a_missing_token_is_named() {
    let mut proxy = Proxy::new();
    std::fs::remove_file(&proxy.environment.token_path).unwrap();
    let _controller = proxy.controller().await;
    let control = proxy.start();
    let state = until(&control, "no token", |state| state.certificate_error.is_some()).await;
    let error = state.certificate_error.unwrap();
    assert!(error.contains("/token") && error.contains("audience \"fsm\""), "{error}");
}

#[tokio::test]
async fn a_controller_of_another_authority_gets_no_token() {
    let mut proxy = Proxy::new();
    let _controller = proxy.controller().await;
    proxy.environment.trust_anchors = TestCa::new().trust();
    let control = proxy.start();
    let state = until(&control, "distrust", |state| state.certificate_error.is_some()).await;
    let error = state.certificate_error.unwrap();
    assert!(error.contains("is not trusted"), "{error}");
}

#[tokio::test]
async fn a_certificate_for_somebody_else_is_not_used() {
    let mut proxy = Proxy::new();
    let thief = "spiffe://cluster.local/ns/bookthief/sa/bookthief";
    let _controller = proxy.controller_signing(thief, Duration::from_secs(3600)).await;
    let control = proxy.start();
    let state = until(&control, "wrong identity", |state| state.certificate_error.is_some()).await;
    let error = state.certificate_error.unwrap();
    assert!(error.contains(thief) && error.contains(STORE), "{error}");
    assert!(proxy.tls.identity().is_none());
}

#[tokio::test]
async fn a_certificate_is_renewed_before_it_ends_without_breaking_the_stream() {
    let mut proxy = Proxy::new();
    let mut controller = proxy.controller_signing(STORE, Duration::from_secs(6)).await;
    let control = proxy.start();
    until(&control, "certificate", |state| state.certificates == 1).await;
    let first = proxy.tls.identity().unwrap();
    let _stream = controller.stream().await;
    let state = until(&control, "renewal", |state| state.certificates >= 2).await;
    let renewed = proxy.tls.identity().unwrap();
    assert_ne!(first.serial(), renewed.serial());
    assert!(renewed.not_after() > first.not_after());
    assert!(state.connected && state.streams == 1, "{state:?}");
}

#[tokio::test]
async fn a_restarted_proxy_without_controller_has_its_last_configuration() {
    let mut proxy = Proxy::new();
    let mut controller = proxy.controller().await;
    let control = proxy.start();
    let mut stream = controller.stream().await;
    stream.request().await;
    let set = complete(&proxy.ca, 42);
    stream.respond(set.as_update().to_response("")).await;
    until(&control, "on disk", |state| state.on_disk == Some(42)).await;
    drop((control, stream, controller));

    let proxy = proxy.restarted();
    let control = proxy.start();
    assert_eq!(proxy.seq(), Some(42));
    assert_eq!(proxy.snapshots.load().as_ref().unwrap().digest(), set.digest());
    assert_eq!(control.state().borrow().from_disk, Some(42));
    // Its key was in memory only.
    assert!(proxy.tls.identity().is_none());
}

#[tokio::test]
async fn a_file_that_is_damaged_or_of_another_pod_is_ignored() {
    let proxy = Proxy::new();
    let directory = proxy.environment.state_dir.clone().unwrap();
    disk::store(&directory, &Snapshot::compile(complete(&proxy.ca, 9)).unwrap()).unwrap();
    let mut bytes = std::fs::read(proxy.file()).unwrap();
    assert!(disk::load(&proxy.environment).is_some());

    let other = Environment { pod: "bookstore-v2-0".to_owned(), ..proxy.environment.clone() };
    assert!(disk::load(&other).is_none());

    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(proxy.file(), bytes).unwrap();
    assert!(disk::load(&proxy.environment).is_none());
    let control = proxy.start();
    assert_eq!((proxy.seq(), control.state().borrow().from_disk), (None, None));
}

#[test]
fn the_file_holds_no_key() {
    let proxy = Proxy::new();
    let directory = proxy.environment.state_dir.clone().unwrap();
    disk::store(&directory, &Snapshot::compile(complete(&proxy.ca, 9)).unwrap()).unwrap();
    let text = String::from_utf8_lossy(&std::fs::read(proxy.file()).unwrap()).into_owned();
    assert!(text.contains("BEGIN CERTIFICATE") && !text.contains("PRIVATE KEY"));
    let kinds: Vec<Kind> = complete(&proxy.ca, 9).resources.keys().map(|name| name.kind).collect();
    assert_eq!(kinds, [Kind::Settings, Kind::Workload, Kind::TrustBundle]);
}
