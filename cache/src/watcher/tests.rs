use futures_util::StreamExt;

use crate::testing::{cache_of, cache_with, drain, in_seconds, lines, rv, select};
use crate::watch_cache::Options;

use super::*;

mod bookmarks;
mod forms;
mod heartbeats;
mod wakeups;

/// The next item after waiting for it, as lines.
async fn next(watcher: &mut Watcher) -> Vec<String> {
    watcher
        .next()
        .await
        .map_or_else(|| vec!["END".into()], |bytes| lines(&bytes))
}

#[tokio::test(start_paused = true)]
async fn a_watch_replays_what_came_after_its_version_and_goes_on() {
    let (mut writer, cache) = cache_of(10, &[("a/x", 5)]);
    writer.put("a/x", 11);
    writer.put("a/y", 12);
    let mut watcher = cache.watch_after("", 11);
    assert_eq!(drain(&mut watcher), ["ADDED a/y@12"]);
    writer.delete("a/x", 13);
    writer.put("a/y", 14);
    assert_eq!(drain(&mut watcher), ["DELETED a/x@13", "MODIFIED a/y@14"]);
    assert_eq!(drain(&mut watcher), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_selection_sees_objects_enter_change_and_leave() {
    for what in [
        "node=n1",
        "app=n1",
        "node=n1 ns=a",
        "app=n1 ns=a",
        "name=x ns=a node=n1",
    ] {
        let (mut writer, cache) = cache_of(10, &[]);
        let mut watcher = cache.watch_after(what, 10);
        writer.put("a/x @n2 +n2", 11);
        writer.put("a/x @n1 +n1", 12);
        writer.put("a/x @n1 +n1", 13);
        writer.put("a/x @n2 +n2", 14);
        writer.put("a/x @n1 +n1", 15);
        writer.delete("a/x @n1 +n1", 16);
        writer.put("a/x @n2 +n2", 17);
        writer.delete("a/x @n2 +n2", 18);
        let seen = [
            "ADDED a/x@12",
            "MODIFIED a/x@13",
            "DELETED a/x@14",
            "ADDED a/x@15",
            "DELETED a/x@16",
        ];
        assert_eq!(drain(&mut watcher), seen, "{what}");
        assert_eq!(
            drain(&mut cache.watch_after(what, 10)),
            seen,
            "{what}, replayed"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_below_the_window_is_expired_and_says_from_where_on() {
    let (writer, cache) = cache_of(10, &[]);
    let watch = |version| {
        cache
            .watch(
                select(""),
                WatchStart::After(rv(version)),
                false,
                in_seconds(9),
            )
            .map(drop)
    };
    assert_eq!(watch(10), Ok(()));
    let error = watch(9).unwrap_err();
    assert_eq!(
        error,
        CacheError::Expired {
            requested: rv(9),
            oldest: rv(11)
        }
    );
    assert_eq!(error.to_string(), "too old resource version: 9 (10)");
    drop(writer);
    assert_eq!(watch(10), Err(CacheError::NotReady));
}

#[tokio::test(start_paused = true)]
async fn a_future_version_is_waited_for_in_silence() {
    let (mut writer, cache) = cache_of(10, &[]);
    let start = WatchStart::After(rv(20));
    let mut watcher = cache
        .watch(select(""), start, true, in_seconds(3600))
        .unwrap();
    writer.put("a/x", 15);
    writer.put("a/y", 20);
    assert_eq!(drain(&mut watcher), [""; 0]);
    tokio::time::advance(Duration::from_secs(61)).await;
    assert_eq!(drain(&mut watcher), [""; 0], "no bookmark at 20 either");
    writer.put("a/z", 21);
    assert_eq!(drain(&mut watcher), ["ADDED a/z@21"]);
}

#[tokio::test(start_paused = true)]
async fn initial_events_come_in_batches_and_miss_nothing_that_happens_between_them() {
    let (mut writer, cache) = cache_of(10, &[]);
    for n in 0..2000 {
        writer.put(&format!("a/p{n:04}"), 11 + n);
    }
    let mut watcher = cache.watch_list("", 3600);
    let first = watcher.next().await.unwrap();
    assert!(
        first.len() >= BATCH_BYTES && first.len() < BATCH_BYTES + 1000,
        "{}",
        first.len()
    );
    writer.put("a/p0000", 3000);
    writer.delete("a/p1999", 3001);
    let mut seen = lines(&first);
    seen.extend(drain(&mut watcher));
    assert_eq!(seen.len(), 2000 + 1 + 2);
    assert_eq!(
        seen[1999..],
        [
            "ADDED a/p1999@2010",
            "BOOKMARK @2010 end",
            "MODIFIED a/p0000@3000",
            "DELETED a/p1999@3001"
        ]
    );
}

/// Room for a few events only.
fn narrow() -> Options {
    Options {
        history_bytes: 10_000,
        ..Options::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_left_its_events_unread_too_long_ends_cleanly() {
    let (mut writer, cache) = cache_with(narrow(), 10, &[]);
    let mut slow = cache.watch_after("", 10);
    let mut reading_initial = cache.watch_list("", 3600);
    let mut elsewhere = cache.watch_after("ns=b", 10);
    for version in 11..100 {
        writer.put("a/x", version);
    }
    assert!(cache.stats().history_events < 80);
    assert_eq!(drain(&mut slow), ["END"]);
    assert_eq!(drain(&mut reading_initial), ["BOOKMARK @10 end", "END"]);
    assert_eq!(cache.stats().expired_watchers, 2);
    let resumed = cache.watch(select(""), WatchStart::After(rv(10)), false, in_seconds(9));
    assert!(
        matches!(resumed, Err(CacheError::Expired { .. })),
        "the client learns it on resuming"
    );
    assert_eq!(cache.watchers(), 1, "an ended watch leaves its slot");
    writer.put("b/x", 100);
    assert_eq!(
        drain(&mut elsewhere),
        ["ADDED b/x@100"],
        "nothing of its own was forgotten"
    );
}

#[tokio::test(start_paused = true)]
async fn a_parked_watch_counts_as_slow_only_with_an_event_left_unread() {
    let (mut writer, cache) = cache_of(10, &[]);
    let mut watcher = cache.watch_after("", 10);
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(cache.stats().slow_watchers, 0);
    writer.put("a/x", 11);
    assert_eq!(cache.stats().slow_watchers, 0);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(cache.stats().slow_watchers, 1);
    assert_eq!(drain(&mut watcher).len(), 1);
    let stats = cache.stats();
    assert_eq!((stats.slow_watchers, stats.events_dispatched), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_at_its_deadline_even_in_the_middle_of_initial_events() {
    let (mut writer, cache) = cache_of(10, &[]);
    for n in 0..2000 {
        writer.put(&format!("a/p{n:04}"), 11 + n);
    }
    let mut watcher = cache.watch_list("", 5);
    assert!(watcher.next().await.is_some());
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(drain(&mut watcher), ["END"]);
    assert_eq!(cache.watchers(), 0);
    let mut past = cache.watch_list("", 0);
    assert_eq!(drain(&mut past), ["END"]);
}

#[tokio::test(start_paused = true)]
async fn a_long_row_of_misses_is_walked_in_several_polls_without_waiting() {
    let (mut writer, cache) = cache_of(10, &[]);
    let mut watcher = cache.watch_after("app=rare", 10);
    for n in 0..4000 {
        writer.put("a/x", 11 + n);
    }
    writer.put("a/y +rare", 5000);
    assert_eq!(drain(&mut watcher), [""; 0], "gave way");
    assert_eq!(next(&mut watcher).await, ["ADDED a/y@5000"]);
}

#[tokio::test(start_paused = true)]
async fn a_relist_ends_every_watch_and_forgets_the_history() {
    let (mut writer, cache) = cache_of(10, &[("a/x", 5)]);
    writer.put("a/x", 11);
    let mut watcher = cache.watch_after("", 10);
    let mut parked = cache.watch_after("", 11);
    assert_eq!(drain(&mut parked), [""; 0]);
    let woken = tokio::spawn(async move { parked.next().await });
    tokio::task::yield_now().await;
    writer
        .replace(rv(20), [crate::testing::pod("a/z", 15)])
        .unwrap();
    assert_eq!(woken.await.unwrap(), None);
    assert_eq!(drain(&mut watcher), ["END"], "not even what it had unread");
    assert!(
        cache
            .watch(select(""), WatchStart::After(rv(19)), false, in_seconds(9))
            .is_err()
    );
    assert_eq!(
        drain(&mut cache.watch_list("", 60)),
        ["ADDED a/z@15", "BOOKMARK @20 end"]
    );
}

#[tokio::test(start_paused = true)]
async fn now_starts_after_the_newest_event() {
    let (mut writer, cache) = cache_of(10, &[]);
    writer.put("a/x", 11);
    let mut watcher = cache
        .watch(select(""), WatchStart::Now, false, in_seconds(60))
        .unwrap();
    writer.put("a/y", 12);
    assert_eq!(drain(&mut watcher), ["ADDED a/y@12"]);
}

#[tokio::test(start_paused = true)]
async fn one_event_is_one_shared_frame_for_everyone() {
    let (mut writer, cache) = cache_of(10, &[]);
    let (mut one, mut two) = (cache.watch_after("", 10), cache.watch_after("ns=a", 10));
    writer.put("a/x", 11);
    let (one, two) = (one.next().await.unwrap(), two.next().await.unwrap());
    assert_eq!(one.as_ptr(), two.as_ptr());
}

#[test]
fn an_idle_watch_is_small() {
    let parts = [
        size_of::<Watcher>(),
        size_of::<Selection>(),
        size_of::<Sleep>(),
    ];
    assert!(parts.iter().sum::<usize>() <= 400, "{parts:?}");
    fn is_send_and_unpin<T: Send + Unpin>() {}
    is_send_and_unpin::<Watcher>();
}
