//! Getting a state, keeping it, and getting it back.

use super::*;
use crate::testing::drain;

#[tokio::test(start_paused = true)]
async fn the_first_sync_is_one_consistent_stream_that_goes_on_live() {
    let mut server = start();
    let (request, answer) = server.watch().await;
    assert_eq!(request.resource_version, None);
    assert!(request.send_initial_events);
    assert!((300..=600).contains(&request.timeout.as_secs()));
    let stream = open(answer);
    stream.event("ADDED", "a/x", 5).await;
    stream.bookmark(7, false).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(
        !server.cache.is_ready(),
        "not before the end of the initial events"
    );
    stream.event("ADDED", "a/y", 6).await;
    stream.bookmark(10, true).await;
    server.reaches(10).await;
    assert_eq!(server.listed(), ["a/x@5", "a/y@6"]);
    server
        .status(|status| *status == ReflectorStatus::Live)
        .await;
    stream.event("MODIFIED", "a/x", 11).await;
    stream.event("DELETED", "a/y", 12).await;
    stream.bookmark(20, false).await;
    server.reaches(20).await;
    assert_eq!(server.listed(), ["a/x@11"]);
}

#[tokio::test(start_paused = true)]
async fn a_server_without_watch_list_is_listed_in_pages_and_watched() {
    for code in [400, 422] {
        let mut server = start();
        server.refuse_watch_list(status(code, None)).await;
        let (request, answer) = server.list().await;
        assert_eq!(
            request,
            ListRequest {
                limit: Some(500),
                ..ListRequest::default()
            }
        );
        answer.send(page(10, &[("a/x", 5)], Some("token"))).unwrap();
        let (request, answer) = server.list().await;
        assert_eq!(request.continue_token.as_deref(), Some("token"));
        assert_eq!(request.not_older_than, None);
        assert!(!server.cache.is_ready(), "not with half a list");
        answer.send(page(10, &[("a/y", 6)], None)).unwrap();
        let stream = server.resume(10).await;
        stream.event("ADDED", "b/z", 11).await;
        server.reaches(11).await;
        assert_eq!(server.listed(), ["a/x@5", "a/y@6", "b/z@11"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_page_that_expired_leads_to_one_list_without_limit() {
    let mut server = start();
    server.refuse_watch_list(status(422, None)).await;
    server
        .list()
        .await
        .1
        .send(page(10, &[("a/x", 5)], Some("token")))
        .unwrap();
    server.list().await.1.send(Err(status(410, None))).unwrap();
    let (request, answer) = server.list().await;
    assert_eq!(request, ListRequest::default());
    answer.send(page(12, &[("a/y", 6)], None)).unwrap();
    server.resume(12).await;
    assert_eq!(server.listed(), ["a/y@6"]);
}

#[tokio::test(start_paused = true)]
async fn pages_of_two_versions_are_not_one_state() {
    let mut server = start();
    server.refuse_watch_list(status(422, None)).await;
    server
        .list()
        .await
        .1
        .send(page(10, &[("a/x", 5)], Some("token")))
        .unwrap();
    server
        .list()
        .await
        .1
        .send(page(11, &[("a/y", 6)], None))
        .unwrap();
    server.sync(12, &[]).await;
    assert_eq!(server.cache.stats().malformed, 1);
}

#[tokio::test(start_paused = true)]
async fn an_ended_or_cut_stream_resumes_at_once_and_no_watch_notices() {
    let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
    let mut watcher = server.cache.watch_after("", 10);
    stream.event("MODIFIED", "a/x", 11).await;
    server.reaches(11).await;
    let at = Instant::now();
    stream.cut().await;
    let stream = server.resume(11).await;
    stream.event("MODIFIED", "a/x", 12).await;
    stream.bookmark(15, false).await;
    server.reaches(15).await;
    stream.end();
    let stream = server.resume(15).await;
    assert_eq!(at.elapsed(), Duration::ZERO);
    stream.event("DELETED", "a/x", 16).await;
    server.reaches(16).await;
    assert_eq!(
        drain(&mut watcher),
        ["MODIFIED a/x@11", "MODIFIED a/x@12", "DELETED a/x@16"]
    );
    let stats = server.cache.stats();
    assert_eq!((stats.cuts, stats.relists), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_cut_between_deletions_of_one_version_loses_none() {
    let (mut server, stream) = synced(10, &[("a/x", 5), ("a/y", 6)]).await;
    let mut watcher = server.cache.watch_after("", 10);
    stream.event("DELETED", "a/x", 12).await;
    server.reaches(12).await;
    stream.cut().await;
    let stream = server.resume(11).await;
    stream.event("DELETED", "a/x", 12).await;
    stream.event("DELETED", "a/y", 12).await;
    stream.bookmark(12, false).await;
    stream.end();
    let _stream = server.resume(12).await;
    assert_eq!(drain(&mut watcher), ["DELETED a/x@12", "DELETED a/y@12"]);
    assert_eq!(server.listed(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_event_behind_what_was_vouched_for_leads_to_a_new_state() {
    for (event_type, what) in [("MODIFIED", "a/x"), ("ADDED", "a/new"), ("DELETED", "a/x")] {
        let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
        let mut watcher = server.cache.watch_after("", 10);
        stream.bookmark(20, false).await;
        server.reaches(20).await;
        stream.event(event_type, what, 15).await;
        let (request, answer) = server.watch().await;
        assert!(request.send_initial_events, "{event_type}");
        assert_eq!(request.resource_version, Some(rv(20)));
        open(answer).bookmark(21, true).await;
        server.reaches(21).await;
        assert_eq!(server.listed(), [""; 0]);
        assert_eq!(drain(&mut watcher), ["END"]);
        assert_eq!(server.cache.stats().malformed, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn repeats_of_what_was_seen_are_no_disorder() {
    let (mut server, stream) = synced(10, &[("a/x", 5), ("a/y", 6)]).await;
    stream.event("ADDED", "a/z", 11).await;
    stream.event("DELETED", "a/y", 12).await;
    stream.event("DELETED", "a/z", 13).await;
    stream.event("MODIFIED", "a/x", 14).await;
    server.reaches(14).await;
    stream.end();
    let stream = server.resume(14).await;
    stream.event("MODIFIED", "a/y", 6).await;
    stream.event("ADDED", "a/z", 11).await;
    stream.event("DELETED", "a/y", 12).await;
    stream.event("DELETED", "a/z", 13).await;
    stream.event("MODIFIED", "a/x", 14).await;
    stream.event("MODIFIED", "a/x", 15).await;
    server.reaches(15).await;
    assert_eq!(server.listed(), ["a/x@15"]);
    assert_eq!(
        (server.cache.stats().relists, server.cache.stats().malformed),
        (1, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn half_a_frame_is_not_half_applied() {
    let (mut server, stream) = synced(10, &[]).await;
    let frame = format!(
        "{{\"type\":\"ADDED\",\"object\":{}}}\n",
        pod_json("a/x", 11)
    );
    let (head, tail) = frame.split_at(frame.len() / 2);
    stream.send(head).await;
    stream.send(tail).await;
    server.reaches(11).await;
    stream.send(head.replace("a", "b")).await;
    stream.end();
    let _stream = server.resume(11).await;
    assert_eq!(server.listed(), ["a/x@11"]);
    assert_eq!(server.cache.stats().cuts, 1);
}

#[tokio::test(start_paused = true)]
async fn nonsense_drops_the_stream_and_resumes_after_a_delay() {
    for nonsense in [
        "{\"type\":\"ADDED\",\"object\":{\"kind\":\"Node\"}}\n",
        "{\"type\":\"WHAT\",\"object\":{}}\n",
        "<html>\n",
        "{}}\n",
    ] {
        let (mut server, stream) = synced(10, &[]).await;
        let at = Instant::now();
        stream.send(nonsense).await;
        let stream = server.resume(10).await;
        assert!(at.elapsed() >= Duration::from_millis(800), "{nonsense}");
        assert_eq!(server.cache.stats().malformed, 1, "{nonsense}");
        stream.event("ADDED", "a/x", 11).await;
        server.reaches(11).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ends_empty_at_once_is_a_failure() {
    let (mut server, stream) = synced(10, &[]).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    stream.end();
    let at = Instant::now();
    server.resume(10).await.end();
    assert_eq!(at.elapsed(), Duration::ZERO, "the first lasted");
    server.resume(10).await.end();
    let first = at.elapsed();
    assert!(first >= Duration::from_millis(800));
    server.resume(10).await.end();
    assert!(at.elapsed() - first >= Duration::from_millis(1600));
}

#[tokio::test(start_paused = true)]
async fn silence_beyond_the_bound_is_a_dead_stream() {
    let (mut server, _stream) = synced(10, &[]).await;
    let at = Instant::now();
    let _second = server.resume(10).await;
    assert_eq!(at.elapsed(), ReflectorOptions::default().silence_max);
    assert_eq!(server.cache.stats().cuts, 1);
}

#[tokio::test(start_paused = true)]
async fn expiry_leads_to_a_relist_not_older_than_what_was_served() {
    for in_stream in [true, false] {
        let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
        let mut watcher = server.cache.watch_after("", 10);
        stream.event("MODIFIED", "a/x", 11).await;
        server.reaches(11).await;
        if in_stream {
            stream.error(410, "Expired").await;
        } else {
            stream.end();
            server.watch().await.1.send(Err(status(410, None))).unwrap();
        }
        let (request, answer) = server.watch().await;
        assert!(request.send_initial_events);
        assert_eq!(request.resource_version, Some(rv(11)));
        assert_eq!(server.listed(), ["a/x@11"], "still served meanwhile");
        let stream = open(answer);
        stream.event("ADDED", "a/y", 19).await;
        stream.bookmark(20, true).await;
        server.reaches(20).await;
        assert_eq!(server.listed(), ["a/y@19"]);
        assert_eq!(drain(&mut watcher), ["END"]);
        assert_eq!(server.cache.stats().oldest, rv(20));
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_list_is_discarded_however_often_it_comes() {
    let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
    stream.error(410, "Expired").await;
    let (_, answer) = server.watch().await;
    let lagging = open(answer);
    lagging.bookmark(9, true).await;
    server.refuse_watch_list(status(422, None)).await;
    let (request, answer) = server.list().await;
    assert_eq!(request.not_older_than, Some(rv(10)));
    answer.send(page(8, &[], None)).unwrap();
    server.refuse_watch_list(status(504, Some(1))).await;
    assert_eq!(server.listed(), ["a/x@5"]);
    assert_eq!(server.cache.resource_version(), rv(10));
    server.sync(12, &[]).await;
    assert_eq!(server.listed(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_list_that_is_cut_or_refused_in_mid_stream_starts_over() {
    let mut server = start();
    let stream = open(server.watch().await.1);
    stream.event("ADDED", "a/x", 5).await;
    stream.cut().await;
    let stream = open(server.watch().await.1);
    stream.event("ADDED", "a/y", 6).await;
    stream.error(500, "InternalError").await;
    let (_, answer) = server.list().await;
    answer.send(page(10, &[("a/z", 7)], None)).unwrap();
    server.resume(10).await;
    assert_eq!(server.listed(), ["a/z@7"]);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_seen_by_the_owner_and_retried_slowly() {
    for (code, kept) in [(401, true), (403, false), (404, false)] {
        let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
        stream.end();
        let (_, answer) = server.watch().await;
        let mut watcher = server.cache.watch_after("", 10);
        answer.send(Err(status(code, None))).unwrap();
        let seen = server
            .status(|status| *status != ReflectorStatus::Live)
            .await;
        match seen {
            ReflectorStatus::Denied { message } => assert!(message.contains(&code.to_string())),
            other => assert_eq!((other, code), (ReflectorStatus::Gone, 404)),
        }
        assert_eq!(server.cache.is_ready(), kept);
        assert_eq!(drain(&mut watcher).is_empty(), kept);
        let at = Instant::now();
        let (request, answer) = server.watch().await;
        assert!(at.elapsed() >= Duration::from_secs(29));
        assert_eq!(
            (request.send_initial_events, request.resource_version),
            (!kept, Some(rv(10)))
        );
        open(answer).bookmark(12, true).await;
        server.reaches(12).await;
        server
            .status(|status| *status == ReflectorStatus::Live)
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_server_is_left_alone_for_as_long_as_it_asks() {
    for code in [429, 503] {
        let (mut server, stream) = synced(10, &[("a/x", 5)]).await;
        stream.end();
        server
            .watch()
            .await
            .1
            .send(Err(status(code, Some(17))))
            .unwrap();
        let at = Instant::now();
        let seen = server
            .status(|status| *status != ReflectorStatus::Live)
            .await;
        assert!(
            matches!(seen, ReflectorStatus::Retrying { last_error } if last_error.contains("no"))
        );
        assert_eq!(server.listed(), ["a/x@5"], "served meanwhile");
        let _stream = server.resume(10).await;
        assert_eq!(at.elapsed(), Duration::from_secs(17));
        server
            .status(|status| *status == ReflectorStatus::Live)
            .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_never_answered_is_given_up() {
    let mut server = start();
    let (_, never) = server.watch().await;
    let at = Instant::now();
    server.sync(10, &[]).await;
    assert!(at.elapsed() >= ReflectorOptions::default().request_timeout);
    drop(never);
}

#[tokio::test(start_paused = true)]
async fn too_many_objects_end_the_reflector_and_say_so() {
    let mut server = start_with(Options {
        objects_bytes: 1_000,
        ..Options::default()
    });
    let stream = open(server.watch().await.1);
    for version in 1..8 {
        let object = pod_json(&format!("a/p{version}"), version);
        let frame = format!("{{\"type\":\"ADDED\",\"object\":{object}}}\n");
        let _ = stream.0.send(Ok(Bytes::from(frame))).await;
    }
    let seen = server
        .status(|status| *status != ReflectorStatus::Syncing)
        .await;
    assert!(
        matches!(seen, ReflectorStatus::OverBudget { bytes } if bytes > 1_000),
        "{seen:?}"
    );
    assert!(!server.cache.is_ready());
}

#[tokio::test(start_paused = true)]
async fn shutdown_ends_the_reflector_and_closes_the_cache() {
    let (writer, cache) = WatchCache::new(pods(), Encoding::Json, Options::default());
    let (questions, _asked) = mpsc::channel(8);
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async { drop(stopped.await) };
    let run = Reflector::run(
        writer,
        Scripted(questions),
        ReflectorOptions::default(),
        shutdown,
    );
    let running = tokio::spawn(run);
    stop.send(()).unwrap();
    running.await.unwrap();
    assert_eq!(*cache.status().borrow(), ReflectorStatus::Stopped);
    assert!(!cache.is_ready());
}
