//! Streams in trouble: clients that do not read, servers that leave, upstreams that break, forget
//! or are behind.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures_util::future::{join_all, try_join_all};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::cluster::{config_maps, until};
use super::lists::{filled, list, set};
use super::scene::{ENCODINGS, WATCH_LIST, begin, ends, version, watch_after, watching};
use super::{Cluster, Setup, does_not_apply};
use crate::client::{Answer, Client, Event, JSON, Protocol, Watch};

/// Writes that outrun a client that does not read, and the bytes of each: together more than any
/// window of HTTP/2 and any queue of a server holds.
const FLOOD: usize = 1800;
const FLOOD_BYTES: usize = 4000;
/// Clients that write at once.
const WRITERS: usize = 4;
/// Writes that a client that reads may be behind: fewer than any history holds, so that one whose
/// machine is busy is not let go as well.
const AHEAD: usize = 12;

/// Changes `WRITERS` ConfigMaps as fast as there is `room`; returns the newest version.
async fn flood(cluster: &Cluster, collection: &str, room: &Semaphore) -> anyhow::Result<u64> {
    let filler = "x".repeat(FLOOD_BYTES);
    let writing = (0..WRITERS).map(|writer| {
        let (object, filler) = (format!("{collection}/x{writer}"), &filler);
        async move {
            let mut newest = 0;
            for round in 0..FLOOD / WRITERS {
                room.acquire().await?.forget();
                newest = set(cluster, &object, &format!("{round}{filler}")).await?;
            }
            anyhow::Ok(newest)
        }
    });
    let newest = try_join_all(writing).await?;
    newest.into_iter().max().context("there are writers")
}

type Sight = (String, u64);

/// What a client makes of its watch that goes on where a clean end left it.
struct Follower<'a> {
    client: &'a Client,
    collection: &'a str,
    at: u64,
    seen: Vec<Sight>,
    ends: usize,
    /// Where there is one more place for each that was seen.
    room: &'a Semaphore,
}

impl Follower<'_> {
    /// Sees everything up to the last version, once that is known and a later one was sent.
    async fn until(
        &mut self,
        last: &tokio::sync::watch::Receiver<Option<u64>>,
    ) -> anyhow::Result<()> {
        loop {
            let mut watch = watch_after(self.client, self.collection, self.at, JSON).await?;
            while let Some(event) = watch.next().await? {
                ensure!(
                    event.kind == "MODIFIED" && event.version > self.at,
                    "{event:?}"
                );
                self.at = event.version;
                if last.borrow().is_some_and(|last| last < self.at) {
                    return Ok(());
                }
                self.seen.push((event.key, event.version));
                self.room.add_permits(1);
            }
            self.ends += 1;
        }
    }
}

