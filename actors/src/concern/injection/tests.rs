use serde_json::json;

use super::*;
use crate::concern::Concern;
use crate::fixture::*;

fn state(history: &History) -> Injection {
    drive::<Injection>(history).0
}

#[test]
fn namespaces_and_settings_are_known_as_they_change() {
    let mut history = History::started();
    assert!(!state(&history).monitors("shop"));
    history.apply(namespace_of_mesh("shop"));
    assert!(state(&history).monitors("shop"));
    let mut other_mesh = namespace_of_mesh("shop");
    other_mesh["metadata"]["labels"]["flomesh.io/monitored-by"] = json!("another");
    history.apply(other_mesh);
    assert!(!state(&history).monitors("shop"));
    history.apply(mesh_config(true));
    assert!(state(&history).mesh().is_permissive());
}

#[test]
fn before_a_controller_has_started_nobody_is_a_member() {
    let mut history = History::default();
    history.apply(namespace_of_mesh("shop"));
    assert!(!state(&history).monitors("shop"));
    history.push(&started());
    assert!(state(&history).monitors("shop"));
}

#[test]
fn an_annotation_makes_another_state_and_no_change_for_proxies() {
    let mut history = History::bookstore();
    let before = state(&history).digest();
    let mut namespace = namespace_of_mesh("bookstore");
    namespace["metadata"]["annotations"]["flomesh.io/metrics"] = json!("enabled");
    history.apply(namespace);
    let (after, outputs) = drive::<Injection>(&history);
    assert_ne!(after.digest(), before);
    assert!(outputs.iter().all(Vec::is_empty));
}
