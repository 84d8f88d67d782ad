//! The sidecar's DNS server, for pods whose queries are captured: it answers what the mesh has records for, and asks the pod's name
//! servers for the rest. It speaks UDP only, and caches nothing: the name servers do.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fsm_proxy_config::{Family, Names};
use hickory_proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;

use crate::context::Context;

/// Queries that are under way at once; more are dropped, and asked again by the resolvers.
const AT_ONCE: usize = 1024;
/// How long a name server has to answer before the next one is asked: less than the 5 s after which resolvers ask again.
const PATIENCE: Duration = Duration::from_secs(2);
/// Seconds for which a record of the mesh may be kept.
const TTL: u32 = 5;
/// The longest datagram; resolvers that can take more than 512 bytes say so, and name servers heed it.
const LONGEST: usize = 4096;
const PORT: u16 = 53;

/// Whom to ask, and what resolvers append to names: the pod's resolv.conf(5).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resolver {
    pub servers: Vec<SocketAddr>,
    pub search: Vec<String>,
}

impl Resolver {
    /// That of this host.
    pub fn of_host() -> Self {
        let read = std::fs::read_to_string("/etc/resolv.conf");
        let text =
            read.inspect_err(|error| tracing::warn!(%error, "cannot read /etc/resolv.conf: no name server is known"));
        Self::parse(&text.unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match words.next() {
                Some("nameserver") => {
                    let server = words.next().and_then(|server| server.parse::<IpAddr>().ok());
                    resolver.servers.extend(server.map(|ip| SocketAddr::new(ip, PORT)));
                }
                // The last one counts.
                Some("search" | "domain") => resolver.search = words.map(str::to_owned).collect(),
                _ => {}
            }
        }
        resolver
    }
}

