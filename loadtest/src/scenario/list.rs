//! LIST of nodes at resourceVersion=0, one after the other, as an administrator: a kubelet may list
//! no node but its own. Then many such lists at once whose clients do not read.

use std::time::Duration;

use anyhow::{Result, ensure};
use http::StatusCode;

use super::outcome::Unit;
use super::reads::{Loop, add_cpu, populate};
use super::run::Run;
use super::{Administrator, Outcome, Progress};
use crate::kubelet::client::{Call, read};

const TARGET: &str = "/api/v1/nodes?resourceVersion=0";
/// Lists whose clients stop reading after the first piece.
const STALLED: usize = 50;
/// A body shorter than this is taken whole by the buffers between server and client.
const STALLS_FROM: usize = 16 << 20;
/// Until buffers are full, and memory that was used meanwhile is given back.
const SETTLE: Duration = Duration::from_secs(3);

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let objects = run.arguments.objects.unwrap_or(2_000);
    let bytes = run.arguments.object_bytes.unwrap_or(750);
    run.note("objects", objects);
    run.note("bytes of an object", bytes);
    populate(&run, objects, bytes).await?;
    let forms = [
        ("JSON list", Call::read(TARGET).json().plain()),
        ("protobuf list", Call::read(TARGET).plain()),
        ("JSON list, gzip", Call::read(TARGET).json()),
    ];
    let duration = run.seconds(30) / forms.len() as u32;
    let mut seen = Vec::new();
    for (what, call) in forms {
        let asked = Loop {
            what,
            call,
            duration,
            connections: run.arguments.connections.unwrap_or(1),
        };
        seen.push((what, asked.run(&run).await?));
    }
    let floor = run.add_floor().await?;
    let mut longest = 0;
    for (what, seen) in seen {
        longest = longest.max(seen.bytes);
        run.outcome
            .add(&format!("{what}s"), seen.count as f64, Unit::Count);
        run.outcome
            .add(&format!("{what}, bytes"), seen.bytes as f64, Unit::Bytes);
        run.outcome.add_latency(what, &seen.whole);
        run.outcome
            .add_latency(&format!("{what}, first byte"), &seen.first_byte);
        add_cpu(&mut run, what, seen.cpu, floor);
    }
    if longest >= STALLS_FROM {
        stall(&mut run).await?;
    }
    run.outcome.verdict.passed = true;
    Ok(run.outcome)
}

/// What a list costs the server beyond its cache while the client does not read.
async fn stall(run: &mut Run) -> Result<()> {
    let reader = Administrator::at(&run.target, &run.target.url)?;
    reader.check().await?;
    tokio::time::sleep(SETTLE).await;
    let before = run.sample();
    let call = Call::read(TARGET).json().plain();
    let mut progress = Progress::new("lists that stall", STALLED);
    let mut open = Vec::new();
    for index in 0..STALLED {
        let (head, mut body) = reader.client().open(&call).await?.into_parts();
        ensure!(
            head.status == StatusCode::OK,
            "the answer is {}",
            head.status
        );
        ensure!(read(&mut body).await?.is_some(), "a list is empty");
        open.push(body);
        progress.at(index + 1);
    }
    progress.done();
    tokio::time::sleep(SETTLE).await;
    if let Some((before, after)) = before.zip(run.sample()) {
        let grown = after.resident as f64 - before.resident as f64;
        let from = format!("growth of resident memory over {STALLED} lists nobody reads");
        let each = grown / STALLED as f64;
        run.outcome
            .derive("memory of a stalled list", each, Unit::Bytes, &from);
    }
    drop(open);
    Ok(())
}
