//! What is measured with: pods of about a kilobyte, and caches of them.

use std::sync::{Arc, LazyLock};

use watershed_cache::encoding::{Encoding, EventType, event_frame};
use watershed_cache::selector::{FieldSelector, LabelSelector};
use watershed_cache::{
    Object, Options, Resource, ResourceVersion, Selection, Snapshot, WatchCache, Writer,
};

pub(crate) static PODS: LazyLock<Arc<Resource>> = LazyLock::new(|| Arc::new(Resource::pods()));

/// The JSON of a pod: a kilobyte with the density of a real one.
pub(crate) fn pod_json(name: usize, version: u64) -> String {
    let node = name % 1_000;
    format!(
        concat!(
            r#"{{"kind":"Pod","apiVersion":"v1","metadata":{{"name":"app-{name:06}","generateName":"app-","#,
            r#""namespace":"team-{team}","uid":"6d7a1c0e-6f0b-4e5a-9c1e-{name:012}","#,
            r#""resourceVersion":"{version}","creationTimestamp":"2026-01-01T00:00:00Z","#,
            r#""labels":{{"app":"app-{app}","pod-template-hash":"5d9c7bd8f4","tier":"web"}},"#,
            r#""annotations":{{"counter":"{version}"}}}},"#,
            r#""spec":{{"containers":[{{"name":"main","image":"registry.example/app:1.2.3","#,
            r#""resources":{{"requests":{{"cpu":"100m","memory":"128Mi"}}}},"#,
            r#""imagePullPolicy":"IfNotPresent"}}],"restartPolicy":"Always","#,
            r#""serviceAccountName":"default","nodeName":"node-{node:05}","schedulerName":"default-scheduler"}},"#,
            r#""status":{{"phase":"Running","conditions":[{{"type":"Ready","status":"True","#,
            r#""lastProbeTime":null,"lastTransitionTime":"2026-01-01T00:00:05Z"}}],"#,
            r#""hostIP":"10.0.0.1","podIP":"10.1.2.3","podIPs":[{{"ip":"10.1.2.3"}}],"#,
            r#""startTime":"2026-01-01T00:00:00Z","qosClass":"Burstable"}}}}"#
        ),
        name = name,
        team = name % 20,
        app = name % 500,
        version = version,
        node = node,
    )
}

pub(crate) fn pod(name: usize, version: u64) -> Object {
    decode(Encoding::Json, pod_json(name, version).as_bytes())
}

/// The same in protobuf, a little smaller.
pub(crate) fn pod_protobuf(name: usize, version: u64) -> Vec<u8> {
    let text = |number, text: &str| field(number, text.as_bytes());
    let entry = |key: &str, value: &str| field(11, &[text(1, key), text(2, value)].concat());
    let metadata = [
        text(1, &format!("app-{name:06}")),
        text(2, "app-"),
        text(3, &format!("team-{}", name % 20)),
        text(5, &format!("6d7a1c0e-6f0b-4e5a-9c1e-{name:012}")),
        text(6, &version.to_string()),
        entry("app", &format!("app-{}", name % 500)),
        entry("pod-template-hash", "5d9c7bd8f4"),
        entry("tier", "web"),
    ];
    let spec = [
        field(
            2,
            &[text(1, "main"), text(2, "registry.example/app:1.2.3")].concat(),
        ),
        text(3, "Always"),
        text(8, "default"),
        text(10, &format!("node-{:05}", name % 1_000)),
        text(19, "default-scheduler"),
    ];
    let filler = "x".repeat(400); // conditions and container states, which nobody looks at
    let status = [text(1, "Running"), text(3, &filler), text(6, "10.1.2.3")];
    let pod = [
        field(1, &metadata.concat()),
        field(2, &spec.concat()),
        field(3, &status.concat()),
    ];
    let type_meta = [text(1, "v1"), text(2, "Pod")].concat();
    [
        b"k8s\0".to_vec(),
        field(1, &type_meta),
        field(2, &pod.concat()),
        vec![0x1a, 0, 0x22, 0],
    ]
    .concat()
}

/// A length-delimited field.
fn field(number: u8, payload: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    for mut varint in [usize::from(number) << 3 | 2, payload.len()] {
        while varint >= 0x80 {
            field.push((varint & 0x7f) as u8 | 0x80);
            varint >>= 7;
        }
        field.push(varint as u8);
    }
    field.extend_from_slice(payload);
    field
}

pub(crate) fn decode(encoding: Encoding, full: &[u8]) -> Object {
    Object::decode(encoding, &PODS, full).expect("a pod decodes")
}

/// A `MODIFIED` frame as the apiserver sends it.
pub(crate) fn frame(name: usize, version: u64) -> Vec<u8> {
    event_frame(EventType::Modified, &pod(name, version)).to_vec()
}

pub(crate) fn select(fields: &str) -> Selection {
    let fields = FieldSelector::parse(fields).expect("a field selector");
    Selection {
        namespace: None,
        name: None,
        labels: LabelSelector::default(),
        fields: fields.bind(&PODS.fields).expect("pods have these fields"),
    }
}

/// A cache that holds pods 0 up to `objects` at version 1.
pub(crate) fn cache(objects: usize) -> (Writer, WatchCache) {
    let (mut writer, cache) = empty_cache();
    writer
        .replace(
            ResourceVersion::new(1),
            (0..objects).map(|name| pod(name, 1)),
        )
        .expect("within the budget");
    (writer, cache)
}

pub(crate) fn empty_cache() -> (Writer, WatchCache) {
    WatchCache::new(Arc::clone(&PODS), Encoding::Json, Options::default())
}

pub(crate) fn snapshot(cache: &WatchCache) -> Snapshot {
    cache.snapshot().expect("the cache is ready")
}

/// Which of `objects` the update at `version` is about: as good as random, the same in every run.
pub(crate) fn scattered(version: u64, objects: usize) -> usize {
    let mixed = version.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (mixed >> 20) as usize % objects
}
