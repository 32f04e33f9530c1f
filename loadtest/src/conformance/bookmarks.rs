//! Bookmarks, and streams that end when their time is over.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use tokio::time::{Instant, sleep, timeout};

use super::cluster::config_maps;
use super::lists::{filled, list, set};
use super::scene::{WATCH_LIST, ends, version, watch_after, watching};
use super::{Cluster, does_not_apply, scene};
use crate::client::{Event, JSON, PROTOBUF, Watch};

const ALLOWED: &str = "allowWatchBookmarks=true";

/// An event as a plain bookmark of ConfigMaps in JSON; nothing else may be in it.
fn bookmark(event: &Event) -> anyhow::Result<u64> {
    let expected = format!(
        "{{\"type\":\"BOOKMARK\",\"object\":{{\"kind\":\"ConfigMap\",\"apiVersion\":\"v1\",\
         \"metadata\":{{\"resourceVersion\":\"{}\"}}}}}}\n",
        event.version
    );
    ensure!(event.raw == expected, "{event:?}");
    Ok(event.version)
}

/// 103, 104: a watch to which nothing happens is told about once a minute how far it is, if it
/// wants to know.
pub async fn an_idle_watch_is_told_each_minute_how_far_it_is(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    let other = cluster.namespace("b").await?;
    cluster.config_map(&other, "x").await?;
    let busy = format!("{}/x", config_maps(&other));
    let newest = list(cluster.admin(), &collection).await?.version;
    let query = format!("resourceVersion={newest}&timeoutSeconds=600");
    let client = cluster.admin();
    let told = format!("{query}&{ALLOWED}");
    let mut told = client.watch(watching(&collection, &told, JSON)).await?;
    let mut untold = client.watch(watching(&collection, &query, JSON)).await?;
    let writing = async {
        for round in 0_u64.. {
            set(cluster, &busy, &round.to_string()).await?;
            sleep(Duration::from_secs(3)).await;
        }
        anyhow::Ok(())
    };
    let first = tokio::select! {
        first = timeout(Duration::from_secs(75), told.event_now()) => first,
        failed = writing => return failed,
    };
    let first = first.context("no bookmark in time")??;
    let mut at = bookmark(&first)?;
    ensure!(at > newest, "{first:?} after {newest}");

    let last = version(&cluster.config_map(&cluster.name("a"), "last").await?)?;
    loop {
        let event = told.event_now().await?;
        if event.kind != "BOOKMARK" {
            ensure!(event.version == last && last > at, "{event:?} after {at}");
            break;
        }
        let next = bookmark(&event)?;
        ensure!(next >= at, "{event:?} after {at}");
        at = next;
    }
    let only = untold.event_now().await?;
    ensure!(only.kind == "ADDED" && only.version == last, "{only:?}");
    Ok(())
}

/// Reads a watch to which only bookmarks may come up to its clean end.
async fn bookmarks(mut watch: Watch) -> anyhow::Result<(Vec<Event>, Duration)> {
    let mut events: Vec<Event> = Vec::new();
    while let Some(event) = watch.next().await? {
        let newest = events.last().map_or(0, |event| event.version);
        let is_next = event.kind == "BOOKMARK" && event.version >= newest;
        ensure!(is_next, "{event:?} after {newest}");
        events.push(event);
    }
    Ok((events, watch.elapsed()))
}

/// 104, 105, 108: about two seconds before its end a watch is told how far it is, which events in
/// other namespaces have moved on; then it ends without a word, in its time.
pub async fn a_bookmark_comes_before_the_end_of_a_watch(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    let other = cluster.namespace("b").await?;
    let newest = scene::begin(cluster, &collection).await?;
    let query = format!("resourceVersion={newest}&timeoutSeconds=10");
    let told = format!("{query}&{ALLOWED}");
    let client = cluster.admin();
    let json = client.watch(watching(&collection, &told, JSON)).await?;
    let protobuf = client.watch(watching(&collection, &told, PROTOBUF)).await?;
    let untold = client.watch(watching(&collection, &query, JSON)).await?;
    let elsewhere = version(&cluster.config_map(&other, "x").await?)?;
    let read = futures_util::try_join!(bookmarks(json), bookmarks(protobuf), bookmarks(untold));
    let (json, protobuf, untold) = read?;
    for (events, _) in [&json, &protobuf] {
        let first = events.first().context("no bookmark")?;
        ensure!(first.version >= elsewhere, "{first:?} before {elsewhere}");
        ensure!(first.at >= Duration::from_millis(6500), "{first:?}");
    }
    json.0
        .iter()
        .try_for_each(|event| bookmark(event).map(drop))?;
    for event in &protobuf.0 {
        ensure!(
            event.raw == bookmark_frame(event.version, false),
            "{event:?}"
        );
    }
    ensure!(untold.0.is_empty(), "{untold:?}");
    for (_, elapsed) in [json, protobuf, untold] {
        let in_time = (9.5..15.0).contains(&elapsed.as_secs_f64());
        ensure!(in_time, "a watch of ten seconds ended after {elapsed:?}");
    }
    Ok(())
}

