use std::fs;

use crate::Recording;

const BUY: &str = "--client bookbuyer --server bookstore.bookstore:14001 --path /buy-a-book/new";

#[test]
fn what_would_have_been_without_the_loss_of_access() {
    insta::assert_snapshot!(Recording::bookstore().prints("run --without 135 136 --to 139"));
}

#[test]
fn what_is_left_of_a_change_that_was_undone() {
    let report = Recording::bookstore().prints_json("run --without 135,136");
    assert_eq!((&report["hypothetical"], &report["identical"]), (&true.into(), &false.into()));
    for proxy in report["proxies"].as_array().unwrap() {
        assert_eq!(proxy["resources"].as_array().unwrap().len(), 0, "the targets were given back: {proxy}");
        assert!(proxy["spans"][0]["to"].as_u64().unwrap() < 145, "{proxy}");
    }
}

#[test]
fn a_record_that_tells_nobody_anything_makes_no_difference() {
    let printed = Recording::bookstore().prints("run --without 137");
    assert!(printed.contains("no proxy would have been told anything else"), "{printed}");
}

#[test]
fn what_a_manifest_would_do() {
    let log = Recording::bookstore();
    let file = log.path().with_file_name("thief.yaml");
    let manifest = "
apiVersion: access.smi-spec.io/v1alpha3
kind: TrafficTarget
metadata: {name: thief, namespace: bookstore}
spec:
  destination: {kind: ServiceAccount, name: bookstore-v1, namespace: bookstore}
  rules: [{kind: HTTPRouteGroup, name: bookstore-service-routes, matches: [buy-a-book]}]
  sources: [{kind: ServiceAccount, name: bookthief, namespace: bookthief}]
";
    fs::write(&file, manifest).unwrap();
    let steal = BUY.replace("bookbuyer", "bookthief");
    for from in ["", "--from 126"] {
        let report = log.prints_json(&format!("run {from} --with {} {steal}", file.display()));
        let answers = &report["decisions"][0]["spans"][0];
        assert_eq!(answers["real"]["verdict"], "denied", "{report}");
        // The other backend's target doesn't name the thief.
        assert!(["allowed", "mixed"].contains(&answers["hypothetical"]["verdict"].as_str().unwrap()), "{report}");
    }
    fs::write(&file, manifest.replace("kind: TrafficTarget", "kind: Job")).unwrap();
    assert!(log.is_misuse(&format!("run --with {}", file.display())).contains("is no kind that the mesh looks at"));
    fs::write(&file, manifest.replace("kind: HTTPRouteGroup", "kind: Nonsense")).unwrap();
    assert!(log.prints(&format!("run --with {}", file.display())).contains("it would not be used"));
}

#[test]
fn what_was_recorded_comes_out_again() {
    let printed = Recording::bookstore().prints("run --verify");
    assert!(printed.ends_with("identical\n"), "{printed}");
}

#[test]
fn a_record_that_is_not_there_is_named() {
    assert!(Recording::bookstore().fails("run --without 500").contains("--without 500: there is no such record"));
}
