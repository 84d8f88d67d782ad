//! Explanations, step by step, as `/decide` and `fsm replay request` show them.

use fsm_proxy_config::{Connection, explain};

use crate::mesh::{BUYER, Mesh, Request, STORE_VIP, THIEF, http, inbound, outbound, route, tcp};

fn story() -> Mesh {
    Mesh::bookstore()
        .group("bookstore/routes", vec![route("buy-a-book", ".*a-book.*new", "GET", &[])])
        .group("bookstore/beta", vec![route("beta", "", "", &[("x-beta", "yes")])])
        .tcp_route("bookstore/ports", &[80])
        .split("bookstore/beta-users", "bookstore/bookstore", &[("bookstore/bookstore-v2", 1)], &["bookstore/beta"])
        .split(
            "bookstore/split",
            "bookstore/bookstore",
            &[("bookstore/bookstore-v1", 90), ("bookstore/bookstore-v2", 10), ("bookstore/v3", 5)],
            &[],
        )
        .target("bookstore/a-tcp", &[BUYER], vec![tcp("bookstore/ports")])
        .target("bookstore/buyer", &[BUYER], vec![http("bookstore/routes", &["buy-a-book"])])
}

fn steps(connection: &Connection, request: &str) -> String {
    let request = Request::new(request);
    let snapshot = story().snapshot();
    explain(&snapshot, connection, Some(&request.head())).1.join("\n")
}

#[test]
fn outbound_through_a_split() {
    insta::assert_snapshot!(steps(&outbound(STORE_VIP), "GET bookstore/buy-a-book/new"));
}

#[test]
fn outbound_by_header() {
    insta::assert_snapshot!(steps(&outbound(STORE_VIP), "GET bookstore/ x-beta:yes"));
}

#[test]
fn outbound_to_nowhere() {
    insta::assert_snapshot!(steps(&outbound("192.0.2.1:80"), "GET bookstore.bookstore:99/"));
}

#[test]
fn inbound_allowed() {
    insta::assert_snapshot!(steps(&inbound(14001, BUYER), "GET bookstore/buy-a-book/new"));
}

#[test]
fn inbound_refused_for_the_method() {
    insta::assert_snapshot!(steps(&inbound(14001, BUYER), "POST bookstore/buy-a-book/new"));
}

#[test]
fn inbound_refused_for_the_caller() {
    insta::assert_snapshot!(steps(&inbound(14001, THIEF), "GET bookstore/buy-a-book/new"));
}
