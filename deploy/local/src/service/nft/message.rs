//! Netlink messages to nf_tables (`linux/netfilter/nf_tables.h`): a batch that takes effect as a whole or not at all.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// The header of a netlink message and what every nf_tables message has after it.
const HEADER: usize = 16 + 4;
const NLMSG_ERROR: u16 = 2;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;
/// inet: IPv4 and IPv6 together.
const FAMILY: u8 = 1;

/// What a message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Verb {
    NewTable = 0,
    DeleteTable = 2,
    NewChain = 3,
    NewRule = 6,
    NewSet = 9,
    NewElements = 12,
}

/// Attributes: type, length, value; values may be attributes again.
#[derive(Debug, Clone, Default)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        // No attribute here comes near 64 KiB: elements are sent in portions.
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    pub fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    pub fn text(self, kind: u16, value: &str) -> Self {
        self.bytes(kind, &[value.as_bytes(), &[0]].concat())
    }

    pub fn nest(self, kind: u16, value: &Self) -> Self {
        self.bytes(kind | NESTED, &value.0)
    }
}

/// Messages that belong together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    count: u32,
}

impl Batch {
    pub fn new() -> Self {
        let mut batch = Self::default();
        batch.message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, &Attributes::default());
        batch
    }

    pub fn add(&mut self, verb: Verb, attributes: &Attributes) {
        let flags = match verb {
            Verb::DeleteTable => REQUEST | ACK,
            Verb::NewRule => REQUEST | ACK | CREATE | APPEND,
            _ => REQUEST | ACK | CREATE,
        };
        self.message((SUBSYSTEM << 8) | verb as u16, flags, FAMILY, 0, attributes);
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: &Attributes) {
        let length = u32::try_from(HEADER + attributes.0.len()).unwrap_or(u32::MAX);
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.count.to_ne_bytes());
        self.bytes.extend(0_u32.to_ne_bytes());
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(&attributes.0);
        self.count += 1;
    }

    /// Sends the batch and waits until the kernel has taken or refused it.
    pub fn commit(mut self, socket: &Socket) -> io::Result<()> {
        let requests = self.count - 1;
        self.message(BATCH_END, REQUEST, 0, SUBSYSTEM, &Attributes::default());
        // A batch must be one datagram.
        setsockopt(&socket.0, sockopt::SndBufForce, &self.bytes.len().saturating_mul(2).max(1 << 16))
            .or_else(|_| setsockopt(&socket.0, sockopt::SndBuf, &self.bytes.len().saturating_mul(2).max(1 << 16)))?;
        let sent = sendto(socket.0.as_raw_fd(), &self.bytes, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        if sent != self.bytes.len() {
            return Err(io::Error::other("the kernel took part of the batch only"));
        }
        let (mut answered, mut buffer) = (0, vec![0; 1 << 16]);
        let mut refused = None;
        while answered < requests {
            let length = recv(socket.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            for (code, sequence) in answers(&buffer[..length]) {
                answered += 1;
                if code != 0 && refused.is_none() {
                    refused = Some((code, sequence));
                }
                if sequence == 0 || sequence >= self.count {
                    // About the batch as a whole: nothing follows.
                    answered = requests;
                }
            }
        }
        match refused {
            None => Ok(()),
            Some((code, sequence)) => {
                let why = io::Error::from_raw_os_error(-code);
                Err(io::Error::new(why.kind(), format!("nf_tables refused message {sequence} of the batch: {why}")))
            }
        }
    }
}

/// The codes and sequence numbers of the acknowledgements in a datagram.
fn answers(mut datagram: &[u8]) -> Vec<(i32, u32)> {
    let mut found = Vec::new();
    while let Some((header, rest)) = datagram.split_first_chunk::<16>() {
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let length = word(0) as usize;
        let kind = u16::from_ne_bytes([header[4], header[5]]);
        if let Some(code) = rest.first_chunk::<4>().filter(|_| kind == NLMSG_ERROR) {
            found.push((i32::from_ne_bytes(*code), word(8)));
        }
        datagram = datagram.get(length.next_multiple_of(4).max(16)..).unwrap_or_default();
    }
    found
}

/// A connection to nf_tables of the network namespace the calling thread is in.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    pub fn open() -> io::Result<Self> {
        let protocol = Some(SockProtocol::NetlinkNetFilter);
        let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(10))?;
        // Every message is acknowledged at once, before the first acknowledgement can be read.
        setsockopt(&socket, sockopt::RcvBufForce, &(16 << 20)).ok();
        Ok(Self(socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_nest() {
        let inner = Attributes::default().number(1, 0x0a0b);
        let outer = Attributes::default().text(2, "ab").nest(4, &inner);
        assert_eq!(outer.0[..8], [7, 0, 2, 0, b'a', b'b', 0, 0]);
        assert_eq!(outer.0[8..], [12, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0x0a, 0x0b]);
    }

    #[test]
    fn answers_are_found_in_a_datagram() {
        let mut datagram = Vec::new();
        for (code, sequence) in [(0_i32, 1_u32), (-2, 2)] {
            datagram.extend(36_u32.to_ne_bytes());
            datagram.extend(NLMSG_ERROR.to_ne_bytes());
            datagram.extend([0; 2]);
            datagram.extend(sequence.to_ne_bytes());
            datagram.extend([0; 4]);
            datagram.extend(code.to_ne_bytes());
            datagram.extend([0; 16]);
        }
        assert_eq!(answers(&datagram), [(0, 1), (-2, 2)]);
    }
}
