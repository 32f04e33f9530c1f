use crate::encoding::{Encoding, Extent, MetaVersion};

use super::*;

const METADATA: Form = Form {
    encoding: Encoding::Json,
    extent: Extent::Metadata(MetaVersion::V1),
};

/// The frames as JSON: type, kind, version, labels, and the names of all members of the object.
fn frames(bytes: &[u8]) -> Vec<String> {
    let lines = bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let frame: serde_json::Value = serde_json::from_slice(line).unwrap();
            let object = &frame["object"];
            let members: Vec<_> = object.as_object().unwrap().keys().cloned().collect();
            assert_eq!(members, ["apiVersion", "kind", "metadata"]);
            assert_eq!(object["apiVersion"], "meta.k8s.io/v1");
            assert_eq!(object["kind"], "PartialObjectMetadata");
            let metadata = &object["metadata"];
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let (name, version) = (text(&metadata["name"]), text(&metadata["resourceVersion"]));
            let app = text(&metadata["labels"]["app"]);
            format!("{} {name}@{version} {app}", text(&frame["type"]))
        })
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_watch_of_metadata_sees_the_same_events() {
    let (mut writer, cache) = cache_of(10, &[("a/x +in", 5), ("a/y +in", 6)]);
    let mut watcher = cache.watch_list("app=in", 3600).in_form(METADATA);
    let mut whole = cache.watch_list("app=in", 3600);
    let initial = watcher.next().await.unwrap();
    assert_eq!(
        frames(&initial),
        ["ADDED x@5 in", "ADDED y@6 in", "BOOKMARK @10 "]
    );
    whole.next().await.unwrap();
    writer.put("a/x +in", 11);
    writer.put("a/x +out", 12);
    writer.put("a/x +in", 13);
    writer.delete("a/y +in", 14);
    let live = watcher.next().await.unwrap();
    assert_eq!(
        frames(&live),
        [
            "MODIFIED x@11 in",
            "DELETED x@12 in",
            "ADDED x@13 in",
            "DELETED y@14 in"
        ]
    );
    let types: Vec<_> = lines(&whole.next().await.unwrap());
    assert_eq!(types.len(), 4, "{types:?}");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(frames(&watcher.next().await.unwrap()), ["BOOKMARK @14 "]);
}

#[tokio::test(start_paused = true)]
#[should_panic(expected = "cannot be had")]
async fn whole_objects_are_not_transcoded() {
    let (_writer, cache) = cache_of(10, &[]);
    let _never = cache
        .watch_after("", 10)
        .in_form(Form::whole(Encoding::Protobuf));
}
