//! Who may call what.

use crate::mesh::{BUYER, Mesh, THIEF, http, inbound, route, sentence, tcp};

fn expect(mesh: &Mesh, peer: &str, request: &str, expected: &str) {
    let sentence = sentence(&mesh.snapshot(), &inbound(14001, peer), request);
    assert!(sentence.contains(expected), "\n     got: {sentence}\nexpected: {expected}");
}

fn routes() -> Mesh {
    Mesh::new().group(
        "bookstore/routes",
        vec![
            route(
                "books-bought",
                "/books-bought",
                "GET",
                &[("user-agent", ".*-http-client/.*"), ("client-app", "bookbuyer")],
            ),
            route("buy-a-book", ".*a-book.*new", "GET", &[]),
            route("update", "/update", "POST PUT", &[]),
        ],
    )
}

fn store() -> Mesh {
    routes().target("bookstore/buyer", &[BUYER], vec![http("bookstore/routes", &["books-bought", "buy-a-book"])])
}

const ALLOWED_BUY: &str =
    "allowed by TrafficTarget bookstore/buyer, route buy-a-book of HTTPRouteGroup bookstore/routes";

#[test]
fn a_source_may_use_the_routes_of_its_target() {
    expect(&store(), BUYER, "GET bookstore/buy-a-book/new", ALLOWED_BUY);
    expect(
        &store(),
        BUYER,
        "GET bookstore/books-bought user-agent:Go-http-client/1.1 client-app:bookbuyer",
        "route books-bought of",
    );
}

#[test]
fn an_identity_that_no_target_names_is_refused() {
    expect(
        &store(),
        THIEF,
        "GET bookstore/buy-a-book/new",
        "refused with 403 (no_policy): no TrafficTarget allows spiffe://cluster.local/ns/bookthief/sa/bookthief to call port 14001",
    );
    expect(&Mesh::new(), BUYER, "GET bookstore/", "refused with 403 (no_policy)");
}

#[test]
fn a_request_that_no_route_matches_is_refused_with_what_did_not_match() {
    for (request, expected) in [
        ("POST bookstore/buy-a-book/new", "route buy-a-book of bookstore/routes: method POST is not one of GET"),
        ("GET bookstore/books-bought", "route books-bought of bookstore/routes: header user-agent is missing"),
        (
            "GET bookstore/books-bought user-agent:curl client-app:bookbuyer",
            "header user-agent does not match .*-http-client/.*",
        ),
        ("GET bookstore/admin", "route buy-a-book of bookstore/routes: path /admin does not match .*a-book.*new"),
    ] {
        expect(&store(), BUYER, request, "refused with 403 (no_rule)");
        expect(&store(), BUYER, request, expected);
    }
}

#[test]
fn only_the_matches_that_a_rule_names_are_allowed_and_all_if_it_names_none() {
    expect(&store(), BUYER, "POST bookstore/update", "refused with 403");
    let all = routes().target("bookstore/buyer", &[BUYER], vec![http("bookstore/routes", &[])]);
    expect(&all, BUYER, "POST bookstore/update", "route update of");
}

#[test]
fn expressions_match_the_whole_path_without_the_query() {
    let mesh = Mesh::new().group("bookstore/routes", vec![route("buy", "/buy", "", &[])]).target(
        "bookstore/buyer",
        &[BUYER],
        vec![http("bookstore/routes", &[])],
    );
    expect(&mesh, BUYER, "GET bookstore/buy", "allowed");
    expect(&mesh, BUYER, "GET bookstore/buy?then=/sell", "allowed");
    for path in ["/buy/more", "/please/buy", "/sell?then=/buy", "/buyer"] {
        expect(&mesh, BUYER, &format!("GET bookstore{path}"), "refused with 403 (no_rule)");
    }
}

#[test]
fn dot_segments_do_not_lead_around_a_rule() {
    let mesh = Mesh::new().group("bookstore/routes", vec![route("public", "/public/.*", "", &[])]).target(
        "bookstore/buyer",
        &[BUYER],
        vec![http("bookstore/routes", &[])],
    );
    expect(&mesh, BUYER, "GET bookstore/public/../public/x", "allowed");
    for path in ["/public/../admin", "/public/%2e%2E/admin", "/admin/../public/x", "/public/x/../../admin"] {
        expect(&mesh, BUYER, &format!("GET bookstore{path}"), "refused with 403 (no_rule)");
    }
}

#[test]
fn a_star_is_every_method() {
    let mesh = Mesh::new().group("bookstore/routes", vec![route("all", ".*", "*", &[])]).target(
        "bookstore/buyer",
        &[BUYER],
        vec![http("bookstore/routes", &[])],
    );
    for method in ["GET", "CONNECT", "TRACE", "PROPFIND"] {
        expect(&mesh, BUYER, &format!("{method} bookstore/"), "allowed");
    }
}

