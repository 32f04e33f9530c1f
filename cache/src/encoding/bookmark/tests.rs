use super::*;
use crate::encoding::decode_event;
use crate::encoding::tests::pods;

fn learn(resource: &Resource, object: &str) -> (ResourceVersion, bool, BookmarkTemplate) {
    let frame = format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}");
    match decode_event(Encoding::Json, resource, frame.as_bytes()).unwrap() {
        WatchEvent::Bookmark {
            resource_version,
            initial_events_end,
            template,
        } => (resource_version, initial_events_end, template),
        WatchEvent::Object { .. } | WatchEvent::Error(_) => panic!("not a bookmark"),
    }
}

fn object(template: &BookmarkTemplate, resource_version: u64, end: bool) -> String {
    let frame = template.frame(ResourceVersion::new(resource_version), end);
    let text = std::str::from_utf8(&frame).unwrap();
    let text = text
        .strip_prefix("{\"type\":\"BOOKMARK\",\"object\":")
        .unwrap();
    text.strip_suffix("}\n").unwrap().to_owned()
}

#[test]
fn members_of_older_apiservers_are_kept() {
    let old = r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"5","creationTimestamp":null},"spec":{"containers":null},"status":{}}"#;
    let (resource_version, end, template) = learn(&pods(), old);
    assert_eq!((resource_version, end), (ResourceVersion::new(5), false));
    assert_eq!(object(&template, 5, false), old);
    assert_eq!(
        object(&template, 123, true),
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"123","creationTimestamp":null,"annotations":{"k8s.io/initial-events-end":"true"}},"spec":{"containers":null},"status":{}}"#
    );
}

#[test]
fn annotations_of_custom_resources_are_sorted_in() {
    let resource = Resource {
        custom: true,
        ..pods()
    };
    let plain = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"a":1,"creationTimestamp":null,"resourceVersion":"5"}}"#;
    let (_, _, template) = learn(&resource, plain);
    assert_eq!(
        object(&template, 5, true),
        r#"{"apiVersion":"v1","kind":"Pod","metadata":{"a":1,"annotations":{"k8s.io/initial-events-end":"true"},"creationTimestamp":null,"resourceVersion":"5"}}"#
    );
    assert_eq!(object(&template, 5, false), plain);
}

#[test]
fn other_annotations_are_not_carried_on() {
    let (_, end, template) = learn(
        &pods(),
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"5","annotations":{"x":"y"}}}"#,
    );
    assert!(!end);
    assert_eq!(
        object(&template, 6, false),
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":"6"}}"#
    );
}

#[test]
fn a_bookmark_of_another_kind_or_without_resource_version_is_refused() {
    for object in [
        r#"{"kind":"Secret","apiVersion":"v1","metadata":{"resourceVersion":"5"}}"#,
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{}}"#,
        r#"{"kind":"Pod","apiVersion":"v1","metadata":{"resourceVersion":""}}"#,
        r#"{"kind":"Pod","apiVersion":"v1"}"#,
    ] {
        let frame = format!("{{\"type\":\"BOOKMARK\",\"object\":{object}}}");
        assert!(
            decode_event(Encoding::Json, &pods(), frame.as_bytes()).is_err(),
            "{object}"
        );
    }
}
