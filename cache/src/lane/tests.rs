use std::sync::Arc;

use super::*;
use crate::recent::EVENTS_MAX;
use crate::testing::{cache_with, drain, rv, select};
use crate::watch_cache::{Options, WatchCache, Writer};
use crate::worker::Dispatcher;
use crate::{Watcher, testing};

fn cache_on(workers: &Workers) -> (Writer, WatchCache) {
    let options = Options {
        workers: workers.clone(),
        ..Options::default()
    };
    cache_with(options, 10, &[])
}

/// A watch after `version` that lives on the worker.
fn watch_on(on: &Dispatcher, cache: &WatchCache, what: &str, version: u64) -> Watcher {
    let _here = on.enter();
    cache.watch_after(what, version)
}

fn waiting(lane: &Lane) -> usize {
    lane.inbox.lock().events.len()
}

/// What a watch of everything must see of `MODIFIED` or `ADDED a/x` up to a version.
fn versions(seen: &[String]) -> Vec<u64> {
    let version = |line: &String| line.split_once('@').and_then(|(_, it)| it.parse().ok());
    seen.iter().map(|line| version(line).unwrap()).collect()
}

#[tokio::test(start_paused = true)]
async fn an_event_goes_once_to_each_lane_that_has_watches() {
    let (workers, dispatchers) = Workers::new(3);
    let (mut writer, cache) = cache_on(&workers);
    let shared = writer.shared();
    let watch = |on: usize, what| watch_on(&dispatchers[on], &cache, what, 10);
    let mut watches = [
        watch(0, ""),
        watch(0, "ns=a"),
        watch(0, ""),
        watch(1, "ns=b"),
    ];
    writer.put("a/x", 11);
    writer.put("a/x", 12);
    let handed: Vec<_> = shared.lanes.iter().map(|lane| waiting(lane)).collect();
    assert_eq!(handed, [0, 2, 2, 0], "the writer's own, and one per worker");
    for watch in &mut watches {
        assert_eq!(drain(watch), [""; 0], "its worker has not looked");
    }
    dispatchers.iter().for_each(Dispatcher::dispatch);
    let handed: Vec<_> = shared.lanes.iter().map(|lane| waiting(lane)).collect();
    assert_eq!(handed, [0; 4]);
    for watch in &mut watches[..3] {
        assert_eq!(drain(watch), ["ADDED a/x@11", "MODIFIED a/x@12"]);
    }
    assert_eq!(drain(&mut watches[3]), [""; 0]);
    assert_eq!(cache.stats().events_dispatched, 6);
}

#[tokio::test(start_paused = true)]
async fn a_lane_nobody_watches_is_passed_over_and_begins_again_where_history_ends() {
    let (workers, dispatchers) = Workers::new(1);
    let (mut writer, cache) = cache_on(&workers);
    let lane = Arc::clone(&writer.shared().lanes[1]);
    let gone = watch_on(&dispatchers[0], &cache, "", 10);
    writer.put("a/x", 11);
    drop(gone);
    writer.put("a/x", 12);
    assert_eq!(
        waiting(&lane),
        1,
        "told only of what came before it was left"
    );
    let mut first = watch_on(&dispatchers[0], &cache, "", 10);
    assert_eq!(waiting(&lane), 0);
    writer.put("a/x", 13);
    let mut second = watch_on(&dispatchers[0], &cache, "", 11);
    assert_eq!(versions(&drain(&mut first)), [11, 12, 13]);
    assert_eq!(versions(&drain(&mut second)), [12, 13]);
    dispatchers[0].dispatch();
    assert_eq!(drain(&mut first), [""; 0]);
    drop((first, second));
    assert_eq!((lane.bytes(), cache.watchers()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_left_the_lane_is_read_in_the_history_and_nothing_twice() {
    let (workers, dispatchers) = Workers::new(1);
    let (mut writer, cache) = cache_on(&workers);
    let watch = |what| watch_on(&dispatchers[0], &cache, what, 10);
    let (mut stalled, mut keyed) = (watch(""), watch("ns=a"));
    let last = 11 + 3 * EVENTS_MAX as u64;
    let mut elsewhere = watch("ns=b");
    for version in 11..last {
        writer.put(if version % 3 == 0 { "b/x" } else { "a/x" }, version);
        if version % 100 == 0 {
            dispatchers[0].dispatch();
            drain(&mut elsewhere);
        }
    }
    // The newest events are handed over and not taken in: they are not to be read yet, even where
    // the history is read.
    let told = last - 1 - (last - 1) % 100;
    let everything: Vec<_> = (11..=told).collect();
    let of_a = |versions: &[u64]| -> Vec<_> {
        let of_a = versions.iter().filter(|version| **version % 3 > 0);
        of_a.copied().collect()
    };
    assert_eq!(versions(&drain(&mut stalled)), everything);
    assert_eq!(versions(&drain(&mut keyed)), of_a(&everything));
    dispatchers[0].dispatch();
    let rest: Vec<_> = (told + 1..last).collect();
    assert_eq!(versions(&drain(&mut stalled)), rest);
    assert_eq!(versions(&drain(&mut keyed)), of_a(&rest));
    assert_eq!(cache.stats().expired_watchers, 0);
}

#[tokio::test(start_paused = true)]
async fn an_inbox_that_is_full_is_taken_in_by_the_writer() {
    let (workers, dispatchers) = Workers::new(1);
    let (mut writer, cache) = cache_on(&workers);
    let lane = Arc::clone(&writer.shared().lanes[1]);
    let mut watcher = watch_on(&dispatchers[0], &cache, "", 10);
    let last = 11 + 5 * INBOX_EVENTS_MAX as u64;
    for version in 11..last {
        writer.put("a/x", version);
        assert!(waiting(&lane) <= INBOX_EVENTS_MAX);
    }
    drain(&mut watcher);
    dispatchers[0].dispatch();
    assert_eq!(
        drain(&mut watcher).last().unwrap(),
        &format!("MODIFIED a/x@{}", last - 1)
    );
}

#[tokio::test(start_paused = true)]
async fn the_objects_an_inbox_keeps_from_being_freed_are_bounded() {
    let (workers, dispatchers) = Workers::new(1);
    let options = Options {
        history_bytes: 100_000,
        workers: workers.clone(),
        ..Options::default()
    };
    let (mut writer, cache) = cache_with(options, 10, &[]);
    let _stalled = watch_on(&dispatchers[0], &cache, "", 10);
    for version in 11..2000 {
        writer.put("a/x", version);
        assert!(cache.stats().history_bytes <= 102_000);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_tells_the_newest_version_though_the_worker_was_told_of_no_event() {
    let (workers, dispatchers) = Workers::new(1);
    let (mut writer, cache) = cache_on(&workers);
    let start = crate::WatchStart::After(rv(10));
    let mut watcher = {
        let _here = dispatchers[0].enter();
        let deadline = testing::in_seconds(3600);
        cache.watch(select("ns=b"), start, true, deadline).unwrap()
    };
    assert_eq!(drain(&mut watcher), [""; 0]);
    writer.put("a/x", 11);
    writer.bookmark(12);
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    dispatchers[0].tick();
    assert_eq!(drain(&mut watcher), ["BOOKMARK @12"]);
    writer.put("b/x", 13);
    writer.bookmark(14);
    tokio::time::advance(std::time::Duration::from_secs(61)).await;
    dispatchers[0].tick();
    let seen = drain(&mut watcher);
    assert_eq!(
        seen,
        ["ADDED b/x@13", "BOOKMARK @14"],
        "after the event, without a turn"
    );
}