#[test]
fn one_of_several_values_of_a_header_is_enough() {
    let mesh = Mesh::new().group("bookstore/routes", vec![route("v", "", "", &[("accept", "text/.*")])]).target(
        "bookstore/buyer",
        &[BUYER],
        vec![http("bookstore/routes", &[])],
    );
    expect(&mesh, BUYER, "GET bookstore/ accept:image/png accept:text/html", "allowed");
}

#[test]
fn targets_add_up() {
    let mesh = store().target("bookstore/more", &[THIEF, BUYER], vec![http("bookstore/routes", &["update"])]);
    expect(&mesh, BUYER, "GET bookstore/buy-a-book/new", ALLOWED_BUY);
    expect(&mesh, BUYER, "PUT bookstore/update", "allowed by TrafficTarget bookstore/more");
    expect(&mesh, THIEF, "PUT bookstore/update", "allowed by TrafficTarget bookstore/more");
    expect(&mesh, THIEF, "GET bookstore/buy-a-book/new", "refused with 403 (no_rule)");
}

#[test]
fn tcp_routes_allow_ports_for_opaque_connections_and_requests() {
    let mesh = |ports: &[u32]| {
        Mesh::new().tcp_route("bookstore/tcp", ports).target("bookstore/buyer", &[BUYER], vec![tcp("bookstore/tcp")])
    };
    expect(&mesh(&[14001, 1]), BUYER, "", "allowed by TrafficTarget bookstore/buyer, TCPRoute bookstore/tcp");
    expect(
        &mesh(&[14001]),
        BUYER,
        "GET bookstore/",
        "allowed by TrafficTarget bookstore/buyer, TCPRoute bookstore/tcp",
    );
    expect(&mesh(&[]), BUYER, "", "allowed");
    expect(
        &mesh(&[80, 443]),
        BUYER,
        "",
        "refused with 403 (no_rule): no route that spiffe://cluster.local/ns/bookbuyer/sa/bookbuyer may use matches on port \
         14001: TrafficTarget bookstore/buyer: port 14001 is not one of 80, 443 of TCPRoute bookstore/tcp",
    );
}

#[test]
fn a_route_group_does_not_allow_an_opaque_connection() {
    expect(
        &store(),
        BUYER,
        "",
        "TrafficTarget bookstore/buyer allows only HTTP requests, and this connection is opaque",
    );
}

#[test]
fn tcp_routes_and_route_groups_of_one_target_restrict_each_other() {
    let mesh = |port| {
        routes().tcp_route("bookstore/tcp", &[port]).target(
            "bookstore/buyer",
            &[BUYER],
            vec![tcp("bookstore/tcp"), http("bookstore/routes", &[])],
        )
    };
    expect(&mesh(14001), BUYER, "GET bookstore/buy-a-book/new", ALLOWED_BUY);
    expect(&mesh(14001), BUYER, "GET bookstore/admin", "refused with 403");
    expect(&mesh(14001), BUYER, "", "refused with 403");
    expect(&mesh(80), BUYER, "GET bookstore/buy-a-book/new", "port 14001 is not one of 80");
}

#[test]
fn a_rule_whose_route_is_missing_allows_nothing_and_says_so() {
    let mesh = |rules| Mesh::new().target("bookstore/buyer", &[BUYER], rules);
    let request = "GET bookstore/";
    expect(&mesh(vec![http("bookstore/none", &[])]), BUYER, request, "there is no HTTPRouteGroup bookstore/none");
    expect(&mesh(vec![tcp("bookstore/none")]), BUYER, request, "there is no TCPRoute bookstore/none");
    expect(&mesh(vec![]), BUYER, request, "TrafficTarget bookstore/buyer has no rules");
    let typo = routes().target("bookstore/buyer", &[BUYER], vec![http("bookstore/routes", &["buy-a-bok"])]);
    expect(&typo, BUYER, request, "HTTPRouteGroup bookstore/routes has no match buy-a-bok");
    // A missing TCP route still restricts: the HTTP rule beside it must not become wider by the typo.
    let both = routes().target("bookstore/buyer", &[BUYER], vec![tcp("bookstore/none"), http("bookstore/routes", &[])]);
    expect(&both, BUYER, "GET bookstore/buy-a-book/new", "refused with 403 (no_rule)");
}

#[test]
fn permissive_mode_allows_every_identity_of_the_mesh_and_only_those() {
    let mesh = store().settings(|settings| settings.permissive = true);
    expect(&mesh, THIEF, "DELETE bookstore/everything", "allowed: permissive mode");
    expect(&mesh, THIEF, "", "allowed: permissive mode");
    expect(
        &mesh,
        "spiffe://evil.example/ns/bookbuyer/sa/bookbuyer",
        "GET bookstore/",
        "refused with 403 (foreign_peer): spiffe://evil.example/ns/bookbuyer/sa/bookbuyer is not of the trust domain \"cluster.local\"",
    );
    expect(
        &mesh,
        "",
        "GET bookstore/",
        "refused with 403 (no_peer): port 14001 takes mesh traffic only, and the caller showed no certificate",
    );
}
