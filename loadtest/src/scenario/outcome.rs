//! The result of a run: verdict, figures, curves. JSON first; tables and plots derive from it.
//!
//! Owns the shape of the JSON and the plain table. Refuses layout: pages are `report`'s.
//! Invariant: a figure that was not measured says where it comes from.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::measure::LatencySummary;
use crate::measure::verdict::Verdict;

/// Unit of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Unit {
    /// A number of things.
    Count,
    /// Things per second.
    PerSecond,
    /// Seconds.
    Seconds,
    /// Microseconds.
    Micros,
    /// Bytes.
    Bytes,
    /// A ratio.
    Ratio,
}

/// One figure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// What it is.
    pub name: String,
    /// Its value in `unit`.
    pub value: f64,
    /// Its unit.
    pub unit: Unit,
    /// How a derived figure was derived; none for a measured one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub derived_from: Option<String>,
}

impl Metric {
    /// The value as people read it.
    #[must_use]
    pub fn display(&self) -> String {
        let value = self.value;
        match self.unit {
            Unit::Count => grouped(value),
            Unit::PerSecond => format!("{}/s", short(value)),
            Unit::Seconds => format!("{} s", short(value)),
            Unit::Micros if value >= 10_000.0 => format!("{} ms", short(value / 1000.0)),
            Unit::Micros => format!("{} µs", short(value)),
            Unit::Bytes => bytes(value),
            Unit::Ratio => format!("{value:.2}"),
        }
    }
}

/// Bytes in binary units.
#[must_use]
pub fn bytes(value: f64) -> String {
    let mut value = value;
    let mut unit = "B";
    for next in ["KiB", "MiB", "GiB", "TiB"] {
        if value.abs() < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = next;
    }
    format!("{} {unit}", short(value))
}

fn short(value: f64) -> String {
    match value.abs() {
        100.0.. => grouped(value),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A whole number with thousands apart.
#[must_use]
pub fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut text = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A line of a plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Series {
    /// What it is.
    pub name: String,
    /// x and y.
    pub points: Vec<(f64, f64)>,
}

/// A plot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plot {
    /// Heading.
    pub title: String,
    /// Label of the x axis; empty where each line is one value, drawn as a bar.
    pub x: String,
    /// Label of the y axis.
    pub y: String,
    /// Whether x is logarithmic.
    pub log_x: bool,
    /// The lines.
    pub series: Vec<Series>,
}

impl Plot {
    /// Whether every line is one value.
    #[must_use]
    pub fn is_bars(&self) -> bool {
        self.x.is_empty()
    }
}

/// The result of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Outcome {
    /// The scenario, or `demo`.
    pub name: String,
    /// Where and with what, in words.
    pub settings: Vec<(String, String)>,
    /// Correctness.
    pub verdict: Verdict,
    /// Figures in order of interest.
    pub metrics: Vec<Metric>,
    /// From sending a write to its event.
    pub latency: LatencySummary,
    /// Curves.
    pub plots: Vec<Plot>,
    /// An earlier run, shown beside this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Box<Self>>,
}

impl Outcome {
    /// An outcome without figures yet.
    #[must_use]
    pub fn new(name: &str, settings: Vec<(String, String)>) -> Self {
        Self {
            name: name.to_owned(),
            settings,
            verdict: Verdict::default(),
            metrics: Vec::new(),
            latency: LatencySummary::default(),
            plots: Vec::new(),
            compared: None,
        }
    }

    /// Shows an earlier run beside this one.
    ///
    /// # Errors
    /// When the file cannot be read or is no result of a run.
    pub fn compare(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read(path).with_context(|| format!("read {}", path.display()))?;
        let earlier: Self = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no result of a run", path.display()))?;
        self.compared = Some(Box::new(earlier));
        Ok(())
    }

    /// The figure of that name in the run that is compared.
    #[must_use]
    pub fn compared_to(&self, name: &str) -> Option<&Metric> {
        let metrics = &self.compared.as_ref()?.metrics;
        metrics.iter().find(|metric| metric.name == name)
    }

    /// Adds a measured figure.
    pub fn add(&mut self, name: &str, value: f64, unit: Unit) {
        self.metrics.push(Metric {
            name: name.to_owned(),
            value,
            unit,
            derived_from: None,
        });
    }

