//! How a TrafficSplit divides.

use std::collections::BTreeMap;

use fsm_proxy_config::Decision;

use crate::mesh::{Mesh, STORE_VIP, outbound, route, sentence, with_decision};

const APEX: &str = "bookstore/bookstore";
const V1: &str = "bookstore/bookstore-v1";
const V2: &str = "bookstore/bookstore-v2";

/// How often each backend is picked, in per cent of evenly spread draws.
fn shares(mesh: &Mesh, request: &str) -> BTreeMap<String, u32> {
    with_decision(&mesh.snapshot(), &outbound(STORE_VIP), request, |decision| {
        let Decision::Forward(forward) = decision else { panic!("{decision}") };
        let mut shares = BTreeMap::new();
        for step in 0..100u32 {
            let backend = forward.pick_backend(step * (u32::MAX / 100) + u32::MAX / 200);
            *shares.entry(backend.service.to_owned()).or_default() += 1;
        }
        shares
    })
}

fn expect_shares(mesh: &Mesh, request: &str, expected: &[(&str, u32)]) {
    let expected = expected.iter().map(|(service, share)| ((*service).to_owned(), *share)).collect();
    assert_eq!(shares(mesh, request), expected);
}

fn expect(mesh: &Mesh, request: &str, expected: &str) {
    let sentence = sentence(&mesh.snapshot(), &outbound(STORE_VIP), request);
    assert!(sentence.contains(expected), "\n     got: {sentence}\nexpected: {expected}");
}

#[test]
fn weights_are_ratios() {
    for weights in [(1, 1), (50, 50), (u32::MAX, u32::MAX)] {
        let mesh = Mesh::bookstore().split("bookstore/split", APEX, &[(V1, weights.0), (V2, weights.1)], &[]);
        expect_shares(&mesh, "GET bookstore/", &[(V1, 50), (V2, 50)]);
    }
    let mesh = Mesh::bookstore().split("bookstore/split", APEX, &[(V1, 3), (V2, 1)], &[]);
    expect_shares(&mesh, "GET bookstore/", &[(V1, 75), (V2, 25)]);
    expect_shares(&mesh, "", &[(V1, 75), (V2, 25)]);
}

#[test]
fn the_extreme_draws_fall_on_the_first_and_the_last_backend() {
    let mesh = Mesh::bookstore().split("bookstore/split", APEX, &[(V1, 1), (V2, 1)], &[]);
    with_decision(&mesh.snapshot(), &outbound(STORE_VIP), "", |decision| {
        let Decision::Forward(forward) = decision else { panic!("{decision}") };
        assert_eq!(forward.pick_backend(0).service, V1);
        assert_eq!(forward.pick_backend(u32::MAX).service, V2);
    });
}

#[test]
fn weight_0_gets_nothing_not_even_when_the_others_fail() {
    let mesh = Mesh::bookstore().split("bookstore/split", APEX, &[(V1, 100), (V2, 0)], &[]);
    expect_shares(&mesh, "GET bookstore/", &[(V1, 100)]);
    let mesh = mesh.endpoints(V1, 14001, &[]);
    expect(
        &mesh,
        "GET bookstore/",
        "refused with 503 (no_backend): no backend of TrafficSplit bookstore/split can take traffic: \
         backend bookstore/bookstore-v1 has no endpoint that is ready on port 14001; backend bookstore/bookstore-v2 has weight 0",
    );
}

#[test]
fn a_split_whose_weights_are_all_0_takes_no_traffic() {
    let mesh = Mesh::bookstore().split("bookstore/split", APEX, &[(V1, 0), (V2, 0)], &[]);
    expect(&mesh, "GET bookstore/", "refused with 503 (no_backend)");
    let mesh = Mesh::bookstore().split("bookstore/split", APEX, &[], &[]);
    expect(&mesh, "GET bookstore/", "it has no backends");
}