/// 106: one second is too short for a bookmark, less than nothing for anything, and zero means no
/// limit of the client's.
pub async fn a_watch_lives_as_long_as_it_asked_for(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    let newest = list(cluster.admin(), &collection).await?.version;
    let open = async |seconds: i64, at: u64| {
        let query = format!("{ALLOWED}&resourceVersion={at}&timeoutSeconds={seconds}");
        cluster
            .admin()
            .watch(watching(&collection, &query, JSON))
            .await
    };
    let (short, mut endless) = (open(1, newest).await?, open(0, newest).await?);
    let (events, elapsed) = bookmarks(short).await?;
    ensure!(events.is_empty(), "{events:?}");
    let in_time = (0.9..6.0).contains(&elapsed.as_secs_f64());
    ensure!(in_time, "a watch of one second ended after {elapsed:?}");
    // One that is over before it begins may still show what was there.
    let begun = Instant::now();
    let mut over = open(-1, 0).await?;
    while let Some(event) = over.next().await? {
        let is_initial = event.kind == "BOOKMARK" || event.version <= newest;
        ensure!(is_initial, "{event:?}");
    }
    ensure!(begun.elapsed() < Duration::from_secs(5), "it goes on");

    endless.is_silent_for(Duration::from_secs(2)).await?;
    let later = version(&cluster.config_map(&cluster.name("a"), "y").await?)?;
    let event = endless.change().await?;
    ensure!(event.kind == "ADDED" && event.version == later, "{event:?}");
    Ok(())
}

/// Kind, key and version of an event.
type Sight = (String, String, u64);

fn sight(event: &Event) -> Sight {
    (event.kind.clone(), event.key.clone(), event.version)
}

/// Reads changes until one is of this version or a later one.
async fn until(watch: &mut Watch, last: u64) -> anyhow::Result<Vec<Sight>> {
    let mut seen = Vec::new();
    while seen.last().is_none_or(|(_, _, version)| *version < last) {
        seen.push(sight(&watch.change().await?));
    }
    Ok(seen)
}

/// 107: a watch that goes on from the version of a bookmark has neither a gap nor a repetition.
pub async fn a_watch_goes_on_from_a_bookmark_where_it_stood(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    let client = cluster.admin();
    let query = format!("{WATCH_LIST}&timeoutSeconds=20");
    let mut first = client.watch(watching(&collection, &query, JSON)).await?;
    while !first.event_now().await?.ends_initial_events {}
    let start = list(client, &collection).await?.version;
    let mut reference = watch_after(client, &collection, start, JSON).await?;
    let object = format!("{collection}/x");
    let writing = async {
        let mut written = 0;
        for round in 0..150 {
            written = set(cluster, &object, &round.to_string()).await?;
            sleep(Duration::from_millis(25)).await;
        }
        anyhow::Ok(written)
    };
    let hopping = async {
        let (mut at, mut seen, mut bookmarks) = (start, Vec::new(), 0);
        for _ in 0..3 {
            let query = format!("{ALLOWED}&resourceVersion={at}&timeoutSeconds=3");
            let mut watch = client.watch(watching(&collection, &query, JSON)).await?;
            while let Some(event) = watch.next().await? {
                ensure!(event.version >= at, "{event:?} after {at}");
                at = event.version;
                if event.kind == "BOOKMARK" {
                    bookmarks += 1;
                    break;
                }
                seen.push(sight(&event));
            }
        }
        ensure!(bookmarks > 0, "no bookmark in three short watches");
        anyhow::Ok((at, seen))
    };
    let (last, (at, mut seen)) = futures_util::try_join!(writing, hopping)?;
    if at < last {
        let mut rest = watch_after(client, &collection, at, JSON).await?;
        seen.extend(until(&mut rest, last).await?);
    }
    let expected = until(&mut reference, last).await?;
    ensure!(seen == expected, "{seen:?}\ninstead of\n{expected:?}");
    Ok(())
}

