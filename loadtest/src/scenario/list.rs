//! LIST of nodes at resourceVersion=0, one after the other, as an administrator: a kubelet may list
//! no node but its own.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use http::StatusCode;
use tokio::time::Instant;

use super::bench::Bench;
use super::outcome::Unit;
use super::{Administrator, Outcome, Progress};
use crate::churn::{Churn, ChurnOptions};
use crate::kubelet::client::Call;
use crate::kubelet::decode::List;
use crate::measure::Latency;

const TIMEOUT: Duration = Duration::from_secs(60);

pub(super) async fn run(mut bench: Bench) -> Result<Outcome> {
    bench.start_kubelets(bench.kubelets()).await?;
    let reader = Administrator::at(&bench.target, &bench.target.url)?;
    reader.check().await?;
    for (encoding, call) in [
        ("protobuf", Call::read("/api/v1/nodes?resourceVersion=0")),
        ("JSON", Call::read("/api/v1/nodes?resourceVersion=0").json()),
    ] {
        let latency = Latency::default();
        let (before, started) = (bench.sample(), Instant::now());
        let half = bench.seconds() / 2;
        let mut progress = Progress::new("seconds of lists", half.as_secs() as usize);
        let (mut lists, mut bytes) = (0_u32, 0);
        while started.elapsed() < half {
            let asked = Instant::now();
            let answer = reader.client().call(&call, TIMEOUT).await;
            let answer = answer.context("list nodes")?;
            ensure!(
                answer.status == StatusCode::OK,
                "list nodes: {}",
                answer.status
            );
            latency.record(asked.elapsed());
            if encoding == "protobuf" && lists == 0 {
                let items = List::decode(&answer.body)?.items.len();
                bench
                    .outcome
                    .add("nodes in the list", items as f64, Unit::Count);
            }
            (lists, bytes) = (lists + 1, answer.body.len());
            progress.at(started.elapsed().as_secs() as usize);
        }
        progress.done();
        let outcome = &mut bench.outcome;
        outcome.add(&format!("{encoding} body"), bytes as f64, Unit::Bytes);
        outcome.add_latency(&format!("{encoding} list"), &latency.summary());
        if let Some((before, after)) = before.zip(bench.sample()) {
            let cpu = (after.cpu_seconds - before.cpu_seconds) * 1e6 / f64::from(lists.max(1));
            let from = "all CPU of the process over lists";
            let name = format!("CPU per {encoding} list");
            bench.outcome.derive(&name, cpu, Unit::Micros, from);
        }
    }
    let options = ChurnOptions::new(bench.fleet.nodes());
    let churn = Churn::new(bench.admin.client().clone(), options);
    bench.finish(&churn).await
}
