//! Dependencies between crates point one way.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

use super::root;

/// Who may depend on whom. replay-tests may depend on anything, and nothing on it.
const ALLOWED: [(&str, &[&str]); 8] = [
    ("fsm-store", &[]),
    ("fsm-api", &[]),
    ("fsm-proxy-config", &[]),
    ("fsm-actors", &["fsm-store", "fsm-api", "fsm-proxy-config"]),
    ("fsm-proxy", &["fsm-proxy-config"]),
    ("fsm-ebpf", &[]),
    ("fsm-local", &["fsm-store", "fsm-api", "fsm-actors", "fsm-ebpf"]),
    ("fsm", &["fsm-store", "fsm-api", "fsm-proxy-config", "fsm-actors", "fsm-proxy", "fsm-ebpf", "fsm-local"]),
];
const TESTS: &str = "fsm-replay-tests";

/// The workspace's crates, with those of them that each depends on, for whatever purpose.
fn crates() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version", "1", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let name = |value: &Value| value["name"].as_str().unwrap().to_owned();
    let members: BTreeSet<String> = packages.iter().map(name).collect();
    let inner = |package: &Value| {
        let dependencies = package["dependencies"].as_array().unwrap().iter().map(name);
        dependencies.filter(|dependency| members.contains(dependency)).collect()
    };
    packages.iter().map(|package| (name(package), inner(package))).collect()
}

#[test]
fn dependencies_point_one_way() {
    let mut crates = crates();
    assert!(crates.remove(TESTS).is_some(), "{TESTS} is in the workspace");
    for (name, allowed) in ALLOWED {
        let found = crates.remove(name).unwrap_or_else(|| panic!("{name} is in the workspace"));
        let strangers: Vec<_> = found.iter().filter(|dependency| !allowed.contains(&dependency.as_str())).collect();
        assert!(strangers.is_empty(), "{name} may not depend on {strangers:?}");
    }
    assert!(crates.is_empty(), "say in this test who may depend on {:?}, and who they may", crates.keys());
}
