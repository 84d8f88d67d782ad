use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Bodies that kubectl 1.32 sent, with the paths it sent them to.
const RECORDED: &str = include_str!("recorded.txt");

fn recorded() -> Vec<(String, Vec<u8>)> {
    let lines = RECORDED.lines().filter_map(|line| line.split_once(' '));
    lines.map(|(path, body)| (path.to_owned(), STANDARD.decode(body).unwrap())).collect()
}

fn sent_to(path: &str) -> Value {
    let (_, body) = recorded().into_iter().find(|(p, _)| p == path).unwrap();
    read(&body).unwrap()
}

#[test]
fn what_kubectl_sends_is_read_completely() {
    let all = recorded();
    assert!(all.len() > 10);
    for (path, body) in all {
        assert!(read(&body).is_ok(), "{path}: {:?}", read(&body));
    }
    assert_eq!(
        sent_to("/api/v1/namespaces"),
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "recmade"}, "spec": {}})
    );
    let deployment = sent_to("/apis/apps/v1/namespaces/rec/deployments");
    assert_eq!(deployment["spec"]["replicas"], 0);
    assert_eq!(deployment["spec"]["selector"]["matchLabels"], deployment["spec"]["template"]["metadata"]["labels"]);
    assert!(deployment["spec"]["template"]["spec"]["containers"][0]["image"].is_string());
    let service = sent_to("/api/v1/namespaces/rec/services");
    assert!(service["spec"]["ports"][0]["port"].is_i64());
    let secret = sent_to("/api/v1/namespaces/rec/secrets");
    assert!(secret["data"].as_object().unwrap().values().all(|v| STANDARD.decode(v.as_str().unwrap()).is_ok()));
}

#[test]
fn what_is_not_in_the_tables_is_refused() {
    assert!(matches!(read(b"{}"), Err(ProtobufError::Malformed(_))));
    // An envelope with `v1` `Pod` and nothing in it.
    let mut pod = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod".to_vec();
    assert!(matches!(read(&pod), Err(ProtobufError::UnknownKind { .. })));
    pod.pop();
    assert!(matches!(read(&pod), Err(ProtobufError::Malformed(_))));
    // A ConfigMap with field 9.
    let odd = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x02\x48\x01";
    assert!(matches!(read(odd), Err(ProtobufError::UnknownField { number: 9, .. })));
}

proptest! {
    #[test]
    fn no_body_makes_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0_usize..200, at in 0_usize..16) {
        let mut body = MAGIC.to_vec();
        body.extend(&bytes);
        let _ = read(&body);
        let all = recorded();
        let mut body = all[at % all.len()].1.clone();
        if let Some(byte) = body.get_mut(cut) {
            *byte = bytes.first().copied().unwrap_or(0xff);
        }
        body.truncate(cut.max(8));
        let _ = read(&body);
    }
}