    /// Adds a figure that was calculated from others.
    pub fn derive(&mut self, name: &str, value: f64, unit: Unit, from: &str) {
        let derived_from = Some(from.to_owned());
        self.metrics.push(Metric {
            name: name.to_owned(),
            value,
            unit,
            derived_from,
        });
    }

    /// Adds a latency as figures.
    pub fn add_latency(&mut self, what: &str, latency: &LatencySummary) {
        if latency.count == 0 {
            return;
        }
        for (name, value) in [
            ("p50", latency.p50),
            ("p90", latency.p90),
            ("p99", latency.p99),
            ("p99.9", latency.p999),
            ("max", latency.max),
        ] {
            self.add(&format!("{what}, {name}"), value as f64, Unit::Micros);
        }
    }

    /// Sets the latency of delivery, with its curve.
    pub fn set_latency(&mut self, latency: LatencySummary) {
        self.add_latency("write to event", &latency);
        if latency.count > 0 {
            let points = latency
                .curve
                .iter()
                .map(|(micros, share)| (*micros as f64 / 1000.0, *share));
            self.plots.push(Plot {
                title: "Write to event".into(),
                x: "latency (ms)".into(),
                y: "share of events".into(),
                log_x: true,
                series: vec![Series {
                    name: "all events".into(),
                    points: points.collect(),
                }],
            });
        }
        self.latency = latency;
    }

    /// What was loaded: the setting `target`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        let setting = self.settings.iter().find(|(name, _)| name == "target");
        setting.map_or(self.name.as_str(), |(_, value)| value)
    }

    /// The outcome as plain text.
    #[must_use]
    pub fn table(&self) -> String {
        let mut text = format!("{}\n", self.name);
        let names = self.settings.iter().map(|(name, _)| name.chars().count());
        let names = names.chain(
            self.metrics
                .iter()
                .map(|metric| metric.name.chars().count()),
        );
        let width = names.max().unwrap_or(0);
        for (name, value) in &self.settings {
            let _ = writeln!(text, "  {name:width$}  {value}");
        }
        if let Some(compared) = &self.compared {
            let other = compared.endpoint();
            let _ = writeln!(text, "  {:width$}  {:>12}  {other:>12}", "", "this run");
        }
        for metric in &self.metrics {
            let from = metric
                .derived_from
                .as_ref()
                .map(|from| format!("  ({from})"));
            let (name, value, from) = (&metric.name, metric.display(), from.unwrap_or_default());
            let other = self.compared.as_ref().map(|_| {
                let other = self.compared_to(name).map(Metric::display);
                format!("  {:>12}", other.unwrap_or_default())
            });
            let other = other.unwrap_or_default();
            let _ = writeln!(text, "  {name:width$}  {value:>12}{other}{from}");
        }
        let _ = write!(text, "{}", verdict(&self.verdict));
        text
    }
}

/// The verdict in one line, and its findings. Of watches only where there were any.
#[must_use]
pub fn verdict(verdict: &Verdict) -> String {
    let word = if verdict.passed { "passed" } else { "FAILED" };
    let Verdict {
        lost,
        doubled,
        reordered,
        errors,
        compared,
        ..
    } = verdict;
    let mut text = format!("verdict: {word}: ");
    if *compared > 0 {
        let watches = grouped(*compared as f64);
        let _ = write!(
            text,
            "{watches} watches compared, {lost} lost, {doubled} doubled, {reordered} reordered, "
        );
    }
    let _ = write!(text, "{errors} errors");
    for finding in &verdict.findings {
        let _ = write!(text, "\n  {finding}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_three_digits_and_a_fitting_unit() {
        let show = |value, unit| {
            Metric {
                name: String::new(),
                value,
                unit,
                derived_from: None,
            }
            .display()
        };
        assert_eq!(show(1_234_567.0, Unit::Count), "1,234,567");
        assert_eq!(show(495.0 * 1024.0, Unit::Bytes), "495 KiB");
        assert_eq!(show(12_345.0, Unit::Micros), "12.3 ms");
        assert_eq!(show(6.54, Unit::Micros), "6.54 µs");
        assert_eq!(show(42.0, Unit::PerSecond), "42.0/s");
    }
}
