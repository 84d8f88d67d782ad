use crate::Recording;

#[test]
fn why_a_split_is_what_it_is() {
    let words = "why --proxy bookbuyer --resource Split/bookstore/bookstore-split --at 145";
    insta::assert_snapshot!(Recording::bookstore().prints(words));
}

#[test]
fn why_there_are_these_endpoints() {
    let origins = Recording::bookstore().prints_json("why --proxy bookbuyer --resource bookstore-v1-kkrlj --at 145");
    let of_role = |role: &str| -> Vec<(&str, u64)> {
        let inputs = origins["inputs"].as_array().unwrap().iter().filter(|input| input["role"] == role);
        inputs.map(|input| (input["object"].as_str().unwrap(), input["record"]["seq"].as_u64().unwrap())).collect()
    };
    // The slice when its endpoint became ready; the pod's identity; the service's port; the namespace's membership.
    let expected = [
        ("discovery.k8s.io/v1/EndpointSlice bookstore/bookstore-v1-kkrlj", 114),
        ("v1/Pod bookstore/bookstore-v1-7qs7rbzhdp-dfgl8", 61),
        ("v1/Service bookstore/bookstore-v1", 46),
        ("v1/Namespace bookstore", 41),
    ];
    assert_eq!(of_role("content"), expected);
    assert_eq!(
        of_role("audience"),
        [("access.smi-spec.io/v1alpha3/TrafficTarget bookstore/bookbuyer-access-bookstore-v1", 140)]
    );
    assert!(of_role("proxy").contains(&("v1/Namespace bookbuyer", 72)));
}

#[test]
fn why_the_settings_are_what_they_are() {
    let origins = Recording::bookstore().prints_json("why --proxy bookbuyer --resource Settings --at 145");
    let objects: Vec<&str> =
        origins["inputs"].as_array().unwrap().iter().map(|input| input["object"].as_str().unwrap()).collect();
    assert!(objects.contains(&"controller"), "{objects:?}");
    assert_eq!(origins["history"][0]["topic"], "object", "the pod came after the settings");
}

#[test]
fn what_a_proxy_is_not_told_has_no_reasons() {
    let log = Recording::bookstore();
    for (resource, expected) in [
        ("Split/bookstore/bookstore-split", "(others were: bookbuyer/bookbuyer-krlk6g7nb2-jqr2f)"),
        ("nothing", "was told no resource \"nothing\" at seq 145"),
    ] {
        let message = log.fails(&format!("why --proxy bookthief --resource {resource} --at 145"));
        assert!(message.contains(expected), "{message}");
    }
    let ambiguous = log.fails("why --proxy bookbuyer --resource Service --at 145");
    assert!(ambiguous.contains("may mean Service/bookstore/bookstore, "), "{ambiguous}");
}
