use crate::Recording;

#[test]
fn what_one_proxy_was_told_anew() {
    insta::assert_snapshot!(Recording::bookstore().prints("diff --from 126 --to 134 --proxy bookbuyer"));
}

#[test]
fn what_the_loss_of_two_targets_did() {
    insta::assert_snapshot!(Recording::bookstore().prints("diff --from 134 --to 139"));
}

#[test]
fn a_proxy_that_was_not_there_is_told_everything() {
    let changes = Recording::bookstore().prints_json("diff --from 20 --to 132 --proxy bookwarehouse");
    assert_eq!(changes["proxies"][0]["change"], "added");
    let resources = changes["resources"].as_array().unwrap();
    assert!(
        resources
            .iter()
            .any(|resource| resource["name"] == "InboundPolicy/bookwarehouse/bookstore-access-bookwarehouse")
    );
    for resource in resources {
        assert!(resource["before"].is_null() && !resource["causes"].as_array().unwrap().is_empty(), "{resource}");
    }
}

#[test]
fn what_was_undone_in_between_is_no_difference() {
    // The TrafficTargets are deleted and given back.
    assert!(Recording::bookstore().prints("diff --from 134 --to 145 --proxy bookthief").contains("nothing differs"));
    let changes = Recording::bookstore().prints_json("diff --from 134 --to 145");
    let names: Vec<&str> =
        changes["resources"].as_array().unwrap().iter().map(|resource| resource["name"].as_str().unwrap()).collect();
    assert_eq!(names, Vec::<&str>::new(), "they say the same as before");
}

#[test]
fn two_moments_have_an_order() {
    let message = Recording::bookstore().fails("diff --from 140 --to 130");
    assert!(message.contains("the earlier moment comes first"), "{message}");
    Recording::bookstore().is_misuse("diff --to 130");
}
