//! Where outbound traffic goes.

use fsm_proxy_config::Protocol;
use fsm_proxy_config::proto;

use crate::mesh::{Mesh, STORE_VIP, outbound, sentence};

fn expect(mesh: &Mesh, destination: &str, request: &str, expected: &str) {
    let sentence = sentence(&mesh.snapshot(), &outbound(destination), request);
    assert!(sentence.contains(expected), "\n     got: {sentence}\nexpected: {expected}");
}

fn warehouse() -> Mesh {
    Mesh::new().service("bookwarehouse/bookwarehouse", "10.96.0.20", 14001).endpoints(
        "bookwarehouse/bookwarehouse",
        14001,
        &["10.244.0.21", "10.244.0.22"],
    )
}

const ANY_OF_TWO: &str = "forwarded to bookwarehouse/bookwarehouse:14001 \
    [10.244.0.21:14001 as spiffe://cluster.local/ns/bookwarehouse/sa/bookwarehouse, \
    10.244.0.22:14001 as spiffe://cluster.local/ns/bookwarehouse/sa/bookwarehouse]";

#[test]
fn a_cluster_address_leads_to_the_endpoints_of_its_service() {
    expect(&warehouse(), "10.96.0.20:14001", "GET bookwarehouse.bookwarehouse/", ANY_OF_TWO);
    expect(&warehouse(), "10.96.0.20:14001", "", ANY_OF_TWO);
}

#[test]
fn a_cluster_address_in_an_ipv6_socket_is_the_same_address() {
    expect(&warehouse(), "[::ffff:10.96.0.20]:14001", "", ANY_OF_TWO);
}

#[test]
fn the_cluster_address_wins_over_the_host() {
    let mesh =
        warehouse().service("other/other", "10.96.0.30", 14001).endpoints("other/other", 14001, &["10.244.0.31"]);
    expect(&mesh, "10.96.0.20:14001", "GET other.other:14001/", ANY_OF_TWO);
}

#[test]
fn a_port_that_the_service_lacks_is_refused_with_the_ports_it_has() {
    expect(
        &warehouse().settings(|settings| settings.egress = true),
        "10.96.0.20:80",
        "GET bookwarehouse/",
        "refused with 404 (no_such_port): service bookwarehouse/bookwarehouse has no port 80; its ports: 14001",
    );
}

#[test]
fn a_service_without_ready_endpoints_is_unavailable() {
    let mesh = Mesh::new().service("bookwarehouse/bookwarehouse", "10.96.0.20", 14001);
    let expected = "refused with 503 (no_backend): service bookwarehouse/bookwarehouse has no endpoint that is ready on port 14001";
    expect(&mesh, "10.96.0.20:14001", "GET x/", expected);
    expect(&mesh, "10.96.0.20:14001", "", expected);
}

#[test]
fn a_pods_address_leads_to_that_pod_alone() {
    expect(
        &warehouse(),
        "10.244.0.22:14001",
        "GET bookwarehouse.bookwarehouse/",
        "forwarded to bookwarehouse/bookwarehouse:14001 [10.244.0.22:14001 as spiffe://cluster.local/ns/bookwarehouse/sa/bookwarehouse]",
    );
}

#[test]
fn a_split_headless_service_is_split_when_the_host_names_it() {
    let mesh = Mesh::new()
        .service("bookstore/bookstore", "", 14001)
        .endpoints("bookstore/bookstore", 14001, &["10.244.0.11", "10.244.0.12"])
        .service("bookstore/bookstore-v2", "", 14001)
        .endpoints("bookstore/bookstore-v2", 14001, &["10.244.0.12"])
        .split("bookstore/all-to-v2", "bookstore/bookstore", &[("bookstore/bookstore-v2", 1)], &[]);
    let v2 = "one of bookstore/bookstore-v2:14001 [10.244.0.12:14001";
    expect(&mesh, "10.244.0.11:14001", "GET bookstore.bookstore:14001/", v2);
    expect(&mesh, "10.244.0.11:14001", "GET 10.244.0.11:14001/", "bookstore/bookstore:14001 [10.244.0.11:14001");
    expect(&mesh, "10.244.0.11:14001", "", "bookstore/bookstore:14001 [10.244.0.11:14001");
}

#[test]
fn a_pod_without_a_proxy_is_dialled_untouched_and_its_service_in_plain_text() {
    let mesh = Mesh::new().service("old/old", "10.96.0.40", 80).endpoints_as("old/old", 80, &["10.244.0.41"], "");
    expect(&mesh, "10.244.0.41:80", "", "passed through: 10.244.0.41:80 has no proxy");
    expect(&mesh, "10.96.0.40:80", "", "forwarded to old/old:80 [10.244.0.41:80 in plain text]");
}

