//! Proofs of freshness, and what is none.

use super::*;
use crate::error::{CacheError, NotFresh};
use crate::store::Snapshot;
use crate::testing::{drain, in_seconds};
use crate::watcher::WatchStart;

type Reading = JoinHandle<Result<Snapshot, CacheError>>;

/// A consistent read with the patience of the apiserver, about to begin.
fn begin(server: &Apiserver) -> Reading {
    let cache = server.cache.clone();
    tokio::spawn(async move { cache.consistent(Duration::from_secs(3)).await })
}

/// A consistent read that has begun.
async fn read(server: &Apiserver) -> Reading {
    let reading = begin(server);
    tokio::task::yield_now().await;
    reading
}

async fn version(reading: Reading) -> Result<u64, CacheError> {
    reading
        .await
        .unwrap()
        .map(|snapshot| snapshot.resource_version().get())
}

/// More objects than a probe lists.
fn many() -> Vec<(String, u64)> {
    (0..100).map(|n| (format!("a/p{n:03}"), n + 1)).collect()
}

async fn synced_with_many(version: u64) -> (Apiserver, Stream) {
    let many = many();
    let objects: Vec<_> = many
        .iter()
        .map(|(what, version)| (what.as_str(), *version))
        .collect();
    synced(version, &objects).await
}

#[tokio::test(start_paused = true)]
async fn one_probe_serves_everyone_who_came_before_it_and_nobody_later() {
    let (mut server, stream) = synced_with_many(100).await;
    stream.bookmark(200, false).await;
    server.reaches(200).await;
    let (first, second) = (begin(&server), begin(&server));
    let (request, answer) = server.list().await;
    assert_eq!(
        request,
        ListRequest {
            limit: Some(1),
            ..ListRequest::default()
        }
    );
    let late = read(&server).await;
    answer
        .send(page(200, &[("a/p000", 1)], Some("more")))
        .unwrap();
    assert_eq!(version(first).await, Ok(200));
    assert_eq!(version(second).await, Ok(200));
    assert!(!late.is_finished());
    server
        .list()
        .await
        .1
        .send(page(200, &[("a/p000", 1)], Some("more")))
        .unwrap();
    assert_eq!(version(late).await, Ok(200));
    assert_eq!(server.cache.stats().probes, 2);
    assert_eq!(server.cache.stats().fences, 0);
}

#[tokio::test(start_paused = true)]
async fn a_small_collection_that_is_equal_is_its_own_proof() {
    let (mut server, stream) = synced(10, &[("a/x", 5), ("a/y", 6)]).await;
    let reading = read(&server).await;
    let (request, answer) = server.list().await;
    assert_eq!(request.limit, Some(3));
    answer
        .send(page(500, &[("a/x", 5), ("a/y", 6)], None))
        .unwrap();
    let snapshot = reading.await.unwrap().unwrap();
    assert_eq!(snapshot.resource_version(), rv(500));
    assert_eq!(
        server.cache.resource_version(),
        rv(10),
        "only the snapshot is known to be at 500"
    );
    assert_eq!(server.cache.stats().fences, 0);

    let start = WatchStart::Initial {
        snapshot,
        end_bookmark: true,
    };
    let mut watcher = server
        .cache
        .watch(select(""), start, true, in_seconds(60))
        .unwrap();
    assert_eq!(
        drain(&mut watcher),
        ["ADDED a/x@5", "ADDED a/y@6", "BOOKMARK @500 end"]
    );
    stream.event("ADDED", "a/z", 400).await;
    stream.event("DELETED", "a/z", 450).await;
    stream.event("ADDED", "a/z", 501).await;
    server.reaches(501).await;
    assert_eq!(
        drain(&mut watcher),
        ["ADDED a/z@501"],
        "what came and went before 500 is not news"
    );
}

