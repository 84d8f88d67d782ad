//! A transaction of nf_tables as netlink messages (linux/netfilter/nf_tables.h): all of it takes effect, or nothing.

use super::ruleset::Interval;
use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

const TABLE: &str = "fsm";
const NFPROTO_INET: u8 = 1;
/// The priority of destination NAT.
const DSTNAT: i32 = -100;

const NEW_TABLE: u8 = 0;
const DEL_TABLE: u8 = 2;
const NEW_CHAIN: u8 = 3;
const NEW_RULE: u8 = 6;
const NEW_SET: u8 = 9;
const NEW_SET_ELEMENTS: u8 = 12;
const SUBSYSTEM: u16 = libc::NFNL_SUBSYS_NFTABLES as u16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

const NESTED: u16 = 0x8000;
const SET_INTERVAL: u32 = 4;
const ELEMENT_INTERVAL_END: u32 = 1;
/// The attribute of a list's elements, and those of an expression.
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
/// A value, and a verdict, in a place that takes either.
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

const REGISTER_VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const META_IIF: u32 = 4;
const META_NFPROTO: u32 = 15;
const META_L4PROTO: u32 = 16;
const PAYLOAD_NETWORK: u32 = 1;
const PAYLOAD_TRANSPORT: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const SOCKET_CGROUPV2: u32 = 3;
/// Elements of one message: it must fit into 64 kB.
const ELEMENTS_A_MESSAGE: usize = 500;

#[derive(Clone, Copy, Debug)]
pub(super) enum KeyType {
    Port,
    Ipv4,
    Ipv6,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    Return,
}

/// One step of a rule. The first that does not match ends the rule.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expression {
    /// `IPPROTO_TCP` or `IPPROTO_UDP`.
    OtherThan(i32),
    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    Family(u8),
    FromInterface(u32),
    /// The socket's owner is in this cgroup or below.
    Cgroup {
        id: u64,
        level: u32,
    },
    /// Loads the destination's port or address for [`Self::InSet`].
    DestinationPort,
    /// To another port than this one.
    PortOtherThan(u16),
    DestinationV4,
    DestinationV6,
    InSet {
        set: &'static str,
        outside: bool,
    },
    Verdict(Verdict),
    /// To this port of the machine itself.
    Redirect(u16),
}

