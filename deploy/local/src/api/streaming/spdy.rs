//! The frames of SPDY/3.1, as far as Kubernetes' clients use them: streams are opened, carry data and end.
//!
//! There is no flow control: neither do kubectl and the kubelet use it. Headers are compressed with one zlib stream for a whole
//! connection, begun with a dictionary that the specification fixes.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::TINFL_FLAG_HAS_MORE_INPUT;
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};

const VERSION: u16 = 3;
const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FIN: u8 = 1;
const HEADER_BYTES: usize = 8;
/// The longest block of headers that is accepted, unpacked.
const MOST_HEADER_BYTES: usize = 64 * 1024;
const WINDOW_BYTES: usize = 32 * 1024;

/// The words that the dictionary begins with, each after its length.
const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language accept-ranges age \
     allow authorization cache-control connection content-base content-encoding content-language content-length content-location \
     content-md5 content-range content-type date etag expect expires from host if-match if-modified-since if-none-match if-range \
     if-unmodified-since last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer \
     retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate method get status";
const MORE_WORDS: [&str; 8] = ["200 OK", "version", "HTTP/1.1", "url", "public", "set-cookie", "keep-alive", "origin"];
/// What comes after the words, without lengths.
const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
     Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 Not \
     Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec \
     00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,application/xml,\
     application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,\
     utf-,*,enq=0.";

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SpdyError {
    #[error("a control frame is of version {0}, not of SPDY/3")]
    Version(u16),
    #[error("a control frame is too short")]
    Short,
    #[error("the headers of a stream can't be unpacked")]
    Headers,
}

/// What a client sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    Open {
        stream: u32,
        headers: Vec<(String, String)>,
    },
    Data {
        stream: u32,
        bytes: Bytes,
        last: bool,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Something that needs no answer.
    Other,
}

fn dictionary() -> Vec<u8> {
    let mut bytes = Vec::new();
    for word in WORDS.split(' ').chain(MORE_WORDS) {
        bytes.put_u32(u32::try_from(word.len()).unwrap_or_default());
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(REST.as_bytes());
    bytes
}

/// Reads frames from bytes as they come.
#[derive(Default)]
pub struct Decoder {
    buffer: BytesMut,
    headers: Inflate,
}

impl Decoder {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next frame that is complete.
    pub fn next(&mut self) -> Result<Option<Frame>, SpdyError> {
        let Some(mut head) = self.buffer.get(..HEADER_BYTES) else { return Ok(None) };
        let first = head.get_u32();
        let (flags, length) = (head[0], (head.get_u32() & 0x00ff_ffff) as usize);
        if self.buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let mut body = self.buffer.split_to(length).freeze();
        if first & 0x8000_0000 == 0 {
            return Ok(Some(Frame::Data { stream: first, bytes: body, last: flags & FIN != 0 }));
        }
        let [version, kind] = [(first >> 16) as u16 & 0x7fff, first as u16];
        if version != VERSION {
            return Err(SpdyError::Version(version));
        }
        let mut number = || body.try_get_u32().map(|n| n & 0x7fff_ffff).map_err(|_| SpdyError::Short);
        Ok(Some(match kind {
            SYN_STREAM => {
                let (stream, _associated) = (number()?, number()?);
                // Priority and slot.
                if body.remaining() < 2 {
                    return Err(SpdyError::Short);
                }
                body.advance(2);
                Frame::Open { stream, headers: pairs(&self.headers.unpack(&body)?)? }
            }
            RST_STREAM => Frame::Reset { stream: number()? },
            PING => Frame::Ping { id: body.try_get_u32().map_err(|_| SpdyError::Short)? },
            GOAWAY => Frame::GoAway,
            _ => Frame::Other,
        }))
    }
}

/// Names and values of a block of headers.
fn pairs(mut block: &[u8]) -> Result<Vec<(String, String)>, SpdyError> {
    fn word(block: &mut &[u8]) -> Result<String, SpdyError> {
        let length = block.try_get_u32().map_err(|_| SpdyError::Headers)? as usize;
        let bytes = block.get(..length).ok_or(SpdyError::Headers)?;
        let word = String::from_utf8_lossy(bytes).into_owned();
        block.advance(length);
        Ok(word)
    }
    let count = block.try_get_u32().map_err(|_| SpdyError::Headers)?;
    (0..count).map(|_| Ok((word(&mut block)?, word(&mut block)?))).collect()
}

/// Unpacks blocks that are parts of one zlib stream.
struct Inflate {
    state: Box<DecompressorOxide>,
    /// What was unpacked last, in a circle.
    window: Vec<u8>,
    at: usize,
    begun: bool,
}

impl Default for Inflate {
    fn default() -> Self {
        Self { state: Box::default(), window: vec![0; WINDOW_BYTES], at: 0, begun: false }
    }
}

impl Inflate {
    fn unpack(&mut self, mut packed: &[u8]) -> Result<Vec<u8>, SpdyError> {
        if !self.begun {
            // Two bytes of zlib's header; the dictionary's checksum follows if there is one.
            let has_dictionary = packed.get(1).is_some_and(|flags| flags & 0x20 != 0);
            packed = packed.get(if has_dictionary { 6 } else { 2 }..).ok_or(SpdyError::Headers)?;
            if has_dictionary {
                let dictionary = dictionary();
                self.window[..dictionary.len()].copy_from_slice(&dictionary);
                self.at = dictionary.len();
            }
            self.begun = true;
        }
        let mut unpacked = Vec::new();
        loop {
            let (status, read, written) =
                decompress(&mut self.state, packed, &mut self.window, self.at, TINFL_FLAG_HAS_MORE_INPUT);
            packed = packed.get(read..).unwrap_or_default();
            unpacked.extend_from_slice(&self.window[self.at..self.at + written]);
            self.at = (self.at + written) % WINDOW_BYTES;
            match status {
                TINFLStatus::HasMoreOutput if unpacked.len() <= MOST_HEADER_BYTES => {}
                TINFLStatus::NeedsMoreInput if packed.is_empty() => return Ok(unpacked),
                _ => return Err(SpdyError::Headers),
            }
        }
    }
}

/// Writes the frames a server sends.
#[derive(Debug, Default)]
pub struct Encoder {
    begun: bool,
}

impl Encoder {
    /// Accepts a stream, without headers.
    pub fn reply(&mut self, stream: u32) -> Bytes {
        let mut body = BytesMut::new();
        body.put_u32(stream);
        if !std::mem::replace(&mut self.begun, true) {
            // A zlib stream without a dictionary.
            body.put_slice(&[0x78, 0x01]);
        }
        // "No headers" in a block that is not compressed, and an empty block, at which readers hand out what they have.
        body.put_slice(&[0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0]);
        body.put_slice(&[0, 0, 0, 0xff, 0xff]);
        control(SYN_REPLY, &body)
    }
}

pub fn ping(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

pub fn data(stream: u32, bytes: &[u8], last: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + bytes.len());
    frame.put_u32(stream);
    put_length(&mut frame, if last { FIN } else { 0 }, bytes);
    frame.freeze()
}

fn control(kind: u16, body: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + body.len());
    frame.put_u16(0x8000 | VERSION);
    frame.put_u16(kind);
    put_length(&mut frame, 0, body);
    frame.freeze()
}

