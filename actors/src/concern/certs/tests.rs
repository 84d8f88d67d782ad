use fsm_store::{Seq, Timestamp};

use super::*;
use crate::Fact;
use crate::concern::Concern;
use crate::fact::CertificateIssued;
use crate::fixture::*;

fn issue(history: &mut History, serial: &str, pod: Option<&str>) -> Seq {
    history.push(&Fact::CertificateIssued(CertificateIssued {
        identity: identity("bookbuyer/bookbuyer"),
        pod: pod.map(name),
        serial: serial.to_owned(),
        fingerprint: "ab".repeat(32),
        not_after: Timestamp(86_400_000_000),
    }))
}

fn serials(certs: &Certs) -> Vec<&str> {
    certs.in_use().map(|(_, _, certificate)| certificate.serial.as_str()).collect()
}

#[test]
fn the_trust_bundle_is_for_everyone_and_changes_with_the_controllers() {
    let mut history = History::started();
    history.push(&started());
    let mut renewed = started();
    if let Fact::ControllerStarted(started) = &mut renewed {
        started.trust_bundle_pem.push_str("-----BEGIN CERTIFICATE-----\nMIJ=\n-----END CERTIFICATE-----\n");
    }
    history.push(&renewed);
    let trust = vec!["+TrustBundle/trust".to_owned()];
    assert_eq!(drive::<Certs>(&history).1, [trust.clone(), vec![], trust]);
}

#[test]
fn the_newest_certificate_of_a_pod_is_the_one_in_use() {
    let mut history = History::bookstore();
    issue(&mut history, "01", Some("bookbuyer/bookbuyer-0"));
    issue(&mut history, "02", Some("bookbuyer/bookbuyer-0"));
    issue(&mut history, "03", None);
    let (certs, _) = drive::<Certs>(&history);
    assert_eq!(serials(&certs), ["03", "02"]);
    assert_eq!(certs.issued_total(), 3);
}

#[test]
fn states_that_differ_have_different_digests() {
    let mut history = History::bookstore();
    let mut digests = std::collections::BTreeSet::new();
    digests.insert(drive::<Certs>(&history).0.digest());
    for serial in ["01", "02"] {
        issue(&mut history, serial, Some("bookbuyer/bookbuyer-0"));
        digests.insert(drive::<Certs>(&history).0.digest());
    }
    history.delete(pod("bookbuyer", "bookbuyer-0", "bookbuyer", "10.0.0.1"));
    digests.insert(drive::<Certs>(&history).0.digest());
    assert_eq!(digests.len(), 4);
}
