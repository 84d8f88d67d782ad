//! Actors and controllers end, and others go on.

use std::collections::BTreeMap;

use super::*;
use crate::shell::poison;

#[tokio::test]
async fn a_controller_that_ends_records_the_end_of_its_streams() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let mut buyer = Proxy::buyer(&mesh).await;
    buyer.run_next().await;
    mesh.fact(Seq::ZERO, is_ack).await;
    let from = mesh.log.last();
    mesh.plane.stop();
    let mut batches = mesh.log.tail(from.next());
    let ended = Fact::parse(&batches.next().await.unwrap().unwrap()[0].entry).unwrap();
    assert!(matches!(ended, Fact::Proxy(fact) if fact.phase == ProxyPhase::Disconnected));
}

#[tokio::test]
async fn actors_that_crash_come_back_as_they_were() {
    for actor in crate::core::CONCERNS.into_iter().chain([crate::core::CATALOG, crate::core::PUBLISHER]) {
        let mesh = Mesh::bookstore(Options { digest_every: 1, ..Options::default() }).await;
        let mut buyer = Proxy::buyer(&mesh).await;
        buyer.run_next().await;
        // Connected, acknowledged: from here on this test alone appends, but for digests.
        mesh.fact(Seq::ZERO, is_ack).await;
        let from = mesh.log.last();
        for seq in from.0 + 1..from.0 + 4 {
            poison::arm(&mesh.log, actor, Seq(seq), 1);
        }
        let last = mesh.apply(split(3, 4)).await;
        let last = mesh.apply(service("bookstore", "bookstore", "10.96.0.79")).await.max(last);
        let mut newest = None;
        while buyer.config.seq < last.0 {
            newest = Some(buyer.run_next().await);
        }
        mesh.acked(&newest.unwrap()).await;
        assert!(mesh.plane.counters().restarts()[actor] >= 2, "{actor}: {:?}", mesh.plane.counters().restarts());
        let recomputed = mesh.recomputed().await.config_of(&name(BUYER)).unwrap();
        assert_eq!(buyer.config.resources, recomputed.resources, "{actor}");
        mesh.assert_replays(2).await;
    }
}

#[tokio::test]
async fn a_record_that_always_makes_an_actor_panic_does_not_stop_the_mesh() {
    let mesh = Mesh::bookstore(Options::default()).await;
    let bad = mesh.log.last().next();
    poison::arm(&mesh.log, "splits", bad, u32::MAX);
    assert_eq!(mesh.apply(split(3, 4)).await, bad);
    let before = mesh.plane.config_of(&name(BUYER)).await.unwrap();
    let good = mesh.apply(split(5, 6)).await;
    let after = mesh.plane.config_of(&name(BUYER)).await.unwrap();
    let split = "Split/bookstore/bookstore-split".parse().unwrap();
    assert!(before.resources[&split].version < bad.0);
    assert_eq!(after.resources[&split].version, good.0);
    assert_eq!(mesh.plane.counters().restarts(), BTreeMap::from([("splits", 2)]));
}

#[tokio::test]
async fn an_actor_that_ends_for_good_is_noticed() {
    let mesh = Mesh::bookstore(Options::default()).await;
    poison::arm(&mesh.log, "finish", mesh.log.last().next(), 1);
    mesh.plane.facts().append(&applied(split(3, 4)), TraceContext::default()).await.unwrap();
    assert_eq!(mesh.plane.failed().await, "the actor \"catalog\" ended");
}

#[tokio::test]
async fn another_controller_on_the_same_log_goes_on_where_the_first_one_ended() {
    let mesh = Mesh::bookstore(Options::default()).await;
    mesh.apply(split(3, 4)).await;
    let before = mesh.plane.config_of(&name(BUYER)).await.unwrap();
    let again = ControlPlane::start(mesh.log.clone(), Options::default()).await.unwrap();
    assert_eq!(again.config_of(&name(BUYER)).await.unwrap(), before);
    let injection = again.injection();
    assert!(injection.borrow().monitors("bookstore"));
}
