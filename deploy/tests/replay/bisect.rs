use crate::Recording;

const BUY: &str = "--client bookbuyer --server bookstore.bookstore:14001 --path /buy-a-book/new";

#[test]
fn the_record_that_took_access_away() {
    insta::assert_snapshot!(
        Recording::bookstore().prints(&format!("bisect --from 134 --to 139 --expect allowed {BUY}"))
    );
}

#[test]
fn both_forms_of_the_flags_find_the_same() {
    let log = Recording::bookstore();
    let found = |words: &str| {
        let outcome = log.prints_json(&format!("bisect {words}"));
        outcome["found"]["record"]["seq"].as_u64().unwrap()
    };
    let path = "--path /buy-a-book/new";
    for (words, seq) in [
        (format!("--from 126 --to 134 --expect backend=bookstore-v2 {BUY}"), 131),
        (format!("--from 132 --to 134 --expect backend=bookstore/bookstore-v1 {BUY}"), 133),
        // One target back is not enough: the split sends everything to the other version.
        (format!("--from 136 --to 169 --expect denied {BUY}"), 143),
        (format!("--from 134 --from bookbuyer --to 139 --to bookstore.bookstore:14001 --expect allowed {path}"), 136),
        // The first record after which there is somebody to ask, and an answer: before, nobody is there.
        (format!("--expect denied {BUY}"), 93),
    ] {
        assert_eq!(found(&words), seq, "{words}");
    }
}

#[test]
fn an_answer_that_does_not_change_is_a_failure() {
    let ended = Recording::bookstore().replay(&format!("bisect --from 145 --to 169 --expect denied {BUY}"));
    assert_eq!(ended.code, 1, "{}", ended.out);
    assert!(ended.err.contains("the answer was never as expected (denied) from seq 145 to seq 169"), "{}", ended.err);
}

#[test]
fn a_search_without_a_request_makes_no_sense() {
    let log = Recording::bookstore();
    for (words, expected) in [
        ("bisect --from 1 --to 2 --expect allowed", "describe it with --client POD and --server HOST:PORT"),
        ("bisect --from 1 --from 2 --expect allowed --client a/b --server c:1", "a moment was given already"),
        ("bisect --expect perhaps --client a/b --server c:1", "expected allowed, denied or backend=NAME"),
        ("bisect --from bookbuyer --expect allowed", "bookbuyer asks, and whom?"),
    ] {
        let message = log.is_misuse(words);
        assert!(message.contains(expected), "{words}\n{message}");
    }
}
