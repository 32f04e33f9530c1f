//! States of the past: served while the apiserver has them, and as it has them.

use super::*;
use crate::error::{CacheError, NotFresh};
use crate::retention::PROOF_AGE;
use crate::store::Snapshot;

type Reading = JoinHandle<Result<Snapshot, CacheError>>;

/// A read of the state at `version` that has begun.
async fn read(server: &Apiserver, version: u64) -> Reading {
    let cache = server.cache.clone();
    let reading = async move { cache.exact(rv(version), Duration::from_secs(3)).await };
    let reading = tokio::spawn(reading);
    tokio::task::yield_now().await;
    reading
}

async fn objects(reading: Reading) -> Result<(u64, usize), CacheError> {
    let snapshot = reading.await.unwrap()?;
    Ok((snapshot.resource_version().get(), snapshot.len()))
}

/// Expects the question whether `version` is still there.
async fn question(
    server: &mut Apiserver,
    version: u64,
) -> oneshot::Sender<Result<Bytes, UpstreamError>> {
    let (request, answer) = server.list().await;
    let wanted = ListRequest {
        limit: Some(1),
        exactly: Some(rv(version)),
        ..ListRequest::default()
    };
    assert_eq!(request, wanted);
    answer
}

/// History from 10 to 14, one object more at each version.
async fn with_history() -> (Apiserver, Stream) {
    let (server, stream) = synced(10, &[("a/x", 5)]).await;
    for version in 11..=14 {
        stream
            .event("ADDED", &format!("a/p{version}"), version)
            .await;
    }
    server.reaches(14).await;
    (server, stream)
}

const GONE: Result<(u64, usize), CacheError> = Err(CacheError::Expired {
    requested: rv(12),
    oldest: rv(11),
});

#[tokio::test(start_paused = true)]
async fn one_question_about_the_lowest_version_serves_everyone_for_a_second() {
    let (mut server, _stream) = with_history().await;
    let (high, low) = (read(&server, 13).await, read(&server, 12).await);
    question(&mut server, 13)
        .await
        .send(page(13, &[("a/x", 5)], Some("more")))
        .unwrap();
    assert_eq!(objects(high).await, Ok((13, 4)));
    let (later, lower) = (read(&server, 14).await, read(&server, 11).await);
    assert_eq!(objects(later).await, Ok((14, 5)), "covered by 13");
    question(&mut server, 12)
        .await
        .send(page(12, &[("a/x", 5)], Some("more")))
        .unwrap();
    assert_eq!(objects(low).await, Ok((12, 3)));
    question(&mut server, 11)
        .await
        .send(page(11, &[("a/x", 5)], Some("more")))
        .unwrap();
    assert_eq!(objects(lower).await, Ok((11, 2)));
    tokio::time::advance(PROOF_AGE).await;
    let again = read(&server, 14).await;
    assert!(!again.is_finished(), "a second is over");
    question(&mut server, 14)
        .await
        .send(page(14, &[("a/x", 5)], Some("more")))
        .unwrap();
    assert_eq!(objects(again).await, Ok((14, 5)));
}

#[tokio::test(start_paused = true)]
async fn what_is_compacted_is_gone_for_ever_and_later_versions_are_asked_about() {
    let (mut server, _stream) = with_history().await;
    let waiting = read(&server, 14).await;
    let stalled = question(&mut server, 14).await;
    let readings = [12, 13, 12].map(|version| read(&server, version));
    let [low, high, same] = futures_util::future::join_all(readings)
        .await
        .try_into()
        .unwrap();
    stalled.send(page(14, &[], None)).unwrap();
    assert_eq!(objects(waiting).await, Ok((14, 5)));
    let answer = question(&mut server, 12).await;
    answer.send(Err(status(410, None))).unwrap();
    let answer = question(&mut server, 13).await;
    answer.send(page(13, &[], None)).unwrap();
    assert_eq!(objects(low).await, GONE);
    assert_eq!(objects(same).await, GONE);
    assert_eq!(objects(high).await, Ok((13, 4)));
    tokio::time::advance(Duration::from_secs(3600)).await;
    assert_eq!(
        objects(read(&server, 12).await).await,
        GONE,
        "nobody is asked"
    );
}

#[tokio::test(start_paused = true)]
async fn without_a_clear_answer_the_past_is_not_served() {
    let (mut server, _stream) = with_history().await;
    let unclear = [
        Err(status(500, None)),
        Err(status(504, Some(1))),
        Err(UpstreamError::Transport("reset".into())),
        page(14, &[], None), // a server that ignores the match
        Ok(Bytes::from_static(b"<html>")),
    ];
    for answer in unclear {
        let reading = read(&server, 12).await;
        question(&mut server, 12).await.send(answer).unwrap();
        let unknown = Err(CacheError::NotFresh(NotFresh::Probe));
        assert_eq!(objects(reading).await, unknown);
    }
    let reading = read(&server, 12).await;
    let _unanswered = question(&mut server, 12).await;
    let late = Err(CacheError::NotFresh(NotFresh::Timeout));
    assert_eq!(objects(reading).await, late);
}

#[tokio::test(start_paused = true)]
async fn versions_outside_the_history_are_nobodys_question() {
    let (server, _stream) = with_history().await;
    let below = objects(read(&server, 9).await).await;
    assert!(
        matches!(below, Err(CacheError::Expired { .. })),
        "{below:?}"
    );
    let above = objects(read(&server, 15).await).await;
    let too_large = matches!(above, Err(CacheError::ResourceVersionTooLarge { .. }));
    assert!(too_large, "{above:?}");
    assert_eq!(server.cache.stats().probes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_restored_storage_forgets_what_was_known_of_the_past() {
    let (mut server, _stream) = with_history().await;
    let reading = read(&server, 12).await;
    let answer = question(&mut server, 12).await;
    answer.send(Err(status(410, None))).unwrap();
    assert_eq!(objects(reading).await, GONE);
    for _ in 0..2 {
        let cache = server.cache.clone();
        let reading = tokio::spawn(async move { cache.consistent(Duration::from_secs(3)).await });
        let (_, answer) = server.list().await;
        answer.send(page(5, &[], None)).unwrap();
        assert!(reading.await.unwrap().is_err());
        tokio::time::advance(Duration::from_secs(60)).await;
    }
    let stream = server.sync(6, &[("a/x", 5)]).await;
    stream.event("ADDED", "a/y", 12).await;
    server.reaches(12).await;
    let reading = read(&server, 12).await;
    let answer = question(&mut server, 12).await;
    answer.send(page(12, &[], None)).unwrap();
    assert_eq!(objects(reading).await, Ok((12, 2)));
}
