use proptest::prelude::*;
use zstd::bulk::Decompressor;

use super::*;
use crate::{Entry, Timestamp, TraceContext};

prop_compose! {
    fn an_entry()(
        topic in "[a-z]{0,12}",
        key in ".{0,40}",
        body in prop::collection::vec(any::<u8>(), 0..600),
        trace in prop::option::of((any::<[u8; 16]>(), any::<[u8; 8]>(), any::<u8>())),
    ) -> Entry {
        let trace = trace.map_or_else(TraceContext::default, |(trace_id, span_id, flags)| TraceContext { trace_id, span_id, flags });
        Entry { topic: topic.into(), key: key.into(), body: body.into(), trace }
    }
}

prop_compose! {
    fn some_records()(
        first in 1..u64::MAX / 2,
        start in 0..u64::MAX / 2,
        entries in prop::collection::vec((an_entry(), 0..5_000_000_u64), 1..20),
    ) -> Vec<Record> {
        let mut time = start;
        entries.into_iter().enumerate().map(|(place, (entry, later))| {
            time += later;
            Record { seq: Seq(first + place as u64), time: Timestamp(time), entry }
        }).collect()
    }
}

proptest! {
    #[test]
    fn records_come_out_as_they_went_in(records in some_records(), previous: [u8; 32], after_loss: bool) {
        let frame = encode(&records, FrameHash(previous), after_loss).unwrap();
        let (header, decoded) = decode(&frame).unwrap();
        prop_assert_eq!(&*decoded, &records[..]);
        prop_assert_eq!(header.previous, FrameHash(previous));
        prop_assert_eq!(header.after_loss, after_loss);
        prop_assert_eq!(header.first_seq, records[0].seq);
        prop_assert_eq!(header.last_seq(), records[records.len() - 1].seq);
        prop_assert_eq!(header.first_time, records[0].time);
        prop_assert_eq!(header.last_time, records[records.len() - 1].time);
    }

    #[test]
    fn every_flipped_bit_is_noticed(records in some_records(), place: prop::sample::Index, bit in 0..8_u8) {
        let mut frame = encode(&records, FrameHash::default(), false).unwrap();
        let at = place.index(frame.len());
        frame[at] ^= 1 << bit;
        prop_assert!(decode(&frame).is_err(), "bit {bit} of byte {at} was flipped");
    }

    #[test]
    fn a_torn_frame_is_noticed(records in some_records(), place: prop::sample::Index) {
        let frame = encode(&records, FrameHash::default(), false).unwrap();
        prop_assert!(decode(&frame[..place.index(frame.len())]).is_err());
    }

    #[test]
    fn bytes_after_a_frame_are_noticed(records in some_records(), more in prop::collection::vec(any::<u8>(), 1..40)) {
        let mut frame = encode(&records, FrameHash::default(), false).unwrap();
        frame.extend(more);
        let too_long = matches!(decode(&frame), Err(FrameError::Length { .. }));
        prop_assert!(too_long);
    }

    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(decode(&bytes).is_err());
    }
}

fn one_record() -> Vec<Record> {
    let entry = Entry {
        topic: "object".into(),
        key: "v1/Pod default/web-0".into(),
        body: br#"{"type":"applied"}"#[..].into(),
        trace: TraceContext { trace_id: [1; 16], span_id: [2; 8], flags: 1 },
    };
    vec![Record { seq: Seq(7), time: Timestamp(1_700_000_000_000_000), entry }]
}

#[test]
fn the_header_is_laid_out_as_the_format_page_says() {
    let frame = encode(&one_record(), FrameHash([9; 32]), true).unwrap();
    assert_eq!(&frame[0..4], b"FSMF");
    assert_eq!(&frame[4..6], &2_u16.to_le_bytes(), "format");
    assert_eq!(&frame[6..8], &1_u16.to_le_bytes(), "flags");
    assert_eq!(&frame[8..16], &7_u64.to_le_bytes(), "first seq");
    assert_eq!(&frame[16..24], &1_700_000_000_000_000_u64.to_le_bytes(), "first time");
    assert_eq!(&frame[24..32], &1_700_000_000_000_000_u64.to_le_bytes(), "last time");
    assert_eq!(&frame[32..36], &1_u32.to_le_bytes(), "count");
    let packed = u32::from_le_bytes(frame[40..44].try_into().unwrap());
    assert_eq!(&frame[44..76], &[9; 32], "previous hash");
    assert_eq!(frame.len(), 80 + packed as usize);
}

#[test]
fn the_body_is_laid_out_as_the_format_page_says() {
    let frame = encode(&one_record(), FrameHash::default(), false).unwrap();
    let body_bytes = u32::from_le_bytes(frame[36..40].try_into().unwrap());
    let dictionary = include_bytes!("dictionary/1.zdict");
    let body =
        Decompressor::with_dictionary(dictionary).unwrap().decompress(&frame[80..], body_bytes as usize).unwrap();
    let mut expected = vec![0];
    expected.push(6);
    expected.extend(b"object");
    expected.push(20);
    expected.extend(b"v1/Pod default/web-0");
    expected.push(18);
    expected.extend(br#"{"type":"applied"}"#);
    expected.push(1);
    expected.extend([1; 16]);
    expected.extend([2; 8]);
    expected.push(1);
    assert_eq!(body, expected);
}

#[test]
fn a_newer_format_is_named_before_anything_else_is_looked_at() {
    let mut frame = encode(&one_record(), FrameHash::default(), false).unwrap();
    frame[4..6].copy_from_slice(&3_u16.to_le_bytes());
    frame.truncate(10);
    assert_eq!(decode(&frame).unwrap_err(), FrameError::Newer { found: 3 });
}

/// A frame whose body is packed in another way, with everything else as it should be.
fn packed_otherwise(records: &[Record], pack: impl FnOnce(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let body = body::encode(records, records[0].time).unwrap();
    let (mut header, _) = decode(&encode(records, FrameHash::default(), false).unwrap()).unwrap();
    let packed = pack(&body);
    header.packed_bytes = packed.len() as u32;
    header.seal(&packed)
}

#[test]
fn a_body_without_a_dictionary_is_read_as_in_format_1() {
    let records = one_record();
    let frame = packed_otherwise(&records, |body| zstd::bulk::compress(body, 1).unwrap());
    assert_eq!(*decode(&frame).unwrap().1, records);
}

#[test]
fn a_body_with_another_dictionary_is_refused_by_its_number() {
    let mut dictionary = include_bytes!("dictionary/1.zdict").to_vec();
    // The number follows the magic.
    dictionary[4..8].copy_from_slice(&77_u32.to_le_bytes());
    let frame = packed_otherwise(&one_record(), |body| {
        zstd::bulk::Compressor::with_dictionary(1, &dictionary).unwrap().compress(body).unwrap()
    });
    let error = decode(&frame).unwrap_err().to_string();
    assert!(error.contains("it needs dictionary 77"), "{error}");
}

#[test]
fn times_that_go_back_are_not_encoded() {
    let mut records = one_record();
    records.extend(one_record());
    records[1].seq = Seq(8);
    records[1].time = Timestamp(3);
    assert!(encode(&records, FrameHash::default(), false).is_err());
}
