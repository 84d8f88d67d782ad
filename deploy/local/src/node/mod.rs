//! The node agent.
use std::collections::BTreeMap;
/// The node's labels.
pub fn labels(node_name: &str) -> BTreeMap<String, String> {
    [
        ("kubernetes.io/hostname", node_name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", std::env::consts::ARCH),
    ]
    .map(|(k, v)| (k.to_owned(), v.to_owned()))
    .into()
}
