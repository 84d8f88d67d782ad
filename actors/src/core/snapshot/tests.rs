use fsm_store::{Timestamp, TraceContext};

use super::*;
use crate::fact::{Ack, CertificateIssued, Nack, ProxyFact, ProxyPhase, RelistPhase};
use crate::fixture::*;

fn core_of(history: &History) -> Core {
    let mut core = Core::default();
    core.apply(&history.0);
    core
}

/// A history with everything in it that a snapshot has a line for.
fn eventful() -> History {
    let mut history = History::bookstore();
    let buyer = name("bookbuyer/bookbuyer-0");
    history.push(&Fact::Proxy(ProxyFact {
        phase: ProxyPhase::Connected,
        proxy: buyer.clone(),
        identity: identity("bookbuyer/bookbuyer"),
        instance: "one".into(),
        version: "0.1.0".into(),
        running_seq: 0,
    }));
    let digest = core_of(&history).config_of(&buyer).unwrap().digest();
    history.push(&Fact::Ack(Ack { proxy: buyer.clone(), seq: Seq(20), digest }));
    history.push(&Fact::Nack(Nack { proxy: buyer.clone(), seq: Seq(21), error: "no".into() }));
    for pod in [Some(buyer), None] {
        history.push(&Fact::CertificateIssued(CertificateIssued {
            identity: identity("bookbuyer/bookbuyer"),
            pod,
            serial: "01".into(),
            fingerprint: "ab".into(),
            not_after: Timestamp(9),
        }));
    }
    history.apply(mesh_config(true));
    // A version of it that is refused: the one before stays in force.
    let mut broken = mesh_config(false);
    broken["spec"]["sidecar"] = serde_json::json!({ "logLevel": 7 });
    history.apply(broken);
    history.apply(split(50, 50));
    history.delete(target("v2", "bookstore-v2", &["bookbuyer"]));
    history.apply(pod("bookstore", "v2-0", "bookstore-v2-new", "10.0.0.9"));
    history.relist("v1/Pod", RelistPhase::Begin);
    history.apply(pod("bookbuyer", "bookbuyer-0", "bookbuyer", "10.0.0.7"));
    history
}

#[test]
fn a_restored_core_is_the_one_that_was_kept_and_goes_on_as_it_does() {
    let whole = eventful();
    let mut rest = whole.clone();
    rest.relist("v1/Pod", RelistPhase::End);
    rest.apply(split(0, 100));
    rest.apply(mesh_config(false));
    for cut in 0..=whole.0.len() {
        let mut through = Core::default();
        through.apply(&whole.0[..cut]);
        let Restored { core: mut back, differing } = restore(&write(&through)).unwrap();
        assert_eq!(differing, Vec::<String>::new(), "after record {cut}");
        assert_eq!((back.seq(), back.digests()), (through.seq(), through.digests()), "after record {cut}");
        assert_eq!(write(&back), write(&through), "after record {cut}");
        for record in &rest.0[cut..] {
            through.apply_one(record);
            back.apply_one(record);
            assert_eq!(back.digests(), through.digests(), "after record {cut} and {}", record.seq);
            for proxy in through.proxies() {
                assert_eq!(back.config_of(proxy), through.config_of(proxy), "{proxy} at {}", record.seq);
            }
        }
    }
}

#[test]
fn a_newer_form_is_named() {
    let text = String::from_utf8(write(&core_of(&History::bookstore()))).unwrap();
    let newer = text.replacen("\"format\":1", "\"format\":2", 1);
    assert!(matches!(restore(newer.as_bytes()), Err(SnapshotError::Newer { found: 2 })));
}

#[test]
fn a_damaged_line_is_named_by_its_number() {
    let text = String::from_utf8(write(&core_of(&History::bookstore()))).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[2] = "{\"object\":";
    let error = restore(lines.join("\n").as_bytes()).unwrap_err();
    assert!(error.to_string().starts_with("line 3 can't be read"), "{error}");
    assert!(restore(b"").is_err());
}

#[test]
fn what_leads_to_another_state_is_named() {
    let text = String::from_utf8(write(&core_of(&History::bookstore()))).unwrap();
    let changed = text.replacen("10.96.0.1", "10.96.0.99", 1);
    let Restored { differing, .. } = restore(changed.as_bytes()).unwrap();
    assert_eq!(differing, ["catalog", "publisher", "routes"]);
}

#[test]
fn records_that_were_left_out_stay_left_out() {
    let history = History::bookstore();
    let last = history.0.last().unwrap();
    let skip = (Routes::NAME, last.seq);
    let mut core = Core::leaving_out(Skips::from([skip]));
    core.apply(&history.0);
    let restored = restore(&write(&core)).unwrap();
    assert!(restored.core.skips().contains(&skip));
    assert_eq!(last.entry.trace, TraceContext::default());
}
