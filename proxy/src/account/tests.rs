use fsm_proxy_config::LogFormat;
use proptest::prelude::*;

use super::place::Place;
use super::writer::Writer;
use super::*;
use crate::trace::{Joined, SpanName};

fn entry(texts: [String; 5]) -> Entry {
    let [method, path, authority, user_agent, request_id] = texts;
    Entry {
        start: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_449_600_123),
        direction: Direction::Outbound,
        seq: 42,
        request: Some(Asked { version: "1.1", method, path, authority, user_agent, request_id }),
        status: Some(200),
        reason: String::new(),
        details: String::new(),
        bytes_received: 5,
        bytes_sent: 1024,
        duration: Duration::from_micros(3456),
        first_byte: Some(Duration::from_micros(3000)),
        service: "bookstore/bookstore".into(),
        backend: "bookstore/bookstore-v2".into(),
        split: "bookstore/split".into(),
        policy: String::new(),
        route: String::new(),
        source: String::new(),
        upstream: Some(([10, 244, 0, 11], 14001).into()),
        pod: "bookstore/bookstore-v2-7d9".into(),
        retries: 0,
        trace: Some(Joined { span: SpanName { trace: 0xabc, span: 0xdef }, parent: None, sampled: true }),
    }
}

fn line(entry: &Entry, format: LogFormat) -> String {
    let mut line = Vec::new();
    entry.line(format, &mut line);
    String::from_utf8(line).unwrap()
}

#[test]
fn a_line_is_an_object_or_fields_in_order() {
    let texts = ["GET", "/books?id=1", "bookstore", "curl/8", ""].map(str::to_owned);
    let entry = entry(texts);
    assert_eq!(
        line(&entry, LogFormat::Json),
        concat!(
            r#"{"start_time":"2026-11-23T16:00:00.123Z","direction":"outbound","protocol":"HTTP/1.1","method":"GET","#,
            r#""path":"/books?id=1","authority":"bookstore","response_code":200,"bytes_received":5,"bytes_sent":1024,"#,
            r#""duration":3.456,"time_to_first_byte":3.0,"service":"bookstore/bookstore","#,
            r#""upstream_cluster":"bookstore/bookstore-v2","upstream_host":"10.244.0.11:14001","#,
            r#""upstream_pod":"bookstore/bookstore-v2-7d9","split":"bookstore/split","user_agent":"curl/8","#,
            r#""trace_id":"00000000000000000000000000000abc","span_id":"0000000000000def","seq":42}"#,
            "\n"
        )
    );
    assert_eq!(
        line(&entry, LogFormat::Text),
        "[2026-11-23T16:00:00.123Z] outbound \"GET /books?id=1 HTTP/1.1\" 200 - 5 1024 3.456 \"bookstore\" \
         bookstore/bookstore bookstore/bookstore-v2 10.244.0.11:14001 - \"curl/8\" \"-\" \
         00000000000000000000000000000abc\n"
    );
}

#[test]
fn an_array_says_of_each_entry_where_it_was_written() {
    let place = Place { namespace: "shop".into(), pod: "buyer-7".into(), node: "n1".into(), workload: "buyer".into() };
    let entry = entry(["GET", "/books", "bookstore", "", ""].map(str::to_owned));
    let mut expected: serde_json::Value = serde_json::from_str(&line(&entry, LogFormat::Json)).unwrap();
    for (name, value) in [("namespace", "shop"), ("pod", "buyer-7"), ("node", "n1"), ("workload", "buyer")] {
        expected[name] = value.into();
    }
    let entries = [Arc::new(entry.clone()), Arc::new(entry)];
    let array: serde_json::Value = serde_json::from_slice(&json::array(&place, &entries)).unwrap();
    assert_eq!(array, serde_json::json!([expected, expected]));
}

#[test]
fn what_the_client_did_not_get_is_an_error() {
    let mut entry = entry(Default::default());
    assert!(!entry.is_error());
    entry.status = Some(404);
    assert!(!entry.is_error());
    entry.status = Some(503);
    assert!(entry.is_error());
    (entry.status, entry.reason) = (Some(403), "no_policy".into());
    assert!(entry.is_error());
}

/// The texts in quotes, as they were before they were written.
fn quoted(line: &str) -> Vec<String> {
    let mut texts = Vec::new();
    let mut bytes = line.bytes();
    while bytes.by_ref().any(|byte| byte == b'"') {
        let mut text = Vec::new();
        loop {
            match bytes.next().expect("a quote ends the text") {
                b'"' => break,
                b'\\' => match bytes.next().unwrap() {
                    b'x' => {
                        let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                        text.push(u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap());
                    }
                    other => text.push(other),
                },
                other => text.push(other),
            }
        }
        texts.push(String::from_utf8(text).unwrap());
    }
    texts
}

proptest! {
    /// Whatever a client sends, it ends neither its field nor the line.
    #[test]
    fn nothing_is_slipped_into_the_log(
        texts in prop::array::uniform5(prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| lossy(&bytes))),
    ) {
        let entry = entry(texts.clone());
        let json = line(&entry, LogFormat::Json);
        prop_assert_eq!(json.matches(['\n', '\r']).count(), 1);
        let object: serde_json::Value = serde_json::from_str(&json).unwrap();
        for (name, text) in ["method", "path", "authority", "user_agent", "request_id"].iter().zip(&texts) {
            prop_assert_eq!(object[name].as_str().unwrap_or_default(), text);
        }
        let written = line(&entry, LogFormat::Text);
        let (rest, end) = written.split_at(written.len() - 1);
        prop_assert_eq!(end, "\n");
        prop_assert!(rest.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
        let or_dash = |text: &String| if text.is_empty() { "-".to_owned() } else { text.clone() };
        let [method, path, authority, user_agent, request_id] = texts.each_ref().map(or_dash);
        let expected = vec![format!("{method} {path} HTTP/1.1"), authority, user_agent, request_id];
        prop_assert_eq!(quoted(rest), expected);
    }
}

#[test]
fn a_reader_that_does_not_read_costs_lines_and_no_time() {
    let lines = Arc::new(Lines::default());
    let (stuck, read) = std::sync::mpsc::channel::<()>();
    let read = std::sync::Mutex::new(read);
    let output = Output::to(move |_| {
        // Until the test ends.
        let _ = read.lock().unwrap().recv();
        Ok(())
    });
    let writer = Writer::new(output, Arc::clone(&lines));
    while lines.lost.get() < 10 {
        writer.write(Arc::new(entry(Default::default())), LogFormat::Json);
    }
    assert_eq!(lines.written.get(), 0);
    drop(stuck);
    writer.finish(Duration::from_secs(30));
    assert!(lines.written.get() > 4000);
}
