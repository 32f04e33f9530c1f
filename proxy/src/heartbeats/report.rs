//! What `/debug/heartbeats` shows of one node, or of all.
//!
//! Owns: the JSON of the answer. Times of a kubelet are as it said them; all others are seconds ago
//! or from now, by this replica's clock.

use serde::Serialize;
use watershed_heartbeats::{Honesty, Moment};

use super::Absorber;

/// What is known of one node.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfNode<'a> {
    node: &'a str,
    last_heard: Time,
    last_written: Time,
    /// Negative when the next renewal will be written.
    next_due_in_seconds: Option<f64>,
    interval_seconds: Option<f64>,
    contested: bool,
    absorbing: bool,
}

/// A renewal.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Time {
    renew_time: String,
    /// Since it was heard here; nothing if only the store has told of it.
    heard_seconds_ago: Option<f64>,
}

/// What is known of all.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OfAll {
    nodes: usize,
    absorbing: bool,
    state: &'static str,
    oldest_unwritten_seconds: Option<f64>,
    deadline_misses: u64,
    writes_waiting: usize,
    writes_under_way: u32,
    writes_allowed: u32,
}

impl Absorber {
    /// The report of `node`, or of all without one, as JSON with a final newline. `None` for a node
    /// that is not known here.
    pub(crate) fn report(&self, node: Option<&str>) -> Option<String> {
        let mut text = match node {
            Some(node) => serde_json::to_string_pretty(&self.of_node(node)?),
            None => serde_json::to_string_pretty(&self.of_all()),
        }
        .expect("plain data is JSON");
        text.push('\n');
        Some(text)
    }

    fn of_node<'a>(&self, node: &'a str) -> Option<OfNode<'a>> {
        self.ledger.with(|now, table| {
            let report = table.report(now, node)?;
            let ago = |at: Option<Moment>| at.map(|at| now.since(at).as_secs_f64());
            let due = report.due_at.map(|due| {
                let ahead = due.since(now).as_secs_f64();
                ahead - now.since(due).as_secs_f64()
            });
            Some(OfNode {
                node,
                last_heard: Time {
                    renew_time: report.heard.to_json(),
                    heard_seconds_ago: ago(report.heard_at),
                },
                last_written: Time {
                    renew_time: report.written.to_json(),
                    heard_seconds_ago: ago(report.written_at),
                },
                next_due_in_seconds: due,
                interval_seconds: report.interval.map(|it| it.as_secs_f64()),
                contested: report.contested,
                absorbing: table.honesty(now) == Honesty::Honest && !report.contested,
            })
        })
    }

    fn of_all(&self) -> OfAll {
        self.ledger.with(|now, table| {
            let honesty = table.honesty(now);
            let oldest = table.oldest_unwritten();
            let (writes_waiting, writes_under_way, writes_allowed) = table.writes();
            OfAll {
                nodes: table.len(),
                absorbing: honesty == Honesty::Honest,
                state: match honesty {
                    Honesty::Honest => "absorbing",
                    Honesty::Unproven => "writing every renewal: no write has arrived lately",
                    Honesty::Shedding => "refusing renewals: all writes fail",
                },
                oldest_unwritten_seconds: oldest.map(|oldest| now.since(oldest).as_secs_f64()),
                deadline_misses: table.deadline_misses(),
                writes_waiting,
                writes_under_way,
                writes_allowed,
            }
        })
    }
}