#[tokio::test(start_paused = true)]
async fn what_was_read_ahead_of_the_stream_is_never_unread() {
    let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
    let reading = read(&server).await;
    server
        .list()
        .await
        .1
        .send(page(500, &[("a/x", 5)], None))
        .unwrap();
    assert_eq!(version(reading).await, Ok(500));
    let now = server.cache.snapshot().unwrap();
    assert_eq!(now.resource_version(), rv(500), "RV 0 is not older");
    let start = WatchStart::Now;
    let mut from_now = server
        .cache
        .watch(select(""), start, false, in_seconds(60))
        .unwrap();

    stream.event("ADDED", "a/z", 400).await;
    server.reaches(400).await;
    assert_eq!(server.listed(), ["a/x@5"], "at 500 it was gone again");
    stream.error(410, "Expired").await;
    let (request, answer) = server.watch().await;
    assert_eq!(request.resource_version, Some(rv(500)), "nor is a relist");
    open(answer).bookmark(499, true).await;
    let (_, answer) = server.watch().await;
    assert_eq!(server.listed(), ["a/x@5"]);
    assert_eq!(drain(&mut from_now), [""; 0]);
    let stream = open(answer);
    stream.event("ADDED", "a/y", 501).await;
    stream.bookmark(502, true).await;
    server.reaches(502).await;
    assert_eq!(server.listed(), ["a/y@501"]);
}

