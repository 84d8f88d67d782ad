//! Handshakes between a client and a server, over memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fsm_proxy_config::SpiffeId;
use futures::FutureExt;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use super::testing::TestCa;
use super::{Identity, MeshTls, NotReady, established_peer};

const BUYER: &str = "spiffe://cluster.local/ns/bookbuyer/sa/bookbuyer";
const STORE: &str = "spiffe://cluster.local/ns/bookstore/sa/bookstore";
const DAY: Duration = Duration::from_secs(86_400);

fn tls(identity: Identity) -> MeshTls {
    let tls = MeshTls::default();
    tls.set(identity).unwrap();
    tls
}

fn id(text: &str) -> SpiffeId {
    text.parse().unwrap()
}

/// What each side got: the identity of the other, or why not.
struct Outcome {
    client: Result<SpiffeId, String>,
    server: Result<SpiffeId, String>,
}

/// One handshake and one byte each way (in TLS 1.3 a client learns of its refusal only then).
async fn handshake(client: Arc<rustls::ClientConfig>, server: Arc<rustls::ServerConfig>) -> Outcome {
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    let connecting = async {
        let mut stream = TlsConnector::from(client).connect(name, near).await?;
        stream.write_all(b"?").await?;
        stream.read_u8().await?;
        established_peer(stream.get_ref().1.peer_certificates(), SystemTime::now()).map_err(std::io::Error::other)
    };
    let accepting = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.read_u8().await?;
        stream.write_all(b"!").await?;
        stream.flush().await?;
        established_peer(stream.get_ref().1.peer_certificates(), SystemTime::now()).map_err(std::io::Error::other)
    };
    let (client, server) = tokio::join!(connecting, accepting);
    Outcome { client: client.map_err(|error| error.to_string()), server: server.map_err(|error| error.to_string()) }
}

#[tokio::test]
async fn both_sides_learn_who_the_other_is() {
    let ca = TestCa::new();
    let (buyer, store) = (tls(ca.issue(BUYER, DAY)), tls(ca.issue(STORE, DAY)));
    let outcome = handshake(buyer.client_config(&id(STORE)).unwrap(), store.server_config().unwrap()).await;
    assert_eq!(outcome.client, Ok(id(STORE)));
    assert_eq!(outcome.server, Ok(id(BUYER)));
}

#[tokio::test]
async fn a_resumed_session_keeps_the_peers_identity() {
    let ca = TestCa::new();
    let (buyer, store) = (tls(ca.issue(BUYER, DAY)), tls(ca.issue(STORE, DAY)));
    for _ in 0..3 {
        let outcome = handshake(buyer.client_config(&id(STORE)).unwrap(), store.server_config().unwrap()).await;
        assert_eq!(outcome.server, Ok(id(BUYER)));
    }
}

#[tokio::test]
async fn a_server_that_is_somebody_else_is_refused() {
    let ca = TestCa::new();
    let (buyer, thief) = (tls(ca.issue(BUYER, DAY)), tls(ca.issue(BUYER, DAY)));
    let outcome = handshake(buyer.client_config(&id(STORE)).unwrap(), thief.server_config().unwrap()).await;
    let reason = outcome.client.unwrap_err();
    assert!(reason.contains(BUYER) && reason.contains(STORE), "{reason}");
    assert!(outcome.server.is_err());
}

#[tokio::test]
async fn certificates_of_another_authority_are_refused_on_both_sides() {
    let (ours, theirs) = (TestCa::new(), TestCa::new());
    let (buyer, store) = (tls(ours.issue(BUYER, DAY)), tls(theirs.issue(STORE, DAY)));
    let outcome = handshake(buyer.client_config(&id(STORE)).unwrap(), store.server_config().unwrap()).await;
    let reason = outcome.client.unwrap_err();
    assert!(reason.contains("UnknownIssuer"), "{reason}");

    // A client that trusts their server still shows a certificate that they do not know.
    let lenient = tls(ours.issue(BUYER, DAY).with_trust(theirs.trust()));
    let outcome = handshake(lenient.client_config(&id(STORE)).unwrap(), store.server_config().unwrap()).await;
    let reason = outcome.server.unwrap_err();
    assert!(reason.contains("UnknownIssuer"), "{reason}");
    assert!(outcome.client.is_err());
}

#[tokio::test]
async fn a_client_without_certificate_is_refused() {
    let ca = TestCa::new();
    let store = tls(ca.issue(STORE, DAY));
    let anonymous = Arc::new(super::client_config(ca.trust(), id(STORE), None).unwrap());
    let outcome = handshake(anonymous, store.server_config().unwrap()).await;
    assert!(outcome.server.unwrap_err().contains("sent no certificates"));
}

