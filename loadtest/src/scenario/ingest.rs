//! Updates of pods that no store holds back: how fast a proxy takes them in, and at what cost.
//!
//! Owns three parts of a run: the cache is filled, which tells its memory over the bytes it was
//! sent; updates come as fast as they are read, which tells the rate, the CPU of each and whether
//! the lag grows; and a tenth of that rate, watched through the proxy. Refuses other servers than
//! the embedded apiserver with its torrent turned on, and a proxy in front of it.
//! Invariant: a watch that misses, doubles or reorders one update, or a list that differs from what
//! was told, fails the run.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

use super::outcome::{Plot, Series, Unit};
use super::run::{ALL_CPU, Run};
use super::{Administrator, Outcome, Progress};
use crate::apiserver::torrent::{FIRST_VERSION, Torrent};
use crate::kubelet::client::{Call, read};
use crate::measure::{process::Sample, prometheus::Metrics};

const TIMEOUT: Duration = Duration::from_secs(60);
/// Between two looks at how far the proxy is.
const LOOK: Duration = Duration::from_millis(250);
/// Between two looks at memory that may still fall, and how long it may.
const REST: Duration = Duration::from_secs(3);
const REST_MAX: Duration = Duration::from_secs(30);
/// Bytes of resident memory that come and go.
const STEADY: u64 = 64 << 10;
/// Updates that are watched through the proxy.
const WATCHED: u64 = 100_000;
/// How many of them at a time, and how long after the ones before.
const WATCHED_AT_ONCE: u64 = 500;
const WATCHED_PAUSE: Duration = Duration::from_millis(25);
const LABELS: [(&str, &str); 2] = [("resource", "pods"), ("encoding", "json")];

/// What `/debug/torrent` says.
#[derive(Debug, Clone, Copy, Deserialize)]
struct Told {
    pods: u64,
    sent: u64,
}

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let proxy = Administrator::at(&run.target, &run.target.url)?;
    let told = control(&run, "").await?;
    run.note("pods", told.pods);
    fill(&mut run, &proxy, told).await?;
    flood(&mut run).await?;
    let watched = watched(&run, &proxy).await;
    let settled = settle(&run).await;
    for problem in [watched.err(), settled.err()].into_iter().flatten() {
        run.outcome.verdict.fail(format!("{problem:#}"));
    }
    if let Err(problem) = compare(&run, &proxy, told.pods).await {
        run.outcome.verdict.fail(format!("{problem:#}"));
    } else if run.outcome.verdict.findings.is_empty() {
        run.outcome.verdict.passed = true;
    }
    run.add_floor().await?;
    Ok(run.outcome)
}

/// Has the proxy open its cache, and measures what that takes.
async fn fill(run: &mut Run, proxy: &Administrator, told: Told) -> Result<()> {
    // What a first cache takes once, its connection among it, is no cost of objects.
    let other = Call::read("/api/v1/services?resourceVersion=0&limit=1").json();
    proxy
        .client()
        .call(&other, TIMEOUT)
        .await
        .context("list services")?;
    sleep(LOOK).await;
    let before = run.sample();
    let list = Call::read("/api/v1/pods?resourceVersion=0&limit=1").json();
    let started = Instant::now();
    let mut held = 0.0;
    while held < told.pods as f64 {
        ensure!(
            started.elapsed() < TIMEOUT,
            "the proxy holds {held} of {} pods after a minute",
            told.pods
        );
        proxy
            .client()
            .call(&list, TIMEOUT)
            .await
            .context("list pods")?;
        sleep(LOOK).await;
        held = metric(run, "watershed_watch_cache_objects").await?;
    }
    let after = at_rest(run).await;
    let torrent = Torrent::new(told.pods);
    let sent = torrent.bytes() as f64;
    let accounted = metric(run, "watershed_watch_cache_bytes").await?;
    run.outcome.add("bytes of all pods", sent, Unit::Bytes);
    let from = "what the proxy accounts for, over the bytes";
    run.outcome
        .derive("accounted memory", accounted / sent, Unit::Ratio, from);
    if let Some((before, after)) = before.zip(after) {
        let grown = after.resident.saturating_sub(before.resident) as f64;
        let from = "growth of resident memory while the cache was filled, over the bytes";
        run.outcome
            .derive("cache memory", grown / sent, Unit::Ratio, from);
        let from = "accounted over resident growth; 1 is exact";
        run.outcome
            .derive("accounting", accounted / grown.max(1.0), Unit::Ratio, from);
    }
    Ok(())
}

