//! Watches that do without heartbeats. A state that differs in nothing but its version is one.

use super::wakeups::wakes;
use super::*;
use crate::watch_cache::{WatchCache, Writer};

fn cache() -> (Writer, WatchCache) {
    let options = Options {
        heartbeats: true,
        ..Options::default()
    };
    cache_with(options, 10, &[("a/x @n1", 5), ("a/y @n1", 6)])
}

fn quiet(cache: &WatchCache, what: &str, after: u64) -> Watcher {
    let start = WatchStart::After(rv(after));
    let watcher = cache.watch(select(what), start, true, in_seconds(3600));
    watcher.unwrap().without_heartbeats()
}

#[tokio::test(start_paused = true)]
async fn case_52_heartbeats_are_not_told_and_the_next_bookmark_carries_the_newer_version() {
    let (mut writer, cache) = cache();
    let mut quiet_one = quiet(&cache, "", 10);
    let mut loud_one = cache.watch_after("", 10);
    for version in 11..15 {
        writer.put("a/x @n1", version);
    }
    assert_eq!(drain(&mut loud_one).len(), 4);
    assert_eq!(next(&mut quiet_one).await, ["BOOKMARK @14"]);
    // What comes back at the bookmark hears nothing again.
    assert_eq!(drain(&mut quiet(&cache, "", 14)), [""; 0]);
    // And what comes back from before hears of nothing it did without.
    assert_eq!(drain(&mut quiet(&cache, "", 10)), [""; 0]);
    let newest = cache.snapshot().unwrap();
    assert_eq!(newest.get("a", "x").unwrap().resource_version(), rv(14));
}

#[tokio::test(start_paused = true)]
async fn what_changes_is_told_whatever_came_before_it() {
    let (mut writer, cache) = cache();
    let mut watcher = quiet(&cache, "app=n1", 10);
    writer.put("a/x @n1", 11);
    writer.put("a/x @n1 +n1", 12);
    writer.put("a/x @n1 +n1", 13);
    writer.put("a/x @n2 +n1", 14);
    writer.put("a/x @n2 +n1", 15);
    writer.put("a/x @n2", 16);
    writer.put("a/x @n2", 17);
    writer.delete("a/y @n1", 18);
    let seen = ["ADDED a/x@12", "MODIFIED a/x@14", "DELETED a/x@16"];
    assert_eq!(drain(&mut watcher), seen);
    assert_eq!(drain(&mut quiet(&cache, "app=n1", 10)), seen, "replayed");
}

#[tokio::test(start_paused = true)]
async fn nobody_is_woken_for_what_is_nothing_to_him() {
    let (mut writer, cache) = cache();
    let (count, _quiet) = wakes(quiet(&cache, "", 10));
    let (named, _named) = wakes(quiet(&cache, "ns=a name=x", 10));
    let (loud, _loud) = wakes(cache.watch_after("", 10));
    writer.put("a/x @n1", 11);
    assert_eq!([count(), named(), loud()], [0, 0, 1]);
    writer.put("a/x @n2", 12);
    assert_eq!([count(), named()], [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn a_cache_that_tells_no_heartbeats_apart_tells_of_all() {
    let (mut writer, cache) = cache_of(10, &[("a/x", 5)]);
    let mut watcher = quiet(&cache, "", 10);
    writer.put("a/x", 11);
    assert_eq!(drain(&mut watcher), ["MODIFIED a/x@11"]);
}
