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

/// Whether a text may mean this pod, whatever other pods there are.
pub(super) fn may_mean(text: &str, pod: &ObjectName) -> bool {
    let (namespace, name) = parts(text);
    namespace.is_none_or(|namespace| namespace == pod.namespace()) && (pod.name() == name || belongs(pod.name(), name))
}

enum Match {
    None,
    One(ObjectName),
    Several(Vec<ObjectName>),
}

fn matching(core: &Core, text: &str) -> Match {
    let (_, name) = parts(text);
    let meant: Vec<&ObjectName> = core.proxies().filter(|proxy| may_mean(text, proxy)).collect();
    let called: Vec<&ObjectName> = meant.iter().copied().filter(|proxy| proxy.name() == name).collect();
    if !called.is_empty() {
        return several_or_one(called, |_| None);
    }
    several_or_one(meant, |proxy| core.catalog().pods().get(proxy).map(|pod| pod.account.clone()))
}

/// The namespace, if there is one, and the name.
fn parts(text: &str) -> (Option<&str>, &str) {
    text.split_once('/').map_or((None, text), |(namespace, name)| (Some(namespace), name))
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