/// The process once what filling took is given back: allocators do so in seconds.
async fn at_rest(run: &Run) -> Option<Sample> {
    let mut last = run.sample()?;
    for _ in 0..REST_MAX.as_secs() / REST.as_secs() {
        sleep(REST).await;
        let now = run.sample()?;
        let is_steady = now.resident + STEADY >= last.resident;
        last = now;
        if is_steady {
            break;
        }
    }
    Some(last)
}

/// Updates without a limit.
async fn flood(run: &mut Run) -> Result<()> {
    let duration = run.seconds(10);
    control(run, "?events=1000000000").await?;
    sleep(Duration::from_secs(1)).await; // windows open
    let (mark, started) = (run.mark(), Instant::now());
    let first = applied(run).await?;
    let mut progress = Progress::new("seconds of updates", duration.as_secs() as usize);
    let mut lags = Vec::new();
    while started.elapsed() < duration && !run.stop.is_cancelled() {
        sleep(LOOK).await;
        let applied = applied(run).await?;
        let sent = control(run, "").await?.sent;
        let at = started.elapsed().as_secs_f64();
        lags.push((at, sent.saturating_sub(applied) as f64));
        progress.at(at as usize);
    }
    let cost = run.since(&mark);
    let events = applied(run).await? - first;
    progress.done();
    control(run, "?stop").await?;
    let rate = events as f64 / started.elapsed().as_secs_f64();
    run.outcome.add("updates applied", rate, Unit::PerSecond);
    if let Some(cpu) = cost.per(events) {
        run.outcome
            .derive("CPU per update", cpu, Unit::Micros, ALL_CPU);
        let from = "if one core did all of it";
        run.outcome
            .derive("updates per core", 1e6 / cpu, Unit::PerSecond, from);
    }
    run.add_cost("updates", &cost);
    let half = lags.len() / 2;
    let mean = |part: &[(f64, f64)]| {
        part.iter().map(|(_, lag)| lag).sum::<f64>() / part.len().max(1) as f64
    };
    let (early, late) = (mean(&lags[..half]), mean(&lags[half..]));
    let from = "updates sent and not applied, windows of HTTP/2 included; mean of the half";
    run.outcome
        .derive("lag, first half", early, Unit::Count, from);
    run.outcome
        .derive("lag, second half", late, Unit::Count, from);
    run.outcome.plots.push(Plot {
        title: "Lag".into(),
        x: "seconds".into(),
        y: "updates sent and not applied".into(),
        log_x: false,
        series: vec![Series {
            name: "proxy".into(),
            points: lags,
        }],
    });
    Ok(())
}

/// A watch through the proxy sees every update once, in order.
async fn watched(run: &Run, proxy: &Administrator) -> Result<()> {
    settle(run).await?;
    let first = control(run, "").await?.sent;
    let from = FIRST_VERSION + first;
    let call = Call::read(format!("/api/v1/pods?watch=true&resourceVersion={from}")).json();
    let answer = proxy.client().open(&call).await.context("watch pods")?;
    ensure!(
        answer.status() == StatusCode::OK,
        "the watch: {}",
        answer.status()
    );
    let mut body = answer.into_body();
    let release = async {
        for _ in 0..WATCHED / WATCHED_AT_ONCE {
            control(run, &format!("?events={WATCHED_AT_ONCE}")).await?;
            sleep(WATCHED_PAUSE).await;
        }
        Ok(())
    };
    let see = async {
        let (mut next, mut rest) = (from + 1, Vec::new());
        while next <= from + WATCHED {
            let chunk = timeout(TIMEOUT, read(&mut body)).await;
            let chunk = chunk.context("wait for an update")??;
            let chunk = chunk.context("the watch ended early")?;
            rest.extend_from_slice(&chunk);
            let whole = rest.iter().rposition(|byte| *byte == b'\n');
            let whole = whole.map_or(0, |end| end + 1);
            for line in rest[..whole].split(|byte| *byte == b'\n') {
                next += u64::from(is_update(line, next)?);
            }
            rest.drain(..whole);
        }
        Ok(())
    };
    tokio::try_join!(release, see).map(|((), ())| ())
}

