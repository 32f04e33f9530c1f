//! What scenarios of single requests stand on: objects to read, and the cost of reading them.
//!
//! Owns a population of nodes of a chosen size, and one loop of requests under measurement. Refuses
//! kubelets: an administrator asks, one request after the other on each connection, so that what is
//! measured is the request and not a queue.
//! Invariant: an answer that is not 200, or much longer or shorter than the first one, fails the run.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use futures_util::{StreamExt as _, stream};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::outcome::Unit;
use super::run::{ALL_CPU, Run};
use super::{Administrator, Progress};
use crate::kubelet::client::{Call, read};
use crate::measure::{Latency, LatencySummary};

/// Creations in flight at one time.
const CREATIONS_MAX: usize = 128;
/// Time for one request.
pub(super) const TIMEOUT: Duration = Duration::from_secs(60);
/// What a node takes without its filling, as an apiserver stores it; about.
const NODE_BYTES: usize = 700;
/// Requests that are not measured: connections, caches and memories of permits are made by them.
/// One is enough where it takes long.
const WARM_UP: usize = 20;
const WARM_UP_MAX: Duration = Duration::from_secs(1);

/// Name of the n-th node.
pub(super) fn node(index: usize) -> String {
    format!("read-{index:06}")
}

/// Creates nodes of about `bytes` of JSON each until there are so many, and waits until the target
/// shows them in both encodings.
pub(super) async fn populate(run: &Run, count: usize, bytes: usize) -> Result<()> {
    let client = run.admin.client();
    let mut progress = Progress::new("objects created", count);
    let mut created = stream::iter(0..count)
        .map(|index| async move {
            let call = create(index, bytes);
            let answer = client.call(&call, TIMEOUT).await?;
            match answer.status {
                StatusCode::CREATED | StatusCode::CONFLICT => Ok(()),
                status => bail!("create a node: {status}"),
            }
        })
        .buffer_unordered(CREATIONS_MAX);
    let mut done = 0;
    while let Some(result) = created.next().await {
        result?;
        done += 1;
        progress.at(done);
        ensure!(
            !run.stop.is_cancelled(),
            "stopped before all objects were there"
        );
    }
    progress.done();
    let reader = Administrator::at(&run.target, &run.target.url)?;
    reader.check().await?;
    // A read without a version shows everything that was written before it.
    let call = Call::read(format!("/api/v1/nodes/{}", node(0)));
    for call in [call.clone(), call.json()] {
        let answer = reader.client().call(&call, TIMEOUT).await?;
        ensure!(
            answer.status == StatusCode::OK,
            "read a node: {}",
            answer.status
        );
    }
    Ok(())
}

fn create(index: usize, bytes: usize) -> Call {
    let name = node(index);
    let mut random = fastrand::Rng::with_seed(index as u64);
    let filling = (0..bytes.saturating_sub(NODE_BYTES)).map(|_| random.alphanumeric());
    let body = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": name,
            "annotations": {"load.watershed.dev/filling": filling.collect::<String>()},
        },
    });
    Call::write(
        Method::POST,
        "/api/v1/nodes",
        "application/json",
        body.to_string(),
    )
    .json()
}

/// One request, over and over.
pub(super) struct Loop<'a> {
    /// What the figures are called.
    pub(super) what: &'a str,
    pub(super) call: Call,
    pub(super) duration: Duration,
    /// Connections that ask at once.
    pub(super) connections: usize,
}

/// What a loop saw.
pub(super) struct Seen {
    /// Answers.
    pub(super) count: u64,
    /// Length of one body as it was sent.
    pub(super) bytes: usize,
    pub(super) first_byte: LatencySummary,
    pub(super) whole: LatencySummary,
    /// CPU of the measured process per answer, microseconds.
    pub(super) cpu: Option<f64>,
}

impl Loop<'_> {
    /// Asks until the time is over.
    pub(super) async fn run(self, run: &Run) -> Result<Seen> {
        let mut readers = Vec::new();
        for _ in 0..self.connections.max(1) {
            let reader = Administrator::at(&run.target, &run.target.url)?;
            let begun = Instant::now();
            for _ in 0..WARM_UP {
                ask(&reader, &self.call).await.context("warm up")?;
                if begun.elapsed() > WARM_UP_MAX {
                    break;
                }
            }
            readers.push(reader);
        }
        let (first_byte, whole) = (Latency::default(), Latency::default());
        let mut progress = Progress::new("seconds of requests", self.duration.as_secs() as usize);
        let (mark, begun) = (run.mark(), Instant::now());
        let asking = readers.iter().map(|reader| async {
            let (mut count, mut bytes) = (0_u64, None);
            while begun.elapsed() < self.duration && !run.stop.is_cancelled() {
                let answered = ask(reader, &self.call).await?;
                let expected = *bytes.get_or_insert(answered.bytes);
                ensure!(
                    expected.abs_diff(answered.bytes) <= 64 + expected / 100,
                    "answers to {} have different lengths",
                    self.what
                );
                first_byte.record(answered.first_byte);
                whole.record(answered.whole);
                count += 1;
            }
            Ok((count, bytes.unwrap_or_default()))
        });
        let asking = futures_util::future::try_join_all(asking);
        let mut asking = std::pin::pin!(asking);
        let answers = loop {
            tokio::select! {
                answers = &mut asking => break answers?,
                () = tokio::time::sleep(Duration::from_secs(1)) => {
                    progress.at(begun.elapsed().as_secs() as usize);
                }
            }
        };
        let cost = run.since(&mark);
        progress.done();
        let count = answers.iter().map(|(count, _)| count).sum();
        Ok(Seen {
            count,
            bytes: answers.first().map_or(0, |(_, bytes)| *bytes),
            first_byte: first_byte.summary(),
            whole: whole.summary(),
            cpu: cost.per(count),
        })
    }
}

struct Answered {
    bytes: usize,
    first_byte: Duration,
    whole: Duration,
}

async fn ask(reader: &Administrator, call: &Call) -> Result<Answered> {
    let asking = async {
        let asked = Instant::now();
        let (head, mut body) = reader.client().open(call).await?.into_parts();
        ensure!(
            head.status == StatusCode::OK,
            "the answer is {}",
            head.status
        );
        let (mut bytes, mut first_byte) = (0, None);
        while let Some(piece) = read(&mut body).await? {
            bytes += piece.len();
            first_byte.get_or_insert_with(|| asked.elapsed());
        }
        Ok(Answered {
            bytes,
            first_byte: first_byte.unwrap_or_else(|| asked.elapsed()),
            whole: asked.elapsed(),
        })
    };
    tokio::time::timeout(TIMEOUT, asking)
        .await
        .context("no answer in time")?
}

/// Adds the CPU of one request, also as a multiple of the floor.
pub(super) fn add_cpu(run: &mut Run, what: &str, cpu: Option<f64>, floor: f64) {
    let Some(cpu) = cpu else {
        return;
    };
    let from = format!("{ALL_CPU} over requests");
    let name = format!("CPU per {what}");
    run.outcome.derive(&name, cpu, Unit::Micros, &from);
    let name = format!("CPU per {what} over the floor");
    run.outcome.derive(&name, cpu / floor, Unit::Ratio, &from);
}
