//! Which proxy is meant: in full, by the pod's name alone, or by the workload that the pod belongs to.

use anyhow::bail;
use fsm_actors::Core;
use fsm_actors::catalog::ObjectName;

use super::past::Past;

/// The proxy that a text means at that moment.
///
/// `ns/pod` and `pod` name a pod; `ns/workload` and `workload` mean the first pod, in the order of names, of a Deployment, ReplicaSet or
/// StatefulSet. Pods of different service accounts are not one workload: that is ambiguous.
pub(super) fn find(past: &Past, text: &str) -> anyhow::Result<ObjectName> {
    match matching(&past.core, text) {
        Match::One(proxy) => Ok(proxy),
        Match::Several(proxies) => {
            bail!("\"{text}\" may mean {}: write which", names(&proxies))
        }
        Match::None => {
            let known: Vec<ObjectName> = past.core.proxies().cloned().collect();
            let there = if known.is_empty() { "none".into() } else { names(&known) };
            let pod = text.parse::<ObjectName>().ok().filter(|name| past.core.catalog().pods().contains_key(name));
            match pod {
                Some(pod) => bail!(
                    "pod {pod} had no proxy at {}, so none decides about its traffic; proxies there were: {there}",
                    past.moment()
                ),
                None => bail!("there was no proxy \"{text}\" at {}; there were: {there}", past.moment()),
            }
        }
    }
}

/// As [`find`], where it is no error that there is none.
pub(super) fn find_if_there(core: &Core, text: &str) -> Option<ObjectName> {
    match matching(core, text) {
        Match::One(proxy) => Some(proxy),
        Match::None | Match::Several(_) => None,
    }
}

enum Match {
    None,
    One(ObjectName),
    Several(Vec<ObjectName>),
}

fn matching(core: &Core, text: &str) -> Match {
    let (namespace, name) = match text.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, text),
    };
    let of_namespace = |proxy: &&ObjectName| namespace.is_none_or(|namespace| namespace == proxy.namespace());
    let called: Vec<&ObjectName> = core.proxies().filter(of_namespace).filter(|proxy| proxy.name() == name).collect();
    if !called.is_empty() {
        return several_or_one(called, |_| None);
    }
    let of_workload = core.proxies().filter(of_namespace).filter(|proxy| belongs(proxy.name(), name)).collect();
    several_or_one(of_workload, |proxy| core.catalog().pods().get(proxy).map(|pod| pod.account.clone()))
}

/// One, or several that are the same as far as `same` says.
fn several_or_one(proxies: Vec<&ObjectName>, same: impl Fn(&ObjectName) -> Option<ObjectName>) -> Match {
    let Some((first, rest)) = proxies.split_first() else { return Match::None };
    let account = same(first);
    if rest.is_empty() || (account.is_some() && rest.iter().all(|proxy| same(proxy) == account)) {
        return Match::One((*first).clone());
    }
    Match::Several(proxies.into_iter().cloned().collect())
}

/// Whether a pod's name is the workload's with one or two generated parts after it.
fn belongs(pod: &str, workload: &str) -> bool {
    pod.strip_prefix(workload)
        .and_then(|rest| rest.strip_prefix('-'))
        .is_some_and(|rest| !rest.is_empty() && rest.split('-').count() <= 2)
}

fn names(proxies: &[ObjectName]) -> String {
    proxies.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::belongs;

    #[test]
    fn pods_belong_to_the_workload_that_named_them() {
        assert!(belongs("bookstore-v1-7qs7rbzhdp-dfgl8", "bookstore-v1"));
        assert!(belongs("database-0", "database"));
        assert!(belongs("bookstore-v1-7qs7rbzhdp-dfgl8", "bookstore-v1-7qs7rbzhdp"));
        assert!(!belongs("bookstore-v1-7qs7rbzhdp-dfgl8", "bookstore"));
        assert!(!belongs("bookstore-", "bookstore"));
        assert!(!belongs("bookstore", "bookstore"));
    }
}
