use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fsm_proxy_config::SpiffeId;
use k8s_openapi::api::authentication::v1::{TokenReviewStatus, UserInfo};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{ServerName, UnixTime};

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn signer() -> Signer {
    Signer::new(Authority::from_pem(&AuthorityPem::generate(now()).unwrap()).unwrap())
}

fn buyer() -> SpiffeId {
    "spiffe://cluster.local/ns/shop/sa/buyer".parse().unwrap()
}

fn request(key: &KeyPair, names: &[&str]) -> Vec<u8> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    CertificateParams::new(names).unwrap().serialize_request(key).unwrap().der().to_vec()
}

fn roots(signer: &Signer) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(signer.authority().root().clone()).unwrap();
    Arc::new(roots)
}

fn verify_as_client(signer: &Signer, issued: &IssuedCertificate, at: SystemTime) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots(signer), provider).build().unwrap();
    let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
    verifier.verify_client_cert(&issued.chain[0], &issued.chain[1..], at).map(drop)
}

#[test]
fn a_workload_certificate_carries_the_callers_identity_whatever_the_request_names() {
    let signer = signer();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let issued = signer.sign(&request(&key, &["admin.kube-system.cluster.local"]), &buyer(), now()).unwrap();
    let (_, leaf) = x509_parser::parse_x509_certificate(&issued.chain[0]).unwrap();
    let names: Vec<String> =
        leaf.subject_alternative_name().unwrap().unwrap().value.general_names.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["URI(spiffe://cluster.local/ns/shop/sa/buyer)", "DNSName(buyer.shop.cluster.local)"]);
    assert!(!leaf.is_ca());
    assert_eq!(leaf.public_key().subject_public_key.data.as_ref(), key.public_key_raw());
    let hex: String = leaf.raw_serial().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(issued.serial, hex);
}

#[test]
fn chains_verify_against_the_root_alone_while_they_are_valid() {
    let signer = signer();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let issued = signer.sign(&request(&key, &[]), &buyer(), now()).unwrap();
    assert_eq!(issued.not_after, now() + Duration::from_secs(24 * 3600));
    assert!(verify_as_client(&signer, &issued, now() - Duration::from_secs(200)).is_ok(), "clocks differ");
    assert!(verify_as_client(&signer, &issued, now() + Duration::from_secs(23 * 3600)).is_ok());
    assert!(verify_as_client(&signer, &issued, now() + Duration::from_secs(25 * 3600)).is_err());
    assert!(verify_as_client(&self::signer(), &issued, now()).is_err(), "another mesh's root");
    signer.set_validity(Some(Duration::from_secs(3600)));
    let short = signer.sign(&request(&key, &[]), &buyer(), now()).unwrap();
    assert!(verify_as_client(&signer, &short, now() + Duration::from_secs(2 * 3600)).is_err());
}

#[test]
fn requests_without_proof_of_the_key_or_with_another_algorithm_are_refused() {
    let signer = signer();
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let mut forged = request(&key, &[]);
    let last = forged.len() - 1;
    forged[last] ^= 1;
    assert!(matches!(signer.sign(&forged, &buyer(), now()), Err(CaError::Request(_))));
    assert!(matches!(signer.sign(b"nonsense", &buyer(), now()), Err(CaError::Request(_))));
    let other = KeyPair::generate_for(&PKCS_ED25519).unwrap();
    let error = signer.sign(&request(&other, &[]), &buyer(), now()).unwrap_err().to_string();
    assert!(error.contains("ECDSA P-256"), "{error}");
}

#[test]
fn the_controllers_certificate_is_good_for_its_services_and_renewed_in_place() {
    let signer = signer();
    let certificate = ServerCertificate::new(signer.clone(), "cluster.local", "fsm-system", now()).unwrap();
    let verify = |name: &str, at: SystemTime| {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots(&signer), provider).build().unwrap();
        let at = UnixTime::since_unix_epoch(at.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        let current = certificate.current_chain();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        verifier.verify_server_cert(&current[0], &current[1..], &name, &[], at).map(drop)
    };
    let later = now() + Duration::from_secs(30 * 3600);
    for name in ["fsm-controller.fsm-system.svc.cluster.local", "fsm-injector.fsm-system.svc", "fsm-controller"] {
        verify(name, now()).unwrap();
        assert!(verify(name, later).is_err());
    }
    assert!(verify("kubernetes.default.svc", now()).is_err());
    certificate.renew(later).unwrap();
    verify("fsm-controller.fsm-system.svc", later).unwrap();
}

