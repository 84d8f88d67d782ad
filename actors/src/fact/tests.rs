use serde_json::json;

use super::*;

fn reread(fact: &Fact) -> Fact {
    Fact::parse(&fact.to_entry(TraceContext::default())).unwrap()
}

#[test]
fn an_object_is_kept_as_it_was_seen() {
    let pod = json!({"metadata": {"namespace": "shop", "name": "web-0"}, "spec": {"unknownToFsm": 1.50}});
    let entry = Fact::applied("v1/Pod", &pod).to_entry(TraceContext::default());
    assert_eq!((&*entry.topic, &*entry.key), ("object", "v1/Pod shop/web-0"));
    assert_eq!(String::from_utf8(entry.body.to_vec()).unwrap(), format!(r#"{{"type":"applied","object":{pod}}}"#));
    let Fact::Object(fact) = Fact::parse(&entry).unwrap() else { panic!("not an object") };
    assert_eq!(fact.name, ObjectName::new("shop", "web-0"));
    assert_eq!(fact.object.get(), pod.to_string());
}

#[test]
fn an_acknowledgement_survives_the_log() {
    let ack = Ack { proxy: ObjectName::new("shop", "web-0"), seq: Seq(7), digest: Digest([0xab; 32]) };
    let Fact::Ack(read) = reread(&Fact::Ack(ack.clone())) else { panic!("not an ack") };
    assert_eq!(read, ack);
}

#[test]
fn relists_are_named_by_kind() {
    let relist = Relist { gvk: "discovery.k8s.io/v1/EndpointSlice".to_owned(), phase: RelistPhase::End };
    let Fact::Relist(read) = reread(&Fact::Relist(relist.clone())) else { panic!("not a relist") };
    assert_eq!(read, relist);
}

#[test]
fn unknown_topics_are_kept_and_unknown_members_ignored() {
    let entry =
        Entry { topic: "weather".into(), key: "x".into(), body: b"[]"[..].into(), trace: TraceContext::default() };
    assert!(matches!(Fact::parse(&entry), Ok(Fact::Unknown { topic }) if topic == "weather"));
    let body = br#"{"version":"9","mesh_name":"m","mesh_namespace":"n","mesh_config":"c","trust_domain":"t",
        "trust_bundle_pem":"p","moon":"full"}"#;
    let entry = Entry { topic: "controller".into(), body: body.to_vec().into(), ..entry };
    assert!(matches!(Fact::parse(&entry), Ok(Fact::ControllerStarted(started)) if started.mesh_name == "m"));
}

#[test]
fn a_damaged_body_names_the_record() {
    let entry =
        Entry { topic: "ack".into(), key: "shop/web-0".into(), body: b"{"[..].into(), trace: TraceContext::default() };
    let error = Fact::parse(&entry).unwrap_err().to_string();
    assert!(error.contains("\"ack\"") && error.contains("shop/web-0") && error.contains("fsm log verify"), "{error}");
}