/// 110: who does not read is let go at a bounded cost, and costs the others nothing.
pub async fn a_client_that_does_not_read_is_let_go_and_delays_nobody(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    const HISTORY: u64 = 256 << 10;
    let own = cluster
        .own(Setup {
            history_bytes: Some(HISTORY),
            ..Setup::default()
        })
        .await?;
    let (collection, _) = filled(&own, &["x0", "x1", "x2", "x3"]).await?;
    let start = list(own.admin(), &collection).await?.version;
    let stalled = own.user("admin", Some("system:masters"))?;
    let stalled = own.client_over(&stalled, Protocol::Http2)?;
    let mut stalled = watch_after(&stalled, &collection, start, JSON).await?;
    let (told, last) = tokio::sync::watch::channel(None);
    let room = Semaphore::new(AHEAD);
    let mut follower = Follower {
        client: own.admin(),
        collection: &collection,
        at: start,
        seen: Vec::new(),
        ends: 0,
        room: &room,
    };
    let flooding = async {
        flood(&own, &collection, &room).await?;
        let newest = set(&own, &format!("{collection}/x0"), "last").await?;
        told.send_replace(Some(newest));
        set(&own, &format!("{collection}/x0"), "over").await?;
        anyhow::Ok(())
    };
    futures_util::try_join!(flooding, follower.until(&last))?;
    ensure!(
        follower.seen.len() == FLOOD + 1,
        "{} were seen",
        follower.seen.len()
    );
    ensure!(
        own.embedded().is_err() || follower.ends == 0,
        "a reader was let go"
    );
    if own.is_through_proxy() {
        let of = ["resource=\"configmaps\"", "encoding=\"json\""];
        let kept = own.metric("watershed_watch_cache_history_bytes", &of);
        let kept = kept.await?;
        ensure!(kept <= HISTORY as f64, "{kept} bytes of history");
    }

    // It reads again: what it is given is whole and without a gap, then it ends.
    let (mut at, mut given) = (start, 0);
    while let Some(event) = stalled.next().await? {
        let next = follower.seen.get(given).context("more than there was")?;
        ensure!(
            (&event.key, event.version) == (&next.0, next.1),
            "{event:?} for {next:?}"
        );
        (at, given) = (event.version, given + 1);
    }
    ensure!(given < FLOOD, "it was not let go");
    // What it missed is still to be had, or it is told that it is not.
    let mut resumed = watch_after(own.admin(), &collection, at, JSON).await?;
    for (key, version) in &follower.seen[given..] {
        let event = resumed.event_now().await?;
        if event.kind == "ERROR" {
            let expired = event.object()?["reason"] == "Expired" && event.version == 0;
            ensure!(expired, "{event:?}");
            ends(&mut resumed).await?;
            break;
        }
        ensure!((&event.key, event.version) == (key, *version), "{event:?}");
    }
    own.end().await;
    Ok(())
}

/// How long a server that leaves takes.
const GRACE: Duration = Duration::from_secs(6);

