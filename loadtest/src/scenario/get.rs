//! GET of one node at resourceVersion=0, one after the other on each connection.

use anyhow::Result;

use super::Outcome;
use super::outcome::Unit;
use super::reads::{Loop, add_cpu, node, populate};
use super::run::Run;
use crate::kubelet::client::Call;

pub(super) async fn run(mut run: Run) -> Result<Outcome> {
    let objects = run.arguments.objects.unwrap_or(100);
    let bytes = run.arguments.object_bytes.unwrap_or(1024);
    run.note("objects", objects);
    run.note("bytes of an object", bytes);
    populate(&run, objects, bytes).await?;
    let call = Call::read(format!("/api/v1/nodes/{}?resourceVersion=0", node(0)));
    let forms = [("JSON GET", call.clone().json()), ("protobuf GET", call)];
    let duration = run.seconds(20) / forms.len() as u32;
    let mut seen = Vec::new();
    for (what, call) in forms {
        let asked = Loop {
            what,
            call,
            duration,
            connections: run.arguments.connections.unwrap_or(4),
        };
        seen.push((what, asked.run(&run).await?));
    }
    let floor = run.add_floor().await?;
    for (what, seen) in seen {
        let rate = seen.count as f64 / duration.as_secs_f64();
        run.outcome.add(&format!("{what}s"), rate, Unit::PerSecond);
        run.outcome
            .add(&format!("{what}, bytes"), seen.bytes as f64, Unit::Bytes);
        run.outcome.add_latency(what, &seen.whole);
        add_cpu(&mut run, what, seen.cpu, floor);
    }
    run.outcome.verdict.passed = true;
    Ok(run.outcome)
}