#[test]
fn a_split_over_services_that_the_workload_is_not_told_of_refuses_as_they_would() {
    let backends = [("bookstore/hidden", 100), (V1, 0)];
    let mesh = Mesh::bookstore().split("bookstore/split", APEX, &backends, &[]);
    expect(
        &mesh,
        "GET bookstore/",
        "refused with 403 (unknown_destination): no backend of TrafficSplit bookstore/split can take traffic: \
         backend bookstore/hidden is no service that this workload is told of; backend bookstore/bookstore-v1 has weight 0",
    );
    // A backend that it is told of may come back: that is for 503.
    let mesh =
        mesh.split("bookstore/split", APEX, &[("bookstore/hidden", 50), (V1, 50)], &[]).endpoints(V1, 14001, &[]);
    expect(&mesh, "GET bookstore/", "refused with 503 (no_backend)");
}

#[test]
fn a_backend_that_cannot_take_traffic_leaves_its_share_to_the_others() {
    let backends = [(V1, 50), ("bookstore/none", 50)];
    let mesh = Mesh::bookstore().split("bookstore/split", APEX, &backends, &[]);
    expect_shares(&mesh, "GET bookstore/", &[(V1, 100)]);
    let other_port = Mesh::bookstore()
        .service("bookstore/v3", "10.96.0.13", 9999)
        .endpoints("bookstore/v3", 9999, &["10.244.0.13"])
        .split("bookstore/split", APEX, &[(V1, 50), ("bookstore/v3", 50)], &[]);
    expect_shares(&other_port, "GET bookstore/", &[(V1, 100)]);
}

#[test]
fn the_split_service_may_be_its_own_backend() {
    let mesh = Mesh::bookstore().endpoints(APEX, 14001, &["10.244.0.10"]).split(
        "bookstore/split",
        APEX,
        &[(APEX, 90), (V2, 10)],
        &[],
    );
    expect_shares(&mesh, "GET bookstore/", &[(APEX, 90), (V2, 10)]);
}

#[test]
fn splits_are_not_followed_from_backend_to_backend() {
    let mesh = Mesh::bookstore().split("bookstore/split", APEX, &[(V1, 1)], &[]).split(
        "bookstore/second",
        V1,
        &[(V2, 1)],
        &[],
    );
    expect_shares(&mesh, "GET bookstore/", &[(V1, 100)]);
}

#[test]
fn a_split_with_route_groups_is_for_the_requests_that_match() {
    let mesh = Mesh::bookstore()
        .endpoints(APEX, 14001, &["10.244.0.10"])
        .group("bookstore/beta", vec![route("beta", "", "", &[("x-beta", "yes")]), route("new", "/new/.*", "GET", &[])])
        .split("bookstore/split", APEX, &[(V2, 1)], &["bookstore/beta"]);
    expect_shares(&mesh, "GET bookstore/", &[(APEX, 100)]);
    expect_shares(&mesh, "GET bookstore/ x-beta:no", &[(APEX, 100)]);
    expect_shares(&mesh, "GET bookstore/ X-Beta:yes", &[(V2, 100)]);
    expect_shares(&mesh, "GET bookstore/new/book?id=1", &[(V2, 100)]);
    expect_shares(&mesh, "POST bookstore/new/book", &[(APEX, 100)]);
    // An opaque connection matches no route.
    expect_shares(&mesh, "", &[(APEX, 100)]);
}

#[test]
fn a_split_with_a_missing_route_group_never_applies() {
    let mesh = Mesh::bookstore().endpoints(APEX, 14001, &["10.244.0.10"]).split(
        "bookstore/split",
        APEX,
        &[(V2, 1)],
        &["bookstore/none"],
    );
    expect_shares(&mesh, "GET bookstore/", &[(APEX, 100)]);
}

#[test]
fn splits_with_route_groups_are_looked_at_before_those_without() {
    let mesh = Mesh::bookstore()
        .group("bookstore/beta", vec![route("beta", "", "", &[("x-beta", "yes")])])
        .split("bookstore/a-general", APEX, &[(V1, 1)], &[])
        .split("bookstore/b-special", APEX, &[(V2, 1)], &["bookstore/beta"]);
    expect_shares(&mesh, "GET bookstore/", &[(V1, 100)]);
    expect_shares(&mesh, "GET bookstore/ x-beta:yes", &[(V2, 100)]);
}
