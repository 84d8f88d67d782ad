//! Records as lines of JSON: what a controller serves at `/records`, and what exported files hold.

use anyhow::Context;
use fsm_store::{Entry, Record, Seq, Timestamp, TraceContext};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

#[derive(Serialize, Deserialize)]
struct Line<'a> {
    seq: u64,
    time_us: u64,
    topic: String,
    key: String,
    /// Hexadecimal; left out, empty or all zero if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// A record as one line of JSON, without the line's end.
pub(crate) fn json_line(record: &Record) -> anyhow::Result<String> {
    let body: &RawValue = serde_json::from_slice(&record.entry.body)
        .with_context(|| format!("the body of record {} is no JSON", record.seq))?;
    let line = Line {
        seq: record.seq.0,
        time_us: record.time.0,
        topic: record.entry.topic.to_string(),
        key: record.entry.key.to_string(),
        trace_id: trace_id(&record.entry.trace),
        body,
    };
    Ok(serde_json::to_string(&line)?)
}

/// Reads a line. The trace context comes back without span id and flags, which the form doesn't carry.
pub(crate) fn parse_line(line: &str) -> anyhow::Result<Record> {
    #[derive(Deserialize)]
    struct Failed {
        error: String,
    }
    if let Ok(Failed { error }) = serde_json::from_str(line) {
        anyhow::bail!("the history breaks off: {error}");
    }
    let line: Line<'_> = serde_json::from_str(line).context(
        "this line is no record: expected {\"seq\", \"time_us\", \"topic\", \"key\", \"body\"} as `fsm log ls -o json` prints",
    )?;
    let trace_id = line.trace_id.as_deref().and_then(|text| u128::from_str_radix(text, 16).ok()).unwrap_or(0);
    let trace = TraceContext { trace_id: trace_id.to_be_bytes(), ..TraceContext::default() };
    let entry =
        Entry { topic: line.topic.into(), key: line.key.into(), body: line.body.get().to_owned().into(), trace };
    Ok(Record { seq: Seq(line.seq), time: Timestamp(line.time_us), entry })
}

/// The trace id in hexadecimal, if there is one.
pub(crate) fn trace_id(trace: &TraceContext) -> Option<String> {
    (trace.trace_id != [0; 16]).then(|| trace.trace_id.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_survives_the_way_through_json() {
        let entry = Entry {
            topic: "object".into(),
            key: "v1/Pod default/web-0".into(),
            body: br#"{"type":"applied","object":{"a":1.0,"b":[]}}"#[..].into(),
            trace: TraceContext { trace_id: [0xab; 16], ..TraceContext::default() },
        };
        let record = Record { seq: Seq(7), time: Timestamp(8), entry };
        let line = json_line(&record).unwrap();
        assert!(!line.contains('\n'));
        assert_eq!(parse_line(&line).unwrap(), record);
    }

    #[test]
    fn the_error_at_the_end_of_a_controllers_answer_is_passed_on() {
        let error = parse_line(r#"{"error":"the frame that begins at seq 7 is damaged"}"#).unwrap_err();
        assert!(error.to_string().contains("seq 7"), "{error}");
    }

    #[test]
    fn a_line_of_something_else_is_named_as_such() {
        let error = parse_line(r#"{"kind":"Pod"}"#).unwrap_err();
        assert!(error.to_string().contains("no record"), "{error}");
    }
}
