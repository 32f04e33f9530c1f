use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use futures_util::StreamExt;

use crate::testing::{cache_of, cache_with, drain, in_seconds, lines, rv, select};
use crate::watch_cache::Options;

use super::*;

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
async fn initial_events_come_in_key_order_then_the_bookmark_then_only_newer_events() {
    let objects = [("a/x", 4), ("a-b/x", 5), ("a0/x", 6), ("a.b/x", 7)];
    let (mut writer, cache) = cache_of(10, &objects);
    writer.put("b/x", 11);
    let mut watcher = cache.watch_list("", 3600);
    writer.put("b/y", 12);
    let initial = [
        "ADDED a-b/x@5",
        "ADDED a.b/x@7",
        "ADDED a/x@4",
        "ADDED a0/x@6",
        "ADDED b/x@11",
    ];
    let seen = drain(&mut watcher);
    assert_eq!(seen[..5], initial);
    assert_eq!(seen[5..], ["BOOKMARK @11 end", "ADDED b/y@12"]);
}

#[tokio::test(start_paused = true)]
async fn initial_events_without_a_match_are_just_the_bookmark() {
    let (_writer, cache) = cache_of(10, &[("a/x", 4)]);
    assert_eq!(
        drain(&mut cache.watch_list("ns=b", 60)),
        ["BOOKMARK @10 end"]
    );
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
async fn bookmarks_come_every_minute_and_two_seconds_before_the_end() {
    let (mut writer, cache) = cache_of(10, &[]);
    let begin = Instant::now();
    let start = WatchStart::After(rv(10));
    let mut watcher = cache
        .watch(select("ns=b"), start, true, in_seconds(150))
        .unwrap();
    writer.put("a/x", 11);
    for (seconds, seen) in [
        (60, "BOOKMARK @11"),
        (120, "BOOKMARK @11"),
        (148, "BOOKMARK @11"),
        (150, "END"),
    ] {
        assert_eq!(next(&mut watcher).await, [seen]);
        let elapsed = begin.elapsed();
        assert!(elapsed >= Duration::from_secs(seconds), "{elapsed:?}");
        assert!(
            elapsed < Duration::from_secs(seconds) + Duration::from_millis(10),
            "{elapsed:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_at_or_below_the_start_is_not_sent() {
    let (mut writer, cache) = cache_of(10, &[]);
    let start = WatchStart::After(rv(10));
    let mut watcher = cache
        .watch(select(""), start, true, in_seconds(130))
        .unwrap();
    let begin = Instant::now();
    let waiting = next(&mut watcher);
    tokio::pin!(waiting);
    assert!(
        tokio::time::timeout(Duration::from_secs(100), &mut waiting)
            .await
            .is_err()
    );
    writer.bookmark(12);
    assert_eq!(waiting.await, ["BOOKMARK @12"]);
    assert!(begin.elapsed() >= Duration::from_secs(120));
}

#[tokio::test(start_paused = true)]
async fn a_watch_with_initial_events_gets_one_early_bookmark_if_the_version_moved() {
    for moved in [true, false] {
        let (mut writer, cache) = cache_of(10, &[]);
        let mut watcher = cache.watch_list("ns=b", 40);
        assert_eq!(next(&mut watcher).await, ["BOOKMARK @10 end"]);
        let begin = Instant::now();
        if moved {
            writer.put("a/x", 11);
            assert_eq!(next(&mut watcher).await, ["BOOKMARK @11"]);
            let elapsed = begin.elapsed();
            assert!(
                elapsed >= Duration::from_millis(100) && elapsed <= Duration::from_millis(1250)
            );
            assert_eq!(next(&mut watcher).await, ["BOOKMARK @11"]);
            assert!(
                begin.elapsed() >= Duration::from_secs(37),
                "then as everyone"
            );
        }
        assert_eq!(next(&mut watcher).await, ["END"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_bookmark_follows_every_event_up_to_it() {
    let (mut writer, cache) = cache_of(10, &[]);
    let start = WatchStart::After(rv(10));
    let mut watcher = cache
        .watch(select(""), start, true, in_seconds(3600))
        .unwrap();
    for n in 0..2000 {
        writer.put(&format!("a/p{n:04}"), 11 + n);
    }
    tokio::time::advance(Duration::from_secs(61)).await;
    let seen = drain(&mut watcher);
    assert_eq!(seen.len(), 2001);
    assert_eq!(seen[1999..], ["ADDED a/p1999@2010", "BOOKMARK @2010"]);
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

#[derive(Default)]
struct CountWakes(AtomicUsize);

impl Wake for CountWakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_wakes_only_those_who_may_care_and_once() {
    let (mut writer, cache) = cache_of(10, &[("a/x @n1", 5)]);
    let wakes_of = |what: &str| {
        let (counter, mut watcher) = (Arc::new(CountWakes::default()), cache.watch_after(what, 10));
        let waker = Waker::from(Arc::clone(&counter));
        assert!(
            watcher
                .poll_next_unpin(&mut Context::from_waker(&waker))
                .is_pending()
        );
        (what.to_owned(), counter, watcher)
    };
    let watches = [
        "",
        "ns=a",
        "ns=b",
        "ns=a name=x",
        "ns=a name=y",
        "node=n1",
        "node=n2",
        "node=n3",
    ];
    let watches = watches.map(wakes_of);
    writer.put("a/x @n2", 11);
    writer.put("a/x @n2", 12);
    for (what, counter, _watcher) in &watches {
        let cares = !["ns=b", "ns=a name=y", "node=n3"].contains(&what.as_str());
        assert_eq!(
            counter.0.load(Ordering::Relaxed),
            usize::from(cares),
            "{what}"
        );
    }
}

#[test]
fn no_wakeup_is_lost_between_two_threads() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build();
    runtime.unwrap().block_on(async {
        let (mut writer, cache) = cache_of(10, &[]);
        let reader = tokio::spawn(async move {
            let (mut watcher, mut seen) = (cache.watch_after("", 10), 0);
            while seen < 3_000 {
                seen += watcher
                    .next()
                    .await
                    .expect("no end in sight")
                    .iter()
                    .filter(|&&byte| byte == b'\n')
                    .count();
            }
        });
        for version in 11..3_011 {
            writer.put("a/x", version);
            if version % 7 == 0 {
                tokio::task::yield_now().await;
            }
        }
        tokio::time::timeout(Duration::from_secs(30), reader)
            .await
            .expect("woken")
            .unwrap();
    });
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
