//! What a proxy adds to a request it forwards: the same GET and PUT through the target and directly
//! at the apiserver, in turns.
//!
//! Owns the turns. Both ways are measured in the same moments, so that whatever else happens on the
//! machine happens to both, and who goes first changes with every round.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::outcome::Unit;
use super::reads::{TIMEOUT, node, populate};
use super::run::{ALL_CPU, Run};
use super::{Administrator, Outcome, Progress};
use crate::kubelet::client::Call;
use crate::measure::Latency;

const NAMESPACE: &str = "/api/v1/namespaces/default/configmaps";
const NAME: &str = "passed-through";
/// Rounds that are not measured.
const WARM_UP: u64 = 50;
/// Rounds a second at most: what is asked is latency, not throughput.
const PACE: Duration = Duration::from_millis(4);

/// A way to the apiserver, and how long requests took on it.
struct Way {
    client: Administrator,
    get: Latency,
    put: Latency,
}

impl Way {
    async fn to(run: &Run, url: &str) -> Result<Self> {
        let client = Administrator::at(&run.target, url)?;
        client.check().await?;
        Ok(Self {
            client,
            get: Latency::default(),
            put: Latency::default(),
        })
    }

    /// One GET of a subresource, which no cache holds, and one PUT.
    async fn round(&self, round: u64) -> Result<()> {
        let get = Call::read(format!("/api/v1/nodes/{}/status", node(0))).json();
        self.get.record(self.ask(&get, StatusCode::OK).await?);
        let body = object(round).to_string();
        let path = format!("{NAMESPACE}/{NAME}");
        let put = Call::write(Method::PUT, path, "application/json", body).json();
        self.put.record(self.ask(&put, StatusCode::OK).await?);
        Ok(())
    }

    async fn ask(&self, call: &Call, expected: StatusCode) -> Result<Duration> {
        let asked = Instant::now();
        let answer = self.client.client().call(call, TIMEOUT).await?;
        let taken = asked.elapsed();
        ensure!(answer.status == expected, "the answer is {}", answer.status);
        Ok(taken)
    }
}

fn object(round: u64) -> serde_json::Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME},
        "data": {"round": round.to_string(), "filling": "x".repeat(900)},
    })
}

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let apiserver = run.target.apiserver.clone();
    let apiserver = apiserver.context("say where the apiserver is, with --apiserver")?;
    populate(&run, 1, 1024).await?;
    let create = object(0).to_string();
    let create = Call::write(Method::POST, NAMESPACE, "application/json", create).json();
    let created = run.admin.client().call(&create, TIMEOUT).await?.status;
    ensure!(
        matches!(created, StatusCode::CREATED | StatusCode::CONFLICT),
        "create a ConfigMap: {created}"
    );
    let through = Way::to(&run, &run.target.url).await?;
    let direct = Way::to(&run, &apiserver).await?;
    for round in 0..WARM_UP {
        through.round(round).await?;
        direct.round(round).await?;
    }
    for way in [&through, &direct] {
        let _ = (way.get.take(), way.put.take());
    }
    let duration = run.seconds(20);
    let mut progress = Progress::new("seconds of requests", duration.as_secs() as usize);
    let mut pace = tokio::time::interval(PACE);
    let (mark, begun, mut round) = (run.mark(), Instant::now(), 0);
    while begun.elapsed() < duration && !run.stop.is_cancelled() {
        pace.tick().await;
        let ways = if round % 2 == 0 {
            [&through, &direct]
        } else {
            [&direct, &through]
        };
        for way in ways {
            way.round(round).await?;
        }
        round += 1;
        progress.at(begun.elapsed().as_secs() as usize);
    }
    let cost = run.since(&mark);
    progress.done();
    run.outcome.add("rounds", round as f64, Unit::Count);
    for (what, through, direct) in [
        ("GET", &through.get, &direct.get),
        ("PUT", &through.put, &direct.put),
    ] {
        let (through, direct) = (through.summary(), direct.summary());
        run.outcome
            .add_latency(&format!("{what} through the target"), &through);
        run.outcome
            .add_latency(&format!("{what} directly"), &direct);
        for (quantile, through, direct) in [
            ("p50", through.p50, direct.p50),
            ("p99", through.p99, direct.p99),
        ] {
            let added = through as f64 - direct as f64;
            let name = format!("{what}, {quantile} added");
            let from = "through the target less directly, same run";
            run.outcome.derive(&name, added, Unit::Micros, from);
        }
    }
    let floor = run.add_floor().await?;
    if let Some(cpu) = cost.per(2 * round) {
        let from = format!("{ALL_CPU} over requests through it");
        run.outcome
            .derive("CPU per forwarded request", cpu, Unit::Micros, &from);
        run.outcome
            .derive("the same over the floor", cpu / floor, Unit::Ratio, &from);
    }
    run.outcome.verdict.passed = true;
    Ok(run.outcome)
}
