use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn endpoint(number: u8, ready: bool) -> Value {
    json!({ "addresses": [format!("10.0.0.{number}")], "conditions": { "ready": ready, "serving": null },
        "targetRef": { "kind": "Pod", "name": format!("p{number}"), "uid": "u}{\"" }, "zone": "z" })
}

fn object(endpoints: &[(u8, bool)]) -> Json {
    let endpoints: Vec<Value> = endpoints.iter().map(|(number, ready)| endpoint(*number, *ready)).collect();
    Json::from(&json!({
        "addressType": "IPv4", "endpoints": endpoints,
        "metadata": { "namespace": "n", "name": "s-1", "labels": { "kubernetes.io/service-name": "s" } },
        "ports": [{ "name": "http", "port": 80, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }],
    }))
}

proptest! {
    /// From edition to edition, each read with the help of the one before.
    #[test]
    fn a_slice_read_in_passing_is_the_slice_read_as_a_whole(
        editions in prop::collection::vec(prop::collection::vec((0..12_u8, any::<bool>()), 0..14), 1..8),
    ) {
        let mut before: Option<Slice> = None;
        for edition in editions {
            let json = object(&edition);
            let found = slice(&json, "n", before.as_ref()).unwrap();
            prop_assert_eq!(&found, &whole(&json, "n").unwrap());
            let lines = |slice: Option<&Slice>| slice.map_or(0, |slice| slice.endpoints.len());
            let (gone, new) = {
                let exchanged = Exchanged::between(before.as_ref(), found.as_ref());
                (exchanged.gone.len(), exchanged.new.len())
            };
            prop_assert_eq!(lines(before.as_ref()) - gone, lines(found.as_ref()) - new);
            before = found;
        }
    }
}

#[test]
fn an_endpoint_read_in_passing_is_the_endpoint_that_is_parsed() {
    for text in [
        r#"{"addresses":["10.0.0.1","10.0.0.2"],"conditions":{"ready":null,"terminating":true},"hostname":"h","zone":null}"#,
        r#"{"addresses":["fd00::1"],"nodeName":"n","targetRef":{"kind":"Pod","name":"p","namespace":"other","uid":"u"}}"#,
        r#"{"addresses":["10.0.0.1"],"targetRef":{"kind":"Node","name":"p"},"hints":{"forZones":[{"name":"z"}]}}"#,
        r#"{"addresses":[],"conditions":{"ready":false}}"#,
        "{}",
    ] {
        let seen = EndpointParts::in_passing(text).expect("this is how API servers write");
        assert_eq!(seen.endpoint("n", text), Endpoint::new(parse(text).unwrap(), "n", None), "{text}");
    }
    for text in [
        r#"{"addresses":[7]}"#,
        r#"{"conditions":{"serving":7}}"#,
        r#"{"targetRef":{"name":null}}"#,
        r#"{"addresses":["a"],"addresses":["b"]}"#,
        r#"{"zone":7}"#,
    ] {
        assert!(Endpoint::read_in_passing(text, "n").is_err(), "{text}");
    }
}

#[test]
fn an_endpoint_that_stays_is_kept() {
    let before = slice(&object(&[(1, true), (2, true), (3, true)]), "n", None).unwrap().unwrap();
    let after = slice(&object(&[(1, true), (2, false), (3, true), (4, true)]), "n", Some(&before)).unwrap().unwrap();
    let exchanged = Exchanged::between(Some(&before), Some(&after));
    let addresses =
        |endpoints: &[&Endpoint]| -> Vec<String> { endpoints.iter().map(|one| one.address.clone()).collect() };
    assert_eq!(addresses(&exchanged.gone), ["10.0.0.2"]);
    assert_eq!(addresses(&exchanged.new), ["10.0.0.2", "10.0.0.4"]);
}

#[test]
fn what_belongs_to_no_service_is_none() {
    for text in ["{}", "{\"metadata\":{\"labels\":null}}", "{\"endpoints\":null,\"ports\":null}"] {
        assert_eq!(slice(&Json::from(text), "n", None), Ok(None), "{text}");
    }
    for text in ["{\"endpoints\":7}", "{\"endpoints\":[],\"endpoints\":[]}", "{\"metadata\":7}"] {
        assert!(slice(&Json::from(text), "n", None).is_err(), "{text}");
    }
}
