//! From a DNS message to its answer.

use std::net::IpAddr;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::DOMAIN;
use super::zone::{Answer, Query, Zone};

/// Seconds a client may keep an answer; Kubernetes' DNS uses 5, and endpoints change often here.
const TTL_SECONDS: u32 = 5;
/// The size every client accepts over UDP (RFC 1035, 4.2.1).
const UDP_LIMIT: usize = 512;

/// How a query arrived: over UDP, a long answer is cut short and the client asks again over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Udp,
    Tcp,
}

/// The answer to `packet`, or `None` when it isn't a query at all.
pub fn respond(zone: &Zone, packet: &[u8], transport: Transport) -> Option<Vec<u8>> {
    let query = Message::from_vec(packet).ok()?;
    if query.metadata.message_type != MessageType::Query {
        return None;
    }
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.metadata.authoritative = true;
    answer.add_queries(query.queries.iter().cloned());
    if query.edns.is_some() {
        answer.edns = Some(Edns::new());
    }
    match (query.metadata.op_code, query.queries.as_slice()) {
        (OpCode::Query, [question]) => fill(&mut answer, zone, &question.name, question.query_type),
        (OpCode::Query, _) => answer.metadata.response_code = ResponseCode::FormErr,
        _ => answer.metadata.response_code = ResponseCode::NotImp,
    }
    let limit = match transport {
        Transport::Udp => query.edns.as_ref().map_or(UDP_LIMIT, |_| usize::from(query.max_payload())).max(UDP_LIMIT),
        Transport::Tcp => usize::from(u16::MAX),
    };
    let bytes = answer.to_vec().ok()?;
    if bytes.len() <= limit { Some(bytes) } else { answer.truncate().to_vec().ok() }
}

fn fill(answer: &mut Message, zone: &Zone, name: &Name, kind: RecordType) {
    let query = match kind {
        RecordType::A => Query::A,
        RecordType::AAAA => Query::Aaaa,
        RecordType::SRV => Query::Srv,
        RecordType::ANY => Query::Any,
        _ => Query::Other,
    };
    let record = |name: &Name, data| Record::from_rdata(name.clone(), TTL_SECONDS, data);
    let Some(found) = zone.lookup(&name.to_lowercase().to_ascii(), query) else {
        answer.metadata.response_code = ResponseCode::NXDomain;
        answer.add_authorities(soa());
        return;
    };
    for item in found {
        match item {
            Answer::Address(ip) => {
                answer.add_answer(record(name, address(ip)));
            }
            Answer::Alias(target) => {
                if let Ok(target) = Name::from_ascii(&target) {
                    answer.add_answer(record(name, RData::CNAME(CNAME(target))));
                }
            }
            Answer::Server { port, target, address } => {
                if let Ok(target) = Name::from_ascii(&target) {
                    let server = record(name, RData::SRV(SRV::new(0, 100, port, target.clone())));
                    // A target with two addresses is one server.
                    if !answer.answers.contains(&server) {
                        answer.add_answer(server);
                    }
                    answer.add_additional(record(&target, self::address(address)));
                }
            }
        }
    }
    if answer.answers.is_empty() {
        // The name exists, but not with this type (RFC 2308, 2.2).
        answer.add_authorities(soa());
    }
}

fn address(ip: IpAddr) -> RData {
    match ip {
        IpAddr::V4(ip) => RData::A(A(ip)),
        IpAddr::V6(ip) => RData::AAAA(AAAA(ip)),
    }
}

fn soa() -> Option<Record> {
    let zone = Name::from_ascii(format!("{DOMAIN}.")).ok()?;
    let server = Name::from_ascii(format!("ns.dns.{DOMAIN}.")).ok()?;
    let mailbox = Name::from_ascii(format!("hostmaster.{DOMAIN}.")).ok()?;
    let soa = SOA::new(server, mailbox, 1, 7200, 1800, 86400, TTL_SECONDS);
    Some(Record::from_rdata(zone, TTL_SECONDS, RData::SOA(soa)))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hickory_proto::op::Query as Question;
    use serde_json::json;

    use super::*;

    fn zone(endpoints: usize) -> Zone {
        let service = json!({"metadata": {"name": "db", "namespace": "shop"}, "spec": {"clusterIP": "None"}});
        let endpoints: Vec<_> = (0..endpoints).map(|n| json!({"addresses": [format!("10.244.1.{n}")]})).collect();
        let slice = json!({"metadata": {"name": "db-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "db"}},
            "addressType": "IPv4", "endpoints": endpoints});
        let parse = |v| serde_json::from_value(v).unwrap();
        Zone::build(&[Arc::new(parse(service))], &[Arc::new(serde_json::from_value(slice).unwrap())])
    }

    fn ask(zone: &Zone, name: &str, kind: RecordType, transport: Transport) -> Message {
        let mut query = Message::query();
        query.add_query(Question::query(Name::from_ascii(name).unwrap(), kind));
        Message::from_vec(&respond(zone, &query.to_vec().unwrap(), transport).unwrap()).unwrap()
    }

    #[test]
    fn a_name_that_exists_without_the_type_is_no_error_and_an_unknown_one_is_nxdomain() {
        let zone = zone(1);
        let found = ask(&zone, "DB.shop.svc.cluster.local.", RecordType::A, Transport::Udp);
        assert_eq!(found.answers.len(), 1);
        let other = ask(&zone, "db.shop.svc.cluster.local.", RecordType::AAAA, Transport::Udp);
        assert_eq!((other.metadata.response_code, other.answers.len()), (ResponseCode::NoError, 0));
        assert_eq!(other.authorities.len(), 1);
        for name in ["db.shop.svc.cluster.local.shop.svc.cluster.local.", "www.example.com."] {
            let unknown = ask(&zone, name, RecordType::A, Transport::Udp);
            assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain, "{name}");
        }
    }

    #[test]
    fn a_long_answer_is_cut_over_udp_and_whole_over_tcp() {
        let zone = zone(100);
        let cut = ask(&zone, "db.shop.svc.cluster.local.", RecordType::A, Transport::Udp);
        assert!(cut.metadata.truncation);
        let whole = ask(&zone, "db.shop.svc.cluster.local.", RecordType::A, Transport::Tcp);
        assert_eq!((whole.metadata.truncation, whole.answers.len()), (false, 100));
    }

    #[test]
    fn what_is_not_a_query_gets_no_answer() {
        assert_eq!(respond(&zone(1), b"nonsense", Transport::Udp), None);
        let answer = Message::response(7, OpCode::Query).to_vec().unwrap();
        assert_eq!(respond(&zone(1), &answer, Transport::Udp), None);
    }
}