/// Serves a socket until the sidecar is gone.
pub async fn serve(context: Arc<Context>, socket: Arc<UdpSocket>, resolver: Arc<Resolver>) {
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut buffer = [0; LONGEST];
    loop {
        let (length, client) = tokio::select! {
            received = socket.recv_from(&mut buffer) => match received {
                Ok(received) => received,
                // An earlier answer could not be delivered: its client has gone.
                Err(_) => continue,
            },
            () = context.drain.started() => return,
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let query = buffer[..length].to_vec();
        let (shared, socket, resolver) = (Arc::clone(&context), Arc::clone(&socket), Arc::clone(&resolver));
        context.drain.spawn(async move {
            let _place = place;
            let snapshot = shared.snapshots.load_full();
            let none = Names::default();
            let names = snapshot.as_ref().map_or(&none, |snapshot| &snapshot.settings().names);
            let servers: Vec<SocketAddr> = match names.upstreams[..] {
                [] => resolver.servers.clone(),
                _ => names.upstreams.iter().map(|ip| SocketAddr::new(*ip, PORT)).collect(),
            };
            let ask = async |query: &[u8]| ask(query, &servers).await;
            if let Some(answer) = answer(&query, names, &resolver.search, ask).await {
                let _ = socket.send_to(&answer, client).await;
            }
        });
    }
}

/// The answer to `packet`; none if it is no query. `ask` gives what a name server answers, if one does.
async fn answer(
    packet: &[u8],
    names: &Names,
    search: &[String],
    ask: impl AsyncFnOnce(&[u8]) -> Option<Vec<u8>>,
) -> Option<Vec<u8>> {
    let query = Message::from_vec(packet).ok().filter(|query| query.metadata.message_type == MessageType::Query)?;
    let question = match (query.metadata.op_code, &query.queries[..]) {
        (OpCode::Query, [question]) if question.query_class == DNSClass::IN => match question.query_type {
            RecordType::A => Some((&question.name, Family::V4)),
            RecordType::AAAA => Some((&question.name, Family::V6)),
            _ => None,
        },
        _ => None,
    };
    if let Some((name, family)) = question
        && let Some(known) = names.known(&name.to_ascii(), family)
    {
        return addresses(&query, name, &known);
    }
    let Some(told) = ask(packet).await else { return failed(&query) };
    let Some((name, family)) = question.filter(|_| names.changes_answers()) else { return Some(told) };
    let Ok(answer) = Message::from_vec(&told) else { return failed(&query) };
    if answer.metadata.response_code == ResponseCode::NXDomain
        && let Some(wildcard) = names.unknown(&name.to_ascii(), search, family)
    {
        return addresses(&query, name, &wildcard);
    }
    let found: Vec<IpAddr> = answer.answers.iter().filter_map(|record| record.data.ip_addr()).collect();
    match names.instead(&found, family) {
        Some(instead) => addresses(&query, name, &instead),
        None => Some(told),
    }
}

fn addresses(query: &Message, name: &Name, addresses: &[IpAddr]) -> Option<Vec<u8>> {
    let mut answer = response(query);
    answer.add_answers(addresses.iter().map(|address| {
        let data = match address {
            IpAddr::V4(v4) => RData::A(A(*v4)),
            IpAddr::V6(v6) => RData::AAAA(AAAA(*v6)),
        };
        Record::from_rdata(name.clone(), TTL, data)
    }));
    answer.to_vec().ok()
}

/// No name server has answered.
fn failed(query: &Message) -> Option<Vec<u8>> {
    let mut answer = response(query);
    answer.metadata.response_code = ResponseCode::ServFail;
    answer.to_vec().ok()
}

fn response(query: &Message) -> Message {
    let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
    answer.metadata.recursion_desired = query.metadata.recursion_desired;
    answer.metadata.recursion_available = true;
    answer.add_queries(query.queries.iter().cloned());
    answer
}

/// Asks the servers one after the other, each once.
async fn ask(query: &[u8], servers: &[SocketAddr]) -> Option<Vec<u8>> {
    for server in servers {
        match tokio::time::timeout(PATIENCE, ask_one(query, *server)).await {
            Ok(Ok(answer)) => return Some(answer),
            Ok(Err(error)) => tracing::debug!(%server, %error, "a name server cannot be asked"),
            Err(_elapsed) => tracing::debug!(%server, "a name server does not answer"),
        }
    }
    None
}

/// From a port of its own for each query: an answer that nobody asked for does not come by.
async fn ask_one(query: &[u8], server: SocketAddr) -> io::Result<Vec<u8>> {
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    socket.send(query).await?;
    let mut buffer = vec![0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if length >= 2 && buffer[..2] == query[..2] {
            buffer.truncate(length);
            return Ok(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use fsm_proxy_config::proto;
    use hickory_proto::op::Query;

    use super::*;
    use crate::sidecar::tests::mesh::{CLIENT, Mesh, Resources, pod_ip};

    fn query(name: &str, kind: RecordType) -> Vec<u8> {
        let mut query = Message::new(7, MessageType::Query, OpCode::Query);
        query.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
        query.to_vec().unwrap()
    }

    fn told(query: &[u8], code: ResponseCode, addresses: &[&str]) -> Vec<u8> {
        let mut answer = response(&Message::from_vec(query).unwrap());
        answer.metadata.response_code = code;
        let name = answer.queries[0].name.clone();
        answer.add_answers(
            addresses.iter().map(|ip| Record::from_rdata(name.clone(), TTL, RData::A(A(ip.parse().unwrap())))),
        );
        answer.to_vec().unwrap()
    }

    fn seen(answer: &[u8]) -> (ResponseCode, Vec<String>) {
        let answer = Message::from_vec(answer).unwrap();
        assert_eq!(answer.metadata.id, 7);
        let addresses = answer.answers.iter().filter_map(|record| record.data.ip_addr());
        (answer.metadata.response_code, addresses.map(|ip| ip.to_string()).collect())
    }

    #[test]
    fn the_hosts_name_servers_are_known() {
        let text = "# made by hand\nsearch a.test b.test\nnameserver 10.96.0.10\nnameserver fd00::a\nnameserver x\noptions ndots:5\n";
        let resolver = Resolver::parse(text);
        assert_eq!(resolver.servers, ["10.96.0.10:53".parse().unwrap(), "[fd00::a]:53".parse().unwrap()]);
        assert_eq!(resolver.search, ["a.test", "b.test"]);
    }

    #[tokio::test]
    async fn bytes_that_are_no_query_get_no_answer() {
        let nobody = async |_: &[u8]| None;
        for packet in [&b""[..], b"no query", &told(&query("a.test.", RecordType::A), ResponseCode::NoError, &[])] {
            assert_eq!(answer(packet, &Names::default(), &[], nobody).await, None);
        }
        let unanswered = answer(&query("a.test.", RecordType::TXT), &Names::default(), &[], nobody).await.unwrap();
        assert_eq!(seen(&unanswered), (ResponseCode::ServFail, vec![]));
    }

    /// A name server that knows `known.test` and `loop.test`.
    async fn name_server() -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; LONGEST];
            while let Ok((length, client)) = socket.recv_from(&mut buffer).await {
                let query = &buffer[..length];
                let name = Message::from_vec(query).unwrap().queries[0].name.to_ascii();
                let answer = match name.as_str() {
                    "known.test." => told(query, ResponseCode::NoError, &["10.0.0.1"]),
                    "loop.test." => told(query, ResponseCode::NoError, &["10.0.0.1", "127.0.0.2"]),
                    _ => told(query, ResponseCode::NXDomain, &[]),
                };
                socket.send_to(&answer, client).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn the_sidecar_answers_what_it_knows_and_asks_for_the_rest() {
        let text = |text: &str| text.to_owned();
        let names = proto::Names {
            records: vec![proto::NameRecord { name: text("db.test"), addresses: vec![text("10.1.1.1")] }],
            wildcard: vec![text("10.9.9.9")],
            replaced: vec![text("127.0.0.2")],
            ..Default::default()
        };
        let resources = Resources::new("buyer", &[]);
        let server = name_server().await;
        let ip = pod_ip();
        let pod = Mesh::new().pod_with(CLIENT, ip, &resources, |config| {
            config.addresses.names = vec![SocketAddr::new(ip, 15053)];
            config.resolver = Resolver { servers: vec![server], search: vec![text("shop.svc.cluster.local")] };
        });
        let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        client.connect(pod.handle.bound().names[0]).await.unwrap();
        let ask = async |name: &str| {
            client.send(&query(name, RecordType::A)).await.unwrap();
            let mut buffer = [0; LONGEST];
            let length = client.recv(&mut buffer).await.unwrap();
            seen(&buffer[..length])
        };
        assert_eq!(ask("db.test.").await, (ResponseCode::NXDomain, vec![]));
        pod.configure(&resources.settings(|settings| settings.names = Some(names)));
        for (name, code, address) in [
            ("db.test.", ResponseCode::NoError, "10.1.1.1"),
            ("known.test.", ResponseCode::NoError, "10.0.0.1"),
            ("loop.test.", ResponseCode::NoError, "10.0.0.1 10.9.9.9"),
            ("nowhere.test.", ResponseCode::NoError, "10.9.9.9"),
            ("nowhere.test.shop.svc.cluster.local.", ResponseCode::NXDomain, ""),
        ] {
            assert_eq!(ask(name).await, (code, address.split_whitespace().map(text).collect()), "{name}");
        }
    }
}
