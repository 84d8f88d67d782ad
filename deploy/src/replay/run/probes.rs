//! Requests to compare two histories by: of every workload to every service, one for each route.

use std::collections::{BTreeMap, BTreeSet};

use fsm_actors::Core;
use fsm_actors::catalog::ObjectName;
use fsm_proxy_config::Verdict;
use serde::Serialize;

use super::sample;
use crate::replay::request::{Answer, Decider, Question, RequestFlags};

/// At most so many requests are compared.
const MOST: usize = 2_000;

/// What matters of an answer. Two are equal if they say the same and divide the traffic alike, whatever the weights add up to.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Brief {
    pub(super) verdict: Verdict,
    /// Service and weight.
    pub(super) backends: Vec<(String, u32)>,
}

impl Brief {
    fn of(answer: &Answer) -> Self {
        let backends = answer.journey.backends.iter().map(|backend| (backend.service.clone(), backend.weight));
        Self { verdict: answer.verdict, backends: backends.collect() }
    }

    /// Weight and sum of all weights.
    fn shares(&self) -> impl Iterator<Item = (&String, u64, u64)> {
        let total = self.backends.iter().map(|(_, weight)| u64::from(*weight)).sum();
        self.backends.iter().map(move |(service, weight)| (service, u64::from(*weight), total))
    }
}

impl PartialEq for Brief {
    fn eq(&self, other: &Self) -> bool {
        self.verdict == other.verdict
            && self.backends.len() == other.backends.len()
            && self.shares().zip(other.shares()).all(|((one, part, whole), (another, its_part, its_whole))| {
                one == another && part * its_whole == its_part * whole
            })
    }
}

impl Eq for Brief {}

/// The answers of both histories to all requests that are answered differently, by the request in words.
pub(super) fn differing(real: &Core, other: &Core, asked: Option<&Question>) -> BTreeMap<Probe, [Option<Brief>; 2]> {
    let questions = match asked {
        Some(question) => vec![question.clone()],
        None => questions(real, other),
    };
    let deciders = [Decider::new(real), Decider::new(other)];
    let mut differing = BTreeMap::new();
    for question in questions {
        let answers = deciders.each_ref().map(|decider| {
            let answer = decider.client(&question.from).and_then(|client| question.ask_as(decider, &client));
            answer.and_then(Result::ok).map(|answer| Brief::of(&answer))
        });
        if answers[0] != answers[1] {
            differing.insert(Probe { client: question.from.clone(), request: question.title() }, answers);
        }
    }
    differing
}

/// A request, in words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(super) struct Probe {
    pub(super) client: String,
    pub(super) request: String,
}

fn questions(real: &Core, other: &Core) -> Vec<Question> {
    let mut clients: BTreeMap<ObjectName, String> = BTreeMap::new();
    let mut servers: BTreeSet<(ObjectName, u16)> = BTreeSet::new();
    for core in [real, other] {
        for proxy in core.proxies() {
            if let Some(account) = core.account_of(proxy) {
                clients.entry(account.clone()).or_insert_with(|| proxy.to_string());
            }
        }
        let catalog = core.catalog();
        for (name, service) in catalog.services().iter().filter(|(name, _)| catalog.mesh_service(name).is_some()) {
            servers.extend(service.ports.iter().map(|port| (name.clone(), port.port)));
        }
    }
    let mut questions = Vec::new();
    for (server, port) in &servers {
        let requests = requests(&[real, other], server.namespace());
        for client in clients.values() {
            let to = format!("{}.{}:{port}", server.name(), server.namespace());
            questions.extend(requests.iter().filter_map(|flags| Question::new(client, &to, flags).ok()));
        }
    }
    questions.truncate(MOST);
    questions
}

/// A plain request, and one for each route of a namespace.
fn requests(cores: &[&Core], namespace: &str) -> Vec<RequestFlags> {
    let mut requests = BTreeMap::new();
    requests.insert(String::new(), RequestFlags::plain("GET", "/", Vec::new()));
    for core in cores {
        let groups = core.catalog().route_groups().iter().filter(|(name, _)| name.namespace() == namespace);
        for route in groups.flat_map(|(_, group)| &group.matches) {
            let method = route.methods.iter().map(String::as_str).find(|method| *method != "*").unwrap_or("GET");
            let headers =
                route.header_pairs().filter_map(|(name, value)| Some((name.to_owned(), sample::matching(value)?)));
            let Some(path) = sample::matching(&route.path_regex) else { continue };
            let path = if path.starts_with('/') { path } else { format!("/{path}") };
            let flags = RequestFlags::plain(method, &path, headers.collect());
            requests.insert(format!("{flags:?}"), flags);
        }
    }
    requests.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::{Brief, Verdict};

    #[test]
    fn answers_are_the_same_if_they_divide_alike() {
        let brief = |backends: &[(&str, u32)]| Brief {
            verdict: Verdict::Allowed,
            backends: backends.iter().map(|(service, weight)| ((*service).to_owned(), *weight)).collect(),
        };
        assert_eq!(brief(&[("v2", 100)]), brief(&[("v2", 50)]));
        assert_eq!(brief(&[("v1", 2), ("v2", 6)]), brief(&[("v1", 25), ("v2", 75)]));
        assert_ne!(brief(&[("v1", 2), ("v2", 6)]), brief(&[("v1", 50), ("v2", 50)]));
        assert_ne!(brief(&[("v1", 1)]), brief(&[("v2", 1)]));
        assert_ne!(brief(&[("v1", 1)]), brief(&[("v1", 1), ("v2", 1)]));
        assert_ne!(brief(&[]), Brief { verdict: Verdict::Denied, ..brief(&[]) });
    }
}