fn put_length(frame: &mut BytesMut, flags: u8, body: &[u8]) {
    // Callers send at most some kilobytes at once.
    let length = u32::try_from(body.len()).unwrap_or(0x00ff_ffff) & 0x00ff_ffff;
    frame.put_u32(u32::from(flags) << 24 | length);
    frame.put_slice(body);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_specification() {
        let dictionary = dictionary();
        let (mut a, mut b) = (1u32, 0u32);
        for byte in &dictionary {
            a = (a + u32::from(*byte)) % 65521;
            b = (b + a) % 65521;
        }
        assert_eq!((dictionary.len(), b << 16 | a), (1423, 0xe3c6_a7c2));
    }

    #[test]
    fn a_stream_that_zlib_packed_with_the_dictionary_is_read() {
        // SYN_STREAM 1 and 3 with {streamtype: error, port: 80, requestid: 0} and {streamtype: data, …}, packed by zlib's
        // best compression with the dictionary, flushed after each.
        let recorded = include_str!("spdy_streams.txt");
        let mut decoder = Decoder::default();
        let mut opened = Vec::new();
        for line in recorded.lines() {
            let bytes: Vec<u8> =
                (0..line.len()).step_by(2).map(|i| u8::from_str_radix(&line[i..i + 2], 16).unwrap()).collect();
            decoder.push(&bytes);
            while let Some(frame) = decoder.next().unwrap() {
                opened.push(frame);
            }
        }
        let stream = |stream: u32, kind: &str| {
            let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let headers = vec![header("port", "80"), header("requestid", "0"), header("streamtype", kind)];
            Frame::Open { stream, headers }
        };
        assert_eq!(opened, [stream(1, "error"), stream(3, "data")]);
    }

    proptest! {
        #[test]
        fn data_arrives_whole_however_it_is_cut(
            sent in prop::collection::vec((1u32..1000, prop::collection::vec(any::<u8>(), 0..50), any::<bool>()), 0..20),
            cut in 1usize..40,
        ) {
            let wire: Vec<u8> = sent.iter().flat_map(|(stream, bytes, last)| data(*stream, bytes, *last)).collect();
            let mut decoder = Decoder::default();
            let mut received = Vec::new();
            for piece in wire.chunks(cut) {
                decoder.push(piece);
                while let Some(frame) = decoder.next().unwrap() {
                    let Frame::Data { stream, bytes, last } = frame else { panic!("only data was sent") };
                    received.push((stream, bytes.to_vec(), last));
                }
            }
            prop_assert_eq!(received, sent);
        }

        #[test]
        fn nonsense_is_refused_and_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut decoder = Decoder::default();
            decoder.push(&bytes);
            while let Ok(Some(_)) = decoder.next() {}
        }
    }
}
