use crate::Recording;

const BUY: &str = "--to bookstore.bookstore:14001 --path /buy-a-book/new";

#[test]
fn a_request_that_is_divided_and_allowed() {
    insta::assert_snapshot!(Recording::bookstore().prints(&format!("request --from bookbuyer {BUY} --at 132")));
}

#[test]
fn a_request_that_no_route_matches() {
    let words = "request --from bookbuyer --to bookstore.bookstore:14001 --path /nothing --at 134";
    insta::assert_snapshot!(Recording::bookstore().prints(words));
}

#[test]
fn a_service_that_the_client_is_not_told_of() {
    insta::assert_snapshot!(Recording::bookstore().prints(&format!("request --from bookthief {BUY} --at 132")));
}

#[test]
fn an_opaque_connection_to_a_route_for_requests() {
    let words = "request --from bookstore-v1 --to bookwarehouse.bookwarehouse:14001 --tcp --at 132";
    insta::assert_snapshot!(Recording::bookstore().prints(words));
}

#[test]
fn the_answer_as_json() {
    let words = format!("request --from bookbuyer {BUY} --header x-user:alice --at 132");
    insta::assert_json_snapshot!(Recording::bookstore().prints_json(&words));
}

#[test]
fn the_answer_changes_with_the_moment() {
    let log = Recording::bookstore();
    let verdict = |at: &str| {
        let answer = log.prints_json(&format!("request --from bookbuyer {BUY} --at {at}"));
        answer["answer"]["verdict"].as_str().unwrap().to_owned()
    };
    let moments = ["134", "136", "2026-11-23T03:47:41.052Z", "-4s", "143"];
    assert_eq!(moments.map(verdict), ["allowed", "denied", "denied", "allowed", "allowed"]);
}

#[test]
fn what_cannot_be_asked_is_explained() {
    let log = Recording::bookstore();
    for (words, expected) in [
        (format!("request --from nobody {BUY} --at 140"), "there was no proxy \"nobody\" at seq 140"),
        (
            format!("request --from nobody {BUY} --at 140"),
            "there were: bookbuyer/bookbuyer-krlk6g7nb2-jqr2f, bookstore/",
        ),
        (format!("request --from fsm-system/fsm-controller-kmshl2mhqp-lbbn2 {BUY}"), "had no proxy"),
        (format!("request --from bookbuyer {BUY} --at 170"), "there is no record 170 in LOG: the last one is 169"),
        (
            format!("request --from bookbuyer {BUY} --at 2020-01-01T00:00:00Z"),
            "it begins with record 1, 2026-11-23T03:47:31.705Z",
        ),
    ] {
        let message = log.fails(&words);
        assert!(message.contains(expected), "{words}\n{message}");
    }
    for (words, expected) in [
        (format!("request --from bookbuyer {BUY} --at yesterday"), "neither a seq (41)"),
        ("request --from bookbuyer --to bookstore".to_owned(), "--to bookstore: write HOST:PORT"),
    ] {
        let message = log.is_misuse(&words);
        assert!(message.contains(expected), "{words}\n{message}");
    }
}