#[tokio::test(start_paused = true)]
async fn a_collection_that_differs_is_no_proof() {
    for other in [
        page(500, &[("a/x", 5)], None),
        page(500, &[("a/x", 5), ("a/y", 7)], None),
        page(500, &[("a/x", 5), ("a/z", 6)], None),
        page(500, &[("a/x", 5), ("a/y", 6)], Some("more")),
    ] {
        let (mut server, _stream) = synced(10, &[("a/x", 5), ("a/y", 6)]).await;
        let reading = read(&server).await;
        server.list().await.1.send(other).unwrap();
        server.watch().await.1.send(Err(status(500, None))).ok();
        assert_eq!(
            version(reading).await,
            Err(CacheError::NotFresh(NotFresh::Behind))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_that_is_still_on_its_way_needs_no_fence() {
    let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
    let reading = read(&server).await;
    server
        .list()
        .await
        .1
        .send(page(500, &[("a/x", 499)], None))
        .unwrap();
    stream.event("MODIFIED", "a/x", 499).await;
    assert_eq!(version(reading).await, Ok(500));
    assert_eq!(server.cache.resource_version(), rv(499));
    assert_eq!(server.cache.stats().fences, 0);
}

#[tokio::test(start_paused = true)]
async fn a_busy_stream_proves_itself() {
    let (mut server, stream) = synced_with_many(100).await;
    let reading = read(&server).await;
    server
        .list()
        .await
        .1
        .send(page(150, &[("a/p000", 1)], Some("more")))
        .unwrap();
    stream.event("MODIFIED", "a/p050", 120).await;
    tokio::task::yield_now().await;
    assert!(!reading.is_finished(), "120 is not 150");
    stream.event("MODIFIED", "a/p050", 151).await;
    assert_eq!(version(reading).await, Ok(151));
    assert_eq!(server.cache.stats().fences, 0);
}

#[tokio::test(start_paused = true)]
async fn a_fence_proves_a_quiet_resource_and_brings_what_the_stream_still_owes() {
    let (mut server, stream) = synced_with_many(100).await;
    let mut watcher = server.cache.watch_after("", 100);
    let reading = read(&server).await;
    server
        .list()
        .await
        .1
        .send(page(150, &[("a/p000", 1)], Some("more")))
        .unwrap();
    let (request, answer) = server.watch().await;
    assert_eq!(request.resource_version, Some(rv(100)));
    assert_eq!(
        (request.send_initial_events, request.timeout),
        (false, Duration::from_secs(3))
    );
    let fence = open(answer);
    fence.event("MODIFIED", "a/p050", 120).await;
    fence.event("DELETED", "a/p051", 130).await;
    fence.bookmark(155, false).await;
    let snapshot = reading.await.unwrap().unwrap();
    assert_eq!(snapshot.resource_version(), rv(155));
    assert_eq!(snapshot.len(), 99);
    stream.event("MODIFIED", "a/p050", 120).await;
    stream.event("DELETED", "a/p051", 130).await;
    stream.event("ADDED", "a/p051", 160).await;
    server.reaches(160).await;
    let seen = [
        "MODIFIED a/p050@120",
        "DELETED a/p051@130",
        "ADDED a/p051@160",
    ];
    assert_eq!(drain(&mut watcher), seen, "each once");
    assert_eq!(server.cache.stats().fences, 1);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_late_again_and_again_costs_one_fence_a_second() {
    let (mut server, stream) = synced_with_many(100).await;
    let begun = Instant::now();
    let mut fences = 0;
    for at in (110..210).step_by(10) {
        let reading = read(&server).await;
        let found = page(at, &[("a/p000", 1)], Some("more"));
        server.list().await.1.send(found).unwrap();
        let late = tokio::time::sleep(Duration::from_millis(150));
        let fence = tokio::select! {
            () = late => None,
            (_, answer) = server.watch() => Some(open(answer)),
        };
        fences += u64::from(fence.is_some());
        stream.bookmark(at, false).await;
        assert_eq!(version(reading).await, Ok(at));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{begun:?}");
    assert_eq!((fences, server.cache.stats().fences), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn some_of_the_deletions_of_one_version_are_no_proof_for_it() {
    let (mut server, stream) = synced_with_many(100).await;
    stream.event("DELETED", "a/p001", 150).await;
    server.reaches(150).await;
    let reading = read(&server).await;
    let found = page(150, &[("a/p000", 1)], Some("more"));
    server.list().await.1.send(found).unwrap();
    let (request, answer) = server.watch().await;
    assert_eq!(request.resource_version, Some(rv(149)));
    let fence = open(answer);
    fence.event("DELETED", "a/p001", 150).await;
    fence.event("DELETED", "a/p002", 150).await;
    fence.bookmark(150, false).await;
    assert_eq!(reading.await.unwrap().unwrap().len(), 98);
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_ends_below_the_probe_is_no_proof() {
    let (mut server, _stream) = synced_with_many(100).await;
    let reading = read(&server).await;
    server
        .list()
        .await
        .1
        .send(page(150, &[("a/p000", 1)], Some("more")))
        .unwrap();
    let fence = open(server.watch().await.1);
    fence.bookmark(149, false).await;
    fence.end();
    assert_eq!(
        version(reading).await,
        Err(CacheError::NotFresh(NotFresh::Behind))
    );
    assert_eq!(server.cache.resource_version(), rv(149));
}

#[tokio::test(start_paused = true)]
async fn a_stalled_upstream_never_yields_a_proof() {
    let (mut server, _stream) = synced_with_many(100).await;
    let reading = read(&server).await;
    let stalled = server.list().await;
    assert_eq!(
        version(reading).await,
        Err(CacheError::NotFresh(NotFresh::Timeout))
    );
    let reading = read(&server).await;
    server
        .list()
        .await
        .1
        .send(page(150, &[("a/p000", 1)], Some("more")))
        .unwrap();
    let silent_fence = server.watch().await;
    assert_eq!(
        version(reading).await,
        Err(CacheError::NotFresh(NotFresh::Timeout))
    );
    drop((stalled, silent_fence));
    let reading = read(&server).await;
    server
        .list()
        .await
        .1
        .send(page(100, &[("a/p000", 1)], Some("more")))
        .unwrap();
    assert_eq!(version(reading).await, Ok(100), "and it recovers");
}

#[tokio::test(start_paused = true)]
async fn a_probe_older_than_what_was_served_is_never_believed() {
    let (mut server, stream) = synced(100, &[("a/x", 50)]).await;
    let mut watcher = server.cache.watch_after("", 100);
    for round in 1..=4 {
        let own = 100 + round;
        stream.event("MODIFIED", "a/x", own).await;
        server.reaches(own).await;
        assert_eq!(older(&mut server, 90).await, NOT_BELIEVED);
        tokio::time::advance(Duration::from_secs(40)).await;
        assert_eq!(
            server.cache.resource_version(),
            rv(own),
            "while events come"
        );
    }
    assert_eq!(drain(&mut watcher).len(), 4, "watchers notice nothing");
    assert_eq!(older(&mut server, 90).await, NOT_BELIEVED);
}

const NOT_BELIEVED: Result<u64, CacheError> = Err(CacheError::NotFresh(NotFresh::Older));

/// A consistent read whose probe is answered at `at`.
async fn older(server: &mut Apiserver, at: u64) -> Result<u64, CacheError> {
    let reading = read(server).await;
    let (_, answer) = server.list().await;
    answer.send(page(at, &[("a/x", 50)], None)).unwrap();
    version(reading).await
}

#[tokio::test(start_paused = true)]
async fn a_restored_storage_is_noticed_after_a_minute_and_the_cache_starts_over() {
    let (mut server, _stream) = synced(100, &[("a/x", 50)]).await;
    let mut watcher = server.cache.watch_after("", 100);
    assert_eq!(older(&mut server, 90).await, NOT_BELIEVED);
    tokio::time::advance(Duration::from_secs(59)).await;
    assert_eq!(older(&mut server, 90).await, NOT_BELIEVED);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(older(&mut server, 90).await, Err(CacheError::NotReady));
    assert_eq!(drain(&mut watcher), ["END"]);
    let (request, answer) = server.watch().await;
    assert_eq!(
        (request.send_initial_events, request.resource_version),
        (true, None)
    );
    assert!(!server.cache.is_ready());
    open(answer).bookmark(91, true).await;
    server.reaches(91).await;
    assert_eq!(server.cache.resource_version(), rv(91));
    assert_eq!(server.listed(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_failed_or_senseless_probe_is_no_proof() {
    for answer in [Err(status(500, None)), Ok(Bytes::from_static(b"<html>"))] {
        let (mut server, _stream) = synced_with_many(100).await;
        let reading = read(&server).await;
        server.list().await.1.send(answer).unwrap();
        assert_eq!(
            version(reading).await,
            Err(CacheError::NotFresh(NotFresh::Probe))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_works_while_the_stream_is_down() {
    let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
    stream.end();
    server
        .watch()
        .await
        .1
        .send(Err(status(503, Some(20))))
        .unwrap();
    let reading = read(&server).await;
    server
        .list()
        .await
        .1
        .send(page(30, &[("a/x", 5)], None))
        .unwrap();
    assert_eq!(version(reading).await, Ok(30));
}

#[tokio::test(start_paused = true)]
async fn readers_of_an_ended_reflector_are_let_go() {
    let (mut server, _stream) = synced(10, &[("a/x", 5)]).await;
    let reading = read(&server).await;
    let _unanswered = server.list().await;
    let late = read(&server).await;
    server.reflector.abort();
    assert_eq!(version(reading).await, Err(CacheError::NotReady));
    assert_eq!(version(late).await, Err(CacheError::NotReady));
    assert_eq!(
        version(read(&server).await).await,
        Err(CacheError::NotReady)
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_readers_are_bounded_and_those_who_left_make_room() {
    let options = Options {
        consistent_waiters: 2,
        ..Options::default()
    };
    let mut server = start_with(options);
    let _stream = server.sync(10, &[("a/x", 5)]).await;
    let first = read(&server).await;
    let (_, answer) = server.list().await;
    let waiting = (read(&server).await, read(&server).await);
    let busy = Err(CacheError::NotFresh(NotFresh::Busy));
    assert_eq!(version(read(&server).await).await, busy);
    waiting.0.abort();
    tokio::task::yield_now().await;
    let room = read(&server).await;
    answer.send(page(10, &[("a/x", 5)], None)).unwrap();
    server
        .list()
        .await
        .1
        .send(page(10, &[("a/x", 5)], None))
        .unwrap();
    for reading in [first, waiting.1, room] {
        assert_eq!(version(reading).await, Ok(10));
    }
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_is_believed_as_long_as_something_came_or_was_proven() {
    const SILENCE: Duration = Duration::from_secs(75);
    let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
    stream.bookmark(20, false).await;
    server.reaches(20).await;
    assert!(server.cache.is_fresh(SILENCE));
    tokio::time::advance(SILENCE).await;
    assert!(!server.cache.is_fresh(SILENCE));
    let reading = read(&server).await;
    let (_request, answer) = server.list().await;
    answer.send(page(500, &[("a/x", 5)], None)).unwrap();
    reading.await.unwrap().unwrap();
    assert!(server.cache.is_fresh(SILENCE));
}
