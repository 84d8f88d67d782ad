//! Records as lines of JSON.

use bytes::Bytes;
use fsm_store::{EventLog, Record, Records, Seq};
use futures::StreamExt;
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::serve::{Body, BodyError};
use crate::trace::trace_id;

/// The query of `/records`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordsQuery {
    pub from: Seq,
    /// Go on with records as they come.
    pub follow: bool,
}

impl RecordsQuery {
    /// Reads `from=SEQ&follow=true`; both may be left out.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut parsed = Self { from: Seq::ZERO, follow: false };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            match pair.split_once('=').unwrap_or((pair, "true")) {
                ("from", value) => {
                    let seq = value.parse().map_err(|_| format!("from={value}: write a seq, a whole number"))?;
                    parsed.from = Seq(seq);
                }
                ("follow", "true" | "1") => parsed.follow = true,
                ("follow", "false" | "0") => parsed.follow = false,
                (key, value) => return Err(format!("{key}={value} is not understood: write from=SEQ or follow=true")),
            }
        }
        Ok(parsed)
    }
}

/// One record as a line of JSON, with its end.
pub fn line(record: &Record) -> String {
    let entry = &record.entry;
    let head = json!({
        "seq": record.seq, "time_us": record.time, "topic": entry.topic, "key": entry.key,
        "trace_id": trace_id(&entry.trace),
    });
    let head = head.to_string();
    let head = head.strip_suffix('}').unwrap_or(&head);
    match serde_json::from_slice::<&RawValue>(&entry.body) {
        Ok(body) => format!("{head},\"body\":{body}}}\n"),
        // None of ours: shown as text.
        Err(_) => format!("{head},\"body\":{}}}\n", Value::from(String::from_utf8_lossy(&entry.body))),
    }
}

/// The records as a body that ends when they do. An error in the log is a last line `{"error": …}`.
pub fn body(log: &dyn EventLog, query: RecordsQuery) -> Body {
    let records: Records = if query.follow { log.tail(query.from) } else { log.read(query.from) };
    let frames = records.map(move |batch| {
        let lines = match batch {
            // A batch may begin before the seq that was asked for.
            Ok(batch) => batch.iter().filter(|record| record.seq >= query.from).map(line).collect::<String>(),
            Err(error) => format!("{}\n", json!({ "error": error.to_string() })),
        };
        Ok::<_, BodyError>(Frame::data(Bytes::from(lines)))
    });
    BodyExt::boxed_unsync(StreamBody::new(frames))
}
