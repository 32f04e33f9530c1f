use super::FieldSet;
use crate::encoding::Encoding;
use crate::object::Object;
use crate::resource::Resource;

#[test]
fn refusals_are_worded_as_by_the_apiserver() {
    let table = [
        ("", "pods", "field label not supported: spec.foo"),
        (
            "batch",
            "jobs",
            "field label \"spec.foo\" not supported for Job",
        ),
        (
            "resource.k8s.io",
            "resourceslices",
            "field label not supported for resource.k8s.io/v1, Kind=ResourceSlice: spec.foo",
        ),
        (
            "apps",
            "deployments",
            "\"spec.foo\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
    ];
    for (group, resource, text) in table {
        let fields = FieldSet::builtin(group, "v1", resource).unwrap();
        assert!(fields.is_complete());
        assert_eq!(fields.index_of("spec.foo"), None);
        assert_eq!(fields.unsupported_text("spec.foo"), text);
    }
}

#[test]
fn an_unknown_resource_has_no_complete_set() {
    assert_eq!(FieldSet::builtin("", "v1", "widgets"), None);
    assert_eq!(FieldSet::builtin("apps", "v2", "deployments"), None);
    assert!(!FieldSet::unknown().is_complete());
    assert!(!FieldSet::custom(true, [".spec['a']"]).is_complete());
    assert!(FieldSet::custom(true, [".spec.a-b_c"]).is_complete());
}

#[test]
fn only_pods_and_resourceslices_have_a_trigger() {
    let trigger = |group, resource| {
        let fields = FieldSet::builtin(group, "v1", resource).unwrap();
        fields
            .trigger()
            .map(|index| fields.labels().nth(index).unwrap().to_owned())
    };
    assert_eq!(trigger("", "pods").as_deref(), Some("spec.nodeName"));
    assert_eq!(
        trigger("resource.k8s.io", "resourceslices").as_deref(),
        Some("spec.nodeName")
    );
    assert_eq!(trigger("", "nodes"), None);
}

#[test]
fn spec_host_is_another_name_only_for_pods() {
    let pods = FieldSet::builtin("", "v1", "pods").unwrap();
    assert_eq!(pods.index_of("spec.host"), pods.index_of("spec.nodeName"));
    assert_eq!(
        FieldSet::builtin("", "v1", "nodes")
            .unwrap()
            .index_of("spec.host"),
        None
    );
    let custom = FieldSet::custom(true, [".spec.host"]);
    assert_eq!(custom.index_of("spec.host"), Some(2));
}

/// The values of all labels of an object of this resource with these members besides metadata.
fn values(fields: std::sync::Arc<FieldSet>, members: &str) -> Vec<(String, String)> {
    let resource = Resource {
        group: "".into(),
        version: "v1".into(),
        resource: "things".into(),
        kind: "Thing".into(),
        namespaced: true,
        custom: false,
        fields,
    };
    let json = format!(r#"{{"metadata":{{"name":"a","resourceVersion":"1"}},{members}}}"#);
    let object = Object::decode(Encoding::Json, &resource, json.as_bytes()).unwrap();
    let labels = resource.fields.labels();
    labels
        .enumerate()
        .map(|(i, label)| (label.to_owned(), object.field(i).to_owned()))
        .collect()
}

fn value(fields: std::sync::Arc<FieldSet>, members: &str, label: &str) -> String {
    let values = values(fields, members);
    values
        .into_iter()
        .find(|(known, _)| known == label)
        .unwrap()
        .1
}

#[test]
fn unset_fields_have_their_default() {
    let of = |group, resource| FieldSet::builtin(group, "v1", resource).unwrap();
    let table = [
        (of("", "nodes"), "spec.unschedulable", "false"),
        (of("", "pods"), "spec.hostNetwork", "false"),
        (of("", "pods"), "spec.nodeName", ""),
        (of("", "replicationcontrollers"), "status.replicas", "0"),
        (of("batch", "jobs"), "status.successful", "0"),
    ];
    for (fields, label, default) in table {
        assert_eq!(
            value(fields.clone(), r#""spec":{},"status":null"#, label),
            default
        );
        assert_eq!(value(fields, r#""x":1"#, label), default);
    }
    assert_eq!(
        value(
            of("batch", "jobs"),
            r#""status":{"succeeded":3}"#,
            "status.successful"
        ),
        "3"
    );
}

#[test]
fn the_first_of_the_pod_ips_counts() {
    let pods = || FieldSet::builtin("", "v1", "pods").unwrap();
    let ip = |status: &str| value(pods(), &format!(r#""status":{status}"#), "status.podIP");
    assert_eq!(ip(r#"{"podIP":"9","podIPs":[{"ip":"1"},{"ip":"2"}]}"#), "1");
    assert_eq!(ip(r#"{"podIP":"9","podIPs":[]}"#), "9");
    assert_eq!(ip(r#"{"podIP":"9"}"#), "9");
    assert_eq!(ip("{}"), "");
}

#[test]
fn the_source_of_an_event_falls_back_to_its_reporter() {
    let source = |members: &str| {
        let events = FieldSet::builtin("", "v1", "events").unwrap();
        let values = [
            value(events.clone(), members, "source"),
            value(events, members, "reportingComponent"),
        ];
        values.join("/")
    };
    assert_eq!(
        source(r#""source":{"component":"a"},"reportingComponent":"b""#),
        "a/b"
    );
    assert_eq!(source(r#""source":{},"reportingComponent":"b""#), "b/b");
    assert_eq!(
        source(r#""source":{"component":"a"},"reportingComponent":"""#),
        "a/"
    );
}

#[test]
fn custom_values_read_as_go_prints_them() {
    let spec = r#""spec":{"s":"\u0061\"","n":-3,"t":true,"f":false,"z":null,"deep":{"er":"x"}}"#;
    let fields = FieldSet::custom(
        true,
        [
            ".spec.s",
            ".spec.n",
            ".spec.t",
            ".spec.f",
            ".spec.z",
            ".spec.deep.er",
            ".gone",
            ".spec.s",
        ],
    );
    let values = values(fields, spec);
    let values: Vec<&str> = values.iter().map(|(_, value)| &**value).collect();
    assert_eq!(
        values,
        ["a", "", "a\"", "-3", "true", "false", "", "x", "", "a\""]
    );
}
