//! The live table: drawn over itself on a terminal, plain lines elsewhere.
//!
//! Owns columns and cursor movements. Refuses numbers of its own.
//! Invariant: without a terminal no control character is written.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use super::tally::Row;
use crate::scenario::{bytes, grouped};

/// Seconds between lines when there is no terminal.
const LINE_PERIOD: u64 = 5;

pub(super) struct Screen {
    is_terminal: bool,
    height: usize,
    shown: u64,
}

impl Screen {
    pub(super) fn new() -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            height: 0,
            shown: 0,
        }
    }

    /// Shows a row; on a terminal in place of the last.
    pub(super) fn show(&mut self, row: &Row, at: Duration, of: Option<Duration>) {
        self.shown += 1;
        let mut out = std::io::stdout().lock();
        if self.is_terminal {
            let table = table(row, at, of);
            if self.height > 0 {
                let _ = write!(out, "\x1b[{}A\x1b[J", self.height);
            }
            let _ = out.write_all(table.as_bytes());
            self.height = table.lines().count();
        } else if self.shown % LINE_PERIOD == 1 {
            let _ = writeln!(out, "{}", line(row, at));
        }
        let _ = out.flush(); // a closed stdout must not end the demo
    }

    /// The last table stays.
    pub(super) fn done(&mut self) {
        self.height = 0;
    }
}

fn table(row: &Row, at: Duration, of: Option<Duration>) -> String {
    let clock = match of {
        Some(of) => format!("{} of {} s", at.as_secs(), of.as_secs()),
        None => format!("{} s, Ctrl-C ends", at.as_secs()),
    };
    let rows = [
        (
            "kubelets",
            grouped(row.kubelets as f64),
            "client watches",
            grouped(row.client_watches as f64),
        ),
        (
            "upstream watches",
            optional(row.upstream_watches.map(|n| n as f64)),
            "faults",
            row.faults.to_string(),
        ),
        (
            "events in",
            format!("{}/s", grouped(row.writes)),
            "events out",
            format!("{}/s", grouped(row.events)),
        ),
        (
            "latency p50",
            millis(row.latency.p50),
            "latency p99",
            millis(row.latency.p99),
        ),
        (
            "proxy caches",
            size(row.caches),
            "process memory",
            size(row.resident.map(|n| n as f64)),
        ),
        (
            "apiserver reads",
            rate(row.reads),
            "apiserver leases",
            rate(row.leases),
        ),
        ("apiserver others", rate(row.others), "time", clock),
    ];
    let mut text = String::from("\n");
    for (name, value, other, second) in rows {
        text += &format!("  {name:<18}{value:>12}    {other:<18}{second:>16}\n");
    }
    text
}

fn line(row: &Row, at: Duration) -> String {
    format!(
        "{:>4} s  kubelets {}  client watches {}  upstream watches {}  in {}/s  out {}/s  p50 {}  p99 {}  \
         caches {}  memory {}  apiserver reads {} leases {} others {}  faults {}",
        at.as_secs(),
        grouped(row.kubelets as f64),
        grouped(row.client_watches as f64),
        optional(row.upstream_watches.map(|n| n as f64)),
        grouped(row.writes),
        grouped(row.events),
        millis(row.latency.p50),
        millis(row.latency.p99),
        size(row.caches),
        size(row.resident.map(|n| n as f64)),
        rate(row.reads),
        rate(row.leases),
        rate(row.others),
        row.faults,
    )
}

fn optional(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), grouped)
}

fn rate(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{}/s", grouped(value)))
}

fn size(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), bytes)
}

fn millis(micros: u64) -> String {
    format!("{:.1} ms", micros as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_no_control_characters_and_shows_absent_numbers_as_absent() {
        let row = Row {
            kubelets: 2000,
            client_watches: 16_000,
            ..Row::default()
        };
        let line = line(&row, Duration::from_secs(5));
        assert!(line.chars().all(|c| !c.is_control()), "{line}");
        assert!(
            line.contains("client watches 16,000  upstream watches -  in 0/s"),
            "{line}"
        );
    }
}