/// 111: a server that leaves ends watches cleanly and not all at once, and sends who comes now
/// elsewhere.
pub async fn a_server_that_leaves_ends_watches_one_by_one_and_refuses_requests(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    if !cluster.is_through_proxy() && cluster.embedded().is_err() {
        return does_not_apply("how a real apiserver ends is up to its flags");
    }
    let setup = Setup {
        grace_period: GRACE,
        ..Setup::default()
    };
    let own = cluster.own(setup).await?;
    let (collection, _) = filled(&own, &["x"]).await?;
    let newest = list(own.admin(), &collection).await?.version;
    let identity = own.user("admin", Some("system:masters"))?;
    let mut watches = Vec::new();
    for protocol in [Protocol::Http1, Protocol::Http2].repeat(6) {
        let client = own.client_over(&identity, protocol)?;
        let watch = watch_after(&client, &collection, newest, JSON).await?;
        watches.push((client, watch));
    }
    let begun = Instant::now();
    let ending = join_all(watches.iter_mut().map(|(_, watch)| async {
        ends(watch).await?;
        anyhow::Ok(begun.elapsed())
    }));
    let all_ended = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ending = async {
        let ended = ending.await;
        all_ended.store(true, std::sync::atomic::Ordering::SeqCst);
        ended.into_iter().collect::<anyhow::Result<Vec<Duration>>>()
    };
    let asking = async {
        let mut answers = Vec::new();
        loop {
            let client = own.client_over(&identity, Protocol::Http1)?;
            match client.get(&format!("{collection}?resourceVersion=0")).await {
                Ok(answer) => answers.push(answer),
                // Nobody is there any more, and nobody has to be.
                Err(_) if all_ended.load(std::sync::atomic::Ordering::SeqCst) => break,
                Err(error) => return Err(error.context("while watches were still open")),
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(answers)
    };
    let leaving = async {
        cluster.stop_own().await;
        anyhow::Ok(())
    };
    let (ended, answers, ()) = futures_util::try_join!(ending, asking, leaving)?;
    let (first, last) = (ended.iter().min(), ended.iter().max());
    let (first, last) = (first.context("none")?, last.context("none")?);
    ensure!(
        *last - *first > GRACE / 6,
        "all ended from {first:?} to {last:?}"
    );
    ensure!(
        *last < GRACE + Duration::from_secs(4),
        "the last ended after {last:?}"
    );
    refused(&answers)
}

/// From some answer on, all refuse and say when to come back.
fn refused(answers: &[Answer]) -> anyhow::Result<()> {
    let served = answers
        .iter()
        .take_while(|answer| answer.status == 200)
        .count();
    let refusals = &answers[served..];
    ensure!(!refusals.is_empty(), "nobody was refused");
    for answer in refusals {
        let later = answer.header("retry-after").parse::<u32>();
        let is_refusal = matches!(answer.status, 429 | 503) && later.is_ok_and(|own| own > 0);
        ensure!(
            is_refusal,
            "{} {:?} {}",
            answer.status,
            answer.headers,
            answer.text()
        );
    }
    Ok(())
}

/// Nothing but what the case opens has a cache, so that faults strike that.
fn undisturbed() -> Setup {
    Setup {
        preload: Vec::new(),
        ..Setup::default()
    }
}

/// The next change a watch shows is this object's.
async fn shows(watch: &mut Watch, name: &str, version: u64) -> anyhow::Result<()> {
    let event = watch.change().await?;
    let is_it = event.key.ends_with(&format!("/{name}")) && event.version == version;
    ensure!(is_it, "{event:?} instead of {name} at {version}");
    Ok(())
}

/// 112: an upstream stream that is lost and resumed is nothing a watch could notice.
pub async fn a_lost_upstream_stream_is_not_noticed(cluster: &Cluster) -> anyhow::Result<()> {
    cluster.proxy()?;
    cluster.embedded()?;
    let own = cluster.own(undisturbed()).await?;
    let (collection, _) = filled(&own, &["x"]).await?;
    let newest = begin(&own, &collection).await?;
    let mut watches = Vec::new();
    for accept in ENCODINGS {
        watches.push(watch_after(own.admin(), &collection, newest, accept).await?);
    }
    for round in 0..5 {
        let (before, after) = (format!("before-{round}"), format!("after-{round}"));
        let namespace = own.name("a");
        let first = version(&own.config_map(&namespace, &before).await?)?;
        own.embedded()?.faults().cut_connections();
        let second = created_anyway(&own, &after).await?;
        for watch in &mut watches {
            shows(watch, &before, first).await?;
            shows(watch, &after, second).await?;
        }
    }
    own.end().await;
    Ok(())
}

/// Creates a ConfigMap over connections that may be cut; returns its version.
async fn created_anyway(cluster: &Cluster, name: &str) -> anyhow::Result<u64> {
    let namespace = cluster.name("a");
    let target = format!("{}/{name}", config_maps(&namespace));
    let mut found = 0;
    until("it is created", async || {
        let created = cluster.config_map(&namespace, name).await;
        let there = cluster.direct().get(&target).await;
        // What is cut off may be the answer, and not the request.
        let Ok(object) = created.or_else(|_| there?.ok()) else {
            return Ok(false);
        };
        found = version(&object)?;
        Ok(true)
    })
    .await?;
    Ok(found)
}

/// The ERROR of a watch from before history, whose stream ends with it; tells where that begins.
async fn expired(client: &Client, collection: &str, at: u64) -> anyhow::Result<u64> {
    let mut watch = watch_after(client, collection, at, JSON).await?;
    let error = watch.event_now().await?.object()?;
    let message = error["message"].as_str().unwrap_or_default().to_owned();
    let start = format!("too old resource version: {at} (");
    let oldest = message
        .strip_prefix(&start)
        .and_then(|rest| rest.strip_suffix(')'));
    let oldest = oldest.with_context(|| format!("{error}"))?.parse()?;
    let expected = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
        "status": "Failure", "message": message, "reason": "Expired", "code": 410});
    ensure!(error == expected, "{error}");
    ends(&mut watch).await?;
    Ok(oldest)
}

