//! Requests that are not quite right, through two sidecars: what the application receives is beyond doubt, and what is refused has
//! a reason.

mod changes;
mod difference;
mod draft;
mod exchange;
mod peers;
mod reference;

use fsm_proxy_config::proto::Protocol;
use futures::StreamExt;

use super::mesh::Mesh;
use changes::CHANGES;
use draft::{Case, cases};
use exchange::{Outcome, Witness};
use peers::Peer;

/// Of so many are tried that have two changes.
const PAIRS: usize = 3_000;
const AT_ONCE: usize = 8;

/// Sends all cases through one proxy for each of a few senders; `start` makes it, in front of the given application.
async fn outcomes<P, Fut>(cases: &[Case], start: impl Fn(std::net::SocketAddr) -> Fut) -> Vec<Outcome>
where
    Fut: Future<Output = (P, std::net::SocketAddr)>,
{
    let sent = futures::stream::iter(0..AT_ONCE).map(async |first| {
        let witness = Witness::start().await;
        let (_proxy, address) = start(witness.address).await;
        let mut outcomes = Vec::new();
        for number in (first..cases.len()).step_by(AT_ONCE) {
            outcomes.push((number, witness.send(address, &cases[number]).await));
        }
        outcomes
    });
    let mut all: Vec<_> = sent.buffer_unordered(AT_ONCE).concat().await;
    all.sort_by_key(|(number, _)| *number);
    all.into_iter().map(|(_, outcome)| outcome).collect()
}

async fn ours(cases: &[Case]) -> Vec<Outcome> {
    outcomes(cases, async |application| {
        let pair = Mesh::new().pair(application, Protocol::Http);
        let address = pair.client.outbound();
        (pair, address)
    })
    .await
}

/// What RFC 9112 does not allow clients to send, and servers to take.
const LENIENT: &[(&str, &str)] = &[
    ("LF without CR", "section 2.2: a single LF may count as the end of a line"),
    ("empty line first", "section 2.2: should be ignored"),
    ("length and transfer coding", "section 6.1: the length is ignored, and the connection closed"),
    ("several lengths", "section 6.3: may count as one if they are the same"),
    ("invalid size of a chunk", "section 7.1.1: white space after it, as some clients send"),
    ("invalid target", "section 3.2: a fragment, which is removed"),
];
/// Changes that leave a request valid, and make the proxy refuse it all the same.
const REFUSED: &[(&str, u16, &str)] = &[
    ("CONNECT", 501, "no tunnels for applications"),
    ("CONNECT to a path", 501, "no tunnels for applications"),
    ("absolute target with query only", 400, "the parser of URLs does not take it"),
    ("target with braces", 400, "RFC 3986: not in a URI; some of them are taken"),
    ("field of 100,000 letters", 431, "limits"),
    ("1,000 fields", 431, "limits"),
    ("target of 100,000 letters", 431, "limits"),
];

/// What is wrong with how a case went.
fn problems(case: &Case, outcome: &Outcome) -> Vec<String> {
    let mut problems = Vec::new();
    let (sent, flaw) = reference::read_all(&case.bytes);
    let mut seen = outcome.seen.iter();
    for (number, status) in outcome.statuses.iter().enumerate() {
        let request = match status {
            200 => seen.next(),
            _ => None,
        };
        match (request, sent.get(number), flaw) {
            (Some(Err(flaw)), ..) => problems.push(format!("the application received: {flaw}")),
            (Some(Ok(seen)), Some(sent), _) => {
                if (&seen.method, &seen.body) != (&sent.method, &sent.body) {
                    problems.push(format!("received {seen:?} for {sent:?}"));
                }
            }
            (Some(Ok(_)), None, Some(flaw)) if number == sent.len() => {
                if !LENIENT.iter().any(|(lenient, _)| *lenient == flaw) {
                    problems.push(format!("served in spite of: {flaw}"));
                }
            }
            (Some(Ok(_)), ..) => {}
            (None, Some(sent), _)
                if !REFUSED.iter().any(|(change, with, _)| with == status && case.changes.contains(change)) =>
            {
                problems.push(format!("answered {status} for {sent:?}"));
            }
            (None, ..) => {}
        }
    }
    let forbidden = ["content-length", "host", "transfer-encoding", "fsm-port"];
    for request in outcome.seen.iter().flatten() {
        if request.trailers.iter().any(|(name, _)| forbidden.contains(&name.as_str())) {
            problems.push(format!("trailers of {request:?}"));
        }
    }
    if seen.next().is_some() {
        problems.push(format!("not all that arrived was answered: {outcome:?}"));
    }
    problems
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn odd_requests_arrive_beyond_doubt_or_not_at_all() {
    let cases = cases(CHANGES, PAIRS);
    let outcomes = ours(&cases).await;
    let problems: Vec<String> = std::iter::zip(&cases, &outcomes)
        .flat_map(|(case, outcome)| {
            problems(case, outcome).into_iter().map(|problem| format!("{}: {problem}", case.name))
        })
        .collect();
    assert!(problems.is_empty(), "{} of {}:\n{}", problems.len(), cases.len(), problems.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_difference_from_other_proxies_has_a_reason() {
    let cases = cases(CHANGES, PAIRS);
    for peer in [Peer::Nginx, Peer::Envoy] {
        if !peer.is_here() {
            println!("skipped: needs {peer:?} in the PATH");
            continue;
        }
        let (own, theirs) = (ours(&cases).await, outcomes(&cases, |application| peer.start(application)).await);
        let different: Vec<(&Case, String)> = std::iter::zip(&cases, std::iter::zip(&own, &theirs))
            .filter(|(_, (own, theirs))| !difference::is_same(own, theirs))
            .map(|(case, both)| (case, format!("{}: {both:?}", case.name)))
            .collect();
        println!("{} of {} cases differ from {peer:?}", different.len(), cases.len());
        let unexplained = different.iter().filter(|(case, _)| !difference::is_explained(peer, case));
        let unexplained: Vec<&str> = unexplained.map(|(_, both)| both.as_str()).collect();
        assert!(unexplained.is_empty(), "without a reason: {}", unexplained.join("\n"));
    }
}