#[test]
fn an_unknown_address_is_looked_up_by_host_name() {
    let mesh = warehouse();
    for host in [
        "bookwarehouse.bookwarehouse:14001",
        "BOOKWAREHOUSE.bookwarehouse.svc.cluster.local.:14001",
        "bookwarehouse.bookwarehouse",
    ] {
        expect(&mesh, "192.0.2.1:14001", &format!("GET {host}/"), ANY_OF_TWO);
    }
    // The port in the Host counts, not the one dialled; and another port is no port of the service.
    expect(&mesh, "192.0.2.1:80", "GET bookwarehouse.bookwarehouse:14001/", ANY_OF_TWO);
    expect(&mesh, "192.0.2.1:14001", "GET bookwarehouse.bookwarehouse:80/", "refused with 403 (unknown_destination)");
}

#[test]
fn what_is_outside_the_mesh_needs_egress() {
    expect(
        &warehouse(),
        "192.0.2.1:443",
        "",
        "refused with 403 (unknown_destination): 192.0.2.1:443 is no service that this workload is told of, and egress is off",
    );
    expect(&warehouse(), "192.0.2.1:80", "GET example.com/", "192.0.2.1:80 (Host example.com) is no service");
    let open = warehouse().settings(|settings| settings.egress = true);
    expect(&open, "192.0.2.1:443", "", "passed through: egress is on");
    expect(&open, "192.0.2.1:80", "GET example.com/", "passed through: egress is on");
}

#[test]
fn a_bare_host_name_means_the_service_in_the_own_namespace() {
    let mesh = Mesh::new()
        .service("another/db", "10.96.0.50", 5432)
        .endpoints("another/db", 5432, &["10.244.0.51"])
        .service("bookstore/db", "10.96.0.60", 5432)
        .endpoints("bookstore/db", 5432, &["10.244.0.61"]);
    expect(&mesh, "192.0.2.1:5432", "GET db/", "forwarded to bookstore/db:5432");
    expect(&mesh, "192.0.2.1:5432", "GET db.another/", "forwarded to another/db:5432");
    // The name of a service elsewhere is no name here, though nobody else has it.
    let elsewhere =
        Mesh::new().service("another/cache", "10.96.0.70", 6379).endpoints("another/cache", 6379, &["10.244.0.71"]);
    expect(&elsewhere, "192.0.2.1:6379", "GET cache/", "refused with 403 (unknown_destination)");
    expect(&elsewhere, "192.0.2.1:6379", "GET cache.another/", "forwarded to another/cache:6379");
}

#[test]
fn several_slices_of_a_service_are_one_set_of_endpoints() {
    let mut mesh = warehouse();
    let twice = mesh.clone().endpoints("bookwarehouse/bookwarehouse", 14001, &["10.244.0.22", "10.244.0.23"]);
    let more = twice.set.resources.iter().find(|(name, _)| &*name.name == "bookwarehouse/bookwarehouse-slice").unwrap();
    mesh.set.resources.insert("Endpoints/bookwarehouse/another-slice".parse().unwrap(), more.1.clone());
    let snapshot = mesh.snapshot();
    let (_, _, endpoints) = snapshot.pools().next().unwrap();
    let addresses: Vec<String> = endpoints.iter().map(|endpoint| endpoint.address.to_string()).collect();
    assert_eq!(addresses, ["10.244.0.21:14001", "10.244.0.22:14001", "10.244.0.23:14001"]);
}

#[test]
fn the_protocol_is_known_before_the_first_byte() {
    let mesh = Mesh::bookstore()
        .service_speaking("db/mysql", "10.96.0.70", 3306, proto::Protocol::TcpServerFirst)
        .endpoints("db/mysql", 3306, &["10.244.0.71"]);
    let snapshot = mesh.snapshot();
    for (destination, expected) in [
        (STORE_VIP, Protocol::Http),
        ("10.96.0.70:3306", Protocol::TcpServerFirst),
        ("10.244.0.71:3306", Protocol::TcpServerFirst),
        ("10.96.0.70:1", Protocol::Detect),
        ("192.0.2.1:3306", Protocol::Detect),
    ] {
        assert_eq!(snapshot.outbound_protocol(destination.parse().unwrap()), expected, "{destination}");
    }
    assert_eq!(snapshot.inbound_protocol(14001), Protocol::Http);
    assert_eq!(snapshot.inbound_protocol(14002), Protocol::Detect);
}
