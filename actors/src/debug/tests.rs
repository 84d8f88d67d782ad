use fsm_store::{Entry, Record, Seq, Timestamp, TraceContext};

use super::*;

fn record(body: &[u8]) -> Record {
    let trace = TraceContext { trace_id: [0xab; 16], span_id: [1; 8], flags: 1 };
    let entry = Entry { topic: "object".into(), key: "v1/Pod shop/web-0".into(), body: body.to_vec().into(), trace };
    Record { seq: Seq(7), time: Timestamp(12), entry }
}

#[test]
fn a_record_is_one_line_of_json() {
    let line = line(&record(br#"{"type":"applied"}"#));
    assert!(line.ends_with("}\n"));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    let expected = serde_json::json!({
        "seq": 7, "time_us": 12, "topic": "object", "key": "v1/Pod shop/web-0",
        "trace_id": "ab".repeat(16), "body": {"type": "applied"},
    });
    assert_eq!(value, expected);
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn a_body_that_is_no_json_is_shown_as_text() {
    let value: serde_json::Value = serde_json::from_str(&line(&record(b"\"half"))).unwrap();
    assert_eq!(value["body"], "\"half");
}

#[test]
fn queries_say_where_to_begin_and_whether_to_go_on() {
    assert_eq!(RecordsQuery::parse(""), Ok(RecordsQuery { from: Seq::ZERO, follow: false }));
    assert_eq!(RecordsQuery::parse("from=12&follow=true"), Ok(RecordsQuery { from: Seq(12), follow: true }));
    assert_eq!(RecordsQuery::parse("follow"), Ok(RecordsQuery { from: Seq::ZERO, follow: true }));
    assert!(RecordsQuery::parse("from=yesterday").unwrap_err().contains("whole number"));
    assert!(RecordsQuery::parse("since=1").unwrap_err().contains("from=SEQ"));
}

#[test]
fn a_moment_is_a_seq() {
    use super::service::at;
    assert_eq!(at(""), Ok(None));
    assert_eq!(at("at=12"), Ok(Some(Seq(12))));
    assert!(at("at=now").unwrap_err().contains("whole number"));
    assert!(at("from=1").unwrap_err().contains("at=SEQ"));
}