#[test]
fn an_authority_survives_its_secret_and_a_new_intermediate_keeps_the_root() {
    let pem = AuthorityPem::generate(now()).unwrap();
    let authority = Authority::from_pem(&pem).unwrap();
    assert!(!authority.intermediate_is_old(now()));
    let in_a_year = now() + Duration::from_secs(400 * 86_400);
    assert!(authority.intermediate_is_old(in_a_year));
    let renewed = AuthorityPem::with_root(pem.root_certificate.clone(), pem.root_key.clone(), in_a_year).unwrap();
    assert_eq!(renewed.root_certificate, pem.root_certificate);
    let renewed = Authority::from_pem(&renewed).unwrap();
    assert!(!renewed.intermediate_is_old(in_a_year));
    let signer = Signer::new(authority);
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let before = signer.sign(&request(&key, &[]), &buyer(), in_a_year).unwrap();
    signer.replace_authority(renewed);
    let after = signer.sign(&request(&key, &[]), &buyer(), in_a_year).unwrap();
    assert_ne!(before.chain[1], after.chain[1]);
    for issued in [&before, &after] {
        verify_as_client(&signer, issued, in_a_year).unwrap();
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused_by_name() {
    let (one, two) = (AuthorityPem::generate(now()).unwrap(), AuthorityPem::generate(now()).unwrap());
    let mixed = AuthorityPem { intermediate_certificate: two.intermediate_certificate, ..one.clone() };
    assert!(Authority::from_pem(&mixed).err().unwrap().to_string().contains("intermediate.crt"));
    let mixed = AuthorityPem { intermediate_key: two.intermediate_key, ..one.clone() };
    assert!(Authority::from_pem(&mixed).err().unwrap().to_string().contains("intermediate.key"));
    let damaged = AuthorityPem { root_certificate: "x".to_owned(), ..one };
    assert!(Authority::from_pem(&damaged).err().unwrap().to_string().contains("ca.crt"));
}

fn review(change: impl FnOnce(&mut TokenReviewStatus)) -> Result<Caller, CallerError> {
    let extra = [("authentication.kubernetes.io/pod-name".to_owned(), vec!["buyer-0".to_owned()])];
    let mut status = TokenReviewStatus {
        authenticated: Some(true),
        audiences: Some(vec!["fsm".to_owned()]),
        user: Some(UserInfo {
            username: Some("system:serviceaccount:shop:buyer".to_owned()),
            extra: Some(extra.into()),
            ..UserInfo::default()
        }),
        ..TokenReviewStatus::default()
    };
    change(&mut status);
    Caller::from_review(Some(&status), "cluster.local")
}

#[test]
fn a_reviewed_token_gives_the_identity_and_the_pod() {
    assert_eq!(review(|_| {}), Ok(Caller { identity: buyer(), pod: Some("buyer-0".to_owned()) }));
}

#[test]
fn tokens_are_refused_with_the_reason() {
    let refused = review(|status| {
        status.authenticated = None;
        status.error = Some("token has expired".to_owned());
    });
    assert_eq!(refused, Err(CallerError::Refused("token has expired".to_owned())));
    let audience = review(|status| status.audiences = Some(vec!["https://kubernetes.default.svc".to_owned()]));
    assert!(matches!(audience, Err(CallerError::Audience(_))));
    for name in ["admin", "system:serviceaccount:shop", "system:serviceaccount::x", "system:serviceaccount:a/b:c"] {
        let refused = review(|status| {
            if let Some(user) = &mut status.user {
                user.username = Some(name.to_owned());
            }
        });
        assert_eq!(refused, Err(CallerError::NotAWorkload(name.to_owned())));
    }
    assert!(Caller::from_review(None, "cluster.local").is_err());
}
