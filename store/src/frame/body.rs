//! The records inside a frame, in bincode. This is the only place that knows bincode.

use std::sync::Arc;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use bytes::Bytes;
use bytestring::ByteString;

use super::{FrameError, FrameHeader, MAX_BODY_BYTES};
use crate::{Entry, Record, Seq, Timestamp, TraceContext};

const CONFIG: Configuration<LittleEndian, Varint, Limit<{ MAX_BODY_BYTES as usize }>> =
    bincode::config::standard().with_limit();

/// One record. Its seq follows from its place in the frame.
#[derive(bincode::Encode, bincode::BorrowDecode)]
struct StoredRecord<'a> {
    /// Microseconds since the frame's first record.
    after_first_us: u64,
    topic: &'a [u8],
    key: &'a [u8],
    body: &'a [u8],
    trace: Option<StoredTrace>,
}

#[derive(bincode::Encode, bincode::Decode)]
struct StoredTrace {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    flags: u8,
}

pub(super) fn encode(records: &[Record], first_time: Timestamp) -> Result<Vec<u8>, FrameError> {
    let mut body = Vec::new();
    for record in records {
        let stored = StoredRecord {
            after_first_us: record
                .time
                .0
                .checked_sub(first_time.0)
                .ok_or(FrameError::Header("the times of its records go back"))?,
            topic: record.entry.topic.as_bytes(),
            key: record.entry.key.as_bytes(),
            body: &record.entry.body,
            trace: stored_trace(&record.entry.trace),
        };
        bincode::encode_into_std_write(stored, &mut body, CONFIG)
            .map_err(|error| FrameError::Records(error.to_string()))?;
    }
    Ok(body)
}

pub(super) fn decode(body: &Bytes, header: &FrameHeader) -> Result<Arc<[Record]>, FrameError> {
    // A record takes five bytes at least: a damaged count can't make this allocate more than the body allows.
    let mut records = Vec::with_capacity((header.count as usize).min(body.len() / 5));
    let mut rest = &body[..];
    let mut time = header.first_time;
    for place in 0..u64::from(header.count) {
        let (stored, read): (StoredRecord<'_>, usize) =
            bincode::borrow_decode_from_slice(rest, CONFIG).map_err(|error| FrameError::Records(error.to_string()))?;
        rest = &rest[read..];
        let next = header
            .first_time
            .0
            .checked_add(stored.after_first_us)
            .ok_or_else(|| FrameError::Records("a record's time is beyond 64 bits".into()))?;
        if next < time.0 {
            return Err(FrameError::Records("the times of its records go back".into()));
        }
        time = Timestamp(next);
        records.push(Record { seq: Seq(header.first_seq.0 + place), time, entry: entry(stored, body)? });
    }
    if !rest.is_empty() {
        return Err(FrameError::Records(format!("{} bytes are left over", rest.len())));
    }
    Ok(records.into())
}

fn stored_trace(trace: &TraceContext) -> Option<StoredTrace> {
    let TraceContext { trace_id, span_id, flags } = *trace;
    (*trace != TraceContext::default()).then_some(StoredTrace { trace_id, span_id, flags })
}

fn entry(stored: StoredRecord<'_>, frame: &Bytes) -> Result<Entry, FrameError> {
    let trace = stored.trace.map_or_else(TraceContext::default, |StoredTrace { trace_id, span_id, flags }| {
        TraceContext { trace_id, span_id, flags }
    });
    let text = |part: &[u8]| {
        ByteString::try_from(frame.slice_ref(part)).map_err(|error| FrameError::Records(error.to_string()))
    };
    Ok(Entry { topic: text(stored.topic)?, key: text(stored.key)?, body: frame.slice_ref(stored.body), trace })
}