#[tokio::test]
async fn an_expired_client_certificate_is_refused() {
    let ca = TestCa::new();
    let store = tls(ca.issue(STORE, DAY));
    let expired = ca.issue_with(&[BUYER], SystemTime::now() - Duration::from_secs(60)).unwrap();
    let client = Arc::new(super::client_config(ca.trust(), id(STORE), Some(&expired)).unwrap());
    let outcome = handshake(client, store.server_config().unwrap()).await;
    assert!(outcome.server.unwrap_err().contains("Expired"));
}

#[test]
fn a_workload_whose_certificate_expired_says_so_before_it_tries() {
    let ca = TestCa::new();
    let expired = tls(ca.issue_with(&[BUYER], SystemTime::now() - Duration::from_secs(60)).unwrap());
    let reason = expired.server_config().unwrap_err().to_string();
    assert!(reason.starts_with(&format!("the certificate of {BUYER} expired 60 s ago")), "{reason}");
    assert!(matches!(MeshTls::default().server_config(), Err(NotReady::NoCertificate)));
}

#[tokio::test]
async fn a_proxy_that_has_just_started_waits_for_its_certificate() {
    let ca = TestCa::new();
    let starting = MeshTls::starting(Duration::from_secs(3600));
    let mut waiting = std::pin::pin!(starting.issued());
    assert!(waiting.as_mut().now_or_never().is_none());
    starting.set(ca.issue(STORE, DAY)).unwrap();
    assert!(waiting.as_mut().now_or_never().is_some());
    // One that has waited long enough says at once that there is none.
    MeshTls::starting(Duration::ZERO).issued().await;
}

#[test]
fn a_certificate_needs_exactly_one_spiffe_id() {
    let ca = TestCa::new();
    for (uris, expected) in [
        (&[][..], "has 0 URI SANs"),
        (&[BUYER, STORE][..], "has 2 URI SANs"),
        (&["https://example.com/"][..], "not a workload identity"),
    ] {
        let reason = ca.issue_with(uris, SystemTime::now() + DAY).unwrap_err().to_string();
        assert!(reason.contains(expected), "{reason}");
    }
}

#[tokio::test]
async fn a_new_certificate_is_used_by_new_handshakes_and_open_connections_go_on() {
    let ca = TestCa::new();
    let (buyer, store) = (tls(ca.issue(BUYER, DAY)), tls(ca.issue(STORE, DAY)));
    let (near, far) = tokio::io::duplex(1 << 16);
    let name = ServerName::IpAddress(std::net::Ipv4Addr::LOCALHOST.into());
    let connector = TlsConnector::from(buyer.client_config(&id(STORE)).unwrap());
    let acceptor = TlsAcceptor::from(store.server_config().unwrap());
    let (client, server) = tokio::join!(connector.connect(name, near), acceptor.accept(far));
    let (mut client, mut server) = (client.unwrap(), server.unwrap());

    let before = store.server_config().unwrap();
    let renewed = ca.issue(STORE, DAY);
    store.set(renewed.clone()).unwrap();
    assert!(!Arc::ptr_eq(&before, &store.server_config().unwrap()));
    assert_eq!(store.identity().unwrap().serial(), renewed.serial());

    client.write_all(b"still here").await.unwrap();
    client.flush().await.unwrap();
    let mut text = [0; 10];
    server.read_exact(&mut text).await.unwrap();
    assert_eq!(&text, b"still here");
}

#[tokio::test]
async fn a_new_trust_bundle_holds_for_new_handshakes() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let (buyer, store) = (tls(old.issue(BUYER, DAY)), tls(new.issue(STORE, DAY).with_trust(old.trust())));
    assert!(handshake(buyer.client_config(&id(STORE)).unwrap(), store.server_config().unwrap()).await.client.is_err());
    buyer.set_trust(new.trust()).unwrap();
    let outcome = handshake(buyer.client_config(&id(STORE)).unwrap(), store.server_config().unwrap()).await;
    assert_eq!(outcome.client, Ok(id(STORE)));
}

#[test]
fn a_trust_bundle_holds_for_later_certificates_too() {
    let (old, new) = (TestCa::new(), TestCa::new());
    let buyer = MeshTls::default();
    buyer.set_trust(new.trust()).unwrap();
    assert!(buyer.identity().is_none());
    for _ in 0..2 {
        buyer.set(old.issue(BUYER, DAY)).unwrap();
        assert_eq!(buyer.identity().unwrap().trust().pem(), new.trust_pem());
    }
}

#[test]
fn no_key_is_printed() {
    let identity = TestCa::new().issue(BUYER, DAY);
    let text = format!("{identity:?} {:?}", tls(identity.clone()));
    assert!(text.contains(BUYER));
    assert!(!text.to_lowercase().contains("key"), "{text}");
}

#[test]
fn a_trust_bundle_without_certificates_is_refused() {
    assert_eq!(super::Trust::from_pem("").unwrap_err().to_string(), "the trust bundle holds no certificate");
    assert!(super::Trust::from_pem("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").is_err());
}