/// A field of bytes in protobuf, shorter than 128.
fn field(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    assert!(length < 128, "lengths of one byte only");
    [&[tag, length], content].concat()
}

/// A watch event in protobuf with its length in front: `raw` is the object without its envelope.
fn frame(kind: &str, object: &str, raw: &[u8]) -> Vec<u8> {
    let meta = [field(0x0a, b"v1"), field(0x12, object.as_bytes())].concat();
    let unknown = [
        b"k8s\0".to_vec(),
        field(0x0a, &meta),
        field(0x12, raw),
        field(0x1a, b""),
        field(0x22, b""),
    ];
    let extension = field(0x0a, &unknown.concat());
    let event = [field(0x0a, kind.as_bytes()), field(0x12, &extension)].concat();
    let length = u32::try_from(event.len()).expect("it is short");
    [&length.to_be_bytes()[..], &event].concat()
}

/// A bookmark of ConfigMaps.
fn bookmark_frame(version: u64, ends_initial_events: bool) -> Vec<u8> {
    let version = version.to_string();
    let mut metadata = b"\x0a\0\x12\0\x1a\0\x22\0\x2a\0".to_vec();
    metadata.extend(field(0x32, version.as_bytes()));
    metadata.extend(b"\x38\0\x42\0");
    if ends_initial_events {
        let annotation = [
            field(0x0a, b"k8s.io/initial-events-end"),
            field(0x12, b"true"),
        ];
        metadata.extend(field(0x62, &annotation.concat()));
    }
    frame("BOOKMARK", "ConfigMap", &field(0x0a, &metadata))
}

/// The ERROR of a version that is too old.
fn expired_frame(message: &str) -> Vec<u8> {
    let status = [
        field(0x0a, b"\x0a\0\x12\0\x1a\0"),
        field(0x12, b"Failure"),
        field(0x1a, message.as_bytes()),
        field(0x22, b"Expired"),
        vec![0x30, 0x9a, 0x03],
    ];
    frame("ERROR", "Status", &status.concat())
}

/// 109: a bookmark in protobuf is an empty object of the kind, byte for byte.
pub async fn a_bookmark_in_protobuf_is_an_empty_object(cluster: &Cluster) -> anyhow::Result<()> {
    let empty = config_maps(&cluster.namespace("a").await?);
    let request = watching(&empty, WATCH_LIST, PROTOBUF);
    let mut watch = cluster.admin().watch(request).await?;
    let event = watch.event_now().await?;
    ensure!(event.ends_initial_events, "{event:?}");
    ensure!(
        event.raw == bookmark_frame(event.version, true),
        "{event:?}"
    );
    Ok(())
}

/// 109: an ERROR in protobuf is a Status in its envelope, byte for byte.
pub async fn an_error_in_protobuf_is_a_status(cluster: &Cluster) -> anyhow::Result<()> {
    let (collection, _) = filled(cluster, &["x"]).await?;
    scene::begin(cluster, &collection).await?;
    let mut watch = watch_after(cluster.admin(), &collection, 1, PROTOBUF).await?;
    let Ok(event) = timeout(Duration::from_secs(5), watch.next()).await else {
        return does_not_apply("its cache is as old as its storage");
    };
    let event = event?.context("it ended")?;
    if event.kind != "ERROR" {
        return does_not_apply("its cache is as old as its storage");
    }
    let text = String::from_utf8_lossy(&event.raw);
    let start = text
        .find("too old resource version: 1 (")
        .context("another ERROR")?;
    let message = text[start..]
        .split_inclusive(')')
        .next()
        .context("no message")?;
    ensure!(event.raw == expired_frame(message), "{event:?}");
    ends(&mut watch).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_that_were_recorded() {
        let hex =
            |bytes: &[u8]| -> String { bytes.iter().map(|byte| format!("{byte:02x}")).collect() };
        assert_eq!(
            hex(&bookmark_frame(12746, true)),
            "000000630a08424f4f4b4d41524b12570a556b3873000a0f0a0276311209436f6e6669674d6170\
             123a0a380a0012001a0022002a003205313237343638004200\
             62210a196b38732e696f2f696e697469616c2d6576656e74732d656e641204747275651a002200"
        );
        assert_eq!(
            hex(&expired_frame("too old resource version: 5 (1000)")),
            "000000640a054552524f52125b0a596b3873000a0c0a02763112065374617475731241\
             0a060a0012001a0012074661696c7572651a22746f6f206f6c64207265736f757263652076657273\
             696f6e3a2035202831303030292207457870697265643 09a031a002200"
                .replace(' ', "")
        );
    }
}
