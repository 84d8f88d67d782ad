use super::*;
use crate::fixture::*;

fn last(history: &History) -> Vec<String> {
    drive::<Splits>(history).1.pop().unwrap()
}

const TO_BUYER: &str = "+Split/bookstore/bookstore-split for bookbuyer/bookbuyer";

#[test]
fn a_split_is_for_those_who_may_call_its_service() {
    assert_eq!(last(&History::bookstore()), [TO_BUYER]);
}

#[test]
fn another_share_is_one_change_and_the_same_share_none() {
    let mut history = History::bookstore();
    history.apply(split(50, 50));
    assert_eq!(last(&history), [TO_BUYER]);
    history.apply(split(50, 50));
    assert_eq!(last(&history), Vec::<String>::new());
}

#[test]
fn a_split_waits_for_its_service() {
    let mut history = History::bookstore();
    history.delete(service("bookstore", "bookstore", ""));
    assert_eq!(last(&history), ["-Split/bookstore/bookstore-split"]);
    history.apply(service("bookstore", "bookstore", "10.96.0.1"));
    assert_eq!(last(&history), [TO_BUYER]);
}

#[test]
fn who_may_call_a_backend_is_told_of_the_split() {
    let mut history = History::bookstore();
    // The service has no pods of its own: only its backends say who may call it.
    history.delete(slice("bookstore", "bookstore", &[]));
    history.apply(target("v2", "bookstore-v2", &["bookthief"]));
    assert_eq!(last(&history), ["+Split/bookstore/bookstore-split for bookbuyer/bookbuyer, bookthief/bookthief"]);
}

#[test]
fn everyone_is_told_in_permissive_mode() {
    let mut history = History::bookstore();
    history.apply(mesh_config(true));
    assert_eq!(last(&history), ["+Split/bookstore/bookstore-split"]);
}
