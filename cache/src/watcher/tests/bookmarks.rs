//! When bookmarks come, and what they may say.

use super::*;

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