/// 113: a cache that has to list again ends its watches, and knows nothing before that list.
pub async fn a_relist_ends_watches_and_forgets_what_was_before(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    cluster.embedded()?;
    let own = cluster.own(undisturbed()).await?;
    let embedded = own.embedded()?;
    let (collection, _) = filled(&own, &["x"]).await?;
    let old = list(own.admin(), &collection).await?.version;
    let mut watch = watch_after(own.admin(), &collection, old, JSON).await?;
    let namespace = own.name("a");
    let first = version(&own.config_map(&namespace, "first").await?)?;
    shows(&mut watch, "first", first).await?;

    if own.is_through_proxy() {
        embedded.faults().expire_watches("configmaps", 1);
        embedded.faults().cut_connections();
    } else {
        let config_maps = embedded.registry().find("", "v1", "configmaps");
        embedded.relist(&*config_maps.context("ConfigMaps are built in")?);
    }
    ends(&mut watch).await?;

    let second = version(&own.config_map(&namespace, "second").await?)?;
    let oldest = expired(own.admin(), &collection, old).await?;
    ensure!(
        (first..=second).contains(&oldest),
        "{oldest}: {first} {second}"
    );
    expired(own.admin(), &collection, oldest - 1).await?;
    let mut again = watch_after(own.admin(), &collection, oldest, JSON).await?;
    if oldest < second {
        shows(&mut again, "second", second).await?;
    }
    let third = version(&own.config_map(&namespace, "third").await?)?;
    shows(&mut again, "third", third).await?;
    own.end().await;
    Ok(())
}

/// The versions that reads of every kind give now; those that are refused for the time being give
/// none.
async fn versions(client: &Client, collection: &str) -> anyhow::Result<Vec<(String, u64)>> {
    let read = |target: String| async move {
        let answer = client.get(&target).await?;
        let is_later = matches!(answer.status, 429 | 503 | 504);
        ensure!(
            answer.status == 200 || is_later,
            "{target}: {}",
            answer.text()
        );
        let found = (!is_later).then(|| version(&answer.json()?)).transpose()?;
        anyhow::Ok(found.map(|version| (target, version)))
    };
    let begun = |query: &'static str| async move {
        let request = watching(collection, query, JSON);
        let Ok(mut open) = client.watch(request).await else {
            return anyhow::Ok(None);
        };
        loop {
            let event: Event = open.event_now().await?;
            match event.kind.as_str() {
                "BOOKMARK" => return Ok(Some((query.to_owned(), event.version))),
                "ERROR" => return Ok(None),
                _ => {}
            }
        }
    };
    let zero = "resourceVersion=0&allowWatchBookmarks=true";
    let reads = [
        format!("{collection}?resourceVersion=0"),
        collection.to_owned(),
        format!("{collection}?limit=1"),
    ];
    let (lists, begun, now) = futures_util::try_join!(
        try_join_all(reads.into_iter().map(read)),
        begun(zero),
        begun(WATCH_LIST),
    )?;
    Ok(lists.into_iter().chain([begun, now]).flatten().collect())
}

/// 114: an apiserver that is behind makes nothing older than it was.
pub async fn an_apiserver_that_is_behind_moves_nothing_back(
    cluster: &Cluster,
) -> anyhow::Result<()> {
    cluster.proxy()?;
    cluster.embedded()?;
    let own = cluster.own(undisturbed()).await?;
    let embedded = own.embedded()?;
    let (collection, versions_of) = filled(&own, &["x"]).await?;
    let object = format!("{collection}/x");
    let mut newest = 0;
    for round in 0..5 {
        newest = set(&own, &object, &round.to_string()).await?;
    }
    let seen = versions(own.admin(), &collection).await?;
    let newest = seen
        .iter()
        .map(|(_, version)| *version)
        .fold(newest, u64::max);
    let mut watch = watch_after(own.admin(), &collection, newest, JSON).await?;

    // Another apiserver of the same storage, which has not seen the last writes.
    embedded.fall_behind(versions_of[0]);
    let zero = format!("{object}?resourceVersion=0");
    for _ in 0..2 {
        for (read, version) in versions(own.admin(), &collection).await? {
            ensure!(version >= newest, "{read}: {version} after {newest}");
        }
        for target in [&zero, &object] {
            let shown = own.admin().get(target).await?.ok()?;
            ensure!(shown["data"]["v"] == "4", "{target}: {shown}");
        }
    }
    embedded.lag(false);
    let later = set(&own, &object, "later").await?;
    shows(&mut watch, "x", later).await?;
    let shown: Value = own.admin().get(&object).await?.ok()?;
    ensure!(version(&shown)? == later, "{shown}");
    own.end().await;
    Ok(())
}