#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    messages: u32,
    sets: u32,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut batch = Self { bytes: Vec::new(), messages: 0, sets: 0 };
        batch.message(BATCH_BEGIN, 0, libc::AF_UNSPEC as u8, SUBSYSTEM, |_| {});
        batch
    }

    pub(super) fn add_table(&mut self) {
        self.ask(NEW_TABLE, libc::NLM_F_CREATE, |a| a.text(1, TABLE));
    }

    pub(super) fn delete_table(&mut self) {
        self.ask(DEL_TABLE, 0, |a| a.text(1, TABLE));
    }

    pub(super) fn add_set(&mut self, name: &str, key: KeyType, intervals: &[Interval]) {
        self.sets += 1;
        let id = self.sets;
        // The numbers by which nft(8) shows keys as what they are.
        let (kind, length, flags) = match key {
            KeyType::Port => (13, 2, 0),
            KeyType::Ipv4 => (7, 4, SET_INTERVAL),
            KeyType::Ipv6 => (8, 16, SET_INTERVAL),
        };
        self.ask(NEW_SET, libc::NLM_F_CREATE, |a| {
            a.text(1, TABLE);
            a.text(2, name);
            a.number(3, flags);
            a.number(4, kind);
            a.number(5, length);
            a.number(10, id);
        });
        for part in intervals.chunks(ELEMENTS_A_MESSAGE) {
            self.ask(NEW_SET_ELEMENTS, libc::NLM_F_CREATE, |a| {
                a.text(1, TABLE);
                a.text(2, name);
                a.number(4, id);
                a.nest(3, |a| part.iter().for_each(|interval| a.interval(interval)));
            });
        }
    }

    pub(super) fn add_chain(&mut self, name: &str, hook: u32, rules: &[Vec<Expression>]) {
        self.ask(NEW_CHAIN, libc::NLM_F_CREATE, |a| {
            a.text(1, TABLE);
            a.text(3, name);
            a.nest(4, |a| {
                a.number(1, hook);
                a.number(2, DSTNAT.cast_unsigned());
            });
            a.text(7, "nat");
        });
        for rule in rules {
            self.ask(NEW_RULE, libc::NLM_F_CREATE | libc::NLM_F_APPEND, |a| {
                a.text(1, TABLE);
                a.text(2, name);
                a.nest(4, |a| rule.iter().for_each(|expression| a.expression(*expression)));
            });
        }
    }

    fn ask(&mut self, kind: u8, flags: i32, attributes: impl FnOnce(&mut Attributes<'_>)) {
        self.message((SUBSYSTEM << 8) | u16::from(kind), flags, NFPROTO_INET, 0, attributes);
    }

    fn message(&mut self, kind: u16, flags: i32, family: u8, resource: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.bytes.len();
        self.messages += 1;
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        // Every part is acknowledged or refused by its number.
        let acknowledged = if kind == BATCH_BEGIN || kind == BATCH_END { 0 } else { libc::NLM_F_ACK };
        self.bytes.extend(((libc::NLM_F_REQUEST | acknowledged | flags) as u16).to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend(0u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        fill(&mut Attributes(&mut self.bytes));
        let length = (self.bytes.len() - start) as u32;
        self.bytes[start..start + 4].copy_from_slice(&length.to_ne_bytes());
    }

    /// Sends everything to the calling thread's network namespace, and gives the first refusal.
    pub(super) fn commit(mut self) -> io::Result<()> {
        let asked = self.messages - 1;
        self.message(BATCH_END, 0, libc::AF_UNSPEC as u8, SUBSYSTEM, |_| {});
        let socket = netlink_socket(self.bytes.len())?;
        send(&socket, &self.bytes)?;
        let mut answered = 0;
        while answered < asked {
            let answer = receive(&socket)?;
            let mut rest = answer.as_slice();
            while rest.len() >= 20 {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let code = i32::from_ne_bytes([rest[16], rest[17], rest[18], rest[19]]);
                if code != 0 {
                    return Err(io::Error::from_raw_os_error(-code));
                }
                answered += 1;
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
        Ok(())
    }
}

/// The attributes of a message, or within another attribute.
struct Attributes<'b>(&'b mut Vec<u8>);

impl Attributes<'_> {
    fn bytes(&mut self, kind: u16, value: &[u8]) {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, value: &str) {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat());
    }

    fn number(&mut self, kind: u16, value: u32) {
        self.bytes(kind, &value.to_be_bytes());
    }

    fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Attributes<'_>)) {
        let start = self.0.len();
        self.bytes(kind | NESTED, &[]);
        fill(&mut Attributes(self.0));
        let length = (self.0.len() - start) as u16;
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn value(&mut self, kind: u16, value: &[u8]) {
        self.nest(kind, |a| a.bytes(DATA_VALUE, value));
    }

    fn interval(&mut self, interval: &Interval) {
        self.nest(LIST_ELEMENT, |a| a.value(1, &interval.first));
        if let Some(after) = &interval.after {
            self.nest(LIST_ELEMENT, |a| {
                a.number(3, ELEMENT_INTERVAL_END);
                a.value(1, after);
            });
        }
    }

    fn step(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.nest(LIST_ELEMENT, |a| {
            a.text(EXPRESSION_NAME, name);
            a.nest(EXPRESSION_DATA, fill);
        });
    }

    fn expression(&mut self, expression: Expression) {
        match expression {
            Expression::OtherThan(protocol) => {
                self.meta(META_L4PROTO);
                self.compare(NOT_EQUAL, &[protocol as u8]);
            }
            Expression::Family(family) => {
                self.meta(META_NFPROTO);
                self.compare(EQUAL, &[family]);
            }
            Expression::FromInterface(index) => {
                self.meta(META_IIF);
                self.compare(EQUAL, &index.to_ne_bytes());
            }
            Expression::Cgroup { id, level } => {
                self.step("socket", |a| {
                    a.number(1, SOCKET_CGROUPV2);
                    a.number(2, REGISTER);
                    a.number(3, level);
                });
                self.compare(EQUAL, &id.to_ne_bytes());
            }
            Expression::DestinationPort => self.payload(PAYLOAD_TRANSPORT, 2, 2),
            Expression::PortOtherThan(port) => {
                self.payload(PAYLOAD_TRANSPORT, 2, 2);
                self.compare(NOT_EQUAL, &port.to_be_bytes());
            }
            Expression::DestinationV4 => self.payload(PAYLOAD_NETWORK, 16, 4),
            Expression::DestinationV6 => self.payload(PAYLOAD_NETWORK, 24, 16),
            Expression::InSet { set, outside } => self.step("lookup", |a| {
                a.text(1, set);
                a.number(2, REGISTER);
                if outside {
                    a.number(5, 1);
                }
            }),
            Expression::Verdict(Verdict::Return) => self.step("immediate", |a| {
                a.number(1, REGISTER_VERDICT);
                a.nest(2, |a| a.nest(DATA_VERDICT, |a| a.number(1, (-5i32).cast_unsigned())));
            }),
            Expression::Redirect(port) => {
                self.step("immediate", |a| {
                    a.number(1, REGISTER);
                    a.value(2, &port.to_be_bytes());
                });
                self.step("redir", |a| a.number(1, REGISTER));
            }
        }
    }

    fn meta(&mut self, key: u32) {
        self.step("meta", |a| {
            a.number(1, REGISTER);
            a.number(2, key);
        });
    }

    fn compare(&mut self, how: u32, value: &[u8]) {
        self.step("cmp", |a| {
            a.number(1, REGISTER);
            a.number(2, how);
            a.value(3, value);
        });
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        self.step("payload", |a| {
            a.number(1, REGISTER);
            a.number(2, base);
            a.number(3, offset);
            a.number(4, length);
        });
    }
}

#[expect(unsafe_code, reason = "the standard library has no netlink sockets")]
fn netlink_socket(room: usize) -> io::Result<OwnedFd> {
    // SAFETY: plain integers in, a descriptor that is ours out.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, libc::NETLINK_NETFILTER) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a new descriptor that nobody else has.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    // A transaction is one datagram, and its acknowledgements come while nobody reads yet.
    for option in [libc::SO_SNDBUFFORCE, libc::SO_RCVBUFFORCE] {
        let size = libc::c_int::try_from(room.max(1 << 20)).unwrap_or(libc::c_int::MAX);
        // SAFETY: the option's value is an integer that outlives the call.
        let set = unsafe {
            libc::setsockopt(
                raw,
                libc::SOL_SOCKET,
                option,
                (&raw const size).cast(),
                size_of_val(&size) as libc::socklen_t,
            )
        };
        if set < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(socket)
}

#[expect(unsafe_code, reason = "the standard library has no netlink sockets")]
fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    // SAFETY: the kernel reads the given number of bytes from the slice.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), 0) };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[expect(unsafe_code, reason = "the standard library has no netlink sockets")]
fn receive(socket: &OwnedFd) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0u8; 1 << 16];
    // SAFETY: the kernel writes at most the buffer's length to it.
    let received = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
    let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
    buffer.truncate(received);
    Ok(buffer)
}
