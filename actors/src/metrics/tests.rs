use fsm_proxy_config::Digest;
use fsm_store::{Record, Seq, Timestamp, TraceContext};
use serde_json::json;

use super::*;
use crate::catalog::ObjectName;
use crate::fact::{Ack, Fact, ProxyFact, ProxyPhase};

const MS: u64 = 1000;

fn projection(facts: &[(u64, Fact)]) -> Projection {
    let mut projection = Projection::default();
    for (index, (millis, fact)) in facts.iter().enumerate() {
        let entry = fact.to_entry(TraceContext::default());
        projection.observe(&Record { seq: Seq(index as u64 + 1), time: Timestamp(millis * MS), entry });
    }
    projection
}

fn rendered(facts: &[(u64, Fact)]) -> String {
    let mut out = Exposition::default();
    projection(facts).render(&mut out);
    out.finish()
}

fn stream(phase: ProxyPhase, instance: &str, running_seq: u64) -> Fact {
    Fact::Proxy(ProxyFact {
        phase,
        proxy: ObjectName::new("shop", "web-0"),
        identity: "spiffe://cluster.local/ns/shop/sa/web".parse().unwrap(),
        instance: instance.to_owned(),
        version: String::new(),
        running_seq,
    })
}

fn ack(seq: u64) -> Fact {
    Fact::Ack(Ack { proxy: ObjectName::new("shop", "web-0"), seq: Seq(seq), digest: Digest([0; 32]) })
}

fn pod() -> Fact {
    Fact::applied("v1/Pod", &json!({"metadata": {"namespace": "shop", "name": "web-0"}}))
}

#[test]
fn propagation_is_the_time_from_a_record_to_its_acknowledgement() {
    let text = rendered(&[(0, stream(ProxyPhase::Connected, "a", 0)), (100, pod()), (103, ack(2))]);
    assert!(text.contains("fsm_propagation_seconds_bucket{le=\"0.0025\"} 0\n"), "{text}");
    assert!(text.contains("fsm_propagation_seconds_bucket{le=\"0.005\"} 1\n"), "{text}");
    assert!(text.contains("fsm_propagation_seconds_sum 0.003\n"), "{text}");
    assert!(text.contains("fsm_proxy_version{namespace=\"shop\",pod=\"web-0\"} 2\n"), "{text}");
}

#[test]
fn what_was_there_before_a_proxy_came_is_no_propagation() {
    let text = rendered(&[(0, pod()), (9000, stream(ProxyPhase::Connected, "a", 0)), (9001, ack(1))]);
    assert!(text.contains("fsm_propagation_seconds_count 0\n"), "{text}");
    assert!(text.contains("fsm_proxy_acks_total 1\n"), "{text}");
}

#[test]
fn a_late_end_of_an_older_stream_does_not_count() {
    let connected = stream(ProxyPhase::Connected, "a", 0);
    let again = stream(ProxyPhase::Connected, "b", 7);
    let text = rendered(&[(0, connected.clone()), (1, again.clone()), (2, stream(ProxyPhase::Disconnected, "a", 0))]);
    assert!(text.contains("fsm_proxy_connect_count 1\n"), "{text}");
    assert!(text.contains("fsm_proxy_reconnect_count 1\n"), "{text}");
    let text = rendered(&[(0, connected), (1, again), (2, stream(ProxyPhase::Disconnected, "b", 0))]);
    assert!(text.contains("fsm_proxy_connect_count 0\n"), "{text}");
}

#[test]
fn changes_of_objects_are_counted_by_kind_and_namespace() {
    let text = rendered(&[(0, pod()), (1, pod())]);
    assert!(text.contains("fsm_k8s_api_event_count{type=\"Pod-applied\",namespace=\"shop\"} 2\n"), "{text}");
    assert!(text.contains("# TYPE fsm_log_seq gauge\nfsm_log_seq 2\n"), "{text}");
}

#[test]
fn label_values_are_escaped() {
    let mut out = Exposition::default();
    out.sample("x", &[("a", "q\"b\\c\nd")], 1.5);
    assert_eq!(out.finish(), "x{a=\"q\\\"b\\\\c\\nd\"} 1.5\n");
}