/// Whether the line is the update at this version; bookmarks are none.
fn is_update(line: &[u8], version: u64) -> Result<bool> {
    if line.is_empty() {
        return Ok(false);
    }
    let frame: Value = serde_json::from_slice(line).context("read a frame")?;
    let metadata = &frame["object"]["metadata"];
    let found = metadata["resourceVersion"].as_str().unwrap_or_default();
    match frame["type"].as_str() {
        Some("BOOKMARK") => Ok(false),
        Some("MODIFIED") if found == version.to_string() => {
            ensure!(
                metadata["annotations"]["counter"] == found,
                "mixed: {frame}"
            );
            Ok(true)
        }
        _ => bail!("expected the update at {version}, found {frame}"),
    }
}

/// Waits until everything sent was applied.
async fn settle(run: &Run) -> Result<()> {
    let started = Instant::now();
    loop {
        let sent = control(run, "").await?.sent;
        let applied = applied(run).await?;
        if applied == sent {
            return Ok(());
        }
        ensure!(started.elapsed() < TIMEOUT, "{applied} of {sent} applied");
        sleep(LOOK).await;
    }
}

/// Every pod is listed through the proxy at the version it was told at last.
async fn compare(run: &Run, proxy: &Administrator, pods: u64) -> Result<()> {
    let updates = control(run, "").await?.sent;
    let call = Call::read("/api/v1/pods?resourceVersion=0").json().plain();
    let answer = proxy.client().call(&call, TIMEOUT).await.context("list")?;
    let list: Value = serde_json::from_slice(&answer.body).context("read the list")?;
    let items = list["items"].as_array().context("a list of items")?;
    ensure!(
        items.len() as u64 == pods,
        "{} pods are listed",
        items.len()
    );
    let torrent = Torrent::new(pods);
    for item in items {
        let metadata = &item["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let number = name.strip_prefix("app-").and_then(|text| text.parse().ok());
        let number = number.with_context(|| format!("a pod called {name}"))?;
        let expected = torrent.version(number, updates).to_string();
        let found = &metadata["resourceVersion"];
        ensure!(*found == expected, "{name} is at {found}, not {expected}");
    }
    Ok(())
}

/// Updates the proxy has applied.
async fn applied(run: &Run) -> Result<u64> {
    let version = metric(run, "watershed_watch_cache_resource_version").await?;
    Ok((version as u64).saturating_sub(FIRST_VERSION))
}

async fn metric(run: &Run, name: &str) -> Result<f64> {
    let admin = run.target.admin.as_ref();
    let admin = admin.context("ingest needs --admin, where the proxy says how far it is")?;
    let metrics = Metrics::fetch(admin).await?;
    Ok(metrics.sum(name, &LABELS).unwrap_or_default())
}

async fn control(run: &Run, query: &str) -> Result<Told> {
    let call = Call::read(format!("/debug/torrent{query}")).json();
    let answer = run.admin.client().call(&call, TIMEOUT).await?;
    ensure!(
        answer.status == StatusCode::OK,
        "ingest needs --apiserver, and there `watershed-loadtest apiserver --torrent 100000`"
    );
    serde_json::from_slice(&answer.body).context("read /debug/torrent")
}
